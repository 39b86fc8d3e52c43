//! Floods: of packets behind one that is withheld, of empty ones, of openings that are taken back, of questions whose
//! answers nobody reads. The server's memory stays within what its windows say, answers are coalesced, and an honest
//! client beside it is served.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use gkd_core::carrier::CarrierKind;
use gkd_core::identity::SecretKey;
use gkd_proto::SessionConfig;
use gkd_proto::credit::{OVERHEAD, charge};
use gkd_proto::id::TunnelId;
use gkd_proto::packet::{Account, Blocked, CloseCode, Credit, Drain, Leave, Packet, Ping};
use gkd_proto::session::MAX_UNSEEN;
use gkd_tests::Serving;

use crate::peer::{
    At, KINDS, Peer, all_credit, connect, connect_to, data, destination, echo_server, exchange, honest, id,
    reset, sink,
};

const MIB: u64 = 1024 * 1024;

/// What a server process may hold beside the windows of its sessions: socket buffers, tasks, what the allocator
/// keeps.
const SLACK: u64 = 48 * MIB;

/// A peer that keeps to its credit, and gets as much of it as can be had.
struct Flow {
    peer: Peer,
    session: u64,
    session_charged: u64,
    connections: BTreeMap<u64, Sending>,
}

/// One connection's account and the number of its next packet.
struct Sending {
    granted: u64,
    charged: u64,
    number: u64,
}

impl Flow {
    async fn open(at: At, key: &SecretKey, connections: u64, to: &Bytes) -> Self {
        let mut peer = Peer::join(at, key).await;
        let parameters = peer.welcome.parameters;
        peer.send((0..connections).map(|index| connect_to(index, to.clone()))).await.unwrap();
        let account =
            |index| (index, Sending { granted: parameters.connection_window, charged: 0, number: 0 });
        let connections = (0..connections).map(account).collect();
        Self { peer, session: parameters.session_window, session_charged: 0, connections }
    }

    /// Leaves a connection's next number out: nothing behind it can be read.
    fn withhold(&mut self, index: u64) {
        let account = self.connections.get_mut(&index).unwrap();
        account.number += 1;
        account.charged += OVERHEAD;
        self.session_charged += OVERHEAD;
    }

    /// Sends up to `most` packets with this payload as far as credit goes; how many.
    async fn fill(&mut self, index: u64, payload: &Bytes, most: u64) -> u64 {
        let account = self.connections.get_mut(&index).unwrap();
        let credit = (account.granted - account.charged).min(self.session - self.session_charged);
        let count = most.min(credit / charge(payload.len()));
        let first = account.number;
        account.number += count;
        account.charged += count * charge(payload.len());
        self.session_charged += count * charge(payload.len());
        let packets = (first..first + count).map(|number| data(index, number, payload.clone()));
        self.peer.send(packets).await.unwrap();
        count
    }

    /// Says that it waits, and takes what is granted until nothing comes for a while.
    async fn blocked(&mut self) {
        let connections = self.connections.iter();
        let connections =
            connections.map(|(index, account)| (Account::Connection(id(*index)), account.granted));
        let all: Vec<_> = connections.chain([(Account::Session, self.session)]).collect();
        self.peer
            .send(all.into_iter().map(|(account, total)| Packet::Blocked(Blocked { account, total })))
            .await
            .unwrap();
        self.take_credit(Duration::from_millis(100)).await;
    }

    /// Takes credit and acknowledges, until nothing comes for so long.
    async fn take_credit(&mut self, quiet: Duration) {
        while let Ok(packet) = tokio::time::timeout(quiet, self.peer.next()).await {
            self.take(packet.expect("the tunnel stands"));
        }
        let ack = self.peer.ack();
        self.peer.send([ack]).await.unwrap();
    }

    fn take(&mut self, packet: Packet) {
        match packet {
            Packet::Credit(Credit { account: Account::Session, total }) => {
                self.session = self.session.max(total)
            }
            Packet::Credit(Credit { account: Account::Connection(connection), total }) => {
                let account = self.connections.get_mut(&connection.index()).unwrap();
                account.granted = account.granted.max(total);
            }
            Packet::Close(close) => panic!("closed: {close:?}"),
            _ => {}
        }
    }
}

/// Fills every window that can be had with packets behind one that is withheld, and looks at the server's memory.
async fn memory_of_withheld(kind: CarrierKind, payload: Bytes, least: u64) {
    let serving = Serving::with(&["--plain"]);
    let (at, key) = At::process(&serving, kind);
    let Some(before) = serving.server.memory() else { return };
    // Each is granted half of what is free beyond its first window, so that sixteen use next to all.
    let mut flow = Flow::open(at, &key, 16, &destination(sink().await)).await;
    (0..16).for_each(|index| flow.withhold(index));
    let (mut sent, mut idle) = (0, 0);
    // The windows double once a round trip.
    while idle < 4 {
        let mut round = 0;
        for index in 0..16 {
            round += flow.fill(index, &payload, u64::MAX).await;
        }
        flow.blocked().await;
        idle = if round == 0 { idle + 1 } else { 0 };
        sent += round;
    }
    let memory = serving.server.memory().unwrap();
    let held = memory.most.saturating_sub(before.now);
    let config = SessionConfig::default();
    println!(
        "{kind}: {sent} packets of {} B behind withheld ones, {} MiB of charge: {} MiB more resident",
        payload.len(),
        flow.session_charged / MIB,
        held / MIB
    );
    assert!(sent >= least, "only {sent} packets were taken");
    assert!(flow.session_charged <= config.max_session_window);
    assert!(held <= config.max_session_window + SLACK, "{held} bytes are held: {memory:?}");
    // One above is the end of it, and an honest client is served.
    let above = flow.connections[&0].granted / OVERHEAD;
    flow.peer.send([data(0, above, "")]).await.unwrap();
    let (code, reason) = flow.peer.closed().await;
    assert!(code == CloseCode::PROTOCOL && reason.contains("credit"), "{reason}");
    honest(at, &key).await.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packet_0_withheld_and_a_million_one_byte_packets_behind_it() {
    memory_of_withheld(CarrierKind::Plain, Bytes::from_static(b"x"), 1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packet_0_withheld_and_every_window_full_over_tls() {
    memory_of_withheld(CarrierKind::Tls, Bytes::from(vec![7; 1400]), 80_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_of_each_read_does_not_hold_the_rest_of_it() {
    let serving = Serving::with(&["--plain"]);
    let (at, key) = At::process(&serving, CarrierKind::Plain);
    let Some(before) = serving.server.memory() else { return };
    const WAITING: u64 = 16;
    let mut flow = Flow::open(at, &key, WAITING + 1, &destination(sink().await)).await;
    (0..WAITING).for_each(|index| flow.withhold(index));
    let payload = Bytes::from(vec![7; 32 * 1024 - 7]);
    let (mut waiting, mut idle) = (0, 0);
    while idle < 4 {
        let mut round = 0;
        for turn in 0..WAITING * 8 {
            // Seven eighths are read at once, one waits for what never comes.
            if flow.fill(WAITING, &payload, 7).await < 7 {
                flow.take_credit(Duration::from_millis(2)).await;
            }
            round += flow.fill(turn % WAITING, &payload, 1).await;
        }
        waiting += round;
        idle = if round == 0 { idle + 1 } else { 0 };
        flow.blocked().await;
    }
    let held = serving.server.memory().unwrap().most.saturating_sub(before.now);
    println!(
        "{} MiB wait behind packets that are withheld, {} MiB passed: {} MiB more resident",
        waiting * payload.len() as u64 / MIB,
        flow.connections[&WAITING].charged / MIB,
        held / MIB
    );
    assert!(held <= SessionConfig::default().max_session_window + SLACK, "{held} bytes are held");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_empty_packets_holds_nothing() {
    let serving = Serving::with(&["--plain"]);
    let (at, key) = At::process(&serving, CarrierKind::Plain);
    let Some(before) = serving.server.memory() else { return };
    let mut flow = Flow::open(at, &key, 1, &destination(sink().await)).await;
    let mut sent = 0;
    while sent < 300_000 {
        sent += flow.fill(0, &Bytes::new(), 2000).await;
        flow.take_credit(Duration::from_millis(1)).await;
    }
    let held = serving.server.memory().unwrap().most.saturating_sub(before.now);
    println!("{sent} empty packets: {} KiB more resident", held / 1024);
    assert!(held <= SLACK / 2, "{held} bytes");
    honest(at, &key).await.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_then_reset_a_million_times_leaves_nothing() {
    const BATCH: u64 = 1000;
    const BATCHES: u64 = 1000;
    let server = echo_server(SessionConfig::default()).await;
    let key = SecretKey::generate();
    let mut peer = Peer::join(At::server(&server, CarrierKind::Plain), &key).await;
    let session = server.sessions_of(&key.public()).pop().unwrap();
    let mut most = 0;
    for batch in 0..BATCHES {
        let ids = batch * BATCH..(batch + 1) * BATCH;
        peer.send(ids.flat_map(|index| [connect(index), reset(index, 0)])).await.unwrap();
        for _ in 0..BATCH {
            peer.find(|packet| matches!(packet, Packet::Reset(_)).then_some(())).await;
        }
        most = most.max(session.stats().connections);
        let ack = peer.ack();
        peer.send([ack]).await.unwrap();
    }
    println!("{} connections opened and reset: at most {most} records at a time", BATCHES * BATCH);
    assert!(most <= 2 * BATCH as usize, "{most}");
    crate::support::until("all are forgotten", || session.stats().connections == 0).await;
    // The session is as good as new.
    let next = BATCHES * BATCH;
    peer.send([connect(next), data(next, 0, "still there")]).await.unwrap();
    let echoed = peer.find(|packet| match packet {
        Packet::Data(data) => Some(data.payload),
        _ => None,
    });
    assert_eq!(echoed.await, "still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connect_then_reset_without_an_acknowledgement_ends_at_the_bound() {
    let server = echo_server(SessionConfig::default()).await;
    for kind in KINDS {
        let key = SecretKey::generate();
        let mut peer = Peer::join(At::server(&server, kind), &key).await;
        let bound = SessionConfig::default().max_connections + MAX_UNSEEN as u64;
        // The server may have ended the session before all is written.
        let sent = peer.send((0..=bound).flat_map(|index| [connect(index), reset(index, 0)])).await;
        let (code, reason) = peer.closed().await;
        assert!(code == CloseCode::PROTOCOL && reason.contains("far more connections"), "{sent:?} {reason}");
    }
}

/// Packets that cost their sender next to nothing, and ask for something.
fn cheap_questions() -> Vec<(&'static str, Packet)> {
    let window = SessionConfig::default().session_window;
    let blocked = |total| Packet::Blocked(Blocked { account: Account::Session, total });
    vec![
        ("Ping", Packet::Ping(Ping { token: 7 })),
        ("Blocked at the credit", blocked(window)),
        ("Blocked below the credit", blocked(0)),
        ("Leave", Packet::Leave(Leave { tunnel: TunnelId(0) })),
        ("Drain", Packet::Drain(Drain { reason: 1 })),
        ("an unknown type that is counted", Packet::Unknown(0x2f)),
        ("an unknown type that is not", Packet::Unknown(0x0f)),
        ("Credit that is none", Packet::Credit(Credit { account: Account::Session, total: 0 })),
        ("late data", data(0, 0, "")),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_whose_answers_nobody_reads_are_answered_together() {
    const FLOOD: usize = 200_000;
    let serving = Serving::with(&["--plain"]);
    let (at, key) = At::process(&serving, CarrierKind::Plain);
    let Some(before) = serving.server.memory() else { return };
    for (what, packet) in cheap_questions() {
        let mut peer = Peer::join(at, &key).await;
        // Connection 0 was and is over, so that data for it is late.
        peer.send([connect(0), reset(0, 0)]).await.unwrap();
        peer.find(|packet| matches!(packet, Packet::Reset(_)).then_some(())).await;
        let ack = peer.ack();
        peer.send([ack]).await.unwrap();
        for _ in 0..FLOOD / 1000 {
            peer.send(vec![packet.clone(); 1000]).await.unwrap();
        }
        // Nothing was read so far. A Leave is answered, and the tunnel goes when all is settled.
        if !matches!(packet, Packet::Leave(_)) {
            peer.send([Packet::Ping(Ping { token: 4711 })]).await.unwrap();
        }
        let mut answers = 0;
        while let Some(packet) = peer.next().await {
            answers += 1;
            if matches!(packet, Packet::Pong(pong) if pong.token == 4711) {
                break;
            }
            let ack = peer.ack();
            if packet.is_counted() && peer.send([ack]).await.is_err() {
                break;
            }
        }
        println!("{what}: {FLOOD} packets, {answers} answers");
        assert!(answers <= FLOOD / 50, "{what}: {answers} answers");
    }
    let held = serving.server.memory().unwrap().most.saturating_sub(before.now);
    println!("{} KiB more resident", held / 1024);
    assert!(held <= SLACK, "{held} bytes");
    honest(at, &key).await.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_beside_it_costs_an_honest_connection_no_byte() {
    let server = echo_server(SessionConfig::default()).await;
    let at = At::server(&server, CarrierKind::Tls);
    let client = honest(at, &SecretKey::generate()).await;
    let mut peer = Peer::join(at, &SecretKey::generate()).await;
    let flooding = tokio::spawn(async move {
        peer.send(all_credit(0)).await.unwrap();
        loop {
            if peer.send(vec![Packet::Ping(Ping { token: 1 }); 1000]).await.is_err() {
                break;
            }
        }
    });
    exchange(&client.get_connection().await.unwrap(), 4_000_000).await;
    assert!(!flooding.is_finished(), "the flood was on");
    flooding.abort();
}
