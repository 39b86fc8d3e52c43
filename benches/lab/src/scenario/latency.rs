//! A small message while bulk fills the line.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Lab, Scenario};
use crate::line::Rate;
use crate::measure::{Measured, Sample};
use crate::net::{Net, PathSpec};
use crate::report::{Chart, Series, Target};
use crate::subject::{Running, Subject};
use crate::traffic::{Echo, Latencies, Load, TcpEcho, UdpEcho};

pub(super) const LATENCY: Scenario = Scenario {
    name: "latency",
    about: "echo beside a bulk download that fills 100 Mbit/s, 50 ms with a 25 ms queue: over a bare UDP echo beside it",
    run: latency,
};

const SKIP: f64 = 3.0;
const TUNNELS: usize = 4;

/// A hundred messages a second: the 99th percentile of 10 s is the tenth worst.
const EVERY: Duration = Duration::from_millis(10);

/// What p99 may be over that of the bare echo, with each congestion control.
const MOST: [(&str, f64); 2] = [("bbr", 1.2), ("cubic", 1.3)];

/// Echoes of all runs.
#[derive(Default)]
struct Echoes {
    ours: Latencies,
    bare: Latencies,
}

fn latency(lab: &mut Lab) -> Result<()> {
    let specs = [PathSpec::new(Rate::mbit(100), 50, 25)];
    lab.check(&specs)?;
    let subjects = lab.chosen(vec![Subject::Gkd(lab.gkd(TUNNELS)), Subject::Raw { connections: 1 }]);
    let mut series = Vec::new();
    for (congestion, most) in MOST {
        for subject in &subjects {
            let mut all = Echoes::default();
            let name = format!("{congestion}: {}", subject.name());
            let mut figures = ["p50", "p99"].map(|which| [Measured::new(which), Measured::new("bare UDP")]);
            for run in 0..lab.options.runs {
                let (echoes, sample) =
                    lab.once(run, &specs, subject, congestion, |net, running| one(lab, net, running))?;
                for (percent, [ours, bare]) in [50, 99].into_iter().zip(&mut figures) {
                    ours.samples.push(in_ms(&echoes.ours, percent, &sample));
                    bare.samples.push(in_ms(&echoes.bare, percent, &sample));
                }
                all.ours.0.extend(echoes.ours.0);
                all.bare.0.extend(echoes.bare.0);
                eprintln!("run {}: {name}: p99 {:.2?}", run + 1, all.ours.percentile(99));
            }
            for [ours, bare] in &figures {
                let row = lab.row(format!("{name}: echo {}", ours.name), "ms", ours);
                let row = row.over(format!("bare UDP ({:.1} ms)", bare.median()), bare.median());
                let judged = matches!(subject, Subject::Gkd(_)) && ours.name == "p99";
                lab.report.add(if judged { row.target(Target::AtMost(most)) } else { row });
            }
            series.push(distribution(&name, &all.ours));
            // What datagrams meet beside the others is in the table.
            if matches!(subject, Subject::Gkd(_)) {
                series.push(distribution(&format!("{congestion}: UDP beside it"), &all.bare));
            }
        }
    }
    lab.report.chart(Chart {
        name: "latency",
        title: "Echo while a download fills 100 Mbit/s, 50 ms with a 25 ms queue".to_owned(),
        across: "ms there and back",
        up: "% that were no slower",
        series,
        marks: false,
    });
    Ok(())
}

fn one(lab: &Lab, net: &Net, running: &Running) -> Result<(Echoes, Sample)> {
    let load = Load::start(net, &running.dials, lab.options.direction(), &running.destination)?;
    let ours = TcpEcho::start(net, &running.dials[0], EVERY)?;
    let bare = UdpEcho::start(net, EVERY)?;
    thread::sleep(lab.window(SKIP).skip);
    ours.take();
    bare.take();
    let sample = crate::measure::goodput_of(net, running, &load, lab.options.time())?;
    let echoes = Echoes { ours: ours.take(), bare: bare.take() };
    ensure!(!echoes.ours.0.is_empty() && !echoes.bare.0.is_empty(), "no echo came back");
    Ok((echoes, sample))
}

fn in_ms(latencies: &Latencies, percent: usize, sample: &Sample) -> Sample {
    Sample { value: latencies.percentile(percent).as_secs_f64() * 1e3, ..sample.clone() }
}

/// Which share was no slower, a point for each percent.
fn distribution(name: &str, latencies: &Latencies) -> Series {
    let point = |percent: usize| (latencies.percentile(percent).as_secs_f64() * 1e3, percent as f64);
    Series { name: name.to_owned(), points: (1..=99).map(point).collect() }
}
