//! What is sent: bytes that tell by their position, connection and direction whether they are the right ones.

use std::sync::LazyLock;

/// After so many bytes the content repeats: a prime, so that nothing which packets are made of, a power of two
/// or some segments, shifts it onto itself.
const PERIOD: usize = 1_048_573;

/// The most that is compared or written at a time; the block is so much longer than its period.
pub const PIECE: usize = 256 * 1024;

static BLOCK: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 1_u64;
    let mut block: Vec<u8> = (0..PERIOD).map(|_| (next(&mut state) >> 56) as u8).collect();
    block.extend_from_within(..PIECE);
    block
});

/// SplitMix64 (Steele and others 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Which way content goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the destination to the program.
    Down,
    /// From the program to the destination.
    Up,
}

/// The content of one direction of one connection, and how far it has come.
#[derive(Clone, Debug)]
pub struct Content {
    start: usize,
    position: u64,
}

impl Content {
    /// The content of this direction of this connection, from its beginning.
    pub fn new(connection: u64, way: Way) -> Self {
        let mut state = connection << 1 | u64::from(way == Way::Up);
        Self { start: (next(&mut state) % PERIOD as u64) as usize, position: 0 }
    }

    /// The bytes that come next, at most a [`PIECE`].
    pub fn ahead(&self, len: u64) -> &'static [u8] {
        let from = ((self.start as u64 + self.position) % PERIOD as u64) as usize;
        &BLOCK[from..from + len.min(PIECE as u64) as usize]
    }

    /// So many of them were sent.
    pub fn advance(&mut self, len: usize) {
        self.position += len as u64;
    }

    /// Takes what arrived, at most a [`PIECE`]; how many bytes are not those that were due.
    pub fn check(&mut self, bytes: &[u8]) -> u64 {
        let due = self.ahead(bytes.len() as u64);
        let wrong = if due == bytes {
            0
        } else {
            due.iter().zip(bytes).filter(|(due, came)| due != came).count() as u64
        };
        self.advance(bytes.len());
        wrong
    }

    /// How many bytes have gone by.
    pub fn position(&self) -> u64 {
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than two periods, in pieces that do not divide them.
    fn stream(connection: u64, way: Way) -> Vec<u8> {
        let mut content = Content::new(connection, way);
        let mut all = Vec::new();
        while all.len() < 2 * PERIOD + 100_000 {
            let piece = content.ahead(70_001);
            all.extend_from_slice(piece);
            content.advance(piece.len());
        }
        all
    }

    fn wrong(bytes: &[u8]) -> u64 {
        let mut content = Content::new(3, Way::Down);
        bytes.chunks(PIECE).map(|piece| content.check(piece)).sum()
    }

    #[test]
    fn what_is_whole_is_right_and_any_fault_is_seen() {
        let whole = stream(3, Way::Down);
        assert_eq!(wrong(&whole), 0);
        let mut flipped = whole.clone();
        flipped[PERIOD + 5] ^= 1;
        assert_eq!(wrong(&flipped), 1);
        for packet in [1, 1400, 1448, 16 * 1024, 64 * 1024, PIECE] {
            let mut lost = whole.clone();
            lost.drain(1000..1000 + packet);
            assert!(wrong(&lost) > 0, "{packet} bytes lost");
            let mut twice = whole[..1000 + packet].to_vec();
            twice.extend_from_slice(&whole[1000..]);
            assert!(wrong(&twice) > 0, "{packet} bytes twice");
        }
    }

    #[test]
    fn the_content_of_another_connection_or_direction_is_wrong() {
        assert!(wrong(&stream(4, Way::Down)) > 0);
        assert!(wrong(&stream(3, Way::Up)) > 0);
    }
}
