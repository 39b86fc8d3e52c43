//! The PROXY header in front of a trusted peer's connection, versions 1 and 2 (haproxy's `proxy-protocol.txt`): who its client
//! really is. No byte behind the header is read.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// What version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, its end included.
const MAX_LINE: usize = 107;

/// The most bytes behind the head of version 2. Certificates of a client may be among them.
const MAX_REST: usize = 4096;

/// Client and the address that it connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Proxied {
    pub(super) client: SocketAddr,
    pub(super) local: SocketAddr,
}

/// Reads a header. None where it names nobody: then the connection is the peer's own, a question whether we live say.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<Proxied>> {
    let mut head = [0; 16];
    stream.read_exact(&mut head[..12]).await?;
    if head.starts_with(&SIGNATURE) {
        stream.read_exact(&mut head[12..]).await?;
        let len = usize::from(u16::from_be_bytes([head[14], head[15]]));
        if head[12] >> 4 != 2 || len > MAX_REST {
            return Err(malformed());
        }
        let mut rest = vec![0; len];
        stream.read_exact(&mut rest).await?;
        return second(head[12] & 0xf, head[13], &rest);
    }
    if !head.starts_with(b"PROXY ") {
        return Err(malformed());
    }
    let mut line = head[..12].to_vec();
    // Byte by byte: what is behind the line is for others.
    while !line.ends_with(b"\r\n") {
        if line.len() >= MAX_LINE {
            return Err(malformed());
        }
        line.push(stream.read_u8().await?);
    }
    let line = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    first(line.ok_or_else(malformed)?)
}

/// `PROXY TCP4 CLIENT LOCAL PORT PORT`, or `PROXY UNKNOWN` and anything.
fn first(line: &str) -> io::Result<Option<Proxied>> {
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let mut word = || words.next().ok_or_else(malformed);
    let (client, local, client_port, local_port) = (word()?, word()?, word()?, word()?);
    let address = |text: &str| -> io::Result<IpAddr> {
        match family {
            "TCP4" => text.parse().map(Ipv4Addr::into).map_err(|_| malformed()),
            "TCP6" => text.parse().map(Ipv6Addr::into).map_err(|_| malformed()),
            _ => Err(malformed()),
        }
    };
    // `parse` would take a sign as well.
    let port = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => text.parse().map_err(|_| malformed()),
        false => Err(malformed()),
    };
    let proxied = Proxied {
        client: SocketAddr::new(address(client)?, port(client_port)?),
        local: SocketAddr::new(address(local)?, port(local_port)?),
    };
    if words.next().is_some() { Err(malformed()) } else { Ok(Some(proxied)) }
}

/// What is behind the head of version 2.
fn second(command: u8, family: u8, rest: &[u8]) -> io::Result<Option<Proxied>> {
    match (command, family) {
        // LOCAL; and of a relayed one what is not TCP over IP.
        (0, _) => Ok(None),
        (1, 0x11) => addresses(rest, |octets: [u8; 4]| Ipv4Addr::from(octets).into()).map(Some),
        (1, 0x21) => addresses(rest, |octets: [u8; 16]| Ipv6Addr::from(octets).into()).map(Some),
        (1, _) => Ok(None),
        _ => Err(malformed()),
    }
}

/// Two addresses and two ports, and whatever follows.
fn addresses<const N: usize>(rest: &[u8], ip: impl Fn([u8; N]) -> IpAddr) -> io::Result<Proxied> {
    let (client, rest) = rest.split_first_chunk::<N>().ok_or_else(malformed)?;
    let (local, rest) = rest.split_first_chunk::<N>().ok_or_else(malformed)?;
    let ([a, b, c, d], _) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
    Ok(Proxied {
        client: SocketAddr::new(ip(*client), u16::from_be_bytes([*a, *b])),
        local: SocketAddr::new(ip(*local), u16::from_be_bytes([*c, *d])),
    })
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no PROXY header, or one that is malformed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy_header;

    async fn read_all(mut bytes: &[u8]) -> Result<(Option<Proxied>, usize), io::ErrorKind> {
        let proxied = read(&mut bytes).await.map_err(|error| error.kind())?;
        Ok((proxied, bytes.len()))
    }

    fn proxied(client: &str, local: &str) -> Option<Proxied> {
        Some(Proxied { client: client.parse().unwrap(), local: local.parse().unwrap() })
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_leave_what_is_behind() {
        for (client, local) in [("192.0.2.1:258", "192.0.2.2:80"), ("[2001:db8::1]:1", "[::1]:443")] {
            let header = proxy_header::encode(client.parse().unwrap(), local.parse().unwrap());
            let bytes = [&header[..], b"GET /"].concat();
            assert_eq!(read_all(&bytes).await, Ok((proxied(client, local), 5)));
        }
        let line = b"PROXY TCP4 192.0.2.1 192.0.2.2 258 80\r\nGET /";
        assert_eq!(read_all(line).await, Ok((proxied("192.0.2.1:258", "192.0.2.2:80"), 5)));
        let line = b"PROXY TCP6 2001:db8::1 ::1 1 443\r\n\r\n";
        assert_eq!(read_all(line).await, Ok((proxied("[2001:db8::1]:1", "[::1]:443"), 2)));
        for line in ["PROXY UNKNOWN\r\nx", "PROXY UNKNOWN ffff::1 whatever 1 2\r\nx"] {
            assert_eq!(read_all(line.as_bytes()).await, Ok((None, 1)));
        }
    }

    #[tokio::test]
    async fn extensions_are_passed_over_and_local_is_the_peer() {
        let header = proxy_header::encode("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        let mut extended = header.to_vec();
        extended[15] += 7;
        extended.extend(b"\x04\x00\x04abcdGET /");
        assert_eq!(read_all(&extended).await, Ok((proxied("192.0.2.1:1", "192.0.2.2:2"), 5)));
        let mut local = header.to_vec();
        local[12] = 0x20;
        assert_eq!(read_all(&local).await, Ok((None, 0)));
        let unspecified = [&SIGNATURE[..], &[0x21, 0, 0, 0], b"x"].concat();
        assert_eq!(read_all(&unspecified).await, Ok((None, 1)));
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for line in [
            "GET / HTTP/1.1\r\n\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 258\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 258 80 9\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +58 80\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 258 65536\r\n",
            "PROXY TCP4 ::1 ::1 258 80\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 258 80\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 258 80\r\n",
            &format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)),
        ] {
            assert_eq!(read_all(line.as_bytes()).await, Err(io::ErrorKind::InvalidData), "{line}");
        }
        let header = proxy_header::encode("[::1]:1".parse().unwrap(), "[::2]:2".parse().unwrap());
        for cut in 0..header.len() {
            assert_eq!(read_all(&header[..cut]).await, Err(io::ErrorKind::UnexpectedEof));
        }
        for (at, byte) in [(12, 0x11), (12, 0x22), (14, 0xff), (15, 35)] {
            let mut wrong = header.to_vec();
            wrong[at] = byte;
            assert_eq!(read_all(&wrong).await, Err(io::ErrorKind::InvalidData), "{at}");
        }
    }
}
