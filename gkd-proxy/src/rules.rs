//! Which addresses may be dialled: [`Rules`].
//!
//! By default only what is public and unicast: everything else reaches into the machine that dials or the
//! networks behind it. [`Rules::check`] judges an address, never a name: a name is resolved first, each of its
//! addresses is judged, and just that address is dialled, so that a name cannot lead elsewhere afterwards.
//!
//! An IPv6 address that only wraps an IPv4 one (mapped, translated, 6to4) is judged by the one inside.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// How long the machine's own addresses are taken to stay what they are. Reading them takes the kernel some
/// tens of microseconds, too long for every dial.
const OWN_ADDRESSES_FOR: Duration = Duration::from_secs(5);

/// The port of mail between servers, which an open line is abused for.
const MAIL_PORT: u16 = 25;

/// What may be dialled.
///
/// [`Rules::default`] allows public unicast addresses, except those of this machine and port 25 of all.
#[derive(Debug, Default)]
pub struct Rules {
    allowed: Vec<IpNet>,
    own: OwnAddresses,
}

/// Why an address may not be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Denial {
    /// It is within a special range.
    Special(Range),
    /// It is one of the machine that dials.
    Own,
    /// The machine's own addresses cannot be read, so none can be told from them.
    OwnUnknown,
    /// Port 25.
    Mail,
}

/// The special ranges, of the registries of RFC 6890 and its successors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Range {
    /// `0.0.0.0/8`, `::`.
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    Loopback,
    /// RFC 1918, `fc00::/7`, and `fec0::/10` of old.
    Private,
    /// `100.64.0.0/10`: between a provider and its customers.
    Shared,
    /// `169.254.0.0/16`, `fe80::/10`: where clouds tell their machines secrets.
    LinkLocal,
    /// More than one receiver.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// For examples in documents.
    Documentation,
    /// For measuring devices.
    Benchmarking,
    /// A translator or relay of this network: `64:ff9b:1::/48`, Teredo, `192.88.99.0/24`.
    Translation,
    /// Assigned to nobody, or to a purpose that no server has.
    Reserved,
}

/// IPv4 ranges that are not public unicast; the first that holds an address names it.
const SPECIAL_V4: [(Ipv4Net, Range); 16] = [
    (v4(0, 0, 0, 0, 8), Range::Unspecified),
    (v4(10, 0, 0, 0, 8), Range::Private),
    (v4(100, 64, 0, 0, 10), Range::Shared),
    (v4(127, 0, 0, 0, 8), Range::Loopback),
    (v4(169, 254, 0, 0, 16), Range::LinkLocal),
    (v4(172, 16, 0, 0, 12), Range::Private),
    (v4(192, 0, 0, 0, 24), Range::Reserved),
    (v4(192, 0, 2, 0, 24), Range::Documentation),
    (v4(192, 88, 99, 0, 24), Range::Translation),
    (v4(192, 168, 0, 0, 16), Range::Private),
    (v4(198, 18, 0, 0, 15), Range::Benchmarking),
    (v4(198, 51, 100, 0, 24), Range::Documentation),
    (v4(203, 0, 113, 0, 24), Range::Documentation),
    (v4(224, 0, 0, 0, 4), Range::Multicast),
    (v4(255, 255, 255, 255, 32), Range::Broadcast),
    (v4(240, 0, 0, 0, 4), Range::Reserved),
];

/// IPv6 ranges that are not public unicast; the first that holds an address names it.
const SPECIAL_V6: [(Ipv6Net, Range); 13] = [
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 128), Range::Unspecified),
    (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), Range::Loopback),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7), Range::Private),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), Range::LinkLocal),
    (v6([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10), Range::Private),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), Range::Multicast),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48), Range::Translation),
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 32), Range::Translation),
    (v6([0x2001, 2, 0, 0, 0, 0, 0, 0], 48), Range::Benchmarking),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), Range::Documentation),
    (v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), Range::Documentation),
    // What IETF protocols use (RFC 2928): anycast services and identifiers, no servers.
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), Range::Reserved),
    (v6([0x100, 0, 0, 0, 0, 0, 0, 0], 64), Range::Reserved),
];

/// All of IPv6 that is given out as public unicast (RFC 4291, section 4).
const PUBLIC_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), prefix)
}

impl Rules {
    /// The default rules, and addresses that may be dialled whatever the default says of them: special ones,
    /// the machine's own, and their port 25. A mapped, translated or 6to4 address is in a range of IPv4 when
    /// the one inside is.
    pub fn allow(ranges: impl IntoIterator<Item = IpNet>) -> Self {
        Self { allowed: ranges.into_iter().collect(), own: OwnAddresses::default() }
    }

    /// The same, with addresses that count as the machine's own although no interface has them: those at
    /// which a router in front of it lets it be reached.
    pub fn with_own(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.own.further.extend(addresses.into_iter().map(|ip| ip.to_canonical()));
        self
    }

    /// Whether this address and port may be dialled.
    pub fn check(&self, addr: SocketAddr) -> Result<(), Denial> {
        let outer = addr.ip().to_canonical();
        let inner = embedded(outer);
        if [Some(outer), inner]
            .into_iter()
            .flatten()
            .any(|ip| self.allowed.iter().any(|net| net.contains(&ip)))
        {
            return Ok(());
        }
        let judged = inner.unwrap_or(outer);
        if let Some(range) = special(judged) {
            return Err(Denial::Special(range));
        }
        if addr.port() == MAIL_PORT {
            return Err(Denial::Mail);
        }
        match self.own.have(outer).and_then(|own| Ok(own || self.own.have(judged)?)) {
            Ok(false) => Ok(()),
            Ok(true) => Err(Denial::Own),
            Err(_) => Err(Denial::OwnUnknown),
        }
    }
}

/// Words are no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a range of addresses: write one such as 10.0.0.0/8, or a single address", .0.escape_debug())]
pub struct RangeError(Box<str>);

/// A range that a user wrote: `ADDRESS/LENGTH`, or a single address.
pub fn parse_range(words: &str) -> Result<IpNet, RangeError> {
    let single = || words.parse().map(|ip: IpAddr| IpNet::from(ip));
    words.parse().or_else(|_| single()).map(|net: IpNet| net.trunc()).map_err(|_| RangeError(words.into()))
}

/// The IPv4 address that a translated (RFC 6052) or a 6to4 (RFC 3056) one stands for.
fn embedded(ip: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(ip) = ip else { return None };
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)).into())
        }
        _ => None,
    }
}

/// The special range that an address is in.
fn special(ip: IpAddr) -> Option<Range> {
    match ip {
        IpAddr::V4(ip) => SPECIAL_V4.iter().find(|(net, _)| net.contains(&ip)).map(|(_, range)| *range),
        IpAddr::V6(ip) => {
            let named = SPECIAL_V6.iter().find(|(net, _)| net.contains(&ip)).map(|(_, range)| *range);
            named.or_else(|| (!PUBLIC_V6.contains(&ip)).then_some(Range::Reserved))
        }
    }
}

/// The machine's own addresses, read anew from time to time.
#[derive(Debug, Default)]
struct OwnAddresses {
    further: HashSet<IpAddr>,
    interfaces: Mutex<Option<(Instant, Arc<HashSet<IpAddr>>)>>,
}

impl OwnAddresses {
    fn have(&self, ip: IpAddr) -> io::Result<bool> {
        Ok(self.further.contains(&ip) || self.interfaces()?.contains(&ip))
    }

    /// Those of the interfaces. When they cannot be read, the ones that were read last; an error before.
    fn interfaces(&self) -> io::Result<Arc<HashSet<IpAddr>>> {
        let mut known = self.interfaces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, addresses)) = &*known
            && read.elapsed() < OWN_ADDRESSES_FOR
        {
            return Ok(Arc::clone(addresses));
        }
        match (if_addrs::get_if_addrs(), &*known) {
            (Ok(interfaces), _) => {
                let addresses: HashSet<_> = interfaces.iter().map(|interface| interface.ip()).collect();
                let addresses = Arc::new(addresses);
                *known = Some((Instant::now(), Arc::clone(&addresses)));
                Ok(addresses)
            }
            (Err(error), Some((_, addresses))) => {
                tracing::warn!("the machine's own addresses cannot be read anew: {error}");
                Ok(Arc::clone(addresses))
            }
            (Err(error), None) => Err(error),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Special(range) => write!(f, "{range}"),
            Self::Own => f.write_str("an address of the server itself"),
            Self::OwnUnknown => f.write_str("perhaps of the server itself, whose addresses cannot be read"),
            Self::Mail => f.write_str("port 25, mail between servers"),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::Shared => "shared by a provider's customers",
            Self::LinkLocal => "link-local",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Documentation => "for documentation",
            Self::Benchmarking => "for benchmarks",
            Self::Translation => "a translator's",
            Self::Reserved => "reserved",
        })
    }
}

#[cfg(test)]
mod tests;
