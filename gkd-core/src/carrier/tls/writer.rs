//! The sending half of a TLS stream: a whole batch sealed into one buffer and written at once.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::{AlertDescription, ContentType, Error};
use tokio::io::AsyncWrite;

use super::keys::Keys;
use super::reader::KEY_UPDATE;
use super::record::{CONTENT_MAX, Gather, OVERHEAD, Sealer};
use super::spare;
use crate::carrier::Wire;

/// RFC 8446 §4.6.3: this end has a new key, and asks for none.
const NEXT_KEY: [u8; 5] = [KEY_UPDATE[0], KEY_UPDATE[1], KEY_UPDATE[2], KEY_UPDATE[3], 0];

/// What that takes as a record.
const NEXT_KEY_SEALED: usize = NEXT_KEY.len() + OVERHEAD;

/// RFC 8446 §6: the levels of alerts.
const WARNING: u8 = 1;
const FATAL: u8 = 2;

/// Less than this that a socket does not take is moved out of the lent buffer.
const MOVED_MAX: usize = 32 * 1024;

pub(super) struct Writer {
    sealer: Sealer,
    /// What was sealed and is still to be written lies in here; empty if nothing is.
    out: Vec<u8>,
    unwritten: Range<usize>,
    /// Nothing more is sealed.
    closed: bool,
}

impl Writer {
    pub(super) fn new(sealer: Sealer) -> Self {
        Self { sealer, out: Vec::new(), unwritten: 0..0, closed: false }
    }

    /// Seals as much as one buffer takes, 256 KiB at the least if there is so much, and writes it. What was sealed
    /// before goes first; while that does not, nothing is taken.
    pub(super) fn poll_write(
        &mut self,
        wire: &mut Wire,
        keys: &mut Keys,
        update_asked: &mut bool,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(self.poll_unwritten(wire, cx))?;
        let mut content = Gather::new(slices);
        let all = content.remaining();
        if all == 0 {
            return Poll::Ready(Ok(0));
        }
        self.out = spare::take();
        match self.seal(keys, update_asked, &mut content) {
            Ok(len) => self.unwritten = 0..len,
            Err(error) => {
                // Half of a record may have been told of: no record fits behind that.
                self.closed = true;
                spare::give(std::mem::take(&mut self.out));
                return Poll::Ready(Err(io::Error::other(error)));
            }
        }
        match self.poll_unwritten(wire, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(all - content.remaining())),
        }
    }

    pub(super) fn poll_flush(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_unwritten(wire, cx))?;
        Pin::new(wire).poll_flush(cx)
    }

    /// Tells the other end that nothing more comes, and closes this direction behind that.
    pub(super) fn poll_shutdown(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            self.closed = true;
            self.say(WARNING, AlertDescription::CloseNotify);
        }
        ready!(self.poll_unwritten(wire, cx))?;
        match ready!(Pin::new(wire).poll_shutdown(cx)) {
            // The other end was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            shut => Poll::Ready(shut),
        }
    }

    /// Tells the other end what rule it broke, if that goes at once, and seals nothing more.
    pub(super) fn give_up(&mut self, wire: &mut Wire, cx: &mut Context<'_>, error: &Error) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let told = match error {
            // It ended by itself.
            Error::AlertReceived(_) => return,
            Error::DecryptError => AlertDescription::BadRecordMac,
            Error::PeerSentOversizedRecord => AlertDescription::RecordOverflow,
            Error::InvalidMessage(_) => AlertDescription::DecodeError,
            _ => AlertDescription::UnexpectedMessage,
        };
        self.say(FATAL, told);
        // The error counts, not what becomes of telling it.
        let _ = self.poll_unwritten(wire, cx);
    }

    fn seal(
        &mut self,
        keys: &mut Keys,
        update_asked: &mut bool,
        content: &mut Gather<'_>,
    ) -> Result<usize, Error> {
        let mut at = 0;
        while content.remaining() > 0 {
            let len = content.remaining().min(CONTENT_MAX);
            if self.out.len() - at < NEXT_KEY_SEALED + len + OVERHEAD {
                break;
            }
            if self.sealer.is_spent() || std::mem::take(update_asked) {
                let mut update = Gather::one(&NEXT_KEY);
                let kind = ContentType::Handshake;
                at += self.sealer.seal(kind, &mut update, NEXT_KEY.len(), &mut self.out[at..])?;
                self.sealer = keys.next_sealer()?;
            }
            at += self.sealer.seal(ContentType::ApplicationData, content, len, &mut self.out[at..])?;
        }
        Ok(at)
    }

    /// Appends an alert to what is still to be written.
    fn say(&mut self, level: u8, description: AlertDescription) {
        let alert = [level, description.into()];
        let mut out = self.out.get(self.unwritten.clone()).unwrap_or_default().to_vec();
        let at = out.len();
        out.resize(at + alert.len() + OVERHEAD, 0);
        let mut content = Gather::one(&alert);
        if self.sealer.seal(ContentType::Alert, &mut content, alert.len(), &mut out[at..]).is_ok() {
            self.unwritten = 0..out.len();
            spare::give(std::mem::replace(&mut self.out, out));
        }
    }

    /// Writes what was sealed, to its end.
    fn poll_unwritten(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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
        Poll::Ready(Ok(()))
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

#[cfg(test)]
impl Writer {
    pub(super) fn sealed(&mut self, kind: ContentType, content: &[u8]) -> Vec<u8> {
        let mut out = vec![0; content.len() + OVERHEAD];
        self.sealer.seal(kind, &mut Gather::one(content), content.len(), &mut out).unwrap();
        out
    }

    pub(super) fn limit_key(&mut self, records: u64) {
        self.sealer.limit = records;
    }

    pub(super) fn held(&self) -> usize {
        self.out.capacity()
    }
}
