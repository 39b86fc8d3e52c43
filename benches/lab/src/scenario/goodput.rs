//! One connection against one and N TCP connections: with loss, and with a cap for each connection.

use anyhow::Result;

use super::{Lab, Scenario};
use crate::line::{Loss, Queue, Rate};
use crate::measure::{Measured, Window};
use crate::net::PathSpec;
use crate::report::Target;
use crate::subject::{Gkd, Subject};

pub(super) const LOSSY: Scenario = Scenario {
    name: "lossy",
    about: "200 Mbit/s, 100 ms, 50 ms queue, 0.5 and 1% random loss, CUBIC: over one TCP connection",
    run: lossy,
};

pub(super) const BBR: Scenario = Scenario {
    name: "bbr",
    about: "200 Mbit/s, 100 ms, 50 ms queue, 0.5% random loss, BBR: share of the line",
    run: bbr,
};

pub(super) const CAP: Scenario = Scenario {
    name: "cap",
    about: "each connection held to 10 Mbit/s, on 200 Mbit/s and 50 ms: over one TCP connection",
    run: cap,
};

pub(super) const AUTO: Scenario = Scenario {
    name: "auto",
    about: "the same for a minute, -n auto, of which the last seconds count: over the line's rate",
    run: auto,
};

pub(super) const BURSTS: Scenario = Scenario {
    name: "bursts",
    about: "200 Mbit/s, 100 ms, 50 ms queue, 0.5% loss in bursts of 4, CUBIC: over one TCP connection",
    run: bursts,
};

/// Tunnels, and TCP connections beside them.
const MANY: usize = 8;

/// Until one TCP connection on such a line has its steady state.
const SKIP_LOSSY: f64 = 10.0;
const SKIP: f64 = 3.0;

/// Until it has found how many bring something.
const SKIP_AUTO: f64 = 60.0;

/// The line of the first scenarios.
pub(super) fn line() -> PathSpec {
    PathSpec::new(Rate::mbit(200), 100, 50)
}

fn lossy(lab: &mut Lab) -> Result<()> {
    let losses = if lab.options.loss.is_empty() { vec![0.5, 1.0] } else { lab.options.loss.clone() };
    for loss in losses {
        lossy_at(lab, Loss::percent(loss), &format!("{loss}% loss"))?;
    }
    Ok(())
}

fn bursts(lab: &mut Lab) -> Result<()> {
    lossy_at(lab, Loss::Bursts { share: 0.005, length: 4.0 }, "0.5% loss in bursts of 4")
}

fn lossy_at(lab: &mut Lab, loss: Loss, words: &str) -> Result<()> {
    let many = lab.options.tunnels.unwrap_or(MANY);
    let specs = [line().with_loss(loss)];
    lab.check(&specs)?;
    let subjects = beside(lab, many);
    let congestion = lab.options.congestion.clone();
    let all = lab.goodputs(&specs, &subjects, &congestion, lab.window(SKIP_LOSSY))?;
    // Of N tunnels' worth a twentieth may be missing.
    report(lab, words, &subjects, &all, Target::AtLeast(0.95 * many as f64));
    Ok(())
}

/// A line that holds each connection to 10 Mbit/s.
fn capped() -> PathSpec {
    // 100 ms at that rate, so that a flow fills it whatever its congestion control.
    let queue = Queue::Bytes(125_000);
    PathSpec::new(Rate::mbit(200), 50, 50).with_cap(Rate::mbit(10), queue)
}

/// Twenty tunnels would fill the line.
fn auto(lab: &mut Lab) -> Result<()> {
    let specs = [capped()];
    lab.check(&specs)?;
    let begins = Gkd { auto: true, tunnels: 4, ..lab.gkd(4) };
    let subjects = lab.chosen(vec![Subject::Raw { connections: 20 }, Subject::Gkd(begins)]);
    let congestion = lab.options.congestion.clone();
    let rate = specs[0].down.rate.as_mbit();
    for measured in lab.goodputs(&specs, &subjects, &congestion, lab.window(SKIP_AUTO))? {
        let row = lab.row(measured.name.clone(), "Mbit/s", &measured).over("the line's rate", rate);
        lab.report.add(row);
    }
    Ok(())
}

fn cap(lab: &mut Lab) -> Result<()> {
    let many = lab.options.tunnels.unwrap_or(MANY);
    let specs = [capped()];
    lab.check(&specs)?;
    let subjects = beside(lab, many);
    let congestion = lab.options.congestion.clone();
    let all = lab.goodputs(&specs, &subjects, &congestion, lab.window(SKIP))?;
    report(lab, "cap of 10 Mbit/s", &subjects, &all, Target::AtLeast(0.97 * many as f64));
    Ok(())
}

/// gkd with N tunnels, and all that it is compared with.
fn beside(lab: &mut Lab, many: usize) -> Vec<Subject> {
    let mut subjects = vec![
        Subject::Raw { connections: 1 },
        Subject::Gkd(lab.gkd(many)),
        Subject::Raw { connections: many },
    ];
    subjects.extend(lab.mptcp(many - 1));
    subjects.extend(lab.rivals());
    lab.chosen(subjects)
}

/// A row each, as a ratio over the first, which is one TCP connection unless it was not asked for.
fn report(lab: &mut Lab, words: &str, subjects: &[Subject], all: &[Measured], target: Target) {
    let Some(one) = all.first() else { return };
    for (subject, measured) in subjects.iter().zip(all) {
        let mut row = lab.row(format!("{words}: {}", measured.name), "Mbit/s", measured);
        if !std::ptr::eq(one, measured) {
            row = row.over(one.name.clone(), one.median());
        }
        if matches!(subject, Subject::Gkd(_)) {
            row = row.target(target);
        }
        lab.report.add(row);
    }
}

fn bbr(lab: &mut Lab) -> Result<()> {
    const LEAST: f64 = 0.90;
    let specs = [line().with_loss(Loss::percent(*lab.options.loss.first().unwrap_or(&0.5)))];
    lab.check(&specs)?;
    let tunnels = lab.options.tunnels.unwrap_or(MANY);
    let subjects = lab.chosen(vec![
        Subject::Raw { connections: 1 },
        Subject::Raw { connections: tunnels },
        Subject::Gkd(lab.gkd(tunnels)),
    ]);
    let window: Window = lab.window(SKIP_LOSSY);
    let rate = specs[0].down.rate.as_mbit();
    for measured in lab.goodputs(&specs, &subjects, "bbr", window)? {
        let row = lab.row(measured.name.clone(), "Mbit/s", &measured).over("the line's rate", rate);
        let is_gkd = measured.name.starts_with("gkd");
        lab.report.add(if is_gkd { row.target(Target::AtLeast(LEAST)) } else { row });
    }
    Ok(())
}
