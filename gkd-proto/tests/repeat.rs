//! Named scenarios in virtual time of tunnels that are late: what waits on one goes out on another that stands idle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use bytes::Bytes;
use gkd_proto::id::{ConnectionId, TunnelId};
use gkd_proto::{SessionStats, Transmit};
use gkd_sim::shorthand::{FOUR, KIB, MIB, millis, path, secs};
use gkd_sim::{CLIENT, FAST, Pair, Path, SERVER};

/// Tunnels whose way is known, and a connection that has nothing to send.
fn warm(paths: &[Path]) -> (Pair, ConnectionId) {
    let mut pair = Pair::new(paths);
    let id = pair.open_idle(CLIENT);
    type_on(&mut pair, id);
    (pair, id)
}

/// What was late is forgotten behind this.
fn type_on(pair: &mut Pair, id: ConnectionId) {
    for _ in 0..100 {
        pair.write(CLIENT, id, 3 * KIB, false);
        pair.run_for(millis(100));
    }
}

fn stats(pair: &Pair) -> SessionStats {
    pair.ends[CLIENT].session.stats()
}

/// Writes, and has the tunnel that took it deliver nothing for so long. How long it took to arrive.
fn late(pair: &mut Pair, id: ConnectionId, bytes: u64, stall: Duration) -> Duration {
    let before = pair.read(SERVER, id);
    pair.write(CLIENT, id, bytes, false);
    pair.run_for(Duration::from_micros(10));
    let took: Vec<TunnelId> =
        stats(pair).tunnels.iter().filter(|it| it.in_flight > 0).map(|it| it.tunnel).collect();
    assert!(!took.is_empty());
    took.iter().for_each(|tunnel| pair.stall(*tunnel, true));
    let start = pair.now;
    let arrived = pair.run_until(stall, |pair| pair.read(SERVER, id) == before + bytes);
    let took_so_long = pair.now - start;
    pair.run_until(stall - took_so_long.min(stall), |_| false);
    took.iter().for_each(|tunnel| pair.stall(*tunnel, false));
    assert!(arrived || pair.run_until(secs(5), |pair| pair.read(SERVER, id) == before + bytes));
    if arrived { took_so_long } else { pair.now - start }
}

#[test]
fn a_keystroke_on_a_tunnel_that_is_late_arrives_on_another() {
    for paths in [&FOUR[..], &[FAST; 2], &[path(1_000_000, 20); 3]] {
        let (mut pair, id) = warm(paths);
        let round_trip = 2 * paths[0].delay;
        for _ in 0..10 {
            let took = late(&mut pair, id, 1, millis(130));
            // Late after one and a half of round trips, the time that 3 KiB take among them, and the longest wait of an
            // acknowledgement; then the other's way.
            let bound = (round_trip + millis(3)) * 2 + millis(25 + 15);
            assert!(took < bound, "{took:?} of {bound:?}");
            type_on(&mut pair, id);
        }
        let stats = stats(&pair);
        assert_eq!((stats.suspicions, stats.tunnels_lost), (0, 0));
        assert!((10..=10 * 30).contains(&stats.repeated), "{} bytes", stats.repeated);
        assert_eq!(pair.ends[SERVER].session.stats().duplicates, 10, "both copies arrive");
        pair.write(CLIENT, id, 0, true);
        pair.write(SERVER, id, 0, true);
        pair.finish();
    }
}

#[test]
fn what_a_program_says_first_arrives_on_another_tunnel_too() {
    let (mut pair, _) = warm(&FOUR);
    let id = pair.open_idle(CLIENT);
    let took = late(&mut pair, id, 100, millis(130));
    assert!(took < millis(80), "the opening as well: {took:?}");
}

#[test]
fn what_stands_behind_what_was_repeated_is_repeated_too() {
    let (mut pair, id) = warm(&[path(1_000_000, 50); 3]);
    pair.run_for(secs(1));
    let (before, suspicions) = (pair.read(SERVER, id), stats(&pair).suspicions);
    pair.write(CLIENT, id, 1, false);
    pair.run_for(Duration::from_micros(10));
    let late = stats(&pair).tunnels.into_iter().find(|it| it.in_flight > 0).unwrap().tunnel;
    pair.stall(late, true);
    pair.run_for(millis(60));
    pair.write(CLIENT, id, 1, false);
    pair.run_for(millis(235));
    assert_eq!((stats(&pair).suspicions, pair.read(SERVER, id)), (suspicions, before + 2));
}

#[test]
fn nothing_is_repeated_where_no_other_tunnel_stands_idle() {
    let (mut pair, id) = warm(&[FAST]);
    assert!(late(&mut pair, id, 1, millis(130)) >= millis(130), "there is no other");
    assert_eq!(stats(&pair).repeated, 0);

    let (mut pair, _) = warm(&FOUR);
    pair.open(CLIENT, 4000 * MIB);
    pair.run_for(secs(2));
    for turn in 0..20 {
        pair.stall(TunnelId(turn % 4), true);
        pair.run_for(millis(120));
        pair.stall(TunnelId(turn % 4), false);
        pair.run_for(millis(400));
    }
    let stats = stats(&pair);
    assert_eq!((stats.suspicions, stats.repeated), (0, 0), "all of them are busy");
}

#[test]
fn what_is_repeated_is_a_part_of_what_is_sent_however_late_tunnels_are() {
    let (mut pair, id) = warm(&FOUR);
    for _ in 0..300 {
        late(&mut pair, id, 20_000, millis(150));
        pair.run_for(millis(300));
    }
    let stats = stats(&pair);
    assert_eq!(stats.suspicions, 0);
    let bound = 64 * KIB + stats.payload_sent / 50;
    assert!(stats.repeated > 60 * KIB && stats.repeated <= bound, "{} of {bound}", stats.repeated);
}

#[test]
fn a_tunnel_that_leaves_what_there_is_to_another_is_not_asked_again_at_once() {
    let (mut pair, keys) = warm(&[FAST; 2]);
    pair.write(CLIENT, keys, 1, false);
    pair.run_for(Duration::from_micros(10));
    let (late, other): (Vec<_>, Vec<_>) = stats(&pair).tunnels.into_iter().partition(|it| it.in_flight > 0);
    let (late, other) = (late[0].tunnel, other[0].tunnel);
    pair.stall(late, true);
    pair.run_for(millis(80));
    assert!(stats(&pair).repeated > 0);

    let (now, session) = (pair.now, &mut pair.ends[CLIENT].session);
    let mut out = Transmit::new();
    // The other is busy writing this.
    session.open(now, Bytes::from_static(b"one")).unwrap();
    assert!(session.poll_transmit(now, other, 64 * 1024, &mut out));
    session.open(now, Bytes::from_static(b"two")).unwrap();
    session.tunnels_to_poll().for_each(drop);
    assert!(!session.poll_transmit(now, late, 64 * 1024, &mut out), "the other had better have it");
    let named: Vec<_> = session.tunnels_to_poll().collect();
    assert!(!named.contains(&late), "it would be asked again and again");
    assert!(session.poll_transmit(now, other, 64 * 1024, &mut out));
}
