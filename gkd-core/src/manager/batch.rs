//! What is to happen once the session's lock is released: wake-ups, above all.

use std::task::Waker;

use smallvec::SmallVec;

use super::{Line, Phase};

/// Wakers that one call finds are few: they stand on the stack. What concerns more connections at a time costs an
/// allocation.
pub(crate) type Wakers = SmallVec<[Waker; 16]>;

/// Collected under the lock, carried out behind it.
#[derive(Default)]
pub(super) struct Batch {
    /// Tasks that have something to do.
    pub(super) wakers: Wakers,
    /// Wakers that others took the place of: dropping one may run foreign code, so not under the lock.
    pub(super) replaced: Wakers,
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

impl Drop for Batch {
    /// Also when a panic ends the call: what was taken from its place would never be woken otherwise.
    fn drop(&mut self) {
        // Most calls wake nobody.
        if self.wakers.is_empty() {
            return;
        }
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}
