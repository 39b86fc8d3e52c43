//! What a visitor sees who comes to a server's port with HTTP that is no tunnel ([`Site`]): the files of a folder, or what
//! a web server behind it answers.
//!
//! A site is told how it is written down ([`SiteConfig`]) and answers one request at a time; whoever calls reads the
//! requests and bounds how many visitors there are. No answer of ours says what runs here. A body that ends in an error
//! is not whole: whoever writes it must not let the connection end as if it were.

mod backend;
mod body;
mod folder;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};

use self::backend::Backend;
use self::folder::Folder;
use crate::destination::{DestinationError, Host, Target};

/// The body of a site's answer; an error means that it is not whole.
pub type SiteBody = BoxBody<Bytes, io::Error>;

/// Answers a request of the visitor at an address.
pub type SiteService =
    Arc<dyn Fn(Request<Incoming>, SocketAddr) -> BoxFuture<'static, Response<SiteBody>> + Send + Sync>;

/// Where a site's answers come from: `/FOLDER`, or `http://HOST[:PORT]` for a web server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SiteConfig {
    /// A folder, by its whole path.
    Folder(PathBuf),
    /// A web server that speaks HTTP without TLS.
    Backend(Target),
}

/// Why words are no site, or the site is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SiteError {
    /// Nothing.
    #[error("the site is empty: write the path of a folder or http://HOST:PORT, or leave it out")]
    Empty,
    /// A path that depends on where the program was started.
    #[error("\"{}\" is no whole path: write one that begins with /, or http://HOST:PORT", .0.escape_debug())]
    Relative(String),
    /// A web server that is spoken to otherwise.
    #[error("a site at {}:// is not to be had: write http://HOST:PORT, or the path of a folder", .0.escape_debug())]
    Scheme(String),
    /// Something behind the port, or in front of the host.
    #[error("\"{}\" is more than http://HOST:PORT: a site has no path and no user there", .0.escape_debug())]
    More(String),
    /// The host or the port is none.
    #[error("the site's web server is wrong: {0}")]
    Target(#[from] DestinationError),
    /// The folder cannot be looked at.
    #[error("the site's folder {} cannot be read: {error}: make it, or write another", path.display())]
    NotThere {
        /// The path.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// It is a file, say.
    #[error("the site {} is no folder: write the path of one", .0.display())]
    NoFolder(PathBuf),
}

impl SiteConfig {
    /// Looks whether the folder is there. Does not ask a web server, which may come and go.
    ///
    /// # Errors
    /// It is not, or is no folder.
    pub fn check(&self) -> Result<(), SiteError> {
        let Self::Folder(path) = self else { return Ok(()) };
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(SiteError::NoFolder(path.clone())),
            Err(error) => Err(SiteError::NotThere { path: path.clone(), error: error.to_string() }),
        }
    }
}

impl FromStr for SiteConfig {
    type Err = SiteError;

    fn from_str(words: &str) -> Result<Self, SiteError> {
        if words.trim().is_empty() {
            return Err(SiteError::Empty);
        }
        let Some((scheme, rest)) = words.split_once("://") else {
            let path = Path::new(words);
            return match path.is_absolute() {
                true => Ok(Self::Folder(path.to_owned())),
                false => Err(SiteError::Relative(words.to_owned())),
            };
        };
        if !scheme.eq_ignore_ascii_case("http") {
            return Err(SiteError::Scheme(scheme.to_owned()));
        }
        let place = rest.strip_suffix('/').unwrap_or(rest);
        if place.contains(['/', '?', '#', '@']) {
            return Err(SiteError::More(words.to_owned()));
        }
        // Without a port it is that of HTTP; the colons of IPv6 stand in brackets.
        let has_port = place.rfind(':') > place.rfind(']');
        let target = match has_port {
            true => place.parse()?,
            false => Target::new(Host::parse(place)?, 80)?,
        };
        Ok(Self::Backend(target))
    }
}

impl fmt::Display for SiteConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => path.display().fmt(f),
            Self::Backend(target) => write!(f, "http://{target}"),
        }
    }
}

/// A site. Cheap to clone.
#[derive(Clone)]
pub struct Site {
    source: Source,
}

#[derive(Clone)]
enum Source {
    Folder(Arc<Folder>),
    Backend(Arc<Backend>),
}

impl Site {
    /// A site whose visitors come without TLS.
    pub fn new(config: SiteConfig) -> Self {
        Self::with(config, false)
    }

    /// A site whose visitors come over TLS, which ends in front of it: what a web server is told of them.
    pub fn over_tls(config: SiteConfig) -> Self {
        Self::with(config, true)
    }

    fn with(config: SiteConfig, tls: bool) -> Self {
        let source = match config {
            SiteConfig::Folder(path) => Source::Folder(Arc::new(Folder::new(path))),
            SiteConfig::Backend(target) => Source::Backend(Arc::new(Backend::new(target, tls))),
        };
        Self { source }
    }

    /// What answers its visitors, one request a call. A call that is dropped gives the request up.
    pub fn service(self) -> SiteService {
        Arc::new(move |request, visitor| match self.source.clone() {
            Source::Folder(folder) => Box::pin(async move { folder.answer(request).await }),
            Source::Backend(backend) => Box::pin(async move { backend.answer(request, visitor).await }),
        })
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Folder(folder) => write!(f, "Site({})", folder.root().display()),
            Source::Backend(backend) => write!(f, "Site(http://{})", backend.target()),
        }
    }
}

/// An answer that says nothing but its status.
pub(crate) fn page(status: StatusCode) -> Response<SiteBody> {
    let mut response = Response::new(page_body(status));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HTML);
    response
}

/// The type of such a page.
pub(crate) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

fn page_body(status: StatusCode) -> SiteBody {
    let words = status.canonical_reason().unwrap_or("Error");
    let title = format!("{} {words}", status.as_u16());
    let page = format!(
        "<!DOCTYPE html>\n<html><head><title>{title}</title></head>\n<body><h1>{title}</h1></body></html>\n"
    );
    Full::from(page).map_err(|never: Infallible| match never {}).boxed()
}
