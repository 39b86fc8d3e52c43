//! What a run has to tell: rows of a table, the same as JSON, and charts.

mod svg;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

pub(crate) use svg::{Chart, Series};

use crate::measure::{Measured, median};

/// Deliveries that are later than this make a row doubtful: some of a percent of the shortest round trips that are
/// emulated, and far less than a queue.
const DOUBTFUL: Duration = Duration::from_millis(3);

/// What a ratio, or a value that has none, is to be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
}

/// A line of the table.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    scenario: String,
    what: String,
    unit: &'static str,
    median: f64,
    values: Vec<f64>,
    ratio: Option<f64>,
    /// What the ratio is over.
    over: Option<String>,
    target: Option<Target>,
    /// Processor seconds per gigabyte, both ends.
    cpu: Option<f64>,
    /// The line: lateness of delivery (99th percentile, the worst run), processors it kept busy, packets it never saw.
    late_ms: f64,
    line_cpu: f64,
    device_drops: u64,
    command: String,
}

impl Row {
    pub(crate) fn new(
        scenario: &str,
        what: impl Into<String>,
        unit: &'static str,
        measured: &Measured,
    ) -> Self {
        let samples = &measured.samples;
        let cpu: Vec<f64> = samples.iter().filter_map(|sample| sample.cpu).collect();
        let late = samples.iter().map(|sample| sample.line.late).max().unwrap_or_default();
        Self {
            scenario: scenario.to_owned(),
            what: what.into(),
            unit,
            median: measured.median(),
            values: measured.values(),
            ratio: None,
            over: None,
            target: None,
            cpu: (!cpu.is_empty()).then(|| median(&cpu)),
            late_ms: late.as_secs_f64() * 1e3,
            line_cpu: median(&samples.iter().map(|sample| sample.line.cpu).collect::<Vec<_>>()),
            device_drops: samples.iter().map(|sample| sample.line.device_drops).sum(),
            command: String::new(),
        }
    }

    /// As a ratio over something.
    pub(crate) fn over(mut self, what: impl Into<String>, value: f64) -> Self {
        (self.ratio, self.over) = (Some(self.median / value), Some(what.into()));
        self
    }

    /// What the ratio is to be, or the value where there is none.
    pub(crate) fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    fn is_met(&self) -> Option<bool> {
        let value = self.ratio.unwrap_or(self.median);
        self.target.map(|target| match target {
            Target::AtLeast(least) => value >= least,
            Target::AtMost(most) => value <= most,
        })
    }

    fn is_doubtful(&self) -> bool {
        self.device_drops > 0 || self.late_ms > DOUBTFUL.as_secs_f64() * 1e3
    }

    /// Its cells, as in [`HEAD`].
    fn cells(&self) -> [String; 7] {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let spread = if self.values.len() > 1 {
            format!(" ({}-{})", short(least), short(most))
        } else {
            String::new()
        };
        let over = self.over.as_deref().unwrap_or_default();
        let target = self.target.map_or(String::new(), |target| match target {
            Target::AtLeast(least) => format!(">= {}", short(least)),
            Target::AtMost(most) => format!("<= {}", short(most)),
        });
        let met = match self.is_met() {
            None => "",
            Some(true) => " met",
            Some(false) => " MISSED",
        };
        let doubtful = if self.is_doubtful() { " LATE" } else { "" };
        [
            self.what.clone(),
            format!("{} {}{spread}", short(self.median), self.unit),
            self.ratio.map_or(String::new(), |ratio| format!("{ratio:.3} over {over}")),
            format!("{target}{met}"),
            self.cpu.map_or(String::new(), |cpu| format!("{cpu:.2}")),
            format!("{:.2} ms{doubtful}", self.late_ms),
            format!("{:.2}", self.line_cpu),
        ]
    }
}

const HEAD: [&str; 7] =
    ["what", "measured", "ratio", "target", "CPU s/GB, both ends", "line late, p99", "line CPUs"];

/// With three digits or so.
fn short(value: f64) -> String {
    match value.abs() {
        abs if abs >= 100.0 => format!("{value:.0}"),
        abs if abs >= 10.0 => format!("{value:.1}"),
        abs if abs >= 0.1 || abs == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.5}"),
    }
}

/// All rows, and the charts.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    charts: Vec<Chart>,
    notes: Vec<(String, String)>,
}

impl Report {
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn chart(&mut self, chart: Chart) {
        self.charts.push(chart);
    }

    /// A sentence below the table of a scenario, once.
    pub(crate) fn note(&mut self, scenario: &str, note: impl Into<String>) {
        let note = (scenario.to_owned(), note.into());
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The table of a scenario, in Markdown; `command` is what prints it again.
    pub(crate) fn print(&mut self, scenario: &str, about: &str, command: &str) {
        let mut text = format!("\n{scenario}: {about}\n`{command}`\n\n");
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        text.push_str(&line(&HEAD.map(str::to_owned)));
        text.push_str(&format!("|{}\n", "---|".repeat(HEAD.len())));
        for row in self.rows.iter_mut().filter(|row| row.scenario == scenario) {
            command.clone_into(&mut row.command);
            text.push_str(&line(&row.cells()));
        }
        for (_, note) in self.notes.iter().filter(|(of, _)| of == scenario) {
            // Writing to a string does not fail.
            writeln!(text, "\n{note}").ok();
        }
        println!("{text}");
    }

    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.rows)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }

    pub(crate) fn write_charts(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for chart in &self.charts {
            let path = folder.join(format!("{}.svg", chart.name));
            fs::write(&path, chart.svg()).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}
