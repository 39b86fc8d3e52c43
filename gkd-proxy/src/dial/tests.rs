use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;

use super::*;
use crate::rules::{Rule, Verdict};

/// Answers each question with the next of its answers, the last for ever.
struct Scripted {
    answers: Vec<Vec<IpAddr>>,
    asked: Arc<AtomicUsize>,
}

impl Scripted {
    fn new(answers: &[&[&str]]) -> Self {
        let ips = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
        Self { answers: answers.iter().map(ips).collect(), asked: Arc::default() }
    }
}

impl Resolve for Scripted {
    fn resolve(&self, _name: &str, port: u16) -> Resolving {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed).min(self.answers.len() - 1);
        let addresses = self.answers[turn].iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        Box::pin(async move { Ok(addresses) })
    }
}

/// A resolver that never answers.
struct Mute;

impl Resolve for Mute {
    fn resolve(&self, _name: &str, _port: u16) -> Resolving {
        Box::pin(std::future::pending())
    }
}

fn loopback_allowed() -> Dialer {
    Dialer::new(Rules::allow(["127.0.0.0/8".parse().unwrap()]))
}

fn target(host: &str, port: u16) -> Target {
    Target::new(Host::parse(host).unwrap(), port).unwrap()
}

/// A port of loopback where nothing listens.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn an_address_and_a_name_are_reached() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let dialer = loopback_allowed().with_resolver(Scripted::new(&[&["127.0.0.1"]]));
    for host in ["127.0.0.1", "name.example"] {
        let socket = dialer.dial(&target(host, addr.port())).await.unwrap();
        assert_eq!(socket.peer_addr().unwrap(), addr);
        assert!(socket.nodelay().unwrap());
    }
}

#[tokio::test]
async fn the_system_resolves_localhost() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dialer = Dialer::new(Rules::allow(["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]));
    dialer.dial(&target("localhost", port)).await.unwrap();
}

#[tokio::test]
async fn a_name_of_a_special_address_is_denied_and_not_dialled() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for ip in ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "0.0.0.0", "169.254.169.254"] {
        let dialer = Dialer::new(Rules::default()).with_resolver(Scripted::new(&[&[ip]]));
        assert_eq!(dialer.dial(&target("x.example", port)).await.unwrap_err().error, DialError::Denied);
        assert_eq!(dialer.dial(&target(ip, port)).await.unwrap_err().error, DialError::Denied);
    }
    let accepted = timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(accepted.is_err(), "nothing was dialled");
}

#[tokio::test]
async fn rules_see_the_name_and_every_address_that_it_leads_to() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let rule = |verdict, subject: &str| Rule {
        verdict,
        subject: subject.parse().unwrap(),
        ports: port.to_string().parse().unwrap(),
    };
    let all = Rules::allow(["127.0.0.0/8".parse().unwrap()]);
    let dial = async |rules: Vec<Rule>, host: &str, ip: &str| {
        let dialer = Dialer::new(all.of_user(rules)).with_resolver(Scripted::new(&[&[ip]]));
        dialer.dial(&target(host, port)).await.map(drop).map_err(|failure| failure.error)
    };
    let denied = Err(DialError::Denied);
    let by_name = || vec![rule(Verdict::Deny, "corp.example")];
    assert_eq!(dial(by_name(), "x.corp.example.", "127.0.0.1").await, denied);
    assert_eq!(dial(by_name(), "x.example", "127.0.0.1").await, Ok(()));
    assert_eq!(dial(by_name(), "127.0.0.1", "127.0.0.1").await, Ok(()), "an address has no name");
    for ip in ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"] {
        assert_eq!(dial(vec![rule(Verdict::Deny, "127.0.0.1")], "x.example", ip).await, denied, "{ip}");
    }
    let of_one_name = vec![rule(Verdict::Allow, "one.example"), rule(Verdict::Deny, "*")];
    assert_eq!(dial(of_one_name.clone(), "one.example", "127.0.0.1").await, Ok(()));
    assert_eq!(dial(of_one_name, "two.example", "127.0.0.1").await, denied);
}

#[tokio::test]
async fn a_name_that_changes_between_check_and_dial_is_resolved_once() {
    let (good, evil) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), "127.0.0.2");
    let port = good.local_addr().unwrap().port();
    let evil_listener = TcpListener::bind((evil, port)).await.unwrap();
    let resolver = Scripted::new(&[&["127.0.0.1"], &[evil]]);
    let asked = Arc::clone(&resolver.asked);
    let dialer = Dialer::new(Rules::allow(["127.0.0.1/32".parse().unwrap()])).with_resolver(resolver);
    let socket = dialer.dial(&target("x.example", port)).await.unwrap();
    assert_eq!(socket.peer_addr().unwrap().ip().to_string(), "127.0.0.1");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    drop(evil_listener);
}

#[tokio::test]
async fn of_mixed_addresses_only_the_permitted_one_is_dialled() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let resolver = Scripted::new(&[&["10.0.0.1", "127.0.0.1", "::1"]]);
    let dialer = loopback_allowed().with_resolver(resolver);
    let socket = dialer.dial(&target("x.example", addr.port())).await.unwrap();
    assert_eq!(socket.peer_addr().unwrap(), addr);
}

#[tokio::test]
async fn an_address_that_refuses_gives_way_at_once_to_the_next() {
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let dialer = loopback_allowed().with_resolver(Scripted::new(&[&["127.0.0.1", "127.0.0.2"]]));
    let socket = dialer.dial(&target("x.example", addr.port())).await.unwrap();
    assert_eq!(socket.peer_addr().unwrap(), addr);
}

#[tokio::test]
async fn failures_are_told_apart() {
    let port = closed_port().await;
    let failure = loopback_allowed().dial(&target("127.0.0.1", port)).await.unwrap_err();
    assert_eq!(failure.error, DialError::Refused);
    assert!(failure.to_string().contains("127.0.0.1"), "{failure}");

    let nameless = loopback_allowed().with_resolver(Scripted::new(&[&[]]));
    assert_eq!(nameless.dial(&target("x.example", 80)).await.unwrap_err().error, DialError::NotResolved);

    let denied = loopback_allowed().dial(&target("10.0.0.1", 80)).await.unwrap_err();
    assert_eq!(denied.error, DialError::Denied);
    assert!(denied.to_string().contains("private"), "{denied}");
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_never_answers_ends_at_the_time_out() {
    let dialer = loopback_allowed().with_resolver(Mute);
    let failure = dialer.dial(&target("x.example", 80)).await.unwrap_err();
    assert_eq!(failure.error, DialError::TimedOut);
}

#[test]
fn families_take_turns() {
    let addrs =
        |list: &[&str]| list.iter().map(|ip| SocketAddr::new(ip.parse().unwrap(), 1)).collect::<Vec<_>>();
    let order = interleave(addrs(&["2::1", "2::2", "2::3", "1.0.0.1", "1.0.0.2"]));
    assert_eq!(order, addrs(&["2::1", "1.0.0.1", "2::2", "1.0.0.2", "2::3"]));
    assert_eq!(interleave(addrs(&["1.0.0.1", "2::1"])), addrs(&["1.0.0.1", "2::1"]));
    assert!(interleave(Vec::new()).is_empty());
}

#[test]
fn errors_of_the_system_have_their_words() {
    use io::ErrorKind as Kind;
    for (kind, error) in [
        (Kind::ConnectionRefused, DialError::Refused),
        (Kind::NetworkUnreachable, DialError::Unreachable),
        (Kind::HostUnreachable, DialError::Unreachable),
        (Kind::AddrNotAvailable, DialError::Unreachable),
        (Kind::TimedOut, DialError::TimedOut),
        (Kind::PermissionDenied, DialError::Failed),
    ] {
        assert_eq!(from_io(&kind.into()), error);
    }
    // Too many open files (EMFILE).
    assert_eq!(from_io(&io::Error::from_raw_os_error(24)), DialError::Busy);
}
