//! Datagrams of one connection to destinations, and what these answer: [`to_one`] where the connection names the only
//! one, [`to_any`] where each datagram names its own.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};

use super::{Idle, bind_towards, ended, is_passing, next_of, recv, recv_from};
use crate::connection::VirtualConnection;
use crate::destination::{Host, Name, Target};
use crate::dial::DialFailure;
use crate::relay::{End, Relayed};

/// The most names that one connection's datagrams are remembered by, and for how long: an answer that a program gets
/// from elsewhere than it asked is none, so a name must not lead to another address with each datagram.
const MOST_NAMES: usize = 256;
const NAME_FOR: Duration = Duration::from_secs(60);

/// The most names of one connection that are resolved at a time, and datagrams that wait for each.
const MOST_LOOKUPS: usize = 16;
const MOST_WAITING: usize = 8;

/// The most bytes of one connection that wait for names.
const MOST_BYTES_WAITING: usize = 64 * 1024;

/// How long a socket that cannot be read rests.
const REST: Duration = Duration::from_millis(100);

/// The most hosts from which one connection takes answers: those that it sent to last.
const MOST_HOSTS: usize = 1024;

/// What the end that dials knows and decides.
pub(crate) trait Guide: Sync {
    /// The addresses of a target.
    fn resolve(&self, target: Target) -> impl Future<Output = Result<Vec<SocketAddr>, DialFailure>> + Send;

    /// Whether a datagram may go there now, to an address of this name.
    fn permits(&self, target: &Target, address: SocketAddr) -> bool;

    /// A place for one more socket of this peer; none where there is no room.
    fn place(&self) -> Option<Self::Place>;

    /// What is held for a socket.
    type Place: Send;
}

/// Carries datagrams between a connection and a connected socket, until either ends it or nothing moves.
pub(crate) async fn to_one<C: VirtualConnection>(connection: &C, socket: &UdpSocket, idle: Idle) -> Relayed {
    let (mut up, mut down) = (0, 0);
    let mut ended = pin!(ended(connection));
    let mut expired = pin!(idle.expired());
    let end = loop {
        tokio::select! {
            datagram = next_of(connection) => match datagram {
                Ok((_, payload)) => {
                    idle.touch();
                    match socket.send(&payload).await {
                        Ok(_) => down += payload.len() as u64,
                        Err(error) if is_passing(&error) => tracing::debug!("a datagram was dropped: {error}"),
                        Err(error) => break End::Socket(error),
                    }
                }
                Err(error) => break End::Connection(error),
            },
            answer = recv(socket) => match answer {
                Ok(payload) => {
                    idle.touch();
                    up += payload.len() as u64;
                    if let Err(error) = connection.send_datagram(Bytes::new(), payload) {
                        break End::Connection(error);
                    }
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => break End::Socket(error),
            },
            () = &mut ended => break End::Finished,
            () = &mut expired => break End::Idle,
        }
    };
    Relayed { up, down, end }
}

/// Carries datagrams between a connection and whatever host each of them names, likewise.
pub(crate) async fn to_any<C: VirtualConnection>(connection: &C, guide: &impl Guide, idle: Idle) -> Relayed {
    let mut flow = Open {
        guide,
        v4: None,
        v6: None,
        names: HashMap::new(),
        lookups: FuturesUnordered::new(),
        hosts: Hosts::default(),
        waiting: 0,
        down: 0,
    };
    let mut up = 0;
    let mut ended = pin!(ended(connection));
    let mut expired = pin!(idle.expired());
    let end = loop {
        tokio::select! {
            datagram = next_of(connection) => match datagram {
                Ok((address, payload)) => {
                    idle.touch();
                    match Target::from_bytes(&address) {
                        Ok(target) => flow.send(target, payload).await,
                        Err(error) => tracing::debug!("a datagram was dropped: {error}"),
                    }
                }
                Err(error) => break End::Connection(error),
            },
            (payload, from) = answer(&flow.v4, &flow.v6) => {
                // What others send is dropped (address-dependent filtering, RFC 4787, section 5), and so is what comes from
                // where nothing may go any more.
                let asked = flow.hosts.asked(from.ip());
                if !asked.is_some_and(|target| guide.permits(target, SocketAddr::new(from.ip(), target.port()))) {
                    tracing::debug!("a datagram of {from} was dropped: nothing was sent there");
                    continue;
                }
                idle.touch();
                up += payload.len() as u64;
                let from = SocketAddr::new(from.ip().to_canonical(), from.port());
                // Nothing is sent from port 0.
                let Ok(from) = Target::new(Host::Ip(from.ip()), from.port()) else { continue };
                if let Err(error) = connection.send_datagram(from.to_bytes(), payload) {
                    break End::Connection(error);
                }
            },
            (name, found) = resolved(&mut flow.lookups) => flow.take_resolved(name, found).await,
            () = &mut ended => break End::Finished,
            () = &mut expired => break End::Idle,
        }
    };
    Relayed { up, down: flow.down, end }
}

/// A lookup that is under way.
type Lookup<'a> = Pin<Box<dyn Future<Output = (Name, Result<Vec<SocketAddr>, DialFailure>)> + Send + 'a>>;

/// A flow whose datagrams name their targets.
struct Open<'a, G: Guide> {
    guide: &'a G,
    v4: Option<(UdpSocket, G::Place)>,
    v6: Option<(UdpSocket, G::Place)>,
    names: HashMap<Name, Known>,
    lookups: FuturesUnordered<Lookup<'a>>,
    hosts: Hosts,
    /// Bytes that wait for names.
    waiting: usize,
    /// Bytes that went out.
    down: u64,
}

/// What is known of a name.
enum Known {
    /// It is being resolved, and these wait for it.
    Asked(VecDeque<(Target, Bytes)>),
    /// Its addresses, none where it has none, until they are asked for anew.
    Told(Vec<IpAddr>, Instant),
}

impl<G: Guide> Open<'_, G> {
    /// Sends a datagram, or keeps it until its name is resolved, or drops it.
    async fn send(&mut self, target: Target, payload: Bytes) {
        let name = match target.host() {
            Host::Ip(ip) => return self.send_to(&target, &[*ip], &payload).await,
            Host::Name(name) => name.clone(),
        };
        match self.names.get_mut(&name) {
            Some(Known::Told(addresses, until)) if *until > Instant::now() => {
                let addresses = addresses.clone();
                self.send_to(&target, &addresses, &payload).await;
            }
            _ if self.waiting + payload.len() > MOST_BYTES_WAITING => {
                tracing::debug!("a datagram was dropped: too much waits for names");
            }
            Some(Known::Asked(waiting)) => {
                self.waiting += payload.len();
                waiting.push_back((target, payload));
                if waiting.len() > MOST_WAITING {
                    self.waiting -= waiting.pop_front().map_or(0, |(_, oldest)| oldest.len());
                }
            }
            _ if self.lookups.len() >= MOST_LOOKUPS => {
                tracing::debug!("a datagram was dropped: too many names")
            }
            _ => {
                self.make_room();
                self.waiting += payload.len();
                self.names.insert(name.clone(), Known::Asked([(target.clone(), payload)].into()));
                let guide = self.guide;
                self.lookups.push(Box::pin(async move { (name, guide.resolve(target).await) }));
            }
        }
    }

    /// Room for one more name.
    fn make_room(&mut self) {
        if self.names.len() < MOST_NAMES {
            return;
        }
        let now = Instant::now();
        self.names.retain(|_, known| !matches!(known, Known::Told(_, until) if *until <= now));
        if self.names.len() >= MOST_NAMES {
            self.names.retain(|_, known| matches!(known, Known::Asked(_)));
        }
    }

    async fn take_resolved(&mut self, name: Name, found: Result<Vec<SocketAddr>, DialFailure>) {
        let addresses: Vec<_> = match found {
            Ok(addresses) => addresses.iter().map(SocketAddr::ip).collect(),
            Err(error) => {
                tracing::debug!("datagrams for {name} are dropped: {error}");
                Vec::new()
            }
        };
        let told = Known::Told(addresses.clone(), Instant::now() + NAME_FOR);
        if let Some(Known::Asked(waiting)) = self.names.insert(name, told) {
            for (target, payload) in waiting {
                self.waiting -= payload.len();
                self.send_to(&target, &addresses, &payload).await;
            }
        }
    }

    /// Sends to the first of the addresses that is permitted and of a family that this machine has.
    async fn send_to(&mut self, target: &Target, addresses: &[IpAddr], payload: &[u8]) {
        for ip in addresses {
            let address = SocketAddr::new(*ip, target.port());
            if !self.guide.permits(target, address) {
                continue;
            }
            match self.try_send_to(target, address, payload).await {
                Ok(()) => {
                    self.down += payload.len() as u64;
                    return;
                }
                Err(error) => tracing::debug!("a datagram for {target} was dropped at {address}: {error}"),
            }
        }
    }

    async fn try_send_to(&mut self, target: &Target, address: SocketAddr, payload: &[u8]) -> io::Result<()> {
        let socket = if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        let socket = match socket {
            Some((socket, _)) => socket,
            none => {
                let no_room = || io::Error::other("too many destinations are open");
                let place = self.guide.place().ok_or_else(no_room)?;
                &none.insert((bind_towards(address)?, place)).0
            }
        };
        // Before it is sent: the answer may be quick.
        self.hosts.insert(address.ip(), target);
        socket.send_to(payload, address).await.map(drop)
    }
}

/// A name that was resolved, or was not.
async fn resolved(
    lookups: &mut FuturesUnordered<Lookup<'_>>,
) -> (Name, Result<Vec<SocketAddr>, DialFailure>) {
    match lookups.next().await {
        Some(resolved) => resolved,
        None => pending().await,
    }
}

/// The next datagram that comes, and whose.
async fn answer<P>(v4: &Option<(UdpSocket, P)>, v6: &Option<(UdpSocket, P)>) -> (Bytes, SocketAddr) {
    loop {
        let answer = tokio::select! {
            answer = recv_of(v4) => answer,
            answer = recv_of(v6) => answer,
        };
        match answer {
            Ok(answer) => return answer,
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                tracing::debug!("datagrams cannot be read: {error}");
                sleep(REST).await;
            }
        }
    }
}

async fn recv_of<P>(socket: &Option<(UdpSocket, P)>) -> io::Result<(Bytes, SocketAddr)> {
    match socket {
        Some((socket, _)) => recv_from(socket).await,
        None => pending().await,
    }
}

/// The hosts that were sent to last, each with the target that led there.
#[derive(Default)]
struct Hosts {
    asked: HashMap<IpAddr, Target>,
    in_order: VecDeque<IpAddr>,
}

impl Hosts {
    fn insert(&mut self, ip: IpAddr, target: &Target) {
        if self.asked.insert(ip, target.clone()).is_some() {
            return;
        }
        self.in_order.push_back(ip);
        if self.in_order.len() > MOST_HOSTS
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.asked.remove(&oldest);
        }
    }

    /// By which target it was sent to; none where it was not.
    fn asked(&self, ip: IpAddr) -> Option<&Target> {
        self.asked.get(&ip)
    }
}
