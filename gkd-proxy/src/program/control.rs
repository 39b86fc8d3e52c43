//! The control socket of a running program ([`Control`]), and asking at one ([`ask`]): what `status` shows comes over it,
//! and that users were changed goes over it.
//!
//! It is a Unix socket of mode 0600. Whoever connects writes one line of JSON, `{"command":"status"}`, and gets one JSON
//! document, `{"program":"gkd-server","answer":…}` or `{"program":"gkd-server","error":"…"}`, behind which the socket is
//! closed. What the commands are, and what is in their answers, is each program's own.
//!
//! Only the user that the program runs as, and root, are answered. A request has 4 KiB at the most, eight who ask are
//! served at a time while others wait to be accepted, and each has 5 s for all of it, so that one who says or reads
//! nothing holds up nobody for long.
//!
//! The file of a program that died is replaced; one at which somebody answers is left alone ([`ControlError::Running`]).
//! Elsewhere than on Unix there is no such socket: [`Control::open`] and [`ask`] say so.

#[cfg(unix)]
mod asking;
#[cfg(unix)]
mod folder;
#[cfg(unix)]
mod socket;
#[cfg(test)]
#[cfg(unix)]
mod tests;
#[cfg(unix)]
mod wire;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::oneshot;

#[cfg(unix)]
pub use folder::{check_own_folder, make_own_folder, user_id};
#[cfg(unix)]
pub use socket::remove_dead;

/// The longest path of a socket, without the zero behind it (unix(7)).
#[cfg(any(target_os = "linux", target_os = "android"))]
const MAX_PATH: usize = 107;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const MAX_PATH: usize = 103;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Somebody answers there.
    #[error("{program} is already running{}: it answers at {}", of_process(*.pid), .path.display())]
    Running {
        /// What was to be started.
        program: &'static str,
        /// Where it answers.
        path: PathBuf,
        /// Which process, where the system tells.
        pid: Option<i32>,
    },
    /// The path does not fit a socket.
    #[error(
        "{} has {} bytes, and a socket's path may have {MAX_PATH}: choose a shorter directory",
        .0.display(), .0.as_os_str().len()
    )]
    TooLong(PathBuf),
    /// Something else has the name.
    #[error("{} is no socket: move it away", .0.display())]
    NotASocket(PathBuf),
    /// The folder is not the user's alone.
    #[error("{} {what}: remove it, or have its owner do so", .path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The system says no.
    #[error("cannot {what} {}: {source}{}", .path.display(), mend(.source))]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// This system has no such sockets.
    #[error("control sockets are on Unix only: there is no status on this system")]
    Unsupported,
}

fn of_process(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": run it as the owner of the directory",
        io::ErrorKind::ReadOnlyFilesystem => ": choose a directory that can be written to",
        io::ErrorKind::StorageFull => ": make room",
        _ => "",
    }
}

/// Why nothing, or nothing good, was answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// No program is there: no socket, or one that is left of a program that died.
    #[error("no program answers at {}", .0.display())]
    Nobody(PathBuf),
    /// A program may be there, and cannot be asked.
    #[error("the program at {} cannot be asked: {cause}", .path.display())]
    Failed {
        /// Where.
        path: PathBuf,
        /// Why not, with the mend.
        cause: String,
    },
    /// The program says no; in its words.
    #[error("{0}")]
    Refused(String),
    /// This system has no such sockets.
    #[error("control sockets are on Unix only: a running program cannot be asked on this system")]
    Unsupported,
}

/// The control socket of this program. Closed, and its file removed, when it is dropped.
#[derive(Debug, Default)]
pub struct Control {
    /// None where there is no socket.
    #[cfg(unix)]
    asked: Option<(tokio::sync::mpsc::Receiver<Asked>, socket::Socket)>,
}

/// Somebody asks for something. Dropped without an answer, they are told that the program is ending.
#[derive(Debug)]
pub struct Asked {
    command: String,
    answer: oneshot::Sender<Result<Value, String>>,
}

impl Control {
    /// None: nobody will ask.
    pub fn none() -> Self {
        Self::default()
    }

    /// Listens at this path from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// Why it cannot; [`ControlError::Running`] where another such program has the place.
    #[cfg(unix)]
    pub async fn open(program: &'static str, path: &Path) -> Result<Self, ControlError> {
        Ok(Self { asked: Some(socket::Socket::open(program, path).await?) })
    }

    /// Listens at this path from now on.
    ///
    /// # Errors
    /// This system has no such sockets.
    #[cfg(not(unix))]
    pub async fn open(_program: &'static str, _path: &Path) -> Result<Self, ControlError> {
        Err(ControlError::Unsupported)
    }

    /// The next who asks; never where there is no socket. Cancel safe.
    pub async fn next(&mut self) -> Asked {
        #[cfg(unix)]
        if let Some((receiver, _)) = &mut self.asked
            && let Some(asked) = receiver.recv().await
        {
            return asked;
        }
        std::future::pending().await
    }
}

impl Asked {
    /// What for.
    pub fn command(&self) -> &str {
        &self.command
    }

    /// Answers. Who asked may be gone by now.
    pub fn answer(self, answer: Result<impl Serialize, impl fmt::Display>) {
        let answer = match answer {
            Ok(answer) => serde_json::to_value(answer).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        self.answer.send(answer).ok();
    }

    /// Answers that there is no such command.
    pub fn answer_unknown(self) {
        let words = format!("it is gkd {}, which knows no {:?}", env!("CARGO_PKG_VERSION"), self.command);
        self.answer(Err::<(), _>(words));
    }
}

/// Asks the program that listens at this path, and waits for its answer. Makes a runtime of its own for that.
///
/// # Errors
/// [`AskError`].
#[cfg(unix)]
pub fn ask(program: &str, path: &Path, command: &str) -> Result<Value, AskError> {
    let failed = |cause: String| AskError::Failed { path: path.to_owned(), cause };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(error.to_string()))?;
    runtime.block_on(asking::ask(program, path, command))
}

/// Asks the program that listens at this path.
///
/// # Errors
/// This system has no such sockets.
#[cfg(not(unix))]
pub fn ask(_program: &str, _path: &Path, _command: &str) -> Result<Value, AskError> {
    Err(AskError::Unsupported)
}
