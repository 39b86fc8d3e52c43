//! What a client tells of itself: how it stands now, and what happened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gkd_proto::id::{SessionId, TunnelId};

use super::{Path, TunnelDialError};
use crate::manager::SessionEnd;

/// How a client stands now.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ClientState {
    /// Tunnels that are up.
    pub tunnels_up: usize,
    /// Tunnels that it is to have, which may change where their number is found while it runs.
    pub tunnels: usize,
    /// A tunnel was up at some time.
    pub was_up: bool,
    /// Why the last dial failed; none once a tunnel came up behind it.
    pub failure: Option<Arc<TunnelDialError>>,
    /// The tunnels whose first dial failed, as long as none was ever up.
    pub(super) failed_first: usize,
    /// It was closed.
    pub closed: bool,
}

/// Something that happened to a client, for logs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ClientEvent {
    /// A tunnel is up.
    TunnelUp {
        /// Over which path.
        path: Arc<Path>,
        /// Which.
        tunnel: TunnelId,
    },
    /// A tunnel ended. It is dialled again.
    TunnelDown {
        /// Over which path.
        path: Arc<Path>,
        /// Which.
        tunnel: TunnelId,
        /// Why, in words.
        cause: String,
    },
    /// Another number of tunnels is to be up from now on, on all paths together.
    Wanted {
        /// So many.
        tunnels: usize,
    },
    /// A tunnel was taken away that is not wanted any more; nothing was lost by it.
    TunnelRetired {
        /// Over which path.
        path: Arc<Path>,
        /// Which.
        tunnel: TunnelId,
    },
    /// A tunnel did not come up.
    DialFailed {
        /// Over which path.
        path: Arc<Path>,
        /// Why.
        error: Arc<TunnelDialError>,
        /// It is dialled again after this time.
        again: Duration,
    },
    /// The session ended, and all its connections with it; a new one begins.
    SessionLost {
        /// The one that ended.
        session: SessionId,
        /// Why.
        cause: SessionEnd,
    },
    /// The client was closed.
    Closed,
}

/// One place for a tunnel: a client has some per path, and keeps a tunnel up in each.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TunnelPlace {
    /// Over which path.
    pub path: Arc<Path>,
    /// The tunnel that is up, as the figures of the session name it.
    pub tunnel: Option<TunnelId>,
    /// The address that it leads to, while it is up.
    pub remote: Option<SocketAddr>,
}
