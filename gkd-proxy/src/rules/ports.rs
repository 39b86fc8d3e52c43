//! A set of ports as people write it ([`Ports`]): `22,80-89`.

use std::fmt;
use std::str::FromStr;

/// Ports, at least one; never port 0, on which nothing can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ports(
    /// First and last of each range: in order, none touching the next.
    Box<[(u16, u16)]>,
);

/// Words are no ports.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortsError {
    /// Neither a port nor a range of them.
    #[error("\"{}\" is no port and no range of ports: write ports from 1 to 65535, such as 22,80-89", .0.escape_debug())]
    Words(Box<str>),
    /// Port 0.
    #[error("port 0 is none that can be reached: write ports from 1 to 65535")]
    Zero,
    /// A range that ends before it begins.
    #[error("the range of ports {0}-{1} ends before it begins: write {1}-{0}")]
    Reversed(u16, u16),
}

impl Ports {
    /// Those from `first` to `last`, which is no smaller.
    pub(super) fn range(first: u16, last: u16) -> Self {
        Self([(first, last)].into())
    }

    /// Whether a port is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.holds(port, port)
    }

    /// Whether all of the others are among them.
    pub fn covers(&self, others: &Self) -> bool {
        others.0.iter().all(|(first, last)| self.holds(*first, *last))
    }

    /// Whether these are all ports that there are.
    pub fn are_all(&self) -> bool {
        *self == Self::default()
    }

    fn holds(&self, first: u16, last: u16) -> bool {
        let at = self.0.partition_point(|(_, end)| *end < first);
        self.0.get(at).is_some_and(|(begin, end)| *begin <= first && last <= *end)
    }
}

/// All of them.
impl Default for Ports {
    fn default() -> Self {
        Self::range(1, u16::MAX)
    }
}

impl FromStr for Ports {
    type Err = PortsError;

    fn from_str(words: &str) -> Result<Self, PortsError> {
        let mut ranges = words.split(',').map(|word| range(word.trim())).collect::<Result<Vec<_>, _>>()?;
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Ok(Self(merged.into()))
    }
}

fn range(word: &str) -> Result<(u16, u16), PortsError> {
    let wrong = || PortsError::Words(word.into());
    let port = |digits: &str| {
        // `parse` would take a sign as well.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        match digits.parse().map_err(|_| wrong())? {
            0 => Err(PortsError::Zero),
            port => Ok(port),
        }
    };
    let (first, last) = match word.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(word)?, port(word)?),
    };
    if first > last { Err(PortsError::Reversed(first, last)) } else { Ok((first, last)) }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if index > 0 { "," } else { "" })?;
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(words: &str) -> Ports {
        words.parse().unwrap()
    }

    #[test]
    fn what_people_write_is_read_and_put_in_order() {
        for (words, shown) in [
            ("22", "22"),
            ("80-89, 22", "22,80-89"),
            ("1-65535", "1-65535"),
            ("5,3,4", "3-5"),
            ("10-20,15-30,31", "10-31"),
            ("65535,65534", "65534-65535"),
        ] {
            assert_eq!(ports(words).to_string(), shown, "{words}");
        }
        assert!(ports("1-9,10-65535").are_all() && !ports("2-65535").are_all());
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for (words, error) in [
            ("", PortsError::Words("".into())),
            ("22,", PortsError::Words("".into())),
            ("http", PortsError::Words("http".into())),
            ("+22", PortsError::Words("+22".into())),
            ("65536", PortsError::Words("65536".into())),
            ("1-", PortsError::Words("1-".into())),
            ("1-2-3", PortsError::Words("1-2-3".into())),
            ("0", PortsError::Zero),
            ("0-5", PortsError::Zero),
            ("9-8", PortsError::Reversed(9, 8)),
        ] {
            assert_eq!(words.parse::<Ports>(), Err(error), "{words}");
        }
    }

    #[test]
    fn ports_are_found_and_covered() {
        let some = ports("22,80-89,65535");
        for (port, there) in [(22, true), (23, false), (79, false), (80, true), (89, true), (65535, true)] {
            assert_eq!(some.contains(port), there, "{port}");
        }
        assert!(!Ports::default().contains(0));
        for (others, covered) in [("22", true), ("80-89,22", true), ("22-80", false), ("88-90", false)] {
            assert_eq!(some.covers(&ports(others)), covered, "{others}");
        }
        assert!(Ports::default().covers(&some) && !some.covers(&Ports::default()));
    }
}
