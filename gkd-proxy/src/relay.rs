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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use gkd_core::buffers;
use gkd_core::proto::packet::{FULL_PAYLOAD, ResetCode};
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::sync::Notify;
use tokio::task::coop::consume_budget;
use tokio::time::sleep;
use tokio_util::io::poll_read_buf;

use crate::connection::{self, VirtualConnection};
use crate::socket;

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
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self { half_closed_for: Duration::from_secs(3600) }
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

/// Carries bytes until both directions have ended, or either side is reset; then the socket is closed.
///
/// `first` goes to the connection ahead of what the socket sends. Dropping the future resets both sides.
pub async fn relay<C: VirtualConnection>(
    socket: TcpStream,
    connection: &C,
    first: Bytes,
    config: &RelayConfig,
) -> Relayed {
    let mut socket = socket;
    let (mut reader, writer) = socket.split();
    let mut relay = Relay {
        socket: writer.as_ref(),
        connection,
        up: AtomicU64::new(0),
        down: AtomicU64::new(0),
        up_ended: AtomicBool::new(false),
        half_closed: Notify::new(),
        ended: false,
    };
    let end = tokio::select! {
        halves = async { tokio::try_join!(relay.upward(&mut reader, first), relay.downward()) } => match halves {
            Ok(_) => End::Finished,
            Err(end) => end,
        },
        end = relay.watch_half_closed(config) => end,
        () = connection.lost() => End::Connection(io::ErrorKind::ConnectionReset.into()),
    };
    relay.ended = true;
    relay.pass_on(&end);
    Relayed { up: relay.up.load(Ordering::Relaxed), down: relay.down.load(Ordering::Relaxed), end }
}

/// A running relay; its drop resets both sides unless it has ended.
struct Relay<'a, C: VirtualConnection> {
    socket: &'a TcpStream,
    connection: &'a C,
    up: AtomicU64,
    down: AtomicU64,
    up_ended: AtomicBool,
    half_closed: Notify,
    ended: bool,
}

/// Waits for an error of the socket.
type Error<'a> = Pin<Box<dyn Future<Output = io::Error> + Send + 'a>>;

impl<C: VirtualConnection> Relay<'_, C> {
    /// From the socket to the connection.
    async fn upward(&self, reader: &mut ReadHalf<'_>, first: Bytes) -> Result<(), End> {
        let mut reset = None;
        if !first.is_empty() {
            self.send(first, &mut reset).await?;
        }
        let mut size = MIN_READ;
        loop {
            consume_budget().await;
            let read = poll_fn(|cx| poll_read(reader, cx, size)).await.map_err(End::Socket)?;
            if read.is_empty() {
                break;
            }
            size = next_size(size, read.len());
            self.send(read, &mut reset).await?;
        }
        self.up_ended.store(true, Ordering::Relaxed);
        self.half_closed.notify_one();
        connection::shutdown(self.connection).await.map_err(End::Connection)
    }

    /// Hands bytes to the connection. While it takes none, a reset of the socket would go unseen; so it is
    /// looked for. (Otherwise the read finds it, behind what arrived before it.) What looks for it is made when it
    /// is needed first.
    async fn send<'s>(&'s self, mut bytes: Bytes, reset: &mut Option<Error<'s>>) -> Result<(), End> {
        let len = bytes.len() as u64;
        poll_fn(|cx| {
            while !bytes.is_empty() {
                match self.connection.poll_write_bytes(cx, &mut bytes) {
                    Poll::Ready(result) => _ = result.map_err(End::Connection)?,
                    Poll::Pending => {
                        let reset = reset.get_or_insert_with(|| Box::pin(self.socket_error()));
                        return reset.as_mut().poll(cx).map(|error| Err(End::Socket(error)));
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        self.up.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    /// From the connection to the socket.
    async fn downward(&self) -> Result<(), End> {
        loop {
            consume_budget().await;
            let batch = poll_fn(|cx| poll_read_batch(self.connection, cx)).await.map_err(End::Connection)?;
            if batch.is_empty() {
                break;
            }
            self.write(batch).await.map_err(End::Socket)?;
        }
        self.half_closed.notify_one();
        socket::shutdown_write(self.socket).map_err(End::Socket)
    }

    async fn write(&self, mut batch: Vec<Bytes>) -> io::Result<()> {
        let mut rest = &mut batch[..];
        while !rest.is_empty() {
            match self.try_write(rest) {
                Ok(written) => {
                    self.down.fetch_add(written as u64, Ordering::Relaxed);
                    rest = without_front(rest, written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|cx| self.socket.poll_write_ready(cx)).await?;
                }
                Err(error) => return Err(error),
            }
        }
        batch.clear();
        SPARE.set(batch);
        Ok(())
    }

    /// What the socket takes at once. The slices are no part of the future, which waits for long.
    fn try_write(&self, batch: &[Bytes]) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        for (slice, bytes) in slices.iter_mut().zip(batch) {
            *slice = IoSlice::new(bytes);
        }
        self.socket.try_write_vectored(&slices[..batch.len().min(MAX_SLICES)])
    }

    /// Waits until one direction has ended, then until the rest has to be given up. Otherwise for ever.
    async fn watch_half_closed(&self, config: &RelayConfig) -> End {
        self.half_closed.notified().await;
        // No part of this future, which nearly always waits for the line above.
        let rest = async {
            tokio::select! {
                // While the socket is still read, the read finds it, behind what arrived before it.
                error = self.socket_error(), if self.up_ended.load(Ordering::Relaxed) => End::Socket(error),
                () = self.idle_for(config.half_closed_for) => End::Idle,
            }
        };
        Box::pin(rest).await
    }

    /// Waits until nothing has moved for so long.
    async fn idle_for(&self, time: Duration) {
        let moved = || self.up.load(Ordering::Relaxed) + self.down.load(Ordering::Relaxed);
        let mut before = moved();
        loop {
            sleep(time).await;
            let now = moved();
            if now == before {
                return;
            }
            before = now;
        }
    }

    /// Waits for a reset of the socket.
    async fn socket_error(&self) -> io::Error {
        match self.socket.ready(Interest::ERROR).await {
            Ok(_) => self.socket.take_error().ok().flatten().unwrap_or(io::ErrorKind::ConnectionReset.into()),
            Err(error) => error,
        }
    }

    /// Tells the other side how one side ended.
    fn pass_on(&self, end: &End) {
        match end {
            End::Finished => {}
            End::Socket(_) => self.connection.reset(ResetCode::STREAM),
            End::Connection(_) => socket::reset_on_drop(self.socket),
            End::Idle => {
                self.connection.reset(ResetCode::TIMED_OUT);
                socket::reset_on_drop(self.socket);
            }
        }
    }
}

impl<C: VirtualConnection> Drop for Relay<'_, C> {
    fn drop(&mut self) {
        if !self.ended {
            self.connection.reset(ResetCode::APPLICATION);
            socket::reset_on_drop(self.socket);
        }
    }
}

/// Waits until the socket is readable, and only then takes a buffer of so many bytes; empty at the end. By the half's
/// own read, which after one that was not full waits without trying once more.
fn poll_read(reader: &mut ReadHalf<'_>, cx: &mut Context<'_>, size: usize) -> Poll<io::Result<Bytes>> {
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
fn poll_read_little(reader: &mut ReadHalf<'_>, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
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

/// What is left behind so many bytes. Pieces that were written whole are freed.
fn without_front(batch: &mut [Bytes], mut count: usize) -> &mut [Bytes] {
    let mut whole = 0;
    for bytes in &mut *batch {
        let taken = count.min(bytes.len());
        bytes.advance(taken);
        count -= taken;
        if !bytes.is_empty() {
            break;
        }
        *bytes = Bytes::new();
        whole += 1;
    }
    &mut batch[whole..]
}

#[cfg(test)]
mod tests;
