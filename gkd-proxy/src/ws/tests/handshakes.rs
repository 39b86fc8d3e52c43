//! The opening handshake at either end, by hand.

use tokio::io::{DuplexStream, duplex};
use tokio::time::timeout;

use super::*;
use crate::ws::{StreamToWs, WsError, WsToStream};

/// Sends a request to a listener; the status and the head of the answer.
async fn asked(listening: &Listening, request: &[u8]) -> (Option<u16>, String) {
    let io = program(listening).await;
    let (mut reader, mut writer) = io.into_split();
    let request = request.to_vec();
    let write = tokio::spawn(async move {
        // One that is refused takes no more.
        let _ = writer.write_all(&request).await;
        writer
    });
    let head = timeout(LONG, read_head(&mut reader)).await.unwrap();
    drop(write);
    (head.get(9..12).and_then(|status| status.parse().ok()), head)
}

#[tokio::test]
async fn a_request_that_is_none_is_refused_with_its_status_and_opens_nothing() {
    let form = "ws://0:a.example:1?path=/x&origin=https://a.example&origin=http://b.example:8080";
    let (listening, mut far) = listening(form, &ListenConfig::default()).await;
    let good = request("Origin: https://a.example\r\n").replace("GET / ", "GET /x?y ");
    for (why, from, to, status) in [
        ("another method", "GET", "POST", 400),
        ("an older HTTP", "HTTP/1.1", "HTTP/1.0", 400),
        ("no host", "Host: a.example\r\n", "", 400),
        ("two hosts", "Host: a.example\r\n", "Host: a.example\r\nHost: b.example\r\n", 400),
        ("no upgrade", "Upgrade: websocket\r\n", "", 426),
        ("another upgrade", "Upgrade: websocket", "Upgrade: h2c", 426),
        ("no connection", "Connection: Upgrade\r\n", "", 400),
        ("another connection", "Connection: Upgrade", "Connection: keep-alive", 400),
        ("no key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 400),
        (
            "two keys",
            "Sec-WebSocket-V",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-V",
            400,
        ),
        ("a short key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ==", 400),
        ("a key that is no base64", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZ!==", 400),
        ("no version", "Sec-WebSocket-Version: 13\r\n", "", 400),
        ("two versions", "Sec-WebSocket-K", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-K", 400),
        ("another version", "Version: 13", "Version: 8", 426),
        ("a body", "Upgrade: w", "Content-Length: 5\r\nUpgrade: w", 400),
        ("a chunked body", "Upgrade: w", "Transfer-Encoding: chunked\r\nUpgrade: w", 400),
        ("another path", "/x?y", "/", 404),
        ("another site", "https://a.example", "https://evil.example", 403),
        ("a site in another scheme", "https://a.example", "http://a.example", 403),
        ("no site", "https://a.example", "null", 403),
        ("two sites", "Origin: h", "Origin: https://a.example\r\nOrigin: h", 403),
        ("a header without a colon", "Upgrade: websocket", "Upgrade websocket", 400),
    ] {
        assert!(good.contains(from), "{why}");
        let (got, head) = asked(&listening, good.replacen(from, to, 1).as_bytes()).await;
        assert_eq!(got, Some(status), "{why}: {head}");
        let mend = head.to_lowercase().contains("sec-websocket-version: 13");
        assert_eq!(mend, status == 426, "{why}: {head}");
    }
    let many = "X: y\r\n".repeat(200);
    let long = format!("X: {}\r\n", "y".repeat(1024 * 1024));
    for more in [many, long] {
        let (got, head) = asked(&listening, request(&more).as_bytes()).await;
        assert_eq!(got, Some(431), "{head}");
    }
    let (got, _) = asked(&listening, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc").await;
    assert_eq!(got, Some(400));
    assert!(far.try_recv().is_err(), "a connection was opened");

    for (why, from, to) in [
        ("as it is", "GET", "GET"),
        ("no browser", "Origin: https://a.example\r\n", ""),
        ("the other site", "https://a.example", "http://B.example:8080"),
        ("lists", "Upgrade: websocket", "Upgrade: h2c, WebSocket"),
        ("more lists", "Connection: Upgrade", "Connection: keep-alive\r\nConnection: x , upgrade"),
    ] {
        let (got, head) = asked(&listening, good.replacen(from, to, 1).as_bytes()).await;
        assert_eq!(got, Some(101), "{why}: {head}");
        assert!(
            head.contains(ACCEPT) && !head.to_lowercase().contains("sec-websocket-protocol"),
            "{why}: {head}"
        );
        drop(timeout(LONG, far.recv()).await.unwrap());
    }
    let more = "Origin: https://a.example\r\nSec-WebSocket-Protocol: mqtt, binary\r\n";
    let (_, head) = asked(&listening, request(more).replace("GET / ", "GET /x ").as_bytes()).await;
    assert!(head.to_lowercase().contains("sec-websocket-protocol: mqtt\r\n"), "{head}");
}

#[tokio::test]
async fn a_request_that_does_not_end_has_its_time_and_keeps_nobody_out() {
    let config = ListenConfig {
        handshake_timeout: Duration::from_secs(3),
        max_handshakes: 4,
        ..ListenConfig::default()
    };
    let (listening, mut far) = listening("ws://0:a.example:1", &config).await;
    let mut endless = program(&listening).await;
    endless.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\nX: ").await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(program(&listening).await);
    }
    let mut honest = program(&listening).await;
    upgrade(&mut honest).await;
    timeout(LONG, far.recv()).await.unwrap().unwrap();
    // Closed without a word.
    assert_eq!(timeout(LONG, endless.read(&mut [0])).await.unwrap().unwrap_or(0), 0);
    assert!(far.try_recv().is_err());
}

#[tokio::test]
async fn an_answer_waits_for_the_far_end_where_it_is_asked_to() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let form = format!("ws://0:{closed}?strict=1");
    let (strict, far) = listening(&form, &ListenConfig::default()).await;
    serve_far_ends(far);
    assert_eq!(asked(&strict, request("").as_bytes()).await.0, Some(502));
    let (lax, far) = listening(&format!("ws://0:{closed}"), &ListenConfig::default()).await;
    serve_far_ends(far);
    let mut io = program(&lax).await;
    upgrade(&mut io).await;
    // Close 1011.
    let mut close = [0; 4];
    timeout(LONG, io.read_exact(&mut close)).await.unwrap().unwrap();
    assert_eq!((close[0], close[2..].to_vec()), (0x88, 1011u16.to_be_bytes().to_vec()));
}

#[tokio::test]
async fn a_plain_server_that_is_not_there_is_told_in_the_answer() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (mut client, server) = duplex(4096);
    let mapping = tokio::spawn(WsToStream::new(server, closed).copy_bidirectional());
    client.write_all(request("").as_bytes()).await.unwrap();
    let head = read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    drop(client);
    assert!(matches!(mapping.await.unwrap(), Err(WsError::Dial(..))));
}

/// Says this and then goes on, a byte a second; how many were taken.
async fn trickle(io: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> u64 {
    let mut taken = 0;
    for byte in bytes.iter().chain(std::iter::repeat(&b'y')).take(3600) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if io.write_all(&[*byte]).await.is_err() {
            break;
        }
        taken += 1;
    }
    taken
}

/// Not silences count, but the whole of a handshake. A socket takes a byte or two before it tells that it is closed.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_trickles_has_its_time_all_the_same() {
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

    let limit = crate::ws::WsConfig::default().handshake_timeout.as_secs();
    let of_request = b"GET / HTTP/1.1\r\nHost: a.example\r\nX: ";
    let (mut client, server) = duplex(4096);
    let mapping = tokio::spawn(WsToStream::over(server, duplex(1).0).copy_bidirectional());
    assert!((limit - 1..=limit).contains(&trickle(&mut client, of_request).await));
    assert!(matches!(mapping.await.unwrap(), Err(WsError::TimedOut)));

    let config = ListenConfig::default();
    let (listening, mut far) = listening("ws://0:a.example:1", &config).await;
    let taken = trickle(&mut program(&listening).await, of_request).await;
    assert!(taken <= config.handshake_timeout.as_secs() + 2, "{taken} bytes were taken");
    assert!(far.try_recv().is_err());

    let none = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let none = Arc::new(none);
    // A record of TLS, and a head.
    for (scheme, said) in
        [("wss", &b"\x16\x03\x03\x20\x00\x02\x00\x10\x00"[..]), ("ws", b"HTTP/1.1 101 S\r\nX: ")]
    {
        let (near, mut far) = duplex(4096);
        let (mut program, plain) = duplex(4096);
        let mapping = StreamToWs::over(plain, near, format!("{scheme}://a.example/")).tls(none.clone());
        let mapping = tokio::spawn(mapping.copy_bidirectional());
        assert!((limit - 1..=limit).contains(&trickle(&mut far, said).await), "{scheme}");
        assert!(matches!(mapping.await.unwrap(), Err(WsError::TimedOut)), "{scheme}");
        assert_eq!(program.read(&mut [0]).await.unwrap(), 0);
    }
}

/// What a server is asked, as it stands on the wire.
#[tokio::test]
async fn the_request_names_what_stands_in_the_address() {
    let (near, mut far) = duplex(4096);
    let mapping =
        StreamToWs::over(duplex(1).0, near, "ws://A.example:8081//x/../y?z=%20&a").subprotocol("mqtt");
    let mapping = tokio::spawn(mapping.copy_bidirectional());
    let head = timeout(LONG, read_head(&mut far)).await.unwrap();
    assert!(head.starts_with("GET //x/../y?z=%20&a HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    for line in [
        "host: a.example:8081",
        "upgrade: websocket",
        "connection: upgrade",
        "user-agent: mozilla/5.0",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: mqtt",
    ] {
        assert_eq!(head.matches(&format!("\r\n{line}\r\n")).count(), 1, "{line} in {head}");
    }
    assert!(!head.contains("gkd") && !head.contains("extensions"), "{head}");
    drop(far);
    assert!(matches!(timeout(LONG, mapping).await.unwrap().unwrap(), Err(WsError::NotHttp(_))));
}

/// A server that answers any request with these bytes; ACCEPT stands for the right key.
async fn answers(answer: &str, protocol: Option<&str>) -> (Result<crate::ws::Copied, WsError>, DuplexStream) {
    let (near, far) = duplex(4096);
    let (program, plain) = duplex(4096);
    let answer = answer.to_owned();
    tokio::spawn(async move {
        let (mut reader, mut writer) = tokio::io::split(far);
        let request = read_head(&mut reader).await;
        let key = request.lines().find_map(|line| {
            line.to_lowercase()
                .starts_with("sec-websocket-key: ")
                .then(|| line["sec-websocket-key: ".len()..].to_owned())
        });
        let key = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.unwrap().as_bytes());
        let _ = writer.write_all(answer.replace("ACCEPT", &key).as_bytes()).await;
    });
    let mut mapping = StreamToWs::over(plain, near, "ws://a.example/x");
    if let Some(protocol) = protocol {
        mapping = mapping.subprotocol(protocol);
    }
    (timeout(LONG, mapping.copy_bidirectional()).await.unwrap(), program)
}

#[tokio::test]
async fn an_answer_that_is_none_opens_nothing() {
    let good = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: ACCEPT\r\n\r\n";
    let end = "\r\n\r\n";
    let long = format!("{end}X: {}\r\n", "y".repeat(1024 * 1024)).replacen("\r\n\r\n", "\r\n", 1);
    for (why, from, to, words) in [
        ("another status", "101 Switching Protocols", "200 OK", "status 200"),
        (
            "a redirect",
            "101 Switching Protocols",
            "301 Moved\r\nLocation: ws://b/",
            "take the address ws://b/",
        ),
        ("no upgrade", "Upgrade: websocket\r\n", "", "something else"),
        ("no connection", "Connection: Upgrade\r\n", "", "something else"),
        ("another key", "ACCEPT", ACCEPT, "from memory"),
        ("no key", "Sec-WebSocket-Accept: ACCEPT\r\n", "", "from memory"),
        ("two keys", "Sec-", "Sec-WebSocket-Accept: ACCEPT\r\nSec-", "from memory"),
        ("an extension", end, "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", "extension"),
        ("a subprotocol", end, "\r\nSec-WebSocket-Protocol: x\r\n\r\n", "subprotocol"),
        ("bytes ahead", "HTTP", "\x01\x02\x03HTTP", "does not answer in HTTP: "),
        ("no HTTP", "HTTP/1.1", "SSH-2.0", "check host and port, and write wss:// where it speaks TLS"),
        ("a megabyte", end, &long, "does not answer in HTTP: "),
        ("nothing", good, "", "does not answer in HTTP: "),
    ] {
        assert!(good.contains(from), "{why}");
        let (ended, _) = answers(&good.replacen(from, to, 1), None).await;
        let error = ended.unwrap_err().to_string();
        assert!(error.contains(words), "{why}: {error}");
    }
    let (ended, _) = answers(good, Some("mqtt")).await;
    assert!(ended.unwrap_err().to_string().contains("does not take the subprotocol mqtt"));
    let taken = good.replacen(end, "\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n", 1);
    let (ended, _) = answers(&taken, Some("mqtt")).await;
    assert!(matches!(ended, Err(WsError::Lost(_))), "{ended:?}");
}

#[tokio::test]
async fn words_that_cannot_be_asked_for_are_told() {
    let over = |url: &str| StreamToWs::over(duplex(1).0, duplex(1).0, url);
    assert!(matches!(over("http://a/").copy_bidirectional().await, Err(WsError::Url(_))));
    let spaced = over("ws://a/").subprotocol("a b").copy_bidirectional().await;
    assert!(matches!(spaced, Err(WsError::Subprotocol(_))));
    let nowhere = WsToStream::new(duplex(1).0, "a.example").copy_bidirectional().await;
    assert!(matches!(nowhere, Err(WsError::Address(_))));
}

#[tokio::test]
async fn tls_is_for_the_host_of_the_address() {
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, crypto::aws_lc_rs, pki_types};

    let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.der().clone(), made.signing_key.serialize_der());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], pki_types::PrivatePkcs8KeyDer::from(key).into())
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let trusting = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (acceptor, trusting) = (TlsAcceptor::from(Arc::new(server)), Arc::new(trusting));
    // A dot at the end is the DNS's affair.
    for (host, right) in [("a.example", true), ("a.example.", true), ("b.example", false)] {
        let (near, far) = duplex(64 * 1024);
        let (mut program, plain) = duplex(64 * 1024);
        let (mut destination, behind) = duplex(64 * 1024);
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let tls = acceptor.accept(far).await?;
            WsToStream::over(tls, behind).copy_bidirectional().await.map_err(std::io::Error::other)
        });
        let mapping = StreamToWs::over(plain, near, format!("wss://{host}/")).tls(trusting.clone());
        let mapping = tokio::spawn(mapping.copy_bidirectional());
        if !right {
            let error = mapping.await.unwrap().unwrap_err();
            assert!(matches!(error, WsError::Certificate { .. }), "{error}");
            assert!(error.to_string().contains("not valid for b.example: "), "{error}");
            continue;
        }
        program.write_all(&[3; 100_000]).await.unwrap();
        let mut read = vec![0; 100_000];
        destination.read_exact(&mut read).await.unwrap();
        assert!(read == [3; 100_000]);
        destination.write_all(b"back").await.unwrap();
        destination.shutdown().await.unwrap();
        drop(destination);
        let mut read = Vec::new();
        program.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"back");
        drop(program);
        let copied = timeout(LONG, mapping).await.unwrap().unwrap().unwrap();
        assert_eq!((copied.to_ws, copied.to_plain), (100_000, 4));
    }
}
