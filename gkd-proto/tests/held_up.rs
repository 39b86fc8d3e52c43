//! What was dropped holds up what is behind it at the other end's kernel. That is no queue of the line, and a tunnel goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use gkd_proto::handshake::{Hello, VERSION};
use gkd_proto::id::{BootId, SessionId, Side, TunnelId};
use gkd_proto::{PathSample, Session, SessionConfig, Transmit};

const TUNNEL: TunnelId = TunnelId(0);
const ALL: usize = usize::MAX;
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// A server's end with a tunnel and much to send.
struct World {
    now: Instant,
    session: Session,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let mut session = Session::new(Arc::default(), Side::Server, SessionId([2; 16]), 7, now);
        let parameters = SessionConfig::default().parameters();
        let (id, dead) = (session.id(), Vec::new());
        let hello = Hello { version: VERSION, session: id, tunnel: TUNNEL, exists: false, parameters, dead };
        session.handle_hello(now, &hello, BootId([1; 16]), false).unwrap();
        let bulk = session.open(now, Bytes::new()).unwrap();
        let written = session.connection(now, bulk).unwrap().write(&mut Bytes::from(vec![0; 512 * 1024]));
        assert!(written.unwrap() >= 200 * 1024);
        Self { now, session }
    }

    /// 20 ms later the kernel tells of so much of a queue, and of so many bytes behind something missing.
    fn tell(&mut self, queue: Duration, held_up: u64) {
        self.now += Duration::from_millis(20);
        let round_trip = Some(ROUND_TRIP + queue);
        let sample =
            PathSample { round_trip, least_round_trip: Some(ROUND_TRIP), held_up, ..PathSample::default() };
        self.session.handle_path(self.now, TUNNEL, sample);
    }

    /// What the tunnel takes with room for so much, in bytes.
    fn take(&mut self, most: usize) -> usize {
        let mut taken = 0;
        while taken < most {
            let mut out = Transmit::new();
            self.session.poll_transmit(self.now, TUNNEL, 4 * 1024, &mut out);
            match out.remaining() {
                0 => return taken,
                more => taken += more,
            }
        }
        taken
    }
}

#[test]
fn what_is_held_up_leaves_room_for_more() {
    let mut world = World::new();
    world.tell(Duration::ZERO, 0);
    let held = world.take(32 * 1024);
    // A long queue, until a limit has been found; it is below what is held.
    (0..20).for_each(|_| world.tell(ROUND_TRIP * 2, 0));
    assert!(world.take(ALL) < 100, "nothing but control");
    // All of that has arrived, but for what is missing in front of it.
    world.tell(Duration::ZERO, held as u64 - 1500);
    let more = world.take(ALL);
    assert!((4 * 1024..24 * 1024).contains(&more), "{more} bytes beside {held}");
    // Held up or not, what is not acknowledged is bounded.
    world.tell(Duration::ZERO, (held + more) as u64 - 1500);
    assert!(held + more + world.take(ALL) < 96 * 1024);
}

#[test]
fn more_held_up_than_there_is_does_no_harm() {
    let mut world = World::new();
    world.tell(Duration::ZERO, u64::MAX);
    assert!(world.take(ALL) < 96 * 1024);
    (0..20).for_each(|_| world.tell(ROUND_TRIP * 2, u64::MAX));
    assert!(world.take(ALL) < 96 * 1024);
}
