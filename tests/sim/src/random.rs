//! The one source of what is random: a seed.

use std::time::Duration;

/// splitmix64 (Steele et al., 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The same seed draws the same.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From zero to `bound`, which is excluded; zero if that is zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }

    /// From `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// From `least` to `most`, each power of two between them as likely as another.
    pub fn scale(&mut self, least: u64, most: u64) -> u64 {
        let powers = u64::from((most / least.max(1)).max(1).ilog2());
        let low = least.max(1) << self.between(0, powers);
        self.between(low, 2 * low - 1).min(most)
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these, of which there is at least one.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// From `least` to `most` milliseconds, on a scale.
    pub fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_micros(self.scale(1000 * least.max(1), 1000 * most))
    }

    /// Another source, which draws something else.
    pub fn split(&mut self) -> Self {
        Self(self.draw())
    }
}

/// The finaliser of splitmix64.
pub fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
