//! What the rooms of this crate need of a session: connections ([`VirtualConnection`]), and somebody who
//! opens them ([`Opener`]).
//!
//! Both ends of a session hold the same thing, so forward and reverse are one code: whoever listens opens,
//! whoever dials accepts. The traits keep the rooms free of tunnels and packets, and let their tests run over
//! memory.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use gkd_core::proto::id::PeerId;
use gkd_core::proto::packet::{DialError, ResetCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::reach::ReachError;

/// One virtual connection: a reliable byte stream whose two directions end on their own.
///
/// Its reader and its writer may be two futures of one task, or two tasks; each direction keeps one waker.
/// A poll that returns [`Poll::Pending`] has changed nothing but that waker. Dropping it ends it as a kernel
/// socket does: accepted bytes are still sent.
///
/// After a reset, whoever asked for it, reads and writes fail with [`io::ErrorKind::ConnectionReset`] or a
/// kindred error; no other error is passing.
pub trait VirtualConnection: Send + Sync + 'static {
    /// As [`AsyncRead::poll_read`].
    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;

    /// Appends what can be read to `chunks`, at most `most` bytes in a bounded number of pieces. How many
    /// bytes; 0 at the end of this direction.
    fn poll_read_batch(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<io::Result<usize>>;

    /// Takes `bytes` from the front, as many as are accepted; ready when at least one was, or none are left.
    fn poll_write_bytes(&self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>>;

    /// As [`AsyncWrite::poll_write`].
    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>>;

    /// Ends the direction from here; ready when the other end holds all of it.
    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// At the end that opened it: waits until the far end has reached the destination, or has not.
    fn connected(&self) -> impl Future<Output = Result<(), ReachError>> + Send;

    /// At the end that accepted it: tells whether the destination was reached.
    fn confirm(&self, result: Result<(), DialError>);

    /// Ends both directions at once. Without effect on one that has ended.
    fn reset(&self, code: ResetCode);

    /// Waits until it is reset by the other end, or with its session. May wait for ever where this cannot be
    /// told; then a reset shows at the next read or write.
    fn lost(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Sends a datagram beside the stream: unordered and unacknowledged, with an address that only the other end reads.
    /// False when the oldest that waited was dropped for it.
    fn send_datagram(&self, address: Bytes, payload: Bytes) -> io::Result<bool>;

    /// The next datagram: its address, and what it carries.
    fn poll_recv_datagram(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Bytes, Bytes)>>;

    /// Who opens connections of the same session to the other end.
    type Session: Opener;

    /// The session that it belongs to.
    fn session(&self) -> Self::Session;

    /// Who is at the other end: the key that it proved.
    fn peer(&self) -> PeerId;

    /// The bytes of the Connect that opened it.
    fn destination(&self) -> &Bytes;
}

/// Opens connections to the other end of a session.
pub trait Opener: Clone + Send + Sync + 'static {
    /// What it opens.
    type Connection: VirtualConnection;

    /// Opens a connection to an [encoded](crate::Destination::encode) destination. Waits while the session has
    /// no tunnel: the caller sets the bound, by dropping the future. Does not wait for the far end's dial.
    fn open(&self, destination: Bytes) -> impl Future<Output = io::Result<Self::Connection>> + Send;

    /// Waits until no tunnel of the session is up, or it has ended. For ever where that is not told.
    fn down(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Waits until a tunnel of the session is up. False where none will be: it has ended.
    fn up(&self) -> impl Future<Output = bool> + Send {
        std::future::ready(true)
    }
}

/// A connection as tokio's streams are, for what speaks over one. Shared, so that it can still be asked for
/// the result of its dial.
pub(crate) struct Stream<C>(pub(crate) Arc<C>);

impl<C: VirtualConnection> AsyncRead for Stream<C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.poll_read(cx, buf)
    }
}

impl<C: VirtualConnection> AsyncWrite for Stream<C> {
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
