//! Requests: which fields they have, in what form, and how long their bodies are (RFC 9113, section 8, and RFC 8441).

use super::{Case, GENERAL, answered, stream};
use crate::frames::{
    END_HEADERS, END_STREAM, HEADERS, PROTOCOL_ERROR, STREAM_CLOSED, WHOLE, data, fields, frame, get_with,
    literal, only, post, request,
};
use crate::peer::Seen;

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const PATH: (&str, &str) = (":path", "/");
const AUTHORITY: (&str, &str) = (":authority", "a");

/// A malformed request, which may be answered with what is wrong (section 8.1.1).
fn malformed() -> Vec<Seen> {
    [stream(1, PROTOCOL_ERROR), vec![Seen::Answer(1, 400)]].concat()
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = sequences();
    cases.extend(names());
    cases.extend(values());
    cases.extend(of_connections());
    cases.extend(pseudo());
    cases.extend(targets());
    cases.extend(lengths());
    cases.extend(connects());
    cases
}

fn sequences() -> Vec<Case> {
    vec![
        Case::new("8.1: a second HEADERS that does not end the stream", stream(1, PROTOCOL_ERROR), |peer| {
            let second = frame(HEADERS, END_HEADERS, 1, &fields(&[("x", "y")]));
            peer.send([post(1, &[]), second, data(1, true, b"x")].concat());
        }),
        Case::new("8.1: DATA behind trailers", stream(1, STREAM_CLOSED), |peer| {
            let head = frame(HEADERS, END_HEADERS, 1, &request("POST", "/never", &[]));
            let trailers = frame(HEADERS, WHOLE, 1, &fields(&[("x", "y")]));
            peer.send([head, trailers, data(1, true, b"x")].concat());
        })
        .differs(Seen::GoAway(PROTOCOL_ERROR), GENERAL),
        Case::new("8.1: a pseudo-header in trailers", stream(1, PROTOCOL_ERROR), |peer| {
            let trailers = frame(HEADERS, WHOLE, 1, &fields(&[(":method", "DELETE"), ("x", "y")]));
            peer.send([post(1, &[]), data(1, false, b"x"), trailers].concat());
        })
        .differs(Seen::Answer(1, 200), "it is dropped, and no target ever reads it"),
        Case::new("8.1: a header of the connection in trailers", stream(1, PROTOCOL_ERROR), |peer| {
            let trailers = frame(HEADERS, WHOLE, 1, &fields(&[("transfer-encoding", "chunked")]));
            peer.send([post(1, &[]), data(1, false, b"x"), trailers].concat());
        }),
        Case::new("8.1: no field at all", stream(1, PROTOCOL_ERROR), |peer| {
            peer.send(frame(HEADERS, WHOLE, 1, &[]));
        }),
    ]
}

fn names() -> Vec<Case> {
    vec![
        Case::new("8.2.1: a name with a capital", malformed(), |peer| {
            peer.send(get_with(1, &[("X-TEST", "ok")]));
        }),
        Case::new("8.2.1: a name with a space", malformed(), |peer| {
            peer.send(get_with(1, &[("x test", "ok")]));
        }),
        Case::new("8.2.1: a name with a colon", malformed(), |peer| {
            peer.send(get_with(1, &[("x:test", "ok")]));
        }),
        Case::new("8.2.1: a name with an end of line", malformed(), |peer| {
            peer.send(get_with(1, &[("x\r\ny", "ok")]));
        }),
        Case::new("8.2.1: a name of bytes above ASCII", malformed(), |peer| {
            let block = [request("GET", "/", &[]), literal(0, b"x\xe9", b"ok")].concat();
            peer.send(frame(HEADERS, WHOLE, 1, &block));
        }),
        Case::new("8.2.1: an empty name", malformed(), |peer| {
            peer.send(get_with(1, &[("", "ok")]));
        }),
    ]
}

fn values() -> Vec<Case> {
    vec![
        Case::new("8.2.1: a value with an end of line", malformed(), |peer| {
            peer.send(get_with(1, &[("x", "1\r\nx-smuggled: 1")]));
        }),
        Case::new("8.2.1: a value with a CR", malformed(), |peer| {
            peer.send(get_with(1, &[("x", "1\r2")]));
        }),
        Case::new("8.2.1: a value with a LF", malformed(), |peer| {
            peer.send(get_with(1, &[("x", "1\n2")]));
        }),
        Case::new("8.2.1: a value with a NUL", malformed(), |peer| {
            peer.send(get_with(1, &[("x", "1\x002")]));
        }),
        Case::new("8.2.1: a value with a space in front", malformed(), |peer| {
            peer.send(get_with(1, &[("x", " 1")]));
        }),
        Case::new("8.2.1: a value with a tab behind", malformed(), |peer| {
            peer.send(get_with(1, &[("x", "1\t")]));
        }),
        Case::new("8.2.1: a value with a tab within", answered(1), |peer| {
            peer.send(get_with(1, &[("x", "1\t2")]));
        }),
        Case::new("8.2.1: an empty value", answered(1), |peer| {
            peer.send(get_with(1, &[("x", "")]));
        }),
        Case::new("8.2.1: a value of bytes above ASCII", answered(1), |peer| {
            let block = [request("GET", "/", &[]), literal(0, b"x", b"\xe9")].concat();
            peer.send(frame(HEADERS, WHOLE, 1, &block));
        }),
        Case::new("8.2.1: a path with an end of line", malformed(), |peer| {
            peer.send(frame(HEADERS, WHOLE, 1, &request("GET", "/ HTTP/1.1\r\nx: y", &[])));
        }),
        Case::new("8.2.1: a method with an end of line", malformed(), |peer| {
            peer.send(frame(HEADERS, WHOLE, 1, &request("GET / HTTP/1.1\r\nx:", "/", &[])));
        }),
        Case::new("8.2.1: a method with a space", malformed(), |peer| {
            peer.send(frame(HEADERS, WHOLE, 1, &request("GET /other", "/", &[])));
        }),
    ]
}

fn of_connections() -> Vec<Case> {
    vec![
        Case::new("8.2.2: `connection`", malformed(), |peer| {
            peer.send(get_with(1, &[("connection", "keep-alive")]));
        }),
        Case::new("8.2.2: `keep-alive`", malformed(), |peer| {
            peer.send(get_with(1, &[("keep-alive", "1")]));
        }),
        Case::new("8.2.2: `proxy-connection`", malformed(), |peer| {
            peer.send(get_with(1, &[("proxy-connection", "keep-alive")]));
        }),
        Case::new("8.2.2: `transfer-encoding`", malformed(), |peer| {
            peer.send([post(1, &[("transfer-encoding", "chunked")]), data(1, true, b"0\r\n\r\n")].concat());
        }),
        Case::new("8.2.2: `upgrade`", malformed(), |peer| {
            peer.send(get_with(1, &[("upgrade", "h2c")]));
        }),
        Case::new("8.2.2: `te` that is not `trailers`", malformed(), |peer| {
            peer.send(get_with(1, &[("te", "trailers, deflate")]));
        }),
    ]
}

fn pseudo() -> Vec<Case> {
    vec![
        Case::new("8.3: an unknown pseudo-header", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, PATH, AUTHORITY, (":test", "ok")]));
        }),
        Case::new("8.3: a pseudo-header of answers", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, PATH, AUTHORITY, (":status", "200")]));
        }),
        Case::new("8.3: a pseudo-header behind a header", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, AUTHORITY, ("x", "y"), PATH]));
        }),
        Case::new("8.3.1: no `:method`", malformed(), |peer| {
            peer.send(only(1, &[SCHEME, PATH, AUTHORITY]));
        }),
        Case::new("8.3.1: no `:scheme`", malformed(), |peer| {
            peer.send(only(1, &[METHOD, PATH, AUTHORITY]));
        }),
        Case::new("8.3.1: no `:path`", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, AUTHORITY]));
        }),
        Case::new("8.3.1: two `:method`", malformed(), |peer| {
            peer.send(only(1, &[METHOD, METHOD, SCHEME, PATH, AUTHORITY]));
        }),
        Case::new("8.3.1: two `:scheme`", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, SCHEME, PATH, AUTHORITY]));
        }),
        Case::new("8.3.1: two `:path`", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, PATH, PATH, AUTHORITY]));
        }),
        Case::new("8.3.1: two `:authority`", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, PATH, AUTHORITY, AUTHORITY]));
        }),
    ]
}

fn targets() -> Vec<Case> {
    vec![
        Case::new("8.3.1: an empty `:path`", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, (":path", ""), AUTHORITY]));
        }),
        Case::new("8.3.1: a `:path` without a slash", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, (":path", "x"), AUTHORITY]));
        }),
        Case::new("8.3.1: a `:path` that is a whole address", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, (":path", "http://b/"), AUTHORITY]));
        }),
        Case::new("8.3.1: `*` of another method than OPTIONS", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, (":path", "*"), AUTHORITY]));
        }),
        Case::new("8.3.1: an `:authority` with a user", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, PATH, (":authority", "user@a")]));
        }),
        Case::new("8.3.1: an empty `:authority`", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, PATH, (":authority", "")]));
        }),
        Case::new("8.3.1: neither `:authority` nor `host`", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, PATH]));
        }),
        Case::new("8.3.1: `host` that is not `:authority`", malformed(), |peer| {
            peer.send(get_with(1, &[("host", "b")]));
        }),
        Case::new("8.3.1: two `host`", malformed(), |peer| {
            peer.send(get_with(1, &[("host", "a"), ("host", "a")]));
        }),
        Case::new("8.3.1: a `:scheme` that is not for a front", malformed(), |peer| {
            peer.send(only(1, &[METHOD, (":scheme", "ftp"), PATH, AUTHORITY]));
        }),
    ]
}

fn lengths() -> Vec<Case> {
    vec![
        Case::new("8.1.1: a length below that of one DATA", malformed(), |peer| {
            peer.send([post(1, &[("content-length", "1")]), data(1, true, b"four")].concat());
        }),
        Case::new("8.1.1: a length below that of several DATA", malformed(), |peer| {
            let body = [data(1, false, b"four"), data(1, true, b"four")].concat();
            peer.send([post(1, &[("content-length", "5")]), body].concat());
        }),
        Case::new("8.1.1: a length above that of the DATA", malformed(), |peer| {
            peer.send([post(1, &[("content-length", "9")]), data(1, true, b"four")].concat());
        }),
        Case::new("8.1.1: a length above that of the DATA ahead of trailers", malformed(), |peer| {
            let trailers = frame(HEADERS, WHOLE, 1, &fields(&[("x", "y")]));
            peer.send([post(1, &[("content-length", "9")]), data(1, false, b"four"), trailers].concat());
        }),
        Case::new("8.1.1: a length and no DATA", malformed(), |peer| {
            peer.send(get_with(1, &[("content-length", "4")]));
        }),
        Case::new("8.1.1: a length that is no number", malformed(), |peer| {
            peer.send([post(1, &[("content-length", "+4")]), data(1, true, b"four")].concat());
        }),
        Case::new("8.1.1: a length of more digits than a number has", malformed(), |peer| {
            peer.send(post(1, &[("content-length", "99999999999999999999")]));
        }),
        Case::new("8.1.1: two lengths", malformed(), |peer| {
            let two = [("content-length", "4"), ("content-length", "5")];
            peer.send([post(1, &two), data(1, true, b"four")].concat());
        }),
        Case::new("8.1.1: a list of lengths", malformed(), |peer| {
            peer.send([post(1, &[("content-length", "4, 4")]), data(1, true, b"four")].concat());
        }),
    ]
}

fn connects() -> Vec<Case> {
    const CONNECT: (&str, &str) = (":method", "CONNECT");
    const WEBSOCKET: (&str, &str) = (":protocol", "websocket");
    vec![
        Case::new("8.5: CONNECT to a host is not for a front", [Seen::Answer(1, 405)], |peer| {
            peer.send(only(1, &[CONNECT, (":authority", "a:80")]));
        }),
        Case::new("8.5: CONNECT with `:path` and `:scheme`", malformed(), |peer| {
            peer.send(only(1, &[CONNECT, SCHEME, PATH, AUTHORITY]));
        }),
        Case::new("8.5: CONNECT without `:authority`", [Seen::Answer(1, 405)], |peer| {
            peer.send(only(1, &[CONNECT]));
        }),
        Case::new("8441, 4: `:protocol` of another method", malformed(), |peer| {
            peer.send(only(1, &[METHOD, SCHEME, PATH, AUTHORITY, WEBSOCKET]));
        }),
        Case::new("8441, 4: `:protocol` without `:path`", malformed(), |peer| {
            let all = [CONNECT, SCHEME, AUTHORITY, WEBSOCKET];
            peer.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&all)));
        }),
        Case::new("8441, 4: `:protocol` without `:scheme`", malformed(), |peer| {
            peer.send(only(1, &[CONNECT, PATH, AUTHORITY, WEBSOCKET]));
        }),
    ]
}
