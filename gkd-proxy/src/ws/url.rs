//! The address of a WebSocket server: [`WsUrl`] (RFC 6455, section 3).

use std::fmt;
use std::str::FromStr;

use crate::destination::{DestinationError, Target};

/// The longest path with its query, in bytes. Servers refuse request lines that are much longer.
const MAX_PATH: usize = 4096;

/// `ws://HOST[:PORT][/PATH][?QUERY]`, or `wss://` with TLS. Without a port, 80 or 443; an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WsUrl {
    secure: bool,
    target: Target,
    /// With its query: what a request asks for.
    path: Box<str>,
}

/// Why words are no address of a WebSocket server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WsUrlError {
    /// Another scheme, or none.
    #[error("\"{}\" is no WebSocket address: write ws://HOST:PORT/PATH or wss://HOST:PORT/PATH", .0.escape_debug())]
    Scheme(Box<str>),
    /// A user, which browsers do not send either.
    #[error("a WebSocket address takes no USER:PASS@: leave it out")]
    User,
    /// A fragment, which no WebSocket address may have.
    #[error("a WebSocket address has no fragment: leave out what begins with #, or write %23")]
    Fragment,
    /// A host that cannot stand in a request.
    #[error(
        "the host \"{}\" cannot be asked for, as it holds {:?}: write its name as the DNS has it, such as \
         xn--mnchen-3ya.example",
        .0.escape_debug(),
        .1
    )]
    HostCharacter(Box<str>, char),
    /// A path that cannot stand in a request.
    #[error("the path \"{}\" cannot be asked for: escape {:?} with %", .0.escape_debug(), .1)]
    PathCharacter(Box<str>, char),
    /// A path that no server would take.
    #[error("the path has {0} bytes, more than {MAX_PATH}: shorten it")]
    LongPath(usize),
    /// Host or port are none.
    #[error("{0}")]
    Target(#[from] DestinationError),
}

/// What stands behind `ws://` or `wss://`, in its parts.
pub(crate) struct Parts<'a> {
    pub(crate) secure: bool,
    pub(crate) host: &'a str,
    /// None where it is left out.
    pub(crate) port: Option<&'a str>,
    pub(crate) path: Box<str>,
}

impl<'a> Parts<'a> {
    pub(crate) fn of(words: &'a str) -> Result<Self, WsUrlError> {
        let scheme = |word: &str| words.get(..word.len()).is_some_and(|it| it.eq_ignore_ascii_case(word));
        let (secure, rest) = match (scheme("ws://"), scheme("wss://")) {
            (true, _) => (false, &words["ws://".len()..]),
            (_, true) => (true, &words["wss://".len()..]),
            _ => return Err(WsUrlError::Scheme(words.into())),
        };
        if rest.contains('#') {
            return Err(WsUrlError::Fragment);
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(WsUrlError::User);
        }
        if path.len() > MAX_PATH {
            return Err(WsUrlError::LongPath(path.len()));
        }
        if let Some(c) = foreign(path) {
            return Err(WsUrlError::PathCharacter(path.into(), c));
        }
        if let Some(c) = foreign(authority) {
            return Err(WsUrlError::HostCharacter(authority.into(), c));
        }
        let path = if path.starts_with('/') { path.into() } else { format!("/{path}").into() };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        Ok(Self { secure, host, port, path })
    }

    pub(crate) fn default_port(&self) -> u16 {
        default_port(self.secure)
    }
}

/// The first character that may not stand in a request; the rest of RFC 3986 is the server's affair.
pub(super) fn foreign(words: &str) -> Option<char> {
    words.chars().find(|c| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(*c))
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

impl WsUrl {
    /// From parts that were checked.
    pub(crate) fn new(secure: bool, target: Target, path: Box<str>) -> Self {
        Self { secure, target, path }
    }

    /// The same at another port.
    pub(crate) fn at(&self, port: u16) -> Result<Self, DestinationError> {
        Ok(Self { target: Target::new(self.target.host().clone(), port)?, ..self.clone() })
    }

    /// Whether TLS is spoken.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Where the server is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What is asked for, with its query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `ws` or `wss`.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.secure { "wss" } else { "ws" }
    }

    /// What stands in the header `Host`.
    pub(super) fn host_header(&self) -> String {
        match self.target.port() == default_port(self.secure) {
            true => self.target.host().to_string(),
            false => self.target.to_string(),
        }
    }
}

impl FromStr for WsUrl {
    type Err = WsUrlError;

    fn from_str(words: &str) -> Result<Self, Self::Err> {
        let parts = Parts::of(words)?;
        let port = parts.port.map_or_else(|| parts.default_port().to_string(), str::to_owned);
        Ok(Self { secure: parts.secure, target: format!("{}:{port}", parts.host).parse()?, path: parts.path })
    }
}

impl fmt::Display for WsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme(), self.target, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (words, shown, header) in [
            ("ws://a.example", "ws://a.example:80/", "a.example"),
            ("WSS://a.example", "wss://a.example:443/", "a.example"),
            ("ws://a.example:8081/x/y?z=1&w=/", "ws://a.example:8081/x/y?z=1&w=/", "a.example:8081"),
            ("wss://[::1]:80?q", "wss://[::1]:80/?q", "[::1]:80"),
            ("ws://[::1]/", "ws://[::1]:80/", "[::1]"),
        ] {
            let url: WsUrl = words.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.host_header().as_str()), (shown, header));
        }
    }

    #[test]
    fn each_mistake_is_named() {
        use WsUrlError as E;
        for (words, expected) in [
            ("", E::Scheme("".into())),
            ("http://a/", E::Scheme("http://a/".into())),
            ("é", E::Scheme("é".into())),
            ("ws://me:pass@a/", E::User),
            ("ws://a/#b", E::Fragment),
            ("ws://a/b c", E::PathCharacter("/b c".into(), ' ')),
            ("ws://a/b\r\nX: y", E::PathCharacter("/b\r\nX: y".into(), '\r')),
            ("ws://a/é", E::PathCharacter("/é".into(), 'é')),
            ("ws://münchen.example/", E::HostCharacter("münchen.example".into(), 'ü')),
            ("ws://a\r\nX:1/", E::HostCharacter("a\r\nX:1".into(), '\r')),
            ("ws://<a>/", E::HostCharacter("<a>".into(), '<')),
            ("ws:///x", E::Target(DestinationError::EmptyName)),
            ("ws://a:0/", E::Target(DestinationError::PortZero)),
            ("ws://a:+1/", E::Target(DestinationError::NotHostPort("a:+1".into()))),
            ("ws://::1/", E::Target(DestinationError::NotHostPort("::1".into()))),
        ] {
            assert_eq!(words.parse::<WsUrl>(), Err(expected), "{words}");
        }
        let long = format!("ws://a/{}", "x".repeat(MAX_PATH));
        assert_eq!(long.parse::<WsUrl>(), Err(E::LongPath(MAX_PATH + 1)));
    }
}
