//! The body of an answer on its way down, with the exchange that brings it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};
use tokio_util::task::AbortOnDropHandle;

/// What brings a body, and lasts as long as it: whatever it is ends with its drop.
pub(crate) trait Exchange: Unpin {
    /// The body came to its end. Called once, before the drop, or not at all.
    fn complete(&mut self) {}

    /// The other side broke it off, or fell silent in it. Called once, before the drop, or not at all.
    fn broken(&mut self) {}

    /// When something last moved the other way.
    fn moved(&self) -> Option<Instant> {
        None
    }
}

/// The task of a connection that is not used again.
impl Exchange for AbortOnDropHandle<()> {}

/// For how long nothing may come that is waited for.
pub(crate) struct Patience {
    limit: Duration,
    /// Runs while nothing comes.
    silence: Option<Pin<Box<Sleep>>>,
}

/// A body on its way down.
pub(crate) struct Download<E: Exchange> {
    body: Incoming,
    patience: Option<Patience>,
    exchange: E,
    over: bool,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, silence: None }
    }

    /// Ready when nothing came for too long, in either direction.
    fn poll(&mut self, moved: impl Fn() -> Option<Instant>, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let silence = self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        while silence.as_mut().poll(cx).is_ready() {
            let due = moved().map(|moved| moved + limit);
            match due {
                Some(due) if due > Instant::now() => silence.as_mut().reset(due),
                _ => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}

impl<E: Exchange> Download<E> {
    /// A body that may be silent for ever, where no patience is given.
    pub(crate) fn new(body: Incoming, patience: Option<Patience>, exchange: E) -> Self {
        let mut download = Self { body, patience, exchange, over: false };
        // Nobody may ask for a frame of a body without any.
        download.note_end();
        download
    }

    fn note_end(&mut self) {
        if self.body.is_end_stream() && !self.over {
            self.over = true;
            self.exchange.complete();
        }
    }

    fn broken(&mut self) {
        if !self.over {
            self.over = true;
            self.exchange.broken();
        }
    }
}

impl<E: Exchange> Body for Download<E> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some(patience) = &mut this.patience {
                patience.silence = None;
            }
            return Poll::Ready(match frame {
                Some(Ok(frame)) => {
                    this.note_end();
                    Some(Ok(frame))
                }
                Some(Err(error)) => {
                    this.broken();
                    Some(Err(io::Error::other(error)))
                }
                None => {
                    if !this.over {
                        this.over = true;
                        this.exchange.complete();
                    }
                    None
                }
            });
        }
        let Some(patience) = &mut this.patience else { return Poll::Pending };
        ready!(patience.poll(|| this.exchange.moved(), cx));
        this.broken();
        Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
