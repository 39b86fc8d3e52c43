//! What becomes of messages, ends and resets, over streams in memory, tungstenite at the other end.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures::{SinkExt, StreamExt};
use tokio::io::{DuplexStream, ReadBuf, duplex};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role};

use super::*;
use crate::ws::{Copied, Messages, StreamToWs, WsConfig, WsError, WsToStream};

/// A stream that notes its reset.
pub(super) struct Noted {
    pub(super) io: DuplexStream,
    pub(super) reset: Arc<AtomicBool>,
}

impl AsyncRead for Noted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Noted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A mapping, the WebSocket at one side of it and the plain stream at the other.
struct Mapped {
    ws: WebSocketStream<DuplexStream>,
    plain: DuplexStream,
    reset: Arc<AtomicBool>,
    ended: JoinHandle<Result<Copied, WsError>>,
}

pub(super) const ROOM: usize = 16 * 1024;

/// A mapping whose WebSocket is at this end or that.
async fn mapped(role: Role, messages: Messages) -> Mapped {
    let (ours, theirs) = duplex(ROOM);
    let (plain, io) = duplex(ROOM);
    let reset = Arc::new(AtomicBool::new(false));
    let noted = Noted { io, reset: reset.clone() };
    let note = |noted: &Noted| noted.reset.store(true, Ordering::Relaxed);
    let config = WsConfig { messages, ..WsConfig::default() };
    let (ws, ended) = match role {
        Role::Client => {
            let mapping = WsToStream::over(theirs, noted).config(config).reset_by(note);
            let ended = tokio::spawn(mapping.copy_bidirectional());
            (tokio_tungstenite::client_async("ws://a.example/", ours).await.unwrap().0, ended)
        }
        Role::Server => {
            let mapping = StreamToWs::over(noted, theirs, "ws://a.example/").config(config).reset_by(note);
            let ended = tokio::spawn(mapping.copy_bidirectional());
            (tokio_tungstenite::accept_async(ours).await.unwrap(), ended)
        }
    };
    Mapped { ws, plain, reset, ended }
}

impl Mapped {
    /// The next message; none at the end.
    async fn next(&mut self) -> Option<Message> {
        timeout(LONG, self.ws.next()).await.unwrap().map(|message| message.unwrap())
    }

    async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut read = vec![0; count];
        timeout(LONG, self.plain.read_exact(&mut read)).await.unwrap().unwrap();
        read
    }

    /// Its end, and whether the plain side was reset.
    async fn end(self) -> (Result<Copied, WsError>, bool) {
        let Self { ended, reset, ws, plain } = self;
        drop((ws, plain));
        let ended = timeout(LONG, ended).await.unwrap().unwrap();
        (ended, reset.load(Ordering::Relaxed))
    }
}

fn code(message: Option<Message>) -> u16 {
    match message {
        Some(Message::Close(Some(close))) => close.code.into(),
        other => panic!("no Close with a code: {other:?}"),
    }
}

fn close(code: u16) -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::from(code), reason: "because".into() }))
}

const ROLES: [Role; 2] = [Role::Client, Role::Server];

#[tokio::test]
async fn text_and_binary_come_in_and_binary_goes_out() {
    for role in ROLES {
        let mut mapped = mapped(role, Messages::default()).await;
        mapped.ws.send(Message::text("text é ")).await.unwrap();
        mapped.ws.send(Message::binary(vec![])).await.unwrap();
        mapped.ws.send(Message::binary(vec![0xff, 0])).await.unwrap();
        assert_eq!(mapped.read(10).await, b"text \xc3\xa9 \xff\0");
        mapped.plain.write_all(b"answer").await.unwrap();
        assert_eq!(mapped.next().await, Some(Message::binary(&b"answer"[..])));
        mapped.ws.send(Message::Ping("x".into())).await.unwrap();
        assert_eq!(mapped.next().await, Some(Message::Pong("x".into())));

        mapped.plain.shutdown().await.unwrap();
        assert_eq!(code(mapped.next().await), 1000);
        // tungstenite has answered it, and the mapping ends in order.
        assert_eq!(mapped.next().await, None);
        assert_eq!(mapped.plain.read(&mut [0]).await.unwrap(), 0);
        let (ended, reset) = mapped.end().await;
        assert_eq!((ended.unwrap(), reset), (Copied { to_ws: 6, to_plain: 10 }, false));
    }
}

#[tokio::test]
async fn what_still_comes_behind_the_end_of_the_plain_side_is_delivered() {
    let (mut io, theirs) = duplex(ROOM);
    let (mut plain, behind) = duplex(ROOM);
    let mapping = tokio::spawn(WsToStream::over(theirs, behind).copy_bidirectional());
    upgrade(&mut io).await;
    plain.write_all(b"all").await.unwrap();
    plain.shutdown().await.unwrap();
    let mut frames = [0; 9];
    io.read_exact(&mut frames).await.unwrap();
    assert_eq!(&frames, b"\x82\x03all\x88\x02\x03\xe8");
    for _ in 0..3 {
        io.write_all(&frame(0x82, b"late")).await.unwrap();
        let mut read = [0; 4];
        timeout(LONG, plain.read_exact(&mut read)).await.unwrap().unwrap();
        assert_eq!(&read, b"late");
    }
    io.write_all(&frame(0x88, &1000u16.to_be_bytes())).await.unwrap();
    assert_eq!(timeout(LONG, plain.read(&mut [0])).await.unwrap().unwrap(), 0);
    assert_eq!(io.read(&mut [0]).await.unwrap(), 0);
    drop(io);
    assert_eq!(mapping.await.unwrap().unwrap(), Copied { to_ws: 3, to_plain: 12 });
}

#[tokio::test]
async fn a_close_in_order_is_the_end_and_another_is_a_reset() {
    for role in ROLES {
        for (sent, in_order) in [
            (Message::Close(None), true),
            (close(1000), true),
            (close(1001), true),
            (close(1002), false),
            (close(1011), false),
            (close(3000), false),
            (close(4999), false),
        ] {
            let mut mapped = mapped(role, Messages::default()).await;
            mapped.ws.send(Message::binary(&b"last"[..])).await.unwrap();
            mapped.ws.send(sent.clone()).await.unwrap();
            assert_eq!(mapped.read(4).await, b"last");
            if in_order {
                assert_eq!(timeout(LONG, mapped.plain.read(&mut [0])).await.unwrap().unwrap(), 0);
                mapped.plain.shutdown().await.unwrap();
            }
            // Answered with the same.
            assert_eq!(mapped.next().await, Some(sent.clone()), "{sent:?}");
            let (ended, reset) = mapped.end().await;
            assert_eq!((ended.is_ok(), reset), (in_order, !in_order), "{sent:?}: {ended:?}");
            if let Err(error) = ended {
                assert!(matches!(&error, WsError::Closed { reason, .. } if reason == "because"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn an_end_without_a_close_is_a_reset() {
    for role in ROLES {
        for plain_ended in [false, true] {
            let mut mapped = mapped(role, Messages::default()).await;
            if plain_ended {
                mapped.plain.shutdown().await.unwrap();
                // Not answered.
                timeout(LONG, mapped.ws.get_mut().read_u32()).await.unwrap().unwrap();
            }
            let (ended, reset) = mapped.end().await;
            assert!(matches!(ended, Err(WsError::Lost(_))) && reset, "{ended:?}");
        }
    }
}

#[tokio::test]
async fn a_plain_side_that_takes_nothing_more_is_told_with_1011() {
    for role in ROLES {
        let mut mapped = mapped(role, Messages::default()).await;
        let (gone, _) = duplex(1);
        drop(std::mem::replace(&mut mapped.plain, gone));
        // It has ended, and so there is a Close of its own first; what is sent meanwhile finds nobody.
        mapped.ws.send(Message::binary(vec![1; 100])).await.unwrap();
        assert_eq!(code(mapped.next().await), 1000);
        let (ended, reset) = mapped.end().await;
        assert!(matches!(ended, Err(WsError::Plain(_) | WsError::Lost(_))) && reset, "{ended:?}");
    }
}

#[tokio::test]
async fn text_goes_out_where_it_is_asked_for() {
    for role in ROLES {
        let messages = Messages { text: true, ..Messages::default() };
        let mut mapped = mapped(role, messages.clone()).await;
        for byte in "aé\u{10ffff}".as_bytes() {
            mapped.plain.write_all(&[*byte]).await.unwrap();
        }
        let mut joined = String::new();
        while joined.len() < 7 {
            match mapped.next().await {
                Some(Message::Text(text)) if !text.is_empty() => joined.push_str(&text),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(joined, "aé\u{10ffff}");
        mapped.plain.write_all(b"\xff").await.unwrap();
        assert_eq!(code(mapped.next().await), 1007);
        let (ended, reset) = mapped.end().await;
        assert!(matches!(ended, Err(WsError::NotText)) && reset, "{ended:?}");

        let mut mapped = super::copying::mapped(role, messages).await;
        mapped.plain.write_all(b"a\xc3").await.unwrap();
        assert_eq!(mapped.next().await, Some(Message::text("a")));
        mapped.plain.shutdown().await.unwrap();
        assert_eq!(code(mapped.next().await), 1007, "an end within a character");
        assert!(mapped.end().await.1);
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_by_a_ping() {
    for role in ROLES {
        let mut mapped_with = mapped(role, Messages::default()).await;
        for _ in 0..3 {
            let before = Instant::now();
            assert_eq!(mapped_with.next().await, Some(Message::Ping("".into())));
            let silence = before.elapsed();
            assert!((Duration::from_secs(10)..=Duration::from_secs(31)).contains(&silence), "{silence:?}");
        }
        let mut silent = mapped(role, Messages { ping_every: None, ..Messages::default() }).await;
        assert!(timeout(Duration::from_secs(3600), silent.ws.next()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_never_answered_has_its_time() {
    let mut mapped = mapped(Role::Client, Messages::default()).await;
    mapped.plain.shutdown().await.unwrap();
    let ended = timeout(Duration::from_secs(3 * 3600), &mut mapped.ended).await.unwrap().unwrap();
    assert!(matches!(ended, Err(WsError::Idle)), "{ended:?}");
    assert!(mapped.reset.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_writer() {
    for role in ROLES {
        let mut mapped = mapped(role, Messages::default()).await;
        // What is on its way, with room for the streams in between and one message on each side.
        let bound = 2 * ROOM + 4 * 64 * 1024;
        let mut written = 0;
        let piece = const { &[7; 1024] };
        while let Ok(result) = timeout(Duration::from_millis(200), mapped.plain.write_all(piece)).await {
            result.unwrap();
            written += piece.len();
            assert!(written <= bound, "{written} bytes wait for a WebSocket that nobody reads");
        }
        let mut fed = 0;
        while let Ok(result) =
            timeout(Duration::from_millis(200), mapped.ws.feed(Message::binary(&piece[..]))).await
        {
            result.unwrap();
            fed += piece.len();
            assert!(fed <= bound, "{fed} bytes wait for a plain stream that nobody reads");
        }
        // Both go on.
        let Mapped { ws, plain, ended, .. } = mapped;
        let (mut sink, mut stream) = ws.split();
        let (mut reader, mut writer) = tokio::io::split(plain);
        let from_ws = tokio::spawn(async move {
            let mut read = Vec::new();
            reader.read_to_end(&mut read).await.unwrap();
            read.len()
        });
        let flush = tokio::spawn(async move {
            sink.flush().await.unwrap();
            sink
        });
        let mut came = 0;
        while came < written {
            match timeout(LONG, stream.next()).await.unwrap().unwrap().unwrap() {
                Message::Binary(bytes) => came += bytes.len(),
                other => panic!("{other:?}"),
            }
        }
        let mut sink = timeout(LONG, flush).await.unwrap().unwrap();
        sink.send(Message::Close(None)).await.unwrap();
        let came_down = timeout(LONG, from_ws).await.unwrap().unwrap();
        writer.shutdown().await.unwrap();
        // The write that was given up may have gone in part.
        assert!((written..written + 1024).contains(&came) && (fed..=fed + 1024).contains(&came_down));
        drop((stream, sink));
        assert!(timeout(LONG, ended).await.unwrap().unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_dropped_mapping_resets_both() {
    let mut mapped = mapped(Role::Client, Messages::default()).await;
    mapped.ws.send(Message::text("there")).await.unwrap();
    assert_eq!(mapped.read(5).await, b"there");
    mapped.ended.abort();
    assert!(mapped.next_or_error().await);
    assert!(mapped.reset.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_mapping_that_is_dropped_or_fails_before_it_is_open_resets_the_plain_side() {
    for role in ROLES {
        for fails in [false, true] {
            let (mut ours, theirs) = duplex(ROOM);
            let (plain, io) = duplex(ROOM);
            let reset = Arc::new(AtomicBool::new(false));
            let noted = Noted { io, reset: reset.clone() };
            let note = |noted: &Noted| noted.reset.store(true, Ordering::Relaxed);
            let mapping = match role {
                Role::Client => {
                    tokio::spawn(WsToStream::over(theirs, noted).reset_by(note).copy_bidirectional())
                }
                Role::Server => tokio::spawn(
                    StreamToWs::over(noted, theirs, "ws://a.example/").reset_by(note).copy_bidirectional(),
                ),
            };
            match role {
                Role::Client => ours.write_all(b"GET / HTTP/1.1\r\nHost: a").await.unwrap(),
                Role::Server => _ = read_head(&mut ours).await,
            }
            assert!(!reset.load(Ordering::Relaxed));
            if fails {
                drop(ours);
            } else {
                mapping.abort();
            }
            assert!(timeout(LONG, mapping).await.unwrap().is_err_and(|gone| gone.is_cancelled()) != fails);
            assert!(reset.load(Ordering::Relaxed), "{role:?}, {fails}");
            drop(plain);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pings_without_a_pause_in_between_are_not_to_be_had() {
    for every in [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(999)] {
        let mut mapped =
            mapped(Role::Client, Messages { ping_every: Some(every), ..Messages::default() }).await;
        let began = Instant::now();
        for _ in 0..20 {
            assert_eq!(mapped.next().await, Some(Message::Ping("".into())));
        }
        assert!(began.elapsed() >= Duration::from_secs(9), "20 pings within {:?}", began.elapsed());
    }
}

impl Mapped {
    /// Whether the WebSocket ends without a Close.
    async fn next_or_error(&mut self) -> bool {
        matches!(timeout(LONG, self.ws.next()).await.unwrap(), Some(Err(_)) | None)
    }
}
