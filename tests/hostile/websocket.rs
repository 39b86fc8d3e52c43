//! Bad input over WebSocket, from strangers, from what answers in a server's place, and from the middle of tunnels that
//! live: the status or the Close code that is due, one sentence where there is a user, and sessions that notice nothing.
//! (That a tunnel's own packets are judged over it as over the others, the other files show.)

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use gkd_core::carrier::CarrierKind;
use gkd_core::carrier::ws::accept_of;
use gkd_core::carrier::ws::frame::{Decoder, End};
use gkd_core::identity::SecretKey;
use gkd_core::link::Link;
use gkd_core::{Client, ClientEvent, Server};
use gkd_proto::SessionConfig;
use gkd_proto::id::Side;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::peer::{At, echo_server, exchange};
use crate::support::{until, within};

/// A right request for a tunnel.
pub(crate) const ASKS: &str = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const MIB: usize = 1024 * 1024;

/// An honest client over two tunnels, in WebSockets, and that it is served.
async fn log_in(server: &Server) -> Client {
    let at = At::server(server, CarrierKind::Ws);
    let builder = Client::builder().address(at.address).server_key(at.key).carrier(at.kind);
    let client = within("log in", builder.key(SecretKey::generate()).tunnels(2).connect()).await.unwrap();
    until("both tunnels", || client.tunnels_up() == 2).await;
    client
}

/// What a stranger is answered who says this, up to the end.
async fn answer(at: At, said: &[u8]) -> String {
    let (mut reader, mut writer) = at.dial().await.into_split();
    let mut answer = Vec::new();
    let read = async {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut piece).await {
            answer.extend_from_slice(&piece[..count]);
        }
    };
    let write = async {
        // One that is refused in the middle takes no more.
        writer.write_all(said).await.ok();
    };
    within("the answer", async { tokio::join!(read, write) }).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_open_no_tunnel_get_their_status_and_disturb_nobody() {
    let server = echo_server(SessionConfig::default()).await;
    let client = log_in(&server).await;
    let at = At::server(&server, CarrierKind::Ws);
    let twice = |line: &str| ASKS.replacen(line, &format!("{line}{line}"), 1);
    let without = |line: &str| ASKS.replacen(line, "", 1);
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut requests = vec![
        (without("Host: a\r\n"), 400),
        (twice("Host: a\r\n"), 400),
        (without("Upgrade: websocket\r\n"), 426),
        (twice("Upgrade: websocket\r\n"), 426),
        (without("Connection: Upgrade\r\n"), 426),
        (without("Sec-WebSocket-Version: 13\r\n"), 426),
        (twice("Sec-WebSocket-Version: 13\r\n"), 426),
        (without(key), 400),
        (twice(key), 400),
        (ASKS.replacen("GET", "POST", 1), 400),
        (ASKS.replacen("\r\n\r\n", "\r\nContent-Length: 9\r\n\r\nsmuggled\n", 1), 400),
        (ASKS.replacen("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 1), 400),
        (ASKS.replacen(" HTTP/1.1\r\n", " HTTP/3.7\r\n", 1), 400),
        (ASKS.replacen("Host: a", "Host : a", 1), 400),
        (ASKS.replacen("Upgrade: websocket", "Upgrade: web\rsocket", 1), 400),
    ];
    for line in ["X: ", "X", ""] {
        let flood = format!("GET / HTTP/1.1\r\nHost: a\r\n{line}{}", "y".repeat(MIB));
        requests.push((flood, 431));
    }
    requests.push((format!("GET /{}", "y".repeat(MIB)), 414));
    let strangers = async {
        for (request, status) in &requests {
            // One that is kept waits for another request.
            let said = request.replacen("\r\n\r\n", "\r\nConnection: close\r\n\r\n", 1);
            let answer = answer(at, said.as_bytes()).await;
            // hyper calls any head that is too large so.
            let is_it = |status: u16| answer.starts_with(&format!("HTTP/1.1 {status} "));
            let shown = &request[..request.len().min(300)];
            assert!(is_it(*status) || *status == 414 && is_it(431), "{shown:?}\nis answered {answer}");
            assert!(!answer.contains("101") && !answer.to_lowercase().contains("gkd"), "{answer}");
        }
    };
    let exchanges = async {
        for _ in 0..4 {
            exchange(&client.get_connection().await.unwrap(), MIB).await;
        }
    };
    tokio::join!(strangers, exchanges);
    assert_eq!((client.tunnels_up(), server.stats().tunnels.used), (2, 2));
    until("no stranger is left", || server.stats().half_open.used + server.stats().visitors.used == 0).await;
}

/// Frames that break a rule, and the code that they are answered with. A client's have a mask that changes nothing.
fn bad_frames(from: Side) -> Vec<(Vec<u8>, u16)> {
    let frame = |first: u8, len: u8, payload: &[u8]| match from {
        Side::Client => [&[first, 0x80 | len][..], &[0; 4], payload].concat(),
        Side::Server => [&[first, len][..], payload].concat(),
    };
    let oversized = {
        let head = frame(0x82, 127, &[]);
        [&head[..2], &(16 * MIB as u64 + 1).to_be_bytes(), &head[2..]].concat()
    };
    let masked_or_not = match from {
        Side::Client => vec![0x82, 1, b'x'],
        Side::Server => vec![0x82, 0x81, 0, 0, 0, 0, b'x'],
    };
    vec![
        (masked_or_not, 1002),
        (frame(0xc2, 1, b"x"), 1002),
        (frame(0x83, 1, b"x"), 1002),
        (frame(0x8b, 0, b""), 1002),
        (frame(0x09, 0, b""), 1002),
        (frame(0x89, 126, b"\0\x7e"), 1002),
        (frame(0x80, 1, b"x"), 1002),
        (frame(0x81, 1, b"x"), 1003),
        (oversized, 1009),
        (frame(0x88, 1, b"x"), 1002),
        (frame(0x88, 2, &1006_u16.to_be_bytes()), 1002),
        (frame(0x88, 3, &[0x03, 0xe8, 0xff]), 1007),
    ]
}

/// A right answer to a request, where ACCEPT stands for that to its key.
const RIGHT: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: ACCEPT\r\n\r\n";

/// What answers in a server's place, with these words and bytes behind them; with which code it is closed then.
#[derive(Clone)]
struct Impostor {
    words: String,
    bytes: Vec<u8>,
}

impl Impostor {
    async fn start(self) -> (SocketAddr, UnboundedReceiver<Option<u16>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (told, codes) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (this, told) = (self.clone(), told.clone());
                tokio::spawn(async move { told.send(this.answer(tcp).await) });
            }
        });
        (address, codes)
    }

    async fn answer(self, mut tcp: TcpStream) -> Option<u16> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tcp.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let mut headers = head.lines().filter_map(|line| line.split_once(": "));
        let key = headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))?.1;
        let words = self.words.replace("ACCEPT", &accept_of(key));
        tcp.write_all(&[words.as_bytes(), &self.bytes].concat()).await.ok()?;
        let (mut came, mut piece) = (Vec::new(), [0; 4096]);
        while let Ok(count @ 1..) = tcp.read(&mut piece).await {
            came.extend_from_slice(&piece[..count]);
        }
        let mut decoder = Decoder::new(Side::Client);
        decoder.decode(&mut came);
        match decoder.end() {
            Some(End::Closed(code)) => code,
            _ => None,
        }
    }
}

/// Answers that make no tunnel, what the user is told of them, and the code of the Close, where a WebSocket was opened.
fn wrong_answers() -> Vec<(Impostor, String, Option<u16>)> {
    let mut wrong = Vec::new();
    for (words, told) in [
        (format!("\u{2}\u{5}hello{RIGHT}"), "does not answer in HTTP"),
        ("SSH-2.0-OpenSSH_9.9\r\n".to_owned(), "does not answer in HTTP"),
        (RIGHT.replace("ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "Sec-WebSocket-Accept"),
        (RIGHT.replace("\r\n\r\n", "\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n"), "Sec-WebSocket-Accept"),
        (RIGHT.replace("Upgrade: websocket\r\n", ""), "goes on with WebSocket"),
        (RIGHT.replace("Connection: Upgrade\r\n", ""), "goes on with WebSocket"),
        (
            RIGHT.replace("\r\n\r\n", &format!("\r\nX: {}\r\n\r\n", "y".repeat(MIB))),
            "does not answer in HTTP",
        ),
        (
            format!("HTTP/1.1 407 Proxy{}\r\n\r\n", "y".repeat(100)),
            "answered 407 Proxy Authentication Required",
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: https://b/\x07t\r\n\r\n".replace('\x07', "\t"),
            "to https://b/\\tt: write",
        ),
        ("HTTP/1.1 403 Forbidden\r\n\r\n".to_owned(), "answered 403 Forbidden"),
    ] {
        wrong.push((Impostor { words, bytes: Vec::new() }, told.to_owned(), None));
    }
    for (bytes, code) in bad_frames(Side::Server) {
        let impostor = Impostor { words: RIGHT.to_owned(), bytes };
        wrong.push((impostor, format!("the WebSocket was closed with code {code}: "), Some(code)));
    }
    let noise = [&[0x82, 20][..], b"this is no TLS at all"].concat();
    let gone = vec![0x88, 2, 0x03, 0xe9];
    for (bytes, told) in [(noise, "does not speak gkd"), (gone, "closed the connection")] {
        wrong.push((Impostor { words: RIGHT.to_owned(), bytes }, told.to_owned(), None));
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_answers_in_a_servers_place_is_told_in_a_sentence_and_another_way_carries_on() {
    let server = echo_server(SessionConfig::default()).await;
    let at = At::server(&server, CarrierKind::Ws);
    let link = |address: SocketAddr| {
        let addresses = vec![address.to_string().parse().unwrap()];
        Link { carrier: CarrierKind::Ws, ..Link::new(at.key, SecretKey::from_seed([7; 32]), addresses) }
    };
    for (impostor, told, code) in wrong_answers() {
        let said = [impostor.words.as_bytes(), &impostor.bytes].concat();
        let shown = said[..said.len().min(300)].escape_ascii().to_string();
        let (address, mut codes) = impostor.start().await;
        let builder = Client::builder().link(&link(at.address)).link(&link(address)).tunnels(1);
        let client = builder.start().unwrap();
        let mut events = client.events();
        let error = within("it is told", async {
            loop {
                if let ClientEvent::DialFailed { error, .. } = events.recv().await.unwrap() {
                    return error;
                }
            }
        });
        let error = error.await;
        let words = error.to_string();
        assert!(words.contains(&told) && !error.is_final(), "{shown}\nis told as {words:?}\nnot as {told:?}");
        assert!(words.len() < 400 && !words.contains(char::is_control), "{shown}\nis told as {words:?}");
        if code.is_some() {
            assert_eq!(within("its close", codes.recv()).await.unwrap(), code, "{shown}");
        }
        until("the other way's tunnel", || client.tunnels_up() == 1).await;
        exchange(&client.get_connection().await.unwrap(), 10_000).await;
        client.close().await;
    }
}

/// What has passed of a tunnel when a frame is put into it: the handshake is long over.
const PASSED: usize = 200_000;

/// Puts a bad frame between those of each connection that has carried enough, while there are any.
struct Injector {
    bad: Mutex<VecDeque<(Side, Vec<u8>)>>,
}

impl Injector {
    async fn start(to: SocketAddr) -> (SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sides = [Side::Client, Side::Server];
        let bad =
            sides.into_iter().flat_map(|from| bad_frames(from).into_iter().map(move |(bad, _)| (from, bad)));
        let injector = Arc::new(Self { bad: Mutex::new(bad.collect()) });
        let relaying = injector.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(relaying.clone().relay(near, to));
            }
        });
        (address, injector)
    }

    async fn relay(self: Arc<Self>, near: TcpStream, to: SocketAddr) {
        let Ok(far) = TcpStream::connect(to).await else { return };
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        let ((near_r, near_w), (far_r, far_w)) = (near.into_split(), far.into_split());
        // One frame for each connection, and both directions to their ends: who was sent it has a last word.
        let injected = AtomicBool::new(false);
        let there = self.pass(Side::Client, &injected, near_r, far_w);
        tokio::join!(there, self.pass(Side::Server, &injected, far_r, near_w));
    }

    /// Passes on what this side says, frame by frame.
    async fn pass(
        &self,
        from: Side,
        injected: &AtomicBool,
        mut reader: impl AsyncRead + Unpin,
        mut writer: impl AsyncWrite + Unpin,
    ) -> Option<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(reader.read_u8().await.ok()?);
        }
        writer.write_all(&head).await.ok()?;
        let mut passed = 0;
        loop {
            let mut frame = vec![0; 2];
            reader.read_exact(&mut frame).await.ok()?;
            let extended = [0, 2, 8][usize::from((frame[1] & 0x7f).saturating_sub(125))];
            let mask = if frame[1] & 0x80 == 0 { 0 } else { 4 };
            frame.resize(2 + extended + mask, 0);
            reader.read_exact(&mut frame[2..]).await.ok()?;
            let len = match extended {
                0 => usize::from(frame[1] & 0x7f),
                _ => frame[2..2 + extended].iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
            };
            let head = frame.len();
            frame.resize(head + len, 0);
            reader.read_exact(&mut frame[head..]).await.ok()?;
            writer.write_all(&frame).await.ok()?;
            passed += frame.len();
            if passed > PASSED
                && !injected.load(Ordering::Relaxed)
                && let Some(bad) = self.next(from)
            {
                injected.store(true, Ordering::Relaxed);
                writer.write_all(&bad).await.ok()?;
            }
        }
    }

    /// The next frame, if it is one of this side.
    fn next(&self, from: Side) -> Option<Vec<u8>> {
        let mut bad = self.bad.lock().unwrap();
        bad.pop_front_if(|(side, _)| *side == from).map(|(_, bad)| bad)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_within_living_tunnels_end_those_and_cost_no_byte() {
    let server = echo_server(SessionConfig::default()).await;
    let beside = log_in(&server).await;
    let at = At::server(&server, CarrierKind::Ws);
    let (address, injector) = Injector::start(at.address).await;
    let builder = Client::builder().address(address).server_key(at.key).carrier(at.kind);
    let client = within("log in", builder.key(SecretKey::generate()).tunnels(2).connect()).await.unwrap();
    let left = || injector.bad.lock().unwrap().len();
    let frames = left();
    // As long as frames are left, and no longer than each needs in the worst case.
    for _ in 0..4 * frames {
        if left() == 0 {
            break;
        }
        exchange(&client.get_connection().await.unwrap(), MIB).await;
    }
    assert_eq!(left(), 0, "every frame was sent in time");
    let lost = || client.stats().tunnels_lost as usize;
    until("the harmed tunnels ended", || lost() >= frames).await;
    println!("{frames} bad frames, {} tunnels lost, {} packets sent again", lost(), client.stats().resent);
    assert_eq!(lost(), frames, "one for each frame");
    until("both tunnels again", || client.tunnels_up() == 2).await;
    exchange(&beside.get_connection().await.unwrap(), MIB).await;
    assert_eq!(beside.stats().tunnels_lost, 0);
    assert!(client.close().await && beside.close().await);
}
