//! Why a destination was not reached, as the listening end sees it: [`ReachError`], and what a program is
//! told of it in SOCKS replies and HTTP statuses.

use std::io;

use gkd_core::proto::packet::{DialError, ResetCode};
use hyper::StatusCode;

/// Why a destination was not reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReachError {
    /// The end that dials could not, or may not, reach it.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No tunnel was up for as long as a dial may take.
    #[error("no tunnel to the other end is up: see its log and this one's, and the network between them")]
    NoTunnel,
    /// The session takes no new connection, or has ended.
    #[error("no connection could be opened: {0}")]
    Open(#[source] io::Error),
    /// The connection was reset before the dial's result was known.
    #[error("the connection was reset while its destination was dialled: {0}")]
    Reset(ResetCode),
    /// The other end did not tell the dial's result in time.
    #[error("the other end did not tell in time whether it reached the destination")]
    NoAnswer,
}

/// Numbers of SOCKS5 replies (RFC 1928, section 6).
mod reply {
    pub(super) const GENERAL_FAILURE: u8 = 1;
    pub(super) const NOT_ALLOWED: u8 = 2;
    pub(super) const HOST_UNREACHABLE: u8 = 4;
    pub(super) const REFUSED: u8 = 5;
    /// The name says that a packet's time ran out; programs show it as a time-out.
    pub(super) const TTL_EXPIRED: u8 = 6;
}

impl ReachError {
    /// The reply of SOCKS5.
    pub fn socks_reply(&self) -> u8 {
        match self {
            Self::Dial(DialError::Refused) => reply::REFUSED,
            Self::Dial(DialError::Unreachable | DialError::NotResolved) => reply::HOST_UNREACHABLE,
            Self::Dial(DialError::Denied | DialError::NotOffered) => reply::NOT_ALLOWED,
            Self::Dial(DialError::TimedOut) | Self::NoAnswer => reply::TTL_EXPIRED,
            Self::Dial(DialError::Failed | DialError::Busy) => reply::GENERAL_FAILURE,
            Self::NoTunnel | Self::Open(_) | Self::Reset(_) => reply::GENERAL_FAILURE,
        }
    }

    /// The status of HTTP.
    pub fn http_status(&self) -> StatusCode {
        match self {
            Self::Dial(DialError::Denied | DialError::NotOffered) => StatusCode::FORBIDDEN,
            Self::Dial(DialError::TimedOut) | Self::NoAnswer => StatusCode::GATEWAY_TIMEOUT,
            Self::Dial(DialError::Busy) | Self::NoTunnel | Self::Open(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Dial(_) | Self::Reset(_) => StatusCode::BAD_GATEWAY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_learns_what_happened() {
        for (error, reply, status) in [
            (DialError::Failed, 1, 502),
            (DialError::Refused, 5, 502),
            (DialError::Unreachable, 4, 502),
            (DialError::NotResolved, 4, 502),
            (DialError::TimedOut, 6, 504),
            (DialError::Denied, 2, 403),
            (DialError::NotOffered, 2, 403),
            (DialError::Busy, 1, 503),
        ] {
            let error = ReachError::from(error);
            assert_eq!((error.socks_reply(), error.http_status().as_u16()), (reply, status), "{error}");
        }
        assert_eq!(
            (ReachError::NoTunnel.socks_reply(), ReachError::NoTunnel.http_status().as_u16()),
            (1, 503)
        );
    }
}
