//! WebSocket behind its handshake, as a stream of bytes.
//!
//! A write is one binary message. A client masks while it copies into a lent buffer, as no mask may be used twice and
//! the caller's bytes are not to be changed; a server sends header and slices in one vectored write. What is read goes
//! to where it is wanted and is unmasked there; where messages begin and end means nothing.
//!
//! An idle stream holds no buffer. It sends no Ping of its own: the session pings a tunnel on which nothing arrives
//! (every 15 s unless it is set to something else) and the other end answers, so that bytes pass both ways well within
//! the 60 s for which proxies bear a silent connection, and 100 s at the large ones.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use gkd_proto::id::Side;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{
    ControlPayload, Decoder, End, FRAME_MAX, HEAD_MAX, Head, Mask, Opcode, Violation, code, copy_masked,
    random_mask,
};
use crate::carrier::Wire;
use crate::carrier::tls::spare;

/// Reads in a row that bring nothing but headers and control frames, before other tasks have their turn.
const READS: usize = 32;

/// Slices of one vectored write, the header's beside them.
const SLICES: usize = 64;

/// Less than this that a socket does not take is moved out of the lent buffer.
const MOVED_MAX: usize = 32 * 1024;

/// A stream to the other end of a WebSocket connection.
///
/// Cancellation safe as poll functions are: `Pending` took nothing of the caller's. It may have sent the header of a
/// frame that the caller's next bytes then fill, whichever they are. A write that is ready may leave bytes in this
/// stream's own buffer (257 KiB at the most): they travel with the next write or with a flush.
///
/// Either end's Close ends both directions, as there is no half of a WebSocket connection.
pub(in crate::carrier) struct Stream {
    wire: Wire,
    decoder: Decoder,
    writer: Writer,
}

impl Stream {
    /// This side's end. What was read behind the handshake has been put back into `wire`.
    pub(super) fn new(wire: Wire, side: Side) -> Self {
        let other = match side {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        };
        Self { wire, decoder: Decoder::new(other), writer: Writer::new(side) }
    }

    /// What the frames travel over.
    pub(in crate::carrier) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The same, to look at.
    pub(in crate::carrier) fn wire_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// So much memory its buffer has.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.writer.out.capacity()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { wire, decoder, writer } = self.get_mut();
        // Whoever waits to read is woken when it goes on with an answer, too.
        writer.answer(wire, cx);
        let start = to.filled().len();
        for _ in 0..READS {
            match decoder.end() {
                _ if to.remaining() == 0 => return Poll::Ready(Ok(())),
                Some(End::Closed(_)) => return Poll::Ready(Ok(())),
                Some(End::Broken(violation)) => return Poll::Ready(Err(broken(violation))),
                None => {}
            }
            ready!(Pin::new(&mut *wire).poll_read(cx, to))?;
            let came = &mut to.filled_mut()[start..];
            if came.is_empty() {
                // The end without a Close: whether it comes too early, the layer above knows.
                return Poll::Ready(if decoder.is_between() { Ok(()) } else { Err(cut()) });
            }
            let payload = decoder.decode(came);
            to.set_filled(start + payload);
            writer.pong = decoder.take_ping().or(writer.pong.take());
            match decoder.end() {
                // §5.5.1: the same code comes back.
                Some(End::Closed(code)) => writer.close(code),
                Some(End::Broken(violation)) => writer.close(Some(violation.code())),
                None => {}
            }
            writer.answer(wire, cx);
            if payload > 0 {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { wire, writer, .. } = self.get_mut();
        let polled = writer.poll_write(wire, cx, slices);
        writer.waits = polled.is_pending();
        polled
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { wire, writer, .. } = self.get_mut();
        let polled = writer.poll_flush(wire, cx);
        writer.waits = polled.is_pending();
        polled
    }

    /// Says Close. The server then closes the connection below, as §7.1.1 wants it; the client leaves that to it, for
    /// a proxy may take the end of one direction for the end of both.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { wire, writer, .. } = self.get_mut();
        writer.close(Some(code::NORMAL));
        let flushed = writer.poll_flush(wire, cx);
        writer.waits = flushed.is_pending();
        ready!(flushed)?;
        match writer.side {
            Side::Client => Poll::Ready(Ok(())),
            Side::Server => match ready!(Pin::new(wire).poll_shutdown(cx)) {
                // The other end was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
                shut => Poll::Ready(shut),
            },
        }
    }
}

fn broken(violation: Violation) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, violation)
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended within a WebSocket message")
}

/// The sending half.
struct Writer {
    side: Side,
    /// What is still to be written before anything else lies in here: a masked frame, a control frame, the rest of a
    /// header.
    out: Vec<u8>,
    unwritten: Range<usize>,
    /// Of the frame whose header was sent, so much payload is still to come from the caller. A server's only.
    owed: usize,
    /// Answers the newest Ping; the ones before it need none.
    pong: Option<ControlPayload>,
    /// A Close is to be said.
    close: Option<ControlPayload>,
    /// It was said, so nothing else is.
    closed: bool,
    /// The caller waits to write, and is woken by the socket: an answer must not take that waker's place.
    waits: bool,
}

impl Writer {
    fn new(side: Side) -> Self {
        Self {
            side,
            out: Vec::new(),
            unwritten: 0..0,
            owed: 0,
            pong: None,
            close: None,
            closed: false,
            waits: false,
        }
    }

    /// Wants a Close to be said, once; behind what was accepted.
    fn close(&mut self, code: Option<u16>) {
        if !self.closed && self.close.is_none() {
            self.close = Some(code.map_or(ControlPayload::EMPTY, ControlPayload::of_close));
        }
    }

    /// Writes answers without waiting for it. What becomes of that, the next write tells.
    fn answer(&mut self, wire: &mut Wire, cx: &mut Context<'_>) {
        let has_answers = self.pong.is_some() || self.close.is_some() || !self.unwritten.is_empty();
        if has_answers && !self.waits {
            let _ = self.poll_unwritten(wire, cx);
        }
    }

    fn poll_write(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_unwritten(wire, cx))?;
        if self.closed || self.close.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let all: usize = slices.iter().map(|slice| slice.len()).sum();
        match self.side {
            _ if all == 0 => Poll::Ready(Ok(0)),
            Side::Client => self.poll_write_masked(wire, cx, slices, all),
            Side::Server => self.poll_write_bare(wire, cx, slices, all),
        }
    }

    /// Takes as much as a lent buffer holds, as one message.
    fn poll_write_masked(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        all: usize,
    ) -> Poll<io::Result<usize>> {
        self.out = spare::take();
        let taken = all.min(self.out.len() - HEAD_MAX);
        let mask = random_mask();
        let head = Head::new(Opcode::Binary, taken, Some(mask));
        let at = head.bytes().len();
        self.out[..at].copy_from_slice(head.bytes());
        mask_all(slices, &mut self.out[at..at + taken], mask);
        self.unwritten = 0..at + taken;
        match self.poll_unwritten(wire, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(taken)),
        }
    }

    /// Writes from where the bytes are, as one message or as more of the one whose header was sent.
    fn poll_write_bare(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        all: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            let begun = self.owed > 0;
            let most = if begun { self.owed } else { all.min(FRAME_MAX as usize) };
            let head = Head::new(Opcode::Binary, most, None);
            let head = if begun { &[] } else { head.bytes() };
            let mut batch = [IoSlice::new(&[]); SLICES + 1];
            let count = gather(head, slices, most, &mut batch);
            let written = ready!(Pin::new(&mut *wire).poll_write_vectored(cx, &batch[..count]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let (of_head, rest) = head.split_at(written.min(head.len()));
            let of_payload = written - of_head.len();
            self.owed = most - of_payload;
            if of_payload > 0 {
                return Poll::Ready(Ok(of_payload));
            }
            self.put_out(rest.to_vec());
            ready!(self.poll_unwritten(wire, cx))?;
        }
    }

    fn poll_flush(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unwritten(wire, cx))?;
        Pin::new(wire).poll_flush(cx)
    }

    /// Writes what goes first, to its end: what was begun, then answers.
    fn poll_unwritten(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while !self.unwritten.is_empty() {
                match Pin::new(&mut *wire).poll_write(cx, &self.out[self.unwritten.clone()]) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(count)) => self.unwritten.start += count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {
                        self.move_out();
                        return Poll::Pending;
                    }
                }
            }
            spare::give(std::mem::take(&mut self.out));
            match self.next_control() {
                Some(frame) => self.put_out(frame),
                None => return Poll::Ready(Ok(())),
            }
        }
    }

    /// The control frame that goes next, if one may go. None goes within a frame: a caller that leaves one unfilled
    /// and shuts down just ends.
    fn next_control(&mut self) -> Option<Vec<u8>> {
        if self.owed > 0 || self.closed {
            return None;
        }
        let (opcode, payload) = match self.pong.take() {
            Some(payload) => (Opcode::Pong, payload),
            None => (Opcode::Close, self.close.take()?),
        };
        self.closed = opcode == Opcode::Close;
        let mask = (self.side == Side::Client).then(random_mask);
        let head = Head::new(opcode, payload.bytes().len(), mask);
        let mut frame = head.bytes().to_vec();
        let at = frame.len();
        frame.extend_from_slice(payload.bytes());
        copy_masked(payload.bytes(), &mut frame[at..], &mut mask.unwrap_or_default());
        Some(frame)
    }

    fn put_out(&mut self, frame: Vec<u8>) {
        self.unwritten = 0..frame.len();
        self.out = frame;
    }

    /// Gives a lent buffer back in which there is little: who does not read must not cost more than that.
    fn move_out(&mut self) {
        if self.out.len() == spare::LEN && self.unwritten.len() <= MOVED_MAX {
            let rest = self.out[self.unwritten.clone()].to_vec();
            self.unwritten = 0..rest.len();
            spare::give(std::mem::replace(&mut self.out, rest));
        }
    }
}

/// Fills `to` with as much of the slices, with the mask on.
fn mask_all(slices: &[IoSlice<'_>], mut to: &mut [u8], mut mask: Mask) {
    for slice in slices {
        let (here, rest) = to.split_at_mut(slice.len().min(to.len()));
        copy_masked(&slice[..here.len()], here, &mut mask);
        to = rest;
    }
}

/// The header, and of the slices no more than `most` bytes and as many as find room; how many that are.
fn gather<'a>(head: &'a [u8], slices: &'a [IoSlice<'a>], most: usize, to: &mut [IoSlice<'a>]) -> usize {
    let mut left = most;
    let parts = slices.iter().map(|slice| {
        let part = &slice[..slice.len().min(left)];
        left -= part.len();
        part
    });
    let parts = std::iter::once(head).chain(parts).filter(|part| !part.is_empty());
    let mut count = 0;
    for (part, slot) in parts.zip(to) {
        *slot = IoSlice::new(part);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests;
