//! What is written down about HTTP services, judged already: where the front listens and within which limits.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// `[http]`, and what stands behind it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct HttpConfig {
    /// Where the front listens.
    pub listen: Vec<FrontListen>,
    /// The certificates of its TLS ports; the first is for names that none of them covers.
    pub certificates: Vec<CertificateFiles>,
    /// Whose word about a client is taken.
    pub trusted: Vec<IpNet>,
    /// Whether connections of those begin with a PROXY header.
    pub proxy_header: bool,
    /// How requests are logged.
    pub access_log: AccessLog,
    /// Limits of the front.
    pub limits: FrontLimits,
}

/// A port of the front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontListen {
    /// Whether TLS is spoken there.
    pub tls: bool,
    /// Where.
    pub address: SocketAddr,
}

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate and those that lead to a root, as PEM.
    pub certificate: PathBuf,
    /// Its key, as PEM.
    pub key: PathBuf,
}

/// How requests are logged on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLog {
    /// Not at all.
    #[default]
    Off,
    /// A line of text each.
    Text,
    /// A line of JSON each.
    Json,
}

/// Limits of the front.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FrontLimits {
    /// The most bytes of a request's head.
    pub max_head: usize,
    /// The most bytes of a request's body.
    pub max_body: Option<u64>,
    /// The most connections.
    pub connections: usize,
    /// The most of one address.
    pub connections_per_address: usize,
    /// The most requests a second of one address.
    pub requests_per_second: Option<u32>,
    /// How long a request's head may take, and what comes before the first one.
    pub head: Duration,
    /// How long nothing may move in the middle of a request or an answer.
    pub silence: Duration,
    /// How long a connection is kept for a next request.
    pub keep_alive: Duration,
    /// How long connecting to a target may take.
    pub connect: Duration,
}

impl Default for FrontLimits {
    fn default() -> Self {
        Self {
            max_head: 64 * 1024,
            max_body: None,
            connections: 10_000,
            connections_per_address: 2_000,
            requests_per_second: None,
            head: Duration::from_secs(10),
            silence: Duration::from_secs(60),
            keep_alive: Duration::from_secs(75),
            connect: Duration::from_secs(5),
        }
    }
}
