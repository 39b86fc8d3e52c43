//! What the tunnels cost, and one that is killed.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{Lab, Scenario};
use crate::line::{Loss, Rate};
use crate::measure::{Measured, Sample};
use crate::net::{self, Net, PathSpec};
use crate::report::Target;
use crate::subject::{Carrier, GKD_PORT, Gkd, Program, Running, Subject};
use crate::traffic::{Direction, Load, download};

pub(super) const WIRE: Scenario = Scenario {
    name: "wire",
    about: "100 Mbit/s, 20 ms, 0 and 0.5% loss: what a download of 64 MB puts into the tunnels' TCP, over its bytes",
    run: wire,
};

pub(super) const KILL: Scenario = Scenario {
    name: "kill",
    about: "100 Mbit/s, 50 ms: one of four tunnels is killed in a download (ss -K); the longest stall",
    run: kill,
};

const TUNNELS: usize = 4;
const SKIP: f64 = 3.0;
const BYTES: u64 = 64_000_000;

/// Until everything that a killed tunnel carried is there again, by far.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// What is found of one transfer.
struct Wire {
    /// TCP payload that was new to the kernel's receiver, over the transfer's bytes.
    first_time: Sample,
    /// Packets that the session sent again, of all.
    resent: Sample,
    /// TCP payload that kernels sent again, over the transfer's bytes.
    by_kernel: Sample,
}

fn wire(lab: &mut Lab) -> Result<()> {
    let losses = if lab.options.loss.is_empty() { vec![0.0, 0.5] } else { lab.options.loss.clone() };
    // BBR, for CUBIC takes minutes for that much with loss.
    let congestion = "bbr";
    for loss in losses {
        let specs = [PathSpec::new(Rate::mbit(100), 20, 50).with_loss(Loss::percent(loss))];
        lab.check(&specs)?;
        for carrier in [Carrier::Plain, Carrier::Tls] {
            let gkd = Gkd { carrier, ..lab.gkd(TUNNELS) };
            let subject = Subject::Gkd(gkd);
            let mut all = ["framing", "sent again by gkd", "sent again by the kernels"].map(Measured::new);
            for run in 0..lab.options.runs {
                let found = lab.once(run, &specs, &subject, congestion, one_wire)?;
                for (measured, sample) in
                    all.iter_mut().zip([found.first_time, found.resent, found.by_kernel])
                {
                    measured.samples.push(sample);
                }
            }
            let name = format!("{loss}% loss, {}", subject.name());
            let targets = match carrier {
                Carrier::Plain => [Some(0.3), Some(2.0), None],
                // The records of TLS are not gkd's framing.
                Carrier::Tls => [None, Some(2.0), None],
            };
            for (measured, target) in all.iter().zip(targets) {
                let row = lab.row(format!("{name}: {}", measured.name), "% of the bytes", measured);
                lab.report.add(match target {
                    Some(most) => row.target(Target::AtMost(most)),
                    None => row,
                });
            }
        }
    }
    Ok(())
}

fn one_wire(net: &Net, running: &Running) -> Result<Wire> {
    net.reset_figures();
    let before = net.counts(false);
    download(net, &running.dials[0], BYTES)?;
    let counts = net.counts(false);
    let first_time = counts.first_time - before.first_time;
    let payload = counts.payload - before.payload;
    let line = net.figures()?;
    let percent =
        |bytes: u64| Sample { value: 100.0 * bytes as f64 / BYTES as f64, cpu: None, line: line.clone() };
    let server = running.programs.last().context("gkd has no server")?;
    // A packet is a tunnel's share of a read, up to 16 KiB: what was sent again is told in packets, and counted as if
    // each were full.
    let resent = resent(server)?;
    Ok(Wire {
        first_time: percent(first_time - BYTES),
        resent: percent(resent * FULL_PACKET),
        by_kernel: percent(payload - first_time),
    })
}

/// The most that a Data packet carries by default.
const FULL_PACKET: u64 = 16 * 1024;

/// Packets that a server has sent again, as it logs upon USR1.
fn resent(server: &Program) -> Result<u64> {
    let pid = Pid::from_raw(server.pid().cast_signed()).context("the server has no process id")?;
    kill_process(pid, Signal::USR1)?;
    let told = |log: &str| -> Option<u64> {
        let (before, _) = log.rsplit_once(" packets resent")?;
        before.rsplit(' ').next()?.parse().ok()
    };
    for _ in 0..200 {
        if let Some(count) = told(&server.log()) {
            return Ok(count);
        }
        thread::sleep(Duration::from_millis(5));
    }
    anyhow::bail!("the server does not log its state upon USR1")
}

fn kill(lab: &mut Lab) -> Result<()> {
    let spec = PathSpec::new(Rate::mbit(100), 50, 50);
    let round_trip = spec.round_trip().as_secs_f64();
    let specs = [spec];
    lab.check(&specs)?;
    let subject = Subject::Gkd(lab.gkd(TUNNELS));
    for congestion in ["bbr", "cubic"] {
        let mut all = ["before", "after the kill"].map(Measured::new);
        for run in 0..lab.options.runs {
            let found =
                lab.once(run, &specs, &subject, congestion, |net, running| one_kill(lab, net, running))?;
            eprintln!("run {}: {congestion}: stall {:.1} ms", run + 1, found[1].value);
            for (measured, sample) in all.iter_mut().zip(found) {
                measured.samples.push(sample);
            }
        }
        let name = format!("{congestion}: {}", subject.name());
        let [before, after] = &all;
        lab.report.add(lab.row(format!("{name}: longest stall {}", before.name), "ms", before));
        let row = lab.row(format!("{name}: longest stall {}", after.name), "ms", after);
        lab.report.add(row.over("the round trip", round_trip * 1e3).target(Target::AtMost(2.0)));
    }
    lab.report
        .note(lab.name, "Bytes lost: none; a run in which a byte is wrong or a connection ends is an error.");
    Ok(())
}

/// The longest stall in as long before the kill as after it.
fn one_kill(lab: &Lab, net: &Net, running: &Running) -> Result<[Sample; 2]> {
    let load = Load::start(net, &running.dials, Direction::Download, &running.destination)?;
    thread::sleep(lab.window(SKIP).skip);
    let mut samples = Vec::new();
    for kills in [false, true] {
        load.meter().reset_stall();
        net.reset_figures();
        if kills {
            kill_one(net)?;
        }
        let bytes = load.meter().bytes();
        thread::sleep(AFTERWARDS);
        ensure!(load.meter().bytes() > bytes, "nothing arrives any more");
        let value = load.meter().stall().as_secs_f64() * 1e3;
        samples.push(Sample { value, cpu: None, line: net.figures()? });
    }
    ensure!(load.meter().wrong() == 0, "{} bytes that arrived are wrong", load.meter().wrong());
    ensure!(load.running() == 1, "the connection did not survive its tunnel");
    samples.try_into().map_err(|_| anyhow::anyhow!("two samples were to be taken"))
}

/// Destroys one tunnel's socket at the client, whose kernel resets the server's.
fn kill_one(net: &Net) -> Result<()> {
    let to = format!("dst {}", net::server(GKD_PORT));
    let listed = net.client.run("ss", &["-Htn", "state", "established", &to])?;
    let local = listed.lines().next().and_then(|line| line.split_whitespace().nth(2));
    let (_, port) = local.and_then(|address| address.rsplit_once(':')).context("no tunnel is up")?;
    net.client.run("ss", &["-Ktn", &format!("sport = :{port}")])?;
    let left =
        net.client.run("ss", &["-Htn", "state", "established", &to, "and", &format!("sport = :{port}")])?;
    ensure!(left.trim().is_empty(), "the kernel does not destroy sockets (CONFIG_INET_DIAG_DESTROY)");
    Ok(())
}
