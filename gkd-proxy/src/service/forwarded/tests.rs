use super::*;

fn visit(client: &str, peer: &str) -> Visit {
    Visit {
        client: client.parse().unwrap(),
        peer: peer.parse().unwrap(),
        local: "192.0.2.1:443".parse().unwrap(),
        tls: true,
        id: "id-1".into(),
    }
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    headers
}

/// The headers that a target gets, in the order of their names.
fn told(lines: &[(&str, &str)], visit: &Visit, trusted: &[&str]) -> Vec<String> {
    let mut headers = headers(lines);
    let trusted: Vec<IpNet> = trusted.iter().map(|net| net.parse().unwrap()).collect();
    let origin = Origin::of(&headers, visit, &trusted);
    origin.tell(&mut headers, visit, Some(&HeaderValue::from_static("shop.example:8443")));
    let line = |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut lines: Vec<_> = headers.iter().map(line).collect();
    lines.sort();
    lines
}

const CLAIMS: [(&str, &str); 16] = [
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-for", "198.51.100.1, 10.0.0.9"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-host", "outer.example"),
    ("x-forwarded-port", "80"),
    ("x-forwarded-prefix", "/app"),
    ("forwarded", "for=203.0.113.7"),
    ("forwarded", "for=198.51.100.1"),
    ("x-real-ip", "203.0.113.7"),
    ("x-request-id", "theirs"),
    ("x_request-id", "forged"),
    ("proxy", "http://forged"),
    ("x_forwarded_for", "203.0.113.7"),
    ("x-forwarded_host", "forged"),
    ("x_real-ip", "203.0.113.7"),
    ("accept", "*/*"),
];

#[test]
fn what_a_stranger_claims_is_replaced() {
    let visit = visit("198.51.100.77:1234", "198.51.100.77:1234");
    for trusted in [&[][..], &["10.0.0.0/8"]] {
        assert_eq!(
            told(&CLAIMS, &visit, trusted),
            [
                "accept: */*",
                "forwarded: for=198.51.100.77;host=\"shop.example:8443\";proto=https",
                "x-forwarded-for: 198.51.100.77",
                "x-forwarded-host: shop.example:8443",
                "x-forwarded-port: 443",
                "x-forwarded-proto: https",
                "x-real-ip: 198.51.100.77",
                "x-request-id: id-1",
            ]
        );
    }
}

#[test]
fn what_a_proxy_of_ours_says_is_added_to() {
    let visit = visit("10.0.0.1:1234", "10.0.0.1:1234");
    assert_eq!(
        told(&CLAIMS, &visit, &["10.0.0.0/8"]),
        [
            "accept: */*",
            "forwarded: for=203.0.113.7, for=198.51.100.1, for=10.0.0.1;host=\"shop.example:8443\";proto=http",
            "x-forwarded-for: 203.0.113.7, 198.51.100.1, 10.0.0.9, 10.0.0.1",
            "x-forwarded-host: outer.example",
            "x-forwarded-port: 80",
            "x-forwarded-prefix: /app",
            "x-forwarded-proto: http",
            // The first one from our side that is no proxy of ours; who stands in front of it may be forged.
            "x-real-ip: 198.51.100.1",
            "x-request-id: id-1",
        ]
    );
}

#[test]
fn the_client_is_the_first_one_that_is_no_proxy_of_ours() {
    for (list, client) in [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:4711", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, 10.1.1.1", "203.0.113.7"),
        ("forged, 203.0.113.7", "203.0.113.7"),
        ("203.0.113.7, unknown", "10.0.0.1"),
        ("203.0.113.7, unknown, 10.0.0.5", "10.0.0.5"),
        ("", "10.0.0.1"),
        ("10.0.0.8, 10.0.0.7", "10.0.0.8"),
    ] {
        let visit = visit("10.0.0.1:1", "10.0.0.1:1");
        let origin =
            Origin::of(&headers(&[("x-forwarded-for", list)]), &visit, &["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(origin.address.to_string(), client, "{list}");
    }
}

/// A trusted proxy that sends a PROXY header names the client by it, and passes on what the client claims.
#[test]
fn a_client_that_a_proxy_header_names_is_the_client() {
    let visit = visit("203.0.113.50:1", "10.0.0.1:1");
    let origin =
        Origin::of(&headers(&[("x-forwarded-for", "192.0.2.66")]), &visit, &["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(origin.address.to_string(), "203.0.113.50");
}

#[test]
fn a_mapped_address_is_its_ipv4_one() {
    let visit = visit("[::ffff:10.0.0.1]:1", "[::ffff:10.0.0.1]:1");
    let lines = told(&[("x-forwarded-for", "203.0.113.7")], &visit, &["10.0.0.0/8"]);
    assert!(lines.contains(&"x-forwarded-for: 203.0.113.7, 10.0.0.1".to_owned()), "{lines:?}");
}

#[test]
fn an_ipv6_client_stands_in_quotes() {
    let visit = visit("[2001:db8::1]:1", "[2001:db8::1]:1");
    let lines = told(&[], &visit, &[]);
    assert_eq!(lines[0], "forwarded: for=\"[2001:db8::1]\";host=\"shop.example:8443\";proto=https");
    assert!(lines.contains(&"x-forwarded-for: 2001:db8::1".to_owned()));
}

#[test]
fn a_host_that_would_end_its_quotes_is_left_out() {
    let (mut headers, visit) = (HeaderMap::new(), visit("192.0.2.9:1", "192.0.2.9:1"));
    let origin = Origin::of(&headers, &visit, &[]);
    origin.tell(&mut headers, &visit, Some(&HeaderValue::from_static("a\";for=\"b")));
    assert_eq!(headers[header::FORWARDED], "for=192.0.2.9;proto=https");
}
