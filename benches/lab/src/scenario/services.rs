//! An HTTP service whose target is far away: its visitors are at the server, the client that announces it is behind the
//! line. Many small answers, alone and beside a large download of the same service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::{Lab, Scenario};
use crate::line::{Loss, Rate};
use crate::measure::{Measured, Sample, mbit};
use crate::net::{Net, PathSpec};
use crate::subject::Service;
use crate::traffic::{Dial, Ending, Latencies, Visitor, Visitors};

pub(super) const SERVICES: Scenario = Scenario {
    name: "services",
    about: "an announced HTTP service, 100 Mbit/s, 50 ms, 0 and 1% loss: 10 KiB over 32 connections, alone and beside a download",
    run: services,
};

/// Of tunnels: one is what forwarders have that use a single connection.
const TUNNELS: [usize; 3] = [1, 4, 8];

/// Visitors at a time, and what each asks for.
const VISITORS: usize = 32;
const SMALL: u64 = 10 * 1024;

/// The download beside them, which begins anew when it has ended.
const LARGE: u64 = 50_000_000;

/// Connections are warm then, and the download is in the steady state.
const SKIP: f64 = 3.0;

/// What one run gave, alone and beside the download.
struct Both {
    alone: Figures,
    beside: Figures,
    /// Mbit/s of the download.
    download: f64,
}

struct Figures {
    per_second: f64,
    latencies: Latencies,
    sample: Sample,
}

fn services(lab: &mut Lab) -> Result<()> {
    let losses = if lab.options.loss.is_empty() { vec![0.0, 1.0] } else { lab.options.loss.clone() };
    for loss in losses {
        let specs = [PathSpec::new(Rate::mbit(100), 50, 50).with_loss(Loss::percent(loss))];
        lab.check(&specs)?;
        let mut subjects = vec![Service::Direct];
        subjects.extend(tunnels(lab).into_iter().map(|tunnels| Service::Gkd(lab.gkd(tunnels))));
        let mut all: Vec<Told> = subjects.iter().map(|subject| Told::new(&subject.name())).collect();
        for run in 0..lab.options.runs {
            for (told, subject) in all.iter_mut().zip(&subjects) {
                let both = once(lab, run, &specs, subject).with_context(|| subject.name())?;
                eprintln!(
                    "run {}: {loss}% loss: {}: {:.0}/s alone, {:.0}/s beside {:.1} Mbit/s",
                    run + 1,
                    subject.name(),
                    both.alone.per_second,
                    both.beside.per_second,
                    both.download
                );
                told.take(&both);
            }
        }
        tell(lab, &format!("{loss}% loss"), &all);
    }
    Ok(())
}

fn tunnels(lab: &Lab) -> Vec<usize> {
    lab.options.tunnels.map_or(TUNNELS.to_vec(), |tunnels| vec![tunnels])
}

fn once(lab: &Lab, run: u64, specs: &[PathSpec], subject: &Service) -> Result<Both> {
    let net = Net::build(specs, lab.options.seed + run)?;
    let running = subject.start(&net, &lab.options.congestion, lab.bin())?;
    let window = lab.window(SKIP);
    let visitors = Visitors::start(&net, &running.dial, VISITORS, SMALL)?;
    thread::sleep(window.skip);
    let alone = figures(&net, &visitors, window.time)?;
    let download = Download::start(&net, &running.dial)?;
    thread::sleep(window.skip);
    let (start, before) = (Instant::now(), download.bytes());
    let beside = figures(&net, &visitors, window.time)?;
    let speed = mbit(download.bytes() - before, start.elapsed());
    download.end()?;
    visitors.end()?;
    Ok(Both { alone, beside, download: speed })
}

/// Of the answers that come whole from now on, for so long.
fn figures(net: &Net, visitors: &Visitors, time: Duration) -> Result<Figures> {
    visitors.take()?;
    net.reset_figures();
    let start = Instant::now();
    thread::sleep(time);
    let (latencies, took) = (visitors.take()?, start.elapsed());
    let per_second = latencies.0.len() as f64 / took.as_secs_f64();
    Ok(Figures {
        per_second,
        latencies,
        sample: Sample { value: per_second, cpu: None, line: net.figures()? },
    })
}

/// One body after the other, as large as it is, whose bytes are compared as they come.
struct Download {
    ending: Ending,
    meter: Arc<AtomicU64>,
    thread: thread::JoinHandle<Result<()>>,
}

impl Download {
    fn start(net: &Net, dial: &Dial) -> Result<Self> {
        let meter = Arc::<AtomicU64>::default();
        let mut visitor = Visitor::open(net, dial, &meter)?;
        let ending = visitor.ending()?;
        let thread = thread::spawn(move || {
            loop {
                visitor.get(LARGE, 0)?;
            }
        });
        Ok(Self { ending, meter, thread })
    }

    fn bytes(&self) -> u64 {
        self.meter.load(Ordering::Relaxed)
    }

    /// Cuts it off, which a line with loss would take minutes for otherwise. An error when it has ended by itself.
    fn end(self) -> Result<()> {
        let ended = self.thread.is_finished();
        drop(self.ending);
        let why = self.thread.join().map_err(|_| anyhow!("the download panicked"))?;
        match (ended, why) {
            (true, Err(error)) => Err(error.context("the download")),
            (true, Ok(())) => bail!("the download ended"),
            (false, _) => Ok(()),
        }
    }
}

/// What a subject's rows tell.
struct Told {
    name: String,
    alone: [Measured; 3],
    beside: [Measured; 3],
    download: Measured,
}

/// What is told of answers, with the unit.
const FIGURES: [(&str, &str); 3] = [("answers", "/s"), ("p50", "ms"), ("p99", "ms")];

impl Told {
    fn new(name: &str) -> Self {
        let measured = || FIGURES.map(|_| Measured::new(name));
        Self { name: name.to_owned(), alone: measured(), beside: measured(), download: Measured::new(name) }
    }

    fn take(&mut self, both: &Both) {
        for (measured, figures) in [(&mut self.alone, &both.alone), (&mut self.beside, &both.beside)] {
            let late = |percent| figures.latencies.percentile(percent).as_secs_f64() * 1e3;
            for (measured, value) in measured.iter_mut().zip([figures.per_second, late(50), late(99)]) {
                measured.samples.push(Sample { value, ..figures.sample.clone() });
            }
        }
        self.download.samples.push(Sample { value: both.download, ..both.beside.sample.clone() });
    }
}

/// Each over one tunnel, which is the first that is gkd's; straight over the line stands alone.
fn tell(lab: &mut Lab, line: &str, all: &[Told]) {
    let [direct, one, ..] = all else { return };
    let over = one.name.clone();
    let mut add = |what: String, unit, measured: &Measured, base: &Measured, stands_alone: bool| {
        let row = lab.row(what, unit, measured);
        lab.report.add(if stands_alone { row } else { row.over(over.clone(), base.median()) });
    };
    for told in all {
        let stands_alone = std::ptr::eq(told, one) || std::ptr::eq(told, direct);
        for (which, measured, base) in
            [("alone", &told.alone, &one.alone), ("beside a download", &told.beside, &one.beside)]
        {
            for (((what, unit), measured), base) in FIGURES.iter().zip(measured).zip(base) {
                add(format!("{line}: {}: {what}, {which}", told.name), unit, measured, base, stands_alone);
            }
        }
        let what = format!("{line}: {}: the download beside them", told.name);
        add(what, "Mbit/s", &told.download, &one.download, stands_alone);
    }
}
