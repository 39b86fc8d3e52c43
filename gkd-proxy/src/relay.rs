//! Carries bytes between a socket and a connection: [`relay`].
//!
//! The two directions are two halves that end on their own: the end of one is passed on as the end of that
//! direction alone, and the other runs on. A reset of either side becomes a reset of the other. It knows
//! nothing of who asked for the connection, or where it leads.
//!
//! A half that waits holds no buffer: one is taken when the socket is readable, and handed on without a copy.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use gkd_core::buffers;
use gkd_core::proto::packet::{FULL_PAYLOAD, ResetCode};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::io::poll_read_buf;

use crate::connection::VirtualConnection;
use crate::socket::StreamSocket;
use crate::udp;

/// The first read of a socket, and the least: what a keystroke or a request fills. It goes by way of the stack.
const MIN_READ: usize = 16 * 1024;

/// The largest read, which a socket that fills its reads comes to. Larger ones save no time any more. A whole number
/// of full packets, so that none is put together from what is left of two reads.
const MAX_READ: usize = 4 * FULL_PAYLOAD;

/// The most bytes that are taken from a connection for one write to a socket.
const MAX_BATCH: usize = MAX_READ;

/// The most pieces that one write to a socket gathers.
const MAX_SLICES: usize = 64;

thread_local! {
    /// The row of the last batch that was written, so that the next one allocates none.
    static SPARE: Cell<Vec<Bytes>> = const { Cell::new(Vec::new()) };
}

/// How a relay behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayConfig {
    /// How long it goes on of which one direction has ended and the other is idle. Default 1 h. A shorter
    /// time frees what a vanished program left behind; a longer one suits those that wait long for an answer.
    pub half_closed_for: Duration,
    /// How long a flow of datagrams goes on that is idle: nothing else tells that a program is gone. Default 2 min.
    pub udp_idle_for: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self { half_closed_for: Duration::from_secs(3600), udp_idle_for: udp::IDLE }
    }
}

/// What a relay did.
#[derive(Debug)]
pub struct Relayed {
    /// Bytes from the socket that the connection accepted.
    pub up: u64,
    /// Bytes from the connection that the socket took.
    pub down: u64,
    /// How it ended.
    pub end: End,
}

/// How a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both directions ended in order.
    Finished,
    /// The socket was reset; the connection was reset for it.
    Socket(io::Error),
    /// The connection was reset; the socket was reset for it.
    Connection(io::Error),
    /// One direction had ended, and the other was idle for too long; both were reset.
    Idle,
}

/// Carries bytes until both directions have ended, or either side is reset; then the socket can be dropped.
///
/// `unsent` goes to the connection ahead of what the socket sends, and holds what was read of that and is not accepted
/// yet. It is borrowed because a future keeps what it is handed twice. Dropping the future resets both sides.
pub fn relay<'a, S: StreamSocket, C: VirtualConnection>(
    socket: &'a mut S,
    connection: &'a C,
    unsent: &'a mut Bytes,
    config: &'a RelayConfig,
) -> impl Future<Output = Relayed> + Send + 'a {
    let (reader, writer) = socket.split();
    let carrying = Carrying {
        reader,
        connection,
        config,
        up: Upward { bytes: unsent, size: MIN_READ as u32, count: 0, stage: Stage::Carries },
        down: Downward { batch: Vec::new(), whole: 0, count: 0, ended: false },
        down_first: false,
        ended: false,
    };
    let mut relay: Relay<'a, S, C> = Relay { writer, carrying };
    // Made ahead of this, for what it is made of would be kept twice.
    async move {
        let end = {
            let Relay { ref writer, ref mut carrying } = relay;
            let mut sink = Sink { socket: writer.as_ref(), watches: None };
            poll_fn(|cx| carrying.poll(cx, &mut sink)).await
        };
        relay.carrying.ended = true;
        relay.pass_on(&end);
        Relayed { up: relay.carrying.up.count, down: relay.carrying.down.count, end }
    }
}

/// A running relay; its drop resets both sides unless it has ended.
struct Relay<'a, S: StreamSocket + 'a, C: VirtualConnection> {
    writer: S::WriteHalf<'a>,
    carrying: Carrying<'a, S, C>,
}

/// Both directions. Polled as a whole: futures of its parts would take several times the room, and nearly all of its time
/// it waits.
struct Carrying<'a, S: StreamSocket + 'a, C: VirtualConnection> {
    reader: S::ReadHalf<'a>,
    connection: &'a C,
    config: &'a RelayConfig,
    up: Upward<'a>,
    down: Downward,
    /// The halves take turns to go first, for the first may use up what the task has of time.
    down_first: bool,
    ended: bool,
}

/// The socket as it is written, and what is waited for beside reads and writes: those waits borrow it.
struct Sink<'w, S> {
    socket: &'w S,
    /// Most relays never have any.
    watches: Option<Box<Watches<'w>>>,
}

/// Waits for what ends a relay while neither a read nor a write would find it.
type Watch<'a> = Pin<Box<dyn Future<Output = End> + Send + 'a>>;

/// What is waited for. Each is made when it is needed first.
#[derive(Default)]
struct Watches<'a> {
    /// For a reset of the socket, while the connection takes nothing.
    socket: Option<Watch<'a>>,
    /// For a reset of the connection, while the socket takes nothing.
    connection: Option<Watch<'a>>,
    half_closed: Option<HalfClosed<'a>>,
}

/// From the socket to the connection.
struct Upward<'a> {
    /// What was read and the connection has not accepted.
    bytes: &'a mut Bytes,
    /// How much is read next.
    size: u32,
    /// Bytes that the connection accepted.
    count: u64,
    stage: Stage,
}

/// How far the direction to the connection has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Carries,
    /// The socket's end was read, and is passed on.
    Ends,
    Ended,
}

/// From the connection to the socket.
struct Downward {
    /// What was read and the socket has not taken, behind so many pieces that it has.
    batch: Vec<Bytes>,
    whole: u32,
    /// Bytes that the socket took.
    count: u64,
    ended: bool,
}

/// What is watched while one direction has ended.
struct HalfClosed<'a> {
    /// While the socket is still read, the read finds its reset, behind what arrived before it.
    socket: Option<Watch<'a>>,
    connection: Watch<'a>,
    idle: Pin<Box<Sleep>>,
    /// What had moved when that began.
    moved: u64,
}

impl<'w, 'a: 'w, S: StreamSocket, C: VirtualConnection> Carrying<'a, S, C> {
    /// Ready when it is over.
    fn poll(&mut self, cx: &mut Context<'_>, sink: &mut Sink<'w, S>) -> Poll<End> {
        self.down_first = !self.down_first;
        let (up, down) = if self.down_first {
            let down = self.poll_downward(cx, sink);
            (self.poll_upward(cx, sink), down)
        } else {
            (self.poll_upward(cx, sink), self.poll_downward(cx, sink))
        };
        match (up, down) {
            (Poll::Ready(Err(end)), _) | (_, Poll::Ready(Err(end))) => Poll::Ready(end),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(End::Finished),
            _ => self.poll_half_closed(cx, sink),
        }
    }

    fn poll_upward(&mut self, cx: &mut Context<'_>, sink: &mut Sink<'w, S>) -> Poll<Result<(), End>> {
        while self.up.stage == Stage::Carries {
            if self.up.bytes.is_empty() {
                let budget = ready!(coop::poll_proceed(cx));
                let read = ready!(poll_read::<S>(&mut self.reader, cx, self.up.size as usize))
                    .map_err(End::Socket)?;
                budget.made_progress();
                if read.is_empty() {
                    self.up.stage = Stage::Ends;
                    break;
                }
                self.up.size = next_size(self.up.size as usize, read.len()) as u32;
                *self.up.bytes = read;
            }
            ready!(self.poll_send(cx, sink))?;
        }
        if self.up.stage == Stage::Ends {
            ready!(self.connection.poll_shutdown(cx)).map_err(End::Connection)?;
            self.up.stage = Stage::Ended;
        }
        Poll::Ready(Ok(()))
    }

    /// Hands what was read to the connection. While it takes none, a reset of the socket would go unseen; so it is
    /// looked for. (Otherwise the read finds it, behind what arrived before it.)
    fn poll_send(&mut self, cx: &mut Context<'_>, sink: &mut Sink<'w, S>) -> Poll<Result<(), End>> {
        while !self.up.bytes.is_empty() {
            match self.connection.poll_write_bytes(cx, self.up.bytes) {
                Poll::Ready(accepted) => self.up.count += accepted.map_err(End::Connection)? as u64,
                Poll::Pending => {
                    let socket = sink.socket;
                    let watch = &mut sink.watches.get_or_insert_default().socket;
                    let reset = watch.get_or_insert_with(|| Box::pin(socket_error(socket)));
                    return reset.as_mut().poll(cx).map(Err);
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_downward(&mut self, cx: &mut Context<'_>, sink: &mut Sink<'w, S>) -> Poll<Result<(), End>> {
        while !self.down.ended {
            ready!(self.poll_write(cx, sink))?;
            let budget = ready!(coop::poll_proceed(cx));
            let batch = ready!(poll_read_batch(self.connection, cx)).map_err(End::Connection)?;
            budget.made_progress();
            self.down.batch = batch;
            if self.down.batch.is_empty() {
                self.down.ended = true;
                sink.socket.shutdown_write().map_err(End::Socket)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what was read to the socket. While it takes none, a reset of the connection would go unseen; so it is
    /// looked for. (Otherwise the read finds it.)
    fn poll_write(&mut self, cx: &mut Context<'_>, sink: &mut Sink<'w, S>) -> Poll<Result<(), End>> {
        while (self.down.whole as usize) < self.down.batch.len() {
            let rest = &mut self.down.batch[self.down.whole as usize..];
            match try_write(sink.socket, rest) {
                Ok(written) => {
                    self.down.count += written as u64;
                    self.down.whole += take_front(rest, written) as u32;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Poll::Ready(ready) = sink.socket.poll_write_ready(cx) {
                        ready.map_err(End::Socket)?;
                        continue;
                    }
                    let connection = self.connection;
                    let watch = &mut sink.watches.get_or_insert_default().connection;
                    let reset = watch.get_or_insert_with(|| Box::pin(connection_lost(connection)));
                    return reset.as_mut().poll(cx).map(Err);
                }
                Err(error) => return Poll::Ready(Err(End::Socket(error))),
            }
        }
        // One that waits keeps no memory for the next.
        let mut batch = std::mem::take(&mut self.down.batch);
        self.down.whole = 0;
        if batch.capacity() > 0 {
            batch.clear();
            SPARE.set(batch);
        }
        Poll::Ready(Ok(()))
    }

    /// While one direction has ended: ready when the rest has to be given up.
    fn poll_half_closed(&mut self, cx: &mut Context<'_>, sink: &mut Sink<'w, S>) -> Poll<End> {
        let up_ended = self.up.stage != Stage::Carries;
        if !up_ended && !self.down.ended {
            return Poll::Pending;
        }
        let (connection, config, moved) = (self.connection, self.config, self.up.count + self.down.count);
        let socket = sink.socket;
        let watch = sink.watches.get_or_insert_default().half_closed.get_or_insert_with(|| {
            let socket = up_ended.then(|| Box::pin(socket_error(socket)) as Watch<'w>);
            let idle = Box::pin(sleep(config.half_closed_for));
            HalfClosed { socket, connection: Box::pin(connection_lost(connection)), idle, moved }
        });
        for reset in watch.socket.iter_mut().chain([&mut watch.connection]) {
            if let Poll::Ready(end) = reset.as_mut().poll(cx) {
                return Poll::Ready(end);
            }
        }
        loop {
            ready!(watch.idle.as_mut().poll(cx));
            if watch.moved == moved {
                return Poll::Ready(End::Idle);
            }
            watch.moved = moved;
            watch.idle.as_mut().reset(Instant::now() + config.half_closed_for);
        }
    }
}

impl<S: StreamSocket, C: VirtualConnection> Relay<'_, S, C> {
    /// Tells the other side how one side ended.
    fn pass_on(&self, end: &End) {
        match end {
            End::Finished => {}
            End::Socket(_) => self.carrying.connection.reset(ResetCode::STREAM),
            End::Connection(_) => self.writer.as_ref().reset_on_drop(),
            End::Idle => {
                self.carrying.connection.reset(ResetCode::TIMED_OUT);
                self.writer.as_ref().reset_on_drop();
            }
        }
    }
}

impl<S: StreamSocket, C: VirtualConnection> Drop for Relay<'_, S, C> {
    fn drop(&mut self) {
        if !self.carrying.ended {
            self.carrying.connection.reset(ResetCode::APPLICATION);
            self.writer.as_ref().reset_on_drop();
        }
    }
}

/// Waits for a reset of the socket.
async fn socket_error(socket: &impl StreamSocket) -> End {
    End::Socket(socket.error().await)
}

/// Waits for a reset of the connection.
async fn connection_lost(connection: &impl VirtualConnection) -> End {
    connection.lost().await;
    End::Connection(io::ErrorKind::ConnectionReset.into())
}

/// Writes what the socket takes at once.
fn try_write(socket: &impl StreamSocket, batch: &[Bytes]) -> io::Result<usize> {
    if let [bytes] = batch {
        return socket.try_write(bytes);
    }
    let mut slices = [IoSlice::new(&[]); MAX_SLICES];
    for (slice, bytes) in slices.iter_mut().zip(batch) {
        *slice = IoSlice::new(bytes);
    }
    socket.try_write_vectored(&slices[..batch.len().min(MAX_SLICES)])
}

/// Waits until the socket is readable, and only then takes a buffer of so many bytes; empty at the end. By the half's
/// own read, which after one that was not full waits without trying once more.
fn poll_read<S: StreamSocket>(
    reader: &mut S::ReadHalf<'_>,
    cx: &mut Context<'_>,
    size: usize,
) -> Poll<io::Result<Bytes>> {
    ready!(reader.as_ref().poll_read_ready(cx))?;
    if size == MIN_READ {
        return poll_read_little(reader, cx);
    }
    let mut buffer = buffers::take(size);
    let whole = buffer.capacity();
    let result = poll_read_buf(Pin::new(reader), cx, &mut (&mut buffer).limit(size));
    let read = without_waste(&mut buffer);
    buffers::give_back(buffer, whole);
    result.map_ok(|_| read)
}

/// A copy of what is read, for most of what is so little comes alone.
fn poll_read_little(reader: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut little = [MaybeUninit::uninit(); MIN_READ];
    let mut little = ReadBuf::uninit(&mut little);
    ready!(Pin::new(reader).poll_read(cx, &mut little))?;
    Poll::Ready(Ok(Bytes::copy_from_slice(little.filled())))
}

/// What was read, in a buffer of which it fills half at least: bytes may wait for long, and must not keep a
/// large buffer alive for a keystroke.
fn without_waste(buffer: &mut BytesMut) -> Bytes {
    if buffer.len() * 2 < buffer.capacity() {
        Bytes::copy_from_slice(buffer)
    } else {
        buffer.split().freeze()
    }
}

/// What the connection has, in a row that stands ready; empty at the end. While it has nothing the row goes back.
fn poll_read_batch(
    connection: &impl VirtualConnection,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Vec<Bytes>>> {
    let mut batch = SPARE.take();
    let read = connection.poll_read_batch(cx, MAX_BATCH, &mut batch);
    if read.is_pending() {
        SPARE.set(batch);
        return Poll::Pending;
    }
    read.map_ok(|_| batch)
}

/// How much to read next: four times as much after a full read, half as much after one that filled a quarter.
fn next_size(size: usize, read: usize) -> usize {
    if read >= size {
        (size * 4).min(MAX_READ)
    } else if read <= size / 4 {
        (size / 2).max(MIN_READ)
    } else {
        size
    }
}

/// Takes so many bytes off the front; how many pieces are whole in them, which are freed.
fn take_front(batch: &mut [Bytes], mut count: usize) -> usize {
    let mut whole = 0;
    for bytes in batch {
        let taken = count.min(bytes.len());
        bytes.advance(taken);
        count -= taken;
        if !bytes.is_empty() {
            break;
        }
        *bytes = Bytes::new();
        whole += 1;
    }
    whole
}

#[cfg(test)]
mod tests;
