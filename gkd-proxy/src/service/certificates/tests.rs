use std::fs;
use std::path::Path;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

use super::*;

/// Writes a new certificate for these names.
fn write(folder: &Path, file: &str, names: &[&str], kind: &'static SignatureAlgorithm) -> CertificateFiles {
    let key = KeyPair::generate_for(kind).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let files = CertificateFiles {
        certificate: folder.join(format!("{file}.pem")),
        key: folder.join(format!("{file}.key")),
    };
    fs::write(&files.certificate, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

fn own(files: &CertificateFiles) -> CertificateDer<'static> {
    files.load().unwrap().cert[0].clone()
}

/// What a client that asks for a name is shown.
fn shown(certificates: &Arc<Certificates>, name: &str) -> CertificateDer<'static> {
    let server = Arc::new(certificates.server_config().unwrap());
    let provider = Arc::new(aws_lc_rs::default_provider());
    // Nothing is trusted: what is shown is seen all the same.
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    client.dangerous_seen(server)
}

trait Seen {
    fn dangerous_seen(&mut self, server: Arc<ServerConfig>) -> CertificateDer<'static>;
}

impl Seen for ClientConnection {
    fn dangerous_seen(&mut self, server: Arc<ServerConfig>) -> CertificateDer<'static> {
        let mut server = ServerConnection::new(server).unwrap();
        for _ in 0..4 {
            let mut bytes = Vec::new();
            while self.wants_write() {
                self.write_tls(&mut bytes).unwrap();
            }
            server.read_tls(&mut &bytes[..]).unwrap();
            server.process_new_packets().unwrap();
            let mut bytes = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut bytes).unwrap();
            }
            let mut bytes = &bytes[..];
            while !bytes.is_empty() {
                self.read_tls(&mut bytes).unwrap();
                if self.process_new_packets().is_err() {
                    break;
                }
            }
            if let Some(chain) = self.peer_certificates() {
                return chain[0].clone().into_owned();
            }
        }
        panic!("no certificate was shown");
    }
}
