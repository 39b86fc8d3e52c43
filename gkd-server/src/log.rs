//! The log: lines on standard error. `-v` and `-q` go over `RUST_LOG`. Colour only on a terminal, and never
//! under `NO_COLOR`.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::EnvFilter;

use crate::cli::{LogFormat, LogOptions};
use crate::error::Failure;

/// The target of what was asked for with USR1, which not even `-q` keeps back.
pub(crate) const STATE: &str = "gkd_server::state";

static JSON: AtomicBool = AtomicBool::new(false);

/// Begins to log.
///
/// # Errors
/// `RUST_LOG` does not parse.
pub(crate) fn start(options: &LogOptions) -> Result<(), Failure> {
    let filter = filter(options)?;
    let colour =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // Escape sequences in values are escaped by the formatter.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colour);
    let started = match options.log_format {
        LogFormat::Text => log.with_target(options.verbose > 0).try_init(),
        LogFormat::Json => {
            JSON.store(true, Ordering::Relaxed);
            log.json().flatten_event(true).try_init()
        }
    };
    started.map_err(|error| Failure::bug(anyhow::anyhow!(error)))
}

fn filter(options: &LogOptions) -> Result<EnvFilter, Failure> {
    let words = match (options.quiet, options.verbose) {
        (true, _) => "warn".to_owned(),
        (false, 0) => match std::env::var("RUST_LOG") {
            Ok(words) if !words.trim().is_empty() => words,
            _ => "info".to_owned(),
        },
        (false, 1) => "info,gkd_server=debug,gkd_proxy=debug,gkd_core=debug,gkd_proto=debug".to_owned(),
        (false, _) => "trace".to_owned(),
    };
    let filter = EnvFilter::try_new(&words).map_err(|error| {
        Failure::config(format!(
            "RUST_LOG is {words:?}, which does not parse ({error}): write info, or debug"
        ))
    })?;
    let state = format!("{STATE}=info").parse().map_err(|error| Failure::bug(anyhow::anyhow!("{error}")))?;
    Ok(filter.add_directive(state))
}

/// `1 user`, `2 users`.
pub(crate) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// The log is for programs, so that the last words of this one belong there as well.
pub(crate) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}
