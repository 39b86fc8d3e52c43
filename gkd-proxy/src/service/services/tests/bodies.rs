//! Bodies in both directions: streamed, with fields behind them, broken off, silent.

use super::*;

/// Bytes of which every stretch tells where it belongs.
fn content(len: usize) -> Vec<u8> {
    (0..len as u64 / 8).flat_map(|place| place.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
}

/// An HTTP/1.1 web server that sends back what comes, as it comes.
async fn echo() -> Web {
    Web::proper(|request| async move {
        Response::new(request.into_body().map_err(io::Error::other).boxed_unsync())
    })
    .await
}

/// What was collected before it is passed on would never come, in either direction.
#[tokio::test]
async fn bodies_go_through_as_they_come_in_both_directions() {
    let web = echo().await;
    let served = Served::shop([web.http()]).await;
    let mut sender = served.http1().await;
    let (feed, body) = channel();
    let content = Bytes::from(content(4 << 20));
    feed.send(Ok(Frame::data(content.slice(..10)))).await.unwrap();
    let answer = timeout(HANG, sender.send_request(request("POST", "/", body))).await.unwrap().unwrap();
    let mut down = answer.into_body();
    let mut back = Vec::new();
    for (from, to) in [(10, 100), (100, 1 << 20), (1 << 20, 4 << 20)] {
        let sent = async { feed.send(Ok(Frame::data(content.slice(from..to)))).await.unwrap() };
        let came = async {
            while back.len() < to {
                back.extend_from_slice(&down.frame().await.unwrap().unwrap().into_data().unwrap());
            }
        };
        timeout(HANG, async { tokio::join!(sent, came) }).await.unwrap();
    }
    drop(feed);
    assert!(timeout(HANG, down.frame()).await.unwrap().is_none());
    assert!(back == content);
    // And the connection to the target serves a next one.
    let answer = sender.send_request(request("POST", "/", text("once more"))).await.unwrap();
    assert_eq!((words_of(answer).await.as_str(), web.connections()), ("once more", 1));
}

#[tokio::test]
async fn fields_behind_bodies_go_through_in_both_directions() {
    let web = Web::proper(|request| async move {
        let all = request.into_body().collect().await.unwrap();
        let sum = all.trailers().unwrap()["x-sum"].clone();
        let (feed, body) = channel();
        tokio::spawn(async move {
            feed.send(Ok(Frame::data(all.to_bytes()))).await.unwrap();
            let fields = HeaderMap::from_iter([(HeaderName::from_static("x-back"), sum)]);
            feed.send(Ok(Frame::trailers(fields))).await.unwrap();
        });
        Response::builder().header("trailer", "x-back").body(body).unwrap()
    })
    .await;
    let served = Served::shop([web.http()]).await;
    let fields = || HeaderMap::from_iter([(HeaderName::from_static("x-sum"), "7".parse().unwrap())]);
    let send = |feed: tokio::sync::mpsc::Sender<_>| async move {
        feed.send(Ok(Frame::data("abc".into()))).await.unwrap();
        feed.send(Ok(Frame::trailers(fields()))).await.unwrap();
    };
    let (feed, body) = channel();
    tokio::spawn(send(feed));
    let mut asked = request("POST", "/", body);
    asked.headers_mut().insert("trailer", "x-sum".parse().unwrap());
    asked.headers_mut().insert("te", "trailers".parse().unwrap());
    let answer = timeout(HANG, served.http1().await.send_request(asked)).await.unwrap().unwrap();
    let all = timeout(HANG, answer.into_body().collect()).await.unwrap().unwrap();
    assert_eq!(all.trailers().unwrap()["x-back"], "7");
    assert_eq!(all.to_bytes(), "abc");
}

/// Says what it was sent, after some time without anything.
async fn parrot(mut socket: TcpStream) {
    let mut all = Vec::new();
    timeout(Duration::from_millis(500), socket.read_to_end(&mut all)).await.ok();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", all.len());
    socket.write_all(head.as_bytes()).await.ok();
    socket.write_all(&all).await.ok();
}

#[tokio::test]
async fn a_body_is_framed_as_its_request_said_whatever_the_method() {
    let web = Web::raw(parrot).await;
    let served = Served::shop([web.http()]).await;
    let ask = async |method: &str, lines: &str, body: &str| {
        let head = format!("{method} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n{body}");
        served.visit(&head).await.text().to_ascii_lowercase()
    };
    for method in ["GET", "POST", "DELETE"] {
        let told = ask(method, "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n").await;
        assert!(
            told.contains("\r\ntransfer-encoding: chunked\r\n") && !told.contains("content-length"),
            "{told}"
        );
        assert!(told.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "{told}");
        let told = ask(method, "Content-Length: 5\r\n", "hello").await;
        assert!(told.contains("\r\ncontent-length: 5\r\n") && told.ends_with("\r\n\r\nhello"), "{told}");
        // Both: hyper takes the chunks, and the length is gone.
        let both = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n";
        let told = ask(method, both, "5\r\nhello\r\n0\r\n\r\n").await;
        assert!(
            !told.contains("content-length") && told.ends_with("\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            "{told}"
        );
    }
    let told = ask("POST", "Content-Length: 0\r\n", "").await;
    assert!(told.contains("\r\ncontent-length: 0\r\n") && !told.contains("transfer-encoding"), "{told}");
    let told = ask("GET", "", "").await;
    assert!(!told.contains("content-length") && !told.contains("transfer-encoding"), "{told}");
}

#[tokio::test]
async fn the_target_decides_whether_a_body_that_is_asked_for_is_sent() {
    let head = "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
    let willing = Web::raw(|mut socket| async move {
        assert!(read_head(&mut socket).await.contains("\r\nexpect: 100-continue\r\n"));
        socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        let mut body = [0; 5];
        socket.read_exact(&mut body).await.unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await.unwrap();
        socket.write_all(&body).await.unwrap();
    })
    .await;
    let served = Served::shop([willing.http()]).await;
    let mut visitor = served.connect().await;
    visitor.write_all(head.as_bytes()).await.unwrap();
    assert!(read_head(&mut visitor).await.starts_with("http/1.1 100 "));
    visitor.write_all(b"hello").await.unwrap();
    assert_eq!(Said::read(&mut visitor).await.text(), "hello");
    // One that refuses is heard, and no body is asked for.
    let unwilling = Web::raw(|socket| {
        say(socket, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
    })
    .await;
    let said = Served::shop([unwilling.http()]).await.visit(head).await;
    assert_eq!((said.status(), said.text()), (413, "big"), "{said:?}");
}

/// The answer comes while the body still goes up, and ends before it.
#[tokio::test]
async fn an_early_answer_comes_at_once() {
    let web = Web::raw(|mut socket| async move {
        read_head(&mut socket).await;
        socket.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
        socket.read_to_end(&mut Vec::new()).await.ok();
    })
    .await;
    let served = Served::shop([web.http()]).await;
    let (feed, body) = channel();
    feed.send(Ok(Frame::data("begin".into()))).await.unwrap();
    let mut sender = served.http1().await;
    let answer = timeout(HANG, sender.send_request(request("POST", "/", body))).await.unwrap().unwrap();
    assert_eq!(answer.status(), 401);
    assert_eq!(words_of(answer).await, "no");
    // Nobody else's request follows what is left of this one.
    let answer = served.http1().await.send_request(request("GET", "/", empty())).await.unwrap();
    assert_eq!((answer.status().as_u16(), web.connections()), (401, 2));
}

/// A web server that refuses a body, and closes with most of it unread, which is a reset: its words arrive all the same.
#[tokio::test]
async fn a_refusal_is_heard_by_whoever_still_sends() {
    let web = Web::raw(|mut socket| async move {
        read_head(&mut socket).await;
        socket.read_exact(&mut [0; 1000]).await.unwrap();
        let words = format!("HTTP/1.1 413 Too Large\r\nContent-Length: 60000\r\n\r\n{}", "x".repeat(60_000));
        socket.write_all(words.as_bytes()).await.ok();
    })
    .await;
    let served = Served::shop([web.http()]).await;
    let (feed, body) = channel();
    let feeding = tokio::spawn(async move {
        while feed.send(Ok(Frame::data(vec![b'y'; 64 * 1024].into()))).await.is_ok() {}
    });
    // With HTTP/1.1 the front's own end would be another reset. It reads little ahead, so that most of the answer has still
    // to be read when the target is gone.
    let (mut sender, http) = client2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1000)
        .handshake(TokioIo::new(served.connect().await))
        .await
        .unwrap();
    tokio::spawn(http);
    let answer = timeout(HANG, sender.send_request(request2("POST", "/", body))).await.unwrap().unwrap();
    assert_eq!(answer.status(), 413);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(words_of(answer).await.len(), 60_000);
    feeding.abort();
}

/// A part must not pass for the whole: with a length it is short, in chunks the last one is missing.
#[tokio::test]
async fn a_body_that_breaks_off_does_not_end_clean() {
    let part = "x".repeat(1000);
    let with_length = format!("HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n{part}");
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{part}\r\n");
    for words in [with_length, chunked.clone(), format!("{chunked}zz\r\n")] {
        let web = Web::raw(move |socket| say(socket, words.clone())).await;
        let served = Served::shop([web.http()]).await;
        let said = served.get("/", "").await;
        assert_eq!(said.status(), 200);
        match said.header("content-length") {
            Some(length) => assert!(said.body.len() < length.parse().unwrap(), "{said:?}"),
            None => assert!(!said.text().ends_with("0\r\n\r\n"), "{said:?}"),
        }
        assert_eq!(served.target().failures, 1);
        // To a client of HTTP/2 the stream is reset.
        let answer = served.http2().await.send_request(request2("GET", "/", empty())).await.unwrap();
        assert!(timeout(HANG, answer.into_body().collect()).await.unwrap().is_err());
    }
}

#[tokio::test]
async fn answers_that_could_be_read_in_two_ways_are_502() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(128 * 1024));
    for words in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.1 200 O",
        "SSH-2.0-OpenSSH_9.9\r\n",
        "\x15\x03\x01\0\x02\x02\x46",
        "",
        &long,
    ] {
        let shown: String = words.chars().take(60).collect();
        let answer = words.to_owned();
        let web = Web::raw(move |socket| say(socket, answer.clone())).await;
        let served = Served::shop([web.http()]).await;
        assert_eq!(served.get("/", "").await.status(), 502, "{shown:?}");
        assert_eq!(served.target().failures, 1, "{shown:?}");
    }
}

/// What a target says behind its answer is no answer to anybody.
#[tokio::test]
async fn bytes_behind_an_answer_are_nobodys() {
    let web = Web::raw(|mut socket| async move {
        read_head(&mut socket).await;
        let twice = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirstHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond";
        socket.write_all(twice.as_bytes()).await.ok();
        read_head(&mut socket).await;
    })
    .await;
    let served = Served::shop([web.http()]).await;
    for _ in 0..5 {
        assert_eq!(served.get("/", "").await.text(), "first");
    }
}

/// The limits of `config`, with this silence.
fn silent_for(config: &mut HttpConfig, silence: u64) {
    config.limits.silence = Duration::from_millis(silence);
}

#[tokio::test]
async fn a_target_that_says_nothing_is_504_and_a_slow_one_is_waited_for() {
    let silent = Web::raw(|socket| async move {
        let _socket = socket;
        std::future::pending().await
    })
    .await;
    let mut settings = config([shop([silent.http()])]);
    silent_for(&mut settings, 200);
    let served = Served::new(settings).await;
    assert_eq!(served.get("/", "").await.status(), 504);
    assert_eq!((served.target().failures, silent.connections()), (1, 1), "it was not asked twice");

    let slow = Web::raw(|mut socket| async move {
        read_head(&mut socket).await;
        for piece in ["HTTP/1.1 200 OK\r\n", "Content-Length: 8\r\n\r\n", "slow", "ly!!"] {
            tokio::time::sleep(Duration::from_millis(150)).await;
            socket.write_all(piece.as_bytes()).await.ok();
        }
    })
    .await;
    assert_eq!(Served::shop([slow.http()]).await.get("/", "").await.text(), "slowly!!");
    // And one that stops in the middle.
    let stuck = Web::raw(|mut socket| async move {
        read_head(&mut socket).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\npart").await.ok();
        std::future::pending().await
    })
    .await;
    let mut settings = config([shop([stuck.http()])]);
    silent_for(&mut settings, 200);
    let said = Served::new(settings).await.get("/", "").await;
    assert_eq!((said.header("content-length"), said.text()), (Some("50000"), "part"));
}

/// It takes longer than the target may be silent, which is waited for by nobody meanwhile.
#[tokio::test]
async fn a_slow_sender_is_not_the_targets_silence() {
    let web = echo().await;
    let mut settings = config([shop([web.http()])]);
    silent_for(&mut settings, 300);
    let served = Served::new(settings).await;
    let (feed, body) = channel();
    let sent = tokio::spawn(async move {
        for piece in ["one", "two"] {
            tokio::time::sleep(Duration::from_millis(700)).await;
            feed.send(Ok(Frame::data(piece.into()))).await.unwrap();
        }
    });
    let answer =
        timeout(HANG, served.http1().await.send_request(request("POST", "/", body))).await.unwrap().unwrap();
    assert_eq!(words_of(answer).await, "onetwo");
    sent.await.unwrap();
}

/// A client that leaves takes its request along, whatever it waits for.
#[tokio::test]
async fn a_client_that_leaves_ends_the_request_at_the_target() {
    for words in ["", "HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\npart"] {
        let (told, mut ended) = tokio::sync::watch::channel(false);
        let told = Arc::new(told);
        let web = Web::raw(move |mut socket| {
            let told = Arc::clone(&told);
            async move {
                read_head(&mut socket).await;
                socket.write_all(words.as_bytes()).await.ok();
                // Until it ends, however it does.
                socket.read_to_end(&mut Vec::new()).await.ok();
                told.send_replace(true);
            }
        })
        .await;
        let served = Served::shop([web.http()]).await;
        let mut visitor = served.connect().await;
        visitor.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        until(|| served.target().outstanding == 1).await;
        if !words.is_empty() {
            assert!(read_head(&mut visitor).await.contains(" 200 "));
        }
        drop(visitor);
        timeout(HANG, ended.wait_for(|ended| *ended)).await.unwrap().unwrap();
        until(|| served.target().outstanding == 0).await;
        assert_eq!(served.target().failures, 0, "it was not the target's fault");
    }
}

/// A client that breaks its body off is not the target's fault either.
#[tokio::test]
async fn a_body_that_its_sender_breaks_off_arrives_as_no_whole() {
    let (told, mut ended) = tokio::sync::watch::channel(None);
    let told = Arc::new(told);
    let web = Web::proper(move |request| {
        let told = Arc::clone(&told);
        async move {
            told.send_replace(Some(request.into_body().collect().await.is_ok()));
            Response::new(empty())
        }
    })
    .await;
    let served = Served::shop([web.http()]).await;
    let mut visitor = served.connect().await;
    visitor.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\npart").await.unwrap();
    until(|| served.target().outstanding == 1).await;
    drop(visitor);
    let whole = *timeout(HANG, ended.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert_eq!(whole, Some(false));
    until(|| served.target().outstanding == 0).await;
    assert_eq!(served.target().failures, 0);
}
