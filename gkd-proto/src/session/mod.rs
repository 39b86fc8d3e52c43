//! A session: all that one client shares with a server, over any number of tunnels.
//!
//! [`Session`] is the state machine; the driver brings bytes, time and carriers. Its parts, a file each: what
//! arrives (`incoming`), what goes out (`outgoing`), in which order (`schedule`) and on which tunnel not (`decline`),
//! the life and death of tunnels (`death`), time (`timer`), and the program's side of a connection (`handle`).

mod account;
mod connection;
mod datagrams;
mod dead;
mod death;
mod decline;
mod estimate;
mod event;
mod handle;
pub mod hash;
mod incoming;
mod inspect;
mod invariants;
mod memory;
mod once;
mod outgoing;
mod queue;
mod receive;
mod repeat;
mod ring;
mod schedule;
mod seen;
mod send;
mod stats;
mod timer;
mod tunnel;

pub use event::{CloseCause, DropReason, Event};
pub use handle::{ConnectionMut, Read};
pub use stats::{SessionStats, TunnelStats};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::account::SessionAccount;
use self::connection::{ConnectionState, Stage};
use self::dead::{DeadTunnel, Dialing};
use self::hash::{IdHash, IdMap};
use self::once::Once;
use self::schedule::Schedule;
use self::seen::SeenIds;
use self::stats::Counters;
use self::timer::PATIENT_FOR;
use self::tunnel::{SessionControl, Tunnel, Written};
use crate::config::SessionConfig;
use crate::credit::SendCredit;
use crate::error::{OpenError, Violation};
use crate::handshake::Parameters;
use crate::id::{BootId, ConnectionId, PacketNumber, SessionId, Side, TunnelId};
use crate::packet::{Close, CloseCode, MAX_DESTINATION, ResetCode};

/// The most ids below the highest that may be unseen, and so the most Connects that an opener leaves
/// unacknowledged.
pub const MAX_UNSEEN: usize = 4096;

/// What a round trip is taken for before any was measured.
const UNKNOWN_ROUND_TRIP: Duration = Duration::from_millis(50);

/// The kernel's view of a tunnel's socket, as far as there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathSample {
    /// Smoothed round trip of the first hop.
    pub round_trip: Option<Duration>,
    /// The least round trip of the first hop in the last few minutes: what it takes while no queue stands there.
    pub least_round_trip: Option<Duration>,
    /// Delivery rate, bytes per second.
    pub rate: Option<u64>,
    /// Bytes in the socket that were not sent yet.
    pub unsent: Option<u64>,
    /// Bytes sent and not acknowledged by the first hop.
    pub unacknowledged: Option<u64>,
    /// Of those, bytes that arrived there behind something that is missing (RFC 2018): what was dropped holds them up, and
    /// they are not on their way any more.
    pub held_up: u64,
    /// The sender recovers from loss, or holds back for another reason: what is written now waits.
    pub recovering: bool,
    /// The sender is to run dry, and will go on in about so long: what is not sparse had better wait, or go on another
    /// tunnel. To be told anew until it is over.
    pub pauses: Option<Duration>,
}

/// One end of a session: virtual connections over any number of tunnels.
///
/// It is driven and never drives: it reads no clock, does no IO and draws nothing random but from its seed.
/// Its methods are of four families:
///
/// 1. **What happened**: [`hello`](Self::hello) and [`handle_welcome`](Self::handle_welcome) (client) or
///    [`handle_hello`](Self::handle_hello) (server), [`handle_recv`](Self::handle_recv),
///    [`handle_path`](Self::handle_path), [`handle_tunnel_down`](Self::handle_tunnel_down),
///    [`handle_timeout`](Self::handle_timeout), [`lose`](Self::lose).
/// 2. **What the program wants**: [`open`](Self::open), [`connection`](Self::connection),
///    [`retire_tunnel`](Self::retire_tunnel), [`drain`](Self::drain), [`close`](Self::close),
///    [`probe`](Self::probe).
/// 3. **What to do now**, asked after every call of the first two: [`poll_event`](Self::poll_event) until
///    it has none, [`tunnels_to_poll`](Self::tunnels_to_poll) and for each
///    [`poll_transmit`](Self::poll_transmit) as long as its carrier has room, and
///    [`poll_timeout`](Self::poll_timeout). A driver may ask for the last every few milliseconds only, and is late by as
///    much with what comes nearer meanwhile; but where a tunnel [has work](Self::has_work_for) and takes none, it asks,
///    for that may stand for a millisecond only.
/// 4. **What is**: [`stats`](Self::stats), [`held_out_of_order`](Self::held_out_of_order),
///    [`tunnels_up`](Self::tunnels_up), [`is_closed`](Self::is_closed).
///
/// A tunnel is asked for packets when its carrier has room, so that data is bound to a tunnel as late as
/// possible. One whose `poll_transmit` found nothing is named by `tunnels_to_poll` when that changes.
///
/// # Bounds
/// Memory for what arrives is bounded by the credit that was granted
/// ([`max_session_window`](SessionConfig::max_session_window)), for what is sent by
/// [`send_queue`](SessionConfig::send_queue) and [`send_budget`](SessionConfig::send_budget) (as much again for
/// control packets and for what is sent again), both also by a [`MemoryBudget`](crate::MemoryBudget) that many
/// sessions share ([`within`](Self::within)), records by the numbers of connections and tunnels. A call does work
/// in proportion to the bytes that it is given, or to
/// the number of tunnels; [`handle_timeout`](Self::handle_timeout) looks at every connection, once in
/// five seconds.
///
/// A clone is a snapshot, for explorers and tests that go on from one state in several ways.
#[derive(Clone, Debug)]
pub struct Session {
    config: Arc<SessionConfig>,
    side: Side,
    id: SessionId,
    /// Changes with every draw; where it began is the seed.
    random: u64,
    peer: Option<Parameters>,
    boot: Option<BootId>,
    /// Set when the session has ended; what is still to be told to the other end.
    ended: Option<Option<Close>>,

    tunnels: BTreeMap<TunnelId, Tunnel>,
    dead: BTreeMap<TunnelId, DeadTunnel>,
    /// Client: Hello is out.
    dialing: BTreeMap<TunnelId, Dialing>,
    /// Client: Hello was out and the carrier failed; the server may have taken it for up.
    abandoned: BTreeSet<TunnelId>,
    next_tunnel: u64,
    seen_tunnels: SeenIds,
    no_tunnel_since: Option<Instant>,
    /// When the driver was last told that all tunnels are quiet.
    stalled_told: Option<Instant>,
    /// Control that waits for what is sent next goes alone then …
    patient_until: Option<Instant>,
    /// … and not before, for none that waits is urgent.
    patient: bool,
    round_trip: Duration,

    connections: IdMap<ConnectionId, Box<ConnectionState>>,
    /// Connections that this end opened in all, and how many are not forgotten.
    opened: u64,
    opened_live: u64,
    accepted_live: u64,
    /// Those of them whose id the other end is not known to have seen.
    unseen_opened: usize,
    seen: SeenIds,

    schedule: Schedule,
    session_control: VecDeque<SessionControl>,
    drain: Once,
    drain_reason: u64,
    draining_there: bool,
    told_drained: bool,
    send_credit: SendCredit,
    /// Bytes that connections accepted and not yet numbered.
    queued: u64,
    /// Bytes and packets written and not acknowledged, those of unsettled dead tunnels too.
    held_bytes: u64,
    held_packets: usize,
    /// What of the process's memory is reserved for `queued`, `held_bytes` and `datagrams_held`.
    memory: u64,

    account: SessionAccount,
    /// Bytes of datagrams that arrived and were not taken, or were not sent yet.
    datagrams_held: usize,
    events: VecDeque<Event>,
    poll_list: Vec<TunnelId>,
    next_sweep: Option<Instant>,
    counters: Counters,

    /// Reused by each turn of `handle_recv`: Data that was taken into a ring.
    taken: Vec<(ConnectionId, PacketNumber)>,
    /// Reused by each acknowledgement.
    acknowledged: Vec<Written>,
}

impl Session {
    /// A session that has no tunnel yet. `seed` feeds all that is to look random; the same seed and the same
    /// calls give the same session.
    pub fn new(config: Arc<SessionConfig>, side: Side, id: SessionId, seed: u64, now: Instant) -> Self {
        let config = Arc::new(SessionConfig::clone(&config).clamped());
        Self {
            side,
            id,
            random: hash::mix(seed),
            peer: None,
            boot: None,
            ended: None,
            tunnels: BTreeMap::new(),
            dead: BTreeMap::new(),
            dialing: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            next_tunnel: 0,
            seen_tunnels: SeenIds::new(MAX_UNSEEN),
            no_tunnel_since: (side == Side::Server).then_some(now),
            stalled_told: None,
            patient_until: None,
            patient: false,
            round_trip: UNKNOWN_ROUND_TRIP,
            connections: IdMap::with_hasher(IdHash::new(hash::mix(!seed))),
            opened: 0,
            opened_live: 0,
            accepted_live: 0,
            unseen_opened: 0,
            seen: SeenIds::new(MAX_UNSEEN),
            schedule: Schedule::default(),
            session_control: VecDeque::new(),
            drain: Once::Idle,
            drain_reason: 0,
            draining_there: false,
            told_drained: false,
            send_credit: SendCredit::default(),
            queued: 0,
            held_bytes: 0,
            held_packets: 0,
            memory: 0,
            account: SessionAccount::new(&config),
            datagrams_held: 0,
            events: VecDeque::new(),
            poll_list: Vec::new(),
            next_sweep: None,
            counters: Counters::default(),
            taken: Vec::new(),
            acknowledged: Vec::new(),
            config,
        }
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Which end this is.
    pub fn side(&self) -> Side {
        self.side
    }

    /// How many tunnels are up.
    pub fn tunnels_up(&self) -> usize {
        self.tunnels.len()
    }

    /// Connections that are not forgotten: live ones, and those of which accounts are still to be settled.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The session has ended, and every connection with it. One whose other end had finished, everything
    /// having arrived, can still be read to its end.
    pub fn is_closed(&self) -> bool {
        self.ended.is_some()
    }

    // ---- what the program wants ----

    /// Opens a connection to `destination`, bytes that this layer does not read; empty means "hand it to
    /// whoever accepts". Data can be written at once and travels with the Connect.
    ///
    /// # Errors
    /// [`OpenError`]; `TooMany` and `TooManyUnacknowledged` pass with time.
    pub fn open(&mut self, now: Instant, destination: Bytes) -> Result<ConnectionId, OpenError> {
        if self.is_closed() {
            return Err(OpenError::Closed);
        }
        if self.drain != Once::Idle || self.draining_there {
            return Err(OpenError::Draining);
        }
        let most = self.peer.unwrap_or_default().max_connections;
        if self.opened_live >= most {
            return Err(OpenError::TooMany(most));
        }
        if self.unseen_opened >= MAX_UNSEEN {
            return Err(OpenError::TooManyUnacknowledged(MAX_UNSEEN));
        }
        if destination.len() > MAX_DESTINATION {
            return Err(OpenError::DestinationTooLong(destination.len()));
        }
        let id = ConnectionId::from_index(self.side, self.opened);
        self.opened += 1;
        self.opened_live += 1;
        self.unseen_opened += 1;
        let mut connection = self.new_connection(now, id);
        connection.destination = destination;
        self.connections.insert(id, connection);
        self.schedule_sweep(now);
        self.queue_control(id);
        Ok(id)
    }

    /// How many connections [`open`](Self::open) would open now, one after another.
    pub fn may_open(&self) -> usize {
        if self.is_closed() || self.drain != Once::Idle || self.draining_there {
            return 0;
        }
        let most = self.peer.unwrap_or_default().max_connections;
        let live = usize::try_from(most.saturating_sub(self.opened_live)).unwrap_or(usize::MAX);
        live.min(MAX_UNSEEN.saturating_sub(self.unseen_opened))
    }

    /// The program's side of a connection; `None` once it is released, reset or not (yet) accepted.
    pub fn connection(&mut self, now: Instant, id: ConnectionId) -> Option<ConnectionMut<'_>> {
        self.connections
            .get(&id)
            .is_some_and(|connection| connection.is_usable())
            .then(|| ConnectionMut::new(self, now, id))
    }

    /// Takes no new connections, of neither end, and tells the other. Live ones go on;
    /// [`Event::Drained`] follows when the last is forgotten. `reason` is a number to show to people.
    pub fn drain(&mut self, _now: Instant, reason: u64) {
        if self.is_closed() || self.drain != Once::Idle {
            return;
        }
        self.drain.due();
        self.drain_reason = reason;
        self.queue_session_control(SessionControl::Drain);
        self.tell_if_drained();
    }

    /// Ends the session and every connection at once. The other end is told on every tunnel; each is dropped
    /// ([`Event::DropTunnel`]) when it was.
    pub fn close(&mut self, _now: Instant, code: CloseCode, reason: &str) {
        self.end(CloseCause::Local, Some(Close { code, reason: reason.to_owned() }));
    }

    /// Client: ends the session because the server does not know it: another process answered, or it said so,
    /// and no tunnel is up.
    pub fn lose(&mut self, _now: Instant) {
        self.end(CloseCause::Lost, None);
    }

    /// Pings every tunnel at once, because something happened that may have cut them: the machine slept, or an
    /// address changed.
    pub fn probe(&mut self, now: Instant) {
        let tunnels: Vec<_> = self.tunnels.keys().copied().collect();
        tunnels.into_iter().for_each(|tunnel| self.ping(now, tunnel));
    }

    // ---- what to do now ----

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes the tunnels for which [`poll_transmit`](Self::poll_transmit) has become worth a call since the
    /// last time.
    pub fn tunnels_to_poll(&mut self) -> std::vec::Drain<'_, TunnelId> {
        for tunnel in &self.poll_list {
            if let Some(tunnel) = self.tunnels.get_mut(tunnel) {
                tunnel.to_poll = false;
            }
        }
        self.poll_list.drain(..)
    }

    // ---- within ----

    fn draw(&mut self) -> u64 {
        self.random = hash::mix(self.random);
        self.random
    }

    fn new_connection(&self, now: Instant, id: ConnectionId) -> Box<ConnectionState> {
        let credit = self.peer.map_or(0, |peer| peer.connection_window);
        Box::new(ConnectionState::new(now, id, self.side, self.config.connection_window, credit))
    }

    fn end(&mut self, cause: CloseCause, farewell: Option<Close>) {
        if self.is_closed() {
            return;
        }
        // What arrived whole can still be read: the other end was told that this end holds it.
        self.connections.retain(|_, connection| connection.is_usable() && connection.receive.is_complete());
        for connection in self.connections.values_mut() {
            connection.send.clear();
            connection.told_acknowledged |= connection.is_acknowledged();
        }
        self.schedule = Schedule::default();
        self.session_control.clear();
        self.dead.clear();
        self.held_bytes = 0;
        self.held_packets = 0;
        self.queued = 0;
        self.datagrams_held = 0;
        self.release_memory();
        self.account.release_memory();
        self.ended = Some(farewell);
        self.events.push_back(Event::Closed { cause });
        let tunnels: Vec<_> = self.tunnels.keys().copied().collect();
        for tunnel in tunnels {
            if self.ended == Some(None) {
                self.drop_tunnel(tunnel, DropReason::SessionEnded);
            } else {
                self.wake(tunnel);
            }
        }
    }

    fn fail(&mut self, violation: Violation) -> Violation {
        let farewell = Close { code: CloseCode::PROTOCOL, reason: violation.to_string() };
        self.end(CloseCause::Violation(violation), Some(farewell));
        violation
    }

    fn drop_tunnel(&mut self, tunnel: TunnelId, reason: DropReason) {
        if let Some(state) = self.tunnels.get_mut(&tunnel)
            && state.dropping.is_none()
        {
            state.dropping = Some(reason);
            self.events.push_back(Event::DropTunnel { tunnel, reason });
        }
    }

    /// Resets a connection from this end. Nothing is told to the program.
    fn reset_connection(&mut self, now: Instant, id: ConnectionId, code: ResetCode) {
        if self.is_closed() {
            self.connections.remove(&id);
            return;
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.is_settling() {
            return;
        }
        let total_known = connection.receive.is_complete();
        // An answer that the other end may never hear is made good by the Reset.
        let over = total_known && connection.is_acknowledged() && connection.connected.is_settled();
        self.settle(id, code, total_known);
        let unread = self.connections.get_mut(&id).map_or(0, |connection| connection.receive.give_back());
        self.account.consume(now, self.round_trip, unread);
        self.flush_account();
        if over {
            // Everything arrived on both sides: there is nothing to settle, and the other end may have forgotten.
            self.forget(id);
        } else {
            self.queue_control(id);
        }
    }

    /// Turns a connection into what remains until its accounts are settled.
    fn settle(&mut self, id: ConnectionId, code: ResetCode, total_known: bool) {
        self.schedule.leave(&mut self.connections, id);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.stage = Stage::Settling { code, total_known };
        connection.reset.due();
        connection.connect = Once::Idle;
        connection.connected = Once::Idle;
        connection.send.finish = Once::Idle;
        connection.blocked_due = false;
        self.datagrams_held -= connection.datagrams.take().map_or(0, |datagrams| datagrams.bytes());
        connection.destination = Bytes::new();
        self.queued -= connection.send.clear();
        connection.receive.count_only();
        self.account.release(&mut connection.receive);
        self.release_memory();
    }

    fn forget_if_over(&mut self, id: ConnectionId) {
        if self.connections.get(&id).is_some_and(|connection| connection.is_over()) {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: ConnectionId) {
        self.schedule.leave(&mut self.connections, id);
        let Some(mut connection) = self.connections.remove(&id) else { return };
        self.account.release(&mut connection.receive);
        if let Some(datagrams) = connection.datagrams.take() {
            self.datagrams_held -= datagrams.bytes();
            self.release_memory();
        }
        if connection.ours {
            self.opened_live -= 1;
            // Over before its Connect was acknowledged: the other end answered it, so it has seen the id.
            self.unseen_opened -= usize::from(!connection.announced);
        } else {
            self.accepted_live -= 1;
        }
        self.tell_if_drained();
    }

    fn tell_if_drained(&mut self) {
        if self.drain != Once::Idle && self.connections.is_empty() && !self.told_drained {
            self.told_drained = true;
            self.events.push_back(Event::Drained);
        }
    }

    /// Queues the session's Credit if the account has one to tell.
    fn flush_account(&mut self) {
        if self.account.credit_due {
            self.queue_session_control(SessionControl::Credit);
        }
    }

    fn queue_session_control(&mut self, control: SessionControl) {
        if self.is_closed() {
            return;
        }
        if !self.session_control.contains(&control) {
            self.session_control.push_back(control);
        }
        self.wake_one();
    }

    fn queue_control(&mut self, id: ConnectionId) {
        if self.is_closed() {
            return;
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.has_control() {
            if !connection.in_control_queue {
                connection.in_control_queue = true;
                self.schedule.control.push_back(id);
            }
            // What was patient goes with it.
            (self.patient_until, self.patient) = (None, false);
            self.wake_one();
        }
    }

    /// As [`queue_control`](Self::queue_control), for what goes with whatever is sent next, or alone before long.
    fn queue_patient_control(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let until = now + PATIENT_FOR;
        if self.schedule.control.is_empty() {
            (self.patient_until, self.patient) = (Some(until), true);
        }
        // What stands there may be what a tunnel that is blocked did not come to.
        self.patient_until.get_or_insert(until);
        if !connection.in_control_queue {
            connection.in_control_queue = true;
            self.schedule.control.push_back(id);
        }
    }
}
