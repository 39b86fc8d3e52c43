//! Forwards of datagrams, and listeners on the server, with the two binaries: what a restart, another client, a
//! reload and a broken session do to them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use gkd_tests::{Program, Serving, Setup, free_port, wait_for_port};

/// So long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A service that says a word to whoever comes, and then sends back what it gets.
fn service(word: &'static str) -> u16 {
    let listener = TcpListener::bind(loopback(0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for socket in listener.incoming() {
            thread::spawn(move || {
                let mut socket = socket?;
                socket.write_all(word.as_bytes())?;
                std::io::copy(&mut socket.try_clone()?, &mut socket)
            });
        }
    });
    port
}

/// A program that came to a port, and what was said to it.
fn come(port: u16, length: usize) -> std::io::Result<(TcpStream, String)> {
    let mut socket = TcpStream::connect(loopback(port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut word = vec![0; length];
    socket.read_exact(&mut word)?;
    Ok((socket, String::from_utf8(word).unwrap()))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn datagrams_are_forwarded_up_to_the_largest() {
    let echo = UdpSocket::bind(loopback(0)).unwrap();
    let target = echo.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((count, from)) = echo.recv_from(&mut buffer) {
            echo.send_to(&buffer[..count], from).unwrap();
        }
    });
    let port = free_port();
    let setup = Setup::with(&[], &["-L", &format!("udp://{port}:127.0.0.1:{target}")]);
    setup.client.wait_for_log("UDP forward");
    let program = UdpSocket::bind(loopback(0)).unwrap();
    program.connect(loopback(port)).unwrap();
    program.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = vec![0; 65_536];
    for size in [1, 1_400, 65_507] {
        let payload: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        // Datagrams may be lost; most are not.
        until("an answer", || {
            program.send(&payload).unwrap();
            program.recv(&mut buffer).is_ok_and(|count| buffer[..count] == payload)
        });
    }
}

#[test]
fn a_client_that_was_killed_takes_its_listener_over_and_live_programs_of_another_go_on() {
    let Serving { server, link, folder, .. } = Serving::with(&[]);
    let (one, other) = (service("one"), service("two"));
    let (port, other_port) = (free_port(), free_port());
    let start = |target: u16, port: u16| {
        let proxy = format!("mixed://{}", free_port());
        let remote = format!("tcp://{port}:127.0.0.1:{target}");
        Program::start("gkd-client", folder.path(), &[&link, "-L", &proxy, "-R", &remote])
    };
    let mut first = start(one, port);
    let other_client = start(other, other_port);
    other_client.wait_for_log("the server listens on");
    first.wait_for_log("the server listens on");
    let (mut live, word) = come(other_port, 3).unwrap();
    assert_eq!(word, "two");
    assert_eq!(come(port, 3).unwrap().1, "one");

    // Killed, so that nothing tells the server; what comes after it gets the port nevertheless.
    first.signal("KILL");
    first.wait();
    let second = start(other, port);
    second.wait_for_log("the server listens on");
    assert_eq!(come(port, 3).unwrap().1, "two");
    assert!(!server.log().contains("in use"), "{}", server.log());

    live.write_all(b"still here").unwrap();
    let mut back = [0; 10];
    live.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still here");
}

#[test]
fn a_listener_goes_with_its_client_and_comes_back_with_the_server() {
    let Serving { mut server, port, link, folder } = Serving::with(&[]);
    let (target, listener) = (service("one"), free_port());
    let remote = format!("tcp://{listener}:127.0.0.1:{target}");
    let mut client = Program::start("gkd-client", folder.path(), &[&link, "-R", &remote]);
    wait_for_port(listener);
    assert_eq!(come(listener, 3).unwrap().1, "one");

    server.signal("KILL");
    server.wait();
    assert!(TcpStream::connect(loopback(listener)).is_err());
    let dir = folder.path().join("server");
    let listen = format!("127.0.0.1:{port}");
    let again = ["run", "--dir", dir.to_str().unwrap(), "--listen", &listen];
    let server = Program::start("gkd-server", folder.path(), &again);
    until("it is served again", || come(listener, 3).is_ok_and(|(_, word)| word == "one"));

    client.signal("TERM");
    assert_eq!(client.wait(), 0);
    until("the port is closed", || TcpStream::connect(loopback(listener)).is_err());
    server.wait_for_log("does not listen on");
}

#[test]
fn what_the_rules_forbid_is_told_and_nothing_else_suffers() {
    let (target, listener) = (service("one"), free_port());
    let remote = [format!("tcp://80:127.0.0.1:{target}"), format!("tcp://{listener}:127.0.0.1:{target}")];
    let setup = Setup::with(&[], &["-R", &remote[0], "-R", &remote[1]]);
    setup.client.wait_for_log("no listener on the server");
    assert!(setup.client.log().contains("127.0.0.1:80"), "{}", setup.client.log());
    wait_for_port(listener);
    assert_eq!(come(listener, 3).unwrap().1, "one");
}

#[test]
fn a_hup_that_takes_a_port_away_closes_it_and_cuts_nobody() {
    let (target, listener) = (service("one"), free_port());
    let remote = format!("tcp://{listener}:127.0.0.1:{target}");
    let setup = Setup::with(&[], &["-R", &remote]);
    setup.client.wait_for_log("the server listens on");
    let (mut live, _) = come(listener, 3).unwrap();
    let path = setup.folder.path().join("server/server.toml");
    let before = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, before.replace("[[user]]\n", "[[user]]\nreverse = []\n")).unwrap();
    setup.server.signal("HUP");
    setup.client.wait_for_log("may listen on nothing at the server");
    until("the port is closed", || TcpStream::connect(loopback(listener)).is_err());
    live.write_all(b"goes on").unwrap();
    let mut back = [0; 7];
    live.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"goes on");
}

#[test]
fn a_listener_goes_when_its_session_is_gone_for_good() {
    let Serving { mut server, port, link, folder } = Serving::with(&[]);
    server.signal("TERM");
    assert_eq!(server.wait(), 0);
    let dir = folder.path().join("server");
    let path = dir.join("server.toml");
    let before = std::fs::read_to_string(&path).unwrap();
    let after = before.replace("# resume = \"60s\"", "resume = \"1s\"");
    assert_ne!(before, after);
    std::fs::write(&path, after).unwrap();
    let listen = format!("127.0.0.1:{port}");
    let again = ["run", "--dir", dir.to_str().unwrap(), "--listen", &listen];
    let server = Program::start("gkd-server", folder.path(), &again);
    wait_for_port(port);

    let listener = free_port();
    let remote = format!("tcp://{listener}:127.0.0.1:{}", service("one"));
    let mut client = Program::start("gkd-client", folder.path(), &[&link, "-R", &remote]);
    wait_for_port(listener);
    client.signal("KILL");
    client.wait();
    server.wait_for_log("a session ended: ");
    until("the port is closed", || TcpStream::connect(loopback(listener)).is_err());
    server.wait_for_log("does not listen on");
}
