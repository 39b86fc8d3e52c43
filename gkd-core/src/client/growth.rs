//! How many tunnels per path are worth having ([`Growth`]): begins with few, tries more while there is more to carry than
//! they carry, keeps those that brought their share, and tries fewer when more bring nothing. Has no clock and touches no
//! tunnel: it is told now and then what was moved, and says how many there are to be.
//!
//! ```text
//!               more waits than moves, and it is time              they are up, and up to speed,
//!              ┌────────────── begin ────────────────► Trying ──── and a window of them is whole ───┐
//!          Watching                                      │                                          │
//!              ▲  ▲────── the load ended, or too few came up: as before ──────────────────────────── ┤
//!              └───── judged: kept, and the next at once; or as before, and twice the wait ──────────┘
//! ```
//!
//! More are worth it when goodput rises by half of what was added at least (a line that caps each tunnel gives all of
//! it, a full line nothing but what it takes from others), and fewer when it falls by less than half of what was taken
//! away. Between the two lies a gap, so that what was kept for good reason is not given up for as good a one. What was in
//! vain is tried again after a wait that doubles each time, more and fewer in turns.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What a step adds to the tunnels, and a step back takes from them. Smaller steps drown in the noise of goodput, larger
/// ones take more from others on the line while they are tried.
const STEP: f64 = 0.5;

/// How much of what was added, or taken, has to show in goodput. Four tunnels among four strangers' on a full line gain
/// 0.4 of it by a step, and are not to.
const FAIR: f64 = 0.5;

/// Goodput is taken over so long: short against a download, long against what TCP varies by.
const WINDOW: Duration = Duration::from_secs(3);

/// So many of the samples of a window have to show that more waited than moved.
const BUSY: f64 = 0.75;

/// How long new tunnels may take to come up, or old ones to be settled; and to be up to speed then.
const UP_WITHIN: Duration = Duration::from_secs(10);
const UP_TO_SPEED: Duration = Duration::from_secs(2);

/// How long something may be tried without a whole window: the load has ended, or tunnels come and go.
const TRY_WITHIN: Duration = Duration::from_secs(30);

/// The wait after what was in vain, the first and the longest: in the end more tunnels are tried for some seconds in half
/// an hour.
const FIRST_WAIT: Duration = Duration::from_secs(15);
const LONGEST_WAIT: Duration = Duration::from_secs(30 * 60);

/// After so long without a load the tunnels are as few as in the beginning: they cost the server, and the next load may
/// meet another line.
const RESTED: Duration = Duration::from_secs(5 * 60);

/// What is known at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    /// Bytes that were moved and acknowledged since the beginning, both ways.
    pub(super) moved: u64,
    /// More waited to be moved than tunnels took.
    pub(super) busy: bool,
    /// Tunnels that are up, on all paths.
    pub(super) up: usize,
    /// The server let a further tunnel not in since the last sample: it has as many as it takes.
    pub(super) refused: bool,
}

/// Decides how many tunnels per path there are to be.
#[derive(Debug)]
pub(super) struct Growth {
    paths: usize,
    least: usize,
    most: usize,
    /// Per path, and proved to be worth it.
    kept: usize,
    trying: Option<Trying>,
    /// What is tried next, and not before when.
    direction: Direction,
    next: Option<Instant>,
    wait: Duration,
    window: Window,
    /// When a sample was busy last.
    busy_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// Another number of tunnels, and how it goes.
#[derive(Clone, Copy, Debug)]
struct Trying {
    tunnels: usize,
    began: Instant,
    /// When so many were up.
    up: Option<Instant>,
    /// Goodput with those that were before.
    before: f64,
}

/// The samples of the last [`WINDOW`].
#[derive(Debug, Default)]
struct Window(VecDeque<(Instant, u64, bool)>);

impl Growth {
    /// Of so many paths, with `least` to `most` tunnels on each; begins with the least.
    pub(super) fn new(paths: usize, least: usize, most: usize) -> Self {
        Self {
            paths: paths.max(1),
            least,
            most: most.max(least),
            kept: least,
            trying: None,
            direction: Direction::Up,
            next: None,
            wait: FIRST_WAIT,
            window: Window::default(),
            busy_at: None,
        }
    }

    /// How many tunnels per path there are to be now.
    pub(super) fn wanted(&self) -> usize {
        self.trying.map_or(self.kept, |trying| trying.tunnels)
    }

    /// Takes a sample; how many tunnels per path there are to be from now on. Some four a second are enough while bytes
    /// move.
    pub(super) fn observe(&mut self, now: Instant, sample: Sample) -> usize {
        self.window.add(now, sample.moved, sample.busy);
        if sample.busy {
            self.busy_at = Some(now);
        }
        if sample.refused {
            self.refused(now, sample.up);
        } else if let Some(trying) = self.trying {
            self.try_on(now, trying, sample.up);
        } else if self.is_rested(now) {
            (self.kept, self.direction) = (self.least, Direction::Up);
            (self.next, self.wait) = (None, FIRST_WAIT);
        } else if sample.up < self.paths * self.kept {
            // What is missing comes back, and what it brings is not what another number brings.
            self.window.clear();
        } else {
            self.begin(now);
        }
        self.wanted()
    }

    /// Tries another number, when it is time and there is reason to.
    fn begin(&mut self, now: Instant) {
        if self.next.is_some_and(|next| now < next) {
            return;
        }
        let Some(before) = self.window.goodput() else { return };
        let (up, down) = (self.more(), self.fewer());
        let tunnels = match self.direction {
            Direction::Up if up > self.kept => up,
            Direction::Down if down < self.kept => down,
            _ => {
                // There is nothing in this direction.
                self.next = Some(now + self.wait);
                return self.turn();
            }
        };
        self.trying = Some(Trying { tunnels, began: now, up: None, before });
        self.window.clear();
    }

    /// Waits until what is tried has shown what it brings.
    fn try_on(&mut self, now: Instant, mut trying: Trying, up: usize) {
        let all = self.paths * trying.tunnels;
        let (adds, late) = (trying.tunnels > self.kept, now - trying.began >= UP_WITHIN);
        if now - trying.began >= TRY_WITHIN {
            return self.give_up();
        }
        match trying.up {
            None if adds && up >= all || !adds && (up <= all || late) => trying.up = Some(now),
            None if late => return self.in_vain(now),
            None => {}
            Some(_) if up < all => return self.window.clear(),
            Some(since) if now - since < UP_TO_SPEED => self.window.clear(),
            Some(_) => {
                if let Some(after) = self.window.goodput() {
                    return self.judge(now, &trying, after);
                }
            }
        }
        self.trying = Some(trying);
    }

    fn judge(&mut self, now: Instant, trying: &Trying, after: f64) {
        let share = trying.tunnels as f64 / self.kept as f64;
        let change = after / trying.before.max(1.0);
        let worth_it = match self.direction {
            Direction::Up => change - 1.0 >= FAIR * (share - 1.0),
            Direction::Down => 1.0 - change <= FAIR * (1.0 - share),
        };
        if !worth_it {
            return self.in_vain(now);
        }
        (self.kept, self.trying) = (trying.tunnels, None);
        if self.direction == Direction::Up {
            self.wait = FIRST_WAIT;
        } else if self.kept == self.least {
            // More were in vain already.
            self.direction = Direction::Up;
            self.next = Some(now + self.wait);
        }
    }

    /// As before, and not again for longer than the last time that more were in vain.
    fn in_vain(&mut self, now: Instant) {
        self.give_up();
        if self.direction == Direction::Up {
            self.wait = (self.wait * 2).min(LONGEST_WAIT);
        }
        self.next = Some(now + self.wait);
        self.turn();
    }

    /// As before, with nothing proved.
    fn give_up(&mut self) {
        self.trying = None;
        self.window.clear();
    }

    /// The server takes no more. What it did not take of something new, it will not take soon; of what there was, it may
    /// count some that are gone.
    fn refused(&mut self, now: Instant, up: usize) {
        if self.trying.is_some() {
            self.wait = LONGEST_WAIT;
        } else {
            self.kept = self.kept.min(up / self.paths).max(self.least);
        }
        self.give_up();
        (self.direction, self.next) = (Direction::Up, Some(now + self.wait));
    }

    fn turn(&mut self) {
        self.direction = match self.direction {
            Direction::Up if self.kept > self.least => Direction::Down,
            _ => Direction::Up,
        };
    }

    fn more(&self) -> usize {
        let more = (self.kept as f64 * (1.0 + STEP)).ceil() as usize;
        more.min(self.most)
    }

    fn fewer(&self) -> usize {
        let fewer = (self.kept as f64 / (1.0 + STEP)).floor() as usize;
        fewer.max(self.least)
    }

    fn is_rested(&self, now: Instant) -> bool {
        self.kept > self.least && self.busy_at.is_none_or(|busy| now - busy >= RESTED)
    }
}

impl Window {
    fn add(&mut self, now: Instant, moved: u64, busy: bool) {
        // Another session counts from the beginning.
        if self.0.back().is_some_and(|(_, before, _)| moved < *before) {
            self.clear();
        }
        self.0.push_back((now, moved, busy));
        // One sample from before the window stays, from which it is counted.
        while self.0.get(1).is_some_and(|(second, ..)| now.saturating_duration_since(*second) >= WINDOW) {
            self.0.pop_front();
        }
    }

    fn clear(&mut self) {
        let last = self.0.pop_back();
        self.0.clear();
        self.0.extend(last);
    }

    /// Bytes per second, when the window is whole and was busy.
    fn goodput(&self) -> Option<f64> {
        let ((first, from, _), (last, to, _)) = (self.0.front()?, self.0.back()?);
        let time = last.saturating_duration_since(*first);
        let busy = self.0.iter().skip(1).filter(|(.., busy)| *busy).count();
        let whole = time >= WINDOW && busy as f64 >= BUSY * (self.0.len() - 1) as f64;
        whole.then(|| (to - from) as f64 / time.as_secs_f64())
    }
}
