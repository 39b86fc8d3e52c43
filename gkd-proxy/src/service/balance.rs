//! Which of a service's targets takes the next request ([`Balancer`]), and which are out for a while because they fail.
//!
//! It is driven and never drives: it reads no clock, does no IO and draws nothing random but from its seed, so the same
//! seed and the same calls give the same choices. What a target is and how it is reached it does not know.
//!
//! | method | the choice |
//! |---|---|
//! | [`RoundRobin`](Method::RoundRobin) | in turn by weight, and evenly mixed: nginx's smooth weighted round robin |
//! | [`LeastConnections`](Method::LeastConnections) | the fewest outstanding requests for its weight; of equal ones in turn |
//! | [`TwoChoices`](Method::TwoChoices) | two are drawn by weight, and the one with fewer outstanding for its weight is taken: nearly as even as to look at all (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001), and those in front of the same targets do not all run to the same one |
//! | [`Address`](Method::Address) | always the same for a client's address, and for a network of IPv6 (64 bits): rendezvous hashing by weight, so a target that goes moves its own clients and no others |
//!
//! Whatever the method, a target that failed too often in a row gets nothing until its time is over, and then by and by
//! more (`health`). One that there is no way to gets nothing as long as that is so. When none is left that is well, the least bad one is tried all the same: an answer may come of
//! it, and nothing can otherwise.
//!
//! Memory is some hundred bytes for each target, of which there are at most [`MAX_TARGETS`], and for each removed target
//! with requests that have not ended. A choice looks at each target a few times and allocates nothing.

mod choice;
mod health;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use health::Health;

use super::config::MAX_WEIGHT;
pub use super::config::Method;

/// The most targets of one service. Beyond it, to look at each for each request would be felt.
pub const MAX_TARGETS: usize = 1024;

/// Good probes in a row that bring a target back, unless [`Balancer::reconfigure`] says otherwise.
const RISE: u32 = 2;

/// Names a target of one balancer; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(u64);

/// A target that was picked for one request, which [`Balancer::ended`] takes back. It remembers how often the target had
/// been out, so that the end of a request that began before says nothing about the time afterwards.
#[derive(Debug)]
#[must_use = "the request is outstanding until it is ended"]
pub struct Picked {
    target: TargetId,
    round: u32,
}

impl Picked {
    /// Which target it is.
    pub fn target(&self) -> TargetId {
        self.target
    }
}

/// How a request to a target ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target answered.
    Answered,
    /// It was not reached, broke off, did not answer in time, or said itself that it cannot.
    Failed,
    /// Whoever asked went away, which says nothing about the target.
    Abandoned,
}

/// What is known of a target.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct TargetState {
    /// Whether it gets requests.
    pub healthy: bool,
    /// How much of its weight it has: 1 unless it has just come back, 0 while it is out or removed.
    pub share: f64,
    /// Requests that it was picked for and that have not ended.
    pub outstanding: u32,
    /// Failures in a row.
    pub failures: u32,
}

/// Chooses among the targets of one service.
#[derive(Clone, Debug)]
pub struct Balancer {
    method: Method,
    fall: u32,
    rise: u32,
    /// Changes with every draw; where it began is the seed.
    random: u64,
    /// What clients' addresses are hashed with.
    hash: u64,
    next: u64,
    /// In the order in which they were added.
    targets: Vec<Entry>,
    /// Outstanding requests of removed targets, none of which is zero.
    draining: BTreeMap<TargetId, u32>,
}

#[derive(Clone, Debug)]
struct Entry {
    id: TargetId,
    /// What it is to clients' addresses.
    key: u64,
    weight: u32,
    outstanding: u32,
    health: Health,
    /// There is no way to it.
    away: bool,
    /// Of round robin: what it is owed, in shares.
    owed: i64,
    /// Its part of the choice that is being made: its weight as its health leaves it, 0 where it is not in question.
    share: u64,
}

impl Balancer {
    /// A balancer without targets. `fall` failures in a row take one out. The same seed leads clients' addresses to the
    /// same targets.
    pub fn new(method: Method, fall: u32, seed: u64) -> Self {
        Self {
            method,
            fall: fall.max(1),
            rise: RISE,
            random: mix(seed),
            hash: mix(!seed),
            next: 0,
            targets: Vec::new(),
            draining: BTreeMap::new(),
        }
    }

    /// Another method and other thresholds from now on: `fall` failures, or bad probes, in a row take a target out,
    /// `rise` good probes bring it back.
    pub fn reconfigure(&mut self, method: Method, fall: u32, rise: u32) {
        self.method = method;
        self.fall = fall.max(1);
        self.rise = rise.max(1);
    }

    /// Adds a target, which is taken to be well. Clients' addresses know it by its place in the order of all that were
    /// ever added. None where there are [`MAX_TARGETS`].
    pub fn add(&mut self, weight: u32) -> Option<TargetId> {
        self.add_as(self.next, weight)
    }

    /// The same for a target that clients' addresses know by `key`, a hash of its name, say: so they find it again after a
    /// restart, whatever else was added or removed.
    pub fn add_as(&mut self, key: u64, weight: u32) -> Option<TargetId> {
        if self.targets.len() >= MAX_TARGETS {
            return None;
        }
        let (id, key) = (TargetId(self.next), mix(key));
        self.next += 1;
        let weight = weight.clamp(1, MAX_WEIGHT);
        let health = Health::default();
        self.targets.push(Entry { id, key, weight, outstanding: 0, health, away: false, owed: 0, share: 0 });
        Some(id)
    }

    /// Gives a target another weight.
    pub fn reweigh(&mut self, target: TargetId, weight: u32) {
        if let Some(entry) = self.entry(target) {
            entry.weight = weight.clamp(1, MAX_WEIGHT);
        }
    }

    /// Takes a target away: it is not picked again. Requests that it was picked for may end as if it were there.
    pub fn remove(&mut self, target: TargetId) {
        let Some(index) = self.targets.iter().position(|entry| entry.id == target) else { return };
        let entry = self.targets.remove(index);
        if entry.outstanding > 0 {
            self.draining.insert(entry.id, entry.outstanding);
        }
        choice::inherit(&mut self.targets, entry.owed);
    }

    /// The target for a request of a client, which is outstanding from now on until [`ended`](Self::ended) is called; none
    /// where there is no target at all.
    ///
    /// `tried` are those that the request was sent to already: one of them is picked only where there is no other. Where
    /// no other is well, a target that is out is picked: one that there is a way to, that no probe speaks against, that has
    /// failed least often in a row and has the fewest outstanding for its weight.
    pub fn pick(&mut self, client: IpAddr, tried: &[TargetId], now: Instant) -> Option<Picked> {
        let is_new = |entry: &Entry| !tried.contains(&entry.id);
        let any = !self.targets.iter().any(is_new);
        for entry in &mut self.targets {
            let share = entry.share_at(now);
            entry.share = if any || is_new(entry) { share } else { 0 };
        }
        let index = if self.targets.iter().all(|entry| entry.share == 0) {
            choice::least_bad(&self.targets, |entry| any || is_new(entry))?
        } else {
            match self.method {
                Method::RoundRobin => choice::in_turn(&mut self.targets)?,
                Method::LeastConnections => choice::least_outstanding(&mut self.targets)?,
                Method::TwoChoices => {
                    let draws = [self.draw(), self.draw()];
                    choice::better_of_two(&self.targets, draws)?
                }
                Method::Address => choice::by_address(&self.targets, client, self.hash)?,
            }
        };
        let entry = &mut self.targets[index];
        entry.outstanding = entry.outstanding.saturating_add(1);
        Some(Picked { target: entry.id, round: entry.health.round() })
    }

    /// A request has ended.
    pub fn ended(&mut self, picked: Picked, outcome: Outcome, now: Instant) {
        let Picked { target, round } = picked;
        if let Some(outstanding) = self.draining.get_mut(&target) {
            *outstanding = outstanding.saturating_sub(1);
            if *outstanding == 0 {
                self.draining.remove(&target);
            }
            return;
        }
        let (fall, chance) = (self.fall, self.draw());
        let Some(entry) = self.entry(target) else { return };
        entry.outstanding = entry.outstanding.saturating_sub(1);
        match outcome {
            Outcome::Answered => entry.health.answered(round, now),
            Outcome::Failed => entry.health.failed(round, fall, chance, now),
            Outcome::Abandoned => {}
        }
    }

    /// What came of a health check.
    pub fn probed(&mut self, target: TargetId, ok: bool, now: Instant) {
        let (rise, fall) = (self.rise, self.fall);
        if let Some(entry) = self.entry(target) {
            entry.health.probed(ok, rise, fall, now);
        }
    }

    /// There is no way to a target, or is one again. Other than one that failed it is back at once: it did nothing wrong.
    pub fn set_away(&mut self, target: TargetId, away: bool) {
        if let Some(entry) = self.entry(target) {
            entry.away = away;
        }
    }

    /// What is known of a target; nothing of one that is removed and whose requests have all ended.
    pub fn state(&self, target: TargetId, now: Instant) -> Option<TargetState> {
        if let Some(outstanding) = self.draining.get(&target) {
            return Some(TargetState { healthy: false, share: 0.0, outstanding: *outstanding, failures: 0 });
        }
        let entry = self.targets.iter().find(|entry| entry.id == target)?;
        let share = entry.share_at(now);
        Some(TargetState {
            healthy: share > 0,
            share: share as f64 / health::whole(entry.weight) as f64,
            outstanding: entry.outstanding,
            failures: entry.health.failures(),
        })
    }

    /// The targets that were added and not removed, in that order.
    pub fn targets(&self) -> impl Iterator<Item = TargetId> {
        self.targets.iter().map(|entry| entry.id)
    }

    /// Requests to removed targets that have not ended.
    pub fn draining(&self) -> u32 {
        self.draining.values().fold(0, |sum, outstanding| sum.saturating_add(*outstanding))
    }

    fn entry(&mut self, target: TargetId) -> Option<&mut Entry> {
        self.targets.iter_mut().find(|entry| entry.id == target)
    }

    fn draw(&mut self) -> u64 {
        self.random = mix(self.random);
        self.random
    }
}

impl Entry {
    /// What it weighs in a choice.
    fn share_at(&self, now: Instant) -> u64 {
        if self.away { 0 } else { self.health.share(self.weight, now) }
    }
}

/// The finaliser of splitmix64 (Steele and others, 2014).
fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// From 0 to 1, without 1.
fn chance(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}
