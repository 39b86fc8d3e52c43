//! What `server.toml` says ([`Config`]): reading it, and naming line and column of all that is wrong with it.
//!
//! Nothing is opened, resolved or bound here. A user's secret never stands in the file, the server's own
//! neither. What stands of users is read in `users`, of HTTP services in `services`.

mod services;
mod users;
mod websocket;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use gkd_core::carrier::ws::WebSocketConfig;
use gkd_core::proto::SessionConfig;
use gkd_core::socket::Congestion;
use gkd_proxy::SiteConfig;
use gkd_proxy::program::{self, Failure, Size, TimeoutError, Timeouts};
use gkd_proxy::rules::parse_range;
use gkd_proxy::service::config::HttpConfig;
use ipnet::IpNet;
use serde::Deserialize;
use toml::Spanned;

use crate::dir::Dir;
use crate::listen::{self, ListenAddress, MAX_LISTENERS};
use crate::public_name::PublicName;

use services::{WrittenHttp, WrittenService};
pub(crate) use users::User;
use users::WrittenUser;
use websocket::WrittenWebSocket;

/// Bounds of the memory of all sessions. The least is that of some clients, each with a few fast transfers.
const LEAST_MEMORY: Size = Size::from_mib(64);
const MOST_MEMORY: Size = Size::from_mib(1 << 20);

/// Sessions of one user.
const SESSIONS_OF_USER: RangeInclusive<usize> = 1..=4096;

/// Tunnels and connections of a session: the bounds of `SessionConfig::clamped`.
const TUNNELS: RangeInclusive<usize> = 1..=1024;
const CONNECTIONS: RangeInclusive<usize> = 1..=1 << 20;

/// Half-open tunnels: at least the 64 that one client may bring at a time.
const HALF_OPEN: RangeInclusive<usize> = 64..=65_536;

/// The most mistakes that are told at a time.
const MAX_PROBLEMS: usize = 20;

/// A configuration that is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// Where to listen; empty where the file does not say.
    pub(crate) listen: Vec<ListenAddress>,
    /// What links name.
    pub(crate) public: Option<PublicName>,
    /// What visitors see who come with HTTP that is no tunnel; nothing where the file does not say.
    pub(crate) site: Option<WrittenSite>,
    /// What may be dialled beside public addresses.
    pub(crate) allow: Vec<IpNet>,
    /// Congestion control of the tunnels.
    pub(crate) congestion: Congestion,
    /// Whether the unencrypted carrier is taken.
    pub(crate) plain: bool,
    /// Whether users may measure the way to this server.
    pub(crate) bench: bool,
    /// Which requests for a WebSocket become tunnels.
    pub(crate) websocket: WebSocketConfig,
    /// Bounds.
    pub(crate) limits: Limits,
    /// How long is waited for what.
    pub(crate) timeouts: Timeouts,
    /// The front for HTTP services, and these; none where the file has neither.
    pub(crate) http: Option<services::Http>,
    /// Who may come in. No name and no key stands twice.
    pub(crate) users: Vec<User>,
}

/// A site, and the line of the file that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenSite {
    pub(crate) config: SiteConfig,
    line: usize,
    column: usize,
}

/// Bounds on what all users, or one, may have at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) sessions: usize,
    pub(crate) sessions_per_user: usize,
    pub(crate) tunnels_per_session: usize,
    pub(crate) connections_per_session: u64,
    pub(crate) half_open: usize,
    pub(crate) half_open_per_address: usize,
    /// Of all sessions together.
    pub(crate) memory: Size,
}

impl Default for Limits {
    fn default() -> Self {
        let session = SessionConfig::default();
        Self {
            sessions: 1024,
            sessions_per_user: 32,
            tunnels_per_session: session.max_tunnels,
            connections_per_session: session.max_connections,
            half_open: 1024,
            half_open_per_address: 256,
            memory: Size::from_mib(1024),
        }
    }
}

/// The file as it stands, before it is judged.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct Written {
    listen: Vec<Spanned<String>>,
    public: Option<Spanned<String>>,
    site: Option<Spanned<String>>,
    allow: Vec<Spanned<String>>,
    congestion: Option<Spanned<String>>,
    plain: bool,
    bench: Option<bool>,
    websocket: WrittenWebSocket,
    limits: WrittenLimits,
    timeouts: BTreeMap<Spanned<String>, Spanned<String>>,
    http: Option<Spanned<WrittenHttp>>,
    service: Vec<WrittenService>,
    user: Vec<WrittenUser>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenLimits {
    sessions: Option<Spanned<i64>>,
    sessions_per_user: Option<Spanned<i64>>,
    tunnels_per_session: Option<Spanned<i64>>,
    connections_per_session: Option<Spanned<i64>>,
    half_open: Option<Spanned<i64>>,
    half_open_per_address: Option<Spanned<i64>>,
    memory: Option<Spanned<String>>,
}

impl Config {
    /// Reads and judges the file.
    ///
    /// # Errors
    /// It cannot be read, or is wrong: one line for each mistake.
    pub(crate) fn load(dir: &Dir) -> Result<Self, Failure> {
        let text = dir.read_config()?;
        Self::parse(&text).map_err(|problems| problems.of(&dir.config()))
    }

    /// Judges a text.
    pub(crate) fn parse(text: &str) -> Result<Self, Problems> {
        let mut judge = Judge { text, problems: Vec::new() };
        // A file that something emptied must not pass for one that lets nobody in.
        if text.trim().is_empty() {
            judge.complain(
                0..0,
                "the file is empty: put it back from a copy, or remove it and run gkd-server init",
            );
            return Err(Problems(judge.problems));
        }
        let config = match toml::from_str::<Written>(text) {
            Ok(written) => judge.config(written),
            Err(error) => {
                judge.complain(error.span().unwrap_or(0..0), program::with_mend(error.message()));
                return Err(Problems(judge.problems));
            }
        };
        if judge.problems.is_empty() { Ok(config) } else { Err(Problems(judge.problems)) }
    }

    /// What visitors see, if anything.
    pub(crate) fn site(&self) -> Option<&SiteConfig> {
        self.site.as_ref().map(|site| &site.config)
    }

    /// Looks whether the site's folder is there, which reading does not; the file is at this path.
    ///
    /// # Errors
    /// It is not: a line as for other mistakes.
    pub(crate) fn check_site(&self, path: &Path) -> Result<(), Failure> {
        let Some(WrittenSite { config, line, column }) = &self.site else { return Ok(()) };
        config.check().map_err(|error| {
            let problem = Problem { line: *line, column: *column, words: printable(&error.to_string()) };
            Problems(vec![problem]).of(path)
        })
    }

    /// The front for HTTP services, and these, if any.
    pub(crate) fn http(&self) -> Option<&HttpConfig> {
        self.http.as_ref().map(|http| &http.config)
    }

    /// Looks whether the files of the front and its services are there and right, which reading does not; the file is at this
    /// path.
    ///
    /// # Errors
    /// One is not: a line for each, as for other mistakes.
    pub(crate) fn check_http(&self, path: &Path) -> Result<(), Failure> {
        self.http.as_ref().map_or(Ok(()), |http| http.check(path))
    }

    /// The limits and time-outs as a session takes them.
    pub(crate) fn session(&self) -> SessionConfig {
        self.timeouts.session(SessionConfig {
            max_tunnels: self.limits.tunnels_per_session,
            max_connections: self.limits.connections_per_session,
            ..SessionConfig::default()
        })
    }
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problems(Vec<Problem>);

/// One mistake; line and column count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    line: usize,
    column: usize,
    words: String,
}

impl Problems {
    /// The failure of a command that needs the file to be right.
    pub(crate) fn of(&self, path: &Path) -> Failure {
        let all = self.0.iter().take(MAX_PROBLEMS);
        let mut lines: Vec<_> = all.map(|problem| format!("{}, {problem}", path.display())).collect();
        if self.0.len() > MAX_PROBLEMS {
            lines.push(format!("and {} more", self.0.len() - MAX_PROBLEMS));
        }
        Failure::config(lines.join("\n"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.words)
    }
}

/// Collects what is wrong with a text.
struct Judge<'a> {
    text: &'a str,
    problems: Vec<Problem>,
}

impl Judge<'_> {
    fn complain(&mut self, place: Range<usize>, words: impl fmt::Display) {
        let (line, column) = program::place(self.text, place.start);
        self.problems.push(Problem { line, column, words: printable(&words.to_string()) });
    }

    fn config(&mut self, written: Written) -> Config {
        let mut config = Config {
            listen: written.listen.iter().filter_map(|one| self.value(one)).collect(),
            public: written.public.as_ref().and_then(|one| self.value(one)),
            site: written.site.as_ref().and_then(|one| self.site(one)),
            allow: written.allow.iter().filter_map(|one| self.judged(one, parse_range)).collect(),
            congestion: written.congestion.as_ref().and_then(|one| self.value(one)).unwrap_or_default(),
            plain: written.plain,
            bench: written.bench.unwrap_or(true),
            websocket: self.websocket(&written.websocket),
            limits: self.limits(&written.limits),
            timeouts: self.timeouts(&written.timeouts),
            http: None,
            users: self.users(&written.user),
        };
        let usual = if config.listen.is_empty() { ListenAddress::usual() } else { Vec::new() };
        let own = if config.listen.is_empty() { &usual } else { &config.listen };
        config.http = self.http(written.http.as_ref(), &written.service, &written.user, own);
        if let Some(http) = &config.http {
            http.grant(&mut config.users);
        }
        let ports = listen::count(&config.listen);
        if let (true, Some(last)) = (ports > MAX_LISTENERS, written.listen.last()) {
            self.complain(last.span(), listen::too_many(ports));
        }
        config
    }

    fn site(&mut self, written: &Spanned<String>) -> Option<WrittenSite> {
        let config = self.value(written)?;
        let (line, column) = program::place(self.text, written.span().start);
        Some(WrittenSite { config, line, column })
    }

    fn value<T>(&mut self, written: &Spanned<String>) -> Option<T>
    where
        T: std::str::FromStr<Err: fmt::Display>,
    {
        self.judged(written, str::parse)
    }

    fn judged<T, E: fmt::Display>(
        &mut self,
        written: &Spanned<String>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(written.get_ref()).map_err(|error| self.complain(written.span(), error)).ok()
    }

    fn limits(&mut self, written: &WrittenLimits) -> Limits {
        let usual = Limits::default();
        let mut size =
            |written: &Option<_>, bounds, usual| self.size(written.as_ref(), bounds).unwrap_or(usual);
        let connections =
            size(&written.connections_per_session, CONNECTIONS, usual.connections_per_session as usize);
        let limits = Limits {
            sessions: size(&written.sessions, 1..=65_536, usual.sessions),
            sessions_per_user: size(&written.sessions_per_user, SESSIONS_OF_USER, usual.sessions_per_user),
            tunnels_per_session: size(&written.tunnels_per_session, TUNNELS, usual.tunnels_per_session),
            connections_per_session: connections as u64,
            half_open: size(&written.half_open, HALF_OPEN, usual.half_open),
            half_open_per_address: size(
                &written.half_open_per_address,
                HALF_OPEN,
                usual.half_open_per_address,
            ),
            memory: usual.memory,
        };
        let memory = written
            .memory
            .as_ref()
            .and_then(|written| self.judged(written, |words| Size::read(words, LEAST_MEMORY, MOST_MEMORY)));
        Limits { memory: memory.unwrap_or(usual.memory), ..limits }
    }

    /// A number within bounds; none where none is written, or a wrong one.
    fn size(&mut self, written: Option<&Spanned<i64>>, bounds: RangeInclusive<usize>) -> Option<usize> {
        let written = written?;
        let value = usize::try_from(*written.get_ref()).ok().filter(|value| bounds.contains(value));
        if value.is_none() {
            let (least, most) = bounds.into_inner();
            let words = format!("{} is out of bounds: write {least} to {most}", written.get_ref());
            self.complain(written.span(), words);
        }
        value
    }

    fn timeouts(&mut self, written: &BTreeMap<Spanned<String>, Spanned<String>>) -> Timeouts {
        let mut timeouts = Timeouts::default();
        for (name, words) in written {
            if let Err(error) = timeouts.set(name.get_ref(), words.get_ref()) {
                let place = if matches!(error, TimeoutError::Name(_)) { name } else { words };
                self.complain(place.span(), error);
            }
        }
        timeouts
    }
}

/// Without line breaks and escape sequences, which a file can smuggle into a message.
fn printable(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for c in words.trim().chars() {
        match c {
            '\n' => out.push_str(", "),
            c if c.is_control() => out.extend(c.escape_debug()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
