//! The task that keeps a session's time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TunnelManager;

/// How long tunnels may take to say that the session ended before they are closed without.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The runtime's clock ticks so often; time is not asked for more often either.
const TICK: Duration = Duration::from_millis(1);

/// Keeps the session's time until it has ended and its tunnels with it; sees that these do not take long.
pub(super) async fn drive(manager: Arc<TunnelManager>) {
    let sleep = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(sleep);
    let mut close_by: Option<Instant> = None;
    let mut not_before = Instant::now();
    loop {
        let (mut due, ended, gone) = manager.with(|state, _| {
            state.armed = state.session.poll_timeout();
            let ended = state.ended.is_some();
            (state.armed, ended, ended && state.tunnels.is_empty())
        });
        if gone {
            break;
        }
        if ended {
            let by = *close_by.get_or_insert_with(|| Instant::now() + CLOSE_WITHIN);
            if Instant::now() >= by {
                break manager.with(|state, _| state.drop_tunnels());
            }
            due = Some(due.map_or(by, |due| due.min(by)));
        }
        match due {
            Some(due) => {
                sleep.as_mut().reset(due.max(not_before).into());
                tokio::select! {
                    () = &mut sleep => {
                        manager.with(|state, now| state.session.handle_timeout(now));
                        not_before = Instant::now() + TICK;
                    }
                    () = manager.timer.notified() => {}
                }
            }
            None => manager.timer.notified().await,
        }
    }
    if let Some(end) = manager.ended() {
        tracing::debug!(session = ?manager.id, "the session ended: {end}");
    }
}
