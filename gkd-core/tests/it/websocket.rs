//! Tunnels over WebSocket, beside others and beside a site on the same port, and behind a web server's TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::FutureExt;
use gkd_core::carrier::CarrierKind;
use gkd_core::carrier::ws::{Pin, SiteService, WebSocketConfig, not_found};
use gkd_core::identity::SecretKey;
use gkd_core::link::Link;
use gkd_core::{Client, ClientEvent, Server, ServerBuilder};
use rcgen::CertifiedKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, crypto};

use crate::support::{Relay, content, read_all, spawn_echo, until, within};

fn builder() -> ServerBuilder {
    Server::builder().listen("127.0.0.1:0")
}

/// A link to the server by way of this address.
fn link(kind: CarrierKind, server: &Server, address: SocketAddr, user: &SecretKey) -> Link {
    let address = address.to_string().parse().unwrap();
    Link { carrier: kind, ..Link::new(server.key(), user.clone(), vec![address]) }
}

fn address(server: &Server) -> SocketAddr {
    server.local_addr().unwrap()
}

/// Megabytes there and back.
async fn echoes(client: &Client) {
    let sent = content(7, 3_000_000);
    let connection = client.get_connection().await.unwrap();
    let write = async {
        let mut writer = &connection;
        within("write", writer.write_all(&sent)).await.unwrap();
        within("end", writer.shutdown()).await.unwrap();
    };
    let ((), back) = tokio::join!(write, read_all(&connection));
    assert!(back.unwrap() == sent, "what came back is not what was sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_tunnels_over_websocket_carry_megabytes() {
    let server = Arc::new(builder().bind().await.unwrap());
    spawn_echo(server.clone());
    let link = link(CarrierKind::Ws, &server, address(&server), &SecretKey::generate());
    let client = within("connect", Client::builder().link(&link).tunnels(4).connect()).await.unwrap();
    until("all tunnels", || client.tunnels_up() == 4).await;
    echoes(&client).await;
    assert_eq!(client.tunnels_up(), 4);
    assert_eq!(server.sessions().len(), 1);
    // The session's end is told over it as over any other.
    within("close", client.close()).await;
    until("the session's end", || server.sessions().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_session_mixes_carriers_on_one_port() {
    let server = Arc::new(builder().plain(true).bind().await.unwrap());
    spawn_echo(server.clone());
    let user = SecretKey::generate();
    let mut client = Client::builder().tunnels(2);
    for kind in [CarrierKind::Tls, CarrierKind::Ws, CarrierKind::Plain] {
        client = client.link(&link(kind, &server, address(&server), &user));
    }
    let client = within("connect", client.connect()).await.unwrap();
    until("all tunnels", || client.tunnels_up() == 6).await;
    echoes(&client).await;
    assert_eq!(server.sessions().len(), 1, "they are one session");
}

/// When one carrier's way is cut, the other carries on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_that_is_cut_is_dialled_again_and_loses_nothing() {
    let server = Arc::new(builder().bind().await.unwrap());
    spawn_echo(server.clone());
    let relay = Relay::to(address(&server)).await;
    let link = link(CarrierKind::Ws, &server, relay.address, &SecretKey::generate());
    let client = within("connect", Client::builder().link(&link).tunnels(3).connect()).await.unwrap();
    until("all tunnels", || client.tunnels_up() == 3).await;
    for index in 0..3 {
        let (echo, ()) = tokio::join!(echoes(&client), async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            relay.cut_one(index);
        });
        echo
    }
    until("all tunnels again", || client.tunnels_up() == 3).await;
}

/// Asks by hand, with the connection to be closed behind the answer.
async fn get(address: SocketAddr, head: &str) -> String {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    match within("answer", tcp.read_to_end(&mut answer)).await {
        // What is closed with unread bytes resets.
        Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => panic!("{error}"),
        _ => {}
    }
    String::from_utf8(answer).unwrap()
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn a_browser_on_the_port_finds_nothing_and_learns_nothing() {
    let server = builder().bind().await.unwrap();
    let answer = get(address(&server), GET).await;
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(!answer.to_lowercase().contains("gkd"), "{answer}");
    let rest = get(address(&server), "ABCDEFGHIJKL / HTTP/1.1\r\n\r\n").await;
    assert_eq!(rest, "", "what begins like no method is closed");
}

#[tokio::test]
async fn without_websocket_and_site_http_is_closed_as_anything_foreign_is() {
    let off = WebSocketConfig { enabled: false, ..WebSocketConfig::default() };
    let server = builder().websocket(off.clone()).bind().await.unwrap();
    assert_eq!(get(address(&server), GET).await, "");
    // With a site there is HTTP, and still no tunnel.
    let server = builder().websocket(off).site(not_found()).bind().await.unwrap();
    assert!(get(address(&server), GET).await.starts_with("HTTP/1.1 404"));
    let link = link(CarrierKind::Ws, &server, address(&server), &SecretKey::generate());
    let error = within("refusal", Client::builder().link(&link).connect()).await.unwrap_err();
    let words = error.to_string();
    assert!(words.contains("answered 404 Not Found to the WebSocket upgrade at /"), "{words}");
}

#[tokio::test]
async fn a_server_that_narrows_path_and_host_takes_the_links_that_name_them() {
    let config =
        WebSocketConfig { paths: vec!["/t".into()], hosts: vec!["a.example".into()], ..Default::default() };
    let server = Arc::new(builder().websocket(config).bind().await.unwrap());
    spawn_echo(server.clone());
    let user = SecretKey::generate();
    let bare = link(CarrierKind::Ws, &server, address(&server), &user);
    let right = Link { path: "/t".into(), host: Some("A.example:80".parse().unwrap()), ..bare.clone() };
    let client = within("connect", Client::builder().link(&right).tunnels(1).connect()).await.unwrap();
    echoes(&client).await;
    for wrong in [
        Link { path: "/u".into(), ..right.clone() },
        Link { host: Some("b.example".parse().unwrap()), ..right.clone() },
        bare,
    ] {
        let error = within("refusal", Client::builder().link(&wrong).tunnels(1).connect()).await.unwrap_err();
        assert!(error.to_string().contains("404 Not Found"), "{error}");
    }
}

/// A stranger needs no key to send frames.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_are_answered_with_a_close_code_and_disturb_nobody() {
    let server = Arc::new(builder().bind().await.unwrap());
    spawn_echo(server.clone());
    let link = link(CarrierKind::Ws, &server, address(&server), &SecretKey::generate());
    let client = within("connect", Client::builder().link(&link).tunnels(2).connect()).await.unwrap();
    until("all tunnels", || client.tunnels_up() == 2).await;
    let asks = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let no_key = [0; 4];
    let strangers = async {
        for (bad, code) in [
            (vec![0x82, 0x01, b'x'], 1002_u16),
            ([&[0x82, 0xff, 0, 0, 0, 0, 0x10, 0, 0, 0][..], &no_key].concat(), 1009),
            ([&[0xa2, 0x81][..], &no_key, b"x"].concat(), 1002),
            ([&[0x8c, 0x80][..], &no_key].concat(), 1002),
            ([&[0x09, 0x80][..], &no_key].concat(), 1002),
            ([&[0x81, 0x81][..], &no_key, b"x"].concat(), 1003),
            ([&[0x88, 0x81][..], &no_key, b"x"].concat(), 1002),
            ([&[0x88, 0x82][..], &no_key, &1006_u16.to_be_bytes()].concat(), 1002),
        ] {
            let mut tcp = TcpStream::connect(address(&server)).await.unwrap();
            // The frame with the request, as who does not wait sends it.
            tcp.write_all(&[asks.as_bytes(), &bad].concat()).await.unwrap();
            let mut answer = Vec::new();
            within("the end", tcp.read_to_end(&mut answer)).await.unwrap();
            let close = [&[0x88, 2][..], &code.to_be_bytes()].concat();
            let shown = String::from_utf8_lossy(&answer);
            assert!(shown.starts_with("HTTP/1.1 101"), "{shown}");
            assert!(answer.ends_with(&[b"\r\n\r\n", &close[..]].concat()), "{bad:x?}: {answer:x?}");
        }
    };
    tokio::join!(echoes(&client), strangers);
    assert_eq!((client.tunnels_up(), server.stats().tunnels.used), (2, 2));
    until("no stranger is left", || server.stats().half_open.used == 0).await;
}

/// Answers after a while that is longer than a handshake may take.
fn slow_site(asked: Arc<AtomicUsize>, takes: Duration) -> SiteService {
    let page = not_found();
    Arc::new(move |request, address| {
        asked.fetch_add(1, Ordering::SeqCst);
        let page = page(request, address);
        async move {
            tokio::time::sleep(takes).await;
            page.await
        }
        .boxed()
    })
}

#[tokio::test]
async fn a_visitor_is_answered_however_long_that_takes_and_the_silent_are_cut_off() {
    let asked = Arc::new(AtomicUsize::new(0));
    let site = slow_site(asked.clone(), Duration::from_millis(1500));
    let server = builder().site(site).handshake_timeout(Duration::from_millis(500)).bind().await.unwrap();
    let (answer, cut) =
        tokio::join!(get(address(&server), GET), get(address(&server), "GET / HTTP/1.1\r\nHost: a"));
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert_eq!(cut, "", "who stops within the head is closed");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Neither does a WebSocket live on in which no key is proved.
    let asks = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let answer = get(address(&server), asks).await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn visitors_take_no_places_of_tunnels_and_give_way_among_themselves() {
    let asked = Arc::new(AtomicUsize::new(0));
    let site = slow_site(asked.clone(), Duration::from_secs(3600));
    let server = builder().site(site).max_visitors(3).max_half_open(4, 4).bind().await.unwrap();
    let mut visitors = Vec::new();
    for count in 1..=6 {
        let mut tcp = TcpStream::connect(address(&server)).await.unwrap();
        tcp.write_all(GET.as_bytes()).await.unwrap();
        until("the question is heard", || asked.load(Ordering::SeqCst) == count).await;
        visitors.push(tcp);
    }
    for tcp in &mut visitors[..3] {
        // Closed without an answer.
        assert_eq!(within("the oldest give way", tcp.read(&mut [0; 10])).await.unwrap_or(0), 0);
    }
    for tcp in &mut visitors[3..] {
        let nothing = tokio::time::timeout(Duration::from_millis(50), tcp.read(&mut [0; 10])).await;
        assert!(nothing.is_err(), "the newest stay");
    }
    let stats = server.stats();
    assert_eq!((stats.visitors.used, stats.visitors.most, stats.visitors_evicted), (3, 3, 3));
    let link = link(CarrierKind::Ws, &server, address(&server), &SecretKey::generate());
    let client = within("connect", Client::builder().link(&link).tunnels(4).connect()).await.unwrap();
    until("all tunnels", || client.tunnels_up() == 4).await;
}

/// A web server that ends TLS, with a certificate of its own, in front of a gkd server.
async fn web_server(to: SocketAddr) -> (SocketAddr, Pin) {
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&signing_key);
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki);
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::Pkcs8(signing_key.serialize_der().into()))
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(near).await else { return };
                let Ok(mut far) = TcpStream::connect(to).await else { return };
                tokio::io::copy_bidirectional(&mut near, &mut far).await.ok();
            });
        }
    });
    (address, Pin(hash.as_ref().try_into().unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_run_through_a_web_servers_tls_with_its_pin_and_with_no_other() {
    let server = Arc::new(builder().bind().await.unwrap());
    spawn_echo(server.clone());
    let (web, pin) = web_server(address(&server)).await;
    let right = Link {
        host: Some("a.example".parse().unwrap()),
        pin: Some(pin),
        ..link(CarrierKind::Wss, &server, web, &SecretKey::generate())
    };
    let client = within("connect", Client::builder().link(&right).tunnels(4).connect()).await.unwrap();
    until("all tunnels", || client.tunnels_up() == 4).await;
    echoes(&client).await;

    let wrong = Link { pin: Some(Pin([1; 32])), ..right.clone() };
    let client = Client::builder().link(&wrong).tunnels(1);
    let error = within("refusal", client.connect()).await.unwrap_err().to_string();
    assert!(
        error.contains("has another key than the link pins") && error.contains(&pin.to_string()),
        "{error}"
    );

    // Whatever roots this machine has, the certificate is of none of them.
    let without = Link { pin: None, ..right };
    let error = Client::builder().link(&without).tunnels(1).connect();
    let error = within("refusal", error).await.unwrap_err().to_string();
    assert!(
        error.contains("is not valid for a.example") || error.contains("no root certificates"),
        "{error}"
    );
}

/// What a certificate or a web server says may be otherwise the next time, so it is tried again.
#[tokio::test]
async fn a_web_server_that_refuses_is_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let web = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            if tcp.read(&mut [0; 4096]).await.is_err() {
                continue;
            }
            tcp.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n").await.ok();
        }
    });
    let server = builder().bind().await.unwrap();
    let link = link(CarrierKind::Ws, &server, web, &SecretKey::generate());
    let client = Client::builder().link(&link).tunnels(1).start().unwrap();
    let mut events = client.events();
    for _ in 0..2 {
        let error = within("a failed dial", async {
            loop {
                if let ClientEvent::DialFailed { error, .. } = events.recv().await.unwrap() {
                    return error;
                }
            }
        })
        .await;
        assert!(error.to_string().contains("503 Service Unavailable") && !error.is_final(), "{error}");
    }
}
