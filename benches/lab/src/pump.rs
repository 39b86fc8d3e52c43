//! A thread that carries packets over one direction of a line: from a device through a [`Line`] to another device,
//! each at its time. It tells how late it was and what it cost, for a lab that is not on time measures itself.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::set_current_timer_slack;
use rustix::time::{ClockId, clock_gettime};

use crate::line::{Counts, Line, Way};
use crate::sys::{self, MTU, Tun};

/// Packets that are taken in before those that are due have their turn: some 100 µs of work.
const TURN: usize = 32;

/// How long it rests after it has done something. What comes meanwhile is done together, for in a virtual machine it is
/// the waking up that costs most; packets are late by as much at either end, a two-hundredth of the shortest round trip
/// that is emulated.
const REST: Duration = Duration::from_micros(100);

/// How often it looks whether it is to end, where there is nothing else to do.
const LOOK: Duration = Duration::from_millis(50);

/// Lateness is counted in bins of this width.
const BIN: Duration = Duration::from_micros(10);
/// Up to 40 ms; what is later still counts as that.
const BINS: usize = 4000;

/// How a direction fared since the last [`Pump::reset`].
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// By how much 99 of 100 packets were late at the most.
    pub(crate) late: Duration,
    /// Processor time of the thread, and over how long.
    pub(crate) cpu: Duration,
    pub(crate) over: Duration,
}

/// A direction that is carried; dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Pump {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    end: AtomicBool,
}

#[derive(Debug)]
struct State {
    line: Line,
    bins: Vec<u64>,
    cpu: Duration,
    since: Instant,
    cpu_since: Duration,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pump {
    pub(crate) fn start(from: Arc<Tun>, to: Arc<Tun>, way: Way, seed: u64) -> Result<Self> {
        let state = State {
            line: Line::new(way, seed),
            bins: vec![0; BINS],
            cpu: Duration::ZERO,
            since: Instant::now(),
            cpu_since: Duration::ZERO,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), end: AtomicBool::new(false) });
        let carried = shared.clone();
        let thread = thread::Builder::new()
            .name("line".to_owned())
            .spawn(move || carry(&carried, &from, &to))
            .context("cannot start a thread for the line")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    pub(crate) fn set_dark(&self, dark: bool) {
        self.shared.state().line.set_dark(dark);
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shared.state().line.counts()
    }

    /// Begins lateness and cost anew.
    pub(crate) fn reset(&self) {
        let mut state = self.shared.state();
        state.bins.fill(0);
        (state.since, state.cpu_since) = (Instant::now(), state.cpu);
    }

    pub(crate) fn figures(&self) -> Figures {
        let state = self.shared.state();
        Figures { late: late(&state.bins), cpu: state.cpu - state.cpu_since, over: state.since.elapsed() }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// The 99th percentile.
fn late(bins: &[u64]) -> Duration {
    let all: u64 = bins.iter().sum();
    let mut seen = 0;
    let index = bins.iter().position(|count| {
        seen += count;
        all > 0 && seen * 100 >= all * 99
    });
    index.map_or(Duration::ZERO, |index| BIN * (index as u32 + 1))
}

fn carry(shared: &Shared, from: &Tun, to: &Tun) {
    // It goes before what it serves: a line does not wait until the programs at its ends have slept. Without the
    // privilege it is less on time, which its figures tell.
    sys::run_in_time();
    set_current_timer_slack(NonZeroU64::new(1)).ok();
    let start = Instant::now();
    let mut buffer = [0; MTU];
    while !shared.end.load(Ordering::Relaxed) {
        let (more, worked, due) = {
            let mut state = shared.state();
            let taken = take(&mut state.line, from, start, &mut buffer);
            let delivered = deliver(&mut state, to, start);
            state.cpu = thread_time();
            (taken == TURN, taken + delivered > 0, state.line.due())
        };
        if more {
            continue;
        }
        if worked {
            thread::sleep(REST);
        }
        let wait = due.map_or(LOOK, |due| due.saturating_sub(start.elapsed())).min(LOOK);
        if !wait.is_zero() {
            sleep(from, wait);
        }
    }
}

/// Takes in what the device has, at most one turn of it; how many packets that were.
fn take(line: &mut Line, from: &Tun, start: Instant, buffer: &mut [u8; MTU]) -> usize {
    for taken in 0..TURN {
        match from.read(buffer) {
            Ok(Some(count)) => line.enter(start.elapsed(), buffer[..count].to_vec()),
            // Nothing there, or the device is down.
            Ok(None) | Err(_) => return taken,
        }
    }
    TURN
}

/// Hands over what has arrived; how many packets that were.
fn deliver(state: &mut State, to: &Tun, start: Instant) -> usize {
    let (now, mut delivered) = (start.elapsed(), 0);
    while let Some((due, packet)) = state.line.leave(now) {
        let late = start.elapsed().saturating_sub(due).as_nanos() / BIN.as_nanos();
        state.bins[(late as usize).min(BINS - 1)] += 1;
        // One that is down takes nothing: then the run ends.
        to.write(&packet);
        delivered += 1;
    }
    delivered
}

/// Until there is a packet or the time is over.
fn sleep(from: &Tun, wait: Duration) {
    let timeout = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
    poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&timeout)).ok();
}

/// Processor time of the thread that asks.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_hundred_may_be_later() {
        let mut bins = vec![0; BINS];
        assert_eq!(late(&bins), Duration::ZERO);
        (bins[0], bins[7]) = (990, 10);
        assert_eq!(late(&bins), BIN);
        bins[7] = 11;
        assert_eq!(late(&bins), 8 * BIN);
    }
}
