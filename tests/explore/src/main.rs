//! `gkd-explore`: looks at every interleaving of small worlds, and tells how many there were.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use gkd_explore::{Bounds, Outcome, Spec, Step, WORLDS, explore, replay};

/// Looks at every interleaving of small worlds over two real sessions.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How many steps deep, at the most
    #[arg(long, default_value_t = 60)]
    depth: usize,
    /// How many minutes, in all; each world gets an even share of what is left
    #[arg(long)]
    minutes: Option<f64>,
    /// How many states of one world, at the most; one takes some 30 bytes
    #[arg(long, default_value_t = 100_000_000)]
    states: usize,
    /// Good weather comes over one state in so many
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..))]
    weather: u64,
    /// Only the worlds of these names, with commas between
    #[arg(long, value_delimiter = ',')]
    world: Vec<String>,
    /// Takes these steps in one world, and tells what happens
    #[arg(long)]
    replay: Option<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let worlds = chosen(&arguments.world)?;
    // The panics of a session are caught and told; what the hook would print stands in the failure.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(steps) = &arguments.replay {
        let [world] = worlds[..] else { bail!("a replay is of one world: name it with --world") };
        return replay_one(world, steps);
    }
    println!("| world | states | steps taken | deep | all of them | ends | good weather | s |");
    println!("|---|---|---|---|---|---|---|---|");
    let mut left = arguments.minutes.map(|minutes| Duration::from_secs_f64(60.0 * minutes));
    let mut failed = false;
    for (index, spec) in worlds.iter().enumerate() {
        let time = left.map(|left| left / (worlds.len() - index) as u32);
        let bounds =
            Bounds { depth: arguments.depth, states: arguments.states, time, weather: arguments.weather };
        let outcome = explore(*spec, bounds);
        left = left.map(|left| left.saturating_sub(outcome.took));
        failed |= !tell(spec, &outcome);
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn chosen(names: &[String]) -> anyhow::Result<Vec<Spec>> {
    if names.is_empty() {
        return Ok(WORLDS.to_vec());
    }
    let known = || WORLDS.iter().map(|spec| spec.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| WORLDS.iter().find(|spec| spec.name == name).copied();
    names
        .iter()
        .map(|name| find(name).with_context(|| format!("no world {name:?}; there are {}", known())))
        .collect()
}

/// Prints a row of the table, and the failure behind it; whether there was none.
fn tell(spec: &Spec, outcome: &Outcome) -> bool {
    let Outcome { states, transitions, depth, exhausted, ends, weathers, took, failure } = outcome;
    let all = if *exhausted { "yes" } else { "no" };
    let seconds = took.as_secs();
    println!(
        "| {} | {states} | {transitions} | {depth} | {all} | {ends} | {weathers} | {seconds} |",
        spec.name
    );
    let Some(failure) = failure else { return true };
    let steps: Vec<_> = failure.steps.iter().map(Step::to_string).collect();
    println!("\n{} is broken after {} steps: {}", spec.name, steps.len(), failure.fault);
    print!("{}", replay(*spec, &failure.steps).0);
    println!("--world {} --replay \"{}\"\n", spec.name, steps.join(" "));
    false
}

fn replay_one(spec: Spec, steps: &str) -> anyhow::Result<ExitCode> {
    let steps: Result<Vec<Step>, String> = steps.split_whitespace().map(str::parse).collect();
    let (story, result) = replay(spec, &steps.map_err(anyhow::Error::msg)?);
    print!("{story}");
    Ok(match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            println!("{fault}");
            ExitCode::FAILURE
        }
    })
}
