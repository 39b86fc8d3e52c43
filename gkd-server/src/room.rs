//! Room for the connections that users open ([`Room`]): each takes a descriptor, and so does every tunnel. A part of all
//! descriptors is kept for tunnels, and no user has more connections than are still to be had by the others, so that
//! whoever opens all that it can keeps nobody else out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gkd_core::identity::PublicKey;

/// The part of all descriptors that is kept for tunnels, listeners and files: one in so many. At the least number that
/// is not warned of, 4,096, it is as many as there may be half-open connections.
const KEPT: u64 = 4;

/// How many connections all users together may have open, and who has how many.
pub(crate) struct Room {
    most: u64,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    all: u64,
    of: HashMap<PublicKey, u64>,
}

/// One connection's place; free again when dropped.
pub(crate) struct Place {
    room: Arc<Room>,
    user: PublicKey,
}

impl Room {
    /// What a process that may open so many descriptors has room for.
    pub(crate) fn of(descriptors: u64) -> Arc<Self> {
        let most = (descriptors - descriptors / KEPT).max(1);
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// A place for one more connection of this user, unless it has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, user: PublicKey) -> Option<Place> {
        let mut taken = self.lock();
        let free = self.most.saturating_sub(taken.all);
        let of_user = taken.of.get(&user).copied().unwrap_or(0);
        if of_user >= free {
            return None;
        }
        taken.all += 1;
        taken.of.insert(user, of_user + 1);
        drop(taken);
        Some(Place { room: self.clone(), user })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.lock();
        taken.all -= 1;
        if let Some(of_user) = taken.of.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                taken.of.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u8) -> PublicKey {
        gkd_core::proto::id::PeerId([number; 32])
    }

    fn fill(room: &Arc<Room>, number: u8) -> Vec<Place> {
        std::iter::from_fn(|| room.enter(user(number))).collect()
    }

    #[test]
    fn a_user_who_takes_all_it_can_leaves_as_much_to_the_others() {
        let room = Room::of(400);
        let greedy = fill(&room, 1);
        assert_eq!(greedy.len(), 150);
        let next = fill(&room, 2);
        assert_eq!(next.len(), 75);
        assert!(room.enter(user(1)).is_none() && room.enter(user(3)).is_some());
        // Each has some, for a long while.
        assert!((3..8).all(|number| !fill(&room, number).is_empty()));
    }

    #[test]
    fn places_are_given_back() {
        let room = Room::of(400);
        for _ in 0..3 {
            let places = fill(&room, 1);
            assert_eq!(places.len(), 150);
            drop(places);
        }
        let taken = room.lock();
        assert!(taken.all == 0 && taken.of.is_empty());
    }

    #[test]
    fn a_process_with_hardly_any_descriptors_serves_one_connection() {
        assert_eq!(fill(&Room::of(0), 1).len(), 1);
    }
}
