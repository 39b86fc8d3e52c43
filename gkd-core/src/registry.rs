//! Which peer has which sessions. A session is known by the key of its peer and its id together, so that one
//! peer can never name, join or end the session of another: under another key it is unknown.
//!
//! Guards of the map are never held across an `.await`, nor while a session's lock is taken.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use gkd_proto::handshake::{Reject, RejectCode};
use gkd_proto::id::{PeerId, SessionId};

use crate::manager::TunnelManager;

/// How many sessions that have ended are remembered.
const MOST_ENDED: usize = 1024;

/// The sessions of a server.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    peers: DashMap<PeerId, HashMap<SessionId, Arc<TunnelManager>>>,
    count: AtomicUsize,
    /// The last that have ended. A tunnel may come late to one, of a program that ended while it dialled, and would else begin
    /// another of its name, which nobody ever came to.
    ended: Mutex<VecDeque<(PeerId, SessionId)>>,
}

/// How many sessions there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionLimits {
    /// Of all peers together.
    pub(crate) most: usize,
    /// Of this one.
    pub(crate) most_of_peer: usize,
}

/// A session that a tunnel may enter.
pub(crate) struct Entered {
    pub(crate) manager: Arc<TunnelManager>,
    /// It was made for this tunnel.
    pub(crate) new: bool,
}

impl Registry {
    /// The peer's session of this id. One that is unknown is made by `create`, unless it `must_exist` or has ended.
    ///
    /// # Errors
    /// The answer to the client: no such session, a limit, or what `create` says.
    pub(crate) fn enter(
        &self,
        peer: PeerId,
        session: SessionId,
        must_exist: bool,
        limits: SessionLimits,
        create: impl FnOnce() -> Result<Arc<TunnelManager>, Reject>,
    ) -> Result<Entered, Reject> {
        let mut entry = match self.peers.entry(peer) {
            Entry::Occupied(entry) => entry,
            Entry::Vacant(_) if must_exist => return Err(Reject::new(RejectCode::NoSuchSession)),
            Entry::Vacant(entry) => entry.insert_entry(HashMap::new()),
        };
        let sessions = entry.get_mut();
        if let Some(manager) = sessions.get(&session) {
            return Ok(Entered { manager: manager.clone(), new: false });
        }
        let reject = if must_exist || self.has_ended(peer, session) {
            Some(Reject::new(RejectCode::NoSuchSession))
        } else if sessions.len() >= limits.most_of_peer {
            Some(busy("this key has as many sessions as it may"))
        } else if self.count.load(Ordering::Relaxed) >= limits.most {
            Some(busy("it has as many sessions as it may"))
        } else {
            None
        };
        let manager = match reject.map_or_else(create, Err) {
            Ok(manager) => manager,
            Err(reject) => {
                if sessions.is_empty() {
                    entry.remove();
                }
                return Err(reject);
            }
        };
        sessions.insert(session, manager.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(Entered { manager, new: true })
    }

    /// Whether one of this name was there. Clients give each session a name that is new.
    fn has_ended(&self, peer: PeerId, session: SessionId) -> bool {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).contains(&(peer, session))
    }

    /// Takes a session out that has ended.
    pub(crate) fn remove(&self, ended: &Arc<TunnelManager>) {
        let Entry::Occupied(mut entry) = self.peers.entry(ended.peer) else { return };
        let sessions = entry.get_mut();
        if sessions.get(&ended.id).is_some_and(|manager| Arc::ptr_eq(manager, ended)) {
            let mut names = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
            if names.len() >= MOST_ENDED {
                names.pop_front();
            }
            names.push_back((ended.peer, ended.id));
            drop(names);
            sessions.remove(&ended.id);
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        if sessions.is_empty() {
            entry.remove();
        }
    }

    /// How many sessions there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// All sessions at this moment.
    pub(crate) fn all(&self) -> Vec<Arc<TunnelManager>> {
        self.peers.iter().flat_map(|sessions| sessions.values().cloned().collect::<Vec<_>>()).collect()
    }

    /// The sessions of one peer at this moment.
    pub(crate) fn of(&self, peer: &PeerId) -> Vec<Arc<TunnelManager>> {
        self.peers.get(peer).map(|sessions| sessions.values().cloned().collect()).unwrap_or_default()
    }
}

/// A limit is met; which, the client may know.
pub(crate) fn busy(reason: &str) -> Reject {
    Reject { code: RejectCode::Busy, reason: reason.to_owned() }
}
