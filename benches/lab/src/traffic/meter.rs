//! What has arrived, and the longest time in which nothing did.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counts over all connections that share it.
#[derive(Debug)]
pub(crate) struct Meter {
    start: Instant,
    bytes: AtomicU64,
    wrong: AtomicU64,
    /// When something arrived last, and the longest time before that without anything, in nanoseconds.
    last: AtomicU64,
    stall: AtomicU64,
}

impl Default for Meter {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        Self { start: Instant::now(), bytes: zero(), wrong: zero(), last: zero(), stall: zero() }
    }
}

impl Meter {
    /// So many bytes arrived, so many of them not the right ones.
    pub(crate) fn arrived(&self, bytes: u64, wrong: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.wrong.fetch_add(wrong, Ordering::Relaxed);
        let now = self.start.elapsed().as_nanos() as u64;
        let last = self.last.swap(now, Ordering::Relaxed);
        self.stall.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn wrong(&self) -> u64 {
        self.wrong.load(Ordering::Relaxed)
    }

    /// The longest time without anything, that which is not over included.
    pub(crate) fn stall(&self) -> Duration {
        let since = self.start.elapsed().as_nanos() as u64 - self.last.load(Ordering::Relaxed);
        Duration::from_nanos(self.stall.load(Ordering::Relaxed).max(since))
    }

    /// Begins the stalls anew.
    pub(crate) fn reset_stall(&self) {
        self.last.store(self.start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        self.stall.store(0, Ordering::Relaxed);
    }
}
