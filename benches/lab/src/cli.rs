//! The command line, and a run from its beginning to its end.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};

use crate::cleanup::Machine;
use crate::net::BUFFER;
use crate::scenario::{ALL, Lab, Scenario};
use crate::subject::Carrier;
use crate::traffic::Direction;

#[derive(Debug, Parser)]
#[command(
    name = "gkd-lab",
    about = "gkd and its rivals over an emulated line between two network namespaces"
)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Tell what can be run
    List,
    /// Run scenarios, and print a table for each; takes root
    Run(Box<Options>),
}

/// How scenarios are run.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Which: names of the list, or all
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// How often each subject is measured; medians are told
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub(crate) runs: u64,
    /// How long is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// How long at the beginning is left out, where a scenario is about the steady state [default: 10 for lines of
    /// 100 ms with loss, else 3]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) skip: Option<f64>,
    /// Tunnels of gkd, per path [default: 8 where it is beside 8 connections, else 4]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) tunnels: Option<usize>,
    /// Carrier of the tunnels
    #[arg(long, value_enum, default_value_t = Carrier::Tls)]
    pub(crate) carrier: Carrier,
    /// From the client to the server instead of the other way
    #[arg(long)]
    pub(crate) upload: bool,
    /// Congestion control of all that crosses the line, where a scenario does not settle it
    #[arg(long, value_name = "NAME", default_value = "cubic")]
    pub(crate) congestion: String,
    /// Loss in percent, for the scenarios that have some; repeatable
    #[arg(long, value_name = "PERCENT")]
    pub(crate) loss: Vec<f64>,
    /// Only these of raw, gkd, mptcp and the rivals, where a scenario compares many
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) subjects: Vec<String>,
    /// From which what is lost is drawn; each run has one more
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Only tell when the line is not what it is said to be, and go on: to try whether the lab runs, not to measure
    #[arg(long)]
    pub(crate) tolerate: bool,
    /// Where gkd-server and gkd-client are [default: built for release, if they are not beside the lab]
    #[arg(long, value_name = "DIR")]
    bin: Option<PathBuf>,
    /// Write all rows there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write charts there, of the scenarios that have one
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

impl Options {
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn direction(&self) -> Direction {
        if self.upload { Direction::Upload } else { Direction::Download }
    }
}

pub(crate) fn run() -> Result<()> {
    match Cli::parse().command {
        Action::List => {
            for scenario in ALL {
                println!("{:<10} {}", scenario.name, scenario.about);
            }
            Ok(())
        }
        Action::Run(options) => run_scenarios(*options),
    }
}

fn run_scenarios(options: Options) -> Result<()> {
    let chosen = choose(&options.names)?;
    ensure!(
        options.runs > 0 && options.seconds > 0.0,
        "at least one run, and some time: --runs 1 --seconds 2"
    );
    ensure!(rustix::process::geteuid().is_root(), "namespaces and TUN devices take root: run it with sudo");
    let bin = find_programs(options.bin.clone())?;
    let machine = Machine::take()?;
    tell_machine(&options);
    let (json, plots) = (options.json.clone(), options.plots.clone());
    let mut lab = Lab::new(options, bin);
    let mut failed = Vec::new();
    for scenario in chosen {
        if let Err(error) = lab.run(scenario) {
            eprintln!("gkd-lab: {}: {error:#}", scenario.name);
            failed.push(scenario.name);
        }
    }
    drop(machine);
    if let Some(path) = json {
        lab.report().write_json(&path)?;
    }
    if let Some(folder) = plots {
        lab.report().write_charts(&folder)?;
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn choose(names: &[String]) -> Result<Vec<&'static Scenario>> {
    if names.iter().any(|name| name == "all") {
        return Ok(ALL.iter().collect());
    }
    let find = |name: &String| {
        let found = ALL.iter().find(|scenario| scenario.name == name);
        found.with_context(|| format!("there is no scenario {name:?}: `gkd-lab list` tells what there is"))
    };
    names.iter().map(find).collect()
}

/// The folder of the two programs, which are built if they are nowhere.
fn find_programs(given: Option<PathBuf>) -> Result<PathBuf> {
    let has = |folder: &PathBuf| ["gkd-server", "gkd-client"].iter().all(|name| folder.join(name).is_file());
    if let Some(folder) = given {
        ensure!(has(&folder), "gkd-server and gkd-client are not in {}", folder.display());
        // Programs are started with other folders than this one's caller.
        return Ok(folder.canonicalize()?);
    }
    let own = std::env::current_exe()?;
    let beside = own.parent().context("the lab has no folder")?.to_owned();
    if !has(&beside) {
        eprintln!("building gkd-server and gkd-client");
        let built = Command::new("cargo")
            .args(["build", "--release", "-p", "gkd-server", "-p", "gkd-client"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .status()
            .context("cannot run cargo: build the two programs, and name their folder with --bin")?;
        ensure!(built.success() && has(&beside), "build the two programs, and name their folder with --bin");
    }
    Ok(beside)
}

fn tell_machine(options: &Options) {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    println!(
        "{} processors, load {}, Linux {}; seed {}, {} runs of {} s. Sockets on the line may buffer {} MiB, packets \
         are 1,500 bytes, nothing is offloaded. netem is not used.",
        std::thread::available_parallelism().map_or(0, usize::from),
        read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
        read("/proc/sys/kernel/osrelease"),
        options.seed,
        options.runs,
        options.seconds,
        BUFFER >> 20,
    );
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn scenarios_are_found_by_name() {
        assert_eq!(choose(&["all".to_owned()]).unwrap().len(), ALL.len());
        let chosen = choose(&["kill".to_owned(), "lossy".to_owned()]).unwrap();
        assert_eq!(chosen.iter().map(|scenario| scenario.name).collect::<Vec<_>>(), ["kill", "lossy"]);
        assert!(choose(&["lossless".to_owned()]).unwrap_err().to_string().contains("list"));
    }
}
