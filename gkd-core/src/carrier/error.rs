//! Why a carrier's handshake failed.

use std::error::Error;
use std::io;

use gkd_proto::id::PeerId;

use super::CarrierKind;
use super::wire::TooMuch;
use super::ws::{Pin, Violation};
use crate::identity::public_text;

/// Why there is no carrier. Each names the cause and, where there is one, the mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierError {
    /// The server has another key than the link. On TLS it proved that it has it.
    #[error(
        "{server} proved another key than this link names (expected {}, got {}): \
         ask for a new link, or someone is in between",
        public_text(expected),
        public_text(got)
    )]
    WrongKey {
        /// The server in words: "the server at 192.0.2.1:9990"; see [`CarrierError::at`].
        server: String,
        /// The key that the link names.
        expected: PeerId,
        /// The key that the server has.
        got: PeerId,
    },
    /// Something answers there that is not a gkd server, or one of another version.
    #[error("{server} does not speak gkd: check the link's host and port ({cause})")]
    NotGkd {
        /// The server in words; see [`CarrierError::at`].
        server: String,
        /// By what it was told.
        cause: String,
    },
    /// Server: a TLS client that does not speak gkd inside.
    #[error("it speaks TLS but not gkd")]
    NotGkdClient,
    /// The other end broke a rule of TLS, or refuses to go on.
    #[error("the TLS handshake failed: {0}")]
    Tls(#[source] rustls::Error),
    /// The other end closed the connection before its handshake was done.
    #[error("the other end closed the connection during the handshake")]
    Closed,
    /// Client: the server takes encrypted tunnels only.
    #[error(
        "{server} does not take the unencrypted carrier, which both ends must ask for by name: \
         take a gkd:// link without --plain, or start the server with gkd-server run --plain"
    )]
    PlainRefused {
        /// The server in words; see [`CarrierError::at`].
        server: String,
    },
    /// Client: the server closed the connection upon the unencrypted carrier, without a word.
    #[error(
        "the server closed the connection without an answer: it may not speak gkd, check the link's host and port"
    )]
    PlainClosed,
    /// Server: the client asks for the unencrypted carrier.
    #[error("it asks for the unencrypted carrier, which this server does not take")]
    PlainNotTaken,
    /// Server: the client does not have the key that it names.
    #[error("its signature on the unencrypted carrier is wrong")]
    BadSignature,
    /// Server: the Hello is for another session or tunnel than the client signed for.
    #[error("its hello names another session or tunnel than it signed for")]
    OtherHello,
    /// More was sent than a handshake takes.
    #[error("it sent {TooMuch} before it proved a key")]
    TooMuch,
    /// The handshake took too long.
    #[error("the handshake was not done in time")]
    Deadline,
    /// There is no dialling that carrier.
    #[error("a carrier that is {0} cannot be dialled: use a link")]
    NotSupported(CarrierKind),
    /// Nothing says which WebSocket is asked for.
    #[error("a WebSocket needs a host and a path to ask for: use a link")]
    NoTarget,
    /// Client: the web server answers with something else than a WebSocket.
    #[error(
        "{server} answered {status} to the WebSocket upgrade at {path}: check the link's path and host{}",
        proxy_mend(*status)
    )]
    NoUpgrade {
        /// The server in words; see [`CarrierError::at`].
        server: String,
        /// What it was asked for.
        path: String,
        /// What it answered.
        status: hyper::StatusCode,
    },
    /// Client: the web server sends to another place.
    #[error(
        "{server} redirects the WebSocket upgrade at {path} to {to}: write that host and path into the link, \
         with gkd+wss:// if it is https"
    )]
    Redirected {
        /// The server in words; see [`CarrierError::at`].
        server: String,
        /// What it was asked for.
        path: String,
        /// Where it sends to, escaped.
        to: String,
    },
    /// Client: the web server goes on with something that is no WebSocket.
    #[error(
        "{server} does not answer the WebSocket upgrade as it has to, {cause}: check the link's path and host"
    )]
    BadUpgrade {
        /// The server in words; see [`CarrierError::at`].
        server: String,
        /// By what it was told.
        cause: String,
    },
    /// Client: what answers is no web server.
    #[error("{server} does not answer in HTTP: check the link's host and port ({cause})")]
    NotHttp {
        /// The server in words; see [`CarrierError::at`].
        server: String,
        /// By what it was told.
        cause: String,
    },
    /// Client: the web server's certificate is not right.
    #[error(
        "the certificate of {server} is not valid for {name}: {cause}; check the link's host and this machine's \
         clock, or pin the certificate's key with pin= in the link"
    )]
    WebCertificate {
        /// The server in words; see [`CarrierError::at`].
        server: String,
        /// What it should be for.
        name: String,
        /// What is wrong with it.
        cause: String,
    },
    /// Client: the web server has another key than the link pins.
    #[error(
        "the certificate of {server} has another key than the link pins (expected {expected}, got {got}): ask for \
         the server's new pin, or someone is in between"
    )]
    WrongPin {
        /// The server in words; see [`CarrierError::at`].
        server: String,
        /// What the link pins.
        expected: Pin,
        /// What the server has.
        got: Pin,
    },
    /// Client: no TLS with the web server.
    #[error(
        "the TLS of the web server failed at {server}: check the link's host and port, and take gkd+ws:// where no \
         web server stands in front ({cause})"
    )]
    WebTls {
        /// The server in words; see [`CarrierError::at`].
        server: String,
        /// How.
        cause: String,
    },
    /// Client: nothing vouches for a web server.
    #[error(
        "this machine has no root certificates to judge {server} by: install them (ca-certificates), name a file of \
         them in SSL_CERT_FILE, or pin the certificate's key with pin= in the link"
    )]
    NoRoots {
        /// The server in words; see [`CarrierError::at`].
        server: String,
    },
    /// The other end, or what is in between, broke a rule of WebSocket.
    #[error("the WebSocket was closed with code {code}: {violation}", code = .0.code(), violation = .0)]
    WebSocket(#[source] Violation),
    /// Encrypted to nobody in particular is no encryption.
    #[error("TLS needs the server's key: use a link, or ask for the unencrypted carrier by name")]
    NoServerKey,
    /// The connection below failed.
    #[error("the connection failed during the handshake: {0}")]
    Io(#[source] io::Error),
}

impl CarrierError {
    /// The same error with the server called by this name, as the link has it, instead of its address.
    #[must_use]
    pub fn at(mut self, name: impl std::fmt::Display) -> Self {
        match &mut self {
            Self::WrongKey { server, .. }
            | Self::NotGkd { server, .. }
            | Self::PlainRefused { server }
            | Self::NoUpgrade { server, .. }
            | Self::Redirected { server, .. }
            | Self::BadUpgrade { server, .. }
            | Self::NotHttp { server, .. }
            | Self::WebCertificate { server, .. }
            | Self::WrongPin { server, .. }
            | Self::WebTls { server, .. }
            | Self::NoRoots { server } => *server = format!("the server at {name}"),
            _ => {}
        }
        self
    }
}

impl From<rustls::Error> for CarrierError {
    fn from(error: rustls::Error) -> Self {
        Self::Tls(error)
    }
}

impl From<io::Error> for CarrierError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Closed;
        }
        let cause = error.get_ref();
        if cause.is_some_and(<dyn Error + Send + Sync>::is::<TooMuch>) {
            return Self::TooMuch;
        }
        match cause.and_then(<dyn Error + Send + Sync>::downcast_ref::<Violation>) {
            Some(violation) => Self::WebSocket(*violation),
            None => Self::Io(error),
        }
    }
}

/// What else to look at upon this answer. A gkd server gives it to a request that a proxy has taken apart.
fn proxy_mend(status: hyper::StatusCode) -> &'static str {
    if status == hyper::StatusCode::UPGRADE_REQUIRED {
        ", and that what stands in front of the server passes Upgrade and Connection on"
    } else {
        ""
    }
}

/// The server in words, by its address where it has one.
pub(super) fn server_at(address: Option<std::net::SocketAddr>) -> String {
    address.map_or_else(|| "the server".to_owned(), |address| format!("the server at {address}"))
}
