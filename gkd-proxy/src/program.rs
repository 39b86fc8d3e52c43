//! What the programs have in common: how they log ([`log`]), what signals ask of them ([`signals`]), how long they
//! wait for what ([`Timeouts`]), how a running one is asked ([`control`]) and what it tells of itself ([`status`]), and how
//! they end ([`run`], [`Failure`]).
//!
//! Arguments and the rest of their files are each program's own.

pub mod control;
mod exit;
pub mod log;
pub mod signals;
mod size;
mod span;
pub mod status;
mod timeouts;
mod units;

pub use exit::{Failure, Status, run};
pub use size::{Size, SizeError};
pub use span::{Span, SpanError};
pub use timeouts::{TimeoutError, Timeouts};
pub use units::{Amount, Speed};

use std::fmt;
use std::io::{self, Write};

/// What a TOML reader says of a value, with the mend where the value is of the wrong type.
pub fn with_mend(message: &str) -> String {
    let (_, expected) = message.rsplit_once(", expected ").unwrap_or_default();
    let mend = match expected.trim() {
        "a string" => "write it in quotes, with its unit if it has one: \"8KiB\", \"30s\"",
        "a boolean" => "write true or false, without quotes",
        "i64" => "write a number, without quotes",
        "a sequence" | "a seq" => "write it in brackets, also a single one: [\"…\"]",
        _ => return message.to_owned(),
    };
    format!("{message}: {mend}")
}

/// Writes a line to standard output. Whoever has seen enough and closed it is no failure.
pub fn say(line: impl fmt::Display) {
    writeln!(io::stdout(), "{line}").ok();
}

/// Writes what a script takes to standard output: a link, a list.
///
/// # Errors
/// It does not take all of it.
pub fn print(text: &[u8]) -> Result<(), Failure> {
    write(text).map_err(Failure::output)
}

/// Writes a page to standard output, whose reader may leave before its end.
///
/// # Errors
/// It does not take all of it for another reason.
pub fn print_page(text: &[u8]) -> Result<(), Failure> {
    match write(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Failure::output),
    }
}

fn write(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text)?;
    out.flush()
}

/// `1 user`, `2 users`.
pub fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Line and column of a byte in a text, both from 1.
pub fn place(text: &str, byte: usize) -> (usize, usize) {
    let before = text.get(..byte).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters() {
        let text = "a\nbü c\n";
        assert_eq!(place(text, 0), (1, 1));
        assert_eq!(place(text, text.find('c').unwrap()), (2, 4));
        // Behind the end, or within a character: the end.
        assert_eq!((place(text, 99), place(text, 4)), ((3, 1), (3, 1)));
    }
}
