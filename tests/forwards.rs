//! Forwards with the two binaries: datagrams, which have no end of their own, when the server ends; and Unix sockets of
//! the server, which only those reach whose rules name them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use gkd_tests::{Program, Serving, Setup, free_port, wait_for_port};

/// So long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(30);

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A port that sends datagrams back.
fn echo() -> u16 {
    let echo = UdpSocket::bind(loopback(0)).unwrap();
    let port = echo.local_addr().unwrap().port();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((count, from)) = echo.recv_from(&mut buffer) {
            echo.send_to(&buffer[..count], from).unwrap();
        }
    });
    port
}

/// A program that asks until it is answered.
fn ask(port: u16, question: &[u8], answer: &[u8]) -> UdpSocket {
    let program = UdpSocket::bind(loopback(0)).unwrap();
    program.connect(loopback(port)).unwrap();
    program.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = [0; 100];
    until("an answer", || {
        program.send(question).unwrap();
        program.recv(&mut buffer).is_ok_and(|count| buffer[..count] == *answer)
    });
    program
}

/// What a program says to have datagrams relayed; the connection that holds the relay, and its port.
fn associate(proxy: u16) -> (TcpStream, u16) {
    let mut control = TcpStream::connect(loopback(proxy)).unwrap();
    control.set_read_timeout(Some(PATIENCE)).unwrap();
    control.write_all(&[5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0]).unwrap();
    let mut reply = [0; 12];
    control.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], [5, 0, 5, 0]);
    (control, u16::from_be_bytes([reply[10], reply[11]]))
}

/// A client with a flow of a forward and one of a SOCKS program, which is told its end on the connection that comes with it.
fn with_flows() -> (Setup, TcpStream) {
    let (port, target) = (free_port(), echo());
    let setup = Setup::with(&[], &["-L", &format!("udp://{port}:127.0.0.1:{target}")]);
    setup.client.wait_for_log("UDP forward");
    ask(port, b"hello", b"hello");
    let (control, relay) = associate(setup.proxy);
    let wrapped = [&[0, 0, 0, 1, 127, 0, 0, 1][..], &target.to_be_bytes(), b"hello"].concat();
    ask(relay, &wrapped, &wrapped);
    (setup, control)
}

/// Whether it was ending because of two connections, and neither was cut.
fn assert_ended(log: &str) {
    assert!(log.contains("ending: 2 connections may "), "{log}");
    assert!(log.lines().last().unwrap().ends_with(" ended") && !log.contains("reset"), "{log}");
}

#[test]
fn flows_of_datagrams_do_not_hold_the_end_of_the_server_up() {
    let (mut setup, mut control) = with_flows();
    setup.server.signal("TERM");
    assert_eq!(setup.server.wait(), 0);
    assert_ended(&setup.server.log());
    assert_eq!(control.read(&mut [0]).unwrap(), 0);
}

#[test]
fn flows_of_datagrams_do_not_hold_the_end_of_the_client_up() {
    let (mut setup, mut control) = with_flows();
    setup.client.signal("TERM");
    assert_eq!(setup.client.wait(), 0);
    assert_ended(&setup.client.log());
    assert_eq!(control.read(&mut [0]).unwrap(), 0);
}

/// A service at a path that says a word to whoever comes.
fn service(path: &Path, word: &'static str) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            thread::spawn(move || {
                socket.write_all(word.as_bytes())?;
                std::io::copy(&mut socket.try_clone()?, &mut socket)
            });
        }
    });
}

/// What is said to whoever comes to a port: the words, as long as these; an error where it is reset.
fn come(port: u16, length: usize) -> std::io::Result<(TcpStream, String)> {
    let mut socket = TcpStream::connect(loopback(port))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut words = vec![0; length];
    socket.read_exact(&mut words)?;
    Ok((socket, String::from_utf8(words).unwrap()))
}

#[test]
fn unix_sockets_of_the_server_are_reached_where_the_user_has_them_and_by_no_link() {
    let Serving { server, link, folder, .. } = Serving::with(&[]);
    let root = folder.path().canonicalize().unwrap();
    let open = root.join("open");
    fs::create_dir(&open).unwrap();
    service(&open.join("app"), "open");
    service(&root.join("secret"), "secret");
    symlink(root.join("secret"), open.join("link")).unwrap();
    let config = root.join("server/server.toml");
    let before = fs::read_to_string(&config).unwrap();
    let rewrite = |lines: &str, said: &str| {
        let (at, rest) = before.split_once("[[user]]\n").unwrap();
        fs::write(&config, format!("{at}[[user]]\n{lines}\n{rest}")).unwrap();
        server.signal("HUP");
        server.wait_for_log(said);
    };

    let [app, by_link, secret] = [free_port(), free_port(), free_port()];
    let forward = |port: u16, path: &Path| format!("tcp://{port}:unix:{}", path.display());
    let forwards = [
        forward(app, &open.join("app")),
        forward(by_link, &open.join("link")),
        forward(secret, &root.join("secret")),
    ];
    let mut args = vec![link.as_str()];
    forwards.iter().for_each(|form| args.extend(["-L", form]));
    let _client = Program::start("gkd-client", &root, &args);
    wait_for_port(secret);

    // Nobody reaches any, unless it is said.
    assert!(come(app, 4).is_err());
    server.wait_for_log("`unix` of the user in server.toml would permit it");
    let rule = |path: &Path| format!("unix = [\"{}\"]", path.display());
    rewrite(&rule(&open.join("*")), "first has another unix");
    let (mut live, word) = come(app, 4).unwrap();
    assert_eq!(word, "open");
    assert!(come(secret, 6).is_err() && come(by_link, 6).is_err());
    server.wait_for_log(&format!("it leads to {}, which is not allowed", root.join("secret").display()));

    // A file that is wrong changes nothing, and one that takes the path away ends what runs.
    rewrite("unix = [\"/run/*.sock\"]", "nothing is changed");
    live.write_all(b"still").unwrap();
    let mut back = [0; 5];
    live.read_exact(&mut back).unwrap();
    rewrite(&rule(&root.join("secret")), "was reset: the rules do not allow it any more");
    live.read(&mut [0]).unwrap_err();
    assert!(come(app, 4).is_err());
    assert_eq!(come(secret, 6).unwrap().1, "secret");
}
