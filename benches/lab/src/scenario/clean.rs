//! Lines without loss: a fast long one, and one that a single TCP connection fills as well.

use std::time::Duration;

use anyhow::Result;

use super::{Lab, Scenario};
use crate::line::Rate;
use crate::measure::Window;
use crate::net::PathSpec;
use crate::report::Target;
use crate::subject::Subject;

pub(super) const LONG_FAT: Scenario = Scenario {
    name: "long-fat",
    about: "the fastest line up to 1 Gbit/s that the lab carries, 100 ms: from the start, over N TCP connections",
    run: long_fat,
};

pub(super) const NO_HARM: Scenario = Scenario {
    name: "no-harm",
    about: "100 Mbit/s, 50 ms: a download from its start, over one direct TCP connection",
    run: no_harm,
};

/// What is tried, in Mbit/s.
const RATES: [u64; 5] = [1000, 800, 600, 400, 200];

/// From the start.
fn window(lab: &Lab) -> Window {
    Window { skip: Duration::ZERO, time: lab.options.time() }
}

fn long_fat(lab: &mut Lab) -> Result<()> {
    let many = lab.options.tunnels.unwrap_or(8);
    let spec = lab.fastest(&RATES, |rate| PathSpec::new(rate, 100, 50))?;
    let subjects =
        [Subject::Raw { connections: many }, Subject::Gkd(lab.gkd(many)), Subject::Raw { connections: 1 }];
    let congestion = lab.options.congestion.clone();
    let mbit = spec.down.rate.as_mbit();
    let all = lab.goodputs(&[spec], &subjects, &congestion, window(lab))?;
    for (subject, measured) in subjects.iter().zip(&all) {
        let row = lab.row(format!("{mbit} Mbit/s: {}", measured.name), "Mbit/s", measured);
        lab.report.add(match subject {
            Subject::Gkd(_) => row.over(all[0].name.clone(), all[0].median()).target(Target::AtLeast(0.95)),
            _ => row,
        });
    }
    Ok(())
}

fn no_harm(lab: &mut Lab) -> Result<()> {
    let specs = [PathSpec::new(Rate::mbit(100), 50, 50)];
    lab.check(&specs)?;
    let subjects = [Subject::Raw { connections: 1 }, Subject::Gkd(lab.gkd(4))];
    let congestion = lab.options.congestion.clone();
    let all = lab.goodputs(&specs, &subjects, &congestion, window(lab))?;
    lab.report.add(lab.row(all[0].name.clone(), "Mbit/s", &all[0]));
    let row = lab.row(all[1].name.clone(), "Mbit/s", &all[1]).over(all[0].name.clone(), all[0].median());
    lab.report.add(row.target(Target::AtLeast(0.97)));
    Ok(())
}
