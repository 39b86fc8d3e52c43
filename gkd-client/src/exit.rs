//! How the program ends: its exit statuses, and the one sentence that goes with each but 0.

use std::fmt;
use std::process::ExitCode;

/// Exit statuses other than 0; the numbers are those of BSD's `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// The command line cannot be read, or something in it.
    Usage = 64,
    /// `check` found no server, or not all tunnels. A network that is down ends nothing else.
    Unavailable = 69,
    /// A fault of this program.
    Bug = 70,
    /// The server does not let this client in, or is not the one that the link names.
    Refused = 77,
    /// A file or an environment variable is wrong, or what is asked for cannot be had: a port in use, say.
    Config = 78,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        ExitCode::from(status as u8)
    }
}

/// Why the program ends: a status, and a sentence with cause and mend.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { status: Status::Usage, message: message.to_string() }
    }

    pub(crate) fn config(message: impl fmt::Display) -> Self {
        Self { status: Status::Config, message: message.to_string() }
    }

    pub(crate) fn refused(message: impl fmt::Display) -> Self {
        Self { status: Status::Refused, message: message.to_string() }
    }

    pub(crate) fn unavailable(message: impl fmt::Display) -> Self {
        Self { status: Status::Unavailable, message: message.to_string() }
    }

    pub(crate) fn bug(message: impl fmt::Display) -> Self {
        Self { status: Status::Bug, message: message.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
