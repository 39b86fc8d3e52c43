//! What one connection of the front is doing ([`Activity`]): how many of its requests are unanswered, since when none is, and
//! whether it is to end.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How many requests in a row a client may give up before they are answered, and how soon it may give up one more. A browser
/// gives up a page of images at once; one that does nothing else makes work for nothing (HTTP/2 rapid reset).
const MAX_ABANDONED: u32 = 200;
const ABANDONED_EVERY: Duration = Duration::from_millis(50);

/// What a connection is doing.
#[derive(Debug)]
pub(super) struct Activity {
    state: Mutex<State>,
    changed: Notify,
    /// Asks it to end when it can.
    give_way: CancellationToken,
    /// Ends it at once.
    end: CancellationToken,
}

#[derive(Debug)]
struct State {
    requests: u64,
    unanswered: usize,
    idle_since: Instant,
    /// When all that was abandoned will be forgotten.
    abandoned_until: Instant,
}

impl Activity {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let state = State { requests: 0, unanswered: 0, idle_since: now, abandoned_until: now };
        Self {
            state: Mutex::new(state),
            changed: Notify::new(),
            give_way: CancellationToken::new(),
            end: CancellationToken::new(),
        }
    }

    /// A request begins: its number on the connection, from 1.
    pub(super) fn begin(&self) -> u64 {
        let mut state = self.lock();
        state.requests += 1;
        state.unanswered += 1;
        state.requests
    }

    /// Something else begins that keeps the connection from being idle.
    pub(super) fn hold(&self) {
        self.lock().unanswered += 1;
    }

    /// A request was answered or given up, or what [`hold`](Self::hold) told of is over.
    pub(super) fn ended(&self) {
        let mut state = self.lock();
        state.unanswered = state.unanswered.saturating_sub(1);
        if state.unanswered == 0 {
            state.idle_since = Instant::now();
            drop(state);
            self.changed.notify_one();
        }
    }

    /// A request was given up by its client before it was answered. True when it is one too many.
    pub(super) fn abandoned(&self) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        let until = state.abandoned_until.max(now) + ABANDONED_EVERY;
        if until - now > ABANDONED_EVERY * MAX_ABANDONED {
            return true;
        }
        state.abandoned_until = until;
        false
    }

    /// Since when nothing is unanswered, and how many requests there were.
    pub(super) fn idle(&self) -> Option<(Instant, u64)> {
        let state = self.lock();
        (state.unanswered == 0).then_some((state.idle_since, state.requests))
    }

    /// Waits until nothing was unanswered for so long; for the first request perhaps another time.
    pub(super) async fn idle_for(&self, first: Duration, next: Duration) {
        loop {
            let idle = self.idle();
            match idle {
                Some((since, requests)) => {
                    let time = if requests == 0 { first } else { next };
                    sleep_until(since + time).await;
                    if self.idle() == idle {
                        return;
                    }
                }
                None => self.changed.notified().await,
            }
        }
    }

    /// Asks the connection to end as soon as nothing is unanswered.
    pub(super) fn give_way(&self) {
        self.give_way.cancel();
    }

    /// Waits until it is asked to.
    pub(super) async fn asked_to_give_way(&self) {
        self.give_way.cancelled().await;
    }

    /// Ends the connection.
    pub(super) fn end(&self) {
        self.end.cancel();
    }

    /// Waits until it is to end.
    pub(super) async fn to_end(&self) {
        self.end.cancelled().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn idle_time_begins_anew_behind_each_request() {
        let activity = Activity::new();
        let began = Instant::now();
        activity.idle_for(SECOND, 5 * SECOND).await;
        assert_eq!(began.elapsed(), SECOND);
        activity.begin();
        activity.begin();
        activity.ended();
        assert!(timeout(60 * SECOND, activity.idle_for(SECOND, 5 * SECOND)).await.is_err());
        activity.ended();
        let began = Instant::now();
        activity.idle_for(SECOND, 5 * SECOND).await;
        assert_eq!(began.elapsed(), 5 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn giving_up_is_not_to_be_all_that_a_client_does() {
        let activity = Activity::new();
        assert!((0..MAX_ABANDONED).all(|_| !activity.abandoned()));
        assert!(activity.abandoned());
        advance(ABANDONED_EVERY).await;
        assert!(!activity.abandoned() && activity.abandoned());
        advance(ABANDONED_EVERY * MAX_ABANDONED).await;
        assert!((0..MAX_ABANDONED).all(|_| !activity.abandoned()));
    }
}
