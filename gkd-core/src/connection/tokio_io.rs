//! Tokio's `AsyncRead` and `AsyncWrite` for [`Connection`] and `&Connection`. A task that always finds
//! something ready yields now and then, as with tokio's own sockets.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop;

use super::Connection;

/// Pieces that one read copies from at most; bounds what lies on the stack.
pub(super) const PIECES: usize = 16;

/// Reads into memory that the caller owns: takes pieces under the session's lock, copies them behind it.
pub(super) fn poll_read_with(
    connection: &Connection,
    cx: &mut Context<'_>,
    most: usize,
    mut put: impl FnMut(&[u8]),
) -> Poll<io::Result<usize>> {
    let mut pieces = [const { Bytes::new() }; PIECES];
    let mut places = pieces.iter_mut();
    let count = ready!(connection.poll_read_chunks(cx, most, PIECES, |bytes| {
        if let Some(place) = places.next() {
            *place = bytes;
        }
    }))?;
    pieces.iter().for_each(|bytes| put(bytes));
    Poll::Ready(Ok(count))
}

impl AsyncRead for &Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let budget = ready!(coop::poll_proceed(cx));
        ready!(poll_read_with(&self, cx, buf.remaining(), |bytes| buf.put_slice(bytes)))?;
        budget.made_progress();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for &Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let budget = ready!(coop::poll_proceed(cx));
        let count = ready!(self.poll_write_slice(cx, buf))?;
        budget.made_progress();
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let budget = ready!(coop::poll_proceed(cx));
        let count = ready!(self.poll_write_slices(cx, bufs))?;
        budget.made_progress();
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Accepted bytes are on their way already.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_finish(cx)
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut &*self).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut &*self).poll_shutdown(cx)
    }
}
