//! What programs write: bytes that follow from the end, the connection and the offset, so that one which is lost,
//! repeated or mistaken shows at once.

use gkd_proto::id::ConnectionId;

use crate::random::mix;

/// The content of one direction of one connection. It repeats nowhere.
#[derive(Clone, Copy, Debug)]
pub struct Content(u64);

impl Content {
    /// What the end `from` writes on `connection`.
    pub fn new(from: usize, connection: ConnectionId) -> Self {
        Self(mix(connection.0.wrapping_mul(2).wrapping_add(from as u64 + 1)))
    }

    /// `len` bytes from `offset` on.
    pub fn bytes(self, offset: u64, len: usize) -> Vec<u8> {
        let skip = (offset % 8) as usize;
        let words = (offset / 8)..(offset / 8 + (skip + len).div_ceil(8) as u64);
        let mut bytes: Vec<u8> = words.flat_map(|word| self.word(word)).collect();
        bytes.drain(..skip);
        bytes.truncate(len);
        bytes
    }

    /// Where `bytes`, which should stand at `offset`, differ first.
    pub fn differs(self, offset: u64, bytes: &[u8]) -> Option<u64> {
        let (head, rest) = bytes.split_at((offset.wrapping_neg() % 8).min(bytes.len() as u64) as usize);
        let (words, tail) = rest.as_chunks::<8>();
        let first = offset.div_ceil(8);
        let same = head == self.bytes(offset, head.len())
            && words.iter().zip(first..).all(|(found, word)| *found == self.word(word))
            && tail == self.bytes((first + words.len() as u64) * 8, tail.len());
        let position = || self.bytes(offset, bytes.len()).iter().zip(bytes).position(|(a, b)| a != b);
        if same { None } else { position().map(|position| offset + position as u64) }
    }

    fn word(self, index: u64) -> [u8; 8] {
        mix(self.0 ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_is_that_of_the_whole_and_any_other_differs() {
        let content = Content::new(0, ConnectionId(7));
        let whole = content.bytes(0, 100);
        for (from, to) in [(0, 100), (3, 5), (8, 16), (5, 29), (16, 17), (7, 100), (99, 100), (4, 4)] {
            let piece = content.bytes(from as u64, to - from);
            assert_eq!(piece, whole[from..to]);
            assert_eq!(content.differs(from as u64, &piece), None);
            for at in 0..piece.len() {
                let mut wrong = piece.clone();
                wrong[at] ^= 1;
                assert_eq!(content.differs(from as u64, &wrong), Some((from + at) as u64));
            }
        }
        assert_ne!(whole, Content::new(1, ConnectionId(7)).bytes(0, 100));
        assert_ne!(whole, Content::new(0, ConnectionId(8)).bytes(0, 100));
    }
}
