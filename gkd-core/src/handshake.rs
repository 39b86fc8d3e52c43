//! Hello, and Welcome or Reject, over a carrier whose own handshake is done. What they say is decided in the
//! session; this only carries them, with bounds.

use std::io;

use bytes::BytesMut;
use gkd_proto::handshake::{Answer, Hello, Reject, Welcome, decode_answer};
use gkd_proto::packet::DecodeError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::carrier::Carrier;

/// Read at a time. The decoder refuses what is declared longer than a handshake may be.
const READ: usize = 2 * 1024;

/// Why no handshake came about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandshakeError {
    #[error("the connection failed during the handshake: {0}")]
    Io(#[from] io::Error),
    #[error("the other end closed the connection during the handshake")]
    Closed,
    #[error("it does not speak gkd: {0}")]
    Decode(#[from] DecodeError),
}

/// Client: says Hello and reads the answer. What came behind the answer is returned with it.
pub(crate) async fn say_hello(
    carrier: &mut Carrier,
    hello: &Hello,
) -> Result<(Answer, BytesMut), HandshakeError> {
    let mut out = BytesMut::new();
    hello.encode(&mut out);
    carrier.write_all(&out).await?;
    carrier.flush().await?;
    let mut buf = BytesMut::new();
    loop {
        if let Some(answer) = decode_answer(&mut buf)? {
            return Ok((answer, buf));
        }
        read_more(carrier, &mut buf).await?;
    }
}

/// Server: reads the Hello. What came behind it is returned with it; nothing should, before the Welcome.
pub(crate) async fn read_hello(carrier: &mut Carrier) -> Result<(Hello, BytesMut), HandshakeError> {
    let mut buf = BytesMut::new();
    loop {
        if let Some(hello) = Hello::decode(&mut buf)? {
            return Ok((hello, buf));
        }
        read_more(carrier, &mut buf).await?;
    }
}

async fn read_more(carrier: &mut Carrier, buf: &mut BytesMut) -> Result<(), HandshakeError> {
    buf.reserve(READ);
    match carrier.read_buf(buf).await? {
        0 => Err(HandshakeError::Closed),
        _ => Ok(()),
    }
}

/// Server: lets the tunnel in.
pub(crate) async fn say_welcome(carrier: &mut Carrier, welcome: &Welcome) -> io::Result<()> {
    let mut out = BytesMut::new();
    welcome.encode(&mut out);
    carrier.write_all(&out).await?;
    carrier.flush().await
}

/// Server: does not. Waits until the client has closed, for a socket that is closed with unread bytes in it
/// resets, and the reset may overtake the answer. The caller bounds the time.
pub(crate) async fn say_reject(carrier: &mut Carrier, reject: &Reject) -> io::Result<()> {
    let mut out = BytesMut::new();
    reject.encode(&mut out);
    carrier.write_all(&out).await?;
    carrier.shutdown().await?;
    let mut rest = [0; 1024];
    while carrier.read(&mut rest).await? > 0 {}
    Ok(())
}
