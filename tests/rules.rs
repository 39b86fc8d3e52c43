//! Rules and limits of users, with the two binaries: who reaches what, before and after a HUP, and that what a rate slows
//! down arrives whole.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use gkd_tests::{Program, Serving, free_port, run, wait_for_port, web};

/// A bound on waiting, for a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that sends back what it gets, until the process ends; its port.
fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            std::thread::spawn(move || {
                io::copy(&mut &socket, &mut &socket).ok();
                socket.shutdown(Shutdown::Write).ok();
            });
        }
    });
    port
}

/// A user with a client, whose proxy tells how a dial ended.
struct User {
    _client: Program,
    proxy: u16,
    link: String,
}

impl User {
    /// Adds it to the server's file, with these lines.
    fn link(serving: &Serving, name: &str, lines: &str) -> String {
        let dir = serving.folder.path().join("server");
        let public = format!("127.0.0.1:{}", serving.port);
        let added =
            run("gkd-server", &["user", "add", name, "--dir", dir.to_str().unwrap(), "--public", &public]);
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        let name = format!("name = \"{name}\"\n");
        edit(serving, |text| text.replace(&name, &format!("{name}{lines}\n")));
        String::from_utf8(added.stdout).unwrap().trim().to_owned()
    }

    /// Starts its client, once the server knows it.
    fn start(serving: &Serving, link: String) -> Self {
        let proxy = free_port();
        let listener = format!("mixed://127.0.0.1:{proxy}?strict=1");
        let client = Program::start("gkd-client", serving.folder.path(), &[&link, "-L", &listener]);
        wait_for_port(proxy);
        Self { _client: client, proxy, link }
    }

    /// Asks for a connection; the number of the reply where there is none.
    fn connect(&self, host: &str, port: u16) -> Result<TcpStream, u8> {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.proxy)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.write_all(&[5, 1, 0]).unwrap();
        let mut method = [0; 2];
        socket.read_exact(&mut method).unwrap();
        let mut request = vec![5, 1, 0];
        match host.parse::<Ipv4Addr>() {
            Ok(ip) => request.extend([&[1][..], &ip.octets()].concat()),
            Err(_) => request.extend([&[3, host.len() as u8], host.as_bytes()].concat()),
        }
        request.extend(port.to_be_bytes());
        socket.write_all(&request).unwrap();
        let mut reply = [0; 10];
        socket.read_exact(&mut reply).unwrap();
        if reply[1] == 0 { Ok(socket) } else { Err(reply[1]) }
    }

    #[track_caller]
    fn reaches(&self, port: u16) -> TcpStream {
        let mut socket = self.connect("127.0.0.1", port).expect("it may be reached");
        ping(&mut socket).unwrap();
        socket
    }

    /// SOCKS reply 2: not allowed by the rules.
    #[track_caller]
    fn is_denied(&self, host: &str, port: u16) {
        assert_eq!(self.connect(host, port).map(drop), Err(2), "{host}:{port}");
    }
}

fn ping(socket: &mut TcpStream) -> io::Result<()> {
    socket.write_all(b"ping")?;
    let mut back = [0; 4];
    socket.read_exact(&mut back)?;
    assert_eq!(&back, b"ping");
    Ok(())
}

fn edit(serving: &Serving, edit: impl FnOnce(String) -> String) {
    let path = serving.folder.path().join("server/server.toml");
    let before = std::fs::read_to_string(&path).unwrap();
    let after = edit(before.clone());
    assert_ne!(before, after);
    std::fs::write(&path, after).unwrap();
}

/// Sends a HUP, and waits until the log says once more what came of it; that line.
fn hup(serving: &Serving, said: &str) -> String {
    let lines = || -> Vec<String> {
        serving.server.log().lines().filter(|line| line.contains(said)).map(str::to_owned).collect()
    };
    let (before, start) = (lines().len(), Instant::now());
    serving.server.signal("HUP");
    loop {
        let mut now = lines();
        if now.len() > before {
            return now.pop().unwrap();
        }
        assert!(start.elapsed() < PATIENCE, "the log never says {said:?}:\n{}", serving.server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn each_user_has_its_own_rules_and_a_hup_ends_what_they_forbid_and_nothing_else() {
    let serving = Serving::with(&[]);
    let (first, second) = (echo(), echo());
    let deny = |port: u16| format!("rules = [{{ deny = \"127.0.0.0/8\", ports = \"{port}\" }}]");
    let links = [("ann", deny(second)), ("bob", String::new())]
        .map(|(name, lines)| User::link(&serving, name, &lines));
    hup(&serving, "read anew: 3 users");
    // Each was taken over when it was added.
    let log = serving.server.log();
    assert!(log.contains("ann added") && log.contains("bob added"), "{log}");
    let [ann, bob] = links.map(|link| User::start(&serving, link));

    // What is allowed to all is denied to one.
    ann.is_denied("127.0.0.1", second);
    ann.is_denied("localhost", second);
    serving.server.wait_for_log("denied by rule 1 of the user");
    let mut live = [ann.reaches(first), bob.reaches(first), bob.reaches(second)];

    edit(&serving, |text| text.replace(&deny(second), &deny(first)));
    let line = hup(&serving, "read anew");
    assert!(line.contains("ann has another rules;") && !line.contains("bob"), "{line}");
    let error = live[0].read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    live[1..].iter_mut().for_each(|socket| ping(socket).unwrap());
    ann.is_denied("127.0.0.1", first);
    let mut running = ann.reaches(second);

    // A file that is wrong, or empty, widens nothing and ends nothing.
    let path = serving.folder.path().join("server/server.toml");
    let right = std::fs::read_to_string(&path).unwrap();
    for (wrong, told) in [
        (right.replace(&deny(first), "rules = []"), "there is no rule"),
        (
            right.replace(&deny(first), "rules = [{ allow = \"*\" }, { allow = \"10.0.0.0/8\" }]"),
            "can never match",
        ),
        (right.replace(&deny(first), "") + "nonsense", "line "),
        (String::new(), "the file is empty"),
    ] {
        std::fs::write(&path, wrong).unwrap();
        let line = hup(&serving, "nothing is changed");
        assert!(line.contains(told), "{line}");
        ann.is_denied("127.0.0.1", first);
        ping(&mut running).unwrap();
    }

    // Without rules of its own it reaches what all do.
    std::fs::write(&path, right.replace(&deny(first), "")).unwrap();
    hup(&serving, "ann has another rules");
    ann.reaches(first);
    ping(&mut running).unwrap();
}

#[test]
fn a_rule_on_a_name_sees_the_name_that_the_program_gave() {
    let serving = Serving::with(&[]);
    let port = echo();
    let link = User::link(&serving, "ann", "rules = [{ deny = \"localhost\" }]");
    hup(&serving, "read anew");
    let ann = User::start(&serving, link);
    ann.is_denied("localhost", port);
    ann.is_denied("LocalHost", port);
    let mut live = ann.reaches(port);
    // An allow by name lifts nothing of what the default denies, and what it denies is not what it says.
    edit(&serving, |text| {
        text.replace("{ deny = \"localhost\" }", "{ allow = \"localhost\" }, { deny = \"*\" }")
    });
    hup(&serving, "read anew");
    let error = live.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    ann.is_denied("127.0.0.1", port);
    ping(&mut ann.connect("localhost", port).unwrap()).unwrap();
}

#[test]
fn an_address_of_this_machine_is_denied_in_every_form() {
    // Only IPv4 loopback is allowed to all: so the user's rule takes it away, and what is left is the default.
    let serving = Serving::with(&[]);
    let link = User::link(&serving, "ann", "rules = [{ deny = \"127.0.0.0/8\" }]");
    hup(&serving, "read anew");
    let ann = User::start(&serving, link);
    let port = echo();
    for host in [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "localhost",
        "::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "0.0.0.0",
        "::",
        "169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "10.0.0.1",
        "255.255.255.255",
    ] {
        ann.is_denied(host, port);
    }
    ann.is_denied("192.0.2.1", 25);
}

#[test]
fn limits_of_one_user_hold_for_it_alone() {
    let serving = Serving::with(&[]);
    let port = echo();
    let links = [("ann", "limits = { sessions = 1, tunnels = 2, connections = 1 }"), ("bob", "")]
        .map(|(name, lines)| User::link(&serving, name, lines));
    hup(&serving, "read anew");
    let [ann, bob] = links.map(|link| User::start(&serving, link));
    let _one = ann.reaches(port);
    assert!(ann.connect("127.0.0.1", port).is_err(), "one connection is all that it may have");
    let _more = [bob.reaches(port), bob.reaches(port)];
    for (user, may) in [(&ann, false), (&bob, true)] {
        let output = run("gkd-client", &["check", &user.link]);
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), may, "{said}");
    }
    serving.server.wait_for_log("this key has as many sessions as it may");
}

#[test]
fn what_a_rate_slows_down_arrives_whole_also_when_it_changes() {
    const LEN: u64 = 2 * 1024 * 1024;
    let serving = Serving::with(&[]);
    let port = echo();
    let slow = "limits = { up = \"100K\", down = \"100K\" }";
    let link = User::link(&serving, "ann", slow);
    hup(&serving, "read anew");
    let ann = User::start(&serving, link);
    std::thread::scope(|scope| {
        let transfers: Vec<_> = (1..=4)
            .map(|seed| {
                let socket = ann.reaches(port);
                scope.spawn(move || {
                    let mut writer = socket.try_clone().unwrap();
                    std::thread::scope(|scope| {
                        scope.spawn(move || {
                            web::pieces(LEN, seed).for_each(|piece| writer.write_all(&piece).unwrap());
                            writer.shutdown(Shutdown::Write).unwrap();
                        });
                        web::check(&mut &socket, LEN, seed)
                    })
                })
            })
            .collect();
        // At the first rate they would take a minute and a half.
        edit(&serving, |text| text.replace(slow, "limits = { up = \"20M\", down = \"10M\" }"));
        hup(&serving, "ann has another limits");
        for transfer in transfers {
            assert!(transfer.join().unwrap(), "every byte came back, in order");
        }
    });
}
