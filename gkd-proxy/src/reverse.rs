//! Listeners that one end asks the other for: how a service behind a network that lets nobody in is reached.
//!
//! The end that has the service opens a connection to the control destination [`Listen`](crate::destination::Control),
//! which says what to listen on. The other end answers on it, and for each program that comes opens a connection to the
//! [registered](crate::destination::Registered) listener. What stands behind that only the first end knows: it dials what
//! it was started with, and nothing else, whatever it is asked for ([`Offers`]). The listener is there as long as
//! the connection that asked for it: while the session has no tunnel it stays, and it goes with the session.
//!
//! A session of the same user takes a port over at once ([`Registry`]): whoever comes back after a restart finds its own
//! old listener in the way, and not "address in use".
//!
//! # Answers
//! The end that listens says on the stream of that connection, once or twice:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 1: it listens |
//! | 1, and 4 or 16 | the address, 1 IPv4 or 2 IPv6 |
//! | 2 | the first port |
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 2: it does not, or not any more; nothing follows |
//! | 1 | why: 1 the rules do not allow it, 2 the port is in use, 3 another session of the user took it, 4 too many, 5 else |
//! | 1 and n | the length of some words in UTF-8, and the words |
//!
//! A [service](crate::service::announce) is asked for in the same way, and refused so. Where it is taken:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 3: it is taken |
//! | 1 and n | the length of some words in UTF-8, and the words: where people find it; none where that is not known |

mod offers;
mod registry;
mod remote;

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};

use bytes::{Buf, BufMut, Bytes, BytesMut};

pub(crate) use offers::Offer;
pub use offers::Offers;
pub use registry::{Grants, Registry};
pub(crate) use registry::{finish, say};
pub use remote::{Remote, RemoteError, Standing, announce_remotely, listen_remotely};

/// What the end that listens says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It listens, from this address on.
    Bound(SocketAddr),
    /// It takes the service, which people find there.
    Taken(String),
    /// It does not, or not any more.
    Refused(Refusal),
}

/// Why there is no listener, or no service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of reason.
    pub cause: RefusalCause,
    /// For people.
    pub words: String,
}

/// Why there is no listener, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalCause {
    /// The user's rules do not allow it, or not any more.
    Forbidden,
    /// Somebody else has the port.
    InUse,
    /// Another session of the same user took it over, or holds it.
    Taken,
    /// The user has as many ports as it may, or the process has no room for more.
    TooMany,
    /// Something else.
    Failed,
}

impl Refusal {
    /// A refusal.
    pub fn new(cause: RefusalCause, words: impl Into<String>) -> Self {
        Self { cause, words: words.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_words(&self.words, f)
    }
}

/// The other end's words may reach a terminal. Quotes do no harm there.
fn write_words(words: &str, f: &mut impl Write) -> fmt::Result {
    for c in words.chars() {
        match c {
            '\'' | '"' => f.write_char(c)?,
            other => write!(f, "{}", other.escape_debug())?,
        }
    }
    Ok(())
}

/// The bytes of an answer are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is malformed")]
pub(crate) struct Malformed;

/// The longest words of a refusal, in bytes: what one byte can count.
const MOST_WORDS: usize = 255;

/// The longest answer: a refusal with the longest words.
const MOST_ANSWER: usize = 3 + MOST_WORDS;

mod kind {
    pub(super) const BOUND: u8 = 1;
    pub(super) const REFUSED: u8 = 2;
    pub(super) const TAKEN: u8 = 3;
}

impl RefusalCause {
    fn number(self) -> u8 {
        match self {
            Self::Forbidden => 1,
            Self::InUse => 2,
            Self::Taken => 3,
            Self::TooMany => 4,
            Self::Failed => 5,
        }
    }

    /// One of a later version is something else.
    fn of(number: u8) -> Self {
        match number {
            1 => Self::Forbidden,
            2 => Self::InUse,
            3 => Self::Taken,
            4 => Self::TooMany,
            _ => Self::Failed,
        }
    }
}

impl Answer {
    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32);
        match self {
            Self::Bound(address) => {
                out.put_u8(kind::BOUND);
                match address.ip() {
                    IpAddr::V4(ip) => {
                        out.put_u8(1);
                        out.put_slice(&ip.octets());
                    }
                    IpAddr::V6(ip) => {
                        out.put_u8(2);
                        out.put_slice(&ip.octets());
                    }
                }
                out.put_u16(address.port());
            }
            Self::Refused(refusal) => {
                out.put_slice(&[kind::REFUSED, refusal.cause.number()]);
                put_words(&refusal.words, &mut out);
            }
            Self::Taken(place) => {
                out.put_u8(kind::TAKEN);
                put_words(place, &mut out);
            }
        }
        out.freeze()
    }

    /// The first answer in the buffer, which is taken off it; none while it is not whole.
    fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, Malformed> {
        let mut bytes = &buffer[..];
        let decoded = Self::decode_from(&mut bytes)?;
        if decoded.is_some() {
            let left = bytes.len();
            buffer.advance(buffer.len() - left);
        }
        Ok(decoded)
    }

    fn decode_from(bytes: &mut &[u8]) -> Result<Option<Self>, Malformed> {
        let (Ok(kind), Ok(detail)) = (bytes.try_get_u8(), bytes.try_get_u8()) else { return Ok(None) };
        let ip: IpAddr = match (kind, detail) {
            (kind::BOUND, 1) => {
                let mut octets = [0; 4];
                let Ok(()) = bytes.try_copy_to_slice(&mut octets) else { return Ok(None) };
                octets.into()
            }
            (kind::BOUND, 2) => {
                let mut octets = [0; 16];
                let Ok(()) = bytes.try_copy_to_slice(&mut octets) else { return Ok(None) };
                octets.into()
            }
            (kind::REFUSED, cause) => {
                let Ok(length) = bytes.try_get_u8() else { return Ok(None) };
                let cause = RefusalCause::of(cause);
                let words = take_words(length, bytes)?;
                return Ok(words.map(|words| Self::Refused(Refusal { cause, words })));
            }
            (kind::TAKEN, length) => return Ok(take_words(length, bytes)?.map(Self::Taken)),
            _ => return Err(Malformed),
        };
        let Ok(port) = bytes.try_get_u16() else { return Ok(None) };
        Ok(Some(Self::Bound(SocketAddr::new(ip, port))))
    }
}

fn put_words(words: &str, out: &mut BytesMut) {
    let words = &words[..words.floor_char_boundary(MOST_WORDS)];
    // At most MOST_WORDS.
    out.put_u8(words.len() as u8);
    out.put_slice(words.as_bytes());
}

/// Words of this length, which are taken off the bytes; none while they are not whole.
fn take_words(length: u8, bytes: &mut &[u8]) -> Result<Option<String>, Malformed> {
    let Some((words, rest)) = bytes.split_at_checked(usize::from(length)) else { return Ok(None) };
    let words = std::str::from_utf8(words).map_err(|_| Malformed)?.to_owned();
    *bytes = rest;
    Ok(Some(words))
}

#[cfg(test)]
pub(crate) mod tests;
