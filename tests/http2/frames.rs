//! Frames of HTTP/2 (RFC 9113, section 6) and header blocks (RFC 7541) as bytes, right ones and wrong ones.

/// What a connection begins with (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// A kind that nobody has defined.
pub(crate) const UNKNOWN: u8 = 0x7a;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;
/// A whole request without a body.
pub(crate) const WHOLE: u8 = END_STREAM | END_HEADERS;

pub(crate) const NO_ERROR: u32 = 0;
pub(crate) const PROTOCOL_ERROR: u32 = 1;
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const STREAM_CLOSED: u32 = 5;
pub(crate) const FRAME_SIZE_ERROR: u32 = 6;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const COMPRESSION_ERROR: u32 = 9;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

/// Names of settings (RFC 9113, section 6.5.2, and RFC 8441).
pub(crate) const ENABLE_PUSH: u16 = 2;
pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
pub(crate) const MAX_FRAME_SIZE: u16 = 5;
pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// The largest payload that a server takes which did not ask for more.
pub(crate) const USUAL_FRAME: usize = 16_384;

/// A frame that came.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The number at this place of the payload.
    pub(crate) fn number(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub(crate) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Any frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A frame whose payload is a number.
pub(crate) fn number(kind: u8, stream: u32, number: u32) -> Vec<u8> {
    frame(kind, 0, stream, &number.to_be_bytes())
}

pub(crate) fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    let payload = settings.iter().flat_map(|(name, value)| {
        name.to_be_bytes().into_iter().chain(value.to_be_bytes()).collect::<Vec<_>>()
    });
    frame(SETTINGS, 0, 0, &payload.collect::<Vec<_>>())
}

/// A stream's place in the order of RFC 7540, which RFC 9113 has done away with: it must be read all the same.
pub(crate) fn priority(on: u32, exclusive: bool, weight: u8) -> Vec<u8> {
    let on = on | u32::from(exclusive) << 31;
    [&on.to_be_bytes()[..], &[weight]].concat()
}

/// An integer behind a prefix of so many bits (RFC 7541, section 5.1).
fn integer(first: u8, bits: u32, value: usize) -> Vec<u8> {
    let most = (1_usize << bits) - 1;
    if value < most {
        return vec![first | value as u8];
    }
    let (mut out, mut left) = (vec![first | most as u8], value - most);
    while left >= 128 {
        out.push((left % 128) as u8 | 128);
        left /= 128;
    }
    out.push(left as u8);
    out
}

/// A string as it is, without Huffman's code.
pub(crate) fn string(bytes: &[u8]) -> Vec<u8> {
    [&integer(0, 7, bytes.len()), bytes].concat()
}

/// A field with a new name (RFC 7541, section 6.2): `first` tells whether it is to be kept (0x40), not (0), or never (0x10).
pub(crate) fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
    [vec![first], string(name), string(value)].concat()
}

/// Fields that are not kept.
pub(crate) fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| literal(0, name.as_bytes(), value.as_bytes())).collect()
}

/// A request for a path, by this method and with more headers.
pub(crate) fn request(method: &str, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")];
    [fields(&pseudo), fields(more)].concat()
}

/// A request with these fields alone.
pub(crate) fn only(stream: u32, all: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &fields(all))
}

/// A whole GET.
pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &request("GET", path, &[]))
}

/// A whole GET with more headers.
pub(crate) fn get_with(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &request("GET", "/", more))
}

/// The head of a POST whose body is to come.
pub(crate) fn post(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &request("POST", "/", more))
}

/// A piece of a body, perhaps the last.
pub(crate) fn data(stream: u32, last: bool, bytes: &[u8]) -> Vec<u8> {
    frame(DATA, u8::from(last), stream, bytes)
}

/// The status that a block begins with; none where it is not the first field, or is in a table that is not kept here.
pub(crate) fn status(block: &[u8]) -> Option<u16> {
    // A change of the table's size stands in front of it.
    let skip = block.iter().take_while(|byte| **byte & 0xe0 == 0x20).count();
    match &block[skip..] {
        [indexed @ 0x88..=0x8e, ..] => Some([200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]),
        // A literal whose name is that of a status.
        [0x48 | 0x08 | 0x18, len, rest @ ..] if len & 0x80 == 0 => {
            std::str::from_utf8(rest.get(..usize::from(*len))?).ok()?.parse().ok()
        }
        [0x48 | 0x08 | 0x18, len, rest @ ..] => digits(rest.get(..usize::from(len & 0x7f))?),
        _ => None,
    }
}

/// Digits in Huffman's code (RFC 7541, appendix B): 0 to 2 have five bits, the others six.
fn digits(bytes: &[u8]) -> Option<u16> {
    let bits: Vec<u8> = bytes.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let value = |bits: &[u8]| bits.iter().fold(0_u8, |value, bit| value << 1 | bit);
    let (mut at, mut number) = (0, 0_u16);
    while bits.len() - at >= 5 {
        let (digit, len) = match value(&bits[at..at + 5]) {
            short @ 0..=2 => (short, 5),
            _ if bits.len() - at < 6 => break,
            _ => match value(&bits[at..at + 6]) {
                long @ 0x19..=0x1f => (long - 0x19 + 3, 6),
                // What fills the last byte.
                _ => break,
            },
        };
        number = number.checked_mul(10)?.checked_add(digit.into())?;
        at += len;
    }
    Some(number)
}

#[test]
fn a_status_is_read_in_each_form() {
    assert_eq!(status(&[0x88, 0x61]), Some(200));
    assert_eq!(status(&[0x20, 0x8d]), Some(404));
    assert_eq!(status(b"\x08\x03431"), Some(431));
    // 302 and 307 of RFC 7541, appendix C.
    assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
    assert_eq!(status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), Some(307));
    assert_eq!(status(&[0xc0]), None);
}
