//! Whether a stream of bytes is UTF-8, told as the bytes come ([`Utf8`]), however they are cut. Nothing is kept of them but the
//! beginning of a character.

/// The most bytes of a character that may wait for the rest: all of the longest but one.
const MOST_BEGUN: usize = 3;

/// Looks at a stream of bytes, piece by piece.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8 {
    begun: [u8; MOST_BEGUN],
    len: usize,
}

/// Bytes that are no UTF-8, whatever comes behind them; or that end within a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no UTF-8")]
pub struct NotUtf8;

impl Utf8 {
    /// Looks at the bytes that come next.
    ///
    /// # Errors
    /// [`NotUtf8`] with the first byte that no character may have at its place, not only with the character's end.
    pub fn check(&mut self, bytes: &[u8]) -> Result<(), NotUtf8> {
        let rest = self.complete(bytes)?;
        if rest.is_empty() {
            return Ok(());
        }
        match std::str::from_utf8(rest) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_none() => {
                let begun = &rest[error.valid_up_to()..];
                self.begun[..begun.len()].copy_from_slice(begun);
                self.len = begun.len();
                Ok(())
            }
            Err(_) => Err(NotUtf8),
        }
    }

    /// The bytes of the character that was begun and has not ended.
    pub fn begun(&self) -> &[u8] {
        &self.begun[..self.len]
    }

    /// The end of the bytes.
    ///
    /// # Errors
    /// [`NotUtf8`] within a character.
    pub fn end(&self) -> Result<(), NotUtf8> {
        if self.len == 0 { Ok(()) } else { Err(NotUtf8) }
    }

    /// Ends the character that was begun, with the first of these bytes; those behind it.
    fn complete<'a>(&mut self, mut bytes: &'a [u8]) -> Result<&'a [u8], NotUtf8> {
        while self.len > 0
            && let [next, rest @ ..] = bytes
        {
            let mut character = [0; MOST_BEGUN + 1];
            character[..self.len].copy_from_slice(self.begun());
            character[self.len] = *next;
            let with_next = &character[..=self.len];
            match std::str::from_utf8(with_next) {
                Ok(_) => self.len = 0,
                // Four bytes are a character or none, so there is room.
                Err(error) if error.error_len().is_none() => {
                    self.begun[self.len] = *next;
                    self.len += 1;
                }
                Err(_) => return Err(NotUtf8),
            }
            bytes = rest;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_whole_however_the_bytes_come() {
        let text = "κόσμε — \u{10ffff}\u{0}\u{fffd}é\u{800}\u{d7ff}\u{e000}\u{ffff}\u{10000}!";
        for size in 1..=text.len() {
            let mut utf8 = Utf8::default();
            let mut at = 0;
            for piece in text.as_bytes().chunks(size) {
                assert_eq!(utf8.check(piece), Ok(()), "in pieces of {size}");
                at += piece.len();
                let begun = (0..=MOST_BEGUN).find(|begun| text.is_char_boundary(at - begun)).unwrap();
                assert_eq!(utf8.begun(), &text.as_bytes()[at - begun..at]);
                assert_eq!(utf8.end().is_ok(), begun == 0);
            }
            assert_eq!(utf8.check(b"").and(utf8.end()), Ok(()));
        }
    }

    #[test]
    fn what_is_none_is_told_as_soon_as_it_is_known() {
        // Of each, the last byte shows it and no byte before does.
        for bytes in [
            &b"\xff"[..],
            b"a\x80",
            b"\xc0",
            b"\xe2\x28",
            b"\xe2\x82\x28",
            b"\xed\xa0",
            b"\xe0\x9f",
            b"\xf0\x8f",
            b"\xf4\x90",
            b"\xf5",
            b"\xf0\x9f\x98\x61",
        ] {
            let (last, before) = bytes.split_last().unwrap();
            let mut utf8 = Utf8::default();
            for byte in before {
                assert_eq!(utf8.check(&[*byte]), Ok(()), "{bytes:x?}");
            }
            assert_eq!(utf8.check(&[*last]), Err(NotUtf8), "{bytes:x?}");
            assert_eq!(Utf8::default().check(bytes), Err(NotUtf8), "{bytes:x?}");
        }
        for bytes in [&b"\xc3"[..], b"\xe2\x82", b"\xf0\x9f\x98"] {
            let mut utf8 = Utf8::default();
            assert_eq!((utf8.check(bytes), utf8.end()), (Ok(()), Err(NotUtf8)));
        }
    }

    proptest::proptest! {
        #[test]
        fn it_says_what_the_standard_library_says(bytes: Vec<u8>, text: String, size in 1..9_usize) {
            for bytes in [&bytes, text.as_bytes(), &[text.as_bytes(), &bytes].concat()] {
                let mut utf8 = Utf8::default();
                let said = bytes.chunks(size).try_for_each(|piece| utf8.check(piece)).and_then(|()| utf8.end());
                proptest::prop_assert_eq!(said.is_ok(), std::str::from_utf8(bytes).is_ok());
            }
        }
    }
}
