//! What is wrong with a link: one sentence each, with the cause and the mend.

use crate::carrier::ws::PinError;

use super::{AddressError, KEY_CHARACTERS, MAX_ADDRESSES, MAX_LINK};

/// Why a text is not a link. Shows nothing of the key but one wrong character.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// Nothing at all.
    #[error("the link is empty: paste the whole line that the server printed, gkd://...")]
    Empty,
    /// More than any link has.
    #[error("the link has {0} bytes, more than the {MAX_LINK} that one may have: paste one link only")]
    TooLong(usize),
    /// It does not begin like a link.
    #[error("this is not a gkd link: one begins with gkd:// and was printed by the server")]
    NoScheme,
    /// It begins like something else.
    #[error("{0}:// is not a gkd link: one begins with gkd:// and was printed by the server")]
    Scheme(String),
    /// A carrier that does not exist.
    #[error("{0}:// names no carrier: write gkd://, gkd+plain://, gkd+ws:// or gkd+wss://")]
    Carrier(String),
    /// No `KEY@`.
    #[error("the link has no key: it goes gkd://KEY@HOST:PORT; ask for a new one if the key is lost")]
    NoKey,
    /// The key ends early.
    #[error("the link's key is cut: it has {0} characters of {KEY_CHARACTERS}; copy the link again, whole")]
    Cut(usize),
    /// The key goes on.
    #[error(
        "the link's key has {0} characters, more than the {KEY_CHARACTERS} of a whole one: copy the link again"
    )]
    KeyTooLong(usize),
    /// A character that a key does not have.
    #[error(
        "the link's key has a wrong character, {character:?} at place {place}: \
         only A-Z, a-z, 0-9, '-' and '_' stand in it; copy the link again"
    )]
    Character {
        /// Which.
        character: char,
        /// Its place in the key, counted from 1.
        place: usize,
    },
    /// The checksum disagrees.
    #[error("the link's key is damaged: a character of it was changed; copy the link again")]
    Damaged,
    /// A key of another version of gkd.
    #[error("the link's key is of version {0}, which this build does not know: take a newer build")]
    Version(u8),
    /// Nothing behind the key.
    #[error("the link ends behind its key: @HOST:PORT is missing; copy it again, whole")]
    NoAddress,
    /// Too many addresses.
    #[error("the link has {0} addresses, {MAX_ADDRESSES} are the most: give several links")]
    TooManyAddresses(usize),
    /// One of the addresses is wrong.
    #[error("address {number} of the link is wrong: {error}")]
    Address {
        /// Which, counted from 1.
        number: usize,
        /// What is wrong with it.
        #[source]
        error: AddressError,
    },
    /// The path is too long.
    #[error("the link's path has {0} bytes, more than any server asks for: shorten it")]
    PathTooLong(usize),
    /// A character that a path does not have.
    #[error("the link's path has a wrong character, {0:?}: write it as %XX")]
    Path(char),
    /// An option that this build does not know.
    #[error("the link has an unknown option, {0}: leave it out, or take a newer build")]
    Option(String),
    /// An option that means nothing with this carrier.
    #[error("the link's option {0}= is for {1} only: leave it out, or take that carrier")]
    OptionElsewhere(&'static str, &'static str),
    /// An option that is there more than once.
    #[error("the link has the option {0} more than once: leave one")]
    Twice(String),
    /// The web server's host is wrong.
    #[error("the link's option host= is wrong: {0}")]
    Host(#[source] AddressError),
    /// The pin is wrong.
    #[error("the link's option pin= is wrong: {0}; write it anew, or leave it out")]
    Pin(#[source] PinError),
}

/// At most this much of a piece of a link is shown: enough to find it, too little to hold a secret.
const SHOWN: usize = 24;

/// A piece of a link as it may stand in an error: short and escaped.
pub(super) fn shown(piece: &str) -> String {
    let short: String = piece.chars().take(SHOWN).collect();
    format!("{short:?}{}", if short.len() < piece.len() { "..." } else { "" })
}
