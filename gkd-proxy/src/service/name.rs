//! How services are called ([`ServiceName`]).

use std::fmt;
use std::str::FromStr;

/// The most characters of a name: those of a label in the domain name system (RFC 1035, section 2.3.4).
pub const MAX_SERVICE_NAME: usize = 63;

/// How a service is called: a label as host names have it (RFC 1123, section 2.1), of small letters, digits and `-` within,
/// so that it can stand in front of a domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Box<str>);

/// Words do not name a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceNameError {
    /// Nothing.
    #[error("the service's name is empty: write one such as shop")]
    Empty,
    /// More than a label holds.
    #[error("the service's name has {0} characters, {MAX_SERVICE_NAME} are the most: shorten it")]
    Long(usize),
    /// A character that no label has.
    #[error("the service's name \"{}\" holds {:?}: write small letters, digits and '-'", .0.escape_debug(), .1)]
    Character(Box<str>, char),
    /// A `-` at an end.
    #[error("the service's name \"{0}\" begins or ends with '-': leave it out there")]
    Dash(Box<str>),
}

impl ServiceName {
    /// A name.
    ///
    /// # Errors
    /// It is no label of small letters.
    pub fn new(name: &str) -> Result<Self, ServiceNameError> {
        if name.is_empty() {
            return Err(ServiceNameError::Empty);
        }
        check_part(name)?;
        if name.starts_with('-') || name.ends_with('-') {
            return Err(ServiceNameError::Dash(name.into()));
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a name may hold this, wherever it stands in it.
fn check_part(part: &str) -> Result<(), ServiceNameError> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match part.chars().find(|c| !known(*c)) {
        Some(c) => Err(ServiceNameError::Character(part.into(), c)),
        // All of them are of one byte.
        None if part.len() > MAX_SERVICE_NAME => Err(ServiceNameError::Long(part.len())),
        None => Ok(()),
    }
}

impl FromStr for ServiceName {
    type Err = ServiceNameError;

    fn from_str(words: &str) -> Result<Self, ServiceNameError> {
        Self::new(words)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_label() {
        for name in ["shop", "a", "7", "anna-shop-2", &"x".repeat(63), "xn--bcher-kva"] {
            assert_eq!(name.parse::<ServiceName>().unwrap().to_string(), name);
        }
        for (name, part) in [
            ("", "is empty"),
            ("Shop", "holds 'S': write small letters"),
            ("a.b", "holds '.'"),
            ("a_b", "holds '_'"),
            ("a b", "holds ' '"),
            ("a*", "holds '*'"),
            ("bücher", "holds 'ü'"),
            ("a\u{1b}[31m", "a\\u{1b}[31m"),
            ("-a", "begins or ends with '-'"),
            ("a-", "begins or ends with '-'"),
            (&"x".repeat(64), "has 64 characters, 63 are the most"),
        ] {
            let error = name.parse::<ServiceName>().unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\u{1b}'), "{name:?}: {error}");
        }
    }
}
