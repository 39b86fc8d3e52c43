//! What comes in on a server's port, told by its first bytes.

use super::plain;

/// What a connection's first bytes say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// The start of a TLS handshake; whether it speaks gkd inside, its ALPN tells.
    Tls,
    /// The unencrypted carrier.
    Plain,
    /// HTTP/1: perhaps a WebSocket, perhaps a visitor.
    Http,
    /// Something else: SSH, noise.
    Foreign,
    /// Too few to tell; never at [`FirstBytes::ENOUGH`] bytes or more.
    NeedMore,
}

impl FirstBytes {
    /// So many bytes always tell.
    pub const ENOUGH: usize = plain::PREFACE.len();
}

/// A TLS record of type handshake (22) from any version that TLS 1.3 imitates: RFC 8446 §5.1 has 0x0301 and
/// 0x0303; the record versions of no other protocol begin so.
const TLS_RECORD: [u8; 2] = [0x16, 0x03];

/// The highest minor version in a record of TLS, that of TLS 1.3 itself, which nobody should send.
const TLS_MINOR_MAX: u8 = 4;

/// The fewest letters of an HTTP method (RFC 9110 §9.3: GET, PUT). The longest that are in use have nine, and all of
/// them are capitals.
const METHOD_MIN: usize = 3;

/// Tells what `first`, the bytes that came so far, begins. What is foreign is so at its first foreign byte.
pub fn recognise(first: &[u8]) -> FirstBytes {
    let agree = |with: &[u8]| first.iter().zip(with).all(|(a, b)| a == b);
    if agree(plain::PREFACE) {
        return if first.len() >= plain::PREFACE.len() { FirstBytes::Plain } else { FirstBytes::NeedMore };
    }
    if first.first().is_some_and(u8::is_ascii_uppercase) {
        return method(first);
    }
    match first.get(TLS_RECORD.len()) {
        _ if !agree(&TLS_RECORD) => FirstBytes::Foreign,
        None => FirstBytes::NeedMore,
        Some(minor) if (1..=TLS_MINOR_MAX).contains(minor) => FirstBytes::Tls,
        Some(_) => FirstBytes::Foreign,
    }
}

/// What begins with a capital: a method and a blank, or something else.
fn method(first: &[u8]) -> FirstBytes {
    let first = &first[..first.len().min(FirstBytes::ENOUGH)];
    match first.iter().position(|byte| !byte.is_ascii_uppercase()) {
        Some(end) if first[end] == b' ' && end >= METHOD_MIN => FirstBytes::Http,
        None if first.len() < FirstBytes::ENOUGH => FirstBytes::NeedMore,
        _ => FirstBytes::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(whole: &[u8], tells_at: usize, what: FirstBytes) {
        for len in 0..=whole.len() {
            let expected = if len < tells_at { FirstBytes::NeedMore } else { what };
            assert_eq!(recognise(&whole[..len]), expected, "{:?}", String::from_utf8_lossy(&whole[..len]));
        }
    }

    #[test]
    fn every_prefix_of_what_gkd_speaks() {
        expect(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 3, FirstBytes::Tls);
        expect(b"\x16\x03\x03\x02\x00", 3, FirstBytes::Tls);
        expect(b"gkd/1 plain\nand what follows", FirstBytes::ENOUGH, FirstBytes::Plain);
        expect(b"GET / HTTP/1.1\r\n", 4, FirstBytes::Http);
        expect(b"PROPPATCH /a HTTP/1.1\r\n", 10, FirstBytes::Http);
    }

    #[test]
    fn every_prefix_of_what_it_does_not_speak() {
        for (whole, tells_at) in [
            (&b"GE / HTTP/1.1\r\n"[..], 3),
            (b"GET\t/ HTTP/1.1\r\n", 4),
            (b"SSH-2.0-OpenSSH_9.9", 4),
            (b"ABCDEFGHIJKLMNOP / HTTP/1.1", 12),
            (b"\x05\x01\x00", 1),
            (b"\x00\x00\x00\x00", 1),
            (b"\x15\x03\x01\x00\x02", 1),
            (b"\x16\x02\x01", 2),
            (b"\x16\x03\x00\x00", 3),
            (b"\x16\x03\x05\x00", 3),
            (b"get / http/1.1", 2),
            (b"gkd/2 plain\n", 5),
            (b"gkd/1 plain\r\n", 12),
        ] {
            expect(whole, tells_at, FirstBytes::Foreign);
        }
    }

    #[test]
    fn every_first_byte_alone() {
        for byte in 0..=u8::MAX {
            let may_go_on = byte == 0x16 || byte == b'g' || byte.is_ascii_uppercase();
            let expected = if may_go_on { FirstBytes::NeedMore } else { FirstBytes::Foreign };
            assert_eq!(recognise(&[byte]), expected, "{byte:#04x}");
        }
    }
}
