//! An emulated line in front of a server, on loopback: a TCP relay that holds each connection, in each
//! direction, to a rate, and delivers what it carries after a delay.
//!
//! It emulates what one TCP connection meets on a long path that gives each connection so much: a bottleneck
//! with a short queue, then the way. It does so at the level of bytes, not of packets: nothing is lost or
//! reordered within a connection, and the kernels at the ends see the relay's round trip, not the line's. The
//! relay's sockets have small buffers and segments of the usual size, so that the line holds what a path would
//! and no more.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// How long a byte may wait in front of the bottleneck. Long enough to bridge what a busy machine's timers are
/// late, short against the round trips of long paths.
const QUEUE: Duration = Duration::from_millis(20);

/// How often the relay looks at a connection that carries something.
const GRAIN: Duration = Duration::from_millis(3);

/// The most that a turn is made up for that came late, the sender having had more all the time: on a busy machine
/// the line would else be slower than it is said to be.
const LATE: Duration = Duration::from_millis(500);

/// What is worth a turn, and the most that is moved in one.
const MIN_PIECE: usize = 1448;
const MAX_PIECE: usize = 4 * 1024 * 1024;

/// A segment of TCP on Ethernet; loopback's own are 64 KiB.
const SEGMENT: u32 = 1448;

/// The least buffer of the relay's sockets, in bytes, and how much of the rate larger ones hold.
const SOCKET_BUFFER: usize = 32 * 1024;
const SOCKET_BUFFER_TIME: Duration = Duration::from_millis(10);

/// How long accepting rests after an error, that of no descriptors left, say.
const REST: Duration = Duration::from_millis(50);

/// What the line gives each connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineConfig {
    /// Bytes per second in each direction.
    pub(super) rate: u64,
    /// One way.
    pub(super) delay: Duration,
}

impl LineConfig {
    /// How long `bytes` take to pass the bottleneck.
    fn time(&self, bytes: usize) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.rate.max(1) as f64)
    }

    /// What passes the bottleneck in `time`.
    fn bytes(&self, time: Duration) -> usize {
        (self.rate as f64 * time.as_secs_f64()) as usize
    }

    fn socket_buffer(&self) -> usize {
        self.bytes(SOCKET_BUFFER_TIME).max(SOCKET_BUFFER)
    }
}

/// A line that is open. Its drop cuts all that goes over it.
#[derive(Debug)]
pub(super) struct Line {
    address: SocketAddr,
    carried: Arc<Mutex<Vec<Arc<Carried>>>>,
    _accepting: AbortOnDropHandle<()>,
}

/// One connection over the line.
#[derive(Debug, Default)]
struct Carried {
    /// Bytes that were delivered, both ways.
    bytes: AtomicU64,
    cut: CancellationToken,
}

impl Line {
    /// Opens a line to `to` on a free port of loopback.
    pub(super) async fn open(to: SocketAddr, config: LineConfig) -> io::Result<Self> {
        let socket = socket(&config)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        socket.listen(128)?;
        let listener = TcpListener::from_std(socket.into())?;
        let address = listener.local_addr()?;
        let carried = Arc::new(Mutex::new(Vec::new()));
        let accepting = tokio::spawn(accept(listener, to, config, carried.clone()));
        Ok(Self { address, carried, _accepting: AbortOnDropHandle::new(accepting) })
    }

    /// The near end.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets the connection that has carried most, with what is on its way. False when there is none.
    pub(super) fn cut(&self) -> bool {
        let busiest =
            lock(&self.carried).iter().max_by_key(|carried| carried.bytes.load(Ordering::Relaxed)).cloned();
        busiest.inspect(|carried| carried.cut.cancel()).is_some()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        for carried in lock(&self.carried).iter() {
            carried.cut.cancel();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A socket of the relay: small buffers, ordinary segments. What is set here, a listener hands on.
fn socket(config: &LineConfig) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_recv_buffer_size(config.socket_buffer())?;
    socket.set_send_buffer_size(config.socket_buffer())?;
    #[cfg(unix)]
    socket.set_tcp_mss(SEGMENT)?;
    Ok(socket)
}

async fn accept(
    listener: TcpListener,
    to: SocketAddr,
    config: LineConfig,
    all: Arc<Mutex<Vec<Arc<Carried>>>>,
) {
    loop {
        match listener.accept().await {
            Ok((near, _)) => {
                let carried = Arc::new(Carried::default());
                lock(&all).push(carried.clone());
                let all = all.clone();
                tokio::spawn(async move {
                    if let Err(error) = carry(near, to, config, &carried).await {
                        tracing::debug!(%error, "a connection over the emulated line ended");
                    }
                    lock(&all).retain(|other| !Arc::ptr_eq(other, &carried));
                });
            }
            Err(error) => {
                tracing::debug!(%error, "the emulated line accepts nothing");
                sleep(REST).await;
            }
        }
    }
}

/// Carries one connection until both directions have ended, one of the ends reset it, or it is cut. Whatever
/// is not an orderly end is a reset at both ends.
async fn carry(mut near: TcpStream, to: SocketAddr, config: LineConfig, carried: &Carried) -> io::Result<()> {
    // A dial takes a round trip.
    sleep(2 * config.delay).await;
    let mut far = TcpSocket::from_std_stream(socket(&config)?.into()).connect(to).await?;
    let result = {
        let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
        let there = Direction::new(config, near_read, far_write, &carried.bytes);
        let back = Direction::new(config, far_read, near_write, &carried.bytes);
        tokio::select! {
            both = async { tokio::try_join!(there.run(), back.run()) } => both.map(drop),
            () = carried.cut.cancelled() => Err(io::Error::other("it was cut")),
        }
    };
    if result.is_err() {
        // Closing with a linger of zero is a reset.
        for socket in [&near, &far] {
            SockRef::from(socket).set_linger(Some(Duration::ZERO))?;
        }
    }
    result
}

/// One direction of a connection.
struct Direction<'a> {
    config: LineConfig,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    carried: &'a AtomicU64,
    /// When the bottleneck has passed all that entered it.
    free: Instant,
    /// What is on the way, each piece with the time at which it arrives.
    way: VecDeque<(Instant, Bytes)>,
    /// The sender had more than there was room for.
    more: bool,
    ended: bool,
}

impl<'a> Direction<'a> {
    fn new(config: LineConfig, from: ReadHalf<'a>, to: WriteHalf<'a>, carried: &'a AtomicU64) -> Self {
        Self {
            config,
            from,
            to,
            carried,
            free: Instant::now(),
            way: VecDeque::new(),
            more: false,
            ended: false,
        }
    }

    /// Carries bytes until the end of the stream has arrived. A turn every [`GRAIN`] while something is on the
    /// way: to wake up for every segment would cost more than what is to be shown.
    async fn run(mut self) -> io::Result<()> {
        loop {
            self.deliver().await?;
            if self.ended && self.way.is_empty() {
                return self.to.shutdown().await;
            }
            self.enter()?;
            if self.way.is_empty() {
                self.from.readable().await?;
            } else {
                sleep(GRAIN).await;
            }
        }
    }

    /// Writes what has arrived. A reader that does not read holds everything up, as it should: no more than
    /// [`QUEUE`] and the delay hold is on the way then.
    async fn deliver(&mut self) -> io::Result<()> {
        while let Some((due, bytes)) = self.way.front()
            && *due <= Instant::now()
        {
            self.to.write_all(bytes).await?;
            self.carried.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.way.pop_front();
        }
        Ok(())
    }

    /// Takes as much as the bottleneck's queue has room for.
    fn enter(&mut self) -> io::Result<()> {
        let now = Instant::now();
        // With more to carry, the bottleneck went on while this task waited for its turn.
        let idle_since = if self.more { now.checked_sub(LATE).unwrap_or(now) } else { now };
        let free = self.free.max(idle_since);
        let room = (self.config.bytes(QUEUE + now.saturating_duration_since(free)))
            .saturating_sub(self.config.bytes(free.saturating_duration_since(now)))
            .min(MAX_PIECE);
        if self.ended || room < MIN_PIECE.min(self.config.bytes(GRAIN)) {
            return Ok(());
        }
        let mut piece = BytesMut::with_capacity(room);
        match self.from.try_read_buf(&mut (&mut piece).limit(room)) {
            // The end of the stream takes the same way.
            Ok(0) => {
                self.ended = true;
                self.way.push_back((self.free.max(now) + self.config.delay, Bytes::new()));
            }
            Ok(count) => {
                self.more = count == room;
                self.free = free;
                self.pass(piece.freeze());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.more = false,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Has what entered pass the bottleneck: its front is on the way long before its end has passed.
    fn pass(&mut self, mut piece: Bytes) {
        while !piece.is_empty() {
            let front = piece.split_to(piece.len().min(self.config.bytes(GRAIN).max(MIN_PIECE)));
            self.free += self.config.time(front.len());
            self.way.push_back((self.free + self.config.delay, front));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// A fast line with a delay that shows.
    const CONFIG: LineConfig = LineConfig { rate: 20_000_000, delay: Duration::from_millis(10) };

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(30);

    async fn ends() -> (Line, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let line = Line::open(listener.local_addr().unwrap(), CONFIG).await.unwrap();
        let near = TcpStream::connect(line.address()).await.unwrap();
        let far = listener.accept().await.unwrap().0;
        (line, near, far)
    }

    #[tokio::test]
    async fn both_ways_carry_everything_in_order_and_end_on_their_own() {
        let (_line, mut near, mut far) = ends().await;
        let content: Vec<u8> =
            (0..1_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let answer: Vec<u8> = content.iter().rev().copied().collect();
        let (expected, to_send) = (answer.clone(), content.clone());
        let there = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            assert!(got == content);
            far.write_all(&answer).await.unwrap();
        });
        near.write_all(&to_send).await.unwrap();
        near.shutdown().await.unwrap();
        let mut got = Vec::new();
        tokio::time::timeout(PATIENCE, near.read_to_end(&mut got)).await.unwrap().unwrap();
        assert!(got == expected);
        there.await.unwrap();
    }

    #[tokio::test]
    async fn it_is_never_faster_than_it_may_be() {
        let (_line, mut near, mut far) = ends().await;
        let start = Instant::now();
        let bytes = 2_000_000;
        tokio::spawn(async move { near.write_all(&vec![1; bytes]).await });
        let mut got = vec![0; bytes];
        tokio::time::timeout(PATIENCE, far.read_exact(&mut got)).await.unwrap().unwrap();
        // No less than this: a lower bound that a slow machine only raises.
        assert!(start.elapsed() >= CONFIG.time(bytes) + CONFIG.delay, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn a_cut_resets_both_ends_of_the_busiest_and_no_other() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let line = Line::open(listener.local_addr().unwrap(), CONFIG).await.unwrap();
        assert!(!line.cut());
        let mut pairs = Vec::new();
        for bytes in [10, 10_000, 100] {
            let mut near = TcpStream::connect(line.address()).await.unwrap();
            let mut far = listener.accept().await.unwrap().0;
            near.write_all(&vec![7; bytes]).await.unwrap();
            far.read_exact(&mut vec![0; bytes]).await.unwrap();
            pairs.push((near, far));
        }
        assert!(line.cut());
        let (mut near, mut far) = pairs.remove(1);
        for end in [&mut near, &mut far] {
            let error = tokio::time::timeout(PATIENCE, end.read_u8()).await.unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
        for (mut near, mut far) in pairs {
            near.write_all(b"on").await.unwrap();
            let mut got = [0; 2];
            tokio::time::timeout(PATIENCE, far.read_exact(&mut got)).await.unwrap().unwrap();
            assert_eq!(&got, b"on");
        }
    }

    #[tokio::test]
    async fn a_reader_that_stops_stops_the_writer() {
        let (_line, near, far) = ends().await;
        let mut written = 0;
        // Ends when nothing was taken for long: the line and the sockets are full.
        while tokio::time::timeout(Duration::from_millis(300), near.writable()).await.is_ok() {
            written += near.try_write(&[0; 64 * 1024]).unwrap_or(0);
            assert!(written < 100_000_000, "the line holds all that is written");
        }
        drop(far);
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_reset() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let line = Line::open(listener.local_addr().unwrap(), CONFIG).await.unwrap();
        drop(listener);
        let mut near = TcpStream::connect(line.address()).await.unwrap();
        // An end or a reset, and no wait.
        let read = tokio::time::timeout(PATIENCE, near.read_u8()).await.unwrap();
        assert!(read.is_err());
    }
}
