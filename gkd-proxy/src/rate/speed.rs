//! Bytes a second as they are written in files: [`Speed`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A whole number with its unit, thousands, millions or thousands of millions of bytes a second: `500K`, `10M`, `1G`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Speed(u64);

/// Why words are no speed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpeedError {
    /// No number with a unit.
    #[error("\"{}\" is no speed: write bytes a second, a number with its unit, K, M or G, such as 10M", .0.escape_debug())]
    Words(Box<str>),
    /// Slower or faster than makes sense.
    #[error("{0} is out of bounds: write {LEAST} to {MOST}")]
    Bounds(Speed),
}

/// Less would have a single turn take many seconds.
const LEAST: Speed = Speed(8_000);

/// No machine moves as much.
const MOST: Speed = Speed(100_000_000_000);

/// The units, the largest first.
const UNITS: [(char, u64); 3] = [('G', 1_000_000_000), ('M', 1_000_000), ('K', 1_000)];

/// The least that one turn moves, and the most: what a relay moves at a time, and what keeps the turns of a fast user few.
const TURN: std::ops::RangeInclusive<u64> = 16 * 1024..=256 * 1024;

/// How many turns a second, where neither of these bounds it.
const TURNS: u64 = 32;

/// The least that may move at once after a pause: requests and their answers are not held up by it.
const LEAST_BURST: u64 = 64 * 1024;

/// What part of a second's bytes may move at once after a pause.
const BURSTS: u64 = 8;

impl Speed {
    /// What one connection may move before it is the next one's turn, in bytes.
    pub(super) fn turn(self) -> usize {
        (self.0 / TURNS).clamp(*TURN.start(), *TURN.end()) as usize
    }

    /// How long a pause may count.
    pub(super) fn burst(self) -> Duration {
        self.time_of((self.0 / BURSTS).max(LEAST_BURST) as usize)
    }

    /// How long so many bytes take, to the next nanosecond.
    pub(super) fn time_of(self, bytes: usize) -> Duration {
        let nanos = (bytes as u128 * 1_000_000_000).div_ceil(u128::from(self.0.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How long here what took so long at another speed.
    pub(super) fn scaled(self, time: Duration, before: Self) -> Duration {
        let nanos = time.as_nanos().saturating_mul(u128::from(before.0)) / u128::from(self.0.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl FromStr for Speed {
    type Err = SpeedError;

    fn from_str(words: &str) -> Result<Self, SpeedError> {
        let wrong = || SpeedError::Words(words.into());
        let unit = UNITS.iter().find(|(name, _)| words.ends_with(*name));
        let (name, unit) = unit.ok_or_else(wrong)?;
        let digits = words.strip_suffix(*name).unwrap_or_default().trim_end();
        // `parse` would take a sign as well.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let speed = Self(number.saturating_mul(*unit));
        if (LEAST..=MOST).contains(&speed) { Ok(speed) } else { Err(SpeedError::Bounds(speed)) }
    }
}

/// In the largest unit that it is a whole number of.
impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit));
        match whole {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_number_with_a_unit() {
        for (words, bytes, shown) in [
            ("8K", 8_000, "8K"),
            ("10M", 10_000_000, "10M"),
            ("1500 K", 1_500_000, "1500K"),
            ("1000M", 1_000_000_000, "1G"),
        ] {
            let speed: Speed = words.parse().unwrap();
            assert_eq!((speed.0, speed.to_string().as_str()), (bytes, shown));
        }
        for words in ["", "1", "M", "1.5M", "-1M", "+1M", "10m", "10MB", "10MiB", "ten M"] {
            let error = words.parse::<Speed>().unwrap_err();
            assert!(matches!(error, SpeedError::Words(_)), "{words}: {error}");
        }
        for words in ["7K", "0M", "101G", "99999999999999999G"] {
            let error = words.parse::<Speed>().unwrap_err().to_string();
            assert!(error.ends_with("out of bounds: write 8K to 100G"), "{words}: {error}");
        }
    }

    #[test]
    fn what_follows_from_it_is_within_bounds() {
        for (words, turn, burst) in
            [("8K", 16 * 1024, 64 * 1024), ("1M", 31_250, 125_000), ("1G", 256 * 1024, 125_000_000)]
        {
            let speed: Speed = words.parse().unwrap();
            assert_eq!(speed.turn(), turn, "{words}");
            assert_eq!(speed.burst(), speed.time_of(burst), "{words}");
        }
        let (slow, fast): (Speed, Speed) = ("8K".parse().unwrap(), "80K".parse().unwrap());
        assert_eq!(slow.time_of(8000), Duration::from_secs(1));
        assert_eq!(slow.time_of(1), Duration::from_micros(125));
        assert_eq!(fast.scaled(Duration::from_secs(10), slow), Duration::from_secs(1));
        assert_eq!(slow.scaled(Duration::from_secs(1), fast), Duration::from_secs(10));
    }
}
