//! `gkd-server`: serves many peers, and isolates each.
//!
//! Thin: what travels is `gkd-proto`'s and `gkd-core`'s, what is dialled is `gkd-proxy`'s. Here are arguments
//! and files that become a configuration, signals, log and exit status.
//!
//! | room | what is in it |
//! |---|---|
//! | `cli`, `log`, `error` | the command line, the log, exit statuses |
//! | `dir`, `config`, `listen`, `public_name` | the files of a server, and what stands in them |
//! | `init`, `users`, `check` | the commands that make, edit and judge these files |
//! | `start`, `run`, `access`, `signals` | the running server: who may come in and reach what, and how it ends |

#![forbid(unsafe_code)]

mod access;
mod check;
mod cli;
mod config;
mod dir;
mod error;
mod init;
mod listen;
mod log;
mod public_name;
mod room;
mod run;
mod signals;
mod start;
mod users;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory, Parser};

use cli::{Cli, Command};
use dir::Dir;
use error::{Failure, Status};

/// A thread or a task has panicked: a bug, however well the rest went on.
static PANICKED: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    note_panics();
    let status = std::panic::catch_unwind(|| match Cli::try_parse() {
        Ok(cli) => report(execute(cli)),
        Err(error) => usage(&error),
    });
    match status {
        Ok(status) if !PANICKED.load(Ordering::Relaxed) => status.into(),
        _ => Status::Bug.into(),
    }
}

fn execute(cli: Cli) -> Result<(), Failure> {
    let dir = || Dir::choose(cli.dir.as_deref());
    match cli.command {
        Command::Run(options) => {
            log::start(&options.log)?;
            run::run(dir()?, options)
        }
        Command::Init(options) => init::init(&dir()?, options.public),
        Command::User(command) => users::execute(&dir()?, command),
        Command::Check => check::check(&dir()?),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "gkd-server", &mut text);
            print(&text)
        }
        Command::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text).map_err(Failure::output)?;
            print(&text)
        }
    }
}

fn report(result: Result<(), Failure>) -> Status {
    let Err(failure) = result else { return Status::Clean };
    if log::is_json() {
        tracing::error!("{failure}");
    } else {
        eprintln!("gkd-server: {failure}");
    }
    failure.status()
}

/// Help and version are asked for and belong on standard output; everything else is a mistake.
fn usage(error: &clap::Error) -> Status {
    // Nobody is left to tell when this fails.
    error.print().ok();
    if error.use_stderr() { Status::Usage } else { Status::Clean }
}

/// Standard output is for what a script takes: a link, a list, a page.
fn print(text: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text).and_then(|()| out.flush()).map_err(Failure::output)
}

fn note_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICKED.store(true, Ordering::Relaxed);
        usual(panic);
        eprintln!("gkd-server: this is a bug in it: please report the lines above");
    }));
}
