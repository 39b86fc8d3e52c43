//! The tasks that wait until the other end has acknowledged some of what was opened. Each has a ticket, and as many as
//! can open now are called, in the order of their tickets. One that was called comes back in any case: it opens, waits
//! on, or gives up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use super::TunnelManager;
use super::batch::Wakers;

/// Who waits to open a connection.
#[derive(Debug, Default)]
pub(super) struct Openers {
    waiting: BTreeMap<u64, Waker>,
    /// How many were called and have not come back.
    called: usize,
    next_ticket: u64,
}

impl Openers {
    /// A task waits.
    pub(super) fn wait(&mut self, opener: &mut Opener, waker: &Waker) {
        let ticket = *opener.ticket.get_or_insert_with(|| {
            self.next_ticket += 1;
            self.next_ticket
        });
        self.waiting.insert(ticket, waker.clone());
        opener.waits = true;
    }

    /// A task that may have waited asks again, or gives up. The waker that it left, if it was not called.
    pub(super) fn back(&mut self, opener: &mut Opener) -> Option<Waker> {
        let ticket = opener.ticket.filter(|_| std::mem::take(&mut opener.waits))?;
        let waker = self.waiting.remove(&ticket);
        self.called -= usize::from(waker.is_none());
        waker
    }

    /// Some wait.
    pub(super) fn wait_for_room(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Calls so many that no more than `room` are on their way.
    pub(super) fn call(&mut self, room: usize, wakers: &mut Wakers) {
        while self.called < room
            && let Some((_, waker)) = self.waiting.pop_first()
        {
            self.called += 1;
            wakers.push(waker);
        }
    }

    /// Calls all: what is opened now fails, or another limit holds.
    pub(super) fn call_all(&mut self, wakers: &mut Wakers) {
        self.call(usize::MAX, wakers);
    }
}

/// The place of one task among those that wait. When it goes, whoever is next may be called.
#[derive(Debug)]
pub(crate) struct Opener {
    manager: Arc<TunnelManager>,
    /// From its first wait on, so that it keeps its turn.
    ticket: Option<u64>,
    /// It waits, or was called and has not come back.
    waits: bool,
}

impl Opener {
    pub(crate) fn new(manager: &Arc<TunnelManager>) -> Self {
        Self { manager: manager.clone(), ticket: None, waits: false }
    }
}

impl Drop for Opener {
    fn drop(&mut self) {
        if self.waits {
            let manager = self.manager.clone();
            manager.with(|state, _| state.stop_waiting(self));
        }
    }
}
