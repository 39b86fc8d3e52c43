//! The program's side of a connection.

use std::time::Instant;

use bytes::Bytes;

use super::connection::Stage;
use super::datagrams::{Datagrams, MOST_HELD, cost};
use super::send::PINNED;
use super::{ConnectionState, Session};
use crate::error::StreamError;
use crate::id::ConnectionId;
use crate::packet::{Datagram, DialError, MAX_DESTINATION, MAX_PAYLOAD, ResetCode};

/// However much is queued in the session, a connection that queues nothing accepts so much, in bytes.
pub(super) const MIN_SEND_BUFFER: u64 = 4 * 1024;

/// A part of a write that is less than this, and little of it, is copied when it is accepted: it would keep all of it. A
/// relay's write of 256 KiB is accepted in such parts only while there is no room for more.
const LITTLE: usize = 32 * 1024;

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes, at least one.
    Data(Bytes),
    /// Nothing yet; [`Event::Readable`](super::Event::Readable) will tell.
    Pending,
    /// The other end finished its direction; nothing follows.
    Finished,
}

/// A connection of a session, to be read and written by the program at this end. Obtained anew for each use,
/// from [`Session::connection`].
///
/// It has one reader and one writer: one wake-up each ([`Readable`](super::Event::Readable),
/// [`Writable`](super::Event::Writable)), given once after a call that could not do all.
pub struct ConnectionMut<'a> {
    session: &'a mut Session,
    now: Instant,
    id: ConnectionId,
}

impl<'a> ConnectionMut<'a> {
    pub(super) fn new(session: &'a mut Session, now: Instant, id: ConnectionId) -> Self {
        Self { session, now, id }
    }

    fn state(&mut self) -> Option<&mut ConnectionState> {
        self.session.connections.get_mut(&self.id).map(|connection| &mut **connection)
    }

    /// Its id.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Accepts bytes from the front of `data` and takes them from it, without copying unless it is little, or little of
    /// `data`; how many. What was accepted keeps the memory of `data` until it is acknowledged.
    /// [`Writable`](super::Event::Writable) follows when not all were taken.
    ///
    /// # Errors
    /// [`StreamError::Finished`] after [`finish`](Self::finish), [`StreamError::Closed`] when the session has ended.
    pub fn write(&mut self, data: &mut Bytes) -> Result<usize, StreamError> {
        let accepted = self.room_for(data.len())?;
        if accepted > 0 {
            let small = accepted < (data.len() / PINNED).min(LITTLE);
            let piece = data.split_to(accepted);
            self.accept(accepted, |connection| {
                if small { connection.send.push_slice(&piece) } else { connection.send.push(piece) }
            });
        }
        Ok(accepted)
    }

    /// Accepts a copy of bytes from the front of `data`; how many. As [`write`](Self::write) otherwise.
    ///
    /// # Errors
    /// [`StreamError::Finished`] after [`finish`](Self::finish), [`StreamError::Closed`] when the session has ended.
    pub fn write_slice(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        let accepted = self.room_for(data.len())?;
        if accepted > 0 {
            self.accept(accepted, |connection| connection.send.push_slice(&data[..accepted]));
        }
        Ok(accepted)
    }

    /// How much of `wanted` bytes is accepted now.
    fn room_for(&mut self, wanted: usize) -> Result<usize, StreamError> {
        if self.session.is_closed() {
            return Err(StreamError::Closed);
        }
        let limit = self.session.send_limit();
        let Some(connection) = self.state() else { return Ok(0) };
        if connection.send.finishing {
            return Err(StreamError::Finished);
        }
        let room = limit.saturating_sub(connection.send.queued());
        let queued = connection.send.queued();
        let accepted = self.session.memory_to_send(room.min(wanted as u64), queued);
        // At most what was wanted, which is a usize.
        let accepted = accepted as usize;
        if let Some(connection) = self.state() {
            connection.send.writer_waits = accepted < wanted;
        }
        Ok(accepted)
    }

    fn accept(&mut self, accepted: usize, push: impl FnOnce(&mut ConnectionState)) {
        let now = self.now;
        if let Some(connection) = self.state() {
            push(connection);
            connection.active_at = now;
        }
        self.session.queued += accepted as u64;
        self.session.data_queued(self.id);
    }

    /// The next bytes, at most `most`, as a slice of the buffer that they arrived in.
    /// [`Readable`](super::Event::Readable) follows [`Read::Pending`].
    pub fn read(&mut self, most: usize) -> Read {
        let (now, round_trip) = (self.now, self.session.round_trip);
        let Some(connection) = self.session.connections.get_mut(&self.id) else { return Read::Pending };
        if most == 0 {
            return Read::Pending;
        }
        let (data, consumed) = connection.receive.read(most);
        connection.read_at = now;
        let result = match data {
            Some(data) => Read::Data(data),
            None if connection.receive.is_at_end() => Read::Finished,
            None => {
                connection.receive.reader_waits = true;
                Read::Pending
            }
        };
        if consumed > 0 {
            self.session.account.consume_from(now, round_trip, &mut connection.receive, consumed);
            if connection.receive.credit_due {
                self.session.queue_control(self.id);
            }
            self.session.flush_account();
        }
        result
    }

    /// No more will be written. What was accepted is still sent; [`Acknowledged`](super::Event::Acknowledged)
    /// follows when the other end holds all of it.
    pub fn finish(&mut self) {
        self.session.finish(self.id);
    }

    /// Whether [`finish`](Self::finish) was called and everything is held by the other end.
    pub fn is_acknowledged(&self) -> bool {
        self.session.connections.get(&self.id).is_some_and(|connection| connection.is_acknowledged())
    }

    /// Ends both directions at once; what was accepted and not delivered is lost. No event follows, and the
    /// id is no longer known.
    pub fn reset(self, code: ResetCode) {
        self.session.reset_connection(self.now, self.id, code);
    }

    /// The program dropped the connection: accepted bytes are still sent, then Finish, as with a kernel
    /// socket. Data that nobody will read is answered with a Reset once all that is acknowledged. No event
    /// follows, and the id is no longer known.
    pub fn release(self) {
        let (session, id, now) = (self.session, self.id, self.now);
        if session.is_closed() {
            session.connections.remove(&id);
            return;
        }
        if let Some(connection) = session.connections.get_mut(&id) {
            connection.released = true;
            connection.discarded |= connection.receive.has_unread();
        }
        session.finish(id);
        session.discard(now, id);
        session.forget_if_over(id);
    }

    /// Answers the other end's Connect. After an error the connection ends, and the id is no longer known.
    /// A second answer, and one to a connection of this end, change nothing. A good one to an opener that has sent
    /// something, and so need not wait for it, goes with what is sent next, or alone after 5 ms.
    pub fn connected(self, result: Result<(), DialError>) {
        let (session, id, now) = (self.session, self.id, self.now);
        let Some(connection) = session.connections.get_mut(&id) else { return };
        if connection.ours || connection.dial.is_some() {
            return;
        }
        connection.dial = Some(result);
        connection.connected.due();
        if session.ended.is_some() {
            // Nobody is left to answer; what arrived whole can still be read, unless it is refused.
            if result.is_err() {
                session.connections.remove(&id);
            }
            return;
        }
        if result.is_err() {
            connection.stage = Stage::Refused;
            session.queued -= connection.send.clear();
            session.release_memory();
        }
        // Who has sent something need not wait for a good answer: it goes with what is sent next.
        let waits = session.connections.get(&id).is_some_and(|it| !it.receive.any_arrived());
        if waits || result.is_err() {
            session.queue_control(id);
        } else {
            session.queue_patient_control(now, id);
        }
        session.discard(now, id);
    }

    /// The answer to this end's Connect, once it has come.
    pub fn dial_result(&self) -> Option<Result<(), DialError>> {
        self.session.connections.get(&self.id).and_then(|connection| connection.dial)
    }

    /// Queues a datagram of at most [`MAX_PAYLOAD`] bytes to `address`, at most [`MAX_DESTINATION`] bytes.
    /// When the queue is full its oldest is dropped; where all of the session hold as much as they may, or there is no
    /// memory, this one is. False if this one or another was dropped.
    pub fn send_datagram(&mut self, address: Bytes, payload: Bytes) -> bool {
        if address.len() > MAX_DESTINATION || payload.len() > MAX_PAYLOAD {
            return false;
        }
        let id = self.id;
        if self.session.is_closed() {
            return false;
        }
        let datagram = Datagram { connection: id, address, payload };
        let more = cost(&datagram);
        if self.session.datagrams_held + more > MOST_HELD || !self.session.memory_for(more as u64) {
            self.session.counters.datagrams_dropped += 1;
            return false;
        }
        let Some(connection) = self.state() else { return false };
        let datagrams = connection.datagrams.get_or_insert_with(Default::default);
        let (empty, before) = (!datagrams.has_outgoing(), datagrams.outgoing.bytes());
        let dropped = datagrams.outgoing.push(datagram);
        let after = datagrams.outgoing.bytes();
        self.session.datagrams_held = self.session.datagrams_held - before + after;
        if empty {
            self.session.schedule.datagrams.push_back(id);
        }
        self.session.counters.datagrams_dropped += dropped as u64;
        self.session.wake_one();
        dropped == 0
    }

    /// Takes the oldest datagram that arrived. [`Datagram`](super::Event::Datagram) follows `None`.
    pub fn recv_datagram(&mut self) -> Option<Datagram> {
        let datagrams: &mut Datagrams = self.state()?.datagrams.get_or_insert_with(Default::default);
        let datagram = datagrams.incoming.pop();
        datagrams.reader_waits = datagram.is_none();
        if !self.session.is_closed()
            && let Some(datagram) = &datagram
        {
            self.session.datagrams_held -= cost(datagram);
            self.session.release_memory();
        }
        datagram
    }
}

impl Session {
    /// What a connection may have queued: `send_buffer` and twice what the tunnels hold, so that none runs dry,
    /// but not more than is left of the session's `send_queue`, which shares itself out that way (the
    /// dynamic threshold of Choudhury and Hahne, 1998).
    pub(super) fn send_limit(&self) -> u64 {
        let wanted = self.config.send_buffer + 2 * self.held_bytes.min(self.config.send_budget);
        let left = self.config.send_queue.saturating_sub(self.queued);
        wanted.min(left.max(MIN_SEND_BUFFER))
    }

    fn finish(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.stage != Stage::Open || connection.send.finishing || self.ended.is_some() {
            return;
        }
        connection.send.finishing = true;
        if connection.send.queued() == 0 {
            connection.send.finish.due();
            self.queue_control(id);
        }
    }

    /// Throws away what arrived for a connection that nobody reads, and gives its credit back to the session.
    /// Once its own Finish is acknowledged, data that nobody read is answered with a Reset.
    pub(super) fn discard(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if !connection.discards() {
            return;
        }
        let mut consumed = 0;
        loop {
            let (data, charge) = connection.receive.read(usize::MAX);
            consumed += charge;
            if data.is_none() {
                break;
            }
            connection.discarded = true;
        }
        if consumed > 0 {
            // Credit goes on, though nobody reads: the other end may have dropped it as well, and answers with a Reset
            // only when all that it had queued is acknowledged.
            self.account.consume_from(now, self.round_trip, &mut connection.receive, consumed);
            self.queue_control(id);
            self.flush_account();
        }
        let Some(connection) = self.connections.get(&id) else { return };
        if connection.released && connection.discarded && connection.is_acknowledged() {
            self.reset_connection(now, id, ResetCode::NO_READER);
        }
    }
}
