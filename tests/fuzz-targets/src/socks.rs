//! What a program says to a SOCKS5 proxy. A connection is opened if and only if a reading of RFC 1928 and 1929
//! that stands here finds a request that may be served, and to nowhere else; what follows the request arrives
//! whole; the answers are those of the protocol, success before bytes of the far end and never without a dial.

use bytes::Bytes;
use gkd_proxy::{Credentials, Destination, Host, Target};

use crate::input::Input;
use crate::programs::{Far, Outcome, meet};

const USER: &str = "me";
const PASSWORD: &str = "secret";

/// What the far end says. Not the beginning of any reply.
const GREETING: &[u8] = b"the far end";

/// The first three bytes choose the listener and the far end, the rest is what the program sends.
pub fn socks(data: &[u8]) {
    let mut input = Input::new(data);
    let manner = input.byte();
    let (strict, slowly, proof) = (manner & 1 != 0, manner & 2 != 0, manner & 4 != 0);
    let far = Far { answer: Bytes::from_static(GREETING), ..Far::choose(&mut input) };
    let sent = data.get(3..).unwrap_or_default();
    // What begins otherwise is for HTTP at a mixed listener, and nothing at this one.
    let mixed = manner & 8 != 0 && sent.first() == Some(&5) && !proof;
    let form = match (proof, mixed) {
        (true, _) => format!("socks5://{USER}:{PASSWORD}@0"),
        (_, true) => "mixed://0".to_owned(),
        _ => "socks5://0".to_owned(),
    };
    let outcome = meet(&format!("{form}?strict={}", u8::from(strict)), &far, sent, slowly);
    check(&outcome, &Program::read(sent, proof), &far, strict);
}

/// What a program said, as far as it makes sense.
#[derive(Default)]
struct Program<'a> {
    /// It offered the method that the listener wants.
    method: Option<u8>,
    /// User and password were read whole, and whether they were right.
    proved: Option<bool>,
    /// What it may be connected to, and what it sends there.
    request: Option<(Target, &'a [u8])>,
    /// It may have asked to send datagrams.
    associates: bool,
}

impl<'a> Program<'a> {
    fn read(sent: &'a [u8], proof: bool) -> Self {
        let mut program = Self::default();
        // Where it ends or breaks the form, what was read by then stands.
        let _: Option<()> = program.read_on(sent, proof);
        program
    }

    fn read_on(&mut self, mut rest: &'a [u8], proof: bool) -> Option<()> {
        let wanted = if proof { 2 } else { 0 };
        let [5, count] = *take(&mut rest, 2)? else { return None };
        let methods = take(&mut rest, count.into())?;
        self.method = Some(if methods.contains(&wanted) { wanted } else { 0xff });
        if self.method == Some(0xff) {
            return None;
        }
        if proof {
            take(&mut rest, 1)?;
            let user = text(&mut rest).filter(|user| !user.is_empty())?;
            let password = text(&mut rest).filter(|password| !password.is_empty())?;
            let (user, password) = (str::from_utf8(user).ok()?, str::from_utf8(password).ok()?);
            self.proved = Some((user, password) == (USER, PASSWORD));
            assert_eq!(
                self.proved,
                Credentials::new(USER, PASSWORD).ok().map(|right| right.is(user, password))
            );
            if self.proved == Some(false) {
                return None;
            }
        }
        let [5, command, _, form] = *take(&mut rest, 4)? else { return None };
        // From where, hardly matters.
        self.associates = command == 3;
        let host = match form {
            1 => Host::Ip(<[u8; 4]>::try_from(take(&mut rest, 4)?).ok()?.into()),
            4 => Host::Ip(<[u8; 16]>::try_from(take(&mut rest, 16)?).ok()?.into()),
            3 => Host::parse(str::from_utf8(text(&mut rest)?).ok()?).ok()?,
            _ => return None,
        };
        let port = <[u8; 2]>::try_from(take(&mut rest, 2)?).ok()?;
        let target = Target::new(host, u16::from_be_bytes(port)).ok()?;
        self.request = (command == 1).then_some((target, rest));
        Some(())
    }
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(count)?;
    *rest = behind;
    Some(taken)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = take(rest, 1)?[0];
    take(rest, len.into())
}

fn check(outcome: &Outcome, program: &Program<'_>, far: &Far, strict: bool) {
    let mut answers = &outcome.answered[..];
    // What was on its way when a reset came may be lost, and nothing else.
    let cut = !outcome.whole;
    match (&program.request, &outcome.reached[..]) {
        (None, []) => {}
        (None, [reached]) if program.associates => {
            assert_eq!(reached.destination, Destination::UdpAny.encode(), "another was opened");
        }
        (Some((target, sent)), [reached]) => {
            assert_eq!(reached.destination, Destination::Tcp(target.clone()).encode(), "another was dialled");
            assert!(sent.starts_with(&reached.received), "the far end received what was not sent to it");
            let served = far.dial.is_ok() && !far.breaks;
            assert!(
                !served || reached.received == *sent && reached.whole && !cut,
                "it was not served to the end"
            );
        }
        (request, reached) => panic!("{} dials for the request {request:?}", reached.len()),
    }
    if cut && answers.is_empty() {
        return;
    }
    if let Some(method) = program.method {
        assert_eq!(take(&mut answers, 2), Some(&[5, method][..]), "the method");
    }
    if let Some(proved) = program.proved {
        let [1, status] = *take(&mut answers, 2).unwrap_or_default() else { panic!("no answer to a proof") };
        assert_eq!(status == 0, proved);
    }
    if answers.is_empty() {
        assert!(program.request.is_none() || cut, "a request without a reply");
        return;
    }
    let reply = take(&mut answers, 10).expect("a whole reply");
    if program.associates && !outcome.reached.is_empty() {
        // With the address for its datagrams.
        assert!(reply[0] == 5 && reply[1] <= 8 && reply[2..4] == [0, 1], "{reply:?} is no reply");
        return;
    }
    assert!(
        reply[0] == 5 && reply[1] <= 8 && reply[2..] == [0, 1, 0, 0, 0, 0, 0, 0],
        "{reply:?} is no reply"
    );
    match &program.request {
        Some(_) => assert_eq!(reply[1] == 0, far.dial.is_ok() || !strict, "success and failure are mixed up"),
        None => assert_ne!(reply[1], 0, "success, and nothing was dialled"),
    }
    let expected = if reply[1] == 0 && far.dial.is_ok() { GREETING } else { &[] };
    assert!(expected.starts_with(answers), "{answers:?} stands behind the reply");
    assert!(cut || far.breaks || answers == expected, "the far end's answer is cut");
}
