//! The preface, and frames as such: their heads, their sizes, the block of headers that they may carry (RFC 9113, sections 3.4,
//! 4 and 5.5).

use super::{Begin, Case, GENERAL, answered, connection, stream};
use crate::frames::{
    COMPRESSION_ERROR, CONTINUATION, DATA, END_HEADERS, END_STREAM, FRAME_SIZE_ERROR, HEADERS, PING, PREFACE,
    PRIORITY, PROTOCOL_ERROR, SETTINGS, UNKNOWN, USUAL_FRAME, WHOLE, data, frame, get, post, priority,
    request, settings,
};
use crate::peer::{Peer, Seen};

/// The connection's answer in lines, which is an HTTP/1.1 one: this is what a port without TLS begins with.
fn refused_in_lines(peer: &mut Peer) {
    let mut answer = String::new();
    std::io::Read::read_to_string(peer.socket(), &mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.1 505 "), "{answer}");
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = prefaces();
    cases.extend(frames());
    cases.extend(sizes());
    cases.extend(blocks());
    cases
}

fn prefaces() -> Vec<Case> {
    vec![
        Case::new("3.4: a preface that is none", [Seen::Closed], |peer| {
            peer.send(b"INVALID CONNECTION PREFACE\r\n\r\n");
            refused_in_lines(peer);
        })
        .begins(Begin::Bare),
        Case::new("3.4: a preface that goes wrong in its second half", [Seen::Closed], |peer| {
            peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX");
            refused_in_lines(peer);
        })
        .begins(Begin::Bare),
        Case::new("3.4: a preface byte by byte", answered(1), |peer| {
            for byte in PREFACE {
                peer.send([*byte]);
            }
            peer.send([settings(&[]), get(1, "/")].concat());
        })
        .begins(Begin::Bare),
        Case::new("3.4: no SETTINGS behind the preface", connection(PROTOCOL_ERROR), |peer| {
            peer.send([PREFACE, &frame(PING, 0, 0, &[0; 8])].concat());
        })
        .differs(Seen::Nothing, "what was not set is as if it were set to what it is by itself")
        .begins(Begin::Bare),
    ]
}

fn frames() -> Vec<Case> {
    vec![
        Case::new("4.1: a frame of an unknown kind is passed over", answered(1), |peer| {
            peer.send([frame(UNKNOWN, 0xff, 0, b"12345678"), get(1, "/")].concat());
        }),
        Case::new("5.5: a frame of an unknown kind on a stream is passed over", answered(1), |peer| {
            peer.send(
                [frame(UNKNOWN, 0, 1, &[]), post(1, &[]), frame(UNKNOWN, 0, 1, b"x"), data(1, true, b"")]
                    .concat(),
            );
        }),
        Case::new("4.1: unknown flags are passed over", [Seen::Nothing], |peer| {
            peer.send(frame(PING, 0xfe, 0, &[9; 8]));
            peer.until(|peer| peer.pongs.contains(&[9; 8]));
        }),
        Case::new("4.1: the bit ahead of a stream's number is passed over", [Seen::Nothing], |peer| {
            peer.send(frame(PING, 0, 1 << 31, &[9; 8]));
            peer.until(|peer| peer.pongs.contains(&[9; 8]));
        }),
        Case::new("4.1: that bit of a request", answered(1), |peer| {
            peer.send(frame(HEADERS, WHOLE, 1 | 1 << 31, &request("GET", "/", &[])));
        }),
        Case::new("5.5: a frame of an unknown kind within a block", connection(PROTOCOL_ERROR), |peer| {
            let block = request("GET", "/", &[]);
            peer.send([frame(HEADERS, END_STREAM, 1, &block), frame(UNKNOWN, 0, 0, &[])].concat());
        }),
    ]
}

fn sizes() -> Vec<Case> {
    vec![
        Case::new("4.2: DATA of the largest size", answered(1), |peer| {
            peer.send([post(1, &[]), data(1, true, &[0; USUAL_FRAME])].concat());
        }),
        Case::new("4.2: DATA above the largest size", stream(1, FRAME_SIZE_ERROR), |peer| {
            peer.send([post(1, &[]), data(1, true, &[0; USUAL_FRAME + 1])].concat());
        }),
        Case::new("4.2: HEADERS above the largest size", connection(FRAME_SIZE_ERROR), |peer| {
            let block = request("GET", "/", &[("x", &"y".repeat(USUAL_FRAME))]);
            peer.send(frame(HEADERS, WHOLE, 1, &block));
        }),
        Case::new("4.2: SETTINGS above the largest size", connection(FRAME_SIZE_ERROR), |peer| {
            peer.send(frame(SETTINGS, 0, 0, &[0; USUAL_FRAME + 2]));
        }),
        Case::new("4.2: an unknown frame above the largest size", connection(FRAME_SIZE_ERROR), |peer| {
            peer.send(frame(UNKNOWN, 0, 0, &[0; USUAL_FRAME + 1]));
        }),
        Case::new("4.2: a frame that is said to have 16 MiB", connection(FRAME_SIZE_ERROR), |peer| {
            peer.send([0xff, 0xff, 0xff, DATA, 0, 0, 0, 0, 1]);
        }),
    ]
}

fn blocks() -> Vec<Case> {
    vec![
        Case::new("4.3: a block that cannot be read", connection(COMPRESSION_ERROR), |peer| {
            // A literal with a name that is not whole.
            peer.send(frame(HEADERS, WHOLE, 1, b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff"));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("4.3: a block that ends within a field", connection(COMPRESSION_ERROR), |peer| {
            let mut block = request("GET", "/", &[("x", "yyyy")]);
            block.truncate(block.len() - 2);
            peer.send(frame(HEADERS, WHOLE, 1, &block));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("4.3: PRIORITY within a block", connection(PROTOCOL_ERROR), |peer| {
            let block = request("GET", "/", &[]);
            let other = frame(PRIORITY, 0, 1, &priority(0, false, 0));
            peer.send([frame(HEADERS, END_STREAM, 1, &block), other].concat());
        }),
        Case::new("4.3: DATA within a block", connection(PROTOCOL_ERROR), |peer| {
            peer.send([frame(HEADERS, 0, 1, &request("POST", "/", &[])), data(1, true, b"x")].concat());
        }),
        Case::new("4.3: HEADERS of another stream within a block", connection(PROTOCOL_ERROR), |peer| {
            peer.send([frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[])), get(3, "/")].concat());
        }),
        Case::new("4.3: HEADERS of the same stream within a block", connection(PROTOCOL_ERROR), |peer| {
            peer.send([frame(HEADERS, END_STREAM, 1, &request("GET", "/", &[])), get(1, "/")].concat());
        }),
        Case::new("4.3: CONTINUATION of another stream within a block", connection(PROTOCOL_ERROR), |peer| {
            let block = request("GET", "/", &[]);
            let other = frame(CONTINUATION, END_HEADERS, 3, &[]);
            peer.send([frame(HEADERS, END_STREAM, 1, &block), other].concat());
        }),
        Case::new("4.3: PING within a block", connection(PROTOCOL_ERROR), |peer| {
            let block = request("GET", "/", &[]);
            peer.send([frame(HEADERS, END_STREAM, 1, &block), frame(PING, 0, 0, &[0; 8])].concat());
        }),
    ]
}
