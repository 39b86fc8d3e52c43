//! One direction of an emulated line, without IO: a packet enters at a time and leaves at a time, or is lost.
//!
//! On its way it meets, in this order: the cap of its flow, if there is one, with a queue of its own; the queue
//! before the bottleneck, which drops at its end; the bottleneck's rate; loss; the delay. What is lost has used the
//! bottleneck. Nothing is reordered within a flow. Time is since the line began; chance comes from one seed.

mod count;
mod flow;
mod loss;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use gkd_sim::random::Random;

pub(crate) use count::Counts;
pub(crate) use flow::Flow;
pub(crate) use loss::Loss;

use count::Stream;
use loss::LossState;

/// Flows that are told apart; those that come later are one. The largest scenario has some hundreds.
const MAX_FLOWS: usize = 4096;

/// A rate in bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Rate(pub(crate) u64);

impl Rate {
    pub(crate) const fn mbit(mbit: u64) -> Self {
        Self(mbit * 1_000_000)
    }

    pub(crate) fn as_mbit(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// How long so many bytes take.
    fn time(self, bytes: usize) -> Duration {
        Duration::from_nanos((bytes as u64 * 8).saturating_mul(1_000_000_000) / self.0.max(1))
    }
}

/// The longest queue that there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Queue {
    /// What the rate carries in this time.
    Time(Duration),
    Bytes(u64),
}

impl Queue {
    fn time(self, rate: Rate) -> Duration {
        match self {
            Self::Time(time) => time,
            Self::Bytes(bytes) => rate.time(bytes as usize),
        }
    }
}

/// What a direction is like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Way {
    pub(crate) rate: Rate,
    pub(crate) delay: Duration,
    pub(crate) queue: Queue,
    pub(crate) loss: Loss,
    /// What each flow is held to, with its own queue.
    pub(crate) cap: Option<(Rate, Queue)>,
}

/// A rate that packets pass one after the other.
#[derive(Clone, Debug, Default)]
struct Bottleneck {
    free: Duration,
}

impl Bottleneck {
    /// When the packet is through, or None if the queue is full.
    fn pass(&mut self, now: Duration, bytes: usize, rate: Rate, queue: Queue) -> Option<Duration> {
        let begins = self.free.max(now);
        if begins - now > queue.time(rate) {
            return None;
        }
        self.free = begins + rate.time(bytes);
        Some(self.free)
    }
}

/// What is known of a flow.
#[derive(Debug, Default)]
struct FlowState {
    cap: Bottleneck,
    stream: Stream,
}

/// A packet that waits for its flow's turn. Ordered by time, then by entry.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    until: Duration,
    entry: u64,
    packet: Vec<u8>,
}

/// The direction, with all that is on its way.
#[derive(Debug)]
pub(crate) struct Line {
    way: Way,
    random: Random,
    loss: LossState,
    flows: HashMap<Flow, FlowState>,
    /// Held back by the cap of their flow.
    held: BinaryHeap<Reverse<Held>>,
    bottleneck: Bottleneck,
    /// Past the bottleneck, with the time at which they arrive.
    underway: VecDeque<(Duration, Vec<u8>)>,
    dark: bool,
    counts: Counts,
}

impl Line {
    /// The same seed and the same packets at the same times give the same.
    pub(crate) fn new(way: Way, seed: u64) -> Self {
        Self {
            way,
            random: Random::new(seed),
            loss: LossState::default(),
            flows: HashMap::new(),
            held: BinaryHeap::new(),
            bottleneck: Bottleneck::default(),
            underway: VecDeque::new(),
            dark: false,
            counts: Counts::default(),
        }
    }

    /// Takes a packet in; time must not go backwards.
    pub(crate) fn enter(&mut self, now: Duration, packet: Vec<u8>) {
        self.advance(now);
        let (flow, tcp) = flow::parse(&packet);
        let is_known = self.flows.len() < MAX_FLOWS || self.flows.contains_key(&flow);
        let flow = if is_known { flow } else { Flow::default() };
        let state = self.flows.entry(flow).or_default();
        self.counts.entered += 1;
        self.counts.bytes += packet.len() as u64;
        if let Some(tcp) = tcp {
            state.stream.take(tcp);
        }
        if self.dark {
            self.counts.dark += 1;
            return;
        }
        let Some((rate, queue)) = self.way.cap else {
            self.queue(now, packet);
            return;
        };
        match state.cap.pass(now, packet.len(), rate, queue) {
            Some(until) => self.held.push(Reverse(Held { until, entry: self.counts.entered, packet })),
            None => self.counts.dropped += 1,
        }
    }

    /// When something is to be done next.
    pub(crate) fn due(&self) -> Option<Duration> {
        let held = self.held.peek().map(|Reverse(held)| held.until);
        let underway = self.underway.front().map(|(due, _)| *due);
        held.into_iter().chain(underway).min()
    }

    /// A packet that has arrived, with the time at which it was due. To be called until there is none.
    pub(crate) fn leave(&mut self, now: Duration) -> Option<(Duration, Vec<u8>)> {
        self.advance(now);
        match self.underway.front() {
            Some((due, _)) if *due <= now => {
                self.counts.left += 1;
                self.underway.pop_front()
            }
            _ => None,
        }
    }

    /// From now on, all that enters and all that is on its way is lost, or nothing more is.
    pub(crate) fn set_dark(&mut self, dark: bool) {
        self.dark = dark;
        if dark {
            self.counts.dark += (self.held.len() + self.underway.len()) as u64;
            self.held.clear();
            self.underway.clear();
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let mut counts = self.counts.clone();
        for state in self.flows.values() {
            counts.payload += state.stream.payload;
            counts.first_time += state.stream.first_time;
        }
        counts
    }

    /// Lets those go on that their flow's cap has held back long enough.
    fn advance(&mut self, now: Duration) {
        while self.held.peek().is_some_and(|Reverse(held)| held.until <= now) {
            let Some(Reverse(held)) = self.held.pop() else { return };
            self.queue(held.until, held.packet);
        }
    }

    /// Queues a packet before the bottleneck, and settles what becomes of it.
    fn queue(&mut self, now: Duration, packet: Vec<u8>) {
        let through = self.bottleneck.pass(now, packet.len(), self.way.rate, self.way.queue);
        let Some(through) = through else {
            self.counts.dropped += 1;
            return;
        };
        if self.loss.strikes(self.way.loss, &mut self.random) {
            self.counts.lost += 1;
            return;
        }
        self.underway.push_back((through + self.way.delay, packet));
    }
}
