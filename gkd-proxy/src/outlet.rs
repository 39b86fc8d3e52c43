//! What every listener does with a request, however it was spoken: opens a connection, waits for its dial,
//! relays, and logs what failed ([`Outlet`]).

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use gkd_core::seldom::Seldom;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connection::{Opener, VirtualConnection};
use crate::destination::{Destination, Target};
use crate::reach::ReachError;
use crate::relay::{End, RelayConfig, Relayed, relay};

/// What the far end's answer may take beyond its dial: a round trip, and tunnels that come back meanwhile.
const ANSWER_SLACK: Duration = Duration::from_secs(5);

/// The way out of a listener.
pub(crate) struct Outlet<O> {
    opener: O,
    dial_timeout: Duration,
    relay: RelayConfig,
    failures: Seldom,
}

impl<O: Opener> Outlet<O> {
    pub(crate) fn new(opener: O, dial_timeout: Duration, relay: RelayConfig) -> Self {
        Self { opener, dial_timeout, relay, failures: Seldom::default() }
    }

    /// Opens a connection. While no tunnel is up it waits, as long as a dial may take.
    pub(crate) async fn open(&self, target: &Target) -> Result<O::Connection, ReachError> {
        let destination = Destination::Tcp(target.clone()).encode();
        let opened = match timeout(self.dial_timeout, self.opener.open(destination)).await {
            Ok(opened) => opened.map_err(ReachError::Open),
            Err(_) => Err(ReachError::NoTunnel),
        };
        opened.inspect_err(|error| self.failed(target, error))
    }

    /// Waits until the far end has reached the target, or has not.
    pub(crate) async fn reached(
        &self,
        target: &Target,
        connection: &O::Connection,
    ) -> Result<(), ReachError> {
        let answered = timeout(self.dial_timeout + ANSWER_SLACK, connection.connected()).await;
        answered.unwrap_or(Err(ReachError::NoAnswer)).inspect_err(|error| self.failed(target, error))
    }

    /// Carries bytes between a program and its connection, until both are done.
    pub(crate) async fn relay(
        &self,
        socket: &mut TcpStream,
        connection: &O::Connection,
        first: Bytes,
        target: &Target,
    ) -> Relayed {
        let relayed = relay(socket, connection, first, &self.relay).await;
        // The program was told success at once: now it got a reset, and this line says why.
        if let End::Connection(_) = relayed.end
            && let Some(Err(error)) = connection.connected().now_or_never()
        {
            self.failed(target, &error);
        }
        tracing::debug!("{target}: {} bytes up, {} down, {:?}", relayed.up, relayed.down, relayed.end);
        relayed
    }

    /// Logs what a program does wrong, with the mend, once a minute.
    pub(crate) fn complain(&self, words: &str) {
        if let Some(more) = self.failures.note(words) {
            tracing::warn!("{words}{more}");
        }
    }

    /// Logs a failure, once a minute for each target.
    pub(crate) fn failed(&self, target: &Target, error: &ReachError) {
        if let Some(more) = self.failures.note(&target.to_string()) {
            tracing::warn!("{target} was not reached: {error}{more}");
        }
    }
}
