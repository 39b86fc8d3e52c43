//! Every source, their precedence, and each bad input: one sentence, the right status, and no secret in it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use gkd_core::carrier::CarrierKind;
use gkd_core::identity::SecretKey;
use gkd_proxy::program::Status;

use super::*;

fn link(address: &str) -> String {
    let (server, user) = (SecretKey::from_seed([1; 32]), SecretKey::from_seed([2; 32]));
    Link::new(server.public(), user, vec![address.parse().unwrap()]).to_string()
}

fn flags(links: &[&str]) -> Reach {
    Reach { links: links.iter().map(|link| (*link).to_owned()).collect(), ..Reach::default() }
}

/// Reads with these options and variables; no file of this machine is found.
fn load_with(reach: Reach, listeners: Listeners, environment: Environment) -> Result<Settings, Failure> {
    load(&reach, &listeners, &Log::default(), &environment)
}

/// Reads with a configuration file of this content.
fn load_file(content: &str) -> Result<Settings, Failure> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    fs::write(&path, content).unwrap();
    let reach = Reach { config: Some(path.to_str().unwrap().to_owned()), ..Reach::default() };
    load_with(reach, Listeners::default(), Environment::default())
}

fn assert_one_sentence(failure: &Failure, status: Status, part: &str) {
    assert_eq!(failure.status, status, "{failure}");
    assert!(failure.message.contains(part), "{failure}");
    assert!(!failure.message.contains('\n'), "{failure}");
}

#[test]
fn without_anything_there_are_defaults() {
    let settings = load_with(Reach::default(), Listeners::default(), Environment::default()).unwrap();
    assert_eq!((settings.links.len(), settings.tunnels), (0, 4));
    let usual = Wanted::Here(Listener::default());
    assert_eq!(settings.listeners, [Named { name: None, it: usual }]);
    assert_eq!(settings.listeners[0].to_string(), "mixed://127.0.0.1:1080");
    assert_eq!(settings.congestion, Congestion::Auto);
    assert!(settings.notes.is_empty());
}

#[test]
fn a_flag_goes_over_a_variable_and_that_over_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    let content = format!("links = [\"{}\"]\ntunnels = 2\nbind = [\"lo\"]\nlog = \"warn\"", link("f:1"));
    fs::write(&path, content).unwrap();
    let config = path.to_str().unwrap();
    let variable = link("e:1");
    let environment =
        || Environment::from([("GKD_LINK", &*variable), ("GKD_TUNNELS", "3"), ("GKD_CONFIG", config)]);

    let settings = load_with(Reach::default(), Listeners::default(), environment()).unwrap();
    assert_eq!((settings.server(), settings.tunnels), ("e:1".to_owned(), 3));
    assert_eq!((settings.bind.len(), settings.level), (1, Level::Warn));

    let reach = Reach { tunnels: Some("5".to_owned()), ..flags(&[&link("a:1"), &link("b:1")]) };
    let settings = load_with(reach, Listeners::default(), environment()).unwrap();
    assert_eq!((settings.server(), settings.tunnels), ("a:1, b:1".to_owned(), 5));
}

#[test]
fn the_users_own_file_is_found() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("gkd")).unwrap();
    fs::write(directory.path().join("gkd/client.toml"), "tunnels = 7").unwrap();
    let environment = Environment::from([("XDG_CONFIG_HOME", directory.path().to_str().unwrap())]);
    let settings = load_with(Reach::default(), Listeners::default(), environment).unwrap();
    assert_eq!(settings.tunnels, 7);
}

#[test]
fn a_files_time_outs_are_read() {
    let settings = load_file("[timeouts]\ndial = \"2s\"\nhalf_closed = \"90m\"").unwrap();
    let expected = Duration::from_secs(2);
    assert_eq!((settings.timeouts.dial, settings.timeouts.half_closed.as_secs()), (expected, 5400));
    assert_eq!(settings.timeouts.silent, Timeouts::default().silent);
}

#[test]
fn a_link_file_holds_links_and_comments() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("links");
    fs::write(&path, format!("# mine\n\n  {}\n{}\n", link("a:1"), link("b:1"))).unwrap();
    let reach = Reach { link_file: Some(path.to_str().unwrap().to_owned()), ..Reach::default() };
    let settings = load_with(reach, Listeners::default(), Environment::default()).unwrap();
    assert_eq!(settings.server(), "a:1, b:1");

    // Named in a configuration, it is looked for beside it.
    let config = directory.path().join("c.toml");
    fs::write(&config, "link_file = \"links\"").unwrap();
    let reach = Reach { config: Some(config.to_str().unwrap().to_owned()), ..Reach::default() };
    let settings = load_with(reach, Listeners::default(), Environment::default()).unwrap();
    assert_eq!(settings.server(), "a:1, b:1");
}

#[cfg(unix)]
#[test]
fn a_key_that_others_may_read_is_told() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("links");
    fs::write(&path, link("a:1")).unwrap();
    for (mode, notes) in [(0o644, 1), (0o600, 0)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let reach = Reach { link_file: Some(path.to_str().unwrap().to_owned()), ..Reach::default() };
        let settings = load_with(reach, Listeners::default(), Environment::default()).unwrap();
        assert_eq!(settings.notes.len(), notes, "{:?}", settings.notes);
    }
}

#[test]
fn unencrypted_tunnels_are_asked_for_by_name_and_told() {
    let plain = link("a:1").replace("gkd://", "gkd+plain://");
    let cases = [(plain.clone(), false), (link("a:1"), true), (plain, true)];
    for (text, flag) in cases {
        let reach = Reach { plain: flag, ..flags(&[&text]) };
        let settings = load_with(reach, Listeners::default(), Environment::default()).unwrap();
        assert_eq!(settings.links[0].carrier, CarrierKind::Plain);
        assert!(settings.notes[0].contains("NOT encrypted"), "{:?}", settings.notes);
    }
    let settings = load_with(flags(&[&link("a:1")]), Listeners::default(), Environment::default()).unwrap();
    assert_eq!((settings.links[0].carrier, settings.notes.len()), (CarrierKind::Tls, 0));
}

#[test]
fn auto_begins_with_the_default_and_stands_wherever_a_number_may() {
    let settings = load_file("tunnels = \"auto\"").unwrap();
    assert!(settings.auto && settings.tunnels == 4 && settings.notes.is_empty(), "{:?}", settings.notes);
    let variable = || Environment::from([("GKD_TUNNELS", "auto")]);
    let settings = load_with(Reach::default(), Listeners::default(), variable()).unwrap();
    assert!(settings.auto && settings.tunnels == 4);
    let reach = Reach { tunnels: Some("5".to_owned()), ..Reach::default() };
    let settings = load_with(reach, Listeners::default(), variable()).unwrap();
    assert!(!settings.auto && settings.tunnels == 5);
}

#[test]
fn wrong_arguments_are_told_by_their_option() {
    let cut = &link("a:1")[..60];
    let cases = [
        (flags(&[cut]), "LINK: the link's key is cut"),
        (flags(&["https://example.com"]), "LINK: https:// is not a gkd link"),
        (flags(&["nonsense"]), "LINK: this is not a gkd link"),
        (
            Reach { tunnels: Some("0".to_owned()), ..Reach::default() },
            "--tunnels: \"0\" is no number of tunnels",
        ),
        (Reach { tunnels: Some("65".to_owned()), ..Reach::default() }, "write 1 to 64"),
        (Reach { bind: vec!["::1::".to_owned()], ..Reach::default() }, "--bind: "),
        (Reach { congestion: Some("a b".to_owned()), ..Reach::default() }, "--congestion: "),
        (Reach { via: Some("socks5://p:1".to_owned()), ..Reach::default() }, "--via: a proxy of socks5://"),
    ];
    for (reach, part) in cases {
        let failure = load_with(reach, Listeners::default(), Environment::default()).unwrap_err();
        assert_one_sentence(&failure, Status::Usage, part);
        assert!(!failure.message.contains(&cut[10..30]), "{failure}");
    }
    let listeners = [
        (Listeners { local: vec!["1080".to_owned()], remote: vec![] }, "--local: listener \"1080\""),
        (
            Listeners { local: vec!["wss://1:h:2".to_owned()], remote: vec![] },
            "\"wss\" is not known: take mixed",
        ),
        (
            Listeners { local: vec![], remote: vec!["mixed://1080".to_owned()] },
            "--remote: listener \"mixed://127.0.0.1:1080\": mixed listens here only (-L)",
        ),
    ];
    for (listeners, part) in listeners {
        let failure = load_with(Reach::default(), listeners, Environment::default()).unwrap_err();
        assert_one_sentence(&failure, Status::Usage, part);
    }
}

#[test]
fn wrong_variables_and_files_are_of_the_configuration() {
    for (name, value, part) in [
        ("GKD_LINK", "gkd://x", "GKD_LINK: the link's key is cut"),
        ("GKD_TUNNELS", "many", "GKD_TUNNELS: \"many\""),
        ("GKD_PLAIN", "maybe", "GKD_PLAIN: \"maybe\" is neither"),
        ("GKD_LINK_FILE", "/nowhere/at all", "GKD_LINK_FILE: the link file /nowhere/at all cannot be read"),
        ("GKD_CONFIG", "/nowhere/c.toml", "the configuration /nowhere/c.toml cannot be read"),
        ("GKD_LOG_FORMAT", "xml", "GKD_LOG_FORMAT: \"xml\" is no log format"),
    ] {
        let environment = Environment::from([(name, value)]);
        let failure = load_with(Reach::default(), Listeners::default(), environment).unwrap_err();
        assert_one_sentence(&failure, Status::Config, part);
    }
    let reach = Reach { link_file: Some("/nowhere".to_owned()), ..Reach::default() };
    let failure = load_with(reach, Listeners::default(), Environment::default()).unwrap_err();
    assert_one_sentence(&failure, Status::Config, "--link-file: ");
}

#[test]
fn the_line_of_a_file_is_named() {
    let link = link("a:1");
    let cut = &link[..60];
    let cases = [
        ("tunnels = 4\nport = 1".to_owned(), "c.toml line 2: unknown field `port`"),
        ("\n\ntunnels = = 4".to_owned(), "c.toml line 3: "),
        ("tunnels = 99".to_owned(), "c.toml line 1: \"99\" is no number of tunnels"),
        ("tunnels = 4.5".to_owned(), "c.toml line 1: \"4.5\" is no number of tunnels"),
        ("local = [\n  \"mixed://1080\",\n  \"mixed://x\",\n]".to_owned(), "c.toml line 3: listener"),
        (format!("links = [\"{cut}\"]"), "c.toml line 1: the link's key is cut"),
        (
            format!("log = \"info\"\nlinks = \"{link}\""),
            "c.toml line 2: invalid type: a string, expected a sequence: write it in brackets",
        ),
        ("plain = \"yes\"".to_owned(), "c.toml line 1: invalid type: a string, expected a boolean: write true or false"),
        ("log = \"loud\"".to_owned(), "c.toml line 1: \"loud\" is no log level"),
        ("remote = [\"http://1\"]".to_owned(), "c.toml line 1: listener \"http://127.0.0.1:1\": http listens here only"),
        ("via = \"http://p\"".to_owned(), "c.toml line 1: the proxy \"p\" has no port"),
        ("tunnels = 4\ntunnels = 5".to_owned(), "c.toml line 2: duplicate key"),
        ("[timeouts]\ndail = \"1s\"".to_owned(), "c.toml line 2: unknown time-out \"dail\": there are dial,"),
        (
            "[timeouts]\ndial = \"1\"".to_owned(),
            "c.toml line 2: \"1\" is no time: write a number with its unit",
        ),
        ("[timeouts]\n\nsilent = \"1h\"".to_owned(), "c.toml line 3: 1h is out of bounds: write 1s to 10m"),
        (
            "[[listener]]\nname = \"a\"\nlocal = \"mixed://1\"\n[[listener]]\nname = \"a\"\nlocal = \"mixed://2\"".to_owned(),
            "c.toml line 5: the listener a stands twice, first in",
        ),
        (
            "[[listener]]\nname = \"a b\"\nlocal = \"mixed://1\"".to_owned(),
            "c.toml line 2: \"a b\" is no name of a listener: write 1 to 32 letters",
        ),
        ("\n[[listener]]\nname = \"a\"".to_owned(), "c.toml line 2: a listener has no form: write local"),
        (
            "[[listener]]\nlocal = \"mixed://1\"\nremote = \"tcp://1:h:2\"".to_owned(),
            "c.toml line 1: a listener has both local and remote: make it two",
        ),
        ("[[listener]]\n\nlocal = \"nonsense\"".to_owned(), "c.toml line 3: listener \"nonsense\""),
        ("[[listener]]\nremote = \"http://1\"".to_owned(), "c.toml line 2: listener \"http://127.0.0.1:1\": http listens here"),
        ("[[listener]]\nport = 1".to_owned(), "c.toml line 2: unknown field `port`"),
    ];
    for (content, part) in cases {
        let failure = load_file(&content).unwrap_err();
        assert_one_sentence(&failure, Status::Config, part);
        assert!(!failure.message.contains(&link[10..30]), "{failure}");
    }
}

#[test]
fn links_of_several_carriers_are_taken_together() {
    let raw = link("a:1");
    let ws = link("b:80").replace("gkd://", "gkd+ws://") + "/t?host=a.example";
    let wss = link("c:443").replace("gkd://", "gkd+wss://") + "/t";
    let settings =
        load_with(flags(&[&raw, &ws, &wss]), Listeners::default(), Environment::default()).unwrap();
    let carriers: Vec<_> = settings.links.iter().map(|link| link.carrier).collect();
    assert_eq!(carriers, [CarrierKind::Tls, CarrierKind::Ws, CarrierKind::Wss]);
    assert!(settings.notes.is_empty(), "{:?}", settings.notes);
    let wrong = link("a:1") + "?host=b";
    let failure = load_with(flags(&[&wrong]), Listeners::default(), Environment::default()).unwrap_err();
    assert_one_sentence(
        &failure,
        Status::Usage,
        "LINK: the link's option host= is for gkd+ws:// and gkd+wss:// only",
    );
}

#[test]
fn a_proxy_is_taken_from_the_highest_source_and_its_password_noted() {
    let variables = || Environment::from([("GKD_VIA", "http://v:1"), ("https_proxy", "http://e:1")]);
    let via = |settings: Settings| settings.reaching.via.map(|via| via.address().to_string());
    let settings = load_with(flags(&[&link("a:1")]), Listeners::default(), variables()).unwrap();
    assert_eq!(via(settings).as_deref(), Some("v:1"));
    let reach = Reach { via: Some("env".to_owned()), ..flags(&[&link("a:1")]) };
    let settings = load_with(reach, Listeners::default(), variables()).unwrap();
    assert_eq!(via(settings).as_deref(), Some("e:1"));
    // Without a word the environment does not count.
    let environment = Environment::from([("https_proxy", "http://e:1"), ("ALL_PROXY", "socks5://e:1")]);
    let settings = load_with(flags(&[&link("a:1")]), Listeners::default(), environment).unwrap();
    assert!(settings.reaching == Reaching::default());
    let settings = load_file("via = \"http://me:secret@f:1\"").unwrap();
    assert!(settings.notes[0].contains("bears a proxy's password"), "{:?}", settings.notes);
    assert!(!format!("{settings:?}").contains("secret"));
    assert_eq!(via(settings).as_deref(), Some("f:1"));
}

#[test]
fn an_empty_link_file_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("links");
    fs::write(&path, "# nothing yet\n").unwrap();
    let reach = Reach { link_file: Some(path.to_str().unwrap().to_owned()), ..Reach::default() };
    let failure = load_with(reach, Listeners::default(), Environment::default()).unwrap_err();
    assert_one_sentence(&failure, Status::Config, "holds no link");
}

#[test]
fn the_example_in_the_documentation_is_read() {
    let lines = include_str!("file.rs").lines().skip_while(|line| !line.contains("```toml")).skip(1);
    let example: String = lines
        .take_while(|line| !line.contains("```"))
        .map(|line| line.trim_start_matches("//!"))
        .fold(String::new(), |text, line| text + line + "\n");
    let layer = file::parse(Path::new("c.toml"), &example).unwrap();
    assert_eq!((layer.links.len(), layer.local.len(), layer.bind.len()), (1, 2, 1));
    let names: Vec<_> =
        layer.local.iter().map(|it| it.name.as_ref().map(|name| name.text.as_str())).collect();
    assert_eq!(names, [None, Some("database")]);
    let settings = load_file(&example.replace("gkd://KEY@server.example:9990", &link("a:1"))).unwrap();
    assert_eq!(settings.listeners[1].to_string(), "database: tcp://127.0.0.1:5432:db.internal:5432");
    // Those of the command line go over all of them.
    let listeners = Listeners { local: vec!["mixed://1".to_owned()], remote: vec![] };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    fs::write(&path, "[[listener]]\nname = \"web\"\nlocal = \"mixed://2\"").unwrap();
    let reach = Reach { config: Some(path.to_str().unwrap().to_owned()), ..Reach::default() };
    let settings = load_with(reach, listeners, Environment::default()).unwrap();
    assert!(settings.listeners.len() == 1 && settings.listeners[0].name.is_none());
    assert!(!settings.listeners_of_file);
    assert_eq!(read_timeouts(&layer.timeouts).unwrap(), Timeouts::default());
    assert_eq!(layer.timeouts.len(), 6);
}

#[test]
fn links_of_other_servers_and_users_are_named() {
    let of = |server, user| {
        let (server, user) = (SecretKey::from_seed([server; 32]), SecretKey::from_seed([user; 32]));
        Link::new(server.public(), user, vec!["b:1".parse().unwrap()]).to_string()
    };
    for (other, part) in
        [(of(3, 2), "another server than the first"), (of(1, 3), "another user than the first")]
    {
        let failure = load_file(&format!("links = [\"{}\",\n\"{other}\"]", link("a:1"))).unwrap_err();
        assert_one_sentence(&failure, Status::Config, part);
        assert!(
            failure.message.contains("line 2: ") && !failure.message.contains(&other[6..20]),
            "{failure}"
        );
    }
    load_file(&format!("links = [\"{}\", \"{}\"]", link("a:1"), of(1, 2))).unwrap();
}

#[test]
fn listeners_that_want_the_same_port_are_named() {
    for (local, remote, line) in [
        ("\"mixed://1080\", \"tcp://127.0.0.1:1080:h:80\"", "", Some(1)),
        ("\"tcp://9000-9009:h:80-89\", \"mixed://0.0.0.0:9009\"", "", Some(1)),
        ("\"mixed://[::]:9009\", \"mixed://[::1]:9009\"", "", Some(1)),
        ("\"udp://53:h:53\", \"udp://53:h:54\"", "", Some(1)),
        ("\"mixed://1\"", "\"tcp://80:h:80\", \"tcp://80:h:81\"", Some(2)),
        ("\"mixed://1\"", "\"tcp://0.0.0.0:80:h:80\", \"tcp://10.0.0.1:80:h:81\"", Some(2)),
        // Of other ends, transports, families, addresses and ports; any that is free; of an address that is not known here.
        ("\"tcp://53:h:53\", \"udp://53:h:53\"", "\"tcp://53:h:53\", \"udp://53:h:53\"", None),
        ("\"mixed://0.0.0.0:1\", \"mixed://[::]:1\", \"mixed://[::]:2\"", "", None),
        ("\"mixed://127.0.0.1:1\", \"mixed://127.0.0.2:1\"", "", None),
        ("\"mixed://0\", \"mixed://0\"", "", None),
        ("", "\"tcp://80:h:80\", \"tcp://10.0.0.1:80:h:81\"", None),
    ] {
        let read = load_file(&format!("local = [{local}]\nremote = [{remote}]"));
        match line {
            Some(line) => {
                let failure = read.unwrap_err();
                assert_one_sentence(&failure, Status::Config, "give one of them another, or leave it out");
                assert!(failure.to_string().contains(&format!("line {line}: listener")), "{failure}");
            }
            None => _ = read.unwrap(),
        }
    }
}

#[test]
fn what_takes_a_restart_is_told_by_its_name() {
    let one = load_file("tunnels = 2\nlocal = [\"mixed://1\"]").unwrap();
    let same = load_file("tunnels = 2\nlocal = [\"mixed://2\"]").unwrap();
    assert_eq!(one.differ(&same), [""; 0]);
    let content = format!(
        "links = [\"{}\"]\nbind = [\"lo\"]\nvia = \"http://p:1\"\nlog = \"warn\"\n[timeouts]\ndial = \"2s\"",
        link("a:1")
    );
    let other = load_file(&content).unwrap();
    assert_eq!(one.differ(&other), ["links", "tunnels", "bind", "via", "timeouts", "log"]);
    // Auto begins with as many as a number may say.
    assert_eq!(
        load_file("tunnels = 4").unwrap().differ(&load_file("tunnels = \"auto\"").unwrap()),
        ["tunnels"]
    );
}

#[test]
fn listeners_at_the_server_alone_leave_the_usual_one_out() {
    let settings = load_file("remote = [\"tcp://8080:localhost:80\"]").unwrap();
    let shown: Vec<_> = settings.listeners.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["tcp://127.0.0.1:8080:localhost:80 at the server"]);
    let listeners = Listeners { local: vec!["mixed://1".into()], remote: vec!["udp://2:h:3".into()] };
    let settings = load_with(Reach::default(), listeners, Environment::default()).unwrap();
    let [here, server] = &settings.listeners[..] else { panic!("{settings:?}") };
    assert!(matches!((&here.it, &server.it), (Wanted::Here(_), Wanted::Server(_))), "{settings:?}");
}

#[test]
fn services_stand_beside_listeners_and_are_shown_with_them() {
    let text = "remote = [\"tcp://8080:localhost:80\", \"http://shop:127.0.0.1:3000?weight=2\"]\n\
        [[service]]\nname = \"shop\"\nto = \"http://127.0.0.1:3001\"\nweight = 3\n\
        [[service]]\nname = \"grpc\"\nto = \"h2c://localhost:50051\"\n\
        [[service]]\nname = \"files\"\nto = \"/srv/files\"";
    let shown =
        |settings: &Settings| -> Vec<_> { settings.listeners.iter().map(ToString::to_string).collect() };
    let settings = load_file(text).unwrap();
    let expected = [
        "tcp://127.0.0.1:8080:localhost:80 at the server",
        "service http://shop:127.0.0.1:3000?weight=2",
        "service http://shop:127.0.0.1:3001?weight=3",
        "service h2c://grpc:localhost:50051",
        "service http://files:/srv/files",
    ];
    assert_eq!(shown(&settings), expected);
    // One alone leaves the usual listener out.
    let settings = load_file("[[service]]\nname = \"a\"\nto = \"http://h:1\"").unwrap();
    assert_eq!(shown(&settings), ["service http://a:h:1"]);
    let listeners = Listeners { local: vec![], remote: vec!["http://shop:/srv/files".into()] };
    let settings = load_with(Reach::default(), listeners, Environment::default()).unwrap();
    assert_eq!(shown(&settings), ["service http://shop:/srv/files"]);
}

#[test]
fn mistakes_of_services_name_their_line_and_the_mend() {
    for (text, part) in [
        (
            "remote = [\n\"http://shop:3000\"]",
            "c.toml line 2: service \"http://shop:3000\": write http://NAME:HOST:PORT",
        ),
        (
            "remote = [\"https://shop:h:1\"]",
            "line 1: service \"https://shop:h:1\": a target over https is not to be had",
        ),
        ("local = [\"http://shop:h:1\"]", "line 1: listener \"http://shop:h:1\": write http://[BIND:]PORT"),
        ("[[service]]\nto = \"http://h:1\"", "c.toml line 1: a service has no name: write name = \"shop\""),
        ("\n[[service]]\nname = \"a\"", "c.toml line 2: a service has no target: write to = \"http://"),
        (
            "[[service]]\nname = \"A\"\nto = \"http://h:1\"",
            "c.toml line 2: the service's name \"A\" holds 'A'",
        ),
        (
            "[[service]]\nname = \"a\"\nto = \"h:1\"",
            "c.toml line 3: \"h:1\" is no web server and no folder: write",
        ),
        (
            "[[service]]\nname = \"a\"\nto = \"/x\"\nweight = 0",
            "c.toml line 4: \"0\" is no weight: write a number",
        ),
        ("[[service]]\nname = \"a\"\nto = \"/x\"\nweight = -1", "c.toml line 4: \"-1\" is no weight"),
        ("[[service]]\nname = \"a\"\nto = \"/x\"\nport = 1", "c.toml line 4: unknown field `port`"),
        (
            "remote = [\"http://a:h:1\"]\n[[service]]\nname = \"a\"\nto = \"http://h:1\"\nweight = 2",
            "c.toml line 4: the service a is announced with http://h:1 twice: leave one of them out",
        ),
    ] {
        let failure = load_file(text).unwrap_err();
        assert_eq!(failure.status, Status::Config, "{failure}");
        assert!(failure.to_string().contains(part), "{failure} has no {part}");
    }
    let settings = load_file("[[service]]\nname = \"a\"\nto = \"/nowhere/at/all\"").unwrap();
    let failure = settings.check_folders().unwrap_err();
    assert!(
        failure.to_string().contains("c.toml line 3: the folder /nowhere/at/all cannot be read"),
        "{failure}"
    );
}
