//! What programs ask of the proxies, byte by byte, with the two binaries: what is refused, and how, and that a request
//! which can be read in two ways reaches nobody. What curl asks is in `proxy.rs`.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use gkd_tests::{Setup, free_port, wait_for_port};

/// So long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// So long it waits for what must not.
const SHORT: Duration = Duration::from_millis(300);

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Says something to a port, in pieces that each wait for an answer; the last answer, to its end.
fn say(port: u16, pieces: &[&[u8]]) -> Vec<u8> {
    let mut socket = TcpStream::connect(loopback(port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = vec![0; 65_536];
    let (last, others) = pieces.split_last().unwrap();
    for piece in others {
        socket.write_all(piece).unwrap();
        assert!(socket.read(&mut answer).unwrap() > 0, "an answer to {piece:?}");
    }
    socket.write_all(last).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    // A refusal may end in a reset.
    let _ = socket.read_to_end(&mut answer);
    answer
}

/// A web server that says its name, closes, and keeps the heads of what it was asked.
struct Web {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Web {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind(loopback(0)).unwrap();
        let (port, heads) = (listener.local_addr().unwrap().port(), Arc::<Mutex<Vec<String>>>::default());
        let kept = heads.clone();
        thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && socket.read(&mut byte).is_ok_and(|count| count > 0) {
                    head.push(byte[0]);
                }
                kept.lock().unwrap().push(String::from_utf8(head).unwrap().to_lowercase());
                let answer = "HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nContent-Length: ";
                let _ = socket.write_all(format!("{answer}{}\r\n\r\n{name}", name.len()).as_bytes());
            }
        });
        Self { port, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

#[test]
fn socks_requests_that_are_wrong_are_refused_and_reach_nobody() {
    let secret = free_port();
    let setup = Setup::with(&[], &["-L", &format!("socks5://me:word@{secret}")]);
    wait_for_port(secret);
    let web = Web::start("web");
    let connect = [&[5, 1, 0, 1, 127, 0, 0, 1][..], &web.port.to_be_bytes()].concat();
    let asks_for = |command: u8| [&[5, command], &connect[2..]].concat();
    // Its beginning reads as an offer of method 0; what follows is no request.
    assert_eq!(say(setup.proxy, &[&connect]), [5, 0], "connect before the method");
    for methods in [&[5, 1, 1][..], &[5, 1, 2], &[5, 0]] {
        assert_eq!(say(setup.proxy, &[methods]), [5, 0xff], "{methods:?}");
    }
    assert_eq!(say(secret, &[&[5, 1, 0]]), [5, 0xff]);
    let answer = say(secret, &[&[5, 1, 2], &[b"\x01\x02me\x05wrong", &connect[..]].concat()]);
    assert!(answer.len() == 2 && answer[1] != 0, "{answer:?}");
    for (command, reply) in [(2, 7), (9, 7)] {
        let answer = say(setup.proxy, &[&[5, 1, 0], &asks_for(command)]);
        assert_eq!(answer[..2], [5, reply], "command {command}");
    }
    assert_eq!(web.heads(), [""; 0]);
}

#[test]
fn a_relay_takes_datagrams_of_its_program_alone_and_ends_with_its_connection() {
    let setup = Setup::new();
    let target = UdpSocket::bind(loopback(0)).unwrap();
    target.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut control = TcpStream::connect(loopback(setup.proxy)).unwrap();
    control.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut reply = [0; 12];
    control.read_exact(&mut reply).unwrap();
    let relay = u16::from_be_bytes([reply[10], reply[11]]);
    let wrapped = |fragment: u8, port: u16, payload: &[u8]| {
        [&[0, 0, fragment, 1, 127, 0, 0, 1][..], &port.to_be_bytes(), payload].concat()
    };
    let port = target.local_addr().unwrap().port();
    let program = UdpSocket::bind(loopback(0)).unwrap();
    let hear = || {
        let mut buffer = [0; 100];
        let (count, _) = target.recv_from(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    };
    program.send_to(&wrapped(0, port, b"first"), loopback(relay)).unwrap();
    assert_eq!(hear(), "first");
    let strangers = [([127, 0, 0, 1], 0), ([127, 0, 0, 2], 0)];
    for address in strangers {
        let stranger = UdpSocket::bind(SocketAddr::from(address)).unwrap();
        stranger.send_to(&wrapped(0, port, b"of a stranger"), loopback(relay)).unwrap();
    }
    program.send_to(&wrapped(1, port, b"a fragment"), loopback(relay)).unwrap();
    program.send_to(&[0, 0, 0, 1, 127], loopback(relay)).unwrap();
    // A host that the rules forbid is passed over, and the relay goes on.
    program.send_to(&[&[0, 0, 0, 1, 10, 0, 0, 1, 0, 53][..], b"x"].concat(), loopback(relay)).unwrap();
    program.send_to(&wrapped(0, port, b"second"), loopback(relay)).unwrap();
    assert_eq!(hear(), "second");
    setup.server.wait_for_log("10.0.0.1:53 (UDP) was not reached");

    drop(control);
    // Its end is known when its socket is gone: the port can be had.
    let start = std::time::Instant::now();
    while UdpSocket::bind(loopback(relay)).is_err() {
        assert!(start.elapsed() < PATIENCE, "the relay does not end");
        thread::sleep(Duration::from_millis(20));
    }
    program.send_to(&wrapped(0, port, b"late"), loopback(relay)).ok();
    target.set_read_timeout(Some(SHORT)).unwrap();
    assert!(target.recv_from(&mut [0; 100]).is_err());
}

#[test]
fn http_requests_go_to_their_hosts_without_what_is_of_their_hop() {
    let setup = Setup::new();
    let (one, other) = (Web::start("one"), Web::start("other"));
    let get = |web: &Web, headers: &str| {
        format!("GET http://127.0.0.1:{}/x HTTP/1.1\r\nHost: elsewhere\r\n{headers}\r\n", web.port)
    };
    let hop = "Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nProxy-Connection: keep-alive\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
               Upgrade: h2c\r\nProxy-Authorization: Basic eA==\r\nX-Stays: 1\r\n";
    // On one connection, the last two without a wait for an answer.
    let pieces = [get(&one, hop), get(&other, ""), get(&one, "") + &get(&other, "Connection: close\r\n")];
    let pieces: Vec<_> = pieces.iter().map(String::as_bytes).collect();
    let answers = String::from_utf8(say(setup.proxy, &pieces)).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    assert!(answers.ends_with("other") && answers.contains("\r\n\r\noneHTTP/"), "{answers}");
    assert!(!answers.to_lowercase().contains("x-hop"), "{answers}");
    assert_eq!((one.heads().len(), other.heads().len()), (2, 2));
    let head = &one.heads()[0];
    assert!(head.starts_with("get /x http/1.1\r\n") && head.contains("x-stays: 1\r\n"), "{head}");
    assert!(head.contains(&format!("host: 127.0.0.1:{}\r\n", one.port)), "{head}");
    for gone in ["x-mine", "proxy-", "keep-alive", "te:", "upgrade"] {
        assert!(!head.contains(gone), "{gone} is still in {head}");
    }
}

#[test]
fn http_requests_that_can_be_read_in_two_ways_reach_nobody() {
    let setup = Setup::new();
    let web = Web::start("web");
    let at = format!("127.0.0.1:{}", web.port);
    for headers in [
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "Content-Length: 3, 4\r\n\r\nabcd",
        "Transfer-Encoding: chunked, identity\r\n\r\nabc",
        "X : 1\r\n\r\n",
    ] {
        let answer = say(setup.proxy, &[format!("POST http://{at}/ HTTP/1.1\r\n{headers}").as_bytes()]);
        assert!(answer.starts_with(b"HTTP/1.1 400 "), "{headers}: {}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(web.heads(), [""; 0]);
    // What stands behind a CONNECT is the destination's, and no request to the proxy.
    let inner = format!("GET / HTTP/1.1\r\nHost: {at}\r\n\r\n");
    let piped = format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n{inner}");
    let answer = String::from_utf8(say(setup.proxy, &[piped.as_bytes()])).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("web"), "{answer}");
    assert_eq!(web.heads(), [inner.to_lowercase()]);
}
