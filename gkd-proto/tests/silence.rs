//! Tunnels that are up and silent, all of them: that a client hears of it soon, and nobody without a cause.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use gkd_proto::Event;
use gkd_proto::id::TunnelId;
use gkd_sim::{CLIENT, FAST, Pair, Path, SERVER};

const MIB: u64 = 1024 * 1024;

const FOUR: [Path; 4] = [FAST; 4];

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_session_whose_tunnels_all_fall_silent_asks_for_a_fresh_one() {
    for from in [CLIENT, SERVER] {
        let mut pair = Pair::new(&FOUR);
        let id = pair.open_idle(CLIENT);
        pair.run_for(millis(100));
        // One that only reads has nothing on the way that it would miss.
        pair.write(from, id, 100 * MIB, true);
        pair.run_for(millis(500));
        (0..4).for_each(|tunnel| pair.stall(TunnelId(tunnel), true));
        pair.run_for(millis(500));
        assert!(!pair.saw(CLIENT, &Event::Stalled), "too soon to say");
        pair.run_for(millis(3500));
        assert!(pair.saw(CLIENT, &Event::Stalled), "bytes from {from}");
        assert!(!pair.saw(SERVER, &Event::Stalled), "a server cannot dial");
        pair.ends[CLIENT].events.clear();
        pair.run_for(millis(2100));
        assert!(pair.saw(CLIENT, &Event::Stalled), "it is told again");
        pair.add_tunnel(FAST);
        assert!(pair.run_until(secs(18), |pair| pair.finished(1 - from, id)), "before any is given up");
        pair.write(1 - from, id, 0, true);
        pair.run_for(secs(25));
        pair.finish();
    }
}

#[test]
fn one_keystroke_finds_out_that_all_tunnels_are_silent() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open_idle(CLIENT);
    pair.run_for(secs(10));
    (0..4).for_each(|tunnel| pair.stall(TunnelId(tunnel), true));
    pair.write(CLIENT, id, 1, false);
    pair.run_for(secs(4));
    assert!(pair.saw(CLIENT, &Event::Stalled));
}

#[test]
fn a_session_of_which_one_tunnel_answers_is_not_stalled() {
    let mut pair = Pair::new(&FOUR);
    pair.open(CLIENT, 1000 * MIB);
    pair.run_for(millis(500));
    [0, 1, 3].into_iter().for_each(|tunnel| pair.stall(TunnelId(tunnel), true));
    pair.run_for(secs(15));
    assert!(!pair.saw(CLIENT, &Event::Stalled));
}

#[test]
fn an_idle_session_is_quiet_after_what_it_did() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, MIB);
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, id)));
    pair.run_for(secs(3));
    let sent = |pair: &Pair| pair.ends[CLIENT].session.stats().tunnels.iter().map(|t| t.sent).sum::<u64>();
    let before = sent(&pair);
    pair.run_for(secs(10));
    assert_eq!(sent(&pair), before, "one Ping a tunnel asks, and no more");
    pair.finish();
}
