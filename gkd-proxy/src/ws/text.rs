//! Bytes as text messages: cut where characters end ([`Cutter`]).

use bytes::{Bytes, BytesMut};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// The most bytes of a character that may wait for the rest: all of the longest but one.
const MOST_CARRIED: usize = 3;

/// Cuts a stream of bytes into pieces of whole characters. What is left of a cut goes ahead of the next piece.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    /// The beginning of a character.
    carried: Bytes,
}

/// Bytes that are no UTF-8, or end within a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotText;

impl Cutter {
    /// The whole characters up to the end of these bytes; none where there is not one.
    pub(super) fn cut(&mut self, bytes: Bytes) -> Result<Option<Utf8Bytes>, NotText> {
        let mut bytes = match std::mem::take(&mut self.carried) {
            carried if carried.is_empty() => bytes,
            carried => {
                let mut joined = BytesMut::with_capacity(carried.len() + bytes.len());
                joined.extend_from_slice(&carried);
                joined.extend_from_slice(&bytes);
                joined.freeze()
            }
        };
        let whole = match std::str::from_utf8(&bytes) {
            Ok(_) => bytes.len(),
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => return Err(NotText),
        };
        // A copy, so that a few bytes do not keep a whole buffer.
        self.carried = Bytes::copy_from_slice(&bytes.split_off(whole));
        debug_assert!(self.carried.len() <= MOST_CARRIED);
        match bytes.is_empty() {
            true => Ok(None),
            false => Utf8Bytes::try_from(bytes).map(Some).map_err(|_| NotText),
        }
    }

    /// The end of the bytes.
    pub(super) fn end(&self) -> Result<(), NotText> {
        if self.carried.is_empty() { Ok(()) } else { Err(NotText) }
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
            for piece in text.as_bytes().chunks(size) {
                if let Some(whole) = cutter.cut(Bytes::copy_from_slice(piece)).unwrap() {
                    assert!(!whole.as_str().is_empty());
                    joined.push_str(whole.as_str());
                }
                assert!(cutter.carried.len() <= MOST_CARRIED);
            }
            assert_eq!((joined.as_str(), cutter.end()), (text, Ok(())), "in pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_text_is_told_as_soon_as_it_is_known() {
        // Of each, the last byte or the end shows it and no byte before does.
        for bytes in [
            &b"\xff"[..],
            b"a\x80",
            b"\xc0",
            b"\xe2\x28",
            b"\xe2\x82\x28",
            b"\xed\xa0",
            b"\xf4\x90",
            b"\xf0\x9f\x98\x61",
        ] {
            let mut cutter = Cutter::default();
            let (last, before) = bytes.split_last().unwrap();
            for byte in before {
                cutter.cut(Bytes::copy_from_slice(&[*byte])).unwrap();
            }
            assert_eq!(cutter.cut(Bytes::copy_from_slice(&[*last])), Err(NotText), "{bytes:x?}");
        }
        for bytes in [&b"\xc3"[..], b"\xe2\x82", b"\xf0\x9f\x98"] {
            let mut cutter = Cutter::default();
            assert_eq!(cutter.cut(Bytes::copy_from_slice(bytes)), Ok(None));
            assert_eq!(cutter.end(), Err(NotText));
        }
    }
}
