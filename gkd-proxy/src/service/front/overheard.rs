//! A connection of HTTP/2 whose frames to the client are looked at on their way ([`Overheard`]), because hyper tells nobody else
//! what it refuses by itself. It changes no byte.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::verdicts::Verdicts;
use super::visitor::Visitor;

/// A connection whose verdicts its visitor is told.
pub(super) struct Overheard<S> {
    stream: S,
    verdicts: Verdicts,
    visitor: Arc<Visitor>,
}

impl<S> Overheard<S> {
    pub(super) fn new(stream: S, visitor: Arc<Visitor>) -> Self {
        Self { stream, verdicts: Verdicts::default(), visitor }
    }

    /// So many bytes of these went.
    fn went(&mut self, slices: &[io::IoSlice<'_>], mut count: usize) {
        for slice in slices {
            let bytes = &slice[..count.min(slice.len())];
            self.verdicts.read(bytes, |verdict| self.visitor.note(verdict));
            count -= bytes.len();
            if count == 0 {
                return;
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Overheard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Overheard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.went(&[io::IoSlice::new(bytes)], count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices))?;
        self.went(slices, count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
