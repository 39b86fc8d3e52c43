//! The WebSocket carrier (RFC 6455): gkd's TLS within binary messages, over TCP or over the TLS of a web server, so
//! that a tunnel passes through what passes the web: proxies, content delivery networks, a server's one open port.
//!
//! What is in the middle sees that there is a WebSocket; it can read nothing, forge nothing and tell no user from
//! another, for both ends prove their keys within. It can cut the connection off, as everyone on the way can.
//!
//! HTTP itself, with all that is strange about it, is a library's: `hyper`. The framing ([`frame`]) is our own, as a tunnel needs
//! neither messages nor a buffer for them; who maps WebSocket to something else can have it too, with [`new_key`] and
//! [`accept_of`] for the handshake.

mod accept;
mod connect;
pub mod frame;
mod outer;
mod stream;
mod utf8;
mod watched;

#[cfg(test)]
mod tests;

use aws_lc_rs::digest;
use data_encoding::BASE64;
use hyper::HeaderMap;
use hyper::header::{CONNECTION, HeaderName};

use crate::identity;

pub use accept::{SiteService, WebSocketConfig, not_found};
pub(crate) use accept::{Visit, serve};
pub(super) use connect::connect;
pub use connect::{Options, Target};
pub use frame::Violation;
pub use outer::{Pin, PinError};
pub(super) use stream::Stream;
pub use utf8::{NotUtf8, Utf8};

/// The largest head of a request or an answer that is read, and the buffer for it.
const MAX_HEAD: usize = 16 * 1024;

/// The only version there is: RFC 6455 §4.1.
const VERSION: &str = "13";

/// What the protocol is called in `Upgrade`.
const NAME: &str = "websocket";

/// What a client calls itself when it asks for a WebSocket. Content delivery networks answer requests without a
/// `User-Agent` with 403, and those that name a browser which the rest of the request is not; this is what the names of all
/// browsers begin with, and tells nothing of the program or the machine.
pub const USER_AGENT: &str = "Mozilla/5.0";

/// Bytes of a `Sec-WebSocket-Key`.
const KEY_LEN: usize = 16;

/// A `Sec-WebSocket-Key` for one request: §4.1.
///
/// # Panics
/// If the system has no randomness to give.
pub fn new_key() -> String {
    BASE64.encode(&identity::random::<KEY_LEN>())
}

/// What a server answers to a key: §4.2.2. It proves nothing but that the server knows WebSocket.
pub fn accept_of(key: &str) -> String {
    let digest = {
        let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        context.update(key.as_bytes());
        context.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
        context.finish()
    };
    BASE64.encode(digest.as_ref())
}

/// Whether the lists in all headers of this name have this word in them.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lists = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|word| word.trim().eq_ignore_ascii_case(token))
}

/// Whether the connection is to become something else.
fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, &CONNECTION, "upgrade")
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
