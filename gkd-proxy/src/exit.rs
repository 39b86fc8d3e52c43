//! The end that dials: takes a connection that the other end opened, reaches its destination, and relays
//! ([`Exit`]).

mod relays;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use gkd_core::Usage;
use gkd_core::fair_limit::{FairLimit, FairPlace};
use gkd_core::proto::id::PeerId;
use gkd_core::proto::packet::{DialError, ResetCode};
use gkd_core::seldom::Seldom;
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::connection::VirtualConnection;
#[cfg(unix)]
use crate::destination::UnixPath;
use crate::destination::{AnnounceRequest, Control, Destination, DestinationError, ListenRequest};
use crate::dial::{DialCause, DialFailure, Dialer};
use crate::measure::{MeasureError, Measuring};
use crate::policy::{InForce, Policy};
use crate::rate::Limited;
use crate::relay::{End, RelayConfig, Relayed};
use crate::reverse::{Offer, Offers, Refusal, Registry};
use crate::rules::Denial;
use crate::service::announce::Announcer;
use crate::service::files::{Files, serve_files};
use crate::udp::Idle;
use crate::ws::WsError;

#[cfg(unix)]
use relays::UnixSocket;
use relays::{Goal, Reached};

/// Serves connections with one dialer. Shared by all connections of a peer, or of all peers.
pub struct Exit {
    dialer: Dialer,
    /// The one in force; it goes over the dialer's own rules.
    policy: InForce,
    relay: RelayConfig,
    limit: Option<Arc<FairLimit>>,
    /// None where nobody may measure.
    measuring: Option<Measuring>,
    /// None where peers may have no listeners.
    registry: Option<Arc<Registry>>,
    /// None where peers may announce no services.
    announcer: Option<Arc<Announcer>>,
    /// Where it is set, nothing else is dialled.
    offers: Option<Offers>,
    /// Flows of datagrams end as soon as they are quiet.
    ending: CancellationToken,
    failures: Seldom,
    /// How often a destination was not dialled because too many were open.
    refused: AtomicU64,
}

/// No place for another destination.
struct NoRoom;

/// What a connection leads to.
enum Way {
    Tcp(Reached<TcpStream>),
    #[cfg(unix)]
    Unix(Reached<UnixSocket>),
    Udp(Reached<UdpSocket>),
    UdpAny,
    Measure,
    Listen(ListenRequest),
    Announce(Box<AnnounceRequest>),
    /// What the other end's connection asks for in HTTP.
    Files(Arc<Files>, Option<FairPlace>),
}

/// What a connection comes to. What is in it is boxed: whoever waits keeps the room for all of it.
enum Led {
    /// It was led to where its bytes are to be relayed.
    Tcp(Box<Reached<TcpStream>>),
    /// All was done.
    Over(Box<Result<Relayed, ExitError>>),
}

/// A socket towards a destination.
enum Dialled {
    Tcp(TcpStream),
    Udp(UdpSocket),
    #[cfg(unix)]
    Unix(UnixSocket),
}

/// Why a connection led nowhere. The other end was told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExitError {
    /// It names no destination that this end knows.
    #[error("{0}")]
    Destination(#[from] DestinationError),
    /// Its destination was not reached.
    #[error("{0} was not reached: {1}")]
    Dial(Destination, #[source] DialFailure),
    /// As many destinations are reached as may be, or as this peer may have of them.
    #[error("{0} was not dialled: too many destinations are open; a higher limit of open files makes room")]
    Busy(Destination),
    /// The rules in force came to forbid it while it ran.
    #[error("{0} was reset: the rules do not allow it any more ({1})")]
    Forbidden(Destination, Denial),
    /// Measuring is switched off here.
    #[error("a measurement was refused: it is switched off here, `bench` in server.toml would permit it")]
    NotMeasured,
    /// A measurement was asked for in a wrong way.
    #[error("a measurement was refused: {0}")]
    Measure(#[from] MeasureError),
    /// This end offers something, and that is not among it.
    #[error("the other end asked for what this one did not offer, and was refused: {0}")]
    NotOffered(Destination),
    /// Nobody may listen here.
    #[error("{0} was refused: this end has no listeners for others")]
    NoListeners(Destination),
    /// Nobody may announce a service here.
    #[error("{0} was refused: this end takes no services of others")]
    NoServices(Destination),
    /// The listener that it asked for cannot be had, or the service that it announced.
    #[error("{0} was refused: {1}")]
    NoListener(Destination, Refusal),
    /// What stands behind the listener speaks WebSocket on one side alone, and that failed.
    #[error("{0}: {1}")]
    WebSocket(Destination, #[source] WsError),
    /// The other end gave it up before its destination was reached.
    #[error("{0} was given up by the other end")]
    GivenUp(Destination),
}

impl Exit {
    /// An exit that dials with `dialer`.
    pub fn new(dialer: Dialer, relay: RelayConfig) -> Self {
        let policy = InForce::new(dialer.rules().clone().into());
        Self {
            dialer,
            policy,
            relay,
            limit: None,
            measuring: None,
            registry: None,
            announcer: None,
            offers: None,
            ending: CancellationToken::new(),
            failures: Seldom::default(),
            refused: AtomicU64::new(0),
        }
    }

    /// The same, at which peers may ask for [listeners](crate::reverse).
    pub fn listening(mut self, registry: Arc<Registry>) -> Self {
        self.registry = Some(registry);
        self
    }

    /// The same, at which peers may announce [services](crate::service::announce).
    pub fn announcing(mut self, announcer: Arc<Announcer>) -> Self {
        self.announcer = Some(announcer);
        self
    }

    /// The same, which dials only what stands behind [listeners](crate::reverse) at the other end, whatever that asks
    /// for.
    pub fn offering(mut self, offers: Offers) -> Self {
        self.offers = Some(offers);
        self
    }

    /// The same with a bound on destinations, which other exits may share.
    pub fn within(mut self, limit: Arc<FairLimit>) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The same, which lets peers [measure](crate::measure) the way to this end, or does not; it does not by default.
    pub fn measured(mut self, on: bool) -> Self {
        self.measuring = on.then(Measuring::new);
        self
    }

    /// Destinations that are open, over all exits that share the bound; none where there is no bound.
    pub fn destinations(&self) -> Option<Usage> {
        self.limit.as_ref().map(|limit| Usage::of(limit.taken(), limit.most()))
    }

    /// How often a destination was not dialled, or nothing measured, because too many were open.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Dials by another policy from now on, or by the same rules for all, and resets the connections that it forbids.
    pub fn set_policy(&self, policy: impl Into<Policy>) {
        self.policy.set(policy.into());
    }

    /// Has flows of datagrams end as soon as nothing has moved in them for a second, for they have no end of their own that
    /// whoever drains could wait for.
    pub fn end_quiet_flows(&self) {
        self.ending.cancel();
    }

    /// When a flow of datagrams is idle for too long.
    fn idle(&self) -> Idle {
        Idle::new(self.relay.udp_idle_for).or_quiet(self.ending.clone())
    }

    /// Serves one connection: dials its destination, tells the other end the result, and carries bytes until
    /// both directions have ended. What failed is logged, once a minute for each destination.
    ///
    /// Dropping the future resets the destination.
    pub async fn serve<C: VirtualConnection>(&self, connection: C) -> Result<Relayed, ExitError> {
        self.serve_borrowed(&self.limited(connection)).await
    }

    /// [`serve`](Self::serve) in a task of its own, which takes no more room than it has to: thousands may wait.
    pub fn spawn<C: VirtualConnection>(
        self: Arc<Self>,
        connection: C,
    ) -> JoinHandle<Result<Relayed, ExitError>> {
        let connection = self.limited(connection);
        tokio::spawn(async move { self.serve_borrowed(&connection).await })
    }

    /// The connection within the rate of its peer.
    fn limited<C: VirtualConnection>(&self, connection: C) -> Limited<C> {
        let rate = self.policy.terms(connection.peer()).rate.clone();
        Limited::new(connection, rate)
    }

    /// No function that is async itself, as below.
    #[expect(clippy::manual_async_fn, reason = "it would keep its arguments twice")]
    fn serve_borrowed<'a, C: VirtualConnection>(
        &'a self,
        connection: &'a C,
    ) -> impl Future<Output = Result<Relayed, ExitError>> + Send + 'a {
        async move {
            // In a box that goes when it is over, and what it led to is not kept beside it: the relay may wait for long.
            let mut reached = match Box::pin(self.lead(connection)).await {
                Led::Tcp(reached) => reached,
                Led::Over(served) => return self.served(connection, *served),
            };
            let served = self.relay(connection, &mut reached).await;
            self.served(connection, served)
        }
    }

    /// Logs why a connection led nowhere.
    fn served<C: VirtualConnection>(
        &self,
        connection: &C,
        served: Result<Relayed, ExitError>,
    ) -> Result<Relayed, ExitError> {
        served.inspect_err(|error| self.complain(connection.peer(), error))
    }

    /// Leads a connection to where its bytes are relayed over TCP, or serves it whole.
    async fn lead<C: VirtualConnection>(&self, connection: &C) -> Led {
        let served = match Box::pin(self.reach(connection)).await {
            Ok(Way::Tcp(reached)) if reached.mapping.is_some() => {
                Box::pin(self.map(connection, reached)).await
            }
            #[cfg(unix)]
            Ok(Way::Unix(reached)) if reached.mapping.is_some() => {
                Box::pin(self.map(connection, reached.map_socket(|socket| socket.stream))).await
            }
            Ok(Way::Tcp(reached)) => return Led::Tcp(Box::new(reached)),
            // In boxes, each as large as it is itself.
            Ok(Way::Udp(reached)) => Box::pin(self.relay_datagrams(connection, reached)).await,
            #[cfg(unix)]
            Ok(Way::Unix(reached)) => Box::pin(self.relay_unix(connection, reached)).await,
            Ok(Way::UdpAny) => Box::pin(self.relay_to_any(connection)).await,
            Ok(Way::Measure) => Box::pin(self.measure(connection)).await,
            Ok(Way::Listen(request)) => Box::pin(self.listen(connection, request)).await,
            Ok(Way::Announce(request)) => Box::pin(self.announce(connection, request)).await,
            Ok(Way::Files(files, _place)) => Ok(Box::pin(serve_files(connection, files)).await),
            Err(error) => Err(error),
        };
        Led::Over(Box::new(served))
    }

    /// Dials the connection's destination, and tells the other end the result, where there is one to be dialled.
    async fn reach<C: VirtualConnection>(&self, connection: &C) -> Result<Way, ExitError> {
        let offer = self.offered(connection).inspect_err(|_| {
            connection.confirm(Err(DialError::NotOffered));
            // One without a destination was answered when it was accepted; that it leads nowhere is told so.
            if self.offers.is_some() {
                connection.reset(ResetCode::DIAL);
            }
        })?;
        let (destination, mapping) = match offer {
            Offer::Dial(destination, mapping) => (destination, mapping.map(Box::new)),
            Offer::Folder(files) => return self.open_files(connection, files),
        };
        match &destination {
            Destination::Tcp(_) | Destination::Udp(_) | Destination::Unix(_) => {}
            Destination::UdpAny => return Ok(Way::UdpAny),
            Destination::Control(Control::Measure) => return Ok(Way::Measure),
            Destination::Control(Control::Listen(request)) => return Ok(Way::Listen(*request)),
            Destination::Control(Control::Announce(request)) => return Ok(Way::Announce(request.clone())),
            Destination::Registered(_) => {
                connection.confirm(Err(DialError::NotOffered));
                return Err(ExitError::NotOffered(destination));
            }
        };
        let peer = connection.peer();
        let Ok(place) = self.place(peer) else {
            connection.confirm(Err(DialError::Busy));
            return Err(ExitError::Busy(destination));
        };
        // From before the dial, so that no change is missed.
        let (seen, terms) = self.policy.look(peer);
        let dialer = self.dialer.clone().with_rules(terms.rules.clone());
        let dialled = async {
            Ok(match &destination {
                Destination::Udp(target) => Dialled::Udp(dialer.reach_datagrams(peer, target).await?),
                #[cfg(unix)]
                Destination::Unix(path) => Dialled::Unix(self.dial_unix(&dialer, path).await?),
                Destination::Tcp(target) => {
                    Dialled::Tcp(dialer.dial_for(peer, target, || self.place(peer).ok()).await?)
                }
                _ => return Err(DialFailure::from(DialCause::NotOffered)),
            })
        };
        let dialled = tokio::select! {
            dialled = dialled => dialled,
            () = connection.lost() => return Err(ExitError::GivenUp(destination)),
        };
        match dialled {
            Ok(dialled) => {
                connection.confirm(Ok(()));
                let address = match &dialled {
                    Dialled::Tcp(socket) => socket.peer_addr().ok(),
                    Dialled::Udp(socket) => socket.peer_addr().ok(),
                    #[cfg(unix)]
                    Dialled::Unix(_) => None,
                };
                let base = Reached {
                    socket: (),
                    goal: Goal { destination, address },
                    seen,
                    mapping,
                    unsent: Bytes::new(),
                    _place: place,
                };
                Ok(match dialled {
                    Dialled::Tcp(socket) => Way::Tcp(base.map_socket(|()| socket)),
                    Dialled::Udp(socket) => Way::Udp(base.map_socket(|()| socket)),
                    #[cfg(unix)]
                    Dialled::Unix(socket) => Way::Unix(base.map_socket(|()| socket)),
                })
            }
            Err(failure) => {
                connection.confirm(Err(failure.error));
                Err(ExitError::Dial(destination, failure))
            }
        }
    }

    /// Connects to a Unix socket: by the rules, or to whichever this end itself offers.
    #[cfg(unix)]
    async fn dial_unix(&self, dialer: &Dialer, path: &UnixPath) -> Result<UnixSocket, DialFailure> {
        if self.offers.is_some() {
            return Ok(UnixSocket { stream: dialer.reach_own_socket(path).await?, real: None });
        }
        let (stream, real) = dialer.reach_socket(path).await?;
        Ok(UnixSocket { stream, real: Some(real) })
    }

    /// What the connection is to lead to; where something is offered, what stands behind the listener or service that it
    /// names, and what its bytes are mapped to and from.
    fn offered<C: VirtualConnection>(&self, connection: &C) -> Result<Offer, ExitError> {
        let destination = Destination::decode(connection.destination())?;
        match (&self.offers, &destination) {
            (None, _) => Ok(Offer::Dial(destination, None)),
            (Some(offers), Destination::Registered(registered)) => {
                offers.way(*registered).ok_or(ExitError::NotOffered(destination))
            }
            (Some(_), _) => Err(ExitError::NotOffered(destination)),
        }
    }

    /// Opens files of this end to the other: each open one takes a descriptor, as a destination does.
    fn open_files<C: VirtualConnection>(&self, connection: &C, files: Arc<Files>) -> Result<Way, ExitError> {
        let Ok(place) = self.place(connection.peer()) else {
            connection.confirm(Err(DialError::Busy));
            // It says which.
            let destination = Destination::decode(connection.destination())?;
            return Err(ExitError::Busy(destination));
        };
        connection.confirm(Ok(()));
        Ok(Way::Files(files, place))
    }

    /// Listens for the other end, as long as its connection is there.
    async fn listen<C: VirtualConnection>(
        &self,
        connection: &C,
        request: ListenRequest,
    ) -> Result<Relayed, ExitError> {
        let destination = Destination::Control(Control::Listen(request));
        let Some(registry) = &self.registry else {
            connection.confirm(Err(DialError::NotOffered));
            return Err(ExitError::NoListeners(destination));
        };
        connection.confirm(Ok(()));
        match registry.serve(connection, request).await {
            Ok(()) => Ok(Relayed { up: 0, down: 0, end: End::Finished }),
            Err(refusal) => Err(ExitError::NoListener(destination, refusal)),
        }
    }

    /// Takes a service of the other end, as long as its connection is there.
    async fn announce<C: VirtualConnection>(
        &self,
        connection: &C,
        request: Box<AnnounceRequest>,
    ) -> Result<Relayed, ExitError> {
        let Some(announcer) = &self.announcer else {
            connection.confirm(Err(DialError::NotOffered));
            return Err(ExitError::NoServices(Destination::Control(Control::Announce(request))));
        };
        connection.confirm(Ok(()));
        match announcer.serve(connection, &request).await {
            Ok(()) => Ok(Relayed { up: 0, down: 0, end: End::Finished }),
            Err(refusal) => {
                Err(ExitError::NoListener(Destination::Control(Control::Announce(request)), refusal))
            }
        }
    }

    /// Takes no socket, but this machine's time: so each counts as a destination too.
    async fn measure<C: VirtualConnection>(&self, connection: &C) -> Result<Relayed, ExitError> {
        let Some(measuring) = &self.measuring else {
            connection.confirm(Err(DialError::Denied));
            return Err(ExitError::NotMeasured);
        };
        let peer = connection.peer();
        let (Ok(_place), Some(_measured)) = (self.place(peer), measuring.place(peer)) else {
            connection.confirm(Err(DialError::Busy));
            return Err(MeasureError::Busy.into());
        };
        connection.confirm(Ok(()));
        let served = measuring.serve(connection).await?;
        tracing::debug!(
            "a measurement: {} bytes sent, {} received, {:?}",
            served.up,
            served.down,
            served.end
        );
        Ok(served)
    }

    /// Room for one more destination of this peer; nothing to hold where there is no bound.
    fn place(&self, peer: PeerId) -> Result<Option<FairPlace>, NoRoom> {
        self.limit.as_ref().map(|limit| limit.take(peer).ok_or(NoRoom)).transpose()
    }

    fn complain(&self, peer: PeerId, error: &ExitError) {
        if matches!(error, ExitError::Busy(_) | ExitError::Measure(MeasureError::Busy)) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        let kind = match error {
            ExitError::Destination(_) | ExitError::Forbidden(..) => error.to_string(),
            ExitError::NotMeasured | ExitError::Measure(_) | ExitError::NoListener(..) => error.to_string(),
            // How one ended that was open is nothing to be mended here.
            ExitError::WebSocket(
                ..,
                WsError::Closed { .. }
                | WsError::Lost(_)
                | WsError::Plain(_)
                | WsError::NoRequest
                | WsError::Idle,
            ) => return tracing::debug!("{error}"),
            ExitError::WebSocket(destination, _) => destination.to_string(),
            ExitError::Dial(destination, _) => destination.to_string(),
            // One line for all that a peer may think of.
            ExitError::NotOffered(_) | ExitError::NoListeners(_) | ExitError::NoServices(_) => {
                "not offered".to_owned()
            }
            // One line for all of them.
            ExitError::Busy(_) => "busy".to_owned(),
            ExitError::GivenUp(_) => return,
        };
        if let Some(more) = self.failures.note(&kind) {
            // A peer's strings are escaped where these are shown.
            match &self.policy.terms(peer).name {
                Some(user) => tracing::warn!(%user, "{error}{more}"),
                None => tracing::warn!("{error}{more}"),
            }
        }
    }
}

#[cfg(test)]
mod tests;
