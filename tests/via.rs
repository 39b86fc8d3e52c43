//! A client whose server is behind an HTTP proxy, which is another pair's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::thread;

use gkd_tests::{Program, Serving, Setup, binaries, free_port, run, wait_for_port, web};

const LEN: u64 = 4 * 1024 * 1024;

/// A pair that is the proxy, for one user, and another server behind it.
struct Behind {
    proxy: Setup,
    port: u16,
    server: Serving,
}

impl Behind {
    fn new() -> Self {
        let port = free_port();
        let listener = format!("http://me:se%25cret@127.0.0.1:{port}?strict=1");
        let proxy = Setup::with(&[], &["-L", &listener]);
        wait_for_port(port);
        proxy.client.wait_for_log("tunnels up to");
        Self { proxy, port, server: Serving::with(&[]) }
    }

    fn url(&self, password: &str) -> String {
        format!("http://{password}127.0.0.1:{}", self.port)
    }

    /// A client of the server behind, with its `mixed` listener.
    fn client(&self, variables: &[(&str, &str)], args: &[&str]) -> (Program, u16) {
        let listen = free_port();
        let listener = format!("mixed://127.0.0.1:{listen}");
        let mut all = vec![self.server.link.as_str(), "-n", "2", "-L", &listener];
        all.extend(args);
        let folder = self.server.folder.path();
        let client = Program::start_with_variables(variables, "gkd-client", folder, &all);
        wait_for_port(listen);
        (client, listen)
    }
}

/// Downloads through a `mixed` listener and checks every byte.
fn assert_download(listen: u16, seed: u64) {
    let web = web::serve();
    let mut program = TcpStream::connect((Ipv4Addr::LOCALHOST, listen)).unwrap();
    write!(program, "CONNECT 127.0.0.1:{web} HTTP/1.1\r\n\r\nGET /{LEN}/{seed} HTTP/1.0\r\n\r\n").unwrap();
    for _ in 0..2 {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            program.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        assert!(head[8..].starts_with(b" 200 "), "{}", String::from_utf8_lossy(&head));
    }
    assert!(web::check(&mut program, LEN, seed));
}

/// Runs the client to its end.
fn ended(variables: &[(&str, &str)], args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binaries().join("gkd-client"));
    for name in ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"] {
        command.env_remove(name);
    }
    let Output { status, stderr, .. } =
        command.args(args).envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_client_reaches_its_server_through_a_proxy() {
    let behind = Behind::new();
    let via = behind.url("me:se%25cret@");
    let (mut client, listen) = behind.client(&[], &["--via", &via]);
    assert_download(listen, 1);
    let log = client.log();
    let told = format!("the tunnels go through the proxy at 127.0.0.1:{}", behind.port);
    assert!(log.contains(&told) && !log.contains("se%cret") && !log.contains("se%25cret"), "{log}");
    let pid = client.id().to_string();
    let status = run("gkd-client", &["status", "--json", "--pid", &pid]).stdout;
    let status = String::from_utf8(status).unwrap();
    let path = format!("\"127.0.0.1:{} via 127.0.0.1:{}\"", behind.server.port, behind.port);
    assert!(status.contains(&path), "{status}");
    let pid = behind.proxy.client.id().to_string();
    let status = run("gkd-client", &["status", "--json", "--pid", &pid]).stdout;
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert!(
        status["session"]["connections"].as_u64().unwrap() >= 2,
        "the tunnels are its connections: {status}"
    );
    client.signal("TERM");
    assert_eq!(client.wait(), 0);
    let (status, told) = ended(&[], &["check", "-q", "-n", "2", &behind.server.link, "--via", &via]);
    assert_eq!((status, told.as_str()), (Some(0), ""));
}

#[test]
fn a_password_that_the_proxy_does_not_take_is_told_at_once() {
    let behind = Behind::new();
    let link = behind.server.link.as_str();
    let over_ws = link.replacen("gkd://", "gkd+ws://", 1);
    let listener = format!("mixed://127.0.0.1:{}", free_port());
    for (password, part) in
        [("", "asks for a user and a password"), ("me:wrong@", "refuses the user or the password")]
    {
        let via = behind.url(password);
        for args in [
            &[link, "-L", &listener, "--via", &via][..],
            &[&over_ws, "-L", &listener, "--via", &via],
            &["check", link, "--via", &via],
        ] {
            let (status, told) = ended(&[], args);
            assert_eq!(status, Some(77), "{told}");
            let last = told.lines().last().unwrap();
            assert!(last.starts_with("gkd-client: the proxy at 127.0.0.1:") && last.contains(part), "{told}");
            assert!(!told.contains("wrong"), "{told}");
        }
    }
}

#[test]
fn what_is_no_proxy_is_told_whatever_the_tunnels_run_over() {
    let link = Serving::with(&[]).link.clone();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for program in listener.incoming() {
            let mut program = program.unwrap();
            if program.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {
                program.write_all(b"SSH-2.0-OpenSSH_9.9\r\n\x1b[31m").unwrap();
            }
        }
    });
    let via = format!("http://127.0.0.1:{port}");
    for link in [link.clone(), link.replacen("gkd://", "gkd+ws://", 1)] {
        let (status, told) = ended(&[], &["check", &link, "--via", &via]);
        assert_eq!(status, Some(69), "{told}");
        assert!(told.contains(&format!("127.0.0.1:{port} is no HTTP proxy")), "{told}");
        assert!(!told.contains('\x1b'), "{told:?}");
    }
}

#[test]
fn the_environment_counts_when_it_is_asked_for() {
    let behind = Behind::new();
    let via = behind.url("me:se%25cret@");
    let (client, listen) =
        behind.client(&[("https_proxy", &via), ("no_proxy", ""), ("NO_PROXY", "")], &["--via", "env"]);
    assert_download(listen, 2);
    client.wait_for_log("https_proxy is set: the tunnels go through the proxy at 127.0.0.1:");
    drop(client);

    // Nothing is there, and is not asked unless it is said.
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let (_client, listen) = behind.client(&[("https_proxy", &nobody), ("ALL_PROXY", &nobody)], &[]);
    assert_download(listen, 3);

    let left_out =
        [("https_proxy", nobody.as_str()), ("no_proxy", "10.0.0.0/8,127.0.0.0/8"), ("GKD_VIA", "env")];
    let (client, listen) = behind.client(&left_out, &[]);
    assert_download(listen, 4);
    client.wait_for_log("no_proxy leaves out 127.0.0.1: the server is reached directly");

    let (status, told) =
        ended(&[("ALL_PROXY", "socks5h://127.0.0.1:1"), ("GKD_VIA", "env")], &["check", &behind.server.link]);
    assert_eq!(status, Some(78), "{told}");
    assert!(told.starts_with("gkd-client: ALL_PROXY: a proxy of socks5h:// cannot be used"), "{told}");
    let (status, told) = ended(&[], &["check", &behind.server.link, "--via", "https://p:1"]);
    assert_eq!(status, Some(64), "{told}");
}
