//! The same bytes over one connection, a hundred, and ten thousand: CPU time of both ends for each GB.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use gkd_load::content::Way;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::Bench;
use crate::chain::{Carrier, Chain, Kind};
use crate::figures::{Reach, Report, Samples};
use crate::request::{Half, Transfer, VERDICT};
use crate::sink::{read_in_task, write_in_task};

/// How many connections.
const COUNTS: [usize; 3] = [1, 100, 10_000];
const QUICK_COUNTS: [usize; 3] = [1, 100, 1000];

/// Bytes over all of them together, in each direction.
const BYTES: u64 = 1_000_000_000;
const QUICK: u64 = 128 * 1024 * 1024;

/// Descriptors of a process that are not those connections.
const OTHER_DESCRIPTORS: usize = 400;

const GB: f64 = 1e9;

pub(crate) fn run(bench: &Bench, report: &mut Report) -> Result<()> {
    let mut counts = if bench.quick { QUICK_COUNTS } else { COUNTS };
    for count in &mut counts {
        *count = bench.within_descriptors(*count, 2, OTHER_DESCRIPTORS, report);
    }
    let bytes = bench.bytes.unwrap_or(if bench.quick { QUICK } else { BYTES });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut samples = Samples::default();
    let chains = bench.chains(&[Kind::RELAYS, Kind::gkd(Carrier::Plain, 4), Kind::gkd(Carrier::Tls, 4)])?;
    for round in 1..=bench.rounds {
        bench.say(format_args!("many: round {round} of {}", bench.rounds));
        for chain in &chains {
            for count in counts {
                let cpu =
                    runtime.block_on(measure(chain, count, bytes)).with_context(|| chain.kind.to_string())?;
                samples.add("CPU of both ends", label(chain, count), cpu);
            }
        }
    }
    for chain in &chains {
        let one = label(chain, 1);
        for count in counts {
            let over = Some(one.as_str()).filter(|_| count > 1);
            let reach = over.map(|_| Reach::AtMost(1.2)).filter(|_| chain.kind != Kind::RELAYS);
            report.rows.push(samples.row(("CPU of both ends", "s/GB"), label(chain, count), over, reach));
        }
    }
    Ok(())
}

fn label(chain: &Chain, count: usize) -> String {
    format!("{}, {count} connection{}", chain.kind, if count == 1 { "" } else { "s" })
}

/// CPU seconds for each GB.
async fn measure(chain: &Chain, count: usize, bytes: u64) -> Result<f64> {
    // All are open before the first byte moves, and all have moved before the first is closed.
    let (begin, end) = (Arc::new(Barrier::new(count + 1)), Arc::new(Barrier::new(count + 1)));
    let share = bytes / count as u64;
    let mut tasks = JoinSet::new();
    for _ in 0..count {
        let stream = TcpStream::connect(chain.entry.tasks).await?;
        tasks.spawn(one(stream, share, begin.clone(), end.clone()));
    }
    meet(&begin, &mut tasks).await?;
    let cpu = chain.cpu()?;
    meet(&end, &mut tasks).await?;
    let cpu = chain.cpu()? - cpu;
    while let Some(task) = tasks.join_next().await {
        task??;
    }
    let moved = 2 * share * count as u64;
    Ok(cpu.as_secs_f64() * GB / moved as f64)
}

/// Waits for all of them at a barrier, to which one that fails never comes.
async fn meet(barrier: &Barrier, tasks: &mut JoinSet<Result<()>>) -> Result<()> {
    tokio::select! {
            biased;
            _ = barrier.wait() => Ok(()),
    // One that ended well was at the barrier: it was the last to come there, a moment ago.
            Some(ended) = tasks.join_next() => ended?,
        }
}

/// One connection: both directions at the same time.
async fn one(mut stream: TcpStream, share: u64, begin: Arc<Barrier>, end: Arc<Barrier>) -> Result<()> {
    stream.set_nodelay(true)?;
    transfer(&mut stream, Transfer::NOTHING).await?;
    begin.wait().await;
    transfer(&mut stream, Transfer { up: share, down: share, check: false }).await?;
    end.wait().await;
    Ok(())
}

async fn transfer(stream: &mut TcpStream, transfer: Transfer) -> Result<()> {
    let Transfer { up, down, check } = transfer;
    let (mut going, mut coming) = (Half::new(Way::Up, up, false), Half::new(Way::Down, down, check));
    stream.write_all(&transfer.encode()).await?;
    tokio::try_join!(write_in_task(stream, &mut going), read_in_task(stream, &mut coming))?;
    let mut verdict = [0; VERDICT];
    stream.read_exact(&mut verdict).await?;
    let wrong = coming.wrong + u64::from_be_bytes(verdict);
    ensure!(wrong == 0, "{wrong} bytes were wrong");
    Ok(())
}
