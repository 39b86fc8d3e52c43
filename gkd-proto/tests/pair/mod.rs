//! Two sessions in virtual time, joined by emulated tunnels: each a rate, a delay and a socket buffer a
//! direction, and the faults of real ones (stall, reset).
//!
//! Programs are pumped after every step: writers write a pattern that depends on the connection and the
//! offset, readers check it. Everything follows from the seed and the calls.

#![allow(dead_code, unreachable_pub, reason = "each test uses what it needs")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use gkd_proto::id::{BootId, ConnectionId, SessionId, Side, TunnelId};
use gkd_proto::packet::DialError;
use gkd_proto::{DropReason, Event, PathSample, Read, Session, SessionConfig, Transmit};

/// A tunnel's socket takes so many unsent bytes.
const SOCKET: usize = 16 * 1024;

pub const CLIENT: usize = 0;
pub const SERVER: usize = 1;

#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub rate: u64,
    pub delay: Duration,
}

pub const FAST: Path = Path { rate: 10_000_000, delay: Duration::from_millis(10) };

/// One direction of a tunnel.
struct Direction {
    path: Path,
    unsent: usize,
    transmit: Transmit,
    /// Bytes on the way: when each piece arrives.
    on_the_way: VecDeque<(Instant, Bytes)>,
    line_free: Instant,
    stalled: bool,
    received: BytesMut,
}

struct Wire {
    /// By sender.
    directions: [Direction; 2],
}

pub struct Writer {
    pub left: u64,
    written: u64,
    pub finish: bool,
    done: bool,
    /// It was not accepted whole: Writable will tell.
    waits: bool,
}

#[derive(Default)]
pub struct Reader {
    pub read: u64,
    pub paused: bool,
    pub finished: bool,
    /// It found nothing: Readable will tell.
    waits: bool,
}

pub struct End {
    pub session: Session,
    pub writers: BTreeMap<ConnectionId, Writer>,
    pub readers: BTreeMap<ConnectionId, Reader>,
    pub events: Vec<Event>,
    /// What is accepted gets a reader at once.
    pub auto_read: bool,
    /// What is accepted gets this answer.
    pub answer: Result<(), DialError>,
    to_poll: Vec<TunnelId>,
}

pub struct Pair {
    pub now: Instant,
    pub start: Instant,
    pub ends: [End; 2],
    wires: BTreeMap<TunnelId, Wire>,
    pub boot: BootId,
    pub most_unread: [u64; 2],
}

/// The byte at `offset` of what `from` sends on `connection`.
pub fn pattern(from: usize, connection: ConnectionId, offset: u64) -> u8 {
    let mixed = (offset / 251).wrapping_mul(31) ^ offset ^ connection.0.wrapping_mul(97) ^ (from as u64 * 13);
    mixed as u8
}

impl Pair {
    pub fn new(paths: &[Path]) -> Self {
        Self::with_config(paths, SessionConfig::default())
    }

    pub fn with_config(paths: &[Path], config: SessionConfig) -> Self {
        let start = Instant::now();
        let config = Arc::new(config);
        let end = |side, seed| End {
            session: Session::new(config.clone(), side, SessionId([3; 16]), seed, start),
            writers: BTreeMap::new(),
            readers: BTreeMap::new(),
            events: Vec::new(),
            auto_read: true,
            answer: Ok(()),
            to_poll: Vec::new(),
        };
        let ends = [end(Side::Client, 1), end(Side::Server, 2)];
        let boot = BootId([5; 16]);
        let mut pair = Self { now: start, start, ends, wires: BTreeMap::new(), boot, most_unread: [0; 2] };
        for path in paths {
            pair.add_tunnel(*path);
        }
        pair
    }

    /// Brings up a tunnel, the handshake taking no time.
    pub fn add_tunnel(&mut self, path: Path) -> TunnelId {
        let now = self.now;
        let hello = self.ends[CLIENT].session.hello(now).unwrap();
        let known = hello.exists;
        let welcome = self.ends[SERVER].session.handle_hello(now, &hello, self.boot, known).unwrap();
        self.add_wire(hello.tunnel, path);
        self.ends[CLIENT].session.handle_welcome(now, hello.tunnel, &welcome).unwrap();
        self.settle();
        hello.tunnel
    }

    pub fn add_wire(&mut self, tunnel: TunnelId, path: Path) {
        let direction = || Direction {
            path,
            unsent: 0,
            transmit: Transmit::new(),
            on_the_way: VecDeque::new(),
            line_free: self.now,
            stalled: false,
            received: BytesMut::new(),
        };
        self.wires.insert(tunnel, Wire { directions: [direction(), direction()] });
    }

    // ---- programs ----

    /// Opens a connection at `end` that writes `bytes` and finishes, and reads whatever comes.
    pub fn open(&mut self, end: usize, bytes: u64) -> ConnectionId {
        let id = self.ends[end].session.open(self.now, Bytes::from_static(b"test")).unwrap();
        self.ends[end].readers.insert(id, Reader::default());
        self.write(end, id, bytes, true);
        id
    }

    /// Opens a connection at `end` on which nothing is written yet.
    pub fn open_idle(&mut self, end: usize) -> ConnectionId {
        let id = self.ends[end].session.open(self.now, Bytes::new()).unwrap();
        self.ends[end].readers.insert(id, Reader::default());
        self.settle();
        id
    }

    /// Has `end` write `bytes` more on a connection, then finish or not.
    pub fn write(&mut self, end: usize, id: ConnectionId, bytes: u64, finish: bool) {
        let writer = self.ends[end].writers.entry(id).or_insert(Writer {
            left: 0,
            written: 0,
            finish,
            done: false,
            waits: false,
        });
        assert!(!writer.done, "it has finished");
        writer.left += bytes;
        writer.finish = finish;
        self.settle();
    }

    pub fn read(&self, end: usize, id: ConnectionId) -> u64 {
        self.ends[end].readers.get(&id).map_or(0, |reader| reader.read)
    }

    /// Everything up to the Finish was read.
    pub fn finished(&self, end: usize, id: ConnectionId) -> bool {
        self.ends[end].readers.get(&id).is_some_and(|reader| reader.finished)
    }

    /// The program at `end` drops a connection.
    pub fn release(&mut self, end: usize, id: ConnectionId) {
        self.forget_programs(end, id);
        if let Some(connection) = self.ends[end].session.connection(self.now, id) {
            connection.release();
        }
        self.settle();
    }

    /// The program at `end` resets a connection.
    pub fn reset(&mut self, end: usize, id: ConnectionId, code: gkd_proto::packet::ResetCode) {
        self.forget_programs(end, id);
        if let Some(connection) = self.ends[end].session.connection(self.now, id) {
            connection.reset(code);
        }
        self.settle();
    }

    fn forget_programs(&mut self, end: usize, id: ConnectionId) {
        self.ends[end].writers.remove(&id);
        self.ends[end].readers.remove(&id);
    }

    /// Ends what is left at both ends and checks that the accounts are whole.
    pub fn finish(mut self) {
        for end in [CLIENT, SERVER] {
            let ids: Vec<_> = self.ends[end].readers.keys().copied().collect();
            ids.into_iter().for_each(|id| self.release(end, id));
        }
        self.run_for(Duration::from_secs(2));
        self.assert_balanced();
    }

    /// Nothing is left of any connection, and every account is whole.
    pub fn assert_balanced(&self) {
        for (this, other) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
            let (here, there) = (self.ends[this].session.stats(), self.ends[other].session.stats());
            assert_eq!(here.connections, 0, "connections at {this}");
            assert_eq!(here.unread, 0, "unread at {this}");
            assert_eq!(here.queued, 0, "queued at {this}");
            assert_eq!(here.charged, there.charged_there, "charged by {this}");
        }
    }

    /// Tells both ends the kernel's round trip of a tunnel.
    pub fn kernel_says(&mut self, tunnel: TunnelId, round_trip: Duration) {
        for end in &mut self.ends {
            let sample = PathSample { round_trip: Some(round_trip), ..PathSample::default() };
            end.session.handle_path(self.now, tunnel, sample);
        }
    }

    pub fn pause(&mut self, end: usize, id: ConnectionId, paused: bool) {
        self.ends[end].readers.entry(id).or_default().paused = paused;
        self.settle();
    }

    pub fn saw(&self, end: usize, event: &Event) -> bool {
        self.ends[end].events.contains(event)
    }

    fn pump(&mut self) -> bool {
        let mut moved = false;
        let now = self.now;
        for (side, end) in self.ends.iter_mut().enumerate() {
            for (id, writer) in end.writers.iter_mut().filter(|(_, writer)| !writer.done && !writer.waits) {
                let Some(mut connection) = end.session.connection(now, *id) else { continue };
                while writer.left > 0 {
                    let piece = writer.left.min(40_000);
                    let bytes: Vec<u8> =
                        (0..piece).map(|offset| pattern(side, *id, writer.written + offset)).collect();
                    let accepted = connection.write_slice(&bytes).unwrap() as u64;
                    writer.left -= accepted;
                    writer.written += accepted;
                    moved |= accepted > 0;
                    if accepted < piece {
                        writer.waits = true;
                        break;
                    }
                }
                if writer.left == 0 && writer.finish && !writer.done {
                    connection.finish();
                    writer.done = true;
                    moved = true;
                }
            }
            let active = |reader: &Reader| !reader.paused && !reader.finished && !reader.waits;
            for (id, reader) in end.readers.iter_mut().filter(|(_, reader)| active(reader)) {
                let Some(mut connection) = end.session.connection(now, *id) else { continue };
                loop {
                    match connection.read(70_000) {
                        Read::Data(data) => {
                            for (offset, byte) in data.iter().enumerate() {
                                let expected = pattern(1 - side, *id, reader.read + offset as u64);
                                assert_eq!(
                                    *byte,
                                    expected,
                                    "connection {id} at {}",
                                    reader.read + offset as u64
                                );
                            }
                            reader.read += data.len() as u64;
                            moved = true;
                        }
                        Read::Pending => {
                            reader.waits = true;
                            break;
                        }
                        Read::Finished => {
                            reader.finished = true;
                            moved = true;
                            break;
                        }
                    }
                }
            }
        }
        moved
    }

    // ---- faults ----

    /// Nothing moves on this tunnel in either direction; the ends hear nothing of it.
    pub fn stall(&mut self, tunnel: TunnelId, stalled: bool) {
        for direction in &mut self.wires.get_mut(&tunnel).unwrap().directions {
            direction.stalled = stalled;
        }
        self.settle();
    }

    /// The tunnel is cut: what is on the way is lost, both ends hear of it.
    pub fn cut(&mut self, tunnel: TunnelId) {
        self.cut_at(CLIENT, tunnel);
        self.cut_at(SERVER, tunnel);
    }

    /// The tunnel is cut, and only `end` hears of it.
    pub fn cut_at(&mut self, end: usize, tunnel: TunnelId) {
        if let Some(wire) = self.wires.get_mut(&tunnel) {
            for direction in &mut wire.directions {
                direction.stalled = true;
            }
        }
        self.ends[end].session.handle_tunnel_down(self.now, tunnel);
        self.settle();
    }

    pub fn tunnels(&self) -> Vec<TunnelId> {
        self.ends[CLIENT].session.stats().tunnels.iter().map(|tunnel| tunnel.tunnel).collect()
    }

    // ---- time ----

    /// Runs until `done`, at most for `limit` of virtual time; whether it was.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        self.settle();
        while !done(self) {
            match self.next_time() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => {
                    self.now = end;
                    return done(self);
                }
            }
            self.settle();
        }
        true
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(time, |_| false);
        self.now = end;
    }

    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    fn next_time(&self) -> Option<Instant> {
        let timers = self.ends.iter().filter_map(|end| end.session.poll_timeout());
        let wires =
            self.wires.values().flat_map(|wire| &wire.directions).filter(|direction| !direction.stalled);
        let wires = wires.flat_map(|direction| {
            let arrival = direction.on_the_way.front().map(|(at, _)| *at);
            let free = (direction.transmit.has_remaining()).then_some(direction.line_free);
            arrival.into_iter().chain(free)
        });
        timers.chain(wires).min()
    }

    /// Does all that is due now.
    pub fn settle(&mut self) {
        for round in 0.. {
            assert!(round < 100_000, "an endless loop at {:?}", self.elapsed());
            let mut moved = self.pump();
            for end in 0..2 {
                if self.ends[end].session.poll_timeout().is_some_and(|due| due <= self.now) {
                    self.ends[end].session.handle_timeout(self.now);
                    let due = self.ends[end].session.poll_timeout();
                    assert!(due.is_none_or(|due| due > self.now), "a timer that stays due");
                    moved = true;
                }
                moved |= self.drain_events(end);
                moved |= self.transmit(end);
                moved |= self.deliver(end);
                self.most_unread[end] = self.most_unread[end].max(self.ends[end].session.stats().unread);
            }
            if !moved {
                return;
            }
        }
    }

    fn drain_events(&mut self, side: usize) -> bool {
        let mut any = false;
        while let Some(event) = self.ends[side].session.poll_event() {
            any = true;
            let (now, end) = (self.now, &mut self.ends[side]);
            match &event {
                Event::Accepted { connection, .. } => {
                    if let Some(state) = end.session.connection(now, *connection) {
                        state.connected(end.answer);
                    }
                    if end.auto_read {
                        end.readers.insert(*connection, Reader::default());
                    }
                }
                Event::Readable { connection } => {
                    if let Some(reader) = end.readers.get_mut(connection) {
                        assert!(std::mem::take(&mut reader.waits), "Readable without a read that waits");
                    }
                }
                Event::Writable { connection } => {
                    if let Some(writer) = end.writers.get_mut(connection) {
                        assert!(std::mem::take(&mut writer.waits), "Writable without a write that waits");
                    }
                }
                Event::DropTunnel { tunnel, reason } => {
                    end.session.handle_tunnel_down(now, *tunnel);
                    // What says that the session ended is still sent.
                    let stalled = *reason != DropReason::SessionEnded;
                    self.wires
                        .get_mut(tunnel)
                        .unwrap()
                        .directions
                        .iter_mut()
                        .for_each(|d| d.stalled |= stalled);
                }
                _ => {}
            }
            self.ends[side].events.push(event);
        }
        any
    }

    /// Lets the tunnels of one end pull, and their sockets send.
    fn transmit(&mut self, side: usize) -> bool {
        let mut any = false;
        let end = &mut self.ends[side];
        let named = end.session.tunnels_to_poll();
        end.to_poll.extend(named);
        let to_poll = std::mem::take(&mut end.to_poll);
        for tunnel in to_poll {
            let Some(wire) = self.wires.get_mut(&tunnel) else { continue };
            let direction = &mut wire.directions[side];
            let room = SOCKET.saturating_sub(direction.transmit.remaining());
            if room == 0 {
                self.ends[side].to_poll.push(tunnel);
                continue;
            }
            if self.ends[side].session.poll_transmit(self.now, tunnel, room, &mut direction.transmit) {
                any = true;
                self.ends[side].to_poll.push(tunnel);
            }
        }
        for wire in self.wires.values_mut() {
            let direction = &mut wire.directions[side];
            while direction.transmit.has_remaining() && direction.line_free <= self.now && !direction.stalled
            {
                let size = direction
                    .transmit
                    .remaining()
                    .min((direction.path.rate / 1000).clamp(1400, 16_000) as usize);
                let bytes = direction.transmit.copy_to_bytes(size);
                let takes = Duration::from_secs_f64(size as f64 / direction.path.rate as f64);
                direction.line_free = self.now.max(direction.line_free) + takes;
                direction.on_the_way.push_back((direction.line_free + direction.path.delay, bytes));
                any = true;
            }
        }
        any
    }

    /// Hands one end what has arrived.
    fn deliver(&mut self, side: usize) -> bool {
        let mut any = false;
        let tunnels: Vec<_> = self.wires.keys().copied().collect();
        for tunnel in tunnels {
            let direction = &mut self.wires.get_mut(&tunnel).unwrap().directions[1 - side];
            let mut arrived = false;
            while direction.on_the_way.front().is_some_and(|(at, _)| *at <= self.now) && !direction.stalled {
                let (_, bytes) = direction.on_the_way.pop_front().unwrap();
                direction.received.extend_from_slice(&bytes);
                arrived = true;
            }
            if arrived {
                any = true;
                let result = self.ends[side].session.handle_recv(self.now, tunnel, &mut direction.received);
                if let Err(error) = result {
                    assert!(matches!(error, gkd_proto::error::TunnelError::NotUp(_)), "{error}");
                }
            }
        }
        any
    }
}
