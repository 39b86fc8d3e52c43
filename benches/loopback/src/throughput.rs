//! One connection, down, up, and both ways at a time: bits per second, and CPU seconds of both ends for each GB.
//!
//! Before it is measured each chain carries content of which every byte is compared, which warms it too.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::Bench;
use crate::chain::{Carrier, Chain, Kind};
use crate::figures::{Reach, Report, Samples};
use crate::load;
use crate::process;
use crate::request::Transfer;
use crate::rival::Rival;

const GB: f64 = 1e9;

/// What is compared byte by byte in each direction.
const CHECKED: u64 = 64 * 1024 * 1024;

/// A transfer is as long as this takes at the speed of the warm-up, between these bounds.
const TAKES: Duration = Duration::from_millis(1200);
const LEAST: u64 = 256 * 1024 * 1024;
const MOST: u64 = 2_000_000_000;

/// Of a quick run.
const QUICK: u64 = 128 * 1024 * 1024;

const SPEED: (&str, &str) = ("throughput, each way", "Gbit/s");
const BOTH: (&str, &str) = ("throughput, both ways at a time", "Gbit/s");
const CPU: (&str, &str) = ("CPU of both ends, each way", "s/GB");
const CPU_BOTH: (&str, &str) = ("CPU of both ends, both ways at a time", "s/GB");
const LOAD: (&str, &str) = ("CPU of load and sink, each way", "s/GB");

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut kinds = vec![Kind::RELAYS, Kind::gkd(Carrier::Plain, 4), Kind::gkd(Carrier::Tls, 4)];
    kinds.extend([1, 8].map(|tunnels| Kind::gkd(Carrier::Plain, tunnels)));
    kinds.push(Kind::gkd(Carrier::Ws, 4));
    if !bench.quick {
        kinds.extend([1, 8].map(|tunnels| Kind::gkd(Carrier::Tls, tunnels)));
        kinds.extend([Kind::Direct, Kind::Relays { buffer: 256 * 1024, threads: true }]);
        kinds.push(Kind::Relays { buffer: 8 * 1024, threads: false });
        kinds.extend(Rival::ALL.map(Kind::Rival));
    }
    let chains = bench.chains(&kinds)?;
    let mut sizes = Vec::new();
    for chain in &chains {
        sizes.push(warm_up(bench, chain).with_context(|| chain.kind.to_string())?);
    }
    let mut samples = Samples::default();
    for round in 1..=bench.rounds {
        bench.say(format_args!("throughput: round {round} of {}", bench.rounds));
        for (chain, bytes) in chains.iter().zip(&sizes) {
            measure(bench, chain, *bytes, &mut samples).with_context(|| chain.kind.to_string())?;
        }
    }
    tell(&chains, &samples, report);
    Ok(())
}

/// Moves checked content; how many bytes a transfer is to have.
fn warm_up(bench: &Bench, chain: &Chain) -> Result<u64> {
    let stream = load::open(chain.entry.threads)?;
    let checked = if bench.quick { CHECKED / 4 } else { CHECKED };
    for (up, down) in [(checked, 0), (0, checked), (checked, checked)] {
        load::transfer(&stream, Transfer { up, down, check: true })?;
    }
    if let Some(bytes) = bench.bytes {
        return Ok(bytes);
    }
    if bench.quick {
        return Ok(QUICK);
    }
    let took = load::transfer(&stream, Transfer { up: LEAST, down: 0, check: false })?;
    let bytes = LEAST as f64 * TAKES.as_secs_f64() / took.as_secs_f64();
    Ok((bytes as u64).clamp(LEAST, MOST))
}

fn measure(bench: &Bench, chain: &Chain, bytes: u64, samples: &mut Samples) -> Result<()> {
    let stream = load::open(chain.entry.threads)?;
    load::transfer(&stream, Transfer::NOTHING)?;
    let outside = || Ok::<_, anyhow::Error>(bench.sink.process.cpu()? + process::cpu(std::process::id())?);
    let (cpu, load_cpu) = (chain.cpu()?, outside()?);
    let mut took = Duration::ZERO;
    for (up, down) in [(0, bytes), (bytes, 0)] {
        took += load::transfer(&stream, Transfer { up, down, check: false })?;
    }
    let (cpu, load_cpu) = (chain.cpu()? - cpu, outside()? - load_cpu);
    let moved = 2.0 * bytes as f64;
    samples.add(SPEED.0, &chain.kind, moved * 8.0 / GB / took.as_secs_f64());
    samples.add(CPU.0, &chain.kind, cpu.as_secs_f64() * GB / moved);
    samples.add(LOAD.0, &chain.kind, load_cpu.as_secs_f64() * GB / moved);
    let cpu = chain.cpu()?;
    let took = load::transfer(&stream, Transfer { up: bytes, down: bytes, check: false })?;
    samples.add(BOTH.0, &chain.kind, moved * 8.0 / GB / took.as_secs_f64());
    samples.add(CPU_BOTH.0, &chain.kind, (chain.cpu()? - cpu).as_secs_f64() * GB / moved);
    Ok(())
}

fn tell(chains: &[Chain], samples: &Samples, report: &mut Report) {
    let relays = Kind::RELAYS.to_string();
    for measure in [SPEED, BOTH, CPU, CPU_BOTH, LOAD] {
        for Chain { kind, .. } in chains {
            let over = Some(relays.as_str()).filter(|_| *kind != Kind::RELAYS && measure != LOAD);
            let reach = match (measure, kind) {
                (SPEED, Kind::Gkd { carrier: Carrier::Plain, tunnels: 4, .. }) => Some(Reach::AtLeast(1.3)),
                (CPU, Kind::Gkd { carrier: Carrier::Plain, tunnels: 4, .. }) => Some(Reach::AtMost(0.9)),
                (CPU, Kind::Gkd { carrier: Carrier::Tls, tunnels: 4, .. }) => Some(Reach::AtMost(1.4)),
                _ => None,
            };
            report.rows.push(samples.row(measure, kind, over, reach));
        }
    }
    for carrier in [Carrier::Plain, Carrier::Tls] {
        let (one, eight) = (Kind::gkd(carrier, 1), Kind::gkd(carrier, 8));
        if chains.iter().any(|chain| chain.kind == one) {
            let row = samples.row(CPU, eight, Some(&one.to_string()), Some(Reach::AtMost(1.15)));
            report.rows.push(row);
        }
    }
    let rival = Kind::Rival(Rival::Shadowsocks).to_string();
    let row = samples.row(SPEED, Kind::gkd(Carrier::Tls, 4), Some(&rival), Some(Reach::AtLeast(1.3)));
    report.rows.push(row);
    let raw = Kind::gkd(Carrier::Tls, 4).to_string();
    for measure in [SPEED, BOTH, CPU, CPU_BOTH] {
        report.rows.push(samples.row(measure, Kind::gkd(Carrier::Ws, 4), Some(&raw), None));
    }
    for Chain { kind, .. } in chains {
        if let Kind::Gkd { beside: true, carrier, tunnels } = kind {
            for measure in [SPEED, BOTH, CPU, CPU_BOTH] {
                let row = samples.row(measure, Kind::gkd(*carrier, *tunnels), Some(&kind.to_string()), None);
                report.rows.push(row);
            }
        }
    }
}
