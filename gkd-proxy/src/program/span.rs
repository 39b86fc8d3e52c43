//! A span of time as it is written in files: [`Span`].

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A whole number with its unit: `250ms`, `10s`, `5m`, `1h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(Duration);

/// Why words are no span that may stand there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// No number with a unit.
    #[error("\"{}\" is no time: write a number with its unit, ms, s, m or h, such as 10s", .0.escape_debug())]
    Words(String),
    /// Shorter or longer than makes sense there.
    #[error("{0} is out of bounds: write {1} to {2}")]
    Bounds(Span, Span, Span),
}

/// The units, the largest first, in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

impl Span {
    /// So many seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The span.
    pub fn get(self) -> Duration {
        self.0
    }

    /// Reads one that is neither shorter than `least` nor longer than `most`.
    ///
    /// # Errors
    /// It is, or is none.
    pub fn read(words: &str, least: Self, most: Self) -> Result<Duration, SpanError> {
        let span: Self = words.parse()?;
        if (least..=most).contains(&span) { Ok(span.0) } else { Err(SpanError::Bounds(span, least, most)) }
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(words: &str) -> Result<Self, SpanError> {
        let wrong = || SpanError::Words(words.to_owned());
        let digits = words.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = words.split_at(digits);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(*unit).map(|millis| Self(Duration::from_millis(millis))).ok_or_else(wrong)
    }
}

/// In the largest unit that it is a whole number of.
impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let whole = UNITS.iter().find(|(_, unit)| millis > 0 && millis.is_multiple_of(u128::from(*unit)));
        let (name, unit) = whole.unwrap_or(&UNITS[3]);
        write!(f, "{}{name}", millis / u128::from(*unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_survives_the_round_trip() {
        for (words, millis) in
            [("250ms", 250), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("0ms", 0)]
        {
            let span: Span = words.parse().unwrap();
            assert_eq!((span.get(), span.to_string().as_str()), (Duration::from_millis(millis), words));
        }
        assert_eq!("60s".parse::<Span>().unwrap().to_string(), "1m");
    }

    #[test]
    fn what_is_no_span_is_refused_with_the_mend() {
        for words in [
            "",
            "10",
            "s",
            "10 s",
            "-1s",
            "+1s",
            "1.5s",
            "1d",
            "99999999999999999999s",
            "9999999999999999h",
            "1s\u{1b}",
        ] {
            let error = words.parse::<Span>().unwrap_err().to_string();
            assert!(error.contains("such as 10s") && !error.contains(char::is_control), "{error:?}");
        }
        let bounds = |words| Span::read(words, Span::from_secs(1), Span::from_secs(60));
        assert_eq!(bounds("1m"), Ok(Duration::from_secs(60)));
        for words in ["61s", "999ms"] {
            let error = bounds(words).unwrap_err().to_string();
            assert_eq!(error, format!("{words} is out of bounds: write 1s to 1m"));
        }
    }
}
