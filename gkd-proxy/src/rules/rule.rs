//! One rule of a user ([`Rule`]): what it means, and whether that is allowed or denied.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnet::IpNet;

use super::ports::Ports;
use super::special::{embedded, embedded_range, is_of_wrappers};
use super::suffix::{Suffix, SuffixError};
use super::{RangeError, parse_range};

/// Allows or denies what it means: a subject, at some ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What it says.
    pub verdict: Verdict,
    /// Of what.
    pub subject: Subject,
    /// At which ports.
    pub ports: Ports,
}

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It may be reached: with a range, whatever the default says; otherwise as far as the default permits it.
    Allow,
    /// It may not be reached.
    Deny,
}

/// What a rule speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Everything.
    All,
    /// Addresses, whatever name leads to them.
    Range(IpNet),
    /// Names as programs give them, whatever address they lead to.
    Name(Suffix),
}

/// Words are none of the things that a rule can speak of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubjectError {
    /// They look like addresses.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// They look like a name.
    #[error(transparent)]
    Name(#[from] SuffixError),
}

/// What is asked: may this address be reached, to which that name led?
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) name: Option<&'a str>,
    /// The address, a mapped one as that of IPv4.
    pub(super) outer: IpAddr,
    /// The one of IPv4 that it only wraps.
    pub(super) inner: Option<IpAddr>,
    pub(super) port: u16,
}

impl<'a> Asked<'a> {
    pub(super) fn new(name: Option<&'a str>, addr: SocketAddr) -> Self {
        let outer = addr.ip().to_canonical();
        Self { name, outer, inner: embedded(outer), port: addr.port() }
    }

    /// Whether the address, or the one that it wraps, is in a range.
    fn is_in(&self, net: &IpNet) -> bool {
        net.contains(&self.outer) || self.inner.is_some_and(|ip| net.contains(&ip))
    }

    /// Whether a range that is allowed names the address, so that all that the default has against it is lifted. Whoever
    /// allows a wide range of IPv6 does not mean the addresses of IPv4 that some in it wrap.
    pub(super) fn is_named_by(&self, net: &IpNet) -> bool {
        match self.inner {
            Some(inner) => net.contains(&inner) || is_of_wrappers(net) && net.contains(&self.outer),
            None => net.contains(&self.outer),
        }
    }
}

impl Rule {
    pub(super) fn matches(&self, asked: &Asked<'_>) -> bool {
        self.ports.contains(asked.port)
            && match &self.subject {
                Subject::All => true,
                Subject::Range(net) => asked.is_in(net),
                Subject::Name(suffix) => asked.name.is_some_and(|name| suffix.matches(name)),
            }
    }

    /// Whether it, matching, lifts what the default has against an address.
    pub(super) fn lifts(&self, asked: &Asked<'_>) -> bool {
        matches!(&self.subject, Subject::Range(net) if asked.is_named_by(net))
    }

    /// Whether it matches wherever the other does, so that the other can never match behind it.
    pub fn covers(&self, other: &Self) -> bool {
        self.ports.covers(&other.ports)
            && match (&self.subject, &other.subject) {
                (Subject::All, _) => true,
                (Subject::Range(net), Subject::Range(other)) => {
                    net.contains(other) || embedded_range(other).is_some_and(|inner| net.contains(&inner))
                }
                (Subject::Name(suffix), Subject::Name(other)) => suffix.covers(other),
                _ => false,
            }
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(words: &str) -> Result<Self, SubjectError> {
        // The last part of a name is never a number, so 10.0.0.256 is an address gone wrong.
        let last = words.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        let numeric = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
        match words {
            "*" => Ok(Self::All),
            _ if numeric || words.contains(['/', ':']) => Ok(Self::Range(parse_range(words)?)),
            _ => Ok(Self::Name(words.parse()?)),
        }
    }
}

/// As it stands in a file.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ {} = \"{}\"", self.verdict, self.subject)?;
        match self.ports.are_all() {
            true => f.write_str(" }"),
            false => write!(f, ", ports = \"{}\" }}", self.ports),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Range(net) => net.fmt(f),
            Self::Name(suffix) => suffix.fmt(f),
        }
    }
}
