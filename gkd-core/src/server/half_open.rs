//! Connections that have not proved a key, and the room that they may take: those that have yet to, and those of the
//! site's visitors, who never will. When it is full, the oldest of the busiest address gives way, so that an honest
//! client gets in whoever else knocks; also one behind the address that knocks most, for it is through in less time
//! than it takes to become the oldest.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many may be half-open in all, and from one address.
#[derive(Clone, Copy, Debug)]
pub(super) struct HalfOpenLimits {
    pub(super) most: usize,
    pub(super) most_of_address: usize,
}

/// The half-open connections of a server.
#[derive(Debug)]
pub(super) struct HalfOpen {
    limits: HalfOpenLimits,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    count: usize,
    evicted: u64,
    /// By address, the oldest in front. Dropping a sender ends its connection.
    addresses: HashMap<IpAddr, VecDeque<(u64, oneshot::Sender<()>)>>,
}

/// A place among the half-open, given back when it is dropped.
pub(super) struct Place {
    half_open: Arc<HalfOpen>,
    address: IpAddr,
    id: u64,
    evicted: oneshot::Receiver<()>,
}

impl HalfOpen {
    pub(super) fn new(limits: HalfOpenLimits) -> Arc<Self> {
        Arc::new(Self { limits, inner: Mutex::default() })
    }

    /// Takes a place, if need be that of another.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        let address = whole_network(address);
        let mut inner = self.lock();
        let of_address = inner.addresses.get(&address).map_or(0, VecDeque::len);
        if of_address >= self.limits.most_of_address {
            inner.evict(address);
        } else if inner.count >= self.limits.most
            && let Some(busiest) = inner.busiest()
        {
            inner.evict(busiest);
        }
        let (sender, evicted) = oneshot::channel();
        let id = inner.next;
        inner.next += 1;
        inner.count += 1;
        inner.addresses.entry(address).or_default().push_back((id, sender));
        Place { half_open: self.clone(), address, id, evicted }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lock().count
    }

    /// How many there may be.
    pub(super) fn most(&self) -> usize {
        self.limits.most
    }

    /// How many have had to give way.
    pub(super) fn evicted(&self) -> u64 {
        self.lock().evicted
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn busiest(&self) -> Option<IpAddr> {
        self.addresses.iter().max_by_key(|(_, places)| places.len()).map(|(address, _)| *address)
    }

    /// Ends the oldest of this address.
    fn evict(&mut self, address: IpAddr) {
        if let Some(places) = self.addresses.get_mut(&address)
            && places.pop_front().is_some()
        {
            self.count -= 1;
            self.evicted += 1;
        }
    }

    fn leave(&mut self, address: IpAddr, id: u64) {
        let Some(places) = self.addresses.get_mut(&address) else { return };
        let before = places.len();
        places.retain(|(place, _)| *place != id);
        self.count -= before - places.len();
        if places.is_empty() {
            self.addresses.remove(&address);
        }
    }
}

impl Place {
    /// Waits until this place is given to another.
    pub(super) async fn evicted(&mut self) {
        // Nothing is ever sent: the sender is dropped.
        (&mut self.evicted).await.ok();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.half_open.lock().leave(self.address, self.id);
    }
}

/// One IPv6 host has a whole /64 to call from.
fn whole_network(address: IpAddr) -> IpAddr {
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

    use super::*;

    fn address(last: u8) -> IpAddr {
        [127, 0, 0, last].into()
    }

    fn is_evicted(place: &mut Place) -> bool {
        place.evicted().now_or_never().is_some()
    }

    #[test]
    fn at_the_bound_the_oldest_of_the_busiest_address_gives_way() {
        let half_open = HalfOpen::new(HalfOpenLimits { most: 4, most_of_address: 10 });
        let mut busy: Vec<_> = (0..3).map(|_| half_open.enter(address(1))).collect();
        let mut quiet = half_open.enter(address(2));
        let mut late = half_open.enter(address(3));
        let evicted: Vec<_> = busy.iter_mut().map(is_evicted).collect();
        assert_eq!(evicted, [true, false, false]);
        assert!(!is_evicted(&mut quiet) && !is_evicted(&mut late));
        assert_eq!((half_open.count(), half_open.most(), half_open.evicted()), (4, 4, 1));
    }

    #[test]
    fn at_the_bound_of_an_address_its_own_oldest_gives_way() {
        let half_open = HalfOpen::new(HalfOpenLimits { most: 100, most_of_address: 2 });
        let mut other = half_open.enter(address(2));
        let mut places: Vec<_> = (0..3).map(|_| half_open.enter(address(1))).collect();
        let evicted: Vec<_> = places.iter_mut().map(is_evicted).collect();
        assert_eq!(evicted, [true, false, false]);
        assert!(!is_evicted(&mut other));
    }

    #[test]
    fn places_that_were_left_or_taken_are_counted_once() {
        let half_open = HalfOpen::new(HalfOpenLimits { most: 8, most_of_address: 4 });
        for _ in 0..100 {
            let places: Vec<_> = (0..20).map(|n| half_open.enter(address(n % 3))).collect();
            assert!(half_open.lock().count <= 8);
            drop(places);
            let inner = half_open.lock();
            assert_eq!((inner.count, inner.addresses.len()), (0, 0));
        }
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let half_open = HalfOpen::new(HalfOpenLimits { most: 100, most_of_address: 1 });
        let mut first = half_open.enter("2001:db8::1".parse().unwrap());
        let mut second = half_open.enter("2001:db8::2:3:4:5".parse().unwrap());
        assert!(is_evicted(&mut first) && !is_evicted(&mut second));
        let mapped = half_open.enter("::ffff:127.0.0.1".parse().unwrap());
        assert_eq!(mapped.address, address(1));
    }
}
