//! [`Server`]: accepts tunnels on any number of addresses, sorts them into the sessions of their peers, and
//! hands out the connections that these open.

mod builder;
mod half_open;
mod listen;
mod serve;
mod stats;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::join_all;
use gkd_proto::id::PeerId;
use gkd_proto::packet::CloseCode;
use gkd_proto::{MemoryBudget, SessionConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use builder::{Admission, Authorise, OnSession, ServerBuilder};
use half_open::{HalfOpen, HalfOpenLimits};
use stats::Rejected;
pub use stats::{ServerStats, Usage};

use crate::carrier::{Acceptor, ws};
use crate::connection::Connection;
use crate::error::Result;
use crate::fair_limit::FairLimit;
use crate::manager::AcceptQueue;
use crate::registry::Registry;
use crate::runtime;
use crate::seldom::Seldom;
use crate::session::SessionHandle;
use crate::socket::SocketOptions;

/// Accepts the tunnels of many peers and the connections that they open. Each peer has its own sessions, and
/// cannot name those of another.
///
/// When it is dropped it accepts no more; connections that live on are served until they end, as long as
/// their tunnels stand. [`ShutdownHandle`] does this in good order.
pub struct Server {
    inner: Arc<Inner>,
}

/// What handles and tasks share.
struct Inner {
    acceptor: Acceptor,
    key: PeerId,
    authorise: Arc<builder::Authorise>,
    on_session: Arc<builder::OnSession>,
    config: Arc<SessionConfig>,
    options: SocketOptions,
    memory: Arc<MemoryBudget>,
    max_sessions: usize,
    max_sessions_per_peer: usize,
    tunnels: Arc<FairLimit>,
    half_open: Arc<HalfOpen>,
    /// What is done with HTTP; nothing where there is none.
    visit: Option<Arc<ws::Visit>>,
    visitors: Arc<HalfOpen>,
    rejected: Rejected,
    handshake: Duration,
    registry: Registry,
    accepted: Arc<AcceptQueue>,
    addresses: Vec<SocketAddr>,
    runtime: tokio::runtime::Handle,
    stage: AtomicU8,
    /// What strangers and users may cause to be logged.
    seldom: Seldom,
    /// Ends the listeners.
    stop: CancellationToken,
}

/// What a builder has put together.
struct Setup {
    acceptor: Acceptor,
    key: PeerId,
    authorise: Arc<builder::Authorise>,
    on_session: Arc<builder::OnSession>,
    config: SessionConfig,
    options: SocketOptions,
    memory: u64,
    max_sessions: usize,
    max_sessions_per_peer: usize,
    max_tunnels: usize,
    half_open: HalfOpenLimits,
    visit: Option<Arc<ws::Visit>>,
    visitors: HalfOpenLimits,
    handshake: Duration,
}

/// How far a server is on its way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It takes everything.
    Open,
    /// It takes tunnels of the sessions that it has.
    Draining,
    /// It takes nothing.
    Closed,
}

impl Server {
    /// Listens on an address and takes every client, over TLS and over the unencrypted carrier, under a fresh
    /// key: for paths that are trusted. Of a name with several addresses the first that can be had.
    /// [`builder`](Self::builder) has everything else.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn bind(address: impl ToSocketAddrs) -> Result<Self> {
        let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "there is no address to listen on");
        for address in address.to_socket_addrs()? {
            match Self::builder().listen(address).plain(true).bind().await {
                Err(crate::Error::Io(error)) => failure = error,
                other => return other,
            }
        }
        Err(failure.into())
    }

    /// All that can be set.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    fn spawn(setup: Setup, listeners: Vec<TcpListener>, runtime: tokio::runtime::Handle) -> Result<Self> {
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?;
        let inner = Arc::new(Inner {
            acceptor: setup.acceptor,
            key: setup.key,
            authorise: setup.authorise,
            on_session: setup.on_session,
            config: Arc::new(setup.config),
            options: setup.options,
            memory: MemoryBudget::new(setup.memory),
            max_sessions: setup.max_sessions,
            max_sessions_per_peer: setup.max_sessions_per_peer,
            tunnels: FairLimit::new(setup.max_tunnels),
            half_open: HalfOpen::new(setup.half_open),
            visit: setup.visit,
            visitors: HalfOpen::new(setup.visitors),
            rejected: Rejected::default(),
            handshake: setup.handshake,
            registry: Registry::default(),
            accepted: Arc::new(AcceptQueue::default()),
            addresses,
            runtime: runtime.clone(),
            stage: AtomicU8::new(Stage::Open as u8),
            seldom: Seldom::default(),
            stop: CancellationToken::new(),
        });
        let serving = inner.clone();
        runtime.spawn(async move {
            let all = listen::accept_all(listeners, &serving.seldom, |tcp, address| {
                // In a task of its own: a panic in it ends this connection.
                let place = serving.half_open.enter(address.ip());
                serving.runtime.spawn(serve::serve(serving.clone(), tcp, address, place));
            });
            serving.stop.run_until_cancelled(all).await;
        });
        Ok(Self { inner })
    }

    /// The next connection that a client opened, and where the client is. Over all sessions, each in its turn.
    /// `None` when the server was shut down. Cancel safe; several tasks may call it.
    ///
    /// A connection with a destination is to be answered: [`Connection::confirm`].
    pub async fn accept(&self) -> Option<(Connection, SocketAddr)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// See [`accept`](Self::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<(Connection, SocketAddr)>> {
        let connection = ready!(self.inner.accepted.poll_accept(cx));
        Poll::Ready(connection.map(|connection| {
            // A session of a server always has a tunnel with an address before it has a connection.
            let nowhere = SocketAddr::from((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
            let address = connection.remote_addr().unwrap_or(nowhere);
            (connection, address)
        }))
    }

    /// The first address that it listens on, with the port that it got for port 0.
    ///
    /// # Errors
    /// None.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.addresses.first().copied().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// All addresses that it listens on, in the order in which they were asked for.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.inner.addresses
    }

    /// The server's public key, which links name.
    pub fn key(&self) -> PeerId {
        self.inner.key
    }

    /// All sessions at this moment: to open connections towards clients, for figures, to end one.
    pub fn sessions(&self) -> Vec<SessionHandle> {
        self.inner.sessions()
    }

    /// The sessions of one peer at this moment.
    pub fn sessions_of(&self, peer: &PeerId) -> Vec<SessionHandle> {
        self.inner.registry.of(peer).into_iter().map(SessionHandle::new).collect()
    }

    /// The memory that all sessions share.
    pub fn memory(&self) -> &MemoryBudget {
        &self.inner.memory
    }

    /// Figures of all sessions together: what is used of what there is for them, and which limits were met.
    pub fn stats(&self) -> ServerStats {
        self.inner.stats()
    }

    /// What shuts the server down, from wherever.
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle { inner: self.inner.clone() }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addresses", &self.inner.addresses).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.inner.enter(Stage::Closed);
        self.inner.accepted.close();
        self.inner.stop.cancel();
        for session in self.inner.sessions() {
            session.wind_down_in_background();
        }
    }
}

/// Shuts a [`Server`] down. Cheap to clone.
#[derive(Clone)]
pub struct ShutdownHandle {
    inner: Arc<Inner>,
}

impl ShutdownHandle {
    /// Takes no new sessions and connections, lets live connections end, for so long at the most, then ends
    /// every session. Ready when all clients were told, or will not be; `accept` then gives `None`. False when
    /// the time was over and live connections were cut. With nothing live it is ready at once.
    ///
    /// Cancelled half-way, it goes on in the background. A second call with a shorter time ends the first
    /// early.
    pub async fn shutdown(&self, within: Duration) -> bool {
        let inner = self.inner.clone();
        let down = async move { inner.shut_down(within).await };
        runtime::run_detached(&self.inner.runtime, down).await.unwrap_or(false)
    }
}

impl fmt::Debug for ShutdownHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ShutdownHandle")
    }
}

impl Inner {
    fn sessions(&self) -> Vec<SessionHandle> {
        self.registry.all().into_iter().map(SessionHandle::new).collect()
    }

    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            stage if stage == Stage::Open as u8 => Stage::Open,
            stage if stage == Stage::Draining as u8 => Stage::Draining,
            _ => Stage::Closed,
        }
    }

    fn enter(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }

    async fn shut_down(&self, within: Duration) -> bool {
        self.enter(Stage::Draining);
        let sessions = self.sessions();
        let down = sessions.iter().map(|session| {
            session.wind_down(Some(within), CloseCode::GOING_DOWN, "the server is going down")
        });
        let drained = join_all(down).await.into_iter().all(|drained| drained);
        self.enter(Stage::Closed);
        // Those that came in while the first were ending.
        let late = self.sessions();
        join_all(
            late.iter().map(|session| session.wind_down(Some(Duration::ZERO), CloseCode::GOING_DOWN, "")),
        )
        .await;
        self.stop.cancel();
        self.accepted.close();
        drained
    }
}
