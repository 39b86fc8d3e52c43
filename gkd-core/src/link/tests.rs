use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

const VECTORS: &str = include_str!("../../testdata/links.txt");

fn vectors(kind: &str) -> Vec<Vec<&'static str>> {
    let lines = VECTORS.lines().filter(|line| !line.starts_with('#'));
    let fields = lines.map(|line| line.split('\t').collect::<Vec<_>>());
    fields.filter(|fields| fields[0] == kind).map(|fields| fields[1..].to_vec()).collect()
}

/// The secret of `link` in every form that a message might show by mistake.
fn assert_hides_the_secret(message: &str, text: &str) {
    for piece in text.as_bytes().windows(30) {
        let piece = std::str::from_utf8(piece).unwrap_or("\0");
        assert!(!message.contains(piece), "{message:?} shows {piece:?}");
    }
}

#[test]
fn good_links_mean_what_the_vectors_say() {
    let vectors = vectors("ok");
    assert!(vectors.len() >= 10);
    for fields in vectors {
        let [text, scheme, server, seed, addresses, path, written] = fields[..] else { panic!("{fields:?}") };
        let link: Link = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(link.carrier.scheme(), scheme, "{text}");
        assert_eq!(link.server.to_string(), server, "{text}");
        assert_eq!(HEXLOWER.encode(link.user.seed()), seed, "{text}");
        let shown: Vec<_> = link.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(shown.join(","), addresses, "{text}");
        assert_eq!(link.path, path, "{text}");
        assert_eq!(link.to_string(), written);
        assert_eq!(format!("  {text}\r\n").parse::<Link>(), Ok(link));
    }
}

#[test]
fn bad_links_are_errors_that_say_what_is_wrong_and_nothing_secret() {
    let vectors = vectors("bad");
    assert!(vectors.len() >= 40);
    for fields in vectors {
        let text = fields[0];
        let error = text.parse::<Link>().expect_err(text).to_string();
        for says in &fields[1..] {
            assert!(error.contains(says), "{text}\nsays {error:?}\nnot  {says:?}");
        }
        assert_eq!(error.lines().count(), 1);
        let key = text.split_once("://").map_or(text, |(_, rest)| rest);
        if key.len() > 30 {
            assert_hides_the_secret(&error, key);
        }
    }
}

fn good() -> &'static str {
    vectors("ok")[0][0]
}

#[test]
fn every_link_cut_short_is_an_error_until_a_port_is_there() {
    let good = good();
    let whole = good.len() - "9990".len();
    for cut in 0..=whole {
        let error = good[..cut].parse::<Link>().expect_err(&good[..cut]).to_string();
        if cut > 40 {
            assert_hides_the_secret(&error, &good[6..cut]);
        }
    }
    assert!(good[..=whole].parse::<Link>().is_ok());
}

#[test]
fn every_change_of_one_character_of_the_key_is_an_error() {
    let good = good();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=@ .:ü";
    for place in 6..6 + KEY_CHARACTERS {
        for character in alphabet.chars().filter(|c| !good[place..].starts_with(*c)) {
            let changed = format!("{}{character}{}", &good[..place], &good[place + 1..]);
            let error = changed.parse::<Link>().expect_err(&changed).to_string();
            assert_hides_the_secret(&error, &good[6..6 + KEY_CHARACTERS]);
        }
    }
}

#[test]
fn every_character_of_the_key_left_out_doubled_or_swapped_is_an_error() {
    let good = good();
    for place in 6..6 + KEY_CHARACTERS {
        let without = format!("{}{}", &good[..place], &good[place + 1..]);
        let doubled = format!("{}{}", &good[..=place], &good[place..]);
        assert!(without.parse::<Link>().is_err() && doubled.parse::<Link>().is_err(), "place {place}");
        let mut swapped = good.as_bytes().to_vec();
        swapped.swap(place, place - 1);
        if swapped != good.as_bytes() {
            assert!(String::from_utf8(swapped).unwrap().parse::<Link>().is_err(), "place {place}");
        }
    }
}

#[test]
fn debug_and_the_redacted_form_hide_the_secret_and_show_the_rest() {
    let link: Link = good().parse().unwrap();
    for shown in [format!("{link:?}"), link.redacted().to_string()] {
        assert!(shown.contains("gkd://...@server.example:9990"), "{shown}");
        assert!(!shown.contains(&good()[10..30]), "{shown}");
        assert!(!shown.contains("000102"), "{shown}");
    }
}

#[test]
fn a_link_has_bounds() {
    let good = good();
    let many = format!("{good}{}", ",h:1".repeat(MAX_ADDRESSES - 1));
    assert_eq!(many.parse::<Link>().unwrap().addresses.len(), MAX_ADDRESSES);
    assert_eq!(format!("{many},h:1").parse::<Link>(), Err(LinkError::TooManyAddresses(MAX_ADDRESSES + 1)));
    assert_eq!(format!("{good}/{}", "a".repeat(1024)).parse::<Link>(), Err(LinkError::PathTooLong(1025)));
    let long = format!("{good}{}", ",h:1".repeat(MAX_LINK));
    assert_eq!(long.parse::<Link>(), Err(LinkError::TooLong(long.len())));
}

#[test]
fn a_range_of_ports_is_walked_whole_and_anew() {
    let range = PortRange::new(65_533, 65_535).unwrap();
    assert_eq!(range.iter().collect::<Vec<_>>(), [65_533, 65_534, 65_535]);
    assert_eq!((0..5).map(|i| range.cycle(i)).collect::<Vec<_>>(), [65_533, 65_534, 65_535, 65_533, 65_534]);
    let all = PortRange::new(1, 65_535).unwrap();
    assert_eq!((all.count(), all.iter().len(), all.cycle(65_535)), (65_535, 65_535, 1));
    assert_eq!(PortRange::new(0, 1), None);
    assert_eq!(PortRange::new(2, 1), None);
}

fn addresses() -> impl Strategy<Value = Vec<Address>> {
    let host = prop_oneof![
        any::<[u8; 4]>().prop_map(|ip| Host::Ip(ip.into())),
        any::<[u8; 16]>().prop_map(|ip| Host::Ip(ip.into())),
        "[a-z][a-z0-9-]{0,20}(\\.[a-z_]{1,9}){0,3}".prop_map(Host::Name),
    ];
    let ports = (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap());
    let address = (host, ports).prop_map(|(host, ports)| Address { host, ports });
    prop::collection::vec(address, 1..MAX_ADDRESSES)
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        server: [u8; 32],
        seed: [u8; 32],
        addresses in addresses(),
        carrier in prop::sample::select(vec![
            CarrierKind::Tls, CarrierKind::Plain, CarrierKind::Ws, CarrierKind::Wss
        ]),
        path in "(/[a-z0-9~%.-]{0,9}){0,4}",
        port in prop::option::of(1..=u16::MAX),
        named: bool,
        pin: Option<[u8; 32]>,
    ) {
        let user = SecretKey::from_seed(seed);
        let is_web = matches!(carrier, CarrierKind::Ws | CarrierKind::Wss);
        let host = (is_web && named).then(|| WebHost { host: addresses[0].host.clone(), port });
        let pin = pin.filter(|_| carrier == CarrierKind::Wss).map(Pin);
        let link = Link { carrier, path, host, pin, ..Link::new(PeerId(server), user, addresses) };
        let read: Link = link.to_string().parse().unwrap();
        prop_assert_eq!(read.user.seed(), &seed);
        prop_assert_eq!(read, link);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(gkd(\\+ws)?://)?[ -~ü]{0,40}@?[0-9a-z:,/?\\[\\]-]{0,30}") {
        let _ = text.parse::<Link>();
        let _ = text.parse::<Address>();
    }
}
