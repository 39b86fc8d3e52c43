//! Figures of a session, for people and for benchmarks.

use std::time::Duration;

use super::Session;
use crate::id::TunnelId;

/// Figures of a session since its beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStats {
    /// One entry for each tunnel that is up, in the order of their ids.
    pub tunnels: Vec<TunnelStats>,
    /// Connections that are not forgotten.
    pub connections: usize,
    /// Data packets received, each once.
    pub data_received: u64,
    /// Those of them that arrived behind a missing one.
    pub out_of_order: u64,
    /// Data packets that arrived again and were dropped.
    pub duplicates: u64,
    /// Data packets sent again because their tunnel died, was suspect or late.
    pub resent: u64,
    /// Bytes of packets that were given to an idle tunnel as well because theirs was late: a fiftieth of what was sent
    /// at the most, and 64 KiB.
    pub repeated: u64,
    /// The most packets that one connection held at a time, read or not.
    pub reorder_depth: u64,
    /// Payload bytes sent, each once.
    pub payload_sent: u64,
    /// Payload bytes received, each once.
    pub payload_received: u64,
    /// Connections of the other end that were reset as busy, being more than it may have.
    pub refused: u64,
    /// Datagrams that were dropped because a queue was full.
    pub datagrams_dropped: u64,
    /// How often a tunnel became suspect.
    pub suspicions: u64,
    /// Tunnels that died.
    pub tunnels_lost: u64,
    /// Bytes accepted from programs and not sent yet.
    pub queued: u64,
    /// Something waits for a tunnel to take it, and has the credit to be sent.
    pub backlog: bool,
    /// Bytes sent and not acknowledged.
    pub in_flight: u64,
    /// Charge that was received and not read.
    pub unread: u64,
    /// Charge of all that this end sent.
    pub charged: u64,
    /// Charge of all that the other end sent, as far as it is known: what arrived, and what Resets told. It
    /// equals the other end's `charged` when nothing is on the way.
    pub charged_there: u64,
    /// What all connections together may still send, in charge.
    pub credit: u64,
    /// What is reserved of the process's memory, in bytes.
    pub memory: u64,
}

/// Figures of one tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TunnelStats {
    /// Which.
    pub tunnel: TunnelId,
    /// The larger of the kernel's round trip and the recent minimum of our own.
    pub round_trip: Option<Duration>,
    /// The largest delivery rate of the last seconds, in bytes per second.
    pub rate: Option<u64>,
    /// Bytes of counted packets that are not acknowledged.
    pub in_flight: u64,
    /// Bytes that its socket holds and has not sent, as the kernel told last; none where it tells nothing.
    pub unsent: Option<u64>,
    /// Bytes that its socket sent and the first hop did not acknowledge, as the kernel told last.
    pub unacknowledged: Option<u64>,
    /// Bytes written in all.
    pub sent: u64,
    /// Bytes received in all.
    pub received: u64,
    /// Data packets that it carried again, because the tunnel that had them first died, was suspect or late.
    pub resent: u64,
    /// It gets no packets, because it stopped acknowledging while others went on.
    pub suspect: bool,
}

/// What is counted where it happens.
#[derive(Clone, Debug, Default)]
pub(super) struct Counters {
    pub(super) data_received: u64,
    pub(super) out_of_order: u64,
    pub(super) duplicates: u64,
    pub(super) resent: u64,
    pub(super) repeated: u64,
    pub(super) reorder_depth: u64,
    pub(super) payload_sent: u64,
    pub(super) payload_received: u64,
    pub(super) refused: u64,
    pub(super) datagrams_dropped: u64,
    pub(super) suspicions: u64,
    pub(super) tunnels_lost: u64,
}

impl Session {
    /// Connections of the other end that were reset as busy: [`SessionStats::refused`] alone, for a driver that looks
    /// often.
    pub fn refused(&self) -> u64 {
        self.counters.refused
    }

    /// Packets that wait behind a missing one now, of all connections. Not among the [`stats`](Self::stats), which are
    /// asked for often: it takes time in proportion to the number of connections.
    pub fn held_out_of_order(&self) -> usize {
        self.connections.values().map(|connection| connection.receive.held_out_of_order()).sum()
    }

    /// Figures since the beginning. Takes time in proportion to the number of tunnels.
    pub fn stats(&self) -> SessionStats {
        let tunnels = self.tunnels.values().map(|tunnel| TunnelStats {
            tunnel: tunnel.id,
            round_trip: tunnel.estimate.round_trip(),
            rate: tunnel.estimate.rate.get(),
            in_flight: tunnel.in_flight_bytes,
            unsent: tunnel.estimate.kernel.unsent,
            unacknowledged: tunnel.estimate.kernel.unacknowledged,
            sent: tunnel.bytes_sent,
            received: tunnel.bytes_received,
            resent: tunnel.resent,
            suspect: tunnel.suspect,
        });
        let counters = &self.counters;
        SessionStats {
            tunnels: tunnels.collect(),
            connections: self.connections.len(),
            data_received: counters.data_received,
            out_of_order: counters.out_of_order,
            duplicates: counters.duplicates,
            resent: counters.resent,
            repeated: counters.repeated,
            reorder_depth: counters.reorder_depth,
            payload_sent: counters.payload_sent,
            payload_received: counters.payload_received,
            refused: counters.refused,
            datagrams_dropped: counters.datagrams_dropped,
            suspicions: counters.suspicions,
            tunnels_lost: counters.tunnels_lost,
            queued: self.queued,
            backlog: self.schedule.has_data(),
            in_flight: self.held_bytes,
            unread: self.account.unread(),
            charged: self.send_credit.charged(),
            charged_there: self.account.implied(),
            credit: self.send_credit.available(),
            memory: self.account.memory.reserved(),
        }
    }
}
