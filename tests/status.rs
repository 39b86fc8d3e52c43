//! What the two binaries tell of themselves while they run, and what is changed in them without a restart.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gkd_tests::{Program, Serving, Setup, binaries, free_port, has_tool, run, wait_for_port, web};
use serde_json::Value;

const MIB: u64 = 1024 * 1024;

/// A download over a fixed forward of which some was read.
struct Download {
    body: BufReader<TcpStream>,
    len: u64,
    seed: u64,
}

impl Download {
    /// Reads up to the end of the header.
    fn begin(port: u16, len: u64, seed: u64) -> Self {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        write!(stream, "GET /{len}/{seed} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut body = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(body.read_line(&mut line).unwrap() > 0, "the header ends early");
        }
        Self { body, len, seed }
    }

    /// Whether the rest comes, and is right.
    fn ends_whole(mut self) -> bool {
        web::check(&mut self.body, self.len, self.seed)
    }
}

fn forward(port: u16, web: u16) -> String {
    format!("tcp://127.0.0.1:{port}:127.0.0.1:{web}")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that ends well; its standard output.
fn ok(name: &str, args: &[&str]) -> String {
    let output = run(name, args);
    assert!(output.status.success(), "{args:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn client_status(client: &Program) -> Value {
    serde_json::from_str(&ok("gkd-client", &["status", "--json", "--pid", &client.id().to_string()])).unwrap()
}

fn directory(folder: &Path) -> String {
    folder.join("server").to_str().unwrap().to_owned()
}

fn server_status(folder: &Path) -> Value {
    serde_json::from_str(&ok("gkd-server", &["status", "--json", "--dir", &directory(folder)])).unwrap()
}

#[test]
fn both_ends_show_a_transfer() {
    let (port, web) = (free_port(), web::serve());
    let setup = Setup::with(&[], &["-L", &forward(port, web)]);
    setup.client.wait_for_log("4 tunnels up");
    // Larger than what all buffers on the way hold.
    let len = 100 * MIB;
    let download = Download::begin(port, len, 1);

    let client = client_status(&setup.client);
    assert_eq!(client["program"], "gkd-client");
    assert_eq!(client["pid"], setup.client.id());
    assert_eq!((&client["tunnels_up"], &client["tunnels_wanted"]), (&4.into(), &4.into()));
    assert_eq!((&client["programs"], &client["session"]["connections"]), (&1.into(), &1.into()));
    let tunnels = client["session"]["tunnels"].as_array().unwrap();
    let server_at = Value::from(format!("127.0.0.1:{}", setup.port));
    for tunnel in tunnels {
        assert_eq!((&tunnel["path"], &tunnel["remote"]), (&server_at, &server_at), "{tunnel}");
        assert!(tunnel["id"].is_u64() && tunnel["state"] != "down", "{tunnel}");
    }
    let received: u64 = tunnels.iter().map(|tunnel| tunnel["received"].as_u64().unwrap()).sum();
    assert!(received > 0, "{tunnels:?}");
    let listeners = client["listeners"].as_array().unwrap();
    let of_forward = listeners.iter().find(|it| it["listener"] == *forward(port, web)).unwrap();
    assert_eq!((&of_forward["state"], &of_forward["serving"]), (&"listening".into(), &1.into()));
    assert_eq!(of_forward["addresses"][0], format!("127.0.0.1:{port}"));

    let server = server_status(setup.folder.path());
    assert_eq!((&server["program"], &server["pid"]), (&"gkd-server".into(), &setup.server.id().into()));
    assert_eq!(
        (&server["tunnels"], &server["connections"], &server["users"]),
        (&4.into(), &1.into(), &1.into())
    );
    assert_eq!(server["limits"]["destinations"]["used"], 1);
    assert!(server["limits"]["memory"]["used"].as_u64().unwrap() > 0);
    let session = &server["sessions"][0];
    assert_eq!((&session["user"], &session["id"]), (&"first".into(), &client["session"]["id"]));
    let peers: Vec<_> = session["tunnels"].as_array().unwrap().iter().map(|it| &it["remote"]).collect();
    assert!(peers.len() == 4 && peers.iter().all(|it| it.as_str().unwrap().starts_with("127.0.0.1:")));
    let before = session["sent"].as_u64().unwrap();
    assert!(before > 0 && before < len, "{before}");

    assert!(download.ends_whole());
    let after = server_status(setup.folder.path());
    assert!(after["sessions"][0]["sent"].as_u64().unwrap() >= len, "{after}");
    let after = client_status(&setup.client);
    assert!(after["session"]["received"].as_u64().unwrap() >= len, "{after}");
    assert!(after["session"]["packets_received"].as_u64().unwrap() > 0);

    // The same for people.
    let shown = ok("gkd-client", &["status", "--pid", &setup.client.id().to_string()]);
    for part in ["4 of 4 tunnels up to 127.0.0.1:", "listening", "round trip", "packets held out of order"] {
        assert!(shown.contains(part), "{shown}");
    }
    let shown = ok("gkd-server", &["status", "--dir", &directory(setup.folder.path())]);
    for part in ["1 user, 1 session, 4 tunnels", "session of first from 127.0.0.1:", "nobody was turned away"]
    {
        assert!(shown.contains(part), "{shown}");
    }
}

#[test]
fn who_is_turned_away_is_counted() {
    let setup = Setup::new();
    let other = Serving::with(&[]);
    let dir = directory(setup.folder.path());
    let stranger = ok("gkd-server", &["user", "add", "gone", "--dir", &dir]);
    ok("gkd-server", &["user", "remove", "gone", "--dir", &dir]);
    let output = run("gkd-client", &["check", "-n", "2", stranger.trim()]);
    assert_eq!(output.status.code(), Some(77), "{}", said(&output));
    let met = &server_status(setup.folder.path())["met"];
    assert!(met["tunnels_rejected_unknown"].as_u64().unwrap() >= 1, "{met}");
    assert_eq!(server_status(other.folder.path())["met"]["tunnels_rejected_unknown"], 0);
}

#[test]
fn users_come_and_go_at_once() {
    let serving = Serving::with(&[]);
    let dir = directory(serving.folder.path());
    let add = run("gkd-server", &["user", "add", "alice", "--dir", &dir]);
    assert!(said(&add).contains("the running server took it over: 0 sessions ended"), "{}", said(&add));
    let link = String::from_utf8(add.stdout).unwrap().trim().to_owned();
    let listener = format!("mixed://127.0.0.1:{}", free_port());
    let mut client = Program::start("gkd-client", serving.folder.path(), &[&link, "-L", &listener]);
    client.wait_for_log("4 tunnels up");
    let list = ok("gkd-server", &["user", "list", "--dir", &dir]);
    assert!(list.lines().any(|line| line.starts_with("alice\t") && line.ends_with("\t1 session")), "{list}");

    let remove = run("gkd-server", &["user", "remove", "alice", "--dir", &dir]);
    assert!(said(&remove).contains("took it over: 1 session ended"), "{}", said(&remove));
    assert_eq!(client.wait(), 77, "{}", client.log());
    assert_eq!(run("gkd-client", &["check", &link]).status.code(), Some(77));
}

/// A client of a file.
struct Configured {
    client: Program,
    file: PathBuf,
    serving: Serving,
}

impl Configured {
    fn with(listeners: &str) -> Self {
        let serving = Serving::with(&[]);
        let file = serving.folder.path().join("client.toml");
        fs::write(&file, Self::content(&serving, listeners)).unwrap();
        let client =
            Program::start("gkd-client", serving.folder.path(), &["--config", file.to_str().unwrap()]);
        client.wait_for_log("4 tunnels up");
        Self { client, file, serving }
    }

    fn content(serving: &Serving, listeners: &str) -> String {
        format!("links = [\"{}\"]\n{listeners}\n", serving.link)
    }

    /// Writes it anew, and sends a HUP; `answer` is what is logged then.
    fn change(&self, listeners: &str, answer: &str) {
        fs::write(&self.file, Self::content(&self.serving, listeners)).unwrap();
        self.client.signal("HUP");
        self.client.wait_for_log(answer);
    }
}

fn table(name: &str, form: &str) -> String {
    format!("[[listener]]\nname = \"{name}\"\nlocal = \"{form}\"\n")
}

#[test]
fn a_hup_adds_and_removes_listeners_while_downloads_go_on() {
    let web = web::serve();
    let [kept, old, new] = [free_port(), free_port(), free_port()];
    let keeps = table("kept", &forward(kept, web));
    let configured = Configured::with(&(keeps.clone() + &table("old", &forward(old, web))));
    let client = &configured.client;
    assert!(client.log().contains(&format!("kept: forward on 127.0.0.1:{kept} to 127.0.0.1:{web}")));
    let len = 64 * MIB;
    let (over_kept, over_old) = (Download::begin(kept, len, 1), Download::begin(old, len, 2));

    let added = format!("opened new: SOCKS5 and HTTP proxy on 127.0.0.1:{new}; closed old: tcp://");
    configured.change(&(keeps + &table("new", &format!("mixed://{new}"))), &added);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, old)).is_err());
    TcpStream::connect((Ipv4Addr::LOCALHOST, new)).unwrap();
    let status = client_status(client);
    let states: Vec<_> =
        status["listeners"].as_array().unwrap().iter().map(|it| (&it["name"], &it["state"])).collect();
    let expected = [("kept", "listening"), ("new", "listening"), ("old", "ending")];
    assert!(states.iter().zip(expected).all(|(it, name)| *it.0 == name.0 && *it.1 == name.1), "{states:?}");
    // Neither was cut.
    assert!(over_old.ends_whole() && over_kept.ends_whole());
    assert!(Download::begin(kept, MIB, 3).ends_whole());
    assert_eq!(status["session"]["tunnels_lost"], 0);
}

#[test]
fn what_a_hup_cannot_take_over_is_told_and_changes_nothing() {
    let kept = free_port();
    let keeps = table("kept", &format!("mixed://{kept}"));
    let configured = Configured::with(&keeps);
    configured.change("nonsense", "nothing is changed, the configuration in force stays: ");
    assert!(configured.client.log().contains("client.toml line 2: "), "{}", configured.client.log());
    TcpStream::connect((Ipv4Addr::LOCALHOST, kept)).unwrap();

    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let both = keeps.clone() + &table("late", &format!("mixed://{port}"));
    configured.change(&both, "not opened late: mixed://");
    let log = configured.client.log();
    assert!(log.contains("another program has the port") && log.contains("; the others go on"), "{log}");
    TcpStream::connect((Ipv4Addr::LOCALHOST, kept)).unwrap();
    drop(taken);
    configured.change(&both, "opened late: SOCKS5");
    wait_for_port(port);

    configured
        .change(&format!("tunnels = 3\nbind = [\"127.0.0.1\"]\n{both}"), "the listeners stay as they are");
    let log = configured.client.log();
    for setting in ["tunnels", "bind"] {
        assert!(
            log.contains(&format!(
                "{setting} differs from what the client was started with: that takes a restart"
            )),
            "{log}"
        );
    }
    assert_eq!(client_status(&configured.client)["tunnels_up"], 4);
}

#[test]
fn without_a_file_there_is_nothing_to_read_anew() {
    let mut setup = Setup::new();
    setup.client.wait_for_log("4 tunnels up");
    setup.client.signal("HUP");
    setup.client.wait_for_log("there is nothing to read anew: no configuration file");
    assert_eq!(client_status(&setup.client)["tunnels_up"], 4);
    setup.client.signal("TERM");
    assert_eq!(setup.client.wait(), 0);
}

#[test]
fn one_of_several_clients_is_chosen_and_none_is_told() {
    let serving = Serving::with(&[]);
    let runtime = serving.folder.path().join("run");
    fs::create_dir(&runtime).unwrap();
    let variables = [("XDG_RUNTIME_DIR", runtime.to_str().unwrap())];
    let start = || {
        let args = [&*serving.link, "-L", "mixed://0"];
        Program::start_with_variables(&variables, "gkd-client", serving.folder.path(), &args)
    };
    let (first, second) = (start(), start());
    first.wait_for_log("4 tunnels up");
    second.wait_for_log("4 tunnels up");
    let ask = |args: &[&str]| {
        let mut command = Command::new(binaries().join("gkd-client"));
        command.arg("status").args(args).envs(variables).output().unwrap()
    };
    let output = ask(&[]);
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    for client in [&first, &second] {
        let line = format!("--pid {}  to 127.0.0.1:{}, for ", client.id(), serving.port);
        assert!(said(&output).contains(&line), "{}", said(&output));
        let output = ask(&["--pid", &client.id().to_string(), "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(status["pid"], client.id());
    }
    let output = ask(&["--pid", "1"]);
    assert_eq!(output.status.code(), Some(69), "{}", said(&output));
    assert!(said(&output).contains("no client of this user with process id 1 runs"), "{}", said(&output));
}

#[test]
fn a_client_ends_with_the_terminal_that_its_log_is_on() {
    if !has_tool("python3") {
        return;
    }
    let serving = Serving::with(&[]);
    let config = serving.folder.path().join("client.toml");
    fs::write(&config, "local = [\"mixed://0\"]").unwrap();
    // Reads the terminal until tunnels are up, hangs it up, and passes the client's status on.
    let script = "
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, 9))
signal.alarm(60)
seen = b''
while b'tunnels up' not in seen:
    seen += os.read(terminal, 4096)
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";
    let client = binaries().join("gkd-client");
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(client).arg(&serving.link).arg("--config").arg(config);
    let mut child = command.spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_does_not_speak_to_a_control_socket_disturbs_nobody() {
    let serving = Serving::with(&[]);
    let socket = serving.folder.path().join("server/control.sock");
    for words in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[b'x'; 5000], b"\0\0\n"] {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        // What is too long may be cut off while it is written.
        stream.write_all(words).ok();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok();
        assert!(answer.is_empty() || answer.contains("\"error\":"), "{answer}");
    }
    assert_eq!(server_status(serving.folder.path())["users"], 1);
}
