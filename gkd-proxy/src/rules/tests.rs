use super::*;

fn check(rules: &Rules, ip: &str, port: u16) -> Result<(), Denial> {
    rules.check(SocketAddr::new(ip.parse().unwrap(), port))
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
fn an_interface_address_that_is_public_is_denied() {
    // Which addresses this machine has is not known: take an address from the table as if it were public.
    let own = OwnAddresses::default();
    let addresses = own.interfaces().unwrap();
    for ip in addresses.iter() {
        assert!(own.have(*ip).unwrap(), "{ip}");
    }
    assert!(!own.have("1.1.1.1".parse().unwrap()).unwrap());
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
fn allowing_ipv6_does_not_allow_ipv4_that_is_mapped() {
    let rules = allow(&["::/0"]);
    assert_eq!(check(&rules, "::1", 443), Ok(()));
    assert_eq!(check(&rules, "::ffff:127.0.0.1", 443), Err(Denial::Special(Range::Loopback)));
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
    ] {
        assert_eq!(parse_range(words).unwrap().to_string(), range);
    }
    for words in ["", "10.0.0.0/33", "10/8", "example.com", "1.2.3.4:5"] {
        assert!(parse_range(words).is_err(), "{words}");
    }
}
