//! Random scenarios in virtual time: what was accepted is delivered once, in order, whatever becomes of the
//! tunnels, and when all is over every account is whole.
//!
//! A failure prints its seed; `GKD_SEED=N cargo test -p gkd-proto --test random` runs that one alone, and
//! `GKD_SEEDS=FROM-TO` a range of them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod pair;

use std::time::Duration;

use gkd_proto::Event;
use gkd_proto::id::{ConnectionId, TunnelId};
use gkd_proto::packet::ResetCode;

use pair::{CLIENT, Pair, Path, SERVER};

const SEEDS: u64 = 300;

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len() as u64) as usize])
    }

    fn path(&mut self) -> Path {
        let rate = 50_000 << self.below(8);
        Path { rate, delay: Duration::from_millis(1 + self.below(100)) }
    }
}

struct Scenario {
    random: Random,
    pair: Pair,
    /// Connections that nobody resets or drops: they must arrive whole.
    promised: Vec<(usize, ConnectionId, u64)>,
    others: Vec<(usize, ConnectionId)>,
    stalled: Vec<TunnelId>,
}

impl Scenario {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let paths: Vec<_> = (0..1 + random.below(6)).map(|_| random.path()).collect();
        let pair = Pair::new(&paths);
        Self { random, pair, promised: Vec::new(), others: Vec::new(), stalled: Vec::new() }
    }

    fn step(&mut self) {
        let random = &mut self.random;
        let end = random.below(2) as usize;
        let tunnels = self.pair.tunnels();
        match random.below(12) {
            0 | 1 if self.promised.len() < 8 => {
                let bytes = random.below(400_000);
                let id = self.pair.open(end, bytes);
                self.promised.push((end, id, bytes));
            }
            2 | 3 if self.others.len() < 8 => {
                let bytes = random.below(2_000_000);
                let id = self.pair.open(end, bytes);
                self.others.push((end, id));
            }
            4 => {
                if let Some((_, id)) = random.pick(&self.others) {
                    let code = ResetCode(random.below(9));
                    self.pair.reset(end, id, code);
                }
            }
            5 => {
                if let Some((_, id)) = random.pick(&self.others) {
                    self.pair.release(end, id);
                }
            }
            6 => {
                if let Some((opener, id)) = random.pick(&self.others)
                    && self.pair.ends[1 - opener].readers.contains_key(&id)
                {
                    let paused = random.below(2) == 0;
                    self.pair.pause(1 - opener, id, paused);
                }
            }
            7 => {
                if let Some(tunnel) = random.pick(&tunnels) {
                    match random.below(3) {
                        0 => self.pair.cut(tunnel),
                        which => self.pair.cut_at(which as usize - 1, tunnel),
                    }
                }
            }
            8 if tunnels.len() < 8 => {
                let path = random.path();
                self.pair.add_tunnel(path);
            }
            9 => {
                if let Some(tunnel) = random.pick(&tunnels) {
                    self.pair.stall(tunnel, true);
                    self.stalled.push(tunnel);
                }
            }
            10 => {
                if let Some(tunnel) = self.stalled.pop() {
                    // One that an end has dropped meanwhile stays as it is.
                    let up = |end: usize| {
                        let stats = self.pair.ends[end].session.stats();
                        stats.tunnels.iter().any(|up| up.tunnel == tunnel)
                    };
                    if up(CLIENT) && up(SERVER) {
                        self.pair.stall(tunnel, false);
                    }
                }
            }
            _ => {
                if let Some(tunnel) = random.pick(&tunnels).filter(|_| random.below(4) == 0) {
                    let now = self.pair.now;
                    self.pair.ends[end].session.retire_tunnel(now, tunnel);
                    self.pair.settle();
                }
            }
        }
        let pause = Duration::from_micros(self.random.below(200_000));
        self.pair.run_for(pause);
    }

    /// Good weather: everything that was promised arrives, the rest is dropped, and nothing remains.
    fn end(mut self) {
        for _ in 0..2 {
            self.pair.add_tunnel(Path { rate: 5_000_000, delay: Duration::from_millis(10) });
        }
        for end in [CLIENT, SERVER] {
            let ids: Vec<_> = self.pair.ends[end].readers.keys().copied().collect();
            ids.into_iter().for_each(|id| self.pair.pause(end, id, false));
        }
        let promised = self.promised.clone();
        let whole = |pair: &Pair| promised.iter().all(|(opener, id, _)| pair.finished(1 - opener, *id));
        let arrived = self.pair.run_until(Duration::from_secs(120), whole);
        for (opener, id, bytes) in &self.promised {
            assert_eq!(self.pair.read(1 - opener, *id), *bytes, "connection {id}");
            let reset = |event: &Event| matches!(event, Event::Reset { connection, .. } if connection == id);
            assert!(!self.pair.ends.iter().any(|end| end.events.iter().any(reset)), "{id} was reset");
        }
        assert!(arrived, "the ends of all that was promised");
        // Twice, for what was accepted only meanwhile, its Connect having taken a slow tunnel.
        for _ in 0..2 {
            for end in [CLIENT, SERVER] {
                let ids: Vec<_> = self.pair.ends[end].readers.keys().copied().collect();
                ids.into_iter().for_each(|id| self.pair.release(end, id));
            }
            self.pair.run_for(Duration::from_secs(60));
        }
        self.pair.assert_balanced();
    }
}

fn seeds() -> std::ops::Range<u64> {
    if let Ok(seed) = std::env::var("GKD_SEED") {
        let seed = seed.parse().unwrap();
        return seed..seed + 1;
    }
    let range = std::env::var("GKD_SEEDS").ok();
    let range = range.map(|range| range.split_once('-').map(|(from, to)| (from.parse(), to.parse())));
    match range {
        Some(Some((Ok(from), Ok(to)))) => from..to,
        Some(_) => panic!("GKD_SEEDS is FROM-TO"),
        None => 0..SEEDS,
    }
}

#[test]
fn what_is_promised_arrives_whatever_becomes_of_the_tunnels() {
    let seeds = seeds();
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut scenario = Scenario::new(seed);
            let steps = 10 + scenario.random.below(60);
            (0..steps).for_each(|_| scenario.step());
            scenario.end();
        });
        assert!(run.is_ok(), "seed {seed} failed; run it alone with GKD_SEED={seed}");
    }
}
