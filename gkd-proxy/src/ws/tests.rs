mod copying;
mod frames;
mod half_closed;
mod handshakes;
mod listeners;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::dial::Dialer;
use crate::exit::Exit;
use crate::listen::{ListenConfig, Listening, listen};
use crate::memory::{self, Memory};
use crate::relay::RelayConfig;
use crate::rules::Rules;

/// So long a test waits for what has to come.
const LONG: Duration = Duration::from_secs(20);

/// The mask of all frames that tests write.
const MASK: [u8; 4] = [0x5a, 0x01, 0xfe, 0x33];

/// The head of a request that is upgraded, with these further headers.
fn request(more: &str) -> String {
    format!(
        "GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

/// What the key of [`request`] is answered with (RFC 6455, section 1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A frame of a client: its first byte, and what it carries.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = head(first, payload.len(), 0x80);
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

/// The head of a frame, up to its length.
fn head(first: u8, length: usize, masked: u8) -> Vec<u8> {
    match length {
        ..=125 => vec![first, masked | length as u8],
        126..=0xffff => [&[first, masked | 126][..], &(length as u16).to_be_bytes()].concat(),
        _ => [&[first, masked | 127][..], &(length as u64).to_be_bytes()].concat(),
    }
}

/// Reads a head of HTTP, byte by byte.
async fn read_head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match io.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Opens a WebSocket by hand.
async fn upgrade(io: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    io.write_all(request("").as_bytes()).await.unwrap();
    let head = read_head(io).await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "{head}");
}

/// A listener, and the far ends of its connections.
async fn listening(form: &str, config: &ListenConfig) -> (Listening, UnboundedReceiver<Memory>) {
    let (opener, far) = memory::opener();
    (listen(&form.parse().unwrap(), opener, config).await.unwrap(), far)
}

/// An exit that reaches loopback, serving whatever comes.
fn serve_far_ends(mut far: UnboundedReceiver<Memory>) {
    let dialer = Dialer::new(Rules::allow(["127.0.0.0/8".parse().unwrap()]));
    let exit = Arc::new(Exit::new(dialer, RelayConfig::default()));
    tokio::spawn(async move {
        while let Some(connection) = far.recv().await {
            exit.clone().spawn(connection);
        }
    });
}

/// A destination that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = socket.split();
                tokio::io::copy(&mut reader, &mut writer).await?;
                writer.shutdown().await
            });
        }
    });
    addr
}

async fn program(listening: &Listening) -> TcpStream {
    TcpStream::connect(listening.local_addrs()[0]).await.unwrap()
}
