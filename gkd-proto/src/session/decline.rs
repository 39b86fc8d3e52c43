//! Which tunnel a packet had better wait for. A tunnel that has room declines what the others deliver sooner, all
//! of what is queued before it included: then the slow one of two paths never makes a reader wait that the fast
//! one would have served, and a large backlog still uses both.
//!
//! That is the rule of "earliest completion first" (ECF, Lim et al., CoNEXT 2017) as a question that one tunnel
//! asks when it pulls, with the backlog for its subject. A decline is not for ever: it lapses when the others
//! should have delivered, so that no estimate which is wrong can hold a packet up for longer than the tunnel that
//! declined would have.

use std::time::{Duration, Instant};

use super::tunnel::ACK_DELAY;
use super::{Session, Tunnel};
use crate::id::TunnelId;

/// A tunnel declines what the others deliver within this part of the time that it would take itself: at least a
/// quarter sooner. Less is within the noise of the estimates.
const SOONER: f64 = 0.75;

/// A decline stands for this long at least: the clock of a driver ticks no faster.
const LEAST_DECLINE: Duration = Duration::from_millis(1);

/// A tunnel whose packets go to others is pinged when nothing came on it for this long, or what is known of its way
/// would rot.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// … and takes a packet of a backlog when it has carried none for this long: nothing else tells its rate.
const TRY_EVERY: Duration = Duration::from_secs(10);

/// Whether a tunnel declined what it could have carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Decline {
    /// It did not, or what it declined is gone.
    #[default]
    No,
    /// It waits for the others to serve it until `at`; they had written so many packets when it began.
    Until { at: Instant, written: u64 },
    /// They did not: it takes what it can with the next batch, whatever they promise.
    Lapsed,
}

/// Bytes that wait to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backlog {
    pub(super) queued: u64,
    /// A writer that waits has more to write. How much nobody knows: it is taken for as much again as went out since
    /// its connection last had nothing to send, so that a guess costs in proportion to what was already spent (as
    /// in the ski rental problem).
    pub(super) likely: u64,
}

impl Backlog {
    /// More than can be counted.
    pub(super) const ENDLESS: Self = Self { queued: u64::MAX, likely: 0 };

    /// All of it.
    pub(super) fn total(self) -> u64 {
        self.queued.saturating_add(self.likely)
    }

    pub(super) fn of(queued: u64) -> Self {
        Self { queued: queued.max(1), likely: 0 }
    }
}

impl Session {
    /// Whether `tunnel` leaves this backlog to the others, which deliver all of it sooner. They are woken.
    ///
    /// Of what is only likely, no more counts than `tunnel` would carry of it. That is all that a reader can gain by
    /// it, while it has to wait for this tunnel's last packet if the writer ends sooner.
    pub(super) fn declines(&mut self, now: Instant, tunnel: TunnelId, backlog: Backlog) -> bool {
        let Some(state) = self.tunnels.get(&tunnel) else { return false };
        if self.tunnels.len() < 2 || state.declined == Decline::Lapsed || backlog == Backlog::ENDLESS {
            return false;
        }
        let Some(mut own) = state.arrives_in(1) else { return false };
        if state.is_held_back(now) {
            own += state.estimate.round_trip().unwrap_or_default();
        }
        if backlog.likely > 0 && now.saturating_duration_since(state.carried_at) >= TRY_EVERY {
            return false;
        }
        let within = own.mul_f64(SOONER);
        let every = !self.has_healthy_tunnel();
        let able = |other: &Tunnel| {
            let usable = other.id != tunnel && other.is_in_use() && (every || !other.suspect);
            if usable && !other.is_held_back(now) { other.delivers_within(within) } else { None }
        };
        let (mut sum, mut rates) = (0_u64, 0.0);
        for other in self.tunnels.values() {
            if let Some(bytes) = able(other) {
                sum = sum.saturating_add(bytes);
                rates += other.estimate.rate.get().unwrap_or(0) as f64;
            }
        }
        let rate = state.estimate.rate.get().unwrap_or(0) as f64;
        let share = if rates > 0.0 { rate / (rate + rates) } else { 1.0 };
        if sum < backlog.queued.saturating_add((backlog.likely as f64 * share) as u64) {
            return false;
        }
        for other in self.tunnels.values_mut() {
            if other.idle && !other.to_poll && !other.is_full() && able(other).is_some() {
                other.to_poll = true;
                self.poll_list.push(other.id);
            }
        }
        let written = self.written_by_others(tunnel);
        if let Some(state) = self.tunnels.get_mut(&tunnel) {
            state.passed_over = true;
            if state.declined == Decline::No {
                state.declined = Decline::Until { at: now + within.max(LEAST_DECLINE), written };
            }
        }
        true
    }

    /// Whether a packet on `tunnel`, of a connection that has `credit` left, would make the faster ones wait: the
    /// reader gets nothing of what they bring before it arrives, and meanwhile they would use up the credit (BLEST,
    /// Ferlin et al., IFIP Networking 2016). `sharers` connections share what they carry. This does not lapse: what
    /// comes with time is credit, and that wakes the tunnel.
    pub(super) fn holds_up(&mut self, now: Instant, tunnel: TunnelId, credit: u64, sharers: usize) -> bool {
        let Some(state) = self.tunnels.get(&tunnel) else { return false };
        let Some(own) = state.arrives_in(1).filter(|_| self.tunnels.len() > 1) else { return false };
        if now.saturating_duration_since(state.carried_at) >= TRY_EVERY {
            return false;
        }
        let every = !self.has_healthy_tunnel();
        let faster = self.tunnels.values().filter(|other| {
            let usable = other.id != tunnel && other.is_in_use() && (every || !other.suspect);
            usable && other.arrives_in(1).is_some_and(|other| state.leaves_to(other))
        });
        let bring = faster.map(|other| {
            // Until it has arrived, and the credit that the reader then gives back has come over the faster tunnel.
            let meanwhile = own + other.estimate.round_trip().unwrap_or_default() / 2;
            other.estimate.rate.get().unwrap_or(0) as f64 * meanwhile.as_secs_f64()
        });
        let holds_up = bring.sum::<f64>() / sharers.max(1) as f64 > credit as f64;
        if holds_up && let Some(state) = self.tunnels.get_mut(&tunnel) {
            state.passed_over = true;
        }
        holds_up
    }

    /// A packet goes to the tunnel that delivers it soonest, in `soonest`: others are passed over.
    pub(super) fn pass_over(&mut self, soonest: Duration) {
        for tunnel in self.tunnels.values_mut() {
            tunnel.passed_over |= tunnel.leaves_to(soonest);
        }
    }

    /// A batch is full, or there is no more: if it holds anything, a decline that had lapsed is over.
    pub(super) fn take_again(&mut self, tunnel: TunnelId, any: bool) {
        if let Some(state) = self.tunnels.get_mut(&tunnel).filter(|it| any && it.declined == Decline::Lapsed)
        {
            state.declined = Decline::No;
        }
    }

    /// A tunnel's decline is due: it takes what it left to the others if they took nothing at all, for what they take
    /// first is what had waited. Otherwise it looks again whether there is something for it.
    pub(super) fn lapse(&mut self, now: Instant, tunnel: TunnelId) {
        let waiting = self.schedule.has_data() || !self.schedule.control.is_empty();
        let others = self.written_by_others(tunnel);
        let Some(state) = self.tunnels.get_mut(&tunnel) else { return };
        let Decline::Until { at, written } = state.declined else { return };
        if now >= at {
            state.declined = if waiting && written == others { Decline::Lapsed } else { Decline::No };
            if waiting {
                self.wake(tunnel);
            }
        }
    }

    /// Counted packets that were written on the other tunnels that are up.
    fn written_by_others(&self, tunnel: TunnelId) -> u64 {
        self.tunnels.values().filter(|other| other.id != tunnel).map(|other| other.written).sum()
    }
}

impl Tunnel {
    /// When it is to be pinged because packets went to others since something last came on it.
    pub(super) fn ask_at(&self) -> Option<Instant> {
        self.passed_over.then(|| self.last_heard + ASK_EVERY)
    }

    /// It delivers nothing for a round trip or so, because it has to send again what was lost, or is to run dry: the kernel
    /// says so, or what it holds has waited for half as long again as usual.
    pub(super) fn is_held_back(&self, now: Instant) -> bool {
        let late_after = self.late_after().unwrap_or(ACK_DELAY);
        let late = |oldest: Instant| now.saturating_duration_since(oldest) > late_after;
        self.waits_for_others() || self.pauses() || self.oldest_at().is_some_and(late)
    }

    /// Whether a packet that arrives in `other` over another tunnel is there so much sooner that this one leaves it
    /// to that.
    fn leaves_to(&self, other: Duration) -> bool {
        self.arrives_in(1).is_some_and(|own| other <= own.mul_f64(SOONER))
    }

    /// How long until `bytes` that are written now have arrived, behind all that it holds; `None` while nothing is
    /// known of the way.
    pub(super) fn arrives_in(&self, bytes: u64) -> Option<Duration> {
        let way = self.estimate.round_trip()? / 2;
        let Some(rate) = self.estimate.rate.get().filter(|rate| *rate > 0) else { return Some(way) };
        let held = Duration::from_secs_f64((self.in_flight_bytes + bytes) as f64 / rate as f64);
        // What was written a round trip ago is acknowledged: what it holds took the way back off already.
        Some(held.saturating_sub(way).max(way))
    }

    /// How many bytes more it can have delivered in `time`; `None` if not one.
    fn delivers_within(&self, time: Duration) -> Option<u64> {
        let way = self.estimate.round_trip()? / 2;
        if time < way {
            return None;
        }
        let able = match self.estimate.rate.get() {
            Some(rate) => (rate as f64 * (time + way).as_secs_f64()) as u64,
            None => self.rate_in_flight(),
        };
        able.checked_sub(self.in_flight_bytes).filter(|bytes| *bytes > 0)
    }
}
