//! The binary as people start it: what it says, how it ends, and that it carries bytes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use gkd_core::identity::SecretKey;
use support::{Running, TestServer, client, free_port, text};

/// Ends with this status, and says this in one line.
#[track_caller]
fn assert_fails(arguments: &[&str], environment: &[(&str, &str)], status: i32, part: &str) {
    let output = client(arguments, environment).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert!(stderr.contains(part), "{stderr}");
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
}

#[test]
fn a_command_line_that_cannot_be_read_is_64() {
    assert_fails(&["--nonsense"], &[], 64, "--nonsense");
    assert_fails(&[], &[], 64, "no link: give the line that the server printed");
    assert_fails(&["nonsense"], &[], 64, "LINK: this is not a gkd link");
    assert_fails(&["https://example.com"], &[], 64, "LINK: https:// is not a gkd link");
    assert_fails(&["status", "gkd://KEY"], &[], 64, "it is a secret and not shown");
    assert_fails(&["gkd://abc"], &[], 64, "LINK: the link's key is cut");
    assert_fails(&["-n", "65"], &[], 64, "write 1 to 64, or auto");
    assert_fails(&["-L", "1080"], &[], 64, "--local: listener \"1080\"");
    assert_fails(&["-R", "mixed://1080"], &[], 64, "mixed listens here only (-L)");
    assert_fails(&["demo", "gkd://KEY"], &[], 64, "it is a secret and not shown");
    assert_fails(&["check"], &[], 64, "nothing to check");
}

#[test]
fn files_and_variables_that_are_wrong_are_78() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("client.toml");
    fs::write(&config, "tunnels = 4\nlocal = [\"nonsense\"]\n").unwrap();
    let config = config.to_str().unwrap();
    assert_fails(&["--link-file", "/nowhere/link"], &[], 78, "the link file /nowhere/link cannot be read");
    assert_fails(&[], &[("GKD_LINK", "gkd://abc")], 78, "GKD_LINK: the link's key is cut");
    assert_fails(
        &["--config", "/nowhere/c.toml"],
        &[],
        78,
        "the configuration /nowhere/c.toml cannot be read",
    );
    assert_fails(&["--config", config], &[], 78, "client.toml line 2: listener \"nonsense\"");
    assert_fails(&["check", "--config", config], &[], 78, "client.toml line 2: listener \"nonsense\"");
}

#[test]
fn a_right_configuration_is_told_without_its_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("client.toml");
    let link = support::link(&SecretKey::generate().public(), &SecretKey::generate(), "server.example:9990");
    fs::write(&path, format!("links = [\"{link}\"]\ntunnels = 6\n")).unwrap();
    let output = client(&["check", "--config", path.to_str().unwrap()], &[]).output().unwrap();
    let stdout = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for part in ["client.toml is right", "server.example:9990", "6 per path", "mixed://127.0.0.1:1080"] {
        assert!(stdout.contains(part), "{stdout}");
    }
    assert!(!stdout.contains(&link[10..40]) && !text(&output.stderr).contains(&link[10..40]));
}

#[test]
fn help_version_completions_and_manual_are_printed() {
    for (arguments, part) in [
        (&["--help"][..], "-n, --tunnels <N>"),
        (&["--version"], "gkd-client 0."),
        (&["demo", "--help"], "--rtt <MS>"),
        (&["completions", "bash"], "complete -F"),
        (&["man"], ".TH gkd-client"),
    ] {
        let output = client(arguments, &[("GKD_LINK", "gkd://secret")]).output().unwrap();
        let stdout = text(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(stdout.contains(part) && !stdout.contains("gkd://secret"), "{arguments:?}: {stdout}");
    }
}

#[test]
fn a_port_in_use_is_told_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = format!("mixed://{}", taken.local_addr().unwrap());
    let link = support::link(&SecretKey::generate().public(), &SecretKey::generate(), "127.0.0.1:9");
    assert_fails(&["-L", &listener, &link], &[], 78, "another program has the port");
}

#[test]
fn it_carries_bytes_tells_its_state_and_ends_upon_a_signal() {
    let server = TestServer::start();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = web.local_addr().unwrap();
    let answer = std::thread::spawn(move || {
        let mut socket = web.accept().unwrap().0;
        let mut request = [0; 4];
        socket.read_exact(&mut request).unwrap();
        socket.write_all(b"pong").unwrap();
        // Until the program has gone.
        socket.read_to_end(&mut Vec::new()).unwrap();
    });
    let port = free_port();
    let forward = format!("tcp://{port}:{target}");
    let mut running = Running::start(&["-L", &forward, "-L", "mixed://0", &server.link()], &[]);
    running.expect("forward on 127.0.0.1:");
    running.expect("SOCKS5 and HTTP proxy on 127.0.0.1:");
    running.expect("4 tunnels up to 127.0.0.1:");

    let mut program = TcpStream::connect(("127.0.0.1", port)).unwrap();
    program.set_read_timeout(Some(support::PATIENCE)).unwrap();
    program.write_all(b"ping").unwrap();
    let mut got = [0; 4];
    program.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"pong");

    running.signal("USR1");
    running.expect("state: 4 of 4 tunnels up, 1 connection, 1 program served");
    running.expect("tunnel 0: round trip");

    running.signal("TERM");
    running.expect("ending: 1 connection may end within 30 s");
    // What lives goes on, nothing new is taken.
    program.write_all(b"more").unwrap();
    // The listener's task ends behind the line that was logged.
    let since = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(since.elapsed() < support::PATIENCE, "it still listens");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(program);
    running.expect("ended");
    assert_eq!(running.end(), Some(0));
    answer.join().unwrap();
}

#[test]
fn a_second_signal_ends_at_once() {
    let server = TestServer::start();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free_port();
    let forward = format!("tcp://{port}:{}", web.local_addr().unwrap());
    let mut running = Running::start(&["-L", &forward, &server.link()], &[]);
    running.expect("4 tunnels up");
    let mut program = TcpStream::connect(("127.0.0.1", port)).unwrap();
    program.write_all(b"ping").unwrap();
    let (mut far, _) = web.accept().unwrap();
    far.read_exact(&mut [0; 4]).unwrap();
    running.signal("INT");
    running.expect("a second signal ends at once");
    running.signal("INT");
    running.expect("ending at once");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn a_network_that_is_down_is_waited_for_and_left_at_once() {
    let port = free_port();
    let (server_key, user) = (SecretKey::generate(), SecretKey::generate());
    let link = support::link(&server_key.public(), &user, &format!("127.0.0.1:{port}"));
    let mut running = Running::start(&["-n", "2", "-L", "mixed://0"], &[("GKD_LINK", &link)]);
    running.expect("SOCKS5 and HTTP proxy on");
    running.expect("no tunnel is up, dialling on: the server at 127.0.0.1:");
    let server = TestServer::start_on(port, server_key.clone(), user.clone());
    running.expect("2 tunnels up to");
    drop(server);
    running.expect("no tunnel is up, dialling on");
    running.signal("TERM");
    running.expect("ended");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn a_server_that_refuses_is_77() {
    let server = TestServer::start();
    let stranger = support::link(&server.key(), &SecretKey::generate(), &server.address());
    let parts = "does not know this link's key: it was removed or renewed there; ask for a new link";
    assert_fails(&["-q", "-L", "mixed://0", &stranger], &[], 77, parts);
    let other = support::link(&SecretKey::generate().public(), &server.user(), &server.address());
    let parts = "proved another key than this link names";
    assert_fails(&["-q", "-L", "mixed://0", &other], &[], 77, parts);
    // One that is there and takes TLS only is no network that is down.
    let parts = "does not take the unencrypted carrier, which both ends must ask for by name";
    assert_fails(&["-q", "-L", "mixed://0", "--plain", &server.link()], &[], 77, parts);
}

#[test]
fn a_user_that_is_removed_meanwhile_is_77() {
    let server = TestServer::start();
    let mut running = Running::start(&["-L", "mixed://0", &server.link()], &[]);
    running.expect("4 tunnels up to");
    server.revoke();
    running.expect("the server removed this user");
    running.expect("gkd-client: the server at");
    assert_eq!(running.end(), Some(77));
}

#[test]
fn the_state_is_told_however_quiet_the_log_is() {
    let server = TestServer::start();
    let port = free_port();
    let listener = format!("mixed://{port}");
    let mut running = Running::start(&["-q", "-L", &listener, &server.link()], &[]);
    let since = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(since.elapsed() < support::PATIENCE, "it does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    running.signal("USR1");
    running.expect("state: ");
    running.signal("TERM");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn a_flag_goes_over_the_variable_of_the_log_and_a_wrong_one_is_78() {
    let server = TestServer::start();
    let link = server.link();
    assert_fails(
        &["-L", "mixed://0", &link],
        &[("RUST_LOG", "a=b=c")],
        78,
        "RUST_LOG is \"a=b=c\", which does not",
    );
    let mut running = Running::start(&["-v", "-L", "mixed://0", &link], &[("RUST_LOG", "off")]);
    running.expect("a tunnel is up");
    running.signal("TERM");
    assert_eq!(running.end(), Some(0));
}

#[test]
fn last_words_are_of_the_logs_form() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = format!("mixed://{}", taken.local_addr().unwrap());
    let link = support::link(&SecretKey::generate().public(), &SecretKey::generate(), "127.0.0.1:9");
    let arguments = ["--log-format", "json", "-q", "-L", &listener, &link];
    let output = client(&arguments, &[]).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    let all_json = stderr.lines().all(|line| line.starts_with('{') && line.ends_with('}'));
    assert!(all_json && stderr.contains("another program has the port"), "{stderr}");
}

#[test]
fn a_reader_that_leaves_is_no_fault() {
    let mut command = client(&["man"], &[]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn check_tells_a_line_each() {
    let server = TestServer::start();
    let run = |link: &str| {
        let output = client(&["check", "-n", "3", link], &[]).output().unwrap();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (status, stdout, stderr) = run(&server.link());
    assert_eq!(status, Some(0), "{stderr}");
    let address = server.address();
    let lines =
        ["reachable", "the right key", "3 of 3 tunnels come up"].map(|line| format!("{address}: {line}\n"));
    assert_eq!(stdout, lines.concat());

    let (status, stdout, stderr) =
        run(&support::link(&server.key(), &SecretKey::generate(), &server.address()));
    assert_eq!(status, Some(77), "{stderr}");
    assert!(
        stdout.contains("0 of 3 tunnels come up") && stderr.contains("ask for a new link"),
        "{stdout}{stderr}"
    );

    let (status, stdout, stderr) =
        run(&support::link(&SecretKey::generate().public(), &server.user(), &server.address()));
    assert_eq!(status, Some(77), "{stderr}");
    assert!(stdout.contains("another key") && stderr.contains("someone is in between"), "{stdout}{stderr}");

    let (status, stdout, stderr) = run(&server.link().replace("gkd://", "gkd+plain://"));
    assert_eq!(status, Some(77), "{stderr}");
    assert!(stdout.contains("encrypted tunnels only") && stderr.contains("run --plain"), "{stdout}{stderr}");

    let down = support::link(&server.key(), &server.user(), &format!("127.0.0.1:{}", free_port()));
    let (status, stdout, stderr) = run(&down);
    assert_eq!(status, Some(69), "{stderr}");
    assert!(stdout.contains("not reachable") && stderr.contains("cannot be reached"), "{stdout}{stderr}");
}

#[test]
fn what_is_not_gkd_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            socket.read_exact(&mut [0; 5]).ok();
            socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").ok();
        }
    });
    let link = support::link(&SecretKey::generate().public(), &SecretKey::generate(), &address);
    let output = client(&["check", "-n", "1", &link], &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("does not speak gkd"), "{}", text(&output.stderr));
}

#[test]
fn logs_are_json_where_that_is_asked_for_and_never_coloured_elsewhere() {
    let server = TestServer::start();
    for (arguments, first) in [(&["--log-format", "json"][..], "{"), (&[], "2")] {
        let link = server.link();
        let mut all = vec!["-L", "mixed://0", &*link];
        all.extend(arguments);
        let mut running = Running::start(&all, &[]);
        let line = running.expect("SOCKS5 and HTTP proxy");
        assert!(line.starts_with(first) && !line.contains('\u{1b}'), "{line}");
        running.signal("TERM");
        assert_eq!(running.end(), Some(0));
    }
}

#[test]
fn the_demo_ends_with_its_figure() {
    let arguments = ["demo", "--tunnels", "3", "--rtt", "10", "--cap", "40", "--bytes", "300000"];
    let output = client(&arguments, &[]).output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    let last = stdout.lines().last().unwrap();
    let figure = last.strip_prefix("speed-up ").and_then(|rest| rest.strip_suffix("x (3 tunnels over 1)"));
    let (whole, fraction) =
        figure.and_then(|figure| figure.split_once('.')).unwrap_or_else(|| panic!("{last}"));
    assert!(whole.parse::<u32>().is_ok() && fraction.len() == 2 && fraction.parse::<u32>().is_ok(), "{last}");
    // Both streams: no other number is followed by an x.
    let all = format!("{stderr}{stdout}");
    let followed =
        all.as_bytes().windows(2).filter(|pair| pair[0].is_ascii_digit() && pair[1] == b'x').count();
    assert_eq!(followed, 1, "{all}");
    for part in
        ["1 tunnel ", "3 tunnels ", "3 tunnels, one cut", "out of order", "nothing was lost", "SHA-256"]
    {
        assert!(stdout.contains(part), "{stdout}");
    }
    assert!(stderr.contains("a tunnel was cut"), "{stderr}");
    assert!(!all.contains('\u{1b}'), "{all}");
}
