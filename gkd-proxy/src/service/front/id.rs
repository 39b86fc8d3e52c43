//! What names a request in the log, in headers and on error pages: 128 random bits, or the name that a trusted peer gave it.

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
        let mut bits = [0; 16];
        // It fails where the system gives no random bytes, where no TLS would come to be either; the name is no secret.
        if self.random.fill(&mut bits).is_err() {
            tracing::error!("the system gives no random bytes: requests have no names of their own");
        }
        HEXLOWER.encode(&bits).into()
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
