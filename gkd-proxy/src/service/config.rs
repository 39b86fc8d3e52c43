//! What a front and its services are told ([`HttpConfig`]): plain data that has been judged, and how each part of it is
//! written down.
//!
//! Nothing is opened or resolved here; only [`CertificateFiles::check`] and [`TargetForm::check`] look at files, for a
//! `check` that wants to know. Reading a file as a whole, and what of it goes together with what, is the program's.
//!
//! | room | what is in it |
//! |---|---|
//! | `host` | hosts of services, exact and with a star, and how those of requests are compared with them |
//! | `names` | what a service is called, and which of these names a user may announce |
//! | `written` | the other words: places to listen at, targets, paths, methods |
//! | `files` | whether certificates, keys and folders are there, and whether they are what they should be |

mod files;
mod host;
mod names;
mod written;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::destination::Target;

pub use files::FileError;
pub use host::{HostError, HostPattern, host_name};
pub(super) use host::{HostForm, with_canonical};
pub use names::{MAX_SERVICE_NAME, NameError, NamePattern, ServiceNames, parse_name};
pub(super) use written::unescaped;
pub use written::{WordsError, parse_health_path, parse_path};

/// Failures in a row that take a target out where no health check says otherwise.
pub const DEFAULT_FALL: u32 = 3;

/// The largest weight of a target; the least is 1.
pub const MAX_WEIGHT: u32 = 1000;

/// A front and what it serves. [`HttpConfig::default`] listens nowhere and serves nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Where to listen. No address stands twice.
    pub listen: Vec<FrontListen>,
    /// Certificates, each with its key; which one is shown is chosen by the name that a visitor asks for. Not empty where
    /// something listens with TLS.
    pub certificates: Vec<CertificateFiles>,
    /// Whose `X-Forwarded-*`, `Forwarded` and PROXY header are believed. By default nobody's.
    pub trusted: Vec<IpNet>,
    /// Whether connections of those trusted begin with a PROXY header.
    pub proxy_header: bool,
    /// What is written about each request.
    pub access_log: AccessLog,
    /// In lower case, without a dot at its end. A service NAME that a user announces and no [`ServiceConfig`] describes is
    /// asked for as NAME.domain; without it there are none of that kind.
    pub domain: Option<String>,
    /// Bounds.
    pub limits: FrontLimits,
    /// In the order of the file. No name stands twice, nor a host with the same path.
    pub services: Vec<ServiceConfig>,
}

/// Where a front listens: `http://ADDRESS[:PORT]`, or `https://` for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FrontListen {
    /// Whether connections begin with TLS.
    pub tls: bool,
    /// Port 0 is any that is free.
    pub address: SocketAddr,
}

/// Files in PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CertificateFiles {
    /// The certificate, and those that lead from it to one that visitors trust.
    pub certificate: PathBuf,
    /// Its key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// What is written about each request to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLog {
    /// Nothing.
    #[default]
    Off,
    /// A line for people.
    Text,
    /// An object on a line of its own.
    Json,
}

/// Bounds on what visitors may have and how long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrontLimits {
    /// Bytes of a request's head; each connection may hold as much. Default 32 KiB.
    pub max_head: usize,
    /// Bytes of a request's body. By default there is no bound, for bodies are not held.
    pub max_body: Option<u64>,
    /// Connections of all visitors. Default 8192.
    pub connections: usize,
    /// Connections of one address. Default 1024: many visitors may share one.
    pub connections_per_address: usize,
    /// Requests a second of one address, none by default.
    pub requests_per_second: Option<u32>,
    /// For a request's head to come whole, the TLS handshake included. Default 10 s.
    pub head: Duration,
    /// For the next bytes of a body, of either end, and for a target's answer to begin. Default 60 s.
    pub silence: Duration,
    /// For the next request on a connection. Default 75 s.
    pub keep_alive: Duration,
    /// For a target to be reached. Default 5 s.
    pub connect: Duration,
}

impl Default for FrontLimits {
    fn default() -> Self {
        Self {
            max_head: 32 << 10,
            max_body: None,
            connections: 8192,
            connections_per_address: 1024,
            requests_per_second: None,
            head: Duration::from_secs(10),
            silence: Duration::from_secs(60),
            keep_alive: Duration::from_secs(75),
            connect: Duration::from_secs(5),
        }
    }
}

/// A service: what is asked for by these hosts and paths, and who answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceConfig {
    /// By [`parse_name`].
    pub name: String,
    /// Not empty.
    pub hosts: Vec<HostPattern>,
    /// By [`parse_path`]; not empty. `/` is everything.
    pub paths: Vec<String>,
    /// Those that are reached from here. Empty where users announce all of them.
    pub targets: Vec<TargetConfig>,
    /// Users who may announce it, and so share it with each other and with `targets`.
    pub users: Vec<String>,
    /// How a target is chosen.
    pub balance: Method,
    /// What a target reads as Host.
    pub host: HostRewrite,
    /// What comes of TLS and of its absence.
    pub https: Https,
    /// Whether a PROXY header goes ahead on each connection to a target, which then serves one visitor alone.
    pub send_proxy: bool,
    /// Requests that look whether a target is well; none by default.
    pub health: Option<HealthCheck>,
}

impl ServiceConfig {
    /// A service of this name with the path `/`, and all else as if the file did not say it.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            hosts: Vec::new(),
            paths: vec!["/".to_owned()],
            targets: Vec::new(),
            users: Vec::new(),
            balance: Method::default(),
            host: HostRewrite::default(),
            https: Https::default(),
            send_proxy: false,
            health: None,
        }
    }

    /// Failures in a row that take a target out.
    pub fn fall(&self) -> u32 {
        self.health.as_ref().map_or(DEFAULT_FALL, |health| health.fall)
    }
}

/// A target that is reached from here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TargetConfig {
    /// What it is.
    pub to: TargetForm,
    /// Its part of the requests, beside those of the others: 1 to [`MAX_WEIGHT`].
    pub weight: u32,
}

impl TargetConfig {
    /// A target of this weight, brought within its bounds.
    pub fn new(to: TargetForm, weight: u32) -> Self {
        Self { to, weight: weight.clamp(1, MAX_WEIGHT) }
    }
}

/// What a target is: `http://HOST[:PORT]`, `h2c://HOST[:PORT]` or `/FOLDER`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TargetForm {
    /// A web server that speaks HTTP/1.1 without TLS.
    Http(Target),
    /// One that speaks HTTP/2 without TLS and without being asked first (RFC 9113, section 3.3), as gRPC servers do.
    H2c(Target),
    /// Files, by the whole path of their folder.
    Folder(PathBuf),
}

/// How a target is chosen; see [`balance`](super::balance).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest requests under way for its weight.
    LeastConnections,
    /// The better of two that are drawn by weight.
    #[default]
    TwoChoices,
    /// Always the same for a visitor's address.
    Address,
}

/// What a target reads as Host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HostRewrite {
    /// What the visitor wrote.
    #[default]
    Keep,
    /// The target's own host and port.
    Target,
    /// This, a host with or without a port.
    Name(String),
}

/// What comes of TLS and of its absence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Https {
    /// The service answers either way.
    #[default]
    Both,
    /// Who comes without TLS is sent to the same place with it.
    Redirect,
    /// Who comes without TLS is told that there is nothing.
    Only,
}

/// Requests that look whether a target is well: it is when it answers with 200 to 399 in time.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthCheck {
    /// What is asked for, by [`parse_health_path`].
    pub path: String,
    /// From one to the next.
    pub interval: Duration,
    /// For the answer; not more than the interval.
    pub timeout: Duration,
    /// Good ones in a row that bring a target back.
    pub rise: u32,
    /// Bad ones in a row that take a target out; and failures of requests, too.
    pub fall: u32,
}

impl HealthCheck {
    /// A check of this path, all else as if the file did not say it.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: DEFAULT_FALL,
        }
    }
}

/// Why a user may not announce a service.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAnnounced {
    /// Nothing of what the user may announce covers it.
    #[error(
        "the service {0} is not among those that the user may announce: `services` of the user in server.toml would permit it"
    )]
    NotGranted(String),
    /// It is described, and for others.
    #[error("the service {0} is not the user's: `users` of its [[service]] in server.toml would permit it")]
    OfOthers(String),
    /// Nothing says by which host it would be asked for.
    #[error(
        "the service {0} has no host: a [[service]] in server.toml, or `domain` in [http], would give it one"
    )]
    NoHost(String),
}

impl HttpConfig {
    /// The service of this name.
    pub fn service(&self, name: &str) -> Option<&ServiceConfig> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Whether this user, who was granted these names, may announce a service.
    ///
    /// The `users` of a [`ServiceConfig`] decide where it has some. Where it has none, it is for whom its very name was
    /// granted to: one with a star does not reach what the server describes, so that it cannot be used to take a part of a
    /// service's visitors. What the server does not describe is for those whose names cover it, and has a host if there is
    /// a domain.
    ///
    /// # Errors
    /// The user may not: why.
    pub fn may_announce(&self, user: &str, granted: &ServiceNames, name: &str) -> Result<(), NotAnnounced> {
        let not_granted = || NotAnnounced::NotGranted(name.to_owned());
        match self.service(name) {
            Some(service) if service.users.iter().any(|one| one == user) => Ok(()),
            Some(service) if !service.users.is_empty() => Err(NotAnnounced::OfOthers(name.to_owned())),
            Some(_) => granted.names(name).then_some(()).ok_or_else(not_granted),
            None if !granted.permit(name) => Err(not_granted()),
            None if self.domain.is_none() => Err(NotAnnounced::NoHost(name.to_owned())),
            None => Ok(()),
        }
    }

    /// The host of a service that users announce and no [`ServiceConfig`] describes, if there is a domain.
    pub fn announced_host(&self, name: &str) -> Option<HostPattern> {
        let domain = self.domain.as_ref()?;
        format!("{name}.{domain}").parse().ok()
    }

    /// Whether something listens with TLS.
    pub fn has_tls(&self) -> bool {
        self.listen.iter().any(|listen| listen.tls)
    }
}
