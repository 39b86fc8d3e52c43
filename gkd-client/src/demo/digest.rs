//! The SHA-256 of a transfer's content.

use std::fmt::Write;

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

/// Bytes of a digest.
pub(super) const DIGEST_LEN: usize = SHA256_OUTPUT_LEN;

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
    fn the_digest_is_sha_256() {
        let mut hasher = Hasher::new();
        hasher.add(b"ab");
        hasher.add(b"c");
        let text = hex(&hasher.finish());
        assert_eq!(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
