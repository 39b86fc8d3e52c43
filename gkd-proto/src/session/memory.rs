//! What the session has of the process's memory for what it sends, and for datagrams that wait to be taken, which no
//! credit bounds. The part of what else arrives follows the session's window (`account`).

use super::{Session, handle::MIN_SEND_BUFFER};
use crate::budget::Reservation;

/// Memory is taken and given back in steps of this size, in bytes: not with every write.
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

    /// What memory is needed for by now, beside the window.
    fn memory_needed(&self) -> u64 {
        self.queued + self.held_bytes + self.datagrams_held as u64
    }

    /// Takes memory for so many bytes more; whether there is any.
    pub(super) fn memory_for(&mut self, more: u64) -> bool {
        let short = (self.memory_needed() + more).saturating_sub(self.memory);
        let taken = short.next_multiple_of(STEP);
        let there = short == 0 || self.account.memory.grow(taken);
        if there && short > 0 {
            self.memory += taken;
        }
        there
    }

    /// How much of `wanted` bytes there is memory for, at a connection that has `queued` bytes waiting. However short
    /// memory is, a connection that has nothing waiting may go on with a little.
    pub(super) fn memory_to_send(&mut self, wanted: u64, queued: u64) -> u64 {
        if self.memory_for(wanted) {
            return wanted;
        }
        let left = self.memory.saturating_sub(self.memory_needed());
        wanted.min(left.max(MIN_SEND_BUFFER.saturating_sub(queued)))
    }

    /// Gives back memory for what is acknowledged, taken or dropped.
    pub(super) fn release_memory(&mut self) {
        let needed = self.memory_needed().next_multiple_of(STEP);
        let kept = if needed == 0 { 0 } else { needed + KEPT_STEPS * STEP };
        if self.memory > kept {
            self.account.memory.shrink(self.memory - needed);
            self.memory = needed;
        }
    }
}
