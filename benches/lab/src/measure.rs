//! Figures of one run, and of several.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::net::{LineFigures, Net};
use crate::subject::Running;
use crate::traffic::{Direction, Load};

/// When is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// What is left out at the beginning.
    pub(crate) skip: Duration,
    pub(crate) time: Duration,
}

/// What one run gave.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// In the unit of the scenario.
    pub(crate) value: f64,
    /// Processor seconds per gigabyte (10⁹ bytes) of both ends together, where they are programs.
    pub(crate) cpu: Option<f64>,
    pub(crate) line: LineFigures,
}

/// A subject and what its runs gave.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) samples: Vec<Sample>,
}

impl Measured {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), samples: Vec::new() }
    }

    pub(crate) fn values(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.value).collect()
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.values())
    }
}

/// The middle one, or what lies between the two in the middle; zero of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len() / 2), sorted.len() % 2) {
        (None, _) => 0.0,
        (Some(middle), 1) => *middle,
        (Some(upper), _) => (sorted[sorted.len() / 2 - 1] + upper) / 2.0,
    }
}

/// Bytes per time, in Mbit/s.
pub(crate) fn mbit(bytes: u64, time: Duration) -> f64 {
    bytes as f64 * 8.0 / 1e6 / time.as_secs_f64().max(1e-9)
}

/// Mbit/s of content that arrives at the receivers within the window, of connections that begin now. An error when
/// something wrong arrives, or nothing at all.
pub(crate) fn goodput(net: &Net, running: &Running, direction: Direction, window: Window) -> Result<Sample> {
    let load = Load::start(net, &running.dials, direction, &running.destination)?;
    thread::sleep(window.skip);
    let sample = goodput_of(net, running, &load, window.time)?;
    ensure!(load.running() == running.dials.len(), "a connection ended by itself");
    Ok(sample)
}

/// The same of a load that has begun, from now on.
pub(crate) fn goodput_of(net: &Net, running: &Running, load: &Load, time: Duration) -> Result<Sample> {
    let cpu = || running.programs.iter().map(|program| program.cpu()).sum::<Duration>();
    net.reset_figures();
    let (start, bytes, cpu_before) = (Instant::now(), load.meter().bytes(), cpu());
    thread::sleep(time);
    let (bytes, took) = (load.meter().bytes() - bytes, start.elapsed());
    let cpu = (cpu() - cpu_before).as_secs_f64() / (bytes.max(1) as f64 / 1e9);
    ensure!(load.meter().wrong() == 0, "{} bytes that arrived are wrong", load.meter().wrong());
    ensure!(bytes > 0, "nothing arrived in {took:.1?}");
    let cpu = (!running.programs.is_empty()).then_some(cpu);
    Ok(Sample { value: mbit(bytes, took), cpu, line: net.figures()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
