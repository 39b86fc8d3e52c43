//! Who a request comes from, and how, as its target is told: [`Origin`].
//!
//! What a client says of that is removed, because programs believe it; but whoever connects from a trusted address is a
//! proxy of ours, whose word is taken and added to. There is no `Via`: web servers stop to compress for requests that have
//! one (nginx does), and nothing but a loop of proxies is found by it, which ends at the front's limit of connections.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use hyper::http::request;
use ipnet::IpNet;

use super::Visit;
use super::error_page::REQUEST_ID;

/// Where a request comes from, hop by hop.
pub(crate) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The scheme that its client used.
pub(crate) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host that its client asked for.
pub(crate) const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The port that its client connected to.
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// The client's address alone.
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What begins so says the same, or more of it.
const FORWARDED: &str = "x-forwarded-";

/// Names a program's own proxy where headers become environment variables (httpoxy); no request needs it.
const PROXY: HeaderName = HeaderName::from_static("proxy");

/// Headers that a request is given at the most, that of its target's host among them.
const ADDED: usize = 8;

/// The most hops that are looked at; others would be as many proxies of ours in a row.
const MAX_HOPS: usize = 64;

/// Where a request comes from, as far as it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The client.
    pub(super) address: IpAddr,
    /// Whether the client came with TLS.
    pub(super) tls: bool,
    /// Whether what the request says of it is believed.
    pub(super) trusted: bool,
}

impl Origin {
    /// Judges a request by its headers. `trusted` are the addresses of proxies of ours.
    pub(super) fn of(headers: &HeaderMap, visit: &Visit, trusted: &[IpNet]) -> Self {
        let client = visit.client.ip().to_canonical();
        if !is_in(visit.peer.ip(), trusted) {
            return Self { address: client, tls: visit.tls, trusted: false };
        }
        let tls = match last_word(headers, &FORWARDED_PROTO) {
            Some(scheme) => scheme.eq_ignore_ascii_case("https"),
            None => visit.tls,
        };
        Self { address: farthest(headers, client, trusted), tls, trusted: true }
    }

    /// Tells the target: sets the headers of a request to `host`, and removes the forged ones.
    pub(super) fn tell(&self, headers: &mut HeaderMap, visit: &Visit, host: Option<&HeaderValue>) {
        if self.trusted {
            remove_disguised(headers);
        } else {
            remove_forgeable(headers);
        }
        // Once for all, for a map grows by little. Where that is too much, it grows as far as it can.
        headers.try_reserve(ADDED).ok();
        let client = visit.client.ip().to_canonical();
        let address = client.to_string();
        append(headers, header::FORWARDED, element(&address, client.is_ipv6(), host, self.tls));
        let farthest = if self.address == client { address.clone() } else { self.address.to_string() };
        append(headers, FORWARDED_FOR, address);
        let scheme = HeaderValue::from_static(if self.tls { "https" } else { "http" });
        headers.entry(FORWARDED_PROTO).or_insert(scheme);
        if let Some(host) = host {
            headers.entry(FORWARDED_HOST).or_insert_with(|| host.clone());
        }
        headers.entry(FORWARDED_PORT).or_insert_with(|| HeaderValue::from(visit.local.port()));
        set(headers, REAL_IP, HeaderValue::try_from(farthest));
        // The front has taken a trusted one's name on, where it could: whatever it took, log, pages and target say the same.
        remove(headers, |name| is(name, REQUEST_ID.as_str()));
        set(headers, REQUEST_ID, HeaderValue::from_str(&visit.id));
    }
}

/// Of the addresses that the request went through, the first one from our side that is no proxy of ours.
fn farthest(headers: &HeaderMap, client: IpAddr, trusted: &[IpNet]) -> IpAddr {
    if !is_in(client, trusted) {
        // A PROXY header names it.
        return client;
    }
    let mut hops = Vec::new();
    for value in headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()) {
        hops.extend(value.split(',').map(str::trim));
    }
    let mut farthest = client;
    for hop in hops.iter().rev().take(MAX_HOPS) {
        let Some(address) = address_of(hop) else { break };
        farthest = address;
        if !is_in(address, trusted) {
            break;
        }
    }
    farthest
}

/// An address, with a port or without.
fn address_of(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().ok().or_else(|| hop.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

fn is_in(address: IpAddr, nets: &[IpNet]) -> bool {
    let address = address.to_canonical();
    nets.iter().any(|net| net.contains(&address))
}

/// The last word of a list: whoever is nearest to us wrote it.
fn last_word<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let last = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    last.rsplit(',').next().map(str::trim).filter(|word| !word.is_empty())
}

/// One hop as `Forwarded` says it (RFC 7239, section 4).
fn element(client: &str, is_ipv6: bool, host: Option<&HeaderValue>, tls: bool) -> String {
    let (before, behind) = if is_ipv6 { ("for=\"[", "]\"") } else { ("for=", "") };
    // A host of such characters is none, and would end the quotes.
    let host = host.and_then(|host| host.to_str().ok()).filter(|host| !host.contains(['"', '\\']));
    let (before_host, host, behind_host) = host.map_or(("", "", ""), |host| (";host=\"", host, "\""));
    let scheme = if tls { ";proto=https" } else { ";proto=http" };
    [before, client, behind, before_host, host, behind_host, scheme].concat()
}

/// Adds to a list, which is in one header afterwards.
fn append(headers: &mut HeaderMap, name: HeaderName, word: String) {
    let mut list = String::new();
    for value in headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()) {
        list.push_str(value);
        list.push_str(", ");
    }
    let list = if list.is_empty() { word } else { list + &word };
    set(headers, name, HeaderValue::try_from(list));
}

/// Sets a header, or removes it where the words were none that a header may have.
fn set(headers: &mut HeaderMap, name: HeaderName, value: Result<HeaderValue, InvalidHeaderValue>) {
    match value {
        Ok(value) => _ = headers.insert(name, value),
        Err(_) => _ = headers.remove(name),
    }
}

/// Removes whatever programs believe of who a request comes from, or of the proxy that they are to use themselves.
pub(crate) fn remove_forgeable(headers: &mut HeaderMap) {
    remove(headers, |name| {
        begins(name, FORWARDED) || [header::FORWARDED, REAL_IP, PROXY].iter().any(|it| is(name, it.as_str()))
    });
}

/// Removes those of them that no proxy of ours writes.
fn remove_disguised(headers: &mut HeaderMap) {
    remove(headers, |name| {
        let disguised = name.contains('_') && (begins(name, FORWARDED) || is(name, REAL_IP.as_str()));
        disguised || is(name, PROXY.as_str())
    });
}

/// Whether a name is another, to programs that are called by CGI too: for them `_` is `-`.
fn is(name: &str, known: &str) -> bool {
    name.len() == known.len() && begins(name, known)
}

fn begins(name: &str, known: &str) -> bool {
    let same = |(a, b): (u8, u8)| a == b || (a == b'_' && b == b'-');
    name.len() >= known.len() && name.bytes().zip(known.bytes()).all(same)
}

fn remove(headers: &mut HeaderMap, is_wrong: impl Fn(&str) -> bool) {
    // Bounded by the size of a head.
    let wrong: Vec<HeaderName> = headers.keys().filter(|name| is_wrong(name.as_str())).cloned().collect();
    for name in &wrong {
        headers.remove(name);
    }
}

/// The host that a request asks for: its URI's, where that has one (RFC 9112, section 3.2.2). An error where there are two,
/// or it can be none.
pub(crate) fn host_of(head: &request::Parts) -> Result<Option<HeaderValue>, TwoHosts> {
    let mut named = head.headers.get_all(header::HOST).iter();
    let (first, second) = (named.next(), named.next());
    if second.is_some() {
        return Err(TwoHosts);
    }
    match head.uri.authority() {
        // Without user and password, which some URIs hold.
        Some(authority) => {
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            HeaderValue::from_str(host).map(Some).map_err(|_| TwoHosts)
        }
        None => Ok(first.cloned()),
    }
}

/// A request whose host is not one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TwoHosts;

#[cfg(test)]
mod tests;
