//! How long to wait before the next dial: at once, then from 0.25 s doubling to 30 s, each with jitter.
//! Knows nothing of what is dialled.

use std::time::Duration;

/// The first wait that is one.
const FIRST: Duration = Duration::from_millis(250);

/// The longest wait, and the wait between two dials of a server that refuses this client's key.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);

/// The waits of one thing that is tried again and again.
#[derive(Debug)]
pub(crate) struct Backoff {
    tries: u32,
    random: u64,
}

impl Backoff {
    /// `seed` makes the jitter; two with different seeds do not stay in step.
    pub(crate) fn new(seed: u64) -> Self {
        Self { tries: 0, random: seed }
    }

    /// It worked: the next wait is none again.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next wait: zero, then 0.25 s, 0.5 s and so on, each less up to a half by chance.
    pub(crate) fn next(&mut self) -> Duration {
        let tries = self.tries;
        self.tries = tries.saturating_add(1);
        match tries.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => {
                let whole = FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST);
                whole.mul_f64(0.5 + 0.5 * self.chance())
            }
        }
    }

    /// The next wait that is one: whoever said no says it again when asked at once.
    pub(crate) fn next_but_none(&mut self) -> Duration {
        self.tries = self.tries.max(1);
        self.next()
    }

    /// Goes on with the longest wait: nothing that happens soon will help.
    pub(crate) fn slow_down(&mut self) -> Duration {
        self.tries = 16;
        self.next()
    }

    /// From 0 to 1 (SplitMix64, Steele and others 2014).
    fn chance(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_none_to_the_longest_and_start_anew() {
        let mut backoff = Backoff::new(7);
        assert_eq!(backoff.next(), Duration::ZERO);
        let mut whole = FIRST;
        for _ in 0..40 {
            let wait = backoff.next();
            assert!(wait >= whole / 2 && wait <= whole, "{wait:?} is not between the half and {whole:?}");
            whole = (whole * 2).min(LONGEST);
        }
        backoff.reset();
        assert_eq!(backoff.next(), Duration::ZERO);
        assert!(backoff.slow_down() >= LONGEST / 2);
        backoff.reset();
        assert!(backoff.next_but_none() >= FIRST / 2);
    }

    #[test]
    fn two_seeds_do_not_stay_in_step() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..8).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        assert_ne!(waits(1), waits(2));
        assert_eq!(waits(3), waits(3));
    }
}
