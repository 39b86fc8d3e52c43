//! What a program must prove to a local proxy: a user and a password, from a listener's form.
//!
//! They keep other users of the machine out of a proxy, no more: both travel in clear on that leg. They have
//! nothing to do with the keys of a session.

use std::fmt;

/// The longest user and the longest password, in bytes (RFC 1929, section 2).
const MAX_LEN: usize = 255;

/// A user and a password, each of 1 to 255 bytes. Shown without the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: Box<str>,
    password: Box<str>,
}

/// Why words are not a user and a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// No colon between the two.
    #[error("there is no password: write USER:PASS@")]
    NoPassword,
    /// One of them is empty or too long.
    #[error("user and password must have 1 to {MAX_LEN} bytes each")]
    Length,
    /// A `%` that two hexadecimal digits do not follow, or bytes that are no text.
    #[error("user or password hold a broken % escape: write % itself as %25")]
    Escape,
}

impl Credentials {
    /// A user and a password.
    pub fn new(user: &str, password: &str) -> Result<Self, CredentialsError> {
        if [user, password].iter().all(|word| (1..=MAX_LEN).contains(&word.len())) {
            Ok(Self { user: user.into(), password: password.into() })
        } else {
            Err(CredentialsError::Length)
        }
    }

    /// `USER:PASS` with `%` escapes, as in a URL.
    pub(crate) fn parse(words: &str) -> Result<Self, CredentialsError> {
        let (user, password) = words.split_once(':').ok_or(CredentialsError::NoPassword)?;
        Self::new(&unescape(user)?, &unescape(password)?)
    }

    /// Whether these are they. Takes the same time wherever a difference stands.
    pub fn is(&self, user: &str, password: &str) -> bool {
        // Not `&&`: a wrong user must not be told from a wrong password.
        same(&self.user, user) & same(&self.password, password)
    }
}

/// Compares in a time that depends on the lengths alone.
fn same(ours: &str, theirs: &str) -> bool {
    let differences = ours.bytes().zip(theirs.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    (ours.len() == theirs.len()) & (std::hint::black_box(differences) == 0)
}

fn unescape(words: &str) -> Result<String, CredentialsError> {
    let mut bytes = Vec::with_capacity(words.len());
    let mut parts = words.split('%');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        let digits = part.get(..2).ok_or(CredentialsError::Escape)?;
        // `from_str_radix` would take a sign as well.
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(CredentialsError::Escape);
        }
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| CredentialsError::Escape)?);
        bytes.extend(part[2..].bytes());
    }
    String::from_utf8(bytes).map_err(|_| CredentialsError::Escape)
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_pair_is_right() {
        let credentials = Credentials::parse("me:p%25s").unwrap();
        assert!(credentials.is("me", "p%s"));
        for (user, password) in [("me", "p%"), ("me", "p%ss"), ("m", "p%s"), ("", ""), ("me", "p%S")] {
            assert!(!credentials.is(user, password), "{user}:{password}");
        }
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        assert_eq!(Credentials::parse("me"), Err(CredentialsError::NoPassword));
        assert_eq!(Credentials::parse("me:"), Err(CredentialsError::Length));
        assert_eq!(Credentials::new(&"u".repeat(256), "p"), Err(CredentialsError::Length));
        for words in ["a%:b", "a:%", "a:%1", "a:%+1", "a:%ff", "a:%é"] {
            assert_eq!(Credentials::parse(words), Err(CredentialsError::Escape), "{words}");
        }
    }
}
