//! The reorder buffer of a connection, made when it is first needed ([`Ring`]): most connections never hold a packet that
//! is not next, and a number is all that is to be known of them.

use bytes::Bytes;

use crate::id::PacketNumber;
use crate::reorder::{Inserted, MAX_LIMIT, ReorderBuffer};

/// A [`ReorderBuffer`], or the number that is next of one that was not needed yet.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Ring {
    /// While there is no buffer.
    next: PacketNumber,
    buffer: Option<Box<ReorderBuffer<Bytes>>>,
}

impl Ring {
    /// The number that is delivered next.
    pub(super) fn next(&self) -> PacketNumber {
        self.buffer.as_ref().map_or(self.next, |buffer| buffer.next())
    }

    /// As [`ReorderBuffer::deliver`].
    pub(super) fn deliver(&mut self, number: PacketNumber) -> bool {
        match &mut self.buffer {
            Some(buffer) => buffer.deliver(number),
            None if number == self.next => {
                self.next = number.next();
                true
            }
            None => false,
        }
    }

    /// As [`ReorderBuffer::insert`]. What bounds the span is the credit.
    pub(super) fn insert(&mut self, number: PacketNumber, payload: Bytes) -> Inserted<Bytes> {
        let make = || Box::new(ReorderBuffer::starting_at(self.next, MAX_LIMIT));
        self.buffer.get_or_insert_with(make).insert(number, payload)
    }

    /// As [`ReorderBuffer::pop`].
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        self.buffer.as_mut()?.pop()
    }

    /// Whether something can be popped.
    pub(super) fn readable(&self) -> bool {
        self.buffer.as_ref().is_some_and(|buffer| buffer.readable())
    }

    /// How many packets are held.
    pub(super) fn len(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len())
    }

    /// How many packets wait for one before them.
    pub(super) fn held_out_of_order(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.held_out_of_order())
    }

    /// From the next number to the highest that is held.
    pub(super) fn span(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.span())
    }

    /// What is held of this number.
    pub(super) fn get(&self, number: PacketNumber) -> Option<&Bytes> {
        self.buffer.as_ref()?.get(number)
    }

    /// The same, to be replaced.
    pub(super) fn get_mut(&mut self, number: PacketNumber) -> Option<&mut Bytes> {
        self.buffer.as_mut()?.get_mut(number)
    }

    /// Everything that is held.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Bytes> {
        self.buffer.iter_mut().flat_map(|buffer| buffer.values_mut())
    }

    /// Drops everything. The numbers count as never arrived.
    pub(super) fn clear(&mut self) {
        self.next = self.next();
        self.buffer = None;
    }

    /// Releases what is not needed for what is held.
    pub(super) fn shrink(&mut self) {
        match &mut self.buffer {
            Some(buffer) if !buffer.is_empty() => buffer.shrink(),
            _ => self.clear(),
        }
    }

    /// Panics unless it is consistent. For tests.
    pub(super) fn invariants(&self) {
        if let Some(buffer) = &self.buffer {
            buffer.invariants();
        }
    }
}
