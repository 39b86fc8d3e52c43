//! One place for a tunnel: dials it, runs it, and when it ends dials it again, for ever. While it is above what is wanted
//! on its path it takes its tunnel away and rests.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gkd_proto::handshake::RejectCode;
use gkd_proto::id::TunnelId;
use gkd_proto::session::DropReason;

use super::dial::Up;
use super::{ClientEvent, DEFAULT_TUNNELS, Inner, Path, TunnelDialError};
use crate::backoff::Backoff;
use crate::identity::new_seed;
use crate::manager::TunnelManager;
use crate::tunnel::{self, EndCause};

/// A tunnel that carried something for so long is good: when it is lost, the waits start anew. One that something
/// on the way ends as soon as it begins is not dialled again and again without a rest.
const PROVEN: Duration = Duration::from_secs(1);

/// Whether dialling again and again may do harm: a proxy may lock a user out after some wrong passwords.
fn is_locking(error: &TunnelDialError) -> bool {
    matches!(error, TunnelDialError::Proxy(error) if error.is_final())
}

/// The place of one tunnel.
pub(super) struct Slot {
    pub(super) inner: Arc<Inner>,
    pub(super) path: Arc<Path>,
    /// Which of the path's tunnels.
    pub(super) index: usize,
    /// Which of all.
    pub(super) place: usize,
}

impl Slot {
    /// Keeps the tunnel up until the client has stopped.
    pub(super) async fn keep(self) {
        let mut backoff = Backoff::new(new_seed());
        let mut first = true;
        // Each round dials or waits, so this never spins: a dial that was good resets the wait only when
        // something arrived on its tunnel.
        loop {
            tokio::select! {
                () = self.until_wanted(true) => {}
                () = self.inner.stop.cancelled() => break,
            }
            let Some(manager) = self.inner.current() else { break };
            let dialled = tokio::select! {
                dialled = self.inner.dialler.dial(&manager, &self.path, self.index) => dialled,
                () = self.until_wanted(false) => continue,
                () = self.inner.stop.cancelled() => break,
            };
            let mut hurry = true;
            let wait = match dialled {
                Ok(mut up) => {
                    while let Some(fresh) = self.run(up, &mut backoff).await {
                        up = fresh;
                    }
                    backoff.next()
                }
                Err(error) => {
                    hurry = !is_locking(&error);
                    self.failed(&manager, error, &mut backoff, first)
                }
            };
            first = false;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.inner.dial_now.notified(), if hurry => {}
                () = self.inner.stop.cancelled() => break,
            }
        }
    }

    /// Waits until this place is wanted, or is not.
    async fn until_wanted(&self, wanted: bool) {
        let mut watched = self.inner.places.watch();
        // The sender lives as long as `self`.
        watched.wait_for(|tunnels| (self.index < *tunnels) == wanted).await.ok();
    }

    /// Runs a tunnel until it ends, or until a fresh one takes its place. One that is not wanted any more goes when all
    /// that it carried is settled.
    async fn run(&self, up: Up, backoff: &mut Backoff) -> Option<Up> {
        let (path, manager, handle) = (self.path.clone(), up.guard.manager.clone(), up.guard.handle.clone());
        let tunnel = handle.id;
        tracing::debug!(%path, %tunnel, "a tunnel is up");
        let _shown = self.inner.show_up(self.place, tunnel, up.carrier.peer_addr());
        self.inner.tell(ClientEvent::TunnelUp { path: path.clone(), tunnel });
        let began = Instant::now();
        // In a task of its own: a panic in it ends this tunnel, and this place dials another.
        let mut running = self.inner.runtime.spawn(tunnel::run(up.guard, up.carrier, up.front));
        let mut retired = false;
        let (end, fresh) = tokio::select! {
            end = &mut running => (end, None),
            () = self.until_wanted(false) => {
                retired = true;
                manager.with(|state, now| state.session.retire_tunnel(now, tunnel));
                (running.await, None)
            }
            fresh = self.dial_beside(&manager, tunnel) => {
                handle.give_up();
                (running.await, Some(fresh))
            }
        };
        let cause = match end {
            Ok(end) => {
                let by_session = matches!(end.cause, EndCause::Dropped(DropReason::SessionEnded));
                if end.received > 0 && began.elapsed() >= PROVEN && !by_session {
                    backoff.reset();
                }
                if matches!(end.cause, EndCause::Io(_)) {
                    // Whatever broke it may have cut the others: a ping will tell.
                    manager.with(|state, now| state.session.probe(now));
                }
                end.cause.to_string()
            }
            Err(_) => "a fault of this program, please report it".to_owned(),
        };
        tracing::debug!(%path, %tunnel, %cause, "a tunnel ended");
        self.inner.tell(match retired {
            true => ClientEvent::TunnelRetired { path, tunnel },
            false => ClientEvent::TunnelDown { path, tunnel, cause },
        });
        fresh
    }

    /// While nothing comes on any tunnel, dials beside this one, which may come back all the same: an address
    /// may have changed, or TCP may wait for long until it tries again. Ready with a tunnel that is up while
    /// this one still says nothing.
    async fn dial_beside(&self, manager: &Arc<TunnelManager>, tunnel: TunnelId) -> Up {
        loop {
            manager.stalled().await;
            tracing::debug!(path = %self.path, %tunnel, "all tunnels are silent: a fresh one is dialled");
            match self.inner.dialler.dial(manager, &self.path, self.index).await {
                Ok(up) if manager.is_quiet(tunnel) => return up,
                Ok(_) => tracing::debug!(%tunnel, "it came back before a fresh one was up"),
                Err(error) => {
                    tracing::debug!(path = %self.path, %error, "no fresh tunnel came up");
                    if error.is_lost() && manager.is_stalled() {
                        // No tunnel answers, and the server knows nothing of the session. Another follows it.
                        manager.lose();
                    }
                }
            }
        }
    }

    /// What a failed dial means for the session; how long to wait.
    fn failed(
        &self,
        manager: &Arc<TunnelManager>,
        error: TunnelDialError,
        backoff: &mut Backoff,
        first: bool,
    ) -> Duration {
        if error.is_lost() {
            if manager.tunnels_up() == 0 {
                manager.lose();
                if self.inner.renew(manager) {
                    return Duration::ZERO;
                }
            } else {
                // An old tunnel may only seem to be up: its answer, or its silence, will tell.
                manager.with(|state, now| state.session.probe(now));
            }
        }
        let refused =
            |code| matches!(&error, TunnelDialError::Rejected { reject, .. } if reject.code == code);
        let again = match &error {
            _ if refused(RejectCode::UnknownUser) => backoff.slow_down(),
            _ if is_locking(&error) => backoff.slow_down(),
            TunnelDialError::Rejected { .. } => backoff.next_but_none(),
            _ => backoff.next(),
        };
        tracing::debug!(path = %self.path, %error, ?again, "a tunnel did not come up");
        if self.inner.auto && self.index >= DEFAULT_TUNNELS {
            // One more than there has to be: that there is no room for it is worth knowing, and no failure.
            if refused(RejectCode::Busy) || matches!(error, TunnelDialError::Session(_)) {
                self.inner.refused.store(true, Ordering::Relaxed);
            }
            return again;
        }
        let error = Arc::new(error);
        self.inner.update(|state| {
            state.failed_first += usize::from(first);
            state.failure = Some(error.clone());
        });
        self.inner.tell(ClientEvent::DialFailed { path: self.path.clone(), error, again });
        again
    }
}
