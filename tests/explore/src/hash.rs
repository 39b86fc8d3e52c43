//! The hash by which states are told apart: 64 bits, by folded multiplication.
//!
//! Two different states are taken for one with a probability of n²/2⁶⁵ among n states: below one in a thousand
//! for a hundred million. Then what is behind one of them is not looked at; nothing is reported that is not so.

use std::hash::Hasher;

/// 2⁶⁴ divided by the golden ratio, odd.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Both halves of a product, one on the other.
fn fold(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

/// Hashes everything in words of 64 bits.
#[derive(Clone, Copy, Debug)]
pub struct Fold(u64);

impl Default for Fold {
    fn default() -> Self {
        Self(FACTOR)
    }
}

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }

    /// Long ones in pairs of words, whose products do not wait for each other.
    fn write(&mut self, bytes: &[u8]) {
        let (pairs, rest) = bytes.as_chunks::<16>();
        if !pairs.is_empty() {
            self.write_u64(pairs.iter().fold(0, |sum: u64, pair| {
                let pair = u128::from_le_bytes(*pair);
                sum.rotate_left(7) ^ fold(pair as u64 ^ FACTOR, (pair >> 64) as u64 ^ !FACTOR)
            }));
        }
        let (words, rest) = rest.as_chunks::<8>();
        words.iter().for_each(|word| self.write_u64(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            self.write_u64(rest.iter().fold(rest.len() as u64, |sum, byte| sum << 8 | u64::from(*byte)));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = fold(self.0 ^ value, FACTOR).rotate_left(23) ^ value;
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }
}

/// Takes what is a hash already as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
