//! What services are called, and which of these names a user may announce ([`ServiceNames`]).

use std::fmt;
use std::str::FromStr;

/// The longest name of a service, in bytes: it may become a label of a host's name.
pub const MAX_SERVICE_NAME: usize = 63;

/// Names of services that a user may announce; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceNames(Box<[NamePattern]>);

/// `shop`, a name; `anna-*`, names that begin so; `*`, all. One star at the most, at any place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamePattern {
    /// In front of the star; the whole name where there is none.
    front: Box<str>,
    behind: Option<Box<str>>,
}

/// Why words are no name of a service, or no pattern of such.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing.
    #[error("the service's name is empty: write one such as shop")]
    Empty,
    /// Longer than a label.
    #[error("the service's name has {0} bytes, {MAX_SERVICE_NAME} are the most: shorten it")]
    Long(usize),
    /// Capitals.
    #[error("the service's name \"{}\" has capitals: write \"{}\"", .0.escape_debug(), .0.to_ascii_lowercase().escape_debug())]
    Capitals(Box<str>),
    /// A character that no label has.
    #[error("the service's name \"{}\" has a wrong character, {:?}: small letters, digits and '-' stand in one", .0.escape_debug(), .1)]
    Character(Box<str>, char),
    /// It begins or ends so.
    #[error("the service's name \"{}\" begins or ends with '-': leave it out", .0.escape_debug())]
    Dash(Box<str>),
    /// A star in a name that is to be one.
    #[error("the service's name \"{}\" has a *: a service has one name; *s stand in what users may announce", .0.escape_debug())]
    Star(Box<str>),
    /// Two stars.
    #[error("\"{}\" has more than one *: one may stand for any part of the names", .0.escape_debug())]
    Stars(Box<str>),
}

/// A service's name: 1 to [`MAX_SERVICE_NAME`] small letters, digits and `-`, which stands at no end.
///
/// # Errors
/// It is none.
pub fn parse_name(words: &str) -> Result<String, NameError> {
    if words.is_empty() {
        return Err(NameError::Empty);
    }
    if words.contains('*') {
        return Err(NameError::Star(words.into()));
    }
    characters(words, words)?;
    if words.starts_with('-') || words.ends_with('-') {
        return Err(NameError::Dash(words.into()));
    }
    Ok(words.to_owned())
}

/// Whether a part of `words` may be one of a name.
fn characters(part: &str, words: &str) -> Result<(), NameError> {
    if part.len() > MAX_SERVICE_NAME {
        return Err(NameError::Long(part.len()));
    }
    match part.chars().find(|c| !(c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '-')) {
        Some(c) if c.is_ascii_uppercase() => Err(NameError::Capitals(words.into())),
        Some(c) => Err(NameError::Character(words.into(), c)),
        None => Ok(()),
    }
}

impl ServiceNames {
    /// Those of all patterns.
    pub fn new(patterns: impl IntoIterator<Item = NamePattern>) -> Self {
        Self(patterns.into_iter().collect())
    }

    /// These and one more.
    #[must_use]
    pub fn with(&self, pattern: NamePattern) -> Self {
        Self(self.0.iter().cloned().chain([pattern]).collect())
    }

    /// Whether a service of this name may be announced. What is no name never may, whatever a star would cover.
    pub fn permit(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.means(name)) && parse_name(name).is_ok()
    }

    /// Whether this very name is among them, not only covered by a star.
    pub fn names(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.name() == Some(name))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl NamePattern {
    /// The name, where it stands for one alone.
    pub fn name(&self) -> Option<&str> {
        self.behind.is_none().then_some(&*self.front)
    }

    fn means(&self, name: &str) -> bool {
        match &self.behind {
            None => name == &*self.front,
            // The star stands for something, so `anna-*` is not `anna-`, which is no name.
            Some(behind) => {
                name.len() > self.front.len() + behind.len()
                    && name.starts_with(&*self.front)
                    && name.ends_with(&**behind)
            }
        }
    }
}

impl FromStr for NamePattern {
    type Err = NameError;

    fn from_str(words: &str) -> Result<Self, NameError> {
        let Some((front, behind)) = words.split_once('*') else {
            return parse_name(words).map(|name| Self { front: name.into(), behind: None });
        };
        if behind.contains('*') {
            return Err(NameError::Stars(words.into()));
        }
        characters(front, words)?;
        characters(behind, words)?;
        if front.starts_with('-') || behind.ends_with('-') {
            return Err(NameError::Dash(words.into()));
        }
        Ok(Self { front: front.into(), behind: Some(behind.into()) })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.behind {
            None => f.write_str(&self.front),
            Some(behind) => write!(f, "{}*{behind}", self.front),
        }
    }
}

impl fmt::Display for ServiceNames {
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
