//! The tunnel manager: owns one session, feeds its tunnels, wakes its connections and keeps its time.
//!
//! Every call into the session goes through [`TunnelManager::with`] (the driver's through one like it), which takes the lock
//! once, calls, then drains what the session wants to tell, and wakes whom it concerns behind the lock. Payload passes through
//! the session under that lock, taken once per read or write of a tunnel or of a connection and never held
//! across an `.await`. A waker is registered under the same lock before a poll function says `Pending`, so
//! no wake-up is lost.
//!
//! What it does not do: it dials and accepts no tunnel (`client` and `server` do) and moves no byte itself
//! (`tunnel` and `connection` do).

mod accept;
mod batch;
mod driver;
mod end;
mod handle;
mod openers;
mod slot;
mod state;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gkd_proto::budget::Reservation;
use gkd_proto::error::{DialTunnelError, WelcomeError};
use gkd_proto::handshake::{Hello, Reject, Welcome};
use gkd_proto::id::{BootId, ConnectionId, PeerId, SessionId, Side, TunnelId};
use gkd_proto::packet::CloseCode;
use gkd_proto::{Session, SessionConfig};
use tokio::sync::{Notify, watch};

pub(crate) use accept::AcceptQueue;
use batch::Batch;
pub use end::SessionEnd;
pub(crate) use handle::{TunnelGuard, TunnelHandle};
pub(crate) use openers::Opener;
pub(crate) use slot::{Slot, register};
pub(crate) use state::{Accepted, Parts, State};

use crate::identity::{new_boot_id, new_seed};

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

/// Whether a session has a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// How often that has changed. What calls found is told behind the lock, and so in any order: only what is newer counts.
    turn: u64,
    /// A tunnel is up.
    pub(crate) up: bool,
}

/// What the driver is told.
struct Time {
    now: Instant,
    /// When it is to look again.
    due: Option<Instant>,
    ended: bool,
    has_tunnels: bool,
}

/// One session and all that waits for it.
pub(crate) struct TunnelManager {
    /// The session's id.
    pub(crate) id: SessionId,
    /// Which end this is.
    pub(crate) side: Side,
    /// Who the other end is.
    pub(crate) peer: PeerId,
    /// Server: this life of the session. One that is made again under the same id, by another process or because it
    /// had expired, has another.
    boot: BootId,
    /// When it was made.
    pub(crate) began: Instant,
    /// The runtime on which the session's tasks run.
    pub(crate) runtime: tokio::runtime::Handle,
    state: Mutex<State>,
    /// Where connections go that the other end opens.
    accepted: Arc<AcceptQueue>,
    /// Wakes the driver.
    timer: Notify,
    phase: watch::Sender<Phase>,
    line: watch::Sender<Line>,
    /// All tunnels are quiet.
    stalled: Notify,
}

impl fmt::Debug for TunnelManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TunnelManager({:?} of {:?})", self.id, self.peer)
    }
}

impl TunnelManager {
    /// A session without a tunnel, and the task that keeps its time until it has ended. `memory` is the session's part
    /// of what the process has for all.
    pub(crate) fn spawn(
        config: Arc<SessionConfig>,
        side: Side,
        id: SessionId,
        peer: PeerId,
        memory: Reservation,
        accepted: Arc<AcceptQueue>,
        runtime: tokio::runtime::Handle,
    ) -> Arc<Self> {
        let began = Instant::now();
        let session = Session::new(config, side, id, new_seed(), began).within(memory);
        let manager = Arc::new(Self {
            id,
            side,
            peer,
            boot: new_boot_id(),
            began,
            runtime,
            state: Mutex::new(State::new(session)),
            accepted,
            timer: Notify::new(),
            phase: watch::Sender::new(Phase::Live),
            line: watch::Sender::default(),
            stalled: Notify::new(),
        });
        manager.runtime.spawn(driver::drive(manager.clone()));
        manager
    }

    /// Calls into the session, under its lock, and passes on what comes of it. Short, and never nested.
    pub(crate) fn with<R>(self: &Arc<Self>, call: impl FnOnce(&mut State, Instant) -> R) -> R {
        self.call(|state, now, batch| {
            let result = call(state, now);
            state.settle(now, batch);
            state.arm(now, batch);
            result
        })
    }

    /// As [`with`](Self::with), for what a program does with one connection.
    pub(crate) fn with_connection<R>(
        self: &Arc<Self>,
        id: ConnectionId,
        call: impl FnOnce(Parts<'_>, Instant) -> R,
    ) -> R {
        self.with(|state, now| call(state.parts(id), now))
    }

    /// The driver's call, which looks when its time has come; when that is next, and how the session stands.
    fn keep_time(self: &Arc<Self>, look: impl FnOnce(&mut State, Instant)) -> Time {
        self.call(|state, now, batch| {
            look(state, now);
            state.settle(now, batch);
            Time {
                now,
                due: state.armed,
                ended: state.ended.is_some(),
                has_tunnels: !state.tunnels.is_empty(),
            }
        })
    }

    /// Calls under the lock; what came of it is carried out behind it.
    fn call<R>(self: &Arc<Self>, call: impl FnOnce(&mut State, Instant, &mut Batch) -> R) -> R {
        // Both are declared before the guard, so that they act behind the lock.
        let mut batch = Batch::default();
        let _on_panic = WakeOnPanic(&self.timer);
        let mut state = self.lock(&mut batch);
        let now = Instant::now();
        let result = call(&mut state, now, &mut batch);
        drop(state);
        self.carry_out(&mut batch);
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

    fn carry_out(self: &Arc<Self>, batch: &mut Batch) {
        if batch.rearm {
            self.timer.notify_one();
        }
        if std::mem::take(&mut batch.accepted) {
            self.accepted.push(self.clone());
        }
        if batch.stalled {
            self.stalled.notify_waiters();
        }
        if let Some(line) = batch.line {
            self.line.send_if_modified(|now| {
                let newer = line.turn > now.turn;
                if newer {
                    *now = line;
                }
                newer
            });
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

    /// Waits until a tunnel is up, or none is. One that came and went meanwhile may not have been seen.
    pub(crate) async fn line_is(&self, up: bool) {
        let mut watched = self.line.subscribe();
        // As above.
        watched.wait_for(|now| now.up == up).await.ok();
    }

    /// Waits until nothing comes on any tunnel although answers are due. What was so before counts as little as
    /// it helps: it comes again.
    pub(crate) async fn stalled(&self) {
        self.stalled.notified().await;
    }

    /// Whether nothing has come on any tunnel for some time, although answers are due.
    pub(crate) fn is_stalled(self: &Arc<Self>) -> bool {
        self.with(|state, now| state.session.is_stalled(now))
    }

    /// Whether that is so of this tunnel.
    pub(crate) fn is_quiet(self: &Arc<Self>, tunnel: TunnelId) -> bool {
        self.with(|state, now| state.session.is_quiet(now, tunnel))
    }

    /// It has not ended, and was not told to drain or has connections left.
    pub(crate) fn is_live(&self) -> bool {
        *self.phase.borrow() == Phase::Live
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
            if let Some(handle) = state.tunnels.get(&tunnel) {
                handle.is_at(remote);
            }
            // Only now is it known how many connections may be opened.
            state.wake_openers();
            Ok(())
        })
    }

    /// Server: a client's tunnel; the Welcome is to be written before anything else.
    pub(crate) fn add_accepted(
        self: &Arc<Self>,
        hello: &Hello,
        known: bool,
        remote: Option<SocketAddr>,
    ) -> Result<(Welcome, Arc<TunnelHandle>), Reject> {
        self.with(|state, now| {
            let welcome = state.session.handle_hello(now, hello, self.boot, known)?;
            state.remote = remote.or(state.remote);
            state.wake_openers();
            let handle = state.add_tunnel(hello.tunnel);
            handle.is_at(remote);
            Ok((welcome, handle))
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
        self.with(|state, now| {
            state.session.drain(now, reason);
            state.wake_openers();
        });
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
            handle.goes();
            state.tunnels.values().filter(|handle| handle.is_going()).count() >= state.session.tunnels_up()
        })
    }

    /// Makes a guard for a tunnel that was added.
    pub(crate) fn guard(self: &Arc<Self>, handle: Arc<TunnelHandle>) -> TunnelGuard {
        TunnelGuard { manager: self.clone(), handle }
    }

    /// Takes the oldest connection that waits to be accepted, and whether more do.
    fn take_accepted(self: &Arc<Self>) -> Option<(Accepted, bool)> {
        self.with(|state, now| state.take_accepted(now))
    }
}

/// A panic under the lock ends the session; its driver sees to it.
struct WakeOnPanic<'a>(&'a Notify);

impl Drop for WakeOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.notify_one();
        }
    }
}
