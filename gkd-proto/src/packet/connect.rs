//! Opening a connection: [`Connect`] and its answer, [`Connected`].

use bytes::{Bytes, BytesMut};

use super::header::{self, kind};
use super::{Body, MAX_DESTINATION, put_bytes, put_numbers};
use crate::id::ConnectionId;
use crate::varint;

/// Opens a connection. Data may follow in the same write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The new connection: the next id of its opener.
    pub connection: ConnectionId,
    /// Where it leads, in bytes that this layer does not read, at most [`MAX_DESTINATION`]; empty means
    /// "hand it to whoever accepts".
    pub destination: Bytes,
}

impl Connect {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        assert!(self.destination.len() <= MAX_DESTINATION, "a destination has a bound");
        let len = self.destination.len();
        header::put(out, kind::CONNECT, varint::len(self.connection.0) + varint::len(len as u64) + len);
        varint::put(out, self.connection.0);
        put_bytes(out, &self.destination);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        let connection = ConnectionId(body.number()?);
        // A copy, so that a destination that is kept does not keep a whole read buffer.
        let destination = Bytes::copy_from_slice(&body.bytes(MAX_DESTINATION)?);
        Some(Self { connection, destination })
    }
}

/// Answers a [`Connect`]: the destination was reached, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// The connection that was opened.
    pub connection: ConnectionId,
    /// Whether the destination was reached. After an error both ends exchange Resets.
    pub result: Result<(), DialError>,
}

impl Connected {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let code = self.result.map_or_else(|error| error.code(), |()| 0);
        put_numbers(out, kind::CONNECTED, [self.connection.0, code]);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        let connection = ConnectionId(body.number()?);
        let result = match body.number()? {
            0 => Ok(()),
            code => Err(DialError::from_code(code)),
        };
        Some(Self { connection, result })
    }
}

/// Why a destination was not reached. What SOCKS and HTTP replies are made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DialError {
    /// None of the others fits.
    #[error("the destination could not be reached")]
    Failed,
    /// It does not listen there.
    #[error("the destination refused the connection")]
    Refused,
    /// No route to its network or host.
    #[error("there is no route to the destination")]
    Unreachable,
    /// Its name has no address.
    #[error("the destination's name does not resolve")]
    NotResolved,
    /// It did not answer in time.
    #[error("the destination did not answer in time")]
    TimedOut,
    /// The rules of the end that dials forbid it.
    #[error("the destination is not allowed by the rules of the end that dials")]
    Denied,
    /// The end that dials does not understand or does not offer such a destination.
    #[error("the end that dials does not offer such a destination")]
    NotOffered,
    /// The end that dials is at one of its limits, or going down.
    #[error("the end that dials takes no more connections now")]
    Busy,
}

impl DialError {
    const ALL: [Self; 8] = [
        Self::Failed,
        Self::Refused,
        Self::Unreachable,
        Self::NotResolved,
        Self::TimedOut,
        Self::Denied,
        Self::NotOffered,
        Self::Busy,
    ];

    fn code(self) -> u64 {
        1 + self as u64
    }

    /// A code of a later version reads as [`DialError::Failed`].
    fn from_code(code: u64) -> Self {
        Self::ALL.into_iter().find(|error| error.code() == code).unwrap_or(Self::Failed)
    }
}
