//! Many seeds, by many threads.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::performance::{Failure, run};

/// A range of seeds that threads work through together, and what came of it.
#[derive(Debug)]
pub struct Hunt {
    next: AtomicU64,
    end: u64,
    over: AtomicBool,
    counts: [AtomicU64; 4],
}

/// What seeds that passed were, together.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// How many.
    pub passed: u64,
    /// Connections.
    pub connections: u64,
    /// Bytes that were accepted from programs.
    pub sent: u64,
    /// Seconds of virtual time.
    pub seconds: u64,
}

impl Hunt {
    /// These seeds.
    pub fn new(seeds: Range<u64>) -> Self {
        Self {
            next: AtomicU64::new(seeds.start),
            end: seeds.end,
            over: AtomicBool::new(false),
            counts: Default::default(),
        }
    }

    /// Has `jobs` threads run seeds until there is none left or one of them is told to stop: with each failure
    /// `failed` is called, and goes on if it says so; before each seed `goes_on` is asked.
    pub fn run(
        &self,
        jobs: usize,
        goes_on: impl Fn() -> bool + Sync,
        failed: impl Fn(Failure) -> bool + Sync,
    ) {
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| self.job(&goes_on, &failed));
            }
        });
    }

    fn job(&self, goes_on: &impl Fn() -> bool, failed: &impl Fn(Failure) -> bool) {
        while !self.over.load(Ordering::Relaxed) && goes_on() {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.end {
                return;
            }
            match run(seed, false) {
                Ok(report) => {
                    let numbers = [1, report.connections, report.sent, report.time.as_secs()];
                    for (count, number) in self.counts.iter().zip(numbers) {
                        count.fetch_add(number, Ordering::Relaxed);
                    }
                }
                Err(failure) => {
                    if !failed(failure) {
                        self.over.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// What came of it until now.
    pub fn counts(&self) -> Counts {
        let [passed, connections, sent, seconds] =
            [0, 1, 2, 3].map(|index| self.counts[index].load(Ordering::Relaxed));
        Counts { passed, connections, sent, seconds }
    }
}
