//! What is to happen once the session's lock is released: wake-ups, above all.

use std::cell::Cell;
use std::task::Waker;

use super::{Line, Phase};

/// Collected under the lock, carried out behind it.
pub(super) struct Batch {
    /// Tasks that have something to do.
    pub(super) wakers: Vec<Waker>,
    /// Wakers that others took the place of: dropping one may run foreign code, so not under the lock.
    pub(super) replaced: Vec<Waker>,
    /// The session has connections to be accepted and does not stand in its queue yet.
    pub(super) accepted: bool,
    /// The session's time-out came to lie before the one that its driver sleeps for.
    pub(super) rearm: bool,
    /// All tunnels are quiet.
    pub(super) stalled: bool,
    /// The session entered this phase.
    pub(super) phase: Option<Phase>,
    /// There is a tunnel now, or there is none any more.
    pub(super) line: Option<Line>,
}

thread_local! {
    /// The two vectors of the last batch, so that the steady state allocates nothing.
    static SPARE: Cell<(Vec<Waker>, Vec<Waker>)> = const { Cell::new((Vec::new(), Vec::new())) };
}

/// More wakers than this are not kept room for.
const SPARE_WAKERS: usize = 1024;

impl Batch {
    pub(super) fn new() -> Self {
        // A thread that is ending has no spare any more.
        let (wakers, replaced) = SPARE.try_with(Cell::take).unwrap_or_default();
        Self { wakers, replaced, accepted: false, rearm: false, stalled: false, phase: None, line: None }
    }

    /// Takes the wakers: to be dropped or woken outside of every lock.
    fn wake(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
        self.replaced.clear();
        if self.wakers.capacity() <= SPARE_WAKERS {
            let spare = (std::mem::take(&mut self.wakers), std::mem::take(&mut self.replaced));
            SPARE.try_with(|cell| cell.set(spare)).ok();
        }
    }
}

impl Drop for Batch {
    /// Also when a panic ends the call: what was taken from its place would never be woken otherwise.
    fn drop(&mut self) {
        self.wake();
    }
}
