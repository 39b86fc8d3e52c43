//! Whether one target is well ([`Health`]), by how requests to it end and by probes.
//!
//! Two judges, each of which can keep a target out. The requests (passive):
//!
//! ```text
//!        fall failures in a row                  its time is over
//!  well ─────────────────────────▶ out (1 to 60 s) ──────────────▶ coming back ── 10 s ──▶ well
//!                                   ▲      │ a request that was tried     │ ▲
//!                                   │      │ all the same is answered     │ │
//!                                   │      └──────────────────────────────│─┘
//!                                   └─────────────────────────────────────┘ one failure more
//! ```
//!
//! A run of failures goes on until a request is answered, so who comes back and still fails is out again at once, for
//! twice as long. The time is short again once a request is answered after the target has come back whole. Nothing runs: all
//! of it follows from the time that is given.
//!
//! And the probes (active): `fall` bad ones in a row take a target out, `rise` good ones in a row bring it back, by and
//! by as well. They do not shorten what its requests brought it: to answer probes is not to answer requests.

use std::time::{Duration, Instant};

use super::chance;

/// How long a target is out at first, less up to a third by chance so that several do not come back together.
const FIRST: Duration = Duration::from_millis(1500);

/// How long it is out at most.
const LONGEST: Duration = Duration::from_secs(60);

/// Doublings that lead from one to the other, and a few more.
const MOST_DOUBLINGS: u32 = 8;

/// How long a target takes to come back whole.
pub(super) const COMING_BACK: Duration = Duration::from_secs(10);

/// Shares of a weight of 1: fine enough for its growth to be smooth.
const SHARES: u64 = 1024;

/// What a target begins with when it comes back, in parts of its weight: with nothing it would learn nothing.
const FIRST_PART: f64 = 0.1;

/// How one target does.
#[derive(Clone, Debug, Default)]
pub(super) struct Health {
    /// In a row.
    failures: u32,
    /// When it comes back or came back; none if it never was out, or long ago.
    back_at: Option<Instant>,
    /// How often its time out has doubled.
    doublings: u32,
    /// How often its failures took it out.
    round: u32,
    /// What probes say.
    is_down: bool,
    /// Probes in a row that said otherwise.
    contrary: u32,
}

/// The shares of a target that is well.
pub(super) fn whole(weight: u32) -> u64 {
    u64::from(weight) * SHARES
}

impl Health {
    /// Its part of the requests: 0 while it is out, then growing to the whole weight.
    pub(super) fn share(&self, weight: u32, now: Instant) -> u64 {
        let whole = whole(weight);
        match self.back_at {
            _ if self.is_down => 0,
            None => whole,
            Some(back_at) if now < back_at => 0,
            Some(back_at) => {
                let part = now.duration_since(back_at).as_secs_f64() / COMING_BACK.as_secs_f64();
                // At least 102, for a weight is at least 1.
                (whole as f64 * part.clamp(FIRST_PART, 1.0)) as u64
            }
        }
    }

    /// Which of its times a request that begins now belongs to.
    pub(super) fn round(&self) -> u32 {
        self.round
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn is_down(&self) -> bool {
        self.is_down
    }

    /// A request that began in this round was answered.
    pub(super) fn answered(&mut self, round: u32, now: Instant) {
        if round != self.round {
            return;
        }
        self.failures = 0;
        match self.back_at {
            // It was tried although it was out.
            Some(back_at) if now < back_at => self.back_at = Some(now),
            Some(back_at) if now.duration_since(back_at) >= COMING_BACK => {
                self.back_at = None;
                self.doublings = 0;
            }
            _ => {}
        }
    }

    /// A request that began in this round failed.
    pub(super) fn failed(&mut self, round: u32, fall: u32, random: u64, now: Instant) {
        if round != self.round {
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let is_out = self.back_at.is_some_and(|back_at| now < back_at);
        if is_out || self.failures < fall {
            return;
        }
        let whole = FIRST.saturating_mul(1 << self.doublings).min(LONGEST);
        self.back_at = Some(now + whole.mul_f64(1.0 - chance(random) / 3.0));
        self.doublings = (self.doublings + 1).min(MOST_DOUBLINGS);
        self.round = self.round.wrapping_add(1);
    }

    /// A probe was answered well, or was not.
    pub(super) fn probed(&mut self, ok: bool, rise: u32, fall: u32, now: Instant) {
        // What it says already.
        if ok != self.is_down {
            self.contrary = 0;
            return;
        }
        self.contrary += 1;
        if self.contrary < if self.is_down { rise } else { fall } {
            return;
        }
        self.contrary = 0;
        self.is_down = !self.is_down;
        if !self.is_down {
            self.back_at = Some(self.back_at.map_or(now, |back_at| back_at.max(now)));
        }
    }
}
