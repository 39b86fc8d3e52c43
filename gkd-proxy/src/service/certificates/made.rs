//! Certificates and keys in files, for tests.

use std::fs;
use std::path::Path;

use data_encoding::BASE64;
use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

use crate::service::config::CertificateFiles;

/// Writes a new certificate for these names, signed by itself.
pub(in crate::service) fn write(
    folder: &Path,
    file: &str,
    names: &[&str],
    kind: &'static SignatureAlgorithm,
) -> CertificateFiles {
    let key = KeyPair::generate_for(kind).unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let files = CertificateFiles {
        certificate: folder.join(format!("{file}.pem")),
        key: folder.join(format!("{file}.key")),
    };
    fs::write(&files.certificate, pem("CERTIFICATE", certificate.der())).unwrap();
    fs::write(&files.key, pem("PRIVATE KEY", key.serialized_der())).unwrap();
    files
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der))
}
