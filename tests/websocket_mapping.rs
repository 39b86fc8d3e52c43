//! WebSocket on one side and plain bytes on the other, with the two binaries and a tunnel in between, in both directions.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use gkd_tests::{Program, Serving, free_port, run, wait_for_port};

/// So long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// The opening handshake of RFC 6455, section 1.3.
const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Sends back what it gets, and ends when that ends.
fn echo() -> u16 {
    let listener = TcpListener::bind(loopback(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            thread::spawn(move || {
                let mut socket = socket?;
                std::io::copy(&mut socket.try_clone()?, &mut socket)?;
                socket.shutdown(Shutdown::Write)
            });
        }
    });
    port
}

fn connect(port: u16) -> TcpStream {
    let socket = TcpStream::connect(loopback(port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends so many MiB to an echo, and looks at every byte that comes back, and at the end.
fn comes_back(port: u16, mebibytes: usize) {
    let mut state = 1u32;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(mebibytes << 20)
    .collect();
    let mut reader = connect(port);
    let (mut writer, sent) = (reader.try_clone().unwrap(), content.clone());
    let write = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer
    });
    let mut got = vec![0; content.len()];
    reader.read_exact(&mut got).unwrap();
    assert!(got == content, "other bytes came back");
    write.join().unwrap().shutdown(Shutdown::Write).unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the end does not come back");
}

/// The answer to an upgrade, up to its empty line.
fn upgraded(socket: &mut TcpStream, request: &str) -> String {
    socket.write_all(request.as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

/// Two clients of one server: `-L` at the one that runs when this returns, `-L` or `-R` at the other.
fn two(first: &[&str], second: &[&str]) -> (Program, Program, Serving) {
    let serving = Serving::with(&[]);
    let client = |args: &[&str]| {
        let all = [&[serving.link.as_str()][..], args].concat();
        Program::start("gkd-client", serving.folder.path(), &all)
    };
    let (first, second) = (client(first), client(second));
    (first, second, serving)
}

#[test]
fn tcp_goes_through_websocket_and_two_tunnels_and_comes_back() {
    let (plain, ws, echo) = (free_port(), free_port(), echo());
    let (_first, _second, _serving) = two(
        &["-L", &format!("tcp://{plain}:ws://127.0.0.1:{ws}/a?b=c")],
        &["-L", &format!("ws://{ws}:127.0.0.1:{echo}?path=/a")],
    );
    wait_for_port(ws);
    wait_for_port(plain);
    comes_back(plain, 8);
    let all: Vec<_> = (0..8).map(|_| thread::spawn(move || comes_back(plain, 1))).collect();
    all.into_iter().for_each(|one| one.join().unwrap());
}

#[test]
fn both_stand_on_the_server_and_lead_here() {
    let (plain, ws, echo) = (free_port(), free_port(), echo());
    let (first, second, _serving) = two(
        &["-R", &format!("tcp://{plain}:ws://127.0.0.1:{ws}/")],
        &["-R", &format!("ws://{ws}:127.0.0.1:{echo}")],
    );
    first.wait_for_log("the server listens on");
    second.wait_for_log("the server listens on");
    comes_back(plain, 4);

    let mut socket = connect(ws);
    let head = upgraded(&mut socket, REQUEST);
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains(ACCEPT), "{head}");
    // "Hello" as RFC 6455, section 5.7 has it, and a Close.
    socket.write_all(b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58").unwrap();
    let mut frame = [0; 7];
    socket.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x82\x05Hello");
    socket.write_all(b"\x88\x82\0\0\0\0\x03\xe8").unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"\x88\x02\x03\xe8");
    // What is no upgrade is told so, and nobody else is disturbed.
    let head = upgraded(&mut connect(ws), &REQUEST.replace("Upgrade: websocket\r\n", ""));
    assert!(head.starts_with("HTTP/1.1 426 "), "{head}");
    comes_back(plain, 1);
}

/// Reads all, up to the end, and answers then.
fn answers_at_the_end() -> u16 {
    let listener = TcpListener::bind(loopback(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            thread::spawn(move || {
                let (mut socket, mut all) = (socket?, Vec::new());
                socket.read_to_end(&mut all)?;
                all.reverse();
                socket.write_all(&all)
            });
        }
    });
    port
}

/// As `printf … | nc -N` does it.
fn is_answered_behind_its_end(port: u16, request: &[u8]) {
    let mut socket = connect(port);
    socket.write_all(request).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    assert!(answer.iter().rev().eq(request), "{} bytes came back", answer.len());
}

#[test]
fn a_program_that_ends_its_request_gets_the_answer() {
    let behind = answers_at_the_end();
    let ports: [u16; 4] = std::array::from_fn(|_| free_port());
    let forms = |[plain, ws]: [u16; 2]| {
        [format!("tcp://{plain}:ws://127.0.0.1:{ws}/"), format!("ws://{ws}:127.0.0.1:{behind}")]
    };
    let (here, there) = (forms([ports[0], ports[1]]), forms([ports[2], ports[3]]));
    let (first, second, _serving) =
        two(&["-L", &here[0], "-R", &there[1]], &["-L", &here[1], "-R", &there[0]]);
    first.wait_for_log("the server listens on");
    second.wait_for_log("the server listens on");
    for plain in [ports[0], ports[2]] {
        wait_for_port(plain);
        is_answered_behind_its_end(plain, b"hello");
        is_answered_behind_its_end(plain, b"");
        is_answered_behind_its_end(plain, &[7; 3_000_001]);
    }
    // A client by hand that closes first has the answer ahead of the Close.
    let mut socket = connect(ports[1]);
    assert!(upgraded(&mut socket, REQUEST).starts_with("HTTP/1.1 101 "));
    socket.write_all(b"\x81\x82\0\0\0\0ab\x88\x82\0\0\0\0\x03\xe8").unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"\x82\x02ba\x88\x02\x03\xe8");
}

#[test]
fn a_message_of_any_length_goes_on_as_it_comes() {
    const FRAGMENTS: usize = 4;
    const FRAGMENT: usize = 16 << 20;
    let (ws, listener) = (free_port(), TcpListener::bind(loopback(0)).unwrap());
    let behind = listener.local_addr().unwrap().port();
    let (client, _other, _serving) = two(&["-L", &format!("ws://{ws}:127.0.0.1:{behind}")], &[]);
    wait_for_port(ws);
    let mut socket = connect(ws);
    assert!(upgraded(&mut socket, REQUEST).starts_with("HTTP/1.1 101 "));
    let before = client.memory();
    let count = thread::spawn(move || {
        let (mut socket, mut piece, mut came) = (listener.accept().unwrap().0, vec![0; 1 << 16], 0);
        loop {
            match socket.read(&mut piece).unwrap() {
                0 => return came,
                read => came += read,
            }
        }
    });
    // A text message in fragments, and one in a single frame, as browsers send it.
    let fragment = vec![b'x'; FRAGMENT];
    let of = |first: u8, len: usize| [&[first, 0xff][..], &(len as u64).to_be_bytes(), &[0; 4]].concat();
    for index in 0..FRAGMENTS {
        let first = match index {
            0 => 0x01,
            _ if index == FRAGMENTS - 1 => 0x80,
            _ => 0x00,
        };
        socket.write_all(&of(first, FRAGMENT)).unwrap();
        socket.write_all(&fragment).unwrap();
    }
    socket.write_all(&of(0x81, FRAGMENTS * FRAGMENT)).unwrap();
    for _ in 0..FRAGMENTS {
        socket.write_all(&fragment).unwrap();
    }
    socket.write_all(b"\x88\x80\0\0\0\0").unwrap();
    assert_eq!(count.join().unwrap(), 2 * FRAGMENTS * FRAGMENT);
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"\x88\0");
    if let (Some(before), Some(after)) = (before, client.memory()) {
        let more = after.most.saturating_sub(before.now) >> 20;
        println!("{more} MiB more for two messages of {} MiB", (FRAGMENTS * FRAGMENT) >> 20);
        // What a session may have on its way, not a message.
        assert!(more < 64, "{more} MiB");
    }
}

#[test]
fn a_destination_that_is_not_there_is_told_as_far_as_it_can_be() {
    let (ws, strict, closed, no_ws, plain) = (free_port(), free_port(), free_port(), free_port(), echo());
    let (first, _second, _serving) = two(
        &[
            "-L",
            &format!("ws://{ws}:127.0.0.1:{closed}"),
            "-L",
            &format!("ws://{strict}:127.0.0.1:{closed}?strict=1"),
            "-L",
            &format!("tcp://{no_ws}:ws://127.0.0.1:{plain}/"),
        ],
        &[],
    );
    wait_for_port(no_ws);
    let mut socket = connect(ws);
    assert!(upgraded(&mut socket, REQUEST).starts_with("HTTP/1.1 101 "));
    let mut close = [0; 4];
    socket.read_exact(&mut close).unwrap();
    assert_eq!((close[0], &close[2..]), (0x88, &1011u16.to_be_bytes()[..]));
    let head = upgraded(&mut connect(strict), REQUEST);
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert!(connect(no_ws).read(&mut [0]).is_err(), "a server that speaks no WebSocket is a reset");
    first.wait_for_log("the WebSocket server does not answer in HTTP: ");
}

#[test]
fn a_form_that_is_none_is_named_with_its_mend() {
    let serving = Serving::with(&[]);
    for (form, words) in [
        ("tcp://8082:http://a.example/", "write ws://HOST:PORT/PATH or wss://HOST:PORT/PATH"),
        ("tcp://8082:ws://a.example/#proxy=v2", "it has text=1"),
        ("ws://8081:a.example:80?origin=null", "origin=https://HOST"),
        ("ws://8081", "write ws://[BIND:]PORT:HOST:PORT"),
    ] {
        let ended = run("gkd-client", &["-L", form, &serving.link]);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(64), "{form}: {said}");
        assert!(said.contains(words), "{form}: {said}");
    }
}
