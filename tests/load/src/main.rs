//! A load whose every byte is checked. It plays both ends, the programs in front of a SOCKS5 proxy and the
//! destination behind it, so that what was written and what arrived are compared in one place, by one clock.
//!
//! It knows nothing of gkd: whatever it is put in front of has to deliver each byte once and in order, or
//! reset the connection. Its figures are one line of `key=value`. Its exit status is 1 when a byte was lost or
//! wrong, or something did not end.

mod endings;
mod figures;
mod socks;
mod transfer;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Errors here are for people, and nobody tells them apart.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Parser)]
#[command(name = "gkd-load", about = "A load whose every byte is checked, through a SOCKS5 proxy")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Move checked content both ways at the same time, and print the figures
    Run(Run),
    /// End connections in every way, and tell how the other end saw it
    Endings(Ends),
}

/// Where the load goes.
#[derive(Args, Clone, Debug)]
pub(crate) struct Ends {
    /// The SOCKS5 proxy
    #[arg(long, value_name = "ADDR")]
    pub(crate) proxy: SocketAddr,
    /// Where the destination listens, as the proxy's far end reaches it
    #[arg(long, value_name = "ADDR")]
    pub(crate) to: SocketAddr,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    pub(crate) limit: u64,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) ends: Ends,
    /// Connections, all at the same time
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) connections: u32,
    /// Bytes from the destination to the programs, over all connections
    #[arg(long, value_name = "BYTES", default_value_t = u64::MAX)]
    pub(crate) down: u64,
    /// Bytes from the programs to the destination, over all connections
    #[arg(long, value_name = "BYTES", default_value_t = u64::MAX)]
    pub(crate) up: u64,
    /// Write until standard input ends, whatever is left of the bytes
    #[arg(long)]
    pub(crate) until_told: bool,
    /// Write no faster than this, in each direction over all connections
    #[arg(long, value_name = "MBIT/S")]
    pub(crate) mbit: Option<u64>,
    /// So many further connections, whose programs stop reading until the others have ended
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) stopped: u32,
    /// Write here what arrived when: a line for every 2 ms in which something did, with its time in
    /// microseconds since 1970, bytes down, bytes up
    #[arg(long, value_name = "FILE")]
    pub(crate) timeline: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.command {
        Command::Run(options) => transfer::run(options),
        Command::Endings(ends) => endings::run(ends),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("gkd-load: {error}");
            ExitCode::FAILURE
        }
    }
}
