//! Web servers that are right, slow, dead, or wrong.

use std::future::Future;
use std::time::Duration;

use tokio::io::BufReader;

use super::*;

/// A web server that does this with each connection, and the site in front of it.
async fn behind<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Served
where
    F: Future<Output = ()> + Send + 'static,
{
    Served::site(Site::new(SiteConfig::Backend(target(serve).await))).await
}

async fn target<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Target
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket));
        }
    });
    address.to_string().parse().unwrap()
}

/// A site whose web server may be silent for as long.
async fn impatient(target: Target, silence: Duration) -> Served {
    let mut backend = Backend::new(target, false);
    backend.silence = silence;
    Served::site(Site { source: Source::Backend(Arc::new(backend)) }).await
}

/// Reads a head, byte by byte so that nothing of the body is lost.
async fn read_head(socket: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Reads a head, says these words and ends.
async fn say(mut socket: TcpStream, words: &[u8]) {
    read_head(&mut socket).await;
    socket.write_all(words).await.ok();
    socket.shutdown().await.ok();
    socket.read_to_end(&mut Vec::new()).await.ok();
}

/// Answers with the head that it was sent.
async fn mirror(mut socket: TcpStream) {
    let head = read_head(&mut socket).await;
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{head}", head.len());
    socket.write_all(answer.as_bytes()).await.ok();
}

/// Bytes of which every stretch tells where it belongs.
fn content(len: usize) -> Vec<u8> {
    (0..len as u64 / 8).flat_map(|place| place.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
}

#[tokio::test]
async fn the_web_server_sees_the_visitors_request_and_who_it_is() {
    let served = behind(mirror).await;
    let answer = served
        .get(
            "/a/b?c=d%20e",
            "Cookie: x=y\r\nX-Forwarded-For: 203.0.113.9\r\nX-FORWARDED-PROTO: https\r\nX-Forwarded-Host: forged\r\n\
             X-Forwarded-Port: 1\r\nForwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\nProxy: http://forged\r\n\
             X_Forwarded_For: 203.0.113.9\r\nX-Forwarded_Host: forged\r\nX_Real_IP: 203.0.113.9\r\n\
             Connection: x-mine\r\nX-Mine: 1\r\nTE: trailers\r\nKeep-Alive: timeout=5\r\nProxy-Authorization: Basic x\r\n\
             Upgrade: h2c\r\n",
        )
        .await;
    let told = answer.text().to_ascii_lowercase();
    assert!(told.starts_with("get /a/b?c=d%20e http/1.1\r\n"), "{told}");
    for line in [
        "host: site.example",
        "cookie: x=y",
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-proto: http",
        "x-forwarded-host: site.example",
        "connection: close",
    ] {
        assert!(told.contains(&format!("\r\n{line}\r\n")), "{line}: {told}");
        let name = line.split(':').next().unwrap();
        assert_eq!(told.matches(&format!("\r\n{name}:")).count(), 1, "{name}: {told}");
    }
    for gone in
        ["203.0.113.9", "forged", "x-mine", "te:", "keep-alive", "authorization", "upgrade", "port", "proxy:"]
    {
        assert!(!told.contains(gone), "{gone}: {told}");
    }
}

#[tokio::test]
async fn the_host_is_the_uris_or_the_only_one() {
    let served = behind(mirror).await;
    let told = |answer: Answer| answer.text().to_ascii_lowercase();
    let absolute = told(served.get("http://me:pw@other.example:81/x", "").await);
    assert!(absolute.starts_with("get /x http/1.1\r\n"), "{absolute}");
    assert!(absolute.contains("\r\nhost: other.example:81\r\n"), "{absolute}");
    assert!(absolute.contains("\r\nx-forwarded-host: other.example:81\r\n"), "{absolute}");
    assert!(!absolute.contains("pw") && !absolute.contains("site.example"), "{absolute}");
    let old = told(served.visit("GET / HTTP/1.0\r\n\r\n").await);
    assert!(old.contains("\r\nhost: 127.0.0.1:") && !old.contains("x-forwarded-host"), "{old}");
    assert_eq!(served.get("/", "Host: second.example\r\n").await.status(), 400);
    let star = told(served.visit("OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await);
    assert!(star.starts_with("options * http/1.1\r\n"), "{star}");
}

#[tokio::test]
async fn over_tls_is_told() {
    let served = Served::site(Site::over_tls(SiteConfig::Backend(target(mirror).await))).await;
    let told = served.get("/", "X-Forwarded-Proto: http\r\n").await.text().to_ascii_lowercase();
    assert!(told.contains("\r\nx-forwarded-proto: https\r\n") && !told.contains("proto: http\r\n"), "{told}");
}

#[tokio::test]
async fn headers_of_one_hop_do_not_come_back() {
    let served = behind(|socket| {
        say(
            socket,
            b"HTTP/1.1 404 Not Here\r\nServer: mine\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nConnection: x-mine\r\nX-Mine: 1\r\n\
              Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nContent-Length: 4\r\n\r\nnone",
        )
    })
    .await;
    let answer = served.get("/", "").await;
    assert_eq!((answer.status(), answer.text()), (404, "none"));
    assert!(
        answer.head.contains("server: mine") && answer.head.matches("set-cookie: ").count() == 2,
        "{answer:?}"
    );
    for gone in ["x-mine", "keep-alive", "proxy-authenticate"] {
        assert!(!answer.head.contains(gone), "{answer:?}");
    }
}

/// The visitor sends the second half when the first has come back: what was collected before it is passed on would never
/// come, in either direction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_go_through_as_they_come_in_both_directions() {
    let served = behind(|mut socket| async move {
        read_head(&mut socket).await;
        let (mut read, mut write) = socket.split();
        write.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await.unwrap();
        tokio::io::copy(&mut read, &mut write).await.ok();
    })
    .await;
    let sent = content(8 << 20);
    let mut visitor = served.connect().await;
    // To a visitor of HTTP/1.0 the echo, whose length is not known, comes as it is.
    let head = format!("POST / HTTP/1.0\r\nHost: x\r\nContent-Length: {}\r\n\r\n", sent.len());
    visitor.write_all(head.as_bytes()).await.unwrap();
    let (mut read, mut write) = visitor.split();
    let mut read = BufReader::new(&mut read);
    let mut head = String::new();
    for half in sent.chunks(sent.len() / 2) {
        let mut back = vec![0; half.len()];
        let reading = async {
            if head.is_empty() {
                head = read_head(&mut read).await;
            }
            read.read_exact(&mut back).await.unwrap();
        };
        let both = async { tokio::join!(reading, async { write.write_all(half).await.unwrap() }) };
        tokio::time::timeout(HANG, both).await.unwrap();
        assert!(back == half);
    }
    assert!(head.contains(" 200 "), "{head}");
}

#[tokio::test]
async fn a_chunked_body_arrives_and_cannot_smuggle_a_second_request() {
    let served = behind(|mut socket| async move {
        let mut all = Vec::new();
        tokio::time::timeout(Duration::from_millis(500), socket.read_to_end(&mut all)).await.ok();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", all.len());
        socket.write_all(answer.as_bytes()).await.unwrap();
        socket.write_all(&all).await.unwrap();
    })
    .await;
    let smuggled = "5\r\nhello\r\n0\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let request = format!("POST /first HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{smuggled}");
    let answer = served.visit(&request).await;
    // Two requests and two answers, and each of the web server's connections saw one.
    let told = format!("{}\r\n{}", answer.head, answer.text());
    assert_eq!(told.matches("POST /first").count(), 1, "{told}");
    assert!(told.contains("5\r\nhello\r\n0\r\n\r\n"), "{told}");
    let first = told.split("POST /first").nth(1).unwrap().split("HTTP/1.1 200 OK").next().unwrap();
    assert!(!first.contains("/second"), "{first}");
}

#[tokio::test]
async fn a_dead_web_server_and_one_that_speaks_no_http_are_502() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string().parse().unwrap()
    };
    let served = Served::site(Site::new(SiteConfig::Backend(nobody))).await;
    let answer = served.get("/", "").await;
    assert_eq!(answer.status(), 502);
    let (page, head) = (answer.text(), &answer.head);
    assert!(page.contains("502 Bad Gateway"), "{page}");
    assert!(!page.contains("127.0.0.1") && !page.contains("gkd") && !head.contains("gkd"), "{answer:?}");
    let long = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'x'; 128 * 1024], b"\r\n\r\n".to_vec()].concat();
    for words in [
        b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(),
        b"\x15\x03\x01\x00\x02\x02\x46".to_vec(),
        b"".to_vec(),
        b"HTTP/1.1 200 O".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx".to_vec(),
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".to_vec(),
        long,
    ] {
        let shown = String::from_utf8_lossy(&words[..words.len().min(40)]).into_owned();
        let words = Arc::new(words);
        let served = behind(move |socket| {
            let words = words.clone();
            async move { say(socket, &words).await }
        })
        .await;
        assert_eq!(served.get("/", "").await.status(), 502, "{shown:?}");
    }
}

#[tokio::test]
async fn a_web_server_that_says_nothing_is_504_and_a_slow_one_is_waited_for() {
    let silent = target(|socket| async move {
        let _socket = socket;
        std::future::pending().await
    })
    .await;
    let served = impatient(silent, Duration::from_millis(200)).await;
    let answer = served.get("/", "").await;
    assert!(answer.status() == 504 && answer.text().contains("504 Gateway Timeout"), "{answer:?}");

    let slow = target(|mut socket| async move {
        read_head(&mut socket).await;
        for piece in ["HTTP/1.1 200 OK\r\n", "Content-Length: 8\r\n\r\n", "slow", "ly!!"] {
            tokio::time::sleep(Duration::from_millis(150)).await;
            socket.write_all(piece.as_bytes()).await.ok();
        }
    })
    .await;
    let served = impatient(slow, Duration::from_secs(20)).await;
    assert_eq!(served.get("/", "").await.text(), "slowly!!");
}

/// Longer on its way than a web server may be silent: what moves is no silence.
#[tokio::test]
async fn a_slow_upload_is_no_silence() {
    let patient = target(|mut socket| async move {
        read_head(&mut socket).await;
        let mut body = [0; 12];
        socket.read_exact(&mut body).await.ok();
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n").await.ok();
        socket.write_all(&body).await.ok();
    })
    .await;
    let served = impatient(patient, Duration::from_secs(5)).await;
    let mut visitor = served.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 12\r\n\r\n";
    visitor.write_all(head.as_bytes()).await.unwrap();
    for piece in ["one", "two", "fou", "end"] {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        visitor.write_all(piece.as_bytes()).await.unwrap();
    }
    assert_eq!(Answer::read(&mut visitor).await.text(), "onetwofouend");
}

/// A part must not pass for the whole: with a length it is short, in chunks the last one is missing.
#[tokio::test]
async fn a_body_that_breaks_off_does_not_end_clean() {
    let part = "x".repeat(1000);
    let with_length = format!("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{part}");
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{part}\r\n");
    for words in [with_length, chunked.clone(), format!("{chunked}zz\r\n")] {
        let words = Arc::new(words);
        let served = behind(move |socket| {
            let words = words.clone();
            async move { say(socket, words.as_bytes()).await }
        })
        .await;
        let answer = served.get("/", "").await;
        assert_eq!(answer.status(), 200);
        match answer.header("content-length") {
            Some(length) => assert!(answer.body.len() < length.parse().unwrap(), "{answer:?}"),
            None => assert!(!answer.text().ends_with("0\r\n\r\n"), "{answer:?}"),
        }
    }
    // And one that stops, without an end.
    let stuck = target(|mut socket| async move {
        read_head(&mut socket).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\npart").await.ok();
        std::future::pending().await
    })
    .await;
    let answer = impatient(stuck, Duration::from_millis(200)).await.get("/", "").await;
    assert_eq!((answer.header("content-length"), answer.text()), (Some("5000"), "part"));
}

#[tokio::test]
async fn what_asks_for_another_protocol_is_501() {
    let served = behind(mirror).await;
    let lines =
        "Upgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    assert_eq!(served.get("/", lines).await.status(), 501);
    let connect = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\nConnection: close\r\n\r\n";
    assert_eq!(served.visit(connect).await.status(), 501);
}

/// A visitor that leaves takes its request along.
#[tokio::test]
async fn a_visitor_that_leaves_ends_the_web_servers_connection() {
    let (told, ended) = tokio::sync::watch::channel(false);
    let told = Arc::new(told);
    let served = behind(move |mut socket| {
        let told = told.clone();
        async move {
            read_head(&mut socket).await;
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\npart").await.ok();
            // Until it ends, however it does.
            socket.read_to_end(&mut Vec::new()).await.ok();
            told.send_replace(true);
        }
    })
    .await;
    let mut visitor = served.connect().await;
    visitor.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(read_head(&mut visitor).await.contains(" 200 "));
    drop(visitor);
    let mut ended = ended;
    tokio::time::timeout(HANG, ended.wait_for(|ended| *ended)).await.unwrap().unwrap();
}
