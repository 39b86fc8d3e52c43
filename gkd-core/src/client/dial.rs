//! One dial of one tunnel: resolve, connect, through a proxy where there is one, prove keys, say Hello. Decides nothing
//! about when to dial again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::stream::{FuturesUnordered, StreamExt};
use gkd_proto::error::{DialTunnelError, WelcomeError};
use gkd_proto::handshake::{Reject, RejectCode};
use gkd_proto::id::PeerId;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::via::{ProxyError, Via};
use crate::carrier::{self, Carrier, CarrierError, CarrierKind, Dial, Wire, ws};
use crate::handshake::{HandshakeError, say_hello};
use crate::identity::SecretKey;
use crate::link::{Address, Host};
use crate::manager::{TunnelGuard, TunnelManager};
use crate::socket::{self, Bind, SocketOptions};

/// How long one address of a name is waited for before the next is tried beside it (RFC 8305 §8).
const STAGGER: Duration = Duration::from_millis(250);

/// How often an address is dialled afresh beside dials that are not answered: TCP alone waits twice as long after
/// each try, and would not notice for seconds that a network is back.
const AFRESH: Duration = Duration::from_secs(2);

/// The most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;

/// One local bind with one server address and carrier; tunnels run over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where the server is. A name that resolves to several addresses is one path.
    pub address: Address,
    /// The local address or interface, where one was asked for.
    pub bind: Option<Bind>,
    /// What its tunnels run over.
    pub carrier: CarrierKind,
    /// The proxy that leads to the server, where one does.
    pub via: Option<Via>,
    /// Which WebSocket is asked for, with the carriers that run over one.
    pub web: Option<Arc<ws::Options>>,
}

impl Path {
    /// The server as errors name it.
    fn server(&self) -> String {
        match &self.via {
            Some(via) => format!("{} (through the proxy at {})", self.address, via.address()),
            None => self.address.to_string(),
        }
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)?;
        if self.web.is_some() {
            write!(f, " over {}", self.carrier)?;
        }
        if let Some(via) = &self.via {
            write!(f, " via {}", via.address())?;
        }
        match &self.bind {
            Some(bind) => write!(f, " from {bind}"),
            None => Ok(()),
        }
    }
}

/// Why a tunnel did not come up. Each names the server, the cause and, where there is one, the mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelDialError {
    /// The server's name has no address.
    #[error(
        "the server's name {name} does not resolve ({source}): check the link's host, and this machine's network"
    )]
    Resolve {
        /// The name.
        name: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// No TCP connection.
    #[error("the server at {server} cannot be reached: {source}")]
    Connect {
        /// The server, as it was named.
        server: String,
        /// What the system said.
        source: io::Error,
    },
    /// The proxy on the way was not reached, or does not lead to the server.
    #[error(transparent)]
    Proxy(ProxyError),
    /// It took too long.
    #[error("the server at {server} did not answer in time")]
    TimedOut {
        /// The server, as it was named.
        server: String,
    },
    /// The keys were not proved, or it does not speak gkd.
    #[error(transparent)]
    Carrier(CarrierError),
    /// The connection broke between the keys and the answer, or what came is no answer.
    #[error("the server at {server} broke off the handshake: {cause}")]
    Handshake {
        /// The server, as it was named.
        server: String,
        /// How.
        cause: String,
    },
    /// The server does not let the tunnel in.
    #[error("the server at {server} refuses: {}", escaped(reject))]
    Rejected {
        /// The server, as it was named.
        server: String,
        /// What it said.
        reject: Reject,
    },
    /// The tunnel cannot belong to the session.
    #[error("the tunnel to {server} was closed: {source}")]
    Welcome {
        /// The server, as it was named.
        server: String,
        /// Why.
        source: WelcomeError,
    },
    /// The session takes no further tunnel.
    #[error(transparent)]
    Session(DialTunnelError),
}

/// The server's words may hold escape sequences, and errors reach terminals.
fn escaped(reject: &Reject) -> String {
    reject.to_string().escape_debug().to_string()
}

impl TunnelDialError {
    /// Dialling again will not help before somebody changes something: another link, another option.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Rejected { reject, .. } => {
                matches!(reject.code, RejectCode::UnknownUser | RejectCode::Version)
            }
            Self::Carrier(error) => matches!(
                error,
                CarrierError::WrongKey { .. }
                    | CarrierError::PlainRefused { .. }
                    | CarrierError::NotSupported(_)
                    | CarrierError::NoServerKey
                    | CarrierError::NoTarget
            ),
            Self::Proxy(error) => error.is_final(),
            _ => false,
        }
    }

    /// The server does not know the session (any more): another start of it answered, or a limit ended it.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Rejected { reject, .. } => reject.code == RejectCode::NoSuchSession,
            Self::Welcome { source, .. } => *source == WelcomeError::OtherBoot,
            _ => false,
        }
    }
}

/// What all dials of a client have in common.
#[derive(Clone, Debug)]
pub(super) struct Dialler {
    pub(super) key: SecretKey,
    pub(super) server: Option<PeerId>,
    pub(super) options: SocketOptions,
    pub(super) timeout: Duration,
}

/// A tunnel that is up and does not run yet.
pub(super) struct Up {
    pub(super) guard: TunnelGuard,
    pub(super) carrier: Carrier,
    /// What came behind the Welcome.
    pub(super) front: BytesMut,
}

impl Dialler {
    /// Dials one tunnel of the session. `index` spreads tunnels over the path's ports. Dropping the future
    /// ends the attempt, and the session is told.
    pub(super) async fn dial(
        &self,
        manager: &Arc<TunnelManager>,
        path: &Path,
        index: usize,
    ) -> Result<Up, TunnelDialError> {
        let deadline = Instant::now() + self.timeout;
        tokio::time::timeout_at(deadline, self.dial_by(manager, path, index, deadline))
            .await
            .unwrap_or_else(|_| Err(TunnelDialError::TimedOut { server: path.server() }))
    }

    async fn dial_by(
        &self,
        manager: &Arc<TunnelManager>,
        path: &Path,
        index: usize,
        deadline: Instant,
    ) -> Result<Up, TunnelDialError> {
        let server = path.server();
        let wire = match &path.via {
            Some(via) => {
                self.reach_through(via, path, index, deadline).await.map_err(TunnelDialError::Proxy)?
            }
            None => self.reach(path, index).await?,
        };
        let remote = wire.peer_addr();
        // Only now, so that dials which reach nobody use up no tunnel id.
        let (hello, handle) = manager.add_dialled().map_err(TunnelDialError::Session)?;
        let guard = manager.guard(handle);
        // Not that of the other end, which a proxy is where there is one.
        let port = path.address.ports.cycle(index);
        let web = path.web.as_ref().map(|options| ws::Target::new(&path.address, port, options));
        let dial = Dial {
            kind: path.carrier,
            key: &self.key,
            server: self.server,
            session: hello.session,
            tunnel: hello.tunnel,
            web: web.as_ref(),
        };
        let mut carrier = carrier::connect(wire, &dial, deadline)
            .await
            .map_err(|error| TunnelDialError::Carrier(error.at(&server)))?;
        let (answer, front) = say_hello(&mut carrier, &hello)
            .await
            .map_err(|error| broken_off(&server, path.carrier, error))?;
        let welcome =
            answer.map_err(|reject| TunnelDialError::Rejected { server: server.clone(), reject })?;
        manager
            .welcomed(hello.tunnel, &welcome, remote)
            .map_err(|source| TunnelDialError::Welcome { server, source })?;
        Ok(Up { guard, carrier, front })
    }

    /// Connects to the server itself.
    async fn reach(&self, path: &Path, index: usize) -> Result<Wire, TunnelDialError> {
        let addresses = resolve(&path.address.host, path.address.ports.cycle(index))
            .await
            .map_err(|(name, source)| TunnelDialError::Resolve { name, source })?;
        let tcp = self.race(&addresses, path.bind.as_ref()).await;
        tcp.map(Wire::from)
            .map_err(|source| TunnelDialError::Connect { server: path.address.to_string(), source })
    }

    /// Connects to the proxy, and has it lead on to the server. The address that the other end has is then the proxy's.
    async fn reach_through(
        &self,
        via: &Via,
        path: &Path,
        index: usize,
        deadline: Instant,
    ) -> Result<Wire, ProxyError> {
        let proxy = via.address();
        let server = format!("{}:{}", path.address.host, path.address.ports.cycle(index));
        let reached = async {
            let addresses = resolve(&proxy.host, proxy.ports.first())
                .await
                .map_err(|(name, source)| ProxyError::Resolve { name, source })?;
            let tcp = self
                .race(&addresses, path.bind.as_ref())
                .await
                .map_err(|source| ProxyError::Connect { proxy: proxy.to_string(), source })?;
            via.connect(tcp, &server).await
        };
        let timed_out = |_| Err(ProxyError::TimedOut { proxy: proxy.to_string(), server: server.clone() });
        let (tcp, behind) = tokio::time::timeout_at(deadline, reached).await.unwrap_or_else(timed_out)?;
        let mut wire = Wire::from(tcp);
        wire.put_back(behind);
        Ok(wire)
    }

    /// Connects to the first of the addresses that answers; a further one is tried whenever one failed, or did
    /// not answer for 250 ms (RFC 8305), and when all were, one of them afresh every 2 s. The deadline of the dial
    /// bounds how many that are.
    async fn race(&self, addresses: &[SocketAddr], bind: Option<&Bind>) -> io::Result<TcpStream> {
        let mut waiting = addresses.iter();
        let mut running = FuturesUnordered::new();
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        let mut again = addresses.iter().cycle();
        let mut afresh = tokio::time::interval_at(Instant::now() + AFRESH, AFRESH);
        if let Some(first) = waiting.next() {
            running.push(socket::dial(*first, bind, &self.options));
        }
        loop {
            let next = tokio::select! {
                biased;
                Some(result) = running.next() => match result {
                    Ok(tcp) => return Ok(tcp),
                    Err(error) => {
                        failure = error;
                        waiting.next()
                    }
                },
                () = tokio::time::sleep(STAGGER), if waiting.len() > 0 => waiting.next(),
                _ = afresh.tick(), if waiting.len() == 0 && !running.is_empty() => again.next(),
                else => return Err(failure),
            };
            match next {
                Some(next) => running.push(socket::dial(*next, bind, &self.options)),
                None if running.is_empty() => return Err(failure),
                None => {}
            }
        }
    }
}

fn broken_off(server: &str, kind: CarrierKind, error: HandshakeError) -> TunnelDialError {
    let cause = match (&error, kind) {
        // The unencrypted carrier's server closes upon a wrong signature, and upon nothing else here.
        (HandshakeError::Closed, CarrierKind::Plain) => "it closed the connection upon the proof of the key",
        _ => return TunnelDialError::Handshake { server: server.to_owned(), cause: error.to_string() },
    };
    TunnelDialError::Handshake { server: server.to_owned(), cause: cause.to_owned() }
}

/// The addresses to try, in the resolver's order; or the name, and why it has none.
async fn resolve(host: &Host, port: u16) -> Result<Vec<SocketAddr>, (String, io::Error)> {
    let name = match host {
        Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
        Host::Name(name) => name,
    };
    let failed = |source| (name.clone(), source);
    let found: Vec<_> =
        tokio::net::lookup_host((name.as_str(), port)).await.map_err(failed)?.take(MAX_ADDRESSES).collect();
    if found.is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::NotFound, "it has no address")));
    }
    Ok(found)
}
