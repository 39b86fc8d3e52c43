//! A tunnel whose sender is to run dry for a moment takes what is sparse and leaves the rest.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gkd_proto::handshake::{Hello, VERSION};
use gkd_proto::id::{BootId, ConnectionId, SessionId, Side, TunnelId};
use gkd_proto::{PathSample, Session, SessionConfig, Transmit};

const ROOM: usize = 16 * 1024;

struct World {
    now: Instant,
    session: Session,
}

impl World {
    /// A server with two tunnels that are alike.
    fn new() -> Self {
        let now = Instant::now();
        let session = Session::new(Arc::default(), Side::Server, SessionId([2; 16]), 7, now);
        let mut world = Self { now, session };
        for tunnel in [0, 1] {
            let parameters = SessionConfig::default().parameters();
            let (session, tunnel, dead) = (world.session.id(), TunnelId(tunnel), Vec::new());
            let hello = Hello { version: VERSION, session, tunnel, exists: false, parameters, dead };
            world.session.handle_hello(now, &hello, BootId([1; 16]), false).unwrap();
            world.tell(tunnel.0, None);
        }
        world
    }

    fn tell(&mut self, tunnel: u64, pauses: Option<u64>) {
        let pauses = pauses.map(Duration::from_millis);
        let round_trip = Some(Duration::from_millis(50));
        let sample = PathSample { round_trip, pauses, ..PathSample::default() };
        self.session.handle_path(self.now, TunnelId(tunnel), sample);
    }

    fn open(&mut self, bytes: usize) -> ConnectionId {
        let id = self.session.open(self.now, Bytes::new()).unwrap();
        let written = self.session.connection(self.now, id).unwrap().write(&mut Bytes::from(vec![0; bytes]));
        assert_eq!(written.unwrap(), bytes);
        id
    }

    /// What a tunnel takes, in bytes.
    fn take(&mut self, tunnel: u64) -> usize {
        let mut out = Transmit::new();
        self.session.poll_transmit(self.now, TunnelId(tunnel), ROOM, &mut out);
        bytes::Buf::remaining(&out)
    }

    fn called(&mut self) -> Vec<u64> {
        self.session.tunnels_to_poll().map(|tunnel| tunnel.0).collect()
    }
}

#[test]
fn bulk_goes_on_the_other_tunnel_and_comes_back() {
    let mut world = World::new();
    let bulk = world.open(200 * 1024);
    // Beyond what a connection may send before it is bulk.
    assert!(world.take(0) > 0 && world.take(1) > 0);
    world.tell(0, Some(50));
    assert_eq!(world.take(0), 0);
    assert!(world.take(1) > 0);
    world.called();
    // What is written now is not for the one that pauses, so that one is not called in vain.
    world.session.connection(world.now, bulk).unwrap().write_slice(&[0; 100]).unwrap();
    assert!(!world.called().contains(&0));
    world.tell(0, None);
    assert_eq!(world.called(), [0], "it has room again");
    assert!(world.take(0) > 0);
}

#[test]
fn keystrokes_go_out_although_all_pause() {
    let mut world = World::new();
    world.open(200 * 1024);
    assert!(world.take(0) > 0);
    [0, 1].into_iter().for_each(|tunnel| world.tell(tunnel, Some(50 + tunnel)));
    assert_eq!((world.take(0), world.take(1)), (0, 0));
    world.called();
    let typed = world.open(1);
    for stroke in 0..20 {
        let called = world.called();
        assert_eq!(called, [1], "the one that pauses longest is called for stroke {stroke}");
        let taken = world.take(called[0]);
        assert!((1..100).contains(&taken), "the keystroke alone: {taken} bytes");
        assert!(world.take(0) < 50 && world.take(1) < 50);
        let _ = world.called();
        world.session.connection(world.now, typed).unwrap().write_slice(b"x").unwrap();
    }
    let _ = world.called();
    assert!(world.take(0) + world.take(1) < 200);
    // Nobody is called again and again for what has to wait; control may go.
    assert!(world.take(0) < 50 && world.take(1) < 50);
    assert_eq!((world.take(0), world.take(1), world.called().len()), (0, 0, 0));
}
