//! The receiving half of a TLS stream: large reads, records opened in place, their content copied once, to where it
//! is wanted.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::{AlertDescription, ContentType, Error, InvalidMessage, PeerMisbehaved};
use tokio::io::{AsyncRead, ReadBuf};

use super::handshake::invalid;
use super::keys::Keys;
use super::record::{self, Opener, RECORD_MAX};
use super::spare;
use crate::carrier::Wire;

/// So many records in a row may carry nothing; as many as the TLS library takes.
const EMPTY_MAX: u32 = 32;

/// RFC 8446 §4.6.3: a message of type 24 with a length of one, and whether an answer is asked for.
pub(super) const KEY_UPDATE: [u8; 4] = [24, 0, 0, 1];

pub(super) struct Reader {
    opener: Opener,
    /// What came of a record that is not whole: less than [`RECORD_MAX`].
    partial: Vec<u8>,
    /// What was opened and had no room where it was wanted: no more than was read beyond that, [`RECORD_MAX`].
    left: Vec<u8>,
    /// So much of it was read since.
    taken: usize,
    /// Records in a row that carried nothing.
    empty: u32,
    end: Option<End>,
    /// The other end asked for a new key of this end's.
    pub(super) update_asked: bool,
}

/// Why nothing more is read.
enum End {
    /// The other end said that it closes.
    Closed,
    /// It closed without that: who cuts a connection off cannot say it.
    Cut,
    /// The connection failed. Told once.
    Io(io::Error),
    /// It broke a rule.
    Broken(Error),
}

impl Reader {
    pub(super) fn new(opener: Opener) -> Self {
        Self {
            opener,
            partial: Vec::new(),
            left: Vec::new(),
            taken: 0,
            empty: 0,
            end: None,
            update_asked: false,
        }
    }

    /// Takes what was read behind the handshake.
    ///
    /// # Errors
    /// The rule that the other end broke.
    pub(super) fn take(&mut self, mut bytes: Vec<u8>, keys: &mut Keys) -> Result<(), Error> {
        let opened = self.open(&mut bytes, &mut ReadBuf::new(&mut []), keys)?;
        self.keep(&bytes[opened..]);
        Ok(())
    }

    /// Reads once, besides what is left, and again only while that brings nothing.
    pub(super) fn poll_read(
        &mut self,
        wire: &mut Wire,
        keys: &mut Keys,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        self.put_left(to);
        while to.remaining() > 0 && self.end.is_none() {
            let polled = self.poll_wire(wire, keys, cx, to);
            if to.filled().len() > before {
                break;
            }
            if polled.is_pending() {
                self.rest();
                return Poll::Pending;
            }
        }
        if to.filled().len() > before || to.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(match &self.end {
            None | Some(End::Closed) => Ok(()),
            Some(End::Cut) => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the other end closed the connection without a close_notify",
            )),
            Some(End::Broken(error)) => Err(invalid(error.clone())),
            Some(End::Io(_)) => match self.end.take() {
                Some(End::Io(error)) => Err(error),
                _ => Ok(()),
            },
        })
    }

    /// The rule that the other end broke.
    pub(super) fn broken(&self) -> Option<&Error> {
        match &self.end {
            Some(End::Broken(error)) => Some(error),
            _ => None,
        }
    }

    /// One read through a lent buffer. It asks for a record more than there is room for, so that a record that is
    /// not whole does not make it look as if nothing more were there.
    fn poll_wire(
        &mut self,
        wire: &mut Wire,
        keys: &mut Keys,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<()> {
        let mut bytes = spare::take();
        let (held, most) = (self.partial.len(), to.remaining().saturating_add(RECORD_MAX).min(spare::LEN));
        let mut into = ReadBuf::new(&mut bytes[held..most]);
        let polled = Pin::new(wire).poll_read(cx, &mut into);
        let came = into.filled().len();
        let ready = polled.is_ready();
        let end = match polled {
            Poll::Pending => None,
            Poll::Ready(Err(error)) => Some(End::Io(error)),
            Poll::Ready(Ok(())) if came == 0 => Some(End::Cut),
            Poll::Ready(Ok(())) => {
                let whole = &mut bytes[..held + came];
                whole[..held].copy_from_slice(&self.partial);
                match self.open(whole, to, keys) {
                    Ok(opened) => {
                        self.keep(&whole[opened..]);
                        None
                    }
                    Err(error) => Some(End::Broken(error)),
                }
            }
        };
        spare::give(bytes);
        if end.is_some() {
            self.end = end;
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Opens the whole records that `bytes` begin with; how many bytes they were. Content without room in `to` is
    /// left for later.
    fn open(&mut self, bytes: &mut [u8], to: &mut ReadBuf<'_>, keys: &mut Keys) -> Result<usize, Error> {
        let mut at = 0;
        while self.end.is_none() {
            let rest = &mut bytes[at..];
            let Some(length) = record::sealed_length(rest)? else { break };
            let Some(record) = rest.get_mut(..length) else { break };
            let plain = self.opener.open(record)?;
            match plain.typ {
                ContentType::ApplicationData => {
                    let (here, later) = plain.payload.split_at(plain.payload.len().min(to.remaining()));
                    to.put_slice(here);
                    self.left.extend_from_slice(later);
                    self.empty = if plain.payload.is_empty() { self.empty + 1 } else { 0 };
                }
                ContentType::Alert => self.end = alert(plain.payload)?,
                ContentType::Handshake => {
                    self.update_asked |= key_update(plain.payload)?;
                    self.opener = keys.next_opener()?;
                    self.empty += 1;
                }
                other => return Err(unexpected(other)),
            }
            if self.empty > EMPTY_MAX {
                return Err(PeerMisbehaved::TooManyEmptyFragments.into());
            }
            at += length;
        }
        Ok(at)
    }

    fn keep(&mut self, partial: &[u8]) {
        self.partial.clear();
        self.partial.reserve_exact(partial.len());
        self.partial.extend_from_slice(partial);
    }

    fn put_left(&mut self, to: &mut ReadBuf<'_>) {
        let left = &self.left[self.taken..];
        let here = left.len().min(to.remaining());
        to.put_slice(&left[..here]);
        self.taken += here;
        if self.taken == self.left.len() {
            self.left.clear();
            self.taken = 0;
        }
    }

    /// Nothing comes for now: nothing is held but what there is of a record.
    fn rest(&mut self) {
        self.left = Vec::new();
        if self.partial.is_empty() {
            self.partial = Vec::new();
        }
    }
}

/// What an alert makes of the stream (RFC 8446 §6): all but one are errors, whatever their level.
fn alert(payload: &[u8]) -> Result<Option<End>, Error> {
    let &[_, description] = payload else {
        return Err(InvalidMessage::UnexpectedMessage("an alert of another length").into());
    };
    match AlertDescription::from(description) {
        AlertDescription::CloseNotify => Ok(Some(End::Closed)),
        other => Err(Error::AlertReceived(other)),
    }
}

/// Whether this end's next key is asked for. No other message has a place behind the handshake, as no tickets are
/// sent; and it stands alone in its record, as the next one is sealed under the next key.
fn key_update(payload: &[u8]) -> Result<bool, Error> {
    match payload.strip_prefix(&KEY_UPDATE) {
        Some(&[asked @ (0 | 1)]) => Ok(asked == 1),
        Some(_) => Err(InvalidMessage::InvalidKeyUpdate.into()),
        None => Err(unexpected(ContentType::Handshake)),
    }
}

fn unexpected(got_type: ContentType) -> Error {
    Error::InappropriateMessage { expect_types: vec![ContentType::ApplicationData], got_type }
}

#[cfg(test)]
impl Reader {
    pub(super) fn held(&self) -> usize {
        self.partial.capacity() + self.left.capacity()
    }
}
