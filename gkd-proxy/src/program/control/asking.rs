//! The side that asks.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::wire::{Answer, Request};
use super::{AskError, ControlError};

/// The most bytes of an answer that are read: some hundred thousand tunnels.
const MAX_ANSWER: u64 = 64 << 20;

/// How long whoever asks waits: others may be served first.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks `program` for what `command` stands for.
pub(super) async fn ask(program: &str, path: &Path, command: &str) -> Result<Value, AskError> {
    let failed = |cause: String| AskError::Failed { path: path.to_owned(), cause };
    if std::os::unix::net::SocketAddr::from_pathname(path).is_err() {
        // A program that has such a path runs without a socket.
        return Err(failed(ControlError::TooLong(path.to_owned()).to_string()));
    }
    let exchange = async {
        let mut stream = UnixStream::connect(path).await?;
        let mut line = serde_json::to_vec(&Request { command: command.to_owned() })?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut text = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut text).await?;
        io::Result::Ok(text)
    };
    let text = match timeout(PATIENCE, exchange).await {
        Ok(Ok(text)) => text,
        Ok(Err(error)) if is_nobody(&error) => return Err(AskError::Nobody(path.to_owned())),
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(failed(format!("{error}: ask as the user that it runs as, or as root")));
        }
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("it did not answer within {} s", PATIENCE.as_secs()))),
    };
    if text.is_empty() {
        return Err(failed("it answered nothing: it may be ending, or have no time".to_owned()));
    }
    match serde_json::from_slice(&text) {
        Ok(Answer { program: it, answer: Some(answer), .. }) if it == program => Ok(answer),
        Ok(Answer { program: it, error: Some(error), .. }) if it == program => Err(AskError::Refused(error)),
        _ => Err(failed(format!("what answers there is no {program}"))),
    }
}

/// No file, or one of a process that has died. A file of another kind is refused like the latter.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}
