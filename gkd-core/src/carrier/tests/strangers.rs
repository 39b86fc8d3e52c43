//! Ends that do not speak gkd, or not as they should.

use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::carrier::tls::AnyServer;

/// What a TLS client with this configuration comes to at a gkd server.
async fn accept_from(config: ClientConfig) -> Result<Incoming, CarrierError> {
    let (near, far) = pipe();
    let name = tls::server_name(SESSION).unwrap();
    let client = async {
        let stream = TlsConnector::from(Arc::new(config)).connect(name, near).await;
        // In TLS 1.3 a client is through before the server has judged its key.
        if let Ok(mut stream) = stream {
            let _ = stream.read(&mut [0]).await;
        }
    };
    let acceptor = acceptor();
    tokio::join!(client, acceptor.accept(far, in_ten_seconds())).1
}

fn client_builder() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
}

/// A key with something in place of a certificate, shown as X.509.
#[derive(Debug)]
struct X509(Arc<CertifiedKey>);

fn x509() -> Arc<X509> {
    let document = client_key().pair().to_pkcs8v1().unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(document.as_ref()));
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    let certificate = CertificateDer::from(vec![0x30, 0x03, 0x02, 0x01, 0x01]);
    Arc::new(X509(Arc::new(CertifiedKey::new(vec![certificate], signer))))
}

impl ResolvesClientCert for X509 {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl ResolvesServerCert for X509 {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[tokio::test]
async fn a_tls_client_without_a_key_is_refused() {
    let mut config = client_builder().with_no_client_auth();
    config.alpn_protocols = vec![tls::ALPN.to_vec()];
    assert!(matches!(accept_from(config).await, Err(CarrierError::Tls(_))));
}

#[tokio::test]
async fn a_tls_client_with_a_certificate_is_refused() {
    let mut config = client_builder().with_client_cert_resolver(x509());
    config.alpn_protocols = vec![tls::ALPN.to_vec()];
    assert!(matches!(accept_from(config).await, Err(CarrierError::Tls(_))));
}

#[tokio::test]
async fn a_tls_client_that_names_another_protocol_or_none_is_not_gkd() {
    for protocols in [vec![b"h2".to_vec()], vec![b"gkd/2".to_vec()], vec![]] {
        let mut config = tls::client_config(&client_key(), Arc::new(AnyServer)).unwrap();
        config.alpn_protocols = protocols.clone();
        let result = accept_from(config).await;
        assert!(matches!(result, Err(CarrierError::NotGkdClient)), "{protocols:?}: {result:?}");
    }
}

/// What a gkd client comes to at this TLS server.
async fn connect_to(config: ServerConfig) -> CarrierError {
    let (near, far) = pipe();
    let key = client_key();
    let dial = dial_of(CarrierKind::Tls, &key);
    let server = async {
        let _ = TlsAcceptor::from(Arc::new(config)).accept(far).await;
    };
    tokio::join!(connect(near, &dial, in_ten_seconds()), server).0.unwrap_err()
}

fn server_builder() -> rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert> {
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
}

#[tokio::test]
async fn a_tls_server_that_does_not_speak_gkd_is_called_so() {
    let mut web = server_builder().with_cert_resolver(x509());
    web.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let error = connect_to(web).await;
    assert!(matches!(error, CarrierError::NotGkd { .. }), "{error:?}");
    assert!(
        error
            .at("web.example:443")
            .to_string()
            .starts_with("the server at web.example:443 does not speak gkd")
    );

    let error = connect_to(server_builder().with_cert_resolver(x509())).await;
    assert!(matches!(error, CarrierError::NotGkd { .. }), "{error:?}");
}

#[tokio::test]
async fn other_protocols_that_answer_are_called_so() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.9\r\n", b"\x05\xff"] {
        let (near, mut far) = duplex(4096);
        let key = client_key();
        let dial = dial_of(CarrierKind::Tls, &key);
        far.write_all(answer).await.unwrap();
        let server = async {
            let _ = far.read(&mut [0; 4096]).await;
            drop(far);
        };
        let error =
            tokio::join!(connect(Wire::brought(near), &dial, in_ten_seconds()), server).0.unwrap_err();
        let told = matches!(error, CarrierError::NotGkd { .. } | CarrierError::Closed);
        assert!(told, "{error:?}");
    }
}

#[tokio::test]
async fn what_is_foreign_is_handed_on_whole() {
    for (foreign, cut) in [
        (&b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n"[..], 1),
        (b"gkd/1 plaiN, but not gkd", 5),
        (b"SSH-2.0-x\r\n", 2),
    ] {
        let (mut near, far) = duplex(4096);
        near.write_all(&foreign[..cut]).await.unwrap();
        let acceptor = acceptor();
        let accept = acceptor.accept(Wire::brought(far), in_ten_seconds());
        let rest = async {
            tokio::task::yield_now().await;
            near.write_all(&foreign[cut..]).await.unwrap();
            near.shutdown().await.unwrap();
        };
        let mut wire = match tokio::join!(accept, rest).0 {
            Ok(Incoming::Http(wire)) if foreign.starts_with(b"GET") => wire,
            Ok(Incoming::Foreign(wire)) => wire,
            other => panic!("{other:?}"),
        };
        let mut whole = Vec::new();
        wire.read_to_end(&mut whole).await.unwrap();
        assert_eq!(whole, foreign);
    }
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_a_byte_a_second_is_closed_at_the_deadline() {
    for start in [&b""[..], b"\x16\x03\x01\x01\x00", b"gkd/1 plain", b"gkd/1 plain\n"] {
        let (mut near, far) = duplex(4096);
        near.write_all(start).await.unwrap();
        let result = acceptor().accept(Wire::brought(far), in_ten_seconds()).await;
        assert!(matches!(result, Err(CarrierError::Deadline)), "{start:?}: {result:?}");
        assert!(near.write_all(&[0]).await.is_err(), "{start:?}: still open");
    }
    let (mut near, far) = duplex(4096);
    let drip = tokio::spawn(async move {
        for byte in b"\x16\x03\x01\x10\x00\x01\x00\x0f\xfc".iter().chain([0; 100].iter()) {
            if near.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        panic!("a byte a second was borne for ever");
    });
    let result = acceptor().accept(Wire::brought(far), in_ten_seconds()).await;
    assert!(matches!(result, Err(CarrierError::Deadline)), "{result:?}");
    drip.await.unwrap();
}

#[tokio::test]
async fn who_sends_for_ever_before_a_key_is_cut_off() {
    // Records of one handshake message that declares 16 MB less one byte and never ends, and empty ones.
    let mut endless = vec![0x16, 0x03, 0x01, 0x00, 0x04, 0x01, 0xff, 0xff, 0xff];
    endless.extend([0x16, 0x03, 0x03, 0x00, 0x01, 0x00].repeat(100_000));
    let change_cipher_specs = [0x14, 0x03, 0x03, 0x00, 0x01, 0x01].repeat(100_000);
    let hello_and_specs = [client_hello().await, change_cipher_specs].concat();
    for flood in [endless, hello_and_specs] {
        let (near, far) = duplex(64);
        let (mut answers, mut near) = tokio::io::split(near);
        let acceptor = acceptor();
        let accept = async { acceptor.accept(Wire::brought(far), in_ten_seconds()).await.map(drop) };
        let send = async {
            let mut sent = 0;
            while let Ok(len) = near.write(&flood[sent..]).await {
                sent += len;
            }
            sent
        };
        let read = async { while let Ok(1..) = answers.read(&mut [0; 4096]).await {} };
        let (result, sent, ()) = tokio::join!(accept, send, read);
        assert!(!matches!(result, Err(CarrierError::Deadline)));
        assert!(result.is_err() && sent <= MAX_HANDSHAKE_BYTES + 64, "{sent} bytes taken, {result:?}");
    }
}

/// The library joins the parts of a message where the headers of their records stood.
#[tokio::test(start_paused = true)]
async fn a_client_hello_that_is_long_and_in_several_records_is_waited_for() {
    let record = |first: bool| {
        let mut record = vec![0x16, 3, 1, 0x10, 0];
        record.extend(if first { [1, 0, 0xff, 0xff] } else { [0; 4] });
        record.resize(5 + 0x1000, 0);
        record
    };
    let (mut near, far) = duplex(1 << 16);
    for index in 0..3 {
        near.write_all(&record(index == 0)).await.unwrap();
    }
    let result = acceptor().accept(Wire::brought(far), in_ten_seconds()).await;
    assert!(matches!(result, Err(CarrierError::Deadline)), "{result:?}");
}

async fn client_hello() -> Vec<u8> {
    let (near, mut far) = duplex(8192);
    let key = client_key();
    let client = async {
        let server = server_key().public();
        let _ = tls::connect(Wire::brought(near), &key, server, SESSION).await;
    };
    let hello = async {
        let mut hello = vec![0; 5];
        far.read_exact(&mut hello).await.unwrap();
        hello.resize(5 + usize::from(u16::from_be_bytes([hello[3], hello[4]])), 0);
        far.read_exact(&mut hello[5..]).await.unwrap();
        drop(far);
        hello
    };
    tokio::join!(client, hello).1
}
