//! The two sides of a mapping as it needs them ([`Side`]): streams that can be reset.

use std::any::Any;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use gkd_core::Connection;
use gkd_core::proto::packet::ResetCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::connection::VirtualConnection;
use crate::socket::{self, StreamSocket};

/// What is read and thrown away of a side after its last answer, so that its kernel does not drop that.
const MAX_DISCARD: usize = 1024 * 1024;

/// How long that takes at the most.
const DISCARD_FOR: Duration = Duration::from_secs(2);

/// A stream that can be reset, where there is such a thing.
pub(crate) trait Side: AsyncRead + AsyncWrite + Unpin + Send {
    /// Resets it, now or when it is dropped.
    fn reset(&self);
}

/// Ends a side after a last answer, and waits a moment for its end; whether that came. One that is dropped with unread
/// bytes may lose what was just written.
pub(super) async fn finish(side: &mut impl Side) -> bool {
    let discard = async {
        side.flush().await?;
        side.shutdown().await?;
        let (mut buffer, mut discarded) = ([0; 1024], 0);
        while discarded < MAX_DISCARD {
            match side.read(&mut buffer).await? {
                0 => return Ok(true),
                read => discarded += read,
            }
        }
        io::Result::Ok(false)
    };
    matches!(timeout(DISCARD_FOR, discard).await, Ok(Ok(true)))
}

/// Reads and writes as what is in a field does.
macro_rules! as_its_field {
    ([$($generics:tt)*] $side:ty, $field:ident) => {
        impl<$($generics)*> AsyncRead for $side {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().$field).poll_read(cx, buf)
            }
        }

        impl<$($generics)*> AsyncWrite for $side {
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.get_mut().$field).poll_write(cx, buf)
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().$field).poll_flush(cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().$field).poll_shutdown(cx)
            }
        }
    };
}

/// A stream of whoever embeds this, and how it is reset.
pub(super) struct Own<S> {
    stream: S,
    reset: fn(&S),
    /// It waits for the other side: dropped now, it is reset, for its end would be taken for an answer.
    waits: bool,
}

impl<S> Own<S> {
    pub(super) fn new(stream: S, reset: fn(&S)) -> Self {
        Self { stream, reset, waits: false }
    }

    /// The same that is reset this way.
    pub(super) fn reset_by(mut self, reset: fn(&S)) -> Self {
        self.reset = reset;
        self
    }

    /// The same that waits for the other side, or no longer.
    pub(super) fn waiting(mut self, waits: bool) -> Self {
        self.waits = waits;
        self
    }
}

impl<S> Drop for Own<S> {
    fn drop(&mut self) {
        if self.waits {
            (self.reset)(&self.stream);
        }
    }
}

as_its_field!([S: AsyncRead + AsyncWrite + Unpin] Own<S>, stream);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Side for Own<S> {
    fn reset(&self) {
        (self.reset)(&self.stream);
    }
}

/// Resets what is known here; any other stream is only dropped.
pub(super) fn reset_known<S: 'static>(stream: &S) {
    let stream = stream as &dyn Any;
    if let Some(socket) = stream.downcast_ref::<TcpStream>() {
        socket::reset_on_drop(socket);
    } else if let Some(connection) = stream.downcast_ref::<Connection>() {
        connection.reset(ResetCode::STREAM);
    }
}

/// A connection of a session.
pub(crate) struct Virtual<'a, C>(pub(crate) &'a C);

impl<C: VirtualConnection> AsyncRead for Virtual<'_, C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, buf)
    }
}

impl<C: VirtualConnection> AsyncWrite for Virtual<'_, C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What is accepted is on its way.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_shutdown(cx)
    }
}

impl<C: VirtualConnection> Side for Virtual<'_, C> {
    fn reset(&self) {
        self.0.reset(ResetCode::STREAM);
    }
}

/// A program's or destination's socket, of which another can watch for a reset meanwhile.
pub(crate) struct Socket<'a, 's, S: StreamSocket + 's> {
    pub(crate) reader: S::ReadHalf<'s>,
    pub(crate) socket: &'a S,
}

impl<'s, S: StreamSocket + 's> AsyncRead for Socket<'_, 's, S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().reader).poll_read(cx, buf)
    }
}

impl<'s, S: StreamSocket + 's> AsyncWrite for Socket<'_, 's, S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.try_write(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_write_ready(cx))?;
                }
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown_write())
    }
}

impl<'s, S: StreamSocket + 's> Side for Socket<'_, 's, S> {
    fn reset(&self) {
        self.socket.reset_on_drop();
    }
}

/// With TLS, or without.
impl<S: Side> Side for Either<S, Box<TlsStream<S>>> {
    fn reset(&self) {
        match self {
            Self::Left(side) => side.reset(),
            Self::Right(tls) => tls.get_ref().0.reset(),
        }
    }
}
