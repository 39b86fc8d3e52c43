use super::*;

fn parsed(words: &str) -> Listener {
    words.parse().unwrap_or_else(|error| panic!("{error}"))
}

fn cause(words: &str) -> ListenerErrorCause {
    words.parse::<Listener>().expect_err(words).cause
}

#[test]
fn every_form_is_read() {
    for (words, shown) in [
        ("mixed://1080", "mixed://127.0.0.1:1080"),
        ("mixed://0.0.0.0:1080?strict=1", "mixed://0.0.0.0:1080?strict=1"),
        ("mixed://[::1]:0", "mixed://[::1]:0"),
        ("socks5://[::]:1080-1082", "socks5://[::]:1080-1082"),
        ("socks5://me:pass@1080", "socks5://***@127.0.0.1:1080"),
        ("http://me:p@ss@[::1]:3128?strict=1", "http://***@[::1]:3128?strict=1"),
        ("tcp://8080:example.com:80", "tcp://127.0.0.1:8080:example.com:80"),
        ("tcp://[::1]:8080:[2001:db8::1]:80", "tcp://[::1]:8080:[2001:db8::1]:80"),
        (
            "tcp://0.0.0.0:9000-9009:10.0.0.1:80-89?proxy=v2",
            "tcp://0.0.0.0:9000-9009:10.0.0.1:80-89?proxy=v2",
        ),
        ("udp://53:dns.example:53", "udp://127.0.0.1:53:dns.example:53"),
        ("udp://[::1]:9000-9001:[::1]:80-81", "udp://[::1]:9000-9001:[::1]:80-81"),
        ("tcp://80:unix:/run/a b.sock", "tcp://127.0.0.1:80:unix:/run/a b.sock"),
        ("tcp://[::1]:80:unix:/x?proxy=v2", "tcp://[::1]:80:unix:/x?proxy=v2"),
        ("ws://8081:127.0.0.1:8082", "ws://127.0.0.1:8081:127.0.0.1:8082"),
        ("ws://[::1]:80-81:a.example:90-91?text=1&ping=0", "ws://[::1]:80-81:a.example:90-91?text=1&ping=0"),
        (
            "ws://80:unix:/x?proxy=v2&strict=1&origin=https://b.example:8443&origin=http://[::1]&path=/y&ping=30",
            "ws://127.0.0.1:80:unix:/x?path=/y&origin=https://b.example:8443&origin=http://[::1]&strict=1&proxy=v2",
        ),
        ("tcp://80:wss://example.com/x", "tcp://127.0.0.1:80:wss://example.com:443/x"),
        ("tcp://[::1]:80:ws://[::2]:81", "tcp://[::1]:80:ws://[::2]:81/"),
        ("tcp://80-81:ws://a:90-91/x?a=b://c@d", "tcp://127.0.0.1:80-81:ws://a:90-91/x?a=b://c@d"),
        (
            "tcp://80:ws://a/?text=0#text=1&protocol=mqtt&ping=5",
            "tcp://127.0.0.1:80:ws://a:80/?text=0#text=1&ping=5&protocol=mqtt",
        ),
    ] {
        assert_eq!(parsed(words).to_string(), shown);
        // And is read from what is shown.
        if !shown.contains("***") {
            assert_eq!(parsed(shown).to_string(), shown);
        }
    }
    assert_eq!(
        parsed("mixed://127.0.0.1:1080"),
        Listener { bind: Some([127, 0, 0, 1].into()), ..Listener::default() }
    );
    assert_eq!(parsed("mixed://1080"), Listener::default());
}

#[test]
fn a_user_may_hold_what_a_form_does_not() {
    let Service::Socks5 { credentials: Some(credentials), .. } = parsed("socks5://a%3ab:c%40?:@1080").service
    else {
        panic!("there is a user");
    };
    assert!(credentials.is("a:b", "c@?:"));
    assert!(!credentials.is("a:b", "c@?"));
}

#[test]
fn each_mistake_is_named() {
    use ListenerErrorCause as Cause;
    for (words, expected) in [
        ("", Cause::NoScheme),
        ("1080", Cause::NoScheme),
        ("://1080", Cause::NoScheme),
        ("socks4://1080", Cause::UnknownScheme("socks4".into())),
        ("MIXED://1080", Cause::UnknownScheme("MIXED".into())),
        ("ws://80", Cause::ForwardForm("ws")),
        ("ws://80-81:example.com:80", Cause::UnequalRanges(2, 1)),
        ("ws://me:pass@80:example.com:80", Cause::NoUser("ws")),
        ("ws://80:unix:x", Cause::Target(DestinationError::Path("x".into()))),
        ("tcp://ws://example.com/x", Cause::ForwardForm("tcp")),
        ("tcp://80:81:82:ws://example.com/x", Cause::ForwardForm("tcp")),
        ("tcp://80:http://example.com/x", Cause::Url(WsUrlError::Scheme("http://example.com/x".into()))),
        ("tcp://80:ws://me:pass@example.com/x", Cause::Url(WsUrlError::User)),
        ("tcp://80:ws://ä/x", Cause::Url(WsUrlError::HostCharacter("ä".into(), 'ä'))),
        ("tcp://80:ws:///x", Cause::Target(DestinationError::EmptyName)),
        ("tcp://80:ws://a:0/x", Cause::Target(DestinationError::PortZero)),
        ("tcp://80:ws://a:x/x", Cause::Port("x".into())),
        ("tcp://80-81:ws://example.com/x", Cause::UnequalRanges(2, 1)),
        ("mixed://", Cause::Port("".into())),
        ("mixed://65536", Cause::Port("65536".into())),
        ("mixed://+80", Cause::Port("+80".into())),
        ("mixed://127.0.0.1:80-", Cause::Port("80-".into())),
        ("mixed://9-8", Cause::Range("9-8".into())),
        ("mixed://0-8", Cause::Range("0-8".into())),
        ("mixed://1-1025", Cause::Range("1-1025".into())),
        ("mixed://localhost:1080", Cause::Bind("localhost".into())),
        ("mixed://::1:1080", Cause::ProxyForm("mixed")),
        ("http://1080:example.com:80", Cause::ProxyForm("http")),
        ("mixed://me:pass@1080", Cause::NoUser("mixed")),
        ("tcp://me:pass@80:example.com:80", Cause::NoUser("tcp")),
        ("tcp://80", Cause::ForwardForm("tcp")),
        ("udp://80:example.com", Cause::ForwardForm("udp")),
        ("tcp://80:::1:80", Cause::ForwardForm("tcp")),
        ("udp://80:unix:/run/x", Cause::Port("/run/x".into())),
        ("tcp://80:unix:x", Cause::Target(DestinationError::Path("x".into()))),
        ("tcp://80-81:unix:/x", Cause::UnequalRanges(2, 1)),
        ("udp://80:example.com:0", Cause::Target(DestinationError::PortZero)),
        ("udp://me:pass@80:example.com:80", Cause::NoUser("udp")),
        ("tcp://80:example.com:0", Cause::Target(DestinationError::PortZero)),
        ("tcp://80::80", Cause::Target(DestinationError::EmptyName)),
        ("tcp://9000-9009:example.com:80", Cause::UnequalRanges(10, 1)),
        ("tcp://9000-9009:example.com:80-88", Cause::UnequalRanges(10, 9)),
    ] {
        assert_eq!(cause(words), expected, "{words}");
    }
    for words in [
        "udp://80:a:80?proxy=v2",
        "tcp://80:a:80?strict=1",
        "mixed://80?proxy=v2",
        "mixed://80?strict=yes",
        "socks5://80?x",
        "ws://80:a:80?x",
        "ws://80:a:80?text=2",
        "ws://80:a:80?ping=-1",
        "ws://80:a:80?ping=99999999",
        "ws://80:a:80?path=x",
        "ws://80:a:80?path=/x?y",
        "ws://80:a:80?path=/<x>",
        "ws://80:a:80?origin=null",
        "ws://80:a:80?origin=https://a/",
        "tcp://80:ws://a/#proxy=v2",
        "tcp://80:ws://a/#protocol=a,b",
    ] {
        assert!(matches!(cause(words), Cause::Option { .. }), "{words}");
    }
    for words in ["socks5://me@1080", "socks5://:pass@1080", "http://me:@1080", "http://me:%zz@1080"] {
        assert!(matches!(cause(words), Cause::User(_)), "{words}");
    }
}

#[test]
fn no_password_is_shown() {
    for words in ["socks5://me:secret@x:1080", "mixed://me:sec@secret@1080"] {
        let error = words.parse::<Listener>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    }
    let listener = parsed("http://me:secret@1080");
    assert!(!format!("{listener} {listener:?}").contains("secret"));
}

#[test]
fn a_form_is_shown_escaped() {
    let error = "mi\u{1b}[31mxed://1".parse::<Listener>().unwrap_err();
    assert!(!error.to_string().contains('\u{1b}'));
}
