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
