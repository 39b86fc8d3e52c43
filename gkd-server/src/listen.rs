//! Where the server listens: how it is written ([`ListenAddress`]), and getting the sockets ([`listen`]).

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::ops::RangeInclusive;
use std::str::FromStr;

use gkd_core::link::{Address, AddressError, Host};
use gkd_core::socket::{self, BACKLOG};

use gkd_proxy::program::Failure;
use gkd_proxy::service::config::FrontListen;

/// gkd's usual port.
const PORT: u16 = 9990;

/// The most ports that are listened on, over all addresses. Each is a socket; a range that was meant to be
/// short should not take all that a machine has.
pub(crate) const MAX_LISTENERS: usize = 1024;

/// `HOST:PORT` or `HOST:PORT-PORT`, as in a link, or `HOST:0` for any port that is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenAddress {
    pub(crate) host: Host,
    first: u16,
    last: u16,
}

/// Words are no address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenError(AddressError);

impl std::error::Error for ListenError {}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an address to listen on: {}", self.0)
    }
}

impl ListenAddress {
    /// Where a server listens of which nobody said where.
    pub(crate) fn usual() -> Vec<Self> {
        let both = [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()];
        both.map(|ip| SocketAddr::new(ip, PORT).into()).into()
    }

    /// Its ports; 0 alone is any.
    pub(crate) fn ports(&self) -> RangeInclusive<u16> {
        self.first..=self.last
    }

    /// Whether a front cannot listen there as well. Of a name it is not known before it is resolved.
    pub(crate) fn clashes_with(&self, front: &FrontListen) -> bool {
        match &self.host {
            Host::Ip(ip) => self.ports().any(|port| front.clashes_with(*ip, port)),
            Host::Name(_) => false,
        }
    }

    fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        let ips: Vec<IpAddr> = match &self.host {
            Host::Ip(ip) => vec![*ip],
            Host::Name(name) => (name.as_str(), self.first)
                .to_socket_addrs()
                .map(|found| found.map(|address| address.ip()).collect())
                .map_err(|error| {
                    Failure::config(format!(
                        "cannot listen on {self}: its name does not resolve ({error}): write an address instead"
                    ))
                })?,
        };
        Ok(ips.into_iter().flat_map(|ip| self.ports().map(move |port| SocketAddr::new(ip, port))).collect())
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip()), first: address.port(), last: address.port() }
    }
}

impl FromStr for ListenAddress {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let text = text.trim();
        // A link has no port 0, so another stands in for it while the rest is read.
        if let Some(host) = text.strip_suffix(":0") {
            let Address { host, .. } = format!("{host}:{PORT}").parse().map_err(ListenError)?;
            return Ok(Self { host, first: 0, last: 0 });
        }
        let Address { host, ports } = text.parse().map_err(ListenError)?;
        Ok(Self { host, first: ports.first(), last: ports.last() })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.first)?;
        if self.last > self.first { write!(f, "-{}", self.last) } else { Ok(()) }
    }
}

/// How many ports these are, names counted as one address.
pub(crate) fn count(addresses: &[ListenAddress]) -> usize {
    addresses.iter().map(|address| address.ports().len()).sum()
}

/// Listens on all of them; one that is given twice is taken once. IPv6 listeners take IPv6 only. Where the
/// machine has no IPv6 they are left out with a line in the log, as long as another is left. Names are resolved,
/// which may block. Within a tokio runtime.
///
/// # Errors
/// One of them cannot be had: which, why, and the mend.
pub(crate) fn listen(addresses: &[ListenAddress]) -> Result<Vec<TcpListener>, Failure> {
    listen_with(addresses, has_ipv6, |address| {
        socket::listen(address, BACKLOG).and_then(tokio::net::TcpListener::into_std)
    })
}

fn listen_with(
    addresses: &[ListenAddress],
    has_ipv6: impl Fn() -> bool,
    open: impl Fn(SocketAddr) -> io::Result<TcpListener>,
) -> Result<Vec<TcpListener>, Failure> {
    let count = count(addresses);
    if count > MAX_LISTENERS {
        return Err(Failure::config(too_many(count)));
    }
    let mut listeners = Vec::new();
    let (mut seen, mut left_out) = (HashSet::new(), Vec::new());
    for address in addresses {
        for address in address.resolve()? {
            if address.port() != 0 && !seen.insert(address) {
                continue;
            }
            match open(address) {
                Ok(listener) => listeners.push(listener),
                Err(_) if address.is_ipv6() && !has_ipv6() => left_out.push(address),
                Err(error) => return Err(cannot_listen(address, &error)),
            }
        }
    }
    match (&left_out[..], listeners.is_empty()) {
        ([], _) => {}
        ([first, ..], true) => {
            let words =
                format!("cannot listen on {first}: this machine has no IPv6: choose another with --listen");
            return Err(Failure::config(words));
        }
        (all, false) => tracing::warn!("this machine has no IPv6: going on without {}", shown(all)),
    }
    Ok(listeners)
}

pub(crate) fn too_many(count: usize) -> String {
    format!(
        "{count} ports to listen on are more than the {MAX_LISTENERS} that one server takes: write a shorter range"
    )
}

fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> Failure {
    let (cause, mend) = match error.kind() {
        io::ErrorKind::AddrInUse => {
            ("the port is in use", "stop the other program, or choose another with --listen")
        }
        io::ErrorKind::PermissionDenied => {
            ("ports below 1024 need a privilege", "choose a higher one with --listen")
        }
        io::ErrorKind::AddrNotAvailable => {
            ("this machine does not have that address", "choose one of its own with --listen")
        }
        // It names the address itself.
        _ => return Failure::config(error.to_string()),
    };
    Failure::config(format!("cannot listen on {address}: {cause}: {mend}"))
}

/// Addresses in a log line: all of a few, the first ones of many.
pub(crate) fn shown(addresses: &[SocketAddr]) -> String {
    const MOST: usize = 8;
    let first: Vec<_> = addresses.iter().take(MOST).map(ToString::to_string).collect();
    match addresses.len().saturating_sub(MOST) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["0.0.0.0:9990", "[::]:9990-9999", "127.0.0.1:0", "localhost:1", "[::1]:0"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", ":", ":0", "9990", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:1", "1.2.3:0", "a b:0"]
        {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_told_with_the_mend() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let words = listen(&[address.into()]).unwrap_err().to_string();
        assert_eq!(
            words,
            format!(
                "cannot listen on {address}: the port is in use: stop the other program, or choose another with --listen"
            )
        );
    }

    #[test]
    fn without_ipv6_it_goes_on_with_what_is_left() {
        let open = |address: SocketAddr| match address.is_ipv4() {
            true => TcpListener::bind("127.0.0.1:0"),
            false => Err(io::ErrorKind::Unsupported.into()),
        };
        assert_eq!(listen_with(&ListenAddress::usual(), || false, open).unwrap().len(), 1);
        let words = listen_with(&ListenAddress::usual()[1..], || false, open).unwrap_err().to_string();
        assert!(words.contains("no IPv6"), "{words}");
        // Where there is IPv6 the fault is another.
        assert!(listen_with(&ListenAddress::usual(), || true, open).is_err());
    }

    #[tokio::test]
    async fn one_that_is_given_twice_is_taken_once() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(listen(&[free.into(), free.into()]).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_range_beyond_reason_is_refused() {
        let words = listen(&["127.0.0.1:1-65535".parse().unwrap()]).unwrap_err().to_string();
        assert!(words.contains("65535") && words.contains("1024"), "{words}");
    }
}
