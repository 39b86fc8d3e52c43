//! Reaching a destination: [`Dialer`].
//!
//! A name is resolved once, every address is judged by the [rules](crate::rules) beside the name, and exactly the addresses
//! that passed are dialled, so that a name that resolves differently the next moment leads nowhere else. Of
//! several addresses the first that answers wins (RFC 8305): the two families take turns, and each attempt
//! has a head start before the next begins beside it. Unix sockets are reached in `unix`.

#[cfg(unix)]
mod unix;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use gkd_core::proto::id::PeerId;
use gkd_core::proto::packet::DialError;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

use crate::destination::{Host, Target};
use crate::lookups::Lookups;
use crate::rules::{Denial, Rules};
use crate::{socket, udp};

/// How long a dial may take, the name's resolution included, unless [`Dialer::with_timeout`] says otherwise.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// The head start of an attempt before the next begins beside it (RFC 8305, section 8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// The most addresses of one name that are tried. More would not be reached within the time-out.
const MAX_ADDRESSES: usize = 16;

/// Turns names into addresses.
pub trait Resolve: Send + Sync + 'static {
    /// The addresses of a name, the best first, with this port. An empty list says that it has none.
    fn resolve(&self, name: &str, port: u16) -> Resolving;
}

/// What [`Resolve::resolve`] gives: the addresses, some time later.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Reaches destinations within rules and a time-out. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    rules: Arc<Rules>,
    resolver: Arc<dyn Resolve>,
    lookups: Arc<Lookups>,
    timeout: Duration,
}

/// Why a destination was not reached: what the other end is told, and what only this end's log says.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct DialFailure {
    /// For the other end.
    pub error: DialError,
    /// For the log.
    pub cause: DialCause,
}

/// What happened to a dial.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialCause {
    /// The resolver failed, or knows no address.
    #[error("the name does not resolve: {0}")]
    Name(io::Error),
    /// All of the addresses are forbidden; this is one of them.
    #[error("{0} is not allowed ({1}): {mend}", mend = .1.mend())]
    Denied(IpAddr, Denial),
    /// A Unix socket of this end is forbidden, or the one at this path, to which it leads.
    #[error("it {}is not allowed: {mend}", leads(.0), mend = Denial::Path.mend())]
    Path(Option<PathBuf>),
    /// A Unix socket was not reached.
    #[error("{0}")]
    Socket(io::Error),
    /// A kind of destination that is not dialled.
    #[error("it is nothing that can be dialled")]
    NotOffered,
    /// The most telling of the attempts.
    #[error("{0}: {1}")]
    Attempt(SocketAddr, io::Error),
    /// Nothing answered.
    #[error("no answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
}

impl Dialer {
    /// A dialer with the system's resolver and [`DIAL_TIMEOUT`].
    pub fn new(rules: impl Into<Arc<Rules>>) -> Self {
        let lookups = Lookups::new();
        Self { rules: rules.into(), resolver: Arc::new(SystemResolver), lookups, timeout: DIAL_TIMEOUT }
    }

    /// The same with other rules.
    pub fn with_rules(mut self, rules: impl Into<Arc<Rules>>) -> Self {
        self.rules = rules.into();
        self
    }

    /// The rules that it dials by.
    pub(crate) fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// The same with another time-out, the name's resolution included.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The same with another resolver.
    pub fn with_resolver(mut self, resolver: impl Resolve) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// Reaches a target, or tells why not. Dropping the future gives the dial up.
    pub async fn dial(&self, target: &Target) -> Result<TcpStream, DialFailure> {
        self.dial_for(PeerId([0; 32]), target, || Some(())).await
    }

    /// The same for a peer, which has its own queue of names to be resolved. An attempt that begins beside another
    /// takes a `place` for as long as it lasts; while there is none, it waits until the others have failed.
    pub(crate) async fn dial_for<P>(
        &self,
        peer: PeerId,
        target: &Target,
        place: impl FnMut() -> Option<P>,
    ) -> Result<TcpStream, DialFailure> {
        let dialled = timeout(self.timeout, async {
            let addresses = self.addresses(peer, target).await?;
            connect(interleave(self.permitted(target.host().name(), addresses)?), place).await
        });
        match dialled.await {
            Ok(dialled) => dialled,
            Err(_) => Err(DialCause::TimedOut(self.timeout).into()),
        }
    }

    /// A socket whose datagrams go to a target, to the first of its addresses that is permitted and of a family that this
    /// machine has. Whether something takes them, nobody knows.
    pub(crate) async fn reach_datagrams(
        &self,
        peer: PeerId,
        target: &Target,
    ) -> Result<UdpSocket, DialFailure> {
        let mut last = None;
        for address in self.permitted(target.host().name(), self.resolve(peer, target).await?)? {
            let connected = async {
                let socket = udp::bind_towards(address)?;
                socket.connect(address).await?;
                Ok(socket)
            };
            match connected.await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = Some(DialCause::Attempt(address, error)),
            }
        }
        let none = || DialCause::Name(io::Error::other("it has no address"));
        Err(last.unwrap_or_else(none).into())
    }

    /// The addresses of a target, whatever the rules say of them; within the time-out.
    pub(crate) async fn resolve(
        &self,
        peer: PeerId,
        target: &Target,
    ) -> Result<Vec<SocketAddr>, DialFailure> {
        let resolved = timeout(self.timeout, self.addresses(peer, target)).await;
        resolved.unwrap_or_else(|_| Err(DialCause::TimedOut(self.timeout).into()))
    }

    async fn addresses(&self, peer: PeerId, target: &Target) -> Result<Vec<SocketAddr>, DialFailure> {
        let port = target.port();
        let name = match target.host() {
            Host::Ip(ip) => return Ok(vec![SocketAddr::new(*ip, port)]),
            Host::Name(name) => name,
        };
        let found = async {
            let place = self.lookups.enter(peer).await.map_err(io::Error::other)?;
            let lookup = self.resolver.resolve(name.as_str(), port);
            // A task of its own: the thread goes on when the dial is given up, and so must its place.
            let lookup = tokio::spawn(async move {
                let _place = place;
                lookup.await
            });
            lookup.await.map_err(io::Error::other)?
        };
        let mut addresses = found.await.map_err(DialCause::Name)?;
        if addresses.is_empty() {
            return Err(DialCause::Name(io::Error::other("it has no address")).into());
        }
        addresses.truncate(MAX_ADDRESSES);
        Ok(addresses)
    }

    /// Those of the addresses that the rules permit; an error when they permit none.
    fn permitted(
        &self,
        name: Option<&str>,
        mut addresses: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, DialFailure> {
        let mut denied = None;
        addresses.retain(|addr| match self.rules.check(name, *addr) {
            Ok(()) => true,
            Err(denial) => {
                denied.get_or_insert((addr.ip(), denial));
                false
            }
        });
        match denied {
            Some((ip, denial)) if addresses.is_empty() => Err(DialCause::Denied(ip, denial).into()),
            _ => Ok(addresses),
        }
    }
}

/// Where a path of a Unix socket leads, in the words of an error.
fn leads(real: &Option<PathBuf>) -> String {
    let leads = |real: &PathBuf| format!("leads to {}, which ", real.to_string_lossy().escape_debug());
    real.as_ref().map(leads).unwrap_or_default()
}

/// The order in which addresses are tried: the families take turns, the first address's family beginning.
fn interleave(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|addr| addr.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = VecDeque::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return order;
        }
        order.extend(pair.into_iter().flatten());
    }
}

/// Connects to the first address that answers. There is one address at least.
async fn connect<P>(
    mut waiting: VecDeque<SocketAddr>,
    mut place: impl FnMut() -> Option<P>,
) -> Result<TcpStream, DialFailure> {
    let mut attempts = FuturesUnordered::new();
    let mut worst: Option<DialFailure> = None;
    loop {
        // The caller has a place for the first.
        let alone = attempts.is_empty();
        let beside = if alone || waiting.is_empty() { None } else { place() };
        if (alone || beside.is_some())
            && let Some(addr) = waiting.pop_front()
        {
            attempts.push(async move {
                let _place = beside;
                attempt(addr).await.map_err(|error| (addr, error))
            });
        }
        // Ends: each turn begins an attempt, or ends one, or waits for one to end or a place to be free.
        tokio::select! {
            biased;
            Some(result) = attempts.next() => match result {
                Ok(socket) => return Ok(socket),
                Err((addr, error)) => {
                    let failure = DialFailure::from(DialCause::Attempt(addr, error));
                    if worst.as_ref().is_none_or(|worst| telling(failure.error) > telling(worst.error)) {
                        worst = Some(failure);
                    }
                }
            },
            () = sleep(ATTEMPT_DELAY), if !waiting.is_empty() => {}
            else => {
                let none = || DialCause::Name(io::Error::other("it has no address")).into();
                return Err(worst.unwrap_or_else(none));
            }
        }
    }
}

async fn attempt(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = socket::connect(addr).await?;
    // A free port of this machine, dialled from itself, can meet itself (RFC 9293, simultaneous open).
    let local = socket.local_addr()?;
    if local.port() == addr.port() && local == socket.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(socket)
}

/// How much a failure says of the destination, where several addresses failed differently.
fn telling(error: DialError) -> u8 {
    match error {
        DialError::Refused => 3,
        DialError::TimedOut => 2,
        DialError::Unreachable => 1,
        _ => 0,
    }
}

impl From<DialCause> for DialFailure {
    fn from(cause: DialCause) -> Self {
        let error = match &cause {
            DialCause::Name(error) if crate::accept::is_exhaustion(error) => DialError::Busy,
            DialCause::Name(_) => DialError::NotResolved,
            DialCause::Denied(..) | DialCause::Path(_) => DialError::Denied,
            DialCause::NotOffered => DialError::NotOffered,
            // Nobody made a socket there yet, or whoever did is gone.
            DialCause::Socket(error) if error.kind() == io::ErrorKind::NotFound => DialError::Unreachable,
            DialCause::Socket(error) => from_io(error),
            DialCause::TimedOut(_) => DialError::TimedOut,
            DialCause::Attempt(_, error) => from_io(error),
        };
        Self { error, cause }
    }
}

fn from_io(error: &io::Error) -> DialError {
    use io::ErrorKind as Kind;
    match error.kind() {
        Kind::ConnectionRefused => DialError::Refused,
        Kind::HostUnreachable | Kind::NetworkUnreachable | Kind::NetworkDown => DialError::Unreachable,
        // No address of this family here.
        Kind::AddrNotAvailable => DialError::Unreachable,
        Kind::TimedOut => DialError::TimedOut,
        _ if crate::accept::is_exhaustion(error) => DialError::Busy,
        _ => DialError::Failed,
    }
}

/// The resolver of the operating system.
struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str, port: u16) -> Resolving {
        let name = name.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
    }
}

#[cfg(test)]
mod tests;
