//! How many of something all peers may have together, fair to each ([`FairLimit`]): destinations that are dialled or
//! reached, and tunnels. Each costs a descriptor, and those of a process are few: without a bound one peer could take all
//! of them, and with them every other peer's tunnels.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gkd_proto::id::PeerId;

/// A peer may have so many times what is left for the others (the dynamic threshold of Choudhury and Hahne,
/// 1998): one that is alone has four fifths of all, and whoever comes beside it finds a fifth.
const TIMES_LEFT: usize = 4;

/// A bound over all peers, and fair to each.
#[derive(Debug)]
pub struct FairLimit {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Peers that have at least one. Shared, for there are many places.
    of: HashMap<Arc<PeerId>, usize>,
}

/// A place for one; free again when dropped.
#[derive(Debug)]
pub struct FairPlace {
    limit: Arc<FairLimit>,
    peer: Arc<PeerId>,
}

impl FairLimit {
    /// Room for so many, at least one.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most: most.max(1), taken: Mutex::default() })
    }

    /// A place for one more of this peer, if there is one for it.
    pub fn take(self: &Arc<Self>, peer: PeerId) -> Option<FairPlace> {
        let mut taken = self.lock();
        let known = taken.of.get_key_value(&peer).map(|(peer, count)| (peer.clone(), *count));
        let (peer, of_peer) = known.unwrap_or_else(|| (Arc::new(peer), 0));
        let left = self.most - taken.all;
        if left == 0 || of_peer >= left.saturating_mul(TIMES_LEFT) {
            return None;
        }
        taken.all += 1;
        taken.of.insert(peer.clone(), of_peer + 1);
        Some(FairPlace { limit: self.clone(), peer })
    }

    /// How many there may be.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many there are.
    pub fn taken(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FairPlace {
    fn drop(&mut self) {
        let mut taken = self.limit.lock();
        taken.all -= 1;
        if let Some(of_peer) = taken.of.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.of.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(byte: u8) -> PeerId {
        PeerId([byte; 32])
    }

    #[test]
    fn a_peer_that_takes_all_it_can_leaves_room_for_others() {
        let limit = FairLimit::new(100);
        let take_all = |byte| std::iter::from_fn(|| limit.take(peer(byte))).collect::<Vec<_>>();
        let first = take_all(1);
        assert_eq!(first.len(), 80);
        let second = take_all(2);
        assert_eq!(second.len(), 16);
        assert_eq!((limit.taken(), limit.most()), (96, 100));
        assert!(!take_all(3).is_empty());
        drop(second);
        drop(first);
        let left = limit.lock();
        assert_eq!((left.all, left.of.len()), (0, 0));
        drop(left);
        assert_eq!(take_all(2).len(), 80);
    }

    #[test]
    fn the_least_limit_lets_one_in_at_a_time() {
        let limit = FairLimit::new(0);
        let one = limit.take(peer(1)).unwrap();
        assert!(limit.take(peer(1)).is_none() && limit.take(peer(2)).is_none());
        drop(one);
        assert!(limit.take(peer(2)).is_some());
    }
}
