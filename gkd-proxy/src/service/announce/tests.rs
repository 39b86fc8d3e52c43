use std::time::Duration;

use gkd_core::fair_limit::FairLimit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::destination::{Control, ListenerId};
use crate::dial::Dialer;
use crate::exit::{Exit, ExitError};
use crate::memory::{self, Memory, MemoryOpener, NoTunnel};
use crate::relay::RelayConfig;
use crate::reverse::{Offers, Remote, Standing, announce_remotely};
use crate::rules::Rules;

/// So long a test waits for what has to come.
const LONG: Duration = Duration::from_secs(20);

/// Grants what begins with `shop` to whoever asks, until it does not.
struct Shops(watch::Receiver<bool>);

impl ServiceGrants for Shops {
    fn grant(&self, _: &PeerId, service: &ServiceName) -> Result<Arc<ServiceNames>, String> {
        let granted = *self.0.borrow() && service.as_str().starts_with("shop");
        if granted { Ok(Arc::default()) } else { Err(format!("{service} is not for you")) }
    }

    fn name(&self, peer: &PeerId) -> String {
        format!("user {}", peer.0[0])
    }

    fn rate(&self, _: &PeerId) -> Option<Arc<Rate>> {
        None
    }
}

/// What answers requests, as far as that is needed here.
#[derive(Default)]
struct Answerer {
    targets: Arc<Mutex<Vec<(u64, Target)>>>,
    next: Mutex<u64>,
    /// Of which it takes none any more.
    closed: Mutex<Option<&'static str>>,
}

#[derive(Clone)]
struct Target {
    service: String,
    user: String,
    protocol: Protocol,
    weight: u32,
    reach: Arc<dyn Reach>,
}

/// Takes its target away.
struct Guard(Arc<Mutex<Vec<(u64, Target)>>>, u64);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.lock().unwrap().retain(|(number, _)| *number != self.1);
    }
}

impl Announcements for Answerer {
    fn announce(&self, announcement: Announcement<'_>) -> Result<Announced, Refusal> {
        self.still_takes(announcement.service, announcement.user, announcement.granted)?;
        let Announcement { service, user, target, protocol, weight, .. } = announcement;
        let mut next = self.next.lock().unwrap();
        *next += 1;
        let target =
            Target { service: service.to_string(), user: user.to_owned(), protocol, weight, reach: target };
        self.targets.lock().unwrap().push((*next, target));
        let place = format!("https://{service}.example");
        Ok(Announced { place, guard: Box::new(Guard(self.targets.clone(), *next)) })
    }

    fn still_takes(&self, service: &ServiceName, _: &str, _: &ServiceNames) -> Result<(), Refusal> {
        match *self.closed.lock().unwrap() {
            Some(closed) if closed == service.as_str() => {
                Err(Refusal::new(RefusalCause::Forbidden, "it is closed"))
            }
            _ => Ok(()),
        }
    }
}

impl Answerer {
    fn targets(&self) -> Vec<Target> {
        self.targets.lock().unwrap().iter().map(|(_, target)| target.clone()).collect()
    }
}

/// The end that answers for services.
struct Server {
    announcer: Arc<Announcer>,
    answerer: Arc<Answerer>,
    granted: watch::Sender<bool>,
}

impl Server {
    fn new() -> Self {
        let (granted, grants) = watch::channel(true);
        let answerer = Arc::new(Answerer::default());
        let announcer = Announcer::new(Shops(grants), answerer.clone());
        Self { announcer, answerer, granted }
    }

    /// A client's session: its opener, and the exit of what the server opens to it.
    fn session(&self, peer: u8, offers: &Offers) -> MemoryOpener {
        let (to_server, mut at_server) = memory::opener();
        let (to_client, mut at_client) = memory::opener();
        let rules = Rules::allow(["0.0.0.0/0".parse().unwrap()]);
        let client = Exit::new(Dialer::new(rules), RelayConfig::default()).offering(offers.clone());
        let client = Arc::new(client.within(FairLimit::new(100)));
        let server = Exit::new(Dialer::new(Rules::default()), RelayConfig::default());
        let server = Arc::new(server.announcing(self.announcer.clone()));
        tokio::spawn(async move {
            while let Some(connection) = at_server.recv().await {
                server.clone().spawn(connection.of(PeerId([peer; 32])).within(to_client.clone()));
            }
        });
        tokio::spawn(async move {
            while let Some(connection) = at_client.recv().await {
                client.clone().spawn(connection);
            }
        });
        to_server
    }
}

fn announce(form: &str, session: &MemoryOpener, offers: &Offers) -> Remote {
    announce_remotely(&form.parse().unwrap(), session.clone(), offers)
}

async fn served(remote: &Remote) -> String {
    let mut standing = remote.watch();
    let is_served = |standing: &Standing| matches!(standing, Standing::Serves(_));
    let standing = timeout(LONG, standing.wait_for(is_served)).await.unwrap().unwrap().clone();
    let Standing::Serves(place) = standing else { unreachable!() };
    place
}

async fn refused(remote: &Remote) -> Refusal {
    let mut standing = remote.watch();
    let is_refused = |standing: &Standing| matches!(standing, Standing::Refused(_));
    let standing = timeout(LONG, standing.wait_for(is_refused)).await.unwrap().unwrap().clone();
    let Standing::Refused(refusal) = standing else { unreachable!() };
    refusal
}

async fn until(holds: impl Fn() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, held).await.expect("it holds at last");
}

/// A web server, by far: it says who it is when it is asked.
async fn web(word: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                while socket.read_u8().await.is_ok() {
                    socket.write_all(word.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

/// What a target says over a connection of its own, asked so often.
async fn ask(target: &Target, times: usize, length: usize) -> String {
    let mut stream = target.reach.dial().await.unwrap();
    let mut said = vec![0; length];
    for _ in 0..times {
        stream.write_all(b"?").await.unwrap();
        timeout(LONG, stream.read_exact(&mut said)).await.unwrap().unwrap();
    }
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn a_service_is_reached_by_connections_of_its_session_until_it_is_not_wanted() {
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    let remote = announce(&format!("http://shop:{}?weight=7", web("one").await), &session, &offers);
    assert_eq!(served(&remote).await, "https://shop.example");
    let [target] = &server.answerer.targets()[..] else { panic!("there is one") };
    assert_eq!((&*target.service, &*target.user, target.weight), ("shop", "user 1", 7));
    assert_eq!((target.protocol, target.reach.name()), (Protocol::Http1, "user 1/0"));
    assert_eq!((ask(target, 3, 3).await, ask(target, 1, 3).await), ("one".into(), "one".into()));
    let listed = AnnouncedService {
        service: "shop".parse().unwrap(),
        protocol: Protocol::Http1,
        weight: 7,
        peer: PeerId([1; 32]),
    };
    assert_eq!(server.announcer.list(), [listed]);

    // What is under way goes on.
    let mut stream = target.reach.dial().await.unwrap();
    stream.write_all(b"?").await.unwrap();
    drop(remote);
    until(|| server.answerer.targets().is_empty()).await;
    assert!(server.announcer.list().is_empty());
    let mut said = [0; 3];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"one");
    let error = target.reach.dial().await.err().unwrap();
    assert!(error.to_string().contains("not offer"), "{error}");
}

#[tokio::test]
async fn a_folder_is_asked_over_the_connection_itself() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ten.txt"), "0123456789").unwrap();
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    let remote = announce(&format!("http://shop:{}", folder.path().display()), &session, &offers);
    served(&remote).await;
    let target = server.answerer.targets().remove(0);
    let mut stream = target.reach.dial().await.unwrap();
    // Two over one connection.
    for (lines, part) in [("", "0123456789"), ("Range: bytes=7-\r\nConnection: close\r\n", "789")] {
        let request = format!("GET /ten.txt HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // Not the part alone, which a time or a tag in the head may end with.
        while !answer.ends_with(&format!("\r\n\r\n{part}")) {
            let byte = timeout(LONG, stream.read_u8()).await.unwrap().unwrap();
            answer.push(char::from(byte));
        }
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
        assert_eq!(answer.split("\r\n\r\n").nth(1), Some(part), "{answer}");
    }
    let mut rest = Vec::new();
    timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_is_broken_off() {
    const SIZE: u64 = 4 << 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("big");
    std::fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    let remote = announce(&format!("http://shop:{}", folder.path().display()), &session, &offers);
    served(&remote).await;
    let mut stream = server.answerer.targets().remove(0).reach.dial().await.unwrap();
    stream.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    stream.read_u8().await.unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(SIZE / 2).unwrap();
    let mut rest = Vec::new();
    let error = timeout(LONG, stream.read_to_end(&mut rest)).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!((rest.len() as u64) < SIZE, "{} bytes", rest.len());
}

#[tokio::test]
async fn what_the_rules_do_not_grant_is_refused_in_words() {
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    let refusal = refused(&announce("http://mall:h:1", &session, &offers)).await;
    assert_eq!(refusal, Refusal::new(RefusalCause::Forbidden, "mall is not for you"));
    *server.answerer.closed.lock().unwrap() = Some("shop-2");
    let refusal = refused(&announce("http://shop-2:h:1", &session, &offers)).await;
    assert_eq!(refusal, Refusal::new(RefusalCause::Forbidden, "it is closed"));
    assert!(server.announcer.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_granted_any_more_is_withdrawn_and_comes_back_when_it_is() {
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    let (one, other) = ("http://shop:127.0.0.1:1", "http://shop-2:127.0.0.1:1");
    let (one, other) = (announce(one, &session, &offers), announce(other, &session, &offers));
    served(&one).await;
    served(&other).await;
    assert_eq!(server.announcer.check_again(), 0);
    *server.answerer.closed.lock().unwrap() = Some("shop-2");
    assert_eq!(server.announcer.check_again(), 1);
    assert_eq!(refused(&other).await.words, "it is closed");
    assert_eq!(
        (one.standing(), server.answerer.targets().len()),
        (Standing::Serves("https://shop.example".into()), 1)
    );

    server.granted.send_replace(false);
    assert_eq!(server.announcer.check_again(), 1);
    assert_eq!(refused(&one).await.words, "shop is not for you");
    assert!(server.answerer.targets().is_empty());
    server.granted.send_replace(true);
    let again = async {
        one.watch().wait_for(|standing| matches!(standing, Standing::Serves(_))).await.unwrap();
    };
    timeout(Duration::from_secs(120), again).await.unwrap();
    assert_eq!(server.answerer.targets().len(), 1);
}

#[tokio::test]
async fn targets_of_one_user_and_of_several_stand_side_by_side() {
    let (server, offers, others) = (Server::new(), Offers::new(), Offers::new());
    let (session, other) = (server.session(1, &offers), server.session(2, &others));
    let forms = [format!("http://shop:{}", web("one").await), format!("h2c://shop:{}", web("two").await)];
    let first = announce(&forms[0], &session, &offers);
    served(&first).await;
    let second = announce(&forms[1], &session, &offers);
    served(&second).await;
    let third = announce(&forms[0], &other, &others);
    served(&third).await;
    let targets = server.answerer.targets();
    let shown: Vec<_> = targets.iter().map(|target| (&*target.user, target.protocol)).collect();
    let expected = [("user 1", Protocol::Http1), ("user 1", Protocol::H2c), ("user 2", Protocol::Http1)];
    assert_eq!(shown, expected);
    assert_eq!((ask(&targets[1], 1, 3).await, ask(&targets[2], 1, 3).await), ("two".into(), "one".into()));
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_takes_its_place_over_and_is_not_displaced_for_ever() {
    let (server, before, after) = (Server::new(), Offers::new(), Offers::new());
    let (old, new) = (server.session(1, &before), server.session(1, &after));
    let first = announce("http://shop:127.0.0.1:1", &old, &before);
    served(&first).await;
    let second = announce("http://shop:127.0.0.1:1?weight=3", &new, &after);
    served(&second).await;
    let refusal = refused(&first).await;
    assert_eq!(refusal.cause, RefusalCause::Taken);
    let weights = |server: &Server| -> Vec<_> {
        server.answerer.targets().iter().map(|target| target.weight).collect()
    };
    assert_eq!(weights(&server), [3]);
    // The first asks again and again, and leaves it to the second.
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(weights(&server), [3]);
    assert!(matches!(second.standing(), Standing::Serves(_)));
    drop(second);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(weights(&server), [1]);
    assert!(matches!(first.standing(), Standing::Serves(_)));
}

/// Announces over a connection of its own, whose other end is handed back.
fn ask_for(server: &Server, service: &str, instance: u64) -> Memory {
    let request = AnnounceRequest {
        listener: ListenerId(7),
        service: service.parse().unwrap(),
        protocol: Protocol::Http1,
        weight: 1,
        instance,
        polite: false,
    };
    let to = Destination::Control(Control::Announce(Box::new(request.clone())));
    let (near, far) = memory::pair(to.encode());
    let (announcer, far) = (server.announcer.clone(), far.within(memory::opener().0));
    tokio::spawn(async move { announcer.serve(&far, &request).await.ok() });
    near
}

#[tokio::test]
async fn one_user_has_a_bounded_number_and_a_takeover_does_not_count() {
    let server = Server::new();
    let mut held = Vec::new();
    for instance in 0..MAX_SERVICES as u64 {
        let connection = ask_for(&server, "shop", instance);
        assert_eq!(connection.read(2).await.unwrap()[0], 3);
        held.push(connection);
    }
    let refusal = ask_for(&server, "shop", u64::MAX).read_to_end().await.unwrap();
    assert_eq!(refusal[..2], [2, 4], "{}", String::from_utf8_lossy(&refusal));
    assert_eq!(ask_for(&server, "shop", 5).read(1).await.unwrap(), [3]);
    let place = "https://shop.example".len();
    let displaced = held[5].read_to_end().await.unwrap();
    // Two bytes of its first answer were read.
    assert_eq!(displaced[place..][..2], [2, 3], "{}", String::from_utf8_lossy(&displaced));
    drop(held);
    until(|| server.announcer.list().is_empty()).await;
    assert!(server.answerer.targets().is_empty());
}

#[tokio::test]
async fn a_target_that_cannot_be_reached_says_why() {
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    // Nothing listens on a port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let remote = announce(&format!("http://shop:{free}"), &session, &offers);
    served(&remote).await;
    let target = server.answerer.targets().remove(0);
    let error = target.reach.dial().await.err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_tunnel_is_given_up_soon() {
    let opener = LimitedOpener::new(NoTunnel, None);
    let (passage, following) = follow(opener.clone());
    let reach =
        SessionReach { opener, to: Bytes::new(), name: String::new(), passage, _following: following };
    let error = timeout(LONG, reach.dial()).await.unwrap().err().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.to_string().contains("no tunnel"), "{error}");
}

#[tokio::test]
async fn a_server_that_ends_withdraws_all_and_takes_no_more() {
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    let remote = announce("http://shop:127.0.0.1:1", &session, &offers);
    served(&remote).await;
    server.announcer.stop();
    assert_eq!(refused(&remote).await.words, "the server is ending");
    assert!(server.answerer.targets().is_empty());
    let refusal = refused(&announce("http://shop:127.0.0.1:2", &session, &offers)).await;
    assert_eq!(refusal.words, "the server is ending");
}

#[tokio::test]
async fn a_server_that_answers_no_requests_or_is_older_says_so() {
    let (_granted, grants) = watch::channel(true);
    let announcer = Announcer::new(Shops(grants), Arc::new(Unserved));
    let server = Server { announcer, answerer: Arc::default(), granted: watch::channel(true).0 };
    let offers = Offers::new();
    let session = server.session(1, &offers);
    let refusal = refused(&announce("http://shop:127.0.0.1:1", &session, &offers)).await;
    assert!(refusal.words.contains("[http] in server.toml"), "{refusal}");

    let (opener, mut far) = memory::opener();
    let remote = announce("http://shop:127.0.0.1:1", &opener, &offers);
    let exit = Exit::new(Dialer::new(Rules::default()), RelayConfig::default());
    let error = exit.serve(far.recv().await.unwrap()).await.unwrap_err();
    assert!(matches!(error, ExitError::NoServices(_)), "{error}");
    let refusal = refused(&remote).await;
    assert!(refusal.words.contains("older version has no services of clients"), "{refusal}");
}

/// What the other end says reaches the log, and may not be what was asked for.
#[tokio::test]
async fn an_answer_that_was_not_asked_for_is_none() {
    let (opener, mut far) = memory::opener();
    let remote = announce("http://shop:127.0.0.1:1", &opener, &Offers::new());
    let connection = far.recv().await.unwrap();
    connection.confirm(Ok(()));
    say(&connection, &Answer::Bound("127.0.0.1:80".parse().unwrap())).await.unwrap();
    let refusal = refused(&remote).await;
    assert!(refusal.words.contains("which was not asked for"), "{refusal}");
    let remote = announce("http://shop:127.0.0.1:1", &opener, &Offers::new());
    let connection = far.recv().await.unwrap();
    connection.confirm(Ok(()));
    say(&connection, &Answer::Taken("\u{1b}[31m".into())).await.unwrap();
    assert_eq!(served(&remote).await, "\\u{1b}[31m");
}
