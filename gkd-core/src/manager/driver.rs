//! The task that keeps a session's time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Time, TunnelManager};

/// How long tunnels may take to say that the session ended before they are closed without.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// The runtime's clock ticks so often; time is not asked for more often either.
const TICK: Duration = Duration::from_millis(1);

/// Keeps the session's time until it has ended and its tunnels with it; sees that these do not take long.
pub(super) async fn drive(manager: Arc<TunnelManager>) {
    let sleep = tokio::time::sleep(Duration::ZERO);
    tokio::pin!(sleep);
    let mut close_by: Option<Instant> = None;
    let (mut looks, mut not_before) = (true, Instant::now());
    loop {
        let Time { now, mut due, ended, has_tunnels } = manager.keep_time(|state, now| {
            if looks {
                state.look(now);
                not_before = now + TICK;
            }
        });
        if ended && !has_tunnels {
            break;
        }
        if ended {
            let by = *close_by.get_or_insert(now + CLOSE_WITHIN);
            if now >= by {
                break manager.with(|state, _| state.drop_tunnels());
            }
            due = Some(due.map_or(by, |due| due.min(by)));
        }
        looks = match due {
            Some(due) => {
                sleep.as_mut().reset(due.max(not_before).into());
                tokio::select! {
                    () = &mut sleep => true,
                    () = manager.timer.notified() => false,
                }
            }
            None => {
                manager.timer.notified().await;
                false
            }
        };
    }
    if let Some(end) = manager.ended() {
        tracing::debug!(session = ?manager.id, "the session ended: {end}");
    }
}
