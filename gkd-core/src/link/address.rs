//! `HOST:PORT[-PORT]`: where a server is.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::error::shown;

/// Where a server is: a host and one or more ports, all of them the same server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The host.
    pub host: Host,
    /// Its ports; tunnels are spread over them.
    pub ports: PortRange,
}

/// A host, as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address; of IPv6 in brackets when written.
    Ip(IpAddr),
    /// A name, to be resolved at every dial.
    Name(String),
}

/// Consecutive ports, one at least, none of them 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// From `first` to `last`; `None` for port 0 and for a range that is reversed.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(Self { first, last })
    }

    /// The lowest port.
    pub fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub fn last(self) -> u16 {
        self.last
    }

    /// How many ports, at least 1.
    pub fn count(self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// All of them, rising.
    pub fn iter(self) -> impl ExactSizeIterator<Item = u16> {
        (usize::from(self.first)..usize::from(self.last) + 1).map(|port| port as u16)
    }

    /// The `index`-th port, begun anew behind the last: for spreading tunnels.
    pub fn cycle(self, index: usize) -> u16 {
        self.first + (index % self.count()) as u16
    }
}

/// Whom a web server is asked for: a host, and a port where it is not the one that is dialled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WebHost {
    /// The host.
    pub host: Host,
    /// Its port, never 0.
    pub port: Option<u16>,
}

/// What is wrong with an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing.
    #[error("there is nothing between two commas, or behind the last one")]
    Empty,
    /// A second key, or a user's name.
    #[error("it has an '@': the key stands once, in front of the first address")]
    At,
    /// A blank.
    #[error("it has a blank or a line break within: write the link in one piece")]
    Blank,
    /// No port.
    #[error("{0} has no port: write HOST:PORT, :9990 is gkd's usual one")]
    NoPort(String),
    /// No host.
    #[error("it has no host: write HOST:PORT")]
    NoHost,
    /// A port that is none.
    #[error("{0} is not a port: write a number from 1 to 65535")]
    Port(String),
    /// A range that runs backwards.
    #[error("the ports {0}-{1} run backwards: write {1}-{0}")]
    Reversed(u16, u16),
    /// IPv6 without brackets.
    #[error("{0} has more than one ':': write an IPv6 address in brackets, [2001:db8::1]:9990")]
    Brackets(String),
    /// Brackets around something else.
    #[error("{0} in brackets is not an IPv6 address: write [2001:db8::1]:9990")]
    Ipv6(String),
    /// Digits and dots that are no address.
    #[error("{0} is not an IPv4 address: write four numbers from 0 to 255")]
    Ipv4(String),
    /// Neither a name nor an address.
    #[error(
        "{0} is not a host: a name has letters, digits, '-', '_' and '.', an international one in its xn-- form"
    )]
    Host(String),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.contains('@') {
            return Err(AddressError::At);
        }
        if text.contains(char::is_whitespace) {
            return Err(AddressError::Blank);
        }
        let (host, ports) = match text.strip_prefix('[') {
            Some(rest) => parse_ipv6(rest)?,
            None => parse_host(text)?,
        };
        Ok(Self { host, ports: parse_ports(ports)? })
    }
}

fn parse_ipv6(text: &str) -> Result<(Host, &str), AddressError> {
    let (address, rest) = text.split_once(']').ok_or_else(|| AddressError::Ipv6(shown(text)))?;
    let address: Ipv6Addr = address.parse().map_err(|_| AddressError::Ipv6(shown(address)))?;
    match rest.strip_prefix(':') {
        Some(ports) => Ok((Host::Ip(address.into()), ports)),
        None => Err(AddressError::NoPort(format!("[{address}]"))),
    }
}

fn parse_host(text: &str) -> Result<(Host, &str), AddressError> {
    let (host, ports) = text.split_once(':').ok_or_else(|| AddressError::NoPort(shown(text)))?;
    if ports.contains(':') {
        return Err(AddressError::Brackets(shown(text)));
    }
    if host.is_empty() {
        return Err(AddressError::NoHost);
    }
    if host.chars().all(|c| c.is_ascii_digit() || c == '.') {
        let address: Ipv4Addr = host.parse().map_err(|_| AddressError::Ipv4(shown(host)))?;
        return Ok((Host::Ip(address.into()), ports));
    }
    if !is_name(host) {
        return Err(AddressError::Host(shown(host)));
    }
    Ok((Host::Name(host.to_owned()), ports))
}

/// The lengths are those of RFC 1035 §2.3.4; underscores occur, though no host should have one.
fn is_name(host: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(known);
    let host = host.strip_suffix('.').unwrap_or(host);
    host.len() <= 253 && host.split('.').all(label)
}

fn parse_ports(text: &str) -> Result<PortRange, AddressError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_port(first)?, parse_port(last)?);
    PortRange::new(first, last).ok_or(AddressError::Reversed(first, last))
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let port = text.parse().ok().filter(|port| digits && *port > 0);
    port.ok_or_else(|| AddressError::Port(shown(text)))
}

impl FromStr for WebHost {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let has_port = match text.rfind(']') {
            Some(end) => end + 1 < text.len(),
            None => text.contains(':'),
        };
        if has_port {
            let Address { host, ports } = text.parse()?;
            if ports.count() > 1 {
                return Err(AddressError::Port(shown(&ports.to_string())));
            }
            return Ok(Self { host, port: Some(ports.first()) });
        }
        if text.is_empty() {
            return Err(AddressError::NoHost);
        }
        // An address has a port, and its host is judged by the same rules.
        let Address { host, .. } = format!("{text}:1").parse()?;
        Ok(Self { host, port: None })
    }
}

impl fmt::Display for WebHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => self.host.fmt(f),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.ports)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Ip(IpAddr::V4(address)) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { first, last } if first == last => first.fmt(f),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}
