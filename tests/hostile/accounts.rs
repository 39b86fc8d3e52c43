//! Accounts that do not add up and sequences that contradict themselves, over real carriers: the session is told why
//! and ends, and nobody else's does.

use gkd_core::identity::SecretKey;
use gkd_proto::SessionConfig;
use gkd_proto::credit::OVERHEAD;
use gkd_proto::id::{ConnectionId, PacketNumber, Side, TunnelId};
use gkd_proto::packet::{Account, Ack, Blocked, CloseCode, Connect, Connected, Finish, Gone, Leave, Packet};

use crate::peer::{
    At, KINDS, MOST, Peer, all_credit, connect, data, echo_server, exchange, honest, id, reset,
};
use crate::support::until;

/// What a peer sends, and a word of the reason that it is told.
fn broken_rules() -> Vec<(Vec<Packet>, &'static str)> {
    let credit = SessionConfig::default().connection_window;
    let finish = |number| Packet::Finish(Finish { connection: id(0), number: PacketNumber(number) });
    let ack = |tunnel, count| Packet::Ack(Ack { tunnel: TunnelId(tunnel), count, delay: 0 });
    let even = ConnectionId::from_index(Side::Server, 0);
    let connect_as = |connection| Packet::Connect(Connect { connection, destination: Default::default() });
    let blocked = |account| Packet::Blocked(Blocked { account, total: MOST });
    vec![
        (vec![connect(0), data(0, 1 << 61, "x")], "credit"),
        (vec![connect(0), data(0, MOST, "x")], "credit"),
        (vec![connect(0), finish(MOST)], "credit"),
        (vec![connect(0), data(0, 1, vec![0; 65_536]), data(0, credit / OVERHEAD, "")], "credit"),
        (vec![connect(0), data(0, 1, "four"), reset(0, 131)], "reset at a total"),
        (vec![connect(0), reset(0, credit + 1)], "reset at a total"),
        (vec![reset(0, MOST)], "reset at a total"),
        (vec![ack(0, 1)], "acknowledges"),
        (vec![ack(0, MOST)], "acknowledges"),
        (vec![ack(9, 0)], "never was"),
        (vec![Packet::Gone(Gone { tunnel: TunnelId(9), count: 0 })], "never was"),
        (vec![Packet::Gone(Gone { tunnel: TunnelId(0), count: MOST })], "acknowledges"),
        (vec![Packet::Leave(Leave { tunnel: TunnelId(MOST) })], "never was"),
        (vec![blocked(Account::Session)], "granted was"),
        (vec![connect(0), blocked(Account::Connection(id(0)))], "granted was"),
        (vec![connect(0), data(0, 1, "a"), data(0, 1, "b")], "different content"),
        (vec![connect(0), finish(1), data(0, 1, "x")], "behind its own end"),
        (vec![connect(0), data(0, 1, "x"), finish(1)], "behind its own end"),
        (vec![connect(0), finish(1), finish(2)], "behind its own end"),
        (vec![connect_as(even)], "wrong end"),
        (vec![connect_as(ConnectionId(0))], "wrong end"),
        (vec![Packet::Connected(Connected { connection: id(0), result: Ok(()) })], "wrong end"),
        (vec![Packet::Finish(Finish { connection: even, number: PacketNumber(0) })], "never opened"),
        (vec![connect(5000)], "skips more than"),
        (vec![connect(MOST / 2)], "skips more than"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_rule_ends_its_session_with_the_reason_and_no_other() {
    let server = echo_server(SessionConfig::default()).await;
    let beside = honest(At::server(&server, KINDS[0]), &SecretKey::generate()).await;
    let living = beside.get_connection().await.unwrap();
    let key = SecretKey::generate();
    for kind in KINDS {
        let at = At::server(&server, kind);
        // Another session of the same peer is not to notice either.
        let mut other = Peer::join(at, &key).await;
        for (packets, word) in broken_rules() {
            let mut peer = Peer::join(at, &key).await;
            peer.send(packets.clone()).await.unwrap();
            let (code, reason) = peer.closed().await;
            assert!(code == CloseCode::PROTOCOL && reason.contains(word), "{packets:?}: {code:?} {reason:?}");
        }
        until("its sessions are forgotten", || server.sessions_of(&key.public()).len() == 1).await;
        other.send([connect(0), data(0, 0, "unharmed")]).await.unwrap();
        let echoed = other.find(|packet| match packet {
            Packet::Data(data) => Some(data.payload),
            _ => None,
        });
        assert_eq!(echoed.await, "unharmed");
        other
            .send([Packet::Close(gkd_proto::packet::Close { code: CloseCode::DONE, reason: String::new() })])
            .await
            .unwrap();
        until("all are forgotten", || server.sessions_of(&key.public()).is_empty()).await;
    }
    exchange(&living, 100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_merely_repeated_is_dropped_and_counted() {
    let server = echo_server(SessionConfig::default()).await;
    for kind in KINDS {
        let mut peer = Peer::join(At::server(&server, kind), &SecretKey::generate()).await;
        let finish = Packet::Finish(Finish { connection: id(0), number: PacketNumber(2) });
        let once = [data(0, 1, "b"), connect(0), data(0, 0, "a"), finish];
        let twice = once.iter().flat_map(|packet| [packet.clone(), packet.clone()]);
        peer.send(twice.chain(once.iter().cloned()).chain(all_credit(0)).collect::<Vec<_>>()).await.unwrap();
        let mut echoed = Vec::new();
        while !peer
            .find(|packet| match packet {
                Packet::Data(data) => {
                    echoed.extend_from_slice(&data.payload);
                    Some(false)
                }
                Packet::Finish(_) => Some(true),
                _ => None,
            })
            .await
        {}
        assert_eq!(echoed, b"ab");
        let stats = server.sessions_of(&server.sessions().last().unwrap().peer())[0].stats();
        assert_eq!(stats.data_received, 2, "{stats:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credit_of_any_size_neither_overflows_nor_shrinks() {
    let server = echo_server(SessionConfig::default()).await;
    for kind in KINDS {
        let mut peer = Peer::join(At::server(&server, kind), &SecretKey::generate()).await;
        let none = all_credit(0).map(|packet| match packet {
            Packet::Credit(credit) => Packet::Credit(gkd_proto::packet::Credit { total: 0, ..credit }),
            other => other,
        });
        peer.send([connect(0)].into_iter().chain(all_credit(0)).chain(none).chain(all_credit(0)))
            .await
            .unwrap();
        // More than the windows that the Hello named, so that the Credit must have counted.
        let (mut numbers, mut back) = (0..100, 0);
        while back < 100 * 10_000 {
            if let Some(number) = numbers.next() {
                peer.send([data(0, number, vec![7; 10_000])]).await.unwrap();
            }
            back += peer
                .find(|packet| match packet {
                    Packet::Data(data) => Some(data.payload.len()),
                    _ => None,
                })
                .await;
            let ack = peer.ack();
            peer.send([ack]).await.unwrap();
        }
        assert_eq!(back, 100 * 10_000);
    }
}
