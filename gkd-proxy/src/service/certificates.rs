//! The certificates of the front ([`Certificates`]): which one a client is shown by the name that it asks for, and new ones when
//! their files change.
//!
//! A name that a certificate has itself goes before a wildcard, which stands for one label; where none has it, the first
//! certificate is shown, and the client says what it thinks of that. Of several for one name the first is taken whose key the
//! client understands. A file that is broken when it is read again changes nothing: the old certificates stay, and it is said once.
//! Whether they are still valid is for the clients to see.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, InconsistentKeys, ServerConfig, version};

use super::config::CertificateFiles;

/// The most that is read of a file: a chain has some KiB.
const MAX_FILE: u64 = 1024 * 1024;

/// Why a certificate is none that could be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// None is named.
    #[error("an https:// port needs a certificate: write certificates = [{{ certificate = \"…\", key = \"…\" }}]")]
    None,
    /// A file cannot be read.
    #[error("{} cannot be read: {error}: write the path of a PEM file that this user may read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// A file holds no certificate.
    #[error("{} holds no certificate: it takes a PEM file with BEGIN CERTIFICATE, the server's own first", .0.display())]
    NoCertificate(PathBuf),
    /// A file holds no key.
    #[error("{} holds no private key: it takes a PEM file with BEGIN PRIVATE KEY, without a password", .0.display())]
    NoKey(PathBuf),
    /// The key is none of the kinds that TLS knows, or damaged.
    #[error("the key in {} cannot be used: {error}: take an ECDSA, Ed25519 or RSA key", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What the library said.
        error: String,
    },
    /// The certificate is damaged.
    #[error("the certificate in {} cannot be used: {error}: ask for a new one", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What the library said.
        error: String,
    },
    /// They do not belong together.
    #[error(
        "the key in {} is not that of the certificate in {}: name the two that belong together",
        key.display(), certificate.display()
    )]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
}

/// The certificates that clients are shown.
pub struct Certificates {
    shown: RwLock<Arc<Shown>>,
    files: Mutex<Files>,
}

/// The files that they are from.
struct Files {
    names: Vec<CertificateFiles>,
    /// Of what is shown.
    digest: u64,
    /// What was wrong when they were last read again, and whether that was said.
    wrong: Option<(CertificateError, bool)>,
}

/// Certificates by name.
#[derive(Debug, Default)]
struct Shown {
    all: Vec<Arc<CertifiedKey>>,
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// Without the `*.`.
    wildcards: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Certificates {
    /// Reads certificates; none is one that shows none.
    ///
    /// # Errors
    /// One of them is not to be had, or does not match its key.
    pub fn load(names: &[CertificateFiles]) -> Result<Arc<Self>, CertificateError> {
        let (shown, digest) = read_all(names)?;
        let files = Files { names: names.to_vec(), digest, wrong: None };
        Ok(Arc::new(Self { shown: RwLock::new(Arc::new(shown)), files: Mutex::new(files) }))
    }

    /// Reads these instead, whether they changed or not. Reads files, so it is not for a task.
    ///
    /// # Errors
    /// One of them is not to be had; those before stay.
    pub fn reload(&self, names: &[CertificateFiles]) -> Result<(), CertificateError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let (shown, digest) = read_all(names)?;
        *files = Files { names: names.to_vec(), digest, wrong: None };
        self.show(shown);
        Ok(())
    }

    /// Reads the files again, and shows what they hold if that has changed. What is wrong is said when it is found a second
    /// time in a row: a certificate and its key are not written at once. Reads files, so it is not for a task.
    pub fn look_again(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        match read_all(&files.names) {
            Ok((shown, digest)) => {
                files.wrong = None;
                if digest != files.digest {
                    files.digest = digest;
                    self.show(shown);
                    tracing::info!("the certificates have changed: new connections are shown the new ones");
                }
            }
            Err(error) => {
                files.wrong = match files.wrong.take() {
                    Some((before, said)) if before == error => {
                        if !said {
                            tracing::warn!("{error}. The certificates from before stay");
                        }
                        Some((error, true))
                    }
                    _ => Some((error, false)),
                };
            }
        }
    }

    /// Whether what was read last was wrong, and that was said.
    #[cfg(test)]
    fn has_complained(&self) -> bool {
        matches!(self.files.lock().unwrap().wrong, Some((_, true)))
    }

    fn show(&self, shown: Shown) {
        *self.shown.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(shown);
    }

    fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// TLS 1.2 and 1.3 with these certificates, for HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// The library has none of what it needs.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Sessions are taken up again without room for each.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(config)
    }
}

fn provider() -> CryptoProvider {
    aws_lc_rs::default_provider()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let shown = self.shown();
        let known = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let named = hello.server_name().and_then(|name| shown.of_name(name));
        let of_name = named.and_then(|keys| keys.iter().find(known));
        of_name.or_else(|| shown.all.iter().find(known)).map(Arc::clone)
    }
}

impl Shown {
    fn of_name(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let keys = self.exact.get(&name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.wildcards.get(parent)
        });
        keys.map(Vec::as_slice)
    }

    fn add(&mut self, key: CertifiedKey, names: Vec<String>) {
        let key = Arc::new(key);
        for name in names {
            let keys = match name.strip_prefix("*.") {
                Some(parent) => self.wildcards.entry(parent.to_owned()).or_default(),
                None => self.exact.entry(name).or_default(),
            };
            keys.push(Arc::clone(&key));
        }
        self.all.push(key);
    }
}

/// Reads and judges all files, and tells their contents apart from others.
fn read_all(names: &[CertificateFiles]) -> Result<(Shown, u64), CertificateError> {
    let provider = provider();
    let mut shown = Shown::default();
    let mut digest = DefaultHasher::new();
    for files in names {
        let chain = read(&files.certificate)?;
        let key = read(&files.key)?;
        (&chain, &key).hash(&mut digest);
        let key = certified(files, &chain, &key, &provider)?;
        let names = names_of(&files.certificate, &key)?;
        shown.add(key, names);
    }
    Ok((shown, digest.finish()))
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|error| CertificateError::Read { path: path.to_owned(), error: error.to_string() })
}

fn certified(
    files: &CertificateFiles,
    chain: &[u8],
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<CertifiedKey, CertificateError> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|_| CertificateError::NoCertificate(files.certificate.clone()))?;
    if chain.is_empty() {
        return Err(CertificateError::NoCertificate(files.certificate.clone()));
    }
    let key =
        PrivateKeyDer::from_pem_slice(key).map_err(|_| CertificateError::NoKey(files.key.clone()))?;
    let key = provider.key_provider.load_private_key(key).map_err(|error| CertificateError::Key {
        path: files.key.clone(),
        error: error.to_string(),
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err(CertificateError::Mismatch {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
        }),
        Err(error) => Err(CertificateError::Certificate {
            path: files.certificate.clone(),
            error: error.to_string(),
        }),
    }
}

/// The names that a certificate is for.
fn names_of(path: &Path, key: &CertifiedKey) -> Result<Vec<String>, CertificateError> {
    let wrong = |error: String| CertificateError::Certificate { path: path.to_owned(), error };
    let own = key.end_entity_cert().map_err(|error| wrong(error.to_string()))?;
    let parsed = webpki::EndEntityCert::try_from(own).map_err(|error| wrong(error.to_string()))?;
    Ok(parsed.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificates({})", self.shown().all.len())
    }
}

#[cfg(test)]
mod tests;
