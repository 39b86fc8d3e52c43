//! Heads of requests that are too large or can be read in two ways: refused, told of in the access log, and nothing of them
//! reaches a target.

use crate::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, USUAL_FRAME, frame, get, literal,
    request,
};
use crate::ground::Ground;
use crate::peer::{Peer, Seen};

/// Sends a GET whose fields have so many bytes more than others, in as many frames as it takes.
fn send_large(peer: &mut Peer, stream: u32, bytes: usize) {
    let more = literal(0, b"x-large", &[b'y'; 4000]).repeat(bytes / 4000);
    let block = [request("GET", "/large-head", &[]), more].concat();
    let mut pieces = block.chunks(USUAL_FRAME).peekable();
    let (mut kind, mut flags) = (HEADERS, END_STREAM);
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() { END_HEADERS } else { 0 };
        peer.send(frame(kind, flags | last, stream, piece));
        (kind, flags) = (CONTINUATION, 0);
    }
}

#[test]
fn a_head_that_is_too_large_is_refused_and_has_a_line_in_the_access_log() {
    let ground = Ground::with("", "");
    let logged = |what: &str, line: &str, times: usize| {
        ground.until(what, || ground.server().output().matches(line).count() == times);
        ground.is_unharmed(what);
    };
    let one = format!("GET /large-head HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    assert!(ground.say(one.as_bytes()).starts_with("HTTP/1.1 431 "));
    logged("HTTP/1.1", "127.0.0.1 - \"GET /large-head HTTP/1.1\" 431 ", 1);
    let many = format!("GET /large-head HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(150_000));
    assert!(ground.say(many.as_bytes()).starts_with("HTTP/1.1 431 "));
    logged("HTTP/1.1 with many headers", "127.0.0.1 - \"GET /large-head HTTP/1.1\" 431 ", 2);
    // Over HTTP/2 what can still be read costs its stream alone.
    let mut peer = ground.peer();
    send_large(&mut peer, 1, 40 << 10);
    assert_eq!(peer.see(Some(1)), Seen::Answer(1, 431));
    logged("HTTP/2", "127.0.0.1 - \"- - HTTP/2.0\" 431 0 ", 1);
    // From now on the status is a place of the client's table.
    send_large(&mut peer, 3, 60 << 10);
    peer.settle();
    logged("HTTP/2 again", "127.0.0.1 - \"- - HTTP/2.0\" 431 0 ", 2);
    peer.send(get(5, "/"));
    assert_eq!(peer.answer(5), 200);
    let mut peer = ground.peer();
    send_large(&mut peer, 1, 1 << 20);
    peer.until(|_| false);
    assert!(peer.goaway.is_none_or(|(code, _)| code == ENHANCE_YOUR_CALM), "{:?}", peer.goaway);
    logged("HTTP/2 with a megabyte", "127.0.0.1 - \"- - HTTP/2.0\" 0 0 0 - - ", 1);
    // A client that sends it as one field.
    let mut peer = ground.peer();
    let block = [request("GET", "/large-head", &[]), literal(0, b"x", &[b'y'; 1 << 20])].concat();
    peer.send(frame(HEADERS, END_STREAM, 1, &block[..USUAL_FRAME]));
    for piece in block[USUAL_FRAME..].chunks(USUAL_FRAME) {
        peer.send(frame(CONTINUATION, 0, 1, piece));
    }
    peer.until(|_| false);
    logged("HTTP/2 with a field of a megabyte", "127.0.0.1 - \"- - HTTP/2.0\" 0 0 0 - - ", 2);
    assert!(!ground.target.heads().iter().any(|head| head.contains("/large-head")));
    // What a rule of frames was broken with is told of in the other log, and not for each one.
    for _ in 0..20 {
        let mut peer = ground.peer();
        peer.send(get(2, "/"));
        assert_eq!(peer.see(None), Seen::GoAway(1));
    }
    let log = ground.server().log();
    assert_eq!(log.matches("a visitor's HTTP/2 was ended").count(), 2, "{log}");
    assert!(log.contains("a visitor's HTTP/2 was ended with PROTOCOL_ERROR: 127.0.0.1"), "{log}");
}

/// What may be behind a request: the next one, if it is read as that.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_request_that_can_be_read_in_two_ways_carries_no_other_to_the_target() {
    let ground = Ground::with("", "");
    let table = [
        // A length and a coding, and what a reader of the one takes for the end.
        ("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n", "0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n", 400),
        ("Transfer-Encoding: identity\r\n", "0\r\n\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n", 501),
        ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n", 400),
        ("Transfer-Encoding:\x0bchunked\r\n", "0\r\n\r\n", 400),
        ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n", 400),
        ("Transfer_Encoding: chunked\r\n", "0\r\n\r\n", 400),
        ("X: y\r\n Transfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
        ("X: y\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
        ("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n", 400),
        ("Content-Length: 0\r\nContent-Length: 37\r\n", "", 400),
        ("Content-Length: 0\r\nContent-Length: 0\r\n", "", 400),
        ("Content-Length: 0, 37\r\n", "", 400),
        ("Content-Length: +0\r\n", "", 400),
        ("Content-Length: 0x0\r\n", "", 400),
        ("Content-Length: -1\r\n", "", 400),
        ("Content-Length: 18446744073709551616\r\n", "", 400),
        ("Content_Length: 0\r\n", "", 400),
        ("Content-Length\0: 0\r\n", "", 400),
        (": 0\r\n", "", 400),
        ("Host: b\r\n", "", 400),
        // Chunks that end in two places.
        ("Transfer-Encoding: chunked\r\n", "0\n\n", 400),
        ("Transfer-Encoding: chunked\r\n", "1\r\nxx\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", "-1\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", "0x0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", "1;\n\r\nx\r\n0\r\n\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", "10000000000000000\r\n", 400),
        ("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 37\r\n\r\n", 400),
    ];
    for (headers, body, status) in table {
        let bytes = format!("POST /first HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}{SMUGGLED}");
        let answer = ground.say(bytes.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{headers:?} {body:?}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{headers:?} {body:?}: {answer:?}");
        assert!(!answer.contains("hello"), "{headers:?} {body:?}: {answer:?}");
        ground.is_unharmed(headers);
    }
    // Over HTTP/2, as one who writes HTTP/1.1 from it might pass on.
    for field in [
        ("x", "1\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("x: 1\r\n\r\nget /smuggled http/1.1\r\nhost", "a"),
        ("transfer-encoding", "chunked"),
        ("content-length", "5"),
    ] {
        let mut peer = ground.peer();
        peer.send(crate::frames::get_with(1, &[field]));
        assert!(matches!(peer.see(None), Seen::Reset(1, 1) | Seen::GoAway(1)), "{field:?}");
    }
    let heads = ground.target.heads();
    assert!(!heads.iter().any(|head| head.contains("smuggled")), "{heads:?}");
    // The same piped as it should be is two requests.
    let both = format!("POST /first HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx{SMUGGLED}");
    let both = both.replace("Host: a\r\n\r\n", "Host: a\r\nConnection: close\r\n\r\n");
    assert_eq!(ground.say(both.as_bytes()).matches("HTTP/1.1 200 ").count(), 2);
}
