//! Whether the files that a front and its services name are there, and are what they should be ([`FileError`]).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};

use super::{CertificateFiles, TargetForm};

/// The largest file of certificates or keys that is read. A long chain takes some KiB.
const MAX_FILE: u64 = 1 << 20;

/// What the key's mode must not have: it is for its owner, and for a group that was made for it.
#[cfg(unix)]
const BY_OTHERS: u32 = 0o007;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It is not there, or may not be read.
    #[error("the {what} {} cannot be read: {error}: {}", path.display(), mend(what))]
    Unreadable {
        /// What it was to be.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// No file of certificates is as large.
    #[error("the {what} {} has more than {} KiB: write the path of a file in PEM", path.display(), MAX_FILE >> 10)]
    Large {
        /// What it was to be.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Something else stands in it.
    #[error("the {what} {} is none: {words}: write the path of a file in PEM that holds one", path.display())]
    Content {
        /// What it was to be.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What stands there instead.
        words: String,
    },
    /// A key that wants a password.
    #[error("the key {} wants a password, which nobody gives here: write it without, as with openssl pkey", .0.display())]
    Encrypted(PathBuf),
    /// Everyone on the machine may read it.
    #[error("the key {} can be read or written by everyone (mode {mode:04o}): chmod 600 {}", path.display(), path.display())]
    OpenToOthers {
        /// Where.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// They belong to others.
    #[error("the key {} is not that of the certificate {}, whose first one must be the server's own: write the two that were made together", key.display(), certificate.display())]
    Mismatch {
        /// Where the certificate is.
        certificate: PathBuf,
        /// Where the key is.
        key: PathBuf,
    },
    /// It is a file, say.
    #[error("the target {} is no folder: write the path of one", .0.display())]
    NoFolder(PathBuf),
}

/// What mends a file that cannot be read.
fn mend(what: &str) -> &'static str {
    match what {
        FOLDER => "make it, or write another",
        _ => "write the path of one that this program may read",
    }
}

const CERTIFICATE: &str = "certificate";
const KEY: &str = "key";
const FOLDER: &str = "target's folder";

impl FileError {
    /// Whether it is the key that is wrong, and not the certificate.
    pub fn is_of_key(&self) -> bool {
        match self {
            Self::Unreadable { what, .. } | Self::Large { what, .. } | Self::Content { what, .. } => {
                *what == KEY
            }
            Self::Encrypted(_) | Self::OpenToOthers { .. } | Self::Mismatch { .. } => true,
            Self::NoFolder(_) => false,
        }
    }
}

impl CertificateFiles {
    /// Looks whether a front could begin with these files, and whether the key is kept.
    ///
    /// # Errors
    /// It could not: they cannot be read, hold something else, or do not belong together; or everyone may read the key.
    pub fn check(&self) -> Result<(), FileError> {
        self.load()?;
        kept(&self.key)
    }

    /// Reads both, and sees that they belong together.
    ///
    /// # Errors
    /// They cannot be read, hold something else, or do not belong together.
    pub fn load(&self) -> Result<CertifiedKey, FileError> {
        let wrong = |what: &'static str, path: &Path, words: String| FileError::Content {
            what,
            path: path.to_owned(),
            words,
        };
        let certificate = |words: String| wrong(CERTIFICATE, &self.certificate, words);
        let pem = read(CERTIFICATE, &self.certificate)?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let chain = chain.map_err(|error| certificate(pem_words(&error)))?;
        if chain.is_empty() {
            return Err(certificate(pem_words(&pem::Error::NoItemsFound)));
        }
        let pem = read(KEY, &self.key)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
            pem::Error::NoItemsFound if is_encrypted(&pem) => FileError::Encrypted(self.key.clone()),
            error => wrong(KEY, &self.key, pem_words(&error)),
        })?;
        let provider = aws_lc_rs::default_provider();
        let signing = provider.key_provider.load_private_key(key);
        let signing = signing.map_err(|error| wrong(KEY, &self.key, tls_words(&error)))?;
        let certified = CertifiedKey::new(chain, signing);
        match certified.keys_match() {
            // Of a key that does not tell its public half it is not known.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
            Err(Error::InconsistentKeys(_)) => {
                Err(FileError::Mismatch { certificate: self.certificate.clone(), key: self.key.clone() })
            }
            Err(error) => Err(certificate(tls_words(&error))),
        }
    }
}

impl TargetForm {
    /// Looks whether a folder is there. Does not ask a web server, which may come and go.
    ///
    /// # Errors
    /// It is not, or is no folder.
    pub fn check(&self) -> Result<(), FileError> {
        let Self::Folder(path) = self else { return Ok(()) };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => Err(FileError::NoFolder(path.clone())),
            Err(error) => Err(unreadable(FOLDER, path, &error)),
        }
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    // To open a pipe would be to wait for whoever writes to it.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(FileError::Content { what, path: path.to_owned(), words: "it is no file".to_owned() });
    }
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut content));
    read.map_err(|error| unreadable(what, path, &error))?;
    if content.len() as u64 > MAX_FILE {
        return Err(FileError::Large { what, path: path.to_owned() });
    }
    Ok(content)
}

fn unreadable(what: &'static str, path: &Path, error: &io::Error) -> FileError {
    FileError::Unreadable { what, path: path.to_owned(), error: error.to_string() }
}

#[cfg(unix)]
fn kept(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::MetadataExt;

    let metadata = fs::metadata(path).map_err(|error| unreadable(KEY, path, &error))?;
    let mode = metadata.mode() & 0o7777;
    if mode & BY_OTHERS == 0 { Ok(()) } else { Err(FileError::OpenToOthers { path: path.to_owned(), mode }) }
}

/// Files have no mode there.
#[cfg(not(unix))]
fn kept(_: &Path) -> Result<(), FileError> {
    Ok(())
}

fn is_encrypted(pem: &[u8]) -> bool {
    let label = b"BEGIN ENCRYPTED PRIVATE KEY";
    pem.windows(label.len()).any(|part| part == label)
}

/// What the reader of PEM found, without what stands in the file: it may be a secret.
fn pem_words(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "nothing of the kind stands in it".to_owned(),
        pem::Error::MissingSectionEnd { .. } => "its end is missing".to_owned(),
        pem::Error::Base64Decode(_) => "what stands between BEGIN and END is no base64".to_owned(),
        pem::Error::IllegalSectionStart { .. } => "its BEGIN line is malformed".to_owned(),
        _ => "it is no PEM".to_owned(),
    }
}

fn tls_words(error: &Error) -> String {
    format!("TLS cannot use it ({error})")
}
