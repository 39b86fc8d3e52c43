//! Where a tunnel starts from: a local address, or an interface.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use socket2::Socket;

/// The local end of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Bind {
    /// An address of this machine.
    Address(IpAddr),
    /// An interface by its name.
    Interface(String),
}

/// The longest name of an interface, one less than the kernel's `IFNAMSIZ` with its final zero.
const NAME_MAX: usize = 15;

/// A text that is neither an address nor an interface's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an address nor the name of an interface: write 192.0.2.7, 2001:db8::7 or eth0")]
pub struct BindError(String);

impl Bind {
    /// Binds a socket that is to dial `to`.
    ///
    /// An interface is bound by `SO_BINDTODEVICE`, which steers the route as well; where that takes a privilege
    /// that is missing (Linux before 5.7), by its address, which leaves the route to the system.
    pub(super) fn apply(&self, socket: &Socket, to: SocketAddr) -> io::Result<()> {
        let address = match self {
            Self::Address(address) => *address,
            Self::Interface(name) => {
                match bind_device(socket, name) {
                    Ok(()) => return Ok(()),
                    Err(error) if no_such_device(&error) => return Err(missing(name, to)),
                    Err(error) => tracing::debug!(interface = name, %error, "bound by its address instead"),
                }
                address_of(name, to)?
            }
        };
        if address.is_ipv4() != to.is_ipv4() {
            let text = format!("cannot dial {to} from {address}: one is IPv4, the other IPv6");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        socket.bind(&SocketAddr::new(address, 0).into()).map_err(|error| {
            let text = format!("cannot dial from {self}: {error}: does this machine have it?");
            io::Error::new(error.kind(), text)
        })
    }
}

#[cfg(target_os = "linux")]
fn bind_device(socket: &Socket, name: &str) -> io::Result<()> {
    socket.bind_device(Some(name.as_bytes()))
}

#[cfg(not(target_os = "linux"))]
fn bind_device(_: &Socket, _: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
fn no_such_device(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENODEV)
}

#[cfg(not(target_os = "linux"))]
fn no_such_device(_: &io::Error) -> bool {
    false
}

fn missing(name: &str, to: SocketAddr) -> io::Error {
    let family = if to.is_ipv4() { "IPv4" } else { "IPv6" };
    let text = format!("cannot dial {to} from {name}: there is no such interface with an {family} address");
    io::Error::new(io::ErrorKind::NotFound, text)
}

/// The interface's first address of `to`'s family, one that reaches beyond the link if there is one.
fn address_of(name: &str, to: SocketAddr) -> io::Result<IpAddr> {
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()?
        .into_iter()
        .filter(|interface| interface.name == name)
        .map(|interface| interface.ip())
        .filter(|address| address.is_ipv4() == to.is_ipv4())
        .collect();
    addresses.sort_by_key(|address| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    addresses.first().copied().ok_or_else(|| missing(name, to))
}

impl FromStr for Bind {
    type Err = BindError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Address(address));
        }
        // What looks like an address and is none is not the name of an interface either.
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
        let name = text.chars().any(|c| c.is_ascii_alphabetic()) && text.chars().all(known);
        if name && text.len() <= NAME_MAX {
            return Ok(Self::Interface(text.to_owned()));
        }
        Err(BindError(text.chars().take(60).collect()))
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface(name) => name.fmt(f),
        }
    }
}
