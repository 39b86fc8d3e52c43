//! Who may come in, and that nobody meets the sessions of another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use gkd_core::carrier::{self, CarrierError, CarrierKind, Dial};
use gkd_core::identity::{SecretKey, new_session_id};
use gkd_core::proto::SessionConfig;
use gkd_core::proto::handshake::{Hello, Parameters, Reject, RejectCode, VERSION, Welcome, decode_answer};
use gkd_core::proto::id::{SessionId, TunnelId};
use gkd_core::{Admission, Client, ClientEvent, Error, Server, TunnelDialError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{connection, until, within};

fn unknown() -> Reject {
    Reject::new(RejectCode::UnknownUser)
}

/// Says Hello by hand.
async fn hello(
    server: &Server,
    key: &SecretKey,
    session: SessionId,
    tunnel: u64,
    exists: bool,
) -> (Result<Welcome, Reject>, carrier::Carrier) {
    let tcp = TcpStream::connect(server.local_addr().unwrap()).await.unwrap();
    let tunnel = TunnelId(tunnel);
    let kind = CarrierKind::Plain;
    let dial = Dial { kind, key, server: Some(server.key()), session, tunnel, web: None };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let mut carrier = carrier::connect(tcp, &dial, deadline).await.unwrap();
    let mut buf = BytesMut::new();
    let parameters = Parameters::default();
    Hello { version: VERSION, session, tunnel, exists, parameters, dead: vec![] }.encode(&mut buf);
    carrier.write_all(&buf).await.unwrap();
    buf.clear();
    let answer = within("answer", async {
        loop {
            if let Some(answer) = decode_answer(&mut buf).unwrap() {
                return answer;
            }
            assert!(carrier.read_buf(&mut buf).await.unwrap() > 0, "closed without an answer");
        }
    })
    .await;
    (answer, carrier)
}

/// Origin: gkd-rs (2019) had no key at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_unencrypted_tunnel_says_so_for_good() {
    let server = Server::builder().listen("127.0.0.1:0").bind().await.unwrap();
    let plain = Client::builder().address(server.local_addr().unwrap()).carrier(CarrierKind::Plain);
    // Waiting for the network is no help: it is there.
    let refused = within("refusal", plain.wait_for_network(true).connect()).await.unwrap_err();
    let Error::Dial(error) = refused else { panic!("{refused}") };
    assert!(error.is_final(), "{error}");
    assert!(matches!(&*error, TunnelDialError::Carrier(CarrierError::PlainRefused { .. })), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_not_known_is_refused_and_told_so() {
    let user = SecretKey::generate();
    let allowed = user.public();
    let revoked = Arc::new(AtomicBool::new(false));
    let is_revoked = revoked.clone();
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .authorise(move |peer| {
            let known = *peer == allowed && !is_revoked.load(Ordering::Relaxed);
            if known { Ok(Admission::default()) } else { Err(unknown()) }
        })
        .bind()
        .await
        .unwrap();
    let builder = || Client::builder().address(server.local_addr().unwrap()).server_key(server.key());

    let stranger = within("refusal", builder().key(SecretKey::generate()).connect()).await.unwrap_err();
    let Error::Dial(error) = stranger else { panic!("{stranger}") };
    assert!(error.is_final(), "{error}");
    assert!(matches!(&*error, TunnelDialError::Rejected { reject, .. } if *reject == unknown()), "{error}");
    assert!(error.to_string().contains("does not know this key"), "{error}");
    // Waiting for the network is no help against a refusal.
    assert!(within("refusal", builder().wait_for_network(true).connect()).await.is_err());

    let client = builder().key(user.clone()).connect().await.unwrap();
    drop(connection(&client, &server).await);
    // Revoked: new tunnels get the same answer as a stranger's.
    revoked.store(true, Ordering::Relaxed);
    let error = within("refusal", builder().key(user).connect()).await.unwrap_err();
    assert!(matches!(error, Error::Dial(error) if error.is_final()));
}

/// A dial that came back at once may have been let in when nobody waited for it any more, and left a session behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refused_is_not_asked_again_at_once() {
    let refuse = |_: &_| Err(Reject::new(RejectCode::Busy));
    let server = Server::builder().listen("127.0.0.1:0").plain(true).authorise(refuse).bind().await.unwrap();
    let builder = Client::builder().address(server.local_addr().unwrap()).carrier(CarrierKind::Plain);
    let client = builder.tunnels(1).start().unwrap();
    let mut events = client.events();
    let event = within("refusal", events.recv()).await.unwrap();
    let ClientEvent::DialFailed { again, .. } = event else { panic!("{event:?}") };
    assert!(again > Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_another_key_is_not_taken() {
    let server = Server::builder().listen("127.0.0.1:0").bind().await.unwrap();
    let builder = Client::builder().address(server.local_addr().unwrap());
    let error =
        within("refusal", builder.server_key(SecretKey::generate().public()).connect()).await.unwrap_err();
    let Error::Dial(error) = error else { panic!("{error}") };
    assert!(matches!(&*error, TunnelDialError::Carrier(CarrierError::WrongKey { .. })), "{error}");
    assert!(error.is_final() && error.to_string().contains("ask for a new link"), "{error}");
}

/// Origin: in gkd-rs (2019) every process had peer id 0 and counted connections from 0, so that two clients shared
/// one peer and each other's connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_keys_with_the_same_ids_never_meet() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let (ann, bob) = (SecretKey::generate(), SecretKey::generate());
    let session = new_session_id();
    let (answer, _anns) = hello(&server, &ann, session, 0, false).await;
    assert!(!answer.unwrap().known);
    // To Bob the session of Ann does not exist, even under its right id.
    let (answer, _) = hello(&server, &bob, session, 1, true).await;
    assert_eq!(answer, Err(Reject::new(RejectCode::NoSuchSession)));
    // With the same ids he gets one of his own.
    let (answer, _bobs) = hello(&server, &bob, session, 0, false).await;
    assert!(!answer.unwrap().known);
    assert_eq!(server.sessions().len(), 2);
    for key in [&ann, &bob] {
        let sessions = server.sessions_of(&key.public());
        assert_eq!((sessions.len(), sessions[0].tunnels_up()), (1, 1));
    }
    // Ann's own session knows her further tunnels.
    let (answer, _) = hello(&server, &ann, session, 1, true).await;
    assert!(answer.unwrap().known);
    // A tunnel's id is good for one tunnel.
    let (answer, _) = hello(&server, &ann, session, 1, true).await;
    assert_eq!(answer.unwrap_err().code, RejectCode::Protocol);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_should_exist_and_does_not_is_not_made() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let (answer, _) = hello(&server, &SecretKey::generate(), new_session_id(), 3, true).await;
    assert_eq!(answer, Err(Reject::new(RejectCode::NoSuchSession)));
    assert!(server.sessions().is_empty());
}

/// Origin: a wrong type byte made gkd-rs (2019) panic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_peer_that_breaks_the_protocol_ends_only_itself() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let honest = Client::connect(server.local_addr().unwrap(), 2).await.unwrap();
    let (here, there) = connection(&honest, &server).await;
    let (answer, mut carrier) = hello(&server, &SecretKey::generate(), new_session_id(), 0, false).await;
    answer.unwrap();
    // An acknowledgement of what was never sent.
    let ack = gkd_core::proto::packet::Ack { tunnel: TunnelId(0), count: 1 << 40, delay: 0 };
    let mut bytes = bytes::BytesMut::new();
    gkd_core::proto::packet::Packet::Ack(ack).encode(&mut bytes);
    carrier.write_all(&bytes).await.unwrap();
    let mut farewell = Vec::new();
    within("its tunnel is closed", carrier.read_to_end(&mut farewell)).await.unwrap();
    assert!(!farewell.is_empty(), "it is told why");
    until("its session ends", || server.sessions().len() == 1).await;
    (&here).write_all(b"unharmed").await.unwrap();
    assert_eq!(within("read", there.read_bytes(100)).await.unwrap().unwrap(), "unharmed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_sessions_is_told() {
    let server = Server::builder().listen("127.0.0.1:0").plain(true).max_sessions(3, 2).bind().await.unwrap();
    let (ann, bob) = (SecretKey::generate(), SecretKey::generate());
    let mut kept = Vec::new();
    for (key, admitted) in [(&ann, true), (&ann, true), (&ann, false), (&bob, true), (&bob, false)] {
        let (answer, carrier) = hello(&server, key, new_session_id(), 0, false).await;
        assert_eq!(answer.err().map(|reject| reject.code), (!admitted).then_some(RejectCode::Busy));
        kept.push(carrier);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_share_the_servers_memory_and_give_it_back() {
    let first_window = SessionConfig::default().session_window;
    let builder = Server::builder().listen("127.0.0.1:0").plain(true).memory(2 * first_window);
    let server = builder.bind().await.unwrap();
    let client =
        || Client::builder().address(server.local_addr().unwrap()).carrier(CarrierKind::Plain).tunnels(1);
    let (first, _second) = (client().connect().await.unwrap(), client().connect().await.unwrap());
    assert_eq!(server.memory().reserved(), server.memory().limit());
    let refused = client().connect().await.unwrap_err().to_string();
    assert!(refused.contains("at a limit") && refused.contains("no memory left"), "{refused}");
    first.close().await;
    until("it is given back", || server.memory().reserved() == first_window).await;
    client().connect().await.unwrap();
}

/// A Hello that was sent before the client's first Welcome may come when the session is no more, and then begins none; or at
/// another start of the server. What it makes there is another session, though under the same id; its client must not take it
/// for the one that it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_made_again_has_another_boot_id() {
    let session = SessionConfig { resume_for: Duration::from_millis(50), ..SessionConfig::default() };
    let start = || Server::builder().listen("127.0.0.1:0").plain(true).session(session.clone()).bind();
    let server = start().await.unwrap();
    let (key, id) = (SecretKey::generate(), new_session_id());
    let (first, carrier) = hello(&server, &key, id, 0, false).await;
    let (second, other) = hello(&server, &key, id, 1, false).await;
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!((first.boot, first.known, second.known), (second.boot, false, true));
    drop((carrier, other));
    until("it has expired", || server.sessions().is_empty()).await;
    let (late, _carrier) = hello(&server, &key, id, 2, false).await;
    assert_eq!(late.unwrap_err().code, RejectCode::NoSuchSession);
    let (late, _carrier) = hello(&start().await.unwrap(), &key, id, 2, false).await;
    let late = late.unwrap();
    assert!(!late.known && late.boot != first.boot, "{late:?}");
}

/// Counts how often it is woken.
#[derive(Default)]
struct Counted(AtomicUsize);

impl std::task::Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// It was woken by its own waiting, again and again, for as long as no tunnel was up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_tunnel_to_open_a_connection_is_called_by_it_alone() {
    let server = Server::builder().listen("127.0.0.1:0").plain(true).bind().await.unwrap();
    let (key, id) = (SecretKey::generate(), new_session_id());
    let (welcome, carrier) = hello(&server, &key, id, 0, false).await;
    welcome.unwrap();
    let session = server.sessions().pop().unwrap();
    drop(carrier);
    until("its tunnel is gone", || session.tunnels_up() == 0).await;
    let counted = Arc::new(Counted::default());
    let waker = std::task::Waker::from(counted.clone());
    let mut opening = Box::pin(session.open_when_up("somewhere"));
    let mut poll = || opening.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_ready();
    assert!(!poll());
    assert!(!poll() && counted.0.load(Ordering::Relaxed) == 0, "nothing calls it");
    let (welcome, _carrier) = hello(&server, &key, id, 1, true).await;
    welcome.unwrap();
    until("it is called", || counted.0.load(Ordering::Relaxed) > 0).await;
    assert!(poll());
}
