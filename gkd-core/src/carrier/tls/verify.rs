//! Verifiers of raw public keys: whether the other end has the key that it names. The only scheme is Ed25519.

use gkd_proto::id::PeerId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{aws_lc_rs as provider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    SignatureScheme,
};
use std::sync::Arc;

use crate::identity::{KEY_LEN, can_prove};

/// What precedes the 32 bytes of an Ed25519 key in a SubjectPublicKeyInfo (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The key as a SubjectPublicKeyInfo, which is what RFC 7250 sends for a certificate.
pub(super) fn spki(key: PeerId) -> [u8; SPKI_PREFIX.len() + KEY_LEN] {
    let mut spki = [0; SPKI_PREFIX.len() + KEY_LEN];
    spki[..SPKI_PREFIX.len()].copy_from_slice(&SPKI_PREFIX);
    spki[SPKI_PREFIX.len()..].copy_from_slice(&key.0);
    spki
}

/// The Ed25519 key that a SubjectPublicKeyInfo holds; there is one encoding only.
pub(crate) fn key_of(spki: &[u8]) -> Result<PeerId, Error> {
    spki.strip_prefix(&SPKI_PREFIX)
        .and_then(|key| key.try_into().ok())
        .map(PeerId)
        .ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))
}

/// A lone key of the right form; there is no chain of raw keys.
fn lone_key(key: &CertificateDer<'_>, more: &[CertificateDer<'_>]) -> Result<PeerId, Error> {
    if !more.is_empty() {
        return Err(Error::InvalidCertificate(CertificateError::BadEncoding));
    }
    key_of(key)
}

/// The key, if it signed `message`, the transcript of this very handshake.
fn proved(message: &[u8], key: &CertificateDer<'_>, signed: &DigitallySignedStruct) -> Result<PeerId, Error> {
    let peer = key_of(key)?;
    if signed.scheme != SignatureScheme::ED25519 || !can_prove(&peer) {
        return Err(Error::InvalidCertificate(CertificateError::BadSignature));
    }
    let algorithms = provider::default_provider().signature_verification_algorithms;
    let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
    verify_tls13_signature_with_raw_key(message, &spki, signed, &algorithms)?;
    Ok(peer)
}

fn only_tls13() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic)
}

/// The server proved a key, but another one than was expected.
#[derive(Debug, thiserror::Error)]
#[error("another key than the expected one was proved")]
pub(super) struct WrongKey {
    pub(super) expected: PeerId,
    pub(super) got: PeerId,
}

/// Takes the server with this key only.
#[derive(Debug)]
pub(crate) struct ExpectedServer(pub(crate) PeerId);

/// Takes every server that has the key that it names: for asking who is there, never for a tunnel.
#[derive(Debug)]
pub(crate) struct AnyServer;

/// Takes every client that has the key that it names.
#[derive(Debug)]
pub(super) struct AnyClient;

macro_rules! raw_ed25519_only {
    ($check:expr) => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(only_tls13())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            key: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let check: fn(&Self, PeerId) -> Result<(), Error> = $check;
            check(self, proved(message, key, signed)?)?;
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for ExpectedServer {
    /// The form only. Which key it is, is looked at when it is proved, in the signature's verification, which
    /// TLS 1.3 never skips: so the user is told of another key only when the other end really has it.
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        lone_key(key, more).map(|_| ServerCertVerified::assertion())
    }

    raw_ed25519_only!(|&Self(expected), got| {
        if expected == got {
            return Ok(());
        }
        Err(Error::Other(OtherError(Arc::new(WrongKey { expected, got }))))
    });
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        lone_key(key, more).map(|_| ServerCertVerified::assertion())
    }

    raw_ed25519_only!(|_, _| Ok(()));
}

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        more: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        lone_key(key, more).map(|_| ClientCertVerified::assertion())
    }

    raw_ed25519_only!(|_, _| Ok(()));
}
