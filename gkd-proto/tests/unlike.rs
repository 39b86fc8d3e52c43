//! Named scenarios in virtual time of paths that are unlike: a fast one and a slow one give their sum to a large
//! transfer, and the slow one holds up nothing that the fast one would have delivered.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gkd_proto::handshake::{Hello, VERSION};
use gkd_proto::id::{BootId, SessionId, Side, TunnelId};
use gkd_proto::{PathSample, Session, SessionConfig, Transmit};
use gkd_sim::shorthand::{KIB, MIB, millis, path, secs};
use gkd_sim::wire::Kernel;
use gkd_sim::{CLIENT, Pair, Path, SERVER};

/// Of which the kernel tells the round trip, as it does of every socket that is connected.
const fn known(rate: u64, delay: u64) -> Path {
    Path { kernel: Kernel::Right, ..path(rate, delay) }
}

/// Fibre and a mobile network.
const UNLIKE: [Path; 2] = [known(6_250_000, 10), known(2_500_000, 40)];

/// Two sessions that know their paths, from a transfer that is over.
fn warm(paths: &[Path]) -> Pair {
    warm_with(paths, SessionConfig::default())
}

fn warm_with(paths: &[Path], config: SessionConfig) -> Pair {
    let mut pair = Pair::with_config(paths, config);
    let id = pair.open(CLIENT, 30 * MIB);
    assert!(pair.run_until(secs(60), |pair| pair.finished(SERVER, id)));
    pair.run_for(secs(1));
    pair
}

/// How long a transfer of `bytes` takes from its opening to its end: the longest of some, unlike in when they start.
fn takes(pair: &mut Pair, bytes: u64) -> Duration {
    let mut longest = Duration::ZERO;
    for turn in 0..3 {
        let opened = pair.now;
        let id = pair.open(CLIENT, bytes);
        assert!(pair.run_until(secs(60), |pair| pair.finished(SERVER, id)));
        longest = longest.max(pair.now - opened);
        pair.run_for(millis(700 + 70 * turn));
    }
    longest
}

#[test]
fn a_small_transfer_is_as_soon_there_as_over_the_fast_path_alone() {
    for bytes in [1, 1400, 20 * KIB] {
        let alone = takes(&mut warm(&UNLIKE[..1]), bytes);
        let both = takes(&mut warm(&UNLIKE), bytes);
        assert!(both <= alone + millis(1), "{bytes} bytes take {both:?}, alone {alone:?}");
    }
}

#[test]
fn a_large_transfer_gets_the_sum() {
    let mut pair = warm(&UNLIKE);
    let took = takes(&mut pair, 50 * MIB).as_secs_f64();
    let ideal = 50.0 * MIB as f64 / (6_250_000.0 + 2_500_000.0);
    assert!(took < ideal / 0.97, "took {took} s, the line {ideal} s");
    pair.finish();
}

#[test]
fn a_path_that_adds_little_costs_little() {
    let paths = [known(8_000_000, 10), known(100_000, 200)];
    for (bytes, most) in [(MIB, 3.2), (10 * MIB, 1.15), (30 * MIB, 1.05)] {
        let alone = takes(&mut warm(&paths[..1]), bytes);
        let both = takes(&mut warm(&paths), bytes);
        assert!(both < alone.mul_f64(most), "{bytes} bytes take {both:?}, alone {alone:?}");
    }
}

/// While a packet is on the slow path, the fast one uses up a small window, and then waits for it.
#[test]
fn a_slow_path_does_not_use_up_the_credit_of_a_fast_one() {
    for window in [256 * KIB, MIB] {
        let config = SessionConfig {
            connection_window: window,
            max_connection_window: window,
            ..SessionConfig::default()
        };
        for slow in [known(2_500_000, 40), known(100_000, 200), known(2_000_000, 150)] {
            let [alone, both] = [&[UNLIKE[0]][..], &[UNLIKE[0], slow]]
                .map(|paths| takes(&mut warm_with(paths, config.clone()), 20 * MIB));
            assert!(both < alone.mul_f64(1.1), "window {window}, slow {slow:?}: {both:?}, alone {alone:?}");
        }
    }
}

#[test]
fn a_keystroke_beside_a_bulk_transfer_takes_the_fast_path() {
    let mut pair = warm(&UNLIKE);
    let keys = pair.open_idle(CLIENT);
    let _bulk = pair.open(CLIENT, 2000 * MIB);
    pair.run_for(secs(2));
    for stroke in 1..=50 {
        let pressed = pair.now;
        pair.write(CLIENT, keys, 1, false);
        assert!(pair.run_until(secs(2), |pair| pair.read(SERVER, keys) >= stroke));
        let took = pair.now - pressed;
        assert!(took < UNLIKE[1].delay, "{took:?}, which is the slow path's way");
        pair.run_for(millis(137));
    }
}

/// A fast path that stands still is not waited for: the slow one takes what comes long before the fast one is suspect.
#[test]
fn a_fast_path_that_stands_still_is_not_waited_for() {
    let mut pair = warm(&UNLIKE);
    let keys = pair.open_idle(CLIENT);
    let _bulk = pair.open(CLIENT, 2000 * MIB);
    pair.run_for(secs(2));
    let fast = pair.tunnels()[0];
    pair.stall(fast, true);
    // Its socket is full, so that it takes no more.
    pair.run_for(millis(30));
    let pressed = pair.now;
    pair.write(CLIENT, keys, 1, false);
    assert!(pair.run_until(secs(5), |pair| pair.read(SERVER, keys) >= 1));
    assert_eq!(pair.ends[CLIENT].session.stats().suspicions, 0, "it arrived before that");
    let took = pair.now - pressed;
    assert!(took < millis(200), "{took:?}");
    pair.stall(fast, false);
}

/// What the faster tunnel does not take, however good it looks, the slower one takes in the end.
#[test]
fn a_decline_lapses() {
    let (mut now, boot) = (Instant::now(), BootId([1; 16]));
    let mut session = Session::new(Arc::default(), Side::Server, SessionId([2; 16]), 7, now);
    let [fast, slow] = [(0, 20), (1, 80)].map(|(tunnel, round_trip)| {
        let parameters = SessionConfig::default().parameters();
        let (session_id, tunnel, dead) = (session.id(), TunnelId(tunnel), Vec::new());
        let hello = Hello { version: VERSION, session: session_id, tunnel, exists: false, parameters, dead };
        session.handle_hello(now, &hello, boot, false).unwrap();
        let sample = PathSample { round_trip: Some(millis(round_trip)), ..PathSample::default() };
        session.handle_path(now, tunnel, sample);
        tunnel
    });
    let mut out = Transmit::new();
    assert!(!session.poll_transmit(now, fast, 1000, &mut out), "nothing to send yet");
    let id = session.open(now, Bytes::new()).unwrap();
    session.connection(now, id).unwrap().write_slice(b"a few bytes").unwrap();
    session.tunnels_to_poll();
    let opened = now;
    assert!(!session.poll_transmit(now, slow, 1000, &mut out), "it is the faster one's");
    assert_eq!(session.tunnels_to_poll().collect::<Vec<_>>(), [fast], "which is called, and does not come");
    while !session.poll_transmit(now, slow, 1000, &mut out) {
        now = session.poll_timeout().unwrap();
        session.handle_timeout(now);
        assert!(now <= opened + millis(40), "no later than it would have been there: {:?}", now - opened);
    }
    assert!(!session.poll_transmit(now, fast, 1000, &mut out), "all of it");
}

/// An idle path that is passed over is asked how it does; when it has become the better one, that is seen within a few
/// seconds, before the session's own Pings would tell.
#[test]
fn a_path_that_became_better_is_found_out() {
    let mut pair = warm(&UNLIKE);
    let slow = pair.tunnels()[1];
    let keys = pair.open_idle(CLIENT);
    let write = |pair: &mut Pair, stroke: u64| {
        let pressed = pair.now;
        pair.write(CLIENT, keys, 1, false);
        assert!(pair.run_until(secs(2), |pair| pair.read(SERVER, keys) >= stroke));
        pair.now - pressed
    };
    assert!(write(&mut pair, 1) >= UNLIKE[0].delay);
    pair.change(slow, known(2_500_000, 2));
    let mut last = Duration::MAX;
    let ping_every = SessionConfig::default().ping_every;
    let strokes = ping_every.as_millis() as u64 / 100 - 20;
    for stroke in 2..=strokes {
        last = write(&mut pair, stroke);
        pair.run_for(millis(90));
    }
    assert!(last < UNLIKE[0].delay, "{last:?} after a while");
}
