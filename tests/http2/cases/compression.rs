//! Blocks of headers that cannot be read (RFC 7541).

use super::{Case, GENERAL, connection};
use crate::frames::{COMPRESSION_ERROR, HEADERS, PROTOCOL_ERROR, WHOLE, frame, request, string};
use crate::peer::Seen;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = tables();
    cases.extend(strings());
    cases
}

/// A whole request with this behind it.
fn with(rest: &[u8]) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &[&request("GET", "/", &[])[..], rest].concat())
}

fn tables() -> Vec<Case> {
    vec![
        Case::new(
            "7541, 2.3.3: a field of a place that there is not",
            connection(COMPRESSION_ERROR),
            |peer| {
                peer.send(with(&[0x80 | 70]));
            },
        )
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new(
            "7541, 2.3.3: the first place behind an empty table",
            connection(COMPRESSION_ERROR),
            |peer| {
                peer.send(with(&[0x80 | 62]));
            },
        )
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new(
            "7541, 2.3.3: a name of a place that there is not",
            connection(COMPRESSION_ERROR),
            |peer| {
                peer.send(with(&[&[0x7f, 7][..], &string(b"x")].concat()));
            },
        )
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("7541, 4.2: a change of the size behind a field", connection(COMPRESSION_ERROR), |peer| {
            peer.send(with(&[0x20]));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("7541, 6.1: a field of place 0", connection(COMPRESSION_ERROR), |peer| {
            peer.send(with(&[0x80]));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("7541, 6.3: a size above what was let", connection(COMPRESSION_ERROR), |peer| {
            // 4097.
            let block = [&[0x3f, 0xe2, 0x1f][..], &request("GET", "/", &[])].concat();
            peer.send(frame(HEADERS, WHOLE, 1, &block));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("7541, 6.3: a size and nothing", connection(COMPRESSION_ERROR), |peer| {
            // All that a change of size is wrong in is its number, which goes on for ever.
            peer.send(frame(HEADERS, WHOLE, 1, &[0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
    ]
}

fn strings() -> Vec<Case> {
    vec![
        Case::new("7541, 5.1: a place above all numbers", connection(COMPRESSION_ERROR), |peer| {
            peer.send(with(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("7541, 5.1: a length that is not whole", connection(COMPRESSION_ERROR), |peer| {
            peer.send(with(&[0x00, 0x7f, 0x80]));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("7541, 5.2: a string longer than its block", connection(COMPRESSION_ERROR), |peer| {
            peer.send(with(&[0x00, 0x05, b'x']));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new(
            "7541, 5.2: Huffman's code filled up with more than 7 bits",
            connection(COMPRESSION_ERROR),
            |peer| {
                // `x: a`, and a byte of ones.
                peer.send(with(b"\x00\x01x\x82\x1f\xff"));
            },
        )
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new(
            "7541, 5.2: Huffman's code filled up with noughts",
            connection(COMPRESSION_ERROR),
            |peer| {
                peer.send(with(b"\x00\x01x\x81\x18"));
            },
        )
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("7541, 5.2: the end of strings within one", connection(COMPRESSION_ERROR), |peer| {
            peer.send(with(b"\x00\x01x\x84\xff\xff\xff\xff"));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
    ]
}
