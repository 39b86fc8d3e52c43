//! TLS: which certificate is shown, what is spoken within, and new certificates while the front runs.

use std::path::Path;

use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use rcgen::PKCS_ED25519;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::service::certificates::made;

fn write(folder: &Path, name: &str) -> CertificateFiles {
    made::write(folder, name, &[name], &PKCS_ED25519)
}

/// Connects as one who trusts these alone.
async fn connect(
    addr: SocketAddr,
    name: &str,
    trusted: &[&CertificateFiles],
    alpn: &[&str],
) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for files in trusted {
        roots.add(files.load().unwrap().cert[0].clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let socket = TcpStream::connect(addr).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, socket)).await.unwrap()
}

fn config_of(certificates: &[&CertificateFiles]) -> HttpConfig {
    let certificates = certificates.iter().map(|files| (*files).clone()).collect();
    let listen = vec![FrontListen { tls: true, address: any_port() }];
    HttpConfig { listen, certificates, ..HttpConfig::default() }
}

#[tokio::test]
async fn several_names_are_served_and_both_versions() {
    let folder = TempDir::new().unwrap();
    let (one, two) = (write(folder.path(), "one.example"), write(folder.path(), "two.example"));
    let running = run(&config_of(&[&one, &two])).await;
    for (name, files, other) in [("one.example", &one, &two), ("two.example", &two, &one)] {
        let mut stream = connect(running.addr, name, &[files], &["http/1.1"]).await.unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // Its end is told, so that it is no truncation.
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.ends_with("hello /"), "{answer}");
        assert!(connect(running.addr, name, &[other], &[]).await.is_err());

        let stream = connect(running.addr, name, &[files], &["h2", "http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let (mut client, connection) =
            http2::handshake::<_, _, ServiceBody>(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(format!("https://{name}/two")).body(full("")).unwrap();
        let answer = client.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(answer.to_bytes(), "hello /two");
    }
    let seen = running.service.seen.lock().unwrap();
    assert!(seen.len() == 4 && seen.iter().all(|(_, visit, _)| visit.tls));
}

#[tokio::test]
async fn no_other_protocol_is_agreed_on_and_what_is_no_tls_is_closed() {
    let folder = TempDir::new().unwrap();
    let files = write(folder.path(), "one.example");
    let mut config = config_of(&[&files]);
    config.limits.head = Duration::from_millis(300);
    let running = run(&config).await;
    assert!(connect(running.addr, "one.example", &[&files], &["acme-tls/1"]).await.is_err());
    running.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    // One that never begins.
    assert_eq!(running.send("").await, "");
    until(|| running.front.status().refused.handshakes == 3).await;
    assert!(running.service.asked().is_empty());
}

#[tokio::test]
async fn a_new_certificate_is_shown_without_a_restart() {
    let folder = TempDir::new().unwrap();
    let old = write(folder.path(), "one.example");
    let running = run(&config_of(&[&old])).await;
    let mut before = connect(running.addr, "one.example", &[&old], &[]).await.unwrap();
    let new = write(folder.path(), "one.example");
    // Whoever looks at the files does so every few seconds.
    let found = async {
        while connect(running.addr, "one.example", &[&new], &[]).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENCE, found).await.expect("it was never shown");
    // What was begun goes on.
    before.write_all(b"GET / HTTP/1.1\r\nHost: one.example\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, before.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.ends_with("hello /"), "{answer}");

    let other = write(folder.path(), "two.example");
    running.front.reload(&HttpConfig { certificates: vec![other.clone()], ..config_of(&[]) }).await.unwrap();
    connect(running.front.local_addrs()[0], "two.example", &[&other], &[]).await.unwrap();
}

#[tokio::test]
async fn a_front_does_not_begin_with_what_it_cannot_use() {
    let folder = TempDir::new().unwrap();
    let (one, two) = (write(folder.path(), "one.example"), write(folder.path(), "two.example"));
    let mixed = CertificateFiles { certificate: one.certificate.clone(), key: two.key };
    let answer = Arc::new(Service::default());
    for (config, words) in [
        (config_of(&[&mixed]), "is not that of the certificate"),
        (config_of(&[]), "needs a certificate"),
        (
            HttpConfig {
                listen: vec![FrontListen { tls: false, address: "192.0.2.1:0".parse().unwrap() }],
                ..config()
            },
            "no interface",
        ),
    ] {
        let error = Front::start(&config, Arc::clone(&answer) as Arc<dyn Answer>).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
