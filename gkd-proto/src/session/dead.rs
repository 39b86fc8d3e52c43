//! Tunnels that are dead and not yet settled: what of them arrived here, which the other end must hear, and
//! what of theirs arrived there, which this end must hear.

use std::collections::VecDeque;

use super::once::Once;
use super::tunnel::Written;
use crate::id::TunnelId;

/// The most tunnels that may be dead and unsettled.
pub(super) const MOST_DEAD: usize = crate::handshake::MAX_DEAD_TUNNELS;

/// Client: a tunnel whose Hello is out and whose Welcome has not come.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Dialing {
    /// The tunnels that never came up, of which its Hello tells.
    pub(super) abandoned: Vec<TunnelId>,
    /// The server said Leave before its Welcome arrived.
    pub(super) left: bool,
}

/// A dead tunnel.
#[derive(Clone, Debug, Hash)]
pub(super) struct DeadTunnel {
    /// Counted packets that arrived here; frozen.
    pub(super) received: u64,
    /// Whether the other end has heard `received`.
    pub(super) gone: Once,
    /// Counted packets that were written, and how many of them are acknowledged.
    pub(super) written: u64,
    pub(super) acked: u64,
    /// What of them is not acknowledged, in order.
    pub(super) in_flight: VecDeque<Written>,
    /// It was given to the other tunnels.
    pub(super) requeued: bool,
    /// The other end's frozen count, once it is known.
    pub(super) counted_there: Option<u64>,
}

impl DeadTunnel {
    /// Each end knows the other's count.
    pub(super) fn is_settled(&self) -> bool {
        self.counted_there.is_some() && self.gone == Once::Acked
    }

    /// Takes from the front what the other end counted up to `count`. Costs as much as that is, whatever is left.
    pub(super) fn take_acked(&mut self, count: u64) -> Vec<Written> {
        let newly = count.saturating_sub(self.acked).min(self.in_flight.len() as u64);
        self.acked = self.acked.max(count);
        self.in_flight.drain(..newly as usize).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use bytes::Bytes;

    use super::*;
    use crate::id::{ConnectionId, PacketNumber};
    use crate::session::tunnel::{Carried, Tunnel};

    /// Each acknowledgement would cost the length of the rest otherwise, and a peer may send one for each packet.
    #[test]
    fn what_is_not_acknowledged_yet_stays_where_it_is() {
        const PACKETS: u64 = 1000;
        let now = Instant::now();
        let mut tunnel = Tunnel::new(now, TunnelId(0));
        for number in 0..PACKETS {
            let number = PacketNumber(number);
            tunnel.record(
                now,
                Carried::Data { connection: ConnectionId(1), number, payload: Bytes::new() },
                10,
            );
        }
        let Tunnel { written, in_flight, .. } = tunnel;
        let mut dead = DeadTunnel {
            received: 0,
            gone: Once::Due,
            written,
            acked: 0,
            in_flight,
            requeued: true,
            counted_there: None,
        };
        let last = dead.in_flight.back().map(std::ptr::from_ref);
        for count in 1..PACKETS {
            assert_eq!(dead.take_acked(count).len(), 1);
            assert_eq!(dead.in_flight.len() as u64, PACKETS - count);
            assert_eq!(dead.in_flight.back().map(std::ptr::from_ref), last, "after {count}");
        }
        assert_eq!(dead.take_acked(PACKETS - 1).len(), 0);
        assert_eq!(dead.take_acked(u64::MAX).len(), 1);
        assert!(dead.in_flight.is_empty());
    }
}
