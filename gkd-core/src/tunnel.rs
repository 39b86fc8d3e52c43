//! One tunnel at work: a reader and a writer over one carrier, in one task.
//!
//! The task is a poll loop. Each turn it reads what has come, a bounded number of reads, and hands it to the
//! session; then it asks the session for what to send, as much as the socket takes now, and writes it with
//! vectored writes. Data is bound to a tunnel only when its socket has room. What a batch leaves unwritten
//! stays in it; nothing is lost when a write is not ready.
//!
//! While bytes move, the kernel is asked every 20 ms how the path does. An idle tunnel holds no buffer and
//! runs no timer.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use gkd_proto::Transmit;
use gkd_proto::error::{Scope, TunnelError};
use gkd_proto::packet::{CloseCode, Header};
use gkd_proto::session::DropReason;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_util::io::poll_read_buf;

use crate::buffers::{self, Busy};
use crate::carrier::Carrier;
use crate::manager::{State, TunnelGuard, TunnelHandle, TunnelManager};

/// The smallest and the largest read. Small ones keep an idle tunnel cheap, large ones save system calls and
/// locks on a busy one.
const READ: std::ops::RangeInclusive<usize> = 4 * 1024..=buffers::LARGEST;

/// The least and the most that is asked of the session at a time. Over TLS a batch is a record, of which the other end
/// has nothing before it has all. A tunnel that carries more than the most in [`ROOM_TIME`] is one of a local network, where
/// waking up is what costs.
const ROOM: std::ops::RangeInclusive<usize> = 4 * 1024..=1024 * 1024;

/// The least of `TCP_NOTSENT_LOWAT`: a slow tunnel's socket does not run dry while a busy machine is late.
const LEAST_LOW_WATER: usize = 16 * 1024;

/// What is asked for while the tunnel's rate is not known.
const FIRST_ROOM: usize = 64 * 1024;

/// How much of a tunnel's time one batch may fill: what a keystroke may have to wait behind.
const ROOM_TIME: Duration = Duration::from_millis(4);

/// Slices of one vectored write. More do not make it cheaper, and `UIO_MAXIOV` is 1024.
const SLICES: usize = 64;

/// Reads and batches in one direction before the other has its turn.
const STEPS: usize = 4;

/// Turns before other tasks have theirs.
const TURNS: usize = 4;

/// How long all of them may take before other tasks have theirs. How long a byte takes is for the other end to say: a
/// few of them make a connection, or end one.
const TURN_TIME: Duration = Duration::from_millis(2);

/// How long the session may take over what was read at a time, until less is read: it is locked meanwhile.
const GIVE_TIME: Duration = Duration::from_millis(1);

/// What is said and heard without waiting when the runtime goes down: so many batches fill any socket's buffer.
const BATCHES: usize = 64;

/// How long a tunnel that cannot write any more may take to read what came before.
const READ_REST: Duration = Duration::from_millis(50);

/// How often the kernel is asked how the path does, and an unused buffer is noticed.
const TICK: Duration = Duration::from_millis(20);

/// The same while it is to run dry: nothing moves until that is over.
const PAUSE_TICK: Duration = Duration::from_millis(5);

/// How long the end of a tunnel may take that has something left to say.
const LINGER: Duration = Duration::from_secs(1);

/// How a tunnel ended.
#[derive(Debug)]
pub(crate) struct TunnelEnd {
    /// Why.
    pub(crate) cause: EndCause,
    /// Bytes that arrived on it behind the handshake.
    pub(crate) received: u64,
}

/// Why a tunnel ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndCause {
    #[error("the other end closed it")]
    Eof,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Protocol(#[from] TunnelError),
    #[error("{}", drop_reason(*.0))]
    Dropped(DropReason),
}

fn drop_reason(reason: DropReason) -> &'static str {
    match reason {
        DropReason::Silent => "it was silent for too long",
        DropReason::Named => "the other end counts it as dead",
        DropReason::Settled => "it was retired",
        DropReason::SessionEnded => "the session ended",
        _ => "the session dropped it",
    }
}

/// Runs a tunnel that is up until it ends. `front` holds bytes that were read behind the handshake.
///
/// Dropping the future closes the carrier; the guard tells the session in any case.
pub(crate) fn run(guard: TunnelGuard, carrier: Carrier, front: BytesMut) -> impl Future<Output = TunnelEnd> {
    // Here, for a runtime that goes down before the future's first turn drops a tunnel, then, which has last words.
    Tunnel::new(guard, carrier, front).run()
}

/// What came of a turn in one direction.
#[derive(Clone, Copy, Debug, Default)]
struct Turn {
    /// Bytes moved.
    moved: bool,
    /// It can go no further before something wakes the task: whatever does is told of the task by now.
    rests: bool,
}

struct Tunnel {
    manager: Arc<TunnelManager>,
    handle: Arc<TunnelHandle>,
    carrier: Carrier,
    /// What was read and holds no whole packet yet.
    buf: BytesMut,
    /// What `buf` was allocated with; packets that were split off its front still hold all of that.
    allocated: usize,
    /// The next read asks for so much.
    want: usize,
    /// Bytes arrived in `buf` that the session was not told of.
    unread: bool,
    /// Nothing more is read: the session ended on what came.
    deaf: bool,
    /// When other tasks have their turn.
    yield_at: std::time::Instant,
    received: u64,
    /// The batch that is being written.
    out: Transmit,
    /// Bytes may stand in the carrier's own buffer.
    flush: bool,
    /// The session was asked for a batch and had none: it wakes this task when it has.
    asked: bool,
    room: usize,
    /// Set while bytes move.
    tick: Option<Pin<Box<Sleep>>>,
    /// Likewise: buffers are used again.
    busy: Option<Busy>,
    /// Bytes moved since the last tick.
    moved: bool,
    /// What `TCP_NOTSENT_LOWAT` was last set to.
    low_water: usize,
    /// The kernel's view was that bulk had better wait: it is asked until that is over.
    pauses: bool,
    /// Its end was told, or is none that anything can be said about.
    over: bool,
    /// Dropped last: the session is told when all was said.
    _guard: TunnelGuard,
}

impl Tunnel {
    fn new(guard: TunnelGuard, carrier: Carrier, front: BytesMut) -> Self {
        Self {
            manager: guard.manager.clone(),
            handle: guard.handle.clone(),
            pauses: false,
            carrier,
            unread: !front.is_empty(),
            allocated: front.capacity(),
            buf: front,
            want: *READ.start(),
            deaf: false,
            yield_at: std::time::Instant::now(),
            received: 0,
            out: Transmit::new(),
            flush: false,
            asked: false,
            room: FIRST_ROOM,
            tick: None,
            busy: None,
            moved: false,
            low_water: 0,
            over: false,
            _guard: guard,
        }
    }

    async fn run(mut self) -> TunnelEnd {
        // The kernel knows the round trip since the handshake: the session chooses by it from the first packet on.
        self.sample();
        let cause = poll_fn(|cx| self.poll(cx)).await;
        self.over = true;
        if matches!(cause, EndCause::Io(_)) {
            // The other end's last words may stand in the socket of which a write told that it is broken.
            tokio::time::timeout(READ_REST, poll_fn(|cx| self.poll_rest(cx))).await.ok();
        }
        let received = self.received;
        if matches!(cause, EndCause::Dropped(DropReason::Settled | DropReason::SessionEnded)) {
            tokio::time::timeout(LINGER, self.finish()).await.ok();
        }
        TunnelEnd { cause, received }
    }

    /// Works in both directions until neither can go on.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<EndCause> {
        self.handle.stop.register(cx.waker());
        // While it works it needs no call: it asks the session before it rests.
        self.handle.ready.take();
        self.asked = false;
        self.yield_at = std::time::Instant::now() + TURN_TIME;
        for _ in 0..TURNS {
            if let Some(reason) = self.handle.dropped() {
                return Poll::Ready(EndCause::Dropped(reason));
            }
            let (read, write) =
                match self.poll_read_turn(cx).and_then(|read| Ok((read, self.poll_write_turn(cx)?))) {
                    Ok(turns) => turns,
                    Err(cause) => return Poll::Ready(cause),
                };
            self.moved |= read.moved | write.moved;
            self.poll_tick(cx);
            if read.rests && write.rests {
                return Poll::Pending;
            }
            if self.is_turn_over() {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn is_turn_over(&self) -> bool {
        std::time::Instant::now() >= self.yield_at
    }

    /// Reads a few times. The session is told once per read.
    fn poll_read_turn(&mut self, cx: &mut Context<'_>) -> Result<Turn, EndCause> {
        let mut turn = Turn::default();
        if std::mem::take(&mut self.unread) {
            self.give(cx)?;
            turn.moved = true;
        }
        for _ in 0..STEPS {
            // What is to be written does not wait for more to be read.
            if turn.moved && (self.out.has_remaining() || self.is_turn_over()) {
                break;
            }
            if self.deaf {
                turn.rests = true;
                break;
            }
            match self.poll_read(cx) {
                Poll::Pending => {
                    turn.rests = true;
                    break;
                }
                Poll::Ready(Ok(0)) => return Err(EndCause::Eof),
                Poll::Ready(Ok(count)) => {
                    turn.moved = true;
                    self.received += count as u64;
                    self.give(cx)?;
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
        }
        Ok(turn)
    }

    /// Reads to the end, or to the error.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.poll_read_turn(cx) {
            Ok(_) if self.deaf => Poll::Ready(()),
            Ok(turn) => {
                if !turn.rests {
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
            Err(_) => Poll::Ready(()),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.buf.capacity() == 0 && self.want == *READ.start() {
            // Idle: waits on the stack's memory and takes a buffer when something comes.
            let mut first = [std::mem::MaybeUninit::uninit(); *READ.start()];
            let mut first = ReadBuf::uninit(&mut first);
            ready!(Pin::new(&mut self.carrier).poll_read(cx, &mut first))?;
            self.buf.extend_from_slice(first.filled());
            let count = first.filled().len();
            self.size_next_read(count, *READ.start());
            return Poll::Ready(Ok(count));
        }
        self.make_room();
        let room = self.whole_packets(self.want.min(self.buf.capacity() - self.buf.len()));
        let mut limited = (&mut self.buf).limit(room);
        let count = ready!(poll_read_buf(Pin::new(&mut self.carrier), cx, &mut limited))?;
        self.size_next_read(count, room);
        Poll::Ready(Ok(count))
    }

    /// Room for the next read. The rest of a large buffer is not read into when little of it is left, or a small
    /// packet that is kept would hold all of it. What the last read left of a packet counts into the size: a buffer
    /// that were larger by that would be too large for a full packet to be kept in it, which would be copied then.
    fn make_room(&mut self) {
        let free = self.buf.capacity() - self.buf.len();
        if free >= self.want / 2 && self.buf.capacity() >= self.allocated / 2 {
            return;
        }
        let whole = self.want.max(self.buf.len() + *READ.start());
        // The same memory again if nobody holds any of it, else other.
        if !self.buf.try_reclaim(whole - self.buf.len()) {
            let rest = std::mem::replace(&mut self.buf, buffers::take(whole));
            self.buf.extend_from_slice(&rest);
            buffers::give_back(rest, self.allocated);
        }
        self.allocated = self.buf.capacity();
    }

    /// So much less than `room` that the read ends where a packet does, if those that come are as large as the one of which
    /// the last read left a part: such a part is copied when the next buffer is begun.
    fn whole_packets(&self, room: usize) -> usize {
        let Ok(Some(header)) = Header::peek(&self.buf) else { return room };
        let size = header.len + header.body;
        let missing = size.saturating_sub(self.buf.len());
        if room > missing { room - (room - missing) % size } else { room }
    }

    /// A read that came full asks for twice as much next time, one that stayed below a quarter for half.
    fn size_next_read(&mut self, count: usize, room: usize) {
        if count >= room {
            self.want = (self.want * 2).min(*READ.end());
        } else if count < self.want / 4 {
            self.want = (self.want / 2).max(*READ.start());
        }
    }

    /// Hands what was read to the session, and in the same call asks for what is to be written, unless something is.
    fn give(&mut self, cx: &mut Context<'_>) -> Result<(), EndCause> {
        let (tunnel, room, handle) = (self.handle.id, self.room, &self.handle);
        let (buf, out) = (&mut self.buf, &mut self.out);
        // One that is over gets nothing more to carry.
        let writes = self.over || self.flush || out.has_remaining();
        // The clock is asked for where less can be read next time.
        let is_timed = self.want > *READ.start();
        let (result, ended, took, asked) = self.manager.with(|state, now| {
            let result = state.receive(now, tunnel, buf);
            let took = if is_timed { now.elapsed() } else { Duration::ZERO };
            // One that broke a rule ends at once, and gets nothing either; but the session's end it tells.
            let broken = result.as_ref().is_err_and(|error| error.scope() != Scope::Session);
            let asked = !writes && !broken && !ask(state, now, handle, room, out, cx);
            (result, state.ended().is_some(), took, asked)
        });
        self.asked = asked && result.is_ok();
        self.want = size_for_time(self.want, took);
        match result {
            Ok(()) => Ok(()),
            // The session tells the other end on this tunnel, then drops it; the driver bounds the time.
            Err(error) if ended || error.scope() == Scope::Session => {
                tracing::debug!(%tunnel, %error, "nothing more is read from this tunnel");
                self.deaf = true;
                self.buf = BytesMut::new();
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Writes while the carrier takes it and the session has something.
    fn poll_write_turn(&mut self, cx: &mut Context<'_>) -> Result<Turn, EndCause> {
        let mut turn = Turn::default();
        for _ in 0..STEPS {
            if !self.out.has_remaining() {
                // What stands in the carrier's buffer goes first: data is bound to a tunnel as late as can be.
                if self.flush && self.poll_flush(cx)?.is_pending() {
                    turn.rests = true;
                    break;
                }
                if !self.asked {
                    let (handle, room, out) = (&self.handle, self.room, &mut self.out);
                    self.asked = !self.manager.with(|state, now| ask(state, now, handle, room, out, cx));
                }
                if self.asked {
                    turn.rests = true;
                    break;
                }
            }
            if self.poll_write_out(cx, &mut turn.moved)?.is_pending() {
                turn.rests = true;
                break;
            }
        }
        Ok(turn)
    }

    /// Writes the batch to its end.
    fn poll_write_out(&mut self, cx: &mut Context<'_>, wrote: &mut bool) -> io::Result<Poll<()>> {
        while self.out.has_remaining() {
            let carrier = Pin::new(&mut self.carrier);
            let result = if carrier.is_write_vectored() {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = self.out.chunks_vectored(&mut slices);
                carrier.poll_write_vectored(cx, &slices[..count])
            } else {
                carrier.poll_write(cx, self.out.chunk())
            };
            match result? {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count) => {
                    self.out.advance(count);
                    (self.flush, *wrote) = (true, true);
                }
            }
        }
        Ok(Poll::Ready(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let flushed = Pin::new(&mut self.carrier).poll_flush(cx)?;
        self.flush = flushed.is_pending();
        Ok(flushed)
    }

    /// While bytes move: asks the kernel every 20 ms. When none did: lets the buffers and the timer go.
    fn poll_tick(&mut self, cx: &mut Context<'_>) {
        if self.tick.is_none() && self.moved {
            self.tick = Some(Box::pin(tokio::time::sleep(TICK)));
            self.busy = Some(Busy::new());
            self.sample();
            self.moved = false;
        }
        let Some(tick) = &mut self.tick else { return };
        if tick.as_mut().poll(cx).is_pending() {
            return;
        }
        if self.moved || self.pauses {
            self.moved = false;
            tick.as_mut().reset(Instant::now() + if self.pauses { PAUSE_TICK } else { TICK });
            // Registers the waker.
            if tick.as_mut().poll(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            self.sample();
            self.busy.iter().for_each(Busy::release_unused);
        } else {
            self.tick = None;
            self.busy = None;
            self.want = *READ.start();
            // What of a packet is here waits without the room that was there for more.
            self.buf = BytesMut::from(&self.buf[..]);
        }
    }

    fn sample(&mut self) {
        if self.carrier.socket().is_none() {
            return;
        }
        let sample = self.carrier.sample();
        self.pauses = sample.pauses.is_some();
        self.manager.with(|state, now| state.session.handle_path(now, self.handle.id, sample));
        if let Some(rate) = sample.rate {
            let room = u128::from(rate) * ROOM_TIME.as_micros() / 1_000_000;
            self.room = usize::try_from(room).unwrap_or(usize::MAX).clamp(*ROOM.start(), *ROOM.end());
            self.set_low_water();
        }
    }

    /// Lets the socket hold as much unsent as one batch fills, so that tunnels which pull share by their true
    /// rate. Only when it changed by a quarter: it is a system call.
    fn set_low_water(&mut self) {
        let wanted = self.room.max(LEAST_LOW_WATER);
        if wanted.abs_diff(self.low_water) * 4 <= self.low_water {
            return;
        }
        self.low_water = wanted;
        if let (Some(tcp), Ok(bytes)) = (self.carrier.socket(), u32::try_from(wanted)) {
            crate::socket::set_unsent_low_water(tcp, bytes);
        }
    }

    /// The runtime goes down with the tunnel at work: a program has ended. What its connections accepted, and
    /// that they ended, goes out as far as the socket takes it without waiting; on the last tunnel also that
    /// the session ends.
    fn last_words(&mut self) {
        self.speak();
        if self.manager.is_last_to_go(&self.handle) {
            self.manager.close(CloseCode::GOING_DOWN, "the program has ended");
            self.speak();
        }
        if let Some(tcp) = self.carrier.socket() {
            close_cleanly(&socket2::SockRef::from(tcp));
        }
    }

    /// Writes what there is to write, without waiting.
    fn speak(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..BATCHES {
            let (tunnel, room, out) = (self.handle.id, self.room, &mut self.out);
            self.manager.with(|state, now| state.session.poll_transmit(now, tunnel, room, out));
            let written = self.poll_write_out(&mut cx, &mut false);
            let flushed = self.poll_flush(&mut cx);
            let idle = !self.flush && !self.out.has_remaining();
            if idle || !matches!((written, flushed), (Ok(Poll::Ready(())), Ok(Poll::Ready(())))) {
                return;
            }
        }
    }

    /// Says what is left to say, and waits until the other end has closed too: a socket that is closed with
    /// unread bytes in it resets, and the reset may overtake what was said.
    async fn finish(&mut self) -> io::Result<()> {
        use tokio::io::AsyncReadExt;

        let mut wrote = false;
        poll_fn(|cx| match self.poll_write_out(cx, &mut wrote) {
            Ok(polled) => polled.map(Ok),
            Err(error) => Poll::Ready(Err(error)),
        })
        .await?;
        self.carrier.shutdown().await?;
        let mut rest = [0; 1024];
        // Bounded by the caller's time-out.
        while self.carrier.read(&mut rest).await? > 0 {}
        Ok(())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if !self.over && !std::thread::panicking() {
            self.last_words();
        }
    }
}

/// Asks the session for a batch; whether there is one. If not, the task may rest: it was registered under the lock, so
/// that what the session gets to send from now on wakes it.
fn ask(
    state: &mut State,
    now: std::time::Instant,
    handle: &TunnelHandle,
    room: usize,
    out: &mut Transmit,
    cx: &Context<'_>,
) -> bool {
    let any = state.session.poll_transmit(now, handle.id, room, out);
    if !any {
        handle.ready.register(cx.waker());
        if state.session.has_work_for(now, handle.id) {
            state.look_closely();
        }
    }
    any
}

/// What the session took long over is read in smaller parts: half of `want` next time.
fn size_for_time(want: usize, took: Duration) -> usize {
    if took > GIVE_TIME { (want / 2).max(*READ.start()) } else { want }
}

/// A socket that is closed with unread bytes in it resets, and the reset may overtake what was said.
fn close_cleanly(socket: &socket2::Socket) {
    socket.shutdown(std::net::Shutdown::Write).ok();
    let mut rest = [std::mem::MaybeUninit::uninit(); 4096];
    for _ in 0..BATCHES {
        if !matches!(socket.recv(&mut rest), Ok(1..)) {
            break;
        }
    }
}

#[cfg(test)]
mod tests;
