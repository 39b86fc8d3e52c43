//! The certificates of the front ([`Certificates`]): which one a client is shown by the name that it asks for, and new ones when
//! their files change.
//!
//! A name that a certificate has itself goes before a wildcard, which stands for one label; where none has it, the first
//! certificate is shown, and the client says what it thinks of that. Of several for one name the first is taken whose key the
//! client understands. A file that is broken when it is read again changes nothing: the old certificates stay, and it is said once.
//! Whether they are still valid is for the clients to see.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig, version};

use super::config::{CertificateFiles, FileError};

/// The certificates that clients are shown.
pub struct Certificates {
    shown: RwLock<Arc<Shown>>,
    files: Mutex<Files>,
}

/// The files that they are from.
struct Files {
    names: Vec<CertificateFiles>,
    /// What was wrong when they were last read again, and whether that was said.
    wrong: Option<(FileError, bool)>,
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
    pub fn load(names: &[CertificateFiles]) -> Result<Arc<Self>, FileError> {
        let shown = Shown::read(names)?;
        let files = Files { names: names.to_vec(), wrong: None };
        Ok(Arc::new(Self { shown: RwLock::new(Arc::new(shown)), files: Mutex::new(files) }))
    }

    /// Reads these instead, whether they changed or not. Reads files, so it is not for a task.
    ///
    /// # Errors
    /// One of them is not to be had; those before stay.
    pub fn reload(&self, names: &[CertificateFiles]) -> Result<(), FileError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = Shown::read(names)?;
        *files = Files { names: names.to_vec(), wrong: None };
        self.show(shown);
        Ok(())
    }

    /// Reads the files again, and shows what they hold if that has changed. What is wrong is said when it is found a second
    /// time in a row: a certificate and its key are not written at once. Reads files, so it is not for a task.
    pub fn look_again(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        match Shown::read(&files.names) {
            Ok(shown) => {
                files.wrong = None;
                if !shown.is(&self.shown()) {
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
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Sessions are taken up again without room for each.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
        Ok(config)
    }
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
    fn read(names: &[CertificateFiles]) -> Result<Self, FileError> {
        let mut shown = Self::default();
        for files in names {
            shown.add(files.load()?);
        }
        Ok(shown)
    }

    /// Whether they are the same. A certificate goes with one key.
    fn is(&self, other: &Self) -> bool {
        let chains = |shown: &Self| shown.all.iter().map(|key| key.cert.clone()).collect::<Vec<_>>();
        chains(self) == chains(other)
    }

    fn of_name(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let keys = self.exact.get(&name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.wildcards.get(parent)
        });
        keys.map(Vec::as_slice)
    }

    fn add(&mut self, key: CertifiedKey) {
        let key = Arc::new(key);
        for name in names_of(&key) {
            let keys = match name.strip_prefix("*.") {
                Some(parent) => self.wildcards.entry(parent.to_owned()).or_default(),
                None => self.exact.entry(name).or_default(),
            };
            keys.push(Arc::clone(&key));
        }
        self.all.push(key);
    }
}

/// The names that a certificate is for. One that cannot be read for them may be the first, and be shown without a name.
fn names_of(key: &CertifiedKey) -> Vec<String> {
    let own = key.cert.first().and_then(|own| webpki::EndEntityCert::try_from(own).ok());
    own.map_or_else(Vec::new, |own| own.valid_dns_names().map(str::to_ascii_lowercase).collect())
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificates({})", self.shown().all.len())
    }
}

#[cfg(test)]
pub(super) mod made;
#[cfg(test)]
mod tests;
