//! Links: one line of text with all that a client needs, to be pasted.
//!
//! ```text
//! gkd[+plain|+ws|+wss]://KEY@HOST:PORT[-PORT][,HOST:PORT...][/PATH][?OPTIONS]
//! ```
//!
//! KEY is base64url without padding of 69 bytes: the version 1 (one byte), the server's public key (32), the
//! user's secret seed (32), and the first 4 bytes of the SHA-256 of these 65. It makes 92 characters. The
//! checksum covers KEY alone, so that everything else may be edited by hand: another port, another name.
//!
//! OPTIONS, with `&` between them, are for WebSocket carriers: `host=HOST[:PORT]` is who the web server is asked for,
//! where that is another than the one that is dialled; `pin=SHA256`, with `gkd+wss://` only, is the key that the web
//! server's certificate has to have, whoever vouches for it.
//!
//! Nothing is resolved or dialled here. No error shows anything of KEY but one wrong character.

mod address;
mod error;

#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use data_encoding::BASE64URL_NOPAD;
use gkd_proto::id::PeerId;
use zeroize::Zeroizing;

use crate::carrier::CarrierKind;
use crate::carrier::ws::{Options, Pin};
use crate::identity::{KEY_LEN, PublicKey, SecretKey, foreign_character};

pub use address::{Address, AddressError, Host, PortRange, WebHost};
pub use error::LinkError;

/// The version of KEY that this crate reads and writes.
const VERSION: u8 = 1;
const CHECKSUM_LEN: usize = 4;
const CHECKED_LEN: usize = 1 + 2 * KEY_LEN;
const KEY_BYTES: usize = CHECKED_LEN + CHECKSUM_LEN;

/// Characters of KEY: a multiple of four, so that no bit of it is idle.
pub const KEY_CHARACTERS: usize = KEY_BYTES / 3 * 4;

/// The longest link that is read, in bytes: room for [`MAX_ADDRESSES`] long names and a path.
pub const MAX_LINK: usize = 8 * 1024;

/// The most addresses of one link.
pub const MAX_ADDRESSES: usize = 16;

/// The longest path, in bytes.
const MAX_PATH: usize = 1024;

/// A link. `Display` writes it whole, with the secret in it; `Debug` hides the secret.
///
/// `parse` reads what `Display` wrote. A link that is put together by hand has at least one address, a path that is
/// empty or begins with `/`, and host and pin with the carriers for which they are.
#[derive(Clone, PartialEq, Eq)]
pub struct Link {
    /// How to reach the server. One that this build cannot dial is no error here.
    pub carrier: CarrierKind,
    /// The server's key; no other is accepted.
    pub server: PublicKey,
    /// The user's own key.
    pub user: SecretKey,
    /// Where the server is, each one a path of its own.
    pub addresses: Vec<Address>,
    /// The path of WebSocket carriers, with its leading `/`; empty if there is none.
    pub path: String,
    /// Who is asked for over WebSocket, where that is another than the one that is dialled.
    pub host: Option<WebHost>,
    /// The key of the web server's certificate, with [`CarrierKind::Wss`].
    pub pin: Option<Pin>,
}

impl Link {
    /// A `gkd://` link.
    pub fn new(server: PublicKey, user: SecretKey, addresses: Vec<Address>) -> Self {
        Self {
            carrier: CarrierKind::Tls,
            server,
            user,
            addresses,
            path: String::new(),
            host: None,
            pin: None,
        }
    }

    /// What it says of the web server, beside the address.
    pub fn web(&self) -> Options {
        Options { path: self.path.clone(), host: self.host.clone(), pin: self.pin }
    }

    /// The link without its secret, for logs and messages.
    pub fn redacted(&self) -> impl fmt::Display + '_ {
        Redacted(self)
    }
}

impl FromStr for Link {
    type Err = LinkError;

    /// Reads a link; blanks around it do not count.
    fn from_str(text: &str) -> Result<Self, LinkError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(LinkError::Empty);
        }
        if text.len() > MAX_LINK {
            return Err(LinkError::TooLong(text.len()));
        }
        let (carrier, rest) = take_scheme(text)?;
        // Nothing is looked at, let alone shown, before the key has been told from the rest.
        let (key, rest) = rest.split_once('@').ok_or_else(|| no_address(rest))?;
        let (server, user) = parse_key(key)?;
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (addresses, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let addresses = parse_addresses(addresses)?;
        check_path(path)?;
        let (host, pin) = parse_options(options, carrier)?;
        Ok(Self { carrier, server, user, addresses, path: path.to_owned(), host, pin })
    }
}

fn take_scheme(text: &str) -> Result<(CarrierKind, &str), LinkError> {
    let (scheme, rest) = text.split_once("://").ok_or(LinkError::NoScheme)?;
    let known = [CarrierKind::Tls, CarrierKind::Plain, CarrierKind::Ws, CarrierKind::Wss];
    if let Some(kind) = known.into_iter().find(|kind| scheme.eq_ignore_ascii_case(kind.scheme())) {
        return Ok((kind, rest));
    }
    // A scheme is short; whatever else stood there may be a key.
    let shown = scheme.len() <= 16 && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    Err(match scheme.to_ascii_lowercase().starts_with("gkd+") {
        true if shown => LinkError::Carrier(scheme.to_owned()),
        false if shown && !scheme.is_empty() => LinkError::Scheme(scheme.to_owned()),
        _ => LinkError::NoScheme,
    })
}

/// Why there is no `@`: either the link ends within KEY, or something stands where KEY belongs.
fn no_address(rest: &str) -> LinkError {
    if rest.len() > KEY_CHARACTERS {
        return LinkError::NoKey;
    }
    match foreign_character(rest) {
        // `HOST:PORT` without a key.
        Some((_, ':' | '.' | '/' | '[')) => LinkError::NoKey,
        Some((place, character)) => LinkError::Character { character, place },
        None if rest.len() == KEY_CHARACTERS => LinkError::NoAddress,
        None => LinkError::Cut(rest.len()),
    }
}

fn parse_key(key: &str) -> Result<(PublicKey, SecretKey), LinkError> {
    if key.is_empty() {
        return Err(LinkError::NoKey);
    }
    if let Some((place, character)) = foreign_character(key) {
        return Err(LinkError::Character { character, place });
    }
    let bytes = Zeroizing::new(BASE64URL_NOPAD.decode(key.as_bytes()).unwrap_or_default());
    let whole = bytes.split_at_checked(bytes.len().saturating_sub(CHECKSUM_LEN));
    let intact = whole.is_some_and(|(checked, sum)| !checked.is_empty() && checksum(checked) == sum);
    match (bytes.first(), key.len()) {
        (Some(&version), _) if intact && version != VERSION => Err(LinkError::Version(version)),
        (_, len) if len < KEY_CHARACTERS => Err(LinkError::Cut(len)),
        (_, len) if len > KEY_CHARACTERS => Err(LinkError::KeyTooLong(len)),
        _ if !intact => Err(LinkError::Damaged),
        _ => {
            let half = |from: usize| {
                let mut half = Zeroizing::new([0; KEY_LEN]);
                half.copy_from_slice(&bytes[from..from + KEY_LEN]);
                half
            };
            Ok((PeerId(*half(1)), SecretKey::from_seed(*half(1 + KEY_LEN))))
        }
    }
}

fn checksum(checked: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut sum = [0; CHECKSUM_LEN];
    sum.copy_from_slice(&digest::digest(&digest::SHA256, checked).as_ref()[..CHECKSUM_LEN]);
    sum
}

fn key_text(server: &PublicKey, user: &SecretKey) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    bytes[0] = VERSION;
    bytes[1..=KEY_LEN].copy_from_slice(&server.0);
    bytes[1 + KEY_LEN..CHECKED_LEN].copy_from_slice(user.seed());
    let sum = checksum(&bytes[..CHECKED_LEN]);
    bytes[CHECKED_LEN..].copy_from_slice(&sum);
    Zeroizing::new(BASE64URL_NOPAD.encode(&*bytes))
}

fn parse_addresses(text: &str) -> Result<Vec<Address>, LinkError> {
    if text.is_empty() {
        return Err(LinkError::NoAddress);
    }
    let count = text.split(',').count();
    if count > MAX_ADDRESSES {
        return Err(LinkError::TooManyAddresses(count));
    }
    let numbered = text.split(',').zip(1..);
    numbered.map(|(one, number)| one.parse().map_err(|error| LinkError::Address { number, error })).collect()
}

/// The characters of a path are those of RFC 3986 §3.3.
fn check_path(path: &str) -> Result<(), LinkError> {
    if path.len() > MAX_PATH {
        return Err(LinkError::PathTooLong(path.len()));
    }
    let known = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%/".contains(c);
    path.chars().find(|c| !known(*c)).map_or(Ok(()), |c| Err(LinkError::Path(c)))
}

/// An option that is passed over would not do what its writer meant, so none is.
fn parse_options(options: &str, carrier: CarrierKind) -> Result<(Option<WebHost>, Option<Pin>), LinkError> {
    let (mut host, mut pin) = (None, None);
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let twice = match name {
            "host" if !matches!(carrier, CarrierKind::Ws | CarrierKind::Wss) => {
                return Err(LinkError::OptionElsewhere("host", "gkd+ws:// and gkd+wss://"));
            }
            "pin" if carrier != CarrierKind::Wss => {
                return Err(LinkError::OptionElsewhere("pin", "gkd+wss://"));
            }
            "host" => host.replace(value.parse().map_err(LinkError::Host)?).is_some(),
            "pin" => pin.replace(value.parse().map_err(LinkError::Pin)?).is_some(),
            _ => return Err(LinkError::Option(error::shown(name))),
        };
        if twice {
            return Err(LinkError::Twice(error::shown(name)));
        }
    }
    Ok((host, pin))
}

impl Link {
    fn write(&self, f: &mut fmt::Formatter<'_>, key: &str) -> fmt::Result {
        write!(f, "{}://{key}@", self.carrier.scheme())?;
        for (index, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { "," })?;
        }
        f.write_str(&self.path)?;
        let host = self.host.as_ref().map(|host| format!("host={host}"));
        let pin = self.pin.map(|pin| format!("pin={pin}"));
        for (option, before) in host.into_iter().chain(pin).zip(["?", "&"]) {
            write!(f, "{before}{option}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &key_text(&self.server, &self.user))
    }
}

struct Redacted<'a>(&'a Link);

impl fmt::Display for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, "...")
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({}, server {:?}, {:?})", self.redacted(), self.server, self.user)
    }
}
