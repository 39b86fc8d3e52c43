use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits { bytes: 1024, lines: 10 };

/// Feeds bytes in pieces of this size, and collects what passes and how it ends.
fn feed(input: &[u8], piece: usize) -> (Vec<u8>, Option<Step>, Framing) {
    let mut framing = Framing::new(LIMITS);
    let (mut passed, mut kept) = (Vec::new(), Vec::new());
    for piece in input.chunks(piece) {
        kept.extend_from_slice(piece);
        loop {
            match framing.step(&kept) {
                Step::Pass(count) => passed.extend(kept.drain(..count)),
                Step::Skip(count) => drop(kept.drain(..count)),
                Step::More => break,
                step => return (passed, Some(step), framing),
            }
        }
    }
    (passed, None, framing)
}

/// How a head with these lines ends, whatever its pieces.
fn refused(lines: &str) -> Option<Flaw> {
    let input = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
    let ends: Vec<_> = [1, 2, 3, 7, 4096].map(|piece| feed(input.as_bytes(), piece).1).into();
    assert!(ends.iter().all(|end| *end == ends[0]), "{lines}: {ends:?}");
    match ends[0] {
        Some(Step::Refuse(flaw)) => Some(flaw),
        None => None,
        other => panic!("{lines}: {other:?}"),
    }
}

#[test]
fn what_has_two_readings_is_refused() {
    for (lines, flaw) in [
        ("Content-Length: 5\r\nContent-Length: 6", Flaw::TwoLengths),
        ("Content-Length: 5\r\ncontent-length: 5", Flaw::TwoLengths),
        ("Content-Length: 5, 5", Flaw::Length),
        ("Content-Length: +5", Flaw::Length),
        ("Content-Length: -1", Flaw::Length),
        ("Content-Length: 0x5", Flaw::Length),
        ("Content-Length:", Flaw::Length),
        ("Content-Length: 99999999999999999999", Flaw::Length),
        ("Content-Length: 9223372036854775808", Flaw::Length),
        ("Content_Length: 5", Flaw::Length),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", Flaw::LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", Flaw::LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Flaw::Coding),
        ("Transfer-Encoding: chunked, chunked", Flaw::Coding),
        ("Transfer-Encoding: xchunked", Flaw::Coding),
        ("Transfer-Encoding: chunked, identity", Flaw::Coding),
        ("Transfer-Encoding: identity", Flaw::Coding),
        ("Transfer-Encoding: \"chunked\"", Flaw::Coding),
        ("Transfer-Encoding: \x0bchunked", Flaw::Coding),
        ("Transfer-Encoding:", Flaw::Coding),
        ("Transfer_Encoding: chunked", Flaw::Coding),
        ("Transfer-Encoding: gzip, chunked", Flaw::CodingUnknown),
        ("Transfer-Encoding : chunked", Flaw::SpaceBeforeColon),
        ("Content-Length\t: 5", Flaw::SpaceBeforeColon),
        ("X: a\r\n b", Flaw::Fold),
        ("X: a\r\n\tb", Flaw::Fold),
        ("X: a\nY: b", Flaw::BareLf),
        ("X: a\n", Flaw::BareLf),
        ("X: a\rY: b", Flaw::BareCr),
        ("X: a\r\r\nY: b", Flaw::BareCr),
        ("X: a\0b", Flaw::Nul),
        ("X", Flaw::Name),
        (": a", Flaw::Name),
        ("X Y: a", Flaw::Name),
        ("X\u{e9}: a", Flaw::Name),
    ] {
        assert_eq!(refused(lines), Some(flaw), "{lines:?}");
    }
    for lines in ["Content-Length: 0", "X: a\tb", "X:", "Content-Lengthy: x", "X-Content-Length: x, y"] {
        assert_eq!(refused(lines), None, "{lines:?}");
    }
}

#[test]
fn a_request_begins_with_a_request() {
    for (line, flaw) in [
        ("GET /", Flaw::RequestLine),
        ("GET  / HTTP/1.1", Flaw::RequestLine),
        ("GET / HTTP/1.1 ", Flaw::RequestLine),
        ("GET /\t HTTP/1.1", Flaw::RequestLine),
        ("G(T / HTTP/1.1", Flaw::RequestLine),
        (" GET / HTTP/1.1", Flaw::RequestLine),
        ("GET / http/1.1", Flaw::RequestLine),
        ("GET / HTTP/2.0", Flaw::Version),
        ("GET / HTTP/1.2", Flaw::Version),
        ("\x16\x03\x01", Flaw::RequestLine),
    ] {
        let (_, end, _) = feed(format!("{line}\r\n\r\n").as_bytes(), 5);
        assert_eq!(end, Some(Step::Refuse(flaw)), "{line:?}");
    }
    let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(feed(old, 9).1, Some(Step::Refuse(Flaw::CodingInOldVersion)));
    assert_eq!(feed(b"GET / HTTP/1.1\n\n", 9).1, Some(Step::Refuse(Flaw::BareLf)));
}

#[test]
fn heads_are_bounded() {
    let long = "x".repeat(2000);
    assert_eq!(refused(&format!("X: {long}")), Some(Flaw::HeadTooLarge));
    assert_eq!(refused(&"X: 1\r\n".repeat(9)), None);
    assert_eq!(refused(&"X: 1\r\n".repeat(10)), Some(Flaw::TooManyLines));
    // One without an end is refused before it takes more room.
    let mut framing = Framing::new(LIMITS);
    assert_eq!(framing.step(&[b'x'; 1023]), Step::More);
    assert_eq!(framing.step(&[b'x'; 1024]), Step::Refuse(Flaw::TargetTooLong));
    // The bound counts the head, not what is behind it.
    let input = [b"POST / HTTP/1.1\r\nContent-Length: 5000\r\n\r\n".as_slice(), &[b'y'; 5000]].concat();
    assert_eq!(feed(&input, 4096).0, input);
}

#[test]
fn requests_follow_each_other() {
    let input = "POST /1 HTTP/1.1\r\nContent-Length: 7\r\n\r\nGET / \r\nPOST /2 HTTP/1.1\r\n\
        transfer-encoding:  CHUNKED \r\n\r\n3\r\nab\n\r\n00A;x=\"y\"\r\n0123456789\r\n0\r\nX: y\r\n\r\n\
        GET /3 HTTP/1.0\r\n\r\n";
    // Seven bytes of the first, and what they look like is no request.
    let input = input.replacen("GET / \r\n", "GET / \r", 1);
    for piece in [1, 2, 5, 4096] {
        let (passed, end, framing) = feed(input.as_bytes(), piece);
        assert_eq!((String::from_utf8(passed).unwrap(), end), (input.clone(), None));
        assert!(framing.is_between());
    }
    let (passed, _, _) = feed(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", 3);
    assert_eq!(passed, b"GET / HTTP/1.1\r\n\r\n");
}

#[test]
fn nothing_is_read_behind_a_chunk_without_clear_bounds() {
    for body in [
        "\r\n",
        "x\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-1\r\n",
        "8000000000000000\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nhost: b\r\n\r\n",
    ] {
        let next = "GET /next HTTP/1.1\r\n\r\n";
        let input = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}{next}");
        for piece in [1, 4, 4096] {
            let (passed, end, framing) = feed(input.as_bytes(), piece);
            assert_eq!(end, Some(Step::End), "{body:?}");
            assert!(framing.is_broken());
            assert!(!String::from_utf8(passed).unwrap().contains("/next"), "{body:?}");
        }
    }
    let endless = [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n".as_slice(), &[b'x'; 1100]];
    assert_eq!(feed(&endless.concat(), 100).1, Some(Step::End));
}

#[test]
fn what_is_behind_a_request_for_an_upgrade_depends_on_the_answer() {
    for input in ["GET / HTTP/1.1\r\nUpgrade: x\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\n\r\n"] {
        let input = format!("{input}\0\n\r\r");
        let (passed, end, mut framing) = feed(input.as_bytes(), 1000);
        assert_eq!((passed.len(), end), (input.len() - 4, Some(Step::Hold)));
        framing.decide(true);
        assert_eq!(framing.step(b"\0\n\r\r"), Step::Pass(4));
        assert_eq!(framing.unseen(), u64::MAX);
    }
    let body = "POST / HTTP/1.1\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nab\n";
    let (passed, end, mut framing) = feed(body.as_bytes(), 3);
    assert_eq!((passed.len(), end), (body.len() - 1, Some(Step::Hold)));
    framing.decide(false);
    assert_eq!(framing.step(b"\n"), Step::Refuse(Flaw::BareLf));
    // An older version has no upgrade, and a decision that nobody waits for is none.
    let (_, end, mut framing) = feed(b"GET / HTTP/1.0\r\nUpgrade: x\r\n\r\n", 100);
    framing.decide(true);
    assert_eq!((end, framing.unseen()), (None, 0));
}

#[test]
fn bytes_may_pass_unseen_up_to_the_end_of_a_body() {
    let head = b"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n";
    let (_, _, mut framing) = feed(head, 1000);
    assert_eq!(framing.unseen(), 10);
    framing.passed_unseen(4);
    assert_eq!(framing.unseen(), 6);
    framing.passed_unseen(6);
    assert!(framing.is_between());
    let (_, _, mut framing) = feed(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfF\r\n", 1000);
    assert_eq!(framing.unseen(), 255);
    framing.passed_unseen(255);
    assert_eq!(framing.step(b"\r\n0\r\n\r\n"), Step::Pass(7));
    assert!(framing.is_between());
}

#[test]
fn the_log_shows_no_more_than_the_first_line() {
    assert_eq!(first_line(b"GET / HTTP/1.1\nX: y\n\n"), "GET / HTTP/1.1");
    assert_eq!(first_line(&[b'x'; 5000]).len(), 256);
}

/// What requests are made of, right and wrong.
const PARTS: [&str; 22] = [
    "GET / HTTP/1.1\r\n",
    "POST /x HTTP/1.1\r\n",
    "GET / HTTP/1.0\r\n",
    "CONNECT a:1 HTTP/1.1\r\n",
    "Host: a\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Upgrade: x\r\n",
    "X: y\r\n",
    "X: y\n",
    " y\r\n",
    "\r\n",
    "\r\n",
    "\r",
    "\n",
    "abc",
    "3\r\nabc\r\n",
    "3;x\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nX: y\r\n\r\n",
    "0\n\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn how_bytes_come_in_pieces_makes_no_difference(
        parts in prop::collection::vec(prop::sample::select(&PARTS[..]), 1..16),
        piece in 1_usize..40,
    ) {
        let input = parts.concat();
        let (whole, whole_end, _) = feed(input.as_bytes(), usize::MAX);
        let (passed, end, _) = feed(input.as_bytes(), piece);
        prop_assert_eq!(String::from_utf8_lossy(&passed), String::from_utf8_lossy(&whole));
        prop_assert_eq!(end, whole_end);
        // What was let through is let through again.
        let (again, _, _) = feed(&whole, piece);
        prop_assert_eq!(again, whole);
    }
}
