//! What clients do and servers must take: each kind of frame and each form of a header, in their right places.

use super::{Begin, Case, answered};
use crate::frames::{
    CANCEL, CONTINUATION, DATA, ENABLE_CONNECT_PROTOCOL, END_HEADERS, END_STREAM, GOAWAY, HEADERS,
    INITIAL_WINDOW_SIZE, NO_ERROR, PADDED, PING, PRIORITY, RST_STREAM, WHOLE, WINDOW_UPDATE, WITH_PRIORITY,
    data, fields, frame, get, get_with, literal, number, post, priority, request, string,
};
use crate::peer::Seen;
use crate::target::LARGE;

/// The four fields that every request has, but for the path.
fn without_path() -> Vec<u8> {
    // Of the table that all have: GET, http; an authority with its name from there.
    [&[0x82, 0x86, 0x01][..], &string(b"a")].concat()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = frames();
    cases.extend(requests());
    cases.extend(blocks());
    cases
}

fn frames() -> Vec<Case> {
    vec![
        Case::new("3.4: the preface with SETTINGS", answered(1), |peer| {
            peer.send(get(1, "/"));
        })
        .begins(Begin::Settings(&[])),
        Case::new("3.4: what comes ahead of the server's SETTINGS is read", answered(1), |peer| {
            peer.send([&get(1, "/")[..], &frame(PING, 0, 0, &[7; 8])].concat());
            peer.until(|peer| peer.pongs.contains(&[7; 8]));
        })
        .begins(Begin::Settings(&[(INITIAL_WINDOW_SIZE, 70_000)])),
        Case::new("6.1: one DATA", answered(1), |peer| {
            peer.send([post(1, &[]), data(1, true, b"x")].concat());
        }),
        Case::new("6.1: several DATA", answered(1), |peer| {
            peer.send(
                [post(1, &[]), data(1, false, b"x"), data(1, false, b""), data(1, true, b"y")].concat(),
            );
        }),
        Case::new("6.1: an empty DATA that ends the stream", answered(1), |peer| {
            peer.send([post(1, &[]), data(1, true, b"")].concat());
        }),
        Case::new("6.1: padded DATA", answered(1), |peer| {
            let padded = frame(DATA, END_STREAM | PADDED, 1, &[&[5][..], b"hi", &[0; 5]].concat());
            peer.send([post(1, &[("content-length", "2")]), padded].concat());
        }),
        Case::new("6.1: DATA that is all padding", answered(1), |peer| {
            peer.send([post(1, &[]), frame(DATA, END_STREAM | PADDED, 1, &[3, 0, 0, 0])].concat());
        }),
        Case::new("6.2: padded HEADERS", answered(1), |peer| {
            let payload = [&[4][..], &request("GET", "/", &[]), &[0; 4]].concat();
            peer.send(frame(HEADERS, WHOLE | PADDED, 1, &payload));
        }),
        Case::new("6.2: HEADERS with a priority", answered(1), |peer| {
            let payload = [priority(0, true, 255), request("GET", "/", &[])].concat();
            peer.send(frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &payload));
        }),
        Case::new("6.2: HEADERS with a priority and padding", answered(1), |peer| {
            let payload = [&[2][..], &priority(9, false, 0), &request("GET", "/", &[]), &[0; 2]].concat();
            peer.send(frame(HEADERS, WHOLE | WITH_PRIORITY | PADDED, 1, &payload));
        }),
        Case::new("6.3: PRIORITY of an idle stream", answered(1), |peer| {
            peer.send([frame(PRIORITY, 0, 1, &priority(0, false, 0)), get(1, "/")].concat());
        }),
        Case::new("6.3: PRIORITY on an idle stream, exclusive, of the largest weight", answered(1), |peer| {
            peer.send([frame(PRIORITY, 0, 9, &priority(7, true, 255)), get(1, "/")].concat());
        }),
        Case::new("6.3: PRIORITY of a half-closed stream", answered(1), |peer| {
            peer.send([get(1, "/"), frame(PRIORITY, 0, 1, &priority(0, false, 1))].concat());
        }),
        Case::new("6.3: PRIORITY of a closed stream", answered(3), |peer| {
            peer.send(get(1, "/"));
            peer.answer(1);
            peer.send([frame(PRIORITY, 0, 1, &priority(0, false, 1)), get(3, "/")].concat());
        }),
        Case::new("6.4: RST_STREAM of an open stream", answered(3), |peer| {
            peer.send([post(1, &[]), number(RST_STREAM, 1, CANCEL), get(3, "/")].concat());
        }),
        Case::new("6.4: RST_STREAM of a half-closed stream", answered(3), |peer| {
            peer.send([get(1, "/never"), number(RST_STREAM, 1, CANCEL), get(3, "/")].concat());
        }),
        Case::new("6.4: RST_STREAM of a closed stream", answered(3), |peer| {
            peer.send(get(1, "/"));
            peer.answer(1);
            peer.send([number(RST_STREAM, 1, NO_ERROR), get(3, "/")].concat());
        }),
        Case::new("6.5: SETTINGS are confirmed", answered(1), |peer| {
            peer.send(crate::frames::settings(&[(INITIAL_WINDOW_SIZE, 100)]));
            peer.until(|peer| peer.acks == 2);
            peer.send(get(1, "/"));
        }),
        Case::new("6.7: a PING is answered with its payload", [Seen::Nothing], |peer| {
            peer.send(frame(PING, 0, 0, b"\x01payload"));
            peer.until(|peer| peer.pongs.contains(b"\x01payload"));
        }),
        Case::new("6.8: a GOAWAY lets requests come to their end", [Seen::GoAway(NO_ERROR)], |peer| {
            peer.send([get(1, "/large"), frame(GOAWAY, 0, 0, &[0; 8])].concat());
            for _ in 0..32 {
                peer.send([number(WINDOW_UPDATE, 0, 65_535), number(WINDOW_UPDATE, 1, 65_535)].concat());
            }
            assert_eq!((peer.answer(1), peer.bodies[&1].len()), (200, LARGE));
        }),
        Case::new("6.9: WINDOW_UPDATE of the connection", answered(1), |peer| {
            peer.send([number(WINDOW_UPDATE, 0, 1), get(1, "/")].concat());
        }),
        Case::new("6.9: WINDOW_UPDATE of a half-closed stream", answered(1), |peer| {
            peer.send([get(1, "/"), number(WINDOW_UPDATE, 1, 1)].concat());
        }),
        Case::new("6.9: WINDOW_UPDATE of a closed stream", answered(3), |peer| {
            peer.send(get(1, "/"));
            peer.answer(1);
            peer.send([number(WINDOW_UPDATE, 1, 1), get(3, "/")].concat());
        }),
        Case::new("6.10: one CONTINUATION", answered(1), |peer| {
            let block = request("GET", "/", &[]);
            let (first, rest) = block.split_at(9);
            let more = frame(CONTINUATION, END_HEADERS, 1, rest);
            peer.send([frame(HEADERS, END_STREAM, 1, first), more].concat());
        }),
        Case::new("6.10: CONTINUATIONs of a byte, and of none", answered(1), |peer| {
            let block = [without_path(), vec![0x84]].concat();
            let mut bytes = frame(HEADERS, END_STREAM, 1, &[]);
            for byte in &block[..3] {
                bytes.extend(frame(CONTINUATION, 0, 1, &[*byte]));
            }
            bytes.extend(frame(CONTINUATION, 0, 1, &[]));
            bytes.extend(frame(CONTINUATION, END_HEADERS, 1, &block[3..]));
            peer.send(bytes);
        }),
    ]
}

fn requests() -> Vec<Case> {
    vec![
        Case::new("8.1: GET", answered(1), |peer| {
            peer.send(get(1, "/"));
            assert_eq!((peer.answer(1), &peer.bodies[&1][..]), (200, &b"hello"[..]));
        }),
        Case::new("8.1: HEAD has no body", answered(1), |peer| {
            peer.send(frame(HEADERS, WHOLE, 1, &request("HEAD", "/", &[])));
            peer.answer(1);
            assert!(!peer.bodies.contains_key(&1));
        }),
        Case::new("8.1: OPTIONS of the server", answered(1), |peer| {
            peer.send(frame(HEADERS, WHOLE, 1, &request("OPTIONS", "*", &[])));
        }),
        Case::new("8.1: POST with a length", answered(1), |peer| {
            let body = [data(1, false, b"12"), data(1, true, b"3")].concat();
            peer.send([post(1, &[("content-length", "3")]), body].concat());
        }),
        Case::new("8.1: POST with trailers", answered(1), |peer| {
            let trailers = frame(HEADERS, WHOLE, 1, &fields(&[("x-sum", "1")]));
            peer.send([post(1, &[("trailer", "x-sum")]), data(1, false, b"12"), trailers].concat());
        }),
        Case::new("8.1: trailers and no DATA", answered(1), |peer| {
            peer.send([post(1, &[]), frame(HEADERS, WHOLE, 1, &fields(&[("x-sum", "1")]))].concat());
        }),
        Case::new("5.1.1: numbers of streams may be left out", answered(9), |peer| {
            peer.send([get(1, "/"), get(5, "/"), get(9, "/")].concat());
        }),
        Case::new("5.1.2: as many streams as are let", answered(255), |peer| {
            let all = (0..127).flat_map(|at| get(1 + 2 * at, "/never")).collect::<Vec<_>>();
            peer.send([all, get(255, "/")].concat());
        }),
        Case::new("8.2.2: `te: trailers`", answered(1), |peer| {
            peer.send(get_with(1, &[("te", "trailers")]));
        }),
        Case::new("8.2.3: cookies in pieces", answered(1), |peer| {
            peer.send(get_with(1, &[("cookie", "a=1"), ("cookie", "b=2")]));
        }),
        Case::new("8.3.1: `host` beside `:authority`, the same", answered(1), |peer| {
            peer.send(get_with(1, &[("host", "a")]));
        }),
        Case::new("8.3.1: `host` without `:authority`", answered(1), |peer| {
            let all = [(":method", "GET"), (":scheme", "http"), (":path", "/"), ("host", "a")];
            peer.send(super::super::frames::only(1, &all));
        }),
        Case::new("8441, 3: a CONNECT may name a protocol", [Seen::Nothing], |peer| {
            assert!(peer.settings.contains(&(ENABLE_CONNECT_PROTOCOL, 1)), "{:?}", peer.settings);
        }),
    ]
}

fn blocks() -> Vec<Case> {
    vec![
        Case::new("7541, 6.1: fields of the static table", answered(1), |peer| {
            peer.send(frame(HEADERS, WHOLE, 1, &[without_path(), vec![0x84]].concat()));
        }),
        Case::new("7541, 6.1: a field of the dynamic table", answered(3), |peer| {
            let kept = [without_path(), vec![0x84], literal(0x40, b"x-kept", b"1")].concat();
            peer.send(frame(HEADERS, WHOLE, 1, &kept));
            peer.send(frame(HEADERS, WHOLE, 3, &[without_path(), vec![0x84, 0x80 | 62]].concat()));
        }),
        Case::new("7541, 6.2.1: a literal that is kept, with a known name", answered(1), |peer| {
            let path = [vec![0x44], string(b"/x")].concat();
            peer.send(frame(HEADERS, WHOLE, 1, &[without_path(), path].concat()));
        }),
        Case::new("7541, 6.2.1: a literal that is kept, with a new name", answered(1), |peer| {
            let more = literal(0x40, b"x-new", b"1");
            peer.send(frame(HEADERS, WHOLE, 1, &[without_path(), vec![0x84], more].concat()));
        }),
        Case::new("7541, 6.2.2: a literal that is not kept, with a known name", answered(1), |peer| {
            let path = [vec![0x04], string(b"/x")].concat();
            peer.send(frame(HEADERS, WHOLE, 1, &[without_path(), path].concat()));
        }),
        Case::new("7541, 6.2.3: a literal that is never kept", answered(1), |peer| {
            let more = [&[0x14][..], &string(b"/x"), &literal(0x10, b"x-secret", b"1")].concat();
            peer.send(frame(HEADERS, WHOLE, 1, &[without_path(), more].concat()));
        }),
        Case::new("7541, 6.3: a change of the table's size", answered(1), |peer| {
            // To nothing, and up to all again (4096).
            let sizes = vec![0x20, 0x3f, 0xe1, 0x1f];
            peer.send(frame(HEADERS, WHOLE, 1, &[sizes, without_path(), vec![0x84]].concat()));
        }),
        Case::new("7541, 4.4: a field larger than the table empties it", answered(1), |peer| {
            let large = literal(0x40, b"x-large", &[b'y'; 4096]);
            peer.send(frame(HEADERS, WHOLE, 1, &[without_path(), vec![0x84], large].concat()));
        }),
        Case::new("7541, 5.2: a string in Huffman's code", answered(1), |peer| {
            // `www.example.com` of appendix C.4.1.
            let host = b"\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
            peer.send(frame(HEADERS, WHOLE, 1, &[&[0x82, 0x86, 0x84][..], host].concat()));
        }),
    ]
}
