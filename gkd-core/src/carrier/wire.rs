//! What a carrier's handshake runs over: a TCP connection, or any stream that the caller brings, perhaps with a
//! WebSocket in it, and perhaps with the TLS of a web server around that. Gives back bytes that were read ahead to tell
//! what comes in, and bounds what is read before a key is proved.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use gkd_proto::PathSample;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::ws;
use crate::socket::Watch;

/// What befalls a tunnel through a web server that is ended or started anew.
const WEB_CLOSED: &str = "the web server closed the connection";

/// A raw stream under a carrier.
pub struct Wire {
    io: Io,
    /// Bytes that were read ahead; they come before those of `io`.
    front: Bytes,
    /// How many more bytes may be read while the handshake runs.
    allowance: Option<usize>,
}

enum Io {
    Tcp(TcpStream, Watch),
    Brought(Box<dyn Stream>),
    /// The TLS of a web server, outside of what gkd speaks.
    Web(Box<TlsStream<Wire>>),
    WebSocket(Box<ws::Stream>),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Wire {
    /// A stream that the caller brings: an in-memory pipe, say. A `TcpStream` goes through `From`, so that
    /// the kernel's view of it stays within reach.
    pub fn brought(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::of(Io::Brought(Box::new(io)))
    }

    /// Over the TLS of a web server.
    pub(super) fn web(tls: TlsStream<Self>) -> Self {
        Self::of(Io::Web(Box::new(tls)))
    }

    /// Over WebSocket.
    pub(super) fn websocket(stream: ws::Stream) -> Self {
        Self::of(Io::WebSocket(Box::new(stream)))
    }

    fn of(io: Io) -> Self {
        Self { io, front: Bytes::new(), allowance: None }
    }

    /// The TCP connection, where there is one at the bottom.
    pub fn socket(&self) -> Option<&TcpStream> {
        match &self.io {
            Io::Tcp(tcp, _) => Some(tcp),
            Io::Brought(_) => None,
            Io::Web(tls) => tls.get_ref().0.socket(),
            Io::WebSocket(stream) => stream.wire().socket(),
        }
    }

    /// The kernel's view of the TCP connection; empty where there is none.
    pub(super) fn sample(&mut self) -> PathSample {
        match &mut self.io {
            Io::Tcp(tcp, watch) => watch.sample(tcp),
            Io::Brought(_) => PathSample::default(),
            Io::Web(tls) => tls.get_mut().0.sample(),
            Io::WebSocket(stream) => stream.wire_mut().sample(),
        }
    }

    /// The other end's address, where it has one.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.socket().and_then(|tcp| tcp.peer_addr().ok())
    }

    /// Puts back bytes that were read ahead.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        debug_assert!(self.front.is_empty(), "bytes are put back once");
        // An empty part of a buffer would keep all of it for as long as the connection lasts.
        self.front = if bytes.is_empty() { Bytes::new() } else { bytes };
    }

    /// From here on no more than `most` bytes are read, what WebSocket adds to them and what was put back included; `None`
    /// lifts the bound.
    pub(super) fn allow(&mut self, most: Option<usize>) {
        match &mut self.io {
            Io::WebSocket(stream) => stream.wire_mut().allow(most),
            _ => self.allowance = most.map(|most| most.saturating_sub(self.front.len())),
        }
    }
}

impl From<TcpStream> for Wire {
    fn from(tcp: TcpStream) -> Self {
        let watch = Watch::new(&tcp);
        Self::of(Io::Tcp(tcp, watch))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer_addr() {
            Some(address) => write!(f, "Wire({address})"),
            None => f.write_str("Wire"),
        }
    }
}

macro_rules! with_io {
    ($self:ident, $io:ident => $call:expr) => {
        match &mut $self.get_mut().io {
            Io::Tcp(tcp, _) => {
                let $io = Pin::new(tcp);
                $call
            }
            Io::Brought(brought) => {
                let $io = Pin::new(brought);
                $call
            }
            Io::Web(tls) => {
                let $io = Pin::new(tls.as_mut());
                $call
            }
            Io::WebSocket(stream) => {
                let $io = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl Wire {
    /// Reads past what was put back.
    fn poll_read_io(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let is_web = matches!(self.io, Io::Web(_));
        with_io!(self, io => io.poll_read(cx, buf)).map_err(|error| match error.kind() {
            // The library has a page on that, which is of no use to a user.
            io::ErrorKind::UnexpectedEof if is_web => io::Error::new(error.kind(), WEB_CLOSED),
            _ => error,
        })
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.front.is_empty() {
            let len = buf.remaining().min(self.front.len());
            buf.put_slice(&self.front[..len]);
            self.front.advance(len);
            if self.front.is_empty() {
                self.front = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        let Some(allowance) = self.allowance else {
            return self.poll_read_io(cx, buf);
        };
        if allowance == 0 {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, TooMuch)));
        }
        let most = allowance.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(self.as_mut().poll_read_io(cx, &mut part))?;
        let len = part.filled().len();
        buf.advance(len);
        self.allowance = Some(allowance - len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        with_io!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with_io!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tcp(tcp, _) => tcp.is_write_vectored(),
            Io::Brought(brought) => brought.is_write_vectored(),
            Io::Web(tls) => tls.is_write_vectored(),
            Io::WebSocket(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_io!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_io!(self, io => io.poll_shutdown(cx))
    }
}

/// The other end says more than a handshake takes. A type of its own so that it is found again behind the
/// `io::Error`s of other libraries.
#[derive(Debug, thiserror::Error)]
#[error("more bytes than a handshake takes")]
pub(super) struct TooMuch;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A buffer that tells by its count whether it is still held.
    struct Counted {
        _count: Arc<()>,
    }

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            b"read ahead"
        }
    }

    #[tokio::test]
    async fn a_buffer_that_was_read_ahead_is_not_held_once_it_is_read() {
        let count = Arc::new(());
        let buffer = || Bytes::from_owner(Counted { _count: count.clone() });
        let mut wire = Wire::brought(tokio::io::empty());
        wire.put_back(buffer());
        assert_eq!(Arc::strong_count(&count), 2);
        let mut all = Vec::new();
        wire.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, b"read ahead");
        assert_eq!(Arc::strong_count(&count), 1);
        // What is empty, of a buffer that is not.
        let mut rest = buffer();
        rest.advance(rest.len());
        wire.put_back(rest);
        assert_eq!(Arc::strong_count(&count), 1);
    }

    #[tokio::test]
    async fn what_was_put_back_counts_as_read() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(&[7; 20]).await.unwrap();
        let mut wire = Wire::brought(near);
        wire.put_back(Bytes::from_static(b"read ahead"));
        wire.allow(Some(12));
        let mut all = Vec::new();
        let error = wire.read_to_end(&mut all).await.unwrap_err();
        assert_eq!(all, b"read ahead\x07\x07");
        assert!(error.get_ref().is_some_and(|cause| cause.is::<TooMuch>()), "{error}");
    }
}
