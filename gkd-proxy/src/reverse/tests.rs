use std::sync::Arc;
use std::time::Duration;

use gkd_core::fair_limit::FairLimit;
use gkd_core::proto::id::PeerId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::*;
use crate::connection::{Opener, VirtualConnection};
use crate::destination::{Control, Destination, ListenRequest, ListenerId, Transport};
use crate::dial::Dialer;
use crate::exit::{Exit, ExitError};
use crate::listen::ListenConfig;
use crate::listener::Listener;
use crate::memory::{self, Memory, MemoryOpener};
use crate::relay::RelayConfig;
use crate::rules::Rules;
use crate::udp;

/// So long a test waits for what has to come.
const LONG: Duration = Duration::from_secs(20);

/// Grants loopback, until it does not.
struct Loopback(watch::Receiver<bool>);

impl Grants for Loopback {
    fn grant(&self, _: &PeerId, request: &ListenRequest) -> Result<IpAddr, String> {
        let ip = request.bind.unwrap_or([127, 0, 0, 1].into());
        if ip.is_loopback() && *self.0.borrow() { Ok(ip) } else { Err(format!("{ip} is not for you")) }
    }

    fn name(&self, _: &PeerId) -> String {
        "somebody".into()
    }

    fn rate(&self, _: &PeerId) -> Option<Arc<crate::rate::Rate>> {
        None
    }
}

/// The end that listens.
pub(crate) struct Server {
    registry: Arc<Registry>,
    granted: watch::Sender<bool>,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::with_places(1000)
    }

    fn with_places(places: usize) -> Self {
        let (granted, grants) = watch::channel(true);
        let registry = Registry::new(Loopback(grants), ListenConfig::default(), FairLimit::new(places));
        Self { registry, granted }
    }

    /// A client's session: its opener, and the exit of what the server opens to it.
    pub(crate) fn session(&self, peer: u8, offers: &Offers) -> MemoryOpener {
        let (to_server, mut at_server) = memory::opener();
        let (to_client, mut at_client) = memory::opener();
        let rules = Rules::allow(["0.0.0.0/0".parse().unwrap()]);
        let client = Exit::new(Dialer::new(rules), RelayConfig::default()).offering(offers.clone());
        let server = Exit::new(Dialer::new(Rules::default()), RelayConfig::default());
        let (client, server) = (Arc::new(client), Arc::new(server.listening(self.registry.clone())));
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

/// A service behind NAT that says who it is.
async fn service(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            socket.write_all(name.as_bytes()).await.unwrap();
        }
    });
    addr
}

fn remote(form: &str, session: &MemoryOpener, offers: &Offers) -> Remote {
    listen_remotely(&form.parse().unwrap(), session.clone(), offers).unwrap()
}

async fn bound(remote: &Remote) -> SocketAddr {
    let mut standing = remote.watch();
    let is_bound = |standing: &Standing| matches!(standing, Standing::Listens(_));
    let standing = timeout(LONG, standing.wait_for(is_bound)).await.unwrap().unwrap().clone();
    let Standing::Listens(addr) = standing else { unreachable!() };
    addr
}

async fn refused(remote: &Remote) -> Refusal {
    let mut standing = remote.watch();
    let is_refused = |standing: &Standing| matches!(standing, Standing::Refused(_));
    let standing = timeout(LONG, standing.wait_for(is_refused)).await.unwrap().unwrap().clone();
    let Standing::Refused(refusal) = standing else { unreachable!() };
    refusal
}

async fn hear(addr: SocketAddr) -> std::io::Result<String> {
    let mut heard = String::new();
    TcpStream::connect(addr).await?.read_to_string(&mut heard).await?;
    Ok(heard)
}

async fn until_closed(addr: SocketAddr) {
    let closed = async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, closed).await.expect("the port is closed");
}

#[tokio::test]
async fn a_service_is_reached_through_the_other_end_until_it_is_not_wanted() {
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    let remote = remote(&format!("tcp://0:{}", service("one").await), &session, &offers);
    let addr = bound(&remote).await;
    assert!(addr.ip().is_loopback());
    for _ in 0..3 {
        assert_eq!(hear(addr).await.unwrap(), "one");
    }
    assert_eq!(server.registry.list(), [(PeerId([1; 32]), Transport::Tcp, addr)]);
    drop(remote);
    until_closed(addr).await;
    assert!(server.registry.list().is_empty());
}

#[tokio::test]
async fn the_destination_sees_the_real_program_where_it_is_asked_for() {
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let form = format!("tcp://0:{}?proxy=v2", listener.local_addr().unwrap());
    let remote = remote(&form, &session, &offers);
    let program = TcpStream::connect(bound(&remote).await).await.unwrap();
    let mut header = [0; 28];
    listener.accept().await.unwrap().0.read_exact(&mut header).await.unwrap();
    assert_eq!(header[24..26], program.local_addr().unwrap().port().to_be_bytes());
}

#[tokio::test]
async fn a_range_leads_port_by_port_and_datagrams_go_too() {
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    let socket = udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let form = format!("udp://0:{}", socket.local_addr().unwrap());
    let remote = remote(&form, &session, &offers);
    let program = udp::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    program.connect(bound(&remote).await).await.unwrap();
    program.send(b"question").await.unwrap();
    let (question, from) = timeout(LONG, udp::recv_from(&socket)).await.unwrap().unwrap();
    assert_eq!(question, "question");
    socket.send_to(b"answer", from).await.unwrap();
    assert_eq!(timeout(LONG, udp::recv(&program)).await.unwrap().unwrap(), "answer");
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_stands_behind_a_listener_of_its_own_end_only() {
    let dir = std::env::temp_dir().join(format!("gkd-reverse-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("service");
    std::fs::remove_file(&path).ok();
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut question = [0; 3];
            socket.read_exact(&mut question).await.unwrap();
            socket.write_all(&question).await.unwrap();
        }
    });
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    let form = format!("tcp://0:unix:{}", path.display());
    let remote = remote(&form, &session, &offers);
    let mut program = TcpStream::connect(bound(&remote).await).await.unwrap();
    program.write_all(b"hey").await.unwrap();
    program.shutdown().await.unwrap();
    let mut answer = String::new();
    program.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "hey");
    // That of the server is not for clients.
    let to = form.parse::<Listener>().unwrap().service.destination(0).unwrap();
    let (near, far) = memory::pair(to.encode());
    let exit = Exit::new(Dialer::new(Rules::allow(["0.0.0.0/0".parse().unwrap()])), RelayConfig::default());
    exit.serve(far).await.unwrap_err();
    near.connected().await.unwrap_err();
    std::fs::remove_dir_all(&dir).ok();
}

#[tokio::test]
async fn the_same_user_takes_a_port_over_and_another_does_not() {
    let (server, offers) = (Server::new(), [Offers::new(), Offers::new(), Offers::new()]);
    let first_session = server.session(1, &offers[0]);
    let first = remote(&format!("tcp://0:{}", service("first").await), &first_session, &offers[0]);
    let addr = bound(&first).await;
    let second = service("second").await;
    let form = format!("tcp://{}:{second}", addr.port());

    let stranger = remote(&form, &server.session(2, &offers[2]), &offers[2]);
    let refusal = refused(&stranger).await;
    assert_eq!(refusal.cause, RefusalCause::InUse, "{refusal}");
    assert_eq!(hear(addr).await.unwrap(), "first");

    let second = remote(&form, &server.session(1, &offers[1]), &offers[1]);
    assert_eq!(bound(&second).await, addr);
    assert_eq!(hear(addr).await.unwrap(), "second");
    // The one that was displaced does not fight for it.
    assert_eq!(refused(&first).await.cause, RefusalCause::Taken);
    assert_eq!(server.registry.list().len(), 1);
    drop(first);
    assert_eq!(hear(addr).await.unwrap(), "second");
}

#[tokio::test]
async fn a_range_is_had_whole_or_not_at_all() {
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    // The second port of the range is somebody else's.
    let (first, taken) = loop {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        if let Ok(before) = TcpListener::bind(("127.0.0.1", port - 1)).await {
            drop(before);
            break (port - 1, taken);
        }
    };
    let target = service("x").await.port();
    let form = format!("tcp://{first}-{}:127.0.0.1:{}-{}", first + 1, target - 1, target);
    let remote = remote(&form, &session, &offers);
    let refusal = refused(&remote).await;
    assert_eq!(refusal.cause, RefusalCause::InUse, "{refusal}");
    assert!(refusal.words.contains("in use by another program"), "{refusal}");
    assert!(server.registry.list().is_empty());
    drop(taken);
    assert!(TcpStream::connect(("127.0.0.1", first)).await.is_err());
}

#[tokio::test]
async fn sessions_of_a_user_that_ask_at_the_same_time_take_over_and_meet_no_port_in_use() {
    let (server, offers) = (Server::new(), [Offers::new(), Offers::new()]);
    let first = loop {
        let probe = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let last = probe.saturating_add(19);
        if last > probe && free(probe..=last).await {
            break probe;
        }
    };
    let form = format!("tcp://{first}-{}:127.0.0.1:1-20", first + 19);
    let sessions = offers.each_ref().map(|offers| (server.session(1, offers), offers));
    let remotes = sessions.each_ref().map(|(session, offers)| remote(&form, session, offers));
    let mut standings = remotes.each_ref().map(Remote::watch);
    let settled = async {
        let [one, other] = &mut standings;
        let mut listens = 0;
        for standing in [one, other] {
            let told = |standing: &Standing| !matches!(standing, Standing::Asked);
            match &*standing.wait_for(told).await.unwrap() {
                Standing::Refused(refusal) => assert_eq!(refusal.cause, RefusalCause::Taken, "{refusal}"),
                _ => listens += 1,
            }
        }
        listens
    };
    assert!(timeout(LONG, settled).await.unwrap() > 0);
    assert_eq!(server.registry.list().len(), 20);
    let (held, of_one) = (server.registry.list(), PeerId([1; 32]));
    assert!(held.iter().all(|(peer, ..)| *peer == of_one));
}

/// Whether nobody has any of these ports.
async fn free(ports: std::ops::RangeInclusive<u16>) -> bool {
    for port in ports {
        if TcpListener::bind(("127.0.0.1", port)).await.is_err() {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn what_is_not_granted_any_more_ends_with_the_reason() {
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    let forbidden = remote("tcp://0.0.0.0:0:127.0.0.1:1", &session, &offers);
    assert_eq!(refused(&forbidden).await, Refusal::new(RefusalCause::Forbidden, "0.0.0.0 is not for you"));
    let granted = remote(&format!("tcp://0:{}", service("one").await), &session, &offers);
    let addr = bound(&granted).await;
    assert_eq!(server.registry.check_again(), 0);
    server.granted.send_replace(false);
    assert_eq!(server.registry.check_again(), 1);
    assert_eq!(refused(&granted).await.cause, RefusalCause::Forbidden);
    until_closed(addr).await;
}

#[tokio::test]
async fn a_server_that_ends_closes_all_ports_and_takes_no_more() {
    let (server, offers) = (Server::new(), Offers::new());
    let session = server.session(1, &offers);
    let form = format!("tcp://0:{}", service("one").await);
    let one = remote(&form, &session, &offers);
    let addr = bound(&one).await;
    server.registry.stop();
    until_closed(addr).await;
    assert!(server.registry.list().is_empty());
    let late = remote(&form, &session, &offers);
    assert_eq!(refused(&late).await, Refusal::new(RefusalCause::Failed, "the server is ending"));
}

/// What a server says of where it listens is not taken as it comes.
#[tokio::test]
async fn an_address_that_was_not_asked_for_is_refused() {
    for (form, said) in [
        ("tcp://9000-9001:h:1-2", "127.0.0.1:65535"),
        ("tcp://9000-9001:h:1-2", "127.0.0.1:9001"),
        ("tcp://0:h:1", "127.0.0.1:0"),
    ] {
        let (opener, mut far) = memory::opener();
        let remote = remote(form, &opener, &Offers::new());
        let far = far.recv().await.unwrap();
        far.confirm(Ok(()));
        far.write(&Answer::Bound(said.parse().unwrap()).encode()).await.unwrap();
        let refusal = refused(&remote).await;
        assert!(refusal.words.contains("was not asked for"), "{refusal}");
    }
}

#[tokio::test]
async fn ports_and_programs_take_places() {
    let (server, offers) = (Server::with_places(2), Offers::new());
    let session = server.session(1, &offers);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let form = format!("tcp://0:{}", listener.local_addr().unwrap());
    let one = remote(&form, &session, &offers);
    let addr = bound(&one).await;
    // One place is the port's, the other a program's; for a third program there is none.
    let mut program = TcpStream::connect(addr).await.unwrap();
    let (mut served, _) = listener.accept().await.unwrap();
    let mut refused_program = TcpStream::connect(addr).await.unwrap();
    assert!(refused_program.read(&mut [0]).await.is_err(), "it is reset");
    served.write_all(b"x").await.unwrap();
    program.read_exact(&mut [0]).await.unwrap();
    let other = remote(&form, &session, &offers);
    assert_eq!(refused(&other).await.cause, RefusalCause::TooMany);
}

#[tokio::test]
async fn a_client_dials_nothing_but_what_it_offers() {
    let offers = Offers::new();
    let exit = Exit::new(Dialer::new(Rules::allow(["0.0.0.0/0".parse().unwrap()])), RelayConfig::default())
        .offering(offers);
    let addr = service("secret").await;
    let registered =
        Destination::Registered(crate::destination::Registered { listener: ListenerId(0), index: 0 });
    let request = ListenRequest {
        listener: ListenerId(0),
        transport: Transport::Tcp,
        bind: None,
        ports: "0".parse().unwrap(),
        proxy_header: false,
        polite: false,
    };
    let tcp = Destination::Tcp(addr.to_string().parse().unwrap());
    let listen = Destination::Control(Control::Listen(request));
    for to in [tcp, Destination::UdpAny, registered, listen] {
        let (near, far): (Memory, Memory) = memory::pair(to.encode());
        let error = exit.serve(far).await.unwrap_err();
        assert!(matches!(error, ExitError::NotOffered(_)), "{error}");
        near.connected().await.unwrap_err();
    }
}

#[tokio::test]
async fn a_server_without_listeners_says_so() {
    let (opener, mut far) = memory::opener();
    let remote = remote("tcp://0:127.0.0.1:1", &opener, &Offers::new());
    let exit = Exit::new(Dialer::new(Rules::default()), RelayConfig::default());
    let error = exit.serve(far.recv().await.unwrap()).await.unwrap_err();
    assert!(matches!(error, ExitError::NoListeners(_)), "{error}");
    let refusal = refused(&remote).await;
    assert!(refusal.words.contains("older version"), "{refusal}");
    // Opening still works: it waits for the next try.
    drop(opener.open(Bytes::new()).await.unwrap());
}

#[test]
fn proxies_listen_at_their_own_end_only() {
    for form in ["mixed://1080", "socks5://1080", "http://8080"] {
        let error = RemoteError::check(&form.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("listens here only (-L)"), "{error}");
    }
    assert!(RemoteError::check(&"udp://1:h:2".parse().unwrap()).is_ok());
}

#[test]
fn answers_come_back_and_no_cut_does() {
    let long = "é".repeat(MOST_WORDS);
    for (answer, words) in [
        (Answer::Bound("192.0.2.1:80".parse().unwrap()), None),
        (Answer::Bound("[2001:db8::1]:80".parse().unwrap()), None),
        (Answer::Taken("https://shop.example".into()), None),
        (Answer::Taken(String::new()), None),
        (Answer::Refused(Refusal::new(RefusalCause::Taken, "gone")), Some("gone")),
        (Answer::Refused(Refusal::new(RefusalCause::Failed, long.as_str())), Some(&long[..MOST_WORDS - 1])),
    ] {
        let bytes = answer.encode();
        assert!(bytes.len() <= MOST_ANSWER);
        for cut in 0..bytes.len() {
            assert_eq!(Answer::decode(&mut BytesMut::from(&bytes[..cut])), Ok(None), "cut at {cut}");
        }
        let mut both = BytesMut::from(&[&bytes[..], b"rest"].concat()[..]);
        let decoded = Answer::decode(&mut both).unwrap().unwrap();
        match (decoded, words) {
            (Answer::Refused(refusal), Some(words)) => assert_eq!(refusal.words, words),
            (decoded, _) => assert_eq!(decoded, answer),
        }
        assert_eq!(both, "rest");
    }
    for garbage in [&b"\x04\x01"[..], b"\x01\x03", b"\x02\x01\x01\xff", b"\x03\x01\xff"] {
        assert_eq!(Answer::decode(&mut BytesMut::from(garbage)), Err(Malformed));
    }
}

#[test]
fn words_of_the_other_end_are_shown_without_what_moves_a_terminal() {
    let refusal = Refusal::new(RefusalCause::InUse, "the server's \"port\"\u{1b}[31m\n");
    assert_eq!(refusal.to_string(), r#"the server's "port"\u{1b}[31m\n"#);
}
