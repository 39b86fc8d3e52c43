//! A folder as a site: files by their path, `index.html` of folders, conditional requests and ranges. Nothing is listed,
//! and nothing is sent that is not in the folder.
//!
//! Links are followed as long as they lead to something within. Names that begin with a dot are not there for visitors,
//! `.well-known` excepted: they are mostly histories and passwords of whoever keeps the site. Whoever may write to the
//! folder while requests are answered could still lead one out of it; such a person can publish what they read anyway.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use gkd_core::seldom::Seldom;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header;
use hyper::{Request, Response, StatusCode};
use tower_http::services::ServeDir;
use tower_http::services::fs::{Backend, DefaultServeDirFallback, TokioBackend, TokioFile};

use super::body::Shared;
use super::{HTML, SiteBody, page, page_body};

/// The one name with a dot in front that visitors may ask for (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// A folder.
pub(super) struct Folder {
    files: Inside,
    serve: ServeDir<DefaultServeDirFallback, Inside>,
    /// Visitors cause these lines.
    complaints: Seldom,
}

impl Folder {
    pub(super) fn new(root: PathBuf) -> Self {
        let files = Inside { root: root.into() };
        // One range is worth serving; whoever asks for several gets the file.
        let serve = ServeDir::with_backend(&files.root, files.clone()).ignore_multi_range_requests(true);
        Self { files, serve, complaints: Seldom::default() }
    }

    pub(super) fn root(&self) -> &Path {
        &self.files.root
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<SiteBody> {
        let (mut head, _) = request.into_parts();
        let path = head.uri.path();
        // A path of other characters than a URI's would be an impossible header where a folder is redirected to itself
        // with a slash, and one that begins with two slashes would be another host there.
        if !path.is_ascii() || path.starts_with("//") {
            return page(StatusCode::NOT_FOUND);
        }
        // Whether it still holds is not looked at, so the file goes whole.
        if head.headers.contains_key(header::IF_RANGE) {
            head.headers.remove(header::RANGE);
        }
        match self.serve.clone().try_call(Request::from_parts(head, ())).await {
            Ok(response) => told(response.map(|body| Shared(Mutex::new(body)).boxed())),
            Err(error) if is_absence(&error) => page(StatusCode::NOT_FOUND),
            Err(error) => {
                let cause = error.to_string();
                if let Some(more) = self.complaints.note(&cause) {
                    tracing::warn!("a file of the site cannot be read: {}{more}", cause.escape_debug());
                }
                page(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

/// An error's page has words.
fn told(mut response: Response<SiteBody>) -> Response<SiteBody> {
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().insert(header::CONTENT_TYPE, HTML);
        *response.body_mut() = page_body(status);
    }
    response
}

/// What a visitor may ask for and is not there, or not for everybody.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound, PermissionDenied};

    let kinds = [NotFound, PermissionDenied, NotADirectory, InvalidFilename, InvalidInput];
    kinds.contains(&error.kind()) || is_loop(error)
}

/// Links that lead around in a circle.
#[cfg(unix)]
fn is_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ELOOP)
}

#[cfg(not(unix))]
fn is_loop(_: &io::Error) -> bool {
    false
}

/// The files that visitors may have.
#[derive(Clone)]
struct Inside {
    root: Arc<Path>,
}

impl Inside {
    /// The file or folder at a path below the root, its links resolved. Blocks.
    fn find(&self, path: &Path) -> io::Result<(PathBuf, Metadata)> {
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        // The root may be a link that leads to another version of the site from time to time.
        let (root, real) = (fs::canonicalize(&self.root)?, fs::canonicalize(path)?);
        let asked = path.strip_prefix(&self.root).map_err(|_| absent())?;
        let within = real.strip_prefix(root).map_err(|_| absent())?;
        if is_hidden(asked) || is_hidden(within) {
            return Err(absent());
        }
        let metadata = fs::symlink_metadata(&real)?;
        // To open a pipe is to wait for whoever writes to it.
        match metadata.is_file() || metadata.is_dir() {
            true => Ok((real, metadata)),
            false => Err(absent()),
        }
    }

    async fn found(self, path: PathBuf) -> io::Result<(PathBuf, Metadata)> {
        tokio::task::spawn_blocking(move || self.find(&path)).await.map_err(io::Error::other)?
    }
}

fn is_hidden(path: &Path) -> bool {
    let hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".") && name != WELL_KNOWN;
    path.components().any(|part| matches!(part, Component::Normal(name) if hidden(name)))
}

impl Backend for Inside {
    type File = TokioFile;
    type Metadata = Metadata;
    type OpenFuture = BoxFuture<'static, io::Result<TokioFile>>;
    type MetadataFuture = BoxFuture<'static, io::Result<Metadata>>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let files = self.clone();
        Box::pin(async move {
            match files.found(path).await? {
                (path, metadata) if metadata.is_file() => TokioBackend.open(path).await,
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let files = self.clone();
        Box::pin(async move { files.found(path).await.map(|(_, metadata)| metadata) })
    }
}
