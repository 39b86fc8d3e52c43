//! How a command ends: an exit status, and a sentence with the cause and the mend ([`Failure`]).

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// Exit statuses, those of BSD's `sysexits.h` that a service manager knows as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// It did what was asked for.
    Clean = 0,
    /// The command line does not parse.
    Usage = 64,
    /// A bug in this program.
    Bug = 70,
    /// The configuration, or the machine that it is meant for, has to be mended first.
    Configuration = 78,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// Why a command did not do what was asked for.
#[derive(Debug)]
pub(crate) struct Failure {
    status: Status,
    error: anyhow::Error,
}

impl Failure {
    /// The configuration is to be mended; the words say how.
    pub(crate) fn config(words: impl Into<String>) -> Self {
        Self { status: Status::Configuration, error: anyhow::Error::msg(words.into()) }
    }

    /// Something that cannot fail did.
    pub(crate) fn bug(error: impl Into<anyhow::Error>) -> Self {
        Self { status: Status::Bug, error: error.into() }
    }

    /// A file or directory that could not be used: `cannot WHAT PATH: CAUSE: MEND`.
    pub(crate) fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        let mend = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                ": run it as the owner, or choose another directory with --dir"
            }
            io::ErrorKind::StorageFull => ": make room",
            io::ErrorKind::ReadOnlyFilesystem => ": choose another directory with --dir",
            _ => "",
        };
        Self::config(format!("cannot {what} {}: {error}{mend}", path.display()))
    }

    /// Standard output took nothing.
    pub(crate) fn output(error: io::Error) -> Self {
        Self::config(format!("cannot write to standard output: {error}"))
    }

    /// The status to exit with.
    pub(crate) fn status(&self) -> Status {
        self.status
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.status == Status::Bug {
            return write!(f, "{:#}: this is a bug, please report it", self.error);
        }
        write!(f, "{:#}", self.error)
    }
}
