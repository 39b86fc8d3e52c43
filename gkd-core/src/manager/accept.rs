//! Connections that wait to be accepted, over all sessions of a client or server. Each session keeps its own,
//! bounded, and stands here once while it has some: every session gets its turn whatever the others open.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::task::coop;

use super::TunnelManager;
use crate::connection::Connection;

/// The sessions that have connections to be accepted, in the order of their turns.
#[derive(Debug, Default)]
pub(crate) struct AcceptQueue {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Each session stands here at most once.
    ready: VecDeque<Arc<TunnelManager>>,
    /// The tasks that wait; each at most once.
    wakers: Vec<Waker>,
    closed: bool,
}

impl AcceptQueue {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session has connections to be accepted.
    pub(super) fn push(&self, manager: Arc<TunnelManager>) {
        let mut inner = self.lock();
        if inner.closed {
            return;
        }
        inner.ready.push_back(manager);
        let wakers = std::mem::take(&mut inner.wakers);
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Nothing more will come: whoever waits is told so. What waits in the sessions stays there.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.closed = true;
        let wakers = std::mem::take(&mut inner.wakers);
        let ready = std::mem::take(&mut inner.ready);
        drop(inner);
        drop(ready);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The next connection; `None` once the queue is closed. A task that always finds one yields now and then.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<Connection>> {
        let budget = ready!(coop::poll_proceed(cx));
        let accepted = ready!(self.poll_next(cx));
        budget.made_progress();
        Poll::Ready(accepted)
    }

    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Connection>> {
        loop {
            let mut inner = self.lock();
            let Some(manager) = inner.ready.pop_front() else {
                if inner.closed {
                    return Poll::Ready(None);
                }
                if !inner.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    inner.wakers.push(cx.waker().clone());
                }
                return Poll::Pending;
            };
            drop(inner);
            // Nothing when what waited was reset meanwhile; then the next session has its turn.
            if let Some((accepted, more)) = manager.take_accepted() {
                if more {
                    self.push(manager.clone());
                }
                return Poll::Ready(Some(Connection::accepted(manager, accepted)));
            }
        }
    }
}
