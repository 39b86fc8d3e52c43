//! Content that shows any mistake: pseudo-random from a seed, so that no stretch of it resembles another, and
//! its SHA-256.

use std::fmt::Write;

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use bytes::{BufMut, Bytes, BytesMut};

/// Bytes of a digest.
pub(super) const DIGEST_LEN: usize = SHA256_OUTPUT_LEN;

/// A stream of pseudo-random bytes (Vigna's SplitMix64).
#[derive(Debug)]
pub(super) struct Content {
    state: u64,
}

impl Content {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next bytes. Each call but the last of a stream is to ask for a multiple of eight.
    pub(super) fn next(&mut self, len: usize) -> Bytes {
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

/// A SHA-256 in the making.
pub(super) struct Hasher(Context);

impl Hasher {
    pub(super) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(super) fn finish(self) -> [u8; DIGEST_LEN] {
        let mut digest = [0; DIGEST_LEN];
        digest.copy_from_slice(self.0.finish().as_ref());
        digest
    }
}

/// In hexadecimal digits.
pub(super) fn hex(digest: &[u8; DIGEST_LEN]) -> String {
    digest.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
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

    #[test]
    fn the_digest_is_sha_256() {
        let mut hasher = Hasher::new();
        hasher.add(b"ab");
        hasher.add(b"c");
        let text = hex(&hasher.finish());
        assert_eq!(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
