//! Errors of the public calls: one enum per boundary, each message with cause and mend.

use std::io;
use std::sync::Arc;

use gkd_proto::error::{DialTunnelError, OpenError};
use gkd_proto::handshake::Reject;
use gkd_proto::packet::{DialError, ResetCode};

use crate::carrier::CarrierError;
use crate::client::TunnelDialError;
use crate::manager::SessionEnd;

/// What most calls of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call on a [`Client`](crate::Client), a [`Server`](crate::Server) or a session failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed, or a listener could not be made.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// No tunnel came up.
    #[error(transparent)]
    Dial(#[from] Arc<TunnelDialError>),
    /// A carrier could not be made.
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    /// No connection was opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The other end does not let the session in.
    #[error(transparent)]
    Rejected(#[from] Reject),
    /// No further tunnel can be had.
    #[error(transparent)]
    Tunnel(#[from] DialTunnelError),
    /// The session has ended.
    #[error("the session ended: {0}")]
    Ended(SessionEnd),
    /// The client or server was closed.
    #[error("it is closed")]
    Closed,
    /// Something that was asked for cannot be: says what.
    #[error("{0}")]
    Config(String),
    /// It was called outside of a tokio runtime.
    #[error("there is no tokio runtime here: call it within one, or build gkd with the feature futures-io")]
    NoRuntime,
    /// A fault of this program, or its runtime is going down.
    #[error("the task that does this has ended: the runtime is going down, or it is a fault of this program")]
    Fault,
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => error,
            other => io::Error::other(other),
        }
    }
}

/// Why [`Connection::connected`](crate::Connection::connected) failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The far end did not reach the destination.
    #[error(transparent)]
    Dial(DialError),
    /// The connection was reset before it was known.
    #[error("the connection was reset: {0}")]
    Reset(ResetCode),
}

/// A connection was reset, by either end. Found in the [`io::Error`] of kind
/// [`ConnectionReset`](io::ErrorKind::ConnectionReset) that reads and writes then give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection was reset: {0}")]
pub struct ConnectionReset(pub ResetCode);

/// Why [`Connection::write_all_by`](crate::Connection::write_all_by) failed, and how far it came.
#[derive(Debug, thiserror::Error)]
#[error("{accepted} bytes were accepted: {source}")]
pub struct WriteAllByError {
    /// So many bytes from the front were accepted; they will be delivered, or the connection is reset.
    pub accepted: usize,
    /// Why the rest was not: [`TimedOut`](io::ErrorKind::TimedOut) when the deadline came first.
    pub source: io::Error,
}
