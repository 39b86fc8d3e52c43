//! Bodies: bounds, silence, and clients that stop to read.

use super::*;

fn post(path: &str, rest: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{rest}")
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_by_its_length_and_by_its_bytes() {
    let mut config = config();
    config.limits.max_body = Some(10);
    let running = run(&config).await;
    // By its length nothing is waited for, and no body is asked for.
    let answer = running.send(post("/count", "Content-Length: 11\r\nExpect: 100-continue\r\n\r\n")).await;
    assert_eq!(statuses(&answer), [413], "{answer}");
    assert!(running.service.asked().is_empty());
    let chunked = "Transfer-Encoding: chunked\r\n\r\n6\r\n123456\r\n5\r\n12345\r\n";
    assert_eq!(statuses(&running.send(post("/count", chunked)).await), [413]);
    assert_eq!(running.service.asked(), ["POST /count"]);
    assert_eq!(running.front.status().refused.bodies, 2);
    let within =
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n6\r\n123456\r\n4\r\n1234\r\n0\r\n\r\n";
    assert!(running.send(post("/count", within)).await.ends_with("\r\n\r\n10"));
}

#[tokio::test]
async fn a_body_is_asked_for_when_somebody_reads_it() {
    let running = run(&config()).await;
    let mut socket = running.connect().await;
    let head = post("/count", "Content-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut socket, "HTTP/1.1 100 Continue\r\n\r\n").await;
    socket.write_all(b"12345").await.unwrap();
    assert!(read_to_end(&mut socket).await.ends_with("\r\n\r\n5"));
    // Nobody reads this one.
    let head = post("/", "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(statuses(&running.send(head).await), [200]);
}

#[tokio::test]
async fn a_body_that_falls_silent_is_not_waited_for() {
    let mut config = config();
    config.limits.silence = Duration::from_millis(200);
    let running = run(&config).await;
    let answer = running.send(post("/count", "Content-Length: 10\r\n\r\nhalf")).await;
    assert_eq!(statuses(&answer), [408], "{answer}");
    let answer = running.send(post("/count", "Transfer-Encoding: chunked\r\n\r\n5\r\nha")).await;
    assert_eq!(statuses(&answer), [408], "{answer}");
}

#[tokio::test]
async fn a_chunk_without_clear_bounds_is_refused_and_nothing_is_read_behind_it() {
    let running = run(&config()).await;
    for body in [
        "ffffffffffffffff0\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5;\n\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nContent-Length: 3\r\n\r\n",
        "x\r\n",
    ] {
        let rest =
            format!("Transfer-Encoding: chunked\r\n\r\n{body}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut socket = running.connect().await;
        socket.write_all(post("/count", &rest).as_bytes()).await.unwrap();
        socket.shutdown().await.unwrap();
        let answer = read_to_end(&mut socket).await;
        assert_eq!(statuses(&answer), [400], "{body:?} {answer}");
    }
    let asked = running.service.asked();
    assert!(asked.iter().all(|asked| asked == "POST /count"), "{asked:?}");
}

#[tokio::test]
async fn bodies_pass_as_they_come_with_what_is_behind_them() {
    let running = run(&config()).await;
    let mut socket = running.connect().await;
    let head = post("/echo", "Transfer-Encoding: chunked\r\nTE: trailers\r\nTrailer: x\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    for piece in ["one", "two"] {
        socket.write_all(format!("3\r\n{piece}\r\n").as_bytes()).await.unwrap();
        // It is back before the next goes.
        read_until(&mut socket, &format!("{piece}\r\n")).await;
    }
    socket
        .write_all(b"0\r\nx: y\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let rest = read_to_end(&mut socket).await;
    assert!(rest.starts_with("0\r\n") && statuses(&rest) == [200], "{rest}");
    let large = vec![b'z'; 3 << 20];
    let head = post("/count", &format!("Content-Length: {}\r\nConnection: close\r\n\r\n", large.len()));
    let answer = running.send([head.as_bytes(), &large].concat()).await;
    assert!(answer.ends_with(&format!("\r\n\r\n{}", large.len())), "{answer}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    let running = run(&config()).await;
    let answer = running.send("GET /broken HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
    // Here nothing but the end of the connection could tell.
    let mut socket = running.connect().await;
    socket.write_all(b"GET /broken HTTP/1.0\r\nHost: a\r\n\r\n").await.unwrap();
    let ended = timeout(PATIENCE, socket.read_to_end(&mut Vec::new())).await.unwrap();
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_client_that_stops_to_read_is_given_up() {
    let mut config = config();
    config.limits.silence = Duration::from_millis(300);
    let running = run(&config).await;
    let mut socket = running.connect().await;
    socket.write_all(b"GET /endless HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    // Others are served meanwhile.
    let answer = running.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert_eq!(statuses(&answer), [200]);
    running.service.until_given_up(1).await;
    until(|| running.front.status().connections == 0).await;
}

#[tokio::test]
async fn a_client_that_goes_away_is_given_up() {
    let running = run(&config()).await;
    let mut socket = running.connect().await;
    socket.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(|| !running.service.asked().is_empty()).await;
    drop(socket);
    running.service.until_given_up(1).await;
    // One that asked for an upgrade too, although what is behind it is not looked at.
    let mut socket = running.connect().await;
    let head = "GET /never HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    until(|| running.service.asked().len() == 2).await;
    drop(socket);
    running.service.until_given_up(2).await;
}
