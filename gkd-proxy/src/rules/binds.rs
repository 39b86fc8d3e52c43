//! What reverse listeners of a user may bind at this end ([`Binds`]).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::ports::{Ports, PortsError};

/// The first port that takes no privilege.
const FIRST_FREE: u16 = 1024;

/// Addresses and ports that may be bound. By default loopback, and ports that take no privilege.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binds(Box<[Bind]>);

/// `[ADDRESS:]PORTS`: an address, 127.0.0.1 where none is written, and ports of it. `0.0.0.0` and `[::]` are all
/// addresses of their family, and so are whatever is bound there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    ip: IpAddr,
    ports: Ports,
}

/// Words are nothing that could be bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// What stands in front of the ports is no address.
    #[error("\"{}\" is no address: write one of this machine, an IPv6 one in brackets, such as 127.0.0.1:8080 or [::]:8080", .0.escape_debug())]
    Address(Box<str>),
    /// An address alone.
    #[error("\"{0}\" has no ports: write them behind the address, an IPv6 one in brackets, such as {1}:8080")]
    NoPorts(IpAddr, Box<str>),
    /// The ports are none.
    #[error(transparent)]
    Ports(#[from] PortsError),
}

impl Binds {
    /// These and no others.
    pub fn new(binds: impl IntoIterator<Item = Bind>) -> Self {
        Self(binds.into_iter().collect())
    }

    /// Whether this may be bound. Port 0, which is any that is free, is in nobody's list. Of `[::]` it is taken that
    /// whoever binds it takes IPv6 alone.
    pub fn permits(&self, addr: SocketAddr) -> bool {
        let ip = addr.ip().to_canonical();
        self.0.iter().any(|bind| {
            let all = bind.ip.is_unspecified() && bind.ip.is_ipv4() == ip.is_ipv4();
            (all || bind.ip == ip) && bind.ports.contains(addr.port())
        })
    }

    /// The address for whoever left it open: of those that may be bound with all of these ports, the first.
    pub fn choose(&self, ports: impl Iterator<Item = u16> + Clone) -> Option<IpAddr> {
        let all = |bind: &&Bind| ports.clone().all(|port| bind.ports.contains(port));
        self.0.iter().find(all).map(|bind| bind.ip)
    }
}

impl Default for Binds {
    fn default() -> Self {
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        Self::new(loopback.map(|ip| Bind { ip, ports: Ports::range(FIRST_FREE, u16::MAX) }))
    }
}

impl FromStr for Bind {
    type Err = BindError;

    fn from_str(words: &str) -> Result<Self, BindError> {
        let words = words.trim();
        let bare = |words: &str| {
            let inner = words.strip_prefix('[').and_then(|words| words.strip_suffix(']'));
            match inner {
                Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::from),
                None => words.parse().ok(),
            }
        };
        if let Some(ip) = bare(words) {
            return Err(BindError::NoPorts(ip, bracketed(ip).into()));
        }
        let Some((address, ports)) = words.rsplit_once(':') else {
            return Ok(Self { ip: Ipv4Addr::LOCALHOST.into(), ports: words.parse()? });
        };
        let wrong = || BindError::Address(address.into());
        // Without brackets the last group of an IPv6 address would be taken for a port.
        if address.contains(':') && !address.starts_with('[') {
            return Err(wrong());
        }
        Ok(Self { ip: bare(address).ok_or_else(wrong)?.to_canonical(), ports: ports.parse()? })
    }
}

fn bracketed(ip: IpAddr) -> String {
    if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", bracketed(self.ip), self.ports)
    }
}

impl fmt::Display for Binds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        for (index, bind) in self.0.iter().enumerate() {
            write!(f, "{}{bind}", if index > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binds(words: &[&str]) -> Binds {
        Binds::new(words.iter().map(|words| words.parse().unwrap()))
    }

    #[test]
    fn an_address_that_is_left_open_is_the_first_that_has_the_ports() {
        let binds = |all: &[&str]| Binds::new(all.iter().map(|words| words.parse().unwrap()));
        let some = binds(&["9000-9001", "0.0.0.0:8080", "[::1]:8000-9000"]);
        for (ports, ip) in [
            (9000..=9001, Some("127.0.0.1")),
            (8080..=8080, Some("0.0.0.0")),
            (8999..=9000, Some("::1")),
            (9001..=9002, None),
        ] {
            assert_eq!(some.choose(ports), ip.map(|ip| ip.parse().unwrap()));
        }
        assert_eq!(Binds::default().choose(1024..=1024), Some(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(Binds::default().choose(1023..=1024), None);
    }

    #[test]
    fn by_default_it_is_loopback_without_a_privilege() {
        let usual = Binds::default();
        assert_eq!(usual.to_string(), "127.0.0.1:1024-65535, [::1]:1024-65535");
        for (addr, permitted) in [
            ("127.0.0.1:1024", true),
            ("127.0.0.1:65535", true),
            ("[::1]:8080", true),
            ("[::ffff:127.0.0.1]:8080", true),
            ("127.0.0.1:1023", false),
            ("127.0.0.1:0", false),
            ("127.0.0.2:8080", false),
            ("0.0.0.0:8080", false),
            ("[::]:8080", false),
            ("192.0.2.1:8080", false),
        ] {
            assert_eq!(usual.permits(addr.parse().unwrap()), permitted, "{addr}");
        }
    }

    #[test]
    fn the_address_of_all_stands_for_its_family() {
        for (words, addr, permitted) in [
            ("0.0.0.0:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "192.0.2.1:80", true),
            ("0.0.0.0:80", "[::ffff:192.0.2.1]:80", true),
            ("0.0.0.0:80", "[::]:80", false),
            ("0.0.0.0:80", "192.0.2.1:81", false),
            ("[::]:80", "[2001:db8::1]:80", true),
            ("[::]:80", "[::]:80", true),
            ("[::]:80", "0.0.0.0:80", false),
            ("[::]:80", "[::ffff:192.0.2.1]:80", false),
            ("192.0.2.1:80", "0.0.0.0:80", false),
            ("192.0.2.1:80", "192.0.2.1:80", true),
        ] {
            assert_eq!(binds(&[words]).permits(addr.parse().unwrap()), permitted, "{words} and {addr}");
        }
        assert!(!binds(&[]).permits("127.0.0.1:8080".parse().unwrap()));
    }

    #[test]
    fn what_people_write_is_read_and_shown() {
        for (words, shown) in [
            ("8080", "127.0.0.1:8080"),
            ("80,443,9000-9009", "127.0.0.1:80,443,9000-9009"),
            ("0.0.0.0:443", "0.0.0.0:443"),
            ("[::1]:1-2", "[::1]:1-2"),
            ("[::ffff:10.0.0.1]:5", "10.0.0.1:5"),
        ] {
            assert_eq!(words.parse::<Bind>().unwrap().to_string(), shown, "{words}");
        }
        assert_eq!(binds(&["1", "[::]:2"]).to_string(), "127.0.0.1:1, [::]:2");
        assert_eq!(binds(&[]).to_string(), "nothing");
    }

    #[test]
    fn what_cannot_be_bound_is_refused_with_the_mend() {
        for (words, part) in [
            ("localhost:80", "\"localhost\" is no address"),
            ("::1:80", "in brackets, such as [::1:80]:8080"),
            ("1:2:3:4:5:6:7:8:80", "is no address"),
            ("[127.0.0.1]:80", "is no address"),
            (":80", "is no address"),
            ("127.0.0.1", "such as 127.0.0.1:8080"),
            ("[::1]", "such as [::1]:8080"),
            ("::1", "such as [::1]:8080"),
            ("127.0.0.1:0", "port 0"),
            ("127.0.0.1:", "is no port"),
            ("", "is no port"),
            ("127.0.0.1:9-8", "ends before it begins"),
            ("127.0.0.1:70000", "\"70000\" is no port"),
        ] {
            let error = words.parse::<Bind>().unwrap_err().to_string();
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
