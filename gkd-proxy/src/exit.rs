//! The end that dials: takes a connection that the other end opened, reaches its destination, and relays
//! ([`Exit`]).

use bytes::Bytes;
use gkd_core::proto::packet::DialError;
use gkd_core::seldom::Seldom;

use crate::connection::VirtualConnection;
use crate::destination::{Destination, DestinationError};
use crate::dial::{DialFailure, Dialer};
use crate::relay::{RelayConfig, Relayed, relay};

/// Serves connections with one dialer. Shared by all connections of a peer, or of all peers.
pub struct Exit {
    dialer: Dialer,
    relay: RelayConfig,
    failures: Seldom,
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
    /// The other end gave it up before its destination was reached.
    #[error("{0} was given up by the other end")]
    GivenUp(Destination),
}

impl Exit {
    /// An exit that dials with `dialer`.
    pub fn new(dialer: Dialer, relay: RelayConfig) -> Self {
        Self { dialer, relay, failures: Seldom::default() }
    }

    /// Serves one connection: dials its destination, tells the other end the result, and carries bytes until
    /// both directions have ended. What failed is logged, once a minute for each destination.
    ///
    /// Dropping the future resets the destination.
    pub async fn serve<C: VirtualConnection>(&self, connection: C) -> Result<Relayed, ExitError> {
        let served = self.try_serve(&connection).await;
        if let Err(error) = &served {
            self.complain(error);
        }
        served
    }

    async fn try_serve<C: VirtualConnection>(&self, connection: &C) -> Result<Relayed, ExitError> {
        let destination = match Destination::decode(connection.destination()) {
            Ok(destination) => destination,
            Err(error) => {
                connection.confirm(Err(DialError::NotOffered));
                return Err(error.into());
            }
        };
        let Destination::Tcp(target) = &destination;
        let dialled = tokio::select! {
            dialled = self.dialer.dial(target) => dialled,
            () = connection.lost() => return Err(ExitError::GivenUp(destination)),
        };
        match dialled {
            Ok(socket) => {
                connection.confirm(Ok(()));
                let relayed = relay(socket, connection, Bytes::new(), &self.relay).await;
                tracing::debug!(
                    "{destination}: {} bytes up, {} down, {:?}",
                    relayed.down,
                    relayed.up,
                    relayed.end
                );
                Ok(relayed)
            }
            Err(failure) => {
                connection.confirm(Err(failure.error));
                Err(ExitError::Dial(destination, failure))
            }
        }
    }

    fn complain(&self, error: &ExitError) {
        let kind = match error {
            ExitError::Destination(error) => error.to_string(),
            ExitError::Dial(destination, _) => destination.to_string(),
            ExitError::GivenUp(_) => return,
        };
        if let Some(more) = self.failures.note(&kind) {
            // A peer's strings are escaped where these are shown.
            tracing::warn!("{error}{more}");
        }
    }
}

#[cfg(test)]
mod tests;
