//! [`SessionHandle`]: what a program can do with one session, at either end.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use gkd_proto::SessionStats;
use gkd_proto::error::OpenError;
use gkd_proto::id::{PeerId, SessionId, TunnelId};
use gkd_proto::packet::CloseCode;

use crate::connection::Connection;
use crate::manager::{Opener, Phase, SessionEnd, TunnelManager};
use crate::runtime;

/// One session: all that a client shares with a server. Cheap to clone; does not keep the session alive.
#[derive(Clone)]
pub struct SessionHandle {
    manager: Arc<TunnelManager>,
}

impl SessionHandle {
    pub(crate) fn new(manager: Arc<TunnelManager>) -> Self {
        Self { manager }
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.manager.id
    }

    /// Who is at the other end: the key that it proved.
    pub fn peer(&self) -> PeerId {
        self.manager.peer
    }

    /// Where its newest tunnel comes from or leads to, where that has an address.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.manager.with(|state, _| state.remote)
    }

    /// Opens a connection to the other end, which takes it with `accept`, or dials the destination. Sends
    /// nothing by itself and waits for no answer: data may be written at once, and
    /// [`Connection::connected`] tells how it went. While no tunnel is up it is queued.
    ///
    /// Waits while as many are opened as may be unacknowledged. Cancel safe.
    ///
    /// # Errors
    /// The session has ended or takes no new connections, or the other end is at its limit of them.
    pub async fn open(&self, destination: impl Into<Bytes>) -> Result<Connection, OpenError> {
        self.open_as(destination.into(), true).await
    }

    /// [`open`](Self::open), which while no tunnel is up waits instead of queueing. Cancel safe.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_when_up(&self, destination: impl Into<Bytes>) -> Result<Connection, OpenError> {
        self.open_as(destination.into(), false).await
    }

    async fn open_as(&self, destination: Bytes, queue: bool) -> Result<Connection, OpenError> {
        let mut opener = Opener::new(&self.manager);
        poll_fn(|cx| {
            self.manager.with(|state, now| {
                state.stop_waiting(&mut opener);
                // A tunnel that comes up calls all who wait, and so does the session's end.
                let may_come = state.ended().is_none() && state.draining().is_none();
                if !queue && state.session.tunnels_up() == 0 && may_come {
                    state.wait_to_open(&mut opener, cx.waker());
                    return Poll::Pending;
                }
                match state.session.open(now, destination.clone()) {
                    Ok(id) => {
                        state.add_slot(id);
                        Poll::Ready(Ok(Connection::opened(self.manager.clone(), id, destination.clone())))
                    }
                    Err(OpenError::TooManyUnacknowledged(_)) => {
                        state.wait_to_open(&mut opener, cx.waker());
                        Poll::Pending
                    }
                    // How many the other end takes is not known before it let the first tunnel in.
                    Err(OpenError::TooMany(_)) if state.session.tunnels_up() == 0 => {
                        state.wait_to_open(&mut opener, cx.waker());
                        Poll::Pending
                    }
                    Err(error) => Poll::Ready(Err(error)),
                }
            })
        })
        .await
    }

    /// How many tunnels are up.
    pub fn tunnels_up(&self) -> usize {
        self.manager.tunnels_up()
    }

    /// Waits until no tunnel is up, or the session has ended. Cancel safe.
    pub async fn wait_down(&self) {
        self.manager.line_is(false).await;
    }

    /// Waits until a tunnel is up. False when the session has ended: none will be. Cancel safe.
    pub async fn wait_up(&self) -> bool {
        tokio::select! {
            biased;
            () = self.manager.line_is(true) => true,
            () = self.manager.reached(Phase::Ended) => false,
        }
    }

    /// Figures.
    pub fn stats(&self) -> SessionStats {
        self.manager.with(|state, _| state.session.stats())
    }

    /// Packets that wait behind a missing one now, of all connections. Takes time in proportion to their number.
    pub fn held_out_of_order(&self) -> usize {
        self.manager.with(|state, _| state.session.held_out_of_order())
    }

    /// Where the tunnels that have an address come from or lead to, in no order.
    pub fn tunnel_addrs(&self) -> Vec<(TunnelId, SocketAddr)> {
        self.manager.with(|state, _| state.tunnel_addrs())
    }

    /// How long ago it began.
    pub fn age(&self) -> Duration {
        self.manager.began.elapsed()
    }

    /// Pings every tunnel at once: the machine slept, say, or an address changed.
    pub fn probe(&self) {
        self.manager.with(|state, now| state.session.probe(now));
    }

    /// Takes no new connections from now on, and tells the other end; `reason` is shown to people there.
    pub fn drain(&self, reason: u64) {
        self.manager.drain(reason);
    }

    /// Why the other end takes no new connections, once it does not.
    pub fn draining(&self) -> Option<u64> {
        self.manager.with(|state, _| state.draining())
    }

    /// Ends the session and all its connections at once, and tells the other end why. Does not wait.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.manager.close(code, reason);
    }

    /// Why the session ended, once it has.
    pub fn ended(&self) -> Option<SessionEnd> {
        self.manager.ended()
    }

    /// Waits until the session has ended. Cancel safe.
    pub async fn wait_ended(&self) -> Option<SessionEnd> {
        self.manager.reached(Phase::Ended).await;
        self.manager.ended()
    }

    #[cfg(test)]
    pub(crate) fn manager(&self) -> &Arc<TunnelManager> {
        &self.manager
    }

    /// [`wind_down`](Self::wind_down), without a bound and without waiting: the handle that kept the session
    /// is gone.
    pub(crate) fn wind_down_in_background(&self) {
        if self.manager.is_gone() {
            return;
        }
        let session = self.clone();
        self.manager.runtime.spawn(async move {
            session.wind_down(None, CloseCode::DONE, "").await;
        });
    }

    /// Lets live connections end, for so long at the most, then ends the session; ready when the other end
    /// was told, or will not be. False when
    /// the time was over and live connections were cut.
    pub(crate) async fn wind_down(&self, within: Option<Duration>, code: CloseCode, reason: &str) -> bool {
        let manager = &self.manager;
        manager.drain(code.0);
        match within {
            Some(within) => {
                let deadline = std::time::Instant::now() + within;
                tokio::select! {
                    () = manager.reached(Phase::Drained) => {}
                    () = runtime::sleep_until(&manager.runtime, deadline) => {}
                }
            }
            None => manager.reached(Phase::Drained).await,
        }
        let in_time = !manager.is_live();
        manager.close(code, reason);
        manager.reached(Phase::Gone).await;
        in_time
    }
}

impl fmt::Debug for SessionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionHandle({:?} of {:?})", self.manager.id, self.manager.peer)
    }
}
