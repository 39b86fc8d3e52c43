//! `gkd-server`: serves many peers, and isolates each.
//!
//! Thin: what travels is `gkd-proto`'s and `gkd-core`'s, what is dialled is `gkd-proxy`'s. Here are arguments
//! and files that become a configuration, signals, log and exit status.
//!
//! | room | what is in it |
//! |---|---|
//! | `cli` | the command line |
//! | `dir`, `config`, `listen`, `public_name` | the files of a server, and what stands in them |
//! | `init`, `users`, `check` | the commands that make, edit and judge these files |
//! | `start`, `run`, `access`, `changes` | the running server: who may come in and reach what, and how it ends |
//! | `status` | what a running server tells of itself, and the command that shows it |

#![forbid(unsafe_code)]

mod access;
mod changes;
mod check;
mod cli;
mod config;
mod descriptors;
mod dir;
mod http;
mod init;
mod listen;
mod public_name;
mod run;
mod start;
mod status;
mod users;

use std::process::ExitCode;

use clap::CommandFactory;
use gkd_proxy::program::{self, Failure, Status, print_page};

use cli::{Cli, Command};
use dir::Dir;

/// What the program is called, to people and at its control socket.
const PROGRAM: &str = "gkd-server";

fn main() -> ExitCode {
    program::run(PROGRAM, || match cli::parse(std::env::args_os()) {
        Ok(cli) => execute(cli?).map(|()| Status::Clean),
        Err(error) => Ok(tell(&error)),
    })
}

/// Help and version are asked for and belong on standard output; everything else is a mistake.
fn tell(error: &clap::Error) -> Status {
    // Nobody is left to tell when this fails.
    error.print().ok();
    if error.use_stderr() { Status::Usage } else { Status::Clean }
}

fn execute(cli: Cli) -> Result<(), Failure> {
    let dir = || Dir::choose(cli.dir.as_deref());
    match cli.command {
        Command::Run(options) => {
            options.log.start()?;
            run::run(dir()?, options)
        }
        Command::Init(options) => init::init(&dir()?, options.public),
        Command::User(command) => users::execute(&dir()?, command),
        Command::Status { json } => status::show(&dir()?, json),
        Command::Check => check::check(&dir()?),
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "gkd-server", &mut text);
            print_page(&text)
        }
        Command::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut text).map_err(Failure::bug)?;
            print_page(&text)
        }
    }
}
