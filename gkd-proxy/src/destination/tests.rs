use std::net::Ipv4Addr;

use super::*;

fn tcp(words: &str) -> Destination {
    Destination::Tcp(words.parse().unwrap())
}

#[test]
fn every_form_comes_back_and_no_cut_does() {
    let long = format!("{}:65535", "n".repeat(MAX_NAME));
    for words in ["192.0.2.1:80", "[2001:db8::1]:443", "example.com:1", "bücher.example:8080", &long] {
        let destination = tcp(words);
        let bytes = destination.encode();
        assert!(bytes.len() <= MAX_DESTINATION);
        assert_eq!(Destination::decode(&bytes), Ok(destination.clone()));
        assert_eq!(destination.to_string(), words);
        for cut in 0..bytes.len() {
            assert!(Destination::decode(&bytes[..cut]).is_err(), "{words} cut at {cut}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Destination::decode(&longer), Err(DestinationError::Malformed));
    }
}

#[test]
fn the_bytes_are_those_of_the_table() {
    assert_eq!(&tcp("1.2.3.4:258").encode()[..], [1, 1, 1, 2, 3, 4, 1, 2]);
    assert_eq!(&tcp("ab:1").encode()[..], [1, 3, 2, b'a', b'b', 0, 1]);
    for (destination, bytes) in [
        (Destination::Udp("1.2.3.4:258".parse().unwrap()), &[2, 1, 1, 2, 3, 4, 1, 2][..]),
        (Destination::UdpAny, &[2, 0]),
        (Destination::Unix(UnixPath::new("/a").unwrap()), &[5, b'/', b'a']),
        (Destination::Registered(Registered { listener: ListenerId(258), index: 3 }), &[3, 0, 0, 1, 2, 0, 3]),
        (Destination::Control(Control::Measure), &[4, 1]),
        (listen(None, "9000-9001", false, true), &[4, 2, 0, 0, 0, 7, 1, 2, 0, 0x23, 0x28, 0x23, 0x29]),
        (
            listen(Some([1, 2, 3, 4].into()), "0", true, false),
            &[4, 2, 0, 0, 0, 7, 1, 1, 1, 1, 2, 3, 4, 0, 0, 0, 0],
        ),
        (
            announce("a", Protocol::Http1, false),
            &[4, 3, 0, 0, 0, 7, 1, 0, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8, b'a'],
        ),
        (announce("b", Protocol::H2c, true), &[4, 3, 0, 0, 0, 7, 2, 1, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8, b'b']),
    ] {
        assert_eq!(&destination.encode()[..], bytes);
        assert_eq!(Destination::decode(bytes), Ok(destination));
        // A path ends where the bytes do.
        let least = if bytes[0] == 5 { 2 } else { bytes.len() };
        for cut in 0..least {
            assert!(Destination::decode(&bytes[..cut]).is_err(), "{bytes:?} cut at {cut}");
        }
        assert!(Destination::decode(&[bytes, &[0]].concat()).is_err());
    }
}

#[test]
fn a_path_is_absolute_and_short() {
    assert!(UnixPath::new(&format!("/{}", "a".repeat(MAX_PATH - 1))).is_ok());
    for path in ["", "a", "./a", "/a\0", "/a\n", &format!("/{}", "a".repeat(MAX_PATH))] {
        assert!(matches!(UnixPath::new(path), Err(DestinationError::Path(_))), "{path:?}");
    }
}

fn announce(service: &str, protocol: Protocol, polite: bool) -> Destination {
    Destination::Control(Control::Announce(Box::new(AnnounceRequest {
        listener: ListenerId(7),
        service: service.parse().unwrap(),
        protocol,
        weight: 258,
        instance: 0x0102_0304_0506_0708,
        polite,
    })))
}

#[test]
fn the_longest_name_of_a_service_comes_back() {
    let long = announce(&"x".repeat(63), Protocol::Http1, false);
    assert_eq!(Destination::decode(&long.encode()), Ok(long.clone()));
    let longer = [&long.encode()[..], b"x"].concat();
    assert_eq!(Destination::decode(&longer), Err(DestinationError::Malformed));
}

fn listen(bind: Option<IpAddr>, ports: &str, proxy_header: bool, polite: bool) -> Destination {
    let (listener, ports) = (ListenerId(7), ports.parse().unwrap());
    let transport = Transport::Tcp;
    let request = ListenRequest { listener, transport, bind, ports, proxy_header, polite };
    Destination::Control(Control::Listen(request))
}

#[test]
fn a_datagrams_target_comes_back() {
    for words in ["192.0.2.1:80", "[2001:db8::1]:443", "example.com:53"] {
        let target: Target = words.parse().unwrap();
        let bytes = target.to_bytes();
        assert_eq!(Target::from_bytes(&bytes), Ok(target));
        assert!(Target::from_bytes(&[&bytes[..], &[0]].concat()).is_err());
        assert!(Target::from_bytes(&bytes[1..]).is_err());
    }
    assert_eq!(Target::from_bytes(&[0]), Err(DestinationError::UnknownHost(0)));
}

#[test]
fn what_is_not_a_destination_is_refused() {
    for (bytes, error) in [
        (&[9, 1, 1, 2, 3, 4, 1, 2][..], DestinationError::UnknownKind(9)),
        (&[1, 0], DestinationError::UnknownHost(0)),
        (&[4, 9], DestinationError::UnknownControl(9)),
        // A listener of no transport, of a flag that there is not, of ports that run backwards.
        (&[4, 2, 0, 0, 0, 7, 3, 0, 0, 0, 1, 0, 1], DestinationError::Malformed),
        (&[4, 2, 0, 0, 0, 7, 1, 4, 0, 0, 1, 0, 1], DestinationError::Malformed),
        (&[4, 2, 0, 0, 0, 7, 1, 0, 0, 0, 2, 0, 1], DestinationError::Malformed),
        // A service that speaks something else, of a bit that there is not, of no weight, of too much, of no such name.
        (&[4, 3, 0, 0, 0, 7, 3, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, b'a'], DestinationError::Malformed),
        (&[4, 3, 0, 0, 0, 7, 1, 2, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, b'a'], DestinationError::Malformed),
        (&[4, 3, 0, 0, 0, 7, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, b'a'], DestinationError::Malformed),
        (&[4, 3, 0, 0, 0, 7, 1, 0, 3, 233, 1, 2, 3, 4, 5, 6, 7, 8, b'a'], DestinationError::Malformed),
        (&[4, 3, 0, 0, 0, 7, 1, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, b'A'], DestinationError::Malformed),
        (&[4], DestinationError::Malformed),
        (&[4, 1, 0], DestinationError::Malformed),
        (&[1, 9, 1, 2, 3, 4, 1, 2], DestinationError::UnknownHost(9)),
        (&[1, 1, 1, 2, 3, 4, 0, 0], DestinationError::PortZero),
        (&[1, 3, 0, 0, 1], DestinationError::EmptyName),
        (&[1, 3, 1, 0xff, 0, 1], DestinationError::Malformed),
        (&[1, 3, 1, b'\n', 0, 1], DestinationError::NameCharacter("\n".into(), '\n')),
    ] {
        assert_eq!(Destination::decode(bytes), Err(error), "{bytes:?}");
    }
    let mut long = vec![1, 3, 254];
    long.extend([b'n'; 254]);
    long.extend([0, 1]);
    assert_eq!(Destination::decode(&long), Err(DestinationError::LongName(254)));
}

#[test]
fn words_that_are_not_host_and_port_are_refused() {
    for words in ["", ":", "host", "host:", "host:x", "host:+1", "host:65536", "::1:80", "[::1:80", "[x]:80"]
    {
        assert!(words.parse::<Target>().is_err(), "{words}");
    }
    for words in ["host:0", "a b:1", "a\u{1b}[31m:1", "a\u{a0}:1", ":80"] {
        assert!(words.parse::<Target>().is_err(), "{words:?}");
    }
}

#[test]
fn addresses_are_known_as_such() {
    assert_eq!(Host::parse("127.0.0.1"), Ok(Host::Ip(Ipv4Addr::LOCALHOST.into())));
    assert_eq!(Host::parse("::1"), Ok(Host::Ip(Ipv6Addr::LOCALHOST.into())));
    assert_eq!(Host::parse("[::1]"), Ok(Host::Ip(Ipv6Addr::LOCALHOST.into())));
}

#[test]
fn what_is_shown_is_escaped() {
    // A right-to-left override is no control character, and yet has no business in a log.
    let name = Name::new("a\u{202e}b").unwrap();
    assert_eq!(name.to_string(), "a\\u{202e}b");
    let error = Name::new("a\u{1b}[31m").unwrap_err();
    assert!(!error.to_string().contains('\u{1b}'));
}
