//! Keys: what an end is known by, and how it is written down. One identity is an Ed25519 key; the secret
//! half is a seed of 32 bytes, the public half is the [`PeerId`].
//!
//! Also the random ids that a process draws. Nothing here decides who may come in.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair};
use data_encoding::BASE64URL_NOPAD;
use gkd_proto::id::{BootId, PeerId, SessionId};
use zeroize::Zeroizing;

/// The public half of an identity, under the name that it has among keys.
pub type PublicKey = PeerId;

/// Bytes of an Ed25519 seed and of an Ed25519 public key (RFC 8032 §5.1.5).
pub const KEY_LEN: usize = 32;

/// Bytes of an Ed25519 signature (RFC 8032 §5.1.6).
pub const SIGNATURE_LEN: usize = 64;

/// Characters of a key as text: 32 bytes in base64url without padding.
pub const KEY_TEXT_LEN: usize = 43;

/// The secret half of an identity: an Ed25519 seed.
///
/// Cheap to clone, all clones share one seed. Never shown by `Debug`; its memory is overwritten when the
/// last clone is dropped. Two are equal when their public keys are.
#[derive(Clone)]
pub struct SecretKey(Arc<Secret>);

struct Secret {
    seed: Zeroizing<[u8; KEY_LEN]>,
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SecretKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Self {
        Self::from_seed(random())
    }

    /// The key that grows from this seed; any 32 bytes are one.
    pub fn from_seed(seed: [u8; KEY_LEN]) -> Self {
        let seed = Zeroizing::new(seed);
        // The length is right by its type and the library has no other reason to refuse a seed.
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).expect("32 bytes are an Ed25519 seed");
        let mut public = [0; KEY_LEN];
        public.copy_from_slice(pair.public_key().as_ref());
        Self(Arc::new(Secret { seed, pair, public: PeerId(public) }))
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.0.public
    }

    /// The seed itself. Keep it out of logs, messages and process lists.
    pub fn seed(&self) -> &[u8; KEY_LEN] {
        &self.0.seed
    }

    /// The seed as text, for a file that only its owner may read. The way back is [`SecretKey::parse`].
    pub fn to_secret_text(&self) -> String {
        BASE64URL_NOPAD.encode(self.seed())
    }

    /// Reads what [`to_secret_text`](Self::to_secret_text) wrote; blanks around it do not count.
    ///
    /// # Errors
    /// Anything else. The error shows no more of the text than one character.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        decode(text).map(|seed| Self::from_seed(*seed))
    }

    /// Signs `message` (RFC 8032, the plain variant).
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_LEN] {
        let mut bytes = [0; SIGNATURE_LEN];
        bytes.copy_from_slice(self.0.pair.sign(message).as_ref());
        bytes
    }

    /// The key pair in PKCS #8, the form in which the TLS library takes it.
    pub(crate) fn pair(&self) -> &Ed25519KeyPair {
        &self.0.pair
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {:?})", self.public())
    }
}

impl PartialEq for SecretKey {
    fn eq(&self, other: &Self) -> bool {
        self.public() == other.public()
    }
}

impl Eq for SecretKey {}

/// A public key as text: 43 characters of base64url without padding, as it stands in files and messages.
/// The way back is [`parse_public`].
pub fn public_text(key: &PublicKey) -> String {
    BASE64URL_NOPAD.encode(&key.0)
}

/// Reads what [`public_text`] wrote; blanks around it do not count.
///
/// # Errors
/// Anything else.
pub fn parse_public(text: &str) -> Result<PublicKey, KeyError> {
    decode(text).map(|bytes| PeerId(*bytes))
}

/// Why a text is not a key. Shows no more of it than one character, for it may have been a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A character that base64url does not have.
    #[error(
        "the key has a wrong character, {character:?} at place {place}: only A-Z, a-z, 0-9, '-' and '_' stand in a key; copy it again"
    )]
    Character {
        /// Which.
        character: char,
        /// Its place, counted from 1.
        place: usize,
    },
    /// Too few or too many characters.
    #[error("the key has {0} characters, a whole one has {KEY_TEXT_LEN}: copy it again")]
    Length(usize),
    /// The last character holds bits that a key does not have.
    #[error("the key's last character is wrong: copy it again")]
    Trailing,
}

fn decode(text: &str) -> Result<Zeroizing<[u8; KEY_LEN]>, KeyError> {
    let text = text.trim();
    if let Some((place, character)) = foreign_character(text) {
        return Err(KeyError::Character { character, place });
    }
    if text.len() != KEY_TEXT_LEN {
        return Err(KeyError::Length(text.len()));
    }
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    BASE64URL_NOPAD.decode_mut(text.as_bytes(), &mut *bytes).map_err(|_| KeyError::Trailing)?;
    Ok(bytes)
}

/// The first character of `text` that base64url does not have, and its place counted from 1.
pub(crate) fn foreign_character(text: &str) -> Option<(usize, char)> {
    let known = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.chars().enumerate().find(|(_, c)| !known(*c)).map(|(index, c)| (index + 1, c))
}

/// The points of small order (1, 2, 4 and 8) as they are written, the sign bit aside, the last two of them not in
/// their only form. No secret belongs to such a key: signatures that hold under it can be made by anyone.
const SMALL_ORDER: [[u8; KEY_LEN]; 7] = [
    first_and_rest(0x01, 0x00, 0x00),
    first_and_rest(0xec, 0xff, 0x7f),
    first_and_rest(0x00, 0x00, 0x00),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5,
        0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a,
        0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
    ],
    first_and_rest(0xed, 0xff, 0x7f),
    first_and_rest(0xee, 0xff, 0x7f),
];

const fn first_and_rest(first: u8, rest: u8, last: u8) -> [u8; KEY_LEN] {
    let mut bytes = [rest; KEY_LEN];
    (bytes[0], bytes[KEY_LEN - 1]) = (first, last);
    bytes
}

/// Whether a signature under this key can prove anything.
pub(crate) fn can_prove(key: &PublicKey) -> bool {
    let mut point = key.0;
    point[KEY_LEN - 1] &= 0x7f;
    !SMALL_ORDER.contains(&point)
}

/// Whether `signature` is the key's signature under `message`.
pub(crate) fn verify(key: &PublicKey, message: &[u8], signature: &[u8; SIGNATURE_LEN]) -> bool {
    can_prove(key)
        && signature::UnparsedPublicKey::new(&signature::ED25519, &key.0).verify(message, signature).is_ok()
}

/// Bytes that nobody can guess.
///
/// # Panics
/// If the system has no randomness to give, when no key could be made either.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// The id of a new session.
pub fn new_session_id() -> SessionId {
    SessionId(random())
}

/// The id of one life of a session at its server.
pub fn new_boot_id() -> BootId {
    BootId(random())
}

/// A seed for everything in a session that is to look random.
pub fn new_seed() -> u64 {
    u64::from_ne_bytes(random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_has_no_secret_proves_nothing() {
        // Under a point of small order a signature of nothing but that point, or zeros, holds for some messages,
        // and for all of them under the neutral element.
        for key in SMALL_ORDER {
            for sign in [0, 0x80] {
                let mut key = key;
                key[KEY_LEN - 1] |= sign;
                for point in SMALL_ORDER {
                    let mut signature = [0; SIGNATURE_LEN];
                    signature[..KEY_LEN].copy_from_slice(&point);
                    let holds = (0..32).any(|message| verify(&PeerId(key), &[message], &signature));
                    assert!(!holds, "{}", public_text(&PeerId(key)));
                }
            }
        }
    }

    /// RFC 8032 §7.1, test 2.
    #[test]
    fn a_seed_gives_the_public_key_and_signature_of_the_rfc() {
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
        let seed = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let key = SecretKey::from_seed(seed.try_into().unwrap());
        assert_eq!(
            key.public().to_string(),
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        let signature = key.sign(&[0x72]);
        assert_eq!(
            signature.to_vec(),
            hex(concat!(
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
                "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
            ))
        );
        assert!(verify(&key.public(), &[0x72], &signature));
        assert!(!verify(&key.public(), &[0x73], &signature));
    }

    #[test]
    fn text_survives_the_round_trip_and_blanks_around_it() {
        for _ in 0..20 {
            let key = SecretKey::generate();
            let (secret, public) = (key.to_secret_text(), public_text(&key.public()));
            assert_eq!((secret.len(), public.len()), (KEY_TEXT_LEN, KEY_TEXT_LEN));
            assert_eq!(SecretKey::parse(&format!(" {secret}\n")).unwrap().seed(), key.seed());
            assert_eq!(parse_public(&public), Ok(key.public()));
        }
    }

    #[test]
    fn a_text_that_is_no_key_says_what_is_wrong() {
        let text = public_text(&SecretKey::from_seed([1; 32]).public());
        assert_eq!(parse_public(&text[1..]), Err(KeyError::Length(42)));
        assert_eq!(parse_public(""), Err(KeyError::Length(0)));
        let slash = text.replacen(text.chars().nth(4).unwrap(), "/", 1);
        assert!(matches!(parse_public(&slash), Err(KeyError::Character { character: '/', .. })));
        assert_eq!(parse_public(&format!("{}B", "A".repeat(42))), Err(KeyError::Trailing));
        assert!(parse_public(&"ü".repeat(43)).is_err());
    }

    #[test]
    fn debug_shows_nothing_of_the_seed() {
        let key = SecretKey::from_seed([0xab; 32]);
        let shown = format!("{key:?}");
        assert!(!shown.contains("abab") && !shown.contains("171"), "{shown}");
        assert!(!shown.contains(&key.to_secret_text()[..8]), "{shown}");
    }

    #[test]
    fn ids_differ_from_draw_to_draw() {
        assert_ne!(new_session_id(), new_session_id());
        assert_ne!(new_boot_id(), new_boot_id());
        assert_ne!(new_seed(), new_seed());
    }
}
