//! What every listener does with a request, however it was spoken: opens a connection, waits for its dial,
//! relays, and logs what failed ([`Outlet`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use gkd_core::seldom::Seldom;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::connection::{Opener, VirtualConnection};
use crate::destination::Destination;
use crate::reach::ReachError;
use crate::relay::{End, RelayConfig, Relayed, relay};
use crate::udp::Idle;
use crate::ws::{Copied, WsError};

/// What the far end's answer may take beyond its dial: a round trip, and tunnels that come back meanwhile.
const ANSWER_SLACK: Duration = Duration::from_secs(5);

/// The way out of a listener.
pub(crate) struct Outlet<O> {
    opener: O,
    dial_timeout: Duration,
    relay: RelayConfig,
    /// What stands in the log for all destinations, where these say nothing to people.
    label: Option<Box<str>>,
    /// Its listener takes no more programs.
    stop: CancellationToken,
    failures: Seldom,
}

/// A destination to which many connections lead: encoded once for all of them.
pub(crate) struct Fixed {
    destination: Destination,
    encoded: Bytes,
}

impl From<Destination> for Fixed {
    fn from(destination: Destination) -> Self {
        Self { encoded: destination.encode(), destination }
    }
}

impl<O: Opener> Outlet<O> {
    pub(crate) fn new(opener: O, dial_timeout: Duration, relay: RelayConfig) -> Self {
        let stop = CancellationToken::new();
        Self { opener, dial_timeout, relay, label: None, stop, failures: Seldom::default() }
    }

    /// The same of a listener that this stops.
    pub(crate) fn stopped_by(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    /// The same with a name for all destinations in the log.
    pub(crate) fn labelled(mut self, label: String) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Opens a connection. While no tunnel is up it waits, as long as a dial may take.
    pub(crate) async fn open(&self, to: &Destination) -> Result<O::Connection, ReachError> {
        self.open_encoded(to, to.encode()).await
    }

    async fn open_encoded(&self, to: &Destination, encoded: Bytes) -> Result<O::Connection, ReachError> {
        let opened = match timeout(self.dial_timeout, self.opener.open(encoded)).await {
            Ok(opened) => opened.map_err(ReachError::Open),
            Err(_) => Err(ReachError::NoTunnel),
        };
        opened.inspect_err(|error| self.failed(to, error))
    }

    /// Waits until the far end has reached the destination, or has not.
    pub(crate) async fn reached(
        &self,
        to: &Destination,
        connection: &O::Connection,
    ) -> Result<(), ReachError> {
        let answered = timeout(self.dial_timeout + ANSWER_SLACK, connection.connected()).await;
        answered.unwrap_or(Err(ReachError::NoAnswer)).inspect_err(|error| self.failed(to, error))
    }

    /// Serves a program that has no say in where its connection leads: it is connected before the far end has dialled, and
    /// is reset when that fails. `unsent` goes ahead of what it sends.
    ///
    /// No function that is async itself: it would keep its arguments twice, and there are many that wait in it.
    #[expect(clippy::manual_async_fn, reason = "it would keep its arguments twice")]
    pub(crate) fn forward(
        self: Arc<Self>,
        mut socket: TcpStream,
        mut unsent: Bytes,
        to: Arc<Fixed>,
    ) -> impl Future<Output = ()> + Send {
        async move {
            // In a box that goes when it is over: the relay behind it may wait for long. And no `match`, which would keep
            // the room of what it looks at.
            let Ok(connection) = Box::pin(self.open_encoded(&to.destination, to.encoded.clone())).await
            else {
                // It was logged why.
                return crate::socket::reset_on_drop(&socket);
            };
            let relayed = relay(&mut socket, &connection, &mut unsent, &self.relay).await;
            self.relayed(&to.destination, &connection, &relayed);
        }
    }

    /// How long a mapping goes on of which one direction has ended and the other is idle.
    pub(crate) fn half_closed_for(&self) -> Duration {
        self.relay.half_closed_for
    }

    /// The opening of a WebSocket at the far end, within the time of its dial.
    pub(crate) async fn opened_in_time<T>(
        &self,
        opening: impl Future<Output = Result<T, WsError>>,
    ) -> Result<T, WsError> {
        let opening = Box::pin(opening);
        timeout(self.dial_timeout + ANSWER_SLACK, opening).await.unwrap_or(Err(WsError::TimedOut))
    }

    /// Logs how a mapping to or from WebSocket ended, as [`relay`](Self::relay) does.
    pub(crate) fn mapped(
        &self,
        to: &Destination,
        connection: &O::Connection,
        copied: &Result<Copied, WsError>,
    ) {
        if copied.is_err()
            && let Some(Err(error)) = connection.connected().now_or_never()
        {
            self.failed(to, &error);
        }
        match copied {
            Ok(Copied { to_ws, to_plain }) => {
                tracing::debug!("{to}: {to_ws} bytes to WebSocket, {to_plain} from it")
            }
            Err(error) => tracing::debug!("{to}: {error}"),
        }
    }

    /// How long a flow of datagrams may be idle.
    pub(crate) fn udp_idle_for(&self) -> Duration {
        self.relay.udp_idle_for
    }

    /// When datagrams of a program have been idle for too long: its connection may stay for ever, and must not hold the end
    /// of its listener up.
    pub(crate) fn idle(&self) -> Idle {
        Idle::new(self.relay.udp_idle_for).or_quiet(self.stop.clone())
    }

    /// Carries bytes between a program and its connection, until both are done. `unsent` goes ahead.
    pub(crate) async fn relay(
        &self,
        socket: &mut TcpStream,
        connection: &O::Connection,
        unsent: &mut Bytes,
        to: &Destination,
    ) {
        let relayed = relay(socket, connection, unsent, &self.relay).await;
        self.relayed(to, connection, &relayed);
    }

    /// Logs how a relay ended.
    fn relayed(&self, to: &Destination, connection: &O::Connection, relayed: &Relayed) {
        let Relayed { up, down, end } = relayed;
        // The program was told success at once: now it got a reset, and this line says why.
        if let End::Connection(_) = end
            && let Some(Err(error)) = connection.connected().now_or_never()
        {
            self.failed(to, &error);
        }
        tracing::debug!("{to}: {up} bytes up, {down} down, {end:?}");
    }

    /// Logs what a program does wrong, with the mend, once a minute.
    pub(crate) fn complain(&self, words: &str) {
        if let Some(more) = self.failures.note(words) {
            tracing::warn!("{words}{more}");
        }
    }

    /// Logs a failure, once a minute for each destination.
    pub(crate) fn failed(&self, to: &Destination, error: &ReachError) {
        let to = self.label.as_deref().map_or_else(|| to.to_string(), str::to_owned);
        if let Some(more) = self.failures.note(&to) {
            tracing::warn!("{to} was not reached: {error}{more}");
        }
    }
}
