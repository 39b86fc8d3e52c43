//! A stream whose other end may stop to listen and still have something to say ([`Hearing`]).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::BoxIo;

/// A connection to a web server that may answer before it has read a body, and close: a refusal mostly. hyper drops such an
/// answer for the body that it cannot write any more; so what cannot be written is thrown away here as long as there is
/// something to read, and what is read decides how it ends.
pub(super) struct Hearing {
    io: BoxIo,
    /// Nothing is written any more.
    unheard: bool,
    /// Nothing is read any more.
    silent: bool,
}

impl Hearing {
    pub(super) fn new(io: BoxIo) -> Self {
        Self { io, unheard: false, silent: false }
    }

    /// Writes by `write`, which may write so many bytes.
    fn write(
        &mut self,
        len: usize,
        write: impl FnOnce(Pin<&mut BoxIo>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if !self.unheard {
            match ready!(write(Pin::new(&mut self.io))) {
                Err(_) if !self.silent => self.unheard = true,
                written => return Poll::Ready(written),
            }
        }
        Poll::Ready(match self.silent {
            true => Err(io::ErrorKind::BrokenPipe.into()),
            false => Ok(len),
        })
    }
}

impl AsyncRead for Hearing {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        self.silent = read.is_err() || buf.filled().len() == before && buf.remaining() > 0;
        Poll::Ready(read)
    }
}

impl AsyncWrite for Hearing {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(buf.len(), |io| io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        self.write(len, |io| io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.unheard {
            true => Poll::Ready(Ok(())),
            false => Pin::new(&mut self.io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.unheard {
            true => Poll::Ready(Ok(())),
            false => Pin::new(&mut self.io).poll_shutdown(cx),
        }
    }
}
