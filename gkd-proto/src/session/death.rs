//! The life and death of tunnels: how they come up, what becomes of what they carried, and how both ends
//! agree on what arrived.
//!
//! A tunnel is ordered, so one count says what of it arrived. When it dies, each end freezes its count and
//! tells it (in a [`Gone`](crate::packet::Gone), or in the Hello or Welcome of the next tunnel); what the other
//! end's count does not cover goes out on the others. Where other tunnels are up that does not wait for the
//! count, since a packet that arrives twice is dropped; where none is, it does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::connection::ConnectionState;
use super::dead::{DeadTunnel as Dead, Dialing, MOST_DEAD};
use super::event::{CloseCause, DropReason, Event};
use super::once::Once;
use super::queue::Others;
use super::tunnel::{Carried, ConnectionControl, OutstandingPing, SessionControl, Tunnel, Written};
use super::{PathSample, Session, UNKNOWN_ROUND_TRIP};
use crate::error::{DialTunnelError, Violation, WelcomeError};
use crate::handshake::{DeadTunnel, Hello, Parameters, Reject, RejectCode, VERSION, Welcome};
use crate::id::{BootId, ConnectionId, Side, TunnelId};
use crate::packet::{Close, CloseCode};

/// What a kernel can say at the most: Linux tells microseconds in 32 bits. It keeps sums of times from overflow.
const MOST_ROUND_TRIP: Duration = Duration::from_micros(u32::MAX as u64);

impl Session {
    // ---- up ----

    /// Client: names a new tunnel and says what to send first on its carrier. Call it when the carrier is there,
    /// and [`handle_tunnel_down`](Self::handle_tunnel_down) if it fails before
    /// [`handle_welcome`](Self::handle_welcome).
    ///
    /// # Errors
    /// [`DialTunnelError`]. Never on a server's side of a session, which has no dials to name: there it is
    /// `Closed`.
    pub fn hello(&mut self, _now: Instant) -> Result<Hello, DialTunnelError> {
        if self.is_closed() || self.side == Side::Server {
            return Err(DialTunnelError::Closed);
        }
        if self.tunnels.len() + self.dialing.len() >= self.config.max_tunnels {
            return Err(DialTunnelError::TooMany(self.config.max_tunnels));
        }
        let tunnel = TunnelId(self.next_tunnel);
        self.next_tunnel += 1;
        let abandoned: Vec<_> = self.abandoned.iter().copied().collect();
        let mut dead = self.unsettled();
        dead.extend(abandoned.iter().map(|tunnel| DeadTunnel { tunnel: *tunnel, count: 0 }));
        dead.truncate(MOST_DEAD);
        self.dialing.insert(tunnel, Dialing { abandoned, left: false });
        Ok(Hello {
            version: VERSION,
            session: self.id,
            tunnel,
            exists: self.peer.is_some(),
            parameters: self.config.parameters(),
            dead,
        })
    }

    /// Client: the server let `tunnel` in; it is up now, and packets may follow.
    ///
    /// # Errors
    /// [`WelcomeError`]: the carrier is to be closed and [`handle_tunnel_down`](Self::handle_tunnel_down) called. See
    /// there for what `OtherBoot` asks for.
    pub fn handle_welcome(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        welcome: &Welcome,
    ) -> Result<(), WelcomeError> {
        if welcome.version != VERSION {
            return Err(WelcomeError::Version(welcome.version));
        }
        if self.is_closed() || !self.dialing.contains_key(&tunnel) {
            return Err(WelcomeError::Dead(tunnel));
        }
        if self.boot.is_some_and(|boot| boot != welcome.boot) {
            return Err(WelcomeError::OtherBoot);
        }
        let dialing = self.dialing.remove(&tunnel).unwrap_or_default();
        dialing.abandoned.iter().for_each(|told| _ = self.abandoned.remove(told));
        self.boot = Some(welcome.boot);
        self.learn(&welcome.parameters);
        for DeadTunnel { tunnel, count } in &welcome.dead {
            self.on_gone(now, *tunnel, *count).map_err(|violation| self.fail(violation))?;
        }
        self.tunnel_up(now, tunnel);
        if dialing.left { self.on_leave(tunnel).map_err(WelcomeError::from) } else { Ok(()) }
    }

    /// Server: a client's Hello. After a Welcome, which is to be written before anything else on that carrier,
    /// the tunnel is up. Whether the client may come in at all, and whether the session exists, was decided
    /// before: `known` tells the client. `boot` was drawn when this session was made, and is the same for all of its
    /// tunnels: a Hello that comes late may make a session anew, which the client must not take for the one it had.
    ///
    /// # Errors
    /// The answer to send; the carrier is then to be closed. Nothing has changed.
    pub fn handle_hello(
        &mut self,
        now: Instant,
        hello: &Hello,
        boot: BootId,
        known: bool,
    ) -> Result<Welcome, Reject> {
        let refuse = |code, reason: &str| Err(Reject { code, reason: reason.to_owned() });
        if hello.version != VERSION {
            return refuse(RejectCode::Version, &format!("this server speaks version {VERSION}"));
        }
        if self.is_closed() || self.side == Side::Client {
            return Err(Reject::new(RejectCode::NoSuchSession));
        }
        if self.seen_tunnels.contains(hello.tunnel.0) {
            return refuse(RejectCode::Protocol, "a tunnel id is used twice");
        }
        if self.tunnels.len() >= self.config.max_tunnels || self.dead.len() >= MOST_DEAD {
            return refuse(RejectCode::Busy, "too many tunnels");
        }
        // Packets arrived on a tunnel that this life of the session never had: the client holds to an earlier one.
        let earlier = |dead: &DeadTunnel| dead.count > 0 && !self.was_used(dead.tunnel);
        if hello.dead.iter().any(earlier) {
            return Err(Reject::new(RejectCode::NoSuchSession));
        }
        if self.seen_tunnels.insert(hello.tunnel.0).is_err() {
            return refuse(RejectCode::Protocol, "too many tunnel ids were skipped");
        }
        self.boot = Some(boot);
        self.learn(&hello.parameters);
        for DeadTunnel { tunnel, count } in &hello.dead {
            // Its Hello never arrived, and must not any more.
            if *count == 0 && self.seen_tunnels.insert(tunnel.0) == Ok(true) {
                continue;
            }
            if let Err(violation) = self.on_gone(now, *tunnel, *count) {
                return refuse(RejectCode::Protocol, &self.fail(violation).to_string());
            }
        }
        let dead = self.unsettled();
        self.tunnel_up(now, hello.tunnel);
        Ok(Welcome { version: VERSION, boot, known, parameters: self.config.parameters(), dead })
    }

    /// The kernel's view of a tunnel's socket; every 10 to 20 ms while it is busy.
    pub fn handle_path(&mut self, now: Instant, tunnel: TunnelId, mut sample: PathSample) {
        let bounded = |round_trip: Duration| round_trip.min(MOST_ROUND_TRIP);
        sample.round_trip = sample.round_trip.map(bounded);
        sample.least_round_trip = sample.least_round_trip.map(bounded);
        let mut others = Others::default();
        for other in self.tunnels.values().filter(|other| other.id != tunnel) {
            other.count_as_other(now, &mut others, sample.least_round_trip);
        }
        if let Some(state) = self.tunnels.get_mut(&tunnel) {
            state.learn(now, sample, others);
            self.update_round_trip();
            self.wake_if_room(tunnel);
        }
    }

    /// The other end's limits, from its first Hello or Welcome.
    fn learn(&mut self, parameters: &Parameters) {
        if self.peer.is_some() {
            return;
        }
        self.peer = Some(*parameters);
        self.send_credit.raise(parameters.session_window);
        let mut waiting: Vec<_> = self.connections.keys().copied().collect();
        waiting.sort_unstable();
        for id in waiting {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.send.credit.raise(parameters.connection_window);
                self.credit_raised(id);
            }
        }
    }

    fn tunnel_up(&mut self, now: Instant, tunnel: TunnelId) {
        self.no_tunnel_since = None;
        self.tunnels.insert(tunnel, Tunnel::new(now, tunnel));
        self.update_round_trip();
        let waiting: Vec<_> =
            self.dead.iter().filter(|(_, dead)| !dead.requeued).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|dead| self.requeue_dead(dead));
        self.leave_suspects();
        self.wake(tunnel);
    }

    /// The frozen counts that the other end may not have heard yet.
    fn unsettled(&self) -> Vec<DeadTunnel> {
        let unheard = self.dead.iter().filter(|(_, dead)| dead.gone != Once::Acked);
        let counts = unheard.map(|(tunnel, dead)| DeadTunnel { tunnel: *tunnel, count: dead.received });
        counts.take(MOST_DEAD).collect()
    }

    /// The largest round trip among the tunnels in use.
    pub(super) fn update_round_trip(&mut self) {
        let in_use = self.tunnels.values().filter(|tunnel| tunnel.is_in_use() && !tunnel.suspect);
        let largest = in_use.filter_map(|tunnel| tunnel.estimate.round_trip()).max();
        self.round_trip = largest.unwrap_or(UNKNOWN_ROUND_TRIP).max(Duration::from_micros(1));
    }

    // ---- acknowledged ----

    /// The other end counted so many packets of a tunnel. State, not an event: a lower count than the highest
    /// seen is late, and one of a settled tunnel later still.
    pub(super) fn on_ack(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        count: u64,
        delay: Option<Duration>,
    ) -> Result<(), Violation> {
        let Some(state) = self.tunnels.get_mut(&tunnel) else { return self.on_late_ack(now, tunnel, count) };
        if count > state.written {
            return Err(Violation::AckBeyondSent { tunnel, count, sent: state.written });
        }
        let mut acknowledged = std::mem::take(&mut self.acknowledged);
        let progress = state.acknowledge(now, count, delay, |written| acknowledged.push(written));
        let trusted_again = progress && std::mem::take(&mut state.suspect);
        acknowledged.drain(..).for_each(|written| self.on_acknowledged(now, written));
        self.acknowledged = acknowledged;
        if progress {
            self.release_memory();
            if trusted_again {
                self.take_back(tunnel);
                self.leave_suspects();
            }
            self.update_round_trip();
            self.wake_if_room(tunnel);
            self.drop_if_left(tunnel);
        }
        Ok(())
    }

    fn on_late_ack(&mut self, now: Instant, tunnel: TunnelId, count: u64) -> Result<(), Violation> {
        let Some(dead) = self.dead.get_mut(&tunnel) else {
            return if self.was_used(tunnel) { Ok(()) } else { Err(Violation::NoSuchTunnel(tunnel)) };
        };
        if count > dead.written {
            return Err(Violation::AckBeyondSent { tunnel, count, sent: dead.written });
        }
        dead.take_acked(count).into_iter().for_each(|written| self.on_acknowledged(now, written));
        Ok(())
    }

    /// The other end holds this packet.
    fn on_acknowledged(&mut self, now: Instant, written: Written) {
        self.held_bytes = self.held_bytes.saturating_sub(u64::from(written.size));
        self.held_packets = self.held_packets.saturating_sub(1);
        match written.carried {
            Carried::Data { connection: id, number, .. } => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.send.acked(number);
                    self.after_acknowledgement(now, id);
                }
            }
            Carried::Connection(id, control) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    self.unseen_opened -= usize::from(connection.acknowledged(control));
                    self.after_acknowledgement(now, id);
                }
            }
            Carried::Session(SessionControl::Drain) => self.drain.acked(),
            Carried::Session(SessionControl::Gone(tunnel)) => {
                if let Some(dead) = self.dead.get_mut(&tunnel) {
                    dead.gone.acked();
                    self.forget_if_settled(tunnel);
                }
            }
            Carried::Session(_) => {}
        }
    }

    fn after_acknowledgement(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.is_acknowledged() && !connection.is_settling() {
            return;
        }
        if connection.is_usable() && !std::mem::replace(&mut connection.told_acknowledged, true) {
            self.events.push_back(Event::Acknowledged { connection: id });
        }
        self.discard(now, id);
        self.forget_if_over(id);
    }

    // ---- suspect ----

    /// Whether a tunnel that looks silent is to be suspected: another made progress since its oldest packet was
    /// written, or holds nothing. (Not "while others go on": the hole may hold the packet that everyone waits
    /// for; then the others run out of credit, and nothing goes on.)
    pub(super) fn suspect_if_silent(&mut self, now: Instant, tunnel: TunnelId) {
        let Some(state) = self.tunnels.get_mut(&tunnel) else { return };
        state.next_look = now + super::tunnel::LOOK_EVERY;
        let Some(oldest) = state.oldest_at().filter(|_| !state.suspect && state.looks_silent(now)) else {
            return;
        };
        let better = |other: &Tunnel| {
            let goes_on = other.acked > 0 && other.last_progress() > oldest;
            other.id != tunnel
                && other.is_in_use()
                && !other.suspect
                && (goes_on || other.in_flight.is_empty())
        };
        if !self.tunnels.values().any(better) {
            return;
        }
        self.counters.suspicions += 1;
        if let Some(state) = self.tunnels.get_mut(&tunnel) {
            state.suspect = true;
        }
        self.give_all_elsewhere(tunnel);
        self.ping(now, tunnel);
        self.update_round_trip();
        self.wake_for_data(true);
    }

    /// Gives the others what a suspect holds and they have not got yet.
    fn give_all_elsewhere(&mut self, tunnel: TunnelId) {
        let Some(state) = self.tunnels.get_mut(&tunnel) else { return };
        let mut in_flight = std::mem::take(&mut state.in_flight);
        in_flight.iter_mut().for_each(|written| self.give_elsewhere(written));
        if let Some(state) = self.tunnels.get_mut(&tunnel) {
            state.in_flight = in_flight;
        }
    }

    /// A tunnel came that is not suspect: it takes what suspects had to carry while there was no other.
    fn leave_suspects(&mut self) {
        let suspects: Vec<_> =
            self.tunnels.values().filter(|state| state.suspect).map(|state| state.id).collect();
        suspects.into_iter().for_each(|suspect| self.give_all_elsewhere(suspect));
    }

    /// A suspect made progress: what had not gone elsewhere yet need not.
    fn take_back(&mut self, tunnel: TunnelId) {
        let Some(state) = self.tunnels.get_mut(&tunnel) else { return };
        for written in state.in_flight.iter_mut().filter(|written| written.elsewhere) {
            if let Carried::Data { connection, number, .. } = &written.carried
                && let Some(connection) = self.connections.get_mut(connection)
                && connection.send.unqueue(*number)
            {
                written.elsewhere = false;
            }
        }
    }

    /// Has a packet sent again on another tunnel, unless it was already.
    pub(super) fn give_elsewhere(&mut self, written: &mut Written) {
        if std::mem::replace(&mut written.elsewhere, true) {
            return;
        }
        match &written.carried {
            Carried::Data { connection: id, number, payload } => {
                let Some(connection) = self.connections.get_mut(id) else { return };
                if connection.send.requeue(*number, payload) && !connection.in_resend_queue {
                    connection.in_resend_queue = true;
                    self.schedule.resend.push_back(*id);
                }
            }
            Carried::Connection(id, control) => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.lost(*control);
                    self.queue_control(*id);
                }
            }
            Carried::Session(control) => {
                let again = match control {
                    SessionControl::Credit | SessionControl::Blocked | SessionControl::Leave(_) => true,
                    SessionControl::Drain => self.drain.lost(),
                    SessionControl::Gone(tunnel) => {
                        self.dead.get_mut(tunnel).is_some_and(|dead| dead.gone.lost())
                    }
                };
                if again {
                    self.queue_session_control(*control);
                }
            }
        }
    }

    pub(super) fn ping(&mut self, now: Instant, tunnel: TunnelId) {
        let token = self.draw() >> 2;
        if let Some(state) = self.tunnels.get_mut(&tunnel) {
            if state.ping.is_none() {
                state.ping = Some(OutstandingPing { token, at: now, idle: false });
                state.pinged_at = Some(now);
                state.ping_due = true;
            }
            self.wake(tunnel);
        }
    }

    // ---- retired ----

    /// Sends nothing counted on this tunnel any more and asks the other end to do likewise;
    /// [`Event::DropTunnel`] follows when everything that it carried is settled.
    pub fn retire_tunnel(&mut self, _now: Instant, tunnel: TunnelId) {
        self.leave(tunnel);
    }

    pub(super) fn leave(&mut self, tunnel: TunnelId) {
        let Some(state) = self.tunnels.get_mut(&tunnel) else { return };
        if !std::mem::replace(&mut state.leaving, true) {
            self.queue_session_control(SessionControl::Leave(tunnel));
            self.wake_for_data(true);
        }
        self.drop_if_left(tunnel);
    }

    // ---- down ----

    /// A tunnel's carrier ended, for whatever reason, or its dial failed. What it carried and the other end is
    /// not known to hold goes out on the others.
    pub fn handle_tunnel_down(&mut self, now: Instant, tunnel: TunnelId) {
        if self.dialing.remove(&tunnel).is_some() {
            // The Hello may have arrived, and the server asks for a count then. The bound forgets the oldest.
            self.abandoned.insert(tunnel);
            if self.abandoned.len() > MOST_DEAD {
                self.abandoned.pop_first();
            }
            return;
        }
        if self.tunnels.contains_key(&tunnel) {
            self.bury(now, tunnel, None);
        }
    }

    /// Moves a tunnel from the living to the dead. Its count is frozen from here on.
    fn bury(&mut self, now: Instant, tunnel: TunnelId, counted_there: Option<u64>) {
        let Some(state) = self.tunnels.remove(&tunnel) else { return };
        if self.tunnels.is_empty() {
            self.no_tunnel_since = Some(now);
        }
        if self.is_closed() {
            return;
        }
        self.counters.tunnels_lost += 1;
        self.update_round_trip();
        let Tunnel { received, written, acked, in_flight, .. } = state;
        let dead =
            Dead { received, gone: Once::Due, written, acked, in_flight, requeued: false, counted_there };
        if !self.add_dead(tunnel, dead) {
            return;
        }
        // Counts of the living ride on their own tunnels; those that rode on the dead one are due again.
        self.tunnels.values_mut().for_each(|state| state.tell_again());
        let living: Vec<_> =
            self.tunnels.values().filter(|state| state.ack_due).map(|state| state.id).collect();
        living.into_iter().for_each(|living| self.wake(living));
        if !self.tunnels.is_empty() {
            self.requeue_dead(tunnel);
        }
        self.forget_if_settled(tunnel);
    }

    /// Its Gone is due from here on. False when that is one too many, which ends the session.
    fn add_dead(&mut self, tunnel: TunnelId, dead: Dead) -> bool {
        self.dead.insert(tunnel, dead);
        if self.dead.len() > MOST_DEAD {
            let reason = Violation::TooManyDeadTunnels(MOST_DEAD).to_string();
            self.end(CloseCause::Local, Some(Close { code: CloseCode::LIMIT, reason }));
            return false;
        }
        self.queue_session_control(SessionControl::Gone(tunnel));
        true
    }

    /// Gives the others what a dead tunnel carried and the other end is not known to hold.
    fn requeue_dead(&mut self, tunnel: TunnelId) {
        let Some(dead) = self.dead.get_mut(&tunnel).filter(|dead| !dead.requeued) else { return };
        dead.requeued = true;
        let mut in_flight = std::mem::take(&mut dead.in_flight);
        in_flight.iter_mut().for_each(|written| self.give_elsewhere(written));
        if let Some(dead) = self.dead.get_mut(&tunnel) {
            dead.in_flight = in_flight;
        }
        self.settle_count(tunnel);
        self.wake_for_data(true);
    }

    /// The other end counts a tunnel as dead, and so many packets of it arrived there.
    pub(super) fn on_gone(&mut self, now: Instant, tunnel: TunnelId, count: u64) -> Result<(), Violation> {
        if let Some(state) = self.tunnels.get_mut(&tunnel) {
            let (written, acked) = (state.written, state.acked);
            check_count(tunnel, count, written, acked)?;
            // Unless that was said already: its Leave may have come just before.
            self.drop_tunnel(tunnel, DropReason::Named);
            self.on_ack(now, tunnel, count, None)?;
            self.bury(now, tunnel, Some(count));
            return Ok(());
        }
        if let Some(dead) = self.dead.get_mut(&tunnel) {
            if let Some(before) = dead.counted_there {
                return if before == count { Ok(()) } else { Err(Violation::GoneTwice(tunnel)) };
            }
            let (written, acked) = (dead.written, dead.acked);
            check_count(tunnel, count, written, acked)?;
            dead.counted_there = Some(count);
            dead.take_acked(count).into_iter().for_each(|written| self.on_acknowledged(now, written));
            self.settle_count(tunnel);
            self.forget_if_settled(tunnel);
            return Ok(());
        }
        if self.dialing.remove(&tunnel).is_some() || self.abandoned.remove(&tunnel) {
            // It came up there and never here: nothing of it arrived, and nothing was written on it.
            check_count(tunnel, count, 0, 0)?;
            let dead = Dead {
                received: 0,
                gone: Once::Due,
                written: 0,
                acked: 0,
                in_flight: VecDeque::new(),
                requeued: true,
                counted_there: Some(count),
            };
            self.add_dead(tunnel, dead);
            return Ok(());
        }
        if self.was_used(tunnel) { Ok(()) } else { Err(Violation::NoSuchTunnel(tunnel)) }
    }

    /// With the other end's count known and everything behind it given to the others, the records go.
    fn settle_count(&mut self, tunnel: TunnelId) {
        let Some(dead) = self.dead.get_mut(&tunnel) else { return };
        if dead.requeued && dead.counted_there.is_some() {
            for written in std::mem::take(&mut dead.in_flight) {
                self.held_bytes = self.held_bytes.saturating_sub(u64::from(written.size));
                self.held_packets = self.held_packets.saturating_sub(1);
            }
            self.release_memory();
        }
    }

    fn forget_if_settled(&mut self, tunnel: TunnelId) {
        if self.dead.get(&tunnel).is_some_and(|dead| dead.is_settled() && dead.requeued) {
            self.settle_count(tunnel);
            self.dead.remove(&tunnel);
        }
    }

    /// Whether this id was ever a tunnel of this session.
    pub(super) fn was_used(&self, tunnel: TunnelId) -> bool {
        match self.side {
            Side::Client => tunnel.0 < self.next_tunnel,
            Side::Server => self.seen_tunnels.contains(tunnel.0),
        }
    }

    /// It had no tunnel for as long as it may.
    pub(super) fn expire(&mut self) {
        self.end(CloseCause::Expired, None);
    }
}

/// A frozen count lies between what was acknowledged and what was written.
fn check_count(tunnel: TunnelId, count: u64, written: u64, acked: u64) -> Result<(), Violation> {
    if count > written {
        return Err(Violation::AckBeyondSent { tunnel, count, sent: written });
    }
    if count < acked { Err(Violation::GoneTwice(tunnel)) } else { Ok(()) }
}

impl ConnectionState {
    /// A control packet of it is acknowledged. Whether the other end is now first known to have seen its id.
    fn acknowledged(&mut self, control: ConnectionControl) -> bool {
        match control {
            // After a reset these are idle, and stay so.
            ConnectionControl::Connect if self.connect != Once::Idle => self.connect.acked(),
            ConnectionControl::Connected if self.connected != Once::Idle => self.connected.acked(),
            ConnectionControl::Finish if self.send.finish != Once::Idle => self.send.finish.acked(),
            ConnectionControl::Reset => self.reset.acked(),
            _ => {}
        }
        if control == ConnectionControl::Connect {
            self.destination = bytes::Bytes::new();
        }
        let announces = matches!(control, ConnectionControl::Connect | ConnectionControl::Reset);
        self.ours && announces && !std::mem::replace(&mut self.announced, true)
    }

    /// The tunnel that carried a control packet of it is dead or suspect.
    fn lost(&mut self, control: ConnectionControl) {
        match control {
            ConnectionControl::Connect => _ = self.connect.lost(),
            ConnectionControl::Connected => _ = self.connected.lost(),
            ConnectionControl::Finish => _ = self.send.finish.lost(),
            ConnectionControl::Reset => _ = self.reset.lost(),
            ConnectionControl::Credit => self.receive.credit_due = !self.is_settling(),
            ConnectionControl::Blocked => self.blocked_due = !self.is_settling(),
        }
    }
}
