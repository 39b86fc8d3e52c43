//! The seeds of the ordinary test run, and that a seed says everything.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Mutex;

use gkd_sim::hunt::Hunt;
use gkd_sim::run;

/// So many seeds run each time. A longer hunt is `cargo run --release -p gkd-sim -- --seeds 1000000`.
const SEEDS: u64 = 2000;

#[test]
fn what_is_promised_arrives_whatever_becomes_of_the_tunnels() {
    let hunt = Hunt::new(0..SEEDS);
    let first = Mutex::new(None);
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    hunt.run(
        jobs,
        || true,
        |failure| {
            first.lock().unwrap().get_or_insert(failure);
            false
        },
    );
    if let Some(failure) = first.into_inner().unwrap() {
        panic!("{failure}");
    }
    let counts = hunt.counts();
    assert_eq!(counts.passed, SEEDS);
    assert!(counts.sent > 100_000_000 && counts.connections > 10_000, "they do something: {counts:?}");
}

#[test]
fn the_same_seed_runs_the_same() {
    let runs: Vec<_> = (0..40).map(|seed| (run(seed, false).unwrap(), run(seed, false).unwrap())).collect();
    assert!(runs.iter().all(|(first, second)| first == second));
    let mut hashes: Vec<_> = runs.iter().map(|(first, _)| first.hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), runs.len(), "each seed runs otherwise");
}
