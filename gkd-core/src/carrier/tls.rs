//! The TLS carrier: TLS 1.3 with raw public keys on both sides (RFC 7250), so that both ends prove an Ed25519
//! key and nothing else. ALPN `gkd/1` is required of both. No certificate, no wall clock, no 0-RTT, no ticket
//! and no resumption: every connection proves its keys anew.
//!
//! The server takes every client that has the key that it names; who may come in is decided behind it. The
//! client takes one server key only. The server name (SNI) is `g` and the first 16 bytes of the SHA-256 of
//! the session id in 32 hex digits, so that a balancer can keep the tunnels of a session together; the `g`
//! is there because an all-digit label is refused as a name.

mod cipher;
mod handshake;
mod keys;
mod reader;
mod record;
pub(super) mod spare;
mod stream;
mod verify;
mod writer;

use std::io;
use std::sync::Arc;

use aws_lc_rs::digest;
use gkd_proto::id::{PeerId, SessionId};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ClientConfig, ServerConfig};

use super::error::server_at;
use super::{Carrier, CarrierError, MAX_HANDSHAKE_BYTES, Wire};
use crate::identity::SecretKey;
pub(crate) use handshake::run as handshake;
pub(super) use stream::Stream;
use verify::{AnyClient, WrongKey};
pub(crate) use verify::{AnyServer, ExpectedServer, key_of};

/// The application protocol (RFC 7301), with the major version of gkd.
pub const ALPN: &[u8] = b"gkd/1";

/// Client: TLS over `io` as the client with `key`, to the server with the key `server` and no other.
///
/// No deadline of its own; not cancellation safe: dropped half-way, the connection is gone.
///
/// # Errors
/// [`CarrierError::WrongKey`] when the server proved another key, [`CarrierError::NotGkd`] when something else
/// answers, and whatever may befall a connection.
pub async fn connect(
    io: impl Into<Wire>,
    key: &SecretKey,
    server: PeerId,
    session: SessionId,
) -> Result<Carrier, CarrierError> {
    let mut wire = io.into();
    let at = server_at(wire.peer_addr());
    let config = client_config(key, Arc::new(ExpectedServer(server)))?;
    let name = server_name(session)?;
    wire.allow(Some(MAX_HANDSHAKE_BYTES));
    let mut connection = UnbufferedClientConnection::new(Arc::new(config), name)?;
    let behind = handshake(&mut connection, &mut wire).await.map_err(|error| dialled(error, at.clone()))?;
    wire.allow(None);
    if connection.alpn_protocol() != Some(ALPN) {
        let cause = "it speaks TLS, but does not answer to the protocol's name".to_owned();
        return Err(CarrierError::NotGkd { server: at, cause });
    }
    Ok(Carrier::tls(Stream::of_client(wire, connection, behind)?, server))
}

/// Server: takes TLS clients. Cheap to clone.
#[derive(Clone)]
pub struct Acceptor(Arc<ServerConfig>);

impl Acceptor {
    /// Takes clients as the server with this key.
    ///
    /// # Errors
    /// [`CarrierError::Tls`], if the TLS library refuses the key; it does not.
    pub fn new(key: &SecretKey) -> Result<Self, CarrierError> {
        Ok(Self(Arc::new(server_config(key)?)))
    }

    /// Runs the handshake over `io`; the carrier's [`peer`](Carrier::peer) is the key that the client proved.
    /// Reads 16 KiB at the most until then.
    ///
    /// No deadline of its own; not cancellation safe: dropped half-way, the connection is gone.
    ///
    /// # Errors
    /// Whatever the client does wrong, and whatever may befall a connection.
    pub async fn accept(&self, io: impl Into<Wire>) -> Result<Carrier, CarrierError> {
        let mut wire = io.into();
        wire.allow(Some(MAX_HANDSHAKE_BYTES));
        self.accept_wire(wire).await
    }

    /// As [`accept`](Self::accept), with the allowance for reading as it is.
    pub(super) async fn accept_wire(&self, mut wire: Wire) -> Result<Carrier, CarrierError> {
        let mut connection = UnbufferedServerConnection::new(self.0.clone())?;
        let behind = handshake(&mut connection, &mut wire).await.map_err(accepted)?;
        wire.allow(None);
        // The library refuses other names, but lets pass who offers none.
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(CarrierError::NotGkdClient);
        }
        let chain = connection.peer_certificates().unwrap_or_default();
        let key = chain.first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let peer = key_of(key)?;
        Ok(Carrier::tls(Stream::of_server(wire, connection, behind)?, peer))
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("tls::Acceptor")
    }
}

/// A server's side of TLS with this key.
pub(super) fn server_config(key: &SecretKey) -> Result<ServerConfig, rustls::Error> {
    let resolver = AlwaysResolvesServerRawPublicKeys::new(certified(key)?);
    let mut config = ServerConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(AnyClient))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.enable_secret_extraction = true;
    Ok(config)
}

/// A client's side of TLS with this key; `verifier` says which servers it takes.
pub(crate) fn client_config(
    key: &SecretKey,
    verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
) -> Result<ClientConfig, rustls::Error> {
    let resolver = AlwaysResolvesClientRawPublicKeys::new(certified(key)?);
    let mut config = ClientConfig::builder_with_provider(crypto())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_secret_extraction = true;
    Ok(config)
}

/// The name that tells a balancer the session, and nobody anything else.
pub(crate) fn server_name(session: SessionId) -> Result<ServerName<'static>, rustls::Error> {
    let hash = digest::digest(&digest::SHA256, &session.0);
    let name = format!("g{}", data_encoding::HEXLOWER.encode(&hash.as_ref()[..16]));
    ServerName::try_from(name).map_err(|error| rustls::Error::General(error.to_string()))
}

/// What both sides offer. The key exchange is X25519 with ML-KEM-768 beside it, so that what is recorded today
/// stays unread by the machines of later; X25519 alone for an end that has no ML-KEM.
fn crypto() -> Arc<CryptoProvider> {
    let ciphers = [
        provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
        provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
    ];
    Arc::new(CryptoProvider {
        cipher_suites: ciphers.to_vec(),
        kx_groups: vec![provider::kx_group::X25519MLKEM768, provider::kx_group::X25519],
        ..provider::default_provider()
    })
}

/// The key in the form that the TLS library signs with, and its public half as what stands for a certificate.
fn certified(key: &SecretKey) -> Result<Arc<CertifiedKey>, rustls::Error> {
    let refused = |_| rustls::Error::General("the key cannot be encoded".into());
    let document = key.pair().to_pkcs8v1().map_err(refused)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(document.as_ref()));
    let signer = provider::sign::any_supported_type(&der)?;
    let spki = verify::spki(key.public());
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki.to_vec())], signer)))
}

/// What the TLS library says behind an `io::Error`.
pub(crate) fn tls_cause(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn dialled(error: io::Error, server: String) -> CarrierError {
    use rustls::Error as Tls;
    match tls_cause(&error) {
        Some(Tls::Other(other)) => match other.0.downcast_ref() {
            Some(WrongKey { expected, got }) => {
                CarrierError::WrongKey { server, expected: *expected, got: *got }
            }
            None => CarrierError::Tls(Tls::Other(other.clone())),
        },
        Some(cause) if is_foreign(cause) => CarrierError::NotGkd { server, cause: cause.to_string() },
        Some(cause) => CarrierError::Tls(cause.clone()),
        None => error.into(),
    }
}

fn accepted(error: io::Error) -> CarrierError {
    match tls_cause(&error) {
        Some(rustls::Error::NoApplicationProtocol) => CarrierError::NotGkdClient,
        Some(cause) => CarrierError::Tls(cause.clone()),
        None => error.into(),
    }
}

/// Whether a server that causes this is no gkd server rather than a broken one.
fn is_foreign(error: &rustls::Error) -> bool {
    use rustls::Error as Tls;
    match error {
        Tls::InvalidMessage(_)
        | Tls::InappropriateMessage { .. }
        | Tls::InappropriateHandshakeMessage { .. }
        | Tls::PeerIncompatible(_)
        | Tls::InvalidCertificate(_)
        | Tls::NoApplicationProtocol => true,
        Tls::AlertReceived(alert) => matches!(
            alert,
            AlertDescription::NoApplicationProtocol
                | AlertDescription::HandshakeFailure
                | AlertDescription::ProtocolVersion
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::UnrecognisedName
        ),
        _ => false,
    }
}
