//! What one end offers to dial ([`Offers`]): by the listeners that it asked the other end for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::destination::{Destination, ListenerId, Registered};
use crate::listener::Service;
use crate::service::files::Files;
use crate::service::form::Behind;
use crate::ws::form::Mapping;

/// What stands behind listeners and services at the other end. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Offers {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    next: AtomicU32,
    all: RwLock<HashMap<ListenerId, Standing>>,
}

/// What stands behind one.
#[derive(Debug)]
enum Standing {
    /// Of a listener.
    Listener(Service),
    /// Of an announced service: a web server.
    Server(Destination),
    /// Of an announced service: a folder.
    Folder(Arc<Files>),
}

/// What is done for a connection that the other end opened.
pub(crate) enum Offer {
    /// This is dialled, and the connection's bytes are mapped to and from what it speaks.
    Dial(Destination, Option<Mapping>),
    /// The connection carries HTTP, which is answered with these.
    Folder(Arc<Files>),
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

    /// Offers what stands behind a listener, under a name that no other has had before it came round.
    pub(crate) fn add(&self, service: Service) -> Offered {
        self.put(Standing::Listener(service))
    }

    /// Likewise what stands behind an announced service.
    pub(crate) fn add_service(&self, to: &Behind) -> Offered {
        self.put(match to {
            Behind::Http(target) | Behind::H2c(target) => Standing::Server(Destination::Tcp(target.clone())),
            Behind::Folder(path) => Standing::Folder(Arc::new(Files::new(path.clone()))),
        })
    }

    fn put(&self, standing: Standing) -> Offered {
        let id = ListenerId(self.shared.next.fetch_add(1, Ordering::Relaxed));
        self.shared.all.write().unwrap_or_else(PoisonError::into_inner).insert(id, standing);
        Offered { offers: self.clone(), id }
    }

    /// What is done for a program that came to a listener, or a request of a service; none where nothing is offered.
    pub(crate) fn way(&self, registered: Registered) -> Option<Offer> {
        let all = self.shared.all.read().unwrap_or_else(PoisonError::into_inner);
        let index = usize::from(registered.index);
        match (all.get(&registered.listener)?, index) {
            (Standing::Listener(service), _) => {
                Some(Offer::Dial(service.destination(index)?, service.mapping(index)))
            }
            (Standing::Server(destination), 0) => Some(Offer::Dial(destination.clone(), None)),
            (Standing::Folder(files), 0) => Some(Offer::Folder(files.clone())),
            (Standing::Server(_) | Standing::Folder(_), _) => None,
        }
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        self.offers.shared.all.write().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
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
            offers.way(registered).map(|offer| match offer {
                Offer::Dial(to, _) => to.to_string(),
                Offer::Folder(files) => files.root().display().to_string(),
            })
        };
        assert_eq!(of(&one, 1).as_deref(), Some("inner:81"));
        assert_eq!(of(&one, 2), None);
        assert_eq!(of(&other, 0).as_deref(), Some("inner:5353 (UDP)"));
        let id = one.id;
        drop(one);
        assert!(offers.way(Registered { listener: id, index: 0 }).is_none());
        let mapped = offers.add(service("tcp://9000-9001:ws://inner:80-81/x"));
        let way = offers.way(Registered { listener: mapped.id, index: 1 });
        let Some(Offer::Dial(to, mapping)) = way else { panic!("it is dialled") };
        assert_eq!(to.to_string(), "inner:81");
        assert!(matches!(mapping, Some(Mapping::ToWs(url, _)) if url.to_string() == "ws://inner:81/x"));
        for (to, shown) in [("http://inner:80", "inner:80"), ("h2c://inner:81", "inner:81"), ("/srv", "/srv")]
        {
            let service = offers.add_service(&to.parse().unwrap());
            assert_eq!(of(&service, 0).as_deref(), Some(shown));
            assert_eq!(of(&service, 1), None);
        }
    }
}
