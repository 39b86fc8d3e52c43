//! One direction of a rate ([`Bucket`]): what may move now, and whose turn it is.
//!
//! Bytes are paid for behind their move: while what was moved is not paid for, nothing more moves. So a turn may move some
//! KiB although less is left, and a keystroke never waits for room of that size. The long run is exact.
//!
//! Those that wait stand in a row. Nobody owns the next turn: the one in front is called, and when it has moved what it
//! had, or had nothing, it calls the next. One that does not come when it is called (nobody polls it any more) is passed
//! over by a task, the conductor, which lives while any wait and also watches the time.
//!
//! Datagrams do not wait; what cannot go at once is dropped. Beside those that wait they have the room of one turn behind
//! each turn: so neither a flood of them keeps connections waiting for ever, nor does a connection that takes all there is
//! have every question to a name server dropped.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::speed::Speed;

/// How long one that is called may take to come before the next is called as well. If both come, and too much has moved,
/// the second stands in front again.
const GRACE: Duration = Duration::from_millis(5);

/// A bound on one direction; none at first.
#[derive(Debug)]
pub(super) struct Bucket {
    state: Mutex<State>,
    /// Whether there is a speed, to be read without the lock.
    bounds: AtomicBool,
    /// Another speed was set.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    speed: Option<Speed>,
    /// When all that was moved is paid for.
    paid: Instant,
    /// Those that wait, by ticket: the smaller came earlier.
    waiting: BTreeMap<u64, Waker>,
    /// The last ticket that was given.
    tickets: u64,
    /// When one was called last.
    called: Instant,
    /// Whether the conductor lives.
    conducted: bool,
    /// Bytes of datagrams behind the last turn in which something moved.
    datagrams: usize,
}

/// The place in the row of one that waits, or that was called; 0 where it has none. One task at a time uses it.
#[derive(Debug, Default)]
pub(super) struct Ticket(AtomicU64);

impl Default for Bucket {
    fn default() -> Self {
        let now = Instant::now();
        let state = State {
            speed: None,
            paid: now,
            waiting: BTreeMap::new(),
            tickets: 0,
            // So long ago that nobody comes any more.
            called: now.checked_sub(GRACE).unwrap_or(now),
            conducted: false,
            datagrams: 0,
        };
        Self { state: Mutex::new(state), bounds: AtomicBool::new(false), changed: Notify::new() }
    }
}

impl Bucket {
    /// Whether there is a bound.
    pub(super) fn bounds(&self) -> bool {
        self.bounds.load(Ordering::Relaxed)
    }

    /// Sets another speed.
    pub(super) fn set(&self, speed: Option<Speed>) {
        let mut state = self.lock();
        let now = Instant::now();
        match (state.speed, speed) {
            (Some(before), Some(speed)) if state.paid > now => {
                let owed = speed.scaled(state.paid - now, before);
                state.paid = now.checked_add(owed).unwrap_or(now);
            }
            // As behind a pause.
            (None, Some(speed)) => state.paid = now.checked_sub(speed.burst()).unwrap_or(now),
            _ => {}
        }
        state.speed = speed;
        self.bounds.store(speed.is_some(), Ordering::Relaxed);
        // Without a bound nobody has to wait.
        let free = if speed.is_none() { std::mem::take(&mut state.waiting) } else { BTreeMap::new() };
        drop(state);
        free.into_values().for_each(Waker::wake);
        self.changed.notify_one();
    }

    /// Waits for a turn: how many bytes may move in it. Behind each turn comes [`moved`](Self::moved).
    pub(super) fn poll_turn(self: &Arc<Self>, cx: &mut Context<'_>, ticket: &Ticket) -> Poll<usize> {
        let mut state = self.lock();
        let Some(speed) = state.speed else { return Poll::Ready(usize::MAX) };
        let called = match ticket.get() {
            // One that is called stands in the row no more. One that is polled although it is not, because its task has
            // other things to do as well, must not take the turn of the one that is.
            Some(own) => state.waiting.range(..=own).next().is_none(),
            None => state.waiting.is_empty(),
        };
        if called && state.paid <= Instant::now() {
            ticket.take();
            return Poll::Ready(speed.turn());
        }
        let own = ticket.get().unwrap_or_else(|| {
            state.tickets += 1;
            ticket.set(state.tickets);
            state.tickets
        });
        let before = state.waiting.insert(own, cx.waker().clone());
        let conducted = std::mem::replace(&mut state.conducted, true);
        drop(state);
        // Wakers may run foreign code when they go, so not under the lock.
        drop(before);
        if !conducted {
            tokio::spawn(conduct(self.clone()));
        }
        Poll::Pending
    }

    /// Counts what moved in a turn, nothing perhaps, and calls the next if it may go on.
    pub(super) fn moved(&self, bytes: usize) {
        let mut state = self.lock();
        let now = Instant::now();
        state.charge(bytes, now);
        if bytes > 0 {
            state.datagrams = 0;
        }
        let next = if state.paid <= now { state.call(now) } else { None };
        drop(state);
        next.into_iter().for_each(Waker::wake);
    }

    /// Whether a datagram of so many bytes may move at once, which counts it then.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        if !self.bounds() {
            return true;
        }
        let mut state = self.lock();
        let now = Instant::now();
        let Some(speed) = state.speed else { return true };
        let taken = match state.is_wanted(now) {
            true => state.datagrams < speed.turn(),
            false => state.paid <= now,
        };
        if taken {
            state.charge(bytes, now);
            state.datagrams = state.datagrams.saturating_add(bytes);
        }
        taken
    }

    /// Gives a ticket back. If its turn had come, the next one has it.
    pub(super) fn leave(&self, ticket: &Ticket) {
        let Some(own) = ticket.take() else { return };
        let left = self.lock().waiting.remove(&own);
        if left.is_none() {
            self.moved(0);
        }
    }

    /// Calls whoever is due; when the next will be, unless nobody waits.
    fn conducted(&self) -> Option<Instant> {
        let mut state = self.lock();
        let now = Instant::now();
        let next = if state.due().is_some_and(|due| due <= now) { state.call(now) } else { None };
        let due = state.due();
        state.conducted = due.is_some();
        drop(state);
        next.into_iter().for_each(Waker::wake);
        due
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn charge(&mut self, bytes: usize, now: Instant) {
        let Some(speed) = self.speed else { return };
        let earliest = now.checked_sub(speed.burst()).unwrap_or(now);
        self.paid = self.paid.max(earliest).checked_add(speed.time_of(bytes)).unwrap_or(now);
    }

    /// Whether somebody waits for a turn, or was just called.
    fn is_wanted(&self, now: Instant) -> bool {
        !self.waiting.is_empty() || now < self.called + GRACE
    }

    /// Takes the first out of the row.
    fn call(&mut self, now: Instant) -> Option<Waker> {
        let (_, waker) = self.waiting.pop_first()?;
        self.called = now;
        Some(waker)
    }

    /// When the first is to be called, unless one that has its turn does before.
    fn due(&self) -> Option<Instant> {
        (self.speed.is_some() && !self.waiting.is_empty()).then(|| self.paid.max(self.called + GRACE))
    }
}

impl Ticket {
    fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|own| *own > 0)
    }

    fn set(&self, own: u64) {
        self.0.store(own, Ordering::Relaxed);
    }

    fn take(&self) -> Option<u64> {
        Some(self.0.swap(0, Ordering::Relaxed)).filter(|own| *own > 0)
    }
}

/// Calls those that wait, one after the other, as their bytes are paid for.
async fn conduct(bucket: Arc<Bucket>) {
    while let Some(due) = bucket.conducted() {
        tokio::select! {
            () = sleep_until(due) => {}
            () = bucket.changed.notified() => {}
        }
    }
}
