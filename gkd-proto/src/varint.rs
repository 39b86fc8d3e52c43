//! Variable-length integers of RFC 9000 §16: the two high bits of the first byte tell the length (1, 2,
//! 4 or 8 bytes), the rest is the value, big end first.

use bytes::{Buf, BufMut};

/// The largest value that a varint holds: 2^62 - 1.
pub const MAX: u64 = (1 << 62) - 1;

/// How many bytes [`put`] writes for `value`.
pub fn len(value: u64) -> usize {
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

/// Reads the varint at the start of `bytes` without taking it: its value and its length. `None` when
/// `bytes` ends too early.
#[inline]
pub fn peek(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let len = 1usize << (first >> 6);
    let bytes = bytes.get(..len)?;
    let value = bytes[1..].iter().fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, len))
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
        }
    }

    #[test]
    fn every_length_survives_the_round_trip_and_no_prefix_decodes() {
        for value in [0, 0x3f, 0x40, 0x3fff, 0x4000, 0x3fff_ffff, 0x4000_0000, MAX] {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            assert_eq!(bytes.len(), len(value));
            assert_eq!(peek(&bytes), Some((value, bytes.len())));
            for cut in 0..bytes.len() {
                assert_eq!(take(&mut &bytes[..cut]), None);
            }
        }
    }
}
