//! The end that dials: takes a connection that the other end opened, reaches its destination, and relays
//! ([`Exit`]).

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use gkd_core::Usage;
use gkd_core::fair_limit::{FairLimit, FairPlace};
use gkd_core::proto::id::PeerId;
use gkd_core::proto::packet::DialError;
use gkd_core::seldom::Seldom;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::connection::VirtualConnection;
use crate::destination::{Control, Destination, DestinationError};
use crate::dial::{DialFailure, Dialer};
use crate::measure::{MeasureError, Measuring};
use crate::relay::{RelayConfig, Relayed, relay};
use crate::rules::{Denial, Rules};

/// Serves connections with one dialer. Shared by all connections of a peer, or of all peers.
pub struct Exit {
    dialer: Dialer,
    /// Those in force; they go over the dialer's own.
    rules: watch::Sender<Arc<Rules>>,
    relay: RelayConfig,
    limit: Option<Arc<FairLimit>>,
    /// None where nobody may measure.
    measuring: Option<Measuring>,
    failures: Seldom,
    /// How often a destination was not dialled because too many were open.
    refused: AtomicU64,
}

/// No place for another destination.
struct NoRoom;

/// A destination that was reached.
struct Reached {
    socket: TcpStream,
    destination: Destination,
    /// Those that it was dialled by were seen.
    rules: watch::Receiver<Arc<Rules>>,
    _place: Option<FairPlace>,
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
    /// The other end gave it up before its destination was reached.
    #[error("{0} was given up by the other end")]
    GivenUp(Destination),
}

impl Exit {
    /// An exit that dials with `dialer`.
    pub fn new(dialer: Dialer, relay: RelayConfig) -> Self {
        let rules = watch::Sender::new(dialer.rules().clone());
        Self {
            dialer,
            rules,
            relay,
            limit: None,
            measuring: None,
            failures: Seldom::default(),
            refused: AtomicU64::new(0),
        }
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

    /// Dials by other rules from now on, and resets the connections that they forbid.
    pub fn set_rules(&self, rules: impl Into<Arc<Rules>>) {
        self.rules.send_replace(rules.into());
    }

    /// Serves one connection: dials its destination, tells the other end the result, and carries bytes until
    /// both directions have ended. What failed is logged, once a minute for each destination.
    ///
    /// Dropping the future resets the destination.
    pub async fn serve<C: VirtualConnection>(&self, connection: C) -> Result<Relayed, ExitError> {
        self.serve_borrowed(&connection).await
    }

    /// [`serve`](Self::serve) in a task of its own, which takes no more room than it has to: thousands may wait.
    pub fn spawn<C: VirtualConnection>(
        self: Arc<Self>,
        connection: C,
    ) -> JoinHandle<Result<Relayed, ExitError>> {
        tokio::spawn(async move { self.serve_borrowed(&connection).await })
    }

    async fn serve_borrowed<C: VirtualConnection>(&self, connection: &C) -> Result<Relayed, ExitError> {
        // In a box that goes when it is over: the relay behind it may wait for long.
        let served = match Box::pin(self.reach(connection)).await {
            Ok(Some(reached)) => self.relay(connection, reached).await,
            // In a box: relays, of which there are many, do not carry the room for it.
            Ok(None) => Box::pin(self.measure(connection)).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &served {
            self.complain(error);
        }
        served
    }

    /// Dials the connection's destination, and tells the other end the result; none where it wants to measure.
    async fn reach<C: VirtualConnection>(&self, connection: &C) -> Result<Option<Reached>, ExitError> {
        let destination = match Destination::decode(connection.destination()) {
            Ok(destination) => destination,
            Err(error) => {
                connection.confirm(Err(DialError::NotOffered));
                return Err(error.into());
            }
        };
        let target = match &destination {
            Destination::Tcp(target) => target,
            Destination::Control(Control::Measure) => return Ok(None),
        };
        let peer = connection.peer();
        let Ok(place) = self.place(peer) else {
            connection.confirm(Err(DialError::Busy));
            return Err(ExitError::Busy(destination));
        };
        // From before the dial, so that no change is missed.
        let mut rules = self.rules.subscribe();
        let dialer = self.dialer.clone().with_rules(rules.borrow_and_update().clone());
        let dialled = tokio::select! {
            dialled = dialer.dial_for(peer, target, || self.place(peer).ok()) => dialled,
            () = connection.lost() => return Err(ExitError::GivenUp(destination)),
        };
        match dialled {
            Ok(socket) => {
                connection.confirm(Ok(()));
                Ok(Some(Reached { socket, destination, rules, _place: place }))
            }
            Err(failure) => {
                connection.confirm(Err(failure.error));
                Err(ExitError::Dial(destination, failure))
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

    /// Carries bytes until both directions have ended.
    async fn relay<C: VirtualConnection>(
        &self,
        connection: &C,
        mut reached: Reached,
    ) -> Result<Relayed, ExitError> {
        let address = reached.socket.peer_addr().ok();
        let relayed = tokio::select! {
            relayed = relay(&mut reached.socket, connection, Bytes::new(), &self.relay) => relayed,
            // The relay resets both sides when it is dropped.
            denial = forbidden(&mut reached.rules, address) => {
                return Err(ExitError::Forbidden(reached.destination, denial));
            }
        };
        let Relayed { up, down, end } = &relayed;
        tracing::debug!("{}: {down} bytes up, {up} down, {end:?}", reached.destination);
        Ok(relayed)
    }

    /// Room for one more destination of this peer; nothing to hold where there is no bound.
    fn place(&self, peer: PeerId) -> Result<Option<FairPlace>, NoRoom> {
        self.limit.as_ref().map(|limit| limit.take(peer).ok_or(NoRoom)).transpose()
    }

    fn complain(&self, error: &ExitError) {
        if matches!(error, ExitError::Busy(_) | ExitError::Measure(MeasureError::Busy)) {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        let kind = match error {
            ExitError::Destination(_) | ExitError::Forbidden(..) => error.to_string(),
            ExitError::NotMeasured | ExitError::Measure(_) => error.to_string(),
            ExitError::Dial(destination, _) => destination.to_string(),
            // One line for all of them.
            ExitError::Busy(_) => "busy".to_owned(),
            ExitError::GivenUp(_) => return,
        };
        if let Some(more) = self.failures.note(&kind) {
            // A peer's strings are escaped where these are shown.
            tracing::warn!("{error}{more}");
        }
    }
}

/// Waits until rules come into force that forbid this address. One that is not known is gone, and forbidden to nobody.
async fn forbidden(rules: &mut watch::Receiver<Arc<Rules>>, peer: Option<SocketAddr>) -> Denial {
    let Some(peer) = peer else { return pending().await };
    while rules.changed().await.is_ok() {
        let now = rules.borrow_and_update().clone();
        if let Err(denial) = now.check(peer) {
            return denial;
        }
    }
    pending().await
}

#[cfg(test)]
mod tests;
