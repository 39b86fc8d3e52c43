//! The program's side of SOCKS5 (RFC 1928): CONNECT without authentication.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Opens a connection to `to` through the proxy.
pub(crate) fn connect(proxy: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[5, 1, 0])?;
    let mut method = [0; 2];
    stream.read_exact(&mut method)?;
    if method != [5, 0] {
        return Err(io::Error::other(format!(
            "the proxy answers {method:?} instead of SOCKS5 without a log-in"
        )));
    }
    let mut request = vec![5, 1, 0];
    match to.ip() {
        std::net::IpAddr::V4(ip) => {
            request.push(1);
            request.extend(ip.octets());
        }
        std::net::IpAddr::V6(ip) => {
            request.push(4);
            request.extend(ip.octets());
        }
    }
    request.extend(to.port().to_be_bytes());
    stream.write_all(&request)?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer)?;
    if answer[1] != 0 {
        return Err(io::Error::other(format!("the proxy refuses with {}", answer[1])));
    }
    let rest = if answer[3] == 4 { 18 } else { 6 };
    stream.read_exact(&mut [0; 18][..rest])?;
    Ok(stream)
}
