//! Programs that have connected and not yet said what they want: [`Slots`].
//!
//! Each has until a deadline. Their number is bounded, and at the bound the oldest gives way: so those who
//! connect and say nothing cannot keep out a program that speaks at once.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Room for a bounded number of handshakes.
pub(crate) struct Slots {
    most: usize,
    time: Duration,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// By age, the oldest first.
    slots: BTreeMap<u64, CancellationToken>,
}

/// One handshake's place; free again when dropped.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    number: u64,
    deadline: Instant,
    crowded_out: CancellationToken,
}

/// Why a handshake must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// It took too long.
    TimedOut,
    /// A newer one needed its place.
    CrowdedOut,
}

impl Slots {
    /// Room for `most` handshakes, each of which has so much time.
    pub(crate) fn new(most: usize, time: Duration) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), time, open: Mutex::default() })
    }

    /// A place for a handshake that begins now.
    pub(crate) fn enter(self: &Arc<Self>) -> Slot {
        let crowded_out = CancellationToken::new();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = if open.slots.len() >= self.most { open.slots.pop_first() } else { None };
        let number = open.next;
        open.next += 1;
        open.slots.insert(number, crowded_out.clone());
        drop(open);
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
        }
        Slot { slots: Arc::clone(self), number, deadline: Instant::now() + self.time, crowded_out }
    }
}

impl Slot {
    /// Waits until the handshake must end.
    pub(crate) async fn overdue(&self) -> Overdue {
        tokio::select! {
            () = sleep_until(self.deadline) => Overdue::TimedOut,
            () = self.crowded_out.cancelled() => Overdue::CrowdedOut,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.open.lock().unwrap_or_else(PoisonError::into_inner).slots.remove(&self.number);
    }
}

impl fmt::Display for Overdue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "it did not say in time what it wants",
            Self::CrowdedOut => "it said nothing while many others connected",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_handshake_has_its_time() {
        let slots = Slots::new(2, Duration::from_secs(10));
        let (began, slot) = (Instant::now(), slots.enter());
        assert_eq!(slot.overdue().await, Overdue::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_bound_the_oldest_gives_way() {
        let slots = Slots::new(2, Duration::from_secs(10));
        let (first, second) = (slots.enter(), slots.enter());
        let third = slots.enter();
        assert_eq!(first.overdue().await, Overdue::CrowdedOut);
        drop(first);
        drop(second);
        let fourth = slots.enter();
        assert_eq!(slots.open.lock().unwrap().slots.len(), 2);
        assert_eq!(third.overdue().await, Overdue::TimedOut);
        drop((third, fourth));
        assert!(slots.open.lock().unwrap().slots.is_empty());
    }
}
