//! Connections that are opened, have one byte echoed, and are closed: how many a second, one after another and
//! many at a time, and the CPU time of both ends for each.

use anyhow::{Context, Result};

use crate::Bench;
use crate::chain::{Carrier, Chain, Kind};
use crate::figures::{Reach, Report, Samples};
use crate::load;
use crate::rival::Rival;

/// A way of opening: how many a round, how many at a time, and the names of its measures. Together they stay well
/// below the ports of one address, for closed connections keep theirs for a while.
struct Manner {
    count: usize,
    at_a_time: usize,
    rate: &'static str,
    cpu: &'static str,
}

const MANNERS: [Manner; 2] = [
    Manner { count: 2000, at_a_time: 1, rate: "opens, one at a time", cpu: "CPU of an open, one at a time" },
    Manner { count: 6400, at_a_time: 64, rate: "opens, 64 at a time", cpu: "CPU of an open, 64 at a time" },
];

/// How much shorter a quick run is.
const QUICK: usize = 10;

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut kinds = vec![Kind::RELAYS, Kind::gkd(Carrier::Plain, 4), Kind::gkd(Carrier::Tls, 4)];
    if !bench.quick {
        kinds.extend([Kind::Direct, Kind::Relays { buffer: 8 * 1024, threads: false }]);
        kinds.extend(Rival::ALL.map(Kind::Rival));
    }
    let chains = bench.chains(&kinds)?;
    let mut samples = Samples::default();
    for round in 1..=bench.rounds {
        bench.say(format_args!("opens: round {round} of {}", bench.rounds));
        for manner in &MANNERS {
            for chain in &chains {
                measure(bench, chain, manner, &mut samples).with_context(|| chain.kind.to_string())?;
            }
        }
    }
    for manner in &MANNERS {
        bench.rows(&chains, &samples, (manner.rate, "/s"), Some(Reach::AtLeast(1.5)), report);
        bench.rows(&chains, &samples, (manner.cpu, "µs"), None, report);
    }
    Ok(())
}

fn measure(bench: &Bench, chain: &Chain, manner: &Manner, samples: &mut Samples) -> Result<()> {
    let count = if bench.quick { manner.count / QUICK } else { manner.count };
    let cpu = chain.cpu()?;
    let took = load::open_many(chain.entry.threads, count, manner.at_a_time)?;
    let cpu = chain.cpu()? - cpu;
    samples.add(manner.rate, &chain.kind, count as f64 / took.as_secs_f64());
    samples.add(manner.cpu, &chain.kind, cpu.as_secs_f64() * 1e6 / count as f64);
    Ok(())
}
