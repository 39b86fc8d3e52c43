//! Named scenarios in virtual time of lines that end TCP in the middle, as a CDN or a proxy does: the kernel sees a round
//! trip of 50 us, to the next hop, and nothing of the way behind it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use gkd_sim::shorthand::{KIB, MIB, millis, path, secs};
use gkd_sim::wire::Kernel;
use gkd_sim::{CLIENT, Pair, Path, SERVER};

/// So many bytes per second, one way in so many milliseconds, and a hop next door.
const fn relayed(rate: u64, delay: u64) -> Path {
    Path { kernel: Kernel::Near, ..path(rate, delay) }
}

/// What a bulk transfer carries of what its paths could, from `warm` on for `time`.
fn share(paths: &[Path], warm: Duration, time: Duration) -> f64 {
    let mut pair = Pair::new(paths);
    let bulk = pair.open(CLIENT, 4000 * MIB);
    pair.run_for(warm);
    let before = pair.read(SERVER, bulk);
    pair.run_for(time);
    let could = paths.iter().map(|path| path.rate as f64).sum::<f64>() * time.as_secs_f64();
    (pair.read(SERVER, bulk) - before) as f64 / could
}

#[test]
fn windows_grow_to_what_the_whole_way_takes() {
    for (paths, name) in [
        (&[relayed(12_500_000, 50); 4][..], "four of 100 Mbit/s at 100 ms"),
        (&[relayed(12_500_000, 150)], "one of 100 Mbit/s at 300 ms"),
        (&[relayed(6_250_000, 10), relayed(2_500_000, 40)], "50 Mbit/s at 20 ms, 20 Mbit/s at 80 ms"),
    ] {
        let share = share(paths, secs(3), secs(3));
        assert!(share > 0.95, "{name}: {share:.3}");
    }
}

#[test]
fn a_long_way_is_full_within_a_few_round_trips() {
    // From nothing: ten round trips of 100 ms, of which slow start would take most.
    let share = share(&[relayed(12_500_000, 50); 4], secs(1), secs(1));
    assert!(share > 0.9, "{share:.3}");
}

#[test]
fn a_keystroke_takes_the_way_that_is_short_as_a_whole() {
    // Both next hops are as near.
    let mut pair = Pair::new(&[relayed(1_250_000, 10), relayed(1_250_000, 100)]);
    let keys = pair.open_idle(CLIENT);
    // What is known of the ways comes of what went over them.
    let bulk = pair.open(CLIENT, 8 * MIB);
    assert!(pair.run_until(secs(20), |pair| pair.finished(SERVER, bulk)));
    pair.run_for(secs(1));
    for stroke in 1..=20 {
        let pressed = pair.now;
        pair.write(CLIENT, keys, 1, false);
        assert!(pair.run_until(secs(2), |pair| pair.read(SERVER, keys) >= stroke));
        let took = pair.now - pressed;
        assert!(took < millis(20), "{took:?}");
        pair.run_for(millis(150));
    }
}

#[test]
fn many_connections_stay_within_the_session_s_window() {
    let mut pair = Pair::new(&[relayed(12_500_000, 50); 4]);
    let connections: Vec<_> = (0..64).map(|_| pair.open(CLIENT, 512 * KIB)).collect();
    let all = |pair: &Pair| connections.iter().all(|id| pair.finished(SERVER, *id));
    // 32 MiB at 50 MB/s; the oracle bounds what the receiver holds.
    assert!(pair.run_until(secs(4), all));
}
