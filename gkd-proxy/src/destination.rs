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
//! | 1 | kind: 1 TCP, 2 UDP, 3 a registered listener, 4 control, 5 a Unix socket |
//!
//! Behind the kinds TCP and UDP stands a target:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | host: 1 IPv4 address, 2 IPv6 address, 3 name; for UDP also 0: each datagram names its own target |
//! | 4, 16, or 1 + n | the address; or the name's length and the name; nothing behind 0 |
//! | 2 | port, most significant byte first; nothing behind 0 |
//!
//! Behind the kind of a registered listener, what the end that registered it called it (4 bytes), and which of its
//! ports a program came to, the first being 0 (2 bytes).
//!
//! Behind the kind control, what of the other end itself is asked for: 1 to [measure](crate::measure); 2 to
//! [listen](crate::reverse), followed by
//!
//! | bytes | what |
//! |---|---|
//! | 4 | what the end that asks calls the listener |
//! | 1 | 1 TCP, 2 UDP |
//! | 1 | bits: 1 the PROXY protocol's header goes ahead, 2 nothing is taken over from another session |
//! | 1, and 0, 4 or 16 | the address to listen on: 0 left open, 1 IPv4, 2 IPv6 |
//! | 2, 2 | the first and the last port; both 0 for any one |
//!
//! or 3 to take an [announced](crate::service::announce) service, followed by
//!
//! | bytes | what |
//! |---|---|
//! | 4 | what the end that asks calls it; connections to it name it as those to a listener do, with port 0 |
//! | 1 | what is spoken there: 1 HTTP/1.1, 2 HTTP/2 without TLS |
//! | 1 | bits: 1 nothing is taken over from another session |
//! | 2 | its share beside others of the same name, 1 to [`MAX_WEIGHT`] |
//! | 8 | the instance: another session of the user that announced the same one under this name is displaced |
//! | to the end | its name, 1 to 63 bytes |
//!
//! Behind the kind of a Unix socket, its path in UTF-8, to the end.
//!
//! A datagram of a connection whose target is open has the target in front of it, in the same form, and an answer
//! the address that it came from.
//!
//! Nothing follows. An end that meets a kind or a form that it does not know refuses the connection.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::listener::Ports;
use crate::service::name::ServiceName;

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
    /// Datagrams to a host's port, and what it answers.
    Udp(Target),
    /// Datagrams, each of which names its own target.
    UdpAny,
    /// A stream socket in the file system of the end that dials.
    Unix(UnixPath),
    /// What the other end set behind a listener that it registered here.
    Registered(Registered),
    /// The other end itself.
    Control(Control),
}

/// The path of a Unix socket: absolute, without NUL and other control characters, of at most [`MAX_PATH`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixPath(Box<str>);

/// The longest path of a Unix socket, in bytes: what all systems take (`sun_path` has 104 to 108 with its NUL).
pub const MAX_PATH: usize = 103;

/// What of the other end itself is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Control {
    /// To send, swallow or echo bytes, so that the way to it can be [measured](crate::measure).
    Measure,
    /// To [listen](crate::reverse), and to open a connection for each program that comes.
    Listen(ListenRequest),
    /// To take a [service](crate::service::announce), and to open a connection whenever it needs one to it.
    Announce(Box<AnnounceRequest>),
}

/// A port of a listener that was registered over the same session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Registered {
    /// What the end that registered the listener called it.
    pub listener: ListenerId,
    /// Which of its ports a program came to; the first is 0.
    pub index: u16,
}

/// What the end that registers a listener calls it: unlike all others of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u32);

/// A listener that is to be opened at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenRequest {
    /// What it is called.
    pub listener: ListenerId,
    /// What comes there.
    pub transport: Transport,
    /// The address to listen on; none leaves it to the end that listens.
    pub bind: Option<IpAddr>,
    /// The ports.
    pub ports: Ports,
    /// Whether the PROXY protocol's header (version 2) goes ahead of what a program sends.
    pub proxy_header: bool,
    /// Whether a port that another session of the same user holds is left to it.
    pub polite: bool,
}

/// A service that the end which asks has, and the other is to answer for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AnnounceRequest {
    /// What connections to it name.
    pub listener: ListenerId,
    /// What people call it.
    pub service: ServiceName,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Its share beside others of the same name, 1 to [`MAX_WEIGHT`].
    pub weight: u16,
    /// Tells it from others that the same user announces under this name.
    pub instance: u64,
    /// Whether an instance that another session of the same user holds is left to it.
    pub polite: bool,
}

/// The largest weight of a service.
pub const MAX_WEIGHT: u16 = 1000;

/// What is spoken where a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, from the first byte on (RFC 9113, section 3.3).
    H2c,
}

/// What travels between a program and a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A TCP connection.
    Tcp,
    /// Datagrams.
    Udp,
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
    /// No path of a Unix socket.
    #[error("\"{}\" is no path of a socket: write an absolute one of at most {MAX_PATH} bytes", .0.escape_debug())]
    Path(Box<str>),
    /// Words that are not HOST:PORT.
    #[error("\"{}\" is not HOST:PORT; an IPv6 address goes in brackets: [::1]:80", .0.escape_debug())]
    NotHostPort(Box<str>),
}

/// Numbers of the kinds.
mod kind {
    pub(super) const TCP: u8 = 1;
    pub(super) const UDP: u8 = 2;
    pub(super) const REGISTERED: u8 = 3;
    pub(super) const CONTROL: u8 = 4;
    pub(super) const UNIX: u8 = 5;
}

/// Numbers of what of the other end itself is asked for.
mod control {
    pub(super) const MEASURE: u8 = 1;
    pub(super) const LISTEN: u8 = 2;
    pub(super) const ANNOUNCE: u8 = 3;
}

/// Numbers of what is spoken where a service is.
mod protocol {
    pub(super) const HTTP1: u8 = 1;
    pub(super) const H2C: u8 = 2;
}

/// Numbers of what comes to a listener.
mod transport {
    pub(super) const TCP: u8 = 1;
    pub(super) const UDP: u8 = 2;
}

/// Bits of a request to listen.
mod flag {
    pub(super) const PROXY_HEADER: u8 = 1;
    pub(super) const POLITE: u8 = 2;
}

/// Numbers of the forms of a host.
mod form {
    pub(super) const NONE: u8 = 0;
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
            Self::Udp(target) => {
                out.put_u8(kind::UDP);
                target.encode(&mut out);
            }
            Self::UdpAny => out.put_slice(&[kind::UDP, form::NONE]),
            Self::Unix(path) => {
                out.put_u8(kind::UNIX);
                out.put_slice(path.0.as_bytes());
            }
            Self::Registered(registered) => {
                out.put_u8(kind::REGISTERED);
                out.put_u32(registered.listener.0);
                out.put_u16(registered.index);
            }
            Self::Control(Control::Measure) => out.put_slice(&[kind::CONTROL, control::MEASURE]),
            Self::Control(Control::Listen(request)) => {
                out.put_slice(&[kind::CONTROL, control::LISTEN]);
                request.encode(&mut out);
            }
            Self::Control(Control::Announce(request)) => {
                out.put_slice(&[kind::CONTROL, control::ANNOUNCE]);
                request.encode(&mut out);
            }
        }
        debug_assert!(out.len() <= MAX_DESTINATION, "a name is bounded");
        out.freeze()
    }

    /// The name that the program gave of the host, unless it gave its address or asks for no host.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Tcp(target) | Self::Udp(target) => target.host().name(),
            Self::UdpAny | Self::Unix(_) | Self::Registered(_) | Self::Control(_) => None,
        }
    }

    /// The destination that bytes of a Connect name.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, DestinationError> {
        let malformed = |_| DestinationError::Malformed;
        let destination = match bytes.try_get_u8().map_err(malformed)? {
            kind::TCP => Self::Tcp(Target::decode(&mut bytes)?),
            kind::UDP if bytes == [form::NONE] => return Ok(Self::UdpAny),
            kind::UDP => Self::Udp(Target::decode(&mut bytes)?),
            kind::UNIX => {
                let path = std::str::from_utf8(bytes).map_err(|_| DestinationError::Malformed)?;
                return UnixPath::new(path).map(Self::Unix);
            }
            kind::REGISTERED => Self::Registered(Registered {
                listener: ListenerId(bytes.try_get_u32().map_err(malformed)?),
                index: bytes.try_get_u16().map_err(malformed)?,
            }),
            kind::CONTROL => match bytes.try_get_u8().map_err(malformed)? {
                control::MEASURE => Self::Control(Control::Measure),
                control::LISTEN => Self::Control(Control::Listen(ListenRequest::decode(&mut bytes)?)),
                control::ANNOUNCE => {
                    let request = Box::new(AnnounceRequest::decode(bytes)?);
                    return Ok(Self::Control(Control::Announce(request)));
                }
                other => return Err(DestinationError::UnknownControl(other)),
            },
            other => return Err(DestinationError::UnknownKind(other)),
        };
        if bytes.is_empty() { Ok(destination) } else { Err(DestinationError::Malformed) }
    }
}

impl UnixPath {
    /// A path.
    ///
    /// # Errors
    /// It is not absolute, is too long, or holds a control character.
    pub fn new(path: &str) -> Result<Self, DestinationError> {
        let right = path.starts_with('/') && path.len() <= MAX_PATH && !path.contains(char::is_control);
        if right { Ok(Self(path.into())) } else { Err(DestinationError::Path(path.into())) }
    }

    /// The path as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
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

    /// The target in the bytes that stand in front of a datagram.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32);
        self.encode(&mut out);
        out.freeze()
    }

    /// The target that stands in front of a datagram.
    pub fn from_bytes(mut bytes: &[u8]) -> Result<Self, DestinationError> {
        let target = Self::decode(&mut bytes)?;
        if bytes.is_empty() { Ok(target) } else { Err(DestinationError::Malformed) }
    }

    fn encode(&self, out: &mut BytesMut) {
        match &self.host {
            Host::Ip(ip) => put_address(out, Some(*ip)),
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
            form @ (form::IPV4 | form::IPV6) => Host::Ip(take_address(form, bytes)?),
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

impl ListenRequest {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.listener.0);
        out.put_u8(match self.transport {
            Transport::Tcp => transport::TCP,
            Transport::Udp => transport::UDP,
        });
        let flags = [(self.proxy_header, flag::PROXY_HEADER), (self.polite, flag::POLITE)];
        out.put_u8(flags.iter().filter(|(set, _)| *set).map(|(_, bit)| bit).sum());
        put_address(out, self.bind);
        out.put_u16(self.ports.first());
        out.put_u16(self.ports.last());
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self, DestinationError> {
        let malformed = |_| DestinationError::Malformed;
        let listener = ListenerId(bytes.try_get_u32().map_err(malformed)?);
        let transport = match bytes.try_get_u8().map_err(malformed)? {
            transport::TCP => Transport::Tcp,
            transport::UDP => Transport::Udp,
            _ => return Err(DestinationError::Malformed),
        };
        let flags = bytes.try_get_u8().map_err(malformed)?;
        if flags & !(flag::PROXY_HEADER | flag::POLITE) != 0 {
            return Err(DestinationError::Malformed);
        }
        let bind = match bytes.try_get_u8().map_err(malformed)? {
            form::NONE => None,
            form => Some(take_address(form, bytes)?),
        };
        let (first, last) =
            (bytes.try_get_u16().map_err(malformed)?, bytes.try_get_u16().map_err(malformed)?);
        let ports = Ports::new(first, last).ok_or(DestinationError::Malformed)?;
        let (proxy_header, polite) = (flags & flag::PROXY_HEADER != 0, flags & flag::POLITE != 0);
        Ok(Self { listener, transport, bind, ports, proxy_header, polite })
    }
}

impl AnnounceRequest {
    /// The one bit that there is.
    const POLITE: u8 = 1;

    fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.listener.0);
        out.put_u8(match self.protocol {
            Protocol::Http1 => protocol::HTTP1,
            Protocol::H2c => protocol::H2C,
        });
        out.put_u8(if self.polite { Self::POLITE } else { 0 });
        out.put_u16(self.weight);
        out.put_u64(self.instance);
        out.put_slice(self.service.as_str().as_bytes());
    }

    /// What all of the bytes are.
    fn decode(mut bytes: &[u8]) -> Result<Self, DestinationError> {
        let malformed = |_| DestinationError::Malformed;
        let listener = ListenerId(bytes.try_get_u32().map_err(malformed)?);
        let protocol = match bytes.try_get_u8().map_err(malformed)? {
            protocol::HTTP1 => Protocol::Http1,
            protocol::H2C => Protocol::H2c,
            _ => return Err(DestinationError::Malformed),
        };
        let polite = match bytes.try_get_u8().map_err(malformed)? {
            0 => false,
            Self::POLITE => true,
            _ => return Err(DestinationError::Malformed),
        };
        let weight = bytes.try_get_u16().map_err(malformed)?;
        if !(1..=MAX_WEIGHT).contains(&weight) {
            return Err(DestinationError::Malformed);
        }
        let instance = bytes.try_get_u64().map_err(malformed)?;
        let name = std::str::from_utf8(bytes).map_err(|_| DestinationError::Malformed)?;
        let service = ServiceName::new(name).map_err(|_| DestinationError::Malformed)?;
        Ok(Self { listener, service, protocol, weight, instance, polite })
    }
}

fn put_address(out: &mut BytesMut, ip: Option<IpAddr>) {
    match ip {
        None => out.put_u8(form::NONE),
        Some(IpAddr::V4(ip)) => {
            out.put_u8(form::IPV4);
            out.put_slice(&ip.octets());
        }
        Some(IpAddr::V6(ip)) => {
            out.put_u8(form::IPV6);
            out.put_slice(&ip.octets());
        }
    }
}

/// The address behind a form that was read.
fn take_address(form: u8, bytes: &mut &[u8]) -> Result<IpAddr, DestinationError> {
    let malformed = |_| DestinationError::Malformed;
    match form {
        form::IPV4 => {
            let mut octets = [0; 4];
            bytes.try_copy_to_slice(&mut octets).map_err(malformed)?;
            Ok(Ipv4Addr::from(octets).into())
        }
        form::IPV6 => {
            let mut octets = [0; 16];
            bytes.try_copy_to_slice(&mut octets).map_err(malformed)?;
            Ok(Ipv6Addr::from(octets).into())
        }
        other => Err(DestinationError::UnknownHost(other)),
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

/// The place to listen on.
impl fmt::Display for ListenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        };
        write!(f, "{scheme}://")?;
        if let Some(ip) = self.bind {
            write!(f, "{}:", Host::Ip(ip))?;
        }
        write!(f, "{}", self.ports)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "http",
            Self::H2c => "h2c",
        })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(target) => target.fmt(f),
            Self::Udp(target) => write!(f, "{target} (UDP)"),
            Self::UdpAny => f.write_str("datagrams"),
            Self::Unix(path) => write!(f, "unix:{}", path.0.escape_debug()),
            Self::Registered(registered) => {
                write!(f, "port {} of listener {}", registered.index, registered.listener.0)
            }
            Self::Control(Control::Measure) => f.write_str("a measurement"),
            Self::Control(Control::Listen(request)) => write!(f, "a listener on {request}"),
            Self::Control(Control::Announce(request)) => write!(f, "the service {}", request.service),
        }
    }
}

#[cfg(test)]
mod tests;
