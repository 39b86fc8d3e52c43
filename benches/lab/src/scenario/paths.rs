//! Two unlike paths: both at once, and one that dies.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Lab, Scenario};
use crate::line::Rate;
use crate::measure::{Measured, Sample, goodput_of};
use crate::net::{Net, PathSpec};
use crate::report::Target;
use crate::subject::{Gkd, Running, Subject};
use crate::traffic::Load;

pub(super) const TWO_PATHS: Scenario = Scenario {
    name: "two-paths",
    about: "50 Mbit/s at 20 ms and 20 Mbit/s at 80 ms, 50 ms queue: share of the sum, and over the better alone",
    run: two_paths,
};

pub(super) const DEATH: Scenario = Scenario {
    name: "death",
    about: "the same two paths; the better goes dark in a transfer, and comes back after a time",
    run: death,
};

const SKIP: f64 = 3.0;

/// Tunnels per path: what a client has by default.
const TUNNELS: usize = 4;

/// How long after it the path is back: beyond the time after which a silent tunnel is given up.
const DARK: Duration = Duration::from_secs(25);

/// How long after that goodput is looked at again: dials that failed are tried again after some seconds.
const SETTLE: Duration = Duration::from_secs(10);

fn paths() -> [PathSpec; 2] {
    [PathSpec::new(Rate::mbit(50), 20, 50), PathSpec::new(Rate::mbit(20), 80, 50)]
}

fn sum() -> f64 {
    paths().iter().map(|path| path.down.rate.as_mbit()).sum()
}

fn two_paths(lab: &mut Lab) -> Result<()> {
    lab.check(&paths())?;
    let gkd = lab.gkd(TUNNELS);
    let mut subjects = vec![
        Subject::Gkd(Gkd { paths: 2, ..gkd.clone() }),
        Subject::Gkd(gkd),
        Subject::Raw { connections: 1 },
    ];
    subjects.extend(lab.mptcp(1));
    let subjects = lab.chosen(subjects);
    let congestion = lab.options.congestion.clone();
    let all = lab.goodputs(&paths(), &subjects, &congestion, lab.window(SKIP))?;
    for (subject, measured) in subjects.iter().zip(&all) {
        let row = lab.row(measured.name.clone(), "Mbit/s", measured).over("the sum of rates", sum());
        let is_gkd_on_both = matches!(subject, Subject::Gkd(Gkd { paths: 2, .. }));
        lab.report.add(if is_gkd_on_both { row.target(Target::AtLeast(0.93)) } else { row });
    }
    if let ([both, alone, ..], [Subject::Gkd(_), Subject::Gkd(_), ..]) = (&all[..], &subjects[..]) {
        let row = lab.row(both.name.clone(), "Mbit/s", both).over("the better path alone", alone.median());
        lab.report.add(row.target(Target::AtLeast(1.0)));
    }
    Ok(())
}

/// What is found in each run: goodput before, while it is dark and after, and the stall.
fn death(lab: &mut Lab) -> Result<()> {
    lab.check(&paths())?;
    let mut subjects = vec![Subject::Gkd(Gkd { paths: 2, ..lab.gkd(TUNNELS) })];
    subjects.extend(lab.mptcp(1));
    let congestion = lab.options.congestion.clone();
    for subject in lab.chosen(subjects) {
        let names = ["before", "while it is dark", "when it is back"];
        let mut all = names.map(Measured::new);
        let mut stall = Measured::new("stall");
        for run in 0..lab.options.runs {
            let samples =
                lab.once(run, &paths(), &subject, &congestion, |net, running| one_death(lab, net, running))?;
            eprintln!("run {}: {}: stall {:.2} s", run + 1, subject.name(), samples[3].value);
            for (measured, sample) in all.iter_mut().chain([&mut stall]).zip(samples) {
                measured.samples.push(sample);
            }
        }
        for measured in &all {
            let row = lab.row(format!("{}: {}", subject.name(), measured.name), "Mbit/s", measured);
            lab.report.add(row.over("the sum of rates", sum()));
        }
        lab.report.add(lab.row(format!("{}: longest stall at the receiver", subject.name()), "s", &stall));
    }
    Ok(())
}

fn one_death(lab: &Lab, net: &Net, running: &Running) -> Result<[Sample; 4]> {
    let load = Load::start(net, &running.dials, lab.options.direction(), &running.destination)?;
    let time = lab.options.time();
    thread::sleep(lab.window(SKIP).skip);
    let before = goodput_of(net, running, &load, time)?;
    load.meter().reset_stall();
    net.set_dark(0, true);
    // The whole of it, its stall included.
    let dark = goodput_of(net, running, &load, DARK)?;
    let stall = Sample { value: load.meter().stall().as_secs_f64(), ..dark.clone() };
    net.set_dark(0, false);
    thread::sleep(SETTLE);
    let after = goodput_of(net, running, &load, time)?;
    ensure!(load.running() == 1, "the connection did not survive the path");
    Ok([before, dark, after, stall])
}
