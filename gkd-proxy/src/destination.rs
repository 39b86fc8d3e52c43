//! Where a connection leads: [`Destination`], and the bytes in which it travels to the end that dials.
//!
//! This file knows how a destination is written down and what may stand in it. Whether it may be reached
//! is for [`rules`](crate::rules) to say, and reaching it for [`dial`](crate::dial).
//!
//! # Bytes
//! A destination fills the opaque field of a Connect, at most [`MAX_DESTINATION`] bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | kind: 1 TCP, 4 control; kept for later versions: 2 UDP, 3 a registered listener |
//!
//! Behind the kind TCP:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | host: 1 IPv4 address, 2 IPv6 address, 3 name |
//! | 4, 16, or 1 + n | the address; or the name's length and the name |
//! | 2 | port, most significant byte first |
//!
//! Behind the kind control, one byte: what of the other end itself is asked for; 1 to [measure](crate::measure).
//!
//! Nothing follows. An end that meets a kind or a form that it does not know refuses the connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The most bytes that an encoded destination fills: the bound of a Connect's field.
pub const MAX_DESTINATION: usize = 512;

/// The longest name, in bytes: what the domain name system can hold (RFC 1035, section 2.3.4), written
/// with dots.
pub const MAX_NAME: usize = 253;

/// Where a connection leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Destination {
    /// A TCP connection to a host's port.
    Tcp(Target),
    /// The other end itself.
    Control(Control),
}

/// What of the other end itself is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Control {
    /// To send, swallow or echo bytes, so that the way to it can be [measured](crate::measure).
    Measure,
}

/// A host and its port. Ports are those of the wire: 0 is refused, for nothing listens there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    host: Host,
    port: u16,
}

/// A host: by address, or by a name that the end that dials resolves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Ip(IpAddr),
    /// A name.
    Name(Name),
}

/// A host's name: 1 to [`MAX_NAME`] bytes without white space, control characters and those that part a URI's
/// host from what stands beside it; otherwise as the program gave it. That it can be resolved is not promised.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name(Box<str>);

/// Why bytes or words do not name a destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DestinationError {
    /// The bytes end too early, go on too long, or break their form.
    #[error("the destination is malformed")]
    Malformed,
    /// A kind that this version does not offer.
    #[error("the destination is of kind {0}, which this version does not offer")]
    UnknownKind(u8),
    /// Something of this end itself that this version does not have.
    #[error("control {0} is asked for, which this version does not offer")]
    UnknownControl(u8),
    /// A form of host that this version does not know.
    #[error("the destination's host is of form {0}, which this version does not know")]
    UnknownHost(u8),
    /// No name at all.
    #[error("the host's name is empty")]
    EmptyName,
    /// A name longer than a name can be.
    #[error("the host's name has {0} bytes, more than the {MAX_NAME} that a name can have")]
    LongName(usize),
    /// A name with a character that no name has.
    #[error("the host's name \"{}\" holds {:?}, which no name has", .0.escape_debug(), .1)]
    NameCharacter(Box<str>, char),
    /// Port 0.
    #[error("port 0 cannot be reached: write the port that the destination listens on")]
    PortZero,
    /// Words that are not HOST:PORT.
    #[error("\"{}\" is not HOST:PORT; an IPv6 address goes in brackets: [::1]:80", .0.escape_debug())]
    NotHostPort(Box<str>),
}

/// Numbers of the kinds. Those between are kept for later versions.
mod kind {
    pub(super) const TCP: u8 = 1;
    pub(super) const CONTROL: u8 = 4;
}

/// Numbers of what of the other end itself is asked for.
mod control {
    pub(super) const MEASURE: u8 = 1;
}

/// Numbers of the forms of a host.
mod form {
    pub(super) const IPV4: u8 = 1;
    pub(super) const IPV6: u8 = 2;
    pub(super) const NAME: u8 = 3;
}

impl Destination {
    /// The bytes for a Connect.
    pub fn encode(&self) -> Bytes {
        // Kind, form, length, name, port: at most 258 bytes.
        let mut out = BytesMut::with_capacity(32);
        match self {
            Self::Tcp(target) => {
                out.put_u8(kind::TCP);
                target.encode(&mut out);
            }
            Self::Control(Control::Measure) => out.put_slice(&[kind::CONTROL, control::MEASURE]),
        }
        debug_assert!(out.len() <= MAX_DESTINATION, "a name is bounded");
        out.freeze()
    }

    /// The name that the program gave of the host, unless it gave its address or asks for no host.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Tcp(target) => target.host().name(),
            Self::Control(_) => None,
        }
    }

    /// The destination that bytes of a Connect name.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, DestinationError> {
        let malformed = |_| DestinationError::Malformed;
        let destination = match bytes.try_get_u8().map_err(malformed)? {
            kind::TCP => Self::Tcp(Target::decode(&mut bytes)?),
            kind::CONTROL => match bytes.try_get_u8().map_err(malformed)? {
                control::MEASURE => Self::Control(Control::Measure),
                other => return Err(DestinationError::UnknownControl(other)),
            },
            other => return Err(DestinationError::UnknownKind(other)),
        };
        if bytes.is_empty() { Ok(destination) } else { Err(DestinationError::Malformed) }
    }
}

impl Target {
    /// A target; refuses port 0.
    pub fn new(host: Host, port: u16) -> Result<Self, DestinationError> {
        if port == 0 { Err(DestinationError::PortZero) } else { Ok(Self { host, port }) }
    }

    /// The host.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port; never 0.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn encode(&self, out: &mut BytesMut) {
        match &self.host {
            Host::Ip(IpAddr::V4(ip)) => {
                out.put_u8(form::IPV4);
                out.put_slice(&ip.octets());
            }
            Host::Ip(IpAddr::V6(ip)) => {
                out.put_u8(form::IPV6);
                out.put_slice(&ip.octets());
            }
            Host::Name(name) => {
                out.put_u8(form::NAME);
                // At most MAX_NAME.
                out.put_u8(name.0.len() as u8);
                out.put_slice(name.0.as_bytes());
            }
        }
        out.put_u16(self.port);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, DestinationError> {
        let malformed = |_| DestinationError::Malformed;
        let host = match bytes.try_get_u8().map_err(malformed)? {
            form::IPV4 => {
                let mut octets = [0; 4];
                bytes.try_copy_to_slice(&mut octets).map_err(malformed)?;
                Host::Ip(Ipv4Addr::from(octets).into())
            }
            form::IPV6 => {
                let mut octets = [0; 16];
                bytes.try_copy_to_slice(&mut octets).map_err(malformed)?;
                Host::Ip(Ipv6Addr::from(octets).into())
            }
            form::NAME => {
                let len = usize::from(bytes.try_get_u8().map_err(malformed)?);
                let (name, rest) = bytes.split_at_checked(len).ok_or(DestinationError::Malformed)?;
                *bytes = rest;
                Host::Name(Name::new(std::str::from_utf8(name).map_err(|_| DestinationError::Malformed)?)?)
            }
            other => return Err(DestinationError::UnknownHost(other)),
        };
        Self::new(host, bytes.try_get_u16().map_err(malformed)?)
    }
}

impl Name {
    /// A name as a program gave it.
    pub fn new(name: &str) -> Result<Self, DestinationError> {
        if name.is_empty() {
            return Err(DestinationError::EmptyName);
        }
        if name.len() > MAX_NAME {
            return Err(DestinationError::LongName(name.len()));
        }
        match name.chars().find(|c| c.is_control() || c.is_whitespace() || "[]:/@".contains(*c)) {
            Some(c) => Err(DestinationError::NameCharacter(name.into(), c)),
            None => Ok(Self(name.into())),
        }
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Host {
    /// The name, unless it is an address.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Ip(_) => None,
            Self::Name(name) => Some(name.as_str()),
        }
    }

    /// The host that a program wrote: an address (an IPv6 one with or without brackets), else a name.
    pub fn parse(host: &str) -> Result<Self, DestinationError> {
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(bare) = bare {
            let ip: Result<Ipv6Addr, _> = bare.parse();
            return ip.map(|ip| Self::Ip(ip.into())).map_err(|_| DestinationError::NotHostPort(host.into()));
        }
        match host.parse() {
            Ok(ip) => Ok(Self::Ip(ip)),
            Err(_) => Name::new(host).map(Self::Name),
        }
    }
}

/// HOST:PORT, an IPv6 address in brackets.
impl FromStr for Target {
    type Err = DestinationError;

    fn from_str(words: &str) -> Result<Self, Self::Err> {
        let wrong = || DestinationError::NotHostPort(words.into());
        let (host, port) = words.rsplit_once(':').ok_or_else(wrong)?;
        // Without brackets the last group of an IPv6 address would be taken for a port.
        if host.contains(':') && !host.starts_with('[') {
            return Err(wrong());
        }
        // `parse` would take a sign as well.
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        Self::new(Host::parse(host)?, port.parse().map_err(|_| wrong())?)
    }
}

/// Escaped, so that a name from a stranger is safe on a terminal.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_debug())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(target) => target.fmt(f),
            Self::Control(Control::Measure) => f.write_str("a measurement"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(words: &str) -> Destination {
        Destination::Tcp(words.parse().unwrap())
    }

    #[test]
    fn every_form_comes_back_and_no_cut_does() {
        let long = format!("{}:65535", "n".repeat(MAX_NAME));
        for words in ["192.0.2.1:80", "[2001:db8::1]:443", "example.com:1", "bücher.example:8080", &long] {
            let destination = tcp(words);
            let bytes = destination.encode();
            assert!(bytes.len() <= MAX_DESTINATION);
            assert_eq!(Destination::decode(&bytes), Ok(destination.clone()));
            assert_eq!(destination.to_string(), words);
            for cut in 0..bytes.len() {
                assert!(Destination::decode(&bytes[..cut]).is_err(), "{words} cut at {cut}");
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(Destination::decode(&longer), Err(DestinationError::Malformed));
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_table() {
        assert_eq!(&tcp("1.2.3.4:258").encode()[..], [1, 1, 1, 2, 3, 4, 1, 2]);
        assert_eq!(&tcp("ab:1").encode()[..], [1, 3, 2, b'a', b'b', 0, 1]);
        let measure = Destination::Control(Control::Measure);
        assert_eq!(&measure.encode()[..], [4, 1]);
        assert_eq!(Destination::decode(&[4, 1]), Ok(measure));
    }

    #[test]
    fn what_is_not_a_destination_is_refused() {
        for (bytes, error) in [
            (&[2, 1, 1, 2, 3, 4, 1, 2][..], DestinationError::UnknownKind(2)),
            (&[4, 2], DestinationError::UnknownControl(2)),
            (&[4], DestinationError::Malformed),
            (&[4, 1, 0], DestinationError::Malformed),
            (&[1, 9, 1, 2, 3, 4, 1, 2], DestinationError::UnknownHost(9)),
            (&[1, 1, 1, 2, 3, 4, 0, 0], DestinationError::PortZero),
            (&[1, 3, 0, 0, 1], DestinationError::EmptyName),
            (&[1, 3, 1, 0xff, 0, 1], DestinationError::Malformed),
            (&[1, 3, 1, b'\n', 0, 1], DestinationError::NameCharacter("\n".into(), '\n')),
        ] {
            assert_eq!(Destination::decode(bytes), Err(error), "{bytes:?}");
        }
        let mut long = vec![1, 3, 254];
        long.extend([b'n'; 254]);
        long.extend([0, 1]);
        assert_eq!(Destination::decode(&long), Err(DestinationError::LongName(254)));
    }

    #[test]
    fn words_that_are_not_host_and_port_are_refused() {
        for words in
            ["", ":", "host", "host:", "host:x", "host:+1", "host:65536", "::1:80", "[::1:80", "[x]:80"]
        {
            assert!(words.parse::<Target>().is_err(), "{words}");
        }
        for words in ["host:0", "a b:1", "a\u{1b}[31m:1", "a\u{a0}:1", ":80"] {
            assert!(words.parse::<Target>().is_err(), "{words:?}");
        }
    }

    #[test]
    fn addresses_are_known_as_such() {
        assert_eq!(Host::parse("127.0.0.1"), Ok(Host::Ip(Ipv4Addr::LOCALHOST.into())));
        assert_eq!(Host::parse("::1"), Ok(Host::Ip(Ipv6Addr::LOCALHOST.into())));
        assert_eq!(Host::parse("[::1]"), Ok(Host::Ip(Ipv6Addr::LOCALHOST.into())));
    }

    #[test]
    fn what_is_shown_is_escaped() {
        // A right-to-left override is no control character, and yet has no business in a log.
        let name = Name::new("a\u{202e}b").unwrap();
        assert_eq!(name.to_string(), "a\\u{202e}b");
        let error = Name::new("a\u{1b}[31m").unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'));
    }
}
