//! Bytes as text messages: cut where characters end ([`Cutter`]).

use gkd_core::carrier::ws::{NotUtf8, Utf8};

/// Cuts a stream of bytes into pieces of whole characters. What is left of a cut goes ahead of the next piece.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    utf8: Utf8,
}

/// Whole characters: what was left of the last cut, and what came.
#[derive(Debug)]
pub(super) struct Piece<'a> {
    left: Utf8,
    came: &'a [u8],
}

impl Piece<'_> {
    /// The bytes, in two parts.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [self.left.begun(), self.came]
    }
}

impl Cutter {
    /// The whole characters up to the end of these bytes; none where there is not one.
    pub(super) fn cut<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Piece<'a>>, NotUtf8> {
        let left = self.utf8;
        self.utf8.check(bytes)?;
        // Where a character has ended, what was begun since then came behind it.
        let begun = self.utf8.begun().len();
        let is_whole = begun < left.begun().len() + bytes.len();
        Ok(is_whole.then(|| Piece { left, came: &bytes[..bytes.len() - begun] }))
    }

    /// The end of the bytes.
    pub(super) fn end(&self) -> Result<(), NotUtf8> {
        self.utf8.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_whole_however_the_bytes_come() {
        let text = "κόσμε — \u{10ffff}\u{0}\u{fffd}é!";
        for size in 1..=text.len() {
            let mut cutter = Cutter::default();
            let mut joined = String::new();
            for bytes in text.as_bytes().chunks(size) {
                if let Some(piece) = cutter.cut(bytes).unwrap() {
                    let piece = String::from_utf8(piece.parts().concat()).unwrap();
                    assert!(!piece.is_empty());
                    joined.push_str(&piece);
                }
            }
            assert_eq!((joined.as_str(), cutter.end()), (text, Ok(())), "in pieces of {size}");
        }
        assert!(Cutter::default().cut(b"").unwrap().is_none());
    }

    #[test]
    fn what_is_no_text_is_told() {
        let mut cutter = Cutter::default();
        assert!(cutter.cut(b"\xe2\x82").unwrap().is_none());
        assert_eq!(cutter.end(), Err(NotUtf8));
        assert_eq!(cutter.cut(b"\x28").unwrap_err(), NotUtf8);
    }
}
