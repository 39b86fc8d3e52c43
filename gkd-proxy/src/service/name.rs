//! How services are called ([`ServiceName`]), and which of them a user may announce ([`ServicePatterns`]).

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
    /// A pattern with a `*` where none may be.
    #[error(
        "\"{}\" holds a * that stands neither at its beginning nor at its end: write a name, or one such as anna-* or *-test",
        .0.escape_debug()
    )]
    Star(Box<str>),
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

/// Names of services: one, or all that begin or end alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServicePattern {
    /// `shop`.
    Exact(ServiceName),
    /// `anna-*`: all that begin so and go on.
    Begins(Box<str>),
    /// `*-test`: all that end so and have something in front.
    Ends(Box<str>),
    /// `*`.
    All,
}

impl ServicePattern {
    /// Whether the name is one of these.
    pub fn matches(&self, name: &ServiceName) -> bool {
        let name = name.as_str();
        match self {
            Self::Exact(one) => one.as_str() == name,
            Self::Begins(part) => name.len() > part.len() && name.starts_with(&**part),
            Self::Ends(part) => name.len() > part.len() && name.ends_with(&**part),
            Self::All => true,
        }
    }

    /// The one name that it stands for, where it is one.
    pub fn exact(&self) -> Option<&ServiceName> {
        match self {
            Self::Exact(name) => Some(name),
            _ => None,
        }
    }
}

impl FromStr for ServicePattern {
    type Err = ServiceNameError;

    fn from_str(words: &str) -> Result<Self, ServiceNameError> {
        let part = |part: &str| {
            if part.contains('*') {
                return Err(ServiceNameError::Star(words.into()));
            }
            check_part(part).map(|()| part.into())
        };
        match (words.strip_prefix('*'), words.strip_suffix('*')) {
            (Some(""), _) => Ok(Self::All),
            (Some(end), None) => part(end).map(Self::Ends),
            (None, Some(begin)) => part(begin).map(Self::Begins),
            (Some(_), Some(_)) => Err(ServiceNameError::Star(words.into())),
            (None, None) if words.contains('*') => Err(ServiceNameError::Star(words.into())),
            (None, None) => ServiceName::new(words).map(Self::Exact),
        }
    }
}

impl fmt::Display for ServicePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Begins(part) => write!(f, "{part}*"),
            Self::Ends(part) => write!(f, "*{part}"),
            Self::All => f.write_str("*"),
        }
    }
}

/// The services that a user may announce; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePatterns(Box<[ServicePattern]>);

impl ServicePatterns {
    /// These and no others.
    pub fn new(patterns: impl IntoIterator<Item = ServicePattern>) -> Self {
        Self(patterns.into_iter().collect())
    }

    /// Whether a service of this name may be announced.
    pub fn permit(&self, name: &ServiceName) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &ServicePattern> {
        self.0.iter()
    }
}

impl fmt::Display for ServicePatterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (index, pattern) in self.0.iter().enumerate() {
            write!(f, "{}{pattern}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
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

    #[test]
    fn a_pattern_is_a_name_or_what_names_begin_or_end_with() {
        for (pattern, names, others) in [
            ("shop", &["shop"][..], &["shop2", "sho", "a-shop"][..]),
            ("anna-*", &["anna-1", "anna-a-b"], &["anna", "banna-1", "ann-1"]),
            ("*-test", &["a-test", "a-b-test"], &["test", "a-test2"]),
            ("*", &["a", "anna-1"], &[]),
        ] {
            let read: ServicePattern = pattern.parse().unwrap();
            assert_eq!(read.to_string(), pattern);
            let all = names.iter().map(|name| (name, true)).chain(others.iter().map(|name| (name, false)));
            for (name, matches) in all {
                assert_eq!(read.matches(&name.parse().unwrap()), matches, "{pattern} and {name}");
            }
        }
        for (pattern, part) in [
            ("", "is empty"),
            ("a*b", "neither at its beginning nor at its end"),
            ("*a*", "neither at its beginning nor at its end"),
            ("**", "neither at its beginning nor at its end"),
            ("A*", "holds 'A'"),
            ("-a", "begins or ends with '-'"),
            (&format!("{}*", "x".repeat(64)), "63 are the most"),
        ] {
            let error = pattern.parse::<ServicePattern>().unwrap_err().to_string();
            assert!(error.contains(part), "{pattern}: {error}");
        }
        let some = ServicePatterns::new(["shop".parse().unwrap(), "anna-*".parse().unwrap()]);
        assert_eq!(some.to_string(), "shop, anna-*");
        assert!(some.permit(&"anna-1".parse().unwrap()) && !some.permit(&"ben".parse().unwrap()));
        assert_eq!(ServicePatterns::default().to_string(), "nothing");
        assert!(!ServicePatterns::default().permit(&"shop".parse().unwrap()));
    }
}
