//! What the other end sends, and what of it the program must get: the content of every packet follows from its
//! connection and number, so that it need not be kept.

use std::collections::{BTreeMap, BTreeSet};

use ::bytes::Bytes;
use gkd_proto::credit::charge;
use gkd_proto::id::{ConnectionId, PacketNumber};
use gkd_proto::packet::{Data, Finish, MAX_PAYLOAD, Packet};

use crate::input::Input;

/// Lengths of payloads: none, small, some segments, and large enough to use up a window in a few packets.
const SIZES: [usize; 8] = [0, 1, 3, 100, 1400, 16 * 1024, 40_000, MAX_PAYLOAD];

/// What was sent to the session.
pub(super) struct Sent {
    /// The lengths of a connection's packets, in turn.
    lengths: [usize; 4],
    directions: BTreeMap<ConnectionId, Direction>,
}

/// One connection's direction towards the session.
#[derive(Default)]
pub(super) struct Direction {
    numbers: BTreeSet<u64>,
    payload: u64,
    pub(super) finished: BTreeSet<u64>,
    /// Something else was sent under a number: either may be read.
    other: bool,
    /// How far the program has read: the number, and the bytes of its packet.
    read: (u64, usize),
}

impl Direction {
    /// The next number.
    pub(super) fn next(&self) -> u64 {
        self.numbers.last().map_or(0, |last| last + 1)
    }

    /// The charge that an honest end would tell.
    pub(super) fn charge(&self) -> u64 {
        let packets = self.next().max(self.finished.last().copied().unwrap_or(0));
        packets.saturating_mul(charge(0)).saturating_add(self.payload)
    }
}

impl Sent {
    pub(super) fn new(input: &mut Input<'_>) -> Self {
        let (first, second) = (input.byte(), input.byte());
        let lengths = [first, first >> 4, second, second >> 4].map(|choice| SIZES[usize::from(choice % 8)]);
        Self { lengths, directions: BTreeMap::new() }
    }

    pub(super) fn direction(&mut self, connection: ConnectionId) -> &mut Direction {
        self.directions.entry(connection).or_default()
    }

    fn length(&self, number: u64) -> usize {
        self.lengths[(number % 4) as usize]
    }

    /// The packet that belongs under a number.
    pub(super) fn data(&self, connection: ConnectionId, number: u64) -> Packet {
        let payload = Bytes::from(vec![fill(connection, number); self.length(number)]);
        Packet::Data(Data { connection, number: PacketNumber(number), payload })
    }

    /// A packet is on its way to the session.
    pub(super) fn note(&mut self, packet: &Packet) {
        match packet {
            Packet::Data(data) => {
                let number = data.number.0;
                let other = self.data(data.connection, number) != *packet;
                let direction = self.direction(data.connection);
                direction.other |= other;
                if direction.numbers.insert(number) {
                    direction.payload += data.payload.len() as u64;
                }
            }
            Packet::Finish(Finish { connection, number }) => {
                self.direction(*connection).finished.insert(number.0);
            }
            _ => {}
        }
    }

    /// The program has read this.
    pub(super) fn check(&mut self, connection: ConnectionId, read: &[u8]) {
        let lengths = self.lengths;
        let direction = self.direction(connection);
        if direction.other {
            return;
        }
        let (mut number, mut offset) = direction.read;
        for byte in read {
            while offset == lengths[(number % 4) as usize] {
                (number, offset) = (number + 1, 0);
            }
            assert!(direction.numbers.contains(&number), "{connection}: what was never sent");
            assert_eq!(*byte, fill(connection, number), "{connection}: packet {number} at {offset}");
            offset += 1;
        }
        direction.read = (number, offset);
    }

    /// The program has read the end.
    pub(super) fn check_end(&mut self, connection: ConnectionId) {
        let lengths = self.lengths;
        let direction = self.direction(connection);
        let (mut number, mut offset) = direction.read;
        let ends = |number: u64, offset: usize| offset == lengths[(number % 4) as usize];
        while !direction.other && !direction.finished.contains(&number) {
            assert!(
                ends(number, offset) && direction.numbers.contains(&number),
                "{connection}: an early end"
            );
            (number, offset) = (number + 1, 0);
        }
    }
}

fn fill(connection: ConnectionId, number: u64) -> u8 {
    (connection.0.wrapping_mul(31) ^ number.wrapping_mul(7) ^ number >> 8) as u8
}
