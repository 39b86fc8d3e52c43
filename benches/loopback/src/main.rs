//! gkd on loopback beside plain relays: how fast, at what CPU time of both ends, how late, how many opens a second,
//! how much memory, how many allocations; and its HTTP services beside nginx. One command prints all of it as a table:
//!
//! ```text
//! cargo run --release -p gkd-loopback
//! ```
//!
//! What counts is the ratio to two chained copying relays, the least that two ends in two processes can do; for HTTP
//! services it is that to nginx. All chains that are compared are up at the same time and take turns, round by round. Nothing here fails because
//! something was slow; bytes that come wrong are an error.

mod allocations;
mod chain;
mod echo;
mod figures;
mod idle;
mod load;
mod many;
mod opens;
mod process;
mod relay;
mod request;
mod rival;
mod services;
mod sink;
mod throughput;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tempfile::TempDir;

use chain::{Chain, Ends, Kind, Programs, local};
use figures::{Reach, Report, Samples};
use process::Process;
use rival::Rival;

#[derive(Debug, Parser)]
#[command(
    name = "gkd-loopback",
    about = "gkd on loopback beside plain relays",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Part>,
}

#[derive(Args, Debug)]
struct Options {
    /// Measure these only
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<Name>,
    /// Measure only chains whose names end so: "plain N=4", "256 KiB"; repeatable
    #[arg(long, value_name = "TEXT")]
    chain: Vec<String>,
    /// Rounds, in each of which every chain has its turn
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Bytes of a transfer in one direction [default: what takes about a second, 2 GB at the most]
    #[arg(long, value_name = "N")]
    bytes: Option<u64>,
    /// Little of everything, in half a minute: shows that it works, and no more
    #[arg(long)]
    quick: bool,
    /// Write the figures here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Take gkd-client and gkd-server from here [default: build them]
    #[arg(long, value_name = "FOLDER")]
    bin: Option<PathBuf>,
    /// Measure those of another folder too, in the same rounds: what a change does
    #[arg(long, value_name = "FOLDER")]
    beside: Option<PathBuf>,
}

/// What the program does in processes of its own.
#[derive(Debug, Subcommand)]
enum Part {
    /// A copying relay
    Relay(relay::Relay),
    /// The destination of the load
    Sink(sink::Sink),
    /// Another program, which ends when whoever started it does
    #[command(hide = true)]
    Tied {
        /// Ended so that it can end its own processes
        #[arg(long)]
        gently: bool,
        /// It and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        program: Vec<OsString>,
    },
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Throughput,
    Echo,
    Opens,
    Idle,
    Many,
    Services,
    Allocations,
}

/// Rounds where nothing else is asked for.
const ROUNDS: u32 = 7;
const QUICK_ROUNDS: u32 = 1;

/// What every measurement has at hand.
pub(crate) struct Bench {
    pub(crate) programs: Programs,
    pub(crate) sink: Sink,
    pub(crate) rounds: u32,
    pub(crate) bytes: Option<u64>,
    pub(crate) quick: bool,
    /// What the names of chains are to end in, where that was asked for.
    wanted: Vec<String>,
    /// How many descriptors a process may have.
    descriptors: u64,
}

/// The sink, which all chains lead to.
pub(crate) struct Sink {
    pub(crate) process: Process,
    pub(crate) ends: Ends,
    _folder: TempDir,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        None => measure(&cli.options),
        Some(Part::Relay(options)) => raise_descriptors().and_then(|_| relay::run(options)),
        Some(Part::Sink(options)) => raise_descriptors().and_then(|_| sink::run(options)),
        Some(Part::Tied { gently, program }) => process::become_tied(program, *gently),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gkd-loopback: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn raise_descriptors() -> Result<u64> {
    rlimit::increase_nofile_limit(u64::MAX).context("cannot raise the limit of descriptors")
}

fn measure(options: &Options) -> Result<()> {
    let descriptors = raise_descriptors()?;
    let own = std::env::current_exe()?;
    let gkd = match &options.bin {
        Some(folder) => folder.clone(),
        None => build(&own)?,
    };
    let sink = Sink::start(&own)?;
    let programs = Programs { own, gkd, beside: options.beside.clone() };
    let rounds = options.runs.unwrap_or(if options.quick { QUICK_ROUNDS } else { ROUNDS });
    let bench = Bench {
        programs,
        sink,
        rounds,
        bytes: options.bytes,
        quick: options.quick,
        wanted: options.chain.clone(),
        descriptors,
    };
    let mut report = Report::default();
    report.notes.push(machine());
    report.notes.push(format!("{rounds} rounds; before: load {}", load_average()));
    for rival in Rival::ALL.iter().filter(|rival| !rival.is_there()) {
        report.notes.push(format!("{rival}: not on the PATH ({})", rival.programs().join(", ")));
    }
    let all = [
        (Name::Throughput, throughput::run as fn(&Bench, &mut Report) -> Result<()>),
        (Name::Echo, echo::run),
        (Name::Opens, opens::run),
        (Name::Idle, idle::run),
        (Name::Many, many::run),
        (Name::Services, services::run),
        (Name::Allocations, allocations::run),
    ];
    for (name, run) in all {
        if options.only.is_empty() || options.only.contains(&name) {
            run(&bench, &mut report)?;
        }
    }
    report.notes.push(format!("after: load {}", load_average()));
    println!("{}", report.table());
    if let Some(path) = &options.json {
        let json = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Builds what is measured beside this program, in its own profile; the folder.
fn build(own: &Path) -> Result<PathBuf> {
    let folder = own.parent().context("this program lies in no folder")?.to_owned();
    // Not this program itself, which runs.
    let gkd = ["-p", "gkd-client", "-p", "gkd-server", "--bins"];
    let counting = ["-p", env!("CARGO_PKG_NAME"), "--bin", allocations::PROGRAM];
    for what in [&gkd[..], &counting] {
        let mut command = Command::new(env!("CARGO"));
        command.args(["build", "--quiet"]).args(what);
        if folder.ends_with("release") {
            command.arg("--release");
        }
        let status = command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).status();
        ensure!(status.context("cannot start cargo")?.success(), "the programs do not build");
    }
    Ok(folder)
}

impl Sink {
    fn start(own: &Path) -> Result<Self> {
        let folder = TempDir::new()?;
        let ends = Ends { threads: local()?, tasks: local()? };
        let mut command = Command::new(own);
        command.args(["sink", "--threads", &ends.threads.to_string(), "--tasks", &ends.tasks.to_string()]);
        let process = Process::start(command, folder.path())?;
        process::wait_for_port(ends.tasks)?;
        Ok(Self { process, ends, _folder: folder })
    }
}

impl Bench {
    /// What goes on, for whoever waits.
    pub(crate) fn say(&self, what: impl fmt::Display) {
        eprintln!("{what}");
    }

    /// Whether a chain, or what it is called, was asked for; all are where none was.
    pub(crate) fn wants(&self, chain: impl fmt::Display) -> bool {
        let name = chain.to_string();
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| name.ends_with(wanted))
    }

    /// Starts chains, those of gkd from the other folder too. A rival that is not there is passed over.
    pub(crate) fn chains(&self, kinds: &[Kind]) -> Result<Vec<Chain>> {
        let mut chains = Vec::new();
        for kind in kinds.iter().filter(|kind| self.wants(kind)) {
            match Chain::start(kind, self.sink.ends, &self.programs) {
                // Another version of it than this was written for, perhaps: the rest is measured all the same.
                Err(error) if matches!(kind, Kind::Rival(_)) => self.say(format_args!("{error:#}")),
                started => chains.extend(started?),
            }
            if let (Kind::Gkd { carrier, tunnels, .. }, Some(_)) = (kind, &self.programs.beside) {
                let other = Kind::Gkd { carrier: *carrier, tunnels: *tunnels, beside: true };
                chains.extend(Chain::start(&other, self.sink.ends, &self.programs)?);
            }
        }
        Ok(chains)
    }

    /// A line for each chain, over the relays; what is to be reached is so by gkd.
    pub(crate) fn rows(
        &self,
        chains: &[Chain],
        samples: &Samples,
        measure: (&str, &'static str),
        reach: Option<Reach>,
        report: &mut Report,
    ) {
        let relays = Kind::RELAYS.to_string();
        for Chain { kind, .. } in chains {
            let over = Some(relays.as_str()).filter(|_| *kind != Kind::RELAYS);
            let reach = reach.filter(|_| matches!(kind, Kind::Gkd { .. }));
            report.rows.push(samples.row(measure, kind, over, reach));
        }
    }

    /// So many connections, or as many as there are descriptors for, which is said.
    pub(crate) fn within_descriptors(
        &self,
        wanted: usize,
        sockets: usize,
        others: usize,
        report: &mut Report,
    ) -> usize {
        let most = (usize::try_from(self.descriptors).unwrap_or(usize::MAX).saturating_sub(others)) / sockets;
        if most < wanted {
            let note = format!(
                "a process may have {} descriptors, so {most} connections instead of {wanted} where each takes {sockets}",
                self.descriptors
            );
            if !report.notes.contains(&note) {
                report.notes.push(note);
            }
        }
        wanted.min(most)
    }
}

fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores, Linux {}", kernel.trim())
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}
