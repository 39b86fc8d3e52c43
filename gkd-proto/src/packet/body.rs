//! The body of a packet that has arrived whole, at the front of the buffer that it was read into.

use bytes::{Buf, Bytes, BytesMut};

use super::{DecodeError, Header, Packet};
use crate::varint;

/// Reads numbers where they stand. Only bytes that are kept are split off the buffer: a packet of numbers alone, which most
/// are that carry no payload, leaves the buffer's count of references as it is.
pub(crate) struct Body<'a> {
    buf: &'a mut BytesMut,
    kind: u64,
    /// What is read next, and the end of the body.
    at: usize,
    end: usize,
}

impl<'a> Body<'a> {
    /// That behind a header. It is there.
    #[inline]
    pub(crate) fn new(buf: &'a mut BytesMut, header: Header) -> Self {
        Self { buf, kind: header.kind, at: header.len, end: header.len + header.body }
    }

    /// Takes it from the buffer, and makes a packet of it if that needs all of it.
    #[inline(always)]
    pub(crate) fn whole<T>(
        mut self,
        decode: impl FnOnce(&mut Self) -> Option<T>,
        packet: impl FnOnce(T) -> Packet,
    ) -> Result<Option<Packet>, DecodeError> {
        let decoded = decode(&mut self);
        let (kind, is_empty) = (self.kind, self.at == self.end);
        self.leave();
        match decoded {
            Some(decoded) if is_empty => Ok(Some(packet(decoded))),
            _ => Err(DecodeError::Malformed { kind }),
        }
    }

    /// Takes a varint.
    #[inline(always)]
    pub(crate) fn number(&mut self) -> Option<u64> {
        let (value, len) = varint::peek(&self.buf[self.at..self.end])?;
        self.at += len;
        Some(value)
    }

    /// Takes a length of at most `most` and so many bytes.
    pub(crate) fn bytes(&mut self, most: usize) -> Option<Bytes> {
        let len = usize::try_from(self.number()?).ok()?;
        (len <= most && len <= self.end - self.at).then(|| self.split(len))
    }

    /// Takes what is left.
    #[inline(always)]
    pub(crate) fn rest(&mut self) -> Bytes {
        self.split(self.len())
    }

    /// How many bytes are left.
    pub(crate) fn len(&self) -> usize {
        self.end - self.at
    }

    /// Takes what is left of it from the buffer: there the next packet begins.
    #[inline]
    pub(crate) fn leave(self) {
        if self.end > 0 {
            self.buf.advance(self.end);
        }
    }

    /// Takes so many bytes of it.
    #[inline(always)]
    fn split(&mut self, len: usize) -> Bytes {
        self.buf.advance(self.at);
        (self.at, self.end) = (0, self.end - self.at - len);
        self.buf.split_to(len).freeze()
    }
}
