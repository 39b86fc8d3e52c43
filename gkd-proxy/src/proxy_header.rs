//! The header of the PROXY protocol, version 2, which tells a destination who its client really is
//! (haproxy's `proxy-protocol.txt`, section 2.2).

use std::net::{IpAddr, SocketAddr};

use bytes::{BufMut, Bytes, BytesMut};

/// What every header begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, a connection that was relayed.
const VERSION_AND_COMMAND: u8 = 0x21;

/// Version 2, a connection of the proxy itself.
const VERSION_AND_LOCAL: u8 = 0x20;

/// TCP over IPv4.
const TCP4: u8 = 0x11;

/// TCP over IPv6.
const TCP6: u8 = 0x21;

/// The part of a header that tells how long the rest is, in bytes.
pub(crate) const HEAD: usize = 16;

/// The longest rest of one that [`encode`] makes.
const MAX_REST: usize = 36;

/// How many bytes follow the head of one that [`encode`] made; none where it is none.
pub(crate) fn rest(head: &[u8]) -> Option<usize> {
    let rest = usize::from(u16::from_be_bytes(head.get(HEAD - 2..HEAD)?.try_into().ok()?));
    let right = head.starts_with(&SIGNATURE) && head[SIGNATURE.len()] == VERSION_AND_COMMAND;
    Some(rest).filter(|rest| right && *rest <= MAX_REST)
}

/// The header for a TCP connection from `client` to `local`.
pub(crate) fn encode(client: SocketAddr, local: SocketAddr) -> Bytes {
    let mut out = BytesMut::with_capacity(52);
    out.put_slice(&SIGNATURE);
    out.put_u8(VERSION_AND_COMMAND);
    match (client.ip().to_canonical(), local.ip().to_canonical()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.put_u8(TCP4);
            out.put_u16(12);
            out.put_slice(&from.octets());
            out.put_slice(&to.octets());
        }
        (from, to) => {
            let v6 = |ip| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            out.put_u8(TCP6);
            out.put_u16(36);
            out.put_slice(&v6(from).octets());
            out.put_slice(&v6(to).octets());
        }
    }
    out.put_u16(client.port());
    out.put_u16(local.port());
    out.freeze()
}

/// The header for a connection that is for nobody else, a health check for instance.
pub(crate) fn of_ourselves() -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD);
    out.put_slice(&SIGNATURE);
    out.put_u8(VERSION_AND_LOCAL);
    // No family, and no addresses behind it.
    out.put_u8(0);
    out.put_u16(0);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_our_own_names_nobody() {
        assert_eq!(&of_ourselves()[..], b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x20\x00\x00\x00");
    }

    #[test]
    fn the_bytes_are_those_of_the_specification() {
        let header = encode("192.0.2.1:258".parse().unwrap(), "192.0.2.2:80".parse().unwrap());
        let expected = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c\xc0\x00\x02\x01\xc0\x00\x02\x02\x01\x02\x00\x50";
        assert_eq!(&header[..], expected);
    }

    #[test]
    fn both_families_have_their_length() {
        let header = encode("[2001:db8::1]:1".parse().unwrap(), "[::1]:2".parse().unwrap());
        assert_eq!((header[13], header[14], header[15], header.len()), (0x21, 0, 36, 52));
        // A socket of both families shows an IPv4 program as a mapped address.
        let header = encode("[::ffff:192.0.2.1]:1".parse().unwrap(), "[::ffff:192.0.2.2]:2".parse().unwrap());
        assert_eq!((header[13], header.len()), (0x11, 28));
    }

    #[test]
    fn the_head_tells_how_long_the_rest_is() {
        for (client, local) in [("192.0.2.1:1", "192.0.2.2:2"), ("[::1]:1", "[::2]:2")] {
            let header = encode(client.parse().unwrap(), local.parse().unwrap());
            assert_eq!(rest(&header[..HEAD]), Some(header.len() - HEAD));
            let mut wrong = header.to_vec();
            wrong[14] = 1;
            assert_eq!(rest(&wrong), None);
            assert_eq!(rest(&header[1..]), None);
            assert_eq!(rest(&header[..HEAD - 1]), None);
        }
    }
}
