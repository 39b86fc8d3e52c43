//! The directory of a server, and the files in it: reading with a bound, writing without a moment in which a
//! file is half there, and rights ([`Dir`]). It knows what the files are called, not what stands in them.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use gkd_core::identity::SecretKey;

use gkd_proxy::program::Failure;

/// The most bytes of a file that are read: a hundred users take some 10 KiB.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// What others than the owner may do.
const OTHERS: u32 = 0o077;

/// The mode of every file that is made here.
const OWNER_ONLY: u32 = 0o600;

/// The directory of a server's files. It need not exist yet.
#[derive(Clone, Debug)]
pub(crate) struct Dir(PathBuf);

impl Dir {
    /// The one that was asked for, or the usual one: `/etc/gkd` for root, `gkd` in the user's configuration
    /// directory for everybody else.
    ///
    /// # Errors
    /// There is no usual one: neither `XDG_CONFIG_HOME` nor `HOME` is set.
    pub(crate) fn choose(asked: Option<&Path>) -> Result<Self, Failure> {
        if let Some(dir) = asked {
            return Ok(Self(dir.to_owned()));
        }
        if rustix::process::geteuid().is_root() {
            return Ok(Self("/etc/gkd".into()));
        }
        let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = variable("XDG_CONFIG_HOME").or_else(|| Some(variable("HOME")?.join(".config")));
        config.map(|config| Self(config.join("gkd"))).ok_or_else(|| {
            Failure::config("neither XDG_CONFIG_HOME nor HOME names a directory: choose one with --dir")
        })
    }

    /// The configuration.
    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("server.toml")
    }

    /// The server's secret key.
    pub(crate) fn key(&self) -> PathBuf {
        self.0.join("server.key")
    }

    /// Where the first link goes when there is no terminal to print it on.
    pub(crate) fn first_link(&self) -> PathBuf {
        self.0.join("first-user.link")
    }

    /// Where a running server answers.
    pub(crate) fn control(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// The directory, as it is shown.
    pub(crate) fn shown(&self) -> String {
        self.0.display().to_string()
    }

    /// Makes the directory, for its owner alone, unless it is there.
    pub(crate) fn make(&self) -> Result<(), Failure> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.0);
        made.map_err(|error| file_failure("make the directory", &self.0, &error))
    }

    /// Keeps other commands from editing its files, until the guard is dropped.
    pub(crate) fn lock(&self) -> Result<File, Failure> {
        let locked = File::open(&self.0).and_then(|dir| dir.lock().map(|()| dir));
        locked.map_err(|error| file_failure("lock the directory", &self.0, &error))
    }

    /// The configuration's text.
    pub(crate) fn read_config(&self) -> Result<String, Failure> {
        read(&self.config())
    }

    /// What is wrong with the rights of the configuration, if anything: whoever writes it decides who comes in.
    pub(crate) fn config_warning(&self) -> Option<String> {
        let path = self.config();
        let mode = fs::metadata(&path).ok()?.mode() & 0o7777;
        (mode & 0o022 != 0).then(|| {
            let path = path.display();
            format!("{path} can be written by others than its owner (mode {mode:04o}): chmod 600 {path}")
        })
    }

    /// The server's secret key.
    ///
    /// # Errors
    /// It cannot be read, is damaged, or others than its owner have rights to it.
    pub(crate) fn read_key(&self) -> Result<SecretKey, Failure> {
        let path = self.key();
        if !exists(&path)? {
            return Err(Failure::config(format!(
                "the secret key {} is missing: put it back from a copy; without one, move {} away and run \
                 gkd-server init, which ends all links",
                path.display(),
                self.config().display()
            )));
        }
        let text = read(&path)?;
        let mode = fs::metadata(&path).map_err(|error| file_failure("read", &path, &error))?.mode() & 0o7777;
        if mode & OTHERS != 0 {
            let path = path.display();
            return Err(Failure::config(format!(
                "the secret key {path} is open to others than its owner (mode {mode:04o}): chmod 600 {path}"
            )));
        }
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return Err(Failure::config(format!(
                "{} does not hold one key: put it back from a copy",
                path.display()
            )));
        };
        SecretKey::parse(line).map_err(|error| {
            Failure::config(format!("{} is damaged, put it back from a copy: {error}", path.display()))
        })
    }
}

/// A file or directory that could not be used: `cannot WHAT PATH: CAUSE: MEND`.
fn file_failure(what: &str, path: &Path, error: &io::Error) -> Failure {
    let mend = match error.kind() {
        io::ErrorKind::PermissionDenied => ": run it as the owner, or choose another directory with --dir",
        io::ErrorKind::StorageFull => ": make room",
        io::ErrorKind::ReadOnlyFilesystem => ": choose another directory with --dir",
        _ => "",
    };
    Failure::config(format_args!("cannot {what} {}: {error}{mend}", path.display()))
}

/// Reads a text file of a sane size.
fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error: &io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::config(format!("there is no {}: gkd-server init makes one", path.display()))
        }
        _ => file_failure("read", path, error),
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(&error))?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(Failure::config(format!("{} is too large to be right: look into it", path.display())));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|byte| **byte == b'\n').count() + 1;
        Failure::config(format!("{}, line {line}: this is not UTF-8 text: write it anew", path.display()))
    })
}

/// Whether a file of this name is there, of whatever kind.
pub(crate) fn exists(path: &Path) -> Result<bool, Failure> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(file_failure("look at", path, &error)),
    }
}

/// Makes a file that must not be there yet, for its owner alone.
pub(crate) fn create(path: &Path, text: &str) -> Result<(), Failure> {
    let made = temporary(path, text).and_then(|file| {
        file.persist_noclobber(path).map_err(|error| error.error)?;
        sync_parent(path)
    });
    made.map_err(|error| file_failure("write", path, &error))
}

/// Writes a file anew, in one step: whoever reads it sees the old text or the new one. A link to a file leads
/// to it as before, and owner and mode stay; a file that was not there is for its owner alone.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    try_replace(path, text).map_err(|error| file_failure("write", path, &error))
}

fn try_replace(path: &Path, text: &str) -> io::Result<()> {
    let path = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        other => other?,
    };
    let file = temporary(&path, text)?;
    if let Ok(before) = fs::metadata(&path) {
        let now = file.as_file().metadata()?;
        if (before.uid(), before.gid()) != (now.uid(), now.gid()) {
            fchown(file.as_file(), Some(before.uid()), Some(before.gid()))?;
        }
        file.as_file().set_permissions(fs::Permissions::from_mode(before.mode() & 0o777))?;
    }
    file.persist(&path).map_err(|error| error.error)?;
    sync_parent(&path)
}

/// A file beside `path` that holds the text for sure. It goes when it is dropped.
fn temporary(path: &Path, text: &str) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::Builder::new()
        .prefix(".gkd-")
        .permissions(fs::Permissions::from_mode(OWNER_ONLY))
        .tempfile_in(parent(path))?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_file_is_made_once_and_for_its_owner() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        create(&path, "one").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(create(&path, "two").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
    }

    #[test]
    fn replacing_keeps_mode_and_links_and_leaves_nothing_behind() {
        let temp = tempfile::tempdir().unwrap();
        let (path, link) = (temp.path().join("file"), temp.path().join("link"));
        create(&path, "one").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        replace(&link, "two").unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("two", 0o640));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir(temp.path().to_owned());
        let key = SecretKey::generate();
        create(&dir.key(), &format!("# a comment\n{}\n", key.to_secret_text())).unwrap();
        assert_eq!(dir.read_key().unwrap(), key);
        fs::set_permissions(dir.key(), fs::Permissions::from_mode(0o644)).unwrap();
        let words = dir.read_key().unwrap_err().to_string();
        assert!(words.contains("mode 0644") && words.contains("chmod 600"), "{words}");
    }

    #[test]
    fn a_damaged_key_is_named_without_being_shown() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir(temp.path().to_owned());
        let text = SecretKey::generate().to_secret_text();
        for wrong in [String::new(), text[1..].to_owned(), format!("{text}\n{text}\n")] {
            replace(&dir.key(), &wrong).unwrap();
            let words = dir.read_key().unwrap_err().to_string();
            assert!(words.contains("server.key") && !words.contains(&text[4..12]), "{words}");
        }
    }

    #[test]
    fn text_that_is_none_is_named_with_its_line() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir(temp.path().to_owned());
        fs::write(dir.config(), b"plain = true\n\n\xff").unwrap();
        let words = dir.read_config().unwrap_err().to_string();
        assert!(words.contains("server.toml, line 3"), "{words}");
    }
}
