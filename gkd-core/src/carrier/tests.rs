//! Both ends of each carrier, well-behaved and not.

mod cut;
mod records;
mod strangers;
mod tampered;

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use gkd_proto::handshake::{Hello, Parameters, VERSION};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const SESSION: SessionId = SessionId([7; 16]);
const TUNNEL: TunnelId = TunnelId(3);

fn client_key() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

fn server_key() -> SecretKey {
    SecretKey::from_seed([2; 32])
}

fn in_ten_seconds() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn acceptor() -> Acceptor {
    Acceptor::new(&server_key()).unwrap().with_plain(true)
}

fn dial_of(kind: CarrierKind, key: &SecretKey) -> Dial<'_> {
    Dial { kind, key, server: Some(server_key().public()), session: SESSION, tunnel: TUNNEL, web: None }
}

/// Both ends of the handshake; what they come to.
async fn handshake(
    kind: CarrierKind,
    near: impl Into<Wire>,
    far: impl Into<Wire>,
) -> (Result<Carrier, CarrierError>, Result<Incoming, CarrierError>) {
    let (key, acceptor, deadline) = (client_key(), acceptor(), in_ten_seconds());
    let target = ws::Target::new(&"a.example:80".parse().unwrap(), 80, &ws::Options::default());
    let dial = Dial { web: Some(&target), ..dial_of(kind, &key) };
    tokio::join!(connect(near, &dial, deadline), accept(&acceptor, far, deadline))
}

/// The server's side, that of WebSocket included.
async fn accept(
    acceptor: &Acceptor,
    far: impl Into<Wire>,
    deadline: Instant,
) -> Result<Incoming, CarrierError> {
    let wire = match acceptor.accept(far, deadline).await? {
        Incoming::Http(wire) => wire,
        other => return Ok(other),
    };
    let served = async {
        let visit = Arc::new(ws::Visit { config: ws::WebSocketConfig::default(), site: ws::not_found() });
        let wire = ws::serve(wire, ([192, 0, 2, 1], 1).into(), &visit, &Arc::default()).await?;
        acceptor.accept_websocket(wire.ok_or(CarrierError::Closed)?).await.map(Incoming::Gkd)
    };
    tokio::time::timeout_at(deadline, served).await.unwrap_or(Err(CarrierError::Deadline))
}

fn pipe() -> (Wire, Wire) {
    let (near, far) = duplex(4096);
    (Wire::brought(near), Wire::brought(far))
}

async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

fn gkd(incoming: Result<Incoming, CarrierError>) -> Carrier {
    match incoming.unwrap() {
        Incoming::Gkd(carrier) => carrier,
        Incoming::Http(wire) | Incoming::Foreign(wire) => panic!("{wire:?} is foreign"),
    }
}

/// More than all buffers hold, in vectored writes one way and plain ones the other, then both ends close.
async fn carries_bytes(near: Carrier, far: Carrier) {
    let sent: Vec<u8> = (0..300_000_u32).map(|i| (i ^ (i >> 8)) as u8).collect();
    let client = async |mut carrier: Carrier| {
        assert!(carrier.is_write_vectored());
        let mut from = 0;
        while from < sent.len() {
            let (a, b) = sent[from..sent.len().min(from + 30_000)].split_at(100);
            from += carrier.write_vectored(&[IoSlice::new(a), IoSlice::new(b)]).await.unwrap();
        }
        carrier.shutdown().await.unwrap();
        let mut back = Vec::new();
        carrier.read_to_end(&mut back).await.unwrap();
        back
    };
    let server = async |mut carrier: Carrier| {
        let mut received = Vec::new();
        carrier.read_to_end(&mut received).await.unwrap();
        carrier.write_all(&received).await.unwrap();
        carrier.shutdown().await.unwrap();
        received
    };
    let (back, received) = tokio::join!(client(near), server(far));
    assert!(received == sent && back == sent);
}

#[tokio::test]
async fn each_carrier_over_a_pipe_knows_the_other_end_and_carries_bytes() {
    for kind in [CarrierKind::Tls, CarrierKind::Plain] {
        let (near, far) = pipe();
        let (near, far) = handshake(kind, near, far).await;
        let (mut near, far) = (near.unwrap(), gkd(far));
        assert_eq!((near.kind(), near.peer()), (kind, server_key().public()));
        assert_eq!((far.kind(), far.peer()), (kind, client_key().public()));
        assert!(near.socket().is_none() && near.peer_addr().is_none());
        assert_eq!(near.sample(), PathSample::default());
        carries_bytes(near, far).await;
    }
}

#[tokio::test]
async fn each_carrier_over_tcp_has_its_socket_within_reach() {
    for kind in [CarrierKind::Tls, CarrierKind::Plain] {
        let (near, far) = tcp().await;
        let address = far.peer_addr().unwrap();
        let (near, far) = handshake(kind, near, far).await;
        let (mut near, far) = (near.unwrap(), gkd(far));
        assert_eq!(far.peer_addr(), Some(address));
        if cfg!(target_os = "linux") {
            assert!(near.sample().round_trip.is_some(), "{kind}: {:?}", near.sample());
        }
        carries_bytes(near, far).await;
    }
}

#[tokio::test]
async fn a_memory_carrier_is_told_both_keys() {
    let (near, far) = memory::pair(client_key().public(), server_key().public(), 1000);
    assert_eq!((near.peer(), far.peer()), (server_key().public(), client_key().public()));
    carries_bytes(near, far).await;
}

#[tokio::test]
async fn a_server_with_another_key_is_told_with_both_keys_and_the_mend() {
    let link_names = SecretKey::from_seed([9; 32]).public();
    for kind in [CarrierKind::Tls, CarrierKind::Plain] {
        let (near, far) = tcp().await;
        let address = near.peer_addr().unwrap();
        let (key, acceptor, deadline) = (client_key(), acceptor(), in_ten_seconds());
        let dial = Dial { server: Some(link_names), ..dial_of(kind, &key) };
        let (near, far) = tokio::join!(connect(near, &dial, deadline), acceptor.accept(far, deadline));
        let error = near.unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "the server at {address} proved another key than this link names \
                 (expected {}, got {}): ask for a new link, or someone is in between",
                crate::identity::public_text(&link_names),
                crate::identity::public_text(&server_key().public()),
            )
        );
        assert!(
            error.at("gkd.example:9990").to_string().starts_with("the server at gkd.example:9990 proved")
        );
        assert!(far.is_err());
    }
}

#[tokio::test]
async fn without_a_servers_key_only_the_unencrypted_carrier_goes() {
    let (key, acceptor, deadline) = (client_key(), acceptor(), in_ten_seconds());
    let (near, far) = pipe();
    let dial = Dial { server: None, ..dial_of(CarrierKind::Plain, &key) };
    let (near, far) = tokio::join!(connect(near, &dial, deadline), acceptor.accept(far, deadline));
    assert_eq!(near.unwrap().peer(), server_key().public());
    assert_eq!(gkd(far).peer(), key.public());
    let dial = Dial { server: None, ..dial_of(CarrierKind::Tls, &key) };
    assert!(matches!(connect(pipe().0, &dial, deadline).await, Err(CarrierError::NoServerKey)));
}

#[tokio::test]
async fn over_websocket_the_other_end_and_the_socket_below_are_known() {
    let (near, far) = tcp().await;
    let address = near.local_addr().unwrap();
    let (near, far) = handshake(CarrierKind::Ws, near, far).await;
    let (mut near, mut far) = (near.unwrap(), gkd(far));
    assert_eq!((near.kind(), near.peer()), (CarrierKind::Ws, server_key().public()));
    assert_eq!((far.kind(), far.peer()), (CarrierKind::Ws, client_key().public()));
    assert_eq!((near.socket().unwrap().local_addr().unwrap(), far.peer_addr()), (address, Some(address)));
    if cfg!(target_os = "linux") {
        assert!(near.sample() != PathSample::default() && far.sample() != PathSample::default());
    }
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i ^ (i >> 8)) as u8).collect();
    let pass = async |from: &mut Carrier, to: &mut Carrier| {
        let write = async {
            from.write_all(&sent).await.unwrap();
            from.flush().await.unwrap();
        };
        let mut got = vec![0; sent.len()];
        let read = async { to.read_exact(&mut got).await.map(drop).unwrap() };
        tokio::join!(write, read);
        assert!(got == sent);
    };
    pass(&mut near, &mut far).await;
    pass(&mut far, &mut near).await;
}

#[tokio::test]
async fn a_websocket_needs_to_be_told_what_to_ask_for() {
    let key = client_key();
    for kind in [CarrierKind::Ws, CarrierKind::Wss] {
        let error = connect(pipe().0, &dial_of(kind, &key), in_ten_seconds()).await.unwrap_err();
        assert!(matches!(error, CarrierError::NoTarget), "{error}");
    }
}

#[tokio::test]
async fn the_unencrypted_carrier_is_not_taken_unasked() {
    let (near, far) = pipe();
    let (key, acceptor, deadline) = (client_key(), acceptor().with_plain(false), in_ten_seconds());
    let dial = dial_of(CarrierKind::Plain, &key);
    let (near, far) = tokio::join!(connect(near, &dial, deadline), acceptor.accept(far, deadline));
    assert!(matches!(far, Err(CarrierError::PlainNotTaken)));
    let error = near.unwrap_err().at("server.example:1");
    assert!(matches!(error, CarrierError::PlainRefused { .. }), "{error:?}");
    let words = error.to_string();
    assert!(
        words.starts_with("the server at server.example:1 does not take") && words.contains("--plain"),
        "{words}"
    );
}

#[tokio::test]
async fn a_hello_must_be_the_one_that_was_signed_for() {
    let hello = Hello {
        version: VERSION,
        session: SESSION,
        tunnel: TUNNEL,
        exists: false,
        parameters: Parameters::default(),
        dead: Vec::new(),
    };
    let other_session = Hello { session: SessionId([8; 16]), ..hello.clone() };
    let other_tunnel = Hello { tunnel: TunnelId(4), ..hello.clone() };
    for kind in [CarrierKind::Tls, CarrierKind::Plain] {
        let (near, far) = pipe();
        let far = gkd(handshake(kind, near, far).await.1);
        assert!(far.check_hello(&hello).is_ok());
        for other in [&other_session, &other_tunnel] {
            assert_eq!(far.check_hello(other).is_err(), kind == CarrierKind::Plain, "{kind}");
        }
    }
}

#[tokio::test]
async fn the_server_name_tells_a_balancer_the_session_and_nothing_else() {
    let (near, mut far) = duplex(4096);
    let (key, session) = (client_key(), SessionId(*b"0123456789abcdef"));
    let server = server_key().public();
    let client = tokio::spawn(async move { tls::connect(Wire::brought(near), &key, server, session).await });
    let mut hello = vec![0; 5];
    far.read_exact(&mut hello).await.unwrap();
    hello.resize(usize::from(u16::from_be_bytes([hello[3], hello[4]])), 0);
    far.read_exact(&mut hello).await.unwrap();
    client.abort();
    let has = |needle: &[u8]| hello.windows(needle.len()).any(|window| window == needle);
    // The SHA-256 of "0123456789abcdef" begins so.
    assert!(has(b"g9f9f5111f7b27a781f1f1ddde5ebc2dd"));
    assert!(has(tls::ALPN));
    assert!(!has(&session.0) && !has(&client_key().public().0));
}

#[tokio::test]
async fn a_wire_gives_back_what_was_read_ahead_and_stops_at_its_allowance() {
    let (mut near, far) = duplex(4096);
    near.write_all(b"0123456789abcdef").await.unwrap();
    let mut wire = Wire::brought(far);
    wire.allow(Some(10));
    let mut first = [0; 4];
    wire.read_exact(&mut first).await.unwrap();
    wire.put_back(bytes::Bytes::copy_from_slice(&first));
    let mut allowed = [0; 10];
    wire.read_exact(&mut allowed).await.unwrap();
    assert_eq!(&allowed, b"0123456789");
    let error = CarrierError::from(wire.read(&mut [0; 10]).await.unwrap_err());
    assert!(matches!(error, CarrierError::TooMuch), "{error:?}");
    wire.allow(None);
    let mut rest = [0; 6];
    wire.read_exact(&mut rest).await.unwrap();
    assert_eq!(&rest, b"abcdef");
}
