//! Packets: one framed unit on a tunnel. Encoding and decoding stand side by side, one file a family.
//!
//! Every packet is `type (varint), length (varint), body`. The numbers of the types are in [`kind`].
//! Byte layouts are those of `docs/PROTOCOL.md`, and `testdata/packets.txt` holds vectors of them.
//!
//! This module knows bytes and nothing of a session: whether a packet makes sense now is decided by
//! [`Session`](crate::Session).

mod body;
mod connect;
mod control;
mod data;
mod header;

pub use connect::{Connect, Connected, DialError};
pub use control::{
    Account, Ack, Blocked, Close, CloseCode, Credit, Drain, Gone, Leave, Ping, Pong, Reset, ResetCode,
};
pub use data::{Data, Datagram, Finish};
pub use header::{DecodeError, Header, kind};

pub(crate) use data::encode_data_header;

use body::Body;
use bytes::{BufMut, Bytes, BytesMut};

use crate::credit::OVERHEAD;
use crate::varint;

/// The largest payload of one [`Data`] or [`Datagram`] packet, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;

/// The largest payload that is sent in a Data packet, in bytes: its charge is a power of two, and so is as large as
/// a part of a read buffer is to be if it is to be kept there without a copy.
pub const FULL_PAYLOAD: usize = MAX_PAYLOAD - OVERHEAD as usize;

/// The largest body of a packet, in bytes: the largest payload, and room for what stands before it.
pub const MAX_BODY: usize = MAX_PAYLOAD + 1024;

/// The longest destination of a [`Connect`] and address of a [`Datagram`], in bytes.
pub const MAX_DESTINATION: usize = 512;

/// The longest reason in words, in bytes of UTF-8; a longer one is cut when it is written.
pub const MAX_REASON: usize = 256;

/// One packet, as decoded from a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is documented at the type that it holds")]
pub enum Packet {
    Connect(Connect),
    Connected(Connected),
    Data(Data),
    Finish(Finish),
    Reset(Reset),
    Credit(Credit),
    Blocked(Blocked),
    Gone(Gone),
    Leave(Leave),
    Drain(Drain),
    Datagram(Datagram),
    Ack(Ack),
    Ping(Ping),
    Pong(Pong),
    Close(Close),
    /// A type that this end does not know and may pass over. It counts if its type says so.
    Unknown(u64),
}

impl Packet {
    /// The number of this packet's type.
    pub fn kind(&self) -> u64 {
        match self {
            Self::Connect(_) => kind::CONNECT,
            Self::Connected(_) => kind::CONNECTED,
            Self::Data(_) => kind::DATA,
            Self::Finish(_) => kind::FINISH,
            Self::Reset(_) => kind::RESET,
            Self::Credit(_) => kind::CREDIT,
            Self::Blocked(_) => kind::BLOCKED,
            Self::Gone(_) => kind::GONE,
            Self::Leave(_) => kind::LEAVE,
            Self::Drain(_) => kind::DRAIN,
            Self::Datagram(_) => kind::DATAGRAM,
            Self::Ack(_) => kind::ACK,
            Self::Ping(_) => kind::PING,
            Self::Pong(_) => kind::PONG,
            Self::Close(_) => kind::CLOSE,
            Self::Unknown(kind) => *kind,
        }
    }

    /// Whether this packet is counted by its receiver, and so acknowledged, and resent when its tunnel dies.
    pub fn is_counted(&self) -> bool {
        kind::is_counted(self.kind())
    }

    /// Takes the next whole packet from the front of `buf`. `Ok(None)` when `buf` does not hold one whole
    /// packet yet; `buf` is then unchanged. A payload is a slice of `buf`'s memory, not a copy.
    ///
    /// # Errors
    /// A declared length above [`MAX_BODY`] is refused before anything is allocated for it; so are a body
    /// that does not parse or has bytes left over, and an unknown type that must not be passed over. The
    /// tunnel is then of no more use: where its next packet starts is not known.
    pub fn decode(buf: &mut BytesMut) -> Result<Option<Self>, DecodeError> {
        let Some(header) = Header::peek(buf)? else { return Ok(None) };
        if buf.len() < header.len + header.body {
            return Ok(None);
        }
        let body = Body::new(buf, header);
        // Each is made where it is returned: to move one that was just written costs as much as to read it.
        match header.kind {
            kind::CONNECT => body.whole(Connect::decode, Self::Connect),
            kind::CONNECTED => body.whole(Connected::decode, Self::Connected),
            kind::DATA => body.whole(Data::decode, Self::Data),
            kind::FINISH => body.whole(Finish::decode, Self::Finish),
            kind::RESET => body.whole(Reset::decode, Self::Reset),
            kind::CREDIT => body.whole(Credit::decode, Self::Credit),
            kind::BLOCKED => body.whole(Blocked::decode, Self::Blocked),
            kind::GONE => body.whole(Gone::decode, Self::Gone),
            kind::LEAVE => body.whole(Leave::decode, Self::Leave),
            kind::DRAIN => body.whole(Drain::decode, Self::Drain),
            kind::DATAGRAM => body.whole(Datagram::decode, Self::Datagram),
            kind::ACK => body.whole(Ack::decode, Self::Ack),
            kind::PING => body.whole(Ping::decode, Self::Ping),
            kind::PONG => body.whole(Pong::decode, Self::Pong),
            kind::CLOSE => body.whole(Close::decode, Self::Close),
            kind if kind::must_be_known(kind) => Err(DecodeError::Refused { kind }),
            kind => {
                body.leave();
                Ok(Some(Self::Unknown(kind)))
            }
        }
    }

    /// Appends this packet to `out`.
    ///
    /// # Panics
    /// If a field is above its bound ([`MAX_PAYLOAD`], [`MAX_DESTINATION`], 62 bits).
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Connect(packet) => packet.encode(out),
            Self::Connected(packet) => packet.encode(out),
            Self::Data(packet) => packet.encode(out),
            Self::Finish(packet) => packet.encode(out),
            Self::Reset(packet) => packet.encode(out),
            Self::Credit(packet) => packet.encode(out),
            Self::Blocked(packet) => packet.encode(out),
            Self::Gone(packet) => packet.encode(out),
            Self::Leave(packet) => packet.encode(out),
            Self::Drain(packet) => packet.encode(out),
            Self::Datagram(packet) => packet.encode(out),
            Self::Ack(packet) => packet.encode(out),
            Self::Ping(packet) => packet.encode(out),
            Self::Pong(packet) => packet.encode(out),
            Self::Close(packet) => packet.encode(out),
            Self::Unknown(kind) => header::put(out, *kind, 0),
        }
    }
}

/// Appends a packet whose body is nothing but varints.
#[inline]
pub(crate) fn put_numbers<const N: usize>(out: &mut BytesMut, kind: u64, numbers: [u64; N]) {
    varint::put_row(out, |row| {
        row.push(kind);
        row.push(numbers.iter().map(|number| varint::len(*number) as u64).sum());
        numbers.into_iter().for_each(|number| row.push(number));
    });
}

/// Appends a reason in words: its length and its UTF-8, cut at a character's border to [`MAX_REASON`] bytes.
pub(crate) fn put_reason(out: &mut impl BufMut, reason: &str) {
    let reason = cut_reason(reason);
    varint::put(out, reason.len() as u64);
    out.put_slice(reason.as_bytes());
}

pub(crate) fn cut_reason(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON)]
}

/// Takes what [`put_reason`] wrote. Bytes that are not UTF-8 are shown as U+FFFD; one too long is refused.
pub(crate) fn take_reason(body: &mut Bytes) -> Option<String> {
    Some(reason(&take_bytes(body, MAX_REASON)?))
}

fn reason(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Appends a length and so many bytes.
pub(crate) fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    varint::put(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Takes a length of at most `most` and so many bytes.
pub(crate) fn take_bytes(body: &mut Bytes, most: usize) -> Option<Bytes> {
    let len = usize::try_from(varint::take(body)?).ok()?;
    (len <= most && len <= body.len()).then(|| body.split_to(len))
}

#[cfg(test)]
mod tests;
