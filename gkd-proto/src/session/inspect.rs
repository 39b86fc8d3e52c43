//! The session as explorers and tests look at it: whether two are alike, and what remains. What must always hold
//! stands in `invariants`.

use std::hash::{Hash, Hasher};
use std::time::Instant;

use super::Session;
use crate::id::TunnelId;

impl Session {
    /// Whether what of control waits has its time, so that no tunnel need be named for a good answer.
    #[doc(hidden)]
    pub fn is_patient(&self) -> bool {
        self.patience_ends_at().is_some()
    }

    /// Feeds what decides what this session will do to `to`: two that feed the same behave alike. Times count as
    /// they are, so two that differ in nothing but the time are not alike.
    ///
    /// Left out are the statistics, and what was measured of a tunnel's path beyond when it is to be suspected:
    /// that chooses which tunnel is named first and how large a packet is cut. Events are taken before.
    #[doc(hidden)]
    pub fn fingerprint(&self, to: &mut impl Hasher) {
        // Every field is named, so that a new one has to say here whether it counts.
        #[rustfmt::skip]
        let Self {
            config: _, side: _, id: _, random, peer, boot, ended,
            tunnels, dead, dialing, abandoned, next_tunnel, seen_tunnels, no_tunnel_since, stalled_told, patient_until: _, patient, round_trip,
            connections, opened, opened_live, accepted_live, unseen_opened, seen,
            schedule, session_control, drain, drain_reason, draining_there, told_drained, send_credit,
            queued, held_bytes, held_packets, memory,
            account, datagrams_held, events: _, poll_list, next_sweep, counters: _,
            taken: _, acknowledged: _,
        } = self;
        (
            random,
            peer,
            boot,
            ended,
            no_tunnel_since,
            stalled_told,
            self.patience_ends_at().map(|until| (until, patient)),
            round_trip,
            next_sweep,
            poll_list,
        )
            .hash(to);
        (tunnels, dead, dialing, abandoned, next_tunnel, seen_tunnels).hash(to);
        (opened, opened_live, accepted_live, unseen_opened, seen).hash(to);
        (schedule, session_control, drain, drain_reason, draining_there, told_drained).hash(to);
        (send_credit, queued, held_bytes, held_packets, memory, account, datagrams_held).hash(to);
        let mut connections: Vec<_> = connections.iter().collect();
        connections.sort_unstable_by_key(|(id, _)| **id);
        connections.hash(to);
    }

    /// False only if [`poll_transmit`](Self::poll_transmit) would find nothing for `tunnel`.
    #[doc(hidden)]
    pub fn may_transmit(&self, now: Instant, tunnel: TunnelId) -> bool {
        let due = |id: &TunnelId, state: &super::Tunnel| {
            let answers = state.ack_due || state.pong_due.is_some() || state.ping_due;
            (*id == tunnel && answers) || state.ack_overdue(now)
        };
        self.is_closed()
            || self.has_work_for(now, tunnel)
            || self.tunnels.iter().any(|(id, state)| due(id, state))
    }

    /// Tunnels that are neither up nor settled: dead ones, and dials without an answer.
    #[doc(hidden)]
    pub fn unsettled_tunnels(&self) -> usize {
        self.dead.len() + self.dialing.len() + self.abandoned.len()
    }
}
