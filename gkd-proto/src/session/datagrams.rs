//! The datagrams of one connection: bounded queues that drop their oldest.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::packet::Datagram;

/// The most datagrams that wait in one direction.
const MOST: usize = 256;
/// The most bytes that they hold together, a fixed cost of each included.
const MOST_BYTES: usize = 256 * 1024;
/// The most that all connections of a session hold together of datagrams, in both directions, in bytes: they are not
/// charged, so no credit bounds them.
pub(super) const MOST_HELD: usize = 8 * 1024 * 1024;
/// What a datagram costs beside its bytes.
const OVERHEAD: usize = 128;

/// The two queues of a connection that has used datagrams.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Datagrams {
    pub(super) outgoing: Queue,
    pub(super) incoming: Queue,
    /// The program looked and found none.
    pub(super) reader_waits: bool,
}

impl Datagrams {
    /// What both queues hold, the fixed cost of each datagram included.
    pub(super) fn bytes(&self) -> usize {
        self.outgoing.bytes + self.incoming.bytes
    }

    pub(super) fn has_outgoing(&self) -> bool {
        !self.outgoing.items.is_empty()
    }
}

/// One direction.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Queue {
    items: VecDeque<Datagram>,
    bytes: usize,
}

impl Queue {
    /// Appends a datagram; how many of the oldest had to go for it.
    pub(super) fn push(&mut self, datagram: Datagram) -> usize {
        self.bytes += cost(&datagram);
        self.items.push_back(datagram);
        let mut dropped = 0;
        while self.items.len() > MOST || (self.bytes > MOST_BYTES && self.items.len() > 1) {
            self.pop();
            dropped += 1;
        }
        dropped
    }

    /// What is queued, the fixed cost of each included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn pop(&mut self) -> Option<Datagram> {
        let datagram = self.items.pop_front()?;
        self.bytes -= cost(&datagram);
        Some(datagram)
    }
}

/// What a datagram counts for in a queue.
pub(super) fn cost(datagram: &Datagram) -> usize {
    datagram.payload.len() + datagram.address.len() + OVERHEAD
}

/// A copy that does not hold the read buffer that it arrived in.
pub(super) fn detached(datagram: Datagram) -> Datagram {
    Datagram {
        connection: datagram.connection,
        address: Bytes::copy_from_slice(&datagram.address),
        payload: Bytes::copy_from_slice(&datagram.payload),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ConnectionId;

    #[test]
    fn a_full_queue_drops_its_oldest() {
        let mut queue = Queue::default();
        let datagram = |size: usize| Datagram {
            connection: ConnectionId(1),
            address: Bytes::new(),
            payload: Bytes::from(vec![0; size]),
        };
        assert_eq!((0..MOST).map(|_| queue.push(datagram(1))).sum::<usize>(), 0);
        assert_eq!(queue.push(datagram(2)), 1);
        assert_eq!(queue.push(datagram(65_507)), 1);
        assert!(queue.push(datagram(65_507)) == 1 && queue.bytes <= MOST_BYTES);
        let mut sizes = Vec::new();
        while let Some(datagram) = queue.pop() {
            sizes.push(datagram.payload.len());
        }
        assert_eq!((sizes.len(), sizes[0], sizes[MOST - 1], queue.bytes), (MOST, 1, 65_507, 0));
    }
}
