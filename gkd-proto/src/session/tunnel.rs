//! One tunnel that is up: what it carries, what of it the other end has counted, and what it is good for.
//!
//! Knows no connection: what was written is kept as [`Written`] records, which the session interprets.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::PathSample;
use super::decline::Decline;
use super::estimate::Estimate;
use super::event::DropReason;
use super::queue::{Load, Others, Queue};
use crate::id::{ConnectionId, PacketNumber, TunnelId};

/// The longest that a counted packet waits for its acknowledgement at the receiver. It waits for an eighth of the
/// round trip where that is less: a sender cannot use a line whose acknowledgements come much later than they could.
pub(super) const ACK_DELAY: Duration = Duration::from_millis(25);
/// … but not for less than this, nor longer where no round trip is known: an idle machine's timers cost more.
pub(super) const MIN_ACK_DELAY: Duration = Duration::from_millis(5);
/// So many bytes are acknowledged together, or what the tunnel carries in [`ACK_SPAN`] if that is more.
const ACK_BYTES: u64 = 64 * 1024;
const ACK_SPAN: Duration = Duration::from_millis(2);
/// … but no more than this, so that what a sender keeps for a fast line stays where the processor has it at hand: its
/// caches hold some MB.
const MOST_ACK_BYTES: u64 = 512 * 1024;

/// What a tunnel may hold unacknowledged before its rate is known, and at the least, in bytes.
const MIN_IN_FLIGHT: u64 = 64 * 1024;
/// … and where that would make its line's queue stand: a few segments.
const LEAST_IN_FLIGHT: u64 = 8 * 1024;
/// Added to the round trip where the bound on what a tunnel holds is computed, so that a machine that is
/// late by a few milliseconds does not leave a fast tunnel dry.
const SLACK: Duration = Duration::from_millis(5);

/// A packet is cut to what its tunnel carries in this time: it holds up the reader no longer.
const PACKET_SPAN: Duration = Duration::from_millis(20);
/// … and where what the tunnel holds is limited, so many fit into that.
const PACKETS_OF_LIMIT: u64 = 12;
/// The smallest payload that a packet is cut to, in bytes: about one segment.
const MIN_PACKET: u64 = 1400;
/// What a packet is cut to before the rate is known, in bytes.
const FIRST_PACKET: u64 = 16 * 1024;

/// How often a tunnel that holds packets is looked at as a suspect, at the most.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A tunnel is never suspect sooner than this: a busy machine may be late by as much.
const MIN_PATIENCE: Duration = Duration::from_millis(200);
/// A packet that waits longer than this on a tunnel that would take as long again to drain makes it suspect.
const MAX_HOLD_UP: Duration = Duration::from_secs(1);

/// A counted packet that was written on a tunnel: enough to send it again elsewhere.
#[derive(Clone, Debug, Hash)]
pub(super) enum Carried {
    /// A Data packet: the payload by reference.
    Data { connection: ConnectionId, number: PacketNumber, payload: Bytes },
    /// A control packet of a connection, made anew from its state when it is lost.
    Connection(ConnectionId, ConnectionControl),
    /// A control packet of the session, made anew likewise.
    Session(SessionControl),
}

/// The control packets of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ConnectionControl {
    Connect,
    Connected,
    Finish,
    Reset,
    Credit,
    Blocked,
}

/// The control packets of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SessionControl {
    Credit,
    Blocked,
    Drain,
    Gone(TunnelId),
    Leave(TunnelId),
}

/// A record of a counted packet on its tunnel.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) carried: Carried,
    pub(super) at: Instant,
    pub(super) size: u32,
    /// What the other end had acknowledged of this tunnel's bytes by then, and when.
    delivered: u64,
    delivered_at: Instant,
    /// How long before it the packet had been written that was acknowledged last by then, in microseconds.
    written_for: u32,
    /// It was given to the others as well, for this tunnel was suspect, or late.
    pub(super) elsewhere: bool,
}

/// A Ping that was not answered.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct OutstandingPing {
    pub(super) token: u64,
    pub(super) at: Instant,
    /// Nothing stood in its way, so that its answer measures the path.
    pub(super) idle: bool,
}

/// A tunnel that is up.
#[derive(Clone, Debug)]
pub(super) struct Tunnel {
    pub(super) id: TunnelId,
    pub(super) estimate: Estimate,
    queue: Queue,

    /// Counted packets written, and how many of them are acknowledged.
    pub(super) written: u64,
    pub(super) acked: u64,
    pub(super) in_flight: VecDeque<Written>,
    pub(super) in_flight_bytes: u64,
    /// The most of that since the kernel last told of the path.
    most_on_its_way: u64,
    /// Of what is in flight, bytes that the kernel knew to have arrived behind something missing, and that were not
    /// acknowledged since.
    held_up: u64,
    delivered: u64,
    delivered_at: Instant,
    /// When the packet was written that was acknowledged last.
    acked_at: Instant,
    last_progress: Instant,

    /// Counted packets received, and how many of them the other end was told.
    pub(super) received: u64,
    pub(super) told: u64,
    untold_bytes: u64,
    first_untold: Option<Instant>,
    last_counted: Instant,
    incoming: (Instant, u64, u64),
    pub(super) ack_due: bool,
    /// When the other tunnels were last asked to carry an acknowledgement of this one.
    pub(super) overdue_told: Option<Instant>,

    pub(super) last_heard: Instant,
    pub(super) ping: Option<OutstandingPing>,
    /// When the last Ping was asked for.
    pub(super) pinged_at: Option<Instant>,
    pub(super) ping_due: bool,
    pub(super) pong_due: Option<u64>,
    pub(super) suspect: bool,
    /// It left packets to the others.
    pub(super) declined: Decline,
    /// Since something last came on it, others were better for a packet than it.
    pub(super) passed_over: bool,
    /// When a counted packet was last written on it.
    pub(super) carried_at: Instant,
    /// Not looked at as a suspect before this.
    pub(super) next_look: Instant,
    /// What it holds is not given to an idle tunnel before this.
    pub(super) next_repeat: Instant,
    /// This end sends nothing counted on it any more; the other end said so.
    pub(super) leaving: bool,
    pub(super) left: bool,
    /// The session's end was told on it.
    pub(super) close_told: bool,
    /// A DropTunnel event is out.
    pub(super) dropping: Option<DropReason>,

    /// Its last poll found nothing: it waits to be named.
    pub(super) idle: bool,
    pub(super) to_poll: bool,

    pub(super) bytes_sent: u64,
    pub(super) bytes_received: u64,
    /// Data packets that it carried again for another tunnel.
    pub(super) resent: u64,
    /// Bytes of a packet that has not arrived whole, heard already.
    rest: usize,
}

impl Tunnel {
    pub(super) fn new(now: Instant, id: TunnelId) -> Self {
        Self {
            id,
            estimate: Estimate::default(),
            queue: Queue::default(),
            written: 0,
            acked: 0,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            most_on_its_way: 0,
            held_up: 0,
            delivered: 0,
            delivered_at: now,
            acked_at: now,
            last_progress: now,
            received: 0,
            told: 0,
            untold_bytes: 0,
            first_untold: None,
            last_counted: now,
            incoming: (now, 0, 0),
            ack_due: false,
            overdue_told: None,
            last_heard: now,
            ping: None,
            pinged_at: None,
            ping_due: false,
            pong_due: None,
            suspect: false,
            declined: Decline::No,
            passed_over: false,
            carried_at: now,
            next_look: now,
            next_repeat: now,
            leaving: false,
            left: false,
            close_told: false,
            dropping: None,
            idle: true,
            to_poll: false,
            bytes_sent: 0,
            bytes_received: 0,
            resent: 0,
            rest: 0,
        }
    }

    /// What the kernel says of its path, while the others are as told.
    pub(super) fn learn(&mut self, now: Instant, sample: PathSample, others: Others) {
        self.estimate.kernel = sample;
        self.held_up = sample.held_up.min(self.in_flight_bytes);
        let on_its_way = self.on_its_way();
        let held = std::mem::replace(&mut self.most_on_its_way, on_its_way);
        let acked_in = self.estimate.own.smoothed();
        let load = Load { delivered: self.delivered, held, acked_in, others };
        self.queue.sample(now, &sample, load);
    }

    /// Counts as another for the sake of one whose least round trip is this.
    pub(super) fn count_as_other(&self, now: Instant, others: &mut Others, least: Option<Duration>) {
        others.add(now, &self.queue, &self.estimate.kernel, least);
    }

    // ---- sending ----

    /// A counted packet of `size` bytes is being written.
    pub(super) fn record(&mut self, now: Instant, carried: Carried, size: usize) {
        if self.in_flight.is_empty() {
            // An idle tunnel's clock starts anew, so that the pause does not count into its rate.
            self.delivered_at = now;
            self.acked_at = now;
            self.last_progress = now;
        }
        self.carried_at = now;
        self.written += 1;
        self.in_flight_bytes += size as u64;
        self.most_on_its_way = self.most_on_its_way.max(self.on_its_way());
        let (delivered, delivered_at) = (self.delivered, self.delivered_at);
        let written_for = now.saturating_duration_since(self.acked_at).as_micros();
        let written_for = u32::try_from(written_for).unwrap_or(u32::MAX);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        self.in_flight.push_back(Written {
            carried,
            at: now,
            size,
            delivered,
            delivered_at,
            written_for,
            elsewhere: false,
        });
    }

    /// The other end counted `count` packets, the last of which had waited for `delay`. What it newly
    /// acknowledges is handed to `each`. A count that is not above the highest seen changes nothing; the caller
    /// has checked that it is not above what was written. Whether anything is new.
    pub(super) fn acknowledge(
        &mut self,
        now: Instant,
        count: u64,
        delay: Option<Duration>,
        mut each: impl FnMut(Written),
    ) -> bool {
        if count <= self.acked {
            return false;
        }
        let mut last = None;
        for _ in self.acked..count {
            let Some(written) = self.in_flight.pop_front() else { break };
            self.in_flight_bytes -= u64::from(written.size);
            self.held_up = self.held_up.saturating_sub(u64::from(written.size));
            self.delivered += u64::from(written.size);
            last = Some((written.at, written.delivered, written.delivered_at, written.written_for));
            each(written);
        }
        self.acked = count;
        self.last_progress = now;
        self.delivered_at = now;
        if let Some((at, delivered, delivered_at, written_for)) = last {
            self.acked_at = at;
            let round_trip = self.estimate.round_trip().unwrap_or_default();
            // Nothing is delivered faster than it was written. Behind a loss much arrives at once, and looks so.
            let took = (now - delivered_at).max(Duration::from_micros(written_for.into()));
            self.estimate.rate.sample(now, self.delivered - delivered, took, round_trip);
            if let Some(delay) = delay {
                let elapsed = now.saturating_duration_since(at);
                self.estimate.own.sample(now, elapsed.saturating_sub(delay));
            }
        }
        if self.in_flight.is_empty() && self.in_flight.capacity() > 64 {
            self.in_flight.shrink_to(0);
        }
        true
    }

    /// How many more bytes may be in flight on this tunnel; fewer where they would make its line's queue stand.
    ///
    /// What is held up behind something that was dropped stands in no queue. If it counted there, a tunnel would stop
    /// whenever something is missing, go on with all of that at once when it has come, and so have the next dropped.
    pub(super) fn room_in_flight(&self) -> u64 {
        let by_rate = self.rate_in_flight().saturating_sub(self.in_flight_bytes);
        let limit = self.queue.limit().map_or(u64::MAX, |limit| limit.max(LEAST_IN_FLIGHT));
        by_rate.min(limit.saturating_sub(self.on_its_way()))
    }

    /// Bytes that are in flight and not known to have arrived.
    fn on_its_way(&self) -> u64 {
        self.in_flight_bytes - self.held_up
    }

    /// The most that this tunnel may hold unacknowledged: two of its rate times the time until an acknowledgement
    /// is back; three while its rate still grows, for a sender in slow start doubles what it sends with every round
    /// trip, and what is known of its rate is a round trip old.
    pub(super) fn rate_in_flight(&self) -> u64 {
        let (Some(rate), Some(round_trip)) = (self.estimate.rate.get(), self.estimate.round_trip()) else {
            return MIN_IN_FLIGHT;
        };
        // The other end acknowledges by this end's rules.
        let gathered = Duration::from_secs_f64(ack_bytes(rate) as f64 / rate.max(1) as f64);
        let back = round_trip + gathered.min(ack_delay(Some(round_trip))) + SLACK;
        let gain = if self.estimate.rate.is_growing() { 3 } else { 2 };
        product(rate, gain * back).max(MIN_IN_FLIGHT)
    }

    /// It holds as much as it may, or pauses: a backlog is not for it.
    pub(super) fn is_full(&self) -> bool {
        self.holds_all_it_may() || self.pauses()
    }

    /// It holds as much as it may.
    pub(super) fn holds_all_it_may(&self) -> bool {
        self.room_in_flight() == 0
    }

    /// Its sender is to run dry: it takes only what is sparse, or is waited for.
    pub(super) fn pauses(&self) -> bool {
        self.estimate.kernel.pauses.is_some()
    }

    /// The largest payload that a packet on this tunnel is cut to, in bytes.
    pub(super) fn packet_size(&self) -> u64 {
        let by_rate = self.estimate.rate.get().map_or(FIRST_PACKET, |rate| product(rate, PACKET_SPAN));
        // Acknowledged packet by packet, a few large ones would come and go in bursts and leave the line idle between.
        let by_limit = self.queue.limit().map_or(u64::MAX, |limit| limit / PACKETS_OF_LIMIT);
        by_rate.min(by_limit).max(MIN_PACKET)
    }

    /// It can carry counted packets.
    pub(super) fn is_in_use(&self) -> bool {
        !self.leaving && self.dropping.is_none()
    }

    // ---- receiving ----

    /// A counted packet of `size` bytes was received.
    pub(super) fn count(&mut self, now: Instant, size: usize) {
        self.received += 1;
        self.untold_bytes += size as u64;
        self.first_untold.get_or_insert(now);
        self.last_counted = now;
        if self.untold_bytes >= ack_bytes(self.incoming.2) {
            self.ack_due = true;
        }
    }

    /// So many bytes of any kind are there, behind the rest that the last turn left.
    pub(super) fn hear(&mut self, now: Instant, buffered: usize) {
        self.last_heard = now;
        self.passed_over = false;
        let size = buffered.saturating_sub(self.rest);
        self.bytes_received += size as u64;
        let (start, bytes, _) = &mut self.incoming;
        *bytes += size as u64;
        let elapsed = now.saturating_duration_since(*start);
        if elapsed >= ACK_DELAY {
            self.incoming = (now, 0, (*bytes as f64 / elapsed.as_secs_f64()) as u64);
        }
    }

    /// The turn left so many bytes of a packet that has not arrived whole.
    pub(super) fn keep_rest(&mut self, rest: usize) {
        self.rest = rest;
    }

    /// The count is being told, in an Ack or a Pong: the count, and how long the last packet had waited.
    pub(super) fn tell(&mut self, now: Instant) -> (u64, Duration) {
        self.told = self.received;
        self.untold_bytes = 0;
        self.first_untold = None;
        self.ack_due = false;
        (self.received, now.saturating_duration_since(self.last_counted))
    }

    /// Something was counted that the other end was not told.
    pub(super) fn has_untold(&self) -> bool {
        self.received > self.told
    }

    /// Another tunnel died, and an Ack for this one may have been lost with it.
    pub(super) fn tell_again(&mut self) {
        self.ack_due |= self.received > 0;
    }

    /// When the acknowledgement is due at the latest.
    pub(super) fn ack_deadline(&self) -> Option<Instant> {
        let delay = ack_delay(self.estimate.round_trip());
        if self.ack_due { None } else { self.first_untold.map(|first| first + delay) }
    }

    /// When an acknowledgement has been due for so long that nothing seems to go out on this tunnel.
    pub(super) fn ack_deadline_passed(&self) -> Option<Instant> {
        self.first_untold.map(|first| first + 2 * ACK_DELAY)
    }

    pub(super) fn ack_overdue(&self, now: Instant) -> bool {
        self.ack_deadline_passed().is_some_and(|overdue| now >= overdue)
    }

    // ---- silence ----

    /// How long the oldest packet may wait without progress.
    pub(super) fn patience(&self) -> Duration {
        let round_trip = self.estimate.loaded_round_trip().unwrap_or(Duration::from_secs(1) / 3);
        (3 * round_trip + 2 * ACK_DELAY).max(MIN_PATIENCE)
    }

    /// When this tunnel is to be looked at as a suspect, if it holds anything.
    pub(super) fn suspicion_at(&self) -> Option<Instant> {
        let oldest = self.in_flight.front()?;
        if self.suspect {
            return None;
        }
        let silent = oldest.at.max(self.last_progress) + self.patience();
        Some(silent.min(oldest.at + self.patience().max(MAX_HOLD_UP)).max(self.next_look))
    }

    /// Its oldest packet is older than its patience without progress, or it has held up its reader for a second
    /// and would go on doing so.
    pub(super) fn looks_silent(&self, now: Instant) -> bool {
        let Some(oldest) = self.in_flight.front() else { return false };
        let silent = now >= oldest.at.max(self.last_progress) + self.patience();
        let held_up = now >= oldest.at + self.patience().max(MAX_HOLD_UP);
        let drain = self.estimate.rate.get().map(|rate| self.in_flight_bytes > product(rate, MAX_HOLD_UP));
        silent || (held_up && drain.unwrap_or(true))
    }

    /// When its oldest packet was written.
    pub(super) fn oldest_at(&self) -> Option<Instant> {
        self.in_flight.front().map(|oldest| oldest.at)
    }

    /// When its count last rose, or when it began to wait for that.
    pub(super) fn last_progress(&self) -> Instant {
        self.last_progress
    }

    /// Something counted came behind the last Ping.
    pub(super) fn came_since_ping(&self) -> bool {
        self.received > 0 && self.pinged_at.is_none_or(|at| self.last_counted > at)
    }
}

/// What shapes what becomes of it; not what only measures the path.
impl Hash for Written {
    fn hash<H: Hasher>(&self, to: &mut H) {
        let Self { carried, at, size, delivered: _, delivered_at: _, written_for: _, elsewhere } = self;
        (carried, at, size, elsewhere).hash(to);
    }
}

/// For [`Session::fingerprint`](super::Session::fingerprint): what is measured of the path counts as far as it
/// decides when the tunnel acknowledges and when it is suspect.
impl Hash for Tunnel {
    fn hash<H: Hasher>(&self, to: &mut H) {
        #[rustfmt::skip]
        let Self {
            id, estimate: _, queue: _, written, acked, in_flight, in_flight_bytes, most_on_its_way: _, held_up: _, delivered: _, delivered_at: _,
            acked_at: _, last_progress, received, told, untold_bytes, first_untold, last_counted, incoming: _, ack_due,
            overdue_told, last_heard, ping, pinged_at, ping_due, pong_due, suspect, declined, passed_over, carried_at, next_look, next_repeat,
            leaving, left, close_told,
            dropping, idle, to_poll, bytes_sent: _, bytes_received: _, resent: _, rest,
        } = self;
        (id, ack_delay(self.estimate.round_trip()), self.patience()).hash(to);
        (written, acked, in_flight, in_flight_bytes, last_progress).hash(to);
        (received, told, untold_bytes, first_untold, last_counted, ack_due, overdue_told).hash(to);
        (last_heard, ping, pinged_at, ping_due, pong_due, suspect, next_look, next_repeat, rest).hash(to);
        (leaving, left, close_told, dropping, idle, to_poll, declined, passed_over, carried_at).hash(to);
    }
}

/// How long an acknowledgement waits for more to acknowledge, on a tunnel of this round trip.
fn ack_delay(round_trip: Option<Duration>) -> Duration {
    round_trip.map_or(MIN_ACK_DELAY, |round_trip| (round_trip / 8).clamp(MIN_ACK_DELAY, ACK_DELAY))
}

/// How many bytes are acknowledged together on a tunnel that carries `rate` bytes per second.
fn ack_bytes(rate: u64) -> u64 {
    product(rate, ACK_SPAN).clamp(ACK_BYTES, MOST_ACK_BYTES)
}

/// What flows at `rate` bytes per second in `time`.
fn product(rate: u64, time: Duration) -> u64 {
    (rate as f64 * time.as_secs_f64()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_at_once_behind_a_loss_is_no_faster_than_it_was_written() {
        const SIZE: usize = 16 * 1024;
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut tunnel = Tunnel::new(start, TunnelId(0));
        let write = |tunnel: &mut Tunnel, millis| {
            tunnel.record(at(millis), Carried::Session(SessionControl::Credit), SIZE);
        };
        // 1.6 MB/s are written, and nothing is acknowledged for 300 ms, then everything in few acknowledgements.
        (0..30).for_each(|packet| write(&mut tunnel, 10 * packet));
        tunnel.acknowledge(at(300), 10, Some(Duration::ZERO), |_| {});
        write(&mut tunnel, 301);
        tunnel.acknowledge(at(302), 30, Some(Duration::ZERO), |_| {});
        tunnel.acknowledge(at(351), 31, Some(Duration::ZERO), |_| {});
        let rate = tunnel.estimate.rate.get();
        assert!(rate.is_some_and(|rate| (1_400_000..1_900_000).contains(&rate)), "{rate:?}");
    }
}
