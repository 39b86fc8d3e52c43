//! The places of a client's tunnels ([`Places`]): on each path as many as there are to be, or once were to be.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gkd_proto::id::TunnelId;
use tokio::sync::watch;

use super::{Path, TunnelPlace};

/// All places, and how many of each path's are to have a tunnel. A place that was made stays: one above what is wanted
/// rests until it is wanted again.
pub(super) struct Places {
    paths: Vec<Arc<Path>>,
    /// Per path.
    wanted: watch::Sender<usize>,
    all: Mutex<Vec<Shown>>,
}

/// One place as others see it.
struct Shown {
    /// Which path, and which of its places.
    path: usize,
    index: usize,
    tunnel: Option<TunnelId>,
    remote: Option<SocketAddr>,
}

/// A place that is new and needs somebody to keep its tunnel up.
pub(super) struct Made {
    pub(super) path: Arc<Path>,
    /// Which of the path's.
    pub(super) index: usize,
    /// Which of all.
    pub(super) place: usize,
}

impl Places {
    /// None yet, on any of these.
    pub(super) fn new(paths: Vec<Arc<Path>>) -> Self {
        Self { paths, wanted: watch::Sender::new(0), all: Mutex::default() }
    }

    /// From now on there are to be so many on each path; those that are new.
    pub(super) fn want(&self, tunnels: usize) -> Vec<Made> {
        let mut all = self.lock();
        let mut made = Vec::new();
        for (number, path) in self.paths.iter().enumerate() {
            for index in all.iter().filter(|shown| shown.path == number).count()..tunnels {
                made.push(Made { path: path.clone(), index, place: all.len() });
                all.push(Shown { path: number, index, tunnel: None, remote: None });
            }
        }
        drop(all);
        self.wanted.send_replace(tunnels);
        made
    }

    /// How many there are to be on all paths.
    pub(super) fn total(&self) -> usize {
        self.paths.len() * *self.wanted.borrow()
    }

    /// Watches how many there are to be on each.
    pub(super) fn watch(&self) -> watch::Receiver<usize> {
        self.wanted.subscribe()
    }

    /// Those that are to have a tunnel or have one, path by path.
    pub(super) fn list(&self) -> Vec<TunnelPlace> {
        let (all, wanted) = (self.lock(), *self.wanted.borrow());
        let mut listed: Vec<_> =
            all.iter().filter(|shown| shown.index < wanted || shown.tunnel.is_some()).collect();
        listed.sort_by_key(|shown| (shown.path, shown.index));
        let place = |shown: &Shown| TunnelPlace {
            path: self.paths[shown.path].clone(),
            tunnel: shown.tunnel,
            remote: shown.remote,
        };
        listed.into_iter().map(place).collect()
    }

    /// A place has this tunnel now, or none.
    pub(super) fn show(&self, place: usize, tunnel: Option<TunnelId>, remote: Option<SocketAddr>) {
        if let Some(shown) = self.lock().get_mut(place) {
            (shown.tunnel, shown.remote) = (tunnel, remote);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Shown>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
