//! The program at one end of a connection: it writes, reads, stops and leaves as it was told, and expects to be woken
//! exactly when it waits.

use bytes::Bytes;
use gkd_proto::error::StreamError;
use gkd_proto::id::ConnectionId;
use gkd_proto::{ConnectionMut, Read};

use crate::content::Content;
use crate::random::Random;
use crate::story::Story;

/// How a program writes and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// The largest write, in bytes.
    pub write: usize,
    /// Writes hand over buffers instead of having them copied.
    pub by_bytes: bool,
    /// The largest read, in bytes.
    pub read: usize,
    /// Every write and read is of some size up to the largest.
    pub vary: bool,
}

/// One that writes and reads much at a time.
pub const BULK: Style = Style { write: 40_000, by_bytes: false, read: 70_000, vary: false };

/// When a program drops a connection of which it has read the end and written all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// Only when it is told to.
    Stays,
    /// At once.
    AtOnce,
    /// When what it wrote is acknowledged.
    WhenAcknowledged,
}

/// A program at one end of one connection.
#[derive(Clone, Debug)]
pub struct Program {
    /// Bytes that it still has to write.
    pub left: u64,
    /// It finishes its direction when all is written.
    pub finish: bool,
    /// What it writes once it has read the end.
    pub reply: u64,
    /// It does not read for now.
    pub stopped: bool,
    /// When it leaves.
    pub leaving: Leaving,
    style: Style,
    random: Random,
    /// A write was not accepted whole: Writable will tell.
    waits_to_write: bool,
    /// A read found nothing: Readable will tell.
    waits_to_read: bool,
    /// Readable came: the next read finds something.
    was_told: bool,
    /// It stands in the queue of programs that have something to do.
    pub(crate) queued: bool,
}

impl Program {
    /// A program that writes nothing yet, and reads.
    pub fn new(style: Style, random: Random) -> Self {
        Self {
            left: 0,
            finish: false,
            reply: 0,
            stopped: false,
            leaving: Leaving::Stays,
            style,
            random,
            waits_to_write: false,
            waits_to_read: false,
            was_told: false,
            queued: false,
        }
    }

    pub(crate) fn on_readable(&mut self, id: ConnectionId) {
        let waited = std::mem::take(&mut self.waits_to_read);
        assert!(waited, "connection {id}: Readable without a read that waits");
        self.was_told = true;
    }

    pub(crate) fn on_writable(&mut self, id: ConnectionId) {
        let waited = std::mem::take(&mut self.waits_to_write);
        assert!(waited, "connection {id}: Writable without a write that waits");
    }

    fn size(&mut self, most: usize) -> usize {
        if self.style.vary { self.random.between(1, most as u64) as usize } else { most }
    }

    /// Does all that it can do now; whether that was anything.
    pub(crate) fn act(&mut self, end: usize, connection: &mut ConnectionMut<'_>, story: &mut Story) -> bool {
        let read = !self.stopped && self.read(end, connection, story);
        let written = self.write(end, connection, story);
        read || written
    }

    fn write(&mut self, end: usize, connection: &mut ConnectionMut<'_>, story: &mut Story) -> bool {
        if story.finished[end] {
            return false;
        }
        let mut any = false;
        while self.left > 0 && !self.waits_to_write {
            let most = self.style.write.min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let wanted = self.size(most);
            let bytes = Content::new(end, connection.id()).bytes(story.sent[end], wanted);
            let accepted = if self.style.by_bytes {
                let mut bytes = Bytes::from(bytes);
                let accepted = connection.write(&mut bytes);
                assert!(accepted.is_err() || accepted == Ok(wanted - bytes.len()));
                accepted
            } else {
                connection.write_slice(&bytes)
            };
            let accepted = match accepted {
                Ok(accepted) => accepted,
                Err(StreamError::Closed) => return any,
                Err(error) => panic!("connection {}: {error}", connection.id()),
            };
            self.waits_to_write = accepted < wanted;
            self.left -= accepted as u64;
            story.accept(end, accepted);
            any |= accepted > 0;
        }
        if self.left == 0 && self.finish && self.reply == 0 {
            connection.finish();
            story.finished[end] = true;
            any = true;
        }
        any
    }

    fn read(&mut self, end: usize, connection: &mut ConnectionMut<'_>, story: &mut Story) -> bool {
        let mut any = false;
        while !self.waits_to_read && !story.ended[end] {
            let most = self.size(self.style.read);
            match connection.read(most) {
                Read::Data(data) => {
                    assert!(data.len() <= most, "a read of {most} bytes gives {}", data.len());
                    story.read(connection.id(), end, &data);
                    any = true;
                }
                Read::Pending => {
                    assert!(!self.was_told, "connection {}: Readable, and nothing to read", connection.id());
                    self.waits_to_read = true;
                }
                Read::Finished => {
                    story.end(connection.id(), end);
                    self.left += std::mem::take(&mut self.reply);
                    any = true;
                }
            }
            self.was_told = false;
        }
        any
    }

    /// It has read and written everything, and drops the connection now.
    pub(crate) fn leaves(&self, end: usize, story: &Story) -> bool {
        let done = story.finished[end] && story.ended[end];
        match self.leaving {
            Leaving::Stays => false,
            Leaving::AtOnce => done,
            Leaving::WhenAcknowledged => done && story.acknowledged[end],
        }
    }

    /// It reads whatever comes.
    pub(crate) fn reads(&self) -> bool {
        !self.stopped
    }
}
