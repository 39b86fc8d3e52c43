//! The framing of RFC 6455 §5, without IO: what stands in a frame's header, what may follow what, and masks.
//!
//! It serves the carrier, and the mapping of WebSocket to plain streams above. To both, what arrives is a stream of bytes, so
//! a message is never put together: the payload of data frames is told as it comes, wherever messages and frames end, and
//! a message may have any length. All else is as strict as the RFC lets an end be.
//!
//! ```
//! use gkd_core::carrier::ws::frame::{Decoder, Head, Opcode};
//! use gkd_core::proto::id::Side;
//!
//! let mut wire = [Head::new(Opcode::Binary, 5, None).bytes(), b"hello"].concat();
//! let mut decoder = Decoder::new(Side::Server);
//! let len = decoder.decode(&mut wire);
//! assert_eq!(&wire[..len], b"hello");
//! ```

use gkd_proto::id::Side;

use super::utf8::{NotUtf8, Utf8};
use crate::identity;

/// The longest header: two bytes, a length of eight, a mask of four.
pub const HEAD_MAX: usize = 14;

/// The most that a control frame carries: §5.5.
pub const CONTROL_MAX: usize = 125;

/// The most that one data frame of a carrier may carry. The carrier sends a 60th of that in one; a proxy that frames anew may
/// send more. Nothing is allocated by it; a length beyond all sense is told at once, not waited for.
pub const FRAME_MAX: u64 = 16 * 1024 * 1024;

/// The most that one data frame can carry: 63 bits, §5.2.
pub const LENGTH_MAX: u64 = i64::MAX as u64;

/// What a frame is masked with; zero bytes change nothing.
pub type Mask = [u8; 4];

/// §5.2: bits and values of the first two bytes.
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const CONTROL: u8 = 0x08;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
const LENGTH_IN_2: u8 = 126;
const LENGTH_IN_8: u8 = 127;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of a message.
    Continuation = 0,
    /// A text message, or its beginning.
    Text = 1,
    /// A binary message, or its beginning.
    Binary = 2,
    /// The last that an end says.
    Close = 8,
    /// Asks for a Pong.
    Ping = 9,
    /// Answers a Ping.
    Pong = 10,
}

/// Why an end closes: the codes that this end sends (§7.4.1).
pub mod code {
    /// All was said.
    pub const NORMAL: u16 = 1000;
    /// The end goes away: a page that is left, a server that stops.
    pub const AWAY: u16 = 1001;
    /// The other end broke a rule.
    pub const PROTOCOL: u16 = 1002;
    /// The other end sent a kind of message that is not taken.
    pub const UNSUPPORTED: u16 = 1003;
    /// Text is no UTF-8.
    pub const NOT_UTF8: u16 = 1007;
    /// A frame is too long.
    pub const TOO_BIG: u16 = 1009;
    /// Something failed behind this end.
    pub const UNEXPECTED: u16 = 1011;
}

/// A rule of WebSocket that the other end broke, or a bound that it went beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// §5.2: bits of extensions, of which none was agreed on.
    #[error("a frame has reserved bits set")]
    Reserved,
    /// §5.2: an opcode of later.
    #[error("a frame has the reserved opcode {0}")]
    Opcode(u8),
    /// A text message, which is none of the carrier's.
    #[error("a text message came, where only binary ones are taken")]
    Text,
    /// §5.1: a server masks nothing.
    #[error("a server's frame is masked")]
    Masked,
    /// §5.1: a client masks all.
    #[error("a client's frame is not masked")]
    Unmasked,
    /// §5.5.
    #[error("a control frame is in fragments")]
    ControlInFragments,
    /// §5.5.
    #[error("a control frame carries more than {CONTROL_MAX} bytes")]
    LongControl,
    /// §5.2: the fewest bytes that hold it, and 63 bits.
    #[error("a frame's length is not written as it has to be")]
    Length,
    /// More than this end takes.
    #[error("a frame has {len} bytes, more than the {most} that are taken")]
    TooBig {
        /// What the frame says.
        len: u64,
        /// What is taken.
        most: u64,
    },
    /// §5.4: no message is to be continued.
    #[error("a message is continued that was not begun")]
    NotBegun,
    /// §5.4: another message is not at its end.
    #[error("a message begins within another")]
    NotEnded,
    /// §5.5.1: a code has two bytes.
    #[error("a close frame carries one byte")]
    CloseLength,
    /// §7.4: a code that is reserved, or never sent.
    #[error("a close frame has the code {0}, which no end may send")]
    CloseCode(u16),
    /// §5.5.1.
    #[error("the reason in a close frame is not UTF-8")]
    CloseReason,
    /// §8.1.
    #[error("a text message is not UTF-8")]
    NotUtf8,
}

impl Violation {
    /// The code with which a connection is closed upon it.
    pub fn code(self) -> u16 {
        match self {
            Self::Text => code::UNSUPPORTED,
            Self::CloseReason | Self::NotUtf8 => code::NOT_UTF8,
            Self::TooBig { .. } => code::TOO_BIG,
            _ => code::PROTOCOL,
        }
    }
}

/// What a control frame carries: [`CONTROL_MAX`] bytes at the most.
#[derive(Clone, Copy, Debug)]
pub struct ControlPayload {
    bytes: [u8; CONTROL_MAX],
    len: usize,
}

impl ControlPayload {
    /// Nothing.
    pub const EMPTY: Self = Self { bytes: [0; CONTROL_MAX], len: 0 };

    /// Of a close frame with a code and no reason.
    pub fn of_close(code: u16) -> Self {
        Self::of_close_because(code, "")
    }

    /// Of a close frame with a code and a reason, of which as many characters as there is room for.
    pub fn of_close_because(code: u16, reason: &str) -> Self {
        let mut payload = Self::EMPTY;
        payload.push(&code.to_be_bytes());
        payload.push(&reason.as_bytes()[..reason.floor_char_boundary(CONTROL_MAX - payload.len)]);
        payload
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// As much of `bytes` as there is room for.
    fn push(&mut self, bytes: &[u8]) {
        let len = bytes.len().min(CONTROL_MAX - self.len);
        self.bytes[self.len..self.len + len].copy_from_slice(&bytes[..len]);
        self.len += len;
    }
}

/// Why nothing more is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The other end closes, with this code if it has one.
    Closed(Option<u16>),
    /// It broke a rule.
    Broken(Violation),
}

/// Takes the frames of the other end apart. It holds a few hundred bytes, whatever comes.
#[derive(Debug)]
pub struct Decoder {
    /// The other end's side.
    from: Side,
    state: State,
    /// A message was begun and has not ended.
    within: bool,
    takes_text: bool,
    /// The most that a data frame may carry.
    frame_max: u64,
    /// Of the text message that was begun.
    text: Option<Utf8>,
    end: Option<End>,
    /// The newest Ping that waits for an answer.
    ping: Option<ControlPayload>,
}

#[derive(Debug)]
enum State {
    Head { bytes: [u8; HEAD_MAX], len: usize },
    Data { left: u64, mask: Mask },
    Control { opcode: Opcode, left: usize, mask: Mask, payload: ControlPayload },
}

impl State {
    const START: Self = Self::Head { bytes: [0; HEAD_MAX], len: 0 };
}

impl Decoder {
    /// For the frames that `from` sends to a carrier. A text message breaks a rule, and so does a frame above [`FRAME_MAX`].
    pub fn new(from: Side) -> Self {
        Self {
            from,
            state: State::START,
            within: false,
            takes_text: false,
            frame_max: FRAME_MAX,
            text: None,
            end: None,
            ping: None,
        }
    }

    /// The same that takes text messages, and tells their bytes as it tells those of binary ones.
    pub fn taking_text(from: Side) -> Self {
        Self { takes_text: true, ..Self::new(from) }
    }

    /// The same that takes frames of this length and no longer ones; nothing is allocated by it. Who hands bytes on as they
    /// come can take [`LENGTH_MAX`]: many an end sends each message in one frame, however long it is.
    #[must_use]
    pub fn with_frame_max(self, most: u64) -> Self {
        Self { frame_max: most, ..self }
    }

    /// Decodes what came, in place: the payload of data frames stands at the front of `bytes` then, and its length is
    /// returned. Nothing behind an [`end`](Self::end) is looked at. Text is judged as it comes: the bytes of one call and
    /// one frame that are no UTF-8 with those before them are not told.
    pub fn decode(&mut self, bytes: &mut [u8]) -> usize {
        let (mut from, mut to) = (0, 0);
        while self.end.is_none() && from < bytes.len() {
            match &mut self.state {
                State::Head { bytes: head, len } => {
                    let whole = head_len(&head[..*len]);
                    let more = (whole - *len).min(bytes.len() - from);
                    head[*len..*len + more].copy_from_slice(&bytes[from..from + more]);
                    *len += more;
                    from += more;
                    let (head, len) = (*head, *len);
                    if let Err(violation) = self.head(&head[..len]) {
                        self.end = Some(End::Broken(violation));
                    }
                }
                State::Data { left, mask } => {
                    let here = (bytes.len() - from).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    if from != to {
                        bytes.copy_within(from..from + here, to);
                    }
                    if self.from == Side::Client {
                        unmask(&mut bytes[to..to + here], mask);
                    }
                    *left -= here as u64;
                    let frame_ends = *left == 0;
                    if let Some(text) = &mut self.text
                        && let Err(NotUtf8) = text.check(&bytes[to..to + here])
                    {
                        self.end = Some(End::Broken(Violation::NotUtf8));
                        return to;
                    }
                    (from, to) = (from + here, to + here);
                    if frame_ends && let Err(violation) = self.data_ends() {
                        self.end = Some(End::Broken(violation));
                    }
                }
                State::Control { left, mask, payload, .. } => {
                    let here = (bytes.len() - from).min(*left);
                    let part = &mut bytes[from..from + here];
                    unmask(part, mask);
                    payload.push(part);
                    from += here;
                    *left -= here;
                    self.control();
                }
            }
        }
        to
    }

    /// Why nothing more is decoded.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// What the other end's Close carries, to be answered with the same; nothing before that.
    pub fn close(&self) -> Option<&ControlPayload> {
        match (&self.state, self.end) {
            (State::Control { payload, .. }, Some(End::Closed(_))) => Some(payload),
            _ => None,
        }
    }

    /// Whether the other end may stop here: not within a frame or a message.
    pub fn is_between(&self) -> bool {
        self.close().is_some() || !self.within && matches!(self.state, State::Head { len: 0, .. })
    }

    /// What is to be answered with a Pong: the newest Ping (§5.5.3).
    pub fn take_ping(&mut self) -> Option<ControlPayload> {
        self.ping.take()
    }

    /// Judges what there is of a header, and begins what it is the header of once it is whole.
    fn head(&mut self, head: &[u8]) -> Result<(), Violation> {
        let &[first, second, ref rest @ ..] = head else { return Ok(()) };
        let (opcode, fin) = (self.first(first)?, first & FIN != 0);
        match (self.from, second & MASKED != 0) {
            (Side::Client, false) => return Err(Violation::Unmasked),
            (Side::Server, true) => return Err(Violation::Masked),
            _ => {}
        }
        let short = second & LENGTH;
        if first & CONTROL != 0 && short >= LENGTH_IN_2 {
            return Err(Violation::LongControl);
        }
        if head.len() < head_len(head) {
            return Ok(());
        }
        let (length, mask) = rest.split_at(rest.len() - mask_len(second));
        let length = match length.try_into() {
            Ok(eight) => long_length(eight)?,
            Err(_) => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let length = match short {
            LENGTH_IN_2 if length < u64::from(LENGTH_IN_2) => return Err(Violation::Length),
            LENGTH_IN_2 | LENGTH_IN_8 => length,
            short => short.into(),
        };
        let mask = mask.try_into().unwrap_or_default();
        if first & CONTROL != 0 {
            let (left, payload) = (usize::from(short), ControlPayload::EMPTY);
            self.state = State::Control { opcode, left, mask, payload };
            self.control();
            return Ok(());
        }
        if length > self.frame_max {
            return Err(Violation::TooBig { len: length, most: self.frame_max });
        }
        self.within = !fin;
        match opcode {
            Opcode::Text => self.text = Some(Utf8::default()),
            Opcode::Binary => self.text = None,
            _ => {}
        }
        if length == 0 {
            return self.data_ends();
        }
        self.state = State::Data { left: length, mask };
        Ok(())
    }

    /// Behind a data frame: a text message that ends with it must be whole.
    fn data_ends(&mut self) -> Result<(), Violation> {
        self.state = State::START;
        match self.text {
            Some(text) if !self.within => text.end().map_err(|NotUtf8| Violation::NotUtf8),
            _ => Ok(()),
        }
    }

    /// What the first byte allows, and whether it may come now.
    fn first(&self, first: u8) -> Result<Opcode, Violation> {
        if first & RESERVED != 0 {
            return Err(Violation::Reserved);
        }
        let fin = first & FIN != 0;
        match (first & OPCODE, self.within) {
            (0, true) => Ok(Opcode::Continuation),
            (0, false) => Err(Violation::NotBegun),
            (1 | 2, true) => Err(Violation::NotEnded),
            (1, false) if self.takes_text => Ok(Opcode::Text),
            (1, false) => Err(Violation::Text),
            (2, false) => Ok(Opcode::Binary),
            (8..=10, _) if !fin => Err(Violation::ControlInFragments),
            (8, _) => Ok(Opcode::Close),
            (9, _) => Ok(Opcode::Ping),
            (10, _) => Ok(Opcode::Pong),
            (other, _) => Err(Violation::Opcode(other)),
        }
    }

    /// Acts on a control frame once it is whole.
    fn control(&mut self) {
        let State::Control { opcode, left: 0, payload, .. } = &self.state else { return };
        match opcode {
            Opcode::Close => {
                self.end = Some(match close_code(payload.bytes()) {
                    Ok(code) => End::Closed(code),
                    Err(violation) => End::Broken(violation),
                });
                // It is the last: it stays where it is for whoever wants to know it.
                return;
            }
            Opcode::Ping => self.ping = Some(*payload),
            // A Pong that nobody asked for is allowed, and means nothing here.
            _ => {}
        }
        self.state = State::START;
    }
}

/// How long the header is that begins so; as far as that can be told, for one of which too little is there.
fn head_len(head: &[u8]) -> usize {
    let Some(second) = head.get(1) else { return 2 };
    let length = match second & LENGTH {
        LENGTH_IN_2 => 2,
        LENGTH_IN_8 => 8,
        _ => 0,
    };
    2 + length + mask_len(*second)
}

fn mask_len(second: u8) -> usize {
    if second & MASKED == 0 { 0 } else { size_of::<Mask>() }
}

fn long_length(bytes: [u8; 8]) -> Result<u64, Violation> {
    let length = u64::from_be_bytes(bytes);
    let is_right = length > u64::from(u16::MAX) && length <= LENGTH_MAX;
    is_right.then_some(length).ok_or(Violation::Length)
}

/// What a Close says (§5.5.1, §7.4): the codes of the RFC and those of its registry that may be sent.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    let (code, reason) = match payload {
        [] => return Ok(None),
        [_] => return Err(Violation::CloseLength),
        [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
    };
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::CloseCode(code));
    }
    std::str::from_utf8(reason).map(|_| Some(code)).map_err(|_| Violation::CloseReason)
}

/// A header as it is sent: of one whole message, or of a control frame.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; HEAD_MAX],
    len: usize,
}

impl Head {
    /// Of a frame with so much payload; a client's has a mask.
    pub fn new(opcode: Opcode, len: usize, mask: Option<Mask>) -> Self {
        let mut head = Self { bytes: [0; HEAD_MAX], len: 0 };
        let masked = if mask.is_some() { MASKED } else { 0 };
        head.push(&[FIN | opcode as u8]);
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(short), _) if short < LENGTH_IN_2 => head.push(&[masked | short]),
            (_, Ok(len)) => {
                head.push(&[masked | LENGTH_IN_2]);
                head.push(&len.to_be_bytes());
            }
            _ => {
                head.push(&[masked | LENGTH_IN_8]);
                head.push(&(len as u64).to_be_bytes());
            }
        }
        head.push(&mask.unwrap_or_default()[..mask.map_or(0, |mask| mask.len())]);
        head
    }

    /// The bytes, which go ahead of the payload.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// A mask that nobody can foretell, which a client draws anew for each frame (§5.3).
///
/// # Panics
/// If the system has no randomness to give.
pub fn random_mask() -> Mask {
    identity::random()
}

/// So many bytes are masked at a time, which the compiler does in one step or two.
const STRIDE: usize = 32;

fn stride(mask: Mask) -> [u8; STRIDE] {
    std::array::from_fn(|index| mask[index % mask.len()])
}

/// Takes the mask off (§5.3), and turns it to where the next byte's is.
fn unmask(bytes: &mut [u8], mask: &mut Mask) {
    let wide = stride(*mask);
    let (whole, rest) = bytes.as_chunks_mut::<STRIDE>();
    for chunk in whole {
        for (byte, with) in chunk.iter_mut().zip(&wide) {
            *byte ^= with;
        }
    }
    for (byte, with) in rest.iter_mut().zip(&wide) {
        *byte ^= with;
    }
    mask.rotate_left(bytes.len() % size_of::<Mask>());
}

/// Copies with the mask on, and turns it likewise. Both are of one length.
pub fn copy_masked(from: &[u8], to: &mut [u8], mask: &mut Mask) {
    debug_assert_eq!(from.len(), to.len());
    let wide = stride(*mask);
    let (whole, rest) = from.as_chunks::<STRIDE>();
    let (whole_to, rest_to) = to.as_chunks_mut::<STRIDE>();
    for (from, to) in whole.iter().zip(whole_to) {
        for ((from, to), with) in from.iter().zip(to).zip(&wide) {
            *to = from ^ with;
        }
    }
    for ((from, to), with) in rest.iter().zip(rest_to).zip(&wide) {
        *to = from ^ with;
    }
    mask.rotate_left(from.len() % size_of::<Mask>());
}

#[cfg(test)]
mod tests;
