//! The order of service: control, then packets to be sent again, then sparse connections, then bulk by
//! deficit round robin; and which tunnels are worth a poll when there is something new.
//!
//! Sparse and bulk are the new and old flows of FQ-CoDel (RFC 8290 §4.2): a connection that was empty gets one
//! quantum before those with a backlog, then joins them.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::connection::{ConnectionState, Place};
use super::decline::Backlog;
use super::hash::IdMap;
use super::{Session, Tunnel};
use crate::credit::{OVERHEAD, WORTHWHILE};
use crate::id::{ConnectionId, TunnelId};

/// What a connection may send before the next one's turn, in bytes; a tunnel that cuts larger packets gives
/// one of those.
const QUANTUM: u64 = 16 * 1024;

/// So many connections are looked at to see how large the backlog is.
const FEW: usize = 16;

/// What waits of a connection that has next to no backlog, in bytes: a segment or so.
const LIGHT: u64 = 1400;

/// So many connections may go before their turn until they are looked for in the queues, and half as many as these hold.
const LEAST_STALE: usize = 64;

/// Queues of connections that wait for a tunnel. Each holds an id at most once; a stale one (of a connection
/// that is forgotten or has nothing to send any more) is passed over when its turn comes, or taken out with others
/// when there are many.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Schedule {
    pub(super) control: VecDeque<ConnectionId>,
    pub(super) resend: VecDeque<ConnectionId>,
    pub(super) datagrams: VecDeque<ConnectionId>,
    sparse: VecDeque<ConnectionId>,
    bulk: VecDeque<ConnectionId>,
    /// Connections that went while they waited in the two above, since these were last looked through.
    stale: usize,
}

impl Schedule {
    /// There is, or may be, something for a tunnel that carries data.
    pub(super) fn has_data(&self) -> bool {
        !self.resend.is_empty()
            || !self.datagrams.is_empty()
            || !self.sparse.is_empty()
            || !self.bulk.is_empty()
    }

    /// A connection has data and the credit to send it. One that was not waiting and had nothing to send is
    /// sparse; one that waited for credit had its turn and is not.
    pub(super) fn enter(&mut self, connection: &mut ConnectionState, waited_for_credit: bool) {
        if connection.place != Place::Out {
            return;
        }
        if waited_for_credit {
            connection.place = Place::Bulk;
            self.bulk.push_back(connection.id);
        } else {
            connection.place = Place::Sparse;
            connection.deficit = QUANTUM as i64;
            connection.run = 0;
            self.sparse.push_back(connection.id);
        }
    }

    /// A connection goes. Its turn may never come, for want of the session's credit; so it is not waited for.
    pub(super) fn leave(
        &mut self,
        connections: &mut IdMap<ConnectionId, Box<ConnectionState>>,
        id: ConnectionId,
    ) {
        let Some(connection) = connections.get_mut(&id) else { return };
        if std::mem::take(&mut connection.place) == Place::Out {
            return;
        }
        self.stale += 1;
        if self.stale >= LEAST_STALE.max((self.sparse.len() + self.bulk.len()) / 2) {
            self.stale = 0;
            let place = |id: &ConnectionId| connections.get(id).map(|connection| connection.place);
            self.sparse.retain(|id| place(id) == Some(Place::Sparse));
            self.bulk.retain(|id| place(id) == Some(Place::Bulk));
        }
    }

    /// The sparse connection whose turn it is, which has data to send. It stays where it is: what it sends is taken
    /// from its deficit, and the next call goes on from there.
    pub(super) fn next_sparse(
        &mut self,
        connections: &mut IdMap<ConnectionId, Box<ConnectionState>>,
    ) -> Option<ConnectionId> {
        while let Some(&id) = self.sparse.front() {
            let connection = connections.get_mut(&id).filter(|connection| connection.place == Place::Sparse);
            if let Some(connection) = connection {
                if connection.has_data() && connection.deficit > 0 {
                    return Some(id);
                }
                // Also one that ran empty goes behind the bulk once, or it could stay ahead of it for ever.
                connection.place = Place::Bulk;
                self.bulk.push_back(id);
            }
            self.sparse.pop_front();
        }
        None
    }

    /// The connection with a backlog whose turn it is, likewise.
    pub(super) fn next_bulk(
        &mut self,
        connections: &mut IdMap<ConnectionId, Box<ConnectionState>>,
        packet: u64,
    ) -> Option<ConnectionId> {
        let quantum = QUANTUM.max(packet) as i64;
        while let Some(&id) = self.bulk.front() {
            let connection = connections.get_mut(&id).filter(|connection| connection.place == Place::Bulk);
            match connection {
                Some(connection) if !connection.has_data() => {
                    connection.place = Place::Out;
                    self.bulk.pop_front();
                }
                Some(connection) if connection.deficit <= 0 => {
                    // No packet is larger than five quanta, so a few rounds suffice.
                    connection.deficit += quantum;
                    self.bulk.rotate_left(1);
                }
                Some(_) => return Some(id),
                None => {
                    self.bulk.pop_front();
                }
            }
        }
        None
    }

    /// A connection that waits among those with a backlog and has next to none itself: what is typed beside a bulk
    /// transfer stands there for a turn. Looks at a few.
    pub(super) fn next_light(
        &mut self,
        connections: &mut IdMap<ConnectionId, Box<ConnectionState>>,
    ) -> Option<ConnectionId> {
        for _ in 0..FEW.min(self.bulk.len()) {
            let &id = self.bulk.front()?;
            let connection = connections.get_mut(&id).filter(|connection| connection.place == Place::Bulk);
            match connection {
                Some(connection) if connection.send.queued() == 0 => {
                    connection.place = Place::Out;
                    self.bulk.pop_front();
                }
                Some(connection) if connection.has_data() && connection.send.queued() <= LIGHT => {
                    return Some(id);
                }
                Some(_) => self.bulk.rotate_left(1),
                None => {
                    self.bulk.pop_front();
                }
            }
        }
        None
    }

    /// How many connections have a backlog.
    pub(super) fn bulk_len(&self) -> usize {
        self.bulk.len()
    }

    /// What stands in the way of a packet of bulk, itself included; [`Backlog::ENDLESS`] where more connections than
    /// [`FEW`] do.
    pub(super) fn backlog(&self, connections: &IdMap<ConnectionId, Box<ConnectionState>>) -> Backlog {
        if self.bulk.len() > FEW {
            return Backlog::ENDLESS;
        }
        let waiting = self.bulk.iter().filter_map(|id| connections.get(id)).filter(|it| it.has_data());
        waiting.fold(Backlog::default(), |sum, connection| {
            let likely = if connection.send.writer_waits { connection.run } else { 0 };
            Backlog {
                queued: sum.queued.saturating_add(connection.send.queued()),
                likely: sum.likely.saturating_add(likely),
            }
        })
    }
}

impl ConnectionState {
    /// It has data, and credit of its own that is worth using.
    pub(super) fn has_data(&self) -> bool {
        let queued = self.send.queued();
        self.is_sending() && queued > 0 && self.send.credit.available() >= OVERHEAD + queued.min(WORTHWHILE)
    }
}

impl Session {
    /// The session's credit is worth using.
    pub(super) fn has_session_credit(&self) -> bool {
        self.send_credit.available() >= OVERHEAD + WORTHWHILE
    }

    /// A connection's queue grew: it enters the schedule, or tells that it waits for credit.
    pub(super) fn data_queued(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.has_data() {
            let backlog = connection.send.queued() > QUANTUM;
            self.schedule.enter(connection, false);
            if !self.has_session_credit() {
                self.tell_session_blocked();
            }
            self.wake_for_data(backlog);
        } else {
            self.tell_if_blocked(id);
        }
    }

    /// Credit arrived: a connection with a backlog goes on.
    pub(super) fn credit_raised(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.has_data() {
            self.schedule.enter(connection, true);
            self.wake_for_data(true);
        }
    }

    /// Queues Blocked for a connection with a backlog whose credit will not last.
    pub(super) fn tell_if_blocked(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        // Before the Welcome there is no account to speak of.
        let backlog = connection.send.queued() > 0 && connection.send.credit.limit() > 0;
        if backlog && connection.is_sending() && connection.send.credit.should_tell_blocked() {
            connection.blocked_due = true;
            self.queue_control(id);
        }
    }

    // ---- which tunnels to poll ----

    /// Names one tunnel to the driver.
    pub(super) fn wake(&mut self, tunnel: TunnelId) {
        if let Some(state) = self.tunnels.get_mut(&tunnel)
            && !state.to_poll
        {
            state.to_poll = true;
            self.poll_list.push(tunnel);
        }
    }

    /// Names the tunnel that delivers something small soonest, unless one is named already or none waits. One
    /// that is full takes control packets only, so it comes last; of those that pause the one that will for longest, which
    /// has the time to run dry nevertheless.
    pub(super) fn wake_one(&mut self) {
        let every = !self.has_healthy_tunnel();
        let usable = |tunnel: &&Tunnel| tunnel.is_in_use() && (every || !tunnel.suspect);
        if self.tunnels.values().filter(usable).any(|tunnel| tunnel.to_poll && !tunnel.is_full()) {
            return;
        }
        let idle = self.tunnels.values().filter(usable).filter(|tunnel| tunnel.idle);
        let soonest = idle.min_by_key(|tunnel| {
            let pause = Reverse(tunnel.estimate.kernel.pauses);
            (tunnel.is_full(), tunnel.waits_for_others(), pause, tunnel.arrives_in(1))
        });
        if let Some((soonest, arrives_in)) = soonest.map(|tunnel| (tunnel.id, tunnel.arrives_in(1))) {
            self.wake(soonest);
            arrives_in.into_iter().for_each(|arrives_in| self.pass_over(arrives_in));
        }
    }

    /// There is data: a backlog for every tunnel that waits, else for the one that delivers it soonest.
    pub(super) fn wake_for_data(&mut self, backlog: bool) {
        if !backlog {
            return self.wake_one();
        }
        let every = !self.has_healthy_tunnel();
        for tunnel in self.tunnels.values_mut() {
            let waits = tunnel.idle && !tunnel.to_poll && tunnel.is_in_use() && !tunnel.is_full();
            if waits && (every || !tunnel.suspect) {
                tunnel.to_poll = true;
                self.poll_list.push(tunnel.id);
            }
        }
    }

    /// A tunnel that was full has room again.
    pub(super) fn wake_if_room(&mut self, tunnel: TunnelId) {
        let waits = |tunnel: &Tunnel| tunnel.idle && tunnel.is_in_use() && !tunnel.is_full();
        if self.schedule.has_data() && self.tunnels.get(&tunnel).is_some_and(waits) {
            self.wake(tunnel);
        }
    }

    /// Some tunnel in use is not suspect; else a suspect one is better than none.
    pub(super) fn has_healthy_tunnel(&self) -> bool {
        self.tunnels.values().any(|tunnel| tunnel.is_in_use() && !tunnel.suspect)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use bytes::{Buf, Bytes, BytesMut};

    use super::*;
    use crate::handshake::{Hello, Parameters, VERSION};
    use crate::id::{BootId, PacketNumber, SessionId, Side};
    use crate::packet::{Ack, Connect, Connected, Data, DialError, Packet, Reset, ResetCode};
    use crate::session::timer::PATIENT_FOR;
    use crate::{SessionConfig, Transmit};

    const TUNNEL: TunnelId = TunnelId(0);

    /// A server's session, and what its client got of it.
    struct Served {
        session: Session,
        now: Instant,
        counted: u64,
    }

    impl Served {
        fn new(parameters: Parameters) -> Self {
            let (now, id) = (Instant::now(), SessionId([2; 16]));
            let mut session = Session::new(Arc::new(SessionConfig::default()), Side::Server, id, 7, now);
            let hello = Hello {
                version: VERSION,
                session: id,
                tunnel: TUNNEL,
                exists: false,
                parameters,
                dead: Vec::new(),
            };
            session.handle_hello(now, &hello, BootId([1; 16]), false).unwrap();
            Self { session, now, counted: 0 }
        }

        fn take(&mut self, packet: Packet) {
            let mut bytes = BytesMut::new();
            packet.encode(&mut bytes);
            self.session.handle_recv(self.now, TUNNEL, &mut bytes).unwrap();
        }

        /// All that there is to send.
        fn says(&mut self) -> Vec<Packet> {
            let mut out = Transmit::new();
            while self.session.poll_transmit(self.now, TUNNEL, 64 * 1024, &mut out) {}
            let mut bytes = BytesMut::from(&out.copy_to_bytes(out.remaining())[..]);
            std::iter::from_fn(|| Packet::decode(&mut bytes).unwrap()).collect()
        }

        /// The client reads all there is, and acknowledges it.
        fn acknowledge(&mut self) {
            self.counted += self.says().iter().filter(|packet| packet.is_counted()).count() as u64;
            self.take(Packet::Ack(Ack { tunnel: TUNNEL, count: self.counted, delay: 0 }));
            while self.session.poll_event().is_some() {}
        }

        fn open(&mut self, index: u64) -> ConnectionId {
            let connection = ConnectionId::from_index(Side::Client, index);
            self.take(Packet::Connect(Connect { connection, destination: Bytes::new() }));
            connection
        }

        /// As much as is taken; how much that is.
        fn write(&mut self, connection: ConnectionId, bytes: &[u8]) -> usize {
            self.session.connection(self.now, connection).unwrap().write_slice(bytes).unwrap()
        }
    }

    /// Otherwise each connection that is opened with its first bytes costs both ends one more waking up.
    #[test]
    fn a_good_answer_that_nobody_waits_for_goes_with_what_is_sent_next() {
        let answers = [(false, Ok(())), (true, Err(DialError::Refused)), (true, Ok(()))];
        for (index, (wrote, answer)) in answers.into_iter().enumerate() {
            let mut served = Served::new(Parameters::default());
            let connection = served.open(index as u64);
            if wrote {
                let (number, payload) = (PacketNumber(0), "x".into());
                served.take(Packet::Data(Data { connection, number, payload }));
            }
            // The acknowledgement is told, so that no answer can go with that.
            served.now = served.session.poll_timeout().unwrap();
            served.session.handle_timeout(served.now);
            served.session.tunnels_to_poll();
            assert!(matches!(served.says()[..], [Packet::Ack(_)]));
            served.session.connection(served.now, connection).unwrap().connected(answer);
            if let Some(mut connection) = served.session.connection(served.now, connection) {
                // The program goes on with it.
                connection.read(100);
            }
            let waits = wrote && answer.is_ok();
            assert_eq!(served.session.tunnels_to_poll().count(), usize::from(!waits));
            if waits {
                // Nor does a tunnel take it that asks by itself.
                assert_eq!(served.says(), []);
                let due = served.now + PATIENT_FOR;
                assert_eq!(served.session.poll_timeout(), Some(due));
                served.session.handle_timeout(due);
                assert_eq!(served.session.tunnels_to_poll().count(), 1);
            }
            assert_eq!(served.says(), [Packet::Connected(Connected { connection, result: answer })]);
        }
    }

    #[test]
    fn an_answer_that_waits_is_in_front_of_what_is_sent_next() {
        let mut served = Served::new(Parameters::default());
        let [first, second] = [0, 1].map(|index| served.open(index));
        for connection in [first, second] {
            let (number, payload) = (PacketNumber(0), "x".into());
            served.take(Packet::Data(Data { connection, number, payload }));
        }
        served.now = served.session.poll_timeout().unwrap();
        served.session.handle_timeout(served.now);
        assert!(matches!(served.says()[..], [Packet::Ack(_)]));
        let connected = |connection, result| Packet::Connected(Connected { connection, result });

        served.session.connection(served.now, first).unwrap().connected(Ok(()));
        assert_eq!(served.says(), []);
        assert_eq!(served.write(first, b"y"), 1);
        let said = served.says();
        assert_eq!(said[0], connected(first, Ok(())));
        assert!(matches!(said[1..], [Packet::Data(_)]), "{said:?}");

        // What is urgent waits for nothing, and takes along what is not.
        served.session.connection(served.now, second).unwrap().connected(Ok(()));
        let third = served.open(2);
        served.session.connection(served.now, third).unwrap().connected(Err(DialError::Refused));
        let said = served.says();
        let both = [connected(second, Ok(())), connected(third, Err(DialError::Refused))];
        assert!(both.iter().all(|answer| said.contains(answer)), "{said:?}");
    }

    #[test]
    fn connections_that_come_and_go_without_a_turn_leave_nothing_behind() {
        const TIMES: u64 = 20_000;
        let parameters = Parameters { max_payload: 65_536, ..Parameters::default() };
        let mut served = Served::new(parameters);
        // The first two use up the session's credit, of which the client never gives any.
        for index in 0..2 {
            let connection = served.open(index);
            while served.write(connection, &[0; 16 * 1024]) > 0 {
                served.acknowledge();
            }
        }
        assert!(!served.session.has_session_credit());
        for index in 2..TIMES {
            let connection = served.open(index);
            assert_eq!(served.write(connection, b"x"), 1);
            served.take(Packet::Reset(Reset { connection, code: ResetCode::APPLICATION, total: 0 }));
            served.acknowledge();
        }
        assert_eq!(served.session.connections(), 2);
        let schedule = &served.session.schedule;
        let waiting = schedule.sparse.len() + schedule.bulk.len();
        assert!(waiting <= 2 * LEAST_STALE, "{waiting} wait for their turn");
    }
}
