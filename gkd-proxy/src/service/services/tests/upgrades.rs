//! WebSocket, and other protocols that begin with a request.

use hyper::ext::Protocol as NamedProtocol;
use hyper::upgrade::Upgraded;

use super::*;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What every WebSocket server answers to [`KEY`] (RFC 6455, section 1.3).
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Agrees to a WebSocket, says "hello" with that, and sends back what comes until it ends; then says "bye".
async fn websocket(mut socket: TcpStream) {
    let head = read_head(&mut socket).await;
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).map(str::to_owned);
    assert!(head.starts_with("get /chat http/1.1\r\n"), "{head}");
    for line in [
        "upgrade: websocket",
        "connection: upgrade",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: chat",
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    // Keys have capitals, and this head has none any more.
    let accept = if key.as_deref() == Some(&KEY.to_lowercase()) { ACCEPT } else { "wrong" };
    agree(socket, accept).await;
}

async fn agree(mut socket: TcpStream, accept: &str) {
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\nhello"
    );
    socket.write_all(answer.as_bytes()).await.ok();
    let (mut read, mut write) = socket.split();
    tokio::io::copy(&mut read, &mut write).await.ok();
    write.write_all(b"bye").await.ok();
}

fn handshake(more: &str) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: shop.example\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\n{more}\r\n"
    )
}

async fn read(from: &mut (impl AsyncReadExt + Unpin), len: usize) -> String {
    let mut bytes = vec![0; len];
    timeout(HANG, from.read_exact(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_websocket_goes_through_and_ends_one_side_at_a_time() {
    let web = Web::raw(websocket).await;
    let served = Served::shop([web.http()]).await;
    let mut visitor = served.connect().await;
    // Bytes behind the head, without waiting for the answer.
    visitor.write_all(handshake("").as_bytes()).await.unwrap();
    visitor.write_all(b"early").await.unwrap();
    let head = timeout(HANG, read_head(&mut visitor)).await.unwrap();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in ["upgrade: websocket", "connection: upgrade", "sec-websocket-protocol: chat"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    assert!(head.contains(&format!("\r\nsec-websocket-accept: {}\r\n", ACCEPT.to_lowercase())), "{head}");
    assert_eq!(read(&mut visitor, 10).await, "helloearly");
    for turn in 0..5 {
        let words = format!("turn {turn}");
        visitor.write_all(words.as_bytes()).await.unwrap();
        assert_eq!(read(&mut visitor, words.len()).await, words);
    }
    assert_eq!(served.target().outstanding, 1);
    visitor.shutdown().await.unwrap();
    assert_eq!(read(&mut visitor, 3).await, "bye");
    assert_eq!(timeout(HANG, visitor.read(&mut [0])).await.unwrap().unwrap(), 0);
    until(|| served.target().outstanding == 0).await;
    assert_eq!((served.target().failures, served.target().requests), (0, 1));
}

#[tokio::test]
async fn a_websocket_ends_with_the_services() {
    let web = Web::raw(websocket).await;
    let served = Served::shop([web.http()]).await;
    let mut visitor = served.connect().await;
    visitor.write_all(handshake("").as_bytes()).await.unwrap();
    timeout(HANG, read_head(&mut visitor)).await.unwrap();
    assert_eq!(read(&mut visitor, 5).await, "hello");
    served.services.shutdown();
    timeout(HANG, visitor.read_to_end(&mut Vec::new())).await.unwrap().ok();
}

#[tokio::test]
async fn a_target_that_refuses_an_upgrade_is_heard() {
    let web =
        Web::raw(|socket| say(socket, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno")).await;
    let served = Served::shop([web.http()]).await;
    let said = served.visit(&handshake("X: y\r\n").replace("keep-alive, Upgrade", "close, Upgrade")).await;
    assert_eq!((said.status(), said.text()), (426, "no"));
}

#[tokio::test]
async fn another_protocol_than_was_asked_for_is_502() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket, other\r\nConnection: Upgrade\r\n\r\n",
    ] {
        let web = Web::raw(move |socket| say(socket, answer)).await;
        let served = Served::shop([web.http()]).await;
        let said = served.visit(&handshake("").replace("keep-alive, Upgrade", "close, Upgrade")).await;
        assert_eq!(said.status(), 502, "{answer}");
    }
}

/// Whoever changes to another HTTP with the target would be past all that is judged in between.
#[tokio::test]
async fn an_upgrade_to_another_http_is_not_asked_for() {
    let web = Web::raw(mirror).await;
    let served = Served::shop([web.http()]).await;
    for protocols in ["h2c", "H2C", "HTTP/2.0", "TLS/1.2"] {
        let lines = format!(
            "Upgrade: {protocols}\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
        );
        let said = served.get("/", &lines).await;
        assert!(
            said.status() == 200 && !said.text().contains("upgrade") && !said.text().contains("settings"),
            "{said:?}"
        );
    }
    // Beside one that is, it alone is left out; and without `Connection` nothing is asked for.
    let said = served.get("/", "Upgrade: h2c, echo\r\nConnection: Upgrade\r\n").await;
    assert!(said.text().contains("\r\nupgrade: echo\r\n"), "{said:?}");
    let said = served.get("/", "Upgrade: echo\r\n").await;
    assert!(!said.text().contains("upgrade"), "{said:?}");
}

fn connect(protocol: &'static str) -> Request<TestBody> {
    let mut request = request2("CONNECT", "/chat", empty());
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    request.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
    request.extensions_mut().insert(NamedProtocol::from_static(protocol));
    request
}

/// A WebSocket server that proves whatever key it is asked with.
async fn proving(mut socket: TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    agree(socket, &gkd_core::carrier::ws::accept_of(key)).await;
}

#[tokio::test]
async fn a_websocket_of_http2_meets_a_server_of_http1() {
    let web = Web::raw(proving).await;
    let served = Served::shop([web.http()]).await;
    let mut sender = served.http2().await;
    // The server's settings come first, which say that it understands.
    sender.send_request(request2("GET", "/none", empty())).await.ok();
    let mut answer = timeout(HANG, sender.send_request(connect("websocket"))).await.unwrap().unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    for gone in ["sec-websocket-accept", "upgrade", "connection"] {
        assert!(!answer.headers().contains_key(gone), "{answer:?}");
    }
    let upgraded: Upgraded = hyper::upgrade::on(&mut answer).await.unwrap();
    let mut stream = TokioIo::new(upgraded);
    assert_eq!(read(&mut stream, 5).await, "hello");
    stream.write_all(b"over HTTP/2").await.unwrap();
    assert_eq!(read(&mut stream, 11).await, "over HTTP/2");
    stream.shutdown().await.unwrap();
    assert_eq!(read(&mut stream, 3).await, "bye");
}

#[tokio::test]
async fn a_websocket_of_http2_that_is_not_proven_is_502_and_another_protocol_is_501() {
    let web = Web::raw(|mut socket| async move {
        if read_head(&mut socket).await.starts_with("get /none") {
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.ok();
            return;
        }
        agree(socket, ACCEPT).await;
    })
    .await;
    let served = Served::shop([web.http()]).await;
    let mut sender = served.http2().await;
    sender.send_request(request2("GET", "/none", empty())).await.ok();
    let answer = timeout(HANG, sender.send_request(connect("websocket"))).await.unwrap().unwrap();
    assert_eq!(answer.status(), 502);
    let answer = timeout(HANG, sender.send_request(connect("connect-udp"))).await.unwrap().unwrap();
    assert_eq!(answer.status(), 501);
}

/// A server of HTTP/2 that takes WebSockets, if it does: says "hello" and sends back what comes until it ends; then says "bye".
async fn taking(socket: TcpStream, takes: bool) {
    let answer = service_fn(|mut request: Request<Incoming>| async move {
        let mut answer = Response::new(empty());
        let named = request.extensions().get::<NamedProtocol>().map(NamedProtocol::as_str);
        match (request.method(), named, request.uri().path()) {
            (&Method::CONNECT, Some("websocket"), "/chat") => {
                let headers = request.headers();
                assert!(!headers.contains_key("sec-websocket-key"), "{headers:?}");
                assert_eq!(headers["sec-websocket-version"], "13");
                answer.headers_mut().insert("sec-websocket-protocol", "chat".parse().unwrap());
                tokio::spawn(async move {
                    let mut stream = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
                    stream.write_all(b"hello").await.unwrap();
                    let (mut read, mut write) = tokio::io::split(&mut stream);
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                    write.write_all(b"bye").await.unwrap();
                    write.shutdown().await.unwrap();
                });
            }
            (&Method::CONNECT, ..) => *answer.status_mut() = StatusCode::FORBIDDEN,
            _ => *answer.body_mut() = text("plain"),
        }
        Ok::<_, Infallible>(answer)
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    if takes {
        builder.enable_connect_protocol();
    }
    builder.serve_connection(TokioIo::new(socket), answer).await.ok();
}

#[tokio::test]
async fn a_websocket_meets_a_server_of_http2() {
    let web = Web::raw(|socket| taking(socket, true)).await;
    let served = Served::shop([web.h2c()]).await;
    for _ in 0..2 {
        let mut visitor = served.connect().await;
        visitor.write_all(handshake("").as_bytes()).await.unwrap();
        let head = timeout(HANG, read_head(&mut visitor)).await.unwrap();
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        for line in ["upgrade: websocket", "connection: upgrade", "sec-websocket-protocol: chat"] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
        }
        assert!(head.contains(&format!("\r\nsec-websocket-accept: {}\r\n", ACCEPT.to_lowercase())), "{head}");
        visitor.write_all(b"words").await.unwrap();
        assert_eq!(read(&mut visitor, 10).await, "hellowords");
        visitor.shutdown().await.unwrap();
        assert_eq!(read(&mut visitor, 3).await, "bye");
        assert_eq!(timeout(HANG, visitor.read(&mut [0])).await.unwrap().unwrap(), 0);
    }
    // Both sides of HTTP/2, and what is beside it on the same connection.
    let mut sender = served.http2().await;
    assert_eq!(words_of(sender.send_request(request2("GET", "/", empty())).await.unwrap()).await, "plain");
    let mut answer = timeout(HANG, sender.send_request(connect("websocket"))).await.unwrap().unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()["sec-websocket-protocol"]),
        (StatusCode::OK, &"chat".parse().unwrap())
    );
    let mut stream = TokioIo::new(hyper::upgrade::on(&mut answer).await.unwrap());
    stream.write_all(b"words").await.unwrap();
    assert_eq!(read(&mut stream, 10).await, "hellowords");
    stream.shutdown().await.unwrap();
    assert_eq!(read(&mut stream, 3).await, "bye");
    until(|| served.target().outstanding == 0).await;
    assert_eq!((web.connections(), served.target().failures), (1, 0));
    // A refusal is heard.
    let elsewhere = handshake("").replace("/chat", "/other").replace("keep-alive, Upgrade", "close, Upgrade");
    assert_eq!(served.visit(&elsewhere).await.status(), 403);
}

#[tokio::test]
async fn a_websocket_that_a_server_of_http2_does_not_take_goes_to_another_or_is_501() {
    let web = Web::raw(|socket| taking(socket, false)).await;
    let served = Served::shop([web.h2c()]).await;
    let closing = handshake("").replace("keep-alive, Upgrade", "close, Upgrade");
    let said = served.visit(&closing).await;
    assert_eq!(said.status(), 501, "{said:?}");
    assert!(said.text().contains("It takes no WebSockets."), "{}", said.text());
    let mut sender = served.http2().await;
    sender.send_request(request2("GET", "/", empty())).await.unwrap();
    let answer = timeout(HANG, sender.send_request(connect("websocket"))).await.unwrap().unwrap();
    assert_eq!(answer.status(), 501);
    // It is well all the same, and another may take them.
    assert_eq!((served.target().healthy, served.get("/", "").await.text()), (true, "plain"));
    let other = Web::raw(websocket).await;
    let mut service = shop([web.h2c(), other.http()]);
    service.balance = crate::service::config::Method::RoundRobin;
    let served = Served::new(config([service])).await;
    let mut visitor = served.connect().await;
    visitor.write_all(handshake("").as_bytes()).await.unwrap();
    assert!(timeout(HANG, read_head(&mut visitor)).await.unwrap().starts_with("http/1.1 101 "));
}

/// A CONNECT is over with any 2xx, so that what is no WebSocket must not look like one.
#[tokio::test]
async fn an_answer_that_changes_nothing_is_none_to_a_connect() {
    let web = Web::named("plain").await;
    let served = Served::shop([web.http()]).await;
    let mut sender = served.http2().await;
    sender.send_request(request2("GET", "/", empty())).await.unwrap();
    let answer = timeout(HANG, sender.send_request(connect("websocket"))).await.unwrap().unwrap();
    assert_eq!(answer.status(), 502);
}
