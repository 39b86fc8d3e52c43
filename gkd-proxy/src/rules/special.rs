//! Which addresses are not public unicast ([`Range`]), and the IPv4 address that an IPv6 one may only wrap.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

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

/// Translated addresses (RFC 6052): an IPv4 one stands in the last four bytes.
const TRANSLATED: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

/// 6to4 addresses (RFC 3056): an IPv4 one stands in the third byte and those behind it.
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16);

/// Mapped addresses (RFC 4291): nothing but another way to write an IPv4 one.
const MAPPED: Ipv6Net = v6([0, 0, 0, 0, 0, 0xffff, 0, 0], 96);

/// Whether a range is one of translated or 6to4 addresses, so that whoever names it means these.
pub(super) fn is_of_wrappers(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if TRANSLATED.contains(net) || SIX_TO_FOUR.contains(net))
}

/// The range of the IPv4 addresses that a range of translated or 6to4 ones stands for.
pub(super) fn embedded_range(net: &IpNet) -> Option<IpNet> {
    let inner = |net: &Ipv6Net, outer: &Ipv6Net| {
        let length = (net.prefix_len() - outer.prefix_len()).min(32);
        let IpAddr::V4(ip) = embedded(net.addr().into())? else { return None };
        Ipv4Net::new(ip, length).ok().map(|net| net.trunc().into())
    };
    match net {
        IpNet::V6(net) if TRANSLATED.contains(net) => inner(net, &TRANSLATED),
        IpNet::V6(net) if SIX_TO_FOUR.contains(net) => inner(net, &SIX_TO_FOUR),
        _ => None,
    }
}

/// A range of mapped addresses as the one of IPv4 that it is; any other as it was.
pub(super) fn canonical(net: IpNet) -> IpNet {
    match net {
        IpNet::V6(mapped) if MAPPED.contains(&mapped) => {
            let ip = mapped.addr().to_ipv4_mapped();
            let inner = ip.and_then(|ip| Ipv4Net::new(ip, mapped.prefix_len() - MAPPED.prefix_len()).ok());
            inner.map_or(net, IpNet::from)
        }
        _ => net,
    }
}

/// The IPv4 address that a translated (RFC 6052) or a 6to4 (RFC 3056) one stands for.
pub(super) fn embedded(ip: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(ip) = ip else { return None };
    match ip.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)).into())
        }
        _ => None,
    }
}

/// The special range that an address is in.
pub(super) fn special(ip: IpAddr) -> Option<Range> {
    match ip {
        IpAddr::V4(ip) => SPECIAL_V4.iter().find(|(net, _)| net.contains(&ip)).map(|(_, range)| *range),
        IpAddr::V6(ip) => {
            let named = SPECIAL_V6.iter().find(|(net, _)| net.contains(&ip)).map(|(_, range)| *range);
            named.or_else(|| (!PUBLIC_V6.contains(&ip)).then_some(Range::Reserved))
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
