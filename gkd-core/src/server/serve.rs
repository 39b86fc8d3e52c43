//! One connection that came in: recognise it, prove keys, hear its Hello, let it into its session or not, and
//! run its tunnel. Until the Welcome it is half-open: bounded in time and in number.

mod visit;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use gkd_proto::handshake::{Hello, Reject, RejectCode, VERSION};
use gkd_proto::id::{PeerId, Side};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::half_open::Place;
use super::{Inner, Stage};
use crate::carrier::{Carrier, Incoming, Wire};
use crate::fair_limit::FairPlace;
use crate::handshake::{read_hello, say_reject, say_welcome};
use crate::manager::{Phase, TunnelGuard, TunnelManager};
use crate::registry::{SessionLimits, busy};
use crate::session::SessionHandle;
use crate::tunnel;

/// Serves one connection to its end.
pub(super) async fn serve(inner: Arc<Inner>, tcp: TcpStream, address: SocketAddr, place: Place) {
    let mut half_open = HalfOpenUntil { place, deadline: Instant::now() + inner.handshake };
    let deadline = half_open.deadline;
    // Handshakes are on the heap, and gone with their end: what they take would be kept by every tunnel's task otherwise.
    let handshake = Box::pin(recognise(&inner, tcp, address, deadline));
    let mut came = half_open.run(&inner, address, handshake).await;
    if let Some(Came::Http(wire)) = came {
        let visit = Box::pin(visit::serve(&inner, wire, address, half_open)).await;
        let Some((wire, again)) = visit else { return };
        half_open = again;
        let handshake = Box::pin(within_websocket(&inner, wire, address));
        came = half_open.run(&inner, address, handshake).await;
    }
    drop(half_open);
    if let Some(Came::Up(Up { guard, carrier, front, _place })) = came {
        let (id, session) = (guard.handle.id, guard.manager.id);
        tracing::debug!(%address, ?session, tunnel = %id, carrier = %carrier.kind(), "a tunnel is up");
        let end = tunnel::run(guard, carrier, front).await;
        tracing::debug!(%address, ?session, tunnel = %id, cause = %end.cause, "a tunnel ended");
    }
}

/// A place among the half-open, and until when.
struct HalfOpenUntil {
    place: Place,
    deadline: Instant,
}

impl HalfOpenUntil {
    /// Runs this as long as the place is there. None when the connection is to be closed.
    async fn run<T>(
        &mut self,
        inner: &Inner,
        address: SocketAddr,
        run: impl Future<Output = Option<T>>,
    ) -> Option<T> {
        tokio::select! {
            done = tokio::time::timeout_at(self.deadline, run) => done.ok().flatten(),
            () = self.place.evicted() => {
                if let Some(more) = inner.seldom.note("half-open") {
                    tracing::warn!(
                        %address,
                        "as many connections as may have proved no key; the oldest of the busiest address gave way{more}"
                    );
                }
                None
            }
        }
    }
}

/// What a connection has come to.
enum Came {
    Up(Up),
    /// It speaks HTTP.
    Http(Wire),
}

/// A tunnel that is up, and its place among all.
struct Up {
    guard: TunnelGuard,
    carrier: Carrier,
    front: BytesMut,
    _place: FairPlace,
}

/// Until the Welcome is written, or until it is known to be HTTP. None when the connection is to be closed.
async fn recognise(
    inner: &Arc<Inner>,
    tcp: TcpStream,
    address: SocketAddr,
    deadline: Instant,
) -> Option<Came> {
    if let Err(error) = inner.options.apply(&tcp)
        && let Some(more) = inner.seldom.note("congestion")
    {
        tracing::warn!(%error, "a tunnel goes on with the system's congestion control{more}");
    }
    match inner.acceptor.accept(tcp, deadline).await {
        Ok(Incoming::Gkd(carrier)) => shake_hands(inner, carrier, address).await,
        Ok(Incoming::Http(wire)) if inner.visit.is_some() => Some(Came::Http(wire)),
        Ok(Incoming::Http(_) | Incoming::Foreign(_)) => {
            tracing::debug!(%address, "closed: it does not speak gkd");
            None
        }
        Err(error) => {
            tracing::debug!(%address, %error, "closed");
            None
        }
    }
}

/// The same, for what a WebSocket carries.
async fn within_websocket(inner: &Arc<Inner>, wire: Wire, address: SocketAddr) -> Option<Came> {
    match inner.acceptor.accept_websocket(wire).await {
        Ok(carrier) => shake_hands(inner, carrier, address).await,
        Err(error) => {
            tracing::debug!(%address, %error, "a WebSocket was closed");
            None
        }
    }
}

/// From the Hello to the Welcome.
async fn shake_hands(inner: &Arc<Inner>, mut carrier: Carrier, address: SocketAddr) -> Option<Came> {
    let (hello, front) = match read_hello(&mut carrier).await {
        Ok(read) => read,
        Err(error) => {
            tracing::debug!(%address, %error, "closed");
            return None;
        }
    };
    match admit(inner, &carrier, &hello, address) {
        Ok((guard, welcome, place)) => match say_welcome(&mut carrier, &welcome).await {
            Ok(()) => Some(Came::Up(Up { guard, carrier, front, _place: place })),
            Err(error) => {
                tracing::debug!(%address, %error, "closed");
                None
            }
        },
        Err(reject) => {
            note_reject(inner, carrier.peer(), address, &reject);
            // The client may be gone; it dials again either way.
            say_reject(&mut carrier, &reject).await.ok();
            None
        }
    }
}

/// That a limit is met is worth a line now and then, each for itself; what else a client is told is its own affair.
fn note_reject(inner: &Inner, peer: PeerId, address: SocketAddr, reject: &Reject) {
    inner.rejected.note(reject.code);
    if reject.code == RejectCode::Busy
        && let Some(more) = inner.seldom.note(&reject.reason)
    {
        let key = crate::identity::public_text(&peer);
        tracing::warn!(%address, key, "a tunnel was rejected: {reject}{more}");
        return;
    }
    tracing::debug!(%address, ?peer, %reject, "rejected");
}

/// Decides whether the tunnel gets in. The user comes first, so that a stranger learns nothing of sessions.
fn admit(
    inner: &Arc<Inner>,
    carrier: &Carrier,
    hello: &Hello,
    address: SocketAddr,
) -> Result<(TunnelGuard, gkd_proto::handshake::Welcome, FairPlace), Reject> {
    let peer = carrier.peer();
    let admission = (inner.authorise)(&peer)?;
    if hello.version != VERSION {
        return Err(Reject::new(RejectCode::Version));
    }
    if let Err(error) = carrier.check_hello(hello) {
        return Err(Reject { code: RejectCode::Protocol, reason: error.to_string() });
    }
    let going_down = Reject::new(RejectCode::GoingDown);
    let must_exist = match inner.stage() {
        Stage::Open => hello.exists,
        // Live connections may need their tunnels back.
        Stage::Draining if hello.exists => true,
        Stage::Draining | Stage::Closed => return Err(going_down),
    };
    let place = inner.tunnels.take(peer).ok_or_else(|| busy("this key has as many tunnels as it may"))?;
    let limits = SessionLimits {
        most: inner.max_sessions,
        most_of_peer: admission.max_sessions.unwrap_or(inner.max_sessions_per_peer),
    };
    let config = admission.session.unwrap_or_else(|| inner.config.clone());
    let entered = inner.registry.enter(peer, hello.session, must_exist, limits, || {
        let memory = inner.memory.reserve(config.least_memory()).map_err(|error| {
            tracing::debug!(%error, "no new session");
            busy("it has no memory left for another session")
        })?;
        let (accepted, runtime) = (inner.accepted.clone(), inner.runtime.clone());
        let (side, id) = (Side::Server, hello.session);
        Ok(TunnelManager::spawn(config.clone(), side, id, peer, memory, accepted, runtime))
    })?;
    let manager = entered.manager;
    if entered.new {
        begin(inner, &manager, address, peer);
    }
    match manager.add_accepted(hello, !entered.new, Some(address)) {
        Ok((welcome, handle)) => Ok((manager.guard(handle), welcome, place)),
        Err(_) if manager.ended().is_some() => {
            inner.registry.remove(&manager);
            Err(Reject::new(RejectCode::NoSuchSession))
        }
        Err(reject) => {
            if entered.new {
                // Nobody will ever come to it.
                manager.close(gkd_proto::packet::CloseCode::PROTOCOL, "");
            }
            Err(reject)
        }
    }
}

/// Sees to a new session until it has ended.
fn begin(inner: &Arc<Inner>, manager: &Arc<TunnelManager>, address: SocketAddr, peer: PeerId) {
    tracing::debug!(%address, ?peer, session = ?manager.id, "a session began");
    // A shutdown may have listed the sessions just before this one stood among them.
    if inner.stage() != Stage::Open {
        manager.drain(gkd_proto::packet::CloseCode::GOING_DOWN.0);
    }
    (inner.on_session)(SessionHandle::new(manager.clone()), address);
    let (inner, manager) = (inner.clone(), manager.clone());
    inner.clone().runtime.spawn(async move {
        manager.reached(Phase::Ended).await;
        inner.registry.remove(&manager);
    });
}
