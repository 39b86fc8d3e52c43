//! `gkd-client`: a proxy whose connections run over N tunnels to a gkd server.
//!
//! A thin program: it turns arguments, environment and files into what `gkd-core` and `gkd-proxy` are told,
//! handles signals, and ends with an exit status and one sentence. What travels and what listens is theirs.

#![forbid(unsafe_code)]

mod bench;
mod check;
mod cli;
mod client;
mod config;
mod demo;
mod listeners;
mod manual;
mod place;
mod progress;
mod report;
mod run;
mod status;

use std::path::Path;
use std::process::ExitCode;

use gkd_proxy::program::log::{self, Level};
use gkd_proxy::program::{self, Failure, Status};

use cli::{Cli, Command, Listeners, Reach};
use config::{Environment, Settings};

/// What the program is called, to people and at its control socket.
const PROGRAM: &str = "gkd-client";

fn main() -> ExitCode {
    program::run(PROGRAM, || match cli::parse(std::env::args_os()) {
        Ok(cli) => obey(cli?).map(|()| Status::Clean),
        Err(error) => Ok(tell(&error)),
    })
}

/// Help and version are asked for and belong on standard output; everything else is a mistake.
fn tell(error: &clap::Error) -> Status {
    if error.use_stderr() && cli::shows_link(error) {
        eprintln!("error: a link stands where none belongs; it is a secret and not shown: see --help");
    } else {
        // Nobody is left to tell when this fails.
        error.print().ok();
    }
    if error.use_stderr() { Status::Usage } else { Status::Clean }
}

fn obey(cli: Cli) -> Result<(), Failure> {
    let load = |reach, listeners| {
        let settings = config::load(reach, listeners, &cli.log, &Environment::of_process())?;
        log::start(settings.format, cli.log.level(), settings.level)?;
        tell_notes(&settings);
        Ok::<_, Failure>(settings)
    };
    match &cli.command {
        None => run::run(&load(&cli.reach, &cli.listeners)?, &|file| read_again(&cli, file)),
        Some(Command::Check(reach)) => {
            let settings = load(reach, &Listeners::default())?;
            // A file that is named, and no link, asks for the file alone.
            let of_file = reach.config.is_some() && reach.links.is_empty() && reach.link_file.is_none();
            check::check(&settings, !of_file && !settings.links.is_empty())
        }
        Some(Command::Bench(options)) => bench::bench(&load(&options.reach, &Listeners::default())?, options),
        Some(Command::Demo(options)) => {
            // Nothing else of a configuration concerns the demo.
            let format = cli.log.log_format.as_deref().unwrap_or("text").parse();
            let format = format.map_err(|error| Failure::usage(format_args!("--log-format: {error}")))?;
            log::start(format, cli.log.level(), Level::Warn)?;
            demo::demo(options)
        }
        Some(Command::Status(options)) => status::show(options),
        Some(Command::Completions { shell }) => manual::completions(*shell),
        Some(Command::Man) => manual::man(),
    }
}

/// What the same command line would be started with now, its configuration being this file.
fn read_again(cli: &Cli, file: &Path) -> Result<Settings, Failure> {
    let reach = Reach { config: Some(file.to_string_lossy().into_owned()), ..cli.reach.clone() };
    config::load(&reach, &cli.listeners, &cli.log, &Environment::of_process())
}

fn tell_notes(settings: &Settings) {
    for note in &settings.notes {
        tracing::warn!("{note}");
    }
    if let Some(told) = &settings.reaching.told {
        tracing::info!("{told}");
    }
}
