//! The handshakes of both sides, with web servers and clients that are none, or not as they should be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, CertifiedKey, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::connect::upgrade;
use super::*;
use crate::carrier::{CarrierError, CarrierKind, Wire};
use crate::link::Host;

const PIPE: usize = 64 * 1024;

fn target(host: &str, path: &str) -> Target {
    Target { host: Host::Name(host.to_owned()), port: 443, path: path.to_owned(), pin: None }
}

fn nobody() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 1))
}

/// A server that takes WebSockets anywhere, at its end of a pipe; the WebSocket that came of it.
async fn take(far: impl Into<Wire>, config: WebSocketConfig) -> Result<Option<Wire>, CarrierError> {
    let visit = Arc::new(Visit { config, site: not_found() });
    serve(far.into(), nobody(), &visit, &Arc::new(Notify::new())).await
}

/// RFC 6455 §1.3.
#[test]
fn the_answer_to_a_key_is_that_of_the_rfc() {
    assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}

#[tokio::test]
async fn both_sides_come_to_a_websocket_that_carries_bytes() {
    let (near, far) = duplex(PIPE);
    let target = target("a.example", "/t?x=1");
    let client = upgrade(Wire::brought(near), CarrierKind::Ws, &target, "it".to_owned());
    let (near, far) = tokio::join!(client, take(Wire::brought(far), WebSocketConfig::default()));
    let (mut near, mut far) = (near.unwrap(), far.unwrap().unwrap());
    for _ in 0..3 {
        near.write_all(b"there").await.unwrap();
        far.write_all(b"back").await.unwrap();
        let (mut there, mut back) = ([0; 5], [0; 4]);
        far.read_exact(&mut there).await.unwrap();
        near.read_exact(&mut back).await.unwrap();
        assert_eq!((&there, &back), (b"there", b"back"));
    }
}

/// What the client asks for, as it stands on the wire.
#[tokio::test]
async fn the_request_names_host_and_path_of_the_users_choice() {
    for (kind, port, host) in [
        (CarrierKind::Wss, 443, "a.example"),
        (CarrierKind::Wss, 80, "a.example:80"),
        (CarrierKind::Ws, 80, "a.example"),
        (CarrierKind::Ws, 8080, "a.example:8080"),
    ] {
        let (near, mut far) = duplex(PIPE);
        let target = Target { port, ..target("a.example", "/a%20b") };
        let client = upgrade(Wire::brought(near), kind, &target, "it".to_owned());
        let head = async {
            let head = read_head(&mut far).await;
            drop(far);
            head
        };
        let (result, head) = tokio::join!(client, head);
        assert!(matches!(result, Err(CarrierError::NotHttp { .. })), "{result:?}");
        let head = head.to_lowercase();
        assert!(head.starts_with("get /a%20b http/1.1\r\n"), "{head}");
        for line in [
            &format!("host: {host}"),
            "upgrade: websocket",
            "connection: upgrade",
            "sec-websocket-version: 13",
            "user-agent: mozilla/5.0",
        ] {
            assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {head}");
        }
    }
}

async fn read_head(far: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(far.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// What a client comes to whose request is answered so; `ACCEPT` stands for the right answer to its key.
async fn answered(answer: &str) -> String {
    let (near, mut far) = duplex(PIPE);
    let target = target("a.example", "/t");
    let client = async {
        upgrade(Wire::brought(near), CarrierKind::Ws, &target, "the server".to_owned()).await.map(drop)
    };
    let server = async {
        let head = read_head(&mut far).await;
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-Websocket-Key: ")).unwrap();
        far.write_all(answer.replace("ACCEPT", &accept_of(key)).as_bytes()).await.unwrap();
        far.shutdown().await.unwrap();
        // Held open until the client has judged.
        let _ = far.read(&mut [0; 10]).await;
    };
    match tokio::join!(client, server).0 {
        Ok(()) => "a websocket".to_owned(),
        Err(error) => error.at("a.example:443").to_string(),
    }
}

const RIGHT: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n\
                     Sec-WebSocket-Accept: ACCEPT\r\n";

#[tokio::test]
async fn a_client_takes_nothing_but_a_websocket_for_one() {
    assert_eq!(answered(&format!("{RIGHT}\r\n")).await, "a websocket");
    let at = "the server at a.example:443";
    let says = [
        (
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
            format!(
                "{at} answered 404 Not Found to the WebSocket upgrade at /t: check the link's path and host"
            ),
        ),
        (
            "HTTP/1.1 426 Upgrade Required\r\n\r\n".to_owned(),
            "check the link's path and host, and that what stands in front".to_owned(),
        ),
        ("HTTP/1.1 200 OK\r\n\r\n<html>".to_owned(), format!("{at} answered 200 OK")),
        (
            "HTTP/1.1 302 Found\r\nLocation: https://b.example/\x1b[2Jt\r\n\r\n".replace('\x1b', "\t"),
            format!("{at} redirects the WebSocket upgrade at /t to https://b.example/\\t[2Jt"),
        ),
        (RIGHT.replace("ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") + "\r\n", "Sec-WebSocket-Accept".to_owned()),
        (format!("{RIGHT}Sec-WebSocket-Accept: ACCEPT\r\n\r\n"), "Sec-WebSocket-Accept".to_owned()),
        (
            RIGHT.replace("Upgrade: WebSocket", "Upgrade: h2c") + "\r\n",
            "go on with WebSocket".replace("go", "goes"),
        ),
        (RIGHT.replace("keep-alive, upgrade", "keep-alive") + "\r\n", "goes on with WebSocket".to_owned()),
        (format!("{RIGHT}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"), "not asked for".to_owned()),
        (format!("{RIGHT}Sec-WebSocket-Protocol: chat\r\n\r\n"), "not asked for".to_owned()),
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n".to_owned(),
            format!("{at} answered 407 Proxy Authentication Required"),
        ),
        ("SSH-2.0-OpenSSH_9.9\r\n".to_owned(), format!("{at} does not answer in HTTP")),
        // Frames, or anything else, in front of the answer.
        (format!("\u{2}\u{3}abc{RIGHT}\r\n"), format!("{at} does not answer in HTTP")),
        (format!("abc\r\n{RIGHT}\r\n"), format!("{at} does not answer in HTTP")),
        (
            "".to_owned(),
            "does not answer in HTTP: check the link's host and port (it closed the connection".to_owned(),
        ),
        (
            format!("HTTP/1.1 101 Switching\r\nX: {}\r\n\r\n", "x".repeat(20_000)),
            "does not answer in HTTP".to_owned(),
        ),
    ];
    for (answer, said) in says {
        let got = answered(&answer).await;
        assert!(got.contains(&said) && got.lines().count() == 1, "{answer:?}\nsays {got:?}\nnot  {said:?}");
    }
}

/// What comes right behind the handshake, in the same bytes, belongs to the framing.
#[tokio::test]
async fn what_comes_with_the_answer_or_with_the_request_is_not_lost() {
    let (near, mut far) = duplex(PIPE);
    let target = target("a.example", "/");
    let client = upgrade(Wire::brought(near), CarrierKind::Ws, &target, "it".to_owned());
    let server = async {
        let head = read_head(&mut far).await;
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-Websocket-Key: ")).unwrap();
        let answer = format!("{RIGHT}\r\n\u{2}").replace("ACCEPT", &accept_of(key));
        far.write_all(&[&answer.as_bytes()[..answer.len() - 1], &[0x82, 3], b"abc"].concat()).await.unwrap();
        far
    };
    let (near, _far) = tokio::join!(client, server);
    let mut abc = [0; 3];
    near.unwrap().read_exact(&mut abc).await.unwrap();
    assert_eq!(&abc, b"abc");

    let (mut near, far) = duplex(PIPE);
    near.write_all(&[ASKS.as_bytes(), b"\r\n", &[0x82, 0x83, 0, 0, 0, 0], b"abc"].concat()).await.unwrap();
    let far = take(Wire::brought(far), WebSocketConfig::default()).await.unwrap();
    far.unwrap().read_exact(&mut abc).await.unwrap();
    assert_eq!(&abc, b"abc");
}

/// A right request, but for the empty line.
const ASKS: &str = "GET /t HTTP/1.1\r\nHost: a.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// The status that a request is answered with, and the whole head.
async fn status(request: &str, config: &WebSocketConfig) -> (u16, String) {
    let (mut near, far) = duplex(PIPE);
    near.write_all(request.as_bytes()).await.unwrap();
    let server = tokio::spawn({
        let config = config.clone();
        async move { take(Wire::brought(far), config).await.map(|wire| wire.is_some()) }
    });
    let head = read_head(&mut near).await;
    drop(near);
    let status = head[9..12].parse().unwrap();
    assert_eq!(server.await.unwrap().unwrap_or(false), status == 101, "{head}");
    (status, head)
}

#[tokio::test]
async fn only_a_right_request_becomes_a_tunnel() {
    let any = WebSocketConfig::default();
    let (right, head) = status(&format!("{ASKS}\r\n"), &any).await;
    assert!(right == 101 && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    for (from, to, expected) in [
        ("Connection: Upgrade", "Connection: keep-alive, UPGRADE", 101),
        ("Upgrade: websocket", "Upgrade: WebSocket", 101),
        ("GET", "POST", 400),
        ("GET", "HEAD", 400),
        ("Host: a.example\r\n", "", 400),
        ("Host: a.example\r\n", "Host: a.example\r\nHost: b.example\r\n", 400),
        ("Upgrade: websocket\r\n", "", 426),
        ("Upgrade: websocket\r\n", "Upgrade: websocket\r\nUpgrade: websocket\r\n", 426),
        ("Upgrade: websocket", "Upgrade: h2c", 426),
        ("Connection: Upgrade\r\n", "", 426),
        ("Version: 13", "Version: 12", 426),
        ("Version: 13", "Version: 13, 8", 426),
        ("Sec-WebSocket-Version: 13\r\n", "", 426),
        ("Sec-WebSocket-Version: 13\r\n", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n", 426),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        (
            "dGhlIHNhbXBsZSBub25jZQ==",
            "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            400,
        ),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", 400),
        ("Host", "Content-Length: 3\r\nHost", 400),
        ("Host", "Transfer-Encoding: chunked\r\nHost", 400),
        ("Host", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\nHost", 400),
        // No upgrade in HTTP/1.0, so what is there is the site's.
        ("HTTP/1.1", "HTTP/1.0", 404),
    ] {
        let request = format!("{ASKS}\r\n").replace(from, to);
        assert!(request.contains(to));
        let (got, head) = status(&request, &any).await;
        assert_eq!(got, expected, "{from:?} as {to:?}: {head}");
        if got == 426 {
            assert!(head.to_lowercase().contains("\r\nsec-websocket-version: 13\r\n"), "{head}");
        }
    }
}

#[tokio::test]
async fn paths_and_hosts_that_are_not_named_are_the_sites() {
    let config = WebSocketConfig {
        enabled: true,
        paths: vec!["/t".to_owned(), "/u".to_owned()],
        hosts: vec!["A.example".to_owned()],
    };
    let ask = |from: &str, to: &str| format!("{ASKS}\r\n").replace(from, to);
    for (from, to, expected) in [
        ("/t", "/u?x=/t", 101),
        ("a.example", "a.EXAMPLE.:8080", 101),
        ("GET /t", "GET http://a.example/t", 101),
        ("/t", "/", 404),
        ("/t", "/t/", 404),
        ("/t", "/T", 404),
        ("/t", "//t", 404),
        ("a.example", "b.example", 404),
        ("a.example", "a.example.b.example", 404),
        // The absolute form counts, whatever Host says.
        ("GET /t", "GET http://b.example/t", 404),
        ("Host: a.example\r\n", "", 400),
    ] {
        assert_eq!(status(&ask(from, to), &config).await.0, expected, "{from:?} as {to:?}");
    }
    let off = WebSocketConfig { enabled: false, ..WebSocketConfig::default() };
    assert_eq!(status(&ask("", ""), &off).await.0, 404);
}

#[tokio::test]
async fn other_requests_and_then_a_websocket_come_over_one_connection() {
    let (mut near, far) = duplex(PIPE);
    let server = tokio::spawn(async move { take(Wire::brought(far), WebSocketConfig::default()).await });
    for _ in 0..3 {
        near.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
        let head = read_head(&mut near).await;
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n"), "{head}");
        let mut page = [0; 14];
        near.read_exact(&mut page).await.unwrap();
        assert_eq!(&page, b"404 Not Found\n");
        assert!(!head.to_lowercase().contains("gkd"), "{head}");
    }
    let target = target("a.example", "/");
    let near = upgrade(Wire::brought(near), CarrierKind::Ws, &target, "it".to_owned()).await;
    let (mut near, mut far) = (near.unwrap(), server.await.unwrap().unwrap().unwrap());
    near.write_all(b"x").await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn a_megabyte_of_header_is_too_much_and_the_end() {
    for head in ["GET / HTTP/1.1\r\nX: ", "GET /"] {
        let (near, far) = duplex(4096);
        let server =
            tokio::spawn(async move { take(Wire::brought(far), WebSocketConfig::default()).await.is_err() });
        let (mut from, mut to) = tokio::io::split(near);
        let flood = async {
            let mut sent = to.write(head.as_bytes()).await.unwrap();
            while let Ok(len) = to.write(&[b'x'; 1024]).await {
                sent += len;
                assert!(sent < 1 << 20, "a megabyte was taken");
            }
        };
        let answer = async {
            let mut answer = Vec::new();
            from.read_to_end(&mut answer).await.unwrap();
            String::from_utf8(answer).unwrap()
        };
        let ((), answer) = tokio::join!(flood, answer);
        let told = answer.starts_with("HTTP/1.1 431 ") || answer.starts_with("HTTP/1.1 414 ");
        assert!(told, "{head:?}: {answer}");
        assert!(server.await.unwrap());
    }
}

/// A web server's certificate, made out to this name by itself.
fn certificate(name: &str) -> (CertificateDer<'static>, PrivateKeyDer<'static>, Pin) {
    let CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let pin = pin_of(&signing_key);
    (cert.der().clone(), PrivateKeyDer::Pkcs8(signing_key.serialize_der().into()), pin)
}

fn pin_of(key: &KeyPair) -> Pin {
    let hash = digest::digest(&digest::SHA256, &rcgen::PublicKeyData::subject_public_key_info(key));
    Pin(hash.as_ref().try_into().unwrap())
}

/// A web server with this certificate in front of a gkd server, at its end of a pipe.
fn web_server(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Wire {
    let (near, far) = duplex(PIPE);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tokio::spawn(async move {
        let Ok(tls) = TlsAcceptor::from(Arc::new(config)).accept(far).await else { return };
        let wire = take(Wire::brought(tls), WebSocketConfig::default()).await;
        if let Ok(Some(mut wire)) = wire {
            let byte = wire.read_u8().await.unwrap();
            wire.write_all(&[byte + 1]).await.unwrap();
            wire.flush().await.unwrap();
            // Until the client has read it.
            let _ = wire.read(&mut [0]).await;
        }
    });
    Wire::brought(near)
}

async fn ask(wire: Wire, target: &Target) -> Result<(), CarrierError> {
    answers(super::connect(wire, CarrierKind::Wss, target).await?).await
}

async fn answers(mut wire: Wire) -> Result<(), CarrierError> {
    wire.write_all(&[41]).await?;
    wire.flush().await?;
    assert_eq!(wire.read_u8().await?, 42);
    Ok(())
}

#[tokio::test]
async fn a_pin_takes_its_key_and_no_other_with_either_version_of_tls() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (certificate, key, pin) = certificate("other.example");
        let server = || web_server(certificate.clone(), key.clone_key(), &[version]);
        let right = Target { pin: Some(pin), ..target("a.example", "/") };
        ask(server(), &right).await.unwrap();
        let wrong = Target { pin: Some(Pin([7; 32])), ..right };
        let error = ask(server(), &wrong).await.unwrap_err().at("a.example:443");
        let words = error.to_string();
        let keys = format!("(expected {}, got {pin})", Pin([7; 32]));
        assert!(
            words.starts_with("the certificate of the server at a.example:443 has another key"),
            "{words}"
        );
        assert!(words.contains(&keys), "{words}");
    }
}

#[tokio::test]
async fn a_certificate_is_judged_by_roots_and_by_the_name() {
    let (certificate, key, _) = certificate("a.example");
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let config = outer::config_with_roots(roots).unwrap();
    let go = async |target: Target, config: Arc<rustls::ClientConfig>| {
        let server = web_server(certificate.clone(), key.clone_key(), rustls::DEFAULT_VERSIONS);
        let wire = outer::connect_with(config, server, &target, "the server").await?;
        answers(upgrade(wire, CarrierKind::Wss, &target, "the server".to_owned()).await?).await
    };
    go(target("a.example", "/"), config.clone()).await.unwrap();
    go(target("a.example.", "/"), config.clone()).await.unwrap();
    let other = go(target("b.example", "/"), config.clone()).await.unwrap_err().at("1.2.3.4:443");
    let words = other.to_string();
    assert!(
        words.starts_with("the certificate of the server at 1.2.3.4:443 is not valid for b.example: "),
        "{words}"
    );
    assert!(words.contains("check the link's host") && words.contains("pin="), "{words}");
    // What nobody vouches for.
    let mut strangers = RootCertStore::empty();
    strangers.add(self::certificate("a.example").0).unwrap();
    let strangers = outer::config_with_roots(strangers).unwrap();
    let unknown = go(target("a.example", "/"), strangers).await.unwrap_err();
    assert!(matches!(unknown, CarrierError::WebCertificate { .. }), "{unknown}");
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_not_valid() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let der = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let target = target("a.example", "/");
    let go = async |target: Target, config| {
        let server = web_server(certificate.clone(), der.clone_key(), rustls::DEFAULT_VERSIONS);
        outer::connect_with(config, server, &target, "the server").await.map(drop)
    };
    let config = outer::config_with_roots(roots).unwrap();
    let error = go(target.clone(), config).await.unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    // A pin outlives it.
    let server = web_server(certificate.clone(), der.clone_key(), rustls::DEFAULT_VERSIONS);
    ask(server, &Target { pin: Some(pin_of(&key)), ..target }).await.unwrap();
}

#[tokio::test]
async fn a_server_without_tls_is_called_so() {
    let (near, mut far) = duplex(PIPE);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let target = Target { pin: Some(Pin([0; 32])), ..target("a.example", "/") };
    let error = super::connect(Wire::brought(near), CarrierKind::Wss, &target).await.unwrap_err();
    let error = error.at("a.example:80");
    assert!(
        error.to_string().starts_with("the TLS of the web server failed at the server at a.example:80"),
        "{error}"
    );
}

#[tokio::test]
async fn a_web_server_that_is_killed_is_told_in_words_of_ours() {
    /// How far it comes.
    #[derive(Clone, Copy)]
    enum Dies {
        BeforeTheAnswer,
        BehindIt,
    }

    for dies in [Dies::BeforeTheAnswer, Dies::BehindIt] {
        let (certificate, key, pin) = certificate("a.example");
        let config =
            ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_protocol_versions(rustls::DEFAULT_VERSIONS)
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
                .unwrap();
        let (near, far) = duplex(PIPE);
        tokio::spawn(async move {
            let mut tls = TlsAcceptor::from(Arc::new(config)).accept(far).await.unwrap();
            match dies {
                Dies::BeforeTheAnswer => drop(tls.read(&mut [0; 4096]).await),
                Dies::BehindIt => drop(take(Wire::brought(tls), WebSocketConfig::default()).await),
            }
        });
        let target = Target { pin: Some(pin), ..target("a.example", "/") };
        let connected = super::connect(Wire::brought(near), CarrierKind::Wss, &target).await;
        let words = match (dies, connected) {
            (Dies::BeforeTheAnswer, connected) => connected.unwrap_err().to_string(),
            (Dies::BehindIt, connected) => {
                connected.unwrap().read(&mut [0; 10]).await.unwrap_err().to_string()
            }
        };
        assert!(words.contains("closed the connection") && !words.contains("://d"), "{words}");
        assert!(!words.contains("close_notify"), "{words}");
    }
}

#[test]
fn a_pin_is_43_characters_of_base64url() {
    let pin = Pin([0xab; 32]);
    assert_eq!(pin.to_string().parse(), Ok(pin));
    for wrong in ["", "abc", &format!("{pin}="), &pin.to_string()[1..], &"+".repeat(43)] {
        assert_eq!(wrong.parse::<Pin>(), Err(PinError), "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_asks_for_nothing_is_closed_by_itself() {
    let (mut near, far) = duplex(PIPE);
    near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let server =
        tokio::spawn(async move { take(Wire::brought(far), WebSocketConfig::default()).await.is_err() });
    let mut all = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(3600), near.read_to_end(&mut all)).await;
    end.expect("it is kept for ever").unwrap();
    assert!(all.starts_with(b"HTTP/1.1 404"));
    server.await.unwrap();
}

/// Not its silences count, but the whole of it.
#[tokio::test(start_paused = true)]
async fn a_further_head_that_trickles_has_its_time_all_the_same() {
    let (mut near, far) = duplex(PIPE);
    let server = tokio::spawn(async move { take(Wire::brought(far), WebSocketConfig::default()).await });
    near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let head = read_head(&mut near).await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    let mut taken = 0;
    for byte in b"GET / HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'y')).take(3600) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if near.write_all(&[*byte]).await.is_err() {
            break;
        }
        taken += 1;
    }
    assert!((60..90).contains(&taken), "a byte a second, and {taken} were taken");
    assert!(server.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_visitor_who_neither_reads_nor_sends_is_not_waited_for() {
    use http_body_util::{BodyExt, Full};

    let large: SiteService = Arc::new(|_, _| {
        let page = Full::from(vec![b'x'; 10 * PIPE]).map_err(|never| match never {}).boxed();
        Box::pin(std::future::ready(hyper::Response::new(page)))
    });
    let (mut near, far) = duplex(PIPE);
    let visit = Arc::new(Visit { config: WebSocketConfig::default(), site: large });
    let server = tokio::spawn(async move {
        serve(Wire::brought(far), nobody(), &visit, &Arc::new(Notify::new())).await.map(drop)
    });
    near.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // Slowly is well, as long as something moves.
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(80)).await;
        near.read_exact(&mut [0; 1000]).await.unwrap();
        assert!(!server.is_finished());
    }
    let end = tokio::time::timeout(Duration::from_secs(3600), server).await;
    let end = end.expect("it is waited for for ever").unwrap().unwrap_err();
    assert!(matches!(&end, CarrierError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut), "{end}");
}

#[tokio::test]
async fn who_sends_for_ever_before_a_key_is_cut_off() {
    let acceptor = crate::carrier::Acceptor::new(&crate::identity::SecretKey::generate()).unwrap();
    let pings = [&[0x89, 0x8a, 0, 0, 0, 0][..], &[7; 10]].concat();
    for frame in [pings, vec![0x02, 0x80, 0, 0, 0, 0], vec![0x8a, 0x80, 0, 0, 0, 0]] {
        // The second kind begins a message once, and continues it.
        let more = if frame[0] == 0x02 { vec![0x00, 0x80, 0, 0, 0, 0] } else { frame.clone() };
        let (mut near, far) = duplex(1024);
        let acceptor = acceptor.clone();
        let server = tokio::spawn(async move {
            let wire = take(Wire::brought(far), WebSocketConfig::default()).await.unwrap().unwrap();
            acceptor.accept_websocket(wire).await.map(drop)
        });
        near.write_all(format!("{ASKS}\r\n").as_bytes()).await.unwrap();
        read_head(&mut near).await;
        let (mut answers, mut near) = tokio::io::split(near);
        let flood = async {
            let mut sent = 0;
            near.write_all(&frame).await.unwrap();
            while near.write_all(&more).await.is_ok() {
                sent += more.len();
                assert!(sent < 1 << 20, "a megabyte was taken");
            }
        };
        let read = async { while let Ok(1..) = answers.read(&mut [0; 4096]).await {} };
        tokio::join!(flood, read);
        let result = server.await.unwrap();
        assert!(matches!(result, Err(CarrierError::TooMuch)), "{result:?}");
    }
}
