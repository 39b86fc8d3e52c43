//! What a tunnel can be expected to do: round trip and delivery rate, from the session's own
//! acknowledgements and, where there is one, from the kernel.

use std::time::{Duration, Instant};

use super::PathSample;

/// How long the minimum of the round trip and the maximum of the rate are remembered; twice this at the most.
const MEMORY: Duration = Duration::from_secs(5);

/// A delivery of fewer bytes says how much there was to send rather than how fast the tunnel is: it counts only
/// where it was faster than all that is known.
const LEAST_DELIVERY: u64 = 16 * 1024;

/// A rate that did not grow by so much in so many round trips has found its path's (the test of BBR's startup,
/// draft-ietf-ccwg-bbr §5.3.1.2).
const GROWTH: f64 = 1.25;
const ROUNDS: u32 = 3;

/// Round trip of one tunnel by our own acknowledgements: RFC 6298's smoothing, and a recent minimum.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
    /// The least of this period and of the one before; when this one began.
    recent: Option<(Duration, Duration, Instant)>,
}

impl RoundTrip {
    pub(super) fn sample(&mut self, now: Instant, sample: Duration) {
        self.smoothed = Some(self.smoothed.map_or(sample, |smoothed| (7 * smoothed + sample) / 8));
        self.recent = Some(match self.recent {
            None => (sample, sample, now),
            Some((this, _, start)) if now.saturating_duration_since(start) > MEMORY => (sample, this, now),
            Some((this, before, start)) => (this.min(sample), before, start),
        });
    }

    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    pub(super) fn minimum(&self) -> Option<Duration> {
        self.recent.map(|(this, before, _)| this.min(before))
    }
}

/// The largest delivery rate of the recent past (the windowed maximum of BBR's bandwidth filter,
/// draft-ietf-ccwg-bbr §5.5.6, with two windows instead of rounds).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    recent: Option<(u64, u64, Instant)>,
    /// The last that was larger than the one before by [`GROWTH`], and when.
    grew: Option<(u64, Instant)>,
    growing: bool,
}

impl Rate {
    /// `bytes` were delivered in `elapsed`, over a path of this round trip.
    pub(super) fn sample(&mut self, now: Instant, bytes: u64, elapsed: Duration, round_trip: Duration) {
        let nanos = elapsed.as_nanos().max(1_000);
        let rate = u64::try_from(u128::from(bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX >> 8);
        if bytes < LEAST_DELIVERY && self.get().is_none_or(|known| rate <= known) {
            return;
        }
        self.recent = Some(match self.recent {
            None => (rate, rate, now),
            Some((this, _, start)) if now.saturating_duration_since(start) > MEMORY => (rate, this, now),
            Some((this, before, start)) => (this.max(rate), before, start),
        });
        if self.grew.is_none_or(|(before, _)| rate as f64 >= before as f64 * GROWTH) {
            self.grew = Some((rate, now));
        }
        self.growing =
            self.grew.is_some_and(|(_, at)| now.saturating_duration_since(at) <= ROUNDS * round_trip);
    }

    /// It grew in the last few round trips: the sender is in slow start, or had been idle.
    pub(super) fn is_growing(&self) -> bool {
        self.growing
    }

    /// Bytes per second.
    pub(super) fn get(&self) -> Option<u64> {
        self.recent.map(|(this, before, _)| this.max(before))
    }
}

/// All that is known of a tunnel's path.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Estimate {
    pub(super) own: RoundTrip,
    pub(super) rate: Rate,
    pub(super) kernel: PathSample,
}

impl Estimate {
    /// The larger of the kernel's round trip, which sees the first hop only, and the recent minimum of our own.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.own.minimum().max(self.kernel.round_trip)
    }

    /// The smoothed round trip of our acknowledgements, queues included.
    pub(super) fn loaded_round_trip(&self) -> Option<Duration> {
        self.own.smoothed().max(self.kernel.round_trip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(50);

    #[test]
    fn minimum_and_maximum_are_forgotten_after_a_while() {
        let start = Instant::now();
        let (mut round_trip, mut rate) = (RoundTrip::default(), Rate::default());
        round_trip.sample(start, Duration::from_millis(10));
        rate.sample(start, 1_000_000, Duration::from_secs(1), ROUND_TRIP);
        for second in 1..=20 {
            let now = start + Duration::from_secs(second);
            round_trip.sample(now, Duration::from_millis(50));
            rate.sample(now, 100_000, Duration::from_secs(1), ROUND_TRIP);
            let old = second <= 5;
            assert_eq!(
                round_trip.minimum() == Some(Duration::from_millis(10)),
                old || second < 12,
                "{second}"
            );
            assert_eq!(rate.get() == Some(1_000_000), old || second < 12, "{second}");
        }
    }

    #[test]
    fn what_is_sent_now_and_then_says_nothing_of_the_rate() {
        let now = Instant::now();
        let mut rate = Rate::default();
        rate.sample(now, 100, Duration::from_millis(50), ROUND_TRIP);
        assert_eq!(rate.get(), None);
        rate.sample(now, 50_000, Duration::from_millis(50), ROUND_TRIP);
        rate.sample(now, 100, Duration::from_millis(50), ROUND_TRIP);
        assert_eq!(rate.get(), Some(1_000_000));
        rate.sample(now, 10_000, Duration::from_millis(5), ROUND_TRIP);
        assert_eq!(rate.get(), Some(2_000_000));
    }

    #[test]
    fn the_kernel_only_ever_raises_the_round_trip() {
        let mut estimate = Estimate::default();
        estimate.kernel.round_trip = Some(Duration::from_micros(50));
        estimate.own.sample(Instant::now(), Duration::from_millis(40));
        assert_eq!(estimate.round_trip(), Some(Duration::from_millis(40)));
    }

    #[test]
    fn a_rate_grows_until_it_has_not_for_three_round_trips() {
        let start = Instant::now();
        let mut rate = Rate::default();
        for round in 0..20 {
            let bytes = (100_000 << round).min(1_600_000);
            rate.sample(start + round * ROUND_TRIP, bytes, ROUND_TRIP, ROUND_TRIP);
            assert_eq!(rate.is_growing(), round <= 4 + 3, "in round {round}");
        }
    }
}
