use std::fs;
use std::path::Path;

use super::*;

#[test]
fn hosts_are_read_and_shown_in_one_form() {
    for (words, shown) in [
        ("shop.example.org", "shop.example.org"),
        ("Shop.Example.ORG.", "shop.example.org"),
        ("localhost", "localhost"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_dmarc.a-b.example", "_dmarc.a-b.example"),
        ("*.Example.org", "*.example.org"),
        ("*", "*"),
        ("10.0.0.1", "10.0.0.1"),
        ("[2001:DB8:0::1]", "[2001:db8::1]"),
        (&"a.".repeat(127), &"a.".repeat(127)[..253]),
    ] {
        let pattern: HostPattern = words.parse().unwrap();
        assert_eq!(pattern.to_string(), shown);
        assert_eq!(shown.parse(), Ok(pattern));
    }
}

#[test]
fn what_is_no_host_is_told_with_the_mend() {
    let long = format!("{}a", "a.".repeat(127));
    let label = "x".repeat(64);
    for (words, told) in [
        (
            "",
            "the host is empty: write a name such as shop.example.org, *.example.org for all below it, or * for all",
        ),
        (
            "bücher.example",
            "\"bücher.example\" has 'ü': write the name in its ASCII form, which begins with xn--",
        ),
        (
            "*.bücher.example",
            "\"bücher.example\" has 'ü': write the name in its ASCII form, which begins with xn--",
        ),
        ("https://shop.example/x", "\"https://shop.example/x\" is more than a host: write \"shop.example\""),
        ("shop.example/", "\"shop.example/\" is more than a host: write \"shop.example\""),
        (
            "shop.example:443",
            "\"shop.example:443\" has a port, and requests are told apart by host alone: write \"shop.example\"",
        ),
        (
            "*.a.example:1",
            "\"*.a.example:1\" has a port, and requests are told apart by host alone: write \"*.a.example\"",
        ),
        ("[::1]:80", "\"[::1]:80\" has a port, and requests are told apart by host alone: write \"[::1]\""),
        (
            "shop*.example",
            "\"shop*.example\" has a * that is no whole label in front: write *.example.org for all below a name, or * for all",
        ),
        ("a.*.example", "\"a.*.example\" has a * that is no whole label in front"),
        ("*.", "\"*.\" has a * that is no whole label in front"),
        ("*.*.example", "\"*.*.example\" has a * that is no whole label in front"),
        ("**", "\"**\" has a * that is no whole label in front"),
        ("*.10.0.0.1", "\"*.10.0.0.1\" is below an address, where nothing is: write the address, or a name"),
        ("*.[::1]", "\"*.[::1]\" is below an address"),
        (
            "a..example",
            "\"a..example\" is no host: \"\" is no label, which has 1 to 63 letters, digits, '-' and '_', and no '-' at its ends",
        ),
        (".", "\".\" is no host: \"\" is no label"),
        ("-a.example", "\"-a.example\" is no host: \"-a\" is no label"),
        ("*.a-.example", "\"*.a-.example\" is no host: \"a-\" is no label"),
        ("a b.example", "\"a b.example\" is no host: \"a b\" is no label"),
        ("a\u{1b}[31m", "\"a\\u{1b}[31m\" is no host: \"a\\u{1b}[31m\" is no label"),
        ("a@b.example", "\"a@b.example\" is no host: \"a@b\" is no label"),
        ("2001:db8::1", "\"2001:db8::1\" is no host: an IPv6 address stands in brackets, [2001:db8::1]"),
        ("[2001:db8::g]", "\"[2001:db8::g]\" is no host: an IPv6 address"),
        ("[::1", "\"[::1\" is no host: an IPv6 address"),
        ("[::1]x", "\"[::1]x\" is no host: an IPv6 address"),
        (&label, "is no label, which has 1 to 63"),
        (&long, "the host has 255 bytes, more than the 253 that a name can have: shorten it"),
    ] {
        let error = words.parse::<HostPattern>().unwrap_err().to_string();
        assert!(error.contains(told), "{words}: {error}");
    }
}

#[test]
fn a_pattern_is_wider_than_what_it_stands_for() {
    let wider = |one: &str, other: &str| {
        one.parse::<HostPattern>().unwrap().is_wider_than(&other.parse::<HostPattern>().unwrap())
    };
    for (one, other) in
        [("*.b.c", "a.b.c"), ("*.c", "a.b.c"), ("*.c", "*.b.c"), ("*", "*.c"), ("*", "a"), ("*", "[::1]")]
    {
        assert!(wider(one, other) && !wider(other, one), "{one} and {other}");
    }
    for (one, other) in
        [("*.b.c", "b.c"), ("*.b.c", "a.xb.c"), ("*.b.c", "*.b.c"), ("*", "*"), ("a.b", "a.b")]
    {
        assert!(!wider(one, other), "{one} and {other}");
    }
}

#[test]
fn names_of_services_are_labels() {
    for name in ["shop", "a", "0", "a-b-3", &"x".repeat(63)] {
        assert_eq!(parse_name(name).unwrap(), name);
    }
    for (name, told) in [
        ("", "the service's name is empty: write one such as shop"),
        ("Shop", "the service's name \"Shop\" has capitals: write \"shop\""),
        (
            "a b",
            "the service's name \"a b\" has a wrong character, ' ': small letters, digits and '-' stand in one",
        ),
        ("a.b", "a wrong character, '.'"),
        ("a_b", "a wrong character, '_'"),
        ("ü", "a wrong character, 'ü'"),
        ("\u{1b}", "the service's name \"\\u{1b}\" has a wrong character, '\\u{1b}'"),
        ("-a", "the service's name \"-a\" begins or ends with '-': leave it out"),
        ("a-", "begins or ends with '-'"),
        ("a*", "the service's name \"a*\" has a *: a service has one name"),
        (&"x".repeat(64), "the service's name has 64 bytes, 63 are the most: shorten it"),
    ] {
        let error = parse_name(name).unwrap_err().to_string();
        assert!(error.contains(told), "{name}: {error}");
    }
}

#[test]
fn what_a_user_may_announce_is_names_and_patterns() {
    let names = |all: &[&str]| ServiceNames::new(all.iter().map(|words| words.parse().unwrap()));
    let some = names(&["shop", "anna-*", "*-test", "a*z"]);
    assert_eq!(some.to_string(), "shop, anna-*, *-test, a*z");
    for (name, permitted) in [
        ("shop", true),
        ("shops", false),
        ("anna-1", true),
        ("anna-", false),
        ("anna", false),
        ("x-test", true),
        ("-test", false),
        ("abz", true),
        ("az", false),
        ("xanna-1", false),
        ("", false),
    ] {
        assert_eq!(some.permit(name), permitted, "{name}");
    }
    assert!(some.names("shop") && !some.names("anna-1"));
    assert!(names(&["*"]).permit("x") && !names(&["*"]).names("x"));
    assert!(!ServiceNames::default().permit("shop") && ServiceNames::default().is_empty());
    assert_eq!(ServiceNames::default().to_string(), "nothing");
    for (words, told) in [
        ("", "is empty"),
        ("a*b*", "\"a*b*\" has more than one *: one may stand for any part of the names"),
        ("**", "has more than one *"),
        ("Anna-*", "\"Anna-*\" has capitals: write \"anna-*\""),
        ("a.*", "a wrong character, '.'"),
        ("-*", "begins or ends with '-'"),
        ("*-", "begins or ends with '-'"),
    ] {
        let error = words.parse::<NamePattern>().unwrap_err().to_string();
        assert!(error.contains(told), "{words}: {error}");
    }
}

#[test]
fn who_may_announce_what() {
    let mut config = HttpConfig { domain: Some("apps.example".to_owned()), ..HttpConfig::default() };
    let mut shared = ServiceConfig::new("shared");
    shared.users = vec!["anna".to_owned(), "ben".to_owned()];
    config.services = vec![shared, ServiceConfig::new("shop")];
    let granted = |words: &[&str]| ServiceNames::new(words.iter().map(|words| words.parse().unwrap()));
    let (none, shop, all) = (granted(&[]), granted(&["shop"]), granted(&["*"]));
    let not = |error: fn(String) -> NotAnnounced, name: &str| Err(error(name.to_owned()));
    for (user, granted, name, may) in [
        ("anna", &none, "shared", Ok(())),
        ("carl", &granted(&["shared"]), "shared", not(NotAnnounced::OfOthers, "shared")),
        ("carl", &all, "shared", not(NotAnnounced::OfOthers, "shared")),
        ("anna", &shop, "shop", Ok(())),
        // A star does not reach what the server describes.
        ("anna", &all, "shop", not(NotAnnounced::NotGranted, "shop")),
        ("anna", &all, "else", Ok(())),
        ("anna", &shop, "else", not(NotAnnounced::NotGranted, "else")),
    ] {
        assert_eq!(config.may_announce(user, granted, name), may, "{user} {granted} {name}");
    }
    assert_eq!(config.announced_host("x").unwrap().to_string(), "x.apps.example");
    config.domain = None;
    assert_eq!(config.may_announce("anna", &all, "else"), not(NotAnnounced::NoHost, "else"));
    assert_eq!(config.announced_host("x"), None);
    for error in [NotAnnounced::NotGranted, NotAnnounced::OfOthers, NotAnnounced::NoHost] {
        let words = error("shop".to_owned()).to_string();
        assert!(words.starts_with("the service shop ") && words.contains("would "), "{words}");
    }
}

#[test]
fn places_to_listen_at_are_addresses() {
    for (words, shown) in [
        ("http://0.0.0.0:80", "http://0.0.0.0:80"),
        ("HTTPS://[::]:443", "https://[::]:443"),
        ("http://127.0.0.1", "http://127.0.0.1:80"),
        ("https://[::1]/", "https://[::1]:443"),
        ("http://127.0.0.1:0", "http://127.0.0.1:0"),
    ] {
        assert_eq!(words.parse::<FrontListen>().unwrap().to_string(), shown);
    }
    for (words, told) in [
        (
            "",
            "\"\" is no place to listen at: write http:// or https:// and an address, such as http://0.0.0.0:80 or https://[::]:443",
        ),
        ("0.0.0.0:80", "\"0.0.0.0:80\" is no place to listen at"),
        ("ftp://0.0.0.0:80", "is no place to listen at"),
        ("http://0.0.0.0:65536", "is no place to listen at"),
        ("http://0.0.0.0:x", "is no place to listen at"),
        ("http://:80", "is no place to listen at"),
        ("http://", "is no place to listen at"),
        ("http://::1:80", "is no place to listen at"),
        ("http://[127.0.0.1]:80", "is no place to listen at"),
        (
            "http://localhost:80",
            "\"http://localhost:80\" names no address to listen on: write one of this machine, such as 127.0.0.1, or 0.0.0.0 and \
             [::] for all",
        ),
        (
            "http://0.0.0.0:80/shop",
            "\"http://0.0.0.0:80/shop\" is more than a place to listen at: hosts and paths stand in [[service]]",
        ),
        ("http://a@0.0.0.0:80", "is more than a place to listen at"),
    ] {
        let error = words.parse::<FrontListen>().unwrap_err().to_string();
        assert!(error.contains(told), "{words}: {error}");
    }
}

#[test]
fn the_same_port_clashes_where_addresses_do() {
    for (one, other, clashes) in [
        ("http://0.0.0.0:80", "127.0.0.1:80", true),
        ("http://127.0.0.1:80", "0.0.0.0:80", true),
        ("http://127.0.0.1:80", "127.0.0.1:80", true),
        ("http://127.0.0.1:80", "127.0.0.2:80", false),
        ("http://127.0.0.1:80", "127.0.0.1:81", false),
        ("http://0.0.0.0:80", "[::]:80", false),
        ("http://[::]:80", "[::1]:80", true),
        ("http://0.0.0.0:0", "0.0.0.0:0", false),
    ] {
        let other: SocketAddr = other.parse().unwrap();
        let one: FrontListen = one.parse().unwrap();
        assert_eq!(one.clashes_with(other.ip(), other.port()), clashes, "{one} and {other}");
    }
}

#[test]
fn targets_are_web_servers_and_folders() {
    for (words, shown) in [
        ("http://10.0.0.1:8080", "http://10.0.0.1:8080"),
        ("HTTP://a.example/", "http://a.example:80"),
        ("h2c://[::1]:50051", "h2c://[::1]:50051"),
        ("/srv/files", "/srv/files"),
    ] {
        assert_eq!(words.parse::<TargetForm>().unwrap().to_string(), shown);
    }
    for (words, told) in [
        ("", "the target is empty: write http://HOST:PORT, h2c://HOST:PORT, or the path of a folder"),
        (
            "10.0.0.1:8080",
            "\"10.0.0.1:8080\" is no target: write http://HOST:PORT, h2c://HOST:PORT, or the whole path of a folder, which begins \
             with /",
        ),
        ("srv/files", "\"srv/files\" is no target"),
        (
            "https://10.0.0.1",
            "a target at https:// is not to be had: write http:// for HTTP/1.1, h2c:// for HTTP/2, both without TLS, or the \
             path of a folder",
        ),
        ("unix:///run/x", "a target at unix:// is not to be had"),
        (
            "http://10.0.0.1/app",
            "\"http://10.0.0.1/app\" is more than http://HOST:PORT: a target has no path and no user there",
        ),
        ("h2c://u@10.0.0.1", "is more than h2c://HOST:PORT"),
        ("http://10.0.0.1:0", "the target is wrong: port 0 cannot be reached"),
        ("http://:80", "the target is wrong: "),
        ("http://", "the target is wrong: the host's name is empty"),
        ("http://a:b", "the target is wrong: "),
    ] {
        let error = words.parse::<TargetForm>().unwrap_err().to_string();
        assert!(error.contains(told), "{words}: {error}");
    }
}

#[test]
fn paths_are_brought_into_one_form() {
    for (words, path) in [
        ("/", "/"),
        ("/api", "/api"),
        ("/api/", "/api"),
        ("/a%2fb", "/a%2Fb"),
        ("/a/~x;y=1@:!", "/a/~x;y=1@:!"),
        ("/a*", "/a*"),
    ] {
        assert_eq!(parse_path(words).unwrap(), path);
    }
    for (words, told) in [
        ("", "\"\" is no path: begin it with a slash, \"/\""),
        ("api", "\"api\" is no path: begin it with a slash, \"/api\""),
        ("/a b", "the path \"/a b\" has a wrong character, ' ': write it as %XX"),
        ("/ü", "a wrong character, 'ü'"),
        (
            "/a?b=1",
            "the path \"/a?b=1\" has a ?, and requests are told apart by path alone: leave out what follows",
        ),
        ("/a#b", "has a #"),
        ("/api/*", "the path \"/api/*\" ends with a *, and stands for all below it without: write \"/api\""),
        ("/*", "without: write \"/\""),
        ("/a//b", "the path \"/a//b\" holds an empty part, . or ..: write it without"),
        ("//", "holds an empty part"),
        ("/a/../b", "holds an empty part"),
        ("/.", "holds an empty part"),
        ("/%61pi", "the path \"/%61pi\" writes 'a' as %XX: write it as it is"),
        ("/100%", "the path \"/100%\" has a % without two hexadecimal digits behind it: write %25"),
        ("/%g0", "has a % without two"),
        (&format!("/{}", "x".repeat(1024)), "the path has 1025 bytes, 1024 are the most: shorten it"),
    ] {
        let error = parse_path(words).unwrap_err().to_string();
        assert!(error.contains(told), "{words}: {error}");
    }
    assert_eq!(parse_health_path("/healthz?full=1").unwrap(), "/healthz?full=1");
    for (words, told) in [
        ("healthz", "begin it with a slash, \"/healthz\""),
        ("http://10.0.0.1/healthz", "is no path"),
        ("/a b", "a wrong character"),
        ("/a#b", "has a #"),
        ("/%", "has a % without"),
    ] {
        let error = parse_health_path(words).unwrap_err().to_string();
        assert!(error.contains(told), "{words}: {error}");
    }
}

#[test]
fn choices_are_words_and_others_are_told_them() {
    for (words, method) in [
        ("round-robin", Method::RoundRobin),
        ("least-connections", Method::LeastConnections),
        ("two-choices", Method::TwoChoices),
        ("address", Method::Address),
    ] {
        assert_eq!((words.parse(), method.to_string().as_str()), (Ok(method), words));
    }
    let told = "\"random\" is no way to balance: write \"round-robin\", \"least-connections\", \"two-choices\" or \"address\"";
    assert_eq!("random".parse::<Method>().unwrap_err().to_string(), told);
    for (words, https) in [("both", Https::Both), ("redirect", Https::Redirect), ("only", Https::Only)] {
        assert_eq!(words.parse(), Ok(https));
    }
    let told = "\"yes\" is no way with https: write \"both\", \"redirect\" or \"only\"";
    assert_eq!("yes".parse::<Https>().unwrap_err().to_string(), told);
    for (words, log) in [("off", AccessLog::Off), ("text", AccessLog::Text), ("json", AccessLog::Json)] {
        assert_eq!(words.parse(), Ok(log));
    }
    let told = "\"/var/log/x\" is no form of an access log: write \"text\", \"json\" or \"off\"";
    assert_eq!("/var/log/x".parse::<AccessLog>().unwrap_err().to_string(), told);
}

#[test]
fn what_a_target_reads_as_host_is_a_host_with_or_without_a_port() {
    let name = |name: &str| Ok(HostRewrite::Name(name.to_owned()));
    for (words, rewrite) in [
        ("keep", Ok(HostRewrite::Keep)),
        ("target", Ok(HostRewrite::Target)),
        ("In.Example.", name("in.example")),
        ("in.example:8080", name("in.example:8080")),
        ("[::1]:80", name("[::1]:80")),
    ] {
        assert_eq!(words.parse(), rewrite, "{words}");
    }
    for words in ["", "*", "*.example", "http://a", "a:0", "a:70000", "a:", "a b", "ü", "a\r\nX: y"] {
        let error = words.parse::<HostRewrite>().unwrap_err().to_string();
        let told = format!(
            "\"{}\" is nothing that a target could read as host: write \"keep\", \"target\", or a host with or without a port (",
            words.escape_debug()
        );
        assert!(error.starts_with(&told) && !error.contains(char::is_control), "{error}");
    }
}

/// A certificate and its key, in PEM.
fn certificate() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    (pem("CERTIFICATE", made.cert.der()), pem("PRIVATE KEY", made.signing_key.serialized_der()))
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}

fn write(path: &Path, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt;

    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn certificates_and_keys_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (cert, key) = certificate();
    let (other, other_key) = certificate();
    write(&path("cert"), &cert, 0o644);
    write(&path("key"), &key, 0o600);
    write(&path("group"), &key, 0o640);
    write(&path("both"), &format!("{key}{cert}{other}"), 0o600);
    write(&path("open"), &key, 0o644);
    write(&path("other"), &other_key, 0o600);
    write(&path("text"), "Dear Sir,\n", 0o600);
    write(&path("empty"), "", 0o600);
    write(&path("cut"), &key[..key.len() / 2], 0o600);
    write(&path("broken"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0o600);
    write(&path("no base64"), "-----BEGIN PRIVATE KEY-----\n<html>\n-----END PRIVATE KEY-----\n", 0o600);
    write(&path("odd"), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 0o600);
    write(
        &path("locked"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        0o600,
    );
    write(&path("large"), &"x".repeat((1 << 20) + 1), 0o600);
    for (cert, key) in [("cert", "key"), ("cert", "group"), ("both", "both")] {
        assert_eq!(CertificateFiles::new(path(cert), path(key)).check(), Ok(()), "{cert} {key}");
    }
    for (cert, key, is_of_key, told) in [
        ("none", "key", false, "the certificate {} cannot be read: No such file"),
        ("cert", "none", true, "the key {} cannot be read: No such file"),
        (
            "cert",
            "",
            true,
            "the key {} is none: it is no file: write the path of a file in PEM that holds one",
        ),
        (
            "text",
            "key",
            false,
            "the certificate {} is none: nothing of the kind stands in it: write the path of a file in PEM",
        ),
        ("key", "key", false, "the certificate {} is none: nothing of the kind stands in it"),
        ("broken", "key", false, "the certificate {} is none: TLS cannot use it ("),
        ("cert", "empty", true, "the key {} is none: nothing of the kind stands in it"),
        ("cert", "cert", true, "the key {} is none: nothing of the kind stands in it"),
        ("cert", "cut", true, "the key {} is none: its end is missing"),
        ("cert", "no base64", true, "the key {} is none: what stands between BEGIN and END is no base64"),
        ("cert", "odd", true, "the key {} is none: TLS cannot use it ("),
        ("cert", "locked", true, "the key {} wants a password, which nobody gives here: write it without"),
        ("large", "key", false, "the certificate {} has more than 1024 KiB"),
        ("cert", "open", true, "the key {} can be read or written by everyone (mode 0644): chmod 600 {}"),
        ("cert", "other", true, "the key {} is not that of the certificate "),
    ] {
        let error = CertificateFiles::new(path(cert), path(key)).check().unwrap_err();
        let wrong = path(if is_of_key { key } else { cert });
        let told = told.replace("{}", &wrong.display().to_string());
        assert!(error.to_string().starts_with(&told), "{cert} {key}: {error}");
        assert_eq!(error.is_of_key(), is_of_key, "{error}");
        let words = error.to_string();
        assert!(!words.contains("AAAA") && !words.contains("Dear") && !words.contains("html"), "{words}");
    }
}

#[test]
fn folders_of_targets_are_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let check = |path: &Path| TargetForm::Folder(path.to_owned()).check();
    assert_eq!(check(folder.path()), Ok(()));
    assert_eq!("http://127.0.0.1:1".parse::<TargetForm>().unwrap().check(), Ok(()), "nobody is asked");
    let told = check(&folder.path().join("none")).unwrap_err().to_string();
    assert!(
        told.starts_with("the target's folder ") && told.ends_with(": make it, or write another"),
        "{told}"
    );
    let told = check(&file).unwrap_err().to_string();
    assert_eq!(told, format!("the target {} is no folder: write the path of one", file.display()));
}
