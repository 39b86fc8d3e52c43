use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gkd_core::proto::packet::ResetCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::dial::{Resolve, Resolving};
use crate::memory;
use crate::policy::Terms;
use crate::rate::{Rate, Speeds};
use crate::reach::ReachError;
use crate::relay::End;
use crate::rules::{Paths, Ports, Rule, Rules, Verdict};

fn exit() -> Exit {
    Exit::new(Dialer::new(Rules::allow(["127.0.0.0/8".parse().unwrap()])), RelayConfig::default())
}

fn to(words: &str) -> Bytes {
    Destination::Tcp(words.parse().unwrap()).encode()
}

#[tokio::test]
async fn a_destination_is_reached_and_bytes_are_carried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = memory::pair(to(&listener.local_addr().unwrap().to_string()));
    // Sent before the dial.
    near.write(b"hello").await.unwrap();
    let served = tokio::spawn(async move { exit().serve(far).await });
    near.connected().await.unwrap();
    let mut destination = listener.accept().await.unwrap().0;
    let mut read = [0; 5];
    destination.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hello");
    destination.write_all(b"bye").await.unwrap();
    destination.shutdown().await.unwrap();
    assert_eq!(near.read_to_end().await.unwrap(), b"bye");
    near.finish().await;
    assert_eq!(destination.read(&mut read).await.unwrap(), 0);
    let relayed = served.await.unwrap().unwrap();
    assert!(matches!(relayed.end, End::Finished), "{relayed:?}");
    assert_eq!((relayed.up, relayed.down), (3, 5));
}

#[tokio::test]
async fn each_failure_is_told() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    for (destination, expected) in [
        (to(&closed), DialError::Refused),
        (to("10.0.0.1:80"), DialError::Denied),
        (to("[::1]:80"), DialError::Denied),
        (Bytes::new(), DialError::NotOffered),
        (Bytes::from_static(b"\x09\x01\x7f\0\0\x01\0\x50"), DialError::NotOffered),
        (Bytes::from_static(b"\x01\x01\x7f"), DialError::NotOffered),
    ] {
        let (near, far) = memory::pair(destination.clone());
        exit().serve(far).await.unwrap_err();
        let told = near.connected().await.unwrap_err();
        assert!(matches!(told, ReachError::Dial(error) if error == expected), "{destination:?}: {told:?}");
        assert_eq!(near.reset_code(), Some(ResetCode::DIAL));
    }
}

#[tokio::test]
async fn rules_that_come_to_forbid_a_destination_reset_its_connections_and_no_other() {
    let allow =
        |words: &[&str]| Rules::allow(words.iter().map(|words| crate::rules::parse_range(words).unwrap()));
    let dialer = Dialer::new(allow(&["127.0.0.1", "127.0.0.2"]));
    let exit = Arc::new(Exit::new(dialer, RelayConfig::default()));
    let mut running = Vec::new();
    for ip in ["127.0.0.1", "127.0.0.2"] {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let (near, far) = memory::pair(to(&listener.local_addr().unwrap().to_string()));
        let exit = exit.clone();
        let served = tokio::spawn(async move { exit.serve(far).await });
        running.push((near, listener.accept().await.unwrap().0, served));
    }
    // New rules that allow what the old ones did touch nothing.
    exit.set_policy(allow(&["127.0.0.0/8"]));
    exit.set_policy(allow(&["127.0.0.2"]));

    let (near, mut destination, served) = running.remove(0);
    near.until_reset().await;
    let error = destination.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(matches!(served.await.unwrap(), Err(ExitError::Forbidden(..))));

    let (near, mut destination, _served) = running.remove(0);
    near.write(b"x").await.unwrap();
    assert_eq!(destination.read_u8().await.unwrap(), b'x');
    // What is dialled from now on goes by the new rules.
    let (near, far) = memory::pair(to("127.0.0.1:9"));
    exit.serve(far).await.unwrap_err();
    assert!(matches!(near.connected().await, Err(ReachError::Dial(DialError::Denied))));
}

#[cfg(unix)]
#[tokio::test]
async fn unix_sockets_are_reached_by_the_paths_in_force_and_reset_by_those_that_forbid_them() {
    use tokio::net::UnixListener;

    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().canonicalize().unwrap();
    let paths = |rules: &[String]| {
        Rules::none().with_paths(Paths::new(rules.iter().map(|rule| rule.parse().unwrap())))
    };
    let at = folder.join("app.sock");
    let listener = UnixListener::bind(&at).unwrap();
    std::os::unix::fs::symlink(&at, folder.join("link")).unwrap();
    let all = format!("{}/*", folder.display());
    let exit = Arc::new(Exit::new(Dialer::new(paths(&[all])), RelayConfig::default()));
    let to = |name: &str| format!("unix:{}/{name}", folder.display());
    let destination = |name: &str| {
        let listener: crate::Listener = format!("tcp://0:{}", to(name)).parse().unwrap();
        listener.service.destination(0).unwrap().encode()
    };
    let mut running = Vec::new();
    for name in ["app.sock", "link"] {
        let (near, far) = memory::pair(destination(name));
        let served = exit.clone().spawn(far);
        near.connected().await.unwrap();
        running.push((near, listener.accept().await.unwrap().0, served));
    }
    // The path that was asked for is judged as well as the one that it led to.
    exit.set_policy(paths(&[at.display().to_string()]));
    let (near, mut service, served) = running.remove(1);
    near.until_reset().await;
    assert!(matches!(served.await.unwrap(), Err(ExitError::Forbidden(_, Denial::Path))));
    // A Unix socket knows no reset.
    assert_eq!(service.read(&mut [0]).await.unwrap(), 0);
    let (near, mut service, served) = running.remove(0);
    near.write(b"x").await.unwrap();
    assert_eq!(service.read_u8().await.unwrap(), b'x');

    exit.set_policy(Rules::none());
    near.until_reset().await;
    assert!(matches!(served.await.unwrap(), Err(ExitError::Forbidden(_, Denial::Path))));
    let (near, far) = memory::pair(destination("app.sock"));
    let error = exit.serve(far).await.unwrap_err();
    assert!(matches!(near.connected().await, Err(ReachError::Dial(DialError::Denied))));
    assert!(error.to_string().contains("`unix` of the user in server.toml would permit it"), "{error}");
}

fn rules(all: &Rules, words: &str) -> Arc<Rules> {
    let deny = |subject: &str| Rule {
        verdict: Verdict::Deny,
        subject: subject.parse().unwrap(),
        ports: Ports::default(),
    };
    Arc::new(all.of_user([deny(words)]))
}

#[tokio::test]
async fn each_peer_is_served_by_its_own_rules_and_those_that_change_reset_its_connections_alone() {
    let all = Rules::allow(["127.0.0.0/8".parse().unwrap()]);
    let (ann, bob) = (PeerId([1; 32]), PeerId([2; 32]));
    let policy = |denied_to_ann: &str| {
        let terms = Terms { rules: rules(&all, denied_to_ann), ..Terms::default() };
        Policy::from(all.clone()).with(ann, terms)
    };
    let dialer = Dialer::new(all.clone()).with_resolver(Slow);
    let exit = Arc::new(Exit::new(dialer, RelayConfig::default()));
    exit.set_policy(policy("127.0.0.9"));
    let denied = async |peer: PeerId, to: Bytes| {
        let (near, far) = memory::pair(to);
        exit.serve(far.of(peer)).await.unwrap_err();
        matches!(near.connected().await, Err(ReachError::Dial(DialError::Denied)))
    };
    // Nobody listens there, so that whoever may dial it is refused.
    assert!(denied(ann, to("127.0.0.9:9")).await);
    assert!(!denied(bob, to("127.0.0.9:9")).await);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut running = Vec::new();
    for (peer, host) in [(ann, "127.0.0.1"), (ann, "quick.example"), (bob, "quick.example")] {
        let (near, far) = memory::pair(to(&format!("{host}:{port}")));
        let served = exit.clone().spawn(far.of(peer));
        running.push((near, listener.accept().await.unwrap().0, served));
    }
    // The rules name what the program asked for, not where it led.
    exit.set_policy(policy("quick.example"));
    let (near, _destination, served) = running.remove(1);
    near.until_reset().await;
    assert!(matches!(served.await.unwrap(), Err(ExitError::Forbidden(_, Denial::Rule(1)))));
    for (near, destination, _served) in &mut running {
        near.write(b"x").await.unwrap();
        assert_eq!(destination.read_u8().await.unwrap(), b'x');
    }
}

#[tokio::test]
async fn a_rate_holds_for_all_connections_of_a_peer_also_where_it_comes_while_they_run() {
    // More than may move at once: what is left waits for minutes, of virtual time.
    const LEN: usize = 256 * 1024;
    let all = Rules::allow(["127.0.0.0/8".parse().unwrap()]);
    let rate = Rate::new(Speeds::default());
    let terms = Terms { rules: Arc::new(all.clone()), rate: Some(rate.clone()), name: None };
    let exit = Arc::new(Exit::new(Dialer::new(all.clone()), RelayConfig::default()));
    exit.set_policy(Policy::from(all).with(PeerId([1; 32]), terms));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut running = Vec::new();
    for _ in 0..2 {
        let (near, far) = memory::pair(to(&listener.local_addr().unwrap().to_string()));
        let served = exit.clone().spawn(far);
        running.push((near, listener.accept().await.unwrap().0, served));
    }
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let speed = Some("8K".parse().unwrap());
    rate.set(Speeds { up: speed, down: speed });
    let sent: Vec<u8> = (0..LEN).map(|at| at as u8).collect();
    for (near, destination, served) in running {
        let (mut reader, mut writer) = destination.into_split();
        let mut read = Vec::new();
        let (_, _, (), back) = tokio::join!(
            async {
                near.write(&sent).await.unwrap();
                near.finish().await;
            },
            async { reader.read_to_end(&mut read).await.unwrap() },
            async {
                writer.write_all(&sent).await.unwrap();
                writer.shutdown().await.unwrap();
            },
            near.read_to_end(),
        );
        assert!(read == sent && back.unwrap() == sent, "all of it arrived, either way");
        served.await.unwrap().unwrap();
    }
    // Less the 64 KiB that may move at once, and a turn that is not paid for yet.
    let least = (2 * LEN - 64 * 1024 - 16 * 1024) as u64 / 8_000;
    assert!(began.elapsed().as_secs() >= least, "{:?}", began.elapsed());
}

/// A resolver that answers when it is told to.
struct Told(Arc<tokio::sync::Notify>);

impl Resolve for Told {
    fn resolve(&self, _name: &str, port: u16) -> Resolving {
        let told = self.0.clone();
        Box::pin(async move {
            told.notified().await;
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        })
    }
}

#[tokio::test]
async fn rules_that_change_while_a_destination_is_dialled_reset_it_as_well() {
    let all = || Rules::allow(["127.0.0.0/8".parse().unwrap()]);
    let answer = Arc::<tokio::sync::Notify>::default();
    let dialer = Dialer::new(all()).with_resolver(Told(answer.clone()));
    let exit = Arc::new(Exit::new(dialer, RelayConfig::default()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (near, far) = memory::pair(to(&format!("name.example:{port}")));
    let served = exit.clone().spawn(far);
    tokio::task::yield_now().await;
    exit.set_policy(rules(&all(), "name.example").as_ref().clone());
    answer.notify_one();
    let (mut destination, _) = listener.accept().await.unwrap();
    near.until_reset().await;
    assert!(matches!(served.await.unwrap(), Err(ExitError::Forbidden(_, Denial::Rule(1)))));
    let error = destination.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

/// A resolver that never answers.
struct Mute;

impl Resolve for Mute {
    fn resolve(&self, _name: &str, _port: u16) -> Resolving {
        Box::pin(std::future::pending())
    }
}

#[tokio::test]
async fn a_connection_that_is_given_up_is_dialled_no_longer() {
    let (near, far) = memory::pair(to("name.example:80"));
    let exit = Exit::new(Dialer::new(Rules::default()).with_resolver(Mute), RelayConfig::default());
    let served = tokio::spawn(async move { exit.serve(far).await });
    near.reset(ResetCode::APPLICATION);
    let error = served.await.unwrap().unwrap_err();
    assert!(matches!(error, ExitError::GivenUp(_)), "{error}");
}

#[tokio::test]
async fn a_destination_that_resets_resets_the_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = memory::pair(to(&listener.local_addr().unwrap().to_string()));
    let exit = Arc::new(exit());
    tokio::spawn(async move { exit.serve(far).await });
    let destination = listener.accept().await.unwrap().0;
    near.connected().await.unwrap();
    destination.set_zero_linger().unwrap();
    drop(destination);
    assert_eq!(near.until_reset().await, ResetCode::STREAM);
}

/// Origin: the L4 forwarding of wmproxy holds a global lock for a connection's life: one at a time.
#[tokio::test]
async fn one_destination_that_hangs_disturbs_no_other() {
    let exit = Arc::new(Exit::new(
        Dialer::new(Rules::allow(["127.0.0.0/8".parse().unwrap()])).with_resolver(Mute),
        RelayConfig::default(),
    ));
    let hanging: Vec<_> = (0..50).map(|_| memory::pair(to("name.example:80"))).collect();
    let mut near_ends = Vec::new();
    for (near, far) in hanging {
        let exit = Arc::clone(&exit);
        tokio::spawn(async move { exit.serve(far).await });
        near_ends.push(near);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = memory::pair(to(&listener.local_addr().unwrap().to_string()));
    tokio::spawn(async move { exit.serve(far).await });
    tokio::time::timeout(Duration::from_secs(5), near.connected()).await.unwrap().unwrap();
}

/// Never resolves a name that begins with "slow"; others lead to loopback.
struct Slow;

impl Resolve for Slow {
    fn resolve(&self, name: &str, port: u16) -> Resolving {
        let slow = name.starts_with("slow");
        Box::pin(async move {
            if slow {
                pending::<()>().await;
            }
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))])
        })
    }
}

#[tokio::test]
async fn a_peer_whose_names_do_not_resolve_keeps_no_other_waiting() {
    let dialer = Dialer::new(Rules::allow(["127.0.0.0/8".parse().unwrap()])).with_resolver(Slow);
    let exit = Arc::new(Exit::new(dialer, RelayConfig::default()));
    let serve = |far| {
        let exit = exit.clone();
        tokio::spawn(async move { exit.serve(far).await })
    };
    let mut waiting = Vec::new();
    for _ in 0..1000 {
        let (near, far) = memory::pair(to("slow.example:80"));
        waiting.push((serve(far), near));
    }
    tokio::task::yield_now().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (near, far) = memory::pair(to(&format!("quick.example:{port}")));
    serve(far.of(PeerId([2; 32])));
    tokio::time::timeout(Duration::from_secs(5), near.connected()).await.unwrap().unwrap();
    // Those that are given up are not looked up, and make room.
    for (served, near) in waiting {
        near.reset(ResetCode::APPLICATION);
        served.await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn at_the_limit_a_peer_is_told_so_and_those_that_end_make_room() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = to(&listener.local_addr().unwrap().to_string());
    let exit = Arc::new(exit().within(FairLimit::new(2)));
    let serve = |far| {
        let exit = exit.clone();
        tokio::spawn(async move { exit.serve(far).await })
    };
    let mut open = Vec::new();
    for _ in 0..2 {
        let (near, far) = memory::pair(address.clone());
        open.push((serve(far), near));
        open.last().unwrap().1.connected().await.unwrap();
    }
    let (near, far) = memory::pair(address.clone());
    let error = serve(far).await.unwrap().unwrap_err();
    assert!(matches!(error, ExitError::Busy(_)), "{error}");
    assert!(matches!(near.connected().await, Err(ReachError::Dial(DialError::Busy))));
    assert_eq!((exit.destinations(), exit.refused()), (Some(Usage { used: 2, most: 2 }), 1));
    let (served, near) = open.pop().unwrap();
    near.reset(ResetCode::APPLICATION);
    served.await.unwrap().ok();
    let (near, far) = memory::pair(address);
    serve(far);
    near.connected().await.unwrap();
}

/// Answers with sixteen addresses of loopback.
struct Many;

impl Resolve for Many {
    fn resolve(&self, _name: &str, port: u16) -> Resolving {
        let addresses = (1..=16).map(|last| SocketAddr::from(([127, 0, 0, last], port))).collect();
        Box::pin(async move { Ok(addresses) })
    }
}

/// Sockets of this machine that dial this port and wait for an answer.
#[cfg(target_os = "linux")]
fn waiting_for(port: u16) -> usize {
    const SYN_SENT: &str = "02";
    let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let waits = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        let remote = fields.next().and_then(|remote| remote.split_once(':'));
        remote.is_some_and(|(_, there)| there == format!("{port:04X}")) && fields.next() == Some(SYN_SENT)
    };
    sockets.lines().filter(waits).count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_name_of_many_silent_addresses_takes_no_more_sockets_than_it_has_places() {
    const PLACES: usize = 3;
    let silent = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    silent.bind(&SocketAddr::from(([0, 0, 0, 0], 0)).into()).unwrap();
    silent.listen(0).unwrap();
    let port = silent.local_addr().unwrap().as_socket().unwrap().port();
    // Whoever comes behind the first, whom nobody accepts, gets no answer.
    let _first = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let dialer = Dialer::new(Rules::allow(["127.0.0.0/8".parse().unwrap()])).with_resolver(Many);
    let limit = FairLimit::new(PLACES);
    let exit = Exit::new(dialer, RelayConfig::default()).within(limit.clone());
    let (near, far) = memory::pair(to(&format!("name.example:{port}")));
    let serving = tokio::spawn(async move { exit.serve(far).await });
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let waiting = waiting_for(port);
    assert!((1..=PLACES).contains(&waiting), "{waiting} sockets");
    near.reset(ResetCode::APPLICATION);
    serving.await.unwrap().unwrap_err();
    assert_eq!(waiting_for(port), 0);
    assert!(
        (0..PLACES).map(|_| limit.take(near.peer())).all(|place| place.is_some()),
        "places are free again"
    );
}
