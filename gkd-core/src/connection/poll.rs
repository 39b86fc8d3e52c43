//! The polls of a [`Connection`]. Each takes the session's lock once, tries, and before it says `Pending`
//! leaves its waker under the same lock; it has no other effect then, so that a poll can be repeated. None
//! tells success before the session has accepted the bytes.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use gkd_proto::error::StreamError;
use gkd_proto::packet::{Datagram, DialError, MAX_DESTINATION, MAX_PAYLOAD, ResetCode};
use gkd_proto::{ConnectionMut, Read, Session};

use super::Connection;
use crate::error::{ConnectError, ConnectionReset};
use crate::manager::{Parts, Slot, register};

impl Connection {
    /// The next bytes, at most `most`; an empty wish reads nothing. See [`read_bytes`](Self::read_bytes).
    ///
    /// # Errors
    /// [`ConnectionReset`](io::ErrorKind::ConnectionReset).
    pub fn poll_read_bytes(&self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<Option<Bytes>>> {
        let mut found = None;
        self.poll_read_chunks(cx, most, 1, |bytes| found = Some(bytes)).map_ok(|_| found)
    }

    /// Appends what can be read to `chunks`: at most `most` bytes in at most 64 pieces, for one vectored write.
    /// How many bytes; none at the end of the stream.
    ///
    /// # Errors
    /// [`ConnectionReset`](io::ErrorKind::ConnectionReset).
    pub fn poll_read_batch(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<io::Result<usize>> {
        /// As many slices as one vectored write takes here.
        const CHUNKS: usize = 64;
        self.poll_read_chunks(cx, most, CHUNKS, |bytes| chunks.push(bytes))
    }

    /// Reads at most `most` bytes in at most `pieces` pieces, under one lock.
    pub(super) fn poll_read_chunks(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        pieces: usize,
        mut give: impl FnMut(Bytes),
    ) -> Poll<io::Result<usize>> {
        if most == 0 {
            return Poll::Ready(Ok(0));
        }
        self.manager.with_connection(self.id, |Parts { session, slot, replaced, .. }, now| {
            if let Some(code) = slot.reset {
                return Poll::Ready(Err(reset(code)));
            }
            if slot.read_end {
                return Poll::Ready(Ok(0));
            }
            let Some(mut connection) = session.connection(now, self.id) else {
                return Poll::Ready(Err(reset(ResetCode::SESSION)));
            };
            let mut count = 0;
            for _ in 0..pieces {
                match connection.read(most - count) {
                    Read::Data(bytes) => {
                        slot.used = true;
                        count += bytes.len();
                        give(bytes);
                    }
                    Read::Finished if count == 0 => {
                        slot.read_end = true;
                        break;
                    }
                    // What comes after bytes that were read is told by the next poll.
                    Read::Pending | Read::Finished if count > 0 => break,
                    Read::Pending | Read::Finished => {
                        register(&mut slot.reader, cx.waker(), replaced);
                        return Poll::Pending;
                    }
                }
                if count >= most {
                    break;
                }
            }
            Poll::Ready(Ok(count))
        })
    }

    /// Accepts bytes from the front of `bytes`, without copying more than a KiB, and takes them off; how many. An
    /// empty wish writes nothing.
    ///
    /// # Errors
    /// [`ConnectionReset`](io::ErrorKind::ConnectionReset); [`BrokenPipe`](io::ErrorKind::BrokenPipe) behind
    /// the own end of the stream.
    pub fn poll_write_bytes(&self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_accept_bytes(cx, |connection| connection.write(bytes))
    }

    pub(super) fn poll_write_slice(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_accept_bytes(cx, |connection| connection.write_slice(buf))
    }

    pub(super) fn poll_write_slices(
        &self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        self.poll_accept_bytes(cx, |connection| {
            let mut count = 0;
            for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
                let taken = connection.write_slice(buf)?;
                count += taken;
                if taken < buf.len() {
                    break;
                }
            }
            Ok(count)
        })
    }

    /// `write` is called with room to be found out; when it takes nothing, the writer waits.
    fn poll_accept_bytes(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(&mut ConnectionMut<'_>) -> Result<usize, StreamError>,
    ) -> Poll<io::Result<usize>> {
        self.manager.with_connection(self.id, |Parts { session, slot, replaced, .. }, now| {
            if let Some(code) = slot.cut_off() {
                return Poll::Ready(Err(reset(code)));
            }
            if slot.finished {
                return Poll::Ready(Err(stream_error(StreamError::Finished)));
            }
            let Some(mut connection) = session.connection(now, self.id) else {
                return Poll::Ready(Err(reset(ResetCode::SESSION)));
            };
            match write(&mut connection) {
                Ok(0) => {
                    register(&mut slot.writer, cx.waker(), replaced);
                    Poll::Pending
                }
                Ok(count) => {
                    self.used(session, now, slot);
                    Poll::Ready(Ok(count))
                }
                Err(error) => Poll::Ready(Err(stream_error(error))),
            }
        })
    }

    /// Ends this direction, and is ready when the other end holds all of it.
    pub(super) fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.manager.with_connection(self.id, |Parts { session, slot, replaced, .. }, now| {
            if slot.acknowledged {
                return Poll::Ready(Ok(()));
            }
            if let Some(code) = slot.reset {
                return Poll::Ready(Err(reset(code)));
            }
            let cut_off = slot.cut_off();
            let Some(mut connection) = session.connection(now, self.id) else {
                return Poll::Ready(Err(reset(ResetCode::SESSION)));
            };
            if !slot.finished && cut_off.is_none() {
                connection.finish();
                slot.finished = true;
                self.used(session, now, slot);
            }
            let acknowledged =
                session.connection(now, self.id).is_some_and(|connection| connection.is_acknowledged());
            if acknowledged {
                slot.acknowledged = true;
                return Poll::Ready(Ok(()));
            }
            if let Some(code) = cut_off {
                return Poll::Ready(Err(reset(code)));
            }
            register(&mut slot.writer, cx.waker(), replaced);
            Poll::Pending
        })
    }

    pub(super) fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        if self.accepted {
            return Poll::Ready(Ok(()));
        }
        self.manager.with_connection(self.id, |Parts { session, slot, replaced, .. }, now| {
            let answer = slot
                .answer
                .or_else(|| session.connection(now, self.id).and_then(|found| found.dial_result()));
            match (answer, slot.cut_off()) {
                (Some(answer), _) => {
                    slot.answer = Some(answer);
                    Poll::Ready(answer.map_err(ConnectError::Dial))
                }
                (None, Some(code)) => Poll::Ready(Err(ConnectError::Reset(code))),
                (None, None) => {
                    register(&mut slot.rare().answer, cx.waker(), replaced);
                    Poll::Pending
                }
            }
        })
    }

    pub(super) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<ResetCode> {
        self.manager.with_connection(self.id, |Parts { slot, replaced, .. }, _| match slot.reset {
            Some(code) => Poll::Ready(code),
            None => {
                register(&mut slot.reset_waker, cx.waker(), replaced);
                Poll::Pending
            }
        })
    }

    pub(super) fn poll_take_datagram(&self, cx: &mut Context<'_>) -> Poll<io::Result<Datagram>> {
        self.manager.with_connection(self.id, |Parts { session, slot, replaced, .. }, now| {
            if let Some(code) = slot.cut_off() {
                return Poll::Ready(Err(reset(code)));
            }
            let Some(mut connection) = session.connection(now, self.id) else {
                return Poll::Ready(Err(reset(ResetCode::SESSION)));
            };
            match connection.recv_datagram() {
                Some(datagram) => Poll::Ready(Ok(datagram)),
                None => {
                    register(&mut slot.rare().datagram, cx.waker(), replaced);
                    Poll::Pending
                }
            }
        })
    }

    pub(super) fn queue_datagram(&self, address: Bytes, payload: Bytes) -> io::Result<bool> {
        if address.len() > MAX_DESTINATION || payload.len() > MAX_PAYLOAD {
            let what = format!(
                "a datagram of {} bytes with an address of {}: at most {MAX_PAYLOAD} and {MAX_DESTINATION}",
                payload.len(),
                address.len()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        self.manager.with_connection(self.id, |Parts { session, slot, .. }, now| {
            if let Some(code) = slot.cut_off() {
                return Err(reset(code));
            }
            let gone = || reset(ResetCode::SESSION);
            let mut connection = session.connection(now, self.id).ok_or_else(gone)?;
            let sent = connection.send_datagram(address, payload);
            self.used(session, now, slot);
            Ok(sent)
        })
    }

    pub(super) fn answer(&self, result: Result<(), DialError>) {
        self.manager.with_connection(self.id, |Parts { session, slot, woken, .. }, now| {
            if slot.confirmed || self.destination.is_empty() {
                return;
            }
            slot.confirmed = true;
            if let Some(connection) = session.connection(now, self.id) {
                connection.connected(result);
            }
            if result.is_err() {
                slot.reset.get_or_insert(ResetCode::DIAL);
                slot.wake_all(woken);
            }
        });
    }

    /// The program uses the connection: that answers its opener, if nothing did before. Not for an own
    /// connection, nor for one without a destination, which was answered when it was taken.
    fn used(&self, session: &mut Session, now: Instant, slot: &mut Slot) {
        slot.used = true;
        if self.accepted && !self.destination.is_empty() && !slot.confirmed {
            slot.confirmed = true;
            if let Some(connection) = session.connection(now, self.id) {
                connection.connected(Ok(()));
            }
        }
    }

    pub(super) fn reset_with(&self, code: ResetCode) {
        self.manager.with_connection(self.id, |Parts { session, slot, woken, .. }, now| {
            if slot.reset.is_none() {
                slot.reset = Some(code);
                slot.wake_all(woken);
                if let Some(connection) = session.connection(now, self.id) {
                    connection.reset(code);
                }
            }
        });
    }

    /// The handle goes.
    pub(super) fn release(&self, panicking: bool) {
        let gone = self.manager.with(|state, now| {
            let Parts { session, slot, .. } = state.parts(self.id);
            if !panicking && slot.used {
                self.used(session, now, slot);
            }
            if let Some(connection) = session.connection(now, self.id) {
                if panicking {
                    connection.reset(ResetCode::APPLICATION);
                } else if self.accepted && !self.destination.is_empty() && !slot.confirmed {
                    connection.connected(Err(DialError::Failed));
                } else {
                    connection.release();
                }
            }
            state.remove_slot(self.id)
        });
        // Wakers may run foreign code when they go, so not under the lock.
        drop(gone);
    }
}

fn reset(code: ResetCode) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, ConnectionReset(code))
}

fn stream_error(error: StreamError) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, error)
}
