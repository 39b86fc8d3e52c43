//! Named scenarios of two sessions in virtual time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use gkd_proto::error::OpenError;
use gkd_proto::id::{ConnectionId, TunnelId};
use gkd_proto::packet::{CloseCode, DialError, ResetCode};
use gkd_proto::{CloseCause, Event, SessionConfig};

use gkd_sim::program::{BULK, Program};
use gkd_sim::random::Random;
use gkd_sim::{CLIENT, FAST, Pair, Path, SERVER};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const FOUR: [Path; 4] = [FAST; 4];

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn path(rate: u64, delay_ms: u64) -> Path {
    Path::new(rate, millis(delay_ms))
}

/// Ends what is left at both ends and checks that the accounts are whole.
fn finish(mut pair: Pair) {
    pair.release_all();
    pair.run_for(secs(2));
    pair.assert_balanced();
}

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
    finish(pair);
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
    finish(pair);
}

#[test]
fn reversed_arrival() {
    let paths: Vec<_> = [40, 30, 20, 10].map(|delay| path(5_000_000, delay)).into();
    let mut pair = Pair::new(&paths);
    let id = pair.open(CLIENT, 8 * MIB);
    assert!(pair.run_until(secs(10), |pair| pair.finished(SERVER, id)));
    assert_eq!(pair.read(SERVER, id), 8 * MIB);
    assert!(pair.ends[SERVER].session.stats().out_of_order > 0);
    finish(pair);
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
    finish(pair);
}

#[test]
fn half_close_either_way() {
    let mut pair = Pair::new(&FOUR);
    let upload = pair.open(CLIENT, MIB);
    assert!(pair.run_until(secs(2), |pair| pair.finished(SERVER, upload)));
    pair.write(SERVER, upload, 2 * MIB, true);
    assert!(pair.run_until(secs(2), |pair| pair.finished(CLIENT, upload)));
    assert_eq!(pair.read(CLIENT, upload), 2 * MIB);

    let download = pair.open_idle(CLIENT);
    pair.run_for(millis(100));
    pair.write(SERVER, download, MIB, true);
    assert!(pair.run_until(secs(2), |pair| pair.finished(CLIENT, download)));
    pair.write(CLIENT, download, MIB, true);
    assert!(pair.run_until(secs(2), |pair| pair.finished(SERVER, download)));
    finish(pair);
}

#[test]
fn both_ends_open_and_ids_never_meet() {
    let mut pair = Pair::new(&FOUR);
    let ids: Vec<_> = (0..20).map(|turn| pair.open(turn % 2, 100 * KIB)).collect();
    pair.run_for(secs(2));
    for (turn, id) in ids.iter().enumerate() {
        assert_eq!(pair.read(1 - turn % 2, *id), 100 * KIB);
    }
    finish(pair);
}

#[test]
fn a_reset_ends_both_directions_and_settles() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 50 * MIB);
    pair.run_for(millis(150));
    pair.reset(SERVER, id, ResetCode(42));
    assert!(pair.run_until(millis(200), |pair| {
        pair.saw(CLIENT, &Event::Reset { connection: id, code: ResetCode(42) })
    }));
    pair.run_for(secs(1));
    pair.assert_balanced();
}

#[test]
fn resets_that_cross_settle() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 50 * MIB);
    pair.run_for(millis(150));
    pair.reset(SERVER, id, ResetCode::APPLICATION);
    pair.reset(CLIENT, id, ResetCode::APPLICATION);
    pair.run_for(secs(1));
    pair.assert_balanced();
}

#[test]
fn a_reset_overtaking_its_connect() {
    let mut pair = Pair::new(&[FAST; 2]);
    let [first, second] = [TunnelId(0), TunnelId(1)];
    pair.kernel_says(first, millis(1));
    pair.kernel_says(second, millis(10));
    let id = pair.ends[CLIENT].session.open(pair.now, "".into()).unwrap();
    pair.adopt(CLIENT, id, b"");
    pair.settle();
    pair.stall(first, true);
    pair.kernel_says(first, millis(100));
    pair.reset(CLIENT, id, ResetCode::APPLICATION);
    pair.run_for(millis(100));
    assert_eq!(pair.ends[SERVER].events, [], "the Reset came first: nothing to accept");
    pair.stall(first, false);
    pair.run_for(secs(1));
    assert_eq!(pair.ends[SERVER].events, [], "the late Connect opens nothing");
    pair.assert_balanced();
}

#[test]
fn a_dial_that_fails_is_told_and_settles() {
    let mut pair = Pair::new(&FOUR);
    pair.ends[SERVER].answer = Err(DialError::Refused);
    let id = pair.open(CLIENT, MIB);
    pair.run_for(secs(1));
    assert!(pair.saw(CLIENT, &Event::Connected { connection: id, result: Err(DialError::Refused) }));
    pair.assert_balanced();
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
    finish(pair);
}

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
    finish(pair);
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
    let eleventh = pair.open(CLIENT, 100 * MIB);
    pair.run_for(secs(1));
    let before = pair.read(SERVER, eleventh);
    pair.run_for(secs(1));
    let rate = pair.read(SERVER, eleventh) - before;
    assert!(rate > 40_000_000, "{rate} bytes per second of 100,000,000");
}

#[test]
fn a_tunnel_dies_with_packets_outstanding() {
    let mut pair = Pair::new(&FOUR);
    let up = pair.open(CLIENT, 20 * MIB);
    pair.run_for(millis(60));
    pair.write(SERVER, up, 20 * MIB, true);
    pair.run_for(millis(100));
    pair.cut(TunnelId(1));
    pair.run_for(millis(100));
    pair.cut_at(SERVER, TunnelId(2));
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, up) && pair.finished(CLIENT, up)));
    assert!(pair.ends[CLIENT].session.stats().resent > 0);
    assert_eq!(
        pair.tunnels(),
        [TunnelId(0), TunnelId(3)],
        "the other end heard of the death it had not seen"
    );
    finish(pair);
}

#[test]
fn a_silent_tunnel_that_holds_the_packet_everyone_waits_for() {
    let mut pair = Pair::new(&[path(5_000_000, 25); 4]);
    let id = pair.open(CLIENT, 40 * MIB);
    pair.run_for(millis(500));
    pair.stall(TunnelId(2), true);
    let before = pair.read(SERVER, id);
    pair.run_for(millis(800));
    let stats = pair.ends[CLIENT].session.stats();
    assert!(stats.tunnels.iter().any(|tunnel| tunnel.tunnel == TunnelId(2) && tunnel.suspect));
    assert!(pair.read(SERVER, id) > before + 4 * MIB, "the others went on");
    // Long before the 20 s after which it is dropped.
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, id)));
    pair.run_for(secs(25));
    assert_eq!(pair.tunnels(), [TunnelId(0), TunnelId(1), TunnelId(3)], "in the end it is dropped");
    finish(pair);
}

#[test]
fn a_tunnel_that_was_only_slow_is_trusted_again() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 60 * MIB);
    pair.run_for(millis(200));
    pair.stall(TunnelId(0), true);
    pair.run_for(millis(500));
    pair.stall(TunnelId(0), false);
    let sent = |pair: &Pair| pair.ends[CLIENT].session.stats().tunnels[0].sent;
    pair.run_for(millis(100));
    let before = sent(&pair);
    assert!(pair.run_until(secs(10), |pair| pair.finished(SERVER, id)));
    assert!(sent(&pair) > before + MIB, "it carries again");
    assert_eq!(pair.tunnels().len(), 4);
    finish(pair);
}

#[test]
fn what_only_a_suspect_tunnel_could_take_goes_over_the_next_that_comes_up() {
    let mut pair = Pair::new(&[FAST; 2]);
    let [silent, other] = [TunnelId(0), TunnelId(1)];
    pair.kernel_says(other, millis(100));
    let id = pair.open_idle(CLIENT);
    pair.run_for(millis(100));
    pair.stall(silent, true);
    pair.write(CLIENT, id, 1000, false);
    assert!(pair.run_until(secs(2), |pair| pair.read(SERVER, id) == 1000));
    assert!(pair.ends[CLIENT].session.stats().tunnels[0].suspect);
    pair.cut(other);
    pair.write(CLIENT, id, 1000, true);
    pair.run_for(millis(500));
    pair.add_tunnel(FAST);
    // Long before the 20 s after which the silent one is dropped.
    assert!(pair.run_until(millis(100), |pair| pair.finished(SERVER, id)));
}

#[test]
fn all_tunnels_die_and_come_back() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 40 * MIB);
    pair.run_for(millis(300));
    (0..4).for_each(|tunnel| pair.cut(TunnelId(tunnel)));
    pair.run_for(secs(30));
    let standing = pair.read(SERVER, id);
    pair.run_for(secs(20));
    assert_eq!(pair.read(SERVER, id), standing, "nothing moves");
    let resent_before = pair.ends[CLIENT].session.stats().resent;
    for path in FOUR {
        pair.add_tunnel(path);
    }
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, id)));
    let (client, server) = (pair.ends[CLIENT].session.stats(), pair.ends[SERVER].session.stats());
    assert!(client.resent > resent_before);
    assert_eq!(server.duplicates, 0, "the counts told exactly what was missing");
    finish(pair);
}

#[test]
fn a_session_without_tunnels_expires_on_both_ends() {
    let mut pair = Pair::new(&FOUR);
    pair.open(CLIENT, 40 * MIB);
    pair.run_for(millis(300));
    (0..4).for_each(|tunnel| pair.cut(TunnelId(tunnel)));
    pair.run_for(secs(59));
    assert!(!pair.ends[CLIENT].session.is_closed() && !pair.ends[SERVER].session.is_closed());
    pair.run_for(secs(2));
    for end in [CLIENT, SERVER] {
        assert!(pair.saw(end, &Event::Closed { cause: CloseCause::Expired }));
    }
}

#[test]
fn an_acknowledgement_lost_with_the_tunnel_it_rode_on() {
    // Small writes, so that every acknowledgement waits for its delay; the tunnel dies under it.
    let mut pair = Pair::new(&[path(10_000_000, 50); 2]);
    let id = pair.open_idle(CLIENT);
    pair.run_for(secs(1));
    pair.write(CLIENT, id, 1000, true);
    pair.run_for(millis(90));
    assert_eq!(pair.read(SERVER, id), 1000);
    let stats = pair.ends[CLIENT].session.stats();
    let carrier = stats.tunnels.iter().find(|tunnel| tunnel.in_flight > 0);
    let carrier = carrier.expect("the acknowledgement is on its way").tunnel;
    pair.cut(carrier);
    assert!(pair.run_until(secs(1), |pair| pair.saw(CLIENT, &Event::Acknowledged { connection: id })));
    assert_eq!(pair.read(SERVER, id), 1000);
    finish(pair);
}

#[test]
fn a_hundred_downloads_cancelled_half_way_leave_the_credit_whole() {
    let mut pair = Pair::new(&FOUR);
    for round in 0..10 {
        let ids: Vec<_> = (0..10).map(|_| pair.open(SERVER, 3 * MIB)).collect();
        pair.run_for(millis(30 + 20 * round));
        for (turn, id) in ids.into_iter().enumerate() {
            match turn % 3 {
                0 => pair.reset(CLIENT, id, ResetCode::APPLICATION),
                1 => pair.release(CLIENT, id),
                _ => pair.reset(SERVER, id, ResetCode::APPLICATION),
            }
        }
    }
    pair.release_all();
    pair.run_for(secs(5));
    pair.assert_balanced();
    let credit = pair.ends[SERVER].session.stats().credit;
    let window = SessionConfig::default().session_window;
    assert!(credit >= window * 3 / 4, "{credit} is left of {window}");
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
fn a_retired_tunnel_is_settled_and_dropped() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 20 * MIB);
    pair.run_for(millis(200));
    pair.retire(CLIENT, TunnelId(3));
    assert!(pair.run_until(secs(2), |pair| pair.tunnels().len() == 3));
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, id)));
    assert_eq!(pair.ends[CLIENT].session.stats().resent, 0, "nothing on it was lost");
    finish(pair);
}

#[test]
fn an_idle_tunnel_that_is_retired_is_dropped_once() {
    // The other end leaves and is done with it at once, so that its Leave and its Gone come together.
    let mut pair = Pair::new(&[FAST; 2]);
    let now = pair.now;
    pair.ends[SERVER].session.retire_tunnel(now, TunnelId(1));
    pair.run_for(secs(1));
    // Which end closes the carrier first, and so what the other sees of it, is a matter of time.
    let dropped = |event: &&Event| matches!(event, Event::DropTunnel { tunnel: TunnelId(1), .. });
    let times = [CLIENT, SERVER].map(|end| pair.ends[end].events.iter().filter(dropped).count());
    assert!(times == [1, 1] || times == [1, 0] || times == [0, 1], "{times:?}");
    assert_eq!(pair.tunnels(), [TunnelId(0)]);
}

#[test]
fn a_leave_that_overtakes_its_welcome_is_kept() {
    let mut pair = Pair::new(&[FAST]);
    let now = pair.now;
    let hello = pair.ends[CLIENT].session.hello(now).unwrap();
    let boot = pair.boot;
    let welcome = pair.ends[SERVER].session.handle_hello(now, &hello, boot, true).unwrap();
    pair.add_wire(hello.tunnel, FAST);
    pair.retire(SERVER, hello.tunnel);
    pair.run_for(millis(100));
    let now = pair.now;
    pair.ends[CLIENT].session.handle_welcome(now, hello.tunnel, &welcome).unwrap();
    pair.run_for(secs(1));
    assert_eq!(pair.tunnels(), [TunnelId(0)]);
    assert_eq!(pair.ends[SERVER].session.tunnels_up(), 1);
}

#[test]
fn connections_that_are_over_before_their_connect_is_acknowledged_can_be_many() {
    // The Connect takes the slow tunnel; everything else is done when its acknowledgement comes.
    let mut pair = Pair::new(&[path(10_000_000, 300), path(10_000_000, 1)]);
    for _ in 0..5000 {
        let id = match pair.ends[CLIENT].session.open(pair.now, "".into()) {
            Ok(id) => id,
            Err(error) => panic!("{error}"),
        };
        pair.adopt(CLIENT, id, b"");
        pair.write(CLIENT, id, 10, true);
        pair.run_for(millis(2));
        pair.reset(CLIENT, id, ResetCode::APPLICATION);
        pair.run_for(millis(1));
        pair.release(SERVER, id);
    }
    pair.run_for(secs(2));
    finish(pair);
}

#[test]
fn a_retired_tunnel_that_is_named_dead_is_dropped_once() {
    // Both ends have left it, but nothing comes back over it: the count of its end settles what it carried.
    let mut pair = Pair::new(&FOUR);
    let retired = TunnelId(3);
    pair.open(CLIENT, 20 * MIB);
    pair.run_for(millis(200));
    pair.stall_ways(retired, [false, true]);
    pair.retire(CLIENT, retired);
    pair.run_for(millis(100));
    pair.cut_at(SERVER, retired);
    pair.run_for(millis(100));
    let drop = |event: &&Event| matches!(event, Event::DropTunnel { tunnel, .. } if *tunnel == retired);
    assert_eq!(pair.ends[CLIENT].events.iter().filter(drop).count(), 1);
}

#[test]
fn an_answer_that_is_lost_before_a_reset_is_not_passed_over_in_silence() {
    // Everything has arrived on both sides, but for the answer: it goes down with its tunnel after the reset.
    let mut pair = Pair::new(&[FAST; 2]);
    let [first, second] = [TunnelId(0), TunnelId(1)];
    pair.ends[SERVER].auto_accept = false;
    pair.kernel_says(second, millis(100));
    let id = pair.open(CLIENT, KIB);
    pair.run_for(millis(100));
    pair.engage(SERVER, id, Program::new(BULK, Random::new(0)));
    pair.write(SERVER, id, KIB, true);
    assert!(pair.run_until(secs(1), |pair| pair.saw(SERVER, &Event::Acknowledged { connection: id })));
    pair.stall(first, true);
    pair.answer(SERVER, id, Ok(()));
    pair.settle();
    pair.reset(SERVER, id, ResetCode::APPLICATION);
    pair.cut(first);
    let told = |event: &Event| matches!(event, Event::Connected { .. } | Event::Reset { .. });
    assert!(pair.run_until(secs(1), |pair| pair.ends[CLIENT].events.iter().any(told)));
    finish(pair);
}

#[test]
fn a_connection_that_is_refused_after_the_session_ended_is_forgotten() {
    let mut pair = Pair::new(&FOUR);
    pair.ends[SERVER].auto_accept = false;
    let id = pair.open(CLIENT, KIB);
    assert!(pair.run_until(secs(1), |pair| pair.saw(CLIENT, &Event::Acknowledged { connection: id })));
    pair.close(CLIENT, CloseCode::DONE, "");
    pair.run_for(secs(1));
    assert!(pair.ends[SERVER].session.is_closed());
    pair.answer(SERVER, id, Err(DialError::Refused));
    assert_eq!(pair.ends[SERVER].session.connections(), 0);
}

#[test]
fn a_connection_that_is_over_before_its_connect_is_acknowledged_leaves_no_record() {
    // The Connect arrives over a tunnel of which nothing comes back; all else goes over the other, and is done. A
    // reset settles nothing then, so the connection is forgotten at once.
    let mut pair = Pair::new(&[FAST; 2]);
    let [first, second] = [TunnelId(0), TunnelId(1)];
    pair.kernel_says(first, millis(1));
    pair.kernel_says(second, millis(10));
    let id = pair.open_idle(CLIENT);
    pair.stall_ways(first, [false, true]);
    pair.kernel_says(first, millis(100));
    pair.run_for(millis(30));
    pair.write(SERVER, id, 10, true);
    pair.write(CLIENT, id, 10, true);
    assert!(pair.run_until(millis(150), |pair| pair.saw(CLIENT, &Event::Acknowledged { connection: id })));
    pair.reset(CLIENT, id, ResetCode::APPLICATION);
    assert_eq!(pair.ends[CLIENT].session.connections(), 0, "nothing is left to settle");
    pair.stall(first, false);
    pair.release(SERVER, id);
    pair.run_for(secs(2));
    pair.assert_balanced();
}

#[test]
fn drain_lets_the_living_finish_and_takes_no_others() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 5 * MIB);
    pair.run_for(millis(50));
    pair.drain(SERVER, 1);
    pair.run_for(millis(50));
    assert!(pair.saw(CLIENT, &Event::Draining { reason: 1 }));
    assert_eq!(pair.ends[CLIENT].session.open(pair.now, "".into()), Err(OpenError::Draining));
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, id)));
    assert!(!pair.saw(SERVER, &Event::Drained));
    pair.release(SERVER, id);
    pair.release(CLIENT, id);
    pair.run_for(secs(1));
    assert!(pair.saw(SERVER, &Event::Drained));
    pair.assert_balanced();
}

#[test]
fn close_is_told_to_the_other_end() {
    let mut pair = Pair::new(&FOUR);
    pair.open(CLIENT, 5 * MIB);
    pair.run_for(millis(50));
    pair.close(SERVER, CloseCode::REVOKED, "the user was removed");
    pair.run_for(millis(100));
    let cause = CloseCause::Remote { code: CloseCode::REVOKED, reason: "the user was removed".into() };
    assert!(pair.saw(CLIENT, &Event::Closed { cause }));
    assert_eq!((pair.ends[CLIENT].session.tunnels_up(), pair.ends[SERVER].session.tunnels_up()), (0, 0));
}

#[test]
fn what_arrived_whole_can_be_read_after_a_close() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 0);
    pair.pause(CLIENT, id, true);
    pair.run_for(millis(100));
    pair.write(SERVER, id, 500 * KIB, true);
    assert!(pair.run_until(secs(1), |pair| pair.saw(SERVER, &Event::Acknowledged { connection: id })));
    pair.release(SERVER, id);
    pair.drain(SERVER, 0);
    pair.run_for(millis(100));
    assert!(pair.saw(SERVER, &Event::Drained));
    pair.close(SERVER, CloseCode::GOING_DOWN, "");
    pair.run_for(millis(100));
    assert!(pair.ends[CLIENT].session.is_closed());
    pair.pause(CLIENT, id, false);
    assert!(pair.finished(CLIENT, id));
    assert_eq!(pair.read(CLIENT, id), 500 * KIB);
    pair.release(CLIENT, id);
    assert_eq!(pair.ends[CLIENT].session.connections(), 0);
}

#[test]
fn a_close_tells_the_counts_first() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 100 * KIB);
    assert!(pair.run_until(secs(1), |pair| pair.finished(SERVER, id)));
    assert!(!pair.saw(CLIENT, &Event::Acknowledged { connection: id }));
    pair.close(SERVER, CloseCode::DONE, "");
    pair.run_for(millis(100));
    assert!(pair.saw(CLIENT, &Event::Acknowledged { connection: id }), "it was delivered whole");
}

#[test]
fn a_released_connection_still_delivers_what_was_accepted() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 200 * KIB);
    pair.release(CLIENT, id);
    assert!(pair.run_until(secs(2), |pair| pair.finished(SERVER, id)));
    assert_eq!(pair.read(SERVER, id), 200 * KIB);
    // What is written back meets nobody.
    pair.write(SERVER, id, MIB, false);
    pair.run_for(secs(1));
    assert!(pair.saw(SERVER, &Event::Reset { connection: id, code: ResetCode::NO_READER }));
    pair.assert_balanced();
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
    finish(pair);
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

#[test]
fn idle_tunnels_are_pinged_and_silent_ones_dropped() {
    let mut pair = Pair::new(&FOUR);
    pair.run_for(secs(120));
    assert_eq!(pair.tunnels().len(), 4);
    let heard = pair.ends[CLIENT].session.stats().tunnels[0].received;
    assert!(heard > 0, "Pongs");
    pair.stall(TunnelId(1), true);
    pair.run_for(secs(36));
    assert_eq!(pair.tunnels(), [TunnelId(0), TunnelId(2), TunnelId(3)]);
}

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
