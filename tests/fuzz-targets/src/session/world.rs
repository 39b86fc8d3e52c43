//! The session under test, its tunnels and its program: what is done to it, and what must hold afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::bytes::{Buf, BytesMut};
use gkd_proto::error::{Scope, WelcomeError};
use gkd_proto::handshake::{DeadTunnel, Hello, MIN_WINDOW, Parameters, VERSION, Welcome};
use gkd_proto::id::{BootId, ConnectionId, SessionId, Side, TunnelId};
use gkd_proto::packet::{MAX_BODY, Packet};
use gkd_proto::session::MAX_UNSEEN;
use gkd_proto::{Event, Session, SessionConfig, Transmit};

use super::bytes::Sent;
use super::said::Said;
use crate::input::Input;

const BOOT: BootId = BootId([1; 16]);

/// What the program has queued although the session's queue is full, for each connection: 4 KiB.
const LEAST_QUEUE: u64 = 4 * 1024;

/// What control packets may come to beyond the budget for what is sent, which bounds data: some hundred for every
/// connection and tunnel that a run can have.
const CONTROL: u64 = 1024 * 1024;

/// More rounds than any work of a session takes whose queues are full.
const ROUNDS: usize = 4096;

/// The windows, limits and budgets at their least, so that a short run can meet them.
fn small() -> SessionConfig {
    let config = SessionConfig {
        connection_window: MIN_WINDOW,
        max_connection_window: 2 * MIN_WINDOW,
        session_window: MIN_WINDOW,
        max_session_window: 4 * MIN_WINDOW,
        max_connections: 6,
        max_tunnels: 5,
        send_buffer: 64 * 1024,
        send_queue: 256 * 1024,
        send_budget: 0,
        send_budget_packets: 0,
        ..SessionConfig::default()
    };
    config.clamped()
}

pub(super) struct World {
    pub(super) session: Session,
    pub(super) now: Instant,
    config: SessionConfig,
    pub(super) sent: Sent,
    pub(super) said: Said,
    /// What arrived on each tunnel that is up and is not yet a whole packet, here and in the session.
    arriving: BTreeMap<TunnelId, (BytesMut, BytesMut)>,
    /// Client: its Hello is out.
    dialing: Vec<TunnelId>,
    /// Every tunnel that ever was.
    pub(super) tunnels: Vec<TunnelId>,
    /// Connections that the program has.
    pub(super) connections: BTreeSet<ConnectionId>,
    told: Vec<Event>,
    closed: bool,
    transmit: Transmit,
}

impl World {
    pub(super) fn new(input: &mut Input<'_>) -> Self {
        let side = input.pick(&[Side::Server, Side::Client]);
        let (config, now) = (small(), Instant::now());
        Self {
            session: Session::new(Arc::new(config.clone()), side, SessionId([2; 16]), 3, now),
            now,
            sent: Sent::new(input),
            said: Said::new(config.connection_window, config.session_window),
            config,
            arriving: BTreeMap::new(),
            dialing: Vec::new(),
            tunnels: Vec::new(),
            connections: BTreeSet::new(),
            told: Vec::new(),
            closed: false,
            transmit: Transmit::new(),
        }
    }

    // ---- tunnels ----

    /// One of the tunnels that are up, or were.
    pub(super) fn tunnel(&self, input: &mut Input<'_>) -> TunnelId {
        let up: Vec<_> = self.arriving.keys().copied().collect();
        match input.byte() {
            choice @ 0..=0xdf if !up.is_empty() => up[usize::from(choice) % up.len()],
            choice @ ..0xf8 if !self.tunnels.is_empty() => {
                self.tunnels[usize::from(choice) % self.tunnels.len()]
            }
            _ => TunnelId(input.number()),
        }
    }

    fn parameters(&self, input: &mut Input<'_>) -> Parameters {
        let large = input.byte();
        Parameters {
            connection_window: MIN_WINDOW << (large % 4),
            session_window: MIN_WINDOW << (large >> 2 & 3),
            max_payload: if large & 0x10 == 0 { 65_536 } else { 1024 },
            max_connections: u64::from(large >> 5),
        }
    }

    fn dead(&self, input: &mut Input<'_>) -> Vec<DeadTunnel> {
        let tell = |input: &mut Input<'_>| {
            let tunnel = self.tunnel(input);
            DeadTunnel { tunnel, count: input.near(self.said.counted(tunnel)) }
        };
        (0..input.below(4)).map(|_| tell(input)).collect()
    }

    /// Client: dials. Server: is dialled.
    pub(super) fn dial(&mut self, input: &mut Input<'_>) {
        if self.session.side() == Side::Client {
            if let Ok(hello) = self.session.hello(self.now) {
                assert!(!self.tunnels.contains(&hello.tunnel), "a tunnel's id is used twice");
                self.tunnels.push(hello.tunnel);
                self.dialing.push(hello.tunnel);
            }
            return;
        }
        let next = self.tunnels.iter().map(|tunnel| tunnel.0 + 1).max().unwrap_or(0);
        let tunnel = TunnelId(input.near(next).min((1 << 62) - 2));
        let (parameters, dead) = (self.parameters(input), self.dead(input));
        self.said.allow(parameters.connection_window, parameters.session_window);
        let version = VERSION + u64::from(input.byte() == 0xff);
        let hello = Hello { version, session: self.session.id(), tunnel, exists: false, parameters, dead };
        match self.session.handle_hello(self.now, &hello, BOOT, !self.tunnels.is_empty()) {
            Ok(welcome) => {
                assert!(!self.tunnels.contains(&tunnel), "a tunnel's id is used twice");
                assert_eq!(welcome.version, VERSION);
                self.up(tunnel);
            }
            Err(reject) => assert!(!reject.to_string().is_empty()),
        }
    }

    /// Client: the server answers a Hello, or the dial fails.
    pub(super) fn answer(&mut self, input: &mut Input<'_>) {
        if self.dialing.is_empty() {
            return;
        }
        let tunnel = self.dialing.swap_remove(input.below(self.dialing.len()));
        let manner = input.byte();
        let (parameters, dead) = (self.parameters(input), self.dead(input));
        if manner < 0x20 {
            return self.session.handle_tunnel_down(self.now, tunnel);
        }
        self.said.allow(parameters.connection_window, parameters.session_window);
        let boot = if manner == 0xff { BootId([0; 16]) } else { BOOT };
        let version = VERSION + u64::from(manner == 0xfe);
        let welcome = Welcome { version, boot, known: true, parameters, dead };
        match self.session.handle_welcome(self.now, tunnel, &welcome) {
            Ok(()) => self.up(tunnel),
            Err(error) => {
                let broken = matches!(error, WelcomeError::Violation(_));
                assert!(!broken || self.session.is_closed(), "{error} and the session goes on");
                self.session.handle_tunnel_down(self.now, tunnel);
            }
        }
    }

    fn up(&mut self, tunnel: TunnelId) {
        self.arriving.insert(tunnel, Default::default());
        if !self.tunnels.contains(&tunnel) {
            self.tunnels.push(tunnel);
        }
    }

    pub(super) fn down(&mut self, tunnel: TunnelId) {
        self.arriving.remove(&tunnel);
        self.dialing.retain(|dialing| *dialing != tunnel);
        self.session.handle_tunnel_down(self.now, tunnel);
    }

    /// Bytes arrive on a tunnel.
    pub(super) fn arrive(&mut self, tunnel: TunnelId, bytes: &[u8]) {
        let Some((here, there)) = self.arriving.get_mut(&tunnel) else {
            let late = self.session.handle_recv(self.now, tunnel, &mut BytesMut::from(bytes));
            assert!(late.is_err() || self.session.is_closed(), "bytes of a tunnel that is not up are read");
            return;
        };
        here.extend_from_slice(bytes);
        there.extend_from_slice(bytes);
        // What arrives is known before the session acts on it.
        while let Ok(Some(packet)) = Packet::decode(here) {
            self.sent.note(&packet);
            if let Packet::Credit(credit) = &packet {
                self.said.allow_more(credit);
            }
        }
        match self.session.handle_recv(self.now, tunnel, there) {
            Ok(()) => assert!(there.len() <= MAX_BODY + 16, "whole packets are left"),
            Err(error) if error.scope() == Scope::Session => {
                assert!(self.session.is_closed(), "{error} and the session goes on");
            }
            Err(_) => self.down(tunnel),
        }
    }

    // ---- what must hold ----

    /// Time passes, timers go off.
    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        if self.session.poll_timeout().is_some_and(|due| due <= self.now) {
            self.session.handle_timeout(self.now);
            let due = self.session.poll_timeout();
            assert!(due.is_none_or(|due| due > self.now), "a timer that stays due");
        }
    }

    /// Lets a tunnel pull so much.
    pub(super) fn pull(&mut self, tunnel: TunnelId, room: usize) -> bool {
        let more = self.session.poll_transmit(self.now, tunnel, room, &mut self.transmit);
        let len = self.transmit.remaining();
        assert_eq!(more, len > 0);
        // The counts of all tunnels may go ahead, and the last packet is whole.
        assert!(len <= room + MAX_BODY + 1024, "{len} bytes for a room of {room}");
        let bytes = BytesMut::from(&self.transmit.copy_to_bytes(len)[..]);
        assert!(bytes.is_empty() || self.arriving.contains_key(&tunnel), "bytes for a tunnel that is down");
        self.said.hear(tunnel, bytes);
        more
    }

    /// Every tunnel pulls until there is nothing more.
    pub(super) fn pull_all(&mut self) {
        for round in 0.. {
            assert!(round < ROUNDS, "it writes for ever");
            let named: Vec<_> = self.session.tunnels_to_poll().collect();
            if named.is_empty() {
                return;
            }
            for tunnel in named {
                for round in 0.. {
                    assert!(round < ROUNDS, "it writes for ever");
                    if !self.pull(tunnel, 64 * 1024) {
                        break;
                    }
                }
            }
        }
    }

    /// Takes the events, and looks at all bounds.
    pub(super) fn settle(&mut self) {
        for round in 0.. {
            assert!(round < ROUNDS, "there is no end of events");
            let Some(event) = self.session.poll_event() else { break };
            self.event(event);
        }
        let (config, stats) = (&self.config, self.session.stats());
        let ours = u64::from(u8::MAX);
        let connections = config.max_connections + MAX_UNSEEN as u64 + ours;
        assert!(stats.connections as u64 <= connections, "{} connections", stats.connections);
        assert!(stats.unread <= config.max_session_window, "{} unread", stats.unread);
        let queue = config.send_queue + LEAST_QUEUE * stats.connections as u64;
        assert!(stats.queued <= queue, "{} queued", stats.queued);
        let budget = config.send_budget + MAX_BODY as u64 + CONTROL;
        assert!(stats.in_flight <= budget, "{} in flight", stats.in_flight);
        assert!(stats.tunnels.len() <= config.max_tunnels, "{} tunnels", stats.tunnels.len());
        assert_eq!(self.session.tunnels_up(), stats.tunnels.len());
        assert_eq!(
            self.session.is_closed(),
            self.closed,
            "an end without an event, or an event without an end"
        );
    }

    fn event(&mut self, event: Event) {
        if let Event::DropTunnel { tunnel, .. } = event {
            return self.down(tunnel);
        }
        assert!(!self.closed, "{event:?} behind the session's end");
        let once = matches!(
            event,
            Event::Accepted { .. }
                | Event::Connected { .. }
                | Event::Acknowledged { .. }
                | Event::Draining { .. }
                | Event::Drained
        );
        assert!(!once || !self.told.contains(&event), "{event:?} comes twice");
        match &event {
            Event::Accepted { connection, .. } => {
                assert!(self.connections.insert(*connection), "{connection} is accepted twice");
            }
            Event::Reset { connection, .. } => {
                assert!(self.connections.remove(connection), "{connection} is reset, and nobody has it");
                assert!(
                    self.session.connection(self.now, *connection).is_none(),
                    "{connection} can still be used"
                );
            }
            Event::Connected { connection, result: Err(_) } => {
                assert!(self.connections.remove(connection), "{event:?}, and nobody has the connection");
            }
            Event::Connected { connection, .. }
            | Event::Readable { connection }
            | Event::Writable { connection }
            | Event::Acknowledged { connection }
            | Event::Datagram { connection } => {
                assert!(self.connections.contains(connection), "{event:?}, and nobody has the connection");
            }
            Event::Closed { .. } => self.closed = true,
            _ => {}
        }
        if once {
            self.told.push(event);
        }
    }

    /// All is closed and dropped, and nothing is left.
    pub(super) fn end(mut self) {
        self.session.close(self.now, gkd_proto::packet::CloseCode::DONE, "done");
        self.settle();
        self.pull_all();
        self.settle();
        assert_eq!(self.session.tunnels_up(), 0, "a tunnel is kept behind the session's end");
        assert_eq!(self.session.poll_timeout(), None);
        for connection in std::mem::take(&mut self.connections) {
            if let Some(connection) = self.session.connection(self.now, connection) {
                connection.release();
            }
        }
        assert_eq!(self.session.connections(), 0, "a connection is kept behind the session's end");
        assert_eq!(self.session.poll_event(), None);
    }
}
