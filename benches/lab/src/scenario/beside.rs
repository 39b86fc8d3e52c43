//! A stranger's download beside the subject's: what each gets of a line that both fill.

use std::sync::Arc;

use anyhow::{Result, ensure};

use super::{Lab, Scenario};
use crate::line::Rate;
use crate::measure::{Measured, Sample, Window, goodput_of};
use crate::net::{self, Net, PathSpec};
use crate::subject::{Running, Subject};
use crate::traffic::{Destination, Dial, Direction, Kind, Load};

pub(super) const BESIDE: Scenario = Scenario {
    name: "beside",
    about: "100 Mbit/s, 50 ms, 50 ms queue: a stranger's download by one TCP connection beside it, and what each gets",
    run: beside,
};

const SKIP: f64 = 5.0;
const TUNNELS: usize = 4;

/// The stranger's destination.
const PORT: u16 = 9002;

fn beside(lab: &mut Lab) -> Result<()> {
    let specs = [PathSpec::new(Rate::mbit(100), 50, 50)];
    lab.check(&specs)?;
    let congestion = lab.options.congestion.clone();
    let window = lab.window(SKIP);
    let subjects = lab.chosen(vec![Subject::Gkd(lab.gkd(TUNNELS)), Subject::Raw { connections: TUNNELS }]);
    for subject in &subjects {
        let name = subject.name();
        let mut both = [Measured::new(name.clone()), Measured::new(format!("the stranger beside {name}"))];
        for run in 0..lab.options.runs {
            let samples = lab.once(run, &specs, subject, &congestion, |net, running| {
                one(net, running, &congestion, window)
            })?;
            for (measured, sample) in both.iter_mut().zip(samples) {
                eprintln!("run {}: {}: {:.2}", run + 1, measured.name, sample.value);
                measured.samples.push(sample);
            }
        }
        let sum = both[0].median() + both[1].median();
        for measured in &both {
            lab.report.add(lab.row(measured.name.clone(), "Mbit/s", measured).over("both", sum));
        }
    }
    Ok(())
}

fn one(net: &Net, running: &Running, congestion: &str, window: Window) -> Result<[Sample; 2]> {
    let destination = Destination::start(&net.server, PORT, Kind::Tcp, Some(congestion))?;
    let dial = Dial { congestion: Some(Arc::from(congestion)), ..Dial::to(net::server(PORT)) };
    let stranger = Load::start(net, &[dial], Direction::Download, &destination)?;
    let load = Load::start(net, &running.dials, Direction::Download, &running.destination)?;
    std::thread::sleep(window.skip);
    let before = stranger.meter().bytes();
    let sample = goodput_of(net, running, &load, window.time)?;
    let bytes = stranger.meter().bytes() - before;
    ensure!(stranger.meter().wrong() == 0 && stranger.running() == 1, "the stranger's download ended");
    let beside = Sample { value: crate::measure::mbit(bytes, window.time), cpu: None, ..sample.clone() };
    Ok([sample, beside])
}
