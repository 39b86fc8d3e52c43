//! Carries bytes between a WebSocket and a plain stream ([`Copying`]): what becomes of what stands in the table of
//! [`ws`](super).
//!
//! ```text
//!                    up: plain to WebSocket            down: WebSocket to plain
//!   Carries          messages                          bytes
//!     plain ends     > Ends: Close is written          > goes on
//!     Close comes    > goes on                         > Ends: the plain side's end, > Ended
//!     write fails    > Broken: what still comes tells why
//!   Ends             > Ended: nothing is said more
//! ```
//! It is over in order when both have ended; any failure ends it at once. Behind the other end's Close nothing more is read of
//! the WebSocket: that one is gone shows when a message or a ping finds nobody, and ends what goes up in silence.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use gkd_core::carrier::ws::NotUtf8;
use gkd_core::carrier::ws::frame::{ControlPayload, End, Opcode, Violation, code};
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::frames::{ReadSize, WebSocket};
use super::side::{Side, finish};
use super::text::Cutter;
use super::{Messages, PING_LEAST, WsError};

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
    ws: WebSocket<W>,
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
    size: ReadSize,
    text: Option<Cutter>,
    count: u64,
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
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DownStage {
    Carries,
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
        ws: WebSocket<W>,
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
                size: ReadSize::LEAST,
                text: messages.text.then(Cutter::default),
                count: 0,
            },
            down: Down { stage: DownStage::Carries, bytes: first, count: 0, unflushed: false },
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
        // A program that still sends to one that is gone has been told the end; it gets a moment to take it.
        let (_, ended) = tokio::join!(finish(self.ws.io_mut()), async {
            self.plain_ended || finish(&mut self.plain).await
        });
        if !ended {
            self.plain.reset();
        }
    }

    /// Something failed: the plain side is reset, and the WebSocket is told why, where it can be.
    async fn fail(&mut self, error: &WsError) {
        self.plain.reset();
        let close = match (error, self.ws.end()) {
            (WsError::Protocol(_) | WsError::BadText, Some(End::Broken(violation))) => {
                ControlPayload::of_close_because(violation.code(), reason(error))
            }
            (WsError::NotText, _) => ControlPayload::of_close_because(code::NOT_UTF8, reason(error)),
            (WsError::Plain(_), _) => ControlPayload::of_close_because(code::UNEXPECTED, reason(error)),
            (WsError::Closed { .. }, _) => self.answer(),
            _ => return self.ws.io().reset(),
        };
        // Without effect where one was said before.
        self.ws.close(close);
        let told = poll_fn(|cx| self.ws.poll_flush(cx));
        // One that takes nothing any more is told nothing.
        if matches!(timeout(CLOSE_FOR, told).await, Ok(Ok(()))) && finish(self.ws.io_mut()).await {
            return;
        }
        self.ws.io().reset();
    }

    /// The Close that this end says when all is well: the other end's own, where that was first (section 5.5.1).
    fn answer(&self) -> ControlPayload {
        self.ws.close_heard().copied().unwrap_or_else(|| ControlPayload::of_close(code::NORMAL))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        self.down_first = !self.down_first;
        let (up, down) = if self.down_first {
            let down = self.poll_down(cx);
            (self.poll_up(cx), down)
        } else {
            (self.poll_up(cx), self.poll_down(cx))
        };
        if let (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) = (up, down) {
            return Poll::Ready(Err(error));
        }
        // The last message, and answers to pings.
        let _ = self.poll_flush_up(cx);
        if !self.is_over() {
            if let Poll::Ready(error) = self.poll_lost(cx) {
                return Poll::Ready(Err(error));
            }
            if let Poll::Ready(error) = self.poll_silence(cx) {
                return Poll::Ready(Err(error));
            }
        }
        if self.is_over() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Whether both directions have ended.
    fn is_over(&self) -> bool {
        self.down.stage == DownStage::Ended && matches!(self.up.stage, UpStage::Ended | UpStage::Broken(_))
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        while let UpStage::Carries = self.up.stage {
            let budget = ready!(coop::poll_proceed(cx));
            // While a message waits nothing more is read.
            if let Err(error) = ready!(self.ws.poll_ready(cx)) {
                self.up.stage = UpStage::Broken(error);
                break;
            }
            let read = ready!(self.up.size.poll_read(&mut self.plain, cx)).map_err(WsError::Plain)?;
            budget.made_progress();
            self.send(&read)?;
        }
        self.poll_flush_up(cx).map(Ok)
    }

    /// Sends what was read of the plain side; nothing is its end.
    fn send(&mut self, read: &[u8]) -> Result<(), WsError> {
        match &mut self.up.text {
            _ if read.is_empty() => {
                self.plain_ended = true;
                self.up.text.as_ref().map_or(Ok(()), Cutter::end)?;
                self.ws.close(self.answer());
                self.up.stage = UpStage::Ends;
            }
            Some(cutter) => {
                if let Some(piece) = cutter.cut(read)? {
                    self.ws.put(Opcode::Text, piece.parts());
                }
            }
            None => self.ws.put(Opcode::Binary, [read, &[]]),
        }
        self.up.count += read.len() as u64;
        Ok(())
    }

    /// Puts on its way what waits to be written. Ready when it is, or cannot be.
    fn poll_flush_up(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let UpStage::Broken(_) = self.up.stage {
            return Poll::Ready(());
        }
        match (ready!(self.ws.poll_flush(cx)), &self.up.stage) {
            (Err(error), _) => self.up.stage = UpStage::Broken(error),
            // With the Close.
            (Ok(()), UpStage::Ends) => self.up.stage = UpStage::Ended,
            _ => {}
        }
        Poll::Ready(())
    }

    fn poll_down(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WsError>> {
        loop {
            // What breaks the protocol is told even while the plain side takes nothing.
            if let (DownStage::Carries, Some(End::Broken(violation))) = (self.down.stage, self.ws.end()) {
                return Poll::Ready(Err(violation.into()));
            }
            ready!(self.poll_write(cx)).map_err(WsError::Plain)?;
            match self.down.stage {
                DownStage::Carries => {
                    if let Some(End::Closed(code)) = self.ws.end() {
                        self.take_close(code)?;
                        continue;
                    }
                    let budget = ready!(coop::poll_proceed(cx));
                    let Poll::Ready(came) = self.ws.poll_read(cx) else {
                        return self.poll_flush_down(cx);
                    };
                    budget.made_progress();
                    match came {
                        Ok(Some(bytes)) => self.down.bytes = bytes,
                        Ok(None) => return Poll::Ready(Err(self.lost(io::ErrorKind::UnexpectedEof.into()))),
                        Err(error) => return Poll::Ready(Err(self.lost(error))),
                    }
                }
                DownStage::Ends => {
                    ready!(Pin::new(&mut self.plain).poll_shutdown(cx)).map_err(WsError::Plain)?;
                    self.down.stage = DownStage::Ended;
                }
                DownStage::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Takes the other end's Close. It is answered when the plain side has ended as well (section 5.5.1 lets it wait).
    fn take_close(&mut self, code: Option<u16>) -> Result<(), WsError> {
        match code {
            None | Some(code::NORMAL | code::AWAY) => {
                self.down.stage = DownStage::Ends;
                Ok(())
            }
            Some(code) => {
                let reason = self.ws.close_heard().and_then(|close| close.bytes().get(size_of::<u16>()..));
                let reason = String::from_utf8_lossy(reason.unwrap_or_default()).into_owned();
                Err(WsError::Closed { code, reason })
            }
        }
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
        let plain_rests = !matches!(self.up.stage, UpStage::Carries) || self.ws.is_writing();
        if let (true, Some(lost)) = (plain_rests, &mut self.plain_lost)
            && let Poll::Ready(error) = lost.as_mut().poll(cx)
        {
            return Poll::Ready(WsError::Plain(error));
        }
        let ws_rests = self.down.stage != DownStage::Carries || !self.down.bytes.is_empty();
        if let (true, Some(lost)) = (ws_rests, &mut self.ws_lost)
            && let Poll::Ready(error) = lost.as_mut().poll(cx)
        {
            self.ws_lost = None;
            if self.down.stage == DownStage::Carries {
                return Poll::Ready(self.lost(error));
            }
            // It had closed in order, and takes no more: a reset of the plain side would lose what it has not read.
            self.up.stage = UpStage::Broken(error);
        }
        Poll::Pending
    }

    /// Breaks the silence of a WebSocket, and ends the one behind the end of a direction.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<WsError> {
        let moved = self.up.count + self.down.count + self.ws.heard();
        let carries = matches!(self.up.stage, UpStage::Carries);
        if !carries || self.down.stage != DownStage::Carries {
            let time = self.half_closed_for;
            let silence = self.half_closed.get_or_insert_with(|| Silence::new(time, moved));
            if silence.poll(cx, moved).is_ready() {
                return Poll::Ready(WsError::Idle);
            }
        }
        let Some(every) = self.messages.ping_every.filter(|_| carries) else { return Poll::Pending };
        // A half of it, so that no silence is longer than the whole.
        let ping = self.ping.get_or_insert_with(|| Silence::new(every.max(PING_LEAST) / 2, moved));
        let mut pings = false;
        while ping.poll(cx, moved).is_ready() {
            pings = true;
        }
        // One that takes nothing is not silent.
        if pings && matches!(self.ws.poll_ready(cx), Poll::Ready(Ok(()))) {
            self.ws.put(Opcode::Ping, [&[], &[]]);
            let _ = self.poll_flush_up(cx);
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
}

impl<W: Side, P: Side> Drop for Copying<'_, W, P> {
    fn drop(&mut self) {
        if !self.ended {
            self.plain.reset();
            self.ws.io().reset();
        }
    }
}

impl From<NotUtf8> for WsError {
    fn from(_: NotUtf8) -> Self {
        Self::NotText
    }
}

impl From<Violation> for WsError {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::NotUtf8 => Self::BadText,
            other => Self::Protocol(other.to_string()),
        }
    }
}

/// The words of a Close, which has room for 123 bytes: what the other end can do something about.
fn reason(error: &WsError) -> &'static str {
    match error {
        WsError::Protocol(_) => "a frame breaks the protocol",
        WsError::BadText => "text that is no UTF-8",
        WsError::NotText => "the plain stream is no UTF-8",
        _ => "the plain stream was reset",
    }
}
