//! One port for SOCKS5 and HTTP: the first byte tells which. It is looked at, not taken.

use std::io;

use tokio::net::TcpStream;

/// What a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// SOCKS5: its version.
    Socks5,
    /// HTTP: the first letter of a method.
    Http,
    /// Neither: this byte.
    Unknown(u8),
    /// It has closed without a byte.
    Nothing,
}

/// Waits for the first byte. The caller sets the bound.
pub(crate) async fn tell(socket: &TcpStream) -> io::Result<Spoken> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Ok(Spoken::Nothing);
    }
    Ok(match first[0] {
        5 => Spoken::Socks5,
        // Methods are words of capital letters; small ones get their answer from hyper. An empty line ahead
        // of a request is to be passed over (RFC 9112, section 2.2).
        byte if byte.is_ascii_alphabetic() || byte == b'\r' || byte == b'\n' => Spoken::Http,
        byte => Spoken::Unknown(byte),
    })
}
