//! The TLS of a web server in front of gkd, for `gkd+wss://`: what everybody on the way sees. It protects what the
//! outside may know, that is host and path; what gkd carries is protected by its own TLS within.
//!
//! The certificate is verified as browsers do, or by a pin that the link brings and by that alone.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest;
use data_encoding::BASE64URL_NOPAD;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;

use super::Target;
use crate::carrier::tls::tls_cause;
use crate::carrier::{CarrierError, Wire};
use crate::link::Host;

/// What is spoken inside (RFC 7301); another version of HTTP has no such upgrade.
const ALPN: &[u8] = b"http/1.1";

/// The SHA-256 of a certificate's SubjectPublicKeyInfo (RFC 7469 §2.4): of the key, so that it outlives renewals
/// that keep that.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// That of a certificate's key, as DER.
    fn of(spki: &[u8]) -> Self {
        let mut pin = [0; 32];
        pin.copy_from_slice(digest::digest(&digest::SHA256, spki).as_ref());
        Self(pin)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

/// A text that is no pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pin is the SHA-256 of a certificate's public key in 43 characters of base64url, without padding")]
pub struct PinError;

impl FromStr for Pin {
    type Err = PinError;

    fn from_str(text: &str) -> Result<Self, PinError> {
        let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(PinError)
    }
}

/// Client: the outer TLS over `wire`, to the server whose certificate is right for `target`.
pub(super) async fn connect(wire: Wire, target: &Target, server: &str) -> Result<Wire, CarrierError> {
    let config = match target.pin {
        Some(pin) => config_with_pin(pin)?,
        None => system_config(server).await?,
    };
    connect_with(config, wire, target, server).await
}

/// The same, with the server judged by this configuration.
pub(super) async fn connect_with(
    config: Arc<ClientConfig>,
    wire: Wire,
    target: &Target,
    server: &str,
) -> Result<Wire, CarrierError> {
    let name = match &target.host {
        Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
        // A name with a dot at its end is the same, and certificates are made out without.
        Host::Name(name) => ServerName::try_from(name.strip_suffix('.').unwrap_or(name).to_owned())
            .map_err(|error| CarrierError::Tls(rustls::Error::General(error.to_string())))?,
    };
    let tls = TlsConnector::from(config).connect(name, wire).await;
    tls.map(Wire::web).map_err(|error| in_words(error, target, server))
}

fn in_words(error: io::Error, target: &Target, server: &str) -> CarrierError {
    let server = server.to_owned();
    match tls_cause(&error) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
            match other.0.downcast_ref::<WrongPin>() {
                Some(WrongPin { expected, got }) => {
                    CarrierError::WrongPin { server, expected: *expected, got: *got }
                }
                None => CarrierError::WebCertificate {
                    server,
                    name: target.host.to_string(),
                    cause: cause_of(other),
                },
            }
        }
        Some(rustls::Error::InvalidCertificate(cause)) => CarrierError::WebCertificate {
            server,
            name: target.host.to_string(),
            // The names in it are escaped.
            cause: cause.to_string(),
        },
        Some(cause) => CarrierError::WebTls { server, cause: cause.to_string() },
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            CarrierError::WebTls { server, cause: "it closed the connection without an answer".to_owned() }
        }
        None => error.into(),
    }
}

/// What the library has only a name for, in words where it is met often.
fn cause_of(other: &rustls::OtherError) -> String {
    match other.to_string() {
        name if name == "CaUsedAsEndEntity" => {
            "it is made out to an authority, as those that sign themselves often are".to_owned()
        }
        name => name,
    }
}

/// The configuration that trusts what the system trusts: made once, as it means to read some hundred certificates.
async fn system_config(server: &str) -> Result<Arc<ClientConfig>, CarrierError> {
    static CONFIG: OnceCell<Arc<ClientConfig>> = OnceCell::const_new();

    let read = async || {
        // Files are read, so not on a thread of the runtime's.
        let found = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs).await;
        let found = found.map_err(|error| CarrierError::Io(io::Error::other(error)))?;
        found.errors.iter().for_each(|error| tracing::debug!(%error, "a root certificate is left out"));
        let mut roots = RootCertStore::empty();
        let (taken, left_out) = roots.add_parsable_certificates(found.certs);
        tracing::debug!(taken, left_out, "the system's root certificates");
        if roots.is_empty() {
            return Err(CarrierError::NoRoots { server: server.to_owned() });
        }
        Ok(config_with_roots(roots)?)
    };
    CONFIG.get_or_try_init(read).await.cloned()
}

/// Judges servers by these roots.
pub(super) fn config_with_roots(roots: RootCertStore) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()));
    let config = builder.with_safe_default_protocol_versions()?.with_root_certificates(roots);
    Ok(finished(config.with_no_client_auth()))
}

/// Takes the server that has the key with this pin, and no other.
fn config_with_pin(pin: Pin) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider: CryptoProvider = provider::default_provider();
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let config = builder
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pin, algorithms }));
    Ok(finished(config.with_no_client_auth()))
}

fn finished(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    // As within: every connection proves its keys anew.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Takes one key, whoever vouches for it, whatever it is made out to and whenever it ends.
#[derive(Debug)]
struct Pinned {
    pin: Pin,
    algorithms: WebPkiSupportedAlgorithms,
}

/// The server has another key than the link pins.
#[derive(Debug, thiserror::Error)]
#[error("the certificate's key has the pin {got}, expected {expected}")]
struct WrongPin {
    expected: Pin,
    got: Pin,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let got = Pin::of(&ParsedCertificate::try_from(end_entity)?.subject_public_key_info());
        if got != self.pin {
            let wrong = WrongPin { expected: self.pin, got };
            return Err(CertificateError::Other(rustls::OtherError(Arc::new(wrong))).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
