//! What stands before every body: the type and the length.

use bytes::BufMut;

use super::MAX_BODY;
use crate::varint;

/// Numbers of the packet types. Two bits of a number rule what an end does with a type that it does not
/// know, so that later versions can add types without shifting anybody's count.
pub mod kind {
    #![allow(missing_docs, reason = "each is documented at the packet of that name")]

    /// In the type's number: counted by the receiver, acknowledged, and resent when a tunnel dies.
    pub const COUNTED: u64 = 0x20;
    /// In the type's number: an end that does not know the type ends the tunnel instead of passing over it.
    pub const MUST_BE_KNOWN: u64 = 0x10;

    pub const CONNECT: u64 = 0x30;
    pub const CONNECTED: u64 = 0x31;
    pub const DATA: u64 = 0x32;
    pub const FINISH: u64 = 0x33;
    pub const RESET: u64 = 0x34;
    pub const CREDIT: u64 = 0x35;
    pub const BLOCKED: u64 = 0x26;
    pub const GONE: u64 = 0x37;
    pub const LEAVE: u64 = 0x38;
    pub const DRAIN: u64 = 0x29;

    pub const DATAGRAM: u64 = 0x0a;
    pub const ACK: u64 = 0x1b;
    pub const PING: u64 = 0x1c;
    pub const PONG: u64 = 0x1d;
    pub const CLOSE: u64 = 0x1e;

    pub const HELLO: u64 = 0x10;
    pub const WELCOME: u64 = 0x11;
    pub const REJECT: u64 = 0x12;

    /// Whether a packet of this type is counted.
    pub fn is_counted(kind: u64) -> bool {
        kind & COUNTED != 0
    }

    /// Whether an end that does not know this type must refuse it.
    pub fn must_be_known(kind: u64) -> bool {
        kind & MUST_BE_KNOWN != 0
    }
}

/// Why bytes are not a packet. Always the other end's fault, or the carrier's; the tunnel ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The declared length is above the bound. Nothing was allocated for it.
    #[error("a packet of type {kind:#x} declares {declared} bytes, the limit is {limit}")]
    Oversize {
        /// The packet's type.
        kind: u64,
        /// The length that it declares, in bytes.
        declared: u64,
        /// The most that is taken, in bytes.
        limit: usize,
    },
    /// The body ends too early, has bytes left over or holds a value out of bounds.
    #[error("a packet of type {kind:#x} has a body that does not parse")]
    Malformed {
        /// The packet's type.
        kind: u64,
    },
    /// A type that this end does not know and that says it must be known.
    #[error("a packet of the unknown type {kind:#x}, which must not be passed over: the other end is newer")]
    Refused {
        /// The packet's type.
        kind: u64,
    },
}

/// The type and the length of a packet whose body may not have arrived yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The number of the type.
    pub kind: u64,
    /// Length of type and length themselves, in bytes: 2 to 16.
    pub len: usize,
    /// Length of the body, in bytes.
    pub body: usize,
}

impl Header {
    /// Reads the header at the start of `bytes`. `Ok(None)` when it has not arrived whole.
    ///
    /// # Errors
    /// [`DecodeError::Oversize`] when the declared length is above [`MAX_BODY`].
    #[inline]
    pub fn peek(bytes: &[u8]) -> Result<Option<Self>, DecodeError> {
        let Some((kind, kind_len)) = varint::peek(bytes) else { return Ok(None) };
        let Some((declared, len_len)) = varint::peek(&bytes[kind_len..]) else { return Ok(None) };
        match usize::try_from(declared) {
            Ok(body) if body <= MAX_BODY => Ok(Some(Self { kind, len: kind_len + len_len, body })),
            _ => Err(DecodeError::Oversize { kind, declared, limit: MAX_BODY }),
        }
    }
}

/// Appends type and length.
pub(crate) fn put(out: &mut impl BufMut, kind: u64, body: usize) {
    varint::put(out, kind);
    varint::put(out, body as u64);
}
