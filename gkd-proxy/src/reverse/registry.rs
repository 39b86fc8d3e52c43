//! The end that listens: ports that peers asked for, each with who holds it ([`Registry`]).

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use gkd_core::fair_limit::{FairLimit, FairPlace};
use gkd_core::proto::id::PeerId;
use gkd_core::socket::BACKLOG;
use tokio::net::UdpSocket;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Answer, Refusal, RefusalCause};
use crate::accept::Acceptor;
use crate::connection::{Opener, VirtualConnection};
use crate::destination::{Destination, ListenRequest, Registered, Transport};
use crate::listen::{ListenConfig, first_bytes};
use crate::listener::MAX_PORTS;
use crate::outlet::{Fixed, Outlet};
use crate::rate::{LimitedOpener, Rate};
use crate::socket;
use crate::udp::{self, ended, flows};

/// What users may have.
pub trait Grants: Send + Sync + 'static {
    /// The address on which a peer may listen as it asks, or in words why it may not.
    ///
    /// # Errors
    /// It may not.
    fn grant(&self, peer: &PeerId, request: &ListenRequest) -> Result<IpAddr, String>;

    /// What a peer is called in the log.
    fn name(&self, peer: &PeerId) -> String;

    /// How many bytes a second it may move, where that is bounded or may come to be.
    fn rate(&self, peer: &PeerId) -> Option<Arc<Rate>>;
}

/// Ports that peers listen on here. Shared by all of them.
pub struct Registry {
    grants: Box<dyn Grants>,
    config: ListenConfig,
    /// What holds a descriptor takes a place of it.
    limit: Arc<FairLimit>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// No more are taken.
    stopped: bool,
    next: u64,
    ports: HashMap<Key, Port>,
    registrations: HashMap<Number, Registration>,
    /// Of peers whose registrations are under way.
    turns: HashMap<PeerId, Weak<Turn>>,
}

/// Whoever holds it may register.
type Turn = tokio::sync::Mutex<()>;

/// A port is one of these.
type Key = (Transport, SocketAddr);

/// One registration among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Number(u64);

/// A port that is open.
struct Port {
    socket: PortSocket,
    holder: Number,
    peer: PeerId,
    /// Ends its task; the socket may go on in another.
    stop: CancellationToken,
    place: FairPlace,
}

/// A port that nobody is registered for yet, under its own number where any was asked for.
struct Opened {
    key: Key,
    socket: PortSocket,
    place: FairPlace,
}

/// The socket of a port, which a task that is stopped and the one that follows share for a moment.
#[derive(Clone)]
enum PortSocket {
    Tcp(Arc<Acceptor>),
    Udp(Arc<UdpSocket>),
}

/// What a connection asked for and got.
struct Registration {
    peer: PeerId,
    request: ListenRequest,
    ending: Arc<Ending>,
}

/// That a registration ends before its connection does, and why.
#[derive(Default)]
struct Ending {
    refusal: Mutex<Option<Refusal>>,
    ended: CancellationToken,
}

impl Registry {
    /// An empty one. A port, and each program that comes to one, takes a place of the `limit`.
    pub fn new(grants: impl Grants, config: ListenConfig, limit: Arc<FairLimit>) -> Arc<Self> {
        Arc::new(Self { grants: Box::new(grants), config, limit, held: Mutex::default() })
    }

    /// The ports that are open: whose, and what is spoken there.
    pub fn list(&self) -> Vec<(PeerId, Transport, SocketAddr)> {
        let held = self.lock();
        let mut all: Vec<_> =
            held.ports.iter().map(|((transport, addr), port)| (port.peer, *transport, *addr)).collect();
        all.sort_by_key(|(_, _, addr)| *addr);
        all
    }

    /// Ends registrations that are not granted any more; how many. Programs that are served already go on.
    pub fn check_again(&self) -> usize {
        let mut held = self.lock();
        let asked = held.registrations.iter().filter_map(|(number, registration)| {
            let words = self.grants.grant(&registration.peer, &registration.request).err()?;
            Some((*number, words))
        });
        let forbidden: Vec<_> = asked.collect();
        for (number, words) in &forbidden {
            held.end(*number, Refusal::new(RefusalCause::Forbidden, words.as_str()));
        }
        forbidden.len()
    }

    /// Closes all ports and takes no more requests. Programs that are served go on.
    pub fn stop(&self) {
        let mut held = self.lock();
        held.stopped = true;
        let all: Vec<_> = held.registrations.keys().copied().collect();
        for number in all {
            held.end(number, Refusal::new(RefusalCause::Failed, "the server is ending"));
        }
    }

    /// Listens for a connection that asked for it, until that ends.
    pub(crate) async fn serve<C: VirtualConnection>(
        self: &Arc<Self>,
        connection: &C,
        request: ListenRequest,
    ) -> Result<(), Refusal> {
        let peer = connection.peer();
        let (number, address, ending) = match self.register(peer, connection.session(), request).await {
            Ok(registered) => registered,
            Err(refusal) => {
                say(connection, &Answer::Refused(refusal.clone())).await.ok();
                finish(connection).await;
                return Err(refusal);
            }
        };
        // However this ends, or is dropped.
        let _release = Release { registry: self, number };
        let user = self.grants.name(&peer);
        tracing::info!(%user, "listens on {address} for {request}");
        say(connection, &Answer::Bound(address)).await.ok();
        tokio::select! {
            () = ended(connection) => tracing::info!(%user, "does not listen on {address} any more"),
            () = ending.ended.cancelled() => {
                let refusal = ending.refusal.lock().unwrap_or_else(PoisonError::into_inner).take();
                let refusal = refusal.unwrap_or_else(|| Refusal::new(RefusalCause::Failed, "it has ended"));
                tracing::info!(%user, "does not listen on {address} any more: {refusal}");
                say(connection, &Answer::Refused(refusal)).await.ok();
                finish(connection).await;
            }
        }
        Ok(())
    }

    /// Opens the ports of a request, or takes them over, all of them or none.
    async fn register<O: Opener>(
        self: &Arc<Self>,
        peer: PeerId,
        session: O,
        request: ListenRequest,
    ) -> Result<(Number, SocketAddr, Arc<Ending>), Refusal> {
        // One of a peer at a time: another of it must not meet a port that this one is about to hold.
        let turn = self.turn(peer);
        let _turn = turn.lock().await;
        let missing = {
            let held = self.lock();
            let (_, mut wanted) = self.wanted(&held, peer, request)?;
            wanted.retain(|key| !held.ports.contains_key(key));
            wanted
        };
        // Opened before anything is taken over, so that a port which cannot be had changes nothing; and without the lock,
        // which everybody needs, for a thousand ports take the system a while.
        let mut opened = HashMap::with_capacity(missing.len());
        for key in missing {
            opened.insert(key, self.open(peer, key)?);
            yield_now().await;
        }
        self.take_over(peer, session, request, opened)
    }

    /// Whose turn it is among registrations of this peer.
    fn turn(&self, peer: PeerId) -> Arc<Turn> {
        let mut held = self.lock();
        held.turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = held.turns.get(&peer).and_then(Weak::upgrade).unwrap_or_default();
        held.turns.insert(peer, Arc::downgrade(&turn));
        turn
    }

    /// Registers ports, of which these were opened for it and others may be held.
    fn take_over<O: Opener>(
        self: &Arc<Self>,
        peer: PeerId,
        session: O,
        request: ListenRequest,
        mut opened: HashMap<Key, Opened>,
    ) -> Result<(Number, SocketAddr, Arc<Ending>), Refusal> {
        // Under the lock, so that rules which change meanwhile are looked at again behind it.
        let mut held = self.lock();
        let (request, wanted) = self.wanted(&held, peer, request)?;
        // Those that were held when the others were opened, and are not any more.
        for key in &wanted {
            if !held.ports.contains_key(key) && !opened.contains_key(key) {
                opened.insert(*key, self.open(peer, *key)?);
            }
        }
        let number = Number(held.next);
        held.next += 1;
        let mut displaced: Vec<Number> = Vec::new();
        let mut first = None;
        for (index, key) in (0..).zip(wanted) {
            let Opened { key, socket, place } = match held.ports.remove(&key) {
                Some(Port { socket, holder, stop, place, .. }) => {
                    stop.cancel();
                    displaced.push(holder);
                    Opened { key, socket, place }
                }
                None => match opened.remove(&key) {
                    Some(opened) => opened,
                    // One is open for each that was not held.
                    None => return Err(Refusal::new(RefusalCause::Failed, "a port is missing")),
                },
            };
            first.get_or_insert(key.1);
            let port = Port { socket, holder: number, peer, stop: CancellationToken::new(), place };
            self.start(&session, key.1, &port, &request, index);
            held.ports.insert(key, port);
        }
        let ending = Arc::new(Ending::default());
        held.registrations.insert(number, Registration { peer, request, ending: ending.clone() });
        displaced.sort_unstable_by_key(|number| number.0);
        displaced.dedup();
        for number in displaced {
            let words = "another session of this user took it over";
            held.end(number, Refusal::new(RefusalCause::Taken, words));
        }
        // A range is never empty.
        let first = first.or_else(|| Some(SocketAddr::new(request.bind?, request.ports.first())));
        let first = first.ok_or_else(|| Refusal::new(RefusalCause::Failed, "no port was asked for"))?;
        Ok((number, first, ending))
    }

    /// The ports that a request is for by the rules in force, and the request with their address: asked about again, it is
    /// that one which has to be granted.
    fn wanted(
        &self,
        held: &Held,
        peer: PeerId,
        request: ListenRequest,
    ) -> Result<(ListenRequest, Vec<Key>), Refusal> {
        if held.stopped {
            return Err(Refusal::new(RefusalCause::Failed, "the server is ending"));
        }
        let forbidden = |words| Refusal::new(RefusalCause::Forbidden, words);
        let ip = self.grants.grant(&peer, &request).map_err(forbidden)?.to_canonical();
        let request = ListenRequest { bind: Some(ip), ..request };
        let wanted: Vec<Key> =
            request.ports.iter().map(|port| (request.transport, SocketAddr::new(ip, port))).collect();
        self.check(held, peer, &request, &wanted)?;
        Ok((request, wanted))
    }

    /// Whether the ports can be had as far as those tell that are held.
    fn check(
        &self,
        held: &Held,
        peer: PeerId,
        request: &ListenRequest,
        wanted: &[Key],
    ) -> Result<(), Refusal> {
        for key in wanted {
            match held.ports.get(key) {
                // In the same words as for a program: whose it is, is nobody's affair.
                Some(port) if port.peer != peer => {
                    let words = format!("the server's {} is in use by another program", key.1);
                    return Err(Refusal::new(RefusalCause::InUse, words));
                }
                Some(_) if request.polite => {
                    let words = format!("another session of this user listens on {}", key.1);
                    return Err(Refusal::new(RefusalCause::Taken, words));
                }
                _ => {}
            }
        }
        let is_wanted = |(transport, addr): &Key| {
            let same = *transport == request.transport && Some(addr.ip()) == request.bind;
            same && request.ports.iter().contains(&addr.port())
        };
        let others = held.ports.iter().filter(|(key, port)| port.peer == peer && !is_wanted(key));
        if others.count() + wanted.len() > MAX_PORTS {
            let words = format!("one user may listen on {MAX_PORTS} ports: ask for fewer");
            return Err(Refusal::new(RefusalCause::TooMany, words));
        }
        Ok(())
    }

    fn open(&self, peer: PeerId, key: Key) -> Result<Opened, Refusal> {
        let too_many = || {
            let words = "the server has no room for another port: a higher limit of open files makes room";
            Refusal::new(RefusalCause::TooMany, words)
        };
        let place = self.limit.take(peer).ok_or_else(too_many)?;
        let (transport, addr) = key;
        let opened = match transport {
            Transport::Tcp => gkd_core::socket::listen(addr, BACKLOG).and_then(|socket| {
                let addr = socket.local_addr()?;
                Ok((addr, PortSocket::Tcp(Arc::new(Acceptor::new(socket, addr)))))
            }),
            Transport::Udp => udp::bind(addr)
                .and_then(|socket| Ok((socket.local_addr()?, PortSocket::Udp(Arc::new(socket))))),
        };
        let (addr, socket) = opened.map_err(|error| refusal(addr, &error))?;
        Ok(Opened { key: (transport, addr), socket, place })
    }

    /// Begins to serve a port for the session that asked for it: the one of this index among those that it asked for.
    fn start<O: Opener>(
        self: &Arc<Self>,
        session: &O,
        addr: SocketAddr,
        port: &Port,
        request: &ListenRequest,
        index: u16,
    ) {
        let Port { socket, peer, stop, .. } = port;
        let (peer, stop, proxy_header) = (*peer, stop.clone(), request.proxy_header);
        let to = Destination::Registered(Registered { listener: request.listener, index });
        let label = format!("what {} has behind {addr}", self.grants.name(&peer));
        let session = LimitedOpener::new(session.clone(), self.grants.rate(&peer));
        let outlet = Outlet::new(session, self.config.dial_timeout, self.config.relay.clone());
        let outlet = Arc::new(outlet.labelled(label));
        match socket.clone() {
            PortSocket::Tcp(acceptor) => {
                let (registry, to) = (Arc::clone(self), Arc::new(Fixed::from(to)));
                tokio::spawn(async move {
                    while let Some((socket, program)) = stop.run_until_cancelled(acceptor.accept()).await {
                        let Some(place) = registry.limit.take(peer) else {
                            outlet.complain("a program was refused: too many are served for this user");
                            socket::reset_on_drop(&socket);
                            continue;
                        };
                        let Some(first) = first_bytes(&socket, program, proxy_header) else { continue };
                        let serving = Arc::clone(&outlet).forward(socket, first, Arc::clone(&to));
                        tokio::spawn(async move {
                            let _place = &place;
                            serving.await;
                        });
                    }
                });
            }
            PortSocket::Udp(socket) => {
                // Its flows stop with it.
                tokio::spawn(flows::serve(socket, to, outlet, stop, TaskTracker::new()));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Has a registration end before its connection does. Its ports are closed, but for those that another holds now.
    fn end(&mut self, number: Number, refusal: Refusal) {
        if let Some(registration) = self.registrations.get(&number) {
            let ending = &registration.ending;
            ending.refusal.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refusal);
            ending.ended.cancel();
        }
        self.release(number);
    }

    fn release(&mut self, number: Number) {
        self.registrations.remove(&number);
        self.ports.retain(|_, port| {
            let stays = port.holder != number;
            if !stays {
                port.stop.cancel();
            }
            stays
        });
    }
}

/// Closes the ports of a registration that another did not take over.
struct Release<'a> {
    registry: &'a Registry,
    number: Number,
}

impl Drop for Release<'_> {
    fn drop(&mut self) {
        self.registry.lock().release(self.number);
    }
}

fn refusal(addr: SocketAddr, error: &io::Error) -> Refusal {
    let cause = match error.kind() {
        io::ErrorKind::AddrInUse => RefusalCause::InUse,
        _ if crate::accept::is_exhaustion(error) => RefusalCause::TooMany,
        _ => RefusalCause::Failed,
    };
    let words = match error.kind() {
        io::ErrorKind::AddrInUse => format!("the server's {addr} is in use by another program"),
        io::ErrorKind::AddrNotAvailable => format!("the server does not have the address {}", addr.ip()),
        io::ErrorKind::PermissionDenied => format!("the server may not listen on port {}", addr.port()),
        _ => format!("the server cannot listen on {addr}: {error}"),
    };
    Refusal::new(cause, words)
}

pub(crate) async fn say<C: VirtualConnection>(connection: &C, answer: &Answer) -> io::Result<()> {
    let mut bytes: Bytes = answer.encode();
    while !bytes.is_empty() {
        std::future::poll_fn(|cx| connection.poll_write_bytes(cx, &mut bytes)).await?;
    }
    Ok(())
}

/// Ends the direction from here, and waits until that is known.
pub(crate) async fn finish<C: VirtualConnection>(connection: &C) {
    // One that was reset has ended too.
    let _ = std::future::poll_fn(|cx| connection.poll_shutdown(cx)).await;
}
