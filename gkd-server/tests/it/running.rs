//! The server as it runs: its first start, sessions, signals.

use std::fs;
use std::net::{Shutdown, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::thread;

use gkd_core::link::Link;
use gkd_core::proto::handshake::RejectCode;
use gkd_core::proto::packet::{CloseCode, DialError};
use gkd_core::{Client, ClientEvent, Connection, SessionEnd, TunnelDialError};
use gkd_proxy::{Destination, Target};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::support::{Files, LONG, Running};

/// The link with the port that the server got.
fn at(link: &Link, running: &Running) -> Link {
    let mut link = link.clone();
    link.addresses = vec![format!("127.0.0.1:{}", running.port).parse().unwrap()];
    link
}

async fn client(link: &Link) -> Client {
    let client = Client::builder().link(link).tunnels(2).connect();
    timeout(LONG, client).await.expect("it comes up").unwrap()
}

/// A program that sends back what it got, for one connection.
fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut writer = socket.try_clone().unwrap();
        std::io::copy(&mut socket, &mut writer).ok();
        writer.shutdown(Shutdown::Write).ok();
    });
    address
}

async fn open(client: &Client, to: std::net::SocketAddr) -> Connection {
    let target: Target = to.to_string().parse().unwrap();
    client.open(Destination::Tcp(target).encode()).await.unwrap()
}

async fn ping(connection: &mut Connection) {
    connection.write_all(b"ping").await.unwrap();
    let mut back = [0; 4];
    timeout(LONG, connection.read_exact(&mut back)).await.expect("it comes back").unwrap();
    assert_eq!(&back, b"ping");
}

#[test]
fn the_first_start_makes_a_server_and_puts_the_link_into_a_file() {
    let files = Files::new();
    let mut running = files.run(&["--listen", "127.0.0.1:0"]);
    running.wait_for("first-user.link");
    let path = files.dir.join("first-user.link");
    let text = fs::read_to_string(&path).unwrap();
    let link: Link = text.trim_end().parse().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(link.addresses[0].to_string(), format!("127.0.0.1:{}", running.port));
    running.signal(Signal::TERM);
    let (status, stdout) = running.ended();
    assert_eq!((status, stdout.as_str()), (Some(0), ""));
    // A key has no business in a journal.
    assert!(!running.log.iter().any(|line| line.contains("gkd://")), "{:#?}", running.log);

    // The port was free just now; it is not part of the file.
    let mut again = files.run(&["--listen", "127.0.0.1:0"]);
    again.signal(Signal::INT);
    assert_eq!(again.ended().0, Some(0));
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_link_leads_to_what_is_allowed_and_nowhere_else() {
    let files = Files::new();
    let mut running = files.run(&["--listen", "127.0.0.1:0", "--allow", "127.0.0.0/30"]);
    running.wait_for("first-user.link");
    let link: Link =
        fs::read_to_string(files.dir.join("first-user.link")).unwrap().trim_end().parse().unwrap();
    let client = client(&link).await;
    assert!(running.wait_for("a session began").contains("first"));

    let address = echo();
    let mut connection = open(&client, address).await;
    ping(&mut connection).await;
    connection.shutdown().await.unwrap();
    assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
    drop(connection);

    let denied = open(&client, "127.0.0.9:1".parse().unwrap()).await;
    let error = timeout(LONG, denied.connected()).await.unwrap().unwrap_err();
    assert_eq!(error, gkd_core::ConnectError::Dial(DialError::Denied));
    running.wait_for("127.0.0.9 is not allowed");

    client.close().await;
    running.wait_for("a session ended");
    running.signal(Signal::TERM);
    assert_eq!(running.ended().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_and_a_foreign_carrier_are_refused() {
    let (files, link) = Files::initialised();
    let mut running = files.run(&[]);
    let mut stranger = at(&link, &running);
    stranger.user = gkd_core::identity::SecretKey::generate();
    let error = Client::builder().link(&stranger).tunnels(1).connect().await.unwrap_err();
    let gkd_core::Error::Dial(error) = error else { panic!("{error}") };
    assert!(
        matches!(&*error, TunnelDialError::Rejected { reject, .. } if reject.code == RejectCode::UnknownUser),
        "{error}"
    );
    running.wait_for("the key is no user's");

    let mut plain = at(&link, &running);
    plain.carrier = gkd_core::carrier::CarrierKind::Plain;
    assert!(Client::builder().link(&plain).tunnels(1).connect().await.is_err());
    drop(running);

    let mut running = files.run(&["--plain"]);
    running.wait_for("the unencrypted carrier is taken");
    plain.addresses = at(&link, &running).addresses;
    client(&plain).await.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hup_brings_users_and_takes_them_with_their_sessions() {
    let (files, first) = Files::initialised();
    let without = files.config();
    let alice: Link = files.ok(&["user", "add", "alice"]).trim_end().parse().unwrap();
    let with = files.config();
    files.edit(|_| without.clone());
    let mut running = files.run(&["--allow", "127.0.0.1"]);
    let (first, alice) = (at(&first, &running), at(&alice, &running));
    assert!(Client::builder().link(&alice).tunnels(1).connect().await.is_err());
    // As a person does who edits it.
    files.edit(|_| with);
    running.signal(Signal::HUP);
    running.wait_for("2 users");

    let (of_first, of_alice) = (client(&first).await, client(&alice).await);
    let address = echo();
    let mut connection = open(&of_first, address).await;
    ping(&mut connection).await;

    let mut events = of_alice.events();
    files.edit(|_| without);
    running.signal(Signal::HUP);
    assert!(running.wait_for("read anew: 1 user;").contains("1 session of removed users"));
    let revoked = async {
        loop {
            if let Ok(ClientEvent::SessionLost { cause, .. }) = events.recv().await {
                return cause;
            }
        }
    };
    let cause = timeout(LONG, revoked).await.expect("alice is told");
    let SessionEnd::Closed(gkd_core::proto::session::CloseCause::Remote { code, .. }) = cause else {
        panic!("{cause}")
    };
    assert_eq!(code, CloseCode::REVOKED);
    assert!(Client::builder().link(&alice).tunnels(1).connect().await.is_err());

    // Nothing else was touched.
    ping(&mut connection).await;
    drop(connection);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_user_comes_in_with_the_new_link_only_and_at_once() {
    let (files, old) = Files::initialised();
    let mut running = files.run(&[]);
    let old = at(&old, &running);
    let live = client(&old).await;
    let output = files.output(&["user", "renew", "first"]);
    let told = crate::support::stderr(&output);
    assert!(told.contains("the running server took it over: 1 session ended"), "{told}");
    let new: Link = String::from_utf8(output.stdout).unwrap().trim_end().parse().unwrap();
    let new = at(&new, &running);
    running.wait_for("read anew");
    drop(live);
    assert!(Client::builder().link(&old).tunnels(1).connect().await.is_err());
    client(&new).await.close().await;
}

/// Origin: wmproxy answers a reload with success whatever happened; an emptied file widened access in chisel.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_empty_or_gone_changes_nothing_at_a_hup() {
    let (files, link) = Files::initialised();
    let mut running = files.run(&["--allow", "127.0.0.1"]);
    let link = at(&link, &running);
    let client = client(&link).await;
    let address = echo();
    let mut connection = open(&client, address).await;
    let right = files.config();
    for (wrong, told) in [
        (format!("{right}\nnonsense"), "line "),
        (format!("allow = [\"0.0.0.0/0\", \"x\"]\n{right}"), "column "),
        (String::new(), "the file is empty"),
    ] {
        files.edit(|_| wrong);
        running.signal(Signal::HUP);
        assert!(running.wait_for("nothing is changed").contains(told));
        ping(&mut connection).await;
    }
    fs::remove_file(files.dir.join("server.toml")).unwrap();
    running.signal(Signal::HUP);
    running.wait_for("nothing is changed");
    ping(&mut connection).await;
    // Nobody reaches more than before.
    let denied = open(&client, "127.0.0.2:1".parse().unwrap()).await;
    assert!(timeout(LONG, denied.connected()).await.unwrap().is_err());
    running.wait_for("127.0.0.2 is not allowed");
    drop(connection);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hup_changes_what_may_be_reached_and_says_what_takes_a_restart() {
    let (files, link) = Files::initialised();
    let mut running = files.run(&[]);
    let client = client(&at(&link, &running)).await;
    let address = echo();
    let denied = open(&client, address).await;
    assert!(timeout(LONG, denied.connected()).await.unwrap().is_err());
    files.edit(|text| {
        text.replace("# allow = ", "allow = [\"127.0.0.1\"] # ").replace("# plain = false", "plain = true")
    });
    running.signal(Signal::HUP);
    assert!(running.wait_for("takes a restart").contains("plain"));
    running.wait_for("read anew");
    let mut connection = open(&client, address).await;
    ping(&mut connection).await;

    // What the rules forbid now ends, also when it runs.
    files.edit(|text| text.replace("allow = [\"127.0.0.1\"]", "allow = [\"127.0.0.2\"]"));
    running.signal(Signal::HUP);
    running.wait_for("was reset: the rules do not allow it any more");
    assert!(timeout(LONG, connection.read(&mut [0])).await.expect("it is reset").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_lets_connections_end_and_a_second_one_does_not() {
    let (files, link) = Files::initialised();
    for second in [false, true] {
        let mut running = files.run(&["--allow", "127.0.0.1"]);
        let client = client(&at(&link, &running)).await;
        let address = echo();
        let mut connection = open(&client, address).await;
        ping(&mut connection).await;
        running.signal(Signal::TERM);
        running.wait_for("1 connection may take 30 s");
        ping(&mut connection).await;
        if second {
            running.signal(Signal::TERM);
            running.wait_for("ended at once");
            assert!(timeout(LONG, connection.read(&mut [0])).await.expect("it is reset").is_err());
        } else {
            timeout(LONG, connection.shutdown()).await.unwrap().unwrap();
            assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
            drop(connection);
        }
        assert_eq!(running.ended().0, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn usr1_logs_the_state_even_when_the_log_is_quiet() {
    let (files, link) = Files::initialised();
    let mut running = files.run_quietly();
    let client = client(&at(&link, &running)).await;
    running.signal(Signal::USR1);
    running.wait_for("session of first from 127.0.0.1:");
    running.wait_for("1 session, ");
    drop(client);
}

#[test]
fn the_log_may_be_json() {
    let (files, _) = Files::initialised();
    let mut running = files.run(&["--log-format", "json"]);
    running.signal(Signal::TERM);
    assert_eq!(running.ended().0, Some(0));
    assert!(
        running.log.iter().all(|line| line.starts_with('{') && line.ends_with('}')),
        "{:#?}",
        running.log
    );
}

#[test]
fn a_range_of_ports_is_listened_on() {
    let (files, _) = Files::initialised();
    // Free a moment ago; another process may take one, so there are several tries.
    for _ in 0..20 {
        let first = gkd_load::ports::free_port().unwrap();
        if first > 65_530 || (first..first + 3).any(|port| TcpListener::bind(("127.0.0.1", port)).is_err()) {
            continue;
        }
        let range = format!("127.0.0.1:{first}-{}", first + 2);
        let running = files.run(&["--listen", &range]);
        for port in first..first + 3 {
            std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        }
        drop(running);
        return;
    }
    panic!("no three ports in a row are free");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_bytes_are_closed_and_disturb_nobody() {
    let (files, link) = Files::initialised();
    let running = files.run(&[]);
    let mut foreign = tokio::net::TcpStream::connect(("127.0.0.1", running.port)).await.unwrap();
    foreign.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
    let mut back = Vec::new();
    // Closed or reset, but not answered.
    timeout(LONG, foreign.read_to_end(&mut back)).await.expect("it is closed").ok();
    assert!(back.is_empty(), "{back:?}");
    let client = client(&at(&link, &running)).await;
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn user_commands_take_effect_at_once_and_the_list_tells_who_is_there() {
    let (files, first) = Files::initialised();
    assert_eq!(files.ok(&["user", "list"]).trim_end().split('\t').count(), 2, "no server, no third column");
    let running = files.run(&[]);
    let alice: Link = files.ok(&["user", "add", "alice"]).trim_end().parse().unwrap();
    let _alice = client(&at(&alice, &running)).await;
    let list = files.ok(&["user", "list"]);
    let live: Vec<_> = list.lines().map(|line| line.split('\t').collect::<Vec<_>>()).collect();
    assert_eq!((live[0][0], live[0][2]), ("first", "0 sessions"), "{list}");
    assert_eq!((live[1][0], live[1][2]), ("alice", "1 session"), "{list}");

    let output = files.output(&["user", "remove", "alice"]);
    let told = crate::support::stderr(&output);
    assert!(told.contains("alice is removed") && told.contains("took it over: 1 session ended"), "{told}");
    assert!(Client::builder().link(&at(&alice, &running)).tunnels(1).connect().await.is_err());
    client(&at(&first, &running)).await.close().await;
}

#[test]
fn a_file_that_is_broken_meanwhile_is_not_taken_over_and_that_is_told() {
    let (files, _) = Files::initialised();
    let mut running = files.run(&[]);
    let right = files.config();
    files.edit(|text| text.replace("listen = [\"127.0.0.1:0\"]", "listen = [\"127.0.0.1:0\"]\nplain = true"));
    let output = files.output(&["user", "add", "alice"]);
    let told = crate::support::stderr(&output);
    assert!(told.contains("took it over: 0 sessions ended"), "{told}");
    assert!(told.contains("plain differs from what it was started with: that takes a restart"), "{told}");
    // The command itself refuses to touch a broken file; the server would as well.
    files.edit(|_| format!("{right}\nnonsense"));
    assert!(files.fails(78, &["user", "remove", "first"]).contains("line "));
    running.wait_for("takes a restart");
}

#[test]
fn a_second_server_on_the_directory_is_told_of_the_first() {
    let (files, _) = Files::initialised();
    let mut running = files.run(&[]);
    let told = files.fails(78, &["run"]);
    let process = format!("gkd-server is already running (process {})", running.id());
    assert!(told.contains(&process) && told.contains("control.sock") && told.contains("--dir"), "{told}");
    // The first goes on, and answers.
    assert!(files.ok(&["status"]).contains(&format!("process {}, for", running.id())));
    running.signal(Signal::TERM);
    assert_eq!(running.ended().0, Some(0));
    assert!(!files.dir.join("control.sock").exists());
    let told = files.fails(69, &["status"]);
    assert!(told.contains("no server runs on") && told.contains("control.sock"), "{told}");
}

#[test]
fn what_a_killed_server_left_is_replaced() {
    let (files, _) = Files::initialised();
    let running = files.run(&[]);
    drop(running);
    assert!(files.dir.join("control.sock").exists(), "it was killed");
    assert!(files.fails(69, &["status"]).contains("no server runs on"));
    let _running = files.run(&[]);
    files.ok(&["status"]);
}

#[test]
fn a_directory_whose_path_is_too_long_for_a_socket_is_told_and_served() {
    let (mut files, _) = Files::initialised();
    let long = files.dir.with_file_name("x".repeat(100));
    fs::rename(&files.dir, &long).unwrap();
    files.dir = long;
    let mut running = files.run(&[]);
    assert!(running.log.iter().any(|line| line.contains("there is no control socket")), "{:?}", running.log);
    let told = files.fails(69, &["status"]);
    assert!(told.contains("choose a shorter directory"), "{told}");
    let output = files.output(&["user", "add", "alice"]);
    assert!(crate::support::stderr(&output).contains("takes it up at a HUP"), "{output:?}");
    running.signal(Signal::TERM);
    assert_eq!(running.ended().0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_ending_is_asked_all_the_same() {
    let (files, link) = Files::initialised();
    let mut running = files.run(&["--allow", "127.0.0.1"]);
    let client = client(&at(&link, &running)).await;
    let mut connection = open(&client, echo()).await;
    ping(&mut connection).await;
    running.signal(Signal::TERM);
    running.wait_for("ending: 1 connection");
    let shown = files.ok(&["status"]);
    assert!(shown.contains("1 session, 2 tunnels, 1 connection"), "{shown}");
    // A user that is removed is not to have the rest of the time.
    let told = crate::support::stderr(&files.output(&["user", "remove", "first"]));
    assert!(told.contains("took it over: 1 session ended"), "{told}");
    assert_eq!(running.ended().0, Some(0));
    drop(connection);
}
