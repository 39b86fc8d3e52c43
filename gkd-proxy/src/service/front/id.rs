//! What names a request in the log, in headers and on error pages: 128 random bits, or the name that a trusted peer gave it.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use data_encoding::HEXLOWER;
use hyper::HeaderMap;
use tokio_rustls::rustls::crypto::{SecureRandom, aws_lc_rs};

use crate::service::error_page::REQUEST_ID;

/// The longest name that is taken from a peer.
const MAX_GIVEN: usize = 128;

/// Names requests.
#[derive(Clone, Copy)]
pub(super) struct Ids {
    random: &'static dyn SecureRandom,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { random: aws_lc_rs::default_provider().secure_random }
    }

    /// The name of a request with these headers.
    pub(super) fn name(&self, headers: &HeaderMap, trusted: bool) -> Arc<str> {
        let mut given = headers.get_all(REQUEST_ID).iter();
        if trusted
            && let (Some(given), None) = (given.next(), given.next())
            && let Ok(given) = given.to_str()
            && is_sane(given)
        {
            return given.into();
        }
        let bits = AHEAD.with_borrow_mut(|ahead| ahead.next(self.random));
        HEXLOWER.encode(&bits).into()
    }
}

/// Random bits of names.
type Bits = [u8; 16];

/// How many names' bits are drawn at a time: what one draw takes is more than what its bits do.
const AT_A_TIME: usize = 32;

thread_local! {
    static AHEAD: RefCell<Ahead> = const { RefCell::new(Ahead { bits: [[0; 16]; AT_A_TIME], left: 0 }) };
}

/// Bits that are drawn and not used yet.
struct Ahead {
    bits: [Bits; AT_A_TIME],
    left: usize,
}

impl Ahead {
    fn next(&mut self, random: &dyn SecureRandom) -> Bits {
        if self.left == 0 {
            // It fails where the system gives no random bytes, where no TLS would come to be either; a name is no secret.
            if random.fill(self.bits.as_flattened_mut()).is_err() {
                tracing::error!("the system gives no random bytes: requests have no names of their own");
            }
            self.left = AT_A_TIME;
        }
        self.left -= 1;
        self.bits[self.left]
    }
}

impl fmt::Debug for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ids")
    }
}

/// Whether a name can stand in a log, a header and a page as it is.
fn is_sane(given: &str) -> bool {
    (1..=MAX_GIVEN).contains(&given.len())
        && given.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:+/=".contains(&byte))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn headers(names: &[&str]) -> HeaderMap {
        names.iter().map(|name| (REQUEST_ID, name.parse().unwrap())).fold(
            HeaderMap::new(),
            |mut all, (k, v)| {
                all.append(k, v);
                all
            },
        )
    }

    #[test]
    fn names_are_random_unless_a_trusted_peer_gave_one() {
        let ids = Ids::new();
        let names: HashSet<_> = (0..1000).map(|_| ids.name(&HeaderMap::new(), true)).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|name| name.len() == 32 && name.bytes().all(|b| b.is_ascii_hexdigit())));
        let given = "2f1c-_.:+/=";
        assert_eq!(&*ids.name(&headers(&[given]), true), given);
        assert_ne!(&*ids.name(&headers(&[given]), false), given);
        for given in ["", "a b", "a\"b", "a<b", &"a".repeat(129)] {
            assert_ne!(&*ids.name(&headers(&[given]), true), given);
        }
        assert_eq!(ids.name(&headers(&["a", "b"]), true).len(), 32);
    }
}
