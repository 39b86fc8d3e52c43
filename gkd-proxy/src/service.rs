//! HTTP services: what a server answers by the name that a request asks for.
//!
//! A front takes connections and reads requests; each goes to the service that its host and path name, and there to one of
//! the service's targets: a web server, a folder, or what a client behind NAT announced. Nothing is held whole: bodies
//! pass as they come, in both directions.

pub mod access_log;
pub mod announce;
pub mod balance;
pub mod certificates;
pub mod config;
mod desertion;
pub mod error_page;
mod exchange;
pub mod files;
pub mod form;
pub(crate) mod forwarded;
pub mod front;
mod hearing;
pub mod name;
mod passage;
mod pool;
mod probe;
pub mod route;
pub mod services;
mod target;
mod template;
mod upgrade;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::UnsyncBoxBody;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub use self::passage::Passage;

/// The most headers of a request or an answer. For as many hyper has room of its own; where it is told of another number it
/// allocates for each head.
pub(crate) const MAX_HEADERS: usize = 100;

/// The body of an answer; an error means that it is not whole.
pub type ServiceBody = UnsyncBoxBody<Bytes, io::Error>;

/// How a request came in.
#[derive(Clone, Debug)]
pub struct Visit {
    /// Who asked: the other end of the TCP connection, or whom a PROXY header of a trusted one names.
    pub client: SocketAddr,
    /// The other end of the TCP connection itself.
    pub peer: SocketAddr,
    /// Where the connection came in.
    pub local: SocketAddr,
    /// Whether it is TLS.
    pub tls: bool,
    /// Names this request in the log, in headers and on error pages.
    pub id: Arc<str>,
}

/// A stream of bytes to a target.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream of bytes to a target, whatever it is.
pub type BoxIo = Box<dyn Stream>;

/// Why no connection was opened where this end lacks something for it: it says nothing of the target. Within the
/// [`io::Error`] of [`Reach::dial`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Lack(pub String);

/// The way to one target, which opens connections to it.
pub trait Reach: Send + Sync + 'static {
    /// Opens a connection. Dropping the future gives it up.
    ///
    /// # Errors
    /// The target was not reached; the words say why, without the target's name.
    fn dial(&self) -> BoxFuture<'static, io::Result<BoxIo>>;

    /// What the log and the status call the target.
    fn name(&self) -> &str;

    /// Whether there is a way to the target, as that changes. None where only an attempt tells.
    fn passage(&self) -> Option<watch::Receiver<Passage>> {
        None
    }
}
