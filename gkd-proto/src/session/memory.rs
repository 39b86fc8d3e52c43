//! What the session has of the process's memory for what it sends. The receiving side's part follows the
//! session's window (`account`).

use super::{Session, handle::MIN_SEND_BUFFER};
use crate::budget::Reservation;

/// Memory for what is sent is taken and given back in steps of this size, in bytes: not with every write.
const STEP: u64 = 64 * 1024;

/// So many steps more than is needed are kept, so that a steady flow takes and gives back none.
const KEPT_STEPS: u64 = 4;

impl Session {
    /// The session's memory is taken from this reservation, which holds what it begins with:
    /// [`session_window`](crate::SessionConfig::session_window). For the session to grow, it has to grow.
    pub fn within(mut self, memory: Reservation) -> Self {
        self.account.memory = memory;
        self
    }

    /// How much of `wanted` bytes there is memory for, at a connection that has `queued` bytes waiting. However short
    /// memory is, a connection that has nothing waiting may go on with a little.
    pub(super) fn memory_to_send(&mut self, wanted: u64, queued: u64) -> u64 {
        let needed = self.queued + self.held_bytes;
        let short = (needed + wanted).saturating_sub(self.send_memory);
        if short == 0 {
            return wanted;
        }
        let more = short.next_multiple_of(STEP);
        if self.account.memory.grow(more) {
            self.send_memory += more;
            return wanted;
        }
        let left = self.send_memory.saturating_sub(needed);
        wanted.min(left.max(MIN_SEND_BUFFER.saturating_sub(queued)))
    }

    /// Gives back memory for what is acknowledged, or dropped.
    pub(super) fn release_send_memory(&mut self) {
        let needed = (self.queued + self.held_bytes).next_multiple_of(STEP);
        let kept = if needed == 0 { 0 } else { needed + KEPT_STEPS * STEP };
        if self.send_memory > kept {
            self.account.memory.shrink(self.send_memory - needed);
            self.send_memory = needed;
        }
    }
}
