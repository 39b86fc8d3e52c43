//! What the load says to the sink, on connections of which each carries requests one after another: an echo for
//! as long as the connection lives, or a transfer.
//!
//! ```text
//! load  ->  'e', then anything                            all of it comes back, the 'e' too
//! load  ->  't'  bytes up (8)  bytes down (8)  check (1)  then so many bytes of content
//! sink  ->  so many bytes of content, then how many of those that came were wrong (8)
//! ```
//!
//! Content is that of `gkd-load`. Where it is not checked, it is only counted, and costs both ends nothing.

use gkd_load::content::{Content, PIECE, Way};

/// An echo.
pub(crate) const ECHO: u8 = b'e';

/// A transfer.
pub(crate) const TRANSFER: u8 = b't';

/// What follows [`TRANSFER`].
pub(crate) const HEADER: usize = 17;

/// What the sink says at the end.
pub(crate) const VERDICT: usize = 8;

/// The connection of which all content is; every one carries the same.
const CONNECTION: u64 = 1;

/// A transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transfer {
    pub(crate) up: u64,
    pub(crate) down: u64,
    /// Whether every byte is compared.
    pub(crate) check: bool,
}

impl Transfer {
    /// Moves nothing; when it is over, the connection is there from end to end.
    pub(crate) const NOTHING: Self = Self { up: 0, down: 0, check: false };

    /// With [`TRANSFER`] in front.
    pub(crate) fn encode(&self) -> [u8; 1 + HEADER] {
        let mut bytes = [TRANSFER; 1 + HEADER];
        bytes[1..9].copy_from_slice(&self.up.to_be_bytes());
        bytes[9..17].copy_from_slice(&self.down.to_be_bytes());
        bytes[17] = u8::from(self.check);
        bytes
    }

    pub(crate) fn decode(header: &[u8; HEADER]) -> Self {
        let number =
            |from: usize| header[from..from + 8].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
        Self { up: number(0), down: number(8), check: header[16] == 1 }
    }
}

/// One direction of a transfer: what is left of it, and what was wrong.
pub(crate) struct Half {
    content: Content,
    bytes: u64,
    check: bool,
    pub(crate) wrong: u64,
}

impl Half {
    pub(crate) fn new(way: Way, bytes: u64, check: bool) -> Self {
        Self { content: Content::new(CONNECTION, way), bytes, check, wrong: 0 }
    }

    /// How many bytes are still to come, at most a piece.
    pub(crate) fn left(&self) -> usize {
        (self.bytes - self.content.position()).min(PIECE as u64) as usize
    }

    /// What is to be written next; empty at the end.
    pub(crate) fn ahead(&self) -> &'static [u8] {
        self.content.ahead(self.left() as u64)
    }

    pub(crate) fn wrote(&mut self, count: usize) {
        self.content.advance(count);
    }

    pub(crate) fn came(&mut self, bytes: &[u8]) {
        if self.check {
            self.wrong += self.content.check(bytes);
        } else {
            self.content.advance(bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_read_as_it_was_written() {
        let transfer = Transfer { up: 1 << 40 | 5, down: 7, check: true };
        let bytes = transfer.encode();
        assert_eq!(bytes[0], TRANSFER);
        assert_eq!(Transfer::decode(bytes[1..].try_into().unwrap()), transfer);
    }

    #[test]
    fn a_wrong_byte_is_seen_where_content_is_checked() {
        let writer = Half::new(Way::Up, 1000, true);
        let mut bytes = writer.ahead().to_vec();
        assert_eq!(bytes.len(), 1000);
        bytes[500] ^= 1;
        for (check, wrong) in [(true, 1), (false, 0)] {
            let mut reader = Half::new(Way::Up, 1000, check);
            reader.came(&bytes);
            assert_eq!((reader.wrong, reader.left()), (wrong, 0));
        }
    }
}
