//! Commands that end by themselves: what they print where, what they leave behind, how they exit.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use gkd_core::identity::public_text;
use gkd_core::link::Link;

use crate::support::{Files, stderr};

fn mode(files: &Files, name: &str) -> u32 {
    fs::metadata(files.dir.join(name)).unwrap().permissions().mode() & 0o7777
}

#[test]
fn init_prints_the_link_alone_and_keeps_secrets_to_the_owner() {
    let files = Files::new();
    let output = files.output(&["init", "--public", "server.example:9990"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let link: Link = stdout.strip_suffix('\n').unwrap().parse().unwrap();
    assert_eq!(link.addresses[0].to_string(), "server.example:9990");
    assert_eq!(
        (mode(&files, ""), mode(&files, "server.toml"), mode(&files, "server.key")),
        (0o700, 0o600, 0o600)
    );
    let config = files.config();
    assert!(config.contains(&public_text(&link.user.public())), "{config}");
    assert!(config.contains("\npublic = \"server.example:9990\"\n"), "{config}");
    // Not even on standard error, nor in a file.
    let secret = link.user.to_secret_text();
    assert!(!config.contains(&secret));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("gkd://"));
    assert!(files.ok(&["check"]).contains("server.toml is right: 1 user, listens on 0.0.0.0:9990"));
}

#[test]
fn init_overwrites_nothing() {
    let (files, _) = Files::initialised();
    let before = (files.config(), fs::read(files.dir.join("server.key")).unwrap());
    let words = files.fails(78, &["init"]);
    assert!(words.contains("server.toml is there already") && words.contains("user add"), "{words}");
    assert_eq!((files.config(), fs::read(files.dir.join("server.key")).unwrap()), before);
}

#[test]
fn init_goes_on_with_a_key_that_is_there_alone() {
    let (files, link) = Files::initialised();
    fs::remove_file(files.dir.join("server.toml")).unwrap();
    let again: Link = files.ok(&["init", "--public", "127.0.0.1:1"]).trim_end().parse().unwrap();
    assert_eq!(again.server, link.server);
    assert_ne!(again.user, link.user);
}

#[test]
fn a_configuration_without_its_key_is_named() {
    let (files, _) = Files::initialised();
    fs::remove_file(files.dir.join("server.key")).unwrap();
    for command in [&["check"][..], &["run"], &["user", "add", "alice"]] {
        let words = files.fails(78, command);
        assert!(words.contains("server.key") && words.contains("copy"), "{words}");
    }
    assert!(!files.config().contains("alice"));
}

#[test]
fn usage_is_64_and_help_is_not_a_mistake() {
    let files = Files::new();
    for wrong in [
        &[][..],
        &["run", "--no-such"],
        &["walk"],
        &["run", "--listen", "nowhere"],
        &["run", "-v", "-q"],
        &["user", "add", ""],
        &["user", "add", "a\u{1b}[31m"],
    ] {
        let words = files.fails(64, wrong);
        assert!(!words.contains('\u{1b}'), "{words:?}");
    }
    assert!(files.ok(&["--help"]).contains("gkd-server"));
    assert!(files.ok(&["run", "--help"]).contains("--listen"));
    assert!(files.ok(&["completions", "bash"]).contains("gkd-server"));
    assert!(files.ok(&["man"]).contains(".TH gkd-server"));
    assert!(!files.dir.exists());
}

#[test]
fn a_wrong_variable_is_named_and_an_empty_one_is_none() {
    let files = Files::new();
    for (variable, value, part) in [
        ("GKD_LISTEN", "nowhere", "GKD_LISTEN: not an address to listen on"),
        ("GKD_PLAIN", "perhaps", "GKD_PLAIN: "),
        ("GKD_LOG_FORMAT", "xml", "GKD_LOG_FORMAT: \"xml\" is no log format"),
        ("GKD_ALLOW", "10.0.0.0/33", "GKD_ALLOW: \"10.0.0.0/33\" is not a range"),
    ] {
        let output = files.command(&["run"]).env(variable, value).output().unwrap();
        assert_eq!(output.status.code(), Some(78), "{}", stderr(&output));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
        // A flag goes over it, and is to blame for itself.
        let output = files.command(&["run", "--listen", "x"]).env("GKD_LISTEN", "y").output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
    }
    let mut command = files.command(&["init", "--public", "127.0.0.1:1"]);
    assert_eq!(command.env("GKD_PUBLIC", "").output().unwrap().status.code(), Some(0));
    let mut command = files.command(&["user", "add", "alice"]);
    let output = command.env("GKD_PUBLIC", " ").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn mistakes_in_the_file_are_named_with_their_line() {
    let (files, _) = Files::initialised();
    let right = files.config();
    let line = |text: &str, words: &str| text.lines().position(|line| line.contains(words)).unwrap() + 1;
    for (wrong, words) in [
        (right.replace("[limits]", "lisen = []\n[limits]"), "lisen"),
        (right.replace("# allow = ", "allow = [\"10.0.0.0/33\"] # "), "10.0.0.0/33"),
        (right.replace("127.0.0.1:0", "127.0.0.1"), "listen = "),
        (right.replace("\nkey = \"", "\nkey = \"x"), "key = \"x"),
        (right.replace("[limits]", "[limits"), "[limits"),
        (format!("{right}\n{}", &right[right.find("[[user]]").unwrap()..]), ""),
    ] {
        let place = if words.is_empty() { right.lines().count() + 3 } else { line(&wrong, words) };
        files.edit(|_| wrong);
        for command in [&["check"][..], &["run"], &["user", "list"], &["user", "remove", "first"]] {
            let told = files.fails(78, command);
            assert!(told.contains(&format!("server.toml, line {place}, column ")), "{words}: {told}");
        }
    }
}

#[test]
fn a_congestion_control_that_is_not_there_is_named() {
    let (files, _) = Files::initialised();
    files.edit(|text| text.replace("# congestion = \"auto\"", "congestion = \"nosuch\""));
    for command in ["check", "run"] {
        let words = files.fails(78, &[command]);
        assert!(words.contains("nosuch"), "{words}");
    }
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let (files, _) = Files::initialised();
    fs::set_permissions(files.dir.join("server.key"), fs::Permissions::from_mode(0o640)).unwrap();
    for command in ["run", "check"] {
        let words = files.fails(78, &[command]);
        assert!(words.contains("server.key") && words.contains("chmod 600"), "{words}");
    }
}

#[test]
fn a_port_in_use_is_told_with_the_mend_and_leaves_nothing() {
    let files = Files::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let words = files.fails(78, &["run", "--listen", &address]);
    assert!(
        words.contains(&format!(
            "gkd-server: cannot listen on {address}: the port is in use: stop the other program, or choose another with --listen"
        )),
        "{words}"
    );
    assert_eq!(fs::read_dir(&files.dir).unwrap().count(), 0);
}

#[test]
fn users_are_added_renewed_listed_and_removed() {
    let (files, first) = Files::initialised();
    files.edit(|text| format!("# A person wrote this.\n{text}"));
    let comments =
        |text: &str| text.lines().filter(|line| line.contains('#')).map(str::to_owned).collect::<Vec<_>>();
    let before = comments(&files.config());

    let alice: Link = files.ok(&["user", "add", "alice"]).strip_suffix('\n').unwrap().parse().unwrap();
    assert_eq!((alice.server, &alice.addresses), (first.server, &first.addresses));
    let listed = |link: &Link, name: &str| format!("{name}\t{}\n", public_text(&link.user.public()));
    assert_eq!(files.ok(&["user", "list"]), listed(&first, "first") + &listed(&alice, "alice"));

    let words = files.fails(78, &["user", "add", "alice"]);
    assert!(words.contains("there is a user alice already") && words.contains("renew"), "{words}");
    assert!(files.fails(78, &["user", "renew", "bob"]).contains("there is no user bob"));
    assert!(files.fails(78, &["user", "remove", "bob"]).contains("there is no user bob"));

    let renewed = files.ok(&["user", "renew", "alice", "--public", "[::1]:5-9"]);
    let renewed: Link = renewed.strip_suffix('\n').unwrap().parse().unwrap();
    assert_eq!(renewed.addresses[0].to_string(), "[::1]:5-9");
    assert_ne!(renewed.user, alice.user);
    assert_eq!(files.ok(&["user", "list"]), listed(&first, "first") + &listed(&renewed, "alice"));

    let output = files.output(&["user", "remove", "first"]);
    assert!(output.stdout.is_empty() && stderr(&output).contains("HUP"), "{}", stderr(&output));
    assert_eq!(files.ok(&["user", "list"]), listed(&renewed, "alice"));
    assert_eq!(comments(&files.config()), before);
    assert_eq!(mode(&files, "server.toml"), 0o600);
    files.ok(&["check"]);
}

#[test]
fn a_user_is_added_with_what_it_may_bind() {
    let (files, _) = Files::initialised();
    files.ok(&["user", "add", "ann", "--reverse", "8080,9000-9009", "--reverse", "0.0.0.0:443"]);
    let reverse = "reverse = [\"127.0.0.1:8080,9000-9009\", \"0.0.0.0:443\"]";
    assert!(files.config().contains(reverse), "{}", files.config());
    files.ok(&["check"]);
    let words = files.fails(64, &["user", "add", "bob", "--reverse", "localhost:80"]);
    assert!(words.contains("\"localhost\" is no address"), "{words}");
    assert!(!files.config().contains("bob"));
}

#[test]
fn a_rule_that_can_never_match_is_a_mistake() {
    let (files, _) = Files::initialised();
    files.edit(|text| format!("{text}rules = [{{ deny = \"*\" }}, {{ allow = \"10.0.0.0/8\" }}]\n"));
    for command in [&["check"][..], &["run"]] {
        let words = files.fails(78, command);
        assert!(words.contains("rule 2 ") && words.contains("can never match, for rule 1 "), "{words}");
    }
}

/// A front, and a service of these lines.
fn services(lines: &str) -> String {
    format!(
        "[http]\nlisten = [\"http://127.0.0.1:8080\"]\n[[service]]\nname = \"shop\"\nhosts = [\"shop.example\"]\n{lines}\n"
    )
}

#[test]
fn services_are_checked_with_what_they_name() {
    let (files, _) = Files::initialised();
    let right = files.config();
    let with = |lines: &str| files.edit(|_| format!("{right}\n{}", services(lines)));
    with("targets = [\"http://127.0.0.1:1\", \"/\"]");
    assert!(files.ok(&["check"]).ends_with(", answers for 1 service at http://127.0.0.1:8080\n"));
    let line = right.lines().count() + 7;
    for (lines, told) in [
        ("targets = [\"127.0.0.1:1\"]", "column 12: \"127.0.0.1:1\" is no target: write http://HOST:PORT"),
        ("targets = [\"/none/such\"]", "column 12: the target's folder /none/such cannot be read: "),
        (
            "users = [\"bob\"]",
            "column 10: there is no user \"bob\": gkd-server user add makes one, or remove it here",
        ),
    ] {
        with(lines);
        let words = files.fails(78, &["check"]);
        assert!(words.contains(&format!("server.toml, line {line}, {told}")), "{words}");
    }
}

#[test]
fn a_user_that_a_service_names_is_not_removed() {
    let (files, _) = Files::initialised();
    files.edit(|text| format!("{text}\n{}", services("users = [\"first\"]")));
    files.ok(&["check"]);
    let before = files.config();
    let words = files.fails(78, &["user", "remove", "first"]);
    let told = "nothing is changed, for the file would be wrong then: ";
    assert!(words.contains(told) && words.contains("there is no user \"first\""), "{words}");
    assert_eq!(files.config(), before);
}

#[test]
fn commands_without_a_server_say_how_to_make_one() {
    let files = Files::new();
    for command in
        [&["check"][..], &["user", "list"], &["user", "add", "alice"], &["user", "remove", "alice"]]
    {
        let words = files.fails(78, command);
        assert!(words.contains("server.toml: gkd-server init makes one"), "{words}");
    }
}
