//! A folder for sockets in a place that others can write to: taken only where it is the user's alone.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use super::ControlError;

/// What others than the owner may not do in it.
const WRITE: u32 = 0o022;

/// The user that this process acts as.
pub fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Makes a folder for this user alone, unless it is there.
///
/// # Errors
/// It cannot be made; or what is there is no folder, is somebody else's, or others may write to it.
pub fn make_own_folder(path: &Path) -> Result<(), ControlError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(ControlError::Io { what: "make", path: path.to_owned(), source })
        }
        _ => check_own_folder(path),
    }
}

/// Whether a folder is this user's alone.
///
/// # Errors
/// It is not there, is no folder, is somebody else's, or others may write to it.
pub fn check_own_folder(path: &Path) -> Result<(), ControlError> {
    // Not followed: whoever made a link there decides where it leads.
    let found = fs::symlink_metadata(path).map_err(|source| ControlError::Io {
        what: "look at",
        path: path.to_owned(),
        source,
    })?;
    let wrong = |what| Err(ControlError::Folder { path: path.to_owned(), what });
    if !found.is_dir() {
        return wrong("is no folder");
    }
    if found.uid() != user_id() {
        return wrong("belongs to another user");
    }
    if found.mode() & WRITE != 0 {
        return wrong("can be written to by others than its owner");
    }
    Ok(())
}
