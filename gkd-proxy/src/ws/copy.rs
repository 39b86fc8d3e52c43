//! Carries bytes between a WebSocket and a plain stream ([`Copying`]): what becomes of what stands in the table of
//! [`ws`](super).
//!
//! ```text
//!                    up: plain to WebSocket            down: WebSocket to plain
//!   Carries          messages                          bytes
//!     plain ends     > Ends: Close 1000 is written     > goes on
//!     Close comes    > Ended: nothing is taken more    > Answers: Close is written, > Ends: the plain side's end
//!     write fails    > Broken: what still comes tells why
//! ```
//! It is over in order when both have ended; any failure ends it at once.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use futures::{SinkExt, StreamExt};
use gkd_core::buffers;
use tokio::io::ReadBuf;
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tokio_util::io::poll_read_buf;

use super::side::{Side, finish};
use super::text::{Cutter, NotText};
use super::{Messages, WsError};

/// The first read of the plain side, and the least: what a keystroke or a request fills. It goes by way of the stack.
const MIN_READ: usize = 16 * 1024;

/// The largest read, which becomes one message.
pub(super) const MAX_READ: usize = 64 * 1024;

/// How long a last Close may wait for its way out.
const CLOSE_FOR: Duration = Duration::from_secs(2);

/// What a mapping carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes from the plain side that became messages.
    pub to_ws: u64,
    /// Bytes of messages that the plain side took.
    pub to_plain: u64,
}

/// Waits for the reset of a side that is not being read, where that can be told.
pub(crate) type Watch<'a> = Pin<Box<dyn Future<Output = io::Error> + Send + 'a>>;

/// A mapping that runs; its drop resets both sides unless it has ended.
pub(super) struct Copying<'a, W: Side, P: Side> {
    ws: WebSocketStream<W>,
    plain: P,
    messages: &'a Messages,
    half_closed_for: Duration,
    ws_lost: Option<Watch<'a>>,
    plain_lost: Option<Watch<'a>>,
    up: Up,
    down: Down,
    /// The halves take turns to go first, for the first may use up what the task has of time.
    down_first: bool,
    ping: Option<Silence>,
    half_closed: Option<Silence>,
    /// The end of the plain side was read.
    plain_ended: bool,
    ended: bool,
}

/// From the plain side to the WebSocket.
struct Up {
    stage: UpStage,
    /// How much is read next.
    size: usize,
    text: Option<Cutter>,
    count: u64,
    /// Messages were written that may not be on their way.
    unflushed: bool,
}

enum UpStage {
    Carries,
    Ends,
    Ended,
    Broken(io::Error),
}

/// From the WebSocket to the plain side.
struct Down {
    stage: DownStage,
    /// What was read and the plain side has not taken.
    bytes: Bytes,
    count: u64,
    unflushed: bool,
    /// Messages of all kinds that came.
    heard: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DownStage {
    Carries,
    Answers,
    Ends,
    Ended,
}

/// A time in which nothing moved.
struct Silence {
    time: Duration,
    sleep: Pin<Box<Sleep>>,
    /// What had moved when it began.
    moved: u64,
}

impl Silence {
    fn new(time: Duration, moved: u64) -> Self {
        Self { time, sleep: Box::pin(sleep(time)), moved }
    }

    /// Ready when nothing has moved for the whole time; the next then begins.
    fn poll(&mut self, cx: &mut Context<'_>, moved: u64) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            self.sleep.as_mut().reset(Instant::now() + self.time);
            if std::mem::replace(&mut self.moved, moved) == moved {
                return Poll::Ready(());
            }
        }
    }
}

impl<'a, W: Side, P: Side> Copying<'a, W, P> {
    /// Between these two; `first` goes to the plain side ahead of what the WebSocket sends.
    pub(super) fn new(
        ws: WebSocketStream<W>,
        plain: P,
        first: Bytes,
        messages: &'a Messages,
        half_closed_for: Duration,
    ) -> Self {
        Self {
            ws,
            plain,
            messages,
            half_closed_for,
            ws_lost: None,
            plain_lost: None,
            up: Up {
                stage: UpStage::Carries,
                size: MIN_READ,
                text: messages.text.then(Cutter::default),
                count: 0,
                unflushed: false,
            },
            down: Down { stage: DownStage::Carries, bytes: first, count: 0, unflushed: false, heard: 0 },
            down_first: false,
            ping: None,
            half_closed: None,
            plain_ended: false,
            ended: false,
        }
    }

    /// With what waits for the reset of either side.
    pub(super) fn watching(mut self, ws: Option<Watch<'a>>, plain: Option<Watch<'a>>) -> Self {
        (self.ws_lost, self.plain_lost) = (ws, plain);
        self
    }

    /// Carries until both directions have ended, or something fails. Then the sides can be dropped.
    pub(super) async fn run(mut self) -> Result<Copied, WsError> {
        let ended = poll_fn(|cx| self.poll(cx)).await;
        let copied = Copied { to_ws: self.up.count, to_plain: self.down.count };
        match ended {
            Ok(()) => self.close().await,
            Err(error) => {
                self.fail(&error).await;
                self.ended = true;
                tracing::debug!("a WebSocket mapping ended: {error}");
                return Err(error);
            }
        }
        self.ended = true;
        Ok(copied)
    }

    /// Both directions have ended.
    async fn close(&mut self) {
        // A program that still sends has been told the end; it gets a moment to take it.
        let (_, ended) = tokio::join!(finish(self.ws.get_mut()), async {
            self.plain_ended || finish(&mut self.plain).await
        });
        if !ended {
            self.plain.reset();
        }
    }

    /// Something failed: the plain side is reset, and the WebSocket is told why, where it can be.
    async fn fail(&mut self, error: &WsError) {
        self.plain.reset();
        let close = match error {
            WsError::Protocol(_) => Some(CloseCode::Protocol),
            WsError::BadText | WsError::NotText => Some(CloseCode::Invalid),
            WsError::TooLong => Some(CloseCode::Size),
            WsError::Plain(_) => Some(CloseCode::Error),
            // Its answer is queued.
            WsError::Closed { .. } => None,
            _ => return self.ws.get_ref().reset(),
        };
        let told = async {
            if let Some(code) = close {
                let reason = Utf8Bytes::from(reason(error));
                // It fails where a Close was sent before.
                let _ = self.ws.send(Message::Close(Some(CloseFrame { code, reason }))).await;
            }
            self.ws.flush().await
        };
        // One that takes nothing any more is told nothing.
        if matches!(timeout(CLOSE_FOR, told).await, Ok(Ok(()))) && finish(self.ws.get_mut()).await {
            return;
        }
        self.ws.get_ref().reset();
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        self.down_first = !self.down_first;
        let (up, down) = if self.down_first {
            let down = self.poll_down(cx);
            (self.poll_up(cx), down)
        } else {
            (self.poll_up(cx), self.poll_down(cx))
        };
        match (up, down) {
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            // What comes down ends with the other end's Close, and that ends what goes up as well.
            (_, Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => match self.poll_lost(cx) {
                Poll::Ready(error) => Poll::Ready(Err(error)),
                Poll::Pending => self.poll_silence(cx).map(Err),
            },
        }
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        while let UpStage::Carries = self.up.stage {
            let budget = ready!(coop::poll_proceed(cx));
            // While a message waits nothing more is read.
            if let Err(error) = ready!(self.ws.poll_ready_unpin(cx)) {
                self.up.stage = UpStage::Broken(error_of(error));
                break;
            }
            let read = match poll_read(&mut self.plain, cx, self.up.size) {
                Poll::Ready(read) => read.map_err(WsError::Plain)?,
                // The next message would have flushed those before it.
                Poll::Pending => return self.poll_flush_up(cx),
            };
            budget.made_progress();
            self.up.size = if read.len() >= self.up.size { MAX_READ } else { MIN_READ };
            self.send(read)?;
        }
        if let UpStage::Ends = self.up.stage {
            ready!(self.poll_flush_up(cx))?;
            self.up.stage = UpStage::Ended;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what was read of the plain side; nothing is its end.
    fn send(&mut self, read: Bytes) -> Result<(), WsError> {
        let count = read.len() as u64;
        let message = match &mut self.up.text {
            _ if read.is_empty() => {
                self.plain_ended = true;
                self.up.text.as_ref().map_or(Ok(()), Cutter::end)?;
                self.up.stage = UpStage::Ends;
                Some(Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })))
            }
            Some(cutter) => cutter.cut(read)?.map(Message::Text),
            None => Some(Message::Binary(read)),
        };
        if let Some(message) = message {
            self.up.unflushed = true;
            if let Err(error) = self.ws.start_send_unpin(message) {
                self.up.stage = UpStage::Broken(error_of(error));
                return Ok(());
            }
        }
        self.up.count += count;
        Ok(())
    }

    /// Puts on their way what was sent. Ready when they are, or cannot be.
    fn poll_flush_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        if self.up.unflushed {
            if let Err(error) = ready!(self.ws.poll_flush_unpin(cx)) {
                self.up.stage = UpStage::Broken(error_of(error));
            }
            self.up.unflushed = false;
        }
        match self.up.stage {
            UpStage::Carries => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        loop {
            ready!(self.poll_write(cx)).map_err(WsError::Plain)?;
            match self.down.stage {
                DownStage::Carries => {
                    let budget = ready!(coop::poll_proceed(cx));
                    let Poll::Ready(came) = self.ws.poll_next_unpin(cx) else {
                        return self.poll_flush_down(cx);
                    };
                    budget.made_progress();
                    match came {
                        Some(Ok(message)) => self.take(message)?,
                        Some(Err(error)) => return Poll::Ready(Err(self.failure(error))),
                        None => return Poll::Ready(Err(self.lost(io::ErrorKind::UnexpectedEof.into()))),
                    }
                }
                DownStage::Answers => {
                    // Where it cannot be answered any more, the other end does not wait for it.
                    let _ = ready!(self.ws.poll_flush_unpin(cx));
                    self.down.stage = DownStage::Ends;
                }
                DownStage::Ends => {
                    ready!(Pin::new(&mut self.plain).poll_shutdown(cx)).map_err(WsError::Plain)?;
                    self.down.stage = DownStage::Ended;
                }
                DownStage::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Takes one message.
    fn take(&mut self, message: Message) -> Result<(), WsError> {
        match message {
            Message::Text(text) => self.down.bytes = text.into(),
            Message::Binary(bytes) => self.down.bytes = bytes,
            Message::Ping(_) => {}
            // It does not count as something that moved, for it answers what was sent because nothing did.
            Message::Pong(_) | Message::Frame(_) => return Ok(()),
            Message::Close(close) => {
                let (code, reason) =
                    close.map_or((CloseCode::Status, String::new()), |it| (it.code, it.reason.to_string()));
                if !matches!(code, CloseCode::Normal | CloseCode::Away | CloseCode::Status) {
                    return Err(WsError::Closed { code: code.into(), reason });
                }
                self.down.stage = DownStage::Answers;
                // Nothing may follow the answer.
                self.up.stage = UpStage::Ended;
            }
        }
        self.down.heard += 1;
        Ok(())
    }

    /// Writes to the plain side what was read.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.down.bytes.is_empty() {
            let written = ready!(Pin::new(&mut self.plain).poll_write(cx, &self.down.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.down.bytes.advance(written);
            self.down.count += written as u64;
            self.down.unflushed = true;
        }
        // One that waits keeps no memory for the next.
        self.down.bytes = Bytes::new();
        Poll::Ready(Ok(()))
    }

    /// Puts on its way what was written, while nothing more comes.
    fn poll_flush_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        if self.down.unflushed {
            ready!(Pin::new(&mut self.plain).poll_flush(cx)).map_err(WsError::Plain)?;
            self.down.unflushed = false;
        }
        Poll::Pending
    }

    /// Looks for the reset of a side that is not being read; otherwise the read finds it, behind what arrived before it.
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<WsError> {
        // A message waits, or there is no more to be read.
        let plain_rests = !matches!(self.up.stage, UpStage::Carries) || self.up.unflushed;
        if let (true, Some(lost)) = (plain_rests, &mut self.plain_lost)
            && let Poll::Ready(error) = lost.as_mut().poll(cx)
        {
            return Poll::Ready(WsError::Plain(error));
        }
        if let (false, Some(lost)) = (self.down.bytes.is_empty(), &mut self.ws_lost)
            && let Poll::Ready(error) = lost.as_mut().poll(cx)
        {
            return Poll::Ready(self.lost(error));
        }
        Poll::Pending
    }

    /// Breaks the silence of a WebSocket, and ends the one behind the end of a direction.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<WsError> {
        let moved = self.up.count + self.down.count + self.down.heard;
        if !matches!(self.up.stage, UpStage::Carries) {
            let time = self.half_closed_for;
            let silence = self.half_closed.get_or_insert_with(|| Silence::new(time, moved));
            return silence.poll(cx, moved).map(|()| WsError::Idle);
        }
        let Some(every) = self.messages.ping_every else { return Poll::Pending };
        // A half of it, so that no silence is longer than the whole.
        let ping = self.ping.get_or_insert_with(|| Silence::new(every / 2, moved));
        while ping.poll(cx, moved).is_ready() {
            // One that takes nothing is not silent.
            if let Poll::Ready(Ok(())) = self.ws.poll_ready_unpin(cx) {
                // What fails shows at the next message.
                let _ = self.ws.start_send_unpin(Message::Ping(Bytes::new()));
                let _ = self.ws.poll_flush_unpin(cx);
            }
        }
        Poll::Pending
    }

    /// What the WebSocket's end without a Close is.
    fn lost(&mut self, error: io::Error) -> WsError {
        // The write that failed first says more than an end.
        match std::mem::replace(&mut self.up.stage, UpStage::Ended) {
            UpStage::Broken(first) => WsError::Lost(first),
            _ => WsError::Lost(error),
        }
    }

    /// What a failed read of the WebSocket is.
    fn failure(&mut self, error: tungstenite::Error) -> WsError {
        use tungstenite::error::ProtocolError;
        match error {
            tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                self.lost(io::ErrorKind::UnexpectedEof.into())
            }
            tungstenite::Error::Protocol(error) => WsError::Protocol(error.to_string()),
            tungstenite::Error::Utf8(_) => WsError::BadText,
            tungstenite::Error::Capacity(_) => WsError::TooLong,
            other => self.lost(error_of(other)),
        }
    }
}

impl<W: Side, P: Side> Drop for Copying<'_, W, P> {
    fn drop(&mut self) {
        if !self.ended {
            self.plain.reset();
            self.ws.get_ref().reset();
        }
    }
}

impl From<NotText> for WsError {
    fn from(_: NotText) -> Self {
        Self::NotText
    }
}

/// The words of a Close, which has room for 123 bytes: what the other end can do something about.
fn reason(error: &WsError) -> &'static str {
    match error {
        WsError::Protocol(_) => "a frame breaks the protocol",
        WsError::BadText => "text that is no UTF-8",
        WsError::NotText => "the plain stream is no UTF-8",
        WsError::TooLong => "a message above 16 MiB",
        _ => "the plain stream was reset",
    }
}

fn error_of(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        other => io::Error::other(other),
    }
}

/// Reads so many bytes at the most; empty at the end. While there is nothing, no buffer is held.
fn poll_read(plain: &mut impl Side, cx: &mut Context<'_>, size: usize) -> Poll<io::Result<Bytes>> {
    if size <= MIN_READ {
        let mut little = [MaybeUninit::uninit(); MIN_READ];
        let mut little = ReadBuf::uninit(&mut little);
        ready!(Pin::new(plain).poll_read(cx, &mut little))?;
        return Poll::Ready(Ok(Bytes::copy_from_slice(little.filled())));
    }
    let mut buffer = buffers::take(size);
    let whole = buffer.capacity();
    let result = poll_read_buf(Pin::new(plain), cx, &mut (&mut buffer).limit(size));
    // It is copied into a frame at once, and free again then.
    let read = buffer.split().freeze();
    buffers::give_back(buffer, whole);
    result.map_ok(|_| read)
}
