//! States and numbers of streams, and what ends them (RFC 9113, sections 5.1 to 5.4).

use super::{Case, GENERAL, connection, stream};
use crate::frames::{
    CANCEL, CONTINUATION, END_HEADERS, HEADERS, NO_ERROR, PING, PRIORITY, PROTOCOL_ERROR, REFUSED_STREAM,
    RST_STREAM, STREAM_CLOSED, WHOLE, WINDOW_UPDATE, WITH_PRIORITY, data, fields, frame, get, number, post,
    priority, request,
};
use crate::peer::{Peer, Seen};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = idle();
    cases.extend(half_closed());
    cases.extend(closed());
    cases.extend(numbers());
    cases
}

fn idle() -> Vec<Case> {
    vec![
        Case::new("5.1: DATA of an idle stream", connection(PROTOCOL_ERROR), |peer| {
            peer.send(data(1, true, b"x"));
        }),
        Case::new("5.1: RST_STREAM of an idle stream", connection(PROTOCOL_ERROR), |peer| {
            peer.send(number(RST_STREAM, 1, CANCEL));
        }),
        Case::new("5.1: WINDOW_UPDATE of an idle stream", connection(PROTOCOL_ERROR), |peer| {
            peer.send(number(WINDOW_UPDATE, 1, 100));
        }),
        Case::new("5.1: CONTINUATION of an idle stream", connection(PROTOCOL_ERROR), |peer| {
            peer.send(frame(CONTINUATION, END_HEADERS, 1, &request("GET", "/", &[])));
        }),
        Case::new(
            "5.1: WINDOW_UPDATE of an idle stream of the server's",
            connection(PROTOCOL_ERROR),
            |peer| {
                peer.send(number(WINDOW_UPDATE, 2, 100));
            },
        ),
        Case::new("5.1: DATA of an idle stream of the server's", connection(PROTOCOL_ERROR), |peer| {
            peer.send(data(2, true, b"x"));
        }),
    ]
}

fn half_closed() -> Vec<Case> {
    vec![
        Case::new("5.1: DATA of a half-closed stream", stream(1, STREAM_CLOSED), |peer| {
            peer.send([get(1, "/never"), data(1, true, b"x")].concat());
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("5.1: HEADERS of a half-closed stream", stream(1, STREAM_CLOSED), |peer| {
            peer.send([get(1, "/never"), get(1, "/")].concat());
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("5.1: trailers of a half-closed stream", stream(1, STREAM_CLOSED), |peer| {
            let trailers = frame(HEADERS, WHOLE, 1, &fields(&[("x", "y")]));
            peer.send([get(1, "/never"), trailers].concat());
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new(
            "5.1: CONTINUATION of a half-closed stream",
            [Seen::GoAway(STREAM_CLOSED), Seen::GoAway(PROTOCOL_ERROR)],
            |peer| {
                peer.send([get(1, "/never"), frame(CONTINUATION, END_HEADERS, 1, &[])].concat());
            },
        ),
    ]
}

/// A stream that the client has reset, which the server knows.
fn reset(peer: &mut Peer) {
    peer.send([post(1, &[]), number(RST_STREAM, 1, CANCEL)].concat());
    peer.settle();
}

/// A stream that both sides have ended.
fn over(peer: &mut Peer) {
    peer.send(get(1, "/"));
    assert_eq!(peer.answer(1), 200);
}

fn closed() -> Vec<Case> {
    vec![
        Case::new("5.1: DATA behind the client's RST_STREAM", stream(1, STREAM_CLOSED), |peer| {
            reset(peer);
            peer.send(data(1, true, b"x"));
        }),
        Case::new("5.1: HEADERS behind the client's RST_STREAM", stream(1, STREAM_CLOSED), |peer| {
            reset(peer);
            peer.send(get(1, "/"));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new(
            "5.1: CONTINUATION behind the client's RST_STREAM",
            [Seen::GoAway(STREAM_CLOSED), Seen::GoAway(PROTOCOL_ERROR)],
            |peer| {
                reset(peer);
                peer.send(frame(CONTINUATION, END_HEADERS, 1, &[]));
            },
        ),
        Case::new("5.1: DATA of a closed stream", stream(1, STREAM_CLOSED), |peer| {
            over(peer);
            peer.send(data(1, true, b"x"));
        }),
        Case::new("5.1: HEADERS of a closed stream", connection(STREAM_CLOSED), |peer| {
            over(peer);
            peer.send(get(1, "/"));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new(
            "5.1: CONTINUATION of a closed stream",
            [Seen::GoAway(STREAM_CLOSED), Seen::GoAway(PROTOCOL_ERROR)],
            |peer| {
                over(peer);
                peer.send(frame(CONTINUATION, END_HEADERS, 1, &[]));
            },
        ),
    ]
}

fn numbers() -> Vec<Case> {
    vec![
        Case::new("5.1.1: an even number", connection(PROTOCOL_ERROR), |peer| {
            peer.send(get(2, "/"));
        }),
        Case::new("5.1.1: a smaller number", connection(PROTOCOL_ERROR), |peer| {
            peer.send([get(5, "/never"), get(3, "/")].concat());
        }),
        Case::new("5.1.1: the largest number, and then one more", connection(PROTOCOL_ERROR), |peer| {
            peer.send(get(0x7fff_ffff, "/"));
            assert_eq!(peer.answer(0x7fff_ffff), 200);
            peer.send(get(1, "/"));
        }),
        Case::new(
            "5.1.2: more streams than are let",
            [
                Seen::Reset(257, REFUSED_STREAM),
                Seen::Reset(257, PROTOCOL_ERROR),
                Seen::GoAway(PROTOCOL_ERROR),
            ],
            |peer| {
                let all = (0..=128).flat_map(|at| get(1 + 2 * at, "/never"));
                peer.send(all.collect::<Vec<_>>());
            },
        ),
        Case::new("5.3.1: HEADERS that depend on themselves", stream(1, PROTOCOL_ERROR), |peer| {
            let payload = [priority(1, false, 0), request("GET", "/", &[])].concat();
            peer.send(frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &payload));
        }),
        Case::new("5.3.1: PRIORITY that depends on itself", stream(1, PROTOCOL_ERROR), |peer| {
            peer.send(frame(PRIORITY, 0, 1, &priority(1, false, 0)));
        }),
        Case::new("5.4.1: a fault of the connection names the last stream", [Seen::Closed], |peer| {
            peer.send(get(3, "/"));
            assert_eq!(peer.answer(3), 200);
            peer.send(frame(PING, 0, 1, &[0; 8]));
            peer.until(|_| false);
            assert_eq!(peer.goaway.take(), Some((PROTOCOL_ERROR, 3)));
        }),
        Case::new("5.4.2: a fault of a stream leaves the others", [Seen::Answer(3, 200)], |peer| {
            peer.send([post(1, &[("content-length", "1")]), data(1, true, b"xx")].concat());
            peer.settle();
            assert_eq!(peer.see(None), Seen::Reset(1, PROTOCOL_ERROR));
            peer.forget();
            peer.send(get(3, "/"));
        }),
        Case::new("5.4.2: a RST_STREAM is not answered with one", [Seen::Nothing], |peer| {
            peer.send([post(1, &[]), number(RST_STREAM, 1, NO_ERROR)].concat());
        }),
    ]
}
