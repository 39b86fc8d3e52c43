//! Services that clients announce, at the end that answers for them ([`Announcer`]).
//!
//! A client asks for it with the control destination [`Announce`](crate::destination::Control::Announce), in the way of a
//! [reverse listener](crate::reverse): the answer comes on the stream of that connection, and the service stands as long as
//! the connection does. Whoever answers requests ([`Announcements`]) gets a [`Reach`], which opens a connection of the
//! session for each connection to the service that is needed; what stands behind it only the client knows.
//!
//! Clients of one user share a service's load, and so do those of several users where the server's configuration says so. A
//! client that comes back after a restart takes the place of what it left behind at once: it announces the same instance.
//!
//! What is asked of a service, and which of its targets is, is not known here.

use std::any::Any;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use gkd_core::proto::id::PeerId;
use gkd_core::proto::packet::DialError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::config::ServiceNames;
use super::name::ServiceName;
use super::passage::{Passage, follow, gone};
use super::{BoxIo, Reach};
use crate::connection::{Opener, Stream, VirtualConnection};
use crate::destination::{AnnounceRequest, Destination, Protocol, Registered};
use crate::rate::{LimitedOpener, Rate};
use crate::reach::ReachError;
use crate::reverse::{Answer, Refusal, RefusalCause, finish, say};
use crate::udp::ended;

/// The most services that one user announces at a time, as many as ports that it may listen on.
pub const MAX_SERVICES: usize = crate::listener::MAX_PORTS;

/// Who answers the requests that services get.
pub trait Announcements: Send + Sync + 'static {
    /// Takes a target of a service. Neither waits, nor calls who calls it.
    ///
    /// # Errors
    /// The service is not to be had so.
    fn announce(&self, announcement: Announcement<'_>) -> Result<Announced, Refusal>;

    /// Whether a target that was taken would be taken now, when the configuration is another.
    ///
    /// # Errors
    /// It would not.
    fn still_takes(&self, service: &ServiceName, user: &str, granted: &ServiceNames) -> Result<(), Refusal> {
        let _ = (service, user, granted);
        Ok(())
    }
}

/// What a client announces.
pub struct Announcement<'a> {
    /// The service.
    pub service: &'a ServiceName,
    /// The user whose client it is.
    pub user: &'a str,
    /// What that user may announce.
    pub granted: &'a ServiceNames,
    /// The way to it.
    pub target: Arc<dyn Reach>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Its share beside others, 1 to [`MAX_WEIGHT`](crate::destination::MAX_WEIGHT).
    pub weight: u32,
}

/// A target that was taken.
pub struct Announced {
    /// Where people find the service, in words for the client; empty where that is not known.
    pub place: String,
    /// Takes the target away when it is dropped. Requests that it has go on.
    pub guard: Box<dyn Any + Send + Sync>,
}

/// What users may announce.
pub trait ServiceGrants: Send + Sync + 'static {
    /// What a peer may announce, this service among it; or in words why it may not.
    ///
    /// # Errors
    /// It may not.
    fn grant(&self, peer: &PeerId, service: &ServiceName) -> Result<Arc<ServiceNames>, String>;

    /// What a peer is called.
    fn name(&self, peer: &PeerId) -> String;

    /// How many bytes a second it may move, where that is bounded or may come to be.
    fn rate(&self, peer: &PeerId) -> Option<Arc<Rate>>;
}

/// A server that answers no requests.
pub struct Unserved;

impl Announcements for Unserved {
    fn announce(&self, _: Announcement<'_>) -> Result<Announced, Refusal> {
        let words = "the server answers no HTTP requests: [http] in server.toml would have it do so";
        Err(Refusal::new(RefusalCause::Failed, words))
    }
}

/// Services that clients have announced. Shared by all of them.
pub struct Announcer {
    grants: Box<dyn ServiceGrants>,
    announcements: Arc<dyn Announcements>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// No more are taken.
    stopped: bool,
    next: u64,
    all: HashMap<u64, Registration>,
}

/// A service that a connection announced.
struct Registration {
    peer: PeerId,
    service: ServiceName,
    protocol: Protocol,
    weight: u16,
    instance: u64,
    ending: Arc<Ending>,
    _announced: Announced,
}

/// That a registration ends before its connection does, and why.
#[derive(Default)]
struct Ending {
    refusal: Mutex<Option<Refusal>>,
    ended: CancellationToken,
}

/// What a connection got.
struct Taken {
    number: u64,
    place: String,
    ending: Arc<Ending>,
}

/// A service that is announced, as `status` shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AnnouncedService {
    /// The service.
    pub service: ServiceName,
    /// What is spoken there.
    pub protocol: Protocol,
    /// Its share.
    pub weight: u16,
    /// Whose client it is.
    pub peer: PeerId,
}

impl Announcer {
    /// One that asks `grants` who may, and hands what they announce to `announcements`.
    pub fn new(grants: impl ServiceGrants, announcements: Arc<dyn Announcements>) -> Arc<Self> {
        Arc::new(Self { grants: Box::new(grants), announcements, held: Mutex::default() })
    }

    /// The services that are announced, by name.
    pub fn list(&self) -> Vec<AnnouncedService> {
        let held = self.lock();
        let one = |it: &Registration| AnnouncedService {
            service: it.service.clone(),
            protocol: it.protocol,
            weight: it.weight,
            peer: it.peer,
        };
        let mut all: Vec<_> = held.all.values().map(one).collect();
        all.sort();
        all
    }

    /// Withdraws what is not granted any more, or not taken; how many.
    pub fn check_again(&self) -> usize {
        let mut held = self.lock();
        let wrong = held.all.iter().filter_map(|(number, it)| {
            let forbidden = |words| Refusal::new(RefusalCause::Forbidden, words);
            let granted = self.grants.grant(&it.peer, &it.service).map_err(forbidden);
            let user = || self.grants.name(&it.peer);
            let still = |granted: Arc<_>| self.announcements.still_takes(&it.service, &user(), &granted);
            let taken = granted.and_then(still);
            Some((*number, taken.err()?))
        });
        let wrong: Vec<_> = wrong.collect();
        let count = wrong.len();
        for (number, refusal) in wrong {
            held.end(number, refusal);
        }
        count
    }

    /// Withdraws all and takes no more. Requests that are under way go on.
    pub fn stop(&self) {
        let mut held = self.lock();
        held.stopped = true;
        let all: Vec<_> = held.all.keys().copied().collect();
        for number in all {
            held.end(number, Refusal::new(RefusalCause::Failed, "the server is ending"));
        }
    }

    /// Takes a service for a connection that announced it, until that ends.
    pub(crate) async fn serve<C: VirtualConnection>(
        &self,
        connection: &C,
        request: &AnnounceRequest,
    ) -> Result<(), Refusal> {
        let (user, service) = (self.grants.name(&connection.peer()), &request.service);
        let Taken { number, place, ending } = match self.take(connection, &user, request) {
            Ok(taken) => taken,
            Err(refusal) => {
                say(connection, &Answer::Refused(refusal.clone())).await.ok();
                finish(connection).await;
                return Err(refusal);
            }
        };
        // However this ends, or is dropped.
        let _release = Release { announcer: self, number };
        tracing::info!(%user, "announces the service {service} ({}, weight {})", request.protocol, request.weight);
        say(connection, &Answer::Taken(place)).await.ok();
        tokio::select! {
            () = ended(connection) => tracing::info!(%user, "does not announce the service {service} any more"),
            () = ending.ended.cancelled() => {
                let refusal = ending.refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
                let refusal = refusal.unwrap_or_else(|| Refusal::new(RefusalCause::Failed, "it has ended"));
                tracing::info!(%user, "the service {service} is withdrawn: {refusal}");
                say(connection, &Answer::Refused(refusal)).await.ok();
                finish(connection).await;
            }
        }
        Ok(())
    }

    fn take<C: VirtualConnection>(
        &self,
        connection: &C,
        user: &str,
        request: &AnnounceRequest,
    ) -> Result<Taken, Refusal> {
        let (peer, service) = (connection.peer(), &request.service);
        // Under the lock from the grant on, so that rules which change meanwhile are looked at again behind it.
        let mut held = self.lock();
        let granted = self.check(&held, peer, user, request)?;
        let number = held.next;
        held.next += 1;
        let rate = self.grants.rate(&peer);
        let to = Destination::Registered(Registered { listener: request.listener, index: 0 });
        let opener = LimitedOpener::new(connection.session(), rate);
        let (passage, following) = follow(opener.clone());
        let name = format!("{user}/{number}");
        let target = SessionReach { opener, to: to.encode(), name, passage, _following: following };
        let announced = self.announcements.announce(Announcement {
            service,
            user,
            granted: &granted,
            target: Arc::new(target),
            protocol: request.protocol,
            weight: request.weight.into(),
        })?;
        // Behind it, so that a service which has no other target is never without one.
        let displaced: Vec<_> = held.of_instance(peer, request).collect();
        for before in displaced {
            let words = "another session of this user announced it anew";
            held.end(before, Refusal::new(RefusalCause::Taken, words));
        }
        let (place, ending) = (announced.place.clone(), Arc::new(Ending::default()));
        let registration = Registration {
            peer,
            service: service.clone(),
            protocol: request.protocol,
            weight: request.weight,
            instance: request.instance,
            ending: ending.clone(),
            _announced: announced,
        };
        held.all.insert(number, registration);
        Ok(Taken { number, place, ending })
    }

    /// Whether this can be had as far as is known here, and what the user may announce.
    fn check(
        &self,
        held: &Held,
        peer: PeerId,
        user: &str,
        request: &AnnounceRequest,
    ) -> Result<Arc<ServiceNames>, Refusal> {
        if held.stopped {
            return Err(Refusal::new(RefusalCause::Failed, "the server is ending"));
        }
        let forbidden = |words| Refusal::new(RefusalCause::Forbidden, words);
        let granted = self.grants.grant(&peer, &request.service).map_err(forbidden)?;
        let before = held.of_instance(peer, request).count();
        if before > 0 && request.polite {
            let words = format!("another client of {user} announces it with the same target");
            return Err(Refusal::new(RefusalCause::Taken, words));
        }
        let others = held.all.values().filter(|it| it.peer == peer).count() - before;
        if others >= MAX_SERVICES {
            let words = format!("one user may announce {MAX_SERVICES} services: announce fewer");
            return Err(Refusal::new(RefusalCause::TooMany, words));
        }
        Ok(granted)
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Those whose place this request would take.
    fn of_instance<'a>(
        &'a self,
        peer: PeerId,
        request: &'a AnnounceRequest,
    ) -> impl Iterator<Item = u64> + use<'a> {
        let same = move |it: &&Registration| {
            it.peer == peer && it.service == request.service && it.instance == request.instance
        };
        self.all.iter().filter(move |(_, it)| same(it)).map(|(number, _)| *number)
    }

    /// Has a registration end before its connection does.
    fn end(&mut self, number: u64, refusal: Refusal) {
        if let Some(it) = self.all.remove(&number) {
            it.ending.refusal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refusal);
            it.ending.ended.cancel();
        }
    }
}

/// Withdraws a service when its connection has ended.
struct Release<'a> {
    announcer: &'a Announcer,
    number: u64,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.announcer.lock().all.remove(&self.number);
    }
}

/// The way to a client's service: connections of its session.
struct SessionReach<O> {
    opener: LimitedOpener<O>,
    /// What they name.
    to: Bytes,
    name: String,
    passage: watch::Receiver<Passage>,
    _following: AbortOnDropHandle<()>,
}

impl<O: Opener> Reach for SessionReach<O> {
    fn dial(&self) -> BoxFuture<'static, io::Result<BoxIo>> {
        let (opener, to, mut passage) = (self.opener.clone(), self.to.clone(), self.passage.clone());
        Box::pin(async move {
            let connected = async {
                let connection = opener.open(to).await?;
                // Not before, for a request that was begun may not go to another target any more.
                connection.connected().await.map_err(|error| io::Error::new(kind(&error), error))?;
                Ok(Box::new(Stream(Arc::new(connection))) as BoxIo)
            };
            tokio::select! {
                biased;
                connected = connected => connected,
                () = gone(&mut passage) => {
                    Err(io::Error::new(io::ErrorKind::TimedOut, "no tunnel to its client is up"))
                }
            }
        })
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn passage(&self) -> Option<watch::Receiver<Passage>> {
        Some(self.passage.clone())
    }
}

fn kind(error: &ReachError) -> io::ErrorKind {
    match error {
        ReachError::Dial(DialError::Refused) => io::ErrorKind::ConnectionRefused,
        ReachError::Dial(DialError::TimedOut) | ReachError::NoAnswer => io::ErrorKind::TimedOut,
        ReachError::Dial(DialError::Unreachable) => io::ErrorKind::HostUnreachable,
        ReachError::Reset(_) => io::ErrorKind::ConnectionReset,
        _ => io::ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests;
