//! The session as explorers and tests look at it: whether two are alike, what remains, what must always hold.

use std::hash::{Hash, Hasher};
use std::time::Instant;

use super::Session;
use super::connection::ConnectionState;
use super::once::Once;
use super::tunnel::{SessionControl, Written};
use crate::id::TunnelId;

impl Session {
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
            tunnels, dead, dialing, abandoned, next_tunnel, seen_tunnels, no_tunnel_since, round_trip,
            connections, opened, opened_live, accepted_live, unseen_opened, seen,
            schedule, session_control, drain, drain_reason, draining_there, told_drained, send_credit,
            queued, held_bytes, held_packets, send_memory,
            account, datagrams_held, events: _, poll_list, next_sweep, counters: _,
            taken: _, acknowledged: _,
        } = self;
        (random, peer, boot, ended, no_tunnel_since, round_trip, next_sweep, poll_list).hash(to);
        (tunnels, dead, dialing, abandoned, next_tunnel, seen_tunnels).hash(to);
        (opened, opened_live, accepted_live, unseen_opened, seen).hash(to);
        (schedule, session_control, drain, drain_reason, draining_there, told_drained).hash(to);
        (send_credit, queued, held_bytes, held_packets, send_memory, account, datagrams_held).hash(to);
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
        self.is_closed() || self.has_work_for(tunnel) || self.tunnels.iter().any(|(id, state)| due(id, state))
    }

    /// Tunnels that are neither up nor settled: dead ones, and dials without an answer.
    #[doc(hidden)]
    pub fn unsettled_tunnels(&self) -> usize {
        self.dead.len() + self.dialing.len() + self.abandoned.len()
    }

    /// Panics unless the session's sums are those of its parts and whatever is due is queued. Looks at
    /// everything: for tests.
    #[doc(hidden)]
    pub fn invariants(&self) {
        if self.is_closed() {
            return;
        }
        self.assert_held();
        let queued: u64 = self.connections.values().map(|connection| connection.send.queued()).sum();
        assert_eq!(self.queued, queued, "bytes queued");
        let ours = self.connections.values().filter(|connection| connection.ours).count() as u64;
        let theirs = self.connections.len() as u64 - ours;
        assert_eq!((self.opened_live, self.accepted_live), (ours, theirs), "connections of either end");
        assert!(self.account.implied() <= self.account.granted(), "charged beyond the session's credit");
        let queued = |control| self.session_control.contains(&control);
        for (tunnel, dead) in &self.dead {
            assert!(dead.gone != Once::Due || queued(SessionControl::Gone(*tunnel)), "Gone({tunnel}) waits");
        }
        assert!(!self.account.credit_due || queued(SessionControl::Credit), "the session's Credit waits");
        assert!(self.drain != Once::Due || queued(SessionControl::Drain), "Drain waits");
        self.connections.values().for_each(|connection| self.assert_queued(connection));
    }

    /// What is written and not acknowledged is what the tunnels, up or dead, hold records of.
    fn assert_held(&self) {
        let bytes = |records: &mut dyn Iterator<Item = &Written>| -> u64 {
            records.map(|written| u64::from(written.size)).sum()
        };
        for (id, tunnel) in &self.tunnels {
            let records = tunnel.in_flight.len() as u64;
            assert_eq!(tunnel.written - tunnel.acked, records, "records of tunnel {id}");
            assert_eq!(tunnel.in_flight_bytes, bytes(&mut tunnel.in_flight.iter()), "bytes on tunnel {id}");
        }
        for (id, dead) in &self.dead {
            let records = dead.in_flight.len() as u64;
            let released = dead.requeued && dead.counted_there.is_some() && records == 0;
            assert!(released || dead.written - dead.acked == records, "records of dead tunnel {id}");
        }
        let living = self.tunnels.values().flat_map(|tunnel| &tunnel.in_flight);
        let mut held = living.chain(self.dead.values().flat_map(|dead| &dead.in_flight));
        assert_eq!(self.held_bytes, bytes(&mut held), "bytes not acknowledged");
        let living: usize = self.tunnels.values().map(|tunnel| tunnel.in_flight.len()).sum();
        let dead: usize = self.dead.values().map(|dead| dead.in_flight.len()).sum();
        assert_eq!(self.held_packets, living + dead, "packets not acknowledged");
    }

    /// What a connection has to send stands in its queues.
    fn assert_queued(&self, connection: &ConnectionState) {
        let id = connection.id;
        let times =
            |queue: &std::collections::VecDeque<_>| queue.iter().filter(|other| **other == id).count();
        let control = times(&self.schedule.control);
        assert_eq!(control, usize::from(connection.in_control_queue), "{id} in the queue of control");
        assert!(control > 0 || !connection.has_control(), "a control packet of {id} waits");
        let resend = times(&self.schedule.resend);
        assert_eq!(resend, usize::from(connection.in_resend_queue), "{id} in the queue of resends");
        assert!(resend > 0 || !connection.send.has_resend(), "a packet of {id} waits to be sent again");
    }
}
