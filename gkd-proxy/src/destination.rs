//! Where a connection leads: [`Destination`], what may stand in it, and its words.
//!
//! In which bytes it travels to the end that dials is for `encoding` to say; whether it may be reached for
//! [`rules`](crate::rules), and reaching it for [`dial`](crate::dial).

mod encoding;

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

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

impl Destination {
    /// The name that the program gave of the host, unless it gave its address or asks for no host.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Tcp(target) | Self::Udp(target) => target.host().name(),
            Self::UdpAny | Self::Unix(_) | Self::Registered(_) | Self::Control(_) => None,
        }
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
