//! What goes out: packets for one tunnel at the moment when it has room.

use std::time::Instant;

use bytes::{Buf, BytesMut};

use super::Session;
use super::connection::Stage;
use super::datagrams::cost;
use super::decline::Backlog;
use super::event::{DropReason, Event};
use super::once::Once;
use super::tunnel::{Carried, ConnectionControl, SessionControl, Tunnel};
use crate::credit::{OVERHEAD, charge};
use crate::id::{ConnectionId, TunnelId};
use crate::packet::{
    Account, Ack, Blocked, Connect, Connected, Credit, Drain, FULL_PAYLOAD, Finish, Gone, Leave, Packet,
    Ping, Pong, Reset, encode_data_header,
};
use crate::transmit::Transmit;

/// A packet is not cut smaller than this to fit into the room, in bytes: about one segment.
const LEAST_ROOM: usize = 1400;

/// A packet that is larger than the room by no more than this part exceeds it.
const SHORT: u64 = 256;

/// How many times the send budget is held at the most. The second one is for control and for what is sent again, so
/// that a tunnel which holds all of the first and falls silent does not keep it from the others.
const MOST_BUDGETS: u64 = 2;

/// What was put into a batch.
enum Put {
    /// A counted packet, to be recorded on its tunnel.
    Counted(Carried),
    /// A packet that is not counted.
    Uncounted,
}

impl Session {
    /// Appends packets for `tunnel` to `out`: some `room` bytes, which the last packet may exceed by its own
    /// length. False when there was nothing to append: then the tunnel waits until
    /// [`tunnels_to_poll`](Self::tunnels_to_poll) names it. What was appended must be written on the tunnel, in
    /// order and whole, or [`handle_tunnel_down`](Self::handle_tunnel_down) called.
    pub fn poll_transmit(&mut self, now: Instant, tunnel: TunnelId, room: usize, out: &mut Transmit) -> bool {
        let start = out.remaining();
        if let Some(state) = self.tunnels.get_mut(&tunnel) {
            // It is being asked: what it leaves to others must not wake it again.
            state.idle = false;
        }
        if self.is_closed() {
            self.put_farewell(tunnel, out);
        } else if self.tunnels.get(&tunnel).is_some_and(|state| state.dropping.is_none()) {
            self.put_uncounted(now, tunnel, out);
            if self.may_carry(tunnel) {
                self.put_counted(now, tunnel, start, room, out);
                self.take_again(tunnel, out.remaining() > start);
            }
        }
        let written = out.remaining() - start;
        if let Some(state) = self.tunnels.get_mut(&tunnel) {
            state.bytes_sent += written as u64;
            state.idle = written == 0;
        }
        written > 0
    }

    /// Tells the session's end once, and then has the tunnel closed. All counts go before it, so that nobody
    /// takes what arrived for lost.
    fn put_farewell(&mut self, tunnel: TunnelId, out: &mut Transmit) {
        let told = self.tunnels.get_mut(&tunnel).map(|state| std::mem::replace(&mut state.close_told, true));
        if let (Some(false), Some(Some(farewell))) = (told, &self.ended) {
            for (tunnel, state) in self.tunnels.iter().filter(|(_, state)| state.received > 0) {
                let ack = Ack { tunnel: *tunnel, count: state.received, delay: 0 };
                Packet::Ack(ack).encode(out.headers());
            }
            Packet::Close(farewell.clone()).encode(out.headers());
        }
        self.drop_tunnel(tunnel, DropReason::SessionEnded);
    }

    /// Whether counted packets may go on this tunnel: a suspect one only when there is no other.
    fn may_carry(&self, tunnel: TunnelId) -> bool {
        let state = self.tunnels.get(&tunnel).filter(|state| state.is_in_use());
        state.is_some_and(|state| !state.suspect || !self.has_healthy_tunnel())
    }

    /// Answers and acknowledgements. The own count goes with whatever else is written; those of other tunnels
    /// when they are overdue, because nothing goes out there.
    fn put_uncounted(&mut self, now: Instant, tunnel: TunnelId, out: &mut Transmit) {
        let own_work = self.has_work_for(now, tunnel);
        for (id, state) in &mut self.tunnels {
            let own = *id == tunnel;
            if own {
                if let Some(token) = state.pong_due.take() {
                    let (count, _) = state.tell(now);
                    Packet::Pong(Pong { token, count }).encode(out.headers());
                }
                if std::mem::take(&mut state.ping_due)
                    && let Some(ping) = &mut state.ping
                {
                    ping.at = now;
                    ping.idle = state.in_flight.is_empty();
                    Packet::Ping(Ping { token: ping.token }).encode(out.headers());
                }
            }
            let overdue = state.ack_overdue(now);
            if state.ack_due && (own || overdue) || own && own_work && state.has_untold() {
                let (count, delay) = state.tell(now);
                let delay = u64::try_from(delay.as_micros()).unwrap_or(0).min(crate::varint::MAX);
                Packet::Ack(Ack { tunnel: *id, count, delay }).encode(out.headers());
            }
        }
    }

    /// Whether something waits that this tunnel could carry: one that [`poll_transmit`](Self::poll_transmit) gives nothing
    /// nevertheless leaves it to the others, for a time that may be short.
    pub fn has_work_for(&self, now: Instant, tunnel: TunnelId) -> bool {
        !self.session_control.is_empty()
            || !(self.schedule.control.is_empty() || self.is_patient_at(now))
            || (self.schedule.has_data() && self.tunnels.get(&tunnel).is_some_and(|state| !state.is_full()))
    }

    /// Packets of a batch that began at `start`.
    fn put_counted(&mut self, now: Instant, tunnel: TunnelId, start: usize, room: usize, out: &mut Transmit) {
        let end = start + room;
        // An answer that has the time waits for company, also when a tunnel asks that was not named.
        let goes_alone =
            start == out.remaining() && self.session_control.is_empty() && !self.schedule.has_data();
        let leaves_control = !self.schedule.control.is_empty()
            && (goes_alone && self.is_patient_at(now)
                || self.leaves_repeats(now, tunnel)
                || self.declines(now, tunnel, Backlog::of(1)));
        while out.remaining() < end {
            let before = out.remaining();
            let room = end - before;
            let put = if self.budgets_used() < MOST_BUDGETS {
                self.put_session_control(out)
                    .or_else(|| if leaves_control { None } else { self.put_connection_control(out) })
                    .or_else(|| self.put_payload(now, tunnel, room, out))
            } else {
                self.put_rare_control(out)
            };
            match put {
                None => return,
                Some(Put::Uncounted) => {}
                Some(Put::Counted(carried)) => {
                    let size = out.remaining() - before;
                    self.held_bytes += size as u64;
                    self.held_packets += 1;
                    if let Some(state) = self.tunnels.get_mut(&tunnel) {
                        state.record(now, carried, size);
                    }
                }
            }
        }
    }

    /// How many times the send budget is used up by what is not acknowledged. From one on nothing new is numbered;
    /// at [`MOST_BUDGETS`] nothing is sent again either, nor credit told: an end that does not acknowledge would
    /// make the records of these grow as it likes.
    pub(super) fn budgets_used(&self) -> u64 {
        let packets = self.held_packets / self.config.send_budget_packets;
        (self.held_bytes / self.config.send_budget).max(packets as u64)
    }

    // ---- control ----

    /// What settles tunnels and ends the session goes out in any case. It is bounded by the number of tunnels,
    /// and the other end's answer to it may be what frees the budget.
    fn put_rare_control(&mut self, out: &mut Transmit) -> Option<Put> {
        let is_rare =
            |control: &SessionControl| !matches!(control, SessionControl::Credit | SessionControl::Blocked);
        let at = self.session_control.iter().position(is_rare)?;
        self.session_control.swap(0, at);
        self.put_session_control(out)
    }

    fn put_session_control(&mut self, out: &mut Transmit) -> Option<Put> {
        let control = self.session_control.pop_front()?;
        let packet = match control {
            SessionControl::Credit => {
                self.account.credit_due = false;
                Packet::Credit(Credit { account: Account::Session, total: self.account.granted() })
            }
            SessionControl::Blocked => {
                Packet::Blocked(Blocked { account: Account::Session, total: self.send_credit.limit() })
            }
            SessionControl::Drain => {
                self.drain.sent();
                Packet::Drain(Drain { reason: self.drain_reason })
            }
            SessionControl::Gone(tunnel) => {
                let Some(dead) = self.dead.get_mut(&tunnel) else { return self.put_session_control(out) };
                dead.gone.sent();
                Packet::Gone(Gone { tunnel, count: dead.received })
            }
            SessionControl::Leave(tunnel) => Packet::Leave(Leave { tunnel }),
        };
        packet.encode(out.headers());
        Some(Put::Counted(Carried::Session(control)))
    }

    /// One control packet of the first connection that has any.
    fn put_connection_control(&mut self, out: &mut Transmit) -> Option<Put> {
        while let Some(&id) = self.schedule.control.front() {
            if let Some(connection) = self.connections.get_mut(&id) {
                if let Some(control) = connection.put_control(out.headers()) {
                    return Some(Put::Counted(Carried::Connection(id, control)));
                }
                connection.in_control_queue = false;
            }
            self.schedule.control.pop_front();
        }
        None
    }

    /// Queues the session's Blocked, once for each limit.
    pub(super) fn tell_session_blocked(&mut self) {
        if self.send_credit.limit() > 0 && self.send_credit.should_tell_blocked() {
            self.queue_session_control(SessionControl::Blocked);
        }
    }

    // ---- payload ----

    fn put_payload(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        room: usize,
        out: &mut Transmit,
    ) -> Option<Put> {
        let state = self.tunnels.get(&tunnel)?;
        if state.holds_all_it_may() {
            return None;
        }
        let most = state.packet_size();
        self.put_resend(now, tunnel, out)
            .or_else(|| self.put_datagram(out))
            .or_else(|| self.put_data(now, tunnel, most, room.max(LEAST_ROOM), out))
    }

    /// A packet whose tunnel died or is suspect, before anything new: a reader waits for it.
    fn put_resend(&mut self, now: Instant, tunnel: TunnelId, out: &mut Transmit) -> Option<Put> {
        if !self.schedule.resend.is_empty() && self.leaves_repeats(now, tunnel) {
            return None;
        }
        while let Some(&id) = self.schedule.resend.front() {
            let waiting = self.connections.get(&id).map_or(0, |connection| connection.send.resend_bytes());
            if waiting > 0 && self.declines(now, tunnel, Backlog::of(waiting)) {
                return None;
            }
            if let Some(connection) = self.connections.get_mut(&id) {
                if let Some((number, payload)) = connection.send.pop_resend() {
                    self.counters.resent += 1;
                    if let Some(tunnel) = self.tunnels.get_mut(&tunnel) {
                        tunnel.resent += 1;
                    }
                    encode_data_header(out.headers(), id, number, payload.len());
                    out.put_payload(payload.clone());
                    return Some(Put::Counted(Carried::Data { connection: id, number, payload }));
                }
                connection.in_resend_queue = false;
            }
            self.schedule.resend.pop_front();
        }
        None
    }

    /// Connections with datagrams take turns, one datagram each.
    fn put_datagram(&mut self, out: &mut Transmit) -> Option<Put> {
        while let Some(id) = self.schedule.datagrams.pop_front() {
            let connection = self.connections.get_mut(&id);
            let Some(datagrams) = connection.and_then(|connection| connection.datagrams.as_mut()) else {
                continue;
            };
            let Some(datagram) = datagrams.outgoing.pop() else { continue };
            self.datagrams_held -= cost(&datagram);
            if datagrams.has_outgoing() {
                self.schedule.datagrams.push_back(id);
            }
            Packet::Datagram(datagram).encode(out.headers());
            return Some(Put::Uncounted);
        }
        None
    }

    /// The next packet of the connection whose turn it is: cut, numbered and charged now.
    fn put_data(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        most: u64,
        room: usize,
        out: &mut Transmit,
    ) -> Option<Put> {
        if !self.has_session_credit() {
            if self.queued > 0 {
                self.tell_session_blocked();
            }
            return None;
        }
        if self.budgets_used() > 0 {
            return None;
        }
        let id = self.next_to_carry(now, tunnel, most)?;
        let tunnels = self.tunnels.len() as u64;
        let (largest, round_trip) = (self.peer?.max_payload, self.round_trip);
        let limit = self.send_limit();
        let connection = self.connections.get_mut(&id)?;
        let credit = &mut connection.send.credit;
        // A quarter of the window on each tunnel, so that a late packet leaves room to go on; and nothing above
        // the credit of either account.
        let share = (credit.window() / (4 * tunnels)).max(LEAST_ROOM as u64);
        let most = most.min(largest).min(FULL_PAYLOAD as u64).min(share);
        let credit_left = credit.available().min(self.send_credit.available()) - OVERHEAD;
        // The headers of a batch leave the last packet a little less than its size; cut by that much it would leave a
        // small rest, which is copied in front of what comes next.
        let room = room as u64;
        let most = if most <= room + room / SHORT { most } else { room };
        let most = most.min(credit_left);
        let largest = if most == FULL_PAYLOAD as u64 { largest.min(credit_left) } else { most };
        let cut_at = |bytes| usize::try_from(bytes).unwrap_or(LEAST_ROOM);
        let (number, payload) = connection.send.cut(cut_at(most), cut_at(largest));

        let cost = charge(payload.len());
        connection.send.credit.charge(now, round_trip, cost);
        self.send_credit.charge(now, round_trip, cost);
        connection.deficit -= cost as i64;
        connection.run = connection.run.saturating_add(payload.len() as u64);
        connection.active_at = now;
        self.queued -= payload.len() as u64;
        self.counters.payload_sent += payload.len() as u64;
        if connection.send.writer_waits && connection.send.queued() <= limit / 2 {
            connection.send.writer_waits = false;
            if connection.is_usable() {
                self.events.push_back(Event::Writable { connection: id });
            }
        }
        self.after_cut(id);
        encode_data_header(out.headers(), id, number, payload.len());
        out.put_payload(payload.clone());
        Some(Put::Counted(Carried::Data { connection: id, number, payload }))
    }

    /// The connection whose turn it is, of those that this tunnel does not leave to the others. One that is sparse
    /// waits for its own bytes alone; one with a backlog for all that stands there with it.
    fn next_to_carry(&mut self, now: Instant, tunnel: TunnelId, most: u64) -> Option<ConnectionId> {
        if let Some(id) = self.schedule.next_sparse(&mut self.connections) {
            let queued = self.connections.get(&id).map_or(0, |connection| connection.send.queued());
            if !self.declines(now, tunnel, Backlog::of(queued)) {
                return Some(id);
            }
        }
        if self.tunnels.get(&tunnel).is_some_and(Tunnel::pauses) {
            return self.schedule.next_light(&mut self.connections);
        }
        let id = self.schedule.next_bulk(&mut self.connections, most)?;
        let backlog = self.schedule.backlog(&self.connections);
        if self.declines(now, tunnel, backlog) || self.is_held_up(now, tunnel, id, backlog) {
            None
        } else {
            Some(id)
        }
    }

    fn is_held_up(&mut self, now: Instant, tunnel: TunnelId, id: ConnectionId, backlog: Backlog) -> bool {
        let Some(connection) = self.connections.get(&id) else { return false };
        let credit = connection.send.credit.available().min(self.send_credit.available());
        let sharers = self.schedule.bulk_len();
        backlog.total() > credit && self.holds_up(now, tunnel, credit, sharers)
    }

    /// The Finish is due behind the last packet; Blocked before the credit is used up.
    fn after_cut(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.send.queued() == 0 {
            if connection.send.finishing {
                connection.send.finish.due();
                self.queue_control(id);
            }
            return;
        }
        self.tell_if_blocked(id);
        self.tell_session_blocked();
    }
}

impl super::ConnectionState {
    /// Appends one control packet that is due, in the order in which the other end wants them.
    fn put_control(&mut self, out: &mut BytesMut) -> Option<ConnectionControl> {
        let connection = self.id;
        let account = Account::Connection(connection);
        let (control, packet) = if self.connect == Once::Due {
            self.connect.sent();
            let destination = self.destination.clone();
            (ConnectionControl::Connect, Packet::Connect(Connect { connection, destination }))
        } else if let (Once::Due, Some(result)) = (self.connected, self.dial) {
            self.connected.sent();
            (ConnectionControl::Connected, Packet::Connected(Connected { connection, result }))
        } else if std::mem::take(&mut self.receive.credit_due) {
            let total = self.receive.window.granted();
            (ConnectionControl::Credit, Packet::Credit(Credit { account, total }))
        } else if std::mem::take(&mut self.blocked_due) {
            let total = self.send.credit.limit();
            (ConnectionControl::Blocked, Packet::Blocked(Blocked { account, total }))
        } else if self.send.finish == Once::Due {
            self.send.finish.sent();
            let number = self.send.finish_number();
            (ConnectionControl::Finish, Packet::Finish(Finish { connection, number }))
        } else if let (Once::Due, Stage::Settling { code, .. }) = (self.reset, self.stage) {
            self.reset.sent();
            let total = self.send.credit.charged();
            (ConnectionControl::Reset, Packet::Reset(Reset { connection, code, total }))
        } else {
            return None;
        };
        packet.encode(out);
        Some(control)
    }
}
