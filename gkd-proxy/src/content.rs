//! Bytes to send that show any mistake, and that nothing on the way makes fewer: pseudo-random from a seed, so that no
//! stretch of them resembles another.

use bytes::{BufMut, Bytes, BytesMut};

/// A stream of pseudo-random bytes (Vigna's SplitMix64).
#[derive(Debug)]
pub struct Content {
    state: u64,
}

impl Content {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next bytes. Each call but the last of a stream is to ask for a multiple of eight.
    pub fn next(&mut self, len: usize) -> Bytes {
        let mut bytes = BytesMut::with_capacity(len + 8);
        while bytes.len() < len {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            bytes.put_u64(word ^ (word >> 31));
        }
        bytes.truncate(len);
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_does_not_depend_on_its_pieces() {
        let whole = Content::new(7).next(1001);
        let mut pieces = Content::new(7);
        let joined = [pieces.next(8), pieces.next(496), pieces.next(497)].concat();
        assert_eq!(whole, joined);
        assert_ne!(whole, Content::new(8).next(1001));
    }
}
