//! The tunnel manager: owns one session, feeds its tunnels, wakes its connections and keeps its time.
//!
//! Every call into the session goes through [`TunnelManager::with`], which takes the lock once, calls, then
//! drains what the session wants to tell, and wakes whom it concerns behind the lock. Payload passes through
//! the session under that lock, taken once per read or write of a tunnel or of a connection and never held
//! across an `.await`. A waker is registered under the same lock before a poll function says `Pending`, so
//! no wake-up is lost.
//!
//! What it does not do: it dials and accepts no tunnel (`client` and `server` do) and moves no byte itself
//! (`tunnel` and `connection` do).

mod accept;
mod batch;
mod slot;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures::task::AtomicWaker;
use gkd_proto::error::{DialTunnelError, TunnelError, WelcomeError};
use gkd_proto::handshake::{Hello, Reject, Welcome};
use gkd_proto::id::{BootId, ConnectionId, PeerId, SessionId, Side, TunnelId};
use gkd_proto::packet::{CloseCode, DialError, ResetCode};
use gkd_proto::session::{CloseCause, DropReason, Event};
use gkd_proto::{Session, SessionConfig};
use tokio::sync::{Notify, watch};

pub(crate) use accept::AcceptQueue;
use batch::Batch;
pub(crate) use slot::{Slot, register};

use crate::identity::new_seed;

/// Connections of one session that wait to be accepted. One above it is answered with
/// [`DialError::Busy`]: whoever opens that many without being served is better told than kept.
const BACKLOG: usize = 1024;

/// How long tunnels may take to say that the session ended before they are closed without.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// How far a session has come. It only ever goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Connections can live.
    Live,
    /// It was told to drain, and no connection is left.
    Drained,
    /// It has ended; its tunnels may still tell so.
    Ended,
    /// It has ended, and so have its tunnels.
    Gone,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEnd {
    /// The protocol's reasons.
    Closed(CloseCause),
    /// A fault of this program (a panic while the session was at work) ended it.
    Fault,
}

impl fmt::Display for SessionEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(CloseCause::Local) => f.write_str("closed by this end"),
            Self::Closed(CloseCause::Remote { code, reason }) => {
                // The other end's words: escaped, for they may reach a terminal.
                write!(f, "closed by the other end ({})", close_code(*code))?;
                if reason.is_empty() { Ok(()) } else { write!(f, ": {}", reason.escape_debug()) }
            }
            Self::Closed(CloseCause::Violation(violation)) => {
                write!(f, "the other end broke the protocol: {violation}")
            }
            Self::Closed(CloseCause::Expired) => f.write_str("no tunnel came up for as long as it may stand"),
            Self::Closed(CloseCause::Lost) => f.write_str("the server does not know it any more"),
            Self::Closed(_) => f.write_str("ended"),
            Self::Fault => f.write_str("a fault inside this program; please report it"),
        }
    }
}

fn close_code(code: CloseCode) -> String {
    match code {
        CloseCode::DONE => "it is done".into(),
        CloseCode::PROTOCOL => "it says that this end broke the protocol".into(),
        CloseCode::REVOKED => "the user was removed, or has a new key".into(),
        CloseCode::GOING_DOWN => "it is going down".into(),
        CloseCode::LIMIT => "a limit was met".into(),
        CloseCode::INTERNAL => "a fault of the other end".into(),
        CloseCode(code) => format!("code {code}"),
    }
}

/// What the manager and the task of one tunnel share.
#[derive(Debug)]
pub(crate) struct TunnelHandle {
    /// The tunnel.
    pub(crate) id: TunnelId,
    /// The tunnel's task, when it rests for want of something to send.
    pub(crate) ready: AtomicWaker,
    /// The tunnel's task, for when the tunnel is to end.
    pub(crate) stop: AtomicWaker,
    dropped: OnceLock<DropReason>,
    /// It goes down with the runtime.
    going: AtomicBool,
}

impl TunnelHandle {
    /// Why the tunnel is to be closed, once it is.
    pub(crate) fn dropped(&self) -> Option<DropReason> {
        self.dropped.get().copied()
    }
}

/// Calls [`TunnelManager::tunnel_down`] when it goes, however the tunnel's task ends.
#[derive(Debug)]
pub(crate) struct TunnelGuard {
    pub(crate) manager: Arc<TunnelManager>,
    pub(crate) handle: Arc<TunnelHandle>,
}

impl Drop for TunnelGuard {
    fn drop(&mut self) {
        self.manager.tunnel_down(self.handle.id);
    }
}

/// One session and all that waits for it.
pub(crate) struct TunnelManager {
    /// The session's id.
    pub(crate) id: SessionId,
    /// Which end this is.
    pub(crate) side: Side,
    /// Who the other end is.
    pub(crate) peer: PeerId,
    /// The runtime on which the session's tasks run.
    pub(crate) runtime: tokio::runtime::Handle,
    state: Mutex<State>,
    /// Where connections go that the other end opens.
    accepted: Arc<AcceptQueue>,
    /// Wakes the driver.
    timer: Notify,
    phase: watch::Sender<Phase>,
}

impl fmt::Debug for TunnelManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TunnelManager({:?} of {:?})", self.id, self.peer)
    }
}

/// What the lock guards.
pub(crate) struct State {
    pub(crate) session: Session,
    /// Connections that a handle holds, or that wait to be accepted.
    slots: HashMap<ConnectionId, Slot>,
    tunnels: HashMap<TunnelId, Arc<TunnelHandle>>,
    /// Waiting to be accepted. Those that were reset meanwhile have no slot any more.
    backlog: VecDeque<(ConnectionId, Bytes)>,
    /// The session stands in the queue of those that have a backlog.
    queued: bool,
    /// When the driver will wake by itself.
    armed: Option<Instant>,
    ended: Option<SessionEnd>,
    /// The other end takes no new connections; its reason.
    draining: Option<u64>,
    /// Tasks that wait until the other end has acknowledged some of what was opened.
    openers: Vec<Waker>,
    /// Wakers of which a call found that they are to be woken behind the lock.
    woken: Vec<Waker>,
    /// Wakers that were replaced, to be dropped behind the lock.
    replaced: Vec<Waker>,
    /// Where the newest tunnel comes from.
    pub(crate) remote: Option<SocketAddr>,
}

impl TunnelManager {
    /// A session without a tunnel, and the task that keeps its time until it has ended.
    pub(crate) fn spawn(
        config: Arc<SessionConfig>,
        side: Side,
        id: SessionId,
        peer: PeerId,
        accepted: Arc<AcceptQueue>,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Self> {
        let session = Session::new(config, side, id, new_seed(), Instant::now());
        let state = State {
            session,
            slots: HashMap::new(),
            tunnels: HashMap::new(),
            backlog: VecDeque::new(),
            queued: false,
            armed: None,
            ended: None,
            draining: None,
            openers: Vec::new(),
            woken: Vec::new(),
            replaced: Vec::new(),
            remote: None,
        };
        let manager = Arc::new(Self {
            id,
            side,
            peer,
            runtime,
            state: Mutex::new(state),
            accepted,
            timer: Notify::new(),
            phase: watch::Sender::new(Phase::Live),
        });
        manager.runtime.spawn(drive(manager.clone()));
        manager
    }

    /// Calls into the session, under its lock, and passes on what comes of it. Short, and never nested.
    pub(crate) fn with<R>(self: &Arc<Self>, call: impl FnOnce(&mut State, Instant) -> R) -> R {
        // Both are declared before the guard, so that they act behind the lock.
        let mut batch = Batch::new();
        let _on_panic = WakeOnPanic(&self.timer);
        let mut state = self.lock(&mut batch);
        let now = Instant::now();
        let result = call(&mut state, now);
        state.settle(now, &mut batch);
        drop(state);
        self.carry_out(batch);
        result
    }

    /// The lock. After a panic under it the session's state cannot be trusted: it ends.
    fn lock(&self, batch: &mut Batch) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| {
            self.state.clear_poison();
            let mut state = PoisonError::into_inner(poisoned);
            state.replace_session(self.side, self.id);
            state.end(Instant::now(), SessionEnd::Fault, batch);
            state
        })
    }

    fn carry_out(self: &Arc<Self>, mut batch: Batch) {
        if batch.rearm {
            self.timer.notify_one();
        }
        if std::mem::take(&mut batch.accepted) {
            self.accepted.push(self.clone());
        }
        if let Some(phase) = batch.phase {
            self.phase.send_if_modified(|now| {
                let forward = phase > *now;
                *now = phase.max(*now);
                forward
            });
        }
    }

    /// Waits until the session has come so far.
    pub(crate) async fn reached(&self, phase: Phase) {
        let mut watched = self.phase.subscribe();
        // The sender lives as long as `self`.
        watched.wait_for(|now| *now >= phase).await.ok();
    }

    /// It was told to drain, and no connection is left; it has not ended.
    pub(crate) fn has_drained(&self) -> bool {
        *self.phase.borrow() == Phase::Drained
    }

    /// The session and its tunnels have ended.
    pub(crate) fn is_gone(&self) -> bool {
        *self.phase.borrow() >= Phase::Gone
    }

    /// Client: a tunnel that is about to be dialled, and what to say first on its carrier.
    pub(crate) fn add_dialled(self: &Arc<Self>) -> Result<(Hello, Arc<TunnelHandle>), DialTunnelError> {
        self.with(|state, now| {
            let hello = state.session.hello(now)?;
            let handle = state.add_tunnel(hello.tunnel);
            Ok((hello, handle))
        })
    }

    /// Client: the server let the tunnel in.
    pub(crate) fn welcomed(
        self: &Arc<Self>,
        tunnel: TunnelId,
        welcome: &Welcome,
        remote: Option<SocketAddr>,
    ) -> Result<(), WelcomeError> {
        self.with(|state, now| {
            state.session.handle_welcome(now, tunnel, welcome)?;
            state.remote = remote.or(state.remote);
            // Only now is it known how many connections may be opened.
            state.wake_openers();
            Ok(())
        })
    }

    /// Server: a client's tunnel; the Welcome is to be written before anything else.
    pub(crate) fn add_accepted(
        self: &Arc<Self>,
        hello: &Hello,
        boot: BootId,
        known: bool,
        remote: Option<SocketAddr>,
    ) -> Result<(Welcome, Arc<TunnelHandle>), Reject> {
        self.with(|state, now| {
            let welcome = state.session.handle_hello(now, hello, boot, known)?;
            state.remote = remote.or(state.remote);
            Ok((welcome, state.add_tunnel(hello.tunnel)))
        })
    }

    /// Why the session ended, once it has.
    pub(crate) fn ended(self: &Arc<Self>) -> Option<SessionEnd> {
        self.with(|state, _| state.ended.clone())
    }

    /// How many tunnels are up.
    pub(crate) fn tunnels_up(self: &Arc<Self>) -> usize {
        self.with(|state, _| state.session.tunnels_up())
    }

    /// Takes no new connections, and says so.
    pub(crate) fn drain(self: &Arc<Self>, reason: u64) {
        self.with(|state, now| state.session.drain(now, reason));
    }

    /// Ends the session and tells the other end why.
    pub(crate) fn close(self: &Arc<Self>, code: CloseCode, reason: &str) {
        self.with(|state, now| state.session.close(now, code, reason));
    }

    /// The server does not know the session any more, or nobody will ever dial a tunnel for it again.
    pub(crate) fn lose(self: &Arc<Self>) {
        self.with(|state, now| state.session.lose(now));
    }

    /// A tunnel's carrier has ended.
    fn tunnel_down(self: &Arc<Self>, id: TunnelId) {
        self.with(|state, now| {
            state.session.handle_tunnel_down(now, id);
            state.tunnels.remove(&id);
        });
    }

    /// This tunnel goes down with the runtime; whether all others that are up do, or did.
    pub(crate) fn is_last_to_go(self: &Arc<Self>, handle: &TunnelHandle) -> bool {
        self.with(|state, _| {
            handle.going.store(true, Ordering::Relaxed);
            let going = state.tunnels.values().filter(|handle| handle.going.load(Ordering::Relaxed));
            going.count() >= state.session.tunnels_up()
        })
    }

    /// Makes a guard for a tunnel that was added.
    pub(crate) fn guard(self: &Arc<Self>, handle: Arc<TunnelHandle>) -> TunnelGuard {
        TunnelGuard { manager: self.clone(), handle }
    }

    /// Takes the oldest connection that waits to be accepted, and whether more do.
    fn take_accepted(self: &Arc<Self>) -> Option<(Accepted, bool)> {
        self.with(|state, now| {
            while let Some((id, destination)) = state.backlog.pop_front() {
                // One without a slot was reset while it waited.
                let Some(slot) = state.slots.get_mut(&id) else { continue };
                slot.waiting = false;
                if destination.is_empty()
                    && let Some(connection) = state.session.connection(now, id)
                {
                    connection.connected(Ok(()));
                }
                let accepted = Accepted { id, destination, remote: state.remote };
                state.queued = !state.backlog.is_empty();
                return Some((accepted, state.queued));
            }
            state.queued = false;
            None
        })
    }
}

/// A connection that the other end opened, on its way to a [`Connection`](crate::Connection).
pub(crate) struct Accepted {
    pub(crate) id: ConnectionId,
    pub(crate) destination: Bytes,
    pub(crate) remote: Option<SocketAddr>,
}

/// The session, and what is known of one connection beside it.
pub(crate) struct Parts<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) slot: &'a mut Slot,
    /// Where wakers go that others took the place of.
    pub(crate) replaced: &'a mut Vec<Waker>,
    /// Where wakers go that are to be woken.
    pub(crate) woken: &'a mut Vec<Waker>,
}

struct WakeOnPanic<'a>(&'a Notify);

impl Drop for WakeOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.notify_one();
        }
    }
}

impl State {
    /// Makes room for what is to be known of a tunnel, in the same breath in which the session learns of it.
    fn add_tunnel(&mut self, id: TunnelId) -> Arc<TunnelHandle> {
        let handle = TunnelHandle {
            id,
            ready: AtomicWaker::new(),
            stop: AtomicWaker::new(),
            dropped: OnceLock::new(),
            going: AtomicBool::new(false),
        };
        let handle = Arc::new(handle);
        self.tunnels.insert(id, handle.clone());
        handle
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

    /// Wakes this task when more may be opened.
    pub(crate) fn wait_to_open(&mut self, waker: &Waker) {
        if !self.openers.iter().any(|standing| standing.will_wake(waker)) {
            self.openers.push(waker.clone());
        }
    }

    /// Bytes arrived on a tunnel, read into `buf`.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        buf: &mut BytesMut,
    ) -> Result<(), TunnelError> {
        let result = self.session.handle_recv(now, tunnel, buf);
        self.wake_openers();
        result
    }

    /// Whoever waits to open tries again; those that still cannot, wait again.
    fn wake_openers(&mut self) {
        self.woken.append(&mut self.openers);
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
    fn settle(&mut self, now: Instant, batch: &mut Batch) {
        while let Some(event) = self.session.poll_event() {
            self.handle_event(now, event, batch);
        }
        for tunnel in self.session.tunnels_to_poll() {
            if let Some(handle) = self.tunnels.get(&tunnel) {
                batch.wakers.extend(handle.ready.take());
            }
        }
        let due = self.session.poll_timeout();
        if due.is_some_and(|due| self.armed.is_none_or(|armed| due < armed)) {
            self.armed = due;
            batch.rearm = true;
        }
        if self.ended.is_some() && self.tunnels.is_empty() {
            batch.phase = Some(Phase::Gone);
            // The driver ends with the last tunnel.
            batch.rearm = true;
        }
        batch.wakers.append(&mut self.woken);
        batch.replaced.append(&mut self.replaced);
    }

    fn handle_event(&mut self, now: Instant, event: Event, batch: &mut Batch) {
        match event {
            Event::Accepted { connection, destination } => self.accept(now, connection, destination, batch),
            Event::Connected { connection, result } => self.slot_event(connection, batch, |slot, wake| {
                slot.answer = Some(result);
                wake.extend(slot.answer_waker.take());
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
                wake.extend(slot.datagram.take());
            }),
            Event::Reset { connection, code } => self.reset(connection, code, batch),
            Event::DropTunnel { tunnel, reason } => {
                if let Some(handle) = self.tunnels.get(&tunnel) {
                    handle.dropped.set(reason).ok();
                    batch.wakers.extend(handle.stop.take());
                }
            }
            Event::Draining { reason } => self.draining = Some(reason),
            Event::Drained => batch.phase = batch.phase.max(Some(Phase::Drained)),
            Event::Closed { cause } => self.end(now, SessionEnd::Closed(cause), batch),
            _ => {}
        }
    }

    fn slot_event(
        &mut self,
        id: ConnectionId,
        batch: &mut Batch,
        handle: impl FnOnce(&mut Slot, &mut Vec<Waker>),
    ) {
        if let Some(slot) = self.slots.get_mut(&id) {
            handle(slot, &mut batch.wakers);
        }
    }

    fn accept(&mut self, now: Instant, id: ConnectionId, destination: Bytes, batch: &mut Batch) {
        if self.backlog.len() >= BACKLOG {
            self.backlog.retain(|(id, _)| self.slots.contains_key(id));
        }
        if self.backlog.len() >= BACKLOG {
            if let Some(connection) = self.session.connection(now, id) {
                connection.connected(Err(DialError::Busy));
            }
            return;
        }
        self.slots.insert(id, Slot { waiting: true, ..Slot::default() });
        self.backlog.push_back((id, destination));
        batch.accepted |= !self.queued;
        self.queued = true;
    }

    fn reset(&mut self, id: ConnectionId, code: ResetCode, batch: &mut Batch) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.reset = Some(code);
        slot.wake_all(&mut batch.wakers);
        if slot.waiting {
            self.slots.remove(&id);
        }
    }

    fn end(&mut self, now: Instant, end: SessionEnd, batch: &mut Batch) {
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
            known || !slot.waiting
        });
        for handle in self.tunnels.values() {
            batch.wakers.extend(handle.stop.take());
        }
        batch.wakers.append(&mut self.openers);
        batch.phase = batch.phase.max(Some(Phase::Ended));
        // The driver has to see it.
        batch.rearm = true;
    }

    /// Ends tunnels that take too long to say that the session ended.
    fn drop_tunnels(&mut self) {
        for handle in self.tunnels.values() {
            handle.dropped.set(DropReason::Silent).ok();
            self.woken.extend(handle.stop.take());
        }
    }

    /// Puts an ended session in the place of one whose state cannot be trusted.
    fn replace_session(&mut self, side: Side, id: SessionId) {
        let now = Instant::now();
        self.session = Session::new(Arc::default(), side, id, 0, now);
        self.session.close(now, CloseCode::INTERNAL, "");
        for handle in self.tunnels.values() {
            handle.dropped.set(DropReason::SessionEnded).ok();
        }
    }
}

/// Keeps the session's time until it has ended and its tunnels with it; sees that these do not take long.
async fn drive(manager: Arc<TunnelManager>) {
    let sleep = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(sleep);
    let mut close_by: Option<Instant> = None;
    loop {
        let (mut due, ended, gone) = manager.with(|state, _| {
            state.armed = state.session.poll_timeout();
            let ended = state.ended.is_some();
            (state.armed, ended, ended && state.tunnels.is_empty())
        });
        if gone {
            break;
        }
        if ended {
            let by = *close_by.get_or_insert_with(|| Instant::now() + CLOSE_WITHIN);
            if Instant::now() >= by {
                break manager.with(|state, _| state.drop_tunnels());
            }
            due = Some(due.map_or(by, |due| due.min(by)));
        }
        match due {
            Some(due) => {
                sleep.as_mut().reset(due.into());
                tokio::select! {
                    () = &mut sleep => manager.with(|state, now| state.session.handle_timeout(now)),
                    () = manager.timer.notified() => {}
                }
            }
            None => manager.timer.notified().await,
        }
    }
    if let Some(end) = manager.ended() {
        tracing::debug!(session = ?manager.id, "the session ended: {end}");
    }
}

#[cfg(test)]
mod tests;
