//! The bytes in which a destination travels.
//!
//! It fills the opaque field of a Connect, at most [`MAX_DESTINATION`] bytes:
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

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{
    AnnounceRequest, Control, Destination, DestinationError, Host, ListenRequest, ListenerId,
    MAX_DESTINATION, MAX_WEIGHT, Name, Protocol, Registered, Target, Transport, UnixPath,
};
use crate::listener::Ports;
use crate::service::name::ServiceName;

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

impl Target {
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
