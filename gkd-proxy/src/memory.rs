//! A session in memory, for tests: [`pair`] makes both ends of one connection, and [`MemoryOpener`] hands the far
//! ends of what it opens to the test. Other packages have it with the feature `memory`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use gkd_core::proto::id::PeerId;
use gkd_core::proto::packet::{DialError, ResetCode};
use tokio::io::ReadBuf;
use tokio::sync::{mpsc, watch};

use crate::connection::{Opener, VirtualConnection};
use crate::reach::ReachError;

/// What one direction holds unread at the most.
const CAPACITY: usize = 64 * 1024;

/// One direction.
#[derive(Default)]
struct Pipe {
    chunks: Vec<Bytes>,
    datagrams: Vec<(Bytes, Bytes)>,
    datagram_reader: Option<Waker>,
    finished: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Default)]
struct State {
    pipes: [Pipe; 2],
    reset: Option<ResetCode>,
    dialled: Option<Result<(), DialError>>,
    waiting: Vec<Waker>,
}

impl State {
    fn wake_all(&mut self) {
        for pipe in &mut self.pipes {
            let wakers = [pipe.reader.take(), pipe.writer.take(), pipe.datagram_reader.take()];
            wakers.into_iter().flatten().for_each(Waker::wake);
        }
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

/// One end of a connection in memory.
pub struct Memory {
    state: Arc<Mutex<State>>,
    /// The pipe that this end writes to; it reads from the other.
    writes: usize,
    destination: Bytes,
    peer: PeerId,
    /// Opens further ones.
    session: Option<MemoryOpener>,
}

/// Both ends: that of the opener, and that of the acceptor.
pub fn pair(destination: Bytes) -> (Memory, Memory) {
    let state = Arc::new(Mutex::default());
    let end = |writes| {
        let (state, destination) = (Arc::clone(&state), destination.clone());
        Memory { state, writes, destination, peer: PeerId([1; 32]), session: None }
    };
    (end(0), end(1))
}

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The same with another peer at the other end.
    pub fn of(mut self, peer: PeerId) -> Self {
        self.peer = peer;
        self
    }

    /// The same of a session that opens connections to the other end.
    pub fn within(mut self, session: MemoryOpener) -> Self {
        self.session = Some(session);
        self
    }

    /// Waits for a datagram.
    pub async fn recv_datagram(&self) -> io::Result<(Bytes, Bytes)> {
        poll_fn(|cx| self.poll_recv_datagram(cx)).await
    }

    /// Why it was reset.
    pub fn reset_code(&self) -> Option<ResetCode> {
        self.state().reset
    }

    /// Waits for a reset, and its code.
    pub async fn until_reset(&self) -> ResetCode {
        self.lost().await;
        self.reset_code().unwrap()
    }

    /// Writes all of `bytes`.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut bytes = Bytes::copy_from_slice(bytes);
        while !bytes.is_empty() {
            poll_fn(|cx| self.poll_write_bytes(cx, &mut bytes)).await?;
        }
        Ok(())
    }

    /// Ends the direction from here.
    pub async fn finish(&self) {
        poll_fn(|cx| self.poll_shutdown(cx)).await.unwrap();
    }

    /// Reads so many bytes.
    pub async fn read(&self, count: usize) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        while read.len() < count {
            let mut chunks = Vec::new();
            if poll_fn(|cx| self.poll_read_batch(cx, count - read.len(), &mut chunks)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            read.extend(chunks.concat());
        }
        Ok(read)
    }

    /// Reads to the end.
    pub async fn read_to_end(&self) -> io::Result<Vec<u8>> {
        let mut read = Vec::new();
        loop {
            let mut chunks = Vec::new();
            if poll_fn(|cx| self.poll_read_batch(cx, CAPACITY, &mut chunks)).await? == 0 {
                return Ok(read);
            }
            read.extend(chunks.concat());
        }
    }
}

impl State {
    fn alive(&self) -> io::Result<()> {
        if self.reset.is_some() { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

impl VirtualConnection for Memory {
    fn peer(&self) -> PeerId {
        self.peer
    }

    type Session = MemoryOpener;

    fn session(&self) -> MemoryOpener {
        self.session.clone().unwrap()
    }

    fn send_datagram(&self, address: Bytes, payload: Bytes) -> io::Result<bool> {
        let mut state = self.state();
        state.alive()?;
        let pipe = &mut state.pipes[self.writes];
        pipe.datagrams.push((address, payload));
        pipe.datagram_reader.take().into_iter().for_each(Waker::wake);
        Ok(true)
    }

    fn poll_recv_datagram(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Bytes, Bytes)>> {
        let mut state = self.state();
        state.alive()?;
        let pipe = &mut state.pipes[1 - self.writes];
        if pipe.datagrams.is_empty() {
            pipe.datagram_reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(pipe.datagrams.remove(0)))
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut chunks = Vec::new();
        let read = self.poll_read_batch(cx, buf.remaining(), &mut chunks);
        read.map_ok(|_| chunks.iter().for_each(|chunk| buf.put_slice(chunk)))
    }

    fn poll_read_batch(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        state.alive()?;
        let pipe = &mut state.pipes[1 - self.writes];
        let mut count = 0;
        while count < most && !pipe.chunks.is_empty() {
            let chunk = &mut pipe.chunks[0];
            let taken = chunk.split_to((most - count).min(chunk.len()));
            count += taken.len();
            chunks.push(taken);
            if chunk.is_empty() {
                pipe.chunks.remove(0);
            }
        }
        if count == 0 && !pipe.finished {
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        pipe.writer.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(count))
    }

    fn poll_write_bytes(&self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        state.alive()?;
        let pipe = &mut state.pipes[self.writes];
        let held: usize = pipe.chunks.iter().map(Bytes::len).sum();
        let taken = bytes.len().min(CAPACITY - held);
        if taken == 0 && !bytes.is_empty() {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        pipe.chunks.push(bytes.split_to(taken));
        pipe.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(taken))
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_bytes(cx, &mut Bytes::copy_from_slice(bytes))
    }

    fn poll_shutdown(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        state.alive()?;
        let pipe = &mut state.pipes[self.writes];
        pipe.finished = true;
        pipe.reader.take().into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }

    async fn connected(&self) -> Result<(), ReachError> {
        poll_fn(|cx| {
            let mut state = self.state();
            match (state.dialled, state.reset) {
                (Some(result), _) => Poll::Ready(result.map_err(ReachError::Dial)),
                (None, Some(code)) => Poll::Ready(Err(ReachError::Reset(code))),
                (None, None) => {
                    state.waiting.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn confirm(&self, result: Result<(), DialError>) {
        self.state().dialled.get_or_insert(result);
        match result {
            Ok(()) => self.state().wake_all(),
            Err(_) => self.reset(ResetCode::DIAL),
        }
    }

    fn reset(&self, code: ResetCode) {
        let mut state = self.state();
        // One that has ended both ways is forgotten.
        if !state.pipes.iter().all(|pipe| pipe.finished) {
            state.reset.get_or_insert(code);
        }
        state.wake_all();
    }

    async fn lost(&self) {
        poll_fn(|cx| {
            let mut state = self.state();
            if state.reset.is_some() {
                return Poll::Ready(());
            }
            state.waiting.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn destination(&self) -> &Bytes {
        &self.destination
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut state = self.state();
        state.pipes[self.writes].finished = true;
        state.wake_all();
    }
}

/// Opens connections whose far ends the test gets.
#[derive(Clone)]
pub struct MemoryOpener {
    far: mpsc::UnboundedSender<Memory>,
    tunnel: Arc<watch::Sender<Tunnel>>,
}

/// What connects both ends of a session of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tunnel {
    Up,
    Down,
    /// The session has ended.
    Ended,
}

/// An opener, and where the far ends come out.
pub fn opener() -> (MemoryOpener, mpsc::UnboundedReceiver<Memory>) {
    let (far, receiver) = mpsc::unbounded_channel();
    (MemoryOpener { far, tunnel: Arc::new(watch::Sender::new(Tunnel::Up)) }, receiver)
}

impl MemoryOpener {
    /// Has no tunnel from now on. Connections that there are go on all the same.
    pub fn cut(&self) {
        self.tunnel.send_replace(Tunnel::Down);
    }

    /// Has one again.
    pub fn mend(&self) {
        self.tunnel.send_replace(Tunnel::Up);
    }

    /// Ends the session, as far as whoever opens is concerned.
    pub fn end(&self) {
        self.tunnel.send_replace(Tunnel::Ended);
    }

    /// Waits for what is looked for. The sender lives as long as this does.
    async fn is(&self, wanted: impl FnMut(&Tunnel) -> bool) -> Tunnel {
        *self.tunnel.subscribe().wait_for(wanted).await.expect("the sender is here")
    }
}

impl Opener for MemoryOpener {
    type Connection = Memory;

    async fn open(&self, destination: Bytes) -> io::Result<Memory> {
        let ended = || io::Error::other("the session has ended");
        if self.is(|tunnel| *tunnel != Tunnel::Down).await == Tunnel::Ended {
            return Err(ended());
        }
        let (near, far) = pair(destination);
        self.far.send(far).map_err(|_| ended())?;
        Ok(near)
    }

    async fn down(&self) {
        self.is(|tunnel| *tunnel != Tunnel::Up).await;
    }

    async fn up(&self) -> bool {
        self.is(|tunnel| *tunnel != Tunnel::Down).await == Tunnel::Up
    }
}

/// An opener of a session without a tunnel.
#[derive(Clone)]
pub struct NoTunnel;

impl Opener for NoTunnel {
    type Connection = Memory;

    async fn open(&self, _destination: Bytes) -> io::Result<Memory> {
        std::future::pending().await
    }

    async fn down(&self) {}

    async fn up(&self) -> bool {
        std::future::pending().await
    }
}
