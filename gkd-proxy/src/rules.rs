//! Which addresses may be dialled: [`Rules`].
//!
//! By default only what is public and unicast: everything else reaches into the machine that dials or the
//! networks behind it. A user may have rules of its own: in order, the first that matches decides ([`Rule`]).
//!
//! [`Rules::check`] judges an address, and only beside it the name that led there: a name is resolved first, each of its
//! addresses is judged, and just that address is dialled, so that a name cannot lead elsewhere afterwards.
//!
//! An IPv6 address that only wraps an IPv4 one (mapped, translated, 6to4) is judged by the one inside.
//!
//! | | lifts what the default denies | matches |
//! |---|---|---|
//! | `allow` of a range, of all users or of this one | yes, the machine's own addresses and port 25 included | its addresses |
//! | `allow` of a name, or of `*` | no | the name as it was given and what is below it; everything |
//! | `deny` | | the same, and beats what all users are allowed |
//!
//! | room | what is in it |
//! |---|---|
//! | `rule`, `suffix`, `ports` | one rule, and how its parts are written |
//! | `special`, `own` | what the default denies |
//! | `binds` | what reverse listeners may bind, which is no matter of dialling |
//! | `paths` | which Unix sockets may be dialled: those that are named, and no other |

mod binds;
mod own;
mod paths;
mod ports;
mod rule;
mod special;
mod suffix;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;

use own::OwnAddresses;
use rule::Asked;
use special::{canonical, special};

pub use binds::{Bind, BindError, Binds};
pub use paths::{PathRule, PathRuleError, Paths};
pub use ports::{Ports, PortsError};
pub use rule::{Rule, Subject, SubjectError, Verdict};
pub use special::Range;
pub use suffix::{Suffix, SuffixError};

/// The port of mail between servers, which an open line is abused for.
const MAIL_PORT: u16 = 25;

/// What may be dialled. Cheap to clone.
///
/// [`Rules::default`] allows public unicast addresses, except those of this machine and port 25 of all.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Of the user: the first that matches decides.
    rules: Arc<[Rule]>,
    allowed: Arc<[IpNet]>,
    own: OwnAddresses,
    paths: Arc<Paths>,
}

/// Why an address may not be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Denial {
    /// It is within a special range.
    Special(Range),
    /// It is one of the machine that dials.
    Own,
    /// The machine's own addresses cannot be read, so none can be told from them.
    OwnUnknown,
    /// Port 25.
    Mail,
    /// The user's rule of this number says so; they count from 1.
    Rule(usize),
    /// It is a Unix socket that the user's paths do not name.
    Path,
}

impl Rules {
    /// The default rules, and addresses that may be dialled whatever the default says of them: special ones,
    /// the machine's own, and their port 25. A mapped, translated or 6to4 address is in a range of IPv4 when
    /// the one inside is.
    pub fn allow(ranges: impl IntoIterator<Item = IpNet>) -> Self {
        Self { allowed: ranges.into_iter().map(canonical).collect(), ..Self::default() }
    }

    /// The same, with addresses that count as the machine's own although no interface has them: those at
    /// which a router in front of it lets it be reached.
    pub fn with_own(mut self, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.own.add(addresses);
        self
    }

    /// The same for a user with rules of its own, which go over everything else: the first that matches decides.
    pub fn of_user(&self, rules: impl Into<Arc<[Rule]>>) -> Self {
        Self { rules: rules.into(), ..self.clone() }
    }

    /// The same, by which these Unix sockets may be dialled.
    pub fn with_paths(self, paths: impl Into<Arc<Paths>>) -> Self {
        Self { paths: paths.into(), ..self }
    }

    /// The rules by which nothing may be dialled.
    pub fn none() -> Self {
        let nothing = Rule { verdict: Verdict::Deny, subject: Subject::All, ports: Ports::default() };
        Self::default().of_user([nothing])
    }

    /// Whether this address and port may be dialled, to which a program's `name` led; none where it gave the address
    /// itself.
    pub fn check(&self, name: Option<&str>, addr: SocketAddr) -> Result<(), Denial> {
        let asked = Asked::new(name, addr);
        match self.rules.iter().enumerate().find(|(_, rule)| rule.matches(&asked)) {
            Some((index, rule)) if rule.verdict == Verdict::Deny => Err(Denial::Rule(index + 1)),
            Some((_, rule)) if rule.lifts(&asked) => Ok(()),
            Some(_) | None => self.check_of_all(&asked),
        }
    }

    /// Whether the Unix socket of this path may be dialled. Links are for whoever dials: see [`Paths`].
    pub fn check_path(&self, path: &Path) -> Result<(), Denial> {
        if self.paths.permit(path) { Ok(()) } else { Err(Denial::Path) }
    }

    /// What holds for all users.
    fn check_of_all(&self, asked: &Asked<'_>) -> Result<(), Denial> {
        if self.allowed.iter().any(|net| asked.is_named_by(net)) {
            return Ok(());
        }
        let judged = asked.inner.unwrap_or(asked.outer);
        if let Some(range) = special(judged) {
            return Err(Denial::Special(range));
        }
        if asked.port == MAIL_PORT {
            return Err(Denial::Mail);
        }
        match self.own.have(asked.outer).and_then(|own| Ok(own || self.own.have(judged)?)) {
            Ok(false) => Ok(()),
            Ok(true) => Err(Denial::Own),
            Err(_) => Err(Denial::OwnUnknown),
        }
    }
}

/// Words are no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a range of addresses: write one such as 10.0.0.0/8, or a single address", .0.escape_debug())]
pub struct RangeError(Box<str>);

/// A range that a user wrote: `ADDRESS/LENGTH`, or a single address. One of mapped addresses is the one of IPv4 that it
/// maps.
pub fn parse_range(words: &str) -> Result<IpNet, RangeError> {
    let single = || words.parse().map(|ip: IpAddr| IpNet::from(ip));
    let read = words.parse().or_else(|_| single());
    read.map(|net: IpNet| canonical(net.trunc())).map_err(|_| RangeError(words.into()))
}

impl Denial {
    /// What would permit it.
    pub fn mend(self) -> &'static str {
        match self {
            Self::Rule(_) => "change the rules of the user in server.toml to permit it",
            Self::Path => "`unix` of the user in server.toml would permit it",
            _ => {
                "--allow or `allow` in server.toml would permit it, or a rule of the user that allows its range"
            }
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Special(range) => write!(f, "{range}"),
            Self::Own => f.write_str("an address of the server itself"),
            Self::OwnUnknown => f.write_str("perhaps of the server itself, whose addresses cannot be read"),
            Self::Mail => f.write_str("port 25, mail between servers"),
            Self::Rule(number) => write!(f, "denied by rule {number} of the user"),
            Self::Path => f.write_str("the user's unix does not name it"),
        }
    }
}

#[cfg(test)]
mod tests;
