//! What the protocol alone makes of paths, in virtual time: small and large transfers and keystrokes over unlike ones,
//! with small windows too, and how soon a long fat line is full. No TCP is simulated: a tunnel carries its rate
//! from the first byte on. The figures repeat, whatever the machine does.
//!
//! `cargo run --release -p gkd-sim --example paths`

use std::time::Duration;

use gkd_proto::SessionConfig;
use gkd_sim::shorthand::{KIB, MIB, millis, path, secs};
use gkd_sim::wire::Kernel;
use gkd_sim::{CLIENT, Pair, Path, SERVER};

/// Of which the kernel tells the round trip, as it does of every socket that is connected.
const fn known(rate: u64, delay: u64) -> Path {
    Path { kernel: Kernel::Right, ..path(rate, delay) }
}

/// 50 Mbit/s at 20 ms and 20 Mbit/s at 80 ms; 64 Mbit/s at 20 ms and 0.8 Mbit/s at 400 ms.
const PAIRS: [[Path; 2]; 2] =
    [[known(6_250_000, 10), known(2_500_000, 40)], [known(8_000_000, 10), known(100_000, 200)]];

fn main() {
    for paths in PAIRS {
        for paths in [&paths[..1], &paths[..]] {
            unlike(paths);
        }
    }
    for window in [256 * KIB, MIB, 64 * MIB] {
        for paths in [&PAIRS[0][..1], &PAIRS[0][..]] {
            small_window(paths, window);
        }
    }
    for tunnels in [1, 4, 8] {
        until_full(tunnels);
    }
}

fn words(paths: &[Path]) -> String {
    let each = paths.iter().map(|path| format!("{} B/s at {:?}", path.rate, 2 * path.delay));
    each.collect::<Vec<_>>().join(" and ")
}

/// How long a transfer takes from its opening to its end.
fn takes(pair: &mut Pair, bytes: u64) -> Duration {
    let opened = pair.now;
    let id = pair.open(CLIENT, bytes);
    assert!(pair.run_until(secs(600), |pair| pair.finished(SERVER, id)), "it comes to an end");
    let took = pair.now - opened;
    pair.run_for(millis(777));
    took
}

fn unlike(paths: &[Path]) {
    let mut pair = Pair::new(paths);
    takes(&mut pair, 30 * MIB);
    print!("{}:", words(paths));
    for bytes in [1, 20 * KIB, 100 * KIB, MIB, 10 * MIB, 100 * MIB] {
        let mut all: Vec<_> = (0..5).map(|_| takes(&mut pair, bytes)).collect();
        all.sort_unstable();
        print!(" {bytes} B {:.3} s,", all[2].as_secs_f64());
    }
    let keys = pair.open_idle(CLIENT);
    let _bulk = pair.open(CLIENT, 2000 * MIB);
    pair.run_for(secs(2));
    let mut strokes = Vec::new();
    for stroke in 1..=100 {
        let pressed = pair.now;
        pair.write(CLIENT, keys, 1, false);
        assert!(pair.run_until(secs(5), |pair| pair.read(SERVER, keys) >= stroke), "it arrives");
        strokes.push(pair.now - pressed);
        pair.run_for(millis(137));
    }
    strokes.sort_unstable();
    println!(" a keystroke beside bulk {:?} (p99 {:?})", strokes[50], strokes[98]);
}

fn small_window(paths: &[Path], window: u64) {
    let config = SessionConfig {
        connection_window: window.min(MIB),
        max_connection_window: window,
        ..SessionConfig::default()
    };
    let mut pair = Pair::with_config(paths, config);
    takes(&mut pair, 30 * MIB);
    let took = takes(&mut pair, 60 * MIB).as_secs_f64();
    println!("{}, a window of {window} B: 60 MiB {took:.3} s", words(paths));
}

/// 1 Gbit/s, less what headers take, at 100 ms.
fn until_full(tunnels: u64) {
    const RATE: u64 = 120_000_000;
    const STEP: Duration = millis(25);
    let each = usize::try_from(tunnels).unwrap_or(1);
    let mut pair = Pair::new(&vec![known(RATE / tunnels, 50); each]);
    let id = pair.open(CLIENT, 4000 * MIB);
    let mut last = 0;
    let mut full = Duration::ZERO;
    while pair.elapsed() < secs(3) {
        pair.run_for(STEP);
        let read = pair.read(SERVER, id);
        if ((read - last) as f64) < 0.9 * RATE as f64 * STEP.as_secs_f64() {
            full = pair.elapsed();
        }
        last = read;
    }
    println!("1 Gbit/s at 100 ms over {tunnels} tunnels: full after {full:?}");
}
