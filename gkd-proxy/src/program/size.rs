//! An amount of memory as it is written in files: [`Size`].

use std::fmt;
use std::str::FromStr;

/// A whole number with its unit: `512MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// Why words are no size that may stand there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// No number with a unit.
    #[error("\"{}\" is no size: write a number with its unit, KiB, MiB, GiB or TiB, such as 512MiB", .0.escape_debug())]
    Words(String),
    /// Smaller or larger than makes sense there.
    #[error("{0} is out of bounds: write {1} to {2}")]
    Bounds(Size, Size, Size),
}

/// The units, the largest first, in bytes.
const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Size {
    /// So many MiB.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// So many KiB.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Reads one that is neither smaller than `least` nor larger than `most`.
    ///
    /// # Errors
    /// It is, or is none.
    pub fn read(words: &str, least: Self, most: Self) -> Result<Self, SizeError> {
        let size: Self = words.parse()?;
        if (least..=most).contains(&size) { Ok(size) } else { Err(SizeError::Bounds(size, least, most)) }
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(words: &str) -> Result<Self, SizeError> {
        let wrong = || SizeError::Words(words.to_owned());
        let digits = words.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = words.split_at(digits);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit.trim_start()).ok_or_else(wrong)?;
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(*unit).map(Self).ok_or_else(wrong)
    }
}

/// In the largest unit that it is a whole number of.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().find(|(_, unit)| self.0 > 0 && self.0.is_multiple_of(*unit));
        let (name, unit) = whole.unwrap_or(&UNITS[3]);
        write!(f, "{}{name}", self.0 / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_a_unit() {
        for (words, bytes, shown) in [
            ("1GiB", 1 << 30, "1GiB"),
            ("1024 MiB", 1 << 30, "1GiB"),
            ("1536MiB", 3 << 29, "1536MiB"),
            ("4KiB", 4096, "4KiB"),
        ] {
            let size: Size = words.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, shown));
        }
        for words in ["", "1", "GiB", "1GB", "1.5GiB", "-1GiB", "99999999999999TiB", "1gib", "1GiB "] {
            let error = words.parse::<Size>().unwrap_err();
            assert!(error.to_string().contains("such as 512MiB"), "{words}: {error}");
        }
    }

    #[test]
    fn bounds_are_told() {
        let (least, most) = (Size::from_mib(64), Size::from_mib(1024));
        assert_eq!(Size::read("64MiB", least, most), Ok(least));
        let error = Size::read("2GiB", least, most).unwrap_err();
        assert_eq!(error.to_string(), "2GiB is out of bounds: write 64MiB to 1GiB");
    }
}
