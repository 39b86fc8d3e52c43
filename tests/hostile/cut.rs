//! Handshakes and packets cut at every byte, declared lengths that nobody has, unknown types: a tunnel ends, or is
//! waited for no longer than it may be; its session goes on, and nothing is kept.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use gkd_core::carrier::{self, CarrierKind, Dial};
use gkd_core::identity::{SecretKey, new_session_id};
use gkd_core::{Server, SessionEnd, SessionHandle};
use gkd_proto::SessionConfig;
use gkd_proto::handshake::decode_answer;
use gkd_proto::id::{PacketNumber, TunnelId};
use gkd_proto::packet::{
    Account, Ack, Blocked, Credit, Datagram, Drain, Finish, Gone, Leave, Packet, Ping, Pong,
};
use gkd_proto::session::CloseCause;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::peer::{At, KINDS, Peer, connect, connect_to, data, exchange, hello, honest, id, reset};
use crate::support::{spawn_echo, until, within};

/// A server whose sessions do not outlive their tunnels for long, and all sessions that there were.
async fn forgetful_server() -> (Arc<Server>, Arc<Mutex<Vec<SessionHandle>>>) {
    let config = SessionConfig { resume_for: Duration::from_millis(300), ..SessionConfig::default() };
    let sessions = Arc::<Mutex<Vec<_>>>::default();
    let seen = sessions.clone();
    let builder = Server::builder().listen("127.0.0.1:0").plain(true).session(config);
    let builder = builder.on_session(move |session, _| seen.lock().unwrap().push(session));
    let server = Arc::new(builder.bind().await.unwrap());
    spawn_echo(server.clone());
    (server, sessions)
}

/// A relay for one connection that ends both sides when so many bytes of the client's have passed. Its address, and
/// how many passed.
async fn cutting(to: At, after: usize) -> (At, tokio::task::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let relay = tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = to.dial().await;
        near.set_nodelay(true).unwrap();
        let (mut passed, mut there, mut back) = (0, vec![0; 4096], vec![0; 4096]);
        while passed < after {
            tokio::select! {
                read = near.read(&mut there[..]) => {
                    let count = read.unwrap_or(0).min(after - passed);
                    if count == 0 || far.write_all(&there[..count]).await.is_err() {
                        break;
                    }
                    passed += count;
                }
                read = far.read(&mut back[..]) => {
                    let count = read.unwrap_or(0);
                    if count == 0 || near.write_all(&back[..count]).await.is_err() {
                        break;
                    }
                }
            }
        }
        passed
    });
    (At { address, ..to }, relay)
}

/// An honest handshake over whatever this leads to; whether there was a Welcome.
async fn try_handshake(at: At, key: &SecretKey) -> bool {
    let hello = hello(new_session_id(), 0, false);
    let (session, tunnel) = (hello.session, hello.tunnel);
    let web = at.web();
    let dial = Dial { kind: at.kind, key, server: Some(at.key), session, tunnel, web: Some(&web) };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    let Ok(mut carrier) = carrier::connect(at.dial().await, &dial, deadline).await else { return false };
    let mut buf = BytesMut::new();
    hello.encode(&mut buf);
    let said = carrier.write_all(&buf).await;
    if said.is_err() || carrier.flush().await.is_err() {
        return false;
    }
    buf.clear();
    loop {
        match decode_answer(&mut buf) {
            Ok(None) => {}
            Ok(Some(answer)) => return answer.is_ok(),
            Err(error) => panic!("the server says {error}"),
        }
        if !matches!(carrier.read_buf(&mut buf).await, Ok(1..)) {
            return false;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_that_is_cut_at_any_byte_leaves_nothing() {
    let (server, sessions) = forgetful_server().await;
    let key = SecretKey::generate();
    for kind in KINDS {
        let at = At::server(&server, kind);
        let (through, relay) = cutting(at, usize::MAX).await;
        assert!(within("the whole handshake", try_handshake(through, &key)).await);
        let whole = within("it passes", relay).await.unwrap();
        until("its session is forgotten", || server.sessions().is_empty()).await;
        // Every byte of the few that the bare carrier takes; every eleventh of TLS's, where each takes a
        // signature. The carriers' own tests cut it at every byte, in memory.
        let step = if kind == CarrierKind::Plain { 1 } else { 11 };
        let before = sessions.lock().unwrap().len();
        for after in (0..whole).step_by(step) {
            let (through, relay) = cutting(at, after).await;
            assert!(
                !within("the cut handshake", try_handshake(through, &key)).await,
                "{kind}: {after} of {whole}"
            );
            assert_eq!(relay.await.unwrap(), after);
        }
        println!("{kind}: {whole} bytes, cut at every {step}");
        // A Hello that is not whole makes no session.
        assert_eq!(sessions.lock().unwrap().len(), before);
    }
    exchange(
        &honest(At::server(&server, CarrierKind::Tls), &key).await.get_connection().await.unwrap(),
        10_000,
    )
    .await;
}

/// One of each packet, such that all of them together are in order.
fn one_of_each() -> Vec<Packet> {
    let finish = Finish { connection: id(0), number: PacketNumber(1) };
    let datagram = Datagram {
        connection: id(0),
        address: Bytes::from_static(b"there"),
        payload: Bytes::from_static(b"data"),
    };
    vec![
        connect_to(0, Bytes::from_static(b"somewhere")),
        data(0, 0, "payload"),
        Packet::Finish(finish),
        Packet::Datagram(datagram),
        Packet::Credit(Credit { account: Account::Session, total: 1 << 40 }),
        Packet::Blocked(Blocked { account: Account::Session, total: 70_000 }),
        Packet::Ack(Ack { tunnel: TunnelId(0), count: 0, delay: 1000 }),
        Packet::Ping(Ping { token: 1 << 40 }),
        Packet::Pong(Pong { token: 1 << 40, count: 0 }),
        Packet::Drain(Drain { reason: 100 }),
        Packet::Unknown(0x2f),
        reset(1, 0),
        Packet::Leave(Leave { tunnel: TunnelId(0) }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_are_cut_at_any_byte_end_their_tunnel_and_no_session() {
    let (server, sessions) = forgetful_server().await;
    for kind in KINDS {
        let at = At::server(&server, kind);
        let mut whole = BytesMut::new();
        one_of_each().iter().for_each(|packet| packet.encode(&mut whole));
        sessions.lock().unwrap().clear();
        for cut in 0..=whole.len() {
            let mut peer = Peer::join(at, &SecretKey::generate()).await;
            peer.send_bytes(&whole[..cut]).await.unwrap();
            // Heard, for a socket that is closed with answers unread may take what was said with it.
            until("it is heard", || {
                let session = sessions.lock().unwrap().last().unwrap().stats();
                session.tunnels.first().is_none_or(|tunnel| tunnel.received >= cut as u64)
            })
            .await;
        }
        until("all are forgotten", || server.sessions().is_empty()).await;
        let sessions = sessions.lock().unwrap();
        assert_eq!(sessions.len(), whole.len() + 1);
        for (cut, session) in sessions.iter().enumerate() {
            let end = session.ended();
            assert!(
                matches!(end, Some(SessionEnd::Closed(CloseCause::Expired))),
                "{kind}: cut at {cut}: {end:?}"
            );
        }
    }
}

/// Bytes that are no packets.
fn not_packets() -> Vec<(&'static str, Vec<u8>)> {
    let declared = |kind: u8, len: u64| {
        let mut bytes = vec![kind];
        bytes.put_u64(len | 3 << 62);
        bytes
    };
    vec![
        ("Data of 2^62 - 1 bytes", declared(0x32, (1 << 62) - 1)),
        ("Connect of 2^62 - 1 bytes", declared(0x30, (1 << 62) - 1)),
        ("an unknown type of 2^62 - 1 bytes", declared(0x0f, (1 << 62) - 1)),
        ("one above the bound", declared(0x32, 66_561)),
        ("a type of 2^62 - 1", [vec![0xff; 8], vec![0]].concat()),
        ("an unknown type that must be known", vec![0x3f, 0]),
        ("a Hello in a tunnel", vec![0x10, 0]),
        ("a Welcome in a tunnel", vec![0x11, 0]),
        ("a Reject in a tunnel", vec![0x12, 0]),
        ("a Connect without a body", vec![0x30, 0]),
        ("a Connect whose destination is longer than it", vec![0x30, 3, 1, 5, 0]),
        ("a Ping with bytes left over", vec![0x1c, 2, 1, 1]),
        ("zeros", vec![0; 100]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_packets_end_their_tunnel_and_the_session_goes_on() {
    let (server, _) = forgetful_server().await;
    for kind in KINDS {
        let (at, key) = (At::server(&server, kind), SecretKey::generate());
        let mut first = Peer::join(at, &key).await;
        first.send([connect(0)]).await.unwrap();
        let mut number = 0;
        for (turn, (what, bytes)) in not_packets().into_iter().enumerate() {
            let mut second = first.again(at, &key, turn as u64 + 1).await;
            second.send_bytes(&bytes).await.unwrap();
            if what == "zeros" {
                // Type 0, length 0: unknown, neither counted nor to be known, fifty of them. They are passed over.
                second.send([Packet::Ping(Ping { token: 1 })]).await.unwrap();
                second.find(|packet| matches!(packet, Packet::Pong(_)).then_some(())).await;
                continue;
            }
            while let Some(packet) = second.next().await {
                assert!(!matches!(packet, Packet::Close(_)), "{what}: {packet:?}");
            }
            // The other tunnel is told, and carries on.
            let count = first.find(|packet| match packet {
                Packet::Gone(gone) if gone.tunnel == second.tunnel => Some(gone.count),
                _ => None,
            });
            assert_eq!(count.await, 0, "{what}");
            let settled = Packet::Gone(Gone { tunnel: second.tunnel, count: second.counted });
            let ack = first.ack();
            first.send([settled, ack, data(0, number, what)]).await.unwrap();
            number += 1;
            let echoed = first.find(|packet| match packet {
                Packet::Data(data) => Some(data.payload),
                _ => None,
            });
            assert_eq!(echoed.await, what);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hellos_that_make_no_sense_are_closed_and_make_no_session() {
    let (server, sessions) = forgetful_server().await;
    let mut good = BytesMut::new();
    hello(new_session_id(), 0, false).encode(&mut good);
    let with = |at: usize, bytes: &[u8]| {
        let mut changed = good.to_vec();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        changed
    };
    let huge = [&[0x10][..], &[0xff; 8]].concat();
    for (what, said) in [
        ("a declared length of 2^62 - 1", huge),
        ("one byte above the bound", vec![0x10, 0x60, 0x01]),
        ("a packet instead", vec![0x1c, 1, 1]),
        ("a Welcome instead", with(0, &[0x11])),
        ("an exists of 7", with(2 + 1 + 16 + 1, &[7])),
        ("bytes left over", [&with(1, &[good[1] + 1])[..], &[0]].concat()),
        ("parameters without end", with(2 + 1 + 16 + 2, &[0x3f])),
    ] {
        for kind in KINDS {
            let (at, key) = (At::server(&server, kind), SecretKey::generate());
            let mut carrier = at.carrier(at.dial().await, &key, new_session_id(), TunnelId(0)).await;
            carrier.write_all(&said).await.unwrap();
            carrier.flush().await.unwrap();
            let mut answer = Vec::new();
            let ended = within(what, carrier.read_to_end(&mut answer)).await;
            assert!(answer.is_empty(), "{kind}: {what}: {ended:?} {answer:?}");
        }
    }
    assert!(sessions.lock().unwrap().is_empty());
}
