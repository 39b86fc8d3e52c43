//! What both ends did with a connection, and what each was told: the part of the oracle that sees one connection
//! whole.

use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use gkd_proto::id::{ConnectionId, Side};
use gkd_proto::packet::{DialError, ResetCode};

use crate::content::Content;

/// Everything that happened to one connection. Arrays are by end: index 0 is the client.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Which end opened it.
    pub opener: usize,
    /// Where it was to lead.
    pub destination: Destination,
    /// Bytes that were accepted from the program.
    pub sent: [u64; 2],
    /// The program finished its direction, by itself or by a release.
    pub finished: [bool; 2],
    /// Since when something that was written waits to be read at this end.
    pub waits_since: [Option<Instant>; 2],
    /// Bytes that the program read.
    pub read: [u64; 2],
    /// It read the end.
    pub ended: [bool; 2],
    /// The other end may have no room for it, or one of them may give it up when it is idle.
    pub may_end_by_itself: bool,
    /// The other end's program got it.
    pub accepted: bool,
    /// How that answered.
    pub answer: Option<Result<(), DialError>>,
    /// The opener was told the answer.
    pub connected: bool,
    /// The end was told that its direction is held by the other.
    pub acknowledged: [bool; 2],
    /// The program reset it, so.
    pub reset: [Option<ResetCode>; 2],
    /// The program dropped it.
    pub released: [bool; 2],
    /// The program was told of a Reset.
    pub told: [Option<ResetCode>; 2],
    /// The program's reader stood still at some time, so that the session may have reset it.
    pub stopped: [bool; 2],
    /// The end's session ended, or was lost in a restart, while it was there.
    pub lost: [bool; 2],
    /// Datagrams that were sent, and of each whether it arrived.
    pub datagrams: [Vec<bool>; 2],
    /// The program looked for a datagram and found none.
    pub waits_for_datagram: [bool; 2],
}

/// A destination, of which people need not see every byte.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Destination(Bytes);

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0.len())
    }
}

/// Codes of Resets that a session sends by itself, where the scenario makes that possible.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed {
    /// Idle half-closed connections time out within the scenario.
    pub timed_out: bool,
    /// An end drains, or takes few connections.
    pub busy: bool,
}

impl Story {
    /// That of a connection to `destination` that was just opened.
    pub fn new(id: ConnectionId, destination: &[u8]) -> Self {
        let opener = usize::from(id.opener() == Side::Server);
        Self { opener, destination: Destination(Bytes::copy_from_slice(destination)), ..Self::default() }
    }

    /// The program at `end` has nothing more to do with it.
    pub fn is_over_at(&self, end: usize) -> bool {
        let refused = self.answer.is_some_and(|answer| answer.is_err());
        self.reset[end].is_some()
            || self.released[end]
            || self.told[end].is_some()
            || self.lost[end]
            || refused && (end != self.opener || self.connected)
    }

    /// Nobody cut it short: what `from` sent must arrive whole.
    pub fn is_promised(&self, from: usize) -> bool {
        let to = 1 - from;
        // Who has left is not told.
        let unseen = self.may_end_by_itself && self.released[self.opener] && !self.accepted;
        !unseen
            && self.reset == [None; 2]
            && self.told == [None; 2]
            && self.lost == [false; 2]
            && !self.released_early(to)
            && self.answer.is_none_or(|answer| answer.is_ok())
    }

    /// The reader of `end` left before it had read the end, or may have.
    fn released_early(&self, end: usize) -> bool {
        self.released[end] && !self.ended[end]
    }

    /// `end` accepted so many bytes.
    pub(crate) fn accept(&mut self, end: usize, bytes: usize) {
        self.sent[end] += bytes as u64;
    }

    /// Notes whether something waits to be read at `end`, and since when.
    pub(crate) fn note_waiting(&mut self, end: usize, now: Instant) {
        let from = 1 - end;
        if self.read[end] < self.sent[from] || (self.finished[from] && !self.ended[end]) {
            self.waits_since[end].get_or_insert(now);
        } else {
            self.waits_since[end] = None;
        }
    }

    /// `end` read these bytes: they are the next ones, and were written.
    pub(crate) fn read(&mut self, id: ConnectionId, end: usize, bytes: &[u8]) {
        let (from, offset) = (1 - end, self.read[end]);
        assert!(!self.ended[end], "connection {id}: bytes behind the end");
        assert!(!bytes.is_empty(), "connection {id}: a read of nothing");
        if let Some(at) = Content::new(from, id).differs(offset, bytes) {
            panic!("connection {id}: what end {end} reads at {offset} differs at {at}");
        }
        self.read[end] += bytes.len() as u64;
        let sent = self.sent[from];
        assert!(self.read[end] <= sent, "connection {id}: {} bytes are read of {sent}", self.read[end]);
    }

    /// `end` read the end.
    pub(crate) fn end(&mut self, id: ConnectionId, end: usize) {
        let from = 1 - end;
        assert!(self.finished[from], "connection {id}: an end that end {from} did not write");
        let (read, sent) = (self.read[end], self.sent[from]);
        assert_eq!(read, sent, "connection {id}: the end comes after {read} of {sent} bytes");
        self.ended[end] = true;
    }

    pub(crate) fn on_accepted(&mut self, id: ConnectionId, end: usize, destination: &[u8]) {
        assert_eq!(self.opener, 1 - end, "connection {id} is accepted by its opener");
        assert!(!std::mem::replace(&mut self.accepted, true), "connection {id} is accepted twice");
        assert!(self.destination.0 == destination, "connection {id} leads elsewhere");
    }

    pub(crate) fn on_connected(&mut self, id: ConnectionId, end: usize, result: Result<(), DialError>) {
        assert_eq!(self.opener, end, "connection {id}: an answer for its acceptor");
        assert!(!std::mem::replace(&mut self.connected, true), "connection {id} is connected twice");
        assert_eq!(self.answer, Some(result), "connection {id}: the answer that was given");
    }

    pub(crate) fn on_acknowledged(&mut self, id: ConnectionId, end: usize) {
        let twice = std::mem::replace(&mut self.acknowledged[end], true);
        assert!(!twice, "connection {id}: end {end} is told twice that it is held");
        assert!(self.finished[end], "connection {id}: end {end} did not finish");
    }

    /// `end` is told of a Reset: there was a reason for it.
    pub(crate) fn on_reset(&mut self, id: ConnectionId, end: usize, code: ResetCode, allowed: Allowed) {
        assert!(self.told[end].is_none(), "connection {id}: end {end} is told of two resets");
        assert!(!self.is_over_at(end), "connection {id}: end {end} had left it");
        self.told[end] = Some(code);
        let other = 1 - end;
        let due = match code {
            _ if self.reset[other] == Some(code) => true,
            ResetCode::NO_READER => self.released[other] && self.sent[end] > 0,
            // A program that has not answered does not read either.
            ResetCode::TIMED_OUT => allowed.timed_out || self.stopped != [false; 2] || self.answer.is_none(),
            ResetCode::BUSY => allowed.busy && end == self.opener && !self.accepted,
            _ => self.told[other] == Some(code),
        };
        assert!(due, "connection {id}: end {end} is told of a reset ({code}) that has no reason: {self:?}");
    }

    /// The next datagram that `end` sends.
    pub(crate) fn send_datagram(&mut self, id: ConnectionId, end: usize, size: usize) -> Vec<u8> {
        let index = self.datagrams[end].len() as u64;
        self.datagrams[end].push(false);
        let content = Content::new(end, id).bytes(index, size);
        [&index.to_le_bytes()[..], &content].concat()
    }

    /// `end` takes a datagram: one that was sent, once.
    pub(crate) fn take_datagram(&mut self, id: ConnectionId, end: usize, payload: &[u8]) {
        let from = 1 - end;
        let (index, content) = payload.split_first_chunk::<8>().expect("a datagram's index");
        let index = u64::from_le_bytes(*index);
        assert_eq!(Content::new(from, id).differs(index, content), None, "datagram {index} of {id}");
        let arrived = self.datagrams[from].get_mut(index as usize).expect("a datagram that was sent");
        assert!(!std::mem::replace(arrived, true), "datagram {index} of {id} arrives twice");
    }
}
