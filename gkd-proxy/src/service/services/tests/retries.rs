//! Targets that are dead, die, or end kept connections; and what may be sent again.

use super::*;

/// What a web server does with its first request, where another may take the request over.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Breaks {
    /// Nobody listens.
    Unreached,
    /// It ends without a word.
    BeforeTheHead,
    /// It says something else than HTTP.
    WithGarbage,
    /// It ends in a short answer.
    InAShortBody,
    /// It ends in a long one.
    InALongBody,
}

/// What a request is like.
#[derive(Clone, Copy, Debug)]
enum Asks {
    Get,
    /// Idempotent, with a body that is read at once.
    Put,
    /// Not idempotent, without a body.
    Post,
}

async fn breaking(how: Breaks) -> (Option<Web>, TargetConfig) {
    let words = match how {
        Breaks::Unreached => return (None, nobody().await),
        Breaks::BeforeTheHead => "",
        Breaks::WithGarbage => "SSH-2.0-OpenSSH_9.9\r\n",
        Breaks::InAShortBody => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart",
        Breaks::InALongBody => "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\npart",
    };
    let web = Web::raw(move |mut socket| async move {
        read_head(&mut socket).await;
        // What was sent of a body is not left unread, or the end were a reset.
        timeout(Duration::from_millis(50), socket.read(&mut [0; 64])).await.ok();
        socket.write_all(words.as_bytes()).await.ok();
    })
    .await;
    let config = web.http();
    (Some(web), config)
}

#[tokio::test]
async fn what_is_sent_again_to_another_target_and_what_is_not() {
    use self::{Asks::*, Breaks::*};

    for (breaks, asks, status) in [
        (Unreached, Get, 200),
        (Unreached, Put, 200),
        (Unreached, Post, 200),
        (BeforeTheHead, Get, 200),
        (BeforeTheHead, Put, 502),
        (BeforeTheHead, Post, 502),
        (WithGarbage, Get, 200),
        (WithGarbage, Put, 502),
        (WithGarbage, Post, 502),
        (InAShortBody, Get, 200),
        (InAShortBody, Post, 0),
        (InALongBody, Get, 0),
        (InALongBody, Post, 0),
    ] {
        let good = Web::named("good").await;
        let (_bad, config) = breaking(breaks).await;
        // The bad one is asked first, and rarely afterwards.
        let mut service = shop([config, good.http()]);
        service.balance = crate::service::config::Method::RoundRobin;
        let served = Served::new(super::config([service])).await;
        let request = match asks {
            Get => request("GET", "/", empty()),
            Put => request("PUT", "/", text("body")),
            Post => request("POST", "/", empty()),
        };
        let answer = timeout(HANG, served.http1().await.send_request(request)).await.unwrap().unwrap();
        let got = answer.status().as_u16();
        let whole = answer.into_body().collect().await.is_ok();
        // 0 stands for an answer that breaks off.
        assert_eq!(if whole { got } else { 0 }, status, "{breaks:?} {asks:?}");
        let reached: u64 = served.services.status()[0].targets.iter().map(|target| target.requests).sum();
        assert_eq!(reached, if status == 200 { 2 } else { 1 }, "{breaks:?} {asks:?}");
        assert_eq!(served.services.status()[0].targets[0].failures, 1, "{breaks:?} {asks:?}");
    }
}

#[tokio::test]
async fn a_request_is_sent_again_once_and_reaches_for_no_more_than_five() {
    let broken = [breaking(Breaks::BeforeTheHead).await, breaking(Breaks::BeforeTheHead).await];
    let good = Web::named("good").await;
    let mut service = shop(broken.iter().map(|(_, config)| config.clone()).chain([good.http()]));
    service.balance = crate::service::config::Method::RoundRobin;
    let served = Served::new(config([service])).await;
    assert_eq!(served.get("/", "").await.status(), 502);
    assert_eq!(good.connections(), 0);

    let mut dead = Vec::new();
    for _ in 0..7 {
        dead.push(nobody().await);
    }
    let served = Served::shop(dead).await;
    assert_eq!(served.get("/", "").await.status(), 502);
    let tried: u64 = served.services.status()[0].targets.iter().map(|target| target.requests).sum();
    assert_eq!(tried, 5);
}

/// Serves one request, then ends the kept connection when the next one has come.
async fn forgetful(mut socket: TcpStream) {
    read_head(&mut socket).await;
    socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.ok();
    read_head(&mut socket).await;
}

#[tokio::test]
async fn a_kept_connection_that_ends_costs_no_idempotent_request() {
    let web = Web::raw(forgetful).await;
    let served = Served::shop([web.http()]).await;
    for asked in 1..=5 {
        assert_eq!(served.get("/", "").await.text(), "ok");
        // The kept one broke, a fresh one served.
        assert_eq!(web.connections(), asked);
    }
    assert_eq!(served.target().failures, 0, "a kept connection says nothing of its target");
    // What is not idempotent was sent, and nobody knows what came of it.
    assert_eq!(served.get("/", "").await.text(), "ok");
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(served.visit(post).await.status(), 502);
    assert_eq!(served.visit(post).await.status(), 200);
}

#[tokio::test]
async fn connections_are_kept_for_next_requests_and_not_beyond_their_target() {
    let web = Web::named("shop").await;
    let settings = config([shop([web.http()])]);
    let served = Served::new(settings.clone()).await;
    for _ in 0..10 {
        assert_eq!(served.get("/", "").await.text(), "shop");
    }
    let mut sender = served.http1().await;
    for method in ["GET", "POST", "PUT"] {
        let body = if method == "GET" { empty() } else { text("body") };
        assert_eq!(words_of(sender.send_request(request(method, "/", body)).await.unwrap()).await, "shop");
    }
    assert_eq!(web.connections(), 1);
    // The same configuration again keeps them.
    served.services.reload(&settings);
    served.get("/", "").await;
    assert_eq!(web.connections(), 1);
}

#[tokio::test]
async fn a_proxy_header_names_each_client_on_a_connection_of_its_own() {
    let web = Web::raw(|mut socket| async move {
        let mut header = [0; 28];
        socket.read_exact(&mut header).await.ok();
        read_head(&mut socket).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 28\r\n\r\n";
        socket.write_all(&[answer, &header[..]].concat()).await.ok();
        socket.read_to_end(&mut Vec::new()).await.ok();
    })
    .await;
    let mut service = shop([web.http()]);
    service.send_proxy = true;
    let served = Served::new(config([service])).await;
    for asked in 1..=3 {
        let mut visitor = served.connect().await;
        let own = visitor.local_addr().unwrap();
        visitor.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        assert_eq!(Said::read(&mut visitor).await.body, &proxy_header(own, served.address)[..]);
        assert_eq!(web.connections(), asked);
    }
}

fn proxy_header(client: SocketAddr, local: SocketAddr) -> Bytes {
    crate::proxy_header::encode(client, local)
}

/// One of three is killed with all of its connections again and again while requests run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_killed_and_comes_back_costs_no_idempotent_request() {
    let (one, two, mut three) = (Web::named("one").await, Web::named("two").await, Web::named("three").await);
    let address = three.address;
    let served = Served::shop([one.http(), two.http(), three.http()]).await;
    let stop = CancellationToken::new();
    let mut clients = JoinSet::new();
    for _ in 0..16 {
        let mut sender = served.http1().await;
        let stop = stop.clone();
        clients.spawn(async move {
            let mut answers = 0_u32;
            while !stop.is_cancelled() {
                let answer =
                    sender.send_request(request("GET", "/", empty())).await.expect("no answer at all");
                assert_eq!(answer.status(), 200);
                words_of(answer).await;
                answers += 1;
            }
            answers
        });
    }
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(three);
        tokio::time::sleep(Duration::from_millis(100)).await;
        three = Web::at(address, |socket| http(socket, |_| async { Response::new(text("three")) })).await;
    }
    stop.cancel();
    let mut answers = 0;
    while let Some(client) = clients.join_next().await {
        answers += client.unwrap();
    }
    assert!(answers > 100, "{answers}");
    assert!(served.services.status()[0].targets[2].failures > 0, "it was never met dead");
}

#[tokio::test]
async fn a_health_check_takes_a_target_out_and_brings_it_back() {
    let well = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = Arc::clone(&well);
    let sick = Web::proper(move |request| {
        let well = asked.load(Ordering::SeqCst);
        async move {
            let mut answer = Response::new(text("sick"));
            if request.uri().path() == "/healthz" && !well {
                *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
            answer
        }
    })
    .await;
    let good = Web::named("good").await;
    let mut health = HealthCheck::new("/healthz");
    (health.interval, health.timeout) = (Duration::from_millis(20), Duration::from_secs(10));
    (health.rise, health.fall) = (2, 2);
    for (mut first, second) in [(sick.http(), good.http()), (sick.h2c(), good.h2c())] {
        well.store(false, Ordering::SeqCst);
        first.weight = 100;
        let mut service = shop([first, second]);
        service.health = Some(health.clone());
        let served = Served::new(config([service])).await;
        let healthy = || served.services.status()[0].targets[0].healthy;
        until(|| !healthy()).await;
        for _ in 0..20 {
            assert_eq!(served.get("/", "").await.text(), "good");
        }
        well.store(true, Ordering::SeqCst);
        until(healthy).await;
    }
}

#[tokio::test]
async fn a_target_that_fails_is_left_out_and_its_503_is_passed_on() {
    let web = Web::raw(|socket| {
        say(
            socket,
            "HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbusy",
        )
    })
    .await;
    let served = Served::shop([web.http()]).await;
    for _ in 0..3 {
        let said = served.get("/", "").await;
        assert_eq!((said.status(), said.header("retry-after"), said.text()), (503, Some("7"), "busy"));
    }
    let target = served.target();
    assert_eq!((target.healthy, target.failures), (false, 3));
    // The least bad one is asked all the same.
    assert_eq!(served.get("/", "").await.text(), "busy");
}
