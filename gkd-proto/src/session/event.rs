//! What a session tells its driver.

use bytes::Bytes;

use crate::error::Violation;
use crate::id::{ConnectionId, TunnelId};
use crate::packet::{CloseCode, DialError, ResetCode};

/// Something that a driver wants to know. At most one of each kind is queued for a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The other end opened a connection. Answer with
    /// [`ConnectionMut::connected`](crate::ConnectionMut::connected).
    Accepted {
        /// The connection.
        connection: ConnectionId,
        /// Where it is to lead; empty for "whoever accepts".
        destination: Bytes,
    },
    /// The other end reached the destination of a connection that this end opened, or did not.
    Connected {
        /// The connection.
        connection: ConnectionId,
        /// Whether, and why not.
        result: Result<(), DialError>,
    },
    /// After a read that found nothing: there is something to read, or the end.
    Readable {
        /// The connection.
        connection: ConnectionId,
    },
    /// After a write that was not accepted whole: more will be accepted.
    Writable {
        /// The connection.
        connection: ConnectionId,
    },
    /// A finished direction of this end is acknowledged whole: the other end holds all of it.
    Acknowledged {
        /// The connection.
        connection: ConnectionId,
    },
    /// The connection was reset by the other end, or by this session itself. Nothing more can be read or
    /// written, and the id is no longer known.
    Reset {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        code: ResetCode,
    },
    /// After a look that found none: a datagram can be taken.
    Datagram {
        /// The connection.
        connection: ConnectionId,
    },
    /// Close this tunnel's carrier, then call
    /// [`Session::handle_tunnel_down`](crate::Session::handle_tunnel_down).
    DropTunnel {
        /// The tunnel.
        tunnel: TunnelId,
        /// Why.
        reason: DropReason,
    },
    /// Client: nothing comes on any tunnel, although all owe an answer. A fresh tunnel may get through where these
    /// do not: dial one now. Comes again every 2 s while that lasts; not when no tunnel is up.
    Stalled,
    /// The other end takes no new connections.
    Draining {
        /// Why: a number that is shown to people.
        reason: u64,
    },
    /// After [`Session::drain`](crate::Session::drain): no connection is left.
    Drained,
    /// The session has ended: every connection with it. No event follows but `DropTunnel`.
    Closed {
        /// Why.
        cause: CloseCause,
    },
}

/// Why a tunnel is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// It was silent, or did not acknowledge, for too long.
    Silent,
    /// The other end counts it as dead.
    Named,
    /// It was retired, and everything on it is settled.
    Settled,
    /// The session ended, and has told so on this tunnel.
    SessionEnded,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseCause {
    /// [`Session::close`](crate::Session::close) was called.
    Local,
    /// The other end closed it.
    Remote {
        /// Why.
        code: CloseCode,
        /// Why, in its words: escape them before they reach a terminal.
        reason: String,
    },
    /// The other end broke a rule of the protocol.
    Violation(Violation),
    /// It had no tunnel for as long as it may.
    Expired,
    /// The server does not know it any more.
    Lost,
}
