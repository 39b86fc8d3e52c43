//! Named scenarios in virtual time of how connections and sessions end: finished, reset, dropped, drained, closed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gkd_proto::error::OpenError;
use gkd_proto::id::TunnelId;
use gkd_proto::packet::{CloseCode, DialError, ResetCode};
use gkd_proto::{CloseCause, Event, SessionConfig};
use gkd_sim::program::{BULK, Program};
use gkd_sim::random::Random;
use gkd_sim::shorthand::{FOUR, KIB, MIB, millis, path, secs};
use gkd_sim::{CLIENT, FAST, Pair, SERVER};

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
    pair.finish();
}

#[test]
fn a_half_closed_connection_ends_when_it_is_idle_for_too_long_and_not_before() {
    let half_closed_for = secs(60);
    let mut pair = Pair::with_config(&FOUR, SessionConfig { half_closed_for, ..SessionConfig::default() });
    pair.allowed.timed_out = true;
    let [idle, used] = [0; 2].map(|_| pair.open(CLIENT, KIB));
    let whole = pair.open_idle(CLIENT);
    for _ in 0..3 {
        pair.run_for(half_closed_for - secs(10));
        pair.write(SERVER, used, 1, false);
    }
    pair.run_for(secs(1));
    let timed_out = |connection| Event::Reset { connection, code: ResetCode::TIMED_OUT };
    for end in [CLIENT, SERVER] {
        assert!(pair.saw(end, &timed_out(idle)));
        for id in [used, whole] {
            assert!(!pair.saw(end, &timed_out(id)), "{id} is in use, or open both ways");
        }
    }
    pair.finish();
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
    pair.finish();
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
    pair.finish();
}

#[test]
fn a_connection_that_both_ends_drop_with_more_queued_than_the_other_grants_is_forgotten() {
    let config = SessionConfig { connection_window: 256 * KIB, send_buffer: MIB, ..SessionConfig::default() };
    let mut pair = Pair::with_config(&FOUR, config);
    let id = pair.open_idle(CLIENT);
    pair.run_for(millis(100));
    pair.write(CLIENT, id, MIB, false);
    pair.write(SERVER, id, MIB, false);
    pair.release_all();
    pair.run_for(secs(5));
    pair.assert_balanced();
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
