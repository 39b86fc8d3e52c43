//! A visitor's connection that tells when something last moved on it, in either direction: the HTTP library waits for
//! ever for one who does not read.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use crate::carrier::Wire;

/// The connection.
pub(super) struct Watched {
    wire: Wire,
    movement: Movement,
}

/// When something last moved. Clones tell of the same connection.
#[derive(Clone)]
pub(super) struct Movement(Arc<Mutex<Instant>>);

impl Watched {
    pub(super) fn new(wire: Wire) -> Self {
        Self { wire, movement: Movement(Arc::new(Mutex::new(Instant::now()))) }
    }

    pub(super) fn movement(&self) -> Movement {
        self.movement.clone()
    }

    /// Notes that so much was written.
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(1..)) = written {
            self.movement.happens();
        }
        written
    }
}

impl Movement {
    /// Waits until nothing has moved for so long. Cancel safe.
    pub(super) async fn ceased(&self, patience: Duration) {
        loop {
            let due = self.last() + patience;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    fn last(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happens(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl From<Watched> for Wire {
    fn from(watched: Watched) -> Self {
        watched.wire
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.movement.happens();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.wire).poll_write(cx, buf);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.wire).poll_write_vectored(cx, bufs);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
