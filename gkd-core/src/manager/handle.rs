//! What the manager and the task of one tunnel share, and what tells the session when that task has ended.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use futures::task::AtomicWaker;
use gkd_proto::id::TunnelId;
use gkd_proto::session::DropReason;

use super::TunnelManager;

/// What the manager and the task of one tunnel share.
#[derive(Debug)]
pub(crate) struct TunnelHandle {
    /// The tunnel.
    pub(crate) id: TunnelId,
    /// The tunnel's task, when it rests for want of something to send.
    pub(crate) ready: AtomicWaker,
    /// The tunnel's task, for when the tunnel is to end.
    pub(crate) stop: AtomicWaker,
    /// Where it comes from or leads to, where that has an address; set once it is let in.
    remote: OnceLock<SocketAddr>,
    dropped: OnceLock<DropReason>,
    /// It goes down with the runtime.
    going: AtomicBool,
}

impl TunnelHandle {
    pub(super) fn new(id: TunnelId) -> Arc<Self> {
        Arc::new(Self {
            id,
            ready: AtomicWaker::new(),
            stop: AtomicWaker::new(),
            remote: OnceLock::new(),
            dropped: OnceLock::new(),
            going: AtomicBool::new(false),
        })
    }

    /// It was let in, and comes from or leads to this address.
    pub(super) fn is_at(&self, remote: Option<SocketAddr>) {
        if let Some(remote) = remote {
            self.remote.set(remote).ok();
        }
    }

    /// Where it comes from or leads to.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.remote.get().copied()
    }

    /// The tunnel is to be closed. The task that this returns is to be woken, behind the lock.
    pub(super) fn drop_for(&self, reason: DropReason) -> Option<Waker> {
        self.dropped.set(reason).ok();
        self.stop.take()
    }

    /// Closes a tunnel that says nothing, before the session's patience with it is over.
    pub(crate) fn give_up(&self) {
        if let Some(task) = self.drop_for(DropReason::Silent) {
            task.wake();
        }
    }

    pub(super) fn goes(&self) {
        self.going.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_going(&self) -> bool {
        self.going.load(Ordering::Relaxed)
    }

    /// Why the tunnel is to be closed, once it is.
    pub(crate) fn dropped(&self) -> Option<DropReason> {
        self.dropped.get().copied()
    }
}

/// Calls [`TunnelManager::tunnel_down`] when it goes, however the tunnel's task ends.
#[derive(Debug)]
pub(crate) struct TunnelGuard {
    pub(crate) manager: Arc<TunnelManager>,
    pub(crate) handle: Arc<TunnelHandle>,
}

impl Drop for TunnelGuard {
    fn drop(&mut self) {
        self.manager.tunnel_down(self.handle.id);
    }
}
