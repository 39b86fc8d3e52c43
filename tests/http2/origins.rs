//! Who a target is told has asked: the visitor, whatever it says of itself, and another only where who says so is trusted.

use crate::frames::{HEADERS, WHOLE, frame, request};
use crate::ground::Ground;
use crate::target::Target;

/// What a PROXY header of the second version begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The length of one for two addresses of IPv4.
const HEADER: usize = 28;

/// One that says that a visitor comes from here.
fn proxied(client: [u8; 4], port: u16) -> Vec<u8> {
    let addresses = [&client[..], &[127, 0, 0, 1], &port.to_be_bytes(), &80_u16.to_be_bytes()].concat();
    [SIGNATURE, &[0x21, 0x11, 0, 12], &addresses].concat()
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[test]
fn a_target_reads_the_visitors_address_ahead_of_each_connection() {
    let ground = Ground::on(Target::start_behind(HEADER), "", "send_proxy = true");
    for asked in 1..=3 {
        ground.is_unharmed("nothing");
        assert_eq!(ground.target.headers().len(), asked);
    }
    for header in ground.target.headers() {
        assert!(header.starts_with(SIGNATURE), "{header:?}");
        assert_eq!(header[12..20], [0x21, 0x11, 0, 12, 127, 0, 0, 1]);
        assert_eq!(header[26..28], ground.port.to_be_bytes());
    }
    // Over HTTP/2 as well, and a header of one's own is no request.
    let mut peer = ground.peer();
    peer.send(frame(HEADERS, WHOLE, 1, &request("GET", "/", &[])));
    assert_eq!((peer.answer(1), ground.target.headers().len()), (200, 4));
    for forged in [b"PROXY TCP4 203.0.113.9 127.0.0.1 5000 80\r\n".to_vec(), proxied([203, 0, 113, 9], 5000)]
    {
        let answer = ground.say(&[&forged[..], GET].concat());
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        ground.is_unharmed("a forged PROXY header");
    }
    let named = |header: &Vec<u8>| header.windows(4).any(|part| part == [203, 0, 113, 9]);
    assert!(!ground.target.headers().iter().any(named));
}

#[test]
fn a_trusted_proxy_names_the_visitor_in_both_versions() {
    let trusting = "trusted = [\"127.0.0.0/8\"]\nproxy_header = true";
    let ground = Ground::on(Target::start_behind(HEADER), trusting, "send_proxy = true");
    for header in [b"PROXY TCP4 203.0.113.9 127.0.0.1 5000 80\r\n".to_vec(), proxied([203, 0, 113, 9], 5000)]
    {
        let answer = ground.say(&[&header[..], GET].concat());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let seen = ground.target.headers().pop().unwrap();
        assert_eq!(seen[16..20], [203, 0, 113, 9]);
        assert_eq!(seen[24..26], 5000_u16.to_be_bytes());
        let head = ground.target.heads().pop().unwrap();
        assert!(head.contains("x-forwarded-for: 203.0.113.9\r\n"), "{head}");
    }
    ground.until("the log", || ground.server().output().matches(" 203.0.113.9 a \"GET / ").count() == 2);
    // One that is none ends the connection, and nobody else's.
    for wrong in
        [&b"PROXY TCP4 203.0.113.9\r\n"[..], b"PROXY TCP4 999.0.0.1 1.1.1.1 1 1\r\n", &SIGNATURE[..8]]
    {
        assert_eq!(ground.say(&[wrong, GET].concat()), "", "{wrong:?}");
        let answer = ground.say(&[&proxied([203, 0, 113, 9], 5000)[..], GET].concat());
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// Everything that a visitor may say about who it is, and about how it came.
const FORGED: [(&str, &str); 7] = [
    ("x-forwarded-for", "forged.1"),
    ("x-forwarded-host", "forged.2"),
    ("x-forwarded-proto", "forged3"),
    ("x-forwarded-port", "9999"),
    ("forwarded", "for=forged.5;host=forged.5"),
    ("x-real-ip", "forged.6"),
    ("x_forwarded_for", "forged.7"),
];

#[test]
fn what_a_visitor_says_of_itself_is_taken_away_unless_it_is_trusted() {
    let ground = Ground::with("", "");
    let lines: String = FORGED.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let asked = format!("GET /lines HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{lines}\r\n");
    assert!(ground.say(asked.as_bytes()).starts_with("HTTP/1.1 200 "));
    let mut peer = ground.peer();
    peer.send(frame(HEADERS, WHOLE, 1, &request("GET", "/frames", &FORGED)));
    assert_eq!(peer.answer(1), 200);
    for path in ["/lines", "/frames"] {
        let heads = ground.target.heads();
        let head = heads.iter().find(|head| head.contains(path)).unwrap();
        assert!(!head.contains("forged") && !head.contains("9999"), "{head}");
        assert!(head.contains("x-forwarded-for: 127.0.0.1\r\n"), "{head}");
    }

    let ground = Ground::with("trusted = [\"127.0.0.0/8\"]", "");
    let asked = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    assert!(ground.say(asked.as_bytes()).starts_with("HTTP/1.1 200 "));
    let head = ground.target.heads().pop().unwrap();
    assert!(head.contains("x-forwarded-for: 203.0.113.9, 127.0.0.1\r\n"), "{head}");
    ground.is_unharmed("a trusted visitor");
}
