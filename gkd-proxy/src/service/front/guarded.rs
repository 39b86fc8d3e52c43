//! A connection of HTTP/1.1 as hyper reads it ([`Guarded`]): only requests that [`Framing`] lets through, each head whole and in
//! time.
//!
//! In the place of a request that is refused hyper reads one of ours, so that its answer comes in turn behind those of the
//! requests before it, and the connection ends with it. Which one that is the [`Watch`] tells whoever answers.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::Activity;
use super::framing::{Flaw, Framing, HeadLimits, Step, first_line};

/// What hyper reads in the place of a request that is refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\n\r\n";

/// How much is read at once of what is looked at.
const PIECE: usize = 8 * 1024;

/// The times of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// For a head, and for the first byte of the first.
    pub(super) head: Duration,
    /// For the first byte of each further one.
    pub(super) keep_alive: Duration,
}

/// What whoever answers and the connection tell each other.
#[derive(Debug, Default)]
pub(super) struct Watch {
    refused: OnceLock<Refused>,
    broken: OnceLock<()>,
    /// Twice the number of the request that was decided on last, and one more if it was an upgrade.
    decision: AtomicU64,
    decided: AtomicWaker,
}

/// A request that was refused.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    /// Its number on the connection, from 1.
    pub(super) number: u64,
    pub(super) flaw: Flaw,
    /// As far as the log shows it.
    pub(super) line: String,
}

impl Watch {
    /// Whether the request of this number is ours, in the place of one that was refused.
    pub(super) fn refused(&self, number: u64) -> Option<&Refused> {
        self.refused.get().filter(|refused| refused.number == number)
    }

    /// Whether a body broke the rules of its coding.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.get().is_some()
    }

    /// Says what became of the request of this number, which perhaps asked for an upgrade.
    pub(super) fn decide(&self, number: u64, upgraded: bool) {
        self.decision.store(number * 2 + u64::from(upgraded), Ordering::Release);
        self.decided.wake();
    }

    fn decision(&self, number: u64) -> Option<bool> {
        let decision = self.decision.load(Ordering::Acquire);
        (decision / 2 == number).then_some(decision % 2 == 1)
    }
}

/// A connection whose requests are judged as they are read. Writes pass.
pub(super) struct Guarded<S> {
    stream: S,
    framing: Framing,
    /// What was read: at first what may pass, then what was not judged.
    buffer: BytesMut,
    passing: usize,
    /// Heads that were let through or replaced.
    heads: u64,
    times: Times,
    /// When the head began that is not whole.
    began: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    watch: Arc<Watch>,
    activity: Arc<Activity>,
}

/// What is waited for that has a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Request,
    Head,
}

/// What a look at the buffer led to.
enum Look {
    Pass,
    Read,
    Hold,
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guarded<S> {
    pub(super) fn new(
        stream: S,
        limits: HeadLimits,
        times: Times,
        activity: Arc<Activity>,
    ) -> (Self, Arc<Watch>) {
        let watch = Arc::new(Watch::default());
        let guarded = Self {
            stream,
            framing: Framing::new(limits),
            buffer: BytesMut::new(),
            passing: 0,
            heads: 0,
            times,
            began: None,
            timer: None,
            watch: Arc::clone(&watch),
            activity,
        };
        (guarded, watch)
    }

    fn look(&mut self) -> Look {
        loop {
            let head = self.framing.is_in_head();
            match self.framing.step(&self.buffer) {
                Step::Pass(count) => {
                    self.heads += u64::from(head);
                    self.began = None;
                    self.passing = count;
                    return Look::Pass;
                }
                Step::Skip(count) => self.buffer.advance(count),
                Step::More => return Look::Read,
                Step::Hold => return Look::Hold,
                Step::Refuse(flaw) => {
                    self.refuse(flaw);
                    return Look::Pass;
                }
                Step::End => {
                    if self.framing.is_broken() {
                        // Set once; a second time says the same.
                        let _ = self.watch.broken.set(());
                    }
                    return Look::End;
                }
            }
        }
    }

    fn refuse(&mut self, flaw: Flaw) {
        self.heads += 1;
        let refused = Refused { number: self.heads, flaw, line: first_line(&self.buffer) };
        // Behind one nothing more is read.
        let _ = self.watch.refused.set(refused);
        self.framing.end();
        self.buffer.clear();
        self.buffer.extend_from_slice(STAND_IN);
        self.passing = STAND_IN.len();
    }

    /// Reads more behind what is in the buffer; how much came.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // On the stack, so that a connection that waits holds no buffer.
        let mut piece = [std::mem::MaybeUninit::uninit(); PIECE];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut piece))?;
        self.buffer.extend_from_slice(piece.filled());
        Poll::Ready(Ok(piece.filled().len()))
    }

    /// Reads for the one who asks what may pass unseen; none is the end.
    fn poll_unseen(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = usize::try_from(self.framing.unseen()).unwrap_or(usize::MAX);
        if most >= buf.remaining() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
            self.framing.passed_unseen((buf.filled().len() - before) as u64);
            return Poll::Ready(Ok(()));
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let count = part.filled().len();
        buf.advance(count);
        self.framing.passed_unseen(count as u64);
        Poll::Ready(Ok(()))
    }

    /// Ready when what is waited for took too long. hyper does not read again only because a request was answered, so the time
    /// is looked at whenever the timer ends, and that runs on: it costs nothing for each request.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Phase> {
        loop {
            let now = Instant::now();
            let (until, phase) = self.deadline(now);
            if let Some(phase) = phase
                && now >= until
            {
                return Poll::Ready(phase);
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if timer.is_elapsed() || timer.deadline() > until {
                timer.as_mut().reset(until);
            }
            ready!(timer.as_mut().poll(cx));
        }
    }

    /// When what is waited for will be late; or when to look again, where nothing is.
    fn deadline(&mut self, now: Instant) -> (Instant, Option<Phase>) {
        let Some((idle, _)) = self.activity.idle().filter(|_| self.framing.is_in_head()) else {
            return (now + self.times.head.min(self.times.keep_alive), None);
        };
        if self.framing.is_between() && self.buffer.is_empty() {
            let time = if self.heads == 0 { self.times.head } else { self.times.keep_alive };
            return (idle + time, Some(Phase::Request));
        }
        // What comes ahead of the answer before it has time until then.
        let began = *self.began.get_or_insert(now);
        (began.max(idle) + self.times.head, Some(Phase::Head))
    }

    fn pass(&mut self, buf: &mut ReadBuf<'_>) {
        let count = self.passing.min(buf.remaining());
        buf.put_slice(&self.buffer[..count]);
        self.buffer.advance(count);
        self.passing -= count;
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            if this.passing > 0 {
                this.pass(buf);
                return Poll::Ready(Ok(()));
            }
            if this.buffer.is_empty() && this.framing.unseen() > 0 {
                return this.poll_unseen(cx, buf);
            }
            match this.look() {
                Look::Pass => continue,
                Look::End if this.watch.refused.get().is_some() => {
                    // To hyper an end would be that of a client that does not wait for its answer.
                    return Poll::Pending;
                }
                Look::End => return Poll::Ready(Ok(())),
                Look::Hold => {
                    this.watch.decided.register(cx.waker());
                    if let Some(upgraded) = this.watch.decision(this.heads) {
                        this.framing.decide(upgraded);
                        continue;
                    }
                    // Whether the client goes away is of interest; what it sends is kept, and no more than a little.
                    if !this.buffer.is_empty() {
                        return Poll::Pending;
                    }
                    if ready!(this.poll_more(cx))? == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Look::Read => match this.poll_more(cx)? {
                    // In the middle of a head it is an end as well: there is nobody to answer.
                    Poll::Ready(0) => return Poll::Ready(Ok(())),
                    Poll::Ready(_) => {}
                    Poll::Pending => match ready!(this.poll_late(cx)) {
                        Phase::Request => return Poll::Ready(Ok(())),
                        Phase::Head => this.refuse(Flaw::TimedOut),
                    },
                },
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
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
