//! The forms in which a user says what listens where: [`Listener`].
//!
//! | form | what it is |
//! |---|---|
//! | `mixed://[BIND:]PORT` | SOCKS5 and HTTP proxy on one port |
//! | `socks5://[USER:PASS@][BIND:]PORT` | SOCKS5 |
//! | `http://[USER:PASS@][BIND:]PORT` | HTTP proxy |
//! | `tcp://[BIND:]PORT:HOST:PORT` | fixed TCP forward |
//! | `tcp://[BIND:]PORT:unix:PATH` | fixed forward to a Unix socket |
//! | `udp://[BIND:]PORT:HOST:PORT` | fixed UDP forward |
//! | `ws://[BIND:]PORT:HOST:PORT` | accepts WebSocket, leads to plain TCP; or to `unix:PATH` |
//! | `tcp://[BIND:]PORT:ws://HOST:PORT/PATH` | accepts plain TCP, leads to a WebSocket server; `wss` too |
//!
//! BIND is an address, an IPv6 one in brackets. PORT may be a range `9000-9009`, where a target's is one of
//! the same length; as the port to listen on, 0 stands for any free one. `?strict=1` holds the answer to a
//! SOCKS or CONNECT request until the far end has connected; `?proxy=v2` puts the header of the PROXY
//! protocol in front of what a `tcp` or `ws` forward carries. A user's name and password may hold `%` escapes.
//!
//! For WebSocket there is more: `?text=1` sends text messages instead of binary ones, `?ping=SECONDS` says after how much
//! silence a ping is sent (0 for never), `?path=/PATH` and `?origin=https://HOST` narrow whose upgrades are taken, and
//! `?strict=1` holds the answer to one. Behind the address of a WebSocket server a question mark is part of that; a `#`, which
//! such an address cannot have, begins the options: `tcp://8082:ws://HOST/PATH?QUERY#text=1&protocol=NAME`.
//!
//! This file reads and shows the forms; what they do is in [`listen`](mod@crate::listen).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::credentials::Credentials;
use crate::destination::{Destination, DestinationError, Host, Target, UnixPath};
use crate::ws::form::{FromWs, Mapping, ToWs};
use crate::ws::url::Parts;
use crate::ws::{WsUrl, WsUrlError};

/// The most ports that one listener opens. Each takes a descriptor and a task.
pub const MAX_PORTS: usize = 1024;

/// What listens where, as one of the forms of [this module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The local address; none where the form leaves it open.
    pub bind: Option<IpAddr>,
    /// The ports to listen on.
    pub ports: Ports,
    /// What is spoken there.
    pub service: Service,
}

/// What a listener speaks, and where it leads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Service {
    /// SOCKS5 and HTTP proxy, told apart by the first byte.
    Mixed {
        /// Whether an answer waits for the far end.
        strict: bool,
    },
    /// SOCKS5.
    Socks5 {
        /// What a program must prove; none for no proof.
        credentials: Option<Credentials>,
        /// Whether an answer waits for the far end.
        strict: bool,
    },
    /// HTTP proxy.
    Http {
        /// What a program must prove; none for no proof.
        credentials: Option<Credentials>,
        /// Whether an answer to CONNECT waits for the far end.
        strict: bool,
    },
    /// A fixed TCP forward.
    Tcp {
        /// The host that is dialled.
        host: Host,
        /// Its ports: as many as are listened on, the first for the first.
        ports: Ports,
        /// Whether the PROXY protocol's header (version 2) goes ahead.
        proxy_header: bool,
    },
    /// A fixed forward from TCP to a Unix socket at the end that dials.
    Unix {
        /// Where it is.
        path: UnixPath,
        /// Whether the PROXY protocol's header (version 2) goes ahead.
        proxy_header: bool,
    },
    /// A fixed UDP forward.
    Udp {
        /// The host that datagrams go to.
        host: Host,
        /// Its ports, likewise.
        ports: Ports,
    },
    /// A fixed forward from WebSocket to what is plain.
    FromWs {
        /// Where it leads.
        to: Plain,
        /// What else was said.
        options: FromWs,
    },
    /// A fixed forward from TCP to a WebSocket server.
    ToWs {
        /// The server, at the first of its ports.
        url: WsUrl,
        /// Its ports: as many as are listened on, the first for the first.
        ports: Ports,
        /// What else was said.
        options: ToWs,
    },
}

/// Where a forward from WebSocket leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plain {
    /// To a host and its ports: as many as are listened on, the first for the first.
    Tcp(Host, Ports),
    /// To a Unix socket at the end that dials.
    Unix(UnixPath),
}

/// One port, or a range of them: never empty, at most [`MAX_PORTS`], 0 only alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    first: u16,
    last: u16,
}

/// Why words are not a listener. The form that it shows has no password in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("listener \"{form}\": {cause}")]
pub struct ListenerError {
    /// What was written, escaped, without the password.
    pub form: String,
    /// What is wrong with it.
    pub cause: ListenerErrorCause,
}

/// What is wrong with a listener's form, with the mend.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenerErrorCause {
    /// Nothing stands before `://`.
    #[error("it does not say what listens: begin with mixed://, socks5://, http://, tcp://, udp:// or ws://")]
    NoScheme,
    /// What stands before `://` is unknown.
    #[error("\"{}\" is not known: take mixed, socks5, http, tcp, udp or ws", .0.escape_debug())]
    UnknownScheme(String),
    /// The local address is none.
    #[error("\"{}\" is not an address to listen on: write one such as 127.0.0.1 or [::1], not a name", .0.escape_debug())]
    Bind(String),
    /// A port is none.
    #[error("\"{}\" is not a port: write a number up to 65535 or a range such as 9000-9009", .0.escape_debug())]
    Port(String),
    /// A range that runs backwards, begins at 0 or is too long.
    #[error("the range {0} is not one of 1 to {MAX_PORTS} ports, the lower first")]
    Range(String),
    /// The target's range has another length.
    #[error("it listens on {0} ports and leads to {1}: both ranges must be equally long")]
    UnequalRanges(usize, usize),
    /// A proxy with something behind its port.
    #[error("write {0}://[BIND:]PORT; an IPv6 address goes in brackets")]
    ProxyForm(&'static str),
    /// A forward whose parts do not fit the form.
    #[error(
        "write {0}://[BIND:]PORT:HOST:PORT, or for tcp and ws PORT:unix:PATH; an IPv6 address goes in brackets"
    )]
    ForwardForm(&'static str),
    /// The target is no destination.
    #[error("it leads nowhere: {0}")]
    Target(#[from] DestinationError),
    /// What a forward to a WebSocket server leads to is none.
    #[error("it leads to no WebSocket server: {0}")]
    Url(#[from] WsUrlError),
    /// A user where none is asked for.
    #[error("{0} takes no USER:PASS@; socks5 and http do")]
    NoUser(&'static str),
    /// A user and password that cannot be.
    #[error("{0}")]
    User(#[from] crate::credentials::CredentialsError),
    /// An option that is unknown, or not for this service.
    #[error("{service} has no option \"{}\": {mend}", .option.escape_debug())]
    Option {
        /// The service.
        service: &'static str,
        /// What was written.
        option: String,
        /// What could be written.
        mend: &'static str,
    },
}

impl Listener {
    /// The address to listen on: 127.0.0.1 where the form leaves it open.
    pub fn bind_or_loopback(&self) -> IpAddr {
        self.bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    }
}

/// The proxy that a client offers when nothing else was asked for: `mixed://127.0.0.1:1080`.
impl Default for Listener {
    fn default() -> Self {
        Self {
            bind: None,
            ports: Ports { first: 1080, last: 1080 },
            service: Service::Mixed { strict: false },
        }
    }
}

impl Service {
    /// The word that stands before `://`.
    pub fn scheme(&self) -> &'static str {
        match self {
            Self::Mixed { .. } => "mixed",
            Self::Socks5 { .. } => "socks5",
            Self::Http { .. } => "http",
            Self::Tcp { .. } | Self::Unix { .. } => "tcp",
            Self::Udp { .. } => "udp",
            Self::FromWs { .. } => "ws",
            // As the program sees it.
            Self::ToWs { .. } => "tcp",
        }
    }

    /// Where a forward leads from the port with this index; none where programs say where to.
    pub fn destination(&self, index: usize) -> Option<Destination> {
        let target = |host: &Host, ports: &Ports| {
            // Of a listener that was read from its form, every port has a target.
            Target::new(host.clone(), ports.iter().nth(index)?).ok()
        };
        match self {
            Self::Tcp { host, ports, .. } => target(host, ports).map(Destination::Tcp),
            Self::Udp { host, ports } => target(host, ports).map(Destination::Udp),
            Self::Unix { path, .. } | Self::FromWs { to: Plain::Unix(path), .. } => {
                Some(Destination::Unix(path.clone()))
            }
            Self::FromWs { to: Plain::Tcp(host, ports), .. } => target(host, ports).map(Destination::Tcp),
            Self::ToWs { url, ports, .. } => target(url.target().host(), ports).map(Destination::Tcp),
            _ => None,
        }
    }

    /// What is done with the bytes of a program on their way from the port with this index; none for a forward of bytes.
    pub(crate) fn mapping(&self, index: usize) -> Option<Mapping> {
        match self {
            Self::FromWs { options, .. } => Some(Mapping::FromWs(options.clone())),
            Self::ToWs { url, ports, options } => {
                Some(Mapping::ToWs(url.at(ports.iter().nth(index)?).ok()?, options.clone()))
            }
            _ => None,
        }
    }
}

impl Ports {
    /// The ports from one to another; none when they run backwards, are too many, or begin at 0 and go on.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        let right = first == last || (0 < first && first < last && usize::from(last - first) < MAX_PORTS);
        right.then_some(Self { first, last })
    }

    /// The lowest; 0 for any one.
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The highest.
    pub fn last(&self) -> u16 {
        self.last
    }

    /// How many ports.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        usize::from(self.last - self.first) + 1
    }

    /// The ports, the lowest first.
    pub fn iter(&self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl FromStr for Ports {
    type Err = ListenerErrorCause;

    fn from_str(words: &str) -> Result<Self, Self::Err> {
        // `parse` would take a sign as well.
        let port = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse().map_err(|_| ListenerErrorCause::Port(words.into())),
            false => Err(ListenerErrorCause::Port(words.into())),
        };
        let Some((first, last)) = words.split_once('-') else {
            let first = port(words)?;
            return Ok(Self { first, last: first });
        };
        let (first, last): (u16, u16) = (port(first)?, port(last)?);
        match Self::new(first, last) {
            Some(ports) if first > 0 => Ok(ports),
            _ => Err(ListenerErrorCause::Range(words.into())),
        }
    }
}

impl FromStr for Listener {
    type Err = ListenerError;

    fn from_str(words: &str) -> Result<Self, Self::Err> {
        parse(words).map_err(|cause| ListenerError { form: without_password(words), cause })
    }
}

/// A form as it may stand in a message.
fn without_password(words: &str) -> String {
    let shown = match (words.split_once("://"), words.rfind('@')) {
        (Some((scheme, _)), Some(at)) => format!("{scheme}://***{}", &words[at..]),
        _ => words.to_owned(),
    };
    shown.escape_debug().to_string()
}

fn parse(words: &str) -> Result<Listener, ListenerErrorCause> {
    let (scheme, rest) = words.split_once("://").ok_or(ListenerErrorCause::NoScheme)?;
    let scheme = match scheme {
        "mixed" => "mixed",
        "socks5" => "socks5",
        "http" => "http",
        "tcp" => "tcp",
        "udp" => "udp",
        "ws" => "ws",
        "" => return Err(ListenerErrorCause::NoScheme),
        other => return Err(ListenerErrorCause::UnknownScheme(other.into())),
    };
    if scheme == "tcp" && rest.contains("://") {
        return parse_to_ws(rest);
    }
    // The last @, for a password may hold one.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(user), rest),
        None => (None, rest),
    };
    let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
    let options = Options::parse(scheme, options)?;
    if let "tcp" | "udp" | "ws" = scheme {
        if user.is_some() {
            return Err(ListenerErrorCause::NoUser(scheme));
        }
        return parse_forward(scheme, place, &options);
    }
    let (bind, ports) = parse_place(place).ok_or(ListenerErrorCause::ProxyForm(scheme))?;
    let bind = bind.map(parse_bind).transpose()?;
    let credentials = user.map(Credentials::parse).transpose()?;
    let strict = options.strict;
    let service = match (scheme, credentials) {
        ("socks5", credentials) => Service::Socks5 { credentials, strict },
        ("http", credentials) => Service::Http { credentials, strict },
        (_, None) => Service::Mixed { strict },
        (_, Some(_)) => return Err(ListenerErrorCause::NoUser(scheme)),
    };
    Ok(Listener { bind, ports: ports.parse()?, service })
}

fn parse_forward(
    scheme: &'static str,
    place: &str,
    options: &Options,
) -> Result<Listener, ListenerErrorCause> {
    if let ("tcp" | "ws", Some((listen, path))) = (scheme, place.split_once(":unix:")) {
        let (bind, ports) = parse_place(listen).ok_or(ListenerErrorCause::ForwardForm(scheme))?;
        let (bind, ports): (_, Ports) = (bind.map(parse_bind).transpose()?, ports.parse()?);
        if ports.len() > 1 {
            return Err(ListenerErrorCause::UnequalRanges(ports.len(), 1));
        }
        let path = UnixPath::new(path)?;
        let service = match scheme {
            "ws" => Service::FromWs { to: Plain::Unix(path), options: options.from_ws.clone() },
            _ => Service::Unix { path, proxy_header: options.proxy_header },
        };
        return Ok(Listener { bind, ports, service });
    }
    let (bind, listen, host, dial) = match split_colons(place)[..] {
        [listen, host, dial] => (None, listen, host, dial),
        [bind, listen, host, dial] => (Some(parse_bind(bind)?), listen, host, dial),
        _ => return Err(ListenerErrorCause::ForwardForm(scheme)),
    };
    let (ports, dialled): (Ports, Ports) = (listen.parse()?, dial.parse()?);
    if dialled.first == 0 {
        return Err(DestinationError::PortZero.into());
    }
    if ports.len() != dialled.len() {
        return Err(ListenerErrorCause::UnequalRanges(ports.len(), dialled.len()));
    }
    let host = Host::parse(host)?;
    let service = match scheme {
        "udp" => Service::Udp { host, ports: dialled },
        "ws" => Service::FromWs { to: Plain::Tcp(host, dialled), options: options.from_ws.clone() },
        _ => Service::Tcp { host, ports: dialled, proxy_header: options.proxy_header },
    };
    Ok(Listener { bind, ports, service })
}

/// `[BIND:]PORT:ws://HOST[:PORT][/PATH][?QUERY][#OPTIONS]`.
fn parse_to_ws(words: &str) -> Result<Listener, ListenerErrorCause> {
    // What stands ahead of the address ends with a colon, which is none of those within brackets.
    let scheme = words.find("://").unwrap_or(words.len());
    let Some(at) = words[..scheme].rfind(':') else {
        return Err(ListenerErrorCause::ForwardForm("tcp"));
    };
    let (place, address) = (&words[..at], &words[at + 1..]);
    let (address, list) = address.split_once('#').unwrap_or((address, ""));
    let mut options = ToWs::default();
    for option in list.split('&').filter(|option| !option.is_empty()) {
        if !options.take(option) {
            let (service, option) = ("a forward to WebSocket", option.to_owned());
            return Err(ListenerErrorCause::Option { service, option, mend: ToWs::OPTIONS });
        }
    }
    let (bind, listen) = parse_place(place).ok_or(ListenerErrorCause::ForwardForm("tcp"))?;
    let (bind, listen): (_, Ports) = (bind.map(parse_bind).transpose()?, listen.parse()?);
    let parts = Parts::of(address)?;
    let default = Ports { first: parts.default_port(), last: parts.default_port() };
    let ports = parts.port.map_or(Ok(default), str::parse)?;
    if listen.len() != ports.len() {
        return Err(ListenerErrorCause::UnequalRanges(listen.len(), ports.len()));
    }
    let target = Target::new(Host::parse(parts.host)?, ports.first)?;
    let url = WsUrl::new(parts.secure, target, parts.path);
    Ok(Listener { bind, ports: listen, service: Service::ToWs { url, ports, options } })
}

/// `[BIND:]PORT`, not read any further.
fn parse_place(place: &str) -> Option<(Option<&str>, &str)> {
    match split_colons(place)[..] {
        [ports] => Some((None, ports)),
        [bind, ports] => Some((Some(bind), ports)),
        _ => None,
    }
}

/// Parts between colons, those within brackets not counted.
fn split_colons(place: &str) -> Vec<&str> {
    let mut within = false;
    place
        .split(|c| {
            match c {
                '[' => within = true,
                ']' => within = false,
                _ => {}
            }
            c == ':' && !within
        })
        .collect()
}

fn parse_bind(bind: &str) -> Result<IpAddr, ListenerErrorCause> {
    match Host::parse(bind) {
        Ok(Host::Ip(ip)) => Ok(ip),
        _ => Err(ListenerErrorCause::Bind(bind.into())),
    }
}

/// What stands behind the question mark.
#[derive(Default)]
struct Options {
    strict: bool,
    proxy_header: bool,
    from_ws: FromWs,
}

impl Options {
    fn parse(scheme: &'static str, words: &str) -> Result<Self, ListenerErrorCause> {
        let mend = match scheme {
            "tcp" => "it has proxy=v2",
            "udp" => "it has none",
            "ws" => FromWs::OPTIONS,
            _ => "it has strict=1",
        };
        let mut options = Self::default();
        for option in words.split('&').filter(|option| !option.is_empty()) {
            match (option, scheme) {
                ("strict=1", "mixed" | "socks5" | "http") => options.strict = true,
                ("strict=0", "mixed" | "socks5" | "http") => options.strict = false,
                ("proxy=v2", "tcp") => options.proxy_header = true,
                (option, "ws") if options.from_ws.take(option) => {}
                _ => return Err(ListenerErrorCause::Option { service: scheme, option: option.into(), mend }),
            }
        }
        Ok(options)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, ports) => write!(f, "{host}:{ports}"),
            Self::Unix(path) => write!(f, "unix:{}", path.as_str().escape_debug()),
        }
    }
}

/// The form, with the address that it left open and without a password.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.service.scheme())?;
        if let Service::Socks5 { credentials: Some(_), .. } | Service::Http { credentials: Some(_), .. } =
            self.service
        {
            write!(f, "***@")?;
        }
        write!(f, "{}:{}", Host::Ip(self.bind_or_loopback()), self.ports)?;
        match &self.service {
            Service::Mixed { strict: true }
            | Service::Socks5 { strict: true, .. }
            | Service::Http { strict: true, .. } => write!(f, "?strict=1"),
            Service::Tcp { host, ports, proxy_header } => {
                write!(f, ":{host}:{ports}{}", if *proxy_header { "?proxy=v2" } else { "" })
            }
            Service::Unix { path, proxy_header } => {
                let options = if *proxy_header { "?proxy=v2" } else { "" };
                write!(f, ":unix:{}{options}", path.as_str().escape_debug())
            }
            Service::Udp { host, ports } => write!(f, ":{host}:{ports}"),
            Service::FromWs { to, options } => write!(f, ":{to}{options}"),
            Service::ToWs { url, ports, options } => {
                let host = url.target().host();
                write!(f, ":{}://{host}:{ports}{}{options}", url.scheme(), url.path())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
