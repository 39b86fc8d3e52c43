//! The body of a request on its way to whoever answers ([`Upload`]): within its limit, and not silent for ever.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};

use super::guarded::Watch;

/// What was wrong with a body; whoever answers the request itself is told when it is.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    flaw: OnceLock<BodyFlaw>,
    told: Notify,
}

/// Why a request is not answered whose body was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFlaw {
    TooLarge,
    TimedOut,
    Malformed,
}

impl Trouble {
    pub(super) fn flaw(&self) -> Option<BodyFlaw> {
        self.flaw.get().copied()
    }

    /// Waits for trouble.
    pub(super) async fn told(&self) -> BodyFlaw {
        loop {
            let told = self.told.notified();
            if let Some(flaw) = self.flaw() {
                return flaw;
            }
            told.await;
        }
    }

    fn tell(&self, flaw: BodyFlaw) {
        // The first is the reason of the others.
        let _ = self.flaw.set(flaw);
        self.told.notify_waiters();
    }
}

/// A request's body.
pub(super) struct Upload {
    body: Incoming,
    /// How much more may come.
    left: u64,
    /// For how long nothing may come that is waited for.
    silence: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    watch: Option<Arc<Watch>>,
    trouble: Arc<Trouble>,
}

impl Upload {
    pub(super) fn new(
        body: Incoming,
        most: Option<u64>,
        silence: Duration,
        watch: Option<Arc<Watch>>,
    ) -> (Self, Arc<Trouble>) {
        let trouble = Arc::new(Trouble::default());
        let upload = Self {
            body,
            left: most.unwrap_or(u64::MAX),
            silence,
            timer: None,
            waiting: false,
            watch,
            trouble: Arc::clone(&trouble),
        };
        (upload, trouble)
    }

    fn poll_silent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let silence = self.silence;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(silence)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + silence);
        }
        timer.as_mut().poll(cx)
    }

    fn fail(&self, flaw: BodyFlaw) -> io::Error {
        self.trouble.tell(flaw);
        match flaw {
            BodyFlaw::TooLarge => {
                io::Error::new(io::ErrorKind::FileTooLarge, "the request's body is too large")
            }
            BodyFlaw::TimedOut => io::Error::new(io::ErrorKind::TimedOut, "the request's body does not come"),
            BodyFlaw::Malformed => io::Error::new(
                io::ErrorKind::InvalidData,
                "the request's body breaks the rules of its coding",
            ),
        }
    }

    /// What an error of the connection means: the client is gone, or broke a rule.
    fn failed(&self, error: hyper::Error) -> io::Error {
        match &self.watch {
            Some(watch) if watch.is_broken() => self.fail(BodyFlaw::Malformed),
            _ => io::Error::new(io::ErrorKind::ConnectionAborted, error),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            return this.poll_silent(cx).map(|()| Some(Err(this.fail(BodyFlaw::TimedOut))));
        };
        this.waiting = false;
        let frame = match frame {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(this.failed(error)))),
            Some(Ok(frame)) => frame,
        };
        let len = frame.data_ref().map_or(0, |data| data.len() as u64);
        match this.left.checked_sub(len) {
            Some(left) => {
                this.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                this.left = 0;
                Poll::Ready(Some(Err(this.fail(BodyFlaw::TooLarge))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
