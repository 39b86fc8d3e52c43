//! Hosts of services ([`HostPattern`]), and how the host of a request is brought into the form that they are compared in.
//!
//! Names are ASCII: what has other letters is written in its `xn--` form (RFC 5891), as browsers send it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::destination::MAX_NAME;

/// The longest label of a name (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// `shop.example`, that host alone; `*.shop.example`, all below it, by one label or more; `*`, every host, and requests
/// that name none. In lower case and without a dot at the end, however it was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPattern(HostForm);

/// The forms of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(in crate::service) enum HostForm {
    /// One host.
    Exact(Box<str>),
    /// All below a name.
    Below(Box<str>),
    /// All.
    Any,
}

/// Why words are no host of a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Nothing.
    #[error(
        "the host is empty: write a name such as shop.example.org, *.example.org for all below it, or * for all"
    )]
    Empty,
    /// Letters beyond ASCII.
    #[error("\"{}\" has {:?}: write the name in its ASCII form, which begins with xn--", .0.escape_debug(), .1)]
    NotAscii(Box<str>, char),
    /// A whole URL.
    #[error("\"{}\" is more than a host: write \"{}\"", .0.escape_debug(), .1.escape_debug())]
    Url(Box<str>, Box<str>),
    /// A port behind it.
    #[error("\"{}\" has a port, and requests are told apart by host alone: write \"{}\"", .0.escape_debug(), .1.escape_debug())]
    Port(Box<str>, Box<str>),
    /// A star that stands for something else.
    #[error("\"{}\" has a * that is no whole label in front: write *.example.org for all below a name, or * for all", .0.escape_debug())]
    Star(Box<str>),
    /// All below an address.
    #[error("\"{}\" is below an address, where nothing is: write the address, or a name", .0.escape_debug())]
    BelowAddress(Box<str>),
    /// A label that is none.
    #[error("\"{}\" is no host: \"{}\" is no label, which has 1 to 63 letters, digits, '-' and '_', and no '-' at its ends", .0.escape_debug(), .1.escape_debug())]
    Label(Box<str>, Box<str>),
    /// An IPv6 address that is none, or has no brackets.
    #[error("\"{}\" is no host: an IPv6 address stands in brackets, [2001:db8::1]", .0.escape_debug())]
    Ipv6(Box<str>),
    /// Longer than a name can be.
    #[error("the host has {0} bytes, more than the {MAX_NAME} that a name can have: shorten it")]
    Long(usize),
}

impl HostPattern {
    pub(in crate::service) fn form(&self) -> &HostForm {
        &self.0
    }

    /// Whether it stands for one host.
    pub fn is_exact(&self) -> bool {
        matches!(self.0, HostForm::Exact(_))
    }

    /// Whether it stands for every host.
    pub fn is_any(&self) -> bool {
        self.0 == HostForm::Any
    }

    /// Whether it stands for all that `other` stands for, and for more.
    pub fn is_wider_than(&self, other: &Self) -> bool {
        let below = |name: &str, all: &str| name.strip_suffix(all).is_some_and(|rest| rest.ends_with('.'));
        match (&self.0, &other.0) {
            (HostForm::Any, other) => *other != HostForm::Any,
            (HostForm::Below(all), HostForm::Exact(name) | HostForm::Below(name)) => below(name, all),
            _ => false,
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(words: &str) -> Result<Self, HostError> {
        if words.is_empty() {
            return Err(HostError::Empty);
        }
        if words == "*" {
            return Ok(Self(HostForm::Any));
        }
        let Some(name) = words.strip_prefix("*.") else {
            return host_name(words).map(|name| Self(HostForm::Exact(name.into())));
        };
        if name.is_empty() {
            return Err(HostError::Star(words.into()));
        }
        // Its own words are told, not those without the star.
        let name = host_name(name).map_err(|error| match error {
            HostError::Port(_, host) => HostError::Port(words.into(), format!("*.{host}").into()),
            HostError::Url(_, host) => HostError::Url(words.into(), format!("*.{host}").into()),
            HostError::Star(_) => HostError::Star(words.into()),
            HostError::Label(_, label) => HostError::Label(words.into(), label),
            other => other,
        })?;
        if name.starts_with('[') || name.parse::<Ipv4Addr>().is_ok() {
            return Err(HostError::BelowAddress(words.into()));
        }
        Ok(Self(HostForm::Below(name.into())))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            HostForm::Exact(name) => f.write_str(name),
            HostForm::Below(name) => write!(f, "*.{name}"),
            HostForm::Any => f.write_str("*"),
        }
    }
}

/// A name or an address as hosts of requests are compared with it: in lower case, without a dot at the end, an IPv6
/// address in brackets and in its shortest form.
///
/// # Errors
/// It is none.
pub fn host_name(words: &str) -> Result<String, HostError> {
    if words.is_empty() {
        return Err(HostError::Empty);
    }
    if let Some(c) = words.chars().find(|c| !c.is_ascii()) {
        return Err(HostError::NotAscii(words.into(), c));
    }
    if words.contains('/') {
        let behind = words.split_once("://").map_or(words, |(_, rest)| rest);
        return Err(HostError::Url(words.into(), behind.split('/').next().unwrap_or_default().into()));
    }
    if words.contains('*') {
        return Err(HostError::Star(words.into()));
    }
    if words.starts_with('[') {
        return ipv6(words);
    }
    match words.split_once(':') {
        Some((_, port)) if port.contains(':') => return Err(HostError::Ipv6(words.into())),
        Some((host, _)) => return Err(HostError::Port(words.into(), host.into())),
        None => {}
    }
    let name = words.strip_suffix('.').unwrap_or(words);
    if name.len() > MAX_NAME {
        return Err(HostError::Long(name.len()));
    }
    match name.split('.').find(|label| !is_label(label)) {
        Some(label) => Err(HostError::Label(words.into(), label.into())),
        None => Ok(name.to_ascii_lowercase()),
    }
}

fn ipv6(words: &str) -> Result<String, HostError> {
    let wrong = || HostError::Ipv6(words.into());
    let (address, behind) = words[1..].split_once(']').ok_or_else(wrong)?;
    let address: Ipv6Addr = address.parse().map_err(|_| wrong())?;
    match behind {
        "" => Ok(format!("[{address}]")),
        _ if behind.starts_with(':') => Err(HostError::Port(words.into(), format!("[{address}]").into())),
        _ => Err(wrong()),
    }
}

pub(super) fn is_label(label: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let ends = label.starts_with('-') || label.ends_with('-');
    (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(known) && !ends
}

/// Hands on the host of a request as patterns have it: without its port and the dot at its end, and in lower case. What can
/// be no host is the empty one, as where a request names none. Allocates for IPv6 addresses alone.
pub(in crate::service) fn with_canonical<R>(host: &str, then: impl FnOnce(&str) -> R) -> R {
    if let Some(bracketed) = host.strip_prefix('[') {
        let address = bracketed.split_once(']').and_then(|(address, _)| address.parse::<Ipv6Addr>().ok());
        return then(&address.map(|address| format!("[{address}]")).unwrap_or_default());
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > MAX_NAME || !name.is_ascii() || name.starts_with('.') || name.contains("..") {
        return then("");
    }
    if !name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return then(name);
    }
    let mut lower = [0; MAX_NAME];
    let lower = &mut lower[..name.len()];
    lower.copy_from_slice(name.as_bytes());
    lower.make_ascii_lowercase();
    // It is ASCII, so this cannot fail.
    then(std::str::from_utf8(lower).unwrap_or_default())
}
