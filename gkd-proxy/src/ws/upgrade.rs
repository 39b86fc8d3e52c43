//! What both ends of the opening handshake look at (RFC 6455, section 4): headers that are lists of words, and headers
//! of which there may be one.

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

/// The most headers of a request or response.
pub(crate) const MAX_HEADERS: usize = 128;

/// The most bytes of a request's or response's head. Cookies come near to half of it.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// The version of the protocol.
pub(crate) const VERSION: &str = "13";

/// Whether a list holds a word, whose letters may be large or small.
pub(crate) fn names(headers: &HeaderMap, header: HeaderName, word: &str) -> bool {
    words(headers, header).any(|it| it.eq_ignore_ascii_case(word))
}

/// The words of a list, which may be spread over several headers of one name.
pub(crate) fn words(headers: &HeaderMap, header: HeaderName) -> impl Iterator<Item = &str> {
    let lists = headers.get_all(header).into_iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// The value of a header of which there is one; none where it is missing or doubled.
pub(crate) fn the_only(headers: &HeaderMap, header: HeaderName) -> Option<&HeaderValue> {
    let mut all = headers.get_all(header).into_iter();
    all.next().filter(|_| all.next().is_none())
}

/// Whether a word can be the name of a subprotocol: a token of HTTP (RFC 9110, section 5.6.2).
pub(crate) fn is_token(word: &str) -> bool {
    let other = |byte: u8| b"!#$%&'*+-.^_`|~".contains(&byte);
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || other(byte))
}
