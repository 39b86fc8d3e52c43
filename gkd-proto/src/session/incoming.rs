//! What arrives: packets from one tunnel, each checked and applied.
//!
//! A packet that was counted is acknowledged, so nothing that is counted may be dropped for lack of room: it
//! is kept, answered with a Reset, or ends the session.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::connection::{ConnectionState, Stage};
use super::datagrams::{Datagrams, MOST_HELD, cost, detached};
use super::event::{CloseCause, DropReason, Event};
use super::once::Once;
use super::receive::{Arrival, ReceiveHalf};
use super::{MAX_UNSEEN, Session};
use crate::credit::charge;
use crate::error::{TunnelError, Violation};
use crate::id::{ConnectionId, TunnelId};
use crate::packet::{
    Account, Blocked, Close, Connect, Connected, Credit, Data, Datagram, Finish, Packet, Reset, ResetCode,
};

/// A payload that is kept is at least this part of the read buffer's capacity when its turn began, so that what
/// was granted holds no more than this many times its size; a driver's buffer whose front was split off before may
/// double that.
const PINNED: usize = 4;

/// While more than half of the session's window is unread, nobody reads much, and what is kept has to be half of the
/// buffer at least: a copy costs little then, and a buffer that lies around much.
const PINNED_BEHIND: usize = 2;

impl Session {
    /// Bytes arrived on `tunnel`: takes every whole packet from the front of `buf` and leaves the rest, which
    /// belongs before the next bytes of the same tunnel.
    ///
    /// Payloads are kept as slices of `buf`'s memory, but for what is small beside it, which is copied out. A driver
    /// that calls [`BytesMut::try_reclaim`] before a read has the memory back if none is kept.
    ///
    /// # Errors
    /// With [`Scope::Tunnel`](crate::error::Scope), close the carrier and call
    /// [`handle_tunnel_down`](Self::handle_tunnel_down). With [`Scope::Session`](crate::error::Scope), the session has
    /// ended; its events and `poll_transmit` say the rest.
    pub fn handle_recv(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        buf: &mut BytesMut,
    ) -> Result<(), TunnelError> {
        if self.is_closed() {
            buf.clear();
            return Ok(());
        }
        let memory = buf.capacity();
        let state = self.tunnels.get_mut(&tunnel).ok_or(TunnelError::NotUp(tunnel))?;
        state.hear(now, buf.len());
        self.taken.clear();
        let budgets = self.budgets_used();
        let result = self.take_packets(now, tunnel, buf);
        self.copy_out(memory);
        if self.budgets_used() < budgets {
            // What was held back may go on any tunnel, not only on the one that was acknowledged.
            self.wake_for_data(true);
            self.wake_one();
        }
        if let Some(state) = self.tunnels.get_mut(&tunnel) {
            state.keep_rest(buf.len());
            if state.ack_due {
                self.wake(tunnel);
            }
        }
        result
    }

    fn take_packets(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        buf: &mut BytesMut,
    ) -> Result<(), TunnelError> {
        loop {
            let before = buf.len();
            let Some(packet) = Packet::decode(buf)? else { return Ok(()) };
            // Named dead meanwhile, or retired: nothing more is read from it.
            let Some(state) = self.tunnels.get_mut(&tunnel).filter(|state| state.dropping.is_none()) else {
                buf.clear();
                return Ok(());
            };
            if packet.is_counted() {
                state.count(now, before - buf.len());
            }
            if let Err(violation) = self.handle_packet(now, tunnel, packet) {
                buf.clear();
                return Err(self.fail(violation).into());
            }
            if self.is_closed() {
                buf.clear();
                return Ok(());
            }
        }
    }

    /// Copies out what of this turn is small beside its read buffer of so many bytes, all of which it would hold for a
    /// small charge when the rest was read.
    fn copy_out(&mut self, memory: usize) {
        let least = memory / if self.account.is_behind() { PINNED_BEHIND } else { PINNED };
        // What was granted for it, which pays for what stands beside a payload too.
        let size = |held: &Bytes| charge(held.len()) as usize;
        let mut taken = std::mem::take(&mut self.taken);
        for (id, number) in taken.drain(..) {
            let connection = self.connections.get_mut(&id);
            if let Some(held) = connection.and_then(|connection| connection.receive.held_mut(number))
                && size(held) < least
            {
                *held = Bytes::copy_from_slice(held);
            }
        }
        self.taken = taken;
    }

    fn handle_packet(&mut self, now: Instant, tunnel: TunnelId, packet: Packet) -> Result<(), Violation> {
        match packet {
            Packet::Data(data) => self.on_data(now, data),
            Packet::Ack(ack) => {
                self.on_ack(now, ack.tunnel, ack.count, Some(Duration::from_micros(ack.delay)))
            }
            Packet::Credit(credit) => self.on_credit(now, credit),
            Packet::Blocked(blocked) => self.on_blocked(now, blocked),
            Packet::Connect(connect) => self.on_connect(now, connect),
            Packet::Connected(connected) => self.on_connected(now, connected),
            Packet::Finish(finish) => self.on_finish(now, finish),
            Packet::Reset(reset) => self.on_reset(now, reset),
            Packet::Gone(gone) => self.on_gone(now, gone.tunnel, gone.count),
            Packet::Leave(leave) => self.on_leave(leave.tunnel),
            Packet::Drain(drain) => {
                if !std::mem::replace(&mut self.draining_there, true) {
                    self.events.push_back(Event::Draining { reason: drain.reason });
                }
                Ok(())
            }
            Packet::Datagram(datagram) => self.on_datagram(now, datagram),
            Packet::Ping(ping) => {
                if let Some(state) = self.tunnels.get_mut(&tunnel) {
                    state.pong_due = Some(ping.token);
                }
                self.wake(tunnel);
                Ok(())
            }
            Packet::Pong(pong) => {
                self.on_pong(now, tunnel, pong.token);
                self.on_ack(now, tunnel, pong.count, None)
            }
            Packet::Close(Close { code, reason }) => {
                self.end(CloseCause::Remote { code, reason }, None);
                Ok(())
            }
            Packet::Unknown(_) => Ok(()),
        }
    }

    // ---- connections ----

    /// Makes sure that a connection of which a packet arrived is there, if it is to be: false for one that was
    /// and is forgotten, whose late packets change nothing.
    fn expect(&mut self, now: Instant, id: ConnectionId) -> Result<bool, Violation> {
        if self.connections.contains_key(&id) {
            return Ok(true);
        }
        if id.0 == 0 {
            return Err(Violation::NeverOpened(id));
        }
        if id.opener() == self.side {
            return if id.index() < self.opened { Ok(false) } else { Err(Violation::NeverOpened(id)) };
        }
        match self.seen.insert(id.index()) {
            Err(_) => return Err(Violation::TooManyGaps(MAX_UNSEEN)),
            Ok(false) => return Ok(false),
            Ok(true) => {}
        }
        let most = self.config.max_connections;
        if self.accepted_live >= most + MAX_UNSEEN as u64 {
            return Err(Violation::TooManyConnections(most));
        }
        self.accepted_live += 1;
        let connection = self.new_connection(now, id);
        self.connections.insert(id, connection);
        self.schedule_sweep(now);
        self.counters.refused += u64::from(self.accepted_live > most);
        if self.accepted_live > most || self.drain != Once::Idle {
            self.reset_connection(now, id, ResetCode::BUSY);
        }
        Ok(true)
    }

    fn live(&mut self, id: ConnectionId) -> Option<&mut ConnectionState> {
        let connection = self.connections.get_mut(&id).map(|connection| &mut **connection);
        connection.filter(|connection| !connection.is_settling())
    }

    fn on_connect(&mut self, now: Instant, connect: Connect) -> Result<(), Violation> {
        let Connect { connection: id, destination } = connect;
        if id.0 == 0 || id.opener() == self.side {
            return Err(Violation::WrongSide(id));
        }
        self.expect(now, id)?;
        let draining = self.drain != Once::Idle;
        let Some(connection) = self.live(id).filter(|connection| connection.stage == Stage::Expected) else {
            return Ok(());
        };
        if draining {
            // Packets of it came before this end said so, which change nothing: what counts is when it is opened here.
            self.reset_connection(now, id, ResetCode::BUSY);
            return Ok(());
        }
        connection.stage = Stage::Open;
        self.events.push_back(Event::Accepted { connection: id, destination });
        Ok(())
    }

    fn on_connected(&mut self, now: Instant, connected: Connected) -> Result<(), Violation> {
        let Connected { connection: id, result } = connected;
        if id.opener() != self.side {
            return Err(Violation::WrongSide(id));
        }
        self.expect(now, id)?;
        let Some(connection) = self.live(id).filter(|connection| connection.dial.is_none()) else {
            return Ok(());
        };
        connection.dial = Some(result);
        if connection.is_usable() {
            self.events.push_back(Event::Connected { connection: id, result });
        }
        if result.is_err() {
            self.reset_connection(now, id, ResetCode::DIAL);
        }
        Ok(())
    }

    fn on_data(&mut self, now: Instant, data: Data) -> Result<(), Violation> {
        let (id, number, len) = (data.connection, data.number, data.payload.len());
        if !self.expect(now, id)? {
            return Ok(());
        }
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        if connection.is_settling() {
            return self.count_late(now, id, |receive| receive.insert(data).map(|_| ()));
        }
        let before = connection.receive.implied_charge();
        let arrival = connection.receive.insert(data)?;
        if arrival == Arrival::Duplicate {
            self.counters.duplicates += 1;
            return Ok(());
        }
        let amount = connection.receive.implied_charge() - before;
        self.account.charge_to(&mut connection.receive, amount)?;
        connection.active_at = now;
        self.counters.data_received += 1;
        self.counters.payload_received += len as u64;
        self.counters.out_of_order += u64::from(arrival == Arrival::OutOfOrder);
        self.counters.reorder_depth =
            self.counters.reorder_depth.max(connection.receive.packets_held() as u64);
        self.taken.push((id, number));
        if connection.discards() {
            self.discard(now, id);
            self.forget_if_over(id);
        } else {
            self.tell_readable(id);
        }
        Ok(())
    }

    fn on_finish(&mut self, now: Instant, finish: Finish) -> Result<(), Violation> {
        let id = finish.connection;
        if !self.expect(now, id)? {
            return Ok(());
        }
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        if connection.is_settling() {
            return self.count_late(now, id, |receive| receive.finish_at(id, finish.number).map(|_| ()));
        }
        let before = connection.receive.implied_charge();
        if !connection.receive.finish_at(id, finish.number)? {
            return Ok(());
        }
        let amount = connection.receive.implied_charge() - before;
        self.account.charge_to(&mut connection.receive, amount)?;
        connection.active_at = now;
        self.tell_readable(id);
        self.forget_if_over(id);
        Ok(())
    }

    /// A sequenced packet of a connection that this end has reset: counted, and its charge given back at once.
    /// When all have arrived the total is known without the other end's Reset. It may never come: an end that
    /// has heard this end's Finish, and that everything of its own arrived, forgets.
    fn count_late(
        &mut self,
        now: Instant,
        id: ConnectionId,
        take: impl FnOnce(&mut ReceiveHalf) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        let Stage::Settling { total_known: known @ false, .. } = &mut connection.stage else { return Ok(()) };
        let before = connection.receive.implied_charge();
        take(&mut connection.receive)?;
        self.account.charge(connection.receive.implied_charge() - before)?;
        let given_back = connection.receive.give_back();
        *known = connection.receive.is_complete();
        self.account.consume(now, self.round_trip, given_back);
        self.flush_account();
        self.forget_if_over(id);
        Ok(())
    }

    fn on_reset(&mut self, now: Instant, reset: Reset) -> Result<(), Violation> {
        let Reset { connection: id, code, total } = reset;
        if !self.expect(now, id)? {
            return Ok(());
        }
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        if matches!(connection.stage, Stage::Settling { total_known: true, .. }) {
            return Ok(());
        }
        let arrived = connection.receive.implied_charge();
        let granted = connection.receive.window.granted();
        let complete = connection.receive.is_complete();
        if total < arrived || total > granted || (complete && total != arrived) {
            return Err(Violation::WrongTotal { connection: id, total, arrived, granted });
        }
        self.account.charge(total - arrived)?;
        let told = connection.is_usable();
        if let Stage::Settling { total_known, .. } = &mut connection.stage {
            *total_known = true;
        } else {
            self.settle(id, code, true);
        }
        // What was charged and never arrived is given back with what arrived and was not read.
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(()) };
        connection.receive.release();
        let given_back = connection.receive.give_back_up_to(total);
        self.account.consume(now, self.round_trip, given_back);
        self.flush_account();
        if told {
            self.events.push_back(Event::Reset { connection: id, code });
        }
        self.queue_control(id);
        self.forget_if_over(id);
        Ok(())
    }

    /// A datagram may be lost, so what there is no room for is dropped.
    fn on_datagram(&mut self, now: Instant, datagram: Datagram) -> Result<(), Violation> {
        let id = datagram.connection;
        if !self.expect(now, id)? {
            return Ok(());
        }
        if self.live(id).is_none_or(|connection| connection.discards()) {
            return Ok(());
        }
        let cost = cost(&datagram);
        let full = self.datagrams_held + cost > MOST_HELD || !self.memory_for(cost as u64);
        let Some(connection) = self.live(id) else { return Ok(()) };
        if full {
            self.counters.datagrams_dropped += 1;
            return Ok(());
        }
        connection.active_at = now;
        let usable = connection.is_usable();
        let datagrams: &mut Datagrams = connection.datagrams.get_or_insert_with(Default::default);
        let before = datagrams.incoming.bytes();
        let dropped = datagrams.incoming.push(detached(datagram));
        let after = datagrams.incoming.bytes();
        let told = usable && std::mem::take(&mut datagrams.reader_waits);
        self.datagrams_held = self.datagrams_held - before + after;
        self.counters.datagrams_dropped += dropped as u64;
        if told {
            self.events.push_back(Event::Datagram { connection: id });
        }
        Ok(())
    }

    fn tell_readable(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.is_usable() && connection.receive.reader_waits && connection.receive.is_readable() {
            connection.receive.reader_waits = false;
            self.events.push_back(Event::Readable { connection: id });
        }
    }

    // ---- credit ----

    fn on_credit(&mut self, now: Instant, credit: Credit) -> Result<(), Violation> {
        match credit.account {
            Account::Session => {
                if self.send_credit.raise(credit.total) {
                    self.wake_for_data(true);
                }
            }
            Account::Connection(id) => {
                if self.expect(now, id)?
                    && let Some(connection) = self.live(id)
                    && connection.send.credit.raise(credit.total)
                {
                    self.credit_raised(id);
                }
            }
        }
        Ok(())
    }

    fn on_blocked(&mut self, now: Instant, blocked: Blocked) -> Result<(), Violation> {
        let Blocked { account, total } = blocked;
        let granted = match account {
            Account::Session => self.account.granted(),
            Account::Connection(id) => {
                if !self.expect(now, id)? {
                    return Ok(());
                }
                match self.live(id) {
                    Some(connection) => connection.receive.window.granted(),
                    None => return Ok(()),
                }
            }
        };
        if total > granted {
            return Err(Violation::BlockedBeyondCredit { total, granted });
        }
        // Below what is granted, the grant is on its way.
        if total < granted {
            return Ok(());
        }
        match account {
            Account::Session => self.account.session_blocked(now, self.round_trip),
            Account::Connection(id) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    self.account.connection_blocked(now, self.round_trip, &mut connection.receive);
                    self.queue_control(id);
                }
            }
        }
        self.flush_account();
        Ok(())
    }

    // ---- liveness ----

    fn on_pong(&mut self, now: Instant, tunnel: TunnelId, token: u64) {
        let Some(state) = self.tunnels.get_mut(&tunnel) else { return };
        let Some(ping) = state.ping.filter(|ping| ping.token == token && !state.ping_due) else { return };
        state.ping = None;
        if ping.idle {
            state.estimate.own.sample(now, now.saturating_duration_since(ping.at));
            self.update_round_trip();
        }
    }

    /// The other end says that it will send nothing counted on this tunnel any more; neither will this end.
    pub(super) fn on_leave(&mut self, tunnel: TunnelId) -> Result<(), Violation> {
        if let Some(state) = self.tunnels.get_mut(&tunnel) {
            state.left = true;
            self.leave(tunnel);
            return Ok(());
        }
        if let Some(dialing) = self.dialing.get_mut(&tunnel) {
            dialing.left = true;
            return Ok(());
        }
        if self.was_used(tunnel) { Ok(()) } else { Err(Violation::NoSuchTunnel(tunnel)) }
    }

    /// Has a tunnel closed that both ends left, when all that it carried is acknowledged.
    pub(super) fn drop_if_left(&mut self, tunnel: TunnelId) {
        let done = |state: &super::Tunnel| state.leaving && state.left && state.in_flight.is_empty();
        if self.tunnels.get(&tunnel).is_some_and(|state| done(state) && !state.has_untold()) {
            self.drop_tunnel(tunnel, DropReason::Settled);
        }
    }
}
