//! How many names are resolved at a time ([`Lookups`]), over all peers and fair to each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gkd_core::proto::id::PeerId;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The most names that are resolved at a time. The system's resolver takes a thread for each, and cannot be
/// stopped; those above wait within their own time-out.
const MOST: usize = 128;

/// The most of one peer: whoever has names that never resolve leaves seven eighths to the others.
const MOST_OF_PEER: usize = MOST / 8;

/// Room for a bounded number of lookups.
#[derive(Debug)]
pub(crate) struct Lookups {
    all: Arc<Semaphore>,
    /// Of peers that look up a name, or wait to.
    of: Mutex<HashMap<PeerId, Arc<Semaphore>>>,
}

/// The place of one lookup; free again when dropped.
#[derive(Debug)]
pub(crate) struct LookupPlace {
    _of_all: OwnedSemaphorePermit,
    _turn: Turn,
}

/// One that waits for its place, or has it, among those of its peer.
#[derive(Debug)]
struct Turn {
    lookups: Arc<Lookups>,
    peer: PeerId,
    of_peer: Option<Arc<Semaphore>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Lookups {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { all: Arc::new(Semaphore::new(MOST)), of: Mutex::default() })
    }

    /// Waits for a place, each peer in a queue of its own. Cancel safe.
    ///
    /// # Errors
    /// Never: nobody closes them.
    pub(crate) async fn enter(self: &Arc<Self>, peer: PeerId) -> Result<LookupPlace, AcquireError> {
        let of_peer =
            self.lock().entry(peer).or_insert_with(|| Arc::new(Semaphore::new(MOST_OF_PEER))).clone();
        let mut turn = Turn { lookups: self.clone(), peer, of_peer: Some(of_peer.clone()), permit: None };
        turn.permit = Some(of_peer.acquire_owned().await?);
        Ok(LookupPlace { _of_all: self.all.clone().acquire_owned().await?, _turn: turn })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Arc<Semaphore>>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    /// The last of a peer takes its queue along.
    fn drop(&mut self) {
        let mut of = self.lookups.lock();
        self.permit = None;
        self.of_peer = None;
        if of.get(&self.peer).is_some_and(|of_peer| Arc::strong_count(of_peer) == 1) {
            of.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn enter(lookups: &Arc<Lookups>, peer: u8) -> Option<LookupPlace> {
        lookups.enter(PeerId([peer; 32])).now_or_never().transpose().unwrap()
    }

    #[test]
    fn each_peer_has_its_part_and_all_have_no_more_than_there_is() {
        let lookups = Lookups::new();
        let take = |peer| std::iter::from_fn(|| enter(&lookups, peer)).collect::<Vec<_>>();
        let mut all: Vec<_> = (0..8).map(take).collect();
        assert!(all.iter().all(|of_peer| of_peer.len() == MOST_OF_PEER));
        assert!(enter(&lookups, 9).is_none(), "there is no more");
        all[3].pop();
        assert!(enter(&lookups, 4).is_none(), "it has its part");
        assert!(enter(&lookups, 9).is_some());
        assert!(enter(&lookups, 3).is_some());
        drop(all);
        assert!(lookups.lock().is_empty(), "nothing is kept of those that look nothing up");
        assert_eq!(lookups.all.available_permits(), MOST);
    }
}
