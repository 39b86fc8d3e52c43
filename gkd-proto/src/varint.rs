//! Variable-length integers of RFC 9000 §16: the two high bits of the first byte tell the length (1, 2,
//! 4 or 8 bytes), the rest is the value, big end first.

use bytes::{Buf, BufMut, BytesMut};

/// The largest value that a varint holds: 2^62 - 1.
pub const MAX: u64 = (1 << 62) - 1;

/// How many bytes [`put`] writes for `value`.
#[inline]
pub const fn len(value: u64) -> usize {
    match value {
        0..=0x3f => 1,
        0x40..=0x3fff => 2,
        0x4000..=0x3fff_ffff => 4,
        _ => 8,
    }
}

/// Appends `value`, in the fewest bytes that hold it.
///
/// # Panics
/// If `value` is above [`MAX`]: every value that this crate writes is a counter below it or was checked.
pub fn put(out: &mut impl BufMut, value: u64) {
    match len(value) {
        1 => out.put_u8(value as u8),
        2 => out.put_u16(value as u16 | 0x4000),
        4 => out.put_u32(value as u32 | 0x8000_0000),
        _ => {
            assert!(value <= MAX, "a varint holds 62 bits");
            out.put_u64(value | 0xc000_0000_0000_0000);
        }
    }
}

/// A row of varints, at most [`ROW`] bytes of them, that is written where it is to stand.
pub(crate) struct Row<'a> {
    bytes: &'a mut [u8],
    len: usize,
}

/// Bytes of a row: five of the longest.
const ROW: usize = 40;

/// Appends the row that `fill` makes: there is room for all of it, so that none of them asks.
#[inline(always)]
pub(crate) fn put_row(out: &mut BytesMut, fill: impl FnOnce(&mut Row<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; ROW]);
    let mut row = Row { bytes: &mut out[start..], len: 0 };
    fill(&mut row);
    let end = start + row.len;
    out.truncate(end);
}

impl Row<'_> {
    /// Adds `value`, in the fewest bytes that hold it. Their number is a branch and no arithmetic: it is the same time and
    /// again, and what comes next need not wait for it.
    ///
    /// # Panics
    /// As [`put`], and when the row is full.
    #[inline(always)]
    pub(crate) fn push(&mut self, value: u64) {
        match value {
            0..=0x3f => self.extend([value as u8]),
            0x40..=0x3fff => self.extend((value as u16 | 0x4000).to_be_bytes()),
            0x4000..=0x3fff_ffff => self.extend((value as u32 | 0x8000_0000).to_be_bytes()),
            _ => {
                assert!(value <= MAX, "a varint holds 62 bits");
                self.extend((value | 0xc000_0000_0000_0000).to_be_bytes());
            }
        }
    }

    #[inline(always)]
    fn extend<const N: usize>(&mut self, bytes: [u8; N]) {
        self.bytes[self.len..self.len + N].copy_from_slice(&bytes);
        self.len += N;
    }
}

/// Reads the varint at the start of `bytes` without taking it: its value and its length. `None` when
/// `bytes` ends too early.
#[inline(always)]
pub fn peek(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    Some(match first >> 6 {
        0 => (first.into(), 1),
        1 => ((u16::from_be_bytes(*bytes.first_chunk()?) & 0x3fff).into(), 2),
        2 => ((u32::from_be_bytes(*bytes.first_chunk()?) & 0x3fff_ffff).into(), 4),
        _ => (u64::from_be_bytes(*bytes.first_chunk()?) & MAX, 8),
    })
}

/// Takes one varint from the front of `buf`. `None` when it ends too early; `buf` is then unchanged.
#[inline]
pub fn take(buf: &mut impl Buf) -> Option<u64> {
    let (value, len) = peek(buf.chunk())?;
    buf.advance(len);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 9000 §A.1.
    #[test]
    fn decodes_the_examples_of_the_rfc() {
        let examples: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in examples {
            assert_eq!(peek(bytes), Some((value, bytes.len())));
            let more = [bytes, &[0xff; 8]].concat();
            assert_eq!(peek(&more), Some((value, bytes.len())), "with more behind it");
        }
    }

    #[test]
    fn every_length_survives_the_round_trip_and_no_prefix_decodes() {
        for value in [0, 0x3f, 0x40, 0x3fff, 0x4000, 0x3fff_ffff, 0x4000_0000, MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(bytes.len(), len(value));
            let mut out = BytesMut::from(&b"front"[..]);
            put_row(&mut out, |row| (0..5).for_each(|_| row.push(value)));
            assert_eq!(out, [&b"front"[..], &bytes.repeat(5)].concat());
            assert_eq!(peek(&bytes), Some((value, bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(take(&mut &bytes[..cut]), None);
            }
        }
    }
}
