//! How a program ends: an exit status, and one sentence with the cause and the mend.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use super::log;

/// Exit statuses, those of BSD's `sysexits.h` that a service manager knows as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It did what was asked for.
    Clean = 0,
    /// The command line cannot be read, or something in it.
    Usage = 64,
    /// A check found no server, or not all tunnels. A network that is down ends nothing else.
    Unavailable = 69,
    /// A fault of the program.
    Bug = 70,
    /// The server does not let this client in, or is not the one that the link names.
    Refused = 77,
    /// A file or an environment variable is wrong, or what is asked for cannot be had: a port in use, say.
    Config = 78,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// Why a program did not do what was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it exits with.
    pub status: Status,
    /// The cause and the mend.
    pub message: String,
}

impl Failure {
    /// The command line is to be mended.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self { status: Status::Usage, message: message.to_string() }
    }

    /// A file, the environment or the machine is to be mended.
    pub fn config(message: impl fmt::Display) -> Self {
        Self { status: Status::Config, message: message.to_string() }
    }

    /// The server refuses.
    pub fn refused(message: impl fmt::Display) -> Self {
        Self { status: Status::Refused, message: message.to_string() }
    }

    /// What was to be looked at is not there.
    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self { status: Status::Unavailable, message: message.to_string() }
    }

    /// Something that cannot fail did.
    pub fn bug(message: impl fmt::Display) -> Self {
        Self { status: Status::Bug, message: format!("{message}: this is a bug, please report it") }
    }

    /// Standard output took nothing.
    pub fn output(error: io::Error) -> Self {
        Self::config(format_args!("cannot write to standard output: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// A thread or a task has panicked: a bug, however well the rest went on.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// Runs a program to its end, and tells how it ended: a failure's sentence on standard error, or as a line of the log
/// where that is JSON. `main` returns another status than [`Status::Clean`] when it has told the reason itself.
pub fn run(name: &'static str, main: impl FnOnce() -> Result<Status, Failure>) -> ExitCode {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICKED.store(true, Ordering::Relaxed);
        usual(panic);
        eprintln!("{name}: this is a bug in it: please report the lines above");
    }));
    let status = catch_unwind(AssertUnwindSafe(|| main().unwrap_or_else(|failure| tell(name, &failure))));
    match status {
        Ok(status) if !PANICKED.load(Ordering::Relaxed) => status.into(),
        _ => Status::Bug.into(),
    }
}

fn tell(name: &str, failure: &Failure) -> Status {
    if log::is_json() {
        tracing::error!(target: log::STATE, "{failure}");
    } else {
        eprintln!("{name}: {failure}");
    }
    failure.status
}
