//! How long a message of a few bytes takes there and back while nothing else goes on: back to back, and after a
//! rest in which everybody has gone to sleep.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::Bench;
use crate::chain::{Carrier, Chain, Kind};
use crate::figures::{Reach, Report, Samples};
use crate::load;
use crate::rival::Rival;

/// Bytes of a message: a keystroke with its dressing, or a small request.
const MESSAGE: usize = 64;

/// Messages of a round, back to back and rested.
const COUNT: usize = 5000;
const RESTED: usize = 400;
const REST: Duration = Duration::from_millis(2);

/// How much shorter a quick run is.
const QUICK: usize = 10;

/// A way of sending, with the names of its two measures.
struct Manner {
    count: usize,
    rest: Duration,
    half: &'static str,
    most: &'static str,
}

const MANNERS: [Manner; 2] = [
    Manner { count: COUNT, rest: Duration::ZERO, half: "echo, p50", most: "echo, p99" },
    Manner {
        count: RESTED,
        rest: REST,
        half: "echo after 2 ms of rest, p50",
        most: "echo after 2 ms of rest, p99",
    },
];

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut kinds =
        vec![Kind::Direct, Kind::RELAYS, Kind::gkd(Carrier::Plain, 4), Kind::gkd(Carrier::Tls, 4)];
    if !bench.quick {
        kinds.push(Kind::Relays { buffer: 256 * 1024, threads: true });
        kinds.extend(Rival::ALL.map(Kind::Rival));
    }
    let chains = bench.chains(&kinds)?;
    let mut samples = Samples::default();
    for round in 1..=bench.rounds {
        bench.say(format_args!("echo: round {round} of {}", bench.rounds));
        for chain in &chains {
            for manner in &MANNERS {
                measure(bench, chain, manner, &mut samples).with_context(|| chain.kind.to_string())?;
            }
        }
    }
    for (index, measure) in MANNERS.iter().flat_map(|manner| [manner.half, manner.most]).enumerate() {
        let reach = Some(Reach::AtMost(1.0)).filter(|_| index == 0);
        bench.rows(&chains, &samples, (measure, "µs"), reach, report);
    }
    Ok(())
}

fn measure(bench: &Bench, chain: &Chain, manner: &Manner, samples: &mut Samples) -> Result<()> {
    let count = if bench.quick { manner.count / QUICK } else { manner.count };
    let mut took = load::echoes(chain.entry.threads, MESSAGE, count, manner.rest)?;
    took.sort();
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)].as_secs_f64() * 1e6;
    samples.add(manner.half, &chain.kind, at(50));
    samples.add(manner.most, &chain.kind, at(99));
    Ok(())
}
