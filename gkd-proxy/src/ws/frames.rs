//! A WebSocket over a stream, behind the opening handshake ([`WebSocket`]): frames are taken apart and made, by the codec of
//! `gkd-core`. What they mean to the plain side is [`copy`](super::copy)'s affair.
//!
//! No message is held. What came in one read is handed on as it is, and one frame at the most waits to be written; an
//! idle WebSocket holds no buffer at all.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use gkd_core::buffers;
use gkd_core::carrier::ws::frame::{
    ControlPayload, Decoder, End, HEAD_MAX, Head, LENGTH_MAX, Opcode, copy_masked, random_mask,
};
use gkd_core::proto::id::Side as Role;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::side::Side;

/// The first read of a side, and the least: what a keystroke or a request fills. It goes by way of the stack.
const MIN_READ: usize = 16 * 1024;

/// The largest buffers, of which there is one a direction at the most.
pub(super) const MAX_BUFFER: usize = 64 * 1024;

/// The largest read. Of the plain side it becomes one message, which has room in a buffer with its head and the rest of a character.
pub(super) const MAX_READ: usize = MAX_BUFFER - HEAD_MAX - 3;

/// An empty buffer with room for so much. The large ones are of one size, so that they can be used again.
fn buffer(room: usize) -> BytesMut {
    buffers::take(if room > MIN_READ + MAX_BUFFER - MAX_READ { MAX_BUFFER } else { room })
}

/// How much is read next of a side: more where much came.
#[derive(Debug)]
pub(super) struct ReadSize(usize);

impl ReadSize {
    pub(super) const LEAST: Self = Self(MIN_READ);

    /// Reads so many bytes at the most; none at the end. While there is nothing, no buffer is held.
    pub(super) fn poll_read(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<BytesMut>> {
        let read = match self.0 {
            ..=MIN_READ => ready!(poll_little(io, cx))?,
            _ => ready!(poll_much(io, cx))?,
        };
        self.0 = if read.len() >= self.0 { MAX_READ } else { MIN_READ };
        Poll::Ready(Ok(read))
    }
}

fn poll_little(io: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
    let mut little = [MaybeUninit::uninit(); MIN_READ];
    let mut little = ReadBuf::uninit(&mut little);
    ready!(Pin::new(io).poll_read(cx, &mut little))?;
    Poll::Ready(Ok(BytesMut::from(little.filled())))
}

fn poll_much(io: &mut (impl AsyncRead + Unpin), cx: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
    let mut buffer = buffer(MAX_READ);
    let whole = buffer.capacity();
    let result = poll_read_buf(Pin::new(io), cx, &mut (&mut buffer).limit(MAX_READ));
    // Free again as soon as what was read has gone on.
    let read = buffer.split();
    buffers::give_back(buffer, whole);
    result.map_ok(|_| read)
}

/// One end of a WebSocket.
pub(super) struct WebSocket<S> {
    io: S,
    /// Which end.
    role: Role,
    decoder: Decoder,
    /// What came right behind the opening handshake.
    ahead: BytesMut,
    size: ReadSize,
    /// Reads that brought payload, and pings.
    heard: u64,
    /// A frame of which this is still to be written.
    out: Bytes,
    unflushed: bool,
    /// Answers the newest ping; those before it need no answer.
    pong: Option<ControlPayload>,
    /// A Close that is to be said.
    close: Option<ControlPayload>,
    /// It was said, or is in `out`.
    closed: bool,
}

impl<S: Side> WebSocket<S> {
    /// Behind the handshake, with what came behind it in the same read.
    pub(super) fn new(io: S, role: Role, ahead: &[u8]) -> Self {
        let other = match role {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        Self {
            io,
            role,
            // As no frame is held, one may be as long as it likes.
            decoder: Decoder::taking_text(other).with_frame_max(LENGTH_MAX),
            ahead: BytesMut::from(ahead),
            size: ReadSize::LEAST,
            heard: 0,
            out: Bytes::new(),
            unflushed: false,
            pong: None,
            close: None,
            closed: false,
        }
    }

    /// What the frames travel over.
    pub(super) fn io(&self) -> &S {
        &self.io
    }

    /// The same.
    pub(super) fn io_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// Why nothing more is heard of the other end.
    pub(super) fn end(&self) -> Option<End> {
        self.decoder.end()
    }

    /// What the other end's Close carries.
    pub(super) fn close_heard(&self) -> Option<&ControlPayload> {
        self.decoder.close()
    }

    /// Grows whenever something is heard but pongs: those answer what was sent because nothing moved.
    pub(super) fn heard(&self) -> u64 {
        self.heard
    }

    /// Whether a frame waits to be written.
    pub(super) fn is_writing(&self) -> bool {
        !self.out.is_empty()
    }

    /// Reads once: payload, which may be none. Nothing at the end of the stream; not to be asked behind an
    /// [`end`](Self::end).
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        let mut came = match self.ahead.is_empty() {
            true => ready!(self.size.poll_read(&mut self.io, cx))?,
            false => std::mem::take(&mut self.ahead),
        };
        if came.is_empty() {
            return Poll::Ready(Ok(None));
        }
        let len = self.decoder.decode(&mut came);
        came.truncate(len);
        let ping = self.decoder.take_ping();
        self.heard += u64::from(len > 0 || ping.is_some());
        self.pong = ping.or(self.pong.take());
        // One that brought no payload keeps no memory.
        Poll::Ready(Ok(Some(if len > 0 { came.freeze() } else { Bytes::new() })))
    }

    /// Ready when a frame can be put.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.is_writing() {
                match ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.out.advance(written),
                }
                self.unflushed = true;
            }
            // Memory is let go.
            self.out = Bytes::new();
            if let Some(payload) = self.pong.take() {
                self.put(Opcode::Pong, [payload.bytes(), &[]]);
            } else if let Some(payload) = self.close.take() {
                self.closed = true;
                self.put(Opcode::Close, [payload.bytes(), &[]]);
            } else {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Ready when all is on its way.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx))?;
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Makes one whole frame of these; only when it is [ready](Self::poll_ready), and of data not behind a Close.
    pub(super) fn put(&mut self, opcode: Opcode, parts: [&[u8]; 2]) {
        debug_assert!(!self.is_writing());
        let mut mask = (self.role == Role::Client).then(random_mask);
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let head = Head::new(opcode, len, mask);
        let mut frame = buffer(head.bytes().len() + len);
        let whole = frame.capacity();
        frame.extend_from_slice(head.bytes());
        for part in parts {
            let at = frame.len();
            match &mut mask {
                None => frame.extend_from_slice(part),
                Some(mask) => {
                    frame.resize(at + part.len(), 0);
                    copy_masked(part, &mut frame[at..], mask);
                }
            }
        }
        self.out = frame.split().freeze();
        buffers::give_back(frame, whole);
    }

    /// Wants this Close to be said, once.
    pub(super) fn close(&mut self, payload: ControlPayload) {
        if !self.closed && self.close.is_none() {
            self.close = Some(payload);
        }
    }

    /// The memory that it holds beside itself.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.out.len() + self.ahead.capacity()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::super::side::Own;
    use super::*;

    fn pair() -> (WebSocket<Own<DuplexStream>>, DuplexStream) {
        let (near, far) = duplex(1024);
        (WebSocket::new(Own::new(near, |_| {}), Role::Client, b""), far)
    }

    #[tokio::test]
    async fn one_frame_waits_at_the_most_and_an_idle_one_holds_nothing() {
        let (mut ws, mut far) = pair();
        assert!(size_of_val(&ws) < 1024, "{} bytes", size_of_val(&ws));
        assert_eq!(ws.held(), 0);
        ws.put(Opcode::Binary, [&[1; 3], &[2; MAX_READ]]);
        ws.close(ControlPayload::of_close(1000));
        assert!(poll_fn(|cx| ws.poll_flush(cx)).now_or_never().is_none(), "nobody reads");
        assert!(ws.is_writing() && (MAX_READ / 2..=MAX_BUFFER).contains(&ws.held()), "{}", ws.held());
        // Any number of pings leave one answer.
        for count in 0..100_u8 {
            far.write_all(&[0x89, 1, count]).await.unwrap();
            assert_eq!(poll_fn(|cx| ws.poll_read(cx)).await.unwrap(), Some(Bytes::new()));
            assert!(ws.held() <= MAX_BUFFER);
        }
        assert_eq!(ws.heard(), 100);
        let read = async {
            // A message with its head and mask, a pong and a close with theirs.
            let mut all = vec![0; 8 + 3 + MAX_READ + 7 + 8];
            far.read_exact(&mut all).await.unwrap();
            all
        };
        let (flushed, all) = tokio::join!(poll_fn(|cx| ws.poll_flush(cx)), read);
        flushed.unwrap();
        let (pong, close) = all[all.len() - 15..].split_at(7);
        assert_eq!((pong[0], pong[6] ^ pong[2], close[0]), (0x8a, 99, 0x88));
        assert_eq!((ws.held(), ws.is_writing()), (0, false));
        // A second Close is not said.
        ws.close(ControlPayload::of_close(1001));
        poll_fn(|cx| ws.poll_flush(cx)).await.unwrap();
        assert!(far.read_u8().now_or_never().is_none());
    }

    #[tokio::test]
    async fn what_is_read_is_handed_on_and_its_end_is_told() {
        let (mut ws, mut far) = pair();
        far.write_all(b"\x01\x02a\xc3\x80\x01\xa9\x8a\0").await.unwrap();
        assert_eq!(poll_fn(|cx| ws.poll_read(cx)).await.unwrap(), Some(Bytes::from("aé")));
        assert!(ws.end().is_none() && !ws.is_writing());
        drop(far);
        assert_eq!(poll_fn(|cx| ws.poll_read(cx)).await.unwrap(), None);
    }
}
