//! [`Client`]: keeps a session with a server over N tunnels per path, and opens connections in it.
//!
//! Each tunnel has a place of its own (`slot`), which dials it (`dial`) and dials it again when it is lost. How many
//! there are to be (`places`) is said once, or decided while it runs (`auto`, `growth`). A
//! session that the server does not know any more, or that stood without a tunnel for too long, is replaced by
//! a new one; connections of the old are reset, later ones are opened in the new.

mod auto;
mod builder;
mod dial;
mod growth;
mod places;
mod sleep;
mod slot;
mod state;
mod via;

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use gkd_proto::budget::Reservation;
use gkd_proto::error::OpenError;
use gkd_proto::id::{PeerId, Side, TunnelId};
use gkd_proto::packet::CloseCode;
use gkd_proto::{SessionConfig, SessionStats};
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

pub use builder::{ClientBuilder, DEFAULT_TUNNELS, IntoAddress, MAX_TUNNELS};
use dial::Dialler;
pub use dial::{Path, TunnelDialError};
use places::{Made, Places};
use sleep::SleepWatch;
use slot::Slot;
pub use state::{ClientEvent, ClientState, TunnelPlace};
pub use via::{ProxyError, Via, ViaError};

use crate::carrier::CarrierKind;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::identity::new_session_id;
use crate::manager::{AcceptQueue, Phase, TunnelManager};
use crate::runtime;
use crate::session::SessionHandle;

/// Events that a slow listener may be behind before it misses the oldest.
const EVENTS: usize = 256;

/// How long [`Client::close`] lets live connections end.
const DRAIN: Duration = Duration::from_secs(30);

/// While no tunnel is up, a fresh dial starts this often; the clocks are compared as often.
const WATCH: Duration = Duration::from_secs(2);

/// A session with a server over N tunnels per path. Cheap to clone.
///
/// Lost tunnels are dialled again, at once and then with growing waits, for ever; connections do not notice as
/// long as one comes up within the session's
/// [`resume_for`](gkd_proto::SessionConfig::resume_for). After that, and when the server was restarted, they
/// are reset, and the client goes on with a new session by itself.
///
/// When the last clone is dropped, connections that live on are served until they end;
/// [`close`](Self::close) waits for that, so that a program may end.
#[derive(Clone)]
pub struct Client {
    keeper: Arc<Keeper>,
}

/// Ends the client with its last handle.
struct Keeper {
    inner: Arc<Inner>,
}

/// What handles and tasks share.
struct Inner {
    dialler: Dialler,
    config: Arc<SessionConfig>,
    peer: PeerId,
    runtime: tokio::runtime::Handle,
    accepted: Arc<AcceptQueue>,
    /// The session that new connections are opened in.
    current: Mutex<Arc<TunnelManager>>,
    /// Counts the sessions; changes behind `current`.
    renewed: watch::Sender<u64>,
    /// Ends waits before dials.
    dial_now: Notify,
    state: watch::Sender<ClientState>,
    places: Places,
    /// How many tunnels there are on a path is decided while it runs.
    auto: bool,
    /// The server let a tunnel not in, above those that there are at least.
    refused: AtomicBool,
    events: broadcast::Sender<ClientEvent>,
    /// No session follows the current one.
    closing: AtomicBool,
    /// All tasks end.
    stop: CancellationToken,
}

impl Client {
    /// Connects to a server over the unencrypted carrier, with `tunnels` tunnels, under a fresh key, and takes
    /// any server's key: for a path that is trusted. [`builder`](Self::builder) has everything else.
    ///
    /// # Errors
    /// Why no tunnel came up.
    pub async fn connect(address: impl IntoAddress, tunnels: usize) -> Result<Self> {
        Self::builder().address(address).carrier(CarrierKind::Plain).tunnels(tunnels).connect().await
    }

    /// All that can be set.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// With so many tunnels per path, at first where it is `auto`.
    fn spawn(
        dialler: Dialler,
        paths: Vec<Arc<Path>>,
        tunnels: usize,
        auto: bool,
        config: SessionConfig,
        runtime: tokio::runtime::Handle,
    ) -> Self {
        let accepted = Arc::new(AcceptQueue::default());
        let config = Arc::new(config);
        let peer = dialler.server.unwrap_or(PeerId([0; 32]));
        let first = new_session(&config, peer, &accepted, &runtime);
        let count = paths.len();
        let inner = Arc::new(Inner {
            dialler,
            config,
            peer,
            runtime: runtime.clone(),
            accepted,
            current: Mutex::new(first),
            renewed: watch::Sender::new(0),
            dial_now: Notify::new(),
            state: watch::Sender::new(ClientState::default()),
            places: Places::new(paths),
            auto,
            refused: AtomicBool::new(false),
            events: broadcast::Sender::new(EVENTS),
            closing: AtomicBool::new(false),
            stop: CancellationToken::new(),
        });
        inner.want(tunnels);
        runtime.spawn(supervise(inner.clone()));
        runtime.spawn(watch_over(inner.clone()));
        if auto {
            runtime.spawn(auto::adjust(inner.clone(), count));
        }
        Self { keeper: Arc::new(Keeper { inner }) }
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.keeper.inner
    }

    /// Waits until a tunnel is up or was. Cancel safe.
    ///
    /// # Errors
    /// Why none came up, when the first dial of every tunnel failed, or one was refused for good
    /// ([`TunnelDialError::is_final`]). The client keeps trying nevertheless, as long as it is there.
    pub async fn ready(&self) -> Result<()> {
        let mut states = self.inner().state.subscribe();
        let state = states
            .wait_for(|state| {
                let refused = state.failure.as_ref().is_some_and(|failure| {
                    matches!(&**failure, TunnelDialError::Rejected { .. }) && failure.is_final()
                });
                state.was_up || state.closed || refused || state.failed_first >= state.tunnels
            })
            .await
            .map_err(|_| Error::Closed)?;
        match &state.failure {
            _ if state.was_up => Ok(()),
            Some(failure) => Err(failure.clone().into()),
            None => Err(Error::Closed),
        }
    }

    /// Opens a connection that the server's program takes with `accept`.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn get_connection(&self) -> Result<Connection> {
        self.open(Bytes::new()).await
    }

    /// Opens a connection to a destination that the server's program understands, of at most 512 bytes. Waits
    /// for no answer: data may be written at once, and [`Connection::connected`] tells how it went. While no
    /// tunnel is up it is queued. Cancel safe.
    ///
    /// # Errors
    /// The client is closed; the server takes no new connections, or is at its limit of them; the destination
    /// is too long.
    pub async fn open(&self, destination: impl Into<Bytes>) -> Result<Connection> {
        let destination = destination.into();
        let mut renewed = self.inner().renewed.subscribe();
        loop {
            renewed.mark_unchanged();
            let session = self.session();
            match session.open(destination.clone()).await {
                Err(OpenError::Closed) if !self.inner().is_closing() => {
                    // A new session follows one that ended.
                    tokio::select! {
                        changed = renewed.changed() => changed.map_err(|_| Error::Closed)?,
                        () = self.inner().stop.cancelled() => return Err(Error::Closed),
                    }
                }
                Err(OpenError::Closed) => return Err(Error::Closed),
                other => return Ok(other?),
            }
        }
    }

    /// The next connection that the server opened; `None` when the client was closed. Cancel safe.
    pub async fn accept(&self) -> Option<Connection> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// See [`accept`](Self::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<Connection>> {
        self.inner().accepted.poll_accept(cx)
    }

    /// The session that connections are opened in now.
    pub fn session(&self) -> SessionHandle {
        SessionHandle::new(self.inner().lock_current().clone())
    }

    /// How many tunnels are up.
    pub fn tunnels_up(&self) -> usize {
        self.session().tunnels_up()
    }

    /// The places of all tunnels, and which are up.
    pub fn tunnels(&self) -> Vec<TunnelPlace> {
        self.inner().places.list()
    }

    /// Figures of the current session.
    pub fn stats(&self) -> SessionStats {
        self.session().stats()
    }

    /// How the client stands now.
    pub fn state(&self) -> ClientState {
        self.inner().state.borrow().clone()
    }

    /// Watches how the client stands.
    pub fn watch(&self) -> watch::Receiver<ClientState> {
        self.inner().state.subscribe()
    }

    /// What happens to the client from now on. A listener that is more than 256 events behind misses the
    /// oldest.
    pub fn events(&self) -> broadcast::Receiver<ClientEvent> {
        self.inner().events.subscribe()
    }

    /// Pings every tunnel and dials every missing one at once: the machine slept, or an address changed.
    pub fn probe(&self) {
        self.inner().probe();
    }

    /// Lets live connections end, for 30 s at the most, then ends the session; ready when the server was told,
    /// so that a program may end. False when the time was over and live connections were cut.
    pub async fn close(&self) -> bool {
        self.close_within(DRAIN).await
    }

    /// [`close`](Self::close) with another bound. Cancelled half-way, it goes on in the background.
    pub async fn close_within(&self, within: Duration) -> bool {
        let inner = self.inner().clone();
        let closing = async move { inner.close(Some(within)).await };
        runtime::run_detached(&self.inner().runtime, closing).await.unwrap_or(false)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("session", &self.session()).field("state", &self.state()).finish()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let inner = self.inner.clone();
        if inner.stop.is_cancelled() {
            return;
        }
        inner.end_if_idle();
        self.inner.runtime.spawn(async move { inner.close(None).await });
    }
}

fn new_session(
    config: &Arc<SessionConfig>,
    peer: PeerId,
    accepted: &Arc<AcceptQueue>,
    runtime: &tokio::runtime::Handle,
) -> Arc<TunnelManager> {
    let (config, id) = (config.clone(), new_session_id());
    let memory = Reservation::default();
    TunnelManager::spawn(config, Side::Client, id, peer, memory, accepted.clone(), runtime.clone())
}

impl Inner {
    fn lock_current(&self) -> MutexGuard<'_, Arc<TunnelManager>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// The session to dial for; none once the client has stopped, or closes and its session has ended.
    fn current(&self) -> Option<Arc<TunnelManager>> {
        let current = self.lock_current().clone();
        let over = self.stop.is_cancelled() || self.is_closing() && current.ended().is_some();
        (!over).then_some(current)
    }

    /// Puts a new session in the place of one that ended. False when it has not ended, or none is to follow.
    fn renew(&self, old: &Arc<TunnelManager>) -> bool {
        let Some(cause) = old.ended() else { return false };
        {
            let mut current = self.lock_current();
            // Under the lock, so that `close` finds the last session.
            if self.is_closing() {
                return false;
            }
            if !Arc::ptr_eq(&current, old) {
                return true;
            }
            *current = new_session(&self.config, self.peer, &self.accepted, &self.runtime);
        }
        self.renewed.send_modify(|count| *count += 1);
        tracing::debug!(session = ?old.id, %cause, "the session was replaced by a new one");
        self.tell(ClientEvent::SessionLost { session: old.id, cause });
        true
    }

    fn tell(&self, event: ClientEvent) {
        // Nobody may listen.
        self.events.send(event).ok();
    }

    fn update(&self, change: impl FnOnce(&mut ClientState)) {
        self.state.send_modify(change);
    }

    /// From now on there are to be so many tunnels on each path.
    fn want(self: &Arc<Self>, tunnels: usize) {
        for Made { path, index, place } in self.places.want(tunnels) {
            let slot = Slot { inner: self.clone(), path, index, place };
            self.runtime.spawn(slot.keep());
        }
        let total = self.places.total();
        self.update(|state| state.tunnels = total);
        self.tell(ClientEvent::Wanted { tunnels: total });
    }

    /// Shows a tunnel as up until the guard goes.
    fn show_up(self: &Arc<Self>, place: usize, tunnel: TunnelId, remote: Option<SocketAddr>) -> ShownUp {
        self.places.show(place, Some(tunnel), remote);
        let mut first = false;
        self.update(|state| {
            first = state.tunnels_up == 0;
            state.tunnels_up += 1;
            state.was_up = true;
            state.failure = None;
        });
        if first {
            // The server can be reached again: the others need not wait.
            self.dial_now.notify_waiters();
        }
        ShownUp { inner: self.clone(), place }
    }

    fn probe(&self) {
        self.lock_current().clone().with(|state, now| state.session.probe(now));
        self.dial_now.notify_waiters();
    }

    /// Ends the session at once if no connection lives in it. So a client that is dropped because it was refused does not
    /// dial again meanwhile, and leave the server a session that nobody wants.
    fn end_if_idle(&self) {
        let last = self.last_session();
        last.drain(CloseCode::DONE.0);
        if !last.is_live() {
            last.close(CloseCode::DONE, "");
        }
    }

    /// No session follows the one that this returns.
    fn last_session(&self) -> Arc<TunnelManager> {
        let current = self.lock_current();
        self.closing.store(true, Ordering::Release);
        current.clone()
    }

    async fn close(&self, within: Option<Duration>) -> bool {
        let last = self.last_session();
        self.renewed.send_modify(|count| *count += 1);
        let session = SessionHandle::new(last.clone());
        let drained = session.wind_down(within, CloseCode::DONE, "").await;
        self.stop.cancel();
        self.accepted.close();
        self.update(|state| state.closed = true);
        self.tell(ClientEvent::Closed);
        drained
    }
}

struct ShownUp {
    inner: Arc<Inner>,
    place: usize,
}

impl Drop for ShownUp {
    fn drop(&mut self) {
        self.inner.places.show(self.place, None, None);
        self.inner.update(|state| state.tunnels_up -= 1);
    }
}

/// Replaces every session that ends, until the client closes.
async fn supervise(inner: Arc<Inner>) {
    loop {
        let current = inner.lock_current().clone();
        tokio::select! {
            () = current.reached(Phase::Ended) => {}
            () = inner.stop.cancelled() => return,
        }
        if !inner.renew(&current) {
            return;
        }
    }
}

/// While no tunnel is up, sees that a fresh dial starts every 2 s, whatever the waits of its places. Notices
/// that the machine slept.
async fn watch_over(inner: Arc<Inner>) {
    let mut sleep = SleepWatch::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(WATCH) => {}
            () = inner.stop.cancelled() => return,
        }
        if sleep.slept() {
            tracing::debug!("the machine slept: every tunnel is tried");
            inner.probe();
        } else if inner.state.borrow().tunnels_up == 0 {
            inner.dial_now.notify_one();
        }
    }
}
