//! Heads of HTTP/1.1: what is refused, how it is told, and that nothing of it reaches a service.

use super::*;

/// Behind every request that is refused comes what would be taken for another one.
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn what_has_two_readings_is_refused_and_ends_the_connection() {
    let running = run(&config()).await;
    for (head, status) in [
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\nhello", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
        ("garbage\r\n\r\n", 400),
        ("\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    ] {
        let answer = running.send(format!("{head}{NEXT}")).await;
        assert_eq!(statuses(&answer), [status], "{head:?} {answer}");
        assert!(answer.contains("connection: close") && answer.contains("x-request-id: "), "{answer}");
    }
    assert_eq!(running.service.asked(), [] as [&str; 0]);
    assert_eq!(running.front.status().refused.heads, 23);
}

#[tokio::test]
async fn a_refusal_comes_in_turn_behind_the_answers_before_it() {
    let running = run(&config()).await;
    let good = |path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    let bad = "GET /bad HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n";
    let answer = running.send(format!("{}{}{bad}{NEXT}", good("/1"), good("/2"))).await;
    assert_eq!(statuses(&answer), [200, 200, 400]);
    assert_eq!(running.service.asked(), ["GET /1", "GET /2"]);
}

#[tokio::test]
async fn heads_have_bounds() {
    let mut config = config();
    config.limits.max_head = 8 * 1024;
    let running = run(&config).await;
    let long = "x".repeat(1 << 20);
    let answer = running.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n{NEXT}")).await;
    assert_eq!(statuses(&answer), [431]);
    let answer = running.send(format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n{NEXT}")).await;
    assert_eq!(statuses(&answer), [414]);
    let many = "X: y\r\n".repeat(200);
    let answer = running.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n{NEXT}")).await;
    assert_eq!(statuses(&answer), [431]);
    let within = "x".repeat(7 * 1024);
    let answer =
        running.send(format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX: {within}\r\n\r\n")).await;
    assert_eq!((statuses(&answer), running.service.asked().len()), (vec![200], 1));
}

#[tokio::test]
async fn a_head_has_a_time_for_all_of_it() {
    let mut config = config();
    config.limits.head = Duration::from_millis(400);
    let running = run(&config).await;
    let mut socket = running.connect().await;
    let (mut reader, mut writer) = socket.split();
    // Something comes all the time, and never the end.
    let trickle = async {
        writer.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
        while writer.write_all(b"X: y\r\n").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let mut answer = Vec::new();
    tokio::select! {
        () = trickle => {}
        ended = timeout(PATIENCE, reader.read_to_end(&mut answer)) => { ended.expect("it never ended").unwrap(); }
    }
    assert_eq!(statuses(&String::from_utf8_lossy(&answer)), [408]);
    // One that says nothing is told nothing.
    assert_eq!(running.send("").await, "");
    assert!(running.service.asked().is_empty());
}

#[tokio::test]
async fn an_idle_connection_ends_and_a_slow_answer_does_not_make_it_idle() {
    let mut config = config();
    config.limits.keep_alive = Duration::from_millis(200);
    config.limits.head = Duration::from_millis(200);
    let running = run(&config).await;
    let mut socket = running.connect().await;
    socket.write_all(b"GET /when-let-go HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(|| !running.service.asked().is_empty()).await;
    sleep(Duration::from_millis(600)).await;
    running.service.let_go.notify_one();
    let answer = read_to_end(&mut socket).await;
    assert_eq!(statuses(&answer), [200]);
    assert!(answer.ends_with("gone") && !answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_service_reads_one_form_of_a_request() {
    let running = run(&config()).await;
    for (head, asked) in [
        ("GET http://A:80/x?y#z HTTP/1.1\r\nHost: a", "GET /x?y"),
        ("GET http://a HTTP/1.1\r\nHost: a", "GET /"),
        ("OPTIONS * HTTP/1.1\r\nHost: a", "OPTIONS *"),
        ("GET //x/../y HTTP/1.0\r\nHost: a", "GET //x/../y"),
    ] {
        let answer = running.send(format!("{head}\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(answer.split(' ').nth(1), Some("200"), "{head} {answer}");
        assert_eq!(running.service.asked().last().unwrap(), asked);
    }
}

#[tokio::test]
async fn what_is_behind_an_upgrade_is_another_protocol() {
    let running = run(&config()).await;
    let mut socket = running.connect().await;
    // Sent without waiting for the answer, and nothing that HTTP would let through.
    let head = "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
    socket.write_all(format!("{head}\0early\n").as_bytes()).await.unwrap();
    let answer = read_until(&mut socket, "\0early\n").await;
    assert_eq!(statuses(&answer), [101]);
    socket.write_all(b"\r \0later").await.unwrap();
    assert_eq!(read_until(&mut socket, "later").await, "\r \0later");
    socket.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut socket).await, "");
}

#[tokio::test]
async fn what_is_behind_an_upgrade_that_is_not_done_is_the_next_request() {
    let running = run(&config()).await;
    let head =
        |path| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    let answer = running.send(format!("{}{}GET\n\n", head("/1"), head("/2"))).await;
    assert_eq!(statuses(&answer), [200, 200, 400]);
    assert_eq!(running.service.asked(), ["GET /1", "GET /2"]);
}

#[tokio::test]
async fn head_is_answered_without_a_body() {
    let running = run(&config()).await;
    let answer = running.send("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("content-length: 7\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    let answer = running.send("HEAD / HTTP/1.1\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with("\r\n\r\n"), "{answer}");
}
