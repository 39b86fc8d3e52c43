//! Runs the simulator over many seeds, or over one that failed.
//!
//! ```text
//! cargo run --release -p gkd-sim -- --seeds 1000000        # from 0 on
//! cargo run --release -p gkd-sim -- --seeds 5000-6000      # a range, its end excluded
//! cargo run --release -p gkd-sim -- --seeds 5000- --minutes 40
//! cargo run --release -p gkd-sim -- --seed 337 --words     # one alone, and its scenario in words
//! cargo run --release -p gkd-sim -- --seed 337 --trace     # and every line of what happens
//! ```
//! Ends with status 1 at the first failure, or with `--all` after all seeds; 2 if it was called wrongly.

use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use gkd_sim::hunt::Hunt;
use gkd_sim::{Scenario, run};

const USAGE: &str =
    "gkd-sim [--seeds N|FROM-|FROM-TO] [--seed N [--words] [--trace]] [--all] [--jobs N] [--minutes M]";
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
                arguments.alone = true;
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

fn main() -> ExitCode {
    match arguments() {
        Some(arguments) if arguments.alone => alone(&arguments),
        Some(arguments) => many(&arguments),
        None => {
            eprintln!("usage: {USAGE}");
            ExitCode::from(2)
        }
    }
}

fn alone(arguments: &Arguments) -> ExitCode {
    if arguments.words || arguments.trace {
        println!("{}", Scenario::new(arguments.from));
    }
    match run(arguments.from, arguments.trace) {
        Ok(report) => {
            println!("seed {} passed: {report:?}", arguments.from);
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn many(arguments: &Arguments) -> ExitCode {
    let (hunt, start) = (Hunt::new(arguments.from..arguments.to), Instant::now());
    let (told, failures) = (Mutex::new(start), Mutex::new(0u64));
    let goes_on = || {
        if let Ok(mut told) = told.try_lock()
            && told.elapsed() >= TELL_EVERY
        {
            *told = Instant::now();
            tell(&hunt, start);
        }
        arguments.until.is_none_or(|until| start.elapsed() < until)
    };
    hunt.run(arguments.jobs, goes_on, |failure| {
        if let Ok(mut failures) = failures.lock() {
            *failures += 1;
            println!("{failure}");
        }
        arguments.all
    });
    tell(&hunt, start);
    let failures = failures.into_inner().unwrap_or(u64::MAX);
    if failures == 0 {
        println!("all {} seeds passed", hunt.counts().passed);
        return ExitCode::SUCCESS;
    }
    println!("{failures} seeds failed");
    ExitCode::FAILURE
}

fn tell(hunt: &Hunt, start: Instant) {
    let counts = hunt.counts();
    println!(
        "{} seeds passed in {:.1} s: {} connections, {} bytes, {} s of virtual time",
        counts.passed,
        start.elapsed().as_secs_f64(),
        counts.connections,
        counts.sent,
        counts.seconds
    );
}
