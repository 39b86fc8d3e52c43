use gkd_core::proto::packet::{DialError, ResetCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::connection::VirtualConnection;
use crate::destination::Destination;
use crate::memory::{Memory, NoTunnel};
use crate::served::{self, Served};

async fn served(credentials: Option<Credentials>, strict: bool) -> Served {
    served::served(move |socket, slot, outlet| serve(socket, credentials, strict, slot, outlet)).await
}

/// Reads up to the end of a head, and not beyond it.
macro_rules! read_head {
    ($read:expr) => {{
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend($read);
        }
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    }};
}

impl Served {
    /// The head of an answer, in small letters.
    async fn head(&mut self) -> String {
        read_head!([self.program.read_u8().await.unwrap()])
    }

    async fn body(&mut self, len: usize) -> String {
        let mut body = vec![0; len];
        self.program.read_exact(&mut body).await.unwrap();
        String::from_utf8(body).unwrap()
    }

    /// The status of an answer whose body is read as well.
    async fn status(&mut self) -> u16 {
        let head = self.head().await;
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        self.body(len.map_or(0, |len| len.parse().unwrap())).await;
        head.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

/// The head of a request as it arrives at the far end, in small letters.
async fn request_head(far: &Memory) -> String {
    read_head!(far.read(1).await.unwrap())
}

#[tokio::test]
async fn connect_carries_bytes_and_keeps_those_behind_it() {
    let mut served = served(None, false).await;
    served.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\nearly bytes").await;
    assert!(served.head().await.starts_with("http/1.1 200 "));
    let far = served.far().await;
    assert_eq!(Destination::decode(far.destination()).unwrap().to_string(), "example.com:443");
    assert_eq!(far.read(11).await.unwrap(), b"early bytes");
    far.write(b"down").await.unwrap();
    assert_eq!(served.body(4).await, "down");
    // Half-closed, both ways in turn.
    served.send(" and late").await;
    served.program.shutdown().await.unwrap();
    assert_eq!(far.read_to_end().await.unwrap(), b" and late");
    far.write(b"!").await.unwrap();
    far.finish().await;
    assert_eq!(served.body(1).await, "!");
    served.service.await.unwrap();
}

#[tokio::test]
async fn connect_takes_ipv6_and_http_1_0() {
    let mut served = served(None, false).await;
    served.send("CONNECT [2001:db8::1]:8443 HTTP/1.0\r\n\r\n").await;
    assert!(served.head().await.contains(" 200 "));
    let far = served.far().await;
    assert_eq!(Destination::decode(far.destination()).unwrap().to_string(), "[2001:db8::1]:8443");
}

#[tokio::test]
async fn strict_connect_answers_what_the_dial_brought() {
    for (result, status) in [
        (Ok(()), 200),
        (Err(DialError::Refused), 502),
        (Err(DialError::NotResolved), 502),
        (Err(DialError::TimedOut), 504),
        (Err(DialError::Denied), 403),
        (Err(DialError::Busy), 503),
    ] {
        let mut served = served(None, true).await;
        served.send("CONNECT example.com:443 HTTP/1.1\r\n\r\n").await;
        served.far().await.confirm(result);
        assert_eq!(served.status().await, status);
    }
}

#[tokio::test]
async fn after_a_connect_that_lacks_a_password_the_program_may_go_on() {
    let mut served = served(Some(Credentials::new("me", "secret").unwrap()), true).await;
    served.send("CONNECT example.com:443 HTTP/1.1\r\n\r\n").await;
    assert_eq!(served.status().await, 407);
    // Base64 of "me:secret".
    let basic = "Proxy-Authorization: Basic bWU6c2VjcmV0";
    served.send(&format!("CONNECT example.com:444 HTTP/1.1\r\n{basic}\r\n\r\n")).await;
    let far = served.far().await;
    far.confirm(Ok(()));
    assert_eq!(served.status().await, 200);
    served.send("x").await;
    assert_eq!(far.read(1).await.unwrap(), b"x");
}

/// What a program sends behind CONNECT, without waiting, is for the far end: it may be somebody else's words.
#[tokio::test]
async fn bytes_pipelined_behind_a_refused_connect_are_no_request() {
    for (strict, connect, status) in [(true, "example.com:443", 502), (false, "example.com:0", 400)] {
        let mut served = served(None, strict).await;
        let behind = "GET http://inside.example/ HTTP/1.1\r\nHost: inside.example\r\n\r\n";
        served.send(&format!("CONNECT {connect} HTTP/1.1\r\n\r\n{behind}")).await;
        if strict {
            served.far().await.confirm(Err(DialError::Refused));
        }
        assert_eq!(served.status().await, status);
        let mut rest = Vec::new();
        served.program.read_to_end(&mut rest).await.ok();
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
        served.expect_nothing_opened().await;
    }
}

#[tokio::test]
async fn a_failed_dial_resets_a_connect_that_was_answered() {
    let mut served = served(None, false).await;
    served.send("CONNECT example.com:443 HTTP/1.1\r\n\r\n").await;
    assert_eq!(served.status().await, 200);
    served.far().await.confirm(Err(DialError::Refused));
    assert!(
        served
            .program
            .read_u8()
            .await
            .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    );
}

#[tokio::test]
async fn a_request_is_passed_on_without_the_headers_of_its_hop() {
    let mut served = served(None, false).await;
    served
        .send(
            "GET http://user:pw@Example.com:8080/a%20b?c=d HTTP/1.1\r\nHost: other.example\r\nX-Kept: 1\r\n\
             X-Hop: 1\r\nConnection: keep-alive, X-Hop\r\nProxy-Connection: keep-alive\r\n\
             Proxy-Authorization: Basic eDp5\r\nTE: trailers\r\nUpgrade: websocket\r\n\r\n",
        )
        .await;
    let far = served.far().await;
    assert_eq!(Destination::decode(far.destination()).unwrap().to_string(), "Example.com:8080");
    far.confirm(Ok(()));
    let head = request_head(&far).await;
    assert!(head.starts_with("get /a%20b?c=d http/1.1\r\n"), "{head}");
    let mut headers: Vec<_> = head.lines().skip(1).filter(|line| !line.is_empty()).collect();
    headers.sort_unstable();
    assert_eq!(headers, ["connection: close", "host: example.com:8080", "x-kept: 1"]);

    far.write(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close, X-Back\r\nX-Back: 1\r\nX-Kept: 2\r\n\
          Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n\r\nhello",
    )
    .await
    .unwrap();
    let head = served.head().await;
    assert!(head.starts_with("http/1.1 200 ok\r\n"), "{head}");
    assert!(head.contains("content-length: 5\r\n") && head.contains("x-kept: 2\r\n"), "{head}");
    for gone in ["x-back", "keep-alive", "proxy-authenticate", "connection"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    assert_eq!(served.body(5).await, "hello");

    // The program's connection is kept for the next, which goes elsewhere.
    served.send("GET http://second.example HTTP/1.1\r\n\r\n").await;
    let second = served.far().await;
    assert_eq!(Destination::decode(second.destination()).unwrap().to_string(), "second.example:80");
    assert!(request_head(&second).await.starts_with("get / http/1.1\r\n"));
    // The first one has ended in order.
    assert_eq!(far.read_to_end().await.unwrap(), b"");
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let mut served = served(None, false).await;
    served.send("POST http://example.com/ HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n").await;
    let far = served.far().await;
    far.confirm(Ok(()));
    let head = request_head(&far).await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert_eq!(far.read(9).await.unwrap(), b"4\r\npart\r\n");
    // The answer begins before the request has ended, and without a length.
    far.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nanswer").await.unwrap();
    let head = served.head().await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert_eq!(served.body(11).await, "6\r\nanswer\r\n");
    served.send("3\r\nend\r\n0\r\n\r\n").await;
    assert_eq!(far.read(13).await.unwrap(), b"3\r\nend\r\n0\r\n\r\n");
    far.write(b"last").await.unwrap();
    assert_eq!(served.body(9).await, "4\r\nlast\r\n");
    far.finish().await;
    assert_eq!(served.body(5).await, "0\r\n\r\n");
}

#[tokio::test]
async fn who_asks_before_it_sends_a_body_hears_the_web_servers_answer() {
    const ASKS: &str = "PUT http://a.example/ HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n";
    let asked = async || {
        let mut served = served(None, false).await;
        served.send(ASKS).await;
        let far = served.far().await;
        far.confirm(Ok(()));
        let head = request_head(&far).await;
        assert!(head.contains("expect: 100-continue") && head.contains("content-length: 5"), "{head}");
        (served, far)
    };
    let (mut refused, far) = asked().await;
    far.write(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    assert_eq!(refused.status().await, 417);

    // One that wants the body, and one that does not know the question, for which the clock jumps to the time-out.
    for knows in [true, false] {
        let (mut served, far) = asked().await;
        if knows {
            far.write(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        } else {
            tokio::time::pause();
        }
        assert_eq!(served.status().await, 100);
        if !knows {
            tokio::time::resume();
        }
        served.send("hello").await;
        assert_eq!(far.read(5).await.unwrap(), b"hello");
        far.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        assert_eq!(served.status().await, 201);
    }
}

#[tokio::test]
async fn answers_without_a_body_end_in_order() {
    let mut served = served(None, false).await;
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nEtag: \"x\"\r\n\r\n"),
        ("DELETE", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("OPTIONS", "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        served.send(&format!("{method} http://example.com/ HTTP/1.1\r\n\r\n")).await;
        let far = served.far().await;
        far.confirm(Ok(()));
        request_head(&far).await;
        far.write(answer.as_bytes()).await.unwrap();
        let head = served.head().await;
        assert!(head.starts_with(&answer[..12].to_ascii_lowercase().replace("/1.0", "/1.1")), "{head}");
        assert_eq!(far.read_to_end().await.unwrap(), b"", "{method}");
        assert_eq!(far.reset_code(), None, "{method}");
    }
}

#[tokio::test]
async fn a_failed_dial_is_told_whatever_strict_says() {
    for strict in [false, true] {
        for (error, status) in [
            (DialError::Refused, 502),
            (DialError::NotResolved, 502),
            (DialError::TimedOut, 504),
            (DialError::Denied, 403),
        ] {
            let mut served = served(None, strict).await;
            served.send("GET http://example.com/ HTTP/1.1\r\n\r\n").await;
            served.far().await.confirm(Err(error));
            assert_eq!(served.status().await, status);
        }
    }
}

#[tokio::test]
async fn a_server_that_breaks_off_or_speaks_no_http_is_told() {
    for answer in [
        "",
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        let mut served = served(None, false).await;
        served.send("GET http://example.com/ HTTP/1.1\r\n\r\n").await;
        let far = served.far().await;
        far.confirm(Ok(()));
        request_head(&far).await;
        far.write(answer.as_bytes()).await.unwrap();
        far.finish().await;
        assert_eq!(served.status().await, 502, "{answer}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_whole_one() {
    let mut served = served(None, false).await;
    served.send("GET http://example.com/ HTTP/1.1\r\n\r\n").await;
    let far = served.far().await;
    far.confirm(Ok(()));
    request_head(&far).await;
    far.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n").await.unwrap();
    served.head().await;
    assert_eq!(served.body(9).await, "4\r\npart\r\n");
    far.reset(ResetCode::STREAM);
    let mut rest = Vec::new();
    let _ = served.program.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "no last chunk");
}

#[tokio::test]
async fn a_body_whose_end_is_that_of_the_connection_breaks_off_as_a_reset() {
    // To a program of HTTP/1.0 the end of the connection is the end of the body.
    let mut served = served(None, false).await;
    served.send("GET http://a.example/ HTTP/1.0\r\n\r\n").await;
    let far = served.far().await;
    request_head(&far).await;
    far.write(b"HTTP/1.1 200 OK\r\n\r\nhalf a body").await.unwrap();
    assert!(served.head().await.contains(" 200 "));
    assert_eq!(served.body(11).await, "half a body");
    far.reset(ResetCode::STREAM);
    let error = served.program.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_program_that_goes_away_resets_the_exchange() {
    let mut served = served(None, false).await;
    served.send("GET http://example.com/ HTTP/1.1\r\n\r\n").await;
    let far = served.far().await;
    far.confirm(Ok(()));
    request_head(&far).await;
    far.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await.unwrap();
    served.head().await;
    drop(served.program);
    let block = vec![0; 50_000];
    while far.write(&block).await.is_ok() {}
    assert_eq!(far.until_reset().await, ResetCode::STREAM);
}

#[tokio::test]
async fn what_is_no_request_to_a_proxy_gets_a_helpful_refusal() {
    for (request, words) in [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "proxy, not a web site"),
        ("OPTIONS * HTTP/1.1\r\n\r\n", "proxy, not a web site"),
        ("GET https://example.com/ HTTP/1.1\r\n\r\n", "use CONNECT"),
        ("GET ftp://example.com/ HTTP/1.1\r\n\r\n", "use CONNECT"),
        ("GET http://example.com:0/ HTTP/1.1\r\n\r\n", "could be reached"),
        ("CONNECT example.com HTTP/1.1\r\n\r\n", "HOST:PORT"),
        ("CONNECT example.com:0 HTTP/1.1\r\n\r\n", "could be reached"),
        ("CONNECT example.com:443 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "no body"),
    ] {
        let mut served = served(None, false).await;
        served.send(request).await;
        let head = served.head().await;
        assert!(head.starts_with("http/1.1 400 "), "{request}: {head}");
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let body = served.body(len.parse().unwrap()).await;
        assert!(body.contains(words), "{request}: {body}");
        served.expect_nothing_opened().await;
    }
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused() {
    for request in [
        "POST http://a.example/ HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST http://a.example/ HTTP/1.1\r\nContent-Length: 3, 4\r\n\r\nabcd",
        "POST http://a.example/ HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc",
        "POST http://a.example/ HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\nabc",
        "POST http://a.example/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET http://a.example/ HTTP/1.1\r\nX : 1\r\n\r\n",
        "GET http://a.example/ HTTP/1.1\r\n folded: 1\r\n\r\n",
        "GET http://a.example:99999/ HTTP/1.1\r\n\r\n",
        "GET http://a b.example/ HTTP/1.1\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01",
    ] {
        let mut served = served(None, false).await;
        served.send(request).await;
        assert_eq!(served.status().await, 400, "{request:?}");
        served.expect_nothing_opened().await;
    }
}

#[tokio::test]
async fn of_a_length_and_chunks_only_the_chunks_are_passed_on() {
    let mut served = served(None, false).await;
    served
        .send("POST http://a.example/ HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        .await;
    let far = served.far().await;
    far.confirm(Ok(()));
    let head = request_head(&far).await;
    assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"), "{head}");
}

#[tokio::test]
async fn a_head_has_its_bounds() {
    for request in [
        format!("GET http://a.example/ HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD)),
        format!("GET http://a.example/ HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(MAX_HEADERS + 1)),
    ] {
        let mut served = served(None, false).await;
        served.send(&request).await;
        assert_eq!(served.status().await, 431);
        served.expect_nothing_opened().await;
    }
}

#[tokio::test]
async fn user_and_password_are_asked_for() {
    let credentials = || Some(Credentials::new("me", "s:ecret").unwrap());
    let requests = ["CONNECT a.example:443 HTTP/1.1\r\n", "GET http://a.example/ HTTP/1.1\r\n"];
    for request in requests {
        for proof in ["", "Basic", "Basic !!", "Basic bWU6d3Jvbmc=", "Digest bWU6czplY3JldA==", "Basic bWU="]
        {
            let mut served = served(credentials(), false).await;
            served.send(&format!("{request}Proxy-Authorization: {proof}\r\n\r\n")).await;
            let head = served.head().await;
            assert!(head.starts_with("http/1.1 407 "), "{proof}: {head}");
            assert!(head.contains("proxy-authenticate: basic realm="), "{head}");
            served.expect_nothing_opened().await;
        }
        let mut served = served(credentials(), false).await;
        served.send(&format!("{request}proxy-authorization: basic bWU6czplY3JldA==\r\n\r\n")).await;
        served.far().await;
    }
}

#[tokio::test]
async fn without_a_tunnel_the_answer_is_a_failure_in_time() {
    for request in ["CONNECT a.example:443 HTTP/1.1\r\n\r\n", "GET http://a.example/ HTTP/1.1\r\n\r\n"] {
        let (mut program, _service) =
            served::served_by(NoTunnel, |socket, slot, outlet| serve(socket, None, false, slot, outlet))
                .await;
        program.write_all(request.as_bytes()).await.unwrap();
        tokio::time::pause();
        let mut answer = [0; 12];
        program.read_exact(&mut answer).await.unwrap();
        tokio::time::resume();
        assert_eq!(&answer, b"HTTP/1.1 503");
    }
}

#[tokio::test]
async fn a_silent_program_is_closed_at_the_deadline() {
    for sent in ["", "G", "GET http://a.example/ HTTP/1.1\r\nX: "] {
        let mut served = served(None, false).await;
        served.send(sent).await;
        tokio::time::pause();
        let began = tokio::time::Instant::now();
        served.service.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 10);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_head_that_is_cut_anywhere_opens_nothing() {
    let whole = "GET http://a.example/ HTTP/1.1\r\nX: y\r\n\r\n";
    for cut in 0..whole.len() {
        let mut served = served(None, false).await;
        served.send(&whole[..cut]).await;
        served.program.shutdown().await.unwrap();
        let _ = served.program.read_to_end(&mut Vec::new()).await;
        served.expect_nothing_opened().await;
    }
}
