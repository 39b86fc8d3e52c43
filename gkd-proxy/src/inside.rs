//! The files of a folder that others may have ([`Inside`]): those in it, and what its links lead to as long as that is within.
//!
//! Names that begin with a dot are not there, `.well-known` excepted: they are mostly histories and passwords of whoever
//! keeps the folder. Whoever may write to the folder while requests are answered could still lead one out of it; such a
//! person can publish what they read anyway.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use futures::future::BoxFuture;
use tower_http::services::fs::{Backend, TokioBackend, TokioFile};

/// The one name with a dot in front that visitors may ask for (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// What a visitor may ask for and is not there, or not for everybody.
pub(crate) fn is_absence(error: &io::Error) -> bool {
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
#[derive(Clone, Debug)]
pub(crate) struct Inside {
    root: Arc<Path>,
}

impl Inside {
    /// Those of the folder at this path.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root: root.into() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

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
        let found = tokio::task::spawn_blocking(move || self.find(&path)).await.map_err(io::Error::other)?;
        // Of several forms of a file, one that is not to be had must not keep the others from being looked for.
        found.map_err(|error| if is_absence(&error) { io::ErrorKind::NotFound.into() } else { error })
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
