//! The scenarios, and what they have in common: a line that is checked first, subjects that take turns, a fresh
//! network for each run.

mod beside;
mod clean;
mod goodput;
mod latency;
mod matrix;
mod paths;
mod services;
mod short;
mod stuck;
mod tunnel;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::check;
use crate::cli::Options;
use crate::line::Rate;
use crate::measure::{Measured, Sample, Window, goodput};
use crate::net::{Net, PathSpec};
use crate::report::{Report, Row};
use crate::subject::{Gkd, RIVALS, Running, Subject};

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    run: fn(&mut Lab) -> Result<()>,
}

/// All, in the order in which they run.
pub(crate) const ALL: &[Scenario] = &[
    goodput::LOSSY,
    goodput::BBR,
    goodput::CAP,
    goodput::AUTO,
    goodput::BURSTS,
    paths::TWO_PATHS,
    latency::LATENCY,
    stuck::STUCK,
    clean::LONG_FAT,
    short::OPEN,
    tunnel::WIRE,
    tunnel::KILL,
    clean::NO_HARM,
    beside::BESIDE,
    short::PAGE,
    services::SERVICES,
    paths::DEATH,
    matrix::MATRIX,
];

/// What the scenarios share.
pub(crate) struct Lab {
    options: Options,
    bin: PathBuf,
    report: Report,
    /// The lines that were found to be what they are said to be, without loss.
    checked: Vec<PathSpec>,
    /// The scenario that runs.
    name: &'static str,
}

impl Lab {
    pub(crate) fn new(options: Options, bin: PathBuf) -> Self {
        Self { options, bin, report: Report::default(), checked: Vec::new(), name: "" }
    }

    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// Runs a scenario, and prints what it found, also before an error.
    pub(crate) fn run(&mut self, scenario: &Scenario) -> Result<()> {
        eprintln!("---- {}: {}", scenario.name, scenario.about);
        self.name = scenario.name;
        let done = (scenario.run)(self);
        let command = format!("{} {}", env!("CARGO_PKG_NAME"), self.command());
        self.report.print(scenario.name, scenario.about, &command);
        done
    }

    /// The arguments that run the scenario again.
    fn command(&self) -> String {
        let Options { runs, seconds, seed, .. } = self.options;
        let mut command = format!("run {} --runs {runs} --seconds {seconds}", self.name);
        let mut add = |word: String| command.push_str(&format!(" {word}"));
        if seed != 1 {
            add(format!("--seed {seed}"));
        }
        if let Some(skip) = self.options.skip {
            add(format!("--skip {skip}"));
        }
        if let Some(tunnels) = self.options.tunnels {
            add(format!("--tunnels {tunnels}"));
        }
        for loss in &self.options.loss {
            add(format!("--loss {loss}"));
        }
        if self.options.carrier == crate::subject::Carrier::Plain {
            add("--carrier plain".to_owned());
        }
        if self.options.congestion != "cubic" {
            add(format!("--congestion {}", self.options.congestion));
        }
        if self.options.tolerate {
            add("--tolerate".to_owned());
        }
        if self.options.upload {
            add("--upload".to_owned());
        }
        if !self.options.subjects.is_empty() {
            add(format!("--subjects {}", self.options.subjects.join(",")));
        }
        command
    }

    // ---- what they measure ----

    /// gkd on one path, with as many tunnels as were asked for or else so many.
    fn gkd(&self, tunnels: usize) -> Gkd {
        let tunnels = self.options.tunnels.unwrap_or(tunnels);
        Gkd { tunnels, auto: false, carrier: self.options.carrier, paths: 1 }
    }

    fn window(&self, skip_seconds: f64) -> Window {
        let skip = Duration::from_secs_f64(self.options.skip.unwrap_or(skip_seconds));
        Window { skip, time: self.options.time() }
    }

    /// The rivals that are on the PATH; a note for each that is not.
    fn rivals(&mut self) -> Vec<Subject> {
        let mut found = Vec::new();
        for rival in RIVALS {
            match rival.missing() {
                None => found.push(Subject::Rival(rival)),
                Some(program) => {
                    self.report.note(self.name, format!("{}: {program} is not on the PATH.", rival.name()));
                }
            }
        }
        found
    }

    /// MPTCP with so many subflows beside the first, where there is any; a note where not.
    fn mptcp(&mut self, subflows: usize) -> Option<Subject> {
        match Subject::mptcp_missing() {
            None => Some(Subject::Mptcp { subflows }),
            Some(missing) => {
                self.report.note(self.name, format!("MPTCP: {missing}."));
                None
            }
        }
    }

    /// Those of the subjects that were asked for.
    fn chosen(&self, subjects: Vec<Subject>) -> Vec<Subject> {
        let asked = &self.options.subjects;
        let is_chosen = |subject: &Subject| asked.is_empty() || asked.iter().any(|key| key == subject.key());
        subjects.into_iter().filter(is_chosen).collect()
    }

    // ---- how they measure ----

    /// Checks paths, each once in a process. An error when one is not what it is said to be.
    fn check(&mut self, specs: &[PathSpec]) -> Result<()> {
        for spec in specs {
            let clean = spec.clone().with_loss(crate::line::Loss::None);
            if self.checked.contains(&clean) {
                continue;
            }
            let checked = check::measure(&clean, self.options.direction())?;
            eprintln!(
                "self check: {:.1} of {:.1} Mbit/s, echo {:.2?}, late {:.2?} (p99), {:.2} processors",
                checked.carried.value,
                checked.rate,
                checked.echo,
                checked.carried.line.late,
                checked.carried.line.cpu
            );
            match checked.judge(&clean) {
                Ok(()) => {}
                Err(error) if self.options.tolerate => {
                    self.report.note(self.name, format!("NOT A MEASUREMENT: {error:#}."));
                }
                Err(error) => return Err(error),
            }
            self.checked.push(clean);
        }
        Ok(())
    }

    /// The fastest of several rates that the lab carries over a path, as its own check finds.
    fn fastest(&mut self, rates_mbit: &[u64], spec: impl Fn(Rate) -> PathSpec) -> Result<PathSpec> {
        let mut last = None;
        for mbit in rates_mbit {
            let spec = spec(Rate::mbit(*mbit));
            match self.check(std::slice::from_ref(&spec)) {
                Ok(()) => return Ok(spec),
                Err(error) => {
                    eprintln!("{mbit} Mbit/s: {error:#}");
                    last = Some(error);
                }
            }
        }
        Err(last.context("no rate was asked for")?)
    }

    /// Runs one subject after the other, as often as was asked for, each in a fresh network.
    fn interleave(
        &self,
        specs: &[PathSpec],
        subjects: &[(Subject, &str)],
        measure: impl Fn(&Net, &Running) -> Result<Sample>,
    ) -> Result<Vec<Measured>> {
        let mut all: Vec<Measured> =
            subjects.iter().map(|(subject, _)| Measured::new(subject.name())).collect();
        for run in 0..self.options.runs {
            for (measured, (subject, congestion)) in all.iter_mut().zip(subjects) {
                let sample = self.once(run, specs, subject, congestion, &measure)?;
                eprintln!("run {}: {}: {:.3}", run + 1, measured.name, sample.value);
                measured.samples.push(sample);
            }
        }
        Ok(all)
    }

    /// One run of one subject.
    fn once<T>(
        &self,
        run: u64,
        specs: &[PathSpec],
        subject: &Subject,
        congestion: &str,
        measure: impl Fn(&Net, &Running) -> Result<T>,
    ) -> Result<T> {
        let net = Net::build(specs, self.options.seed + run)?;
        let running = subject.start(&net, congestion, self.bin())?;
        measure(&net, &running).with_context(|| subject.name())
    }

    /// Goodput of subjects that all use the same congestion control.
    fn goodputs(
        &self,
        specs: &[PathSpec],
        subjects: &[Subject],
        congestion: &str,
        window: Window,
    ) -> Result<Vec<Measured>> {
        let subjects: Vec<_> = subjects.iter().map(|subject| (subject.clone(), congestion)).collect();
        let direction = self.options.direction();
        self.interleave(specs, &subjects, |net, running| goodput(net, running, direction, window))
    }

    fn bin(&self) -> &Path {
        &self.bin
    }

    fn row(&self, what: impl Into<String>, unit: &'static str, measured: &Measured) -> Row {
        Row::new(self.name, what, unit, measured)
    }
}
