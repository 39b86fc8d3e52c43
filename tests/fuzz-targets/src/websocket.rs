//! What the other end of a WebSocket sends, behind the handshake. A plain reading of RFC 6455 §5 that stands here, frame by
//! frame, says what is told of it: the same payload, the same end, at the same place, however the bytes come in pieces. Of
//! text that is no UTF-8 what was told before is the beginning of what the frame held.

use gkd_core::carrier::ws::frame::{Decoder, End, FRAME_MAX, LENGTH_MAX};
use gkd_core::proto::id::Side;

use crate::input::Input;

/// How a stream of frames ended, or that it did not.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// More may come; whether it may end here.
    Open(bool),
    Closed(Option<u16>),
    /// With the code that the breach is answered with.
    Broken(u16),
}

/// The first byte chooses who sends, whether text is taken and whether frames may have any length, the second how the
/// bytes come in pieces; the rest is what comes.
pub fn websocket(data: &[u8]) {
    let mut input = Input::new(data);
    let (manner, pieces) = (input.byte(), usize::from(input.byte()));
    let from = if manner & 1 == 0 { Side::Client } else { Side::Server };
    let rules = Rules {
        from,
        takes_text: manner & 2 != 0,
        frame_max: if manner & 4 == 0 { FRAME_MAX } else { LENGTH_MAX },
    };
    let came = data.get(2..).unwrap_or_default();
    let (expected, outcome) = read(came, &rules);
    for size in [came.len().max(1), 1, pieces.max(1)] {
        let decoder = if rules.takes_text { Decoder::taking_text(from) } else { Decoder::new(from) };
        let mut decoder = decoder.with_frame_max(rules.frame_max);
        let mut told = Vec::new();
        for piece in came.chunks(size) {
            let mut piece = piece.to_vec();
            let len = decoder.decode(&mut piece);
            told.extend_from_slice(&piece[..len]);
        }
        let found = match decoder.end() {
            None => Outcome::Open(decoder.is_between()),
            Some(End::Closed(code)) => Outcome::Closed(code),
            Some(End::Broken(violation)) => Outcome::Broken(violation.code()),
        };
        assert_eq!(found, outcome, "in pieces of {size}");
        if outcome == Outcome::Broken(1007) {
            assert!(expected.starts_with(&told), "in pieces of {size}");
        } else {
            assert_eq!(told, expected, "in pieces of {size}");
        }
        if let Some(ping) = decoder.take_ping() {
            assert!(ping.bytes().len() <= 125);
        }
    }
}

/// What a frame may be.
struct Rules {
    from: Side,
    takes_text: bool,
    frame_max: u64,
}

/// The payload of data frames, and the outcome.
fn read(mut bytes: &[u8], rules: &Rules) -> (Vec<u8>, Outcome) {
    let mut payload = Vec::new();
    // Of the message that was begun: whether it is text, and where its payload begins.
    let mut message: Option<(bool, usize)> = None;
    while !bytes.is_empty() {
        let frame = match Frame::read(bytes, rules, message.is_some()) {
            Ok(Some(frame)) => frame,
            Ok(None) => return (payload, Outcome::Open(false)),
            Err(code) => return (payload, Outcome::Broken(code)),
        };
        let (data, rest) = frame.split(bytes);
        match (frame.opcode, rest) {
            (8, Some(_)) => return (payload, closed(&data)),
            (9 | 10, Some(_)) | (8..=10, None) => {}
            (opcode, _) => {
                let (text, start) = message.unwrap_or((opcode == 1, payload.len()));
                payload.extend_from_slice(&data);
                let ends = frame.fin && rest.is_some();
                if text && !is_text(&payload[start..], ends) {
                    return (payload, Outcome::Broken(1007));
                }
                message = (!ends).then_some((text, start));
            }
        }
        match rest {
            Some(rest) => bytes = rest,
            None => return (payload, Outcome::Open(false)),
        }
    }
    (payload, Outcome::Open(message.is_none()))
}

/// A frame's header.
struct Frame {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    /// Bytes of the header, and of what it carries.
    head: usize,
    len: usize,
}

impl Frame {
    /// None while the header is not whole; else the code of what is wrong, as early as it can be told.
    fn read(bytes: &[u8], rules: &Rules, within: bool) -> Result<Option<Self>, u16> {
        let &[first, second, ..] = bytes else { return Ok(None) };
        let (fin, opcode, control) = (first & 0x80 != 0, first & 15, first & 8 != 0);
        let comes = match opcode {
            0 => within,
            1 | 2 => !within,
            8..=10 => fin,
            _ => false,
        };
        if first & 0x70 != 0 || !comes {
            return Err(1002);
        }
        if opcode == 1 && !rules.takes_text {
            return Err(1003);
        }
        let (masked, short) = (second & 0x80 != 0, second & 127);
        if masked != (rules.from == Side::Client) || (control && short > 125) {
            return Err(1002);
        }
        let extended = [0, 2, 8][usize::from(short.saturating_sub(125))];
        let head = 2 + extended + if masked { 4 } else { 0 };
        if bytes.len() < head {
            return Ok(None);
        }
        let long = bytes[2..2 + extended].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let len = match short {
            126 if long < 126 => return Err(1002),
            127 if long < 65_536 || long > i64::MAX as u64 => return Err(1002),
            126 | 127 => long,
            short => u64::from(short),
        };
        if len > rules.frame_max {
            return Err(1009);
        }
        let mask = if masked { bytes[head - 4..head].try_into().unwrap_or_default() } else { [0; 4] };
        Ok(Some(Self { fin, opcode, mask, head, len: usize::try_from(len).unwrap_or(usize::MAX) }))
    }

    /// What there is of its payload, and what stands behind it; nothing does while it is not whole.
    fn split<'a>(&self, bytes: &'a [u8]) -> (Vec<u8>, Option<&'a [u8]>) {
        let behind = &bytes[self.head..];
        let here = behind.len().min(self.len);
        let data = behind[..here].iter().zip(self.mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        (data.collect(), behind.get(self.len..))
    }
}

/// Whether it is text, or can become so while more may come.
fn is_text(bytes: &[u8], whole: bool) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => !whole && error.error_len().is_none(),
    }
}

/// What a Close means that carries this.
fn closed(payload: &[u8]) -> Outcome {
    match payload {
        [] => Outcome::Closed(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            match (code, std::str::from_utf8(reason)) {
                (1000..=1003 | 1007..=1014 | 3000..=4999, Ok(_)) => Outcome::Closed(Some(code)),
                (1000..=1003 | 1007..=1014 | 3000..=4999, Err(_)) => Outcome::Broken(1007),
                _ => Outcome::Broken(1002),
            }
        }
        _ => Outcome::Broken(1002),
    }
}
