//! The log: lines on standard error, as text or JSON. A flag goes over `RUST_LOG`, that over a file. Colour only on
//! a terminal, and never under `NO_COLOR`.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::EnvFilter;

use super::Failure;

/// The target of what was asked for with USR1, and of a program's last words: no filter keeps them back.
pub const STATE: &str = "gkd::state";

/// The log is for programs.
static JSON: AtomicBool = AtomicBool::new(false);

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// Words are no format or level; says which words are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is no log {what}: write {known}", .words.escape_debug())]
pub struct WordError {
    words: String,
    what: &'static str,
    known: &'static str,
}

impl FromStr for Format {
    type Err = WordError;

    fn from_str(words: &str) -> Result<Self, WordError> {
        match words {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(WordError { words: words.to_owned(), what: "format", known: "text or json" }),
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// `-q`: warnings and errors.
    Warn,
    /// What a person wants to know.
    #[default]
    Info,
    /// `-v`.
    Debug,
    /// `-vv`.
    Trace,
}

impl FromStr for Level {
    type Err = WordError;

    fn from_str(words: &str) -> Result<Self, WordError> {
        let known = "warn, info, debug or trace";
        match words {
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err(WordError { words: words.to_owned(), what: "level", known }),
        }
    }
}

impl Level {
    /// What `-v`, `-vv` and `-q` ask for; none when none of them was given.
    pub fn of_flags(verbose: u8, quiet: bool) -> Option<Self> {
        match (quiet, verbose) {
            (true, _) => Some(Self::Warn),
            (false, 0) => None,
            (false, 1) => Some(Self::Debug),
            (false, _) => Some(Self::Trace),
        }
    }

    /// Other crates are heard from only when something is wrong, or when everything is asked for. h2 warns of what strangers
    /// send, once for each frame: whoever does not ask for that is not to have a disk full of it.
    fn directives(self) -> String {
        let (others, ours) = match self {
            Self::Warn => ("warn,h2=error", "warn"),
            Self::Info => ("warn,h2=error", "info"),
            Self::Debug => ("info", "debug"),
            Self::Trace => ("debug", "trace"),
        };
        ["client", "server", "proxy", "core", "proto"]
            .iter()
            .fold(others.to_owned(), |all, ours_| all + &format!(",gkd_{ours_}={ours}"))
    }
}

/// Begins to log: as much as `flag` says, else `RUST_LOG`, else `usual`.
///
/// # Errors
/// `RUST_LOG` counts, and does not parse.
pub fn start(format: Format, flag: Option<Level>, usual: Level) -> Result<(), Failure> {
    let variable = std::env::var("RUST_LOG").ok().filter(|words| !words.trim().is_empty());
    let filter = filter(flag, variable, usual)?;
    let detailed = matches!(flag.unwrap_or(usual), Level::Debug | Level::Trace);
    // Escape sequences in values are escaped by the formatter.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // Where standard error is gone, a terminal that was closed say, there is nowhere to complain either: it panics.
        .log_internal_errors(false)
        .with_target(detailed || format == Format::Json)
        .with_ansi(colour(io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref()));
    let started = match format {
        Format::Text => builder.try_init(),
        Format::Json => {
            JSON.store(true, Ordering::Relaxed);
            builder.json().flatten_event(true).with_ansi(false).try_init()
        }
    };
    started.map_err(Failure::bug)
}

/// Whether the log was started, and as JSON: then a program's last words belong there as well.
pub(super) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

fn filter(flag: Option<Level>, variable: Option<String>, usual: Level) -> Result<EnvFilter, Failure> {
    let words = match (flag, variable) {
        (None, Some(words)) => words,
        (flag, _) => flag.unwrap_or(usual).directives(),
    };
    let filter = EnvFilter::try_new(&words).map_err(|error| {
        Failure::config(format_args!(
            "RUST_LOG is {words:?}, which does not parse ({error}): write info, or debug"
        ))
    })?;
    Ok(filter.add_directive(format!("{STATE}=info").parse().map_err(Failure::bug)?))
}

/// Colour belongs on a terminal whose user did not forbid it (<https://no-color.org>).
fn colour(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_whose_user_did_not_forbid_it() {
        assert!(colour(true, None));
        assert!(colour(true, Some("".as_ref())));
        assert!(!colour(true, Some("1".as_ref())));
        assert!(!colour(false, None));
    }

    #[test]
    fn a_flag_goes_over_the_variable_and_that_over_the_file() {
        let shown = |flag, variable: Option<&str>, usual| {
            filter(flag, variable.map(str::to_owned), usual).map(|filter| filter.to_string())
        };
        assert!(shown(Some(Level::Debug), Some("error"), Level::Info).unwrap().contains("gkd_core=debug"));
        assert!(shown(None, Some("error"), Level::Debug).unwrap().contains("error"));
        assert!(shown(None, None, Level::Debug).unwrap().contains("gkd_server=debug"));
        let failure = shown(None, Some("a=b=c"), Level::Info).unwrap_err();
        assert!(failure.message.starts_with("RUST_LOG is \"a=b=c\""), "{failure}");
        // It does not count.
        assert!(shown(Some(Level::Warn), Some("a=b=c"), Level::Info).is_ok());
    }

    #[test]
    fn strangers_do_not_write_the_log_through_others() {
        for usual in [Level::Warn, Level::Info] {
            let filter = filter(None, None, usual).unwrap().to_string();
            assert!(filter.split(',').any(|directive| directive == "h2=error"), "{filter}");
        }
    }

    #[test]
    fn no_filter_keeps_the_state_back() {
        let filter = filter(Some(Level::Warn), None, Level::Info).unwrap();
        assert!(filter.to_string().contains("gkd::state=info"), "{filter}");
    }
}
