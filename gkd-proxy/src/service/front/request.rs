//! Whom a request asks for, judged and brought into one form whatever the version ([`judge`]): a path as URI and one `Host`.

use std::net::Ipv6Addr;

use hyper::ext::Protocol;
use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, StatusCode, Uri, Version};

/// The longest host with its port: a name has at most 253 characters, a port six with its colon.
const MAX_HOST: usize = 260;

/// Why a request is not answered by a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) status: StatusCode,
    /// A sentence for the one who asks.
    pub(super) words: &'static str,
}

impl Fault {
    const fn bad(words: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, words }
    }
}

/// Judges whom a request asks for, and brings it into form. `tls` tells the port that goes without saying; `protocols` whether
/// a CONNECT of HTTP/2 may name one.
pub(super) fn judge(parts: &mut Parts, tls: bool, protocols: bool) -> Result<(), Fault> {
    if parts.method == Method::CONNECT && !(protocols && parts.extensions.get::<Protocol>().is_some()) {
        let words = "CONNECT is not for this server.";
        return Err(Fault { status: StatusCode::METHOD_NOT_ALLOWED, words });
    }
    // HTTP/1.1 has no such values: what is around one there is none of it.
    if parts.version == Version::HTTP_2 && !parts.headers.values().all(is_trimmed) {
        return Err(Fault::bad("A header's value begins or ends with a space."));
    }
    let host = host(parts, tls)?;
    parts.headers.insert(header::HOST, host);
    let path = parts.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let right = path.as_str().starts_with('/') || (path == "*" && parts.method == Method::OPTIONS);
    if !right {
        return Err(Fault::bad("The path does not begin with a slash."));
    }
    parts.uri = Uri::from(path);
    Ok(())
}

/// Whether a value neither begins nor ends with what a reader may take for none of it (RFC 9113, section 8.2.1).
fn is_trimmed(value: &HeaderValue) -> bool {
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !is_space(value.as_bytes().first()) && !is_space(value.as_bytes().last())
}

/// The one host of a request.
fn host(parts: &Parts, tls: bool) -> Result<HeaderValue, Fault> {
    let mut values = parts.headers.get_all(header::HOST).iter();
    let (given, None) = (values.next(), values.next()) else {
        return Err(Fault::bad("There is more than one Host."));
    };
    let given = given.map(Host::of_header).transpose()?;
    if parts.version < Version::HTTP_2 && given.is_none() {
        return Err(Fault::bad("There is no Host, so it is not known what is asked for."));
    }
    if parts.uri.scheme_str().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
        return Err(Fault::bad("Only http:// and https:// are answered."));
    }
    let authority = parts.uri.authority().map(|authority| Host::parse(authority.as_str())).transpose()?;
    let usual = if tls { 443 } else { 80 };
    let host = match (authority, given) {
        (Some(authority), Some(given)) if !authority.is(&given, usual) => {
            return Err(Fault::bad("Host is not that of the address that is asked for."));
        }
        (Some(host), _) | (None, Some(host)) => host,
        (None, None) => return Err(Fault::bad("There is no host, so it is not known what is asked for.")),
    };
    // It is ASCII without control characters.
    HeaderValue::from_str(host.whole).map_err(|_| NO_HOST)
}

const NO_HOST: Fault = Fault::bad("Host is no name or address with or without a port.");

/// A host with or without a port.
struct Host<'a> {
    whole: &'a str,
    name: &'a str,
    port: Option<u16>,
}

impl<'a> Host<'a> {
    fn of_header(value: &'a HeaderValue) -> Result<Self, Fault> {
        Self::parse(value.to_str().map_err(|_| NO_HOST)?)
    }

    fn parse(whole: &'a str) -> Result<Self, Fault> {
        let (name, port) = match whole.rfind(':') {
            Some(colon) if !whole[colon..].contains(']') => (&whole[..colon], Some(&whole[colon + 1..])),
            _ => (whole, None),
        };
        if whole.len() > MAX_HOST || !is_name(name) {
            return Err(NO_HOST);
        }
        let port = match port {
            None | Some("") => None,
            // `parse` would take a sign as well.
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(port.parse().map_err(|_| NO_HOST)?)
            }
            Some(_) => return Err(NO_HOST),
        };
        Ok(Self { whole, name, port })
    }

    fn is(&self, other: &Self, usual: u16) -> bool {
        self.name.eq_ignore_ascii_case(other.name)
            && self.port.unwrap_or(usual) == other.port.unwrap_or(usual)
    }
}

/// Whether it is an address in brackets, or what names and IPv4 addresses are made of.
fn is_name(name: &str) -> bool {
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            name.bytes().any(|byte| byte.is_ascii_alphanumeric())
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    fn judged(
        method: &str,
        version: Version,
        uri: &str,
        hosts: &[&str],
    ) -> Result<(String, String), StatusCode> {
        let mut request = Request::builder().method(method).version(version).uri(uri);
        for host in hosts {
            request = request.header(header::HOST, *host);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        judge(&mut parts, false, false).map_err(|fault| fault.status)?;
        assert_eq!(parts.headers.get_all(header::HOST).iter().count(), 1);
        assert!(parts.uri.authority().is_none() && parts.uri.scheme().is_none());
        let host = parts.headers[header::HOST].to_str().unwrap().to_owned();
        Ok((host, parts.uri.to_string()))
    }

    #[test]
    fn there_is_one_host_and_the_uri_is_a_path() {
        let right = |host: &str, path: &str| Ok((host.to_owned(), path.to_owned()));
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        assert_eq!(judged("GET", one, "/a?b", &["x:81"]), right("x:81", "/a?b"));
        assert_eq!(judged("GET", one, "http://x/a", &["X:80"]), right("x", "/a"));
        assert_eq!(judged("GET", one, "http://x", &["x"]), right("x", "/"));
        assert_eq!(judged("GET", two, "https://x:81/a", &[]), right("x:81", "/a"));
        assert_eq!(judged("GET", two, "http://x/a", &["x"]), right("x", "/a"));
        assert_eq!(judged("GET", two, "/a", &["x"]), right("x", "/a"));
        assert_eq!(judged("OPTIONS", one, "*", &["x"]), right("x", "*"));
        for host in ["127.0.0.1", "[::1]", "[::1]:80", "a_b.example", "x.", "x:"] {
            assert_eq!(judged("GET", one, "/", &[host]), right(host, "/"));
        }
    }

    #[test]
    fn a_host_that_is_missing_doubled_or_none_is_refused() {
        let bad = Err(StatusCode::BAD_REQUEST);
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(judged("GET", version, "/", &[]), bad);
            assert_eq!(judged("GET", version, "/", &["x", "x"]), bad);
            assert_eq!(judged("GET", version, "/", &["x", "y"]), bad);
            assert_eq!(judged("GET", version, "http://x/", &["y"]), bad);
            assert_eq!(judged("GET", version, "http://x:81/", &["x"]), bad);
            assert_eq!(judged("GET", version, "http://u@x/", &["x"]), bad);
            assert_eq!(judged("GET", version, "ftp://x/", &["x"]), bad);
            assert_eq!(judged("GET", version, "*", &["x"]), bad);
        }
        assert_eq!(judged("GET", Version::HTTP_11, "http://x/", &[]), bad);
        for host in [
            "",
            ":80",
            ".",
            "a b",
            "a,b",
            "a/b",
            "u@a",
            "a%00",
            "a:x",
            "a:+1",
            "a:65536",
            "a:1:2",
            "::1",
            "[::1",
            "[x]",
            "[::1]x",
            "a\u{e9}",
            "a\t",
            &"a".repeat(300),
        ] {
            assert_eq!(judged("GET", Version::HTTP_11, "/", &[host]), bad, "{host}");
        }
    }

    #[test]
    fn a_value_of_http2_has_no_space_around_it() {
        let judged = |value: &'static str| {
            let request = Request::get("http://x/").version(Version::HTTP_2).header("x", value);
            let (mut parts, ()) = request.body(()).unwrap().into_parts();
            judge(&mut parts, false, false).map_err(|fault| fault.status)
        };
        for value in ["", "a", "a b", "a\tb"] {
            assert_eq!(judged(value), Ok(()), "{value:?}");
        }
        for value in [" ", "\t", " a", "a ", "\ta", "a\t"] {
            assert_eq!(judged(value), Err(StatusCode::BAD_REQUEST), "{value:?}");
        }
    }

    #[test]
    fn connect_is_not_for_a_front() {
        let refused = Err(StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(judged("CONNECT", Version::HTTP_11, "x:1", &["x:1"]), refused);
        assert_eq!(judged("CONNECT", Version::HTTP_2, "x:1", &[]), refused);
        let request = Request::connect("http://x/chat").extension(Protocol::from_static("websocket"));
        let (mut parts, ()) = request.version(Version::HTTP_2).body(()).unwrap().into_parts();
        let mut other = parts.clone();
        assert_eq!(judge(&mut parts, false, true), Ok(()));
        assert_eq!(
            (parts.uri.path(), &parts.headers[header::HOST]),
            ("/chat", &HeaderValue::from_static("x"))
        );
        assert!(judge(&mut other, false, false).is_err());
    }
}
