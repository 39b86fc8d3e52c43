use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn pattern(words: &str) -> HostPattern {
    words.parse().unwrap()
}

/// Routes whose values are their own words.
fn routes(all: &[(&'static str, &'static str)]) -> Routes<String> {
    let mut routes = Routes::new();
    for (host, path) in all {
        routes.insert(&pattern(host), path, format!("{host}{path}")).unwrap();
    }
    routes
}

#[test]
fn the_most_specific_host_wins_and_then_the_longest_path() {
    let routes = routes(&[
        ("shop.example.org", "/"),
        ("shop.example.org", "/api"),
        ("shop.example.org", "/api/v2"),
        ("*.example.org", "/"),
        ("*.shop.example.org", "/api"),
        ("*", "/"),
        ("*", "/status"),
        ("10.0.0.1", "/"),
        ("[2001:db8::1]", "/"),
    ]);
    for (host, path, found) in [
        ("shop.example.org", "/", Some("shop.example.org/")),
        ("shop.example.org", "/apis", Some("shop.example.org/")),
        ("shop.example.org", "/api", Some("shop.example.org/api")),
        ("shop.example.org", "/api/", Some("shop.example.org/api")),
        ("shop.example.org", "/api/v1/v2", Some("shop.example.org/api")),
        ("shop.example.org", "/api/v2/x", Some("shop.example.org/api/v2")),
        ("shop.example.org", "/API", Some("shop.example.org/")),
        ("other.example.org", "/api", Some("*.example.org/")),
        ("a.b.c.example.org", "/", Some("*.example.org/")),
        // The wildcard stands for one label or more, not for none.
        ("example.org", "/", Some("*/")),
        ("a.shop.example.org", "/api/x", Some("*.shop.example.org/api")),
        ("a.b.shop.example.org", "/api", Some("*.shop.example.org/api")),
        // What is hidden stays hidden.
        ("a.shop.example.org", "/other", None),
        ("xshop.example.org", "/", Some("*.example.org/")),
        ("xexample.org", "/", Some("*/")),
        ("org", "/", Some("*/")),
        ("else.example", "/status/x", Some("*/status")),
        ("10.0.0.1", "/", Some("10.0.0.1/")),
        ("0.0.1", "/", Some("*/")),
        ("[2001:db8::1]", "/", Some("[2001:db8::1]/")),
        ("[2001:db8::2]", "/", Some("*/")),
    ] {
        assert_eq!(routes.find(host, path).map(String::as_str), found, "{host}{path}");
    }
}

#[test]
fn a_hosts_case_port_and_last_dot_say_nothing() {
    let routes = routes(&[("shop.example.org", "/"), ("*.example.org", "/"), ("[::1]", "/"), ("*", "/")]);
    for (host, found) in [
        ("SHOP.Example.ORG", "shop.example.org/"),
        ("shop.example.org:8080", "shop.example.org/"),
        ("shop.example.org.", "shop.example.org/"),
        ("Shop.Example.org.:443", "shop.example.org/"),
        ("shop.example.org:", "shop.example.org/"),
        ("A.EXAMPLE.ORG:1", "*.example.org/"),
        ("[::1]:8080", "[::1]/"),
        ("[0:0:0:0:0:0:0:1]", "[::1]/"),
        // What is none, or names none, is anybody's.
        ("", "*/"),
        (".", "*/"),
        (":80", "*/"),
        ("shop.example.org..", "*/"),
        (".example.org", "*/"),
        ("a..example.org", "*/"),
        ("[::1", "*/"),
        ("[x]", "*/"),
        ("shöp.example.org", "*/"),
        ("\u{212a}.example.org", "*/"),
        (" shop.example.org", "*.example.org/"),
    ] {
        // A blank cannot be part of a host and never gets here; it is below the domain all the same.
        assert_eq!(routes.find(host, "/").map(String::as_str), Some(found), "{host:?}");
    }
    let long = format!("{}example.org", "a.".repeat(2000));
    assert_eq!(routes.find(&long, "/").map(String::as_str), Some("*/"), "it is longer than a name can be");
    let long = format!("{}example.org", "A.".repeat(120));
    assert_eq!(routes.find(&long, "/").map(String::as_str), Some("*.example.org/"));
}

#[test]
fn without_a_route_for_all_the_rest_is_nobodys() {
    let routes = routes(&[("*.example.org", "/api")]);
    for (host, path) in
        [("example.org", "/api"), ("else.example", "/api"), ("", "/api"), ("a.example.org", "/")]
    {
        assert_eq!(routes.find(host, path), None, "{host}{path}");
    }
    assert_eq!(Routes::<()>::new().find("a.example", "/"), None);
}

#[test]
fn paths_are_compared_as_targets_read_them() {
    let routes = routes(&[("*", "/"), ("*", "/admin"), ("*", "/public"), ("*", "/a%2Fb"), ("*", "/~x/y")]);
    for (path, found) in [
        ("/public/../admin", "/admin"),
        ("/public/..//admin/x", "/admin"),
        ("/public/%2e%2E/admin", "/admin"),
        ("/public/./x", "/public"),
        ("/./admin", "/admin"),
        ("//admin", "/admin"),
        ("/../../admin", "/admin"),
        ("/%61dmin", "/admin"),
        ("/admin/..", "/"),
        ("/admin/.", "/admin"),
        ("/admin/...", "/admin"),
        ("/.admin", "/"),
        ("/%7Ex/y", "/~x/y"),
        // An encoded slash is no slash, and no other letter either.
        ("/a%2fb/c", "/a%2Fb"),
        ("/a/b", "/"),
        ("/public%2F..%2Fadmin", "/"),
        ("/%2561dmin", "/"),
        ("/%", "/"),
        ("/%6", "/"),
        ("/%zzadmin", "/"),
        ("/%ü", "/"),
        // Of OPTIONS and of CONNECT.
        ("*", "/"),
        ("", "/"),
        ("admin", "/"),
    ] {
        assert_eq!(routes.find("a.example", path).map(String::as_str), Some(&*format!("*{found}")), "{path}");
    }
}

#[test]
fn the_same_host_and_path_clash_and_change_nothing() {
    let mut routes = Routes::new();
    for host in ["a.example", "*.a.example", "*"] {
        let host = pattern(host);
        routes.insert(&host, "/x", 1).unwrap();
        let clash = routes.insert(&host, "/x", 2).unwrap_err();
        assert_eq!(clash.to_string(), format!("{host} with the path /x is another service's"));
        routes.insert(&host, "/", 3).unwrap();
    }
    for host in ["a.example", "b.a.example", "else"] {
        assert_eq!((routes.find(host, "/x"), routes.find(host, "/")), (Some(&1), Some(&3)), "{host}");
    }
}

#[test]
fn what_is_removed_leaves_nothing_behind() {
    let all = [
        ("a.b.example", "/x/y"),
        ("a.b.example", "/"),
        ("*.b.example", "/x"),
        ("b.example", "/"),
        ("*", "/x"),
    ];
    let mut routes = routes(&all);
    assert_eq!(routes.remove(&pattern("c.example"), "/"), None);
    assert_eq!(routes.remove(&pattern("a.b.example"), "/x"), None);
    assert_eq!(routes.remove(&pattern("*.example"), "/"), None);
    assert_eq!(routes.find("a.b.example", "/x/y/z").unwrap(), "a.b.example/x/y");
    assert_eq!(routes.remove(&pattern("a.b.example"), "/x/y").unwrap(), "a.b.example/x/y");
    assert_eq!(routes.find("a.b.example", "/x/y/z").unwrap(), "a.b.example/");
    assert_eq!(routes.remove(&pattern("a.b.example"), "/").unwrap(), "a.b.example/");
    // It hides the wider one no more.
    assert_eq!(routes.find("a.b.example", "/x/y").unwrap(), "*.b.example/x");
    for (host, path) in &all[2..] {
        assert!(routes.remove(&pattern(host), path).is_some());
    }
    assert!(routes.hosts.children.is_empty() && routes.any.is_none());
}

fn host() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]", 1..5).prop_map(|labels| labels.join("."))
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec("[xy]", 0..4).prop_map(|parts| format!("/{}", parts.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Beside one that looks at every route.
    #[test]
    fn what_is_found_is_what_a_plain_search_finds(
        all in prop::collection::vec((host(), 0..3, path()), 0..30),
        asked in prop::collection::vec((host(), path()), 1..20),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let mut routes = Routes::new();
        let mut plain = BTreeMap::new();
        for (number, (host, form, path)) in all.iter().enumerate() {
            let host = match form {
                0 => host.clone(),
                1 => format!("*.{host}"),
                _ => "*".to_owned(),
            };
            let clashes = plain.contains_key(&(host.clone(), path.clone()));
            prop_assert_eq!(routes.insert(&pattern(&host), path, number).is_err(), clashes);
            plain.entry((host, path.clone())).or_insert(number);
        }
        for one in removed {
            if plain.is_empty() {
                break;
            }
            let key = plain.keys().nth(one.index(plain.len())).unwrap().clone();
            prop_assert_eq!(routes.remove(&pattern(&key.0), &key.1), plain.remove(&key));
        }
        for (host, path) in asked {
            let rank = |pattern: &str| match pattern.strip_prefix('*') {
                Some("") => Some(0),
                Some(below) => host.ends_with(below).then_some(below.len()),
                None => (host == pattern).then_some(usize::MAX),
            };
            let best = plain.keys().filter_map(|(pattern, _)| rank(pattern)).max();
            let of_host = plain.iter().filter(|((pattern, _), _)| best.is_some() && rank(pattern) == best);
            let fits = |prefix: &str| prefix == "/" || path == prefix || path.starts_with(&format!("{prefix}/"));
            let found = of_host.filter(|((_, prefix), _)| fits(prefix)).max_by_key(|((_, prefix), _)| prefix.len());
            prop_assert_eq!(routes.find(&host, &path), found.map(|(_, number)| number), "{} {}", host, path);
        }
    }

    #[test]
    fn nothing_that_is_asked_for_breaks_it(host in "\\PC{0,40}", path in "\\PC{0,40}") {
        let routes = routes(&[("a.b", "/x"), ("*.b", "/"), ("[::1]", "/")]);
        routes.find(&host, &path);
        routes.find(&format!("[{host}"), &format!("/%{path}"));
        // What is straight stays so; of what is no path nothing is promised.
        let once = straight(&path).into_owned();
        prop_assert!(path.contains('%') || straight(&once) == once.as_str());
    }
}
