//! When a sender whose congestion control is BBR had better run dry ([`Pauses`]).
//!
//! BBR wants to know the round trip without a queue. When it was not lower for ten seconds, it stops nearly all sending for 200
//! ms to measure it (draft-ietf-ccwg-bbr, ProbeRTT). Tunnels that were dialled together do so together, and everything
//! stands still meanwhile. But Linux does not stop a sender that had just run dry: the first acknowledgement behind the
//! ten seconds measures as well, when it is for what was sent with nothing on its way (`idle_restart` in
//! `net/ipv4/tcp_bbr.c`). So each tunnel is let run dry for about one round trip at the right moment; and because they go on one
//! after the other, the next time comes at another moment for each.
//!
//! The kernel does not tell when the ten seconds began. It tells BBR's round trip (`TCP_CC_INFO`), which changes when they
//! begin anew; and BBR keeps four segments on their way while it measures.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long BBR's round trip counts (`bbr_min_rtt_win_sec`).
const COUNTS_FOR: Duration = Duration::from_secs(10);

/// Between two looks, and what a tunnel's task may be late by.
const SLACK: Duration = Duration::from_millis(20);

/// Tunnels go on one after another, so many at the most.
const TURNS: u32 = 4;

/// One in so many is stopped the first time, for if all ran dry at once, nothing would move for a round trip. It gets no
/// more bulk so long before, so that nothing waits in its socket while it measures, …
const BEFORE: Duration = Duration::from_millis(30);
/// … and none until it has: 200 ms (`bbr_probe_rtt_mode_ms`), and a round trip before that.
const MEASURES_FOR: Duration = Duration::from_millis(350);

/// What the kernel tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    /// BBR's round trip, in microseconds.
    pub(super) least: u32,
    /// The smoothed round trip, queues included.
    pub(super) round_trip: Duration,
    /// Nothing is on its way.
    pub(super) dry: bool,
    /// It keeps as little on its way as while it measures.
    pub(super) measures: bool,
}

/// The pauses of one sender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    /// Whose turn it is to go on.
    turn: u32,
    /// It is to be stopped the next time.
    stops: bool,
    /// When it was looked at last, and BBR's round trip then.
    last: (Instant, u32),
    /// Between which moments the round trip was measured.
    measured: Option<(Instant, Instant)>,
    /// Until when it gets nothing, because it is stopped or will be.
    stopped: Option<Instant>,
}

impl Pauses {
    /// Those of a sender that begins, which counts from its first round trip on.
    pub(super) fn new(now: Instant, least: u32) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self::in_turn(NEXT.fetch_add(1, Ordering::Relaxed) % TURNS, now, least)
    }

    fn in_turn(turn: u32, now: Instant, least: u32) -> Self {
        Self { turn, stops: turn == 0, last: (now, least), measured: Some((now, now)), stopped: None }
    }

    /// Whether the sender had better get no more bulk for now, and for how long. Asked about every 20 ms, while it carries
    /// some and while it pauses.
    pub(super) fn look(&mut self, now: Instant, told: Told) -> Option<Duration> {
        let (before, least) = std::mem::replace(&mut self.last, (now, told.least));
        let stopped = self.stopped.filter(|until| now < *until).map(|until| until - now);
        if told.measures {
            // It counts from the end of that.
            (self.measured, self.stops) = (Some((now, now)), false);
            return stopped;
        }
        if least != told.least {
            self.measured = noticed(before, now, told.round_trip);
        }
        let (first, last) = self.measured?;
        let (first, last) = (first + COUNTS_FOR, last + COUNTS_FOR);
        if now >= last && told.dry {
            if now < self.goes_on(last, told) {
                return Some(self.goes_on(last, told) - now);
            }
            // The acknowledgement of what it sends next measures. From now on each does so at another moment.
            (self.stops, self.turn) = (false, 0);
            self.measured = Some((now, now + told.round_trip));
            return None;
        }
        if self.stops {
            if now + BEFORE < first {
                return None;
            }
            let until = *self.stopped.get_or_insert(last + MEASURES_FOR);
            if now < until {
                return Some(until - now);
            }
        } else {
            // What is on its way takes a round trip to be acknowledged.
            if now + told.round_trip + SLACK * 5 / 4 < first {
                return None;
            }
            let goes_on = self.goes_on(last, told);
            if now < goes_on + told.round_trip.max(SLACK) {
                return Some(goes_on.saturating_duration_since(now));
            }
        }
        // Something is always on its way, or this came too late: it measures as it does.
        (self.measured, self.stops) = (None, false);
        None
    }

    /// When it is its turn to go on, of those that measured by the same moment.
    fn goes_on(&self, last: Instant, told: Told) -> Instant {
        last + self.turn.saturating_sub(1) * told.round_trip.min(Duration::from_millis(100))
    }
}

/// When a round trip was measured that is noticed now. What acknowledges comes with what wakes the tunnel, but for a sender
/// that was looked at seldom, for which it is not known.
fn noticed(before: Instant, now: Instant, round_trip: Duration) -> Option<(Instant, Instant)> {
    let seldom = now.saturating_duration_since(before) > 3 * round_trip + 3 * SLACK;
    let first = now.checked_sub(SLACK).map_or(before, |first| first.max(before));
    (!seldom).then_some((first, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(20);
    const ROUND_TRIP: Duration = Duration::from_millis(50);

    /// BBR's clock as the kernel keeps it, over a line without a queue.
    struct Bbr {
        began: Instant,
        now: Instant,
        measured: Instant,
        least: u32,
        /// When the last byte was sent.
        sent: Instant,
        /// Until when it measures.
        measures: Option<Instant>,
        /// It sent with nothing on its way, and hears of that then.
        restarted: Option<Instant>,
        stops: usize,
    }

    impl Bbr {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                began: now,
                now,
                measured: now,
                least: 50_000,
                sent: now,
                measures: None,
                restarted: None,
                stops: 0,
            }
        }

        /// 1 ms, in which the sender has bulk, or pauses.
        fn step(&mut self, pauses: bool) {
            self.now += Duration::from_millis(1);
            let dry = self.now >= self.sent + ROUND_TRIP;
            if !pauses {
                if dry {
                    self.restarted = Some(self.now + ROUND_TRIP);
                }
                self.sent = self.now;
            }
            if self.measures.is_some_and(|until| self.now >= until) {
                (self.measures, self.measured) = (None, self.now);
                self.least += 1;
            }
            let heard = !dry && self.restarted.is_none_or(|at| self.now >= at);
            if heard && self.now > self.measured + COUNTS_FOR && self.measures.is_none() {
                if self.restarted.is_some() {
                    self.measured = self.now;
                    self.least += 1;
                } else {
                    self.stops += 1;
                    self.measures = Some(self.now + Duration::from_millis(200));
                }
            }
            if heard {
                self.restarted = None;
            }
        }

        fn told(&self) -> Told {
            let dry = self.now >= self.sent + ROUND_TRIP;
            Told { least: self.least, round_trip: ROUND_TRIP, dry, measures: self.measures.is_some() }
        }
    }

    #[test]
    fn a_sender_that_runs_dry_in_time_is_not_stopped() {
        for turn in 0..TURNS {
            let (mut bbr, mut paused, mut all) = (Bbr::new(), false, 0_u32);
            let mut pauses = Pauses::in_turn(turn, bbr.now, bbr.least);
            for millis in 0..60_000_u32 {
                if millis == 500 {
                    bbr.least -= 1;
                    bbr.measured = bbr.now;
                }
                bbr.step(paused);
                all += u32::from(paused);
                if millis % 20 == 0 {
                    paused = pauses.look(bbr.now, bbr.told()).is_some();
                }
            }
            assert_eq!(bbr.stops, usize::from(turn == 0), "in turn {turn}");
            // Less than a hundredth and a half of the time, and less than half of what it would stop.
            assert!((1..900).contains(&all), "{all} ms of {:?} in turn {turn}", bbr.now - bbr.began);
        }
    }

    #[test]
    fn what_is_not_known_is_learned_from_the_first_stop() {
        for turn in 0..TURNS {
            let (mut bbr, mut paused) = (Bbr::new(), false);
            let mut pauses = Pauses { measured: None, ..Pauses::in_turn(turn, bbr.now, bbr.least) };
            for millis in 0..60_000_u32 {
                bbr.step(paused);
                if millis % 20 == 0 {
                    paused = pauses.look(bbr.now, bbr.told()).is_some();
                }
            }
            assert_eq!(bbr.stops, 1, "in turn {turn}");
        }
    }

    #[test]
    fn one_that_never_runs_dry_is_not_held_for_long() {
        for turn in 0..TURNS {
            let (start, mut paused) = (Instant::now(), Duration::ZERO);
            let mut pauses = Pauses::in_turn(turn, start, 50_000);
            for tick in 0..3_000 {
                let told = Told { least: 49_999, round_trip: ROUND_TRIP, dry: false, measures: false };
                if pauses.look(start + tick * TICK, told).is_some() {
                    paused += TICK;
                }
            }
            assert!(paused <= Duration::from_millis(400), "{paused:?} in turn {turn}");
        }
    }
}
