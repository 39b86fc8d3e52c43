//! Runs the simulator over many seeds, or over one that failed.
//!
//! ```text
//! cargo run --release -p gkd-sim -- --seeds 1000000      # from 0 on
//! cargo run --release -p gkd-sim -- --seeds 5000-6000    # a range, its end excluded
//! cargo run --release -p gkd-sim -- --seeds 5000- --minutes 40
//! cargo run --release -p gkd-sim -- --seed 337 --words   # one alone, and its scenario in words
//! cargo run --release -p gkd-sim -- --seed 337 --trace   # and every line of what happens
//! ```
//! Ends with status 1 at the first failure, or with `--all` after all seeds; 2 if it was called wrongly.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gkd_sim::{Failure, Report, Scenario, run};

const USAGE: &str =
    "gkd-sim [--seeds N|FROM-|FROM-TO] [--seed N] [--trace] [--words] [--all] [--jobs N] [--minutes M]";
/// How often a line tells how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);

struct Arguments {
    from: u64,
    to: u64,
    alone: bool,
    trace: bool,
    words: bool,
    all: bool,
    jobs: usize,
    until: Option<Duration>,
}

fn arguments() -> Option<Arguments> {
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut arguments = Arguments {
        from: 0,
        to: 2000,
        alone: false,
        trace: false,
        words: false,
        all: false,
        jobs,
        until: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--trace" => arguments.trace = true,
            "--words" => arguments.words = true,
            "--all" => arguments.all = true,
            "--jobs" => arguments.jobs = words.next()?.parse().ok().filter(|jobs| *jobs > 0)?,
            "--minutes" => {
                let minutes: f64 = words.next()?.parse().ok()?;
                arguments.until = Some(Duration::try_from_secs_f64(minutes * 60.0).ok()?);
            }
            "--seed" => {
                arguments.from = words.next()?.parse().ok()?;
                (arguments.to, arguments.alone) = (arguments.from.checked_add(1)?, true);
            }
            "--seeds" => {
                let range = words.next()?;
                let (from, to) = range.split_once('-').unwrap_or(("0", &range));
                arguments.from = from.parse().ok()?;
                arguments.to = if to.is_empty() { u64::MAX } else { to.parse().ok()? };
            }
            _ => return None,
        }
    }
    Some(arguments)
}

/// What all jobs share.
struct Progress {
    next: AtomicU64,
    passed: AtomicU64,
    sent: AtomicU64,
    connections: AtomicU64,
    virtual_secs: AtomicU64,
    over: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("usage: {USAGE}");
        return ExitCode::from(2);
    };
    if arguments.alone && (arguments.trace || arguments.words) {
        println!("{}", Scenario::new(arguments.from));
    }
    let progress = Progress {
        next: AtomicU64::new(arguments.from),
        passed: AtomicU64::new(0),
        sent: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        virtual_secs: AtomicU64::new(0),
        over: AtomicBool::new(false),
        failure: Mutex::new(None),
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let jobs: Vec<_> =
            (0..arguments.jobs).map(|_| scope.spawn(|| job(&arguments, &progress, start))).collect();
        let mut told = start;
        while !jobs.iter().all(|job| job.is_finished()) {
            std::thread::sleep(Duration::from_millis(50));
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                tell(&progress, start);
            }
        }
    });
    tell(&progress, start);
    let failure = progress.failure.lock().ok().and_then(|mut failure| failure.take());
    match failure {
        Some(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
        None => {
            println!("all {} seeds passed", progress.passed.into_inner());
            ExitCode::SUCCESS
        }
    }
}

fn job(arguments: &Arguments, progress: &Progress, start: Instant) {
    while !progress.over.load(Ordering::Relaxed) {
        let seed = progress.next.fetch_add(1, Ordering::Relaxed);
        if seed >= arguments.to || arguments.until.is_some_and(|until| start.elapsed() >= until) {
            return;
        }
        match run(seed, arguments.trace && arguments.alone) {
            Ok(report) => count(progress, &report),
            Err(failure) => {
                if arguments.all {
                    println!("seed {} failed: {}", failure.seed, failure.what);
                }
                progress.over.store(!arguments.all, Ordering::Relaxed);
                if let Ok(mut first) = progress.failure.lock() {
                    first.get_or_insert(failure);
                }
            }
        }
    }
}

fn count(progress: &Progress, report: &Report) {
    progress.passed.fetch_add(1, Ordering::Relaxed);
    progress.sent.fetch_add(report.sent, Ordering::Relaxed);
    progress.connections.fetch_add(report.connections, Ordering::Relaxed);
    progress.virtual_secs.fetch_add(report.time.as_secs(), Ordering::Relaxed);
}

fn tell(progress: &Progress, start: Instant) {
    let [passed, sent, connections, virtual_secs] =
        [&progress.passed, &progress.sent, &progress.connections, &progress.virtual_secs]
            .map(|counter| counter.load(Ordering::Relaxed));
    println!(
        "{passed} seeds passed in {:.1} s: {connections} connections, {sent} bytes, {virtual_secs} s of virtual time",
        start.elapsed().as_secs_f64()
    );
}
