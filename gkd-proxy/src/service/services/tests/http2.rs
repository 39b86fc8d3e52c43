//! HTTP/2 in front, behind, and on both sides.

use super::*;

/// Sends back what comes, as it comes, with fields behind it that say how it went: as gRPC does.
async fn streaming() -> Web {
    Web::proper(|request| async move {
        assert_eq!(request.version(), hyper::Version::HTTP_2);
        assert_eq!(request.headers().get("te").map(|te| te.as_bytes()), Some(&b"trailers"[..]));
        let (feed, body) = channel();
        tokio::spawn(async move {
            let mut up = request.into_body();
            while let Some(Ok(frame)) = up.frame().await {
                if let Ok(data) = frame.into_data()
                    && feed.send(Ok(Frame::data(data))).await.is_err()
                {
                    return;
                }
            }
            let fields =
                HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), "0".parse().unwrap())]);
            feed.send(Ok(Frame::trailers(fields))).await.ok();
        });
        Response::builder().header("content-type", "application/grpc").body(body).unwrap()
    })
    .await
}

fn grpc(body: TestBody) -> Request<TestBody> {
    let mut request = request2("POST", "/shop.Cart/Watch", body);
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    request
}

#[tokio::test]
async fn a_stream_is_answered_in_both_directions_before_its_request_ends() {
    let web = streaming().await;
    let served = Served::shop([web.h2c()]).await;
    let mut sender = served.http2().await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let (feed, body) = channel();
        let answer = timeout(HANG, sender.send_request(grpc(body))).await.unwrap().unwrap();
        assert_eq!(answer.status(), 200);
        streams.push((feed, answer.into_body()));
    }
    for turn in 0..10 {
        for (number, (feed, down)) in streams.iter_mut().enumerate() {
            let words = Bytes::from(format!("{number}: {turn}"));
            feed.send(Ok(Frame::data(words.clone()))).await.unwrap();
            let back = timeout(HANG, down.frame()).await.unwrap().unwrap().unwrap();
            assert_eq!(back.into_data().unwrap(), words);
        }
    }
    for (feed, down) in streams {
        drop(feed);
        let rest = timeout(HANG, down.collect()).await.unwrap().unwrap();
        assert_eq!(rest.trailers().unwrap()["grpc-status"], "0");
    }
    assert_eq!(web.connections(), 1, "one connection, many streams");
}

#[tokio::test]
async fn either_version_in_front_meets_either_behind() {
    let told = |request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let host = head.uri.host().map(str::to_owned);
        let host = host.or_else(|| Some(head.headers.get("host")?.to_str().unwrap().to_owned()));
        let cookies: Vec<_> = head.headers.get_all("cookie").iter().map(|it| it.to_str().unwrap()).collect();
        let words = format!(
            "{:?} {} {host:?} {cookies:?} {}",
            head.version,
            head.uri.path(),
            String::from_utf8_lossy(&body)
        );
        Response::builder().header("connection", "keep-alive").body(text(words)).unwrap()
    };
    let web = Web::proper(told).await;
    let with_cookies = |mut request: Request<TestBody>| {
        for cookie in ["a=b", "c=d"] {
            request.headers_mut().append("cookie", cookie.parse().unwrap());
        }
        request
    };
    for (target, version) in [(web.http(), "HTTP/1.1"), (web.h2c(), "HTTP/2.0")] {
        let served = Served::shop([target]).await;
        let right = format!("{version} /x Some(\"shop.example\") [\"a=b; c=d\"] body");
        let answer =
            served.http1().await.send_request(with_cookies(request("POST", "/x", text("body")))).await;
        assert_eq!(words_of(answer.unwrap()).await, right);
        let answer =
            served.http2().await.send_request(with_cookies(request2("POST", "/x", text("body")))).await;
        let answer = answer.unwrap();
        assert!(!answer.headers().contains_key("connection"), "{answer:?}");
        assert_eq!(words_of(answer).await, right);
    }
}

#[tokio::test]
async fn a_connection_that_ends_is_made_anew() {
    let web = Web::named("one").await;
    let address = web.address;
    let served = Served::shop([web.h2c()]).await;
    assert_eq!(served.get("/", "").await.text(), "one");
    drop(web);
    let web = Web::at(address, |socket| http(socket, |_| async { Response::new(text("two")) })).await;
    assert_eq!(served.get("/", "").await.text(), "two");
    assert_eq!(served.get("/", "").await.text(), "two");
    assert_eq!((web.connections(), served.target().failures), (1, 0));
}

#[tokio::test]
async fn a_full_connection_is_given_a_second_one() {
    let (open, opened) = tokio::sync::watch::channel(false);
    let web = Web::proper(move |_| {
        let mut opened = opened.clone();
        async move {
            opened.wait_for(|open| *open).await.unwrap();
            Response::new(text("ok"))
        }
    })
    .await;
    let served = Served::shop([web.h2c()]).await;
    let mut waiting = JoinSet::new();
    for _ in 0..150 {
        let mut sender = served.http1().await;
        waiting.spawn(async move {
            words_of(sender.send_request(request("GET", "/", empty())).await.unwrap()).await
        });
    }
    until(|| served.target().outstanding == 150 && web.connections() == 2).await;
    open.send_replace(true);
    while let Some(words) = waiting.join_next().await {
        assert_eq!(words.unwrap(), "ok");
    }
    assert_eq!(web.connections(), 2);
}

/// One client does not read, and holds no other up on the same connection.
#[tokio::test]
async fn a_slow_client_costs_its_stream_alone() {
    let web = Web::proper(|request| async move {
        match request.uri().path() {
            "/long" => Response::new(text(vec![b'x'; 16 << 20])),
            _ => Response::new(text("short")),
        }
    })
    .await;
    let served = Served::shop([web.h2c()]).await;
    let mut slow = Vec::new();
    for _ in 0..30 {
        let mut visitor = served.connect().await;
        visitor.write_all(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert!(read_head(&mut visitor).await.contains(" 200 "));
        slow.push(visitor);
    }
    for _ in 0..5 {
        assert_eq!(served.get("/", "").await.text(), "short");
    }
    assert_eq!(web.connections(), 1);
}

#[tokio::test]
async fn a_target_that_does_not_speak_http2_is_502() {
    let web = Web::raw(|socket| async move {
        let mut socket = socket;
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.ok();
        socket.read_to_end(&mut Vec::new()).await.ok();
    })
    .await;
    let served = Served::shop([web.h2c()]).await;
    assert_eq!(served.get("/", "").await.status(), 502);
}

#[tokio::test]
async fn a_stream_that_its_client_resets_is_reset_at_the_target() {
    let (told, mut ended) = tokio::sync::watch::channel(false);
    let told = Arc::new(told);
    let web = Web::proper(move |request| {
        let told = Arc::clone(&told);
        async move {
            let mut up = request.into_body();
            assert!(up.frame().await.unwrap().is_ok());
            tokio::spawn(async move {
                assert!(up.frame().await.unwrap().is_err());
                told.send_replace(true);
            });
            Response::new(channel_that_stays())
        }
    })
    .await;
    let served = Served::shop([web.h2c()]).await;
    let (feed, body) = channel();
    feed.send(Ok(Frame::data("begin".into()))).await.unwrap();
    let mut sender = served.http2().await;
    let answer = timeout(HANG, sender.send_request(grpc(body))).await.unwrap().unwrap();
    feed.send(Err(io::ErrorKind::Other.into())).await.unwrap();
    timeout(HANG, ended.wait_for(|ended| *ended)).await.unwrap().unwrap();
    drop(answer);
    until(|| served.target().outstanding == 0).await;
    assert_eq!(served.target().failures, 0);
}

/// A body that never comes, and never ends.
fn channel_that_stays() -> TestBody {
    let (feed, body) = channel();
    std::mem::forget(feed);
    body
}
