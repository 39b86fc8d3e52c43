//! Named scenarios of two sessions in virtual time: what flows, how fast, and within which bounds.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use gkd_proto::error::OpenError;
use gkd_proto::id::ConnectionId;
use gkd_proto::packet::ResetCode;
use gkd_proto::{Event, SessionConfig};
use gkd_sim::shorthand::{FOUR, KIB, MIB, millis, path, secs};
use gkd_sim::{CLIENT, FAST, Pair, SERVER};

#[test]
fn in_order_over_one_tunnel() {
    let mut pair = Pair::new(&[FAST]);
    let id = pair.open(CLIENT, 3 * MIB);
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, id)));
    assert_eq!(pair.read(SERVER, id), 3 * MIB);
    let stats = pair.ends[SERVER].session.stats();
    assert_eq!((stats.out_of_order, stats.duplicates), (0, 0));
    assert!(pair.saw(CLIENT, &Event::Connected { connection: id, result: Ok(()) }));
    pair.run_for(secs(1));
    assert!(pair.saw(CLIENT, &Event::Acknowledged { connection: id }));
    pair.finish();
}

#[test]
fn one_connection_gets_the_sum_of_its_tunnels() {
    let slow = path(1_000_000, 25);
    let mut pair = Pair::new(&[slow; 4]);
    let id = pair.open(CLIENT, 16 * MIB);
    assert!(pair.run_until(secs(30), |pair| pair.finished(SERVER, id)));
    let ideal = 16.0 * MIB as f64 / 4e6;
    let took = pair.elapsed().as_secs_f64();
    assert!(took < 1.1 * ideal + 0.3, "took {took} s, the line {ideal} s");
    pair.finish();
}

#[test]
fn reversed_arrival() {
    let paths: Vec<_> = [40, 30, 20, 10].map(|delay| path(5_000_000, delay)).into();
    let mut pair = Pair::new(&paths);
    let id = pair.open(CLIENT, 8 * MIB);
    assert!(pair.run_until(secs(10), |pair| pair.finished(SERVER, id)));
    assert_eq!(pair.read(SERVER, id), 8 * MIB);
    assert!(pair.ends[SERVER].session.stats().out_of_order > 0);
    pair.finish();
}

#[test]
fn data_before_its_connect() {
    // The first tunnel carries the Connect and is slow; the data behind it takes the second.
    let mut pair = Pair::new(&[path(10_000_000, 200), path(10_000_000, 5)]);
    let id = pair.open(CLIENT, 300 * KIB);
    pair.run_for(millis(100));
    let stats = pair.ends[SERVER].session.stats();
    assert!(stats.data_received > 0 && stats.connections == 1, "{stats:?}");
    assert!(pair.ends[SERVER].events.is_empty(), "not accepted before its Connect");
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, id)));
    pair.finish();
}

/// Origin: a simultaneous open under one id merges two streams in smux.
#[test]
fn both_ends_open_and_ids_never_meet() {
    let mut pair = Pair::new(&FOUR);
    let ids: Vec<_> = (0..20).map(|turn| pair.open(turn % 2, 100 * KIB)).collect();
    pair.run_for(secs(2));
    for (turn, id) in ids.iter().enumerate() {
        assert_eq!(pair.read(1 - turn % 2, *id), 100 * KIB);
    }
    pair.finish();
}

#[test]
fn credit_is_used_up_and_reopened() {
    let mut pair = Pair::new(&FOUR);
    pair.ends[SERVER].auto_read = false;
    let id = pair.open(CLIENT, 20 * MIB);
    pair.run_for(secs(2));
    let unread = pair.ends[SERVER].session.stats().unread;
    let window = SessionConfig::default().connection_window;
    assert!(unread <= window && unread > window - 70 * KIB, "unread {unread}: the window and no more");
    pair.pause(SERVER, id, false);
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, id)));
    pair.finish();
}

/// Origin: the fixed window of smux, 512 KiB, is 42 Mbit/s at 100 ms.
#[test]
fn a_fast_reader_fills_a_long_line() {
    // 100 MB/s over 100 ms hold 10 MB: ten times the initial window.
    let mut pair = Pair::new(&[path(25_000_000, 50); 4]);
    let id = pair.open(CLIENT, 400 * MIB);
    pair.run_for(secs(2));
    let before = pair.read(SERVER, id);
    pair.run_for(secs(1));
    let rate = pair.read(SERVER, id) - before;
    assert!(rate > 90_000_000, "{rate} bytes per second of 100,000,000");
}

#[test]
fn one_stuck_reader_among_ten() {
    let mut pair = Pair::new(&FOUR);
    let ids: Vec<_> = (0..10).map(|_| pair.open(CLIENT, 4 * MIB)).collect();
    pair.run_for(millis(40));
    pair.pause(SERVER, ids[0], true);
    assert!(pair.run_until(secs(10), |pair| ids[1..].iter().all(|id| pair.finished(SERVER, *id))));
    assert!(pair.read(SERVER, ids[0]) < 4 * MIB);
    pair.pause(SERVER, ids[0], false);
    assert!(pair.run_until(secs(2), |pair| pair.finished(SERVER, ids[0])));
    pair.finish();
}

#[test]
fn ten_grown_readers_that_stop_leave_room_for_an_eleventh() {
    let mut pair = Pair::new(&[path(25_000_000, 50); 4]);
    let ids: Vec<_> = (0..10).map(|_| pair.open(CLIENT, 200 * MIB)).collect();
    pair.run_for(secs(5));
    ids.iter().for_each(|id| pair.pause(SERVER, *id, true));
    pair.run_for(secs(2));
    let limit = SessionConfig::default().max_session_window;
    assert!(pair.ends[SERVER].session.stats().unread < limit, "they leave something of {limit}");
    let eleventh = pair.open(CLIENT, 400 * MIB);
    pair.run_for(secs(1));
    let before = pair.read(SERVER, eleventh);
    pair.run_for(secs(1));
    let rate = pair.read(SERVER, eleventh) - before;
    assert!(rate > 80_000_000, "{rate} bytes per second of 100,000,000");
}

/// Of readers that stopped, and together hold all of the session's window, the one that holds most gives way: to end
/// one that holds a byte frees nobody, however long it paused.
#[test]
fn a_blocked_session_gives_up_the_connection_that_holds_most() {
    let least = 256 * KIB;
    let config = SessionConfig {
        connection_window: least,
        max_connection_window: least,
        session_window: least,
        max_session_window: least,
        ..SessionConfig::default()
    };
    let blocked_for = config.blocked_for;
    let mut pair = Pair::with_config(&FOUR, config);
    pair.ends[SERVER].auto_read = false;
    let small: Vec<_> = (0..20).map(|_| pair.open(CLIENT, 1)).collect();
    pair.run_for(secs(1));
    let large = pair.open(CLIENT, MIB);
    pair.run_for(secs(1));
    pair.ends[SERVER].auto_read = true;
    let reader = pair.open(CLIENT, MIB);
    pair.run_for(blocked_for - secs(5));
    assert!(pair.ends[SERVER].programs.contains_key(&large), "it may pause for {blocked_for:?}");
    assert!(!pair.finished(SERVER, reader), "nothing is left for it yet");
    assert!(pair.run_until(secs(15), |pair| pair.finished(SERVER, reader)));
    assert!(pair.saw(SERVER, &Event::Reset { connection: large, code: ResetCode::TIMED_OUT }));
    assert!(pair.saw(CLIENT, &Event::Reset { connection: large, code: ResetCode::TIMED_OUT }));
    for id in small {
        assert!(pair.ends[SERVER].programs.contains_key(&id), "{id} holds a byte");
        pair.pause(SERVER, id, false);
        assert!(pair.finished(SERVER, id), "and goes on");
    }
    pair.finish();
}

#[test]
fn two_connections_share_alike() {
    let mut pair = Pair::new(&[path(2_000_000, 20); 2]);
    let first = pair.open(CLIENT, 100 * MIB);
    pair.run_for(secs(1));
    let second = pair.open(CLIENT, 100 * MIB);
    pair.run_for(secs(1));
    let before = [first, second].map(|id| pair.read(SERVER, id));
    pair.run_for(secs(5));
    let [first, second] = [first, second].map(|id| pair.read(SERVER, id));
    let (first, second) = (first - before[0], second - before[1]);
    let share = first as f64 / (first + second) as f64;
    assert!((0.45..0.55).contains(&share), "{first} and {second}");
}

#[test]
fn a_keystroke_beside_a_bulk_transfer() {
    let mut pair = Pair::new(&[path(2_000_000, 20); 4]);
    let keys = pair.open_idle(CLIENT);
    let _bulk = pair.open(CLIENT, 200 * MIB);
    pair.run_for(secs(2));
    let mut worst = Duration::ZERO;
    for stroke in 1..=50u64 {
        let pressed = pair.now;
        pair.write(CLIENT, keys, 1, false);
        assert!(pair.run_until(secs(2), |pair| pair.read(SERVER, keys) >= stroke));
        worst = worst.max(pair.now - pressed);
        pair.run_for(millis(37));
    }
    // 20 ms of way, and 16 KiB in the socket before it at 2 MB/s with a packet that is being sent.
    assert!(worst < millis(60), "{worst:?}");
}

#[test]
fn datagrams_pass_unordered_and_free_of_charge() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 0);
    pair.run_for(millis(100));
    for turn in 0..100u8 {
        let now = pair.now;
        let mut connection = pair.ends[CLIENT].session.connection(now, id).unwrap();
        assert!(connection.send_datagram("there".into(), vec![turn; 1200].into()));
    }
    pair.settle();
    pair.run_for(secs(1));
    let now = pair.now;
    let mut connection = pair.ends[SERVER].session.connection(now, id).unwrap();
    let mut seen: Vec<_> = std::iter::from_fn(|| connection.recv_datagram()).collect();
    assert!(seen.iter().all(|datagram| datagram.address == "there" && datagram.payload.len() == 1200));
    seen.sort_by_key(|datagram| datagram.payload[0]);
    assert_eq!(seen.iter().map(|datagram| datagram.payload[0]).collect::<Vec<_>>(), Vec::from_iter(0..100));
    assert_eq!(pair.ends[CLIENT].session.stats().charged, 0);
    pair.finish();
}

#[test]
fn datagrams_that_nobody_takes_hold_a_bounded_memory() {
    let mut pair = Pair::new(&FOUR);
    pair.ends[SERVER].auto_read = false;
    let ids: Vec<_> = (0..100).map(|_| pair.open_idle(CLIENT)).collect();
    pair.run_for(millis(100));
    for _ in 0..10 {
        for id in &ids {
            let now = pair.now;
            let mut connection = pair.ends[CLIENT].session.connection(now, *id).unwrap();
            connection.send_datagram("".into(), vec![0; 60_000].into());
        }
        pair.run_for(secs(1));
    }
    let mut held = 0;
    for id in &ids {
        let now = pair.now;
        let mut connection = pair.ends[SERVER].session.connection(now, *id).unwrap();
        held += std::iter::from_fn(|| connection.recv_datagram())
            .map(|datagram| datagram.payload.len())
            .sum::<usize>();
    }
    assert!((7_000_000..8 * MIB as usize).contains(&held), "{held}");
    for id in ids {
        pair.release(SERVER, id);
        pair.release(CLIENT, id);
    }
    pair.run_for(secs(2));
    pair.assert_balanced();
}

/// Origin: gkd-rs (2019) had no keep-alive.
#[test]
fn more_connections_than_the_other_end_takes_are_refused_here() {
    let config = SessionConfig { max_connections: 10, ..SessionConfig::default() };
    let mut pair = Pair::with_config(&FOUR, config);
    let ids: Vec<ConnectionId> = (0..10).map(|_| pair.open(CLIENT, 10)).collect();
    assert_eq!(pair.ends[CLIENT].session.open(pair.now, "".into()), Err(OpenError::TooMany(10)));
    pair.run_for(secs(1));
    pair.release(SERVER, ids[0]);
    pair.release(CLIENT, ids[0]);
    pair.run_for(secs(1));
    assert!(pair.ends[CLIENT].session.open(pair.now, "".into()).is_ok());
}
