//! What hyper, or h2 below it, tells a client of HTTP/2 by itself, read off the frames that it writes ([`Verdicts`]): that a head is
//! too large, and that the connection ends for a fault. It does no IO and knows no request.
//!
//! An answer of ours has a date beside its status. One that is a status alone, and not the trailers of another, is h2's, and all
//! that it says by itself is that a head is too large. So no table of headers has to be kept.

use std::collections::BTreeSet;

/// The length of a frame's head (RFC 9113, section 4.1).
const HEAD: usize = 9;

/// How much of a payload is looked at: enough for a status with changes of the table's size in front of it, and for the words
/// behind the code that a connection ends with.
const LOOKED_AT: usize = 40;

/// The most streams whose answer has begun that are kept in mind: several times as many as a client may have at a time. Of one that
/// the client resets h2 says nothing, so those would be without end; the oldest go.
const MOST_BEGUN: usize = 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What h2 says of a head that is so large that it does not read on.
const ABOUT_HEADS: [&[u8]; 2] = [b"header_list_way_too_large", b"too_many_continuations"];

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The head of its request is too large; the connection goes on.
    HeadTooLarge,
    /// The connection ends.
    Ended {
        /// The name of the code.
        reason: &'static str,
        /// Whether that is for a head that is far too large.
        head: bool,
    },
}

/// The place in the bytes to a client.
#[derive(Debug)]
pub(super) struct Verdicts {
    /// The head of the frame, and how it begins.
    seen: [u8; HEAD + LOOKED_AT],
    len: usize,
    /// What is left of the payload.
    left: usize,
    /// Streams whose answer has begun, [`MOST_BEGUN`] at the most.
    begun: BTreeSet<u32>,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self { seen: [0; HEAD + LOOKED_AT], len: 0, left: 0, begun: BTreeSet::new() }
    }
}

impl Verdicts {
    /// Looks at what goes next.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut tell: impl FnMut(Verdict)) {
        while !bytes.is_empty() {
            if self.len < HEAD {
                bytes = self.keep(bytes, HEAD);
                if self.len < HEAD {
                    return;
                }
                self.left = u32::from_be_bytes([0, self.seen[0], self.seen[1], self.seen[2]]) as usize;
            }
            let payload = &bytes[..self.left.min(bytes.len())];
            self.left -= payload.len();
            bytes = &bytes[payload.len()..];
            self.keep(payload, HEAD + LOOKED_AT);
            if self.left == 0 {
                self.judge().into_iter().for_each(&mut tell);
                self.len = 0;
            }
        }
    }

    /// Keeps as many as there is room for; gives back the others.
    fn keep<'a>(&mut self, bytes: &'a [u8], room: usize) -> &'a [u8] {
        let count = bytes.len().min(room - self.len);
        self.seen[self.len..self.len + count].copy_from_slice(&bytes[..count]);
        self.len += count;
        &bytes[count..]
    }

    /// What the frame says that is whole.
    fn judge(&mut self) -> Option<Verdict> {
        let (kind, flags, payload) = (self.seen[3], self.seen[4], &self.seen[HEAD..self.len]);
        let stream = u32::from_be_bytes([self.seen[5], self.seen[6], self.seen[7], self.seen[8]]);
        let last = flags & END_STREAM != 0;
        match kind {
            HEADERS if last => {
                let alone = flags & END_HEADERS != 0 && is_status_alone(payload);
                (!self.begun.remove(&stream) && alone).then_some(Verdict::HeadTooLarge)
            }
            HEADERS => {
                self.begun.insert(stream);
                if self.begun.len() > MOST_BEGUN {
                    self.begun.pop_first();
                }
                None
            }
            DATA if last => {
                self.begun.remove(&stream);
                None
            }
            RST_STREAM => {
                self.begun.remove(&stream);
                None
            }
            GOAWAY => ended(payload),
            _ => None,
        }
    }
}

/// What the payload of a GOAWAY says, if it is for a fault.
fn ended(payload: &[u8]) -> Option<Verdict> {
    let (code, words) = payload.get(4..)?.split_first_chunk()?;
    let reason = match u32::from_be_bytes(*code) {
        0 => return None,
        1 => "PROTOCOL_ERROR",
        2 => "INTERNAL_ERROR",
        3 => "FLOW_CONTROL_ERROR",
        6 => "FRAME_SIZE_ERROR",
        9 => "COMPRESSION_ERROR",
        11 => "ENHANCE_YOUR_CALM",
        _ => "another code",
    };
    Some(Verdict::Ended { reason, head: ABOUT_HEADS.contains(&words) })
}

/// Whether a block is one field, and that may be a status (RFC 7541, section 6): one of a table, or a literal whose name is in the
/// static one.
fn is_status_alone(block: &[u8]) -> bool {
    let mut rest = block;
    // A change of the table's size.
    while let [first, ..] = rest
        && first & 0xe0 == 0x20
    {
        let Some(behind) = behind_integer(rest, 5) else { return false };
        rest = behind;
    }
    match rest {
        [first, ..] if first & 0x80 != 0 => behind_integer(rest, 7).is_some_and(<[u8]>::is_empty),
        [0x48 | 0x08 | 0x18, len, value @ ..] => usize::from(len & 0x7f) == value.len(),
        _ => false,
    }
}

/// What is behind an integer whose prefix has so many bits (RFC 7541, section 5.1).
fn behind_integer(bytes: &[u8], bits: u32) -> Option<&[u8]> {
    let (first, rest) = bytes.split_first()?;
    let most = (1_u8 << bits) - 1;
    if first & most < most {
        return Some(rest);
    }
    let end = rest.iter().position(|byte| byte & 0x80 == 0)?;
    rest.get(end + 1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let len = (payload.len() as u32).to_be_bytes();
        [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// In pieces of each size the same is told.
    fn told(bytes: &[u8]) -> Vec<Verdict> {
        let of = |size: usize| {
            let (mut verdicts, mut told) = (Verdicts::default(), Vec::new());
            bytes.chunks(size).for_each(|piece| verdicts.read(piece, |verdict| told.push(verdict)));
            assert!(verdicts.begun.len() <= 1);
            told
        };
        let whole = of(bytes.len());
        for size in 1..60 {
            assert_eq!(of(size), whole, "in pieces of {size}");
        }
        whole
    }

    const WHOLE: u8 = END_STREAM | END_HEADERS;

    #[test]
    fn a_status_alone_is_a_head_that_is_too_large() {
        for block in [
            &[0x48, 0x82, 0x68, 0x01][..],
            b"\x08\x03431",
            &[0xbe],
            &[0xff, 0x05],
            &[0x20, 0x3f, 0xe1, 0x1f, 0x48, 0x82, 0x68, 0x01],
        ] {
            assert_eq!(told(&frame(HEADERS, WHOLE, 1, block)), [Verdict::HeadTooLarge], "{block:?}");
        }
        // With a date, with a body, with a block that goes on, or nothing.
        for (flags, block) in [
            (WHOLE, &[0x88, 0xbe][..]),
            (WHOLE, &[0x48, 0x82, 0x68, 0x01, 0xbe]),
            (WHOLE, &[0x61, 0x82, 0x68, 0x01]),
            (END_HEADERS, &[0x88]),
            (END_STREAM, &[0x88]),
            (WHOLE, &[]),
            (WHOLE, &[0x3f]),
            (WHOLE, &[0xff, 0x80]),
        ] {
            assert_eq!(told(&frame(HEADERS, flags, 1, block)), [], "{flags} {block:?}");
        }
    }

    #[test]
    fn trailers_of_one_field_are_none() {
        let begun = [frame(HEADERS, END_HEADERS, 1, &[0x88, 0xbe]), frame(DATA, 0, 1, &[7; 100])].concat();
        let trailers = frame(HEADERS, WHOLE, 1, &[0xbe]);
        assert_eq!(told(&[&begun[..], &trailers].concat()), []);
        // The stream is over then, however it ends.
        let ends = [trailers.clone(), frame(DATA, END_STREAM, 1, b"x"), frame(RST_STREAM, 0, 1, &[0; 4])];
        for end in ends {
            assert_eq!(told(&[&begun[..], &end, &trailers].concat()), [Verdict::HeadTooLarge]);
        }
    }

    /// h2 says nothing of a stream that the client resets.
    #[test]
    fn answers_that_the_client_broke_off_are_not_kept() {
        let mut verdicts = Verdicts::default();
        let mut told = Vec::new();
        let last = 20_001;
        for stream in (1..=last).step_by(2) {
            verdicts.read(&frame(HEADERS, END_HEADERS, stream, &[0x88, 0xbe]), |verdict| told.push(verdict));
        }
        assert!(verdicts.begun.len() <= MOST_BEGUN, "{} streams are kept", verdicts.begun.len());
        // Those of the last are known all the same.
        verdicts.read(&frame(HEADERS, WHOLE, last, &[0xbe]), |verdict| told.push(verdict));
        assert_eq!(told, []);
    }

    #[test]
    fn a_connection_that_ends_for_a_fault_says_which() {
        let goaway =
            |code: u8, words: &[u8]| frame(GOAWAY, 0, 0, &[&[0, 0, 0, 1, 0, 0, 0, code], words].concat());
        let bytes = [
            frame(4, 0, 0, &[0; 12]),
            goaway(0, b""),
            goaway(1, b""),
            goaway(11, b"too_many_resets"),
            goaway(11, b"too_many_continuations"),
            goaway(11, b"header_list_way_too_large"),
            goaway(200, &[b'x'; 100]),
            frame(GOAWAY, 0, 0, &[0; 3]),
        ];
        let ended = |reason, head| Verdict::Ended { reason, head };
        let calm = "ENHANCE_YOUR_CALM";
        assert_eq!(
            told(&bytes.concat()),
            [
                ended("PROTOCOL_ERROR", false),
                ended(calm, false),
                ended(calm, true),
                ended(calm, true),
                ended("another code", false)
            ]
        );
    }
}
