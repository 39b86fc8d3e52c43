//! A reader that is stuck, and connections beside it.

use anyhow::Result;

use super::{Lab, Scenario};
use crate::line::Rate;
use crate::measure::{Measured, Window, goodput_of};
use crate::net::{Net, PathSpec};
use crate::report::Target;
use crate::subject::{Running, Subject};
use crate::traffic::{Load, stuck_download};

pub(super) const STUCK: Scenario = Scenario {
    name: "stuck",
    about: "100 Mbit/s, 50 ms: four downloads while a fifth reads nothing, over without it",
    run: stuck,
};

const SKIP: f64 = 3.0;
const TUNNELS: usize = 4;

/// Connections that read.
const OTHERS: usize = 4;

fn stuck(lab: &mut Lab) -> Result<()> {
    let specs = [PathSpec::new(Rate::mbit(100), 50, 50)];
    lab.check(&specs)?;
    let subject = Subject::Gkd(lab.gkd(TUNNELS));
    let congestion = lab.options.congestion.clone();
    let window = lab.window(SKIP);
    let mut all = [Measured::new("without"), Measured::new("beside a stuck reader")];
    for run in 0..lab.options.runs {
        for (beside_stuck, measured) in all.iter_mut().enumerate() {
            let sample = lab.once(run, &specs, &subject, &congestion, |net, running| {
                one(lab, net, running, beside_stuck == 1, window)
            })?;
            eprintln!("run {}: {}: {:.2}", run + 1, measured.name, sample.value);
            measured.samples.push(sample);
        }
    }
    let [without, beside] = &all;
    lab.report.add(lab.row(format!("{}: without", subject.name()), "Mbit/s", without));
    let row = lab.row(format!("{}: beside a stuck reader", subject.name()), "Mbit/s", beside);
    lab.report.add(row.over("without", without.median()).target(Target::AtLeast(0.98)));
    Ok(())
}

fn one(
    lab: &Lab,
    net: &Net,
    running: &Running,
    beside_stuck: bool,
    window: Window,
) -> Result<crate::measure::Sample> {
    // It lives as long as the run.
    let _stuck = beside_stuck.then(|| stuck_download(net, &running.dials[0])).transpose()?;
    let dials = vec![running.dials[0].clone(); OTHERS];
    let load = Load::start(net, &dials, lab.options.direction(), &running.destination)?;
    std::thread::sleep(window.skip);
    goodput_of(net, running, &load, window.time)
}
