//! What must always be true of a session, said once and looked at by tests: every sum that is kept beside what it
//! sums up, every flag beside the queue that it speaks of.

use std::collections::BTreeSet;

use super::connection::{Place, Stage};
use super::once::Once;
use super::tunnel::{Carried, ConnectionControl, SessionControl, Written};
use super::{ConnectionState, Session};
use crate::credit::OVERHEAD;
use crate::packet::MAX_PAYLOAD;

impl Session {
    /// Panics unless this session is consistent. Looks at everything that it holds: for tests.
    #[doc(hidden)]
    pub fn invariants(&self) {
        if self.is_closed() {
            return;
        }
        self.check_counts();
        self.check_tunnels();
        self.check_accounts();
        self.check_queues();
        self.check_records();
    }

    /// Panics unless nothing is left of any connection and of any dead tunnel, and the session's credit is whole.
    /// For tests, when everything was released and has had the time to settle.
    #[doc(hidden)]
    pub fn assert_at_rest(&self) {
        self.invariants();
        let states: Vec<_> = self.connections.values().map(|c| (c.id, c.stage, c.released)).collect();
        assert!(states.is_empty(), "connections that are not forgotten: {states:?}");
        if self.is_closed() {
            return;
        }
        assert!(self.dead.is_empty(), "unsettled dead tunnels: {:?}", self.dead);
        assert_eq!((self.held_bytes, self.held_packets), (0, 0), "nothing is unacknowledged");
        assert!(self.session_control.is_empty(), "{:?} is not sent", self.session_control);
        assert_eq!((self.opened_live, self.accepted_live, self.unseen_opened), (0, 0, 0));
        assert_eq!((self.queued, self.datagrams_held), (0, 0));
        assert!(self.drain.is_settled(), "Drain was not heard");
        self.account.assert_at_rest();
    }

    fn check_counts(&self) {
        let count = |which: &dyn Fn(&ConnectionState) -> bool| {
            self.connections.values().filter(|connection| which(connection)).count() as u64
        };
        assert_eq!(self.opened_live, count(&|connection| connection.ours), "connections of this end");
        assert_eq!(self.accepted_live, count(&|connection| !connection.ours), "of the other end");
        let unseen = count(&|connection| connection.ours && !connection.announced);
        assert_eq!(self.unseen_opened as u64, unseen, "connections that the other end may not have seen");
        let queued: u64 = self.connections.values().map(|connection| connection.send.queued()).sum();
        assert_eq!(self.queued, queued, "bytes that are queued");
        let datagrams = self.connections.values().filter_map(|connection| connection.datagrams.as_ref());
        let held: usize = datagrams.map(|datagrams| datagrams.bytes()).sum();
        assert_eq!(self.datagrams_held, held, "bytes of datagrams");
    }

    /// The records of what was written, and that no more payload is out than the budget and one packet.
    fn check_tunnels(&self) {
        for tunnel in self.tunnels.values() {
            let held = tunnel.in_flight.len() as u64;
            assert_eq!(tunnel.written - tunnel.acked, held, "records of tunnel {}", tunnel.id);
            assert_eq!(tunnel.in_flight_bytes, bytes(tunnel.in_flight.iter()), "on tunnel {}", tunnel.id);
            assert!(tunnel.told <= tunnel.received, "no more is told than was received");
        }
        for (id, dead) in &self.dead {
            let settled = dead.requeued && dead.counted_there.is_some();
            let held = if settled { 0 } else { dead.written - dead.acked };
            assert_eq!(held, dead.in_flight.len() as u64, "records of dead tunnel {id}");
        }
        assert_eq!(self.held_bytes, bytes(self.records()), "bytes that are held");
        assert_eq!(self.held_packets, self.records().count(), "packets that are held");
        let once = |written: &Written| match &written.carried {
            Carried::Data { connection, number, payload } => Some((*connection, *number, payload.len())),
            _ => None,
        };
        let payload: usize =
            self.records().filter_map(once).collect::<BTreeSet<_>>().iter().map(|(.., len)| len).sum();
        let bound = self.config.send_budget + MAX_PAYLOAD as u64;
        assert!(
            payload as u64 <= bound,
            "{payload} bytes of payload are unacknowledged, the bound is {bound}"
        );
    }

    fn records(&self) -> impl Iterator<Item = &Written> {
        let living = self.tunnels.values().flat_map(|tunnel| &tunnel.in_flight);
        living.chain(self.dead.values().flat_map(|dead| &dead.in_flight))
    }

    /// What was sent and the other end is not known to hold has a record on a tunnel that has not given it to the
    /// others, or waits to be sent again.
    fn check_records(&self) {
        let mut controls = BTreeSet::new();
        let mut packets = BTreeSet::new();
        for written in self.records().filter(|written| !written.elsewhere) {
            match &written.carried {
                Carried::Data { connection, number, .. } => _ = packets.insert((*connection, *number)),
                Carried::Connection(connection, control) => _ = controls.insert((*connection, *control)),
                Carried::Session(_) => {}
            }
        }
        for connection in self.connections.values() {
            let id = connection.id;
            let onces = [
                (connection.connect, ConnectionControl::Connect),
                (connection.connected, ConnectionControl::Connected),
                (connection.send.finish, ConnectionControl::Finish),
                (connection.reset, ConnectionControl::Reset),
            ];
            for (once, control) in onces {
                let lost = once == Once::Sent && !controls.contains(&(id, control));
                assert!(!lost, "{control:?} of {id} is on no tunnel");
            }
            let lost = connection.send.unacknowledged().find(|number| !packets.contains(&(id, *number)));
            assert_eq!(lost, None, "a packet of {id} is on no tunnel");
        }
    }

    /// What is unread is the sum over the connections, and no more than was granted.
    fn check_accounts(&self) {
        let shares: u64 = self.connections.values().map(|connection| connection.receive.share).sum();
        let unread: u64 = self.connections.values().map(|connection| unread(connection)).sum();
        self.account.invariants(shares, unread);
        assert!(self.memory <= self.account.memory.reserved(), "memory to send is reserved");
        for connection in self.connections.values() {
            let receive = &connection.receive;
            receive.invariants();
            let held = OVERHEAD * receive.span() as u64;
            let window = receive.window.granted().saturating_sub(receive.window.consumed());
            let counts = matches!(connection.stage, Stage::Settling { .. });
            assert!(counts || held <= window, "a ring of {held} in a window of {window}");
        }
    }

    /// What is due stands in the queue from which it is sent.
    fn check_queues(&self) {
        let control: BTreeSet<_> = self.schedule.control.iter().collect();
        let resend: BTreeSet<_> = self.schedule.resend.iter().collect();
        for connection in self.connections.values() {
            let id = connection.id;
            assert_eq!(connection.in_control_queue, control.contains(&id), "control of {id}");
            assert_eq!(connection.in_resend_queue, resend.contains(&id), "resends of {id}");
            assert!(connection.in_control_queue || !connection.has_control(), "control of {id} is lost");
            assert!(connection.in_resend_queue || !connection.send.has_resend(), "resends of {id} are lost");
            assert!(connection.place != Place::Out || !connection.has_data(), "data of {id} is forgotten");
            let finishes = connection.send.finishing && connection.send.queued() == 0;
            let waits = connection.is_sending() && finishes && connection.send.finish == Once::Idle;
            assert!(!waits, "the Finish of {id} is forgotten");
        }
        let queued = |control| self.session_control.contains(&control);
        for (tunnel, dead) in &self.dead {
            assert!(
                dead.gone != Once::Due || queued(SessionControl::Gone(*tunnel)),
                "Gone({tunnel}) is lost"
            );
        }
        assert!(!self.account.credit_due || queued(SessionControl::Credit), "the session's Credit is lost");
        assert!(self.drain != Once::Due || queued(SessionControl::Drain), "Drain is lost");
        let distinct: BTreeSet<_> = self.poll_list.iter().collect();
        assert_eq!(distinct.len(), self.poll_list.len(), "a tunnel is named twice");
    }
}

fn bytes<'a>(records: impl Iterator<Item = &'a Written>) -> u64 {
    records.map(|written| u64::from(written.size)).sum()
}

/// Charge of one connection that was implied and not given back to the session.
fn unread(connection: &ConnectionState) -> u64 {
    match connection.stage {
        Stage::Settling { total_known: true, .. } => 0,
        Stage::Settling { .. } => connection.receive.not_given_back(),
        _ => connection.receive.implied_charge() - connection.receive.window.consumed(),
    }
}
