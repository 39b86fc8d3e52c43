use super::*;
use crate::rules::special::embedded_range;

fn check(rules: &Rules, ip: &str, port: u16) -> Result<(), Denial> {
    rules.check(None, SocketAddr::new(ip.parse().unwrap(), port))
}

fn allow(ranges: &[&str]) -> Rules {
    Rules::allow(ranges.iter().map(|net| net.parse().unwrap()))
}

#[test]
fn public_unicast_is_allowed() {
    let rules = Rules::default();
    for ip in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2001:200::1",
        "2400:cb00::1",
        "2a00:1450::1",
        "3ffe:ffff::1",
        // Translated and 6to4 to a public address.
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
        "2002:101:101::1",
    ] {
        assert_eq!(check(&rules, ip, 443), Ok(()), "{ip}");
        assert_eq!(check(&rules, ip, 25), Err(Denial::Mail), "{ip}");
    }
}

#[test]
fn every_special_range_is_denied_at_both_of_its_ends() {
    let rules = Rules::default();
    for (range, ips) in [
        (Range::Unspecified, &["0.0.0.0", "0.255.255.255", "::"][..]),
        (Range::Loopback, &["127.0.0.0", "127.0.0.1", "127.255.255.255", "::1"]),
        (Range::Private, &["10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0"]),
        (Range::Private, &["192.168.255.255", "fc00::", "fdff:ffff::1", "fec0::1"]),
        (Range::Shared, &["100.64.0.0", "100.127.255.255"]),
        (Range::LinkLocal, &["169.254.0.0", "169.254.169.254", "169.254.255.255", "fe80::1", "febf::1"]),
        (Range::Multicast, &["224.0.0.1", "239.255.255.255", "ff00::", "ff02::1"]),
        (Range::Broadcast, &["255.255.255.255"]),
        (Range::Reserved, &["240.0.0.0", "255.255.255.254", "192.0.0.1", "192.0.0.255"]),
        (Range::Documentation, &["192.0.2.1", "198.51.100.255", "203.0.113.0", "2001:db8::1", "3fff::1"]),
        (Range::Benchmarking, &["198.18.0.0", "198.19.255.255", "2001:2::1"]),
        (Range::Translation, &["192.88.99.1", "64:ff9b:1::1", "64:ff9b:1:ffff::7f00:1", "2001::1"]),
        (
            Range::Reserved,
            &["2001:10::1", "2001:1ff:ffff::1", "100::1", "4000::1", "::7f00:1", "64:ff9b:2::1"],
        ),
        // Site prefixes, SRv6 identifiers, and whatever is not given out.
        (Range::Reserved, &["5f00::1", "1::1", "e000::1", "::1.2.3.4"]),
        // The special address inside a public-looking one.
        (Range::Loopback, &["::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1"]),
        (Range::Private, &["::ffff:10.1.2.3", "64:ff9b::192.168.1.1", "2002:a00:1::", "2002:c0a8:101::1"]),
        (Range::LinkLocal, &["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"]),
        (Range::Unspecified, &["::ffff:0.0.0.0", "64:ff9b::"]),
    ] {
        for ip in ips {
            assert_eq!(check(&rules, ip, 443), Err(Denial::Special(range)), "{ip}");
        }
    }
}

#[test]
fn the_machine_itself_is_denied_by_every_name() {
    let rules = Rules::default().with_own(["8.8.8.8".parse().unwrap(), "2a00:1450::8".parse().unwrap()]);
    for ip in ["8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2a00:1450::8"] {
        assert_eq!(check(&rules, ip, 443), Err(Denial::Own), "{ip}");
    }
    assert_eq!(check(&rules, "8.8.8.9", 443), Ok(()));
}

#[test]
fn an_allowed_range_lifts_every_denial_within_it_and_no_other() {
    let rules = allow(&["127.0.0.0/8", "10.1.0.0/16", "fd00::/8"]).with_own(["10.1.2.3".parse().unwrap()]);
    for ip in ["127.0.0.1", "::ffff:127.0.0.1", "10.1.2.3", "10.1.255.255", "64:ff9b::a01:203", "fd00::1"] {
        assert_eq!(check(&rules, ip, 443), Ok(()), "{ip}");
        assert_eq!(check(&rules, ip, 25), Ok(()), "{ip}");
    }
    for ip in ["10.2.0.0", "192.168.1.1", "::1", "fc00::1", "169.254.169.254"] {
        assert!(matches!(check(&rules, ip, 443), Err(Denial::Special(_))), "{ip}");
    }
    assert_eq!(check(&rules, "1.1.1.1", 443), Ok(()));
    assert_eq!(check(&rules, "1.1.1.1", 25), Err(Denial::Mail));
}

#[test]
fn allowing_ipv6_does_not_allow_ipv4_that_is_wrapped() {
    let rules = allow(&["::/0"]);
    assert_eq!(check(&rules, "::1", 443), Ok(()));
    for ip in ["::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::1"] {
        assert_eq!(check(&rules, ip, 443), Err(Denial::Special(Range::Loopback)), "{ip}");
    }
    assert_eq!(check(&allow(&["2000::/3"]), "2002:a00:1::1", 443), Err(Denial::Special(Range::Private)));
    assert_eq!(check(&allow(&["2002::/16"]), "2002:a00:1::1", 443), Ok(()), "these are what was named");
}

#[test]
fn a_range_of_translated_addresses_can_be_named_itself() {
    let rules = allow(&["64:ff9b::/96"]);
    assert_eq!(check(&rules, "64:ff9b::a00:1", 443), Ok(()));
    assert_eq!(check(&rules, "10.0.0.1", 443), Err(Denial::Special(Range::Private)));
}

#[test]
fn a_range_is_read_as_people_write_it() {
    for (words, range) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3/8", "10.0.0.0/8"),
        ("127.0.0.1", "127.0.0.1/32"),
        ("::1", "::1/128"),
        ("fd00::/8", "fd00::/8"),
        // Another way to write addresses of IPv4.
        ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
        ("::ffff:127.0.0.1", "127.0.0.1/32"),
        ("::/0", "::/0"),
    ] {
        assert_eq!(parse_range(words).unwrap().to_string(), range);
    }
    for words in ["", "10.0.0.0/33", "10/8", "example.com", "1.2.3.4:5"] {
        assert!(parse_range(words).is_err(), "{words}");
    }
}

/// A rule as `allow 10.0.0.0/8 22,80`.
fn rule(words: &str) -> Rule {
    let mut words = words.split(' ');
    let verdict = match words.next() {
        Some("allow") => Verdict::Allow,
        Some("deny") => Verdict::Deny,
        other => panic!("{other:?} is no verdict"),
    };
    let subject = words.next().unwrap().parse().unwrap();
    Rule { verdict, subject, ports: words.next().map_or_else(Ports::default, |ports| ports.parse().unwrap()) }
}

fn of_user(all: &Rules, rules: &[&str]) -> Rules {
    all.of_user(rules.iter().map(|words| rule(words)).collect::<Vec<_>>())
}

/// `name/address`, or an address alone.
fn ask(rules: &Rules, asked: &str) -> Result<(), Denial> {
    let (name, addr) = match asked.split_once('/') {
        Some((name, addr)) => (Some(name), addr),
        None => (None, asked),
    };
    rules.check(name, addr.parse().unwrap())
}

const LOOPBACK: Result<(), Denial> = Err(Denial::Special(Range::Loopback));
const PRIVATE: Result<(), Denial> = Err(Denial::Special(Range::Private));

const fn by(rule: usize) -> Result<(), Denial> {
    Err(Denial::Rule(rule))
}

#[test]
fn the_first_rule_of_a_user_that_matches_decides() {
    for (rules, asked, verdict) in [
        // No rule matches: the default decides.
        (&["deny 192.0.2.0/24"][..], "1.1.1.1:443", Ok(())),
        (&["deny 192.0.2.0/24"], "127.0.0.1:443", LOOPBACK),
        (&["allow 10.1.0.0/16"], "10.2.0.1:80", PRIVATE),
        // The order counts.
        (&["deny 1.1.1.1", "allow 1.1.1.0/24"], "1.1.1.1:443", by(1)),
        (&["deny 1.1.1.1", "allow 1.1.1.0/24"], "1.1.1.2:443", Ok(())),
        (&["allow 10.0.0.0/8", "deny *"], "10.0.0.1:1", Ok(())),
        (&["allow 10.0.0.0/8", "deny *"], "1.1.1.1:443", by(2)),
        (&["deny *"], "1.1.1.1:443", by(1)),
        // Ports.
        (&["allow 10.1.0.0/16 22,80-89"], "10.1.0.1:22", Ok(())),
        (&["allow 10.1.0.0/16 22,80-89"], "10.1.0.1:85", Ok(())),
        (&["allow 10.1.0.0/16 22,80-89"], "10.1.0.1:90", PRIVATE),
        (&["deny 0.0.0.0/0 25,53"], "1.1.1.1:53", by(1)),
        (&["deny 0.0.0.0/0 25,53"], "1.1.1.1:443", Ok(())),
        (&["allow * 443", "deny *"], "1.1.1.1:443", Ok(())),
        (&["allow * 443", "deny *"], "1.1.1.1:80", by(2)),
        // An allowed range lifts whatever the default has against it.
        (&["allow 127.0.0.0/8"], "127.0.0.1:25", Ok(())),
        (&["allow 1.1.1.1 25"], "1.1.1.1:25", Ok(())),
        (&["allow 1.1.1.1 443"], "1.1.1.1:25", Err(Denial::Mail)),
        (&["allow 8.8.8.8"], "8.8.8.8:443", Ok(())),
        (&["allow 169.254.0.0/16"], "169.254.169.254:80", Ok(())),
        // A name, or everything, lifts nothing.
        (&["allow corp.example"], "corp.example/127.0.0.1:80", LOOPBACK),
        (&["allow corp.example"], "corp.example/8.8.8.8:80", Err(Denial::Own)),
        (&["allow corp.example"], "corp.example/1.1.1.1:25", Err(Denial::Mail)),
        (&["allow *"], "127.0.0.1:80", LOOPBACK),
        (&["allow *"], "1.1.1.1:25", Err(Denial::Mail)),
        (&["allow *"], "1.1.1.1:443", Ok(())),
        // It decides all the same: what is behind it is not asked.
        (&["allow corp.example", "allow 10.0.0.0/8"], "corp.example/10.0.0.1:80", PRIVATE),
        (&["allow corp.example", "allow 10.0.0.0/8"], "10.0.0.1:80", Ok(())),
        // In front of a deny it says which names may be reached.
        (&["allow corp.example", "deny *"], "corp.example/1.1.1.1:80", Ok(())),
        (&["allow corp.example", "deny *"], "www.Corp.Example./1.1.1.1:80", Ok(())),
        (&["allow corp.example", "deny *"], "mycorp.example/1.1.1.1:80", by(2)),
        (&["allow corp.example", "deny *"], "1.1.1.1:80", by(2)),
        (&["allow .corp.example", "deny *"], "corp.example/1.1.1.1:80", by(2)),
        // A denied name keeps out whoever uses it.
        (&["deny corp.example"], "www.CORP.example/1.1.1.1:80", by(1)),
        (&["deny corp.example."], "corp.example./1.1.1.1:80", by(1)),
        (&["deny corp.example"], "corp.example.evil/1.1.1.1:80", Ok(())),
        (&["deny corp.example"], "1.1.1.1:80", Ok(())),
        (&["deny corp.example 22"], "corp.example/1.1.1.1:80", Ok(())),
        (&["deny corp.example", "allow 10.0.0.0/8"], "corp.example/10.0.0.1:80", by(1)),
        (&["allow 10.0.0.0/8", "deny corp.example"], "corp.example/10.0.0.1:80", Ok(())),
        // A denied range catches the names that lead there, and whatever wraps it.
        (&["deny 1.1.1.0/24"], "x.example/1.1.1.1:80", by(1)),
        (&["deny 1.1.1.0/24"], "x.example/[::ffff:1.1.1.1]:80", by(1)),
        (&["deny 1.1.1.0/24"], "[64:ff9b::101:101]:80", by(1)),
        (&["deny 1.1.1.0/24"], "[2002:101:101::5]:80", by(1)),
        (&["deny 64:ff9b::/96"], "[64:ff9b::101:101]:80", by(1)),
        (&["deny ::ffff:1.1.1.1"], "1.1.1.1:80", by(1)),
        (&["deny ::/0"], "[2606:4700::1111]:80", by(1)),
        (&["deny ::/0"], "[::ffff:1.1.1.1]:80", Ok(())),
        // Names of loopback, in each of its forms.
        (&["allow x.example"], "x.example/127.0.0.1:80", LOOPBACK),
        (&["allow x.example"], "x.example/[::ffff:127.0.0.1]:80", LOOPBACK),
        (&["allow x.example"], "x.example/[64:ff9b::7f00:1]:80", LOOPBACK),
        (&["allow 127.0.0.1"], "x.example/127.0.0.1:80", Ok(())),
        (&["allow 127.0.0.1"], "x.example/[::ffff:127.0.0.1]:80", Ok(())),
        (&["allow 127.0.0.1"], "x.example/[64:ff9b::7f00:1]:80", Ok(())),
        (&["deny 127.0.0.0/8"], "x.example/[::ffff:127.0.0.1]:80", by(1)),
        (&["deny 127.0.0.0/8"], "x.example/[64:ff9b::7f00:1]:80", by(1)),
        // Who allows all of IPv6 does not mean the IPv4 that some of it wraps; and yet that is no other rule's.
        (&["allow ::/0", "deny *"], "[64:ff9b::7f00:1]:80", LOOPBACK),
        (&["allow ::/0", "deny *"], "[64:ff9b::101:101]:80", Ok(())),
        (&["allow ::/0", "deny *"], "1.1.1.1:80", by(2)),
    ] {
        let all = Rules::default().with_own(["8.8.8.8".parse().unwrap()]);
        assert_eq!(ask(&of_user(&all, rules), asked), verdict, "{rules:?} asked for {asked}");
    }
}

#[test]
fn what_is_allowed_to_all_holds_where_no_rule_of_the_user_denies_it() {
    let all = allow(&["127.0.0.0/8", "10.0.0.0/8"]);
    for (rules, asked, verdict) in [
        (&[][..], "127.0.0.1:80", Ok(())),
        (&["deny 1.1.1.1"], "127.0.0.1:80", Ok(())),
        (&["deny 127.0.0.2"], "127.0.0.2:80", by(1)),
        (&["deny 127.0.0.0/8 22"], "127.0.0.1:22", by(1)),
        (&["deny 127.0.0.0/8 22"], "127.0.0.1:80", Ok(())),
        (&["deny *"], "10.0.0.1:80", by(1)),
        (&["deny x.example"], "x.example/10.0.0.1:80", by(1)),
        // The default with what is allowed to all decides on a name.
        (&["allow x.example", "deny *"], "x.example/10.0.0.1:80", Ok(())),
        (&["allow x.example", "deny *"], "x.example/192.168.0.1:80", PRIVATE),
        (&["allow *"], "10.0.0.1:25", Ok(())),
    ] {
        assert_eq!(ask(&of_user(&all, rules), asked), verdict, "{rules:?} asked for {asked}");
    }
}

#[test]
fn nothing_may_be_dialled_by_no_rules() {
    for asked in ["1.1.1.1:443", "x.example/1.1.1.1:443", "[2606:4700::1111]:443", "127.0.0.1:1"] {
        assert_eq!(ask(&Rules::none(), asked), by(1), "{asked}");
    }
}

#[test]
fn a_rule_covers_what_can_never_match_behind_it() {
    for (first, second, covered) in [
        ("allow *", "deny 1.1.1.1", true),
        ("deny *", "allow x.example 22", true),
        ("deny * 1-1024", "allow x.example 22", true),
        ("deny * 1-1024", "allow x.example 22,8080", false),
        ("deny * 1-65535", "allow *", true),
        ("deny 10.0.0.0/8", "allow 10.1.0.0/16", true),
        ("deny 10.0.0.0/8", "deny 10.0.0.0/8", true),
        ("deny 10.0.0.0/8 22", "allow 10.1.0.0/16", false),
        ("deny 10.0.0.0/8", "allow 10.1.0.0/16 22", true),
        ("deny 10.1.0.0/16", "allow 10.0.0.0/8", false),
        ("deny 10.0.0.0/8", "allow *", false),
        ("deny 0.0.0.0/0", "allow ::/0", false),
        ("deny ::/0", "allow 10.0.0.0/8", false),
        ("deny ::/0", "allow fd00::/8", true),
        // The addresses that wrap those of a range are caught with it.
        ("deny 10.0.0.0/8", "allow 64:ff9b::a00:0/104", true),
        ("deny 10.0.0.0/8", "allow 2002:a01::/32", true),
        ("deny 10.0.0.0/8", "allow 64:ff9b::/96", false),
        ("deny 10.0.0.0/8", "allow ::ffff:10.0.0.1", true),
        ("deny 0.0.0.0/0", "allow 2002::/16", true),
        ("deny 0.0.0.0/0", "allow x.example", false),
        ("deny x.example", "allow 0.0.0.0/0", false),
        ("deny x.example", "allow www.x.example", true),
        ("deny .x.example", "allow x.example", false),
    ] {
        assert_eq!(rule(first).covers(&rule(second)), covered, "{first}, {second}");
    }
}

#[test]
fn what_a_rule_speaks_of_is_told_apart() {
    for (words, shown) in [
        ("allow *", "{ allow = \"*\" }"),
        ("deny 10.1.2.3/8 80-89,22", "{ deny = \"10.0.0.0/8\", ports = \"22,80-89\" }"),
        ("deny ::1", "{ deny = \"::1/128\" }"),
        ("allow .Corp.example. 1-65535", "{ allow = \".corp.example\" }"),
        ("allow localhost", "{ allow = \"localhost\" }"),
    ] {
        assert_eq!(rule(words).to_string(), shown);
    }
    for words in ["10.0.0.0/33", "10.0.0.256", "10/8", "1.2.3.4:5", "example.com/24", "127.1", "10.0.0.1."] {
        let error = words.parse::<Subject>().unwrap_err();
        assert!(matches!(error, SubjectError::Range(_)), "{words}: {error}");
    }
    for words in ["", "*.example.com", "a b", "exa mple.com", "**"] {
        let error = words.parse::<Subject>().unwrap_err();
        assert!(matches!(error, SubjectError::Name(_)), "{words}: {error}");
    }
}

#[test]
fn ranges_of_wrappers_are_known() {
    for (range, inner) in [
        ("64:ff9b::/96", Some("0.0.0.0/0")),
        ("64:ff9b::a00:0/104", Some("10.0.0.0/8")),
        ("64:ff9b::a00:1", Some("10.0.0.1/32")),
        ("2002::/16", Some("0.0.0.0/0")),
        ("2002:a00::/24", Some("10.0.0.0/8")),
        ("2002:a00:1::/48", Some("10.0.0.1/32")),
        ("2002:a00:1:5::/64", Some("10.0.0.1/32")),
        ("::/0", None),
        ("64:ff9b::/64", None),
        ("2001:db8::/32", None),
        ("10.0.0.0/8", None),
    ] {
        let found = embedded_range(&parse_range(range).unwrap());
        assert_eq!(found.map(|net| net.to_string()).as_deref(), inner, "{range}");
    }
}
