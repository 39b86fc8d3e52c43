//! HTTP/2, with hyper's client and with frames by hand.

use http_body_util::BodyStream;
use hyper::Version;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;

use super::*;

type Client = http2::SendRequest<ServiceBody>;

async fn connect(running: &Running) -> Client {
    let io = TokioIo::new(running.connect().await);
    let (client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    client
}

fn get(uri: &str) -> Request<ServiceBody> {
    Request::get(uri).version(Version::HTTP_2).body(full("")).unwrap()
}

async fn text(response: Response<hyper::body::Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

#[tokio::test]
async fn requests_share_a_connection() {
    let running = run(&config()).await;
    let client = connect(&running).await;
    let answers = (0..100).map(|number| {
        let mut client = client.clone();
        async move { text(client.send_request(get(&format!("http://a/{number}"))).await.unwrap()).await }
    });
    let answers = futures::future::join_all(answers).await;
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(*answer, format!("hello /{number}"));
    }
    let seen = running.service.seen.lock().unwrap();
    let (asked, visit, headers) = &seen[0];
    assert!(asked.starts_with("GET /") && headers[header::HOST] == "a", "{asked} {headers:?}");
    assert!(!visit.tls && visit.client == visit.peer && visit.local == running.addr);
    assert_eq!(running.front.status().accepted, 1);
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    let running = run(&config()).await;
    let mut client = connect(&running).await;
    let trailers = hyper::HeaderMap::from_iter([(header::ETAG, "x".parse().unwrap())]);
    let frames = futures::stream::iter([
        Ok(Frame::data(Bytes::from(vec![b'a'; 3 << 20]))),
        Ok(Frame::trailers(trailers.clone())),
    ]);
    let body = StreamBody::new(frames).boxed_unsync();
    let response = client.send_request(Request::post("http://a/echo").body(body).unwrap()).await.unwrap();
    let (mut len, mut last) = (0, None);
    let mut frames = BodyStream::new(response.into_body());
    while let Some(frame) = frames.next().await {
        match frame.unwrap().into_data() {
            Ok(data) => len += data.len(),
            Err(frame) => last = frame.into_trailers().ok(),
        }
    }
    assert_eq!((len, last), (3 << 20, Some(trailers)));
}

#[tokio::test]
async fn what_is_refused_is_refused_alone() {
    let mut config = config();
    config.limits.max_head = 4096;
    config.limits.max_body = Some(10);
    let running = run(&config).await;
    let mut client = connect(&running).await;
    let mut two_hosts = get("http://a/");
    two_hosts.headers_mut().append(header::HOST, "b".parse().unwrap());
    assert_eq!(client.send_request(two_hosts).await.unwrap().status(), StatusCode::BAD_REQUEST);
    let large = Request::post("http://a/count").body(full(vec![0; 11])).unwrap();
    assert_eq!(client.send_request(large).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    let frames = futures::stream::iter([6, 6]).map(|len| Ok(Frame::data(Bytes::from(vec![0; len]))));
    let unknown = Request::post("http://a/count").body(StreamBody::new(frames).boxed_unsync()).unwrap();
    assert_eq!(client.send_request(unknown).await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
    let head = Request::head("http://a/").body(full("")).unwrap();
    let answer = client.send_request(head).await.unwrap();
    assert_eq!((answer.status(), &answer.headers()[header::CONTENT_LENGTH]), (StatusCode::OK, &7.into()));
    assert_eq!(text(answer).await, "");
    // Its own library would not send such a head; by hand then.
    let mut raw = Raw::connect(&running).await;
    raw.request(1, &[("x", &"y".repeat(5000))]).await;
    let (_, _, stream, payload) = raw.frame_of(&[HEADERS]).await;
    // `:status: 431`, as the library writes it: a literal with an indexed name.
    assert_eq!(stream, 1);
    assert!(
        payload.windows(2).any(|pair| pair == [0x48, 0x82]) || payload.starts_with(&[0x48]),
        "{payload:?}"
    );
    assert_eq!(text(client.send_request(get("http://a/ok")).await.unwrap()).await, "hello /ok");
}

#[tokio::test]
async fn a_panic_costs_the_request_that_met_it_and_no_other() {
    let running = run(&HttpConfig { access_log: AccessLog::Text, ..config() }).await;
    let mut client = connect(&running).await;
    let waiting = tokio::spawn(client.send_request(get("http://a/when-let-go")));
    until(|| running.service.asked().len() == 1).await;
    for _ in 0..3 {
        let response = client.send_request(get("http://a/bug")).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let page = text(response).await;
        assert!(page.contains(&id) && page.contains("The fault is in this server."), "{page}");
        until(|| running.log.text().contains(&id)).await;
    }
    running.service.let_go.notify_one();
    assert_eq!(text(waiting.await.unwrap().unwrap()).await, "gone");
    assert_eq!(running.front.status().accepted, 1);
    // Of HTTP/1.1 the connection goes on as well, with a body that nobody read.
    let bug = "POST /bug HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
    let answers = running.send(format!("{bug}GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
    assert_eq!(statuses(&answers), [500, 200], "{answers}");
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_reset_and_the_others_are_not() {
    let mut config = config();
    config.limits.silence = Duration::from_millis(500);
    let running = run(&config).await;
    let mut client = connect(&running).await;
    let unread = client.send_request(get("http://a/endless")).await.unwrap();
    for number in 0..3 {
        let answer = client.send_request(get(&format!("http://a/{number}"))).await.unwrap();
        assert_eq!(text(answer).await, format!("hello /{number}"));
        sleep(Duration::from_millis(100)).await;
    }
    running.service.until_given_up(1).await;
    until(|| running.front.status().refused.silent == 1).await;
    assert!(unread.into_body().collect().await.is_err());
    assert_eq!(text(client.send_request(get("http://a/ok")).await.unwrap()).await, "hello /ok");
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go() {
    let mut config = config();
    config.limits.keep_alive = Duration::from_millis(100);
    let running = run(&config).await;
    let io = TokioIo::new(running.connect().await);
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let ended = tokio::spawn(connection);
    let waiting = client.send_request(get("http://a/when-let-go"));
    sleep(Duration::from_millis(400)).await;
    running.service.let_go.notify_one();
    assert_eq!(text(waiting.await.unwrap()).await, "gone");
    // With a GOAWAY, so without an error.
    timeout(PATIENCE, ended).await.unwrap().unwrap().unwrap();
    // One that never asks is not kept either.
    config.limits.head = Duration::from_millis(100);
    let running = run(&config).await;
    let mut raw = Raw::connect(&running).await;
    let (_, _, _, payload) = raw.frame_of(&[GOAWAY]).await;
    assert_eq!(payload[4..8], [0; 4]);
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A connection of HTTP/2 whose frames are written by hand.
struct Raw(TcpStream);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&len[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header as a literal with a new name, not indexed (RFC 7541, section 6.2.2).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let string = |text: &str| {
        let mut out = Vec::new();
        if text.len() < 127 {
            out.push(text.len() as u8);
        } else {
            out.push(127);
            let mut left = text.len() - 127;
            while left >= 128 {
                out.push((left % 128) as u8 | 128);
                left /= 128;
            }
            out.push(left as u8);
        }
        out.extend(text.as_bytes());
        out
    };
    [vec![0], string(name), string(value)].concat()
}

fn head(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let fixed = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    fixed.iter().chain(more).flat_map(|(name, value)| literal(name, value)).collect()
}

impl Raw {
    async fn connect(running: &Running) -> Self {
        let mut socket = running.connect().await;
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        socket.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Self(socket)
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.0.write_all(bytes)).await.expect("it is neither read nor ended")
    }

    async fn request(&mut self, stream: u32, more: &[(&str, &str)]) {
        self.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("/", more))).await.unwrap();
    }

    /// The next frame of one of these kinds.
    async fn frame_of(&mut self, kinds: &[u8]) -> (u8, u8, u32, Vec<u8>) {
        let reading = async {
            loop {
                let mut head = [0; 9];
                let read = self.0.read_exact(&mut head).await;
                read.unwrap_or_else(|error| panic!("no frame of {kinds:?}: {error}"));
                let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let mut payload = vec![0; len];
                self.0.read_exact(&mut payload).await.unwrap();
                if kinds.contains(&head[3]) {
                    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                    return (head[3], head[4], stream, payload);
                }
            }
        };
        timeout(PATIENCE, reading).await.expect("it never came")
    }

    /// Sends the same again and again, without reading, until the connection ends or so many bytes are taken.
    async fn flood(&mut self, piece: &[u8], most: usize) -> bool {
        let mut sent = 0;
        while sent < most {
            if self.send(piece).await.is_err() {
                return true;
            }
            sent += piece.len();
        }
        false
    }
}

/// Another visitor is served as if nothing were.
async fn others_are_served(running: &Running) {
    let mut client = connect(running).await;
    assert_eq!(text(client.send_request(get("http://a/ok")).await.unwrap()).await, "hello /ok");
}

#[tokio::test]
async fn a_client_that_resets_all_it_asks_for_is_ended() {
    let running = run(&config()).await;
    let mut raw = Raw::connect(&running).await;
    let mut ended = false;
    for number in 0..100_000_u32 {
        let stream = number * 2 + 1;
        let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("/never", &[]));
        bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        if raw.send(&bytes).await.is_err() {
            ended = true;
            break;
        }
        if number % 16 == 0 {
            // So that they are seen one by one, and not all as reset already.
            tokio::task::yield_now().await;
        }
    }
    assert!(ended);
    until(|| running.front.status().connections == 0).await;
    let asked = running.service.asked().len();
    assert!(asked < 2000, "{asked} requests reached the service");
    running.service.until_given_up(asked).await;
    others_are_served(&running).await;
}

#[tokio::test]
async fn a_client_that_gives_up_all_that_reached_the_service_is_ended() {
    let running = run(&config()).await;
    let mut raw = Raw::connect(&running).await;
    until(|| running.front.status().connections == 1).await;
    let mut count = 0;
    while running.front.status().refused.abandoned == 0 {
        let stream = count as u32 * 2 + 1;
        count += 1;
        assert!(count < 1000, "it may do so for ever");
        let _ = raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &head("/never", &[]))).await;
        let ended = || running.front.status().connections == 0;
        until(|| running.service.asked().len() == count || ended()).await;
        let _ = raw.send(&frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())).await;
        until(|| running.service.given_up.load(Ordering::SeqCst) == count || ended()).await;
    }
    // A page of images that is left at once is none of that.
    assert!(count > 100, "{count}");
    until(|| running.front.status().connections == 0).await;
    others_are_served(&running).await;
}

#[tokio::test]
async fn a_client_that_goes_on_with_headers_for_ever_is_ended() {
    let running = run(&config()).await;
    let mut raw = Raw::connect(&running).await;
    raw.send(&frame(HEADERS, END_STREAM, 1, &head("/", &[]))).await.unwrap();
    let piece = literal("x", &"y".repeat(1000));
    assert!(raw.flood(&frame(CONTINUATION, 0, 1, &piece), 64 << 20).await);
    // Empty ones too.
    let mut raw = Raw::connect(&running).await;
    raw.send(&frame(HEADERS, END_STREAM, 1, &head("/", &[]))).await.unwrap();
    assert!(raw.flood(&frame(CONTINUATION, 0, 1, &[]).repeat(100), 64 << 20).await);
    assert!(running.service.asked().is_empty());
    others_are_served(&running).await;
}

#[tokio::test]
async fn a_client_that_wants_answers_and_reads_none_is_ended() {
    let mut config = config();
    config.limits.silence = Duration::from_millis(500);
    let running = run(&config).await;
    for piece in [frame(PING, 0, 0, &[1; 8]), frame(SETTINGS, 0, 0, &[])] {
        let mut raw = Raw::connect(&running).await;
        assert!(raw.flood(&piece.repeat(1000), 256 << 20).await);
        until(|| running.front.status().connections == 0).await;
        others_are_served(&running).await;
    }
}

#[tokio::test]
async fn headers_that_are_none_of_http2_reach_nobody() {
    let running = run(&config()).await;
    for header in [
        ("transfer-encoding", "chunked"),
        ("connection", "close"),
        ("upgrade", "x"),
        ("keep-alive", "1"),
        ("te", "chunked"),
        ("X", "y"),
        ("x y", "z"),
        ("x", "a\r\nb: c"),
        (":path", "/other"),
        ("content-length", "5"),
        ("content-length", "x"),
    ] {
        let mut raw = Raw::connect(&running).await;
        raw.request(1, &[header]).await;
        // The stream alone, or the connection with it.
        let (kind, _, _, payload) = raw.frame_of(&[RST_STREAM, GOAWAY]).await;
        let reason = if kind == GOAWAY { &payload[4..8] } else { &payload[..] };
        assert_ne!(reason, [0; 4], "{header:?}");
    }
    // A stream's number that was used.
    let mut raw = Raw::connect(&running).await;
    raw.request(1, &[]).await;
    raw.frame_of(&[HEADERS]).await;
    raw.request(1, &[]).await;
    raw.frame_of(&[GOAWAY]).await;
    assert_eq!(running.service.asked(), ["GET /"]);
}
