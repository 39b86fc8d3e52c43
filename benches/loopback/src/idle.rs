//! Ten thousand connections on which nothing moves: the memory that each costs the two ends, what the kernel
//! holds for their sockets, and what one more costs to open beside them.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::Bench;
use crate::chain::{Carrier, Chain, Kind};
use crate::figures::{Reach, Report, Row, Spread};
use crate::load;
use crate::process::{Process, kib};
use crate::request::Transfer;

/// How many.
const CONNECTIONS: usize = 10_000;
const QUICK: usize = 1000;

/// Descriptors of a process that are not those connections.
const OTHER_DESCRIPTORS: usize = 400;

/// How long until buffers that nobody needs are given back, with much to spare.
const REST: Duration = Duration::from_secs(3);
const QUICK_REST: Duration = Duration::from_millis(500);

/// Opens whose CPU time is looked at, with and without the others.
const OPENS: usize = 3000;

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let wanted = if bench.quick { QUICK } else { CONNECTIONS };
    for kind in [Kind::RELAYS, Kind::gkd(Carrier::Plain, 4), Kind::gkd(Carrier::Tls, 4)] {
        // A relay has both sockets of a connection, and so has either end of a tunnel no more than one.
        let sockets = if kind == Kind::RELAYS { 2 } else { 1 };
        let count = bench.within_descriptors(wanted, sockets, OTHER_DESCRIPTORS, report);
        for chain in bench.chains(&[kind])? {
            bench.say(format_args!("idle: {count} connections, {}", chain.kind));
            measure(bench, &chain, count, report).with_context(|| chain.kind.to_string())?;
        }
    }
    Ok(())
}

fn measure(bench: &Bench, chain: &Chain, count: usize, report: &mut Report) -> Result<()> {
    let rest = if bench.quick { QUICK_REST } else { REST };
    // What the first connections leave behind for good is not counted into the others.
    load::open_many(chain.entry.threads, OPENS / 10, 8)?;
    thread::sleep(rest);
    let before: Vec<_> = chain.processes.iter().map(Process::memory).collect::<Result<_>>()?;
    let kernel_before = kernel()?;
    let alone = cost_of_an_open(bench, chain)?;
    let open = open(chain, count)?;
    thread::sleep(rest);
    let after: Vec<_> = chain.processes.iter().map(Process::memory).collect::<Result<_>>()?;
    let kernel_after = kernel()?;
    let beside = cost_of_an_open(bench, chain)?;
    drop(open);

    let each =
        |before: u64, after: u64| Spread::of([after.saturating_sub(before) as f64 / 1024.0 / count as f64]);
    let ends =
        if chain.kind == Kind::RELAYS { ["first relay", "second relay"] } else { ["client", "server"] };
    for ((end, before), after) in ends.iter().zip(&before).zip(&after) {
        let reach = Some(Reach::AtMost(2.0)).filter(|_| chain.kind != Kind::RELAYS);
        let name = format!("memory of an idle connection: {}, {end}", chain.kind);
        report.rows.push(Row::new(name, "KiB", each(*before, *after)).reach(reach));
    }
    for (what, before, after) in [
        ("kernel's slabs", kernel_before.slabs, kernel_after.slabs),
        ("socket buffers", kernel_before.buffers, kernel_after.buffers),
    ] {
        let name = format!("{what} of an idle connection, all sockets of it: {}", chain.kind);
        report.rows.push(Row::new(name, "KiB", each(before, after)));
    }
    let name = format!("CPU of an open beside {count} connections: {}", chain.kind);
    let row = Row::new(name, "µs", Spread::of([beside]));
    report.rows.push(row.over("with none", Spread::of([beside / alone])).reach(Some(Reach::AtMost(1.2))));
    Ok(())
}

/// CPU time of both ends, in microseconds.
fn cost_of_an_open(bench: &Bench, chain: &Chain) -> Result<f64> {
    let count = if bench.quick { OPENS / 10 } else { OPENS };
    let cpu = chain.cpu()?;
    load::open_many(chain.entry.threads, count, 1)?;
    Ok((chain.cpu()? - cpu).as_secs_f64() * 1e6 / count as f64)
}

/// Connections that are there from end to end.
fn open(chain: &Chain, count: usize) -> Result<Vec<TcpStream>> {
    let mut open = Vec::with_capacity(count);
    for _ in 0..count {
        let stream = load::open(chain.entry.tasks)?;
        load::transfer(&stream, Transfer::NOTHING)?;
        open.push(stream);
    }
    Ok(open)
}

/// What the kernel holds, in bytes, for everything.
struct Kernel {
    slabs: u64,
    buffers: u64,
}

fn kernel() -> Result<Kernel> {
    let slabs = kib(&std::fs::read_to_string("/proc/meminfo")?, "Slab:")? * 1024;
    let sockets = std::fs::read_to_string("/proc/net/sockstat")?;
    let tcp = sockets.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let pages: u64 = tcp.rsplit(' ').next().and_then(|pages| pages.parse().ok()).unwrap_or(0);
    Ok(Kernel { slabs, buffers: pages * rustix::param::page_size() as u64 })
}
