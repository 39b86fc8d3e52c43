//! Goodput against the number of tunnels, loss and round trip, for charts.

use anyhow::Result;

use super::{Lab, Scenario};
use crate::line::{Loss, Rate};
use crate::measure::Window;
use crate::net::PathSpec;
use crate::report::{Chart, Series};
use crate::subject::{Gkd, Subject};

pub(super) const MATRIX: Scenario = Scenario {
    name: "matrix",
    about: "200 Mbit/s, CUBIC: goodput against N, against loss and against the round trip (one run each by --runs 1)",
    run: matrix,
};

const SKIP: f64 = 5.0;
const MANY: usize = 8;
const COUNTS: [usize; 5] = [1, 2, 4, 8, 16];
const LOSSES: [f64; 5] = [0.0, 0.1, 0.5, 1.0, 2.0];
const ROUND_TRIPS: [u64; 4] = [10, 50, 100, 200];

fn spec(round_trip_ms: u64, loss: f64) -> PathSpec {
    PathSpec::new(Rate::mbit(200), round_trip_ms, 50).with_loss(Loss::percent(loss))
}

fn matrix(lab: &mut Lab) -> Result<()> {
    let loss = *lab.options.loss.first().unwrap_or(&0.5);
    let many = |lab: &Lab| {
        vec![Subject::Raw { connections: 1 }, Subject::Raw { connections: MANY }, Subject::Gkd(lab.gkd(MANY))]
    };
    let by_count = COUNTS.map(|count| {
        let gkd = Gkd { tunnels: count, ..lab.gkd(count) };
        (count as f64, spec(100, loss), vec![Subject::Raw { connections: count }, Subject::Gkd(gkd)])
    });
    sweep(lab, "N", &by_count, "goodput-n", format!("Goodput: 200 Mbit/s, 100 ms, {loss}% loss, CUBIC"))?;
    let by_loss = LOSSES.map(|loss| (loss, spec(100, loss), many(lab)));
    sweep(lab, "loss in %", &by_loss, "goodput-loss", "Goodput: 200 Mbit/s, 100 ms, CUBIC".to_owned())?;
    let by_round_trip = ROUND_TRIPS.map(|ms| (ms as f64, spec(ms, loss), many(lab)));
    let title = format!("Goodput: 200 Mbit/s, {loss}% loss, CUBIC");
    sweep(lab, "round trip in ms", &by_round_trip, "goodput-round-trip", title)
}

/// One chart: at each place, the same subjects in the same order.
fn sweep(
    lab: &mut Lab,
    across: &'static str,
    places: &[(f64, PathSpec, Vec<Subject>)],
    name: &'static str,
    title: String,
) -> Result<()> {
    let mut series: Vec<Series> = Vec::new();
    let window: Window = lab.window(SKIP);
    let congestion = lab.options.congestion.clone();
    for (place, spec, subjects) in places {
        lab.check(std::slice::from_ref(spec))?;
        let all = lab.goodputs(std::slice::from_ref(spec), subjects, &congestion, window)?;
        for (index, measured) in all.iter().enumerate() {
            lab.report.add(lab.row(format!("{across} {place}: {}", measured.name), "Mbit/s", measured));
            if series.len() <= index {
                // Where N is the axis, the name of the first tells N = 1.
                let name = match (&subjects[index], across) {
                    (Subject::Raw { .. }, "N") => "N TCP connections".to_owned(),
                    (Subject::Gkd(_), "N") => "gkd, N tunnels".to_owned(),
                    _ => measured.name.clone(),
                };
                series.push(Series { name, points: Vec::new() });
            }
            series[index].points.push((*place, measured.median()));
        }
    }
    lab.report.chart(Chart { name, title, across, up: "Mbit/s", series, marks: true });
    Ok(())
}
