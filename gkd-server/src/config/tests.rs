use super::users::UserLimits;
use super::*;

const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const OTHER: &str = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The mistakes as they are shown.
fn problems(text: &str) -> Vec<String> {
    match Config::parse(text) {
        Ok(config) => panic!("this passed: {config:?}"),
        Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
    }
}

/// The only mistake.
fn problem(text: &str) -> String {
    let [one] = &problems(text)[..] else { panic!("there are several mistakes: {:?}", problems(text)) };
    one.clone()
}

#[test]
fn all_that_can_be_set_is_read() {
    let config = Config::parse(&format!(
        r#"
listen = ["0.0.0.0:9990", "[::]:9990-9992", "localhost:1"]
public = "server.example:9990,[2001:db8::1]:1-2"
allow = ["10.0.0.0/8", "::1", "192.168.1.1/24"]
congestion = "cubic"
plain = true
[timeouts]
dial = "5s"
[limits]
sessions = 10
sessions_per_user = 2
tunnels_per_session = 64
connections_per_session = 100
half_open = 64
half_open_per_address = 65
[[user]]
name = "alice"
key = "{KEY}"
[[user]]
name = "Bob's laptop"
key = "{OTHER}"
"#
    ));
    // An apostrophe is none of the characters of a name.
    let words = config.unwrap_err().0[0].to_string();
    assert!(words.starts_with("line 20, column 8: "), "{words}");

    let config = Config::parse(&format!(
        "listen = [\"[::]:9990-9992\"]\nallow = [\"192.168.1.1/24\"]\ncongestion = \"cubic\"\nplain = true\nbench = false\n\
         [limits]\nsessions = 10\nconnections_per_session = 100\n\
         [[user]]\nname = \"alice\"\nkey = \"{KEY}\"\n[[user]]\nname = \"bob\"\nkey = \"{OTHER}\"\n"
    ))
    .unwrap();
    assert_eq!(config.listen, ["[::]:9990-9992".parse().unwrap()]);
    assert_eq!(config.allow, ["192.168.1.0/24".parse().unwrap()]);
    assert_eq!(config.congestion, Congestion::Name("cubic".into()));
    assert!(config.plain && !config.bench);
    assert_eq!((config.limits.sessions, config.limits.sessions_per_user), (10, 32));
    assert_eq!(config.session().max_connections, 100);
    assert_eq!(config.users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["alice", "bob"]);
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = Config::parse("# nothing\n").unwrap();
    assert_eq!((config.limits, config.timeouts), (Limits::default(), Timeouts::default()));
    assert!(config.listen.is_empty() && config.users.is_empty() && config.public.is_none() && !config.plain);
    assert_eq!(config.congestion, Congestion::Auto);
    assert!(config.bench);
    assert_eq!(config.websocket, WebSocketConfig::default());
    assert!(
        config.websocket.enabled && config.websocket.paths.is_empty() && config.websocket.hosts.is_empty()
    );
}

#[test]
fn what_websocket_is_narrowed_to_is_read() {
    let text =
        "[websocket]\nenabled = false\npaths = [\"/t\", \"/a%20b\"]\nhosts = [\"a.example\", \"::1\"]\n";
    // IPv6 stands in brackets in requests, too.
    assert!(problem(text).starts_with("line 4, column 23: "), "{}", problem(text));
    let config = Config::parse(&text.replace("::1", "[::1]")).unwrap().websocket;
    assert!(!config.enabled);
    assert_eq!(
        (config.paths, config.hosts),
        (vec!["/t".into(), "/a%20b".into()], vec!["a.example".into(), "[::1]".into()])
    );
    for (setting, says) in [
        ("paths = [\"/t\",\n \"t\"]", "line 3, column 2: \"t\" is no path: begin it with a slash, \"/t\""),
        (
            "paths = [\"/a b\"]",
            "line 2, column 10: the path \"/a b\" has a wrong character, ' ': write it as %XX",
        ),
        ("paths = [\"/a?b\"]", "line 2, column 10: the path \"/a?b\" has a wrong character, '?'"),
        ("hosts = [\"a.example:443\"]", "line 2, column 10: \"a.example:443\" has a port"),
        ("hosts = [\"https://a\"]", "line 2, column 10: "),
        ("path = \"/t\"", "line 2, column 1: unknown field `path`"),
    ] {
        let told = problem(&format!("[websocket]\n{setting}\n"));
        assert!(told.starts_with(says), "{setting}: {told}");
    }
}

#[test]
fn a_site_is_a_folder_or_a_web_server() {
    let site = |text: &str| Config::parse(text).unwrap().site().map(ToString::to_string);
    assert_eq!(site("plain = false"), None);
    assert_eq!(site("site = \"/var/www\"").as_deref(), Some("/var/www"));
    assert_eq!(site("site = \"http://127.0.0.1:8080\"").as_deref(), Some("http://127.0.0.1:8080"));
    for (line, told) in [
        ("site = \"\"", "line 2, column 8: the site is empty"),
        ("site = \"www\"", "line 2, column 8: \"www\" is no whole path"),
        (
            "  site =  \"https://127.0.0.1\"",
            "line 2, column 11: a site at https:// is not to be had: write http://",
        ),
        ("site = \"http://127.0.0.1/app\"", "line 2, column 8: \"http://127.0.0.1/app\" is more than"),
        ("site = [\"/var/www\"]", "line 2, column 8: invalid type"),
    ] {
        let words = problem(&format!("plain = false\n{line}\n"));
        assert!(words.starts_with(told), "{words}");
    }
}

#[test]
fn a_sites_folder_is_looked_for_when_it_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let checked = |path: &Path| {
        let config =
            Config::parse(&format!("plain = false\n\nsite = {:?}\n", path.to_str().unwrap())).unwrap();
        config.check_site(Path::new("server.toml"))
    };
    assert_eq!(checked(folder.path()), Ok(()));
    let failure = checked(&folder.path().join("none")).unwrap_err();
    assert_eq!(failure.status, program::Status::Config);
    let words = &failure.message;
    assert!(words.starts_with("server.toml, line 3, column 8: the site's folder "), "{words}");
    assert!(words.ends_with("make it, or write another"), "{words}");
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(checked(&file).unwrap_err().message.ends_with("is no folder: write the path of one"));
}

#[test]
fn an_empty_file_is_no_configuration() {
    for text in ["", "\n\n", "  \t"] {
        assert!(problem(text).starts_with("line 1, column 1: the file is empty"), "{text:?}");
    }
}

#[test]
fn syntax_errors_name_their_place() {
    assert!(problem("plain = true\nlisten = [\n\"0.0.0.0:9990\"\nallow = []\n").starts_with("line 4, "));
    assert!(problem("plain = maybe\n").starts_with("line 1, column 9: "));
    assert!(problem("plain = true\nplain = true\n").starts_with("line 2, column 1: duplicate key"));
}

#[test]
fn unknown_fields_and_wrong_types_name_their_place() {
    let words = problem("plain = true\nlisen = []\n");
    assert!(
        words.starts_with("line 2, column 1: ") && words.contains("lisen") && words.contains("listen"),
        "{words}"
    );
    assert!(problem("[limits]\nsesions = 1\n").starts_with("line 2, column 1: unknown field"));
    assert!(problem("\nplain = \"yes\"\n").starts_with("line 2, column 9: invalid type"));
    assert!(problem("[[user]]\nname = \"a\"\n").contains("missing field `key`"));
    let user = format!("[[user]]\nname = \"a\"\nkey = \"{KEY}\"\nkee = 1\n");
    assert!(problem(&user).starts_with("line 4, column 1: unknown field"));
}

#[test]
fn values_that_are_wrong_name_their_place_all_at_once() {
    let all = problems(
        "listen = [\"0.0.0.0:9990\", \"0.0.0.0\"]\npublic = \"x\"\nallow = [\n  \"10.0.0.0/8\",\n  \"10.0.0.0/33\",\n]\n\
         congestion = \"a b\"\n[limits]\nsessions = 0\nhalf_open = -5\n",
    );
    let starts = [
        "line 1, column 27: ",
        "line 2, column 10: ",
        "line 5, column 3: ",
        "line 7, column 14: ",
        "line 9, column 12: ",
        "line 10, column 13: ",
    ];
    assert_eq!(all.len(), starts.len(), "{all:?}");
    for (problem, start) in all.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem} should be in {start}");
    }
}

#[test]
fn time_outs_are_read_and_name_the_line_and_the_mend() {
    let config = Config::parse("[timeouts]\ndial = \"5s\"\nresume = \"2m\"\n").unwrap();
    assert_eq!((config.timeouts.dial.as_secs(), config.session().resume_for.as_secs()), (5, 120));
    let words = problem("[timeouts]\ndail = \"5s\"\n");
    assert!(words.starts_with("line 2, column 1: unknown time-out \"dail\": there are dial"), "{words}");
    let words = problem("[timeouts]\ndial = \"5\"\n");
    assert!(words.starts_with("line 2, column 8: ") && words.contains("such as 10s"), "{words}");
    assert!(problem("[timeouts]\nsilent = \"1h\"\n").ends_with("1h is out of bounds: write 1s to 10m"));
    assert!(problem("[timeouts]\nsilent = 5\n").starts_with("line 2, column 10: invalid type"));
}

#[test]
fn users_stand_once() {
    let twice =
        format!("[[user]]\nname = \"a\"\nkey = \"{KEY}\"\n[[user]]\nname = \"a\"\nkey = \"{OTHER}\"\n");
    assert!(problem(&twice).starts_with("line 5, column 8: the user a stands twice, first in line 2"));
    let same = format!("[[user]]\nname = \"a\"\nkey = \"{KEY}\"\n[[user]]\nname = \"b\"\nkey = \"{KEY}\"\n");
    let words = problem(&same);
    assert!(words.starts_with("line 6, column 7: the key ") && words.contains("in line 2"), "{words}");
}

#[test]
fn keys_and_names_are_judged() {
    let user = |name: &str, key: &str| format!("[[user]]\nname = {name:?}\nkey = {key:?}\n");
    assert!(problem(&user("a", &KEY[1..])).starts_with("line 3, column 7: the key has 42 characters"));
    assert!(problem(&user("a", &KEY.replace('A', "/"))).starts_with("line 3, column 7: "));
    assert!(problem(&user("", KEY)).starts_with("line 2, column 8: "));
}

#[test]
fn ranges_of_ports_have_a_bound() {
    let words = problem("listen = [\"0.0.0.0:1-2000\"]\n");
    assert!(words.starts_with("line 1, column 11: 2000 ports"), "{words}");
}

#[test]
fn messages_hold_no_escape_sequences() {
    for text in [
        "\"\\u001b[31m\" = 1\n",
        "allow = [\"\\u001b[31m\"]\n",
        "[[user]]\nname=\"\\u001b\"\nkey=\"\\u001b\"\n",
    ] {
        for words in problems(text) {
            assert!(!words.contains(char::is_control), "{words:?}");
        }
    }
}

#[test]
fn memory_is_a_size_within_bounds() {
    let with = |memory: &str| Config::parse(&format!("[limits]\nmemory = \"{memory}\"\n"));
    assert_eq!(with("256MiB").unwrap().limits.memory, Size::from_mib(256));
    for (memory, said) in [("1MiB", "1MiB is out of bounds: write 64MiB to 1TiB"), ("much", "such as 512MiB")]
    {
        let problems = with(memory).unwrap_err();
        let told = problems.0[0].to_string();
        assert!(told.starts_with("line 2, column 10: ") && told.contains(said), "{told}");
    }
}

/// A configuration of one user with these lines.
fn of_user(lines: &str) -> String {
    format!("[[user]]\nname = \"ann\"\nkey = \"{KEY}\"\n{lines}\n")
}

#[test]
fn rules_reverse_and_limits_of_a_user_are_read() {
    let config = Config::parse(&of_user(
        "rules = [\n  { allow = \"10.1.0.0/16\", ports = \"22,80-89\" },\n  { deny = \".Corp.example.\" }, # a comment\n  { deny = \"*\" },\n]\n\
         reverse = [\"127.0.0.1:1024-65535\", \"0.0.0.0:8080\", \"443\"]\n\
         unix = [\"/run/app.sock\", \"/run/app/*\"]\n\
         services = [\"shop\", \"ann-*\"]\n\
         [user.limits]\nsessions = 2\ntunnels = 16\nconnections = 100\nup = \"10M\"\n\
         [[user]]\nname = \"bob\"\nkey = \"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"\nreverse = []\n\
         [http]\nlisten = [\"http://127.0.0.1:8080\"]\ndomain = \"apps.example.org\"",
    ));
    let [ann, bob] = &config.unwrap().users[..] else { panic!("there are two") };
    let shown: Vec<_> = ann.rules.iter().map(ToString::to_string).collect();
    let expected = [
        "{ allow = \"10.1.0.0/16\", ports = \"22,80-89\" }",
        "{ deny = \".corp.example\" }",
        "{ deny = \"*\" }",
    ];
    assert_eq!(shown, expected);
    assert_eq!(ann.binds.to_string(), "127.0.0.1:1024-65535, 0.0.0.0:8080, 127.0.0.1:443");
    assert_eq!(
        (ann.limits.sessions, ann.limits.tunnels, ann.limits.connections),
        (Some(2), Some(16), Some(100))
    );
    assert_eq!((ann.limits.speeds.up, ann.limits.speeds.down), (Some("10M".parse().unwrap()), None));
    assert!(ann.paths.permit(Path::new("/run/app.sock")) && ann.paths.permit(Path::new("/run/app/x")));
    assert!(!bob.paths.permit(Path::new("/run/app.sock")));
    assert_eq!((&*ann.services.to_string(), &*bob.services.to_string()), ("shop, ann-*", "nothing"));
    assert_eq!((bob.rules.len(), bob.limits), (0, UserLimits::default()));
    assert_eq!(bob.binds.to_string(), "nothing");

    let config = Config::parse(&of_user("limits = { down = \"500K\" }")).unwrap();
    assert_eq!(config.users[0].limits.speeds.down, Some("500K".parse().unwrap()));
    assert_eq!(config.users[0].binds.to_string(), "127.0.0.1:1024-65535, [::1]:1024-65535");
}

#[test]
fn mistakes_of_a_user_name_their_place_and_the_mend() {
    for (line, column, told) in [
        ("rules = []", 9, "there is no rule: leave rules out"),
        (
            "rules = [{ allow = \"10.0.0.0/33\" }]",
            20,
            "\"10.0.0.0/33\" is not a range of addresses: write one such as",
        ),
        ("rules = [{ allow = \"10.0.0.256\" }]", 20, "\"10.0.0.256\" is not a range"),
        ("rules = [{ deny = \"*.corp.example\" }]", 19, "\"*.corp.example\" holds a *"),
        ("rules = [{ deny = \"corp..example\" }]", 19, "\"corp..example\" is no name"),
        ("rules = [{ deny = \"\" }]", 19, "the name is empty"),
        ("rules = [{ deny = \"*\", ports = \"22,x\" }]", 32, "\"x\" is no port"),
        ("rules = [{ deny = \"*\", ports = \"0\" }]", 32, "port 0 is none"),
        (
            "rules = [{ deny = \"*\", ports = \"9-8\" }]",
            32,
            "the range of ports 9-8 ends before it begins: write 8-9",
        ),
        ("rules = [{ deny = \"*\", ports = \"\" }]", 32, "\"\" is no port"),
        ("rules = [{ deny = \"*\", ports = 22 }]", 32, "invalid type"),
        ("rules = [{ }]", 10, "the rule has neither allow nor deny"),
        ("rules = [{ ports = \"22\" }]", 10, "the rule has neither allow nor deny"),
        ("rules = [{ allow = \"1.1.1.1\", deny = \"*\" }]", 10, "the rule has both allow and deny"),
        ("rules = [{ deny = \"*\", port = \"22\" }]", 24, "unknown field `port`"),
        ("rules = \"*\"", 9, "invalid type"),
        ("rulse = []", 1, "unknown field `rulse`"),
        ("reverse = [\"localhost:80\"]", 12, "\"localhost\" is no address"),
        ("reverse = [\"80\", \"::1:80\"]", 18, "\"::1:80\" has no ports"),
        ("reverse = [\"127.0.0.1:0\"]", 12, "port 0 is none"),
        ("reverse = [\"127.0.0.1\"]", 12, "\"127.0.0.1\" has no ports"),
        (
            "unix = [\"/run/a\", \"app.sock\"]",
            19,
            "\"app.sock\" is no path of a socket: write an absolute one",
        ),
        ("unix = [\"/run/../etc/x\"]", 9, "\"/run/../etc/x\" holds an empty part, . or .."),
        (
            "unix = [\"/run/*.sock\"]",
            9,
            "\"/run/*.sock\" holds a * that stands for no sockets of one folder: write",
        ),
        ("unix = \"/run/a\"", 8, "invalid type"),
        ("services = [\"a.b\"]", 13, "the service's name \"a.b\" has a wrong character, '.'"),
        ("services = [\"*a*\"]", 13, "\"*a*\" has more than one *"),
        ("services = [\"\"]", 13, "the service's name is empty: write one such as shop"),
        ("services = \"shop\"", 12, "invalid type"),
        ("limits = { sessions = 0 }", 23, "0 is out of bounds: write 1 to 4096"),
        ("limits = { tunnels = 1025 }", 22, "1025 is out of bounds: write 1 to 1024"),
        ("limits = { connections = -1 }", 26, "-1 is out of bounds: write 1 to 1048576"),
        ("limits = { up = \"fast\" }", 17, "\"fast\" is no speed: write bytes a second"),
        ("limits = { down = \"1K\" }", 19, "1K is out of bounds: write 8K to 100G"),
        ("limits = { memory = 5 }", 12, "unknown field `memory`"),
    ] {
        let words = problem(&of_user(line));
        assert!(words.starts_with(&format!("line 4, column {column}: {told}")), "{line}: {words}");
    }
}

#[test]
fn a_rule_that_can_never_match_is_named_with_the_one_in_front_of_it() {
    let all = problems(&of_user(
        "rules = [\n  { deny = \"10.0.0.0/8\" },\n  { allow = \"10.1.0.0/16\", ports = \"22\" },\n  { allow = \"*\" },\n  { deny = \"corp.example\" },\n]",
    ));
    assert_eq!(
        all,
        [
            "line 6, column 3: rule 2 { allow = \"10.1.0.0/16\", ports = \"22\" } can never match, for rule 1 \
             { deny = \"10.0.0.0/8\" } in line 5 matches all of it: put it in front, or remove one",
            "line 8, column 3: rule 4 { deny = \"corp.example\" } can never match, for rule 3 { allow = \"*\" } in line 7 \
             matches all of it: put it in front, or remove one",
        ]
    );
    // A mistake in front does not shift the numbers.
    let all = problems(&of_user("rules = [{ deny = \"\" }, { deny = \"*\" }, { allow = \"*\" }]"));
    assert!(all[1].contains("rule 3 ") && all[1].contains("rule 2 "), "{all:?}");
}

#[test]
fn rules_have_a_bound() {
    let many: String = (0..1001).map(|number| format!("{{ deny = \"n{number}.example\" }}, ")).collect();
    let words = problem(&of_user(&format!("rules = [{many}]")));
    assert!(words.contains("1001 rules are more than the 1000"), "{words}");
}
