//! When a request leaves its target for another because there is no way to it any more ([`Desertion`]): only for one that
//! can be reached. Where there is none, it waits: a client that comes back within its session's time has lost nothing.
//!
//! Which requests may leave is not decided here.

use std::sync::Arc;

use hyper::StatusCode;
use tokio::sync::watch;

use super::balance::TargetId;
use super::passage::{Passage, gone};
use super::pool::Pool;
use super::upstream::{Blame, Failure};

/// Looks after one request to one target.
pub(super) struct Desertion {
    pool: Arc<Pool>,
    passage: watch::Receiver<Passage>,
    /// The target itself, and those that the request was at before.
    tried: Vec<TargetId>,
}

impl Desertion {
    pub(super) fn new(pool: &Arc<Pool>, passage: watch::Receiver<Passage>, tried: &[TargetId]) -> Self {
        Self { pool: Arc::clone(pool), passage, tried: tried.to_vec() }
    }

    /// Ready when the way is gone while another target takes requests.
    pub(super) async fn happens(&self) {
        let (mut passage, mut changes) = (self.passage.clone(), self.pool.changes());
        loop {
            gone(&mut passage).await;
            changes.mark_unchanged();
            if self.has_another() {
                return;
            }
            tokio::select! {
                // A session that has ended tells no more, and its connections end by themselves.
                Ok(()) = passage.changed() => {}
                Ok(()) = changes.changed() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Whether it has happened before anything was sent. While that is doubtful, and there is another target, it is waited for.
    pub(super) async fn has_happened(&self) -> bool {
        let mut passage = self.passage.clone();
        if *passage.borrow() == Passage::Open || !self.has_another() {
            return false;
        }
        let settled = passage
            .wait_for(|passage| *passage != Passage::Doubtful)
            .await
            .is_ok_and(|passage| *passage == Passage::Gone);
        settled && self.has_another()
    }

    fn has_another(&self) -> bool {
        self.pool.has_another(&self.tried)
    }
}

/// What is said of it.
pub(super) fn deserted() -> Failure {
    Failure::new(StatusCode::GATEWAY_TIMEOUT, "no tunnel to its client is up").of(Blame::Passage)
}
