//! A peer that breaks or bends the rules, in raw packets: each stated bound holds, and each broken rule ends
//! the session with its reason.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use gkd_proto::error::{TunnelError, Violation};
use gkd_proto::handshake::{DeadTunnel, Hello, MAX_DEAD_TUNNELS, VERSION, Welcome};
use gkd_proto::id::{BootId, ConnectionId, PacketNumber, SessionId, Side, TunnelId};
use gkd_proto::packet::{
    Account, Ack, Blocked, Connect, Connected, Credit, Data, DialError, Finish, Gone, Leave, Packet, Ping,
    Reset, ResetCode,
};
use gkd_proto::session::CloseCause;
use gkd_proto::{Event, PathSample, Read, Session, SessionConfig, Transmit};

const BOOT: BootId = BootId([1; 16]);

/// A server's session, and the hostile client's way to it.
struct Victim {
    session: Session,
    now: Instant,
}

fn hello(session: &mut Session, now: Instant, tunnel: u64, dead: Vec<DeadTunnel>) {
    let parameters = SessionConfig::default().parameters();
    let session_id = session.id();
    let tunnel = TunnelId(tunnel);
    let hello = Hello { version: VERSION, session: session_id, tunnel, exists: false, parameters, dead };
    session.handle_hello(now, &hello, BOOT, false).unwrap();
}

impl Victim {
    fn new() -> Self {
        Self::with(SessionConfig::default())
    }

    fn with(config: SessionConfig) -> Self {
        let now = Instant::now();
        let config = Arc::new(config);
        let mut session = Session::new(config, Side::Server, SessionId([2; 16]), 7, now);
        hello(&mut session, now, 0, Vec::new());
        Self { session, now }
    }

    fn send(&mut self, packets: impl IntoIterator<Item = Packet>) -> Result<(), TunnelError> {
        let mut bytes = BytesMut::new();
        packets.into_iter().for_each(|packet| packet.encode(&mut bytes));
        self.session.handle_recv(self.now, TunnelId(0), &mut bytes)
    }

    fn violation(&mut self, packets: impl IntoIterator<Item = Packet>) -> Violation {
        match self.send(packets) {
            Err(TunnelError::Violation(violation)) => {
                assert!(self.session.is_closed(), "a violation ends the session");
                violation
            }
            other => panic!("{other:?}"),
        }
    }

    /// What the victim wants to send, decoded.
    fn answers(&mut self) -> Vec<Packet> {
        self.answers_on(0)
    }

    fn answers_on(&mut self, tunnel: u64) -> Vec<Packet> {
        let mut out = Transmit::new();
        while self.session.poll_transmit(self.now, TunnelId(tunnel), 64 * 1024, &mut out) {}
        let mut bytes = BytesMut::from(&out.copy_to_bytes(out.remaining())[..]);
        std::iter::from_fn(|| Packet::decode(&mut bytes).unwrap()).collect()
    }
}

fn id(index: u64) -> ConnectionId {
    ConnectionId::from_index(Side::Client, index)
}

fn connect(index: u64) -> Packet {
    Packet::Connect(Connect { connection: id(index), destination: Bytes::new() })
}

fn data(index: u64, number: u64, payload: impl Into<Bytes>) -> Packet {
    Packet::Data(Data { connection: id(index), number: PacketNumber(number), payload: payload.into() })
}

fn reset(index: u64, total: u64) -> Packet {
    Packet::Reset(Reset { connection: id(index), code: ResetCode::APPLICATION, total })
}

/// Origin: the reorder maps of gkd-rs (2019) and the heap of Cloak have no bound; a gap exhausted aggligator's
/// memory.
#[test]
fn a_withheld_first_packet_and_a_million_behind_it_end_at_the_credit() {
    let mut victim = Victim::new();
    let packets = (1..1_000_000).map(|number| data(0, number, "x"));
    let violation = victim.violation(std::iter::once(connect(0)).chain(packets));
    assert!(matches!(violation, Violation::BeyondCredit { .. }), "{violation:?}");
}

/// Origin: a huge gap exhausted the memory of aggligator before 0.9.12; RUSTSEC-2026-0185 of quinn is its like.
#[test]
fn a_packet_number_of_2_to_the_61_is_beyond_the_credit() {
    let violation = Victim::new().violation([connect(0), data(0, 1 << 61, "x")]);
    assert!(matches!(violation, Violation::BeyondCredit { .. }), "{violation:?}");
}

#[test]
fn far_numbers_on_many_connections_end_at_the_sessions_credit() {
    let mut victim = Victim::new();
    let violation = victim.violation((0..1000).flat_map(|index| [connect(index), data(index, 8000, "")]));
    assert!(matches!(violation, Violation::BeyondSessionCredit { .. }), "{violation:?}");
}

#[test]
fn far_numbers_on_reset_connections_end_at_the_sessions_credit() {
    let mut victim = Victim::new();
    victim.send((0..1000).map(connect)).unwrap();
    for index in 0..1000 {
        let connection = victim.session.connection(victim.now, id(index)).unwrap();
        connection.reset(ResetCode::APPLICATION);
    }
    let violation = victim.violation((0..1000).map(|index| data(index, 8000, "")));
    assert!(matches!(violation, Violation::BeyondSessionCredit { .. }), "{violation:?}");
}

#[test]
fn a_small_packet_does_not_hold_the_read_buffer_of_a_large_one() {
    let mut victim = Victim::new();
    let mut buffer = BytesMut::with_capacity(64 * 1024);
    for packet in [connect(0), connect(1), data(0, 0, vec![1; 60_000]), data(1, 1, "behind a hole")] {
        packet.encode(&mut buffer);
    }
    victim.session.handle_recv(victim.now, TunnelId(0), &mut buffer).unwrap();
    let mut first = victim.session.connection(victim.now, id(0)).unwrap();
    assert!(!buffer.try_reclaim(64 * 1024), "the large payload is a slice of the buffer");
    assert!(matches!(first.read(usize::MAX), Read::Data(data) if data.len() == 60_000));
    assert!(buffer.try_reclaim(64 * 1024), "nothing else is");
}

#[test]
fn connections_above_the_most_are_reset_as_busy_and_counted() {
    let mut victim = Victim::with(SessionConfig { max_connections: 2, ..SessionConfig::default() });
    victim.send((0..5).map(connect)).unwrap();
    let accepted = std::iter::from_fn(|| victim.session.poll_event());
    assert_eq!(accepted.filter(|event| matches!(event, Event::Accepted { .. })).count(), 2);
    assert_eq!((victim.session.refused(), victim.session.stats().refused), (3, 3));
    assert!(victim.session.connection(victim.now, id(1)).is_some(), "those that it may have stay");
}

#[test]
fn a_connect_behind_a_drain_is_refused_also_when_data_came_before_it() {
    let mut victim = Victim::new();
    victim.send([data(0, 0, "early"), connect(1)]).unwrap();
    assert_eq!(
        victim.session.poll_event(),
        Some(Event::Accepted { connection: id(1), destination: "".into() })
    );
    victim.session.drain(victim.now, 1);
    victim.send([connect(0), connect(1), connect(2)]).unwrap();
    assert_eq!(victim.session.poll_event(), None, "nothing is accepted any more");
    victim.session.invariants();
    let answers = victim.answers();
    let resets = answers.iter().filter_map(|packet| match packet {
        Packet::Reset(reset) => Some((reset.connection, reset.code)),
        _ => None,
    });
    assert_eq!(resets.collect::<Vec<_>>(), [(id(0), ResetCode::BUSY), (id(2), ResetCode::BUSY)]);
    // The other end settles, and nothing of them is left.
    victim.send([reset(0, 133), reset(2, 0)]).unwrap();
    victim
        .send([Packet::Ack(Ack { tunnel: TunnelId(0), count: counted(&answers) as u64, delay: 0 })])
        .unwrap();
    assert_eq!(victim.session.connections(), 1);
}

#[test]
fn a_million_connects_and_resets_leave_bounded_records() {
    let mut victim = Victim::new();
    let most = SessionConfig::default().max_connections + 4096;
    for round in 0..1000 {
        let packets = (0..100).flat_map(|turn| [connect(round * 100 + turn), reset(round * 100 + turn, 0)]);
        if let Err(error) = victim.send(packets) {
            // The Resets are never acknowledged, so the tombstones stay up to the bound.
            assert!(matches!(error, TunnelError::Violation(Violation::TooManyConnections(_))), "{error}");
            return;
        }
        while victim.session.poll_event().is_some() {}
        assert!(victim.session.connections() as u64 <= most);
    }
    panic!("the bound was never met");
}

/// Origin: yamux answered each.
#[test]
fn pings_without_reading_are_answered_once() {
    let mut victim = Victim::new();
    victim.send((0..100_000).map(|token| Packet::Ping(Ping { token }))).unwrap();
    let pongs = victim.answers().into_iter().filter(|packet| matches!(packet, Packet::Pong(_))).count();
    assert_eq!(pongs, 1);
}

#[test]
fn accounts_that_do_not_add_up_end_the_session() {
    let credit = SessionConfig::default().connection_window;
    let cases: Vec<(&str, Vec<Packet>)> = vec![
        ("data beyond the credit", vec![connect(0), data(0, 0, vec![0; 65_536]), data(0, credit / 128, "")]),
        ("a total below what arrived", vec![connect(0), data(0, 0, "four"), reset(0, 131)]),
        ("a total above the credit", vec![connect(0), reset(0, credit + 1)]),
        ("a total above the credit, before its Connect", vec![reset(0, credit + 1)]),
        ("an ack above what was sent", vec![Packet::Ack(Ack { tunnel: TunnelId(0), count: 1, delay: 0 })]),
        (
            "an ack of a tunnel that never was",
            vec![Packet::Ack(Ack { tunnel: TunnelId(9), count: 0, delay: 0 })],
        ),
        ("a Gone of a tunnel that never was", vec![Packet::Gone(Gone { tunnel: TunnelId(9), count: 0 })]),
        ("a Gone above what was sent", vec![Packet::Gone(Gone { tunnel: TunnelId(0), count: 1 })]),
        ("a Leave of a tunnel that never was", vec![Packet::Leave(Leave { tunnel: TunnelId(9) })]),
        (
            "a Blocked above what was granted",
            vec![Packet::Blocked(Blocked { account: Account::Session, total: 1 << 61 })],
        ),
    ];
    for (case, packets) in cases {
        let mut victim = Victim::new();
        let violation = victim.violation(packets);
        let told = victim.answers().into_iter().any(|packet| matches!(packet, Packet::Close(_)));
        assert!(told, "{case}: the other end is told of {violation:?}");
    }
}

#[test]
fn sequences_that_contradict_themselves_end_the_session() {
    let finish = |number| Packet::Finish(Finish { connection: id(0), number: PacketNumber(number) });
    let even = ConnectionId::from_index(Side::Server, 0);
    let cases: Vec<(&str, Vec<Packet>)> = vec![
        ("two payloads under one number", vec![connect(0), data(0, 1, "a"), data(0, 1, "b")]),
        ("data behind the Finish", vec![connect(0), finish(1), data(0, 1, "x")]),
        ("a Finish before data that arrived", vec![connect(0), data(0, 1, "x"), finish(1)]),
        ("two different Finishes", vec![connect(0), finish(1), finish(2)]),
        (
            "a Connect of the wrong parity",
            vec![Packet::Connect(Connect { connection: even, destination: Bytes::new() })],
        ),
        (
            "a Connect of the session itself",
            vec![Packet::Connect(Connect { connection: ConnectionId(0), destination: Bytes::new() })],
        ),
        (
            "a Connected that nobody asked for",
            vec![Packet::Connected(Connected { connection: id(0), result: Ok(()) })],
        ),
        (
            "data for a connection never opened here",
            vec![Packet::Data(Data { connection: even, number: PacketNumber(0), payload: Bytes::new() })],
        ),
        ("5,000 gaps in the ids", vec![connect(5000)]),
    ];
    for (case, packets) in cases {
        let violation = Victim::new().violation(packets);
        assert!(!violation.to_string().is_empty(), "{case}");
    }
}

#[test]
fn what_is_merely_repeated_is_dropped() {
    let finish = Packet::Finish(Finish { connection: id(0), number: PacketNumber(2) });
    let once = [connect(0), data(0, 1, "b"), data(0, 0, "a"), finish];
    let mut victim = Victim::new();
    victim.send(once.iter().flat_map(|packet| [packet.clone(), packet.clone()])).unwrap();
    victim.send(once.iter().cloned()).unwrap();
    let mut connection = victim.session.connection(victim.now, id(0)).unwrap();
    assert_eq!(connection.read(1), Read::Data(Bytes::from_static(b"a")));
    assert_eq!(connection.read(1), Read::Data(Bytes::from_static(b"b")));
    assert_eq!(connection.read(1), Read::Finished);
    let accepted = std::iter::from_fn(|| victim.session.poll_event());
    assert_eq!(accepted.filter(|event| matches!(event, Event::Accepted { .. })).count(), 1);
}

/// Origin: CVE-2026-31814 and CVE-2026-32314 of yamux.
#[test]
fn credit_of_any_size_does_not_overflow() {
    let most = (1 << 62) - 1;
    let mut victim = Victim::new();
    let credit = |account, total| Packet::Credit(Credit { account, total });
    victim
        .send([connect(0), credit(Account::Session, most), credit(Account::Connection(id(0)), most)])
        .unwrap();
    let mut connection = victim.session.connection(victim.now, id(0)).unwrap();
    assert!(connection.write_slice(&[0; 100_000]).unwrap() > 0);
    assert!(!victim.answers().is_empty());
}

#[test]
fn a_refusal_behind_the_sessions_end_leaves_nothing() {
    let mut victim = Victim::new();
    let finish = Packet::Finish(Finish { connection: id(0), number: PacketNumber(1) });
    victim.send([connect(0), data(0, 0, "all of it"), finish]).unwrap();
    victim.violation([connect(5000)]);
    // It arrived whole, so it can still be read, or refused.
    let connection = victim.session.connection(victim.now, id(0)).unwrap();
    connection.connected(Err(DialError::Denied));
    assert_eq!(victim.session.connections(), 0);
}

#[test]
fn a_kernel_that_exaggerates_is_not_believed() {
    let mut victim = Victim::new();
    let most = (1 << 62) - 1;
    let credit = |account| Packet::Credit(Credit { account, total: most });
    victim.send([connect(0), credit(Account::Session), credit(Account::Connection(id(0)))]).unwrap();
    let exaggerated =
        PathSample { round_trip: Some(Duration::MAX), rate: Some(u64::MAX), ..PathSample::default() };
    victim.session.handle_path(victim.now, TunnelId(0), exaggerated);
    victim.session.connection(victim.now, id(0)).unwrap().write_slice(&[0; 65_536]).unwrap();
    let count = victim.answers().iter().filter(|packet| packet.is_counted()).count() as u64;
    // All at once, and so at the highest rate that there is.
    victim.send([Packet::Ack(Ack { tunnel: TunnelId(0), count, delay: 0 })]).unwrap();
    victim.session.connection(victim.now, id(0)).unwrap().write_slice(&[0; 65_536]).unwrap();
    assert!(!victim.answers().is_empty());
    victim.now += Duration::from_secs(3600);
    victim.session.handle_timeout(victim.now);
}

#[test]
fn a_peer_that_grants_and_never_acknowledges_makes_writers_wait() {
    let mut victim = Victim::new();
    let most = (1 << 62) - 1;
    let credit = |account| Packet::Credit(Credit { account, total: most });
    victim.send([connect(0), credit(Account::Session), credit(Account::Connection(id(0)))]).unwrap();
    let mut accepted = 0;
    for _ in 0..10_000 {
        let Some(mut connection) = victim.session.connection(victim.now, id(0)) else { break };
        accepted += connection.write_slice(&[0; 65_536]).unwrap();
        victim.answers();
    }
    let config = SessionConfig::default();
    let bound = config.send_budget + config.send_buffer + 2 * config.send_budget;
    assert!((accepted as u64) < bound, "{accepted} bytes were accepted");
}

/// The least that a session takes for the bound on unacknowledged packets.
const FEW: usize = 1024;

fn few_packets() -> SessionConfig {
    SessionConfig { send_budget_packets: FEW, ..SessionConfig::default() }
}

fn counted(packets: &[Packet]) -> usize {
    packets.iter().filter(|packet| packet.is_counted()).count()
}

#[test]
fn credit_that_is_never_acknowledged_does_not_pile_up() {
    let mut victim = Victim::with(few_packets());
    victim.send([connect(0)]).unwrap();
    let most = SessionConfig::default().connection_window / 128;
    let (mut sent, mut granted, mut told, mut acked) = (0, most, 0, 0);
    // A quarter of the window at a time, so that Credit is worth telling each time; and of the answers one in
    // sixteen is acknowledged, so that the tunnel does not stand still.
    for round in 0..4 * FEW as u64 {
        victim.send((sent..(sent + most / 4).min(granted)).map(|number| data(0, number, ""))).unwrap();
        sent = (sent + most / 4).min(granted);
        let mut connection = victim.session.connection(victim.now, id(0)).unwrap();
        while let Read::Data(_) = connection.read(usize::MAX) {}
        let answers = victim.answers();
        told += counted(&answers);
        for answer in answers {
            if let Packet::Credit(Credit { account: Account::Connection(_), total }) = answer {
                granted = total / 128;
            }
        }
        if round % 16 == 0 {
            acked += 1;
            victim.send([Packet::Ack(Ack { tunnel: TunnelId(0), count: acked, delay: 0 })]).unwrap();
        }
    }
    let held = told - acked as usize;
    assert!(held <= 2 * FEW, "{held} packets are held for an end that does not acknowledge");
    // It goes on once the other end does its part.
    victim.send([Packet::Ack(Ack { tunnel: TunnelId(0), count: told as u64, delay: 0 })]).unwrap();
    assert!(counted(&victim.answers()) > 0, "credit is told again");
}

#[test]
fn packets_that_no_tunnel_acknowledges_are_not_copied_onto_every_tunnel() {
    const TUNNELS: u64 = 16;
    let mut victim = Victim::with(few_packets());
    (1..TUNNELS).for_each(|tunnel| hello(&mut victim.session, victim.now, tunnel, Vec::new()));
    victim.send([connect(0)]).unwrap();
    let mut on_tunnel: Vec<usize> = (0..TUNNELS).map(|tunnel| counted(&victim.answers_on(tunnel))).collect();
    for _ in 0..2 * FEW {
        let mut connection = victim.session.connection(victim.now, id(0)).unwrap();
        connection.write_slice(b"x").unwrap();
        on_tunnel[0] += counted(&victim.answers());
    }
    assert!(on_tunnel[0] <= FEW + 8, "{on_tunnel:?}");
    // Each tunnel in turn is suspected, and what it holds goes to the next.
    for _ in 0..3 * TUNNELS {
        victim.now += Duration::from_millis(500);
        victim.session.handle_timeout(victim.now);
        for tunnel in 0..TUNNELS {
            on_tunnel[tunnel as usize] += counted(&victim.answers_on(tunnel));
        }
    }
    let held: usize = on_tunnel.iter().sum();
    assert!(held > FEW + 8, "what a suspect holds goes out once more: {on_tunnel:?}");
    assert!(held <= 2 * FEW + 8, "{held} packets are held: {on_tunnel:?}");
    // The first tunnel dies, of which nothing had arrived: the rest goes on.
    victim.session.handle_tunnel_down(victim.now, TunnelId(0));
    let gone = Packet::Gone(Gone { tunnel: TunnelId(0), count: 0 });
    let mut bytes = BytesMut::new();
    gone.encode(&mut bytes);
    victim.session.handle_recv(victim.now, TunnelId(TUNNELS - 1), &mut bytes).unwrap();
    let again: usize = (1..TUNNELS).map(|tunnel| counted(&victim.answers_on(tunnel))).sum();
    assert!(again > 0, "room that is free again is used");
}

#[test]
fn dials_that_a_server_names_dead_one_after_another_end_the_session() {
    let now = Instant::now();
    let config = Arc::new(SessionConfig::default());
    let mut client = Session::new(config.clone(), Side::Client, SessionId([2; 16]), 7, now);
    let up = client.hello(now).unwrap().tunnel;
    let parameters = config.parameters();
    let welcome = Welcome { version: VERSION, boot: BOOT, known: false, parameters, dead: Vec::new() };
    client.handle_welcome(now, up, &welcome).unwrap();
    let mut dials = 0;
    while !client.is_closed() && dials < 1000 {
        let tunnel = client.hello(now).unwrap().tunnel;
        let mut bytes = BytesMut::new();
        Packet::Gone(Gone { tunnel, count: 0 }).encode(&mut bytes);
        client.handle_recv(now, up, &mut bytes).unwrap();
        client.handle_tunnel_down(now, tunnel);
        client.invariants();
        dials += 1;
    }
    assert_eq!(dials, MAX_DEAD_TUNNELS + 1, "each is dead and unsettled: its Gone is not acknowledged");
    let closed =
        std::iter::from_fn(|| client.poll_event()).find(|event| matches!(event, Event::Closed { .. }));
    assert_eq!(closed, Some(Event::Closed { cause: CloseCause::Local }));
}

#[test]
fn a_tunnel_that_never_came_up_at_the_server_is_settled_by_the_next_hello() {
    let mut victim = Victim::new();
    // Tunnel 1 came up at the server only, tunnel 2 at neither end; the client tells of both.
    hello(&mut victim.session, victim.now, 1, Vec::new());
    let never = |tunnel| DeadTunnel { tunnel: TunnelId(tunnel), count: 0 };
    hello(&mut victim.session, victim.now, 3, vec![never(1), never(2)]);
    assert_eq!(victim.session.tunnels_up(), 2);
    let late = victim.session.handle_hello(
        victim.now,
        &Hello {
            version: VERSION,
            session: victim.session.id(),
            tunnel: TunnelId(2),
            exists: true,
            parameters: SessionConfig::default().parameters(),
            dead: Vec::new(),
        },
        BOOT,
        true,
    );
    assert!(late.is_err(), "a Hello that was given up must not come up later");
}
