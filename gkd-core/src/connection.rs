//! [`Connection`]: one virtual, reliable, ordered, half-closable byte stream inside a session. This file is
//! the handle and its own calls; the `AsyncRead` and `AsyncWrite` of tokio are in `tokio_io`, those of
//! `futures` in `futures_io`, the polls that all of them stand on in `poll`.

mod poll;
mod tokio_io;

#[cfg(feature = "futures-io")]
mod futures_io;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use gkd_proto::id::{ConnectionId, PeerId};
use gkd_proto::packet::{Datagram, DialError, ResetCode};

use crate::error::{ConnectError, WriteAllByError};
use crate::manager::{Accepted, TunnelManager};
use crate::runtime;
use crate::session::SessionHandle;

/// One virtual byte stream between a client and a server.
///
/// It reads and writes like a TCP stream: through tokio's `AsyncRead` and `AsyncWrite` (those of `futures`
/// too, with the feature `futures-io`), which `&Connection` implements as well, so that a reader and a writer
/// may live in two tasks. There is room for one waiting reader and one waiting writer; of two readers that
/// wait at once the last is woken.
///
/// * **Writing** accepts bytes while the connection's send buffer has room. Accepted bytes are delivered, in
///   order and once, or the connection is reset. While no tunnel is up they are queued.
/// * **`shutdown().await`** ends this direction and is ready when the other end's process holds all of it.
///   The other direction runs on.
/// * **Dropping** acts as closing a kernel socket does: what was accepted is still sent, then the end of the
///   stream; data that arrives for the dropped reader is answered with a reset. A drop while the thread
///   panics resets the connection.
/// * **A reset**, by either end, makes all calls fail with
///   [`ConnectionReset`](io::ErrorKind::ConnectionReset). The error holds a
///   [`ConnectionReset`](crate::ConnectionReset) that tells the code.
pub struct Connection {
    manager: Arc<TunnelManager>,
    id: ConnectionId,
    destination: Bytes,
    remote: Option<SocketAddr>,
    /// The other end opened it.
    accepted: bool,
}

impl Connection {
    /// A connection that this end opened; its slot is there.
    pub(crate) fn opened(manager: Arc<TunnelManager>, id: ConnectionId, destination: Bytes) -> Self {
        Self { manager, id, destination, remote: None, accepted: false }
    }

    /// A connection that the other end opened; its slot is there.
    pub(crate) fn accepted(manager: Arc<TunnelManager>, accepted: Accepted) -> Self {
        let Accepted { id, destination, remote } = accepted;
        Self { manager, id, destination, remote, accepted: true }
    }

    /// Its id, unique within its session.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Who is at the other end: the key that it proved.
    pub fn peer(&self) -> PeerId {
        self.manager.peer
    }

    /// Where it is to lead, as its opener said; empty for "whoever accepts".
    pub fn destination(&self) -> &Bytes {
        &self.destination
    }

    /// Where the session's newest tunnel came from when this connection was accepted.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// The session that it belongs to.
    pub fn session(&self) -> SessionHandle {
        SessionHandle::new(self.manager.clone())
    }

    /// Waits for the far end's answer: whether it reached the destination. At once `Ok` for a connection
    /// that was accepted. Data may be written before; it waits at the far end, or is lost with the reset
    /// that follows a failed dial.
    ///
    /// Cancel safe. One task at a time.
    ///
    /// # Errors
    /// Why the destination was not reached, or why the connection was reset before that was known.
    pub async fn connected(&self) -> Result<(), ConnectError> {
        poll_fn(|cx| self.poll_connected(cx)).await
    }

    /// Answers the opener, whose [`connected`](Self::connected) waits for it: this end reached the
    /// destination, or did not, whereupon the connection is reset. Only the first answer counts.
    ///
    /// A connection without a destination is answered when it is accepted. One that nobody answers is, by its
    /// first write or, when it is dropped, as a success if something was read from it, else as
    /// [`DialError::Failed`]. Of no effect at the end that opened it.
    pub fn confirm(&self, result: Result<(), DialError>) {
        if self.accepted {
            self.answer(result);
        }
    }

    /// Ends both directions at once; the other end is told why. What was accepted and not sent is lost.
    pub fn reset(&self, code: ResetCode) {
        self.reset_with(code);
    }

    /// Waits until the connection is reset, by either end or with its session; for ever where it comes to a
    /// good end. Cancel safe. One task at a time.
    pub async fn wait_reset(&self) -> ResetCode {
        poll_fn(|cx| self.poll_reset(cx)).await
    }

    /// Reads the next bytes, at most `most` and at least one, without copying; `None` at the end of the
    /// stream. Cancel safe.
    ///
    /// # Errors
    /// [`ConnectionReset`](io::ErrorKind::ConnectionReset).
    pub async fn read_bytes(&self, most: usize) -> io::Result<Option<Bytes>> {
        poll_fn(|cx| self.poll_read_bytes(cx, most)).await
    }

    /// Writes all of `bytes`, without copying more than a KiB. Not cancel safe: it does not tell how much was
    /// accepted.
    ///
    /// # Errors
    /// [`ConnectionReset`](io::ErrorKind::ConnectionReset); [`BrokenPipe`](io::ErrorKind::BrokenPipe) behind
    /// the own end of the stream.
    pub async fn write_bytes(&self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            poll_fn(|cx| self.poll_write_bytes(cx, &mut bytes)).await?;
        }
        Ok(())
    }

    /// Writes all of `buf`, unless the deadline comes first.
    ///
    /// # Errors
    /// Holds how many bytes from the front of `buf` were accepted; they will be delivered. With
    /// [`TimedOut`](io::ErrorKind::TimedOut) the connection goes on, and the rest may be written again.
    pub async fn write_all_by(&self, buf: &[u8], deadline: Instant) -> Result<(), WriteAllByError> {
        let mut timer = Box::pin(runtime::sleep_until(&self.manager.runtime, deadline));
        let mut accepted = 0;
        poll_fn(|cx| {
            while accepted < buf.len() {
                match self.poll_write_slice(cx, &buf[accepted..]) {
                    Poll::Ready(Ok(count)) => accepted += count,
                    Poll::Ready(Err(source)) => return Poll::Ready(Err(source)),
                    Poll::Pending if timer.as_mut().poll(cx).is_ready() => {
                        return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
        .map_err(|source| WriteAllByError { accepted, source })
    }

    /// Sends one datagram beside the stream: unordered, unacknowledged, of at most 64 KiB, with an address
    /// of at most 512 bytes that only the other end reads. False when the queue was full and its oldest was
    /// dropped for this one.
    ///
    /// # Errors
    /// [`ConnectionReset`](io::ErrorKind::ConnectionReset); [`InvalidInput`](io::ErrorKind::InvalidInput)
    /// for one that is too long.
    pub fn send_datagram(&self, address: Bytes, payload: Bytes) -> io::Result<bool> {
        self.queue_datagram(address, payload)
    }

    /// Waits for a datagram. Cancel safe. One task at a time.
    ///
    /// # Errors
    /// [`ConnectionReset`](io::ErrorKind::ConnectionReset).
    pub async fn recv_datagram(&self) -> io::Result<Datagram> {
        poll_fn(|cx| self.poll_recv_datagram(cx)).await
    }

    /// See [`recv_datagram`](Self::recv_datagram). Keeps one waker.
    pub fn poll_recv_datagram(&self, cx: &mut Context<'_>) -> Poll<io::Result<Datagram>> {
        self.poll_take_datagram(cx)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.release(std::thread::panicking());
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({} of {:?})", self.id, self.manager.id)
    }
}
