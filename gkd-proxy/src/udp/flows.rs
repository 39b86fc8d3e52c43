//! A UDP port: each program's address is a flow, with a connection of its own to the port's destination ([`serve`]).

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Idle, ended, is_passing, next_of, recv_from};
use crate::connection::{Opener, VirtualConnection};
use crate::destination::Destination;
use crate::outlet::Outlet;

/// The most flows of one port. Each is a connection, and at the other end a socket.
const MOST_FLOWS: usize = 4096;

/// The most datagrams that wait for a flow's connection to be opened, and bytes that wait for those of all flows of a port:
/// where these are used up, only the newest of a flow waits, if it is small.
const MOST_WAITING: usize = 64;
const MOST_BYTES_WAITING: usize = 2 * 1024 * 1024;

/// What waits in any case, in bytes: a question to a name server.
const SMALL: usize = 512;

/// How long a flow that failed swallows what still comes: a program that sends on is not worth a connection each time.
const FAILED_FOR: Duration = Duration::from_secs(1);

/// How long a socket that cannot be read rests.
const REST: Duration = Duration::from_millis(100);

/// Serves a port until it is stopped, and its flows with it: nothing tells when they are over.
pub(crate) async fn serve<O: Opener>(
    socket: Arc<UdpSocket>,
    to: Destination,
    outlet: Arc<Outlet<O>>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let port = Arc::new(Port { socket, to, outlet, flows: Mutex::default(), waiting: AtomicUsize::new(0) });
    let receiving = async {
        loop {
            match recv_from(&port.socket).await {
                Ok((payload, source)) => port.take(payload, source, &stop, &tasks),
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    port.outlet.complain(&format!("datagrams for {} cannot be read: {error}", port.to));
                    sleep(REST).await;
                }
            }
        }
    };
    stop.run_until_cancelled(receiving).await;
}

struct Port<O: Opener> {
    socket: Arc<UdpSocket>,
    to: Destination,
    outlet: Arc<Outlet<O>>,
    flows: Mutex<Flows<O::Connection>>,
    /// Bytes that wait for connections, over all flows.
    waiting: AtomicUsize,
}

/// The flows of a port.
struct Flows<C> {
    by_source: HashMap<SocketAddr, Arc<Flow<C>>>,
    /// In the order in which they began, or were last found in use; some have ended.
    in_order: VecDeque<(SocketAddr, Arc<Flow<C>>, Instant)>,
}

impl<C> Default for Flows<C> {
    fn default() -> Self {
        Self { by_source: HashMap::new(), in_order: VecDeque::new() }
    }
}

/// What a port's task and a flow's share.
struct Flow<C> {
    idle: Idle,
    stage: Mutex<Stage<C>>,
    crowded_out: CancellationToken,
}

enum Stage<C> {
    /// What waits for the connection, the oldest first.
    Opening(VecDeque<Bytes>),
    Open(Arc<C>),
    /// It came to nothing: what comes is dropped.
    Failed,
}

impl<O: Opener> Port<O> {
    /// A datagram from a program.
    fn take(
        self: &Arc<Self>,
        payload: Bytes,
        source: SocketAddr,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) {
        let known = self.lock().by_source.get(&source).cloned();
        let flow = known.unwrap_or_else(|| {
            let flow = self.lock().begin(source, self.outlet.udp_idle_for());
            let (port, begun, stop) = (Arc::clone(self), Arc::clone(&flow), stop.clone());
            tasks.spawn(async move {
                let _remove = Removal { port: &port, source, flow: &begun };
                tokio::select! {
                    () = port.carry(source, &begun) => {}
                    () = begun.crowded_out.cancelled() => {}
                    () = stop.cancelled() => {}
                }
            });
            flow
        });
        flow.idle.touch();
        flow.send(payload, &self.waiting);
    }

    /// Carries one flow to its end.
    async fn carry(&self, source: SocketAddr, flow: &Flow<O::Connection>) {
        let Ok(connection) = self.outlet.open(&self.to).await else {
            flow.fail(&self.waiting);
            return sleep(FAILED_FOR).await;
        };
        let connection = Arc::new(connection);
        flow.open(&connection, &self.waiting);
        let mut ended = pin!(ended(&*connection));
        let mut expired = pin!(flow.idle.expired());
        loop {
            tokio::select! {
                datagram = next_of(&*connection) => match datagram {
                    Ok((_, payload)) => {
                        flow.idle.touch();
                        if let Err(error) = self.socket.send_to(&payload, source).await {
                            tracing::debug!("a datagram for {source} was dropped: {error}");
                        }
                    }
                    Err(_) => break,
                },
                () = &mut ended => break,
                () = &mut expired => return,
            }
        }
        if let Some(Err(error)) = connection.connected().now_or_never() {
            self.outlet.failed(&self.to, &error);
            flow.fail(&self.waiting);
            sleep(FAILED_FOR).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Flows<O::Connection>> {
        self.flows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a flow out of its port when its task ends, however it does.
struct Removal<'a, O: Opener> {
    port: &'a Port<O>,
    source: SocketAddr,
    flow: &'a Arc<Flow<O::Connection>>,
}

impl<O: Opener> Drop for Removal<'_, O> {
    fn drop(&mut self) {
        let mut flows = self.port.lock();
        if flows.by_source.get(&self.source).is_some_and(|flow| Arc::ptr_eq(flow, self.flow)) {
            flows.by_source.remove(&self.source);
        }
        // The connection goes with the task.
        self.flow.fail(&self.port.waiting);
    }
}

impl<C> Flows<C> {
    /// A flow for a source that has none. Where there are as many as may be, the one goes that has been idle longest,
    /// nearly: one that was used since it was looked at last is passed over (the second-chance algorithm).
    fn begin(&mut self, source: SocketAddr, idle_for: Duration) -> Arc<Flow<C>> {
        if self.by_source.len() >= MOST_FLOWS {
            for _ in 0..self.in_order.len() {
                let Some((source, flow, seen)) = self.in_order.pop_front() else { break };
                let lives = self.by_source.get(&source).is_some_and(|known| Arc::ptr_eq(known, &flow));
                let last = flow.idle.last();
                if lives && last > seen {
                    self.in_order.push_back((source, flow, last));
                } else if lives {
                    self.by_source.remove(&source);
                    flow.crowded_out.cancel();
                    break;
                }
            }
        }
        if self.in_order.len() >= 2 * MOST_FLOWS {
            let by_source = &self.by_source;
            self.in_order.retain(|(source, flow, _)| {
                by_source.get(source).is_some_and(|known| Arc::ptr_eq(known, flow))
            });
        }
        let flow = Arc::new(Flow {
            idle: Idle::new(idle_for),
            stage: Mutex::new(Stage::Opening(VecDeque::new())),
            crowded_out: CancellationToken::new(),
        });
        self.in_order.push_back((source, Arc::clone(&flow), flow.idle.last()));
        self.by_source.insert(source, Arc::clone(&flow));
        flow
    }
}

impl<C: VirtualConnection> Flow<C> {
    /// Hands a datagram on, or keeps it until it can be, where there is room among all that wait.
    fn send(&self, payload: Bytes, all: &AtomicUsize) {
        match &mut *self.lock() {
            Stage::Opening(waiting) => {
                let fits = all.load(Ordering::Relaxed) + payload.len() <= MOST_BYTES_WAITING;
                if !fits && payload.len() > SMALL {
                    return;
                }
                all.fetch_add(payload.len(), Ordering::Relaxed);
                waiting.push_back(payload);
                while waiting.len() > if fits { MOST_WAITING } else { 1 } {
                    let oldest = waiting.pop_front().map_or(0, |oldest| oldest.len());
                    all.fetch_sub(oldest, Ordering::Relaxed);
                }
            }
            // One that was reset will be noticed by the flow's task.
            Stage::Open(connection) => _ = connection.send_datagram(Bytes::new(), payload),
            Stage::Failed => {}
        }
    }

    fn open(&self, connection: &Arc<C>, all: &AtomicUsize) {
        let mut stage = self.lock();
        if let Stage::Opening(waiting) = std::mem::replace(&mut *stage, Stage::Open(Arc::clone(connection))) {
            for payload in waiting {
                all.fetch_sub(payload.len(), Ordering::Relaxed);
                let _ = connection.send_datagram(Bytes::new(), payload);
            }
        }
    }
}

impl<C> Flow<C> {
    fn fail(&self, all: &AtomicUsize) {
        if let Stage::Opening(waiting) = std::mem::replace(&mut *self.lock(), Stage::Failed) {
            all.fetch_sub(waiting.iter().map(Bytes::len).sum(), Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stage<C>> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{self, Memory};

    fn source(number: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], u16::try_from(number + 1).unwrap()))
    }

    #[test]
    fn of_too_many_flows_one_goes_that_was_not_used_of_late() {
        let mut flows = Flows::<()>::default();
        let all: Vec<_> = (0..MOST_FLOWS).map(|number| flows.begin(source(number), FAILED_FOR)).collect();
        std::thread::sleep(Duration::from_millis(5));
        all[0].idle.touch();
        flows.begin(source(MOST_FLOWS), FAILED_FOR);
        let gone: Vec<_> = (0..MOST_FLOWS).filter(|number| all[*number].crowded_out.is_cancelled()).collect();
        assert_eq!((gone, flows.by_source.len()), (vec![1], MOST_FLOWS));
        // What has ended by itself is not kept in the order for ever.
        for number in 0..3 * MOST_FLOWS {
            flows.by_source.remove(&source(number));
            flows.begin(source(number), FAILED_FOR);
        }
        assert!(flows.in_order.len() <= 2 * MOST_FLOWS && flows.by_source.len() <= MOST_FLOWS);
    }

    #[test]
    fn what_waits_for_connections_is_bounded_over_all_flows() {
        let (mut flows, all) = (Flows::<Memory>::default(), AtomicUsize::new(0));
        let flood: Vec<_> = (0..200).map(|number| flows.begin(source(number), FAILED_FOR)).collect();
        for flow in &flood {
            (0..2).for_each(|_| flow.send(Bytes::from(vec![0; 60_000]), &all));
        }
        assert!(all.load(Ordering::Relaxed) <= MOST_BYTES_WAITING);
        // A small one of another program gets through all the same, and is handed on.
        let small = flows.begin(source(1000), FAILED_FOR);
        small.send(Bytes::from_static(b"question"), &all);
        let (near, far) = memory::pair(Bytes::new());
        small.open(&Arc::new(near), &all);
        let received = far.recv_datagram().now_or_never().unwrap().unwrap();
        assert_eq!(received.1, "question");
        flood.iter().for_each(|flow| flow.fail(&all));
        assert_eq!(all.load(Ordering::Relaxed), 0);
    }
}
