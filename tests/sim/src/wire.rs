//! One emulated carrier: in each direction a socket buffer, a queue, a line with a rate, a way with a delay, and the faults
//! of real ones.
//!
//! ```text
//!   session ──▶ socket (bounded, unsent) ──▶ queue ──▶ line (rate) ──▶ way (delay) ──▶ received ──▶ session
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use gkd_proto::{PathSample, Transmit};

/// What a tunnel's socket takes unsent where nothing else is said, in bytes.
const SOCKET: usize = 16 * 1024;
/// What the line takes at a time, in bytes: a segment, or what it carries in a millisecond.
const PIECE: (u64, u64) = (1400, 16_000);
/// How often the kernel is asked at the most.
const SAMPLE_EVERY: Duration = Duration::from_millis(15);

/// What a tunnel runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Bytes per second, each way.
    pub rate: u64,
    /// One way.
    pub delay: Duration,
    /// What its socket takes unsent, in bytes.
    pub socket: usize,
    /// What its socket sends before the line is free waits in front of it, for so long at the most.
    pub queue: Duration,
    /// What the kernel says of it.
    pub kernel: Kernel,
}

/// What the kernel says of a tunnel's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Nothing: there is no such socket.
    Absent,
    /// The truth, as it is at the moment.
    Right,
    /// The truth as a kernel tells it: each acknowledged piece moves what it says by an eighth (RFC 6298, section 2). What
    /// is sent in one burst waits for itself, and shows in it.
    Smoothed,
    /// A round trip of 50 us, for TCP ends at a CDN next door.
    Near,
}

/// 10 MB/s and a round trip of 20 ms.
pub const FAST: Path = Path::new(10_000_000, Duration::from_millis(10));

impl Path {
    /// A path of which the kernel says nothing.
    pub const fn new(rate: u64, delay: Duration) -> Self {
        Self { rate, delay, socket: SOCKET, queue: Duration::ZERO, kernel: Kernel::Absent }
    }

    /// What flows takes so long to leave.
    pub fn takes(&self, bytes: u64) -> Duration {
        Duration::from_nanos(bytes * 1_000_000_000 / self.rate)
    }
}

/// Where one end of a wire is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It waits for the other end's Hello, Welcome or Reject.
    Greeting,
    /// Packets flow.
    Up,
    /// This end has closed it.
    Down,
}

/// One direction of a wire.
#[derive(Debug)]
pub struct Direction {
    pub(crate) path: Path,
    /// Unsent.
    pub(crate) socket: Transmit,
    /// The sender closes when the socket is empty.
    pub(crate) closing: bool,
    line_free: Instant,
    /// Nothing leaves any more, for ever.
    pub(crate) cut: bool,
    /// Nothing leaves and nothing arrives for now.
    pub(crate) stalled: bool,
    /// When each piece arrives.
    way: VecDeque<(Instant, Bytes)>,
    /// When the receiver hears the end, behind all pieces.
    end: Option<Instant>,
    /// Arrived, and not taken by the receiver.
    pub(crate) received: BytesMut,
    pub(crate) sampled: Option<Instant>,
    /// When the acknowledgement of each piece is back, and how long it took; what a kernel makes of them.
    acks: VecDeque<(Instant, Duration)>,
    smoothed: Option<Duration>,
}

impl Direction {
    fn new(now: Instant, path: Path) -> Self {
        Self {
            path,
            socket: Transmit::new(),
            closing: false,
            line_free: now,
            cut: false,
            stalled: false,
            way: VecDeque::new(),
            end: None,
            received: BytesMut::new(),
            sampled: None,
            acks: VecDeque::new(),
            smoothed: None,
        }
    }

    /// What the socket still takes.
    pub(crate) fn room(&self) -> usize {
        self.path.socket.saturating_sub(self.socket.remaining())
    }

    /// Puts bytes on the line that come before all packets.
    pub(crate) fn send(&mut self, now: Instant, bytes: Bytes) {
        if !self.cut {
            self.depart(now, bytes);
        }
    }

    fn depart(&mut self, now: Instant, bytes: Bytes) {
        self.line_free = now.max(self.line_free) + self.path.takes(bytes.len() as u64);
        if self.path.kernel == Kernel::Smoothed {
            let acked = self.line_free + 2 * self.path.delay;
            self.acks.push_back((acked, acked - now));
        }
        self.way.push_back((self.line_free + self.path.delay, bytes));
    }

    fn flows(&self) -> bool {
        !self.cut && !self.stalled
    }

    /// Lets the line take what it can now; whether it took anything.
    pub(crate) fn flow(&mut self, now: Instant) -> bool {
        let mut any = false;
        let piece = (self.path.rate / 1000).clamp(PIECE.0, PIECE.1) as usize;
        while self.socket.has_remaining() && self.line_free <= now + self.path.queue && self.flows() {
            let bytes = self.socket.copy_to_bytes(piece.min(self.socket.remaining()));
            self.depart(now, bytes);
            any = true;
        }
        if self.closing && !self.socket.has_remaining() && self.end.is_none() && self.flows() {
            self.end = Some(now.max(self.line_free) + self.path.delay);
            any = true;
        }
        any
    }

    /// Moves what has arrived by now to `received`; whether anything had.
    pub(crate) fn arrive(&mut self, now: Instant) -> bool {
        let mut any = false;
        while !self.stalled && self.way.front().is_some_and(|(at, _)| *at <= now) {
            let (_, bytes) = self.way.pop_front().unwrap();
            self.received.extend_from_slice(&bytes);
            any = true;
        }
        any
    }

    /// The receiver hears that the other end closed.
    pub(crate) fn ended(&self, now: Instant) -> bool {
        !self.stalled && self.way.is_empty() && self.end.is_some_and(|end| end <= now)
    }

    /// What the kernel says of it now, once in a while.
    pub(crate) fn sample(&mut self, now: Instant) -> Option<PathSample> {
        if self.sampled.is_some_and(|at| now < at + SAMPLE_EVERY) {
            return None;
        }
        self.sampled = Some(now);
        let least = match self.path.kernel {
            Kernel::Absent => return None,
            Kernel::Right | Kernel::Smoothed => 2 * self.path.delay,
            Kernel::Near => Duration::from_micros(50),
        };
        let queue = self.line_free.saturating_duration_since(now).min(self.path.queue);
        let round_trip = match self.path.kernel {
            Kernel::Absent | Kernel::Near => least,
            Kernel::Right => least + queue,
            Kernel::Smoothed => self.smoothed(now).unwrap_or(least),
        };
        let unsent = self.socket.remaining() as u64;
        Some(PathSample {
            round_trip: Some(round_trip),
            least_round_trip: Some(least),
            rate: Some(self.path.rate),
            unsent: Some(unsent),
            ..PathSample::default()
        })
    }

    /// The round trip that a kernel tells.
    fn smoothed(&mut self, now: Instant) -> Option<Duration> {
        while let Some((_, took)) = self.acks.pop_front_if(|(at, _)| *at <= now) {
            self.smoothed = Some(self.smoothed.map_or(took, |smoothed| (7 * smoothed + took) / 8));
        }
        self.smoothed
    }

    /// When something happens here next.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        if self.stalled {
            return None;
        }
        let arrival = self.way.front().map(|(at, _)| *at).or(self.end);
        let free = (self.socket.has_remaining() && !self.cut).then_some(self.line_free - self.path.queue);
        arrival.into_iter().chain(free).min()
    }

    /// The line is cut: of what is on the way `keep` percent still arrive, to the byte.
    pub(crate) fn cut(&mut self, keep: u64) {
        self.cut = true;
        self.end = None;
        let total: usize = self.way.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut left = (total as u64 * keep / 100) as usize;
        self.way.retain_mut(|(_, bytes)| {
            bytes.truncate(left);
            left -= bytes.len();
            !bytes.is_empty()
        });
    }

    /// The sender closes: at once, so that what is unsent is lost, or behind it.
    pub(crate) fn close(&mut self, gently: bool) {
        if !gently {
            self.socket = Transmit::new();
        }
        self.closing = true;
    }

    /// The receiver closed: what comes is lost.
    pub(crate) fn ignore(&mut self) {
        self.way.clear();
        self.received.clear();
        self.socket = Transmit::new();
        self.cut = true;
        self.end = None;
    }
}

/// Both directions of a carrier, and where each end is.
#[derive(Debug)]
pub struct Wire {
    /// By sender.
    pub(crate) directions: [Direction; 2],
    pub(crate) phase: [Phase; 2],
    /// It was retired: it ends soon.
    pub(crate) retired: bool,
    /// Since when it stands still, and for how long it did at the most: its ends take that for a round trip.
    stalled_since: Option<Instant>,
    pub(crate) longest_stall: Duration,
}

impl Wire {
    pub(crate) fn new(now: Instant, path: Path, phase: Phase) -> Self {
        Self {
            directions: [Direction::new(now, path), Direction::new(now, path)],
            phase: [phase; 2],
            retired: false,
            stalled_since: None,
            longest_stall: Duration::ZERO,
        }
    }

    /// What each end sends stands still, or goes on.
    pub(crate) fn stall(&mut self, now: Instant, stalled: [bool; 2]) {
        for (direction, stalled) in self.directions.iter_mut().zip(stalled) {
            direction.stalled = stalled;
        }
        if let Some(since) = self.stalled_since.take() {
            self.longest_stall = self.longest_stall.max(now - since);
        }
        self.stalled_since = stalled.contains(&true).then_some(now);
    }

    /// It carries both ways, as far as anybody knows.
    pub(crate) fn works(&self) -> bool {
        self.phase == [Phase::Up; 2] && !self.retired && self.directions.iter().all(Direction::flows)
    }
}
