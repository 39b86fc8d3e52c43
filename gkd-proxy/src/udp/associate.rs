//! The datagrams of a SOCKS5 program (RFC 1928, section 7): its relay lives no longer than the connection that asked for it
//! ([`serve`]), and takes datagrams from the address of that connection only.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::sleep;

use super::{Idle, MAX_PAYLOAD, bind, ended, is_passing, next_of, recv_from};
use crate::connection::VirtualConnection;
use crate::destination::{Host, Target};

/// Numbers of the forms of an address (RFC 1928, section 5).
mod form {
    pub(super) const IPV4: u8 = 1;
    pub(super) const NAME: u8 = 3;
    pub(super) const IPV6: u8 = 4;
}

/// How long a socket that cannot be read rests.
const REST: std::time::Duration = std::time::Duration::from_millis(100);

/// A socket for the datagrams of a program: at the address to which it connected, so that it reaches the relay as it
/// reached the proxy.
pub(crate) fn open(control: &TcpStream) -> io::Result<UdpSocket> {
    let mut address = control.local_addr()?;
    // A listener of both families shows an address of IPv4 as a mapped one.
    address.set_ip(address.ip().to_canonical());
    address.set_port(0);
    bind(address)
}

/// Carries datagrams until the program closes its connection, the other end ends the flow, or it is idle for too long.
///
/// `expected` is the port that the program said it would send from; where it said none, that of its first datagram.
pub(crate) async fn serve<C: VirtualConnection>(
    control: &mut TcpStream,
    socket: &UdpSocket,
    connection: &C,
    expected: Option<u16>,
    idle: Idle,
) -> io::Result<()> {
    let program = control.peer_addr()?.ip().to_canonical();
    let mut source: Option<SocketAddr> = None;
    let mut closed = pin!(closed(control));
    let mut ended = pin!(ended(connection));
    let mut expired = pin!(idle.expired());
    loop {
        tokio::select! {
            received = recv_from(socket) => match received {
                Ok((datagram, from)) => {
                    let is_expected = source.map_or(expected, |known| Some(known.port())).is_none_or(|port| port == from.port());
                    let is_program = from.ip() == program && is_expected;
                    if !is_program {
                        tracing::debug!("a datagram of {from} was dropped: it is not the program's");
                        continue;
                    }
                    match Request::parse(datagram) {
                        Ok(Request { target, payload }) => {
                            source = Some(from);
                            idle.touch();
                            connection.send_datagram(target.to_bytes(), payload)?;
                        }
                        Err(error) => tracing::debug!("a program's datagram was dropped: {error}"),
                    }
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    tracing::debug!("a program's datagrams cannot be read: {error}");
                    sleep(REST).await;
                }
            },
            datagram = next_of(connection) => {
                let (from, payload) = datagram?;
                idle.touch();
                // One that comes before the program has sent has no receiver.
                if let (Some(source), Some(answer)) = (source, answer(&from, &payload))
                    && let Err(error) = socket.send_to(&answer, source).await
                {
                    tracing::debug!("a datagram for {source} was dropped: {error}");
                }
            }
            () = &mut closed => return Ok(()),
            () = &mut ended => return Ok(()),
            () = &mut expired => return Ok(()),
        }
    }
}

/// Waits until the program closes its connection. What it sends there says nothing.
async fn closed(control: &mut TcpStream) {
    let mut nothing = [0; 256];
    while let Ok(1..) = control.read(&mut nothing).await {}
}

/// A datagram as a program sends it.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    target: Target,
    payload: Bytes,
}

/// Why a datagram is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum RequestError {
    #[error("it is a fragment")]
    Fragment,
    #[error("its header is none of SOCKS5")]
    Malformed,
    #[error("it leads nowhere")]
    Target,
}

impl Request {
    fn parse(mut datagram: Bytes) -> Result<Self, RequestError> {
        let malformed = |_| RequestError::Malformed;
        // Reserved; some programs put something there.
        datagram.try_get_u16().map_err(malformed)?;
        if datagram.try_get_u8().map_err(malformed)? != 0 {
            return Err(RequestError::Fragment);
        }
        let host = match datagram.try_get_u8().map_err(malformed)? {
            form::IPV4 => {
                let octets = datagram.split_to_checked::<4>().ok_or(RequestError::Malformed)?;
                Host::Ip(Ipv4Addr::from(octets).into())
            }
            form::IPV6 => {
                let octets = datagram.split_to_checked::<16>().ok_or(RequestError::Malformed)?;
                Host::Ip(Ipv6Addr::from(octets).into())
            }
            form::NAME => {
                let len = usize::from(datagram.try_get_u8().map_err(malformed)?);
                if datagram.len() < len {
                    return Err(RequestError::Malformed);
                }
                let name = datagram.split_to(len);
                let name = std::str::from_utf8(&name).map_err(|_| RequestError::Target)?;
                // Some programs put an address where a name belongs.
                Host::parse(name).map_err(|_| RequestError::Target)?
            }
            _ => return Err(RequestError::Malformed),
        };
        let port = datagram.try_get_u16().map_err(malformed)?;
        let target = Target::new(host, port).map_err(|_| RequestError::Target)?;
        Ok(Self { target, payload: datagram })
    }
}

/// Takes octets off the front of a datagram.
trait SplitTo {
    fn split_to_checked<const N: usize>(&mut self) -> Option<[u8; N]>;
}

impl SplitTo for Bytes {
    fn split_to_checked<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut octets = [0; N];
        self.try_copy_to_slice(&mut octets).ok()?;
        Some(octets)
    }
}

/// What a host answered, as the program takes it; none where it says wrongly who that was, or does not fit into a
/// datagram with its header.
fn answer(from: &[u8], payload: &[u8]) -> Option<Bytes> {
    let from = Target::from_bytes(from).ok()?;
    let Host::Ip(ip) = from.host() else { return None };
    let mut out = BytesMut::with_capacity(22 + payload.len());
    out.put_slice(&[0, 0, 0]);
    match ip {
        IpAddr::V4(ip) => {
            out.put_u8(form::IPV4);
            out.put_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.put_u8(form::IPV6);
            out.put_slice(&ip.octets());
        }
    }
    out.put_u16(from.port());
    out.put_slice(payload);
    (out.len() <= MAX_PAYLOAD).then(|| out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, payload: &[u8]) -> Request {
        Request { target: target.parse().unwrap(), payload: Bytes::copy_from_slice(payload) }
    }

    fn parse(bytes: &[u8]) -> Result<Request, RequestError> {
        Request::parse(Bytes::copy_from_slice(bytes))
    }

    #[test]
    fn a_programs_datagram_is_read() {
        assert_eq!(parse(b"\0\0\0\x01\x01\x02\x03\x04\x00\x35hi"), Ok(request("1.2.3.4:53", b"hi")));
        assert_eq!(parse(b"\0\0\0\x03\x0bexample.com\x00\x35"), Ok(request("example.com:53", b"")));
        assert_eq!(parse(b"\0\0\0\x03\x071.2.3.4\x00\x35x"), Ok(request("1.2.3.4:53", b"x")));
        let v6 = [&b"\0\0\0\x04"[..], &Ipv6Addr::LOCALHOST.octets(), b"\x00\x35x"].concat();
        assert_eq!(parse(&v6), Ok(request("[::1]:53", b"x")));
    }

    #[test]
    fn what_is_no_datagram_of_socks_is_dropped() {
        let whole = b"\0\0\0\x03\x0bexample.com\x00\x35";
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), Err(RequestError::Malformed), "cut at {cut}");
        }
        assert_eq!(parse(b"\0\0\x01\x01\x01\x02\x03\x04\x00\x35hi"), Err(RequestError::Fragment));
        assert_eq!(parse(b"\0\0\0\x02\x01\x02\x03\x04\x00\x35hi"), Err(RequestError::Malformed));
        assert_eq!(parse(b"\0\0\0\x01\x01\x02\x03\x04\x00\x00hi"), Err(RequestError::Target));
        assert_eq!(parse(b"\0\0\0\x03\x01\xff\x00\x35"), Err(RequestError::Target));
        assert_eq!(parse(b"\0\0\0\x03\x00\x00\x35"), Err(RequestError::Target));
    }

    #[test]
    fn an_answer_says_who_gave_it() {
        let from: Target = "1.2.3.4:53".parse().unwrap();
        assert_eq!(answer(&from.to_bytes(), b"hi").unwrap(), &b"\0\0\0\x01\x01\x02\x03\x04\x00\x35hi"[..]);
        let name: Target = "example.com:53".parse().unwrap();
        assert_eq!(answer(&name.to_bytes(), b"hi"), None);
        assert_eq!(answer(b"", b"hi"), None);
        assert!(answer(&from.to_bytes(), &vec![0; MAX_PAYLOAD - 10]).is_some());
        assert_eq!(answer(&from.to_bytes(), &vec![0; MAX_PAYLOAD - 9]), None);
    }
}
