//! What the lock of a [`TunnelManager`](super::TunnelManager) guards: the session, and beside it the handles of
//! its tunnels and connections. Turns the session's events into wake-ups.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use gkd_proto::Session;
use gkd_proto::error::TunnelError;
use gkd_proto::id::{ConnectionId, SessionId, Side, TunnelId};
use gkd_proto::packet::{CloseCode, DialError, ResetCode};
use gkd_proto::session::hash::{IdHash, IdMap};
use gkd_proto::session::{DropReason, Event};

use super::batch::{Batch, Wakers};
use super::openers::{Opener, Openers};
use super::{Line, Phase, SessionEnd, Slot, TunnelHandle};
use crate::identity::new_seed;

/// Connections of one session that wait to be accepted. One above it is answered with
/// [`DialError::Busy`]: whoever opens that many without being served is better told than kept.
pub(super) const BACKLOG: usize = 1024;

/// How long it may go unseen that the session's time-out came nearer: as long as an acknowledgement waits at the least,
/// so that most are seen in time.
const LOOK_APART: Duration = Duration::from_millis(5);

/// What the lock guards.
pub(crate) struct State {
    pub(crate) session: Session,
    /// Connections that a handle holds, or that wait to be accepted.
    pub(super) slots: IdMap<ConnectionId, Slot>,
    pub(super) tunnels: BTreeMap<TunnelId, Arc<TunnelHandle>>,
    /// Waiting to be accepted, by their place in the row, which their slot names.
    pub(super) backlog: BTreeMap<u64, (ConnectionId, Bytes)>,
    next_place: u64,
    /// The session stands in the queue of those that have a backlog.
    pub(super) queued: bool,
    /// It was logged that more were opened than wait.
    told_full: bool,
    /// It was logged that more were opened than may be.
    told_refused: bool,
    /// When the driver will wake by itself.
    pub(super) armed: Option<Instant>,
    /// When the session was last asked for its time-out.
    looked: Option<Instant>,
    pub(super) ended: Option<SessionEnd>,
    /// Whether there was a tunnel when that was last looked at.
    line: Line,
    /// The other end takes no new connections; its reason.
    draining: Option<u64>,
    /// Tasks that wait until the other end has acknowledged some of what was opened.
    openers: Openers,
    /// Wakers of which a call found that they are to be woken behind the lock.
    woken: Wakers,
    /// Wakers that were replaced, to be dropped behind the lock.
    replaced: Wakers,
    /// Where the newest tunnel comes from.
    pub(crate) remote: Option<SocketAddr>,
}

/// The session, and what is known of one connection beside it.
pub(crate) struct Parts<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) slot: &'a mut Slot,
    /// Where wakers go that others took the place of.
    pub(crate) replaced: &'a mut Wakers,
    /// Where wakers go that are to be woken.
    pub(crate) woken: &'a mut Wakers,
}

/// A connection that the other end opened, on its way to a [`Connection`](crate::Connection).
pub(crate) struct Accepted {
    pub(crate) id: ConnectionId,
    pub(crate) destination: Bytes,
    pub(crate) remote: Option<SocketAddr>,
}

impl State {
    pub(super) fn new(session: Session) -> Self {
        Self {
            session,
            slots: IdMap::with_hasher(IdHash::new(new_seed())),
            tunnels: BTreeMap::new(),
            backlog: BTreeMap::new(),
            next_place: 0,
            queued: false,
            told_full: false,
            told_refused: false,
            armed: None,
            looked: None,
            ended: None,
            line: Line::default(),
            draining: None,
            openers: Openers::default(),
            woken: Wakers::new(),
            replaced: Wakers::new(),
            remote: None,
        }
    }

    /// Makes room for what is to be known of a tunnel, in the same breath in which the session learns of it.
    pub(super) fn add_tunnel(&mut self, id: TunnelId) -> Arc<TunnelHandle> {
        let handle = TunnelHandle::new(id);
        self.tunnels.insert(id, handle.clone());
        handle
    }

    /// The tunnels that were let in, as far as they have an address.
    pub(crate) fn tunnel_addrs(&self) -> Vec<(TunnelId, SocketAddr)> {
        self.tunnels.values().filter_map(|tunnel| Some((tunnel.id, tunnel.remote()?))).collect()
    }

    /// What a call on one connection needs.
    pub(crate) fn parts(&mut self, id: ConnectionId) -> Parts<'_> {
        let Self { session, slots, replaced, woken, .. } = self;
        Parts { session, slot: slots.entry(id).or_default(), replaced, woken }
    }

    /// A handle for this connection exists from now on.
    pub(crate) fn add_slot(&mut self, id: ConnectionId) {
        self.slots.insert(id, Slot::default());
    }

    /// Wakes this task when it may open one.
    pub(crate) fn wait_to_open(&mut self, opener: &mut Opener, waker: &Waker) {
        self.openers.wait(opener, waker);
    }

    /// A task that may have waited to open asks again, or gives up.
    pub(crate) fn stop_waiting(&mut self, opener: &mut Opener) {
        self.replaced.extend(self.openers.back(opener));
    }

    /// Bytes arrived on a tunnel, read into `buf`.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        buf: &mut BytesMut,
    ) -> Result<(), TunnelError> {
        let result = self.session.handle_recv(now, tunnel, buf);
        if self.session.refused() > 0 && !std::mem::replace(&mut self.told_refused, true) {
            tracing::warn!(
                session = ?self.session.id(),
                "the other end opens more connections than it may: those above are refused, of this session without another line"
            );
        }
        result
    }

    /// Another limit holds for whoever waits to open: all try again, and those that still cannot, wait again.
    pub(super) fn wake_openers(&mut self) {
        self.openers.call_all(&mut self.woken);
    }

    /// Why the other end takes no new connections, once it does not.
    pub(crate) fn draining(&self) -> Option<u64> {
        self.draining
    }

    /// The handle of this connection is gone. Drop what this returns behind the lock.
    pub(crate) fn remove_slot(&mut self, id: ConnectionId) -> Option<Slot> {
        self.slots.remove(&id)
    }

    /// Why the session ended, once it has.
    pub(crate) fn ended(&self) -> Option<&SessionEnd> {
        self.ended.as_ref()
    }

    /// Drains what the session wants to tell. What it queues is bounded by its connections and tunnels.
    pub(super) fn settle(&mut self, now: Instant, batch: &mut Batch) {
        while let Some(event) = self.session.poll_event() {
            self.handle_event(now, event, batch);
        }
        for tunnel in self.session.tunnels_to_poll() {
            if let Some(handle) = self.tunnels.get(&tunnel) {
                batch.wakers.extend(handle.ready.take());
            }
        }
        // Those who wait for a tunnel are called when one comes up.
        if self.openers.wait_for_room() && self.session.tunnels_up() > 0 {
            self.openers.call(self.session.may_open(), &mut self.woken);
        }
        let up = self.session.tunnels_up() > 0 && self.ended.is_none();
        if up != self.line.up {
            self.line = Line { turn: self.line.turn + 1, up };
            batch.line = Some(self.line);
        }
        if self.ended.is_some() && self.tunnels.is_empty() {
            batch.phase = Some(Phase::Gone);
            // The driver ends with the last tunnel.
            batch.rearm = true;
        }
        for (to, from) in [(&mut batch.wakers, &mut self.woken), (&mut batch.replaced, &mut self.replaced)] {
            if !from.is_empty() {
                to.append(from);
            }
        }
    }

    /// Has the driver look again if the session's time-out came nearer. To ask for it takes time for each tunnel, so it
    /// is not asked for more often than every [`LOOK_APART`]: at the end of that the driver looks.
    pub(super) fn arm(&mut self, now: Instant, batch: &mut Batch) {
        let next_look = self.looked.map(|looked| looked + LOOK_APART).filter(|next| now < *next);
        let due = next_look.or_else(|| {
            self.looked = Some(now);
            self.session.poll_timeout()
        });
        if due.is_some_and(|due| self.armed.is_none_or(|armed| due < armed)) {
            self.armed = due;
            batch.rearm = true;
        }
    }

    /// A tunnel leaves to others what it could carry, for a time of which a few milliseconds count: this call asks for the
    /// time-out.
    pub(crate) fn look_closely(&mut self) {
        self.looked = None;
    }

    /// The driver's look: handles what is due.
    pub(super) fn look(&mut self, now: Instant) {
        self.looked = Some(now);
        self.armed = self.session.poll_timeout();
        if self.armed.is_some_and(|due| now >= due) {
            self.session.handle_timeout(now);
            self.armed = self.session.poll_timeout();
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event, batch: &mut Batch) {
        match event {
            Event::Accepted { connection, destination } => self.accept(now, connection, destination, batch),
            Event::Connected { connection, result } => self.slot_event(connection, batch, |slot, wake| {
                slot.answer = Some(result);
                wake.extend(slot.take_answer_waker());
                if result.is_err() {
                    // The session has reset it, and says no more of it: readers and writers are told here.
                    slot.reset.get_or_insert(ResetCode::DIAL);
                    slot.wake_all(wake);
                }
            }),
            Event::Readable { connection } => self.slot_event(connection, batch, |slot, wake| {
                wake.extend(slot.reader.take());
            }),
            Event::Writable { connection } => self.slot_event(connection, batch, |slot, wake| {
                wake.extend(slot.writer.take());
            }),
            Event::Acknowledged { connection } => self.slot_event(connection, batch, |slot, wake| {
                slot.acknowledged = true;
                wake.extend(slot.writer.take());
            }),
            Event::Datagram { connection } => self.slot_event(connection, batch, |slot, wake| {
                wake.extend(slot.take_datagram_waker());
            }),
            Event::Reset { connection, code } => self.reset(connection, code, batch),
            Event::DropTunnel { tunnel, reason } => {
                if let Some(handle) = self.tunnels.get(&tunnel) {
                    batch.wakers.extend(handle.drop_for(reason));
                }
            }
            Event::Stalled => batch.stalled = true,
            Event::Draining { reason } => {
                self.draining = Some(reason);
                self.wake_openers();
            }
            Event::Drained => batch.phase = batch.phase.max(Some(Phase::Drained)),
            Event::Closed { cause } => self.end(now, SessionEnd::Closed(cause), batch),
            _ => {}
        }
    }

    fn slot_event(
        &mut self,
        id: ConnectionId,
        batch: &mut Batch,
        handle: impl FnOnce(&mut Slot, &mut Wakers),
    ) {
        if let Some(slot) = self.slots.get_mut(&id) {
            handle(slot, &mut batch.wakers);
        }
    }

    fn accept(&mut self, now: Instant, id: ConnectionId, destination: Bytes, batch: &mut Batch) {
        if self.backlog.len() >= BACKLOG {
            if let Some(connection) = self.session.connection(now, id) {
                connection.connected(Err(DialError::Busy));
            }
            if !std::mem::replace(&mut self.told_full, true) {
                tracing::warn!(
                    session = ?self.session.id(),
                    "{BACKLOG} connections wait to be accepted: those above are refused, of this session without another line"
                );
            }
            return;
        }
        let place = self.next_place;
        self.next_place += 1;
        self.slots.insert(id, Slot { waiting: Some(place), ..Slot::default() });
        self.backlog.insert(place, (id, destination));
        batch.accepted |= !self.queued;
        self.queued = true;
    }

    /// The oldest connection that waits to be accepted, and whether more do. One without a destination is
    /// answered by that.
    pub(super) fn take_accepted(&mut self, now: Instant) -> Option<(Accepted, bool)> {
        while let Some((_, (id, destination))) = self.backlog.pop_first() {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            slot.waiting = None;
            if destination.is_empty()
                && let Some(connection) = self.session.connection(now, id)
            {
                connection.connected(Ok(()));
            }
            self.queued = !self.backlog.is_empty();
            return Some((Accepted { id, destination, remote: self.remote }, self.queued));
        }
        self.queued = false;
        None
    }

    fn reset(&mut self, id: ConnectionId, code: ResetCode, batch: &mut Batch) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.reset = Some(code);
        slot.wake_all(&mut batch.wakers);
        if let Some(place) = slot.waiting {
            self.backlog.remove(&place);
            self.slots.remove(&id);
        }
    }

    pub(super) fn end(&mut self, now: Instant, end: SessionEnd, batch: &mut Batch) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(end);
        // What arrived whole the session still knows, so that it can be accepted and read to its end.
        self.slots.retain(|id, slot| {
            let known = self.session.connection(now, *id).is_some();
            slot.ended = true;
            if !known && !slot.is_over() {
                slot.reset.get_or_insert(ResetCode::SESSION);
            }
            slot.wake_all(&mut batch.wakers);
            known || slot.waiting.is_none()
        });
        self.backlog.retain(|_, (id, _)| self.slots.contains_key(id));
        for handle in self.tunnels.values() {
            batch.wakers.extend(handle.stop.take());
        }
        self.wake_openers();
        batch.phase = batch.phase.max(Some(Phase::Ended));
        // The driver has to see it.
        batch.rearm = true;
    }

    /// Ends tunnels that take too long to say that the session ended.
    pub(super) fn drop_tunnels(&mut self) {
        for handle in self.tunnels.values() {
            self.woken.extend(handle.drop_for(DropReason::Silent));
        }
    }

    /// Puts an ended session in the place of one whose state cannot be trusted.
    pub(super) fn replace_session(&mut self, side: Side, id: SessionId) {
        let now = Instant::now();
        self.session = Session::new(Arc::default(), side, id, 0, now);
        self.session.close(now, CloseCode::INTERNAL, "");
        for handle in self.tunnels.values() {
            self.woken.extend(handle.drop_for(DropReason::SessionEnded));
        }
    }
}
