//! Why a session ended, in words.

use std::fmt;

use gkd_proto::packet::CloseCode;
use gkd_proto::session::CloseCause;

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEnd {
    /// The protocol's reasons.
    Closed(CloseCause),
    /// A fault of this program (a panic while the session was at work) ended it.
    Fault,
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(CloseCause::Local) => f.write_str("closed by this end"),
            Self::Closed(CloseCause::Remote { code, reason }) => {
                // The other end's words: escaped, for they may reach a terminal.
                write!(f, "closed by the other end ({})", close_code(*code))?;
                if reason.is_empty() { Ok(()) } else { write!(f, ": {}", reason.escape_debug()) }
            }
            Self::Closed(CloseCause::Violation(violation)) => {
                write!(f, "the other end broke the protocol: {violation}")
            }
            Self::Closed(CloseCause::Expired) => f.write_str("no tunnel came up for as long as it may stand"),
            Self::Closed(CloseCause::Lost) => f.write_str("the server does not know it any more"),
            Self::Closed(_) => f.write_str("ended"),
            Self::Fault => f.write_str("a fault inside this program; please report it"),
        }
    }
}

fn close_code(code: CloseCode) -> String {
    match code {
        CloseCode::DONE => "it is done".into(),
        CloseCode::PROTOCOL => "it says that this end broke the protocol".into(),
        CloseCode::REVOKED => "the user was removed, or has a new key".into(),
        CloseCode::GOING_DOWN => "it is going down".into(),
        CloseCode::LIMIT => "a limit was met".into(),
        CloseCode::INTERNAL => "a fault of the other end".into(),
        CloseCode(code) => format!("code {code}"),
    }
}
