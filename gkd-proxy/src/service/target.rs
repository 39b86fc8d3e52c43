//! What answers the requests of a service: a web server, or a folder of this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use hyper::{Request, Response};
use tokio::sync::watch;

use super::passage::Passage;
use super::upstream::Upstream;
use super::{ServiceBody, Visit};

/// Answers requests on this machine, without a connection.
pub trait Content: Send + Sync + 'static {
    /// Answers one. Dropping the future gives it up.
    fn answer(
        self: Arc<Self>,
        request: Request<ServiceBody>,
        visit: &Visit,
    ) -> BoxFuture<'static, Response<ServiceBody>>;

    /// What the log and the status call it.
    fn name(&self) -> &str;
}

/// A target of a service.
pub(super) struct Target {
    name: Arc<str>,
    way: Way,
    /// The user whose client announced it.
    user: Option<Arc<str>>,
    /// Requests that were given to it.
    requests: AtomicU64,
    /// How many of them, or of the attempts to reach it, failed.
    failures: AtomicU64,
}

/// How a target is reached.
pub(super) enum Way {
    /// By connections.
    Upstream(Arc<Upstream>),
    /// It is here.
    Content(Arc<dyn Content>),
}

impl Target {
    pub(super) fn new(way: Way, user: Option<&str>) -> Self {
        let name = match &way {
            Way::Upstream(upstream) => Arc::clone(upstream.name()),
            Way::Content(content) => content.name().into(),
        };
        let user = user.map(Into::into);
        Self { name, way, user, requests: AtomicU64::new(0), failures: AtomicU64::new(0) }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn way(&self) -> &Way {
        &self.way
    }

    pub(super) fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }

    pub(super) fn upstream(&self) -> Option<&Arc<Upstream>> {
        match &self.way {
            Way::Upstream(upstream) => Some(upstream),
            Way::Content(_) => None,
        }
    }

    /// Whether there is a way to it, where that is told.
    pub(super) fn passage(&self) -> Option<watch::Receiver<Passage>> {
        self.upstream()?.passage()
    }

    /// Whether there has been no way to it for too long.
    pub(super) fn is_gone(&self) -> bool {
        self.passage().is_some_and(|passage| *passage.borrow() == Passage::Gone)
    }

    /// Whether there is a way to it, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.passage().is_none_or(|passage| *passage.borrow() == Passage::Open)
    }

    /// Requests that were given to it, and failures.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.requests.load(Ordering::Relaxed), self.failures.load(Ordering::Relaxed))
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Closes connections that have been kept for too long.
    pub(super) fn sweep(&self) {
        if let Some(upstream) = self.upstream() {
            upstream.sweep();
        }
    }

    /// Closes those that are kept: it is gone.
    pub(super) fn close(&self) {
        if let Some(upstream) = self.upstream() {
            upstream.close();
        }
    }
}
