//! Users who try the sessions of others, and handshakes that are replayed: refused, with nothing to be learnt from the
//! answer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gkd_core::carrier::CarrierKind;
use gkd_core::carrier::ws::frame::Decoder;
use gkd_core::identity::{PublicKey, SecretKey, new_session_id};
use gkd_core::{Admission, Server};
use gkd_proto::handshake::{DeadTunnel, Hello, Reject, RejectCode};
use gkd_proto::id::{Side, TunnelId};
use gkd_proto::packet::Reset;
use gkd_proto::packet::{Close, CloseCode, Gone, Packet, ResetCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::peer::{At, KINDS, Peer, connect, data, exchange, hello, honest, id};
use crate::support::{spawn_echo, until, within};

/// A server that knows these keys and no others; they may be taken away.
async fn server_for(users: &[&SecretKey]) -> (Arc<Server>, Arc<Mutex<BTreeSet<PublicKey>>>) {
    let users: BTreeSet<_> = users.iter().map(|key| key.public()).collect();
    let users = Arc::new(Mutex::new(users));
    let known = users.clone();
    let builder = Server::builder().listen("127.0.0.1:0").plain(true).authorise(move |peer| {
        let known = known.lock().unwrap().contains(peer);
        if known { Ok(Admission::default()) } else { Err(Reject::new(RejectCode::UnknownUser)) }
    });
    let server = Arc::new(builder.bind().await.unwrap());
    spawn_echo(server.clone());
    (server, users)
}

/// What the server answers to a Hello, in bytes, up to the end of its direction.
async fn answer(at: At, key: &SecretKey, hello: &Hello) -> Vec<u8> {
    let mut carrier = at.carrier(at.dial().await, key, hello.session, hello.tunnel).await;
    let mut bytes = bytes::BytesMut::new();
    hello.encode(&mut bytes);
    carrier.write_all(&bytes).await.unwrap();
    carrier.flush().await.unwrap();
    let mut answer = Vec::new();
    within("the answer", carrier.read_to_end(&mut answer)).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_gets_one_and_the_same_answer_whatever_it_asks_for() {
    let (ann, revoked) = (SecretKey::generate(), SecretKey::generate());
    let (server, users) = server_for(&[&ann, &revoked]).await;
    for kind in KINDS {
        let at = At::server(&server, kind);
        users.lock().unwrap().insert(revoked.public());
        let theirs = Peer::join(at, &revoked).await;
        let anns = Peer::join(at, &ann).await;
        users.lock().unwrap().remove(&revoked.public());
        let ann_id = anns.session;
        let dead = vec![DeadTunnel { tunnel: TunnelId(0), count: 0 }];
        let mut answers = BTreeSet::new();
        for key in [&SecretKey::generate(), &SecretKey::generate(), &revoked] {
            for asked in [
                hello(new_session_id(), 0, false),
                hello(new_session_id(), 0, true),
                hello(ann_id, 1, true),
                hello(ann_id, 0, true),
                hello(theirs.session, 1, true),
                Hello { version: 99, ..hello(ann_id, 1, true) },
                Hello { dead: dead.clone(), ..hello(ann_id, 2, true) },
            ] {
                answers.insert(answer(at, key, &asked).await);
            }
        }
        assert_eq!(answers.len(), 1, "{kind}: {answers:?}");
        let mut reject = bytes::BytesMut::new();
        Reject::new(RejectCode::UnknownUser).encode(&mut reject);
        assert_eq!(answers.pop_first().unwrap(), reject[..]);
        assert_eq!(server.sessions_of(&ann.public())[0].tunnels_up(), 1);
        drop((theirs, anns));
        server.sessions().iter().for_each(|session| session.close(CloseCode::DONE, ""));
        until("all are forgotten", || server.sessions().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_can_neither_join_nor_steal_nor_close_the_session_of_another() {
    let (ann, bob, ben) = (SecretKey::generate(), SecretKey::generate(), SecretKey::generate());
    let (server, _) = server_for(&[&ann, &bob, &ben]).await;
    for kind in KINDS {
        let at = At::server(&server, kind);
        let client = honest(at, &ann).await;
        until("all of her tunnels", || client.tunnels_up() == client.tunnels().len()).await;
        let living = client.get_connection().await.unwrap();
        (&living).write_all(b"before").await.unwrap();
        within("the echo", (&living).read_exact(&mut [0; 6])).await.unwrap();
        let session = server.sessions_of(&ann.public()).pop().unwrap();
        let before = (session.tunnels_up(), session.stats().connections);
        // To join: as if no such session were.
        let asked = answer(at, &bob, &hello(session.id(), 9, true)).await;
        assert_eq!(asked, answer(at, &bob, &hello(new_session_id(), 9, true)).await);
        // To steal or close: under her id he gets a session of his own, whatever he does in it.
        let reset = Reset { connection: id(0), code: ResetCode::APPLICATION, total: 128 + 4 };
        let gone = Gone { tunnel: TunnelId(1), count: 0 };
        let close = Close { code: CloseCode::REVOKED, reason: "go".into() };
        for (thief, last) in [(&bob, Packet::Gone(gone)), (&ben, Packet::Close(close))] {
            let mut bobs = Peer::say(at, thief, &hello(session.id(), 0, false)).await.unwrap();
            assert!(!bobs.welcome.known);
            bobs.send([connect(0), data(0, 0, "mine")]).await.unwrap();
            let echoed = bobs.find(|packet| match packet {
                Packet::Data(data) => Some(data.payload),
                _ => None,
            });
            assert_eq!(echoed.await, "mine");
            bobs.send([Packet::Reset(reset), last]).await.unwrap();
            until("his own ends", || server.sessions_of(&thief.public()).is_empty()).await;
        }
        assert_eq!((session.tunnels_up(), session.stats().connections), before);
        assert!(session.ended().is_none());
        exchange(&client.get_connection().await.unwrap(), 100_000).await;
        drop(living);
        client.close().await;
    }
}

/// A relay for one connection that keeps what the client said.
async fn record(at: At, key: &SecretKey) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let through = At { address: listener.local_addr().unwrap(), ..at };
    let recording = tokio::spawn(async move {
        let (near, _) = listener.accept().await.unwrap();
        let far = at.dial().await;
        let ((mut near_r, mut near_w), (mut far_r, mut far_w)) = (near.into_split(), far.into_split());
        let back = tokio::spawn(async move { tokio::io::copy(&mut far_r, &mut near_w).await });
        let (mut said, mut buf) = (Vec::new(), vec![0; 4096]);
        while let Ok(count @ 1..) = near_r.read(&mut buf).await {
            said.extend_from_slice(&buf[..count]);
            far_w.write_all(&buf[..count]).await.unwrap();
        }
        back.abort();
        said
    });
    match Peer::say(through, key, &hello(new_session_id(), 0, false)).await {
        Ok(mut peer) => {
            peer.send([connect(0), data(0, 0, "once")]).await.unwrap();
            peer.find(|packet| matches!(packet, Packet::Data(_)).then_some(())).await;
        }
        Err(reject) => assert_eq!(reject.code, RejectCode::UnknownUser),
    }
    recording.await.unwrap()
}

/// Says it all again; what comes back, up to the end.
async fn replay(at: At, said: &[u8]) -> Vec<u8> {
    let mut tcp = at.dial().await;
    tcp.write_all(said).await.ok();
    let mut answer = Vec::new();
    let mut buf = [0; 4096];
    within("the replay is closed", async {
        while let Ok(count @ 1..) = tcp.read(&mut buf).await {
            answer.extend_from_slice(&buf[..count]);
        }
    })
    .await;
    answer
}

/// What a client said without its answer to the server's Close: replayed with the rest it would be the first thing that a
/// server answers, and the last.
fn without_close(kind: CarrierKind, mut said: Vec<u8>) -> Vec<u8> {
    // Two bytes, a mask, a code.
    let begins = said.len() - 8;
    if kind == CarrierKind::Ws && said[begins..].starts_with(&[0x88, 0x82]) {
        said.truncate(begins);
    }
    said
}

/// What a server said over this carrier, without the WebSocket around it.
fn unframed(kind: CarrierKind, said: Vec<u8>) -> Vec<u8> {
    if kind != CarrierKind::Ws {
        return said;
    }
    let head = said.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    assert!(said.starts_with(b"HTTP/1.1 101 "));
    let (mut frames, mut decoder) = (said[head..].to_vec(), Decoder::new(Side::Server));
    let len = decoder.decode(&mut frames);
    frames.truncate(len);
    frames
}

/// Kinds and lengths of TLS records.
fn shape(mut records: &[u8]) -> Vec<(u8, usize)> {
    let mut shape = Vec::new();
    while let [kind, _, _, high, low, ..] = *records {
        let len = usize::from(u16::from_be_bytes([high, low]));
        shape.push((kind, len));
        records = records.get(5 + len..).unwrap_or_default();
    }
    shape
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_handshake_opens_nothing_and_tells_nothing() {
    let (ann, stranger) = (SecretKey::generate(), SecretKey::generate());
    let (server, _) = server_for(&[&ann]).await;
    for kind in KINDS {
        let at = At::server(&server, kind);
        let known = record(at, &ann).await;
        let unknown = without_close(kind, record(at, &stranger).await);
        let session = server.sessions_of(&ann.public()).pop().unwrap();
        until("the recorded tunnel ends", || session.tunnels_up() == 0).await;
        let received = session.stats().payload_received;
        let (of_known, of_unknown) = (replay(at, &known).await, replay(at, &unknown).await);
        if kind == CarrierKind::Plain {
            // The challenge and the server's key; then the signature is not good for this challenge.
            assert_eq!((of_known.len(), of_unknown.len()), (64, 64));
        } else {
            // The end of the second kind may differ by what the reset of the socket cut off.
            let [of_known, of_unknown] = [of_known, of_unknown].map(|said| shape(&unframed(kind, said)));
            assert!(!of_known.is_empty() && !of_unknown.is_empty());
            let both = of_known.len().min(of_unknown.len());
            assert_eq!(of_known[..both], of_unknown[..both]);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let stats = session.stats();
        assert_eq!((session.tunnels_up(), stats.payload_received), (0, received), "{kind}: {stats:?}");
        assert_eq!(server.sessions_of(&ann.public()).len(), 1);
        assert!(server.sessions_of(&stranger.public()).is_empty());
        session.close(CloseCode::DONE, "");
        until("it is forgotten", || server.sessions().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_that_was_not_signed_for_is_refused_on_the_bare_carrier() {
    let ann = SecretKey::generate();
    let (server, _) = server_for(&[&ann]).await;
    let at = At::server(&server, CarrierKind::Plain);
    let first = Peer::join(at, &ann).await;
    // Whoever sits on the path changes the Hello behind a good signature.
    let tcp: TcpStream = at.dial().await;
    let mut carrier = at.carrier(tcp, &ann, new_session_id(), TunnelId(0)).await;
    let mut bytes = bytes::BytesMut::new();
    hello(first.session, 1, true).encode(&mut bytes);
    carrier.write_all(&bytes).await.unwrap();
    let mut answer = bytes::BytesMut::new();
    within("the answer", carrier.read_buf(&mut answer)).await.unwrap();
    let answer = gkd_proto::handshake::decode_answer(&mut answer).unwrap().unwrap();
    assert_eq!(answer.unwrap_err().code, RejectCode::Protocol);
    assert_eq!(server.sessions_of(&ann.public())[0].tunnels_up(), 1);
}

/// A program that ends just when it begins leaves a Hello on its way: nobody would ever come to the session that it made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_comes_late_to_a_session_that_has_ended_begins_none() {
    let ann = SecretKey::generate();
    let (server, _users) = server_for(&[&ann]).await;
    for kind in KINDS {
        let at = At::server(&server, kind);
        let mut first = Peer::join(at, &ann).await;
        let over = Close { code: CloseCode::DONE, reason: String::new() };
        first.send([Packet::Close(over)]).await.unwrap();
        until("the session has ended", || server.sessions().is_empty()).await;
        let late = Peer::say(at, &ann, &hello(first.session, 1, false)).await;
        assert_eq!(late.err().map(|reject| reject.code), Some(RejectCode::NoSuchSession), "{kind}");
        assert!(server.sessions().is_empty(), "{kind}");
        // The next of its own is a session as any other.
        drop(Peer::join(at, &ann).await);
        server.sessions().iter().for_each(|session| session.close(CloseCode::DONE, ""));
        until("the session has ended", || server.sessions().is_empty()).await;
    }
}
