//! Sessions that share one memory budget: what they may take, and that they give it back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use gkd_proto::id::{BootId, ConnectionId, SessionId, Side, TunnelId};
use gkd_proto::packet::ResetCode;
use gkd_proto::{Event, MemoryBudget, PathSample, Read, Session, SessionConfig, Transmit};

const MIB: u64 = 1024 * 1024;

/// A client and the server's side of its session over one perfect tunnel; the server's is of the budget.
struct Both {
    now: Instant,
    client: Session,
    server: Session,
    tunnel: TunnelId,
}

/// Carries all that one end has for the other; whether that was anything.
fn hand_over(now: Instant, tunnel: TunnelId, from: &mut Session, to: &mut Session) -> bool {
    let mut out = Transmit::new();
    from.handle_timeout(now);
    while from.poll_transmit(now, tunnel, 64 * 1024, &mut out) {}
    let mut bytes = BytesMut::from(&out.copy_to_bytes(out.remaining())[..]);
    let any = !bytes.is_empty();
    to.handle_recv(now, tunnel, &mut bytes).unwrap();
    any
}

impl Both {
    fn new(budget: &Arc<MemoryBudget>) -> Self {
        let (now, id, config) = (Instant::now(), SessionId([1; 16]), Arc::new(SessionConfig::default()));
        let memory = budget.reserve(config.least_memory()).unwrap();
        let mut client = Session::new(config.clone(), Side::Client, id, 1, now);
        let mut server = Session::new(config, Side::Server, id, 2, now).within(memory);
        let hello = client.hello(now).unwrap();
        let welcome = server.handle_hello(now, &hello, BootId([0; 16]), false).unwrap();
        client.handle_welcome(now, hello.tunnel, &welcome).unwrap();
        Self { now, client, server, tunnel: hello.tunnel }
    }

    /// Carries packets until neither end has more, a round trip of 20 ms each time.
    fn carry(&mut self) {
        for _ in 0..100_000 {
            let there = hand_over(self.now, self.tunnel, &mut self.client, &mut self.server);
            self.now += Duration::from_millis(10);
            let back = hand_over(self.now, self.tunnel, &mut self.server, &mut self.client);
            self.now += Duration::from_millis(10);
            if !there && !back {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Opens a connection and has the server accept it.
    fn connect(&mut self) -> ConnectionId {
        let id = self.client.open(self.now, Bytes::from_static(b"x")).unwrap();
        self.carry();
        while let Some(event) = self.server.poll_event() {
            if matches!(event, Event::Accepted { connection, .. } if connection == id) {
                self.server.connection(self.now, id).unwrap().connected(Ok(()));
            }
        }
        self.carry();
        id
    }

    fn download(&mut self, id: ConnectionId, bytes: &[u8]) -> usize {
        self.server.connection(self.now, id).unwrap().write_slice(bytes).unwrap()
    }

    fn read_all(&mut self, id: ConnectionId) -> usize {
        let mut read = 0;
        while let Read::Data(data) = self.client.connection(self.now, id).unwrap().read(usize::MAX) {
            read += data.len();
        }
        read
    }
}

#[test]
fn what_waits_to_be_sent_is_taken_from_the_budget_and_given_back() {
    let budget = MemoryBudget::new(64 * MIB);
    let mut both = Both::new(&budget);
    let begun = budget.reserved();
    let id = both.connect();
    assert_eq!(both.download(id, &vec![7; 200_000]), 200_000);
    assert!(budget.reserved() >= begun + 200_000, "{} of {begun}", budget.reserved());
    both.carry();
    assert_eq!(both.read_all(id), 200_000);
    both.carry();
    assert_eq!((budget.reserved(), both.server.stats().memory), (begun, begun));
    drop(both);
    assert_eq!(budget.reserved(), 0);
}

#[test]
fn a_little_that_is_accepted_of_much_does_not_keep_all_of_it() {
    struct Owner(Arc<Vec<u8>>);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let budget = MemoryBudget::new(8 * MIB);
    let mut both = Both::new(&budget);
    let _others = budget.reserve(budget.limit() - budget.reserved()).unwrap();
    let id = both.connect();
    let memory = Arc::new(vec![7; 256 * 1024]);
    let mut write = Bytes::from_owner(Owner(memory.clone()));
    let accepted = both.server.connection(both.now, id).unwrap().write(&mut write).unwrap();
    assert!(0 < accepted && accepted < 32 * 1024, "{accepted} bytes were accepted");
    drop(write);
    assert_eq!(Arc::strong_count(&memory), 1, "{accepted} bytes keep what was written");
    both.carry();
    assert_eq!(both.read_all(id), accepted);
}

#[test]
fn datagrams_that_nobody_takes_are_taken_from_the_budget_and_given_back() {
    let budget = MemoryBudget::new(64 * MIB);
    let mut both = Both::new(&budget);
    let begun = budget.reserved();
    let ids = [both.connect(), both.connect()];
    let send = |both: &mut Both| {
        for id in ids {
            for _ in 0..10 {
                let mut connection = both.client.connection(both.now, id).unwrap();
                assert!(connection.send_datagram(Bytes::new(), Bytes::from(vec![7; 10_000])));
            }
        }
        both.carry();
    };
    send(&mut both);
    assert!(budget.reserved() >= begun + 200_000, "{} of {begun}", budget.reserved());
    // One is taken, the other reset with all that it has.
    while both.server.connection(both.now, ids[0]).unwrap().recv_datagram().is_some() {}
    both.server.connection(both.now, ids[1]).unwrap().reset(ResetCode::APPLICATION);
    assert_eq!(budget.reserved(), begun);
    // Without memory for them they are lost, as datagrams may be.
    let _others = budget.reserve(budget.limit() - budget.reserved()).unwrap();
    both.client.connection(both.now, ids[0]).unwrap().send_datagram(Bytes::new(), Bytes::from_static(b"x"));
    both.carry();
    assert_eq!(both.server.connection(both.now, ids[0]).unwrap().recv_datagram(), None);
}

/// Nothing is left to grow with: a writer gets on with little pieces, and everything arrives.
#[test]
fn a_session_without_memory_to_grow_still_carries_everything() {
    let budget = MemoryBudget::new(8 * MIB);
    let mut both = Both::new(&budget);
    let _others = budget.reserve(budget.limit() - budget.reserved()).unwrap();
    let id = both.connect();
    let content: Vec<u8> = (0..100_000u32).map(|byte| (byte / 3) as u8).collect();
    let (mut written, mut read) = (0, 0);
    for _ in 0..1000 {
        let accepted = both.download(id, &content[written..]);
        assert!(accepted <= 4096, "{accepted} bytes without memory for them");
        written += accepted;
        both.carry();
        read += both.read_all(id);
        assert!(both.server.stats().memory <= 4 * MIB);
        if read == content.len() {
            return;
        }
    }
    panic!("{read} of {} bytes", content.len());
}

/// The other end uploads as fast as it can, and the reader takes it as fast: with memory the window would grow.
#[test]
fn a_window_grows_with_the_budget_only() {
    for (limit, grows) in [(8 * MIB, false), (1024 * MIB, true)] {
        let budget = MemoryBudget::new(limit);
        let mut both = Both::new(&budget);
        let begun = budget.reserved();
        let id = both.connect();
        // Carried in a millisecond here: only the kernel's word makes it a long line.
        let long = PathSample { round_trip: Some(Duration::from_millis(50)), ..PathSample::default() };
        both.server.handle_path(both.now, both.tunnel, long);
        for _ in 0..400 {
            let mut chunk = Bytes::from(vec![1; 256 * 1024]);
            both.client.connection(both.now, id).unwrap().write(&mut chunk).unwrap();
            hand_over(both.now, both.tunnel, &mut both.client, &mut both.server);
            while let Read::Data(_) = both.server.connection(both.now, id).unwrap().read(usize::MAX) {}
            hand_over(both.now, both.tunnel, &mut both.server, &mut both.client);
            both.now += Duration::from_millis(1);
        }
        assert_eq!(budget.reserved() > begun, grows, "a budget of {limit}: {}", budget.reserved());
    }
}

#[test]
fn a_session_that_ends_gives_back_what_it_does_not_hold() {
    let budget = MemoryBudget::new(64 * MIB);
    let mut both = Both::new(&budget);
    let id = both.connect();
    both.download(id, &vec![7; 200_000]);
    both.server.lose(both.now);
    assert_eq!(budget.reserved(), 0);
}
