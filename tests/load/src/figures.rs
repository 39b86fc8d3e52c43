//! What is measured: what was sent and arrived in each direction of each connection, how its sockets ended,
//! and when bytes arrived at all.

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gkd_load::content::Way;

/// What the timeline tells apart. Short against the round trips that are looked at, long against a write.
const GRAIN: Duration = Duration::from_millis(2);

/// One direction of one connection.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Bytes that the writer's kernel took.
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) wrong: AtomicU64,
    /// Its reader saw the end of the stream.
    pub(crate) whole: AtomicBool,
    /// Microseconds of the longest wait for a byte.
    pub(crate) longest_wait: AtomicU64,
}

/// One socket, the program's or the destination's.
#[derive(Debug, Default)]
pub(crate) struct Socket {
    pub(crate) begun: AtomicBool,
    /// Its reader and its writer have ended.
    pub(crate) ended: AtomicBool,
    /// Microseconds since 1970 at which one of them met a reset; 0 for never. (The kernel tells a reset to
    /// whoever asks first, so that the reader alone would not do.)
    pub(crate) reset: AtomicU64,
}

/// One connection.
#[derive(Debug, Default)]
pub(crate) struct Connection {
    pub(crate) down: Lane,
    pub(crate) up: Lane,
    /// The program's socket.
    pub(crate) near: Socket,
    /// The destination's.
    pub(crate) far: Socket,
}

impl Connection {
    pub(crate) fn lane(&self, way: Way) -> &Lane {
        match way {
            Way::Down => &self.down,
            Way::Up => &self.up,
        }
    }
}

/// What arrived when, over all connections.
#[derive(Debug)]
pub(crate) struct Timeline {
    start: Instant,
    start_wall: Duration,
    buckets: Vec<[AtomicU64; 2]>,
}

impl Timeline {
    /// From now on, for so long at the most.
    pub(crate) fn new(limit: Duration) -> Self {
        let count = (limit.as_millis() / GRAIN.as_millis()) as usize + 1;
        let start_wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let buckets = (0..count).map(|_| Default::default()).collect();
        Self { start: Instant::now(), start_wall, buckets }
    }

    pub(crate) fn arrived(&self, way: Way, bytes: usize) {
        let bucket = (self.start.elapsed().as_micros() / GRAIN.as_micros()) as usize;
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket[way as usize].fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// Microseconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        (self.start_wall + self.start.elapsed()).as_micros() as u64
    }

    /// The longest time between the first byte and the last in which none arrived, in milliseconds.
    pub(crate) fn longest_stall(&self, way: Way) -> u128 {
        let (mut longest, mut last) = (0, None);
        for (place, bucket) in self.buckets.iter().enumerate() {
            if bucket[way as usize].load(Ordering::Relaxed) > 0 {
                longest = longest.max(last.map_or(0, |last| place - last - 1));
                last = Some(place);
            }
        }
        longest as u128 * GRAIN.as_millis()
    }

    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        for (place, bucket) in self.buckets.iter().enumerate() {
            let [down, up] = [0, 1].map(|way: usize| bucket[way].load(Ordering::Relaxed));
            if down + up > 0 {
                let at = (self.start_wall + GRAIN * place as u32).as_micros();
                writeln!(file, "{at} {down} {up}")?;
            }
        }
        file.flush()
    }
}

/// The figures of a run, as one line.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    connections: usize,
    received: [u64; 2],
    /// Bytes that were sent, and had not arrived when the stream ended in order.
    lost: [u64; 2],
    wrong: u64,
    /// Sockets that were reset, near and far, and when the last of them was.
    resets: [usize; 2],
    last_reset: [u64; 2],
    stall_ms: [u128; 2],
    /// The longest wait of any one direction of any one connection.
    longest_wait_ms: u64,
    /// Sockets whose ends did not come to an end.
    unfinished: usize,
    elapsed: Duration,
}

impl Figures {
    pub(crate) fn of(connections: &[Connection], timeline: &Timeline, elapsed: Duration) -> Self {
        let mut figures = Self { connections: connections.len(), elapsed, ..Self::default() };
        for connection in connections {
            for way in [Way::Down, Way::Up] {
                figures.add_lane(connection.lane(way), way);
            }
            for (end, socket) in [&connection.near, &connection.far].into_iter().enumerate() {
                let reset = socket.reset.load(Ordering::Relaxed);
                figures.resets[end] += usize::from(reset > 0);
                figures.last_reset[end] = figures.last_reset[end].max(reset);
                let open = socket.begun.load(Ordering::Relaxed) && !socket.ended.load(Ordering::Relaxed);
                figures.unfinished += usize::from(open);
            }
            // A stream whose reader met a reset is not lost: its program was told.
            for (way, reader) in [(Way::Down, &connection.near), (Way::Up, &connection.far)] {
                let lane = connection.lane(way);
                if lane.whole.load(Ordering::Relaxed) && reader.reset.load(Ordering::Relaxed) == 0 {
                    let sent = lane.sent.load(Ordering::Relaxed);
                    let received = lane.received.load(Ordering::Relaxed);
                    figures.lost[way as usize] += sent.saturating_sub(received);
                    figures.wrong += received.saturating_sub(sent);
                }
            }
        }
        figures.stall_ms = [Way::Down, Way::Up].map(|way| timeline.longest_stall(way));
        figures
    }

    fn add_lane(&mut self, lane: &Lane, way: Way) {
        self.received[way as usize] += lane.received.load(Ordering::Relaxed);
        self.wrong += lane.wrong.load(Ordering::Relaxed);
        self.longest_wait_ms = self.longest_wait_ms.max(lane.longest_wait.load(Ordering::Relaxed) / 1000);
    }

    /// Nothing is lost, wrong, or open.
    pub(crate) fn is_good(&self) -> bool {
        self.lost == [0, 0] && self.wrong == 0 && self.unfinished == 0
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "connections={} down={} up={} lost_down={} lost_up={} wrong={} resets_near={} resets_far={} \
             last_reset_near_us={} last_reset_far_us={} stall_down_ms={} stall_up_ms={} longest_wait_ms={} \
             unfinished={} elapsed_ms={}",
            self.connections,
            self.received[0],
            self.received[1],
            self.lost[0],
            self.lost[1],
            self.wrong,
            self.resets[0],
            self.resets[1],
            self.last_reset[0],
            self.last_reset[1],
            self.stall_ms[0],
            self.stall_ms[1],
            self.longest_wait_ms,
            self.unfinished,
            self.elapsed.as_millis(),
        )
    }
}
