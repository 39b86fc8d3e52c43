//! Peers that read and grant credit and never acknowledge, or stop doing so: what is held for them is bounded by the
//! send budget, and their tunnels are dropped.

use std::time::Duration;

use gkd_core::carrier::CarrierKind;
use gkd_core::identity::SecretKey;
use gkd_proto::SessionConfig;
use gkd_proto::packet::{Ack, Packet};
use gkd_tests::Serving;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::peer::{At, KINDS, Peer, all_credit, connect, connect_to, destination, exchange, honest, server};
use crate::support::{HANG, until};

const MIB: u64 = 1024 * 1024;

/// Small bounds, so that they are met soon.
fn short() -> SessionConfig {
    SessionConfig {
        send_budget: MIB,
        silent_for: Duration::from_secs(2),
        resume_for: Duration::from_secs(2),
        ..SessionConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_never_acknowledges_holds_the_send_budget_and_loses_its_tunnels() {
    const TUNNELS: u64 = 4;
    for kind in KINDS {
        let (server, key) = (server(short()).await, SecretKey::generate());
        let at = At::server(&server, kind);
        let mut peers = vec![Peer::join(at, &key).await];
        for tunnel in 1..TUNNELS {
            peers.push(peers[0].again(at, &key, tunnel).await);
        }
        peers[0].send([connect(0)].into_iter().chain(all_credit(0))).await.unwrap();
        let (download, _) = server.accept().await.unwrap();
        let writing = tokio::spawn(async move {
            let block = vec![7; 64 * 1024];
            while (&download).write_all(&block).await.is_ok() {}
        });
        let session = server.sessions_of(&key.public()).pop().unwrap();
        // Everything is read, on every tunnel, until the server closes it.
        let reading = peers.into_iter().map(|mut peer| {
            tokio::spawn(async move {
                let mut payload = 0;
                while let Some(packet) = peer.next().await {
                    if let Packet::Data(data) = packet {
                        payload += data.payload.len() as u64;
                    }
                }
                payload
            })
        });
        let reading: Vec<_> = reading.collect();
        let (mut in_flight, mut queued) = (0, 0);
        while session.ended().is_none() {
            let stats = session.stats();
            in_flight = in_flight.max(stats.in_flight);
            queued = queued.max(stats.queued);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut payload = 0;
        for reading in reading {
            payload += tokio::time::timeout(HANG, reading).await.expect("every tunnel is dropped").unwrap();
        }
        println!(
            "{kind}: at most {in_flight} B unacknowledged, {queued} B queued; {payload} B of payload arrived"
        );
        let config = short().clamped();
        let packet = 64 * 1024;
        assert!(in_flight <= 2 * config.send_budget + packet, "{in_flight}");
        assert!(queued <= config.send_buffer + 2 * in_flight + packet, "{queued}");
        assert!(payload <= 2 * config.send_budget + packet, "{payload}");
        writing.await.unwrap();
        until("it is forgotten", || server.sessions().is_empty()).await;
    }
}

/// A program that writes without end to whoever connects.
async fn source() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let block = vec![7; 256 * 1024];
                while socket.write_all(&block).await.is_ok() {}
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stops_acknowledging_at_full_speed_holds_no_more_memory_than_the_send_budget() {
    let serving = Serving::with(&["--plain"]);
    let (at, key) = At::process(&serving, CarrierKind::Plain);
    let Some(before) = serving.server.memory() else { return };
    let mut peer = Peer::join(at, &key).await;
    let to = destination(source().await);
    let open = (0..4).flat_map(|index| [connect_to(index, to.clone())].into_iter().chain(all_credit(index)));
    peer.send(open.collect::<Vec<_>>()).await.unwrap();
    // Acknowledged a tenth of a second late, so that the line looks long and much may be on the way; then no more.
    let mut late = std::collections::VecDeque::new();
    let start = tokio::time::Instant::now();
    let (mut received, mut acknowledged) = (0, 0);
    while start.elapsed() < Duration::from_secs(4) {
        match tokio::time::timeout(Duration::from_millis(100), peer.next()).await {
            Ok(Some(Packet::Data(data))) => received += data.payload.len() as u64,
            Ok(packet) => assert!(packet.is_some(), "the tunnel stands"),
            Err(_) => {}
        }
        if late.back().is_none_or(|(_, count)| peer.counted > *count) {
            late.push_back((tokio::time::Instant::now(), peer.counted));
        }
        while let Some((at, count)) = late.front()
            && at.elapsed() >= Duration::from_millis(100)
        {
            acknowledged = *count;
            peer.send([Packet::Ack(Ack { tunnel: peer.tunnel, count: acknowledged, delay: 0 })])
                .await
                .unwrap();
            late.pop_front();
        }
    }
    while let Ok(Some(_)) = tokio::time::timeout(Duration::from_secs(1), peer.next()).await {}
    let held = serving.server.memory().unwrap().most.saturating_sub(before.now);
    let config = SessionConfig::default();
    println!(
        "{} MiB were read, {} packets are unacknowledged: {} MiB more resident",
        received / MIB,
        peer.counted - acknowledged,
        held / MIB
    );
    assert!(peer.counted > acknowledged && received > 4 * MIB);
    // What is unacknowledged and what writers may have queued, in buffers that are half full at least; and the
    // server's own.
    let budget = 2 * (config.send_budget + config.send_queue) + 48 * MIB;
    assert!(held <= budget, "{held} of {budget} bytes");
    let client = honest(at, &key).await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_reads_nothing_at_all_stops_only_itself() {
    let server = crate::peer::echo_server(short()).await;
    for kind in KINDS {
        let at = At::server(&server, kind);
        let mut peer = Peer::join(at, &SecretKey::generate()).await;
        peer.send([connect(0)].into_iter().chain(all_credit(0))).await.unwrap();
        // Asks for its own bytes back, and does not read them: the server stops reading the connection.
        let mut sent = 0;
        for number in 0..15 {
            peer.send([crate::peer::data(0, number, vec![7; 60_000])]).await.unwrap();
            sent += 60_000;
        }
        let client = honest(at, &SecretKey::generate()).await;
        exchange(&client.get_connection().await.unwrap(), 1_000_000).await;
        let sessions = server.sessions();
        let stats = sessions.iter().map(|session| session.stats());
        let held = stats.map(|stats| stats.in_flight + stats.queued + stats.unread).max().unwrap();
        assert!(held <= 2 * sent + 15 * 128, "{held} bytes are held of {sent}");
        client.close().await;
    }
}
