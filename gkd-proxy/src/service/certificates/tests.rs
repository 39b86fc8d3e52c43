use std::fs;

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use tempfile::TempDir;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConnection, SignatureScheme,
};

use super::made::write;
use super::*;

fn own(files: &CertificateFiles) -> CertificateDer<'static> {
    files.load().unwrap().cert[0].clone()
}

/// What a client that asks for a name is shown. It trusts nothing, and sees it all the same.
fn shown(certificates: &Arc<Certificates>, name: &str) -> CertificateDer<'static> {
    let seen = Arc::new(Seen::default());
    let mut client = ClientConnection::new(
        Arc::new(
            ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>)
                .with_no_client_auth(),
        ),
        ServerName::try_from(name.to_owned()).unwrap(),
    )
    .unwrap();
    let mut server = ServerConnection::new(Arc::new(certificates.server_config().unwrap())).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    server.read_tls(&mut &bytes[..]).unwrap();
    server.process_new_packets().unwrap();
    bytes.clear();
    while server.wants_write() {
        server.write_tls(&mut bytes).unwrap();
    }
    let mut bytes = &bytes[..];
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        // It refuses what it is shown.
        let _ = client.process_new_packets();
    }
    let seen = seen.0.lock().unwrap().take();
    seen.expect("a certificate was shown")
}

/// Notes what it is asked to judge, and refuses it.
#[derive(Debug, Default)]
struct Seen(Mutex<Option<CertificateDer<'static>>>);

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = Some(own.clone().into_owned());
        Err(rustls::Error::General("seen".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]
    }
}

#[test]
fn a_name_is_shown_its_certificate() {
    let folder = TempDir::new().unwrap();
    let write = |file, names: &[&str]| write(folder.path(), file, names, &PKCS_ECDSA_P256_SHA256);
    let first = write("first", &["first.example"]);
    let wildcard = write("wildcard", &["*.example.org", "example.org"]);
    let exact = write("exact", &["Shop.example.org"]);
    let certificates = Certificates::load(&[first.clone(), wildcard.clone(), exact.clone()]).unwrap();
    for (name, files) in [
        ("first.example", &first),
        ("shop.example.org", &exact),
        ("SHOP.example.org", &exact),
        ("other.example.org", &wildcard),
        ("example.org", &wildcard),
        // A wildcard stands for one label.
        ("a.other.example.org", &first),
        ("a.shop.example.org", &first),
        ("unknown.example", &first),
        ("127.0.0.1", &first),
    ] {
        assert_eq!(shown(&certificates, name), own(files), "{name}");
    }
}

#[test]
fn of_two_for_a_name_the_one_that_a_client_understands_is_shown() {
    let folder = TempDir::new().unwrap();
    // No client of ours knows this kind.
    let strange = write(folder.path(), "strange", &["x.example"], &PKCS_ECDSA_P384_SHA384);
    let known = write(folder.path(), "known", &["x.example"], &PKCS_ED25519);
    let certificates = Certificates::load(&[strange, known.clone()]).unwrap();
    assert_eq!(shown(&certificates, "x.example"), own(&known));
    assert_eq!(shown(&certificates, "y.example"), own(&known));
}

#[test]
fn a_new_file_is_shown_and_a_broken_one_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let files = write(folder.path(), "a", &["x.example"], &PKCS_ED25519);
    let certificates = Certificates::load(std::slice::from_ref(&files)).unwrap();
    let first = own(&files);
    certificates.look_again();
    assert_eq!(shown(&certificates, "x.example"), first);

    // A new certificate whose key is still the old one: not said at once, for both are written one after the other.
    let old_key = fs::read(&files.key).unwrap();
    write(folder.path(), "a", &["x.example"], &PKCS_ED25519);
    let new_key = fs::read(&files.key).unwrap();
    fs::write(&files.key, &old_key).unwrap();
    certificates.look_again();
    assert!(!certificates.has_complained());
    assert_eq!(shown(&certificates, "x.example"), first);
    certificates.look_again();
    assert!(certificates.has_complained());
    assert!(matches!(certificates.reload(std::slice::from_ref(&files)), Err(FileError::Mismatch { .. })));
    assert_eq!(shown(&certificates, "x.example"), first);

    fs::write(&files.key, new_key).unwrap();
    certificates.look_again();
    assert!(!certificates.has_complained());
    let second = own(&files);
    assert_ne!(first, second);
    assert_eq!(shown(&certificates, "x.example"), second);

    fs::remove_file(&files.certificate).unwrap();
    certificates.look_again();
    fs::write(&files.certificate, "no PEM").unwrap();
    certificates.look_again();
    // Each time it is something else that is wrong.
    assert!(!certificates.has_complained());
    assert_eq!(shown(&certificates, "x.example"), second);
}
