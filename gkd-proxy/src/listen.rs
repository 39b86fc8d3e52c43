//! Listening: [`listen`] opens a [`Listener`]'s ports, and serves what connects until it is stopped.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::future::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept::Acceptor;
use crate::connection::Opener;
use crate::credentials::Credentials;
use crate::destination::Destination;
use crate::dial::DIAL_TIMEOUT;
use crate::listener::{Listener, Service};
use crate::mixed::{self, Spoken};
use crate::outlet::{Fixed, Outlet};
use crate::relay::RelayConfig;
use crate::slots::{Slot, Slots};
use crate::udp::{self, flows};
use crate::ws::form::{FromWs, Mapping, ToWs};
use crate::ws::{WsUrl, serve};
use crate::{http_proxy, proxy_header, socks5};

/// What SOCKS4 begins with: its version.
const SOCKS4: u8 = 4;

/// What TLS begins with: the type of a handshake record (RFC 8446, section 5.1).
const TLS: u8 = 0x16;

/// How listeners behave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// How long a request waits for a tunnel when none is up, and with `strict` or for an absolute URI for the
    /// far end's dial. Default [`DIAL_TIMEOUT`].
    pub dial_timeout: Duration,
    /// How long a program may take to say what it wants. Default 10 s.
    pub handshake_timeout: Duration,
    /// How many programs of one listener may be about to say what they want; at the bound the oldest gives
    /// way. Each holds a descriptor and some KiB. Default 1,024.
    pub max_handshakes: usize,
    /// What comes after that.
    pub relay: RelayConfig,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            dial_timeout: DIAL_TIMEOUT,
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 1024,
            relay: RelayConfig::default(),
        }
    }
}

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{listener} cannot listen on {addr}: {source}{}", mend(source))]
pub struct ListenError {
    /// The listener's form, without a password.
    pub listener: String,
    /// Where.
    pub addr: SocketAddr,
    /// Why.
    pub source: io::Error,
}

fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => ": another program has the port; stop it, or choose another port",
        io::ErrorKind::AddrNotAvailable => ": no interface of this machine has the address",
        io::ErrorKind::PermissionDenied => ": ports below 1024 are for root; choose one above",
        _ => "",
    }
}

/// A running listener. Its drop stops it and resets what it serves.
#[derive(Debug)]
pub struct Listening {
    addrs: Vec<SocketAddr>,
    /// One for each port, until it is closed.
    accepting: TaskTracker,
    /// One for each program.
    tasks: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
}

impl Listening {
    /// The addresses that it listens on, one for each port, in their order.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// How many programs are being served.
    pub fn serving(&self) -> usize {
        self.tasks.len()
    }

    /// Closes the ports. What is being served goes on.
    pub fn stop(&self) {
        self.stop.cancel();
        self.accepting.close();
        self.tasks.close();
    }

    /// Waits until it was stopped and the ports are closed, so that others may have them.
    pub async fn closed(&self) {
        self.accepting.wait().await;
    }

    /// Closes the ports, and resets what is being served.
    pub fn abort(&self) {
        self.stop();
        self.abort.cancel();
    }

    /// Waits until it was stopped and nothing is served any more.
    pub async fn ended(&self) {
        // Those that accept begin the others.
        self.accepting.wait().await;
        self.tasks.wait().await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Opens all ports of a listener, or none, and serves what connects there over connections of `opener`.
///
/// Must be called within a tokio runtime. A program that misbehaves, or a task of it that panics, ends that
/// program alone; no error of accepting ends a port.
pub async fn listen<O: Opener>(
    listener: &Listener,
    opener: O,
    config: &ListenConfig,
) -> Result<Listening, ListenError> {
    let mut ports = Vec::with_capacity(listener.ports.len());
    for (index, port) in listener.ports.iter().enumerate() {
        let addr = SocketAddr::new(listener.bind_or_loopback(), port);
        let failed = |source| ListenError { listener: listener.to_string(), addr, source };
        let bound = Bound::open(addr, &listener.service, index).await.map_err(failed)?;
        ports.push((bound.local_addr().map_err(failed)?, bound));
    }
    let listening = Listening {
        addrs: ports.iter().map(|(addr, _)| *addr).collect(),
        accepting: TaskTracker::new(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        abort: CancellationToken::new(),
    };
    let outlet = Outlet::new(opener, config.dial_timeout, config.relay.clone());
    let outlet = Arc::new(outlet.stopped_by(listening.stop.clone()));
    let slots = Slots::new(config.max_handshakes, config.handshake_timeout);
    for (addr, bound) in ports {
        let (outlet, tasks, stop) = (Arc::clone(&outlet), listening.tasks.clone(), listening.stop.clone());
        match bound {
            Bound::Tcp(socket, purpose) => {
                let port = Arc::new(Port { purpose, outlet, slots: Arc::clone(&slots) });
                let serving = Serving { tasks, abort: listening.abort.clone() };
                let acceptor = Acceptor::new(socket, addr);
                listening.accepting.spawn(async move {
                    while let Some((socket, peer)) = stop.run_until_cancelled(acceptor.accept()).await {
                        Arc::clone(&port).serve(socket, peer, &serving);
                    }
                });
            }
            Bound::Udp(socket, to) => {
                listening.accepting.spawn(flows::serve(Arc::new(socket), to, outlet, stop, tasks));
            }
        }
    }
    Ok(listening)
}

/// A port that was opened, and what it is for.
enum Bound {
    Tcp(TcpListener, Purpose),
    Udp(UdpSocket, Destination),
}

impl Bound {
    /// Opens the port that has this index among the listener's.
    async fn open(addr: SocketAddr, service: &Service, index: usize) -> io::Result<Self> {
        let to = service.destination(index);
        // Of a listener that was read from its form, every port of a forward has a target.
        let led = |to: Option<Destination>| to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput));
        let purpose = match service.clone() {
            Service::Mixed { strict } => Purpose::Mixed { strict },
            Service::Socks5 { credentials, strict } => Purpose::Socks5 { credentials, strict },
            Service::Http { credentials, strict } => Purpose::Http { credentials, strict },
            Service::Tcp { proxy_header, .. } | Service::Unix { proxy_header, .. } => {
                Purpose::Forward { to: Arc::new(led(to)?.into()), proxy_header }
            }
            Service::Udp { .. } => return Ok(Self::Udp(udp::bind(addr)?, led(to)?)),
            Service::FromWs { options, .. } => Purpose::FromWs(Arc::new((led(to)?, options))),
            service @ Service::ToWs { .. } => match service.mapping(index) {
                Some(Mapping::ToWs(url, options)) => Purpose::ToWs(Arc::new((led(to)?, url, options))),
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            },
        };
        Ok(Self::Tcp(TcpListener::bind(addr).await?, purpose))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(socket, _) => socket.local_addr(),
            Self::Udp(socket, _) => socket.local_addr(),
        }
    }
}

/// The programs that a listener serves.
struct Serving {
    tasks: TaskTracker,
    abort: CancellationToken,
}

impl Serving {
    /// Serves one, until it is over or all are reset.
    fn spawn(&self, service: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(service.with_cancellation_token_owned(self.abort.clone()));
    }
}

/// What one TCP port is for: a [`Service`], and of a forward's targets the one that is this port's.
enum Purpose {
    Mixed { strict: bool },
    Socks5 { credentials: Option<Credentials>, strict: bool },
    Http { credentials: Option<Credentials>, strict: bool },
    Forward { to: Arc<Fixed>, proxy_header: bool },
    FromWs(Arc<(Destination, FromWs)>),
    ToWs(Arc<(Destination, WsUrl, ToWs)>),
}

/// One port, and what serves those who connect to it.
struct Port<O> {
    purpose: Purpose,
    outlet: Arc<Outlet<O>>,
    slots: Arc<Slots>,
}

impl<O: Opener> Port<O> {
    /// Each service in a task of its own kind: a connection takes no more room than its own service does.
    fn serve(self: Arc<Self>, mut socket: TcpStream, peer: SocketAddr, serving: &Serving) {
        match &self.purpose {
            Purpose::Mixed { strict } => {
                let (strict, slot) = (*strict, self.slots.enter());
                serving.spawn(async move { self.serve_mixed(socket, strict, slot).await });
            }
            Purpose::Socks5 { credentials, strict } => {
                let (credentials, strict, slot) = (credentials.clone(), *strict, self.slots.enter());
                serving.spawn(async move {
                    socks5::serve(socket, credentials.as_ref(), strict, slot, &self.outlet).await;
                });
            }
            Purpose::Http { credentials, strict } => {
                let (credentials, strict, slot) = (credentials.clone(), *strict, self.slots.enter());
                serving.spawn(http_proxy::serve(socket, credentials, strict, slot, Arc::clone(&self.outlet)));
            }
            Purpose::Forward { to, proxy_header } => {
                let Some(first) = first_bytes(&socket, peer, *proxy_header) else { return };
                serving.spawn(Arc::clone(&self.outlet).forward(socket, first, Arc::clone(to)));
            }
            Purpose::FromWs(way) => {
                let Some(first) = first_bytes(&socket, peer, way.1.proxy_header) else { return };
                let (way, slot) = (Arc::clone(way), self.slots.enter());
                serving.spawn(async move {
                    let (to, options) = &*way;
                    serve::from_ws(&mut socket, first, to, options, slot, &self.outlet).await;
                });
            }
            Purpose::ToWs(way) => {
                let way = Arc::clone(way);
                serving.spawn(async move {
                    let (to, url, options) = &*way;
                    serve::to_ws(&mut socket, to, url, options, &self.outlet).await;
                });
            }
        }
    }

    async fn serve_mixed(&self, socket: TcpStream, strict: bool, slot: Slot) {
        let spoken = tokio::select! {
            spoken = mixed::tell(&socket) => spoken,
            overdue = slot.overdue() => return tracing::debug!("a program was closed: {overdue}"),
        };
        match spoken {
            Ok(Spoken::Socks5) => Box::pin(socks5::serve(socket, None, strict, slot, &self.outlet)).await,
            Ok(Spoken::Http) => {
                Box::pin(http_proxy::serve(socket, None, strict, slot, Arc::clone(&self.outlet))).await;
            }
            Ok(Spoken::Unknown(SOCKS4)) => {
                self.outlet
                    .complain("a program speaks SOCKS4: set it to SOCKS5, names resolved by the proxy");
            }
            Ok(Spoken::Unknown(TLS)) => {
                self.outlet.complain(
                    "a program speaks TLS to the proxy: set it to http://, which https pages use as well",
                );
            }
            Ok(Spoken::Unknown(byte)) => {
                tracing::debug!("a program begins with byte {byte}: neither SOCKS5 nor HTTP")
            }
            Ok(Spoken::Nothing) => {}
            Err(error) => tracing::debug!("a program went away: {error}"),
        }
    }
}

/// What goes ahead of what a program sends: the PROXY protocol's header, where it is asked for. None where the program is
/// gone by now.
pub(crate) fn first_bytes(socket: &TcpStream, peer: SocketAddr, proxy_header: bool) -> Option<Bytes> {
    if !proxy_header {
        return Some(Bytes::new());
    }
    let local = socket.local_addr().inspect_err(|error| tracing::debug!("a program went away: {error}"));
    Some(proxy_header::encode(peer, local.ok()?))
}

#[cfg(test)]
mod tests;
