use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use gkd_proxy::program::Status;
use gkd_proxy::service::config::{HostRewrite, Https, Method};

use crate::config::Config;

const KEYS: [&str; 3] = [
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
];

/// The front of most tests: two lines.
const FRONT: &str = "[http]\nlisten = [\"http://127.0.0.1:80\"]\n";

/// A service that is right: four lines.
const SHOP: &str =
    "[[service]]\nname = \"shop\"\nhosts = [\"shop.example\"]\ntargets = [\"http://10.0.0.1\"]\n";

/// The mistakes as they are shown.
fn problems(text: &str) -> Vec<String> {
    match Config::parse(text) {
        Ok(config) => panic!("this passed: {config:?}"),
        Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
    }
}

/// The only mistake.
fn problem(text: &str) -> String {
    let [one] = &problems(text)[..] else { panic!("there are others: {:?}", problems(text)) };
    assert!(!one.contains(char::is_control), "{one:?}");
    one.clone()
}

fn assert_told(text: &str, told: &str) {
    let problem = problem(text);
    assert!(problem.starts_with(told), "{text}\nis told: {problem}\nand not: {told}");
}

/// Users with these lines each: four lines for each, and theirs.
fn users(all: &[(&str, &str)]) -> String {
    let users = all.iter().zip(KEYS);
    users
        .map(|((name, lines), key)| format!("[[user]]\nname = \"{name}\"\nkey = \"{key}\"\n{lines}\n"))
        .collect()
}

#[test]
fn all_that_can_be_set_is_read() {
    let text = r#"
[http]
listen = ["http://0.0.0.0:80", "https://[::]:443"]
certificates = [{ certificate = "/etc/x/fullchain.pem", key = "/etc/x/key.pem" }]
trusted = ["10.0.0.0/8", "::1"]
proxy_header = true
access_log = "json"
domain = "Apps.example.org."
max_head = "64KiB"
max_body = "1GiB"
connections = 100
connections_per_address = 10
requests_per_second = 5
[http.timeouts]
head = "5s"
silence = "2m"
keep_alive = "30s"
connect = "1s"
[[service]]
name = "shop"
hosts = ["shop.example.org", "*.shop.example.org"]
paths = ["/", "/api/"]
targets = ["http://10.0.0.1:8080", { to = "http://10.0.0.2:8080", weight = 2 }, "/srv/files", "h2c://10.0.0.3:50051"]
users = ["anna", "ben"]
balance = "address"
host = "target"
https = "redirect"
send_proxy = true
health = { path = "/healthz?x=1", interval = "1s", timeout = "500ms", rise = 3, fall = 4 }
[[service]]
name = "rest"
hosts = ["*"]
targets = [{ to = "http://10.0.0.1" }]
"#;
    let text = format!("{text}{}", users(&[("anna", "services = [\"shop\", \"anna-*\"]"), ("ben", "")]));
    let config = Config::parse(&text).unwrap();
    let http = config.http().unwrap();
    let listen: Vec<_> = http.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["http://0.0.0.0:80", "https://[::]:443"]);
    assert_eq!(http.certificates[0].key, Path::new("/etc/x/key.pem"));
    assert_eq!(http.trusted, ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
    assert!(http.proxy_header && http.has_tls());
    assert_eq!(http.domain.as_deref(), Some("apps.example.org"));
    let limits = &http.limits;
    assert_eq!((limits.max_head, limits.max_body), (64 << 10, Some(1 << 30)));
    assert_eq!((limits.connections, limits.connections_per_address), (100, 10));
    assert_eq!(limits.requests_per_second, Some(5));
    let times = [limits.head, limits.silence, limits.keep_alive, limits.connect];
    assert_eq!(times, [5, 120, 30, 1].map(Duration::from_secs));
    let shop = http.service("shop").unwrap();
    assert_eq!(shop.paths, ["/", "/api"]);
    let targets: Vec<_> = shop.targets.iter().map(|target| (target.to.to_string(), target.weight)).collect();
    let expected = [
        ("http://10.0.0.1:8080", 1),
        ("http://10.0.0.2:8080", 2),
        ("/srv/files", 1),
        ("h2c://10.0.0.3:50051", 1),
    ];
    assert_eq!(targets, expected.map(|(to, weight)| (to.to_owned(), weight)));
    assert_eq!(
        (shop.balance, &shop.host, shop.https),
        (Method::Address, &HostRewrite::Target, Https::Redirect)
    );
    assert!(shop.send_proxy);
    assert_eq!(shop.users, ["anna", "ben"]);
    let health = shop.health.as_ref().unwrap();
    assert_eq!((health.path.as_str(), health.rise, health.fall, shop.fall()), ("/healthz?x=1", 3, 4, 4));
    assert_eq!((health.interval.as_millis(), health.timeout.as_millis()), (1000, 500));
    assert_eq!(config.users[0].services.to_string(), "shop, anna-*");
    // Who shares a service is granted it.
    assert_eq!(config.users[1].services.to_string(), "shop");
    let rest = http.service("rest").unwrap();
    assert_eq!((rest.paths.as_slice(), rest.hosts[0].is_any()), (&["/".to_owned()][..], true));
}

#[test]
fn without_a_front_and_services_there_is_nothing() {
    assert_eq!(Config::parse("plain = false\n").unwrap().http(), None);
    // A front alone is one: everything that it answers is that there is nothing.
    assert!(Config::parse(FRONT).unwrap().http().unwrap().services.is_empty());
}

#[test]
fn a_health_check_ends_before_the_next() {
    let health = |words: &str| Config::parse(&format!("{FRONT}{SHOP}health = {{ path = \"/\", {words} }}\n"));
    let config = health("interval = \"500ms\"").unwrap();
    let check = config.http().unwrap().services[0].health.clone().unwrap();
    assert_eq!(check.timeout, Duration::from_millis(500), "what is usual is shortened");
    assert_told(
        &format!("{FRONT}{SHOP}health = {{ path = \"/\", interval = \"1s\", timeout = \"2s\" }}\n"),
        "line 7, column 51: the timeout is longer than the interval, and one check ends before the next begins: shorten it",
    );
}

#[test]
fn mistakes_of_the_front_name_their_place_and_the_mend() {
    for (line, told) in [
        (
            "listen = [\"0.0.0.0:80\"]",
            "line 2, column 11: \"0.0.0.0:80\" is no place to listen at: write http://",
        ),
        (
            "listen = [\"http://0.0.0.0:80\",\n\"https://127.0.0.1:80\"]\ncertificates = [{ certificate = \"/c\", key = \"/k\" }]",
            "line 3, column 1: https://127.0.0.1:80 is taken by http://0.0.0.0:80 in line 2: listen at another port",
        ),
        (
            "listen = [\"http://127.0.0.1:9990\"]",
            "line 2, column 11: http://127.0.0.1:9990 is where tunnels come in, by listen (0.0.0.0:9990): use another port",
        ),
        (
            "listen = [\"https://127.0.0.1\"]",
            "line 2, column 11: https needs a certificate: write certificates = [{ certificate = ",
        ),
        (
            "listen = [\"http://127.0.0.1\"]\ncertificates = [{ certificate = \"/c\", key = \"/k\" }]",
            "line 3, column 17: nothing shows this certificate, for nothing listens on https://: add \"https://0.0.0.0:443\"",
        ),
        (
            "listen = [\"https://127.0.0.1\"]\ncertificates = [{ certificate = \"c\", key = \"/k\" }]",
            "line 3, column 33: \"c\" is no whole path: write one that begins with /",
        ),
        (
            "listen = [\"https://127.0.0.1\"]\ncertificates = [{ certificate = \"/c\" }]",
            "line 3, column 17: missing field `key`",
        ),
    ] {
        assert_told(&format!("[http]\n{line}\n"), told);
    }
    for (line, told) in [
        ("trusted = [\"10.0.0.0/33\"]", "line 3, column 12: \"10.0.0.0/33\" is not a range of addresses"),
        (
            "proxy_header = true",
            "line 3, column 16: proxy_header is for connections of those in trusted, and nobody is",
        ),
        (
            "access_log = \"xml\"",
            "line 3, column 14: \"xml\" is no form of an access log: write \"text\", \"json\" or \"off\"",
        ),
        (
            "domain = \"*.apps.example\"",
            "line 3, column 10: \"*.apps.example\" has a *: write the domain alone, \"apps.example\"",
        ),
        (
            "domain = \"10.0.0.1\"",
            "line 3, column 10: \"10.0.0.1\" is an address, below which there are no names",
        ),
        ("domain = \"a.example:80\"", "line 3, column 10: \"a.example:80\" has a port"),
        ("domain = \"\"", "line 3, column 10: the host is empty"),
        ("max_head = \"1KiB\"", "line 3, column 12: 1KiB is out of bounds: write 8KiB to 1MiB"),
        (
            "max_head = 8192",
            "line 3, column 12: invalid type: integer `8192`, expected a string: write it in quotes, with its unit",
        ),
        (
            "connections = \"5\"",
            "line 3, column 15: invalid type: string \"5\", expected i64: write a number",
        ),
        ("max_body = \"0KiB\"", "line 3, column 12: 0KiB is out of bounds: write 1KiB to 1TiB"),
        ("max_body = \"1G\"", "line 3, column 12: \"1G\" is no size"),
        ("connections = 0", "line 3, column 15: 0 is out of bounds: write 1 to 262144"),
        ("connections_per_address = -1", "line 3, column 27: -1 is out of bounds: write 1 to 262144"),
        ("requests_per_second = 0", "line 3, column 23: 0 is out of bounds: write 1 to 1000000"),
        ("timeouts = { head = \"0s\" }", "line 3, column 21: 0ms is out of bounds: write 1s to 24h"),
        ("timeouts = { heads = \"1s\" }", "line 3, column 14: unknown field `heads`"),
        ("listens = []", "line 3, column 1: unknown field `listens`"),
    ] {
        assert_told(&format!("{FRONT}{line}\n"), told);
    }
    assert_told(
        "\n[http]\n",
        "line 2, column 1: the front listens nowhere: write listen = [\"http://0.0.0.0:80\"] in [http]",
    );
    assert_told(SHOP, "line 2, column 8: no request reaches a service without a front: add [http]");
    let own = format!("listen = [\"[::]:443-444\"]\n{}", FRONT.replace("127.0.0.1:80", "[::1]:444"));
    assert_told(
        &own,
        "line 3, column 11: http://[::1]:444 is where tunnels come in, by listen ([::]:443-444)",
    );
    let many: String = (0..65).map(|port| format!("\"http://127.0.0.1:{}\",", 1000 + port)).collect();
    let told = problem(&format!("[http]\nlisten = [{many}]\n"));
    assert!(told.ends_with(": 65 places to listen at are more than the 64 that may be"), "{told}");
}

#[test]
fn mistakes_of_a_service_name_their_place_and_the_mend() {
    // The words take the place of the line that they begin like.
    for (line, told) in [
        ("name = \"Shop\"", "line 4, column 8: the service's name \"Shop\" has capitals: write \"shop\""),
        ("name = \"\"", "line 4, column 8: the service's name is empty"),
        (
            "hosts = []",
            "line 4, column 8: the service shop has no host: write hosts = [\"shop.example.org\"], or [\"*\"]",
        ),
        ("hosts = [\"a.example\", \"a b\"]", "line 5, column 23: \"a b\" is no host"),
        (
            "hosts = [\"bücher.example\"]",
            "line 5, column 10: \"bücher.example\" has 'ü': write the name in its ASCII form",
        ),
        (
            "targets = [\"10.0.0.1:80\"]",
            "line 6, column 12: \"10.0.0.1:80\" is no target: write http://HOST:PORT",
        ),
        (
            "targets = [{ to = \"https://10.0.0.1\" }]",
            "line 6, column 19: a target at https:// is not to be had",
        ),
        (
            "targets = [{ to = \"http://a\", weight = 0 }]",
            "line 6, column 40: 0 is out of bounds: write 1 to 1000",
        ),
        (
            "targets = [{ to = \"http://a\", weight = 1001 }]",
            "line 6, column 40: 1001 is out of bounds: write 1 to 1000",
        ),
        ("targets = [{ to = \"http://a\", weight = \"2\" }]", "line 6, column 40: invalid type"),
        ("targets = [{ weight = 2 }]", "line 6, column 12: missing field `to`"),
        ("targets = [{ to = \"http://a\", wait = 2 }]", "line 6, column 31: unknown field `wait`"),
        (
            "targets = [80]",
            "line 6, column 12: invalid type: integer `80`, expected a target such as \"http://10.0.0.1:8080\", or { to = ",
        ),
        (
            "targets = [\"http://a\",\n \"http://a:80\"]",
            "line 7, column 2: http://a:80 is a target of this service already: give one of them more weight",
        ),
        (
            "targets = []",
            "line 4, column 8: the service shop has no target, and no user may announce one: write targets = ",
        ),
    ] {
        let key = line.split_once(' ').unwrap().0;
        let lines: Vec<_> =
            SHOP.lines().map(|old| if old.starts_with(&format!("{key} ")) { line } else { old }).collect();
        assert_told(&format!("{FRONT}{}\n", lines.join("\n")), told);
    }
    for (line, told) in [
        ("paths = []", "line 7, column 9: there is no path: leave paths out for all of them"),
        (
            "paths = [\"/\", \"api\"]",
            "line 7, column 15: \"api\" is no path: begin it with a slash, \"/api\"",
        ),
        (
            "users = [\"anna\"]",
            "line 7, column 10: there is no user \"anna\": gkd-server user add makes one, or remove it here",
        ),
        (
            "balance = \"random\"",
            "line 7, column 11: \"random\" is no way to balance: write \"round-robin\", ",
        ),
        (
            "host = \"a b\"",
            "line 7, column 8: \"a b\" is nothing that a target could read as host: write \"keep\", ",
        ),
        (
            "https = \"yes\"",
            "line 7, column 9: \"yes\" is no way with https: write \"both\", \"redirect\" or \"only\"",
        ),
        (
            "https = \"redirect\"",
            "line 7, column 9: https = \"redirect\" needs a front that listens on https://: add \"https://0.0.0.0:443\" to listen",
        ),
        ("https = \"only\"", "line 7, column 9: https = \"only\" needs a front that listens on https://"),
        ("send_proxy = 1", "line 7, column 14: invalid type"),
        (
            "health = { path = \"healthz\" }",
            "line 7, column 19: \"healthz\" is no path: begin it with a slash, \"/healthz\"",
        ),
        ("health = { }", "line 7, column 10: missing field `path`"),
        (
            "health = { path = \"/\", interval = \"1ms\" }",
            "line 7, column 35: 1ms is out of bounds: write 100ms to 1h",
        ),
        (
            "health = { path = \"/\", timeout = \"1ms\" }",
            "line 7, column 34: 1ms is out of bounds: write 10ms to 1m",
        ),
        ("health = { path = \"/\", rise = 0 }", "line 7, column 31: 0 is out of bounds: write 1 to 100"),
        ("health = { path = \"/\", fall = 101 }", "line 7, column 31: 101 is out of bounds: write 1 to 100"),
        ("target = \"http://a\"", "line 7, column 1: unknown field `target`"),
    ] {
        assert_told(&format!("{FRONT}{SHOP}{line}\n"), told);
    }
    assert_told("[[service]]\nhosts = [\"a\"]\n", "line 1, column 1: missing field `name`");
}

/// A service of this name, hosts and paths: five lines.
fn service(name: &str, hosts: &str, paths: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nhosts = {hosts}\npaths = {paths}\ntargets = [\"http://10.0.0.1\"]\n"
    )
}

#[test]
fn two_services_have_no_name_and_no_host_with_a_path_in_common() {
    for (one, other, told) in [
        (
            service("a", "[\"a.example\"]", "[\"/\"]"),
            service("a", "[\"b.example\"]", "[\"/\"]"),
            "line 9, column 8: the service a stands twice, first in line 4: rename one, or make one of both",
        ),
        (
            service("a", "[\"a.example\", \"*.b.example\"]", "[\"/\", \"/api\"]"),
            service("b", "[\"c.example\", \"*.B.example.\"]", "[\"/x\", \"/api/\", \"/\"]"),
            "line 10, column 23: *.b.example with the path /api is that of the service a in line 5: give one of them another",
        ),
        (
            service("a", "[\"*\"]", "[\"/\"]"),
            service("b", "[\"*\"]", "[\"/\"]"),
            "line 10, column 10: * with the path / is that of the service a in line 5",
        ),
        (
            service("a", "[\"a.example\"]", "[\"/\"]"),
            service("b", "[\"b.example\", \"B.example\"]", "[\"/\"]"),
            "line 10, column 23: b.example with the path / stands twice here, first in line 10: remove one",
        ),
    ] {
        assert_told(&format!("{FRONT}{one}{other}"), told);
    }
    let right = [
        service("a", "[\"a.example\", \"*.b.example\"]", "[\"/\"]"),
        service("b", "[\"a.example\", \"*.b.example\"]", "[\"/api\"]"),
        service("c", "[\"b.example\", \"*.c.b.example\"]", "[\"/\"]"),
        service("d", "[\"*\"]", "[\"/\"]"),
    ];
    assert_eq!(
        Config::parse(&format!("{FRONT}{}", right.concat())).unwrap().http().unwrap().services.len(),
        4
    );
}

#[test]
fn a_name_that_hides_paths_of_a_wider_one_is_told() {
    let web = service("web", "[\"*.example.org\"]", "[\"/\"]");
    let api = service("api", "[\"shop.example.org\"]", "[\"/api\", \"/v2\"]");
    assert_told(
        &format!("{FRONT}{web}{api}"),
        "line 10, column 10: shop.example.org hides that name from *.example.org of the service web in line 5, so that outside of \
         /api, /v2 nobody would answer for it: write \"shop.example.org\" in the hosts of web as well, or the path \"/\" here",
    );
    // Whichever stands first, and a wildcard hides a wider one likewise.
    assert_told(
        &format!("{FRONT}{}{web}", service("api", "[\"*.shop.example.org\"]", "[\"/api\"]")),
        "line 5, column 10: *.shop.example.org hides that name from *.example.org of the service web in line 10",
    );
    for (one, other) in [
        // It wins over the wildcard for all paths, which is what wildcards are for.
        (web.clone(), service("shop", "[\"shop.example.org\"]", "[\"/\"]")),
        // Both have it.
        (service("web", "[\"*.example.org\", \"shop.example.org\"]", "[\"/\"]"), api.clone()),
        // The wider one has no more.
        (service("web", "[\"*.example.org\"]", "[\"/api/x\", \"/v2\"]"), api.clone()),
        // What all the rest gets is meant to be the rest.
        (service("web", "[\"*\"]", "[\"/\"]"), api.clone()),
        (service("web", "[\"*.shop.example.org\"]", "[\"/\"]"), api),
    ] {
        Config::parse(&format!("{FRONT}{one}{other}")).unwrap();
    }
}

#[test]
fn a_service_is_claimed_by_one_user_or_by_those_that_it_names() {
    let shop = |lines: &str| format!("[[service]]\nname = \"shop\"\nhosts = [\"shop.example\"]\n{lines}\n");
    let both = users(&[("anna", "services = [\"shop\"]"), ("ben", "services = [\"x-*\", \"shop\"]")]);
    let domain = format!("{FRONT}domain = \"apps.example\"\n");
    for (text, told) in [
        (
            format!("{domain}{}{both}", shop("")),
            "line 15, column 20: the service shop is claimed by the user anna in line 11 already: write users = [\"anna\", \"ben\"] \
             in its [[service]] for them to share it, or remove one",
        ),
        (
            format!("{domain}{both}"),
            "line 11, column 20: the service shop is claimed by the user anna in line 7 already",
        ),
        (
            format!("{domain}{}{both}", shop("users = [\"anna\"]")),
            "line 15, column 20: the service shop in line 5 names those who may announce it, and ben is not among them: add \"ben\" \
             to its users, or remove shop here",
        ),
        (
            format!("{domain}{}{both}", shop("users = [\"anna\", \"ben\", \"carl\"]")),
            "line 7, column 25: there is no user \"carl\"",
        ),
        (
            format!("{domain}{}{both}", shop("users = [\"anna\", \"ben\", \"anna\"]")),
            "line 7, column 25: the user anna stands twice here: remove one",
        ),
        (
            format!("{FRONT}{}", users(&[("anna", "services = [\"shop\"]")])),
            "line 6, column 13: the service shop has no host: add a [[service]] of this name with hosts, or domain = ",
        ),
        (
            users(&[("anna", "services = [\"shop\"]")]),
            "line 4, column 13: the service shop has no host: add a [[service]]",
        ),
        (
            format!("{FRONT}{}", users(&[("anna", "services = [\"anna-*\"]")])),
            "line 6, column 13: anna-* is for services at the domain, and there is none: write domain = ",
        ),
        (
            format!(
                "{domain}{}{}",
                service("web", "[\"shop.Apps.example\"]", "[\"/\"]"),
                users(&[("anna", "services = [\"shop\"]")])
            ),
            "line 12, column 13: the service shop would be shop.apps.example, and that is the service web in line 6: rename one",
        ),
        (
            users(&[("anna", "services = [\"Shop\"]")]),
            "line 4, column 13: the service's name \"Shop\" has capitals: write \"shop\"",
        ),
    ] {
        assert_told(&text, told);
    }
    for text in [
        format!("{domain}{}{both}", shop("users = [\"anna\", \"ben\"]")),
        format!("{FRONT}{}{}", shop(""), users(&[("anna", "services = [\"shop\", \"shop\"]"), ("ben", "")])),
        format!("{FRONT}{}{}", shop("users = [\"ben\"]"), users(&[("anna", ""), ("ben", "")])),
        // Whoever comes first has what only stars cover.
        format!("{domain}{}", users(&[("anna", "services = [\"*\"]"), ("ben", "services = [\"*\"]")])),
    ] {
        Config::parse(&text).unwrap();
    }
}

#[test]
fn numbers_are_bounded() {
    let hosts: String = (0..65).map(|number| format!("\"h{number}.example\",")).collect();
    let targets: String =
        (0..257).map(|number| format!("\"http://10.0.{}.{}\",", number / 256, number % 256)).collect();
    for (line, told) in [
        (format!("hosts = [{hosts}]"), "65 hosts are more than the 64 that may be"),
        (
            format!("paths = [{}]", (0..65).map(|number| format!("\"/{number}\",")).collect::<String>()),
            "65 paths are more",
        ),
        (format!("targets = [{targets}]"), "257 targets are more than the 256 that may be"),
    ] {
        let key = line.split_once(' ').unwrap().0;
        let others: Vec<_> = SHOP.lines().filter(|old| !old.starts_with(&format!("{key} "))).collect();
        let told_words = problem(&format!("{FRONT}{}\n{line}\n", others.join("\n")));
        assert!(told_words.contains(told), "{told_words}");
    }
    let services: String = (0..1025).map(|number| SHOP.replace("shop", &format!("s{number}"))).collect();
    let told = problem(&format!("{FRONT}{services}"));
    assert!(told.ends_with("1025 services are more than the 1024 that a server takes"), "{told}");
}

#[test]
fn files_are_looked_for_when_it_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("cert"), "nothing").unwrap();
    fs::create_dir(path("files")).unwrap();
    let text = |target: &str| {
        format!(
            "[http]\nlisten = [\"https://127.0.0.1\"]\ncertificates = [\n  {{ certificate = {:?}, key = {:?} }},\n]\n\
             [[service]]\nname = \"files\"\nhosts = [\"*\"]\ntargets = [\"http://127.0.0.1:1\", {{ to = {:?} }}]\n",
            path("cert"),
            path("key"),
            path(target)
        )
    };
    let check = |text: &str| Config::parse(text).unwrap().check_http(Path::new("server.toml"));
    let failure = check(&text("none")).unwrap_err();
    assert_eq!(failure.status, Status::Config);
    let lines: Vec<_> = failure.message.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("server.toml, line 4, column 19: the certificate "), "{lines:?}");
    assert!(lines[1].starts_with("server.toml, line 9, column 41: the target's folder "), "{lines:?}");
    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    fs::write(path("cert"), pem("CERTIFICATE", made.cert.der())).unwrap();
    let failure = check(&text("files")).unwrap_err();
    let column = 19 + format!("{:?}, key = ", path("cert")).len();
    let told =
        format!("server.toml, line 4, column {column}: the key {} cannot be read", path("key").display());
    assert!(failure.message.starts_with(&told), "{}", failure.message);
    fs::write(path("key"), pem("PRIVATE KEY", made.signing_key.serialized_der())).unwrap();
    fs::set_permissions(path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let failure = check(&text("files")).unwrap_err();
    assert!(
        failure.message.contains("can be read or written by everyone (mode 0644): chmod 600 "),
        "{}",
        failure.message
    );
    fs::set_permissions(path("key"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(check(&text("files")), Ok(()));
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = data_encoding::BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}
