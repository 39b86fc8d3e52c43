//! What a program says to an HTTP proxy, and what a web server answers. Nothing is dialled that the program did
//! not name, and nothing without its proof where one is asked for. A web server gets one request, in a form that
//! everybody reads alike, without what was for the proxy alone; behind CONNECT the bytes arrive as they are. What
//! the program gets begins with the head of an answer that everybody reads alike.

use gkd_proxy::{Destination, Host};

use crate::input::Input;
use crate::programs::{Far, Outcome, Reached, meet};

/// `me:secret`, as a program proves that it knows them.
const PROOF: &str = "bWU6c2VjcmV0";

/// Stands between what the program sends and what the web server answers.
const BETWEEN: &[u8] = b"\0\0";

/// The first three bytes choose the listener and the far end; then comes what the program sends, two zeros, and
/// what each far end answers.
pub fn http(data: &[u8]) {
    let mut input = Input::new(data);
    let manner = input.byte();
    let far = Far::choose(&mut input);
    let rest = data.get(3..).unwrap_or_default();
    let end = rest.windows(BETWEEN.len()).position(|two| two == BETWEEN);
    let sent = &rest[..end.unwrap_or(rest.len())];
    let answer = end.map_or(&[][..], |end| &rest[end + BETWEEN.len()..]).to_vec().into();
    let far = Far { answer, ..far };
    let (strict, slowly, proof) = (manner & 1 != 0, manner & 2 != 0, manner & 4 != 0);
    let mixed = manner & 8 != 0 && sent.first().is_some_and(u8::is_ascii_alphabetic) && !proof;
    let form = match (proof, mixed) {
        (true, _) => "http://me:secret@0",
        (_, true) => "mixed://0",
        _ => "http://0",
    };
    let outcome = meet(&format!("{form}?strict={}", u8::from(strict)), &far, sent, slowly);
    check(&outcome, sent, proof, far.breaks);
}

fn check(outcome: &Outcome, sent: &[u8], proof: bool, breaks: bool) {
    for reached in &outcome.reached {
        named(reached, sent);
        assert!(!proof || contains(sent, PROOF.as_bytes()), "a dial without a proof");
        let tunnelled = contains(sent, b"CONNECT") && contains(sent, &reached.received);
        if !tunnelled && let Err(what) = one_request(&reached.received) {
            let received = String::from_utf8_lossy(&reached.received);
            panic!("a web server got {what}: {received:?}");
        }
    }
    if outcome.reached.is_empty() && outcome.answered.is_empty() {
        return;
    }
    if outcome.answered.is_empty() {
        // A far end that broke off takes the answer with it.
        assert!(!outcome.whole || sent.is_empty(), "it was dialled, and the program was told nothing");
        return;
    }
    let head = Head::read(&outcome.answered).unwrap_or_else(|what| {
        panic!("the program got {what}: {:?}", String::from_utf8_lossy(&outcome.answered));
    });
    let mut words = head.first.splitn(3, ' ');
    assert!(matches!(words.next(), Some("HTTP/1.1" | "HTTP/1.0")), "{:?}", head.first);
    let status = words.next().and_then(|status| status.parse::<u16>().ok()).unwrap_or(0);
    assert!((100..1000).contains(&status) && status != 101, "{:?}", head.first);
    // A body whose end is that of the connection, of a web server that broke off.
    let told = !head.all("content-length").is_empty() || !head.all("transfer-encoding").is_empty();
    let bodiless =
        status < 200 || matches!(status, 204 | 304) || contains(sent, b"HEAD") || contains(sent, b"CONNECT");
    if breaks && !told && !bodiless {
        assert!(!outcome.whole, "a part passes for the whole");
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

/// The destination stands in what the program sent, in letters or as an address in other digits.
fn named(reached: &Reached, sent: &[u8]) {
    let destination = Destination::decode(&reached.destination).expect("what the proxy encoded");
    let Destination::Tcp(target) = &destination else { panic!("a kind that is not of this version") };
    let digits = target.port().to_string();
    assert!(target.port() == 80 || contains(sent, digits.as_bytes()), "nobody named the port of {target}");
    let named = match target.host() {
        Host::Name(name) => contains(sent, name.as_str().as_bytes()),
        // 0::1 is ::1 as well, so it is looked for by its value.
        Host::Ip(ip) => {
            let words = sent.split(|byte| !byte.is_ascii_hexdigit() && !b":.".contains(byte));
            let mut words = words.filter_map(|word| str::from_utf8(word).ok());
            let front = |word: &str| (1..=word.len()).any(|end| word[..end].parse() == Ok(*ip));
            words.any(|word| (0..word.len()).any(|begin| front(&word[begin..])))
        }
    };
    assert!(named, "nobody named {target}");
}

/// The head of a message, by the strictest reading: of a line break alone, or a header that stands twice, another
/// reader might think otherwise.
struct Head<'a> {
    first: &'a str,
    headers: Vec<(String, &'a str)>,
    body: &'a [u8],
}

impl<'a> Head<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").ok_or("a head without an end")?;
        // Header values may hold bytes that are no UTF-8, which are looked at one by one.
        let mut lines =
            bytes[..end].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let breaks = bytes[..end].iter().enumerate().filter(|(_, byte)| **byte == b'\n' || **byte == b'\r');
        for (place, byte) in breaks {
            let partner =
                if *byte == b'\r' { bytes.get(place + 1) } else { bytes.get(place.wrapping_sub(1)) };
            if partner != Some(if *byte == b'\r' { &b'\n' } else { &b'\r' }) {
                return Err("half a line break in a head");
            }
        }
        if bytes[..end].contains(&0) {
            return Err("a zero in a head");
        }
        let first =
            lines.next().and_then(|line| str::from_utf8(line).ok()).ok_or("a first line that is no text")?;
        let mut headers = Vec::new();
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':').ok_or("a header without a colon")?;
            let name = str::from_utf8(&line[..colon]).map_err(|_| "a header's name that is no text")?;
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if name.is_empty() || !name.chars().all(token) {
                return Err("a header's name that is no token");
            }
            let value = str::from_utf8(&line[colon + 1..]).unwrap_or("(no text)");
            headers.push((name.to_ascii_lowercase(), value.trim()));
        }
        Ok(Self { first, headers, body: &bytes[end + 4..] })
    }

    fn all(&self, name: &str) -> Vec<&'a str> {
        self.headers.iter().filter(|(one, _)| one == name).map(|(_, value)| *value).collect()
    }
}

/// What a web server received is the beginning of one request, and nothing behind it.
fn one_request(received: &[u8]) -> Result<(), &'static str> {
    if received.is_empty() {
        return Ok(());
    }
    let head = Head::read(received)?;
    let words: Vec<_> = head.first.split(' ').collect();
    let [method, path, "HTTP/1.1"] = words[..] else { return Err("a first line that is no request's") };
    if !(path.starts_with('/') || path == "*" && method == "OPTIONS") {
        return Err("a request that is not for a web server");
    }
    if head.all("host").len() != 1 {
        return Err("not one host");
    }
    if head.all("connection") != ["close"] {
        return Err("another connection than one that closes");
    }
    for name in ["proxy-authorization", "proxy-connection", "upgrade", "te", "trailer", "keep-alive"] {
        if !head.all(name).is_empty() {
            return Err("a header that was for the proxy");
        }
    }
    match (&head.all("content-length")[..], &head.all("transfer-encoding")[..]) {
        ([], []) if head.body.is_empty() => Ok(()),
        ([], []) => Err("bytes behind a request without a body"),
        ([length], []) => match length.parse::<usize>() {
            Ok(length) if head.body.len() <= length => Ok(()),
            _ => Err("bytes behind a body"),
        },
        ([], ["chunked"]) => chunks(head.body),
        _ => Err("two lengths of one body"),
    }
}

/// Chunks, the last of them perhaps cut, and nothing behind that of length 0.
fn chunks(mut body: &[u8]) -> Result<(), &'static str> {
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let digits = str::from_utf8(&body[..end]).map_err(|_| "a chunk without a length")?;
        let length = usize::from_str_radix(digits, 16).map_err(|_| "a chunk without a length")?;
        body = &body[end + 2..];
        if length == 0 {
            return if b"\r\n".starts_with(body) { Ok(()) } else { Err("bytes behind the last chunk") };
        }
        let Some(rest) = body.get(length..) else { return Ok(()) };
        if !b"\r\n".starts_with(&rest[..rest.len().min(2)]) {
            return Err("a chunk that is longer than it says");
        }
        body = rest.get(2..).unwrap_or_default();
    }
    if body.len() <= 16 { Ok(()) } else { Err("a chunk without a length") }
}
