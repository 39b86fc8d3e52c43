//! Named scenarios in virtual time of lines with long queues in front of them: they stay short, and the lines busy.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use gkd_sim::shorthand::{MIB, millis, path, secs};
use gkd_sim::wire::Kernel;
use gkd_sim::{CLIENT, Pair, Path, SERVER};

/// 50 Mbit/s at 50 ms, with so much in front of it.
const fn queued(queue: u64) -> Path {
    Path { kernel: Kernel::Right, queue: millis(queue), ..path(6_250_000, 25) }
}

/// A bulk transfer that has run for some seconds.
fn filled(paths: &[Path]) -> (Pair, gkd_proto::id::ConnectionId) {
    let mut pair = Pair::new(paths);
    let bulk = pair.open(CLIENT, 4000 * MIB);
    pair.run_for(secs(5));
    (pair, bulk)
}

#[test]
fn a_keystroke_beside_a_bulk_transfer_meets_a_short_queue() {
    for paths in [&[queued(400); 4][..], &[queued(400)], &[queued(60); 2]] {
        let (mut pair, _) = filled(paths);
        let keys = pair.open_idle(CLIENT);
        for stroke in 1..=50 {
            let pressed = pair.now;
            pair.write(CLIENT, keys, 1, false);
            assert!(pair.run_until(secs(5), |pair| pair.read(SERVER, keys) >= stroke));
            let took = pair.now - pressed;
            // Beside the way itself: a quarter of the round trip in the queue, as much where more was looked for, and what
            // stands in the socket.
            assert!(took < millis(25 + 35), "{took:?}");
            pair.run_for(millis(137));
        }
    }
}

#[test]
fn a_line_is_busy_however_long_its_queue_is() {
    const FOR: Duration = secs(10);
    for paths in [&[queued(400); 4][..], &[queued(400)], &[queued(20); 8]] {
        let (mut pair, bulk) = filled(paths);
        let before = pair.read(SERVER, bulk);
        pair.run_for(FOR);
        let carried = (pair.read(SERVER, bulk) - before) as f64;
        let could = paths.iter().map(|path| path.rate as f64).sum::<f64>() * FOR.as_secs_f64();
        assert!(carried > 0.99 * could, "{carried} of {could}");
    }
}

#[test]
fn lines_that_each_tunnel_has_for_itself_are_busy() {
    // 10 Mbit/s at 100 ms for each of eight, as behind a limit for each connection.
    let own = Path { kernel: Kernel::Smoothed, queue: millis(400), ..path(1_250_000, 50) };
    let (mut pair, bulk) = filled(&[own; 8]);
    let before = pair.read(SERVER, bulk);
    pair.run_for(secs(10));
    let carried = (pair.read(SERVER, bulk) - before) as f64;
    assert!(carried > 0.97 * 10.0 * 8.0 * 1_250_000.0, "{carried}");
}
