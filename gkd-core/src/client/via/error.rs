//! What is wrong with a proxy's URL, and why a proxy led to no server: one sentence each, with the cause and the mend.

use std::io;

use crate::link::AddressError;

/// Why a text is not a proxy. Shows nothing of user and password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ViaError {
    /// Nothing at all, or nothing behind the password.
    #[error("there is no proxy: write http://HOST:PORT")]
    Empty,
    /// More than any proxy's URL has.
    #[error("it is too long for the URL of a proxy: write http://HOST:PORT")]
    TooLong,
    /// A proxy that is spoken to otherwise.
    #[error("a proxy of {0}:// cannot be used: give one that takes CONNECT at http://HOST:PORT")]
    Scheme(String),
    /// What stands in front of `://` is no scheme.
    #[error("this is not the URL of a proxy: write http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT")]
    NoScheme,
    /// Blanks, or worse.
    #[error("the proxy's URL has a blank or a control character within: write a blank of a password as %20")]
    Blank,
    /// No port: programs differ in which one is meant.
    #[error("the proxy {0} has no port: write http://HOST:PORT, 3128 and 8080 are usual ones")]
    NoPort(String),
    /// A range.
    #[error("the proxy has several ports: write one")]
    SeveralPorts,
    /// A path, a query or a fragment.
    #[error("something stands behind the proxy's port: leave it out")]
    Behind,
    /// The host or the port is none.
    #[error("the proxy's address is wrong: {0}")]
    Address(#[source] AddressError),
    /// Nothing in front of the `@`.
    #[error(
        "there is no user in front of the proxy's @: write http://USER:PASSWORD@HOST:PORT, or leave the @ out"
    )]
    NoUser,
    /// A `%` that two hexadecimal digits do not follow, or bytes that are no text.
    #[error("the proxy's user or password holds a broken % escape: write % itself as %25")]
    Escape,
    /// A colon in the user's name.
    #[error(
        "the user's name for the proxy holds a colon, which no proxy could tell from the password's beginning"
    )]
    Colon,
    /// Control characters.
    #[error("the proxy's user or password holds a control character, which none can have")]
    Control,
}

impl ViaError {
    /// Another scheme than http. What could be a part of a password is not shown.
    pub(super) fn of_scheme(scheme: &str) -> Self {
        /// The longest that there is a proxy for is `socks5h`.
        const LONGEST: usize = 10;
        let is_scheme = (1..=LONGEST).contains(&scheme.len())
            && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if is_scheme { Self::Scheme(scheme.to_owned()) } else { Self::NoScheme }
    }
}

/// Why a proxy led to no server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The proxy's name has no address.
    #[error("the proxy's name {name} does not resolve ({source}): check --via, and this machine's network")]
    Resolve {
        /// The name.
        name: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No TCP connection to the proxy.
    #[error("the proxy at {proxy} cannot be reached: {source}")]
    Connect {
        /// The proxy, as it was named.
        proxy: String,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long.
    #[error(
        "the proxy at {proxy} did not lead to the server at {server} in time: one of the two does not answer"
    )]
    TimedOut {
        /// The proxy, as it was named.
        proxy: String,
        /// The server, as it was named.
        server: String,
    },
    /// It closed the connection instead of an answer, or within it.
    #[error(
        "the proxy at {proxy} closed the connection without an answer: check that it is an HTTP proxy which takes CONNECT"
    )]
    Closed {
        /// The proxy, as it was named.
        proxy: String,
    },
    /// What it said is not HTTP.
    #[error("what answers at {proxy} is no HTTP proxy: check the host and port of --via ({cause})")]
    NotHttp {
        /// The proxy, as it was named.
        proxy: String,
        /// By what it was told.
        cause: String,
    },
    /// It asks for a user and a password, and none was given.
    #[error("the proxy at {proxy} asks for a user and a password: --via http://USER:PASSWORD@{proxy}")]
    PasswordWanted {
        /// The proxy, as it was named.
        proxy: String,
    },
    /// It does not take those that were given.
    #[error(
        "the proxy at {proxy} refuses the user or the password: correct --via http://USER:PASSWORD@{proxy}, with % \
         escapes for characters that a URL cannot hold"
    )]
    PasswordRefused {
        /// The proxy, as it was named.
        proxy: String,
    },
    /// It asks for a proof of a kind that is not to be had here.
    #[error(
        "the proxy at {proxy} asks for a proof by {schemes}, and only Basic can be given: ask its administrator for a \
         user with Basic, or go through a local proxy that knows the other"
    )]
    NoBasic {
        /// The proxy, as it was named.
        proxy: String,
        /// What it takes, escaped.
        schemes: String,
    },
    /// It answered with another status than success.
    #[error("the proxy at {proxy} does not lead to the server at {server}: it answers {status} {reason}{}", mend(*status))]
    Refused {
        /// The proxy, as it was named.
        proxy: String,
        /// The server, as it was named.
        server: String,
        /// The status.
        status: u16,
        /// The words behind it, escaped.
        reason: String,
    },
}

impl ProxyError {
    /// Asking again will not help before somebody changes user or password.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::PasswordWanted { .. } | Self::PasswordRefused { .. } | Self::NoBasic { .. })
    }
}

/// What is to be done about a status.
fn mend(status: u16) -> &'static str {
    match status {
        403 => ": it may permit some hosts and ports only, 443 mostly; ask its administrator",
        502..=504 => ": it does not reach it; check the link's host and port",
        200..=499 => ": check that it is an HTTP proxy which takes CONNECT",
        _ => "",
    }
}
