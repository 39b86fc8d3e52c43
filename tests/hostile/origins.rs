//! What broke in the systems that gkd takes up: each fault is held off by a test that names it. Those that an ordinary
//! test holds off already are named there, by a comment that begins with "Origin:"; here stand the others.

use std::collections::BTreeSet;
use std::time::Duration;

use gkd_core::carrier::CarrierKind;
use gkd_core::identity::SecretKey;
use gkd_core::link::Link;
use gkd_proto::SessionConfig;
use gkd_proto::id::PacketNumber;
use gkd_proto::packet::{CloseCode, Finish, Packet};
use gkd_tests::{Serving, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peer::{At, Peer, connect, data, echo_server, honest, id, server};
use crate::support::{connection, content, read_all, within};

/// Origin: gkd-rs (2019) made a new future per poll and used up a packet number on each `Pending`, so that it hung
/// for ever after some hundred MB; wmproxy's virtual stream appended before it reserved, so that a retry doubled bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_given_up_and_tried_again_neither_loses_nor_doubles_a_byte() {
    let server = server(SessionConfig::default()).await;
    let client = honest(At::server(&server, CarrierKind::Plain), &SecretKey::generate()).await;
    let (here, there) = connection(&client, &server).await;
    let sent = content(1, 40_000_000);
    // Nobody reads before the writer had to wait.
    let waited = tokio::sync::Notify::new();
    let writing = async {
        let (mut from, mut given_up) = (0, 0);
        while from < sent.len() {
            // A future of its own for each attempt, dropped at its first Pending.
            let mut writer = &here;
            let to = sent.len().min(from + 100_000);
            match tokio::time::timeout(Duration::ZERO, writer.write(&sent[from..to])).await {
                Ok(written) => from += written.unwrap(),
                Err(_) => {
                    given_up += 1;
                    waited.notify_one();
                    tokio::task::yield_now().await;
                }
            }
        }
        (&here).shutdown().await.unwrap();
        given_up
    };
    let reading = async {
        waited.notified().await;
        read_all(&there).await
    };
    let (received, given_up) = within("the transfer", async { tokio::join!(reading, writing) }).await;
    assert!(given_up > 0, "some attempt had to wait");
    assert!(received.unwrap() == sent, "the bytes are others");
}

/// Origin: wmproxy's virtual stream made an error a `Pending` for ever, and its `poll_shutdown` did nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_wakes_who_waits_and_a_shutdown_is_heard() {
    let server = server(SessionConfig::default()).await;
    let client = honest(At::server(&server, CarrierKind::Plain), &SecretKey::generate()).await;
    let (here, there) = connection(&client, &server).await;
    (&here).shutdown().await.unwrap();
    assert_eq!(read_all(&there).await.unwrap(), b"");
    // A writer that waits, a reader that waits, and the session's end.
    let (here, _there) = connection(&client, &server).await;
    let writing = async {
        let block = vec![7; 1 << 20];
        while (&here).write_all(&block).await.is_ok() {}
    };
    let reading = async { (&here).read(&mut [0]).await };
    let ending = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.sessions()[0].close(CloseCode::REVOKED, "");
    };
    let ((), read, ()) = within("both are woken", async { tokio::join!(writing, reading, ending) }).await;
    assert!(read.is_err());
}

/// Origin: smux's read loop held a lock while it queued control frames, so that two full ends deadlocked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ends_that_are_full_of_each_others_bytes_go_on_when_they_read() {
    const LEN: usize = 4_000_000;
    let server = server(SessionConfig::default()).await;
    let client = honest(At::server(&server, CarrierKind::Tls), &SecretKey::generate()).await;
    let mut ends = Vec::new();
    for _ in 0..4 {
        let (here, there) = connection(&client, &server).await;
        ends.extend([here, there]);
    }
    let ends: Vec<_> = ends.into_iter().map(std::sync::Arc::new).collect();
    let mut writers = tokio::task::JoinSet::new();
    for end in ends.clone() {
        writers.spawn(async move {
            (&*end).write_all(&vec![7; LEN]).await.unwrap();
            (&*end).shutdown().await.unwrap();
        });
    }
    // Until nothing moves any more, nobody reads.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let sent = client.stats().payload_sent + server.sessions()[0].stats().payload_sent;
        if sent == before {
            break;
        }
        before = sent;
    }
    assert!(!writers.is_empty() && before < (ends.len() * LEN) as u64, "both ends are full");
    let mut readers = tokio::task::JoinSet::new();
    for end in ends {
        readers.spawn(async move { read_all(&end).await.unwrap().len() });
    }
    while let Some(read) = within("a reader", readers.join_next()).await {
        assert_eq!(read.unwrap(), LEN);
    }
    while let Some(written) = within("a writer", writers.join_next()).await {
        written.unwrap();
    }
}

/// Origin: smux's ids are 16 bits, and the passive closer never frees its own: after 65,536 streams opened by the other
/// end none could be opened. (wmproxy's 24 bits broke after 8.4 million; ids here have 62, and `packet/tests.rs` in
/// gkd-proto carries the largest.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seventy_thousand_connections_of_the_other_end_leave_room_for_more() {
    const BATCH: u64 = 1000;
    let server = server(SessionConfig::default()).await;
    let key = SecretKey::generate();
    let mut peer = Peer::join(At::server(&server, CarrierKind::Plain), &key).await;
    let session = server.sessions_of(&key.public()).pop().unwrap();
    for batch in 0..70 {
        let ids = batch * BATCH..(batch + 1) * BATCH;
        // Opened and ended by the peer; the server's program ends its direction in turn.
        let finish = |index| Packet::Finish(Finish { connection: id(index), number: PacketNumber(0) });
        peer.send(ids.flat_map(|index| [connect(index), finish(index)])).await.unwrap();
        // As many as may wait to be accepted.
        for _ in 0..BATCH {
            drop(within("accept", server.accept()).await);
        }
        for _ in 0..BATCH {
            peer.find(|packet| matches!(packet, Packet::Finish(_)).then_some(())).await;
        }
        let ack = peer.ack();
        peer.send([ack]).await.unwrap();
    }
    crate::support::until("all are forgotten", || session.stats().connections == 0).await;
    let mine = session.open("still").await.unwrap();
    let opened = peer.find(|packet| match packet {
        Packet::Connect(connect) => Some(connect.connection),
        _ => None,
    });
    assert_eq!(opened.await, mine.id());
}

/// Origin: lantern's multipath corrupted streams in silence past 4,096 frames out of order, and acknowledged each frame
/// on its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_packets_behind_a_late_one_come_out_in_order_and_are_acknowledged_together() {
    const PACKETS: u64 = 6000;
    let server = echo_server(SessionConfig::default()).await;
    let mut peer = Peer::join(At::server(&server, CarrierKind::Plain), &SecretKey::generate()).await;
    let payload = |number: u64| vec![(number ^ (number >> 8)) as u8; 1 + (number % 3) as usize];
    peer.send([connect(0)]).await.unwrap();
    peer.send((1..PACKETS).map(|number| data(0, number, payload(number)))).await.unwrap();
    peer.send([data(0, 0, payload(0))]).await.unwrap();
    let expected: Vec<u8> = (0..PACKETS).flat_map(payload).collect();
    let (mut echoed, mut acks) = (Vec::new(), 0);
    while echoed.len() < expected.len() {
        peer.find(|packet| match packet {
            Packet::Data(data) => {
                echoed.extend_from_slice(&data.payload);
                Some(())
            }
            Packet::Ack(_) => {
                acks += 1;
                None
            }
            _ => None,
        })
        .await;
        let ack = peer.ack();
        peer.send([ack]).await.unwrap();
    }
    assert!(echoed == expected);
    println!("{PACKETS} packets, {acks} acknowledgements");
    assert!(acks <= PACKETS / 20, "{acks} acknowledgements");
}

/// Origin: wmproxy's default TLS key is public. Every server here makes its own, and every user.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_servers_and_no_two_users_have_one_key() {
    let (one, two) = (Serving::with(&[]), Serving::with(&[]));
    let dir = one.folder.path().join("server");
    let added = run("gkd-server", &["user", "add", "second", "--dir", dir.to_str().unwrap()]);
    let links = [one.link.clone(), two.link.clone(), String::from_utf8(added.stdout).unwrap()];
    let links = links.map(|link| link.trim().parse::<Link>().unwrap());
    let servers: BTreeSet<_> = links.iter().map(|link| link.server).collect();
    let users: BTreeSet<_> = links.iter().map(|link| link.user.public()).collect();
    assert_eq!((servers.len(), users.len()), (2, 3));
}
