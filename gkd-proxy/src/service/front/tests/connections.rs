//! Connections: how many there may be, who they are from, how they end, and what a reload does to them.

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sends a request, and reads its answer.
async fn ask(socket: &mut TcpStream) -> String {
    socket.write_all(GET.as_bytes()).await.unwrap();
    read_until(socket, "hello /").await
}

#[tokio::test]
async fn an_address_has_its_share_of_connections() {
    let mut config = config();
    config.limits.connections_per_address = 2;
    let running = run(&config).await;
    let (mut one, mut two) = (running.connect().await, running.connect().await);
    ask(&mut one).await;
    ask(&mut two).await;
    assert_eq!(running.send(GET).await, "");
    assert_eq!(running.front.status().refused.connections_per_address, 1);
    drop(one);
    until(|| running.front.status().connections == 1).await;
    ask(&mut running.connect().await).await;
    ask(&mut two).await;
}

#[tokio::test]
async fn at_the_bound_an_idle_connection_gives_way() {
    let mut config = config();
    config.limits.connections = 2;
    let running = run(&config).await;
    let (mut busy, mut idle) = (running.connect().await, running.connect().await);
    busy.write_all(b"GET /when-let-go HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(|| !running.service.asked().is_empty()).await;
    ask(&mut idle).await;
    let mut new = running.connect().await;
    ask(&mut new).await;
    assert_eq!(read_to_end(&mut idle).await, "");
    running.service.let_go.notify_one();
    read_until(&mut busy, "gone").await;
}

#[tokio::test]
async fn those_that_say_nothing_keep_nobody_out() {
    let mut config = config();
    config.limits.connections = 3;
    let running = run(&config).await;
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(running.connect().await);
        let answer = running.send(GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(statuses(&answer), [200]);
    }
    assert_eq!(read_to_end(&mut silent[0]).await, "");
    assert!(running.front.status().connections <= 3);
}

#[tokio::test]
async fn an_address_has_a_rate() {
    let mut config = config();
    config.limits.requests_per_second = Some(3);
    let running = run(&config).await;
    let mut socket = running.connect().await;
    for _ in 0..3 {
        ask(&mut socket).await;
    }
    let last = GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    // Seconds pass on a busy machine; many at once are too many on any.
    let answer = running.send(GET.repeat(40) + &last).await;
    let statuses = statuses(&answer);
    assert!(statuses.len() == 41 && statuses.contains(&429), "{statuses:?}");
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    let refused = statuses.iter().filter(|status| **status == 429).count() as u64;
    assert_eq!(running.front.status().refused.rate, refused);
}

#[tokio::test]
async fn only_who_is_trusted_says_who_its_client_is() {
    let mut config = config();
    config.proxy_header = true;
    config.trusted = vec!["127.0.0.0/8".parse().unwrap()];
    let running = run(&config).await;
    let head = "PROXY TCP4 192.0.2.9 192.0.2.1 4711 80\r\n";
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\nConnection: close\r\n\r\n";
    assert_eq!(statuses(&running.send(format!("{head}{request}")).await), [200]);
    {
        let seen = running.service.seen.lock().unwrap();
        let visit = &seen[0].1;
        assert_eq!(visit.client, "192.0.2.9:4711".parse().unwrap());
        assert_eq!(visit.local, "192.0.2.1:80".parse().unwrap());
        assert!(visit.peer.ip().is_loopback());
        assert_eq!(&*visit.id, "mine");
    }
    // Without the header it is nobody.
    assert_eq!(running.send(request).await, "");
    assert_eq!(running.front.status().refused.handshakes, 1);

    config.trusted = vec!["192.0.2.0/24".parse().unwrap()];
    let running = run(&config).await;
    assert_eq!(statuses(&running.send(format!("{head}{request}")).await), [400]);
    assert_eq!(statuses(&running.send(request).await), [200]);
    assert_ne!(&*running.service.seen.lock().unwrap()[0].1.id, "mine");
}

#[tokio::test]
async fn a_shutdown_lets_requests_come_to_their_end() {
    let running = run(&config()).await;
    let (mut busy, mut idle) = (running.connect().await, running.connect().await);
    ask(&mut idle).await;
    busy.write_all(b"GET /when-let-go HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(|| running.service.asked().len() == 2).await;
    let (service, addr) = (Arc::clone(&running.service), running.addr);
    let ending = async {
        running.front.shutdown(PATIENCE).await;
        assert_eq!(running.front.status().connections, 0);
    };
    let client = async {
        assert_eq!(read_to_end(&mut idle).await, "");
        assert!(TcpStream::connect(addr).await.is_err());
        service.let_go.notify_one();
        let answer = read_to_end(&mut busy).await;
        assert!(answer.contains("connection: close") && answer.ends_with("gone"), "{answer}");
    };
    tokio::join!(ending, client);
}

#[tokio::test]
async fn what_does_not_end_in_time_is_ended() {
    let running = run(&config()).await;
    let mut busy = running.connect().await;
    busy.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut upgraded = running.connect().await;
    let head = "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nx";
    upgraded.write_all(head.as_bytes()).await.unwrap();
    read_until(&mut upgraded, "\r\n\r\nx").await;
    running.front.shutdown(Duration::from_millis(100)).await;
    assert_eq!(running.front.status().connections, 0);
    assert_eq!(read_to_end(&mut busy).await, "");
    assert_eq!(read_to_end(&mut upgraded).await, "");
    running.service.until_given_up(1).await;
}

#[tokio::test]
async fn a_reload_opens_and_closes_ports_and_leaves_what_is_served() {
    let mut config = config();
    config.listen.push(FrontListen { tls: false, address: any_port() });
    config.listen[1].address.set_ip([127, 0, 0, 2].into());
    let running = run(&config).await;
    let before = running.front.local_addrs();
    let mut second = TcpStream::connect(before[1]).await.unwrap();
    ask(&mut second).await;

    config.listen[1].address.set_ip([127, 0, 0, 3].into());
    config.limits.max_body = Some(1);
    running.front.reload(&config).await.unwrap();
    let after = running.front.local_addrs();
    assert_eq!((after.len(), after[0]), (2, before[0]));
    ask(&mut TcpStream::connect(after[1]).await.unwrap()).await;
    until(|| std::net::TcpStream::connect(before[1]).is_err()).await;
    ask(&mut second).await;
    let large = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxx";
    assert_eq!(statuses(&running.send(large).await), [413]);

    // What is not to be had changes nothing.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut wrong = config.clone();
    wrong.limits.max_body = None;
    wrong.listen[1].address = taken.local_addr().unwrap();
    let error = running.front.reload(&wrong).await.unwrap_err().to_string();
    assert!(error.contains("another program has the port"), "{error}");
    wrong.listen.truncate(1);
    wrong.listen[0].tls = true;
    let error = running.front.reload(&wrong).await.unwrap_err().to_string();
    assert!(error.contains("needs a certificate"), "{error}");
    assert_eq!(running.front.local_addrs(), after);
    assert_eq!(statuses(&running.send(large).await), [413]);
}

#[tokio::test]
async fn each_request_has_a_line_when_it_is_over() {
    let mut config = config();
    config.access_log = AccessLog::Text;
    let running = run(&config).await;
    running.send(format!("{GET}GET /\"\x1b[1m HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    running.send("GET /broken HTTP/1.1\r\nHost: b.example\r\n\r\n").await;
    let mut socket = running.connect().await;
    socket.write_all(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    until(|| running.service.asked().len() == 3).await;
    drop(socket);
    running.service.until_given_up(1).await;
    until(|| running.front.status().connections == 0).await;
    running.front.shutdown(PATIENCE).await;
    let log = running.log.text();
    let lines: Vec<Vec<&str>> = log.lines().map(|line| line.splitn(4, ' ').collect()).collect();
    assert_eq!(lines.len(), 4, "{log}");
    let expected = [
        ("a", r#""GET / HTTP/1.1" 200 7 "#, "made up t:1", true),
        ("-", r#""GET /\"\x1b[1m HTTP/1.1" 400 "#, "- -", true),
        ("b.example", r#""GET /broken HTTP/1.1" 200 4 "#, "made up t:1", false),
        ("a", r#""GET /never HTTP/1.1" 0 0 "#, "- -", false),
    ];
    for (line, (host, request, served, whole)) in lines.iter().zip(expected) {
        assert_eq!((line[1], line[2]), ("127.0.0.1", host), "{log}");
        let served = served.replace("made up", "made\\x20up");
        assert!(line[3].starts_with(request) && line[3].contains(&served), "{log}");
        let without_mark = line[3].strip_suffix(" broken-off");
        assert_eq!(without_mark.is_none(), whole, "{log}");
        let id = without_mark.unwrap_or(line[3]).rsplit(' ').next().unwrap();
        assert_eq!(id.len(), 32, "{log}");
    }
}
