//! The kinds of frames, each with what may be wrong in it (RFC 9113, sections 6 and 7).

use super::{Begin, Case, GENERAL, answered, connection, stream};
use crate::frames::{
    ACK, CANCEL, CONTINUATION, DATA, ENABLE_CONNECT_PROTOCOL, ENABLE_PUSH, END_HEADERS, END_STREAM,
    FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, GOAWAY, HEADERS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, NO_ERROR,
    PADDED, PING, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RST_STREAM, SETTINGS, STREAM_CLOSED, USUAL_FRAME,
    WHOLE, WINDOW_UPDATE, WITH_PRIORITY, data, frame, get, number, post, priority, request, settings,
};
use crate::peer::{Peer, Seen};
use crate::target::LARGE;

/// The largest window.
const MOST: u32 = 0x7fff_ffff;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = data_and_headers();
    cases.extend(priorities_and_resets());
    cases.extend(settings_wrong());
    cases.extend(settings_right());
    cases.extend(pings_and_goaways());
    cases.extend(windows_wrong());
    cases.extend(windows_right());
    cases.extend(continuations());
    cases
}

fn data_and_headers() -> Vec<Case> {
    vec![
        Case::new("6.1: DATA of no stream", connection(PROTOCOL_ERROR), |peer| {
            peer.send(data(0, true, b"x"));
        }),
        Case::new("6.1: DATA with more padding than payload", connection(PROTOCOL_ERROR), |peer| {
            peer.send([post(1, &[]), frame(DATA, END_STREAM | PADDED, 1, &[9, 0, 0])].concat());
        }),
        Case::new(
            "6.1: padded DATA that is empty",
            [Seen::GoAway(PROTOCOL_ERROR), Seen::GoAway(FRAME_SIZE_ERROR)],
            |peer| {
                peer.send([post(1, &[]), frame(DATA, END_STREAM | PADDED, 1, &[])].concat());
            },
        ),
        Case::new("6.2: HEADERS of no stream", connection(PROTOCOL_ERROR), |peer| {
            peer.send(get(0, "/"));
        }),
        Case::new("6.2: HEADERS with more padding than payload", connection(PROTOCOL_ERROR), |peer| {
            let payload = [&[255][..], &request("GET", "/", &[])].concat();
            peer.send(frame(HEADERS, WHOLE | PADDED, 1, &payload));
        }),
        Case::new(
            "6.2: HEADERS too short for their priority",
            [Seen::GoAway(FRAME_SIZE_ERROR), Seen::GoAway(PROTOCOL_ERROR)],
            |peer| {
                peer.send(frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &[0; 4]));
            },
        ),
        Case::new("8.4: PUSH_PROMISE of a client", connection(PROTOCOL_ERROR), |peer| {
            let payload = [&2_u32.to_be_bytes()[..], &request("GET", "/", &[])].concat();
            peer.send([post(1, &[]), frame(PUSH_PROMISE, END_HEADERS, 1, &payload)].concat());
        }),
        Case::new("6.6: PUSH_PROMISE of no stream", connection(PROTOCOL_ERROR), |peer| {
            let payload = [&2_u32.to_be_bytes()[..], &request("GET", "/", &[])].concat();
            peer.send(frame(PUSH_PROMISE, END_HEADERS, 0, &payload));
        }),
    ]
}

fn priorities_and_resets() -> Vec<Case> {
    vec![
        Case::new("6.3: PRIORITY of no stream", connection(PROTOCOL_ERROR), |peer| {
            peer.send(frame(PRIORITY, 0, 0, &priority(1, false, 0)));
        }),
        Case::new("6.3: PRIORITY of another length than 5", stream(1, FRAME_SIZE_ERROR), |peer| {
            peer.send(frame(PRIORITY, 0, 1, &[0; 4]));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("6.4: RST_STREAM of no stream", connection(PROTOCOL_ERROR), |peer| {
            peer.send(number(RST_STREAM, 0, CANCEL));
        }),
        Case::new("6.4: RST_STREAM of another length than 4", connection(FRAME_SIZE_ERROR), |peer| {
            peer.send([post(1, &[]), frame(RST_STREAM, 0, 1, &[0; 3])].concat());
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("7: RST_STREAM with an unknown code", answered(3), |peer| {
            peer.send([post(1, &[]), number(RST_STREAM, 1, 0xff), get(3, "/")].concat());
        }),
    ]
}

fn settings_wrong() -> Vec<Case> {
    vec![
        Case::new("6.5: SETTINGS with ACK and a payload", connection(FRAME_SIZE_ERROR), |peer| {
            peer.send(frame(SETTINGS, ACK, 0, &[0; 6]));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("6.5: SETTINGS of a stream", connection(PROTOCOL_ERROR), |peer| {
            peer.send(frame(SETTINGS, 0, 1, &[]));
        }),
        Case::new("6.5: SETTINGS whose length is no multiple of 6", connection(FRAME_SIZE_ERROR), |peer| {
            peer.send(frame(SETTINGS, 0, 0, &[0; 7]));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("6.5.2: ENABLE_PUSH of 2", connection(PROTOCOL_ERROR), |peer| {
            peer.send(settings(&[(ENABLE_PUSH, 2)]));
        }),
        Case::new("6.5.2: INITIAL_WINDOW_SIZE above the largest", connection(FLOW_CONTROL_ERROR), |peer| {
            peer.send(settings(&[(INITIAL_WINDOW_SIZE, MOST + 1)]));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("6.5.2: MAX_FRAME_SIZE below the smallest", connection(PROTOCOL_ERROR), |peer| {
            peer.send(settings(&[(MAX_FRAME_SIZE, USUAL_FRAME as u32 - 1)]));
        }),
        Case::new("6.5.2: MAX_FRAME_SIZE above the largest", connection(PROTOCOL_ERROR), |peer| {
            peer.send(settings(&[(MAX_FRAME_SIZE, 1 << 24)]));
        }),
        Case::new("8441, 3: ENABLE_CONNECT_PROTOCOL of 2", connection(PROTOCOL_ERROR), |peer| {
            peer.send(settings(&[(ENABLE_CONNECT_PROTOCOL, 2)]));
        }),
        Case::new("6.5: a wrong value in the first SETTINGS", connection(PROTOCOL_ERROR), |_| {})
            .begins(Begin::Settings(&[(ENABLE_PUSH, 7)])),
        Case::new(
            "6.5.3: an ACK of what was not set",
            [Seen::Nothing, Seen::GoAway(PROTOCOL_ERROR)],
            |peer| {
                peer.send(frame(SETTINGS, ACK, 0, &[]));
            },
        ),
    ]
}

fn settings_right() -> Vec<Case> {
    vec![
        Case::new("6.5.2: an unknown setting is passed over", answered(1), |peer| {
            peer.send([settings(&[(0xfafa, 1), (0, 7)]), get(1, "/")].concat());
        }),
        Case::new("6.5.3: of several values of one setting the last holds", answered(1), |peer| {
            peer.send(
                [settings(&[(INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)]), get(1, "/")].concat(),
            );
            peer.until(|peer| peer.bodies.contains_key(&1));
            peer.settle();
            assert_eq!(peer.bodies[&1], b"h");
            peer.send(number(WINDOW_UPDATE, 1, 10));
        }),
        Case::new("6.5.3: each SETTINGS is confirmed", [Seen::Nothing], |peer| {
            peer.send(settings(&[]).repeat(10));
            peer.until(|peer| peer.acks == 11);
        }),
        Case::new("4.2: no frame is larger than the client lets it be", answered(1), |peer| {
            // `read` holds each against it.
            peer.send([number(WINDOW_UPDATE, 0, LARGE as u32), get(1, "/large")].concat());
            assert_eq!((peer.answer(1), peer.bodies[&1].len()), (200, LARGE));
        })
        .begins(Begin::Usual(&[(INITIAL_WINDOW_SIZE, LARGE as u32)])),
    ]
}

fn pings_and_goaways() -> Vec<Case> {
    vec![
        Case::new("6.7: a PING with ACK is not answered", [Seen::Nothing], |peer| {
            peer.send(frame(PING, ACK, 0, b"\x02payload"));
            peer.settle();
            assert!(!peer.pongs.contains(b"\x02payload"));
        }),
        Case::new("6.7: PING of a stream", connection(PROTOCOL_ERROR), |peer| {
            peer.send(frame(PING, 0, 1, &[0; 8]));
        }),
        Case::new("6.7: PING of another length than 8", connection(FRAME_SIZE_ERROR), |peer| {
            peer.send(frame(PING, 0, 0, &[0; 6]));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("6.8: GOAWAY of a stream", connection(PROTOCOL_ERROR), |peer| {
            peer.send(frame(GOAWAY, 0, 1, &[0; 8]));
        }),
        Case::new("6.8: GOAWAY that is too short", connection(FRAME_SIZE_ERROR), |peer| {
            peer.send(frame(GOAWAY, 0, 0, &[0; 7]));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new(
            "6.8: a GOAWAY with debug data ends an idle connection",
            [Seen::GoAway(NO_ERROR)],
            |peer| {
                peer.send(frame(GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\0enough"));
            },
        ),
        Case::new("7: GOAWAY with an unknown code", [Seen::GoAway(NO_ERROR), Seen::Closed], |peer| {
            peer.send(frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 0xff]));
        }),
    ]
}

fn windows_wrong() -> Vec<Case> {
    vec![
        Case::new("6.9: WINDOW_UPDATE of the connection by 0", connection(PROTOCOL_ERROR), |peer| {
            peer.send(number(WINDOW_UPDATE, 0, 0));
        }),
        Case::new("6.9: WINDOW_UPDATE of a stream by 0", stream(1, PROTOCOL_ERROR), |peer| {
            peer.send([post(1, &[]), number(WINDOW_UPDATE, 1, 0)].concat());
        }),
        Case::new("6.9: WINDOW_UPDATE of another length than 4", connection(FRAME_SIZE_ERROR), |peer| {
            peer.send(frame(WINDOW_UPDATE, 0, 0, &[0; 3]));
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new(
            "6.9.1: the connection's window above the largest",
            connection(FLOW_CONTROL_ERROR),
            |peer| {
                peer.send(number(WINDOW_UPDATE, 0, MOST).repeat(2));
            },
        ),
        Case::new("6.9.1: a stream's window above the largest", stream(1, FLOW_CONTROL_ERROR), |peer| {
            peer.send([get(1, "/never"), number(WINDOW_UPDATE, 1, MOST).repeat(2)].concat());
        }),
        Case::new(
            "6.9.2: SETTINGS bring a stream's window above the largest",
            connection(FLOW_CONTROL_ERROR),
            |peer| {
                let up = number(WINDOW_UPDATE, 1, MOST - 65_535);
                peer.send([get(1, "/never"), up, settings(&[(INITIAL_WINDOW_SIZE, 65_536)])].concat());
            },
        ),
        Case::new("6.9.1: more DATA than the stream's window lets", stream(1, FLOW_CONTROL_ERROR), |peer| {
            let head = frame(HEADERS, END_HEADERS, 1, &request("POST", "/never", &[]));
            peer.send(head);
            overrun(peer);
        }),
    ]
}

/// Sends far more than there is credit for to one who reads none of it.
fn overrun(peer: &mut Peer) {
    let piece = data(1, false, &[0; USUAL_FRAME]).repeat(16);
    for _ in 0..256 {
        if !peer.send(&piece) {
            return;
        }
    }
}

fn windows_right() -> Vec<Case> {
    vec![
        Case::new("6.9.1: an answer waits for its window", answered(1), |peer| {
            peer.send(get(1, "/"));
            peer.until(|peer| peer.bodies.contains_key(&1));
            peer.settle();
            assert_eq!(peer.bodies[&1], b"h");
            peer.send(number(WINDOW_UPDATE, 1, 4));
        })
        .begins(Begin::Usual(&[(INITIAL_WINDOW_SIZE, 1)])),
        Case::new("6.9.1: an answer waits for the connection's window", answered(3), |peer| {
            peer.send([get(1, "/large"), get(3, "/")].concat());
            peer.until(|peer| peer.bodies.values().map(Vec::len).sum::<usize>() == 65_535);
            peer.settle();
            assert_eq!(peer.bodies.values().map(Vec::len).sum::<usize>(), 65_535);
            peer.send(number(WINDOW_UPDATE, 0, 2 * LARGE as u32));
        })
        .begins(Begin::Usual(&[(INITIAL_WINDOW_SIZE, LARGE as u32)])),
        Case::new("6.9.2: SETTINGS change the windows that there are", answered(1), |peer| {
            peer.send(get(1, "/"));
            peer.until(|peer| peer.bodies.contains_key(&1));
            peer.settle();
            assert_eq!(peer.bodies[&1], b"h");
            peer.send(settings(&[(INITIAL_WINDOW_SIZE, 5)]));
        })
        .begins(Begin::Usual(&[(INITIAL_WINDOW_SIZE, 1)])),
        Case::new("6.9.2: a window may be below nothing", answered(1), |peer| {
            peer.send(get(1, "/"));
            peer.until(|peer| peer.bodies.get(&1).is_some_and(|body| body.len() == 3));
            // 3 of 3 are gone: now it is 2 below nothing, and with one more credit 1.
            peer.send([settings(&[(INITIAL_WINDOW_SIZE, 1)]), number(WINDOW_UPDATE, 1, 1)].concat());
            peer.settle();
            assert_eq!(peer.bodies[&1], b"hel");
            peer.send(number(WINDOW_UPDATE, 1, 2));
            peer.until(|peer| peer.bodies[&1].len() == 4);
            peer.settle();
            assert_eq!(peer.bodies[&1], b"hell");
            peer.send(number(WINDOW_UPDATE, 1, 1));
        })
        .begins(Begin::Usual(&[(INITIAL_WINDOW_SIZE, 3)])),
    ]
}

fn continuations() -> Vec<Case> {
    vec![
        Case::new("6.10: CONTINUATION of no stream", connection(PROTOCOL_ERROR), |peer| {
            let block = request("GET", "/", &[]);
            peer.send(
                [frame(HEADERS, END_STREAM, 1, &block), frame(CONTINUATION, END_HEADERS, 0, &[])].concat(),
            );
        }),
        Case::new("6.10: CONTINUATION behind HEADERS that were whole", connection(PROTOCOL_ERROR), |peer| {
            peer.send([post(1, &[]), frame(CONTINUATION, END_HEADERS, 1, &[])].concat());
        }),
        Case::new("6.10: CONTINUATION behind the last CONTINUATION", connection(PROTOCOL_ERROR), |peer| {
            let block = request("POST", "/", &[]);
            let last = frame(CONTINUATION, END_HEADERS, 1, &[]).repeat(2);
            peer.send([frame(HEADERS, 0, 1, &block), last].concat());
        }),
        Case::new("6.10: CONTINUATION behind DATA", connection(PROTOCOL_ERROR), |peer| {
            peer.send(
                [post(1, &[]), data(1, false, b"x"), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(),
            );
        }),
        Case::new("6.10: a CONTINUATION and then something else", connection(PROTOCOL_ERROR), |peer| {
            let begun = [frame(HEADERS, 0, 1, &request("POST", "/", &[])), frame(CONTINUATION, 0, 1, &[])];
            peer.send([begun.concat(), data(1, true, b"x")].concat());
        }),
        Case::new("6.1: DATA behind the stream's end", stream(1, STREAM_CLOSED), |peer| {
            let head = frame(HEADERS, END_HEADERS, 1, &request("POST", "/never", &[]));
            peer.send([head, data(1, true, b"x"), data(1, true, b"y")].concat());
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
    ]
}
