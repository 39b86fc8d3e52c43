//! Which names a rule means ([`Suffix`]).
//!
//! Names are compared as a program gave them: a name that leads to the same place is another one, and an address is
//! none at all. So a rule that denies a name keeps out whoever uses the name, and nobody else.

use std::fmt;
use std::str::FromStr;

use crate::destination::MAX_NAME;

/// The longest part of a name, between two dots (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// A name and all below it: `example.com` means `example.com` and `www.example.com`, but not `myexample.com`. With a dot
/// in front, `.example.com`, only those below. Upper and lower case are alike, and a dot at the end is of no matter.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Suffix {
    /// In lower case, without dots at its ends.
    name: Box<str>,
    below_only: bool,
}

/// Words name nothing that a rule can mean.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SuffixError {
    /// No name at all.
    #[error("the name is empty: write one such as example.com, or * for everything")]
    Empty,
    /// Longer than a name can be.
    #[error("the name has {0} bytes, more than the {MAX_NAME} that a name can have")]
    Long(usize),
    /// A star within.
    #[error("\"{}\" holds a *, which stands alone for everything: example.com means itself and all below it, .example.com all below it", .0.escape_debug())]
    Star(Box<str>),
    /// A part that no name has.
    #[error("\"{}\" is no name: between two dots stand 1 to {MAX_LABEL} letters, digits, - or _", .0.escape_debug())]
    Label(Box<str>),
    /// A letter beyond ASCII.
    #[error("\"{}\" holds {:?}: write the name as the name system has it, with xn--", .0.escape_debug(), .1)]
    Unicode(Box<str>, char),
}

impl Suffix {
    /// Whether this name, as a program gave it, is meant.
    pub fn matches(&self, name: &str) -> bool {
        let (name, own) = (name.trim_end_matches('.').as_bytes(), self.name.as_bytes());
        let Some(at) = name.len().checked_sub(own.len()) else { return false };
        let (front, end) = name.split_at(at);
        end.eq_ignore_ascii_case(own)
            && match front {
                [] => !self.below_only,
                [.., last] => *last == b'.',
            }
    }

    /// Whether all that the other means is meant.
    pub fn covers(&self, other: &Self) -> bool {
        match self.name == other.name {
            true => !self.below_only || other.below_only,
            false => self.matches(&other.name),
        }
    }
}

impl FromStr for Suffix {
    type Err = SuffixError;

    fn from_str(words: &str) -> Result<Self, SuffixError> {
        let below = words.strip_prefix('.');
        let name = below.unwrap_or(words);
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            return Err(SuffixError::Empty);
        }
        if name.len() > MAX_NAME {
            return Err(SuffixError::Long(name.len()));
        }
        if name.contains('*') {
            return Err(SuffixError::Star(words.into()));
        }
        if let Some(c) = name.chars().find(|c| c.is_alphanumeric() && !c.is_ascii()) {
            return Err(SuffixError::Unicode(words.into(), c));
        }
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let wrong = |label: &str| label.is_empty() || label.len() > MAX_LABEL || !label.bytes().all(known);
        if name.split('.').any(wrong) {
            return Err(SuffixError::Label(words.into()));
        }
        Ok(Self { name: name.to_ascii_lowercase().into(), below_only: below.is_some() })
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below_only { "." } else { "" }, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suffix(words: &str) -> Suffix {
        words.parse().unwrap()
    }

    #[test]
    fn names_are_meant_by_their_ends_at_a_dot() {
        for (words, name, meant) in [
            ("example.com", "example.com", true),
            ("example.com", "EXAMPLE.Com", true),
            ("Example.COM.", "example.com", true),
            ("example.com", "example.com.", true),
            ("example.com", "www.example.com", true),
            ("example.com", "a.b.example.com.", true),
            ("example.com", "myexample.com", false),
            ("example.com", "example.com.evil", false),
            ("example.com", "example.co", false),
            ("example.com", "com", false),
            (".example.com", "example.com", false),
            (".example.com", "example.com.", false),
            (".example.com", "www.example.com", true),
            (".example.com", "myexample.com", false),
            ("com", "example.com", true),
            ("com", "telecom", false),
            ("localhost", "localhost", true),
            // Not ASCII: cut within a letter, and yet no panic.
            ("example.com", "ü.example.com", true),
            ("b", "\u{fc}b", false),
        ] {
            assert_eq!(suffix(words).matches(name), meant, "{words} and {name}");
        }
    }

    #[test]
    fn a_name_covers_what_is_below_it() {
        for (words, other, covered) in [
            ("example.com", "example.com", true),
            ("example.com", "EXAMPLE.com.", true),
            ("example.com", ".example.com", true),
            ("example.com", "www.example.com", true),
            ("example.com", ".www.example.com", true),
            (".example.com", "example.com", false),
            (".example.com", ".example.com", true),
            (".example.com", "www.example.com", true),
            ("www.example.com", "example.com", false),
            ("example.com", "myexample.com", false),
        ] {
            assert_eq!(suffix(words).covers(&suffix(other)), covered, "{words} and {other}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_mend() {
        let long = format!("{}.example", "n".repeat(64));
        for (words, part) in [
            ("", "empty"),
            (".", "empty"),
            ("..", "empty"),
            ("a..b", "is no name"),
            ("a b", "is no name"),
            ("a\u{1b}[31m", "is no name"),
            (&long, "is no name"),
            (&"a.".repeat(200), "bytes"),
            ("*.example.com", ".example.com all below it"),
            ("bücher.example", "xn--"),
        ] {
            let error = words.parse::<Suffix>().unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains(char::is_control), "{words:?}: {error}");
        }
        assert_eq!(suffix("A.Example.").to_string(), "a.example");
        assert_eq!(suffix(".A.example").to_string(), ".a.example");
    }
}
