//! [`ServerBuilder`]: all that can be set on a server, and who may come in.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use gkd_proto::SessionConfig;
use gkd_proto::handshake::Reject;
use gkd_proto::id::PeerId;
use tokio::net::TcpListener;

use super::half_open::HalfOpenLimits;
use super::{Server, Setup};
use crate::carrier;
use crate::carrier::ws::{self, SiteService, WebSocketConfig};
use crate::error::{Error, Result};
use crate::identity::SecretKey;
use crate::runtime;
use crate::session::SessionHandle;
use crate::socket::{self, Congestion, SocketOptions};

/// Sessions of all peers together, where nothing else is asked for. Each may hold its windows.
const MAX_SESSIONS: usize = 1024;

/// Sessions of one peer, where nothing else is asked for: one user with several machines.
const MAX_SESSIONS_PER_PEER: usize = 32;

/// Half-open connections, where nothing else is asked for. Each costs a socket and 16 KiB at the most; 64 tunnels
/// of several clients come in at once.
const MAX_HALF_OPEN: usize = 1024;

/// Half-open connections of one address, where nothing else is asked for.
const MAX_HALF_OPEN_PER_ADDRESS: usize = 256;

/// Visitors of the site, where nothing else is asked for. Each costs a socket and some 32 KiB.
const MAX_VISITORS: usize = 256;

/// What sessions may hold and promise together, where nothing else is asked for: 256 of them as they begin, in
/// bytes.
const MEMORY: u64 = 1024 * 1024 * 1024;

/// How long a handshake may take, from the first byte to the Welcome.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a peer gets that may come in.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Admission {
    /// Limits and windows of its sessions; the server's own by default.
    pub session: Option<Arc<SessionConfig>>,
    /// How many sessions it may have at a time; the server's own number by default.
    pub max_sessions: Option<usize>,
}

/// Decides who may come in, at every Hello. Must not block. Unknown and revoked peers have to get the same
/// answer: [`RejectCode::UnknownUser`](gkd_proto::handshake::RejectCode::UnknownUser) without a reason.
pub type Authorise = dyn Fn(&PeerId) -> Result<Admission, Reject> + Send + Sync;

/// Is told of every session that begins, and where its first tunnel comes from. Must not block.
pub type OnSession = dyn Fn(SessionHandle, SocketAddr) + Send + Sync;

/// Sets up a [`Server`]. Mistakes are kept until [`bind`](Self::bind).
#[must_use]
pub struct ServerBuilder {
    key: Option<SecretKey>,
    listen: Vec<SocketAddr>,
    listeners: Vec<std::net::TcpListener>,
    plain: bool,
    websocket: WebSocketConfig,
    site: Option<SiteService>,
    visitors: usize,
    authorise: Arc<Authorise>,
    on_session: Arc<OnSession>,
    config: SessionConfig,
    options: SocketOptions,
    memory: u64,
    max_sessions: usize,
    max_sessions_per_peer: usize,
    max_tunnels: usize,
    half_open: HalfOpenLimits,
    handshake: Duration,
    mistake: Option<Error>,
}

impl Default for ServerBuilder {
    fn default() -> Self {
        Self {
            key: None,
            listen: Vec::new(),
            listeners: Vec::new(),
            plain: false,
            websocket: WebSocketConfig::default(),
            site: None,
            visitors: MAX_VISITORS,
            authorise: Arc::new(|_: &PeerId| Ok(Admission::default())),
            on_session: Arc::new(|_, _| ()),
            config: SessionConfig::default(),
            options: SocketOptions::default(),
            memory: MEMORY,
            max_sessions: MAX_SESSIONS,
            max_sessions_per_peer: MAX_SESSIONS_PER_PEER,
            max_tunnels: usize::MAX,
            half_open: HalfOpenLimits { most: MAX_HALF_OPEN, most_of_address: MAX_HALF_OPEN_PER_ADDRESS },
            handshake: HANDSHAKE,
            mistake: None,
        }
    }
}

impl ServerBuilder {
    /// The server's key; a fresh one by default, which no link of an earlier start names.
    pub fn key(mut self, key: SecretKey) -> Self {
        self.key = Some(key);
        self
    }

    /// Listens on this address; of a name that has several, on all of them. To be called for each of any
    /// number. A name is resolved here, which may block.
    pub fn listen(mut self, address: impl ToSocketAddrs) -> Self {
        match address.to_socket_addrs() {
            Ok(addresses) => self.listen.extend(addresses),
            Err(error) => self.mistake = Some(error.into()),
        }
        self
    }

    /// Accepts on a listener that the caller made.
    pub fn listener(mut self, listener: std::net::TcpListener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Whether the unencrypted carrier is taken beside TLS; it is not by default.
    pub fn plain(mut self, taken: bool) -> Self {
        self.plain = taken;
        self
    }

    /// Which requests for a WebSocket become tunnels; by default all of them, at any path and host. Hosts and paths
    /// stand in for no key: what they keep out are requests that a proxy in front has sent to the wrong place.
    pub fn websocket(mut self, config: WebSocketConfig) -> Self {
        self.websocket = config;
        self
    }

    /// What answers all other HTTP requests; by default "404 Not Found" to each of them.
    pub fn site(mut self, site: SiteService) -> Self {
        self.site = Some(site);
        self
    }

    /// Connections of visitors of the site, 256 by default. For one above, the oldest of the address that has most is
    /// closed.
    pub fn max_visitors(mut self, all: usize) -> Self {
        self.visitors = all.max(1);
        self
    }

    /// Who may come in; by default everybody who proves a key.
    pub fn authorise(
        mut self,
        authorise: impl Fn(&PeerId) -> Result<Admission, Reject> + Send + Sync + 'static,
    ) -> Self {
        self.authorise = Arc::new(authorise);
        self
    }

    /// Who is told of every session that begins, with where its first tunnel comes from: to log it, or to see
    /// to it until it [ends](SessionHandle::wait_ended). By default nobody.
    pub fn on_session(mut self, told: impl Fn(SessionHandle, SocketAddr) + Send + Sync + 'static) -> Self {
        self.on_session = Arc::new(told);
        self
    }

    /// Limits and windows of every session.
    pub fn session(mut self, config: SessionConfig) -> Self {
        self.config = config;
        self
    }

    /// Congestion control of the tunnels' sockets.
    pub fn congestion(mut self, congestion: Congestion) -> Self {
        self.options.congestion = congestion;
        self
    }

    /// How the tunnels' sockets are set, congestion control included.
    pub fn socket(mut self, options: SocketOptions) -> Self {
        self.options = options;
        self
    }

    /// Sessions of all peers together, 1,024 by default, and of one, 32 by default. One above is told that the
    /// server is busy.
    pub fn max_sessions(mut self, all: usize, of_one_peer: usize) -> Self {
        (self.max_sessions, self.max_sessions_per_peer) = (all, of_one_peer);
        self
    }

    /// Tunnels of all sessions together, without a bound by default; no peer has more than four times what is left for
    /// the others. One above is told that the server is busy.
    pub fn max_tunnels(mut self, all: usize) -> Self {
        self.max_tunnels = all;
        self
    }

    /// What all sessions together may hold and promise, in bytes of charge and of payload that waits to be sent; 1 GiB
    /// by default. A session begins with its [`session_window`](SessionConfig::session_window); a client for whose
    /// session that is not left is told that the server is busy. When little is left, windows and send buffers stop
    /// growing, and transfers are slower.
    ///
    /// It is not all of the process's memory: read buffers that are held by a part of them may make what arrived
    /// up to six times as large for a while, and each connection, tunnel and session has some records.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Connections that have not proved a key yet: in all, 1,024 by default, and of one address, 256 by default.
    /// For one above, the oldest of the address that has most, or of its own, is closed.
    pub fn max_half_open(mut self, all: usize, of_one_address: usize) -> Self {
        self.half_open = HalfOpenLimits { most: all.max(1), most_of_address: of_one_address.max(1) };
        self
    }

    /// How long a handshake may take, from the first byte to the Welcome; 10 s by default.
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake = timeout;
        self
    }

    /// Listens, and accepts from now on.
    ///
    /// # Errors
    /// An address that cannot be had, with the mend; a congestion control that the kernel does not offer; no
    /// runtime.
    pub async fn bind(self) -> Result<Server> {
        if let Some(mistake) = self.mistake {
            return Err(mistake);
        }
        let runtime = runtime::handle()?;
        let listeners = {
            let _entered = runtime.enter();
            listen(&self.listen, self.listeners)?
        };
        listeners.iter().for_each(|listener| self.options.apply_to_listener(listener));
        if listeners.is_empty() {
            return Err(Error::Config("the server has no address to listen on: name one".into()));
        }
        self.options.congestion.check().map_err(|error| Error::Config(error.to_string()))?;
        let key = self.key.unwrap_or_else(SecretKey::generate);
        // Where nothing is to be had over HTTP, it is as foreign as anything else.
        let has_http = self.websocket.enabled || self.site.is_some();
        let site = self.site.unwrap_or_else(ws::not_found);
        let setup = Setup {
            acceptor: carrier::Acceptor::new(&key)?.with_plain(self.plain),
            key: key.public(),
            authorise: self.authorise,
            on_session: self.on_session,
            config: self.config.clamped(),
            options: self.options,
            memory: self.memory,
            max_sessions: self.max_sessions,
            max_sessions_per_peer: self.max_sessions_per_peer,
            max_tunnels: self.max_tunnels,
            half_open: self.half_open,
            visit: has_http.then(|| Arc::new(ws::Visit { config: self.websocket, site })),
            visitors: HalfOpenLimits { most: self.visitors, most_of_address: self.visitors },
            handshake: self.handshake,
        };
        Server::spawn(setup, listeners, runtime)
    }
}

/// Within the runtime.
fn listen(addresses: &[SocketAddr], made: Vec<std::net::TcpListener>) -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(addresses.len() + made.len());
    for address in addresses {
        listeners.push(socket::listen(*address, socket::BACKLOG)?);
    }
    for listener in made {
        listener.set_nonblocking(true)?;
        listeners.push(TcpListener::from_std(listener)?);
    }
    Ok(listeners)
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("listen", &self.listen).finish_non_exhaustive()
    }
}
