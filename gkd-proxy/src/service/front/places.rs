//! Room for the connections of a front ([`Places`]): how many there may be in all, and of one address.
//!
//! When it is full, the connection that has been idle longest gives way: those who hold connections and ask for nothing keep
//! nobody out. It knows no socket.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::activity::Activity;

/// How many idle connections a search for them notes, so that a crowd at the bound does not search for each that comes.
const NOTED: usize = 64;

/// How long a search that found none stands for the next ones.
const NONE_FOUND_FOR: Duration = Duration::from_millis(100);

/// Room for connections.
#[derive(Debug)]
pub(super) struct Places {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    most: usize,
    most_of_address: usize,
    next: u64,
    taken: HashMap<u64, Arc<Activity>>,
    addresses: HashMap<IpAddr, usize>,
    /// Idle when last looked at, the longest in front.
    idle: VecDeque<u64>,
    searched: Option<Instant>,
}

/// A connection's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    address: Option<IpAddr>,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All places are taken, and none is idle.
    All,
    /// The address has as many as it may.
    Address,
}

impl Places {
    pub(super) fn new(most: usize, most_of_address: usize) -> Arc<Self> {
        let inner = Inner {
            most,
            most_of_address,
            next: 0,
            taken: HashMap::new(),
            addresses: HashMap::new(),
            idle: VecDeque::new(),
            searched: None,
        };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    /// Sets other bounds, for those that come from now on.
    pub(super) fn bound(&self, most: usize, most_of_address: usize) {
        let mut inner = self.lock();
        inner.most = most;
        inner.most_of_address = most_of_address;
    }

    /// A place for a connection that does this. No address is counted yet.
    pub(super) fn take(self: &Arc<Self>, activity: Arc<Activity>) -> Result<Place, Full> {
        let mut inner = self.lock();
        if inner.taken.len() >= inner.most.max(1) {
            let idle = inner.longest_idle().ok_or(Full::All)?;
            // It is on its way out, so its place is the new one's.
            if let Some(activity) = inner.taken.remove(&idle) {
                activity.give_way();
            }
        }
        let number = inner.next;
        inner.next += 1;
        inner.taken.insert(number, activity);
        drop(inner);
        Ok(Place { places: Arc::clone(self), number, address: None })
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.lock().taken.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn longest_idle(&mut self) -> Option<u64> {
        for search in [false, true] {
            if search && !self.search() {
                return None;
            }
            while let Some(number) = self.idle.pop_front() {
                if self.taken.get(&number).is_some_and(|activity| activity.idle().is_some()) {
                    return Some(number);
                }
            }
        }
        None
    }

    /// Notes those that have been idle longest; false when one that was just made found none.
    fn search(&mut self) -> bool {
        let now = Instant::now();
        if self.searched.is_some_and(|searched| now < searched + NONE_FOUND_FOR) {
            return false;
        }
        let mut idle: Vec<(Instant, u64)> = self
            .taken
            .iter()
            .filter_map(|(number, activity)| activity.idle().map(|(since, _)| (since, *number)))
            .collect();
        self.searched = idle.is_empty().then_some(now);
        if idle.len() > NOTED {
            idle.select_nth_unstable(NOTED);
            idle.truncate(NOTED);
        }
        idle.sort_unstable();
        self.idle = idle.into_iter().map(|(_, number)| number).collect();
        true
    }
}

impl Place {
    /// Counts the place for an address.
    pub(super) fn claim(&mut self, address: IpAddr) -> Result<(), Full> {
        if self.address.is_some() {
            return Ok(());
        }
        let address = whole_network(address);
        let mut inner = self.places.lock();
        let most = inner.most_of_address.max(1);
        let count = inner.addresses.entry(address).or_default();
        if *count >= most {
            return Err(Full::Address);
        }
        *count += 1;
        self.address = Some(address);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.places.lock();
        let activity = inner.taken.remove(&self.number);
        if let Some(address) = self.address
            && let Some(count) = inner.addresses.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                inner.addresses.remove(&address);
            }
        }
        drop(inner);
        drop(activity);
    }
}

/// One IPv6 host has a whole /64 to call from.
pub(super) fn whole_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use tokio::time::advance;

    use super::*;

    fn take(places: &Arc<Places>) -> Result<(Place, Arc<Activity>), Full> {
        let activity = Arc::new(Activity::new());
        places.take(Arc::clone(&activity)).map(|place| (place, activity))
    }

    fn gives_way(activity: &Activity) -> bool {
        activity.asked_to_give_way().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_bound_the_longest_idle_gives_way() {
        let places = Places::new(3, 10);
        let mut taken = Vec::new();
        for _ in 0..3 {
            taken.push(take(&places).unwrap());
            advance(Duration::from_secs(1)).await;
        }
        taken[0].1.begin();
        let fourth = take(&places).unwrap();
        let gone: Vec<_> = taken.iter().map(|(_, activity)| gives_way(activity)).collect();
        assert_eq!(gone, [false, true, false]);
        assert_eq!(places.taken(), 3);
        // Its end frees nothing twice.
        taken.remove(1);
        assert_eq!(places.taken(), 3);
        for activity in [&taken[1].1, &fourth.1] {
            activity.begin();
        }
        assert_eq!(take(&places).unwrap_err(), Full::All);
        // One that falls idle is found, if not at once.
        taken[0].1.ended();
        advance(NONE_FOUND_FOR).await;
        let fifth = take(&places).unwrap();
        assert!(gives_way(&taken[0].1) && !gives_way(&fifth.1));
        drop((taken, fourth, fifth));
        assert_eq!((places.taken(), places.lock().addresses.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_come_at_the_bound_find_each_another() {
        let places = Places::new(300, 300);
        let first: Vec<_> = (0..300).map(|_| take(&places).unwrap()).collect();
        advance(Duration::from_secs(1)).await;
        let second: Vec<_> = (0..300).map(|_| take(&places).unwrap()).collect();
        assert!(first.iter().all(|(_, activity)| gives_way(activity)));
        assert!(!second.iter().any(|(_, activity)| gives_way(activity)));
        assert_eq!(places.taken(), 300);
    }

    #[tokio::test]
    async fn an_address_has_its_share() {
        let places = Places::new(100, 2);
        let mut taken: Vec<_> = (0..4).map(|_| take(&places).unwrap().0).collect();
        let (same, other): (IpAddr, IpAddr) =
            ("2001:db8::1:2:3:4".parse().unwrap(), "2001:db8:0:1::".parse().unwrap());
        assert_eq!(taken[0].claim("2001:db8::9".parse().unwrap()), Ok(()));
        assert_eq!(taken[1].claim(same), Ok(()));
        assert_eq!(taken[1].claim(same), Ok(()));
        assert_eq!(taken[2].claim(same), Err(Full::Address));
        assert_eq!(taken[3].claim(other), Ok(()));
        taken.remove(0);
        assert_eq!(taken[1].claim(same), Ok(()));
        assert_eq!(whole_network("::ffff:10.0.0.1".parse().unwrap()), IpAddr::from([10, 0, 0, 1]));
    }
}
