//! How places to listen at, targets, paths and the choices of a service are written.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::host::{HostError, host_name};
use super::{AccessLog, CertificateFiles, FrontListen, HostRewrite, Https, Method, TargetForm};
use crate::destination::{DestinationError, Host, Target};

/// The longest path, in bytes.
const MAX_PATH: usize = 1024;

/// Ports of HTTP without TLS and with it.
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// Why words are not what stands there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordsError {
    /// No place to listen at.
    #[error("\"{}\" is no place to listen at: write http:// or https:// and an address, such as http://0.0.0.0:80 or https://[::]:443", .0.escape_debug())]
    Listen(Box<str>),
    /// A name where an address stands.
    #[error("\"{}\" names no address to listen on: write one of this machine, such as 127.0.0.1, or 0.0.0.0 and [::] for all", .0.escape_debug())]
    ListenName(Box<str>),
    /// More than an address.
    #[error("\"{}\" is more than a place to listen at: hosts and paths stand in [[service]]", .0.escape_debug())]
    ListenMore(Box<str>),
    /// The target is nothing.
    #[error("the target is empty: write http://HOST:PORT, h2c://HOST:PORT, or the path of a folder")]
    NoTarget,
    /// The path of a folder that depends on where the program was started, or no target at all.
    #[error("\"{}\" is no target: write http://HOST:PORT, h2c://HOST:PORT, or the whole path of a folder, which begins with /", .0.escape_debug())]
    Target(Box<str>),
    /// A target that is spoken to otherwise.
    #[error("a target at {}:// is not to be had: write http:// for HTTP/1.1, h2c:// for HTTP/2, both without TLS, or the path of a folder", .0.escape_debug())]
    Scheme(Box<str>),
    /// Something behind the port, or in front of the host.
    #[error("\"{}\" is more than {}://HOST:PORT: a target has no path and no user there", .0.escape_debug(), .1)]
    TargetMore(Box<str>, &'static str),
    /// The target's host or port is none.
    #[error("the target is wrong: {0}")]
    TargetHost(#[from] DestinationError),
    /// No path.
    #[error("\"{}\" is no path: begin it with a slash, \"/{}\"", .0.escape_debug(), .0.escape_debug())]
    NoPath(Box<str>),
    /// Too long a path.
    #[error("the path has {0} bytes, {MAX_PATH} are the most: shorten it")]
    LongPath(usize),
    /// A character that stands in no path.
    #[error("the path \"{}\" has a wrong character, {:?}: write it as %XX", .0.escape_debug(), .1)]
    PathCharacter(Box<str>, char),
    /// A query, or a fragment, where a path alone stands.
    #[error("the path \"{}\" has a {}, and requests are told apart by path alone: leave out what follows", .0.escape_debug(), .1)]
    PathMore(Box<str>, char),
    /// A star, as if the path did not stand for what is below it.
    #[error("the path \"{}\" ends with a *, and stands for all below it without: write \"{}\"", .0.escape_debug(), .1.escape_debug())]
    PathStar(Box<str>, Box<str>),
    /// Parts that no request's path has once it is put straight.
    #[error("the path \"{}\" holds an empty part, . or ..: write it without", .0.escape_debug())]
    PathPart(Box<str>),
    /// A letter that is written as %XX, and would never be met so.
    #[error("the path \"{}\" writes {:?} as %XX: write it as it is", .0.escape_debug(), .1)]
    PathEscape(Box<str>, char),
    /// A % that is no %XX.
    #[error("the path \"{}\" has a % without two hexadecimal digits behind it: write %25", .0.escape_debug())]
    PathPercent(Box<str>),
    /// None of the words that may stand there.
    #[error("\"{}\" is no {}: write {}", .0.escape_debug(), .1, .2)]
    Choice(Box<str>, &'static str, &'static str),
    /// What a target is to read as Host is none.
    #[error("\"{}\" is nothing that a target could read as host: write \"keep\", \"target\", or a host with or without a port ({})", .0.escape_debug(), .1)]
    HostRewrite(Box<str>, HostError),
    /// The path of a file that depends on where the program was started.
    #[error("\"{}\" is no whole path: write one that begins with /", .0.escape_debug())]
    Relative(Box<str>),
}

impl FromStr for FrontListen {
    type Err = WordsError;

    fn from_str(words: &str) -> Result<Self, WordsError> {
        let wrong = || WordsError::Listen(words.into());
        let (scheme, place) = words.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return Err(wrong()),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.contains(['/', '?', '#', '@']) {
            return Err(WordsError::ListenMore(words.into()));
        }
        // The colons of IPv6 stand in brackets.
        let (host, port) = match place.rfind(':') {
            Some(colon) if Some(colon) > place.rfind(']') => {
                (&place[..colon], place[colon + 1..].parse().map_err(|_| wrong())?)
            }
            _ => (place, if tls { HTTPS_PORT } else { HTTP_PORT }),
        };
        match Host::parse(host) {
            Ok(Host::Ip(ip)) if ip.is_ipv4() || host.starts_with('[') => {
                Ok(Self { tls, address: SocketAddr::new(ip, port) })
            }
            Ok(Host::Name(_)) => Err(WordsError::ListenName(words.into())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for FrontListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.address)
    }
}

impl FrontListen {
    /// A place to listen at.
    pub fn new(tls: bool, address: SocketAddr) -> Self {
        Self { tls, address }
    }

    /// Whether both cannot be listened on at once: the same port of the same address, or of all of its family.
    pub fn clashes_with(&self, ip: IpAddr, port: u16) -> bool {
        let own = self.address.ip();
        let all = own.is_ipv4() == ip.is_ipv4() && (own.is_unspecified() || ip.is_unspecified());
        port != 0 && self.address.port() == port && (own == ip || all)
    }
}

impl CertificateFiles {
    /// Files of these paths.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self { certificate: certificate.into(), key: key.into() }
    }
}

impl FromStr for TargetForm {
    type Err = WordsError;

    fn from_str(words: &str) -> Result<Self, WordsError> {
        if words.trim().is_empty() {
            return Err(WordsError::NoTarget);
        }
        let Some((scheme, rest)) = words.split_once("://") else {
            let path = Path::new(words);
            return match path.is_absolute() {
                true => Ok(Self::Folder(path.to_owned())),
                false => Err(WordsError::Target(words.into())),
            };
        };
        let (name, make): (_, fn(Target) -> Self) = match scheme.to_ascii_lowercase().as_str() {
            "http" => ("http", Self::Http),
            "h2c" => ("h2c", Self::H2c),
            _ => return Err(WordsError::Scheme(scheme.into())),
        };
        let place = rest.strip_suffix('/').unwrap_or(rest);
        if place.contains(['/', '?', '#', '@']) {
            return Err(WordsError::TargetMore(words.into(), name));
        }
        let has_port = place.rfind(':') > place.rfind(']');
        let target = match has_port {
            true => place.parse()?,
            false => Target::new(Host::parse(place)?, HTTP_PORT)?,
        };
        Ok(make(target))
    }
}

impl fmt::Display for TargetForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(target) => write!(f, "http://{target}"),
            Self::H2c(target) => write!(f, "h2c://{target}"),
            Self::Folder(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A path that stands for itself and all below it, part by part: `/` is everything, and `/api` is `/api/x` but not `/apis`.
/// A slash at its end says nothing and is left out.
///
/// # Errors
/// It is none, or one that no request's path would begin with.
pub fn parse_path(words: &str) -> Result<String, WordsError> {
    if let Some(c) = words.chars().find(|c| "?#".contains(*c)) {
        return Err(WordsError::PathMore(words.into(), c));
    }
    characters(words)?;
    let path = words.strip_suffix('/').unwrap_or(words);
    if path.is_empty() {
        return Ok("/".to_owned());
    }
    if let Some(above) = path.strip_suffix("/*") {
        return Err(WordsError::PathStar(words.into(), if above.is_empty() { "/" } else { above }.into()));
    }
    if path[1..].split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(WordsError::PathPart(words.into()));
    }
    match path.match_indices('%').find_map(|(at, _)| escaped(&path.as_bytes()[at..])) {
        Some(c) => Err(WordsError::PathEscape(words.into(), c)),
        None => Ok(unescaped(path)),
    }
}

/// What a health check asks for: a path, with or without a query.
///
/// # Errors
/// It is none.
pub fn parse_health_path(words: &str) -> Result<String, WordsError> {
    if words.contains('#') {
        return Err(WordsError::PathMore(words.into(), '#'));
    }
    characters(words).map(|()| words.to_owned())
}

/// Whether it is a path of RFC 3986, section 3.3, or a query behind one.
fn characters(words: &str) -> Result<(), WordsError> {
    if !words.starts_with('/') {
        return Err(WordsError::NoPath(words.into()));
    }
    if words.len() > MAX_PATH {
        return Err(WordsError::LongPath(words.len()));
    }
    let known = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@%/?".contains(c);
    if let Some(c) = words.chars().find(|c| !known(*c)) {
        return Err(WordsError::PathCharacter(words.into(), c));
    }
    let is_escape = |at: usize| {
        let digits = words.as_bytes().get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    match words.match_indices('%').all(|(at, _)| is_escape(at)) {
        true => Ok(()),
        false => Err(WordsError::PathPercent(words.into())),
    }
}

/// A path with letters that need no %XX put back, and the others' digits in capitals (RFC 3986, section 6.2.2), so that it
/// can be compared.
pub(in crate::service) fn unescaped(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (before, escape) = rest.split_at(at);
        out.push_str(before);
        rest = match (escaped(escape.as_bytes()), escape.get(..3)) {
            (Some(letter), _) => {
                out.push(letter);
                &escape[3..]
            }
            (None, Some(code)) if code[1..].bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                out.push_str(&code.to_ascii_uppercase());
                &escape[3..]
            }
            _ => {
                out.push('%');
                &escape[1..]
            }
        };
    }
    out.push_str(rest);
    out
}

/// The letter that a %XX at the beginning stands for, if it is one that need not be written so (RFC 3986, section 2.3).
fn escaped(bytes: &[u8]) -> Option<char> {
    let [b'%', high, low, ..] = bytes else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let c = char::from_u32(digit(high)? * 16 + digit(low)?)?;
    (c.is_ascii_alphanumeric() || "-._~".contains(c)).then_some(c)
}

impl FromStr for Method {
    type Err = WordsError;

    fn from_str(words: &str) -> Result<Self, WordsError> {
        match words {
            "round-robin" => Ok(Self::RoundRobin),
            "least-connections" => Ok(Self::LeastConnections),
            "two-choices" => Ok(Self::TwoChoices),
            "address" => Ok(Self::Address),
            _ => {
                let all = "\"round-robin\", \"least-connections\", \"two-choices\" or \"address\"";
                Err(WordsError::Choice(words.into(), "way to balance", all))
            }
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::TwoChoices => "two-choices",
            Self::Address => "address",
        })
    }
}

impl FromStr for Https {
    type Err = WordsError;

    fn from_str(words: &str) -> Result<Self, WordsError> {
        match words {
            "both" => Ok(Self::Both),
            "redirect" => Ok(Self::Redirect),
            "only" => Ok(Self::Only),
            _ => {
                let all = "\"both\", \"redirect\" or \"only\"";
                Err(WordsError::Choice(words.into(), "way with https", all))
            }
        }
    }
}

impl FromStr for AccessLog {
    type Err = WordsError;

    fn from_str(words: &str) -> Result<Self, WordsError> {
        match words {
            "off" => Ok(Self::Off),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => {
                let all = "\"text\", \"json\" or \"off\"";
                Err(WordsError::Choice(words.into(), "form of an access log", all))
            }
        }
    }
}

impl FromStr for HostRewrite {
    type Err = WordsError;

    fn from_str(words: &str) -> Result<Self, WordsError> {
        match words {
            "keep" => return Ok(Self::Keep),
            "target" => return Ok(Self::Target),
            _ => {}
        }
        let wrong = |error| WordsError::HostRewrite(words.into(), error);
        match host_name(words) {
            Ok(host) => Ok(Self::Name(host)),
            Err(HostError::Port(all, host)) => {
                let port = words.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                let port = port
                    .filter(|port| *port != 0)
                    .ok_or_else(|| wrong(HostError::Port(all, host.clone())))?;
                host_name(&host).map(|host| Self::Name(format!("{host}:{port}"))).map_err(wrong)
            }
            Err(error) => Err(wrong(error)),
        }
    }
}
