//! `completions` and `man`: what the command line says of itself, for shells and for `man`.

use clap::CommandFactory;
use gkd_proxy::program::{Failure, print_page};

use crate::cli::Cli;

/// Prints the completions of a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gkd-client", &mut text);
    print_page(&text)
}

/// Prints the manual page.
pub(crate) fn man() -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut text).map_err(Failure::bug)?;
    print_page(&text)
}
