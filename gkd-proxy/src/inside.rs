//! The files of a folder that others may have ([`Inside`]): those in it, and what its links lead to as long as that is within.
//!
//! Names that begin with a dot are not there, `.well-known` excepted: they are mostly histories and passwords of whoever
//! keeps the folder. Whoever may write to the folder while requests are answered leads none out of it on Linux, where what
//! was found is opened without following a link that has taken its place since; elsewhere such a person could.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncSeek, ReadBuf};
use tower_http::services::fs::{self as tower, Backend};

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

    /// Opens a file. Blocks.
    fn open_found(&self, path: &Path) -> io::Result<fs::File> {
        let (real, _) = self.find(path)?;
        let file = open_at(&real)?;
        // What was found may be something else by now.
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Does what blocks on a thread that may.
    async fn blocking<T: Send + 'static>(
        self,
        path: PathBuf,
        act: impl FnOnce(&Self, &Path) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let done = tokio::task::spawn_blocking(move || act(&self, &path)).await.map_err(io::Error::other)?;
        // Of several forms of a file, one that is not to be had must not keep the others from being looked for.
        done.map_err(|error| if is_absence(&error) { io::ErrorKind::NotFound.into() } else { error })
    }
}

/// Opens what stands at a path without links, and no link that has come there. To open a pipe does not wait for its writer.
#[cfg(target_os = "linux")]
fn open_at(real: &Path) -> io::Result<fs::File> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    use rustix::io::Errno;

    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match openat2(CWD, real, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // Before Linux 5.6, and in containers that do not know it.
        Err(Errno::NOSYS | Errno::PERM) => open_plainly(real),
        opened => Ok(opened?.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn open_at(real: &Path) -> io::Result<fs::File> {
    open_plainly(real)
}

/// Likewise, where links among the folders on the way cannot be refused.
fn open_plainly(real: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK | libc::O_NOFOLLOW);
    options.open(real)
}

fn is_hidden(path: &Path) -> bool {
    let hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".") && name != WELL_KNOWN;
    path.components().any(|part| matches!(part, Component::Normal(name) if hidden(name)))
}

/// A file that was opened.
#[derive(Debug)]
pub(crate) struct OpenFile(tokio::fs::File);

impl AsyncRead for OpenFile {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncSeek for OpenFile {
    fn start_seek(mut self: Pin<&mut Self>, position: io::SeekFrom) -> io::Result<()> {
        Pin::new(&mut self.0).start_seek(position)
    }

    fn poll_complete(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Pin::new(&mut self.0).poll_complete(cx)
    }
}

impl tower::File for OpenFile {
    type Metadata = Metadata;
    type MetadataFuture<'a> = BoxFuture<'a, io::Result<Metadata>>;

    fn metadata(&self) -> Self::MetadataFuture<'_> {
        Box::pin(self.0.metadata())
    }
}

impl Backend for Inside {
    type File = OpenFile;
    type Metadata = Metadata;
    type OpenFuture = BoxFuture<'static, io::Result<OpenFile>>;
    type MetadataFuture = BoxFuture<'static, io::Result<Metadata>>;

    fn open(&self, path: PathBuf) -> Self::OpenFuture {
        let opened = self.clone().blocking(path, Self::open_found);
        Box::pin(async move { opened.await.map(|file| OpenFile(file.into())) })
    }

    fn metadata(&self, path: PathBuf) -> Self::MetadataFuture {
        let found = self.clone().blocking(path, Self::find);
        Box::pin(async move { found.await.map(|(_, metadata)| metadata) })
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A way of opening, and whether it follows links among the folders on the way.
    type Way = (fn(&Path) -> io::Result<fs::File>, bool);

    /// What a path leads to may be replaced behind the look at it.
    #[test]
    fn what_has_become_something_else_is_not_opened() {
        let around = tempfile::tempdir().unwrap();
        let around = fs::canonicalize(around.path()).unwrap();
        fs::create_dir_all(around.join("www/sub")).unwrap();
        fs::create_dir(around.join("other")).unwrap();
        fs::write(around.join("www/sub/file"), "inside").unwrap();
        fs::write(around.join("other/file"), "outside").unwrap();
        symlink("../other", around.join("www/link")).unwrap();
        symlink("../other/file", around.join("www/leaf")).unwrap();
        let pipe = around.join("www/pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let ways: [Way; 2] = [(open_at, !cfg!(target_os = "linux")), (open_plainly, true)];
        for (open, follows) in ways {
            let read = |name: &str| open(&around.join(name)).and_then(io::read_to_string);
            assert_eq!(read("www/sub/file").unwrap(), "inside");
            assert!(is_absence(&read("www/leaf").unwrap_err()));
            match read("www/link/file") {
                Ok(text) => assert!(follows && text == "outside"),
                Err(error) => assert!(!follows && is_absence(&error), "{error}"),
            }
            // It does not wait for a writer.
            assert!(!open(&pipe).unwrap().metadata().unwrap().is_file());
        }
        let inside = Inside::new(around.join("www"));
        assert!(inside.open_found(&around.join("www/sub/file")).is_ok());
        for name in ["pipe", "sub", "leaf", "link/file", "none"] {
            let error = inside.open_found(&around.join("www").join(name)).unwrap_err();
            assert!(is_absence(&error), "{name}: {error}");
        }
    }
}
