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

    /// Takes from the front what the other end counted up to `count`.
    pub(super) fn take_acked(&mut self, count: u64) -> VecDeque<Written> {
        let newly = count.saturating_sub(self.acked).min(self.in_flight.len() as u64);
        self.acked = self.acked.max(count);
        let rest = self.in_flight.split_off(newly as usize);
        std::mem::replace(&mut self.in_flight, rest)
    }
}
