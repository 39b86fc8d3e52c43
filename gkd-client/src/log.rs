//! Logs: to standard error, as text or JSON, filtered by `-v`, `-q` and `RUST_LOG`.

use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            other => Err(format!("\"{}\" is no log format: write text or json", other.escape_debug())),
        }
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Level {
    /// `-q`.
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
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            other => {
                let other = other.escape_debug();
                Err(format!("\"{other}\" is no log level: write warn, info, debug or trace"))
            }
        }
    }
}

impl Level {
    /// Other crates are heard from only when something is wrong, or when everything is asked for.
    fn directives(self) -> &'static str {
        match self {
            Self::Warn => "warn",
            Self::Info => "warn,gkd_client=info,gkd_core=info,gkd_proxy=info,gkd_proto=info",
            Self::Debug => "info,gkd_client=debug,gkd_core=debug,gkd_proxy=debug,gkd_proto=debug",
            Self::Trace => "debug,gkd_client=trace,gkd_core=trace,gkd_proxy=trace,gkd_proto=trace",
        }
    }
}

/// Starts logging. `RUST_LOG` goes over `level`; a part of it that cannot be read is told and left out.
pub(crate) fn start(format: Format, level: Level) {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) if !directives.trim().is_empty() => EnvFilter::builder().parse_lossy(directives),
        _ => EnvFilter::new(level.directives()),
    };
    let detailed = matches!(level, Level::Debug | Level::Trace);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_target(detailed || format == Format::Json)
        .with_ansi(colour(io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref()));
    // An error says that logging was started before, which only tests do.
    let _ = match format {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).with_ansi(false).try_init(),
    };
}

/// Colour belongs on a terminal whose user did not forbid it (<https://no-color.org>).
fn colour(terminal: bool, no_color: Option<&std::ffi::OsStr>) -> bool {
    terminal && no_color.is_none_or(|value| value.is_empty())
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
    fn every_level_is_a_filter() {
        for level in [Level::Warn, Level::Info, Level::Debug, Level::Trace] {
            assert!(EnvFilter::try_new(level.directives()).is_ok(), "{level:?}");
        }
    }
}
