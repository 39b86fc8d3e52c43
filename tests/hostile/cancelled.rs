//! Resets in every place: of downloads half-way, before their Connect, of ids never seen. Accounts balance to zero,
//! and the session's credit is whole afterwards.

use std::sync::Arc;

use bytes::Bytes;
use gkd_core::Client;
use gkd_core::carrier::CarrierKind;
use gkd_core::identity::SecretKey;
use gkd_proto::SessionConfig;
use gkd_proto::id::{ConnectionId, PacketNumber};
use gkd_proto::packet::{Finish, Packet, ResetCode};

use crate::peer::{At, KINDS, Peer, connect, data, echo_server, exchange, honest, id, reset, server};
use crate::support::{until, within};

/// How many downloads are cancelled. Each is some 16 KiB of a stream without end.
const DOWNLOADS: usize = 10_000;

/// How many of them run at a time.
const AT_ONCE: usize = 50;

async fn cancel_half_way(client: &Client, index: usize) {
    let connection = within("open", client.open("endless")).await.unwrap();
    let mut read = 0;
    // From nothing to some packets; cancelled by a reset or by going away.
    while read < index % 4 * 8 * 1024 {
        read += within("read", connection.read_bytes(8 * 1024)).await.unwrap().unwrap().len();
    }
    match index % 3 {
        0 => connection.reset(ResetCode::APPLICATION),
        _ => drop(connection),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_downloads_cancelled_half_way_leave_the_credit_whole() {
    let server = server(SessionConfig::default()).await;
    let serving = server.clone();
    tokio::spawn(async move {
        while let Some((connection, _)) = serving.accept().await {
            connection.confirm(Ok(()));
            if connection.destination().is_empty() {
                tokio::spawn(async move {
                    let (r, w) = &mut (&connection, &connection);
                    tokio::io::copy(r, w).await.ok();
                    tokio::io::AsyncWriteExt::shutdown(w).await.ok();
                });
                continue;
            }
            tokio::spawn(async move {
                let block = Bytes::from(vec![7; 16 * 1024]);
                while connection.write_bytes(block.clone()).await.is_ok() {}
            });
        }
    });
    let client = Arc::new(honest(At::server(&server, CarrierKind::Plain), &SecretKey::generate()).await);
    let session = server.sessions().pop().unwrap();
    exchange(&client.get_connection().await.unwrap(), 100_000).await;
    let credit = |session: &gkd_core::SessionHandle| session.stats().credit;
    let mut tasks = tokio::task::JoinSet::new();
    for first in 0..AT_ONCE {
        let client = client.clone();
        tasks.spawn(async move {
            for index in (first..DOWNLOADS).step_by(AT_ONCE) {
                cancel_half_way(&client, index).await;
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for (end, session) in [("client", client.session()), ("server", session.clone())] {
        until("all are forgotten", || session.stats().connections == 0).await;
        let stats = session.stats();
        assert_eq!((stats.unread, stats.queued), (0, 0), "{end}: {stats:?}");
    }
    let (here, there) = (client.stats(), session.stats());
    assert_eq!((here.charged, there.charged), (there.charged_there, here.charged_there));
    // Grants come in quarters of the window, which is not below its first size.
    let first = SessionConfig::default().session_window;
    until("the credit is whole", || credit(&session) >= first / 4 * 3).await;
    println!(
        "{DOWNLOADS} downloads cancelled, {} B received; credit {} of {first}",
        here.payload_received,
        credit(&session)
    );
    exchange(&client.get_connection().await.unwrap(), 8_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_before_their_connects_and_of_ids_never_seen_settle_to_nothing() {
    const IDS: u64 = 3000;
    let server = echo_server(SessionConfig::default()).await;
    for kind in KINDS {
        let key = SecretKey::generate();
        let mut peer = Peer::join(At::server(&server, kind), &key).await;
        let session = server.sessions_of(&key.public()).pop().unwrap();
        // A third is reset before data and Connect come, a third after data, a third is never heard of again.
        let packets = (0..IDS).rev().flat_map(|index| {
            let total = if index % 3 == 2 { 0 } else { 128 + 4 };
            let late = [data(index, 0, "late"), connect(index)];
            match index % 3 {
                0 => [vec![reset(index, total)], late.to_vec()].concat(),
                1 => [late[..1].to_vec(), vec![reset(index, total)], late[1..].to_vec()].concat(),
                _ => vec![reset(index, total)],
            }
        });
        peer.send(packets.collect::<Vec<_>>()).await.unwrap();
        let mut answered = std::collections::BTreeSet::new();
        while answered.len() < IDS as usize {
            let id: ConnectionId = peer
                .find(|packet| match packet {
                    Packet::Reset(reset) => Some(reset.connection),
                    Packet::Connected(_) | Packet::Data(_) => panic!("{packet:?} of what was reset"),
                    _ => None,
                })
                .await;
            assert!(answered.insert(id), "{id} is answered twice");
        }
        let ack = peer.ack();
        peer.send([ack]).await.unwrap();
        until("all are forgotten", || session.stats().connections == 0).await;
        let stats = session.stats();
        assert_eq!((stats.unread, stats.charged_there), (0, IDS / 3 * 2 * 132), "{stats:?}");
        // What comes late changes nothing, and the session goes on.
        let finish = Packet::Finish(Finish { connection: id(0), number: PacketNumber(1) });
        peer.send([reset(0, 132), data(0, 7, "late"), finish, connect(IDS), data(IDS, 0, "on")])
            .await
            .unwrap();
        let echoed = peer.find(|packet| match packet {
            Packet::Data(data) => Some((data.connection, data.payload)),
            _ => None,
        });
        assert_eq!(echoed.await, (id(IDS), Bytes::from_static(b"on")));
    }
}
