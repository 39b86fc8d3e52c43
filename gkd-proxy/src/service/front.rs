//! The front of HTTP services ([`Front`]): ports, TLS, HTTP/1.1 and HTTP/2 of strangers, and the limits that keep one of
//! them from being in the way of the others. It knows no service: whatever it has judged goes to an [`Answer`].
//!
//! What an [`Answer`] may rely on, of every request:
//!
//! * the URI is a path with its query (`*` of OPTIONS; of CONNECT the path, if any), and begins with `/`;
//! * there is one `Host`, which is a host with or without a port, whatever the version; an absolute URI and an `:authority`
//!   were held against it;
//! * the body was framed beyond doubt, is within its limit, and fails when its sender falls silent. Then the front answers
//!   by itself, and drops the future of [`Answer::answer`];
//! * `hyper::upgrade::on` works where the request asks for an upgrade.
//!
//! | room | what is in it |
//! |---|---|
//! | `connection`, `wire`, `proxied` | one connection, its socket, and the PROXY header in front of it |
//! | `framing`, `guarded` | where a request of HTTP/1.1 begins and ends, judged ahead of hyper |
//! | `overheard`, `verdicts` | what hyper tells a client of HTTP/2 without asking us |
//! | `visitor`, `request`, `id` | one request: judged, named, and given on or refused |
//! | `upload`, `download`, `unanswered` | its bodies, and what is over with the answer |
//! | `activity`, `places`, `rates`, `stalls` | who may have how much of what |
//! | `settings`, `counts` | what it was told, and what it tells |

mod activity;
mod connection;
mod counts;
mod download;
mod framing;
mod guarded;
mod id;
mod overheard;
mod places;
mod proxied;
mod rates;
mod request;
mod settings;
mod stalls;
mod unanswered;
mod upload;
mod verdicts;
mod visitor;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use futures::future::BoxFuture;
use gkd_core::seldom::Seldom;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, rustls};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::activity::Activity;
use self::connection::{Accepted, canonical};
use self::counts::Counts;
pub use self::counts::{FrontStatus, Refused};
use self::id::Ids;
use self::places::{Full, Places};
use self::rates::Rates;
use self::settings::Settings;
use self::wire::Wire;
use super::access_log::{AccessLogger, Entry};
use super::certificates::Certificates;
use super::config::{AccessLog, CertificateFiles, FileError, FrontListen, HttpConfig};
use super::{ServiceBody, Visit};
use crate::accept::Acceptor;
use crate::listen::ListenError;

/// How often the files of certificates are read again.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long connections that were ended may take to be gone, and the access log to be written.
const LAST_MOMENTS: Duration = Duration::from_secs(1);

/// What answers the requests of a front.
pub trait Answer: Send + Sync + 'static {
    /// Answers one. Dropping the future gives it up. A panic costs the request, which is answered with 500.
    fn answer(self: Arc<Self>, request: Request<ServiceBody>, visit: Visit) -> BoxFuture<'static, Answered>;

    /// Whether a CONNECT of HTTP/2 that names a protocol (RFC 8441) is understood: without it a browser makes an HTTP/1.1
    /// connection for a WebSocket.
    fn extended_connect(&self) -> bool {
        false
    }
}

/// An answer, and what the access log says of it.
pub struct Answered {
    /// The answer. An error of its body breaks it off in a way that the client notices.
    pub response: Response<ServiceBody>,
    /// The name of the service, if there is one for the request.
    pub service: Option<Arc<str>>,
    /// The name of the target that answered, or was tried last.
    pub target: Option<Arc<str>>,
}

impl From<Response<ServiceBody>> for Answered {
    fn from(response: Response<ServiceBody>) -> Self {
        Self { response, service: None, target: None }
    }
}

/// Why a front does not begin, or does not change.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrontError {
    /// A port could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A certificate or its key is none.
    #[error(transparent)]
    Certificate(#[from] FileError),
    /// There is no certificate for a port with TLS.
    #[error(
        "https://{0} needs a certificate: write certificates = [{{ certificate = \"FILE\", key = \"FILE\" }}]"
    )]
    NoCertificate(SocketAddr),
    /// TLS does not begin.
    #[error("TLS does not begin: {0}")]
    Tls(#[from] rustls::Error),
    /// The access log does not begin.
    #[error("the access log does not begin: {0}")]
    Log(io::Error),
}

/// A running front. Its drop ends it, with all that is being served.
pub struct Front {
    shared: Arc<Shared>,
    ports: Mutex<Vec<Port>>,
    /// One at a time.
    reloading: tokio::sync::Mutex<()>,
}

/// What the connections of a front have in common.
struct Shared {
    answer: Arc<dyn Answer>,
    settings: RwLock<Arc<Settings>>,
    certificates: Arc<Certificates>,
    tls: TlsAcceptor,
    places: Arc<Places>,
    rates: Rates,
    ids: Ids,
    counts: Arc<Counts>,
    /// Lines about what visitors do wrong.
    seldom: Seldom,
    logger: OnceLock<AccessLogger>,
    /// One for each port, until it is closed.
    accepting: TaskTracker,
    /// One for each connection, and one more for its socket, wherever that is.
    serving: TaskTracker,
    /// Asks connections to end.
    stop: CancellationToken,
    /// Ends them.
    abort: CancellationToken,
}

/// A port that is open.
struct Port {
    listen: FrontListen,
    address: SocketAddr,
    tls: Arc<AtomicBool>,
    closed: CancellationToken,
}

impl Front {
    /// Opens all ports, or none, and has `answer` answer what is asked there. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// A port, a certificate or the access log is not to be had.
    pub async fn start(config: &HttpConfig, answer: Arc<dyn Answer>) -> Result<Self, FrontError> {
        Self::start_with(config, answer, OnceLock::new()).await
    }

    async fn start_with(
        config: &HttpConfig,
        answer: Arc<dyn Answer>,
        logger: OnceLock<AccessLogger>,
    ) -> Result<Self, FrontError> {
        let certificates = load(config).await?;
        let limits = &config.limits;
        let shared = Shared {
            answer,
            settings: RwLock::new(Arc::new(Settings::new(config))),
            tls: TlsAcceptor::from(Arc::new(certificates.server_config()?)),
            certificates,
            places: Places::new(limits.connections, limits.connections_per_address),
            rates: Rates::default(),
            ids: Ids::new(),
            counts: Arc::default(),
            seldom: Seldom::default(),
            logger,
            accepting: TaskTracker::new(),
            serving: TaskTracker::new(),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
        };
        let front = Self {
            shared: Arc::new(shared),
            ports: Mutex::default(),
            reloading: tokio::sync::Mutex::default(),
        };
        front.shared.begin_log(config.access_log)?;
        let bound = front.bind(config).await?;
        front.open(config, bound);
        let (shared, stop) = (Arc::clone(&front.shared), front.shared.stop.clone());
        front.shared.accepting.spawn(async move {
            while stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_some() {
                let certificates = Arc::clone(&shared.certificates);
                // It only fails when the runtime ends.
                let _ = spawn_blocking(move || certificates.look_again()).await;
            }
        });
        Ok(front)
    }

    /// The addresses that it listens on, in the order of the configuration.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.ports().iter().map(|port| port.address).collect()
    }

    /// Does from now on what this configuration says. Ports that it does not have are closed, and what came in there is
    /// served to its end; connections keep the limits that they began with.
    ///
    /// # Errors
    /// A new port, a certificate or the access log is not to be had; then nothing has changed.
    pub async fn reload(&self, config: &HttpConfig) -> Result<(), FrontError> {
        let _alone = self.reloading.lock().await;
        let bound = self.bind(config).await?;
        self.shared.begin_log(config.access_log)?;
        need_certificates(config)?;
        let (certificates, names) = (Arc::clone(&self.shared.certificates), config.certificates.clone());
        run_blocking(move || certificates.reload(&names)).await?;
        let settings = Arc::new(Settings::new(config));
        *self.shared.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
        self.shared.places.bound(config.limits.connections, config.limits.connections_per_address);
        self.open(config, bound);
        Ok(())
    }

    /// Closes the ports, lets requests come to their end, and ends after this time what is left.
    pub async fn shutdown(&self, patience: Duration) {
        let shared = &self.shared;
        shared.stop.cancel();
        self.ports().drain(..).for_each(|port| port.closed.cancel());
        shared.accepting.close();
        shared.accepting.wait().await;
        shared.serving.close();
        if timeout(patience, shared.serving.wait()).await.is_err() {
            shared.abort.cancel();
            // One that is held by whoever answers may be held on.
            let _ = timeout(LAST_MOMENTS, shared.serving.wait()).await;
        }
        if let Some(logger) = shared.logger.get() {
            logger.finish(LAST_MOMENTS).await;
        }
    }

    /// What it has done since it was started.
    pub fn status(&self) -> FrontStatus {
        let dropped = self.shared.logger.get().map_or(0, AccessLogger::dropped);
        self.shared.counts.status(self.shared.places.taken(), dropped)
    }

    /// Opens the ports that are new. Nobody is accepted there yet.
    async fn bind(
        &self,
        config: &HttpConfig,
    ) -> Result<Vec<(FrontListen, TcpListener, SocketAddr)>, FrontError> {
        let known: Vec<FrontListen> = self.ports().iter().map(|port| port.listen).collect();
        let mut bound = Vec::new();
        for listen in &config.listen {
            if known.iter().any(|known| known.address == listen.address) {
                continue;
            }
            let addr = listen.address;
            let failed =
                |source| ListenError { listener: "the front of HTTP services".to_owned(), addr, source };
            let listener = TcpListener::bind(addr).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            bound.push((*listen, listener, address));
        }
        Ok(bound)
    }

    /// Brings the ports in line with a configuration: new ones accept, those that it does not have are closed.
    fn open(&self, config: &HttpConfig, bound: Vec<(FrontListen, TcpListener, SocketAddr)>) {
        let mut ports = self.ports();
        let (mut before, mut bound) = (std::mem::take(&mut *ports), bound.into_iter());
        for listen in &config.listen {
            let known = before.iter().position(|port| port.listen.address == listen.address);
            let port = match known {
                Some(known) => {
                    let mut port = before.remove(known);
                    port.listen = *listen;
                    port.tls.store(listen.tls, Ordering::Relaxed);
                    Some(port)
                }
                None => bound
                    .next()
                    .map(|(listen, socket, address)| self.shared.accept_on(listen, socket, address)),
            };
            ports.extend(port);
        }
        before.into_iter().for_each(|port| port.closed.cancel());
    }

    fn ports(&self) -> MutexGuard<'_, Vec<Port>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.abort.cancel();
        self.ports().drain(..).for_each(|port| port.closed.cancel());
    }
}

impl Shared {
    fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has the access log be written, if there is to be one.
    fn begin_log(&self, form: AccessLog) -> Result<(), FrontError> {
        if form != AccessLog::Off && self.logger.get().is_none() {
            let logger = AccessLogger::start(io::stdout()).map_err(FrontError::Log)?;
            // Whoever was first has begun it.
            let _ = self.logger.set(logger);
        }
        Ok(())
    }

    fn log(&self, form: AccessLog, entry: &Entry) {
        if let Some(logger) = self.logger.get() {
            logger.log(form, entry);
        }
    }

    /// Begins to accept.
    fn accept_on(self: &Arc<Self>, listen: FrontListen, socket: TcpListener, address: SocketAddr) -> Port {
        let port = Port {
            listen,
            address,
            tls: Arc::new(AtomicBool::new(listen.tls)),
            closed: CancellationToken::new(),
        };
        let (acceptor, closed, tls) =
            (Acceptor::new(socket, address), port.closed.clone(), Arc::clone(&port.tls));
        let shared = Arc::clone(self);
        self.accepting.spawn(async move {
            while let Some((socket, peer)) = closed.run_until_cancelled(acceptor.accept()).await {
                shared.serve(socket, peer, tls.load(Ordering::Relaxed));
            }
        });
        port
    }

    /// Serves one who connected, if there is room.
    fn serve(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr, tls: bool) {
        self.counts.accepted.add();
        // One that is gone has no address any more.
        let Ok(local) = socket.local_addr() else { return };
        let (peer, settings, activity) = (canonical(peer), self.settings(), Arc::new(Activity::new()));
        let place = self.places.take(Arc::clone(&activity)).and_then(|mut place| {
            // Behind one who is trusted are many.
            if !settings.trusts(peer.ip()) {
                place.claim(peer.ip())?;
            }
            Ok(place)
        });
        let place = match place {
            Ok(place) => place,
            Err(full) => {
                return match full {
                    Full::All => self.counts.full.add(),
                    Full::Address => self.counts.full_of_address.add(),
                };
            }
        };
        let silence = settings.limits.silence;
        // Children: what all connections wait for at once would be a lock of all of them.
        let (stop, abort) = (self.stop.child_token(), self.abort.child_token());
        let wire = Wire::new(socket, silence, abort.clone(), place, self.serving.token());
        let accepted = Accepted {
            front: Arc::clone(self),
            settings,
            activity,
            wire,
            peer,
            local: canonical(local),
            tls: tls.then(|| self.tls.clone()),
            stop,
        };
        self.serving.spawn(async move { abort.run_until_cancelled(accepted.serve()).await });
    }
}

/// The certificates of a configuration.
async fn load(config: &HttpConfig) -> Result<Arc<Certificates>, FrontError> {
    need_certificates(config)?;
    let names: Vec<CertificateFiles> = config.certificates.clone();
    Ok(run_blocking(move || Certificates::load(&names)).await?)
}

fn need_certificates(config: &HttpConfig) -> Result<(), FrontError> {
    match config.listen.iter().find(|listen| listen.tls) {
        Some(listen) if config.certificates.is_empty() => Err(FrontError::NoCertificate(listen.address)),
        _ => Ok(()),
    }
}

/// Runs what reads files.
async fn run_blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    match spawn_blocking(read).await {
        Ok(read) => read,
        // Nobody aborts it.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Front({:?})", self.local_addrs())
    }
}
