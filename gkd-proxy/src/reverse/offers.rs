//! What one end offers to dial ([`Offers`]): by the listeners that it asked the other end for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::destination::{Destination, ListenerId, Registered};
use crate::listener::Service;
use crate::ws::form::Mapping;

/// The services behind listeners at the other end. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Offers {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    next: AtomicU32,
    services: RwLock<HashMap<ListenerId, Service>>,
}

/// One service; not offered any more when this is dropped.
#[derive(Debug)]
pub(crate) struct Offered {
    offers: Offers,
    pub(crate) id: ListenerId,
}

impl Offers {
    /// Nothing is offered at first.
    pub fn new() -> Self {
        Self::default()
    }

    /// Offers a service, under a name that no other has had before it came round.
    pub(crate) fn add(&self, service: Service) -> Offered {
        let id = ListenerId(self.shared.next.fetch_add(1, Ordering::Relaxed));
        self.shared.services.write().unwrap_or_else(PoisonError::into_inner).insert(id, service);
        Offered { offers: self.clone(), id }
    }

    /// What is dialled for a program that came to a listener, and what its bytes are mapped to and from on the way; none where
    /// nothing is offered.
    pub(crate) fn way(&self, registered: Registered) -> Option<(Destination, Option<Mapping>)> {
        let services = self.shared.services.read().unwrap_or_else(PoisonError::into_inner);
        let (service, index) = (services.get(&registered.listener)?, usize::from(registered.index));
        Some((service.destination(index)?, service.mapping(index)))
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.offers.shared.services.write().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Listener;

    #[test]
    fn only_what_is_offered_is_dialled() {
        let offers = Offers::new();
        let service = |form: &str| form.parse::<Listener>().unwrap().service;
        let one = offers.add(service("tcp://9000-9001:inner:80-81"));
        let other = offers.add(service("udp://53:inner:5353"));
        assert_ne!(one.id, other.id);
        let of = |offered: &Offered, index| {
            let registered = Registered { listener: offered.id, index };
            offers.way(registered).map(|(to, _)| to.to_string())
        };
        assert_eq!(of(&one, 1).as_deref(), Some("inner:81"));
        assert_eq!(of(&one, 2), None);
        assert_eq!(of(&other, 0).as_deref(), Some("inner:5353 (UDP)"));
        let id = one.id;
        drop(one);
        assert_eq!(offers.way(Registered { listener: id, index: 0 }), None);
        let mapped = offers.add(service("tcp://9000-9001:ws://inner:80-81/x"));
        let (to, mapping) = offers.way(Registered { listener: mapped.id, index: 1 }).unwrap();
        assert_eq!(to.to_string(), "inner:81");
        assert!(matches!(mapping, Some(Mapping::ToWs(url, _)) if url.to_string() == "ws://inner:81/x"));
    }
}
