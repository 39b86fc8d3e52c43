//! What is short: the opening of a connection, and a page of small objects.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Lab, Scenario};
use crate::line::{Loss, Rate};
use crate::measure::{Measured, Sample, median};
use crate::net::{Net, PathSpec};
use crate::report::Target;
use crate::subject::{Running, Subject};
use crate::traffic::{Echo, Page, UdpEcho, first_byte};

pub(super) const OPEN: Scenario = Scenario {
    name: "open",
    about: "100 ms: from the opening of a connection to its first byte, on warm tunnels, over the round trip",
    run: open,
};

pub(super) const PAGE: Scenario = Scenario {
    name: "page",
    about: "100 objects of 20 KB over 6 connections, 100 Mbit/s, 100 ms, 0 and 1% loss: time over direct TCP",
    run: page,
};

const TUNNELS: usize = 4;
const MORE_TUNNELS: usize = 8;

/// The congestion control that both programs use by themselves.
const AUTO: &str = "auto";

/// Connections that are opened in a run, one after the other.
const OPENS: usize = 30;

/// Echoes that tell the round trip.
const EVERY: Duration = Duration::from_millis(20);

/// Pages that are fetched in a run after the first, which warms what there is to warm.
const PAGES: usize = 5;

const OF: Page = Page { objects: 100, bytes: 20_000, connections: 6 };

fn open(lab: &mut Lab) -> Result<()> {
    let specs = [PathSpec::new(Rate::mbit(100), 100, 50)];
    lab.check(&specs)?;
    let congestion = lab.options.congestion.clone();
    let subjects =
        [Subject::Gkd(lab.gkd(TUNNELS)), Subject::Raw { connections: 1 }].map(|each| (each, &*congestion));
    let all = lab.interleave(&specs, &subjects, |net, running| {
        let echo = UdpEcho::start(net, EVERY)?;
        net.reset_figures();
        let times: Result<Vec<f64>> =
            (0..OPENS).map(|_| Ok(first_byte(net, &running.dials[0])?.as_secs_f64())).collect();
        let round_trip = echo.take().percentile(50).as_secs_f64();
        Ok(Sample { value: median(&times?) / round_trip, cpu: None, line: net.figures()? })
    })?;
    for ((subject, _), measured) in subjects.iter().zip(&all) {
        let row = lab.row(format!("{}: open to first byte", measured.name), "round trips", measured);
        let is_gkd = matches!(subject, Subject::Gkd(_));
        lab.report.add(if is_gkd { row.target(Target::AtMost(1.05)) } else { row });
    }
    Ok(())
}

fn page(lab: &mut Lab) -> Result<()> {
    let losses = if lab.options.loss.is_empty() { vec![0.0, 1.0] } else { lab.options.loss.clone() };
    for loss in losses {
        let specs = [PathSpec::new(Rate::mbit(100), 100, 50).with_loss(Loss::percent(loss))];
        lab.check(&specs)?;
        let congestion = lab.options.congestion.clone();
        // As many tunnels as usual and more, and as it comes: what `auto` chooses, while all else uses what it uses.
        let subjects = [
            (Subject::Raw { connections: 1 }, &*congestion),
            (Subject::Gkd(lab.gkd(TUNNELS)), &*congestion),
            (Subject::Gkd(lab.gkd(MORE_TUNNELS)), &*congestion),
            (Subject::Gkd(lab.gkd(TUNNELS)), AUTO),
        ];
        let all: Vec<Measured> = lab.interleave(&specs, &subjects, pages)?;
        let [direct, gkd @ ..] = &all[..] else { continue };
        lab.report.add(lab.row(format!("{loss}% loss: direct TCP"), "s", direct));
        for ((_, congestion), gkd) in subjects[1..].iter().zip(gkd) {
            let congestion = if *congestion == AUTO { ", --congestion auto" } else { "" };
            let row = lab.row(format!("{loss}% loss: {}{congestion}", gkd.name), "s", gkd);
            lab.report.add(row.over("direct TCP", direct.median()).target(Target::AtMost(0.8)));
        }
    }
    Ok(())
}

fn pages(net: &Net, running: &Running) -> Result<Sample> {
    let dial = &running.dials[0];
    OF.fetch(net, dial).context("the first page")?;
    net.reset_figures();
    let mut times = Vec::new();
    for _ in 0..PAGES {
        // A reader reads.
        thread::sleep(Duration::from_millis(500));
        times.push(OF.fetch(net, dial)?.as_secs_f64());
    }
    Ok(Sample { value: median(&times), cpu: None, line: net.figures()? })
}
