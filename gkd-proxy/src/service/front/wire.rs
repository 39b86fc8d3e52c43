//! The socket of a visitor ([`Wire`]): one that takes nothing for too long is given up, a last answer is not lost to bytes that
//! nobody reads, and the front can end it wherever it is held, behind an upgrade too.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::places::Place;
use crate::socket;

/// What is read and thrown away behind a last answer, so that the kernel does not drop the answer with it.
const MAX_DISCARD: usize = 256 * 1024;

/// How long that takes at the most.
const DISCARD_FOR: Duration = Duration::from_secs(2);

/// The socket of a visitor.
pub(super) struct Wire {
    socket: TcpStream,
    /// What was read and is to be read again.
    again: Bytes,
    silence: Duration,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
    abort: Pin<Box<WaitForCancellationFutureOwned>>,
    /// The other end has told its end.
    ended: bool,
    discarding: Option<Discarding>,
    broken: Broken,
    _place: Place,
    _served: TaskTrackerToken,
}

struct Discarding {
    until: Pin<Box<Sleep>>,
    left: usize,
}

/// Whether an answer was broken off, so that the connection must not end as if it were whole.
#[derive(Clone, Debug, Default)]
pub(super) struct Broken(Arc<AtomicBool>);

impl Broken {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wire {
    pub(super) fn new(
        socket: TcpStream,
        silence: Duration,
        abort: CancellationToken,
        place: Place,
        served: TaskTrackerToken,
    ) -> Self {
        Self {
            socket,
            again: Bytes::new(),
            silence,
            stalled: None,
            abort: Box::pin(abort.cancelled_owned()),
            ended: false,
            discarding: None,
            broken: Broken::default(),
            _place: place,
            _served: served,
        }
    }

    pub(super) fn place(&mut self) -> &mut Place {
        &mut self._place
    }

    /// Has these bytes, which were read before, be read again.
    pub(super) fn read_again(&mut self, bytes: Vec<u8>) {
        self.again = bytes.into();
    }

    /// What makes the end of the connection a reset.
    pub(super) fn broken(&self) -> Broken {
        self.broken.clone()
    }

    /// What came of a write, or an error when none came for too long.
    fn within_time<T>(&mut self, cx: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.stalled = None;
            return write;
        }
        let silence = self.silence;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads what still comes and throws it away.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let discarding = self.discarding.get_or_insert_with(|| Discarding {
            until: Box::pin(tokio::time::sleep(DISCARD_FOR)),
            left: MAX_DISCARD,
        });
        let mut piece = [std::mem::MaybeUninit::uninit(); 4096];
        while discarding.until.as_mut().poll(cx).is_pending() && self.abort.as_mut().poll(cx).is_pending() {
            let mut piece = ReadBuf::uninit(&mut piece);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut piece))?;
            let count = piece.filled().len();
            if count == 0 || count > discarding.left {
                break;
            }
            discarding.left -= count;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.again.is_empty() {
            let count = self.again.len().min(buf.remaining());
            buf.put_slice(&self.again.split_to(count));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        if let Poll::Ready(read) = Pin::new(&mut self.socket).poll_read(cx, buf) {
            self.ended |= read.is_ok() && buf.filled().len() == before;
            return Poll::Ready(read);
        }
        self.abort.as_mut().poll(cx).map(|()| Err(io::ErrorKind::ConnectionAborted.into()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.within_time(cx, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.within_time(cx, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.discarding.is_none() {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            if self.ended {
                return Poll::Ready(Ok(()));
            }
        }
        // However that goes, the socket is closed behind it.
        self.poll_discard(cx).map(|_| Ok(()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.broken.is_set() {
            socket::reset_on_drop(&self.socket);
        }
    }
}
