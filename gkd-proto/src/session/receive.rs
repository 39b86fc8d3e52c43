//! The receiving direction of a connection: packets put back in order, and the account of what they cost.

use bytes::Bytes;

use super::ring::Ring;
use crate::credit::{OVERHEAD, ReceiveWindow, charge};
use crate::error::Violation;
use crate::id::{ConnectionId, PacketNumber};
use crate::packet::Data;
use crate::reorder::Inserted;

/// One direction of a connection, at its receiver.
#[derive(Clone, Debug, Hash)]
pub(super) struct ReceiveHalf {
    /// Packets that were not read, behind a hole or not.
    ring: Ring,
    /// The packet before the ring's, or what a short read left of it, and its charge.
    rest: Bytes,
    rest_charge: u64,
    /// One above the highest number seen: every number below it was charged, arrived or not.
    implied_packets: u64,
    /// Payload that arrived, each packet once.
    payload: u64,
    /// Where the sequence ends, once that is known.
    finish: Option<PacketNumber>,
    pub(super) window: ReceiveWindow,
    /// What of the session's window counts as taken by this connection; kept by the session's account.
    pub(super) share: u64,
    /// A read found nothing: the program waits.
    pub(super) reader_waits: bool,
    /// The sender waits for credit, and something was unread when it said so.
    pub(super) sender_waits: bool,
    /// Credit is to be told.
    pub(super) credit_due: bool,
    /// Nobody will read: what arrives is counted and not kept.
    counting: bool,
    /// While counting: the charge that was given back to the session.
    given_back: u64,
}

/// What became of a Data packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It can be read now.
    InOrder,
    /// It waits for one before it.
    OutOfOrder,
    /// It had arrived before.
    Duplicate,
}

impl ReceiveHalf {
    pub(super) fn new(initial_window: u64) -> Self {
        Self {
            ring: Ring::default(),
            rest: Bytes::new(),
            rest_charge: 0,
            implied_packets: 0,
            payload: 0,
            finish: None,
            window: ReceiveWindow::new(initial_window),
            share: 0,
            reader_waits: false,
            sender_waits: false,
            credit_due: false,
            counting: false,
            given_back: 0,
        }
    }

    /// The charge that what arrived implies: all payload, and the overhead of every number up to the highest.
    /// A sender has charged at least so much.
    pub(super) fn implied_charge(&self) -> u64 {
        self.payload + OVERHEAD * self.implied_packets
    }

    /// The implied charge of which nothing was consumed.
    pub(super) fn unread_charge(&self) -> u64 {
        self.implied_charge().saturating_sub(self.window.consumed())
    }

    /// Whether anything arrived.
    pub(super) fn any_arrived(&self) -> bool {
        self.implied_packets > 0
    }

    /// Takes a Data packet into the ring. An error changes nothing.
    pub(super) fn insert(&mut self, data: Data) -> Result<Arrival, Violation> {
        let Data { connection, number, payload } = data;
        if let Some(held) = self.held(number) {
            let same = *held == payload || self.counting;
            return if same { Ok(Arrival::Duplicate) } else { Err(Violation::DifferentContent(connection)) };
        }
        if number < self.ring.next() {
            return Ok(Arrival::Duplicate);
        }
        if self.finish.is_some_and(|finish| number >= finish) {
            return Err(Violation::BehindFinish(connection));
        }
        let charged = self.charge_with(number, payload.len());
        let granted = self.window.granted();
        if charged > granted {
            return Err(Violation::BeyondCredit { connection, charged, granted });
        }
        self.payload += payload.len() as u64;
        self.implied_packets = self.implied_packets.max(number.0 + 1);
        let payload = if self.counting { Bytes::new() } else { payload };
        // What is next, while nothing before it is unread, needs no ring: most connections never have one.
        if self.rest.is_empty() && !payload.is_empty() && self.ring.deliver(number) {
            self.rest_charge = charge(payload.len());
            self.rest = payload;
            return Ok(Arrival::InOrder);
        }
        match self.ring.insert(number, payload) {
            Inserted::InOrder => Ok(Arrival::InOrder),
            Inserted::OutOfOrder => Ok(Arrival::OutOfOrder),
            Inserted::Duplicate(_) => Ok(Arrival::Duplicate),
            Inserted::TooFar(_) => Err(Violation::BeyondCredit { connection, charged, granted }),
        }
    }

    /// What `implied_charge` becomes with this packet; far above any credit where it would not fit.
    fn charge_with(&self, number: PacketNumber, payload: usize) -> u64 {
        let packets = self.implied_packets.max(number.0 + 1);
        packets.saturating_mul(OVERHEAD).saturating_add(self.payload).saturating_add(payload as u64)
    }

    /// The sequence ends before `number`. Whether that is news.
    pub(super) fn finish_at(
        &mut self,
        connection: ConnectionId,
        number: PacketNumber,
    ) -> Result<bool, Violation> {
        match self.finish {
            Some(finish) if finish == number => Ok(false),
            Some(_) => Err(Violation::BehindFinish(connection)),
            None if number.0 < self.implied_packets => Err(Violation::BehindFinish(connection)),
            None => {
                let charged = self.payload.saturating_add(number.0.saturating_mul(OVERHEAD));
                let granted = self.window.granted();
                if charged > granted {
                    return Err(Violation::BeyondCredit { connection, charged, granted });
                }
                self.implied_packets = number.0;
                self.finish = Some(number);
                Ok(true)
            }
        }
    }

    /// Takes at most `most` bytes that are next in order, and what has now been consumed of the charge. Empty
    /// packets are passed over.
    pub(super) fn read(&mut self, most: usize) -> (Option<Bytes>, u64) {
        let mut consumed = 0;
        while self.rest.is_empty() {
            let Some(payload) = self.ring.pop() else { return (None, consumed) };
            self.rest_charge = charge(payload.len());
            self.rest = payload;
            if self.rest.is_empty() {
                consumed += std::mem::take(&mut self.rest_charge);
            }
        }
        let data = self.rest.split_to(most.min(self.rest.len()));
        if self.rest.is_empty() {
            // The empty rest would still hold the read buffer.
            self.rest = Bytes::new();
            consumed += std::mem::take(&mut self.rest_charge);
        }
        (Some(data), consumed)
    }

    /// Something can be read now, or the end is reached.
    pub(super) fn is_readable(&self) -> bool {
        self.has_unread() || self.is_at_end()
    }

    /// Bytes in order that were not read.
    pub(super) fn has_unread(&self) -> bool {
        !self.rest.is_empty() || self.ring.readable()
    }

    /// Everything up to the Finish was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty() && self.finish == Some(self.ring.next())
    }

    /// Everything up to the Finish has arrived, read or not.
    pub(super) fn is_complete(&self) -> bool {
        self.finish.is_some_and(|finish| self.ring.next().0 + self.ring.len() as u64 == finish.0)
    }

    /// The end of the sequence is known.
    pub(super) fn is_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Packets held, in order or not.
    pub(super) fn packets_held(&self) -> usize {
        self.ring.len() + usize::from(!self.rest.is_empty())
    }

    /// Packets held that wait for a missing one.
    pub(super) fn held_out_of_order(&self) -> usize {
        self.ring.held_out_of_order()
    }

    /// The payload that is held whole under `number`.
    fn held(&self, number: PacketNumber) -> Option<&Bytes> {
        if self.is_rest(number) { Some(&self.rest) } else { self.ring.get(number) }
    }

    /// The same, to be changed in place.
    pub(super) fn held_mut(&mut self, number: PacketNumber) -> Option<&mut Bytes> {
        if self.is_rest(number) { Some(&mut self.rest) } else { self.ring.get_mut(number) }
    }

    /// `rest` is this packet, of which nothing was read.
    fn is_rest(&self, number: PacketNumber) -> bool {
        !self.rest.is_empty()
            && number.next() == self.ring.next()
            && self.rest_charge == charge(self.rest.len())
    }

    /// Drops the payloads that are held, after a reset. From here on packets are only counted, so that it shows
    /// when all have arrived: the other end may have forgotten the connection then.
    pub(super) fn count_only(&mut self) {
        self.counting = true;
        self.given_back = self.window.consumed();
        self.rest = Bytes::new();
        self.rest_charge = 0;
        self.ring.values_mut().for_each(|held| *held = Bytes::new());
    }

    /// While counting: what can now be given back of the charge. All payload, and the overhead of the packets that
    /// are in order; that of the ring's holes pays for the ring until they are filled, or the total is known.
    pub(super) fn give_back(&mut self) -> u64 {
        while self.ring.pop().is_some() {}
        let held = OVERHEAD * (self.implied_packets - self.ring.next().0);
        self.give_back_up_to(self.implied_charge() - held)
    }

    /// While counting: the total is known, everything is given back and nothing more is counted.
    pub(super) fn give_back_up_to(&mut self, total: u64) -> u64 {
        total - std::mem::replace(&mut self.given_back, total)
    }

    /// While counting: the charge that was not given back.
    pub(super) fn not_given_back(&self) -> u64 {
        self.implied_charge() - self.given_back
    }

    /// From the next number to the highest that is held: packets and holes.
    pub(super) fn span(&self) -> usize {
        self.ring.span()
    }

    /// Panics unless it is consistent. For tests.
    pub(super) fn invariants(&self) {
        self.ring.invariants();
        let rest = self.rest.is_empty() == (self.rest_charge == 0);
        assert!(rest, "the charge of {} bytes is {}", self.rest.len(), self.rest_charge);
        let end = self.finish.map_or(u64::MAX, |finish| finish.0);
        assert!(self.ring.next().0 + self.ring.span() as u64 <= end, "nothing is held behind the Finish");
    }

    /// Releases the ring.
    pub(super) fn release(&mut self) {
        self.ring.clear();
    }

    /// Gives back the memory that an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        self.window.shrink();
        self.ring.shrink();
    }
}
