//! A connection that speaks HTTP: half-open until it has asked for something, then a visitor of the site, then perhaps
//! half-open again, with a WebSocket.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{HalfOpenUntil, Inner};
use crate::carrier::{CarrierError, Wire, ws};

/// Serves it until it ends, or becomes a WebSocket, which has a place among the half-open then.
pub(super) async fn serve(
    inner: &Arc<Inner>,
    wire: Wire,
    address: SocketAddr,
    mut half_open: HalfOpenUntil,
) -> Option<(Wire, HalfOpenUntil)> {
    let visit = inner.visit.as_ref()?;
    let visited = Arc::new(Notify::new());
    let mut served = pin!(ws::serve(wire, address, visit, &visited));
    let first = async {
        tokio::select! {
            biased;
            done = &mut served => Some(First::Ended(done)),
            () = visited.notified() => Some(First::Visited),
        }
    };
    if let First::Ended(done) = half_open.run(inner, address, first).await? {
        return websocket(done, address).map(|wire| (wire, half_open));
    }
    drop(half_open);
    let mut place = inner.visitors.enter(address.ip());
    let done = tokio::select! {
        done = &mut served => done,
        () = inner.stop.cancelled() => return None,
        () = place.evicted() => {
            if let Some(more) = inner.seldom.note("visitors") {
                tracing::warn!(
                    %address,
                    "as many visitors as the site may have; the oldest of the busiest address gave way{more}"
                );
            }
            return None;
        }
    };
    drop(place);
    let wire = websocket(done, address)?;
    let (place, deadline) = (inner.half_open.enter(address.ip()), Instant::now() + inner.handshake);
    Some((wire, HalfOpenUntil { place, deadline }))
}

/// What comes first.
enum First {
    /// The connection has ended, or is a WebSocket.
    Ended(Result<Option<Wire>, CarrierError>),
    /// It asks for something of the site.
    Visited,
}

fn websocket(done: Result<Option<Wire>, CarrierError>, address: SocketAddr) -> Option<Wire> {
    done.unwrap_or_else(|error| {
        tracing::debug!(%address, %error, "closed: its HTTP");
        None
    })
}
