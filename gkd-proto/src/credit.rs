//! Credit: how much charge a sender may still have unread at the other end. Absolute totals in both
//! directions, so that the order of the packets that tell them does not matter.
//!
//! [`SendCredit`] is the sender's side of one account, [`ReceiveWindow`] the receiver's, with the tuning of
//! its window. A connection has one of each, and so has the session. Neither knows packets.

use std::time::{Duration, Instant};

/// What every Data packet costs beside its payload. It pays for the slot of the reorder buffer and the
/// packet's record, so that memory is what charge says.
pub const OVERHEAD: u64 = 128;

/// Credit that is left but allows less payload than this, in bytes, is not used while more is queued: else a
/// stream of tiny packets would follow each grant.
pub(crate) const WORTHWHILE: u64 = 1024;

/// What a Data packet costs: its payload and [`OVERHEAD`].
pub fn charge(payload: usize) -> u64 {
    payload as u64 + OVERHEAD
}

/// The sender's side of an account.
#[derive(Clone, Debug, Default, Hash)]
pub struct SendCredit {
    limit: u64,
    charged: u64,
    /// What was left when the limit was last raised: the window, as far as a sender can see it.
    window: u64,
    /// The limit of which Blocked was last told.
    told_blocked: Option<u64>,
    /// What was charged in the round trip before `mark`, and where that began.
    last_round: u64,
    mark: Option<(Instant, u64)>,
}

impl SendCredit {
    /// What was charged in all.
    pub fn charged(&self) -> u64 {
        self.charged
    }

    /// The total that may be charged.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What may still be charged now.
    pub fn available(&self) -> u64 {
        self.limit - self.charged
    }

    /// The receiver's window, as far as it can be seen from here.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// The receiver granted `total`. A total that is not above the highest is ignored: it came late.
    pub fn raise(&mut self, total: u64) -> bool {
        let higher = total > self.limit;
        if higher {
            self.limit = total;
            self.window = self.available();
        }
        higher
    }

    /// Charges `amount`, which must be available, and follows how much a round trip takes.
    pub fn charge(&mut self, now: Instant, round_trip: Duration, amount: u64) {
        assert!(amount <= self.available(), "only what is available is charged");
        let (start, before) = *self.mark.get_or_insert((now, self.charged));
        let elapsed = now.saturating_duration_since(start);
        if elapsed >= round_trip {
            // A pause stretches the round; what is charged in one of usual length is what counts.
            let share = round_trip.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
            self.last_round = ((self.charged - before) as f64 * share) as u64;
            self.mark = Some((now, self.charged));
        }
        self.charged += amount;
    }

    /// Whether Blocked is to be told: what is left will not last one more round trip, and it was not told of
    /// this limit before. Asked by a sender with a backlog; the answer counts as told.
    pub fn should_tell_blocked(&mut self) -> bool {
        let this_round = self.mark.map_or(0, |(_, before)| self.charged - before);
        let short = self.available() <= self.last_round.max(this_round).max(OVERHEAD + WORTHWHILE);
        let news = self.told_blocked != Some(self.limit);
        if short && news {
            self.told_blocked = Some(self.limit);
        }
        short && news
    }
}

/// The receiver's side of an account: what was granted, what was consumed, and how large the window between
/// them should be.
#[derive(Clone, Debug, Hash)]
pub struct ReceiveWindow {
    granted: u64,
    consumed: u64,
    window: u64,
    initial: u64,
    /// Made when there is something to measure, for most connections carry little.
    pace: Option<Box<Pace>>,
}

/// How fast is read.
#[derive(Clone, Copy, Debug, Default, Hash)]
struct Pace {
    /// Where the window that is being measured began.
    mark: Option<(Instant, u64)>,
    grown: Option<Instant>,
    rounds: Rounds,
}

/// What is consumed in a round trip.
#[derive(Clone, Copy, Debug, Default, Hash)]
struct Rounds {
    /// Where the one that is being measured began, and what was consumed by then.
    start: Option<(Instant, u64)>,
    /// What was consumed in the last.
    last: u64,
}

impl Rounds {
    /// `total` was consumed by now. Once a round trip: the window that the next one may need.
    fn consumed(&mut self, now: Instant, round_trip: Duration, total: u64) -> Option<u64> {
        let (start, before) = *self.start.get_or_insert((now, total));
        let elapsed = now.saturating_duration_since(start);
        if elapsed < round_trip {
            return None;
        }
        // A pause stretches the round; what is consumed in one of usual length is what counts.
        let share = round_trip.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
        let this = ((total - before) as f64 * share) as u64;
        let more = this.saturating_sub(self.last);
        let growth = if self.last == 0 { 0.0 } else { more as f64 / self.last as f64 };
        self.start = Some((now, total));
        self.last = this;
        Some((2.0 * this as f64 * (1.0 + growth.min(1.0))) as u64)
    }
}

impl ReceiveWindow {
    /// An account whose other end begins with `initial`.
    pub fn new(initial: u64) -> Self {
        Self { granted: initial, consumed: 0, window: initial, initial, pace: None }
    }

    /// The total that the other end may charge.
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// What was consumed in all.
    pub fn consumed(&self) -> u64 {
        self.consumed
    }

    /// How much the other end may have unread when everything is granted that can be.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// What is granted beyond the initial window and not consumed: memory that is promised.
    pub fn excess(&self) -> u64 {
        (self.granted - self.consumed.min(self.granted)).saturating_sub(self.initial)
    }

    /// `amount` was consumed. Tells how large the window should become, if it should grow: twice as large when a whole
    /// one was consumed in less than two round trips; and twice what was consumed in the last round trip, four times
    /// where that was twice as much as in the one before, for a sender in slow start goes on like that (as Linux
    /// sizes a receive buffer, `tcp_rcv_space_adjust`).
    ///
    /// The first 1/256 of the initial window tells nothing of that, and is not measured.
    #[must_use]
    pub fn consume(&mut self, now: Instant, round_trip: Duration, amount: u64) -> Option<u64> {
        let from = self.consumed;
        self.consumed += amount;
        if self.pace.is_none() && self.consumed < self.initial / 256 {
            return None;
        }
        let may_grow = self.may_grow(now, round_trip);
        let pace = self.pace.get_or_insert_default();
        let (start, before) = *pace.mark.get_or_insert((now, from));
        let round = pace.rounds.consumed(now, round_trip, self.consumed);
        let mut wanted = round.unwrap_or(0);
        if self.consumed - before >= self.window {
            pace.mark = Some((now, self.consumed));
            if now.saturating_duration_since(start) < 2 * round_trip && may_grow {
                wanted = wanted.max(2 * self.window);
            }
        }
        (wanted > self.window).then_some(wanted.max(2 * self.window))
    }

    /// Whether the last growth is a round trip ago.
    #[must_use]
    pub fn may_grow(&self, now: Instant, round_trip: Duration) -> bool {
        let grown = self.pace.as_ref().and_then(|pace| pace.grown);
        grown.is_none_or(|grown| now.saturating_duration_since(grown) >= round_trip)
    }

    /// Sets the window, as a growth.
    pub fn grow_to(&mut self, now: Instant, window: u64) {
        if window > self.window {
            self.window = window;
            self.pace.get_or_insert_default().grown = Some(now);
        }
    }

    /// Goes back to the initial window, after idle time. What was granted stays granted.
    pub fn shrink(&mut self) {
        self.window = self.initial;
        self.pace = None;
    }

    /// Grants what the window allows, at most `most` of it: the new total, if it is worth telling (a quarter of
    /// the window).
    pub fn grant(&mut self, most: u64) -> Option<u64> {
        let window = self.window.min(most.max(self.initial));
        let total = self.consumed + window;
        let worth = total > self.granted && total - self.granted >= window / 4;
        worth.then(|| {
            self.granted = total;
            total
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(100);

    #[test]
    fn late_totals_are_ignored() {
        let mut credit = SendCredit::default();
        assert!(credit.raise(1000));
        assert!(!credit.raise(900));
        credit.charge(Instant::now(), ROUND_TRIP, 400);
        assert_eq!((credit.available(), credit.limit()), (600, 1000));
    }

    #[test]
    fn blocked_is_told_once_for_each_limit_and_a_round_trip_ahead() {
        let mut credit = SendCredit::default();
        credit.raise(10_000);
        let start = Instant::now();
        let mut told_at = None;
        for step in 0..10 {
            credit.charge(start + ROUND_TRIP / 2 * step, ROUND_TRIP, 1000);
            if credit.should_tell_blocked() {
                assert_eq!(told_at.replace(credit.available()), None, "told twice");
            }
        }
        // 2,000 go in a round trip: it is told when no more than that is left.
        assert_eq!(told_at, Some(2000));
        credit.raise(11_000);
        assert!(credit.should_tell_blocked());
    }

    #[test]
    fn a_window_grows_only_when_it_is_consumed_within_two_round_trips() {
        let start = Instant::now();
        let mut window = ReceiveWindow::new(1000);
        assert_eq!(window.consume(start, ROUND_TRIP, 500), None);
        assert_eq!(window.consume(start + ROUND_TRIP, ROUND_TRIP, 500), Some(2000));
        let mut slow = ReceiveWindow::new(1000);
        assert_eq!(slow.consume(start, ROUND_TRIP, 500), None);
        assert_eq!(slow.consume(start + 3 * ROUND_TRIP, ROUND_TRIP, 500), None);
    }

    #[test]
    fn a_window_follows_a_sender_in_slow_start() {
        let start = Instant::now();
        let mut window = ReceiveWindow::new(100_000);
        let mut each = 10_000;
        for round in 0..12 {
            let wanted = window.consume(start + round * ROUND_TRIP, ROUND_TRIP, each);
            if let Some(wanted) = wanted {
                assert!(wanted >= 4 * each, "{wanted} for {each}, and twice that next");
                window.grow_to(start + round * ROUND_TRIP, wanted);
            }
            each *= 2;
            assert!(window.window() >= 2 * each / 2, "round {round}: {} for {each}", window.window());
        }
        let last = window.window();
        for round in 12..20 {
            let wanted = window.consume(start + round * ROUND_TRIP, ROUND_TRIP, each);
            wanted.into_iter().for_each(|wanted| window.grow_to(start + round * ROUND_TRIP, wanted));
        }
        assert!(window.window() <= 4 * last, "it stays where the sender does: {} of {last}", window.window());
    }

    #[test]
    fn grants_come_in_quarters_of_the_window_and_never_shrink() {
        let now = Instant::now();
        let mut window = ReceiveWindow::new(1000);
        assert_eq!(window.grant(u64::MAX), None);
        let _ = window.consume(now, ROUND_TRIP, 249);
        assert_eq!(window.grant(u64::MAX), None);
        let _ = window.consume(now, ROUND_TRIP, 1);
        assert_eq!(window.grant(u64::MAX), Some(1250));
        window.grow_to(now, 4000);
        assert_eq!(window.grant(u64::MAX), Some(4250));
        assert_eq!(window.excess(), 3000);
        window.shrink();
        let _ = window.consume(now, ROUND_TRIP, 2000);
        assert_eq!(window.grant(u64::MAX), None);
        assert_eq!(window.granted(), 4250);
    }

    #[test]
    fn a_grant_is_cut_to_what_is_free_but_never_below_the_initial_window() {
        let mut window = ReceiveWindow::new(1000);
        window.grow_to(Instant::now(), 8000);
        assert_eq!(window.grant(3000), Some(3000));
        let _ = window.consume(Instant::now(), ROUND_TRIP, 3000);
        assert_eq!(window.grant(0), Some(4000));
    }
}
