//! Errors that say whose fault and how far.

use crate::id::{ConnectionId, TunnelId};
use crate::packet::DecodeError;

/// How far an error reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This tunnel ends; what it held is resent on the others.
    Tunnel,
    /// The session ends, and all its connections with it. Never another session.
    Session,
}

/// What the other end did wrong on a tunnel. [`scope`](Self::scope) says how far it reaches.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TunnelError {
    /// The bytes are not packets: the carrier damaged them, or the other end does not speak gkd.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The tunnel is not (or no longer) one of this session; bytes from it are not read.
    #[error("tunnel {0} is not up")]
    NotUp(TunnelId),
    /// The other end broke a rule of the protocol; the session is closed and says so to the other end.
    #[error(transparent)]
    Violation(#[from] Violation),
}

impl TunnelError {
    /// How far the error reaches.
    pub fn scope(&self) -> Scope {
        match self {
            Self::Decode(_) | Self::NotUp(_) => Scope::Tunnel,
            Self::Violation(_) => Scope::Session,
        }
    }
}

/// A rule of the protocol that the other end broke. Ends the session: its accounts cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// An acknowledgement above what was sent.
    #[error("it acknowledges {count} packets of tunnel {tunnel}, which sent {sent}")]
    AckBeyondSent {
        /// The tunnel.
        tunnel: TunnelId,
        /// The count that it tells.
        count: u64,
        /// What was sent.
        sent: u64,
    },
    /// A tunnel id that was never used.
    #[error("it speaks of tunnel {0}, which never was")]
    NoSuchTunnel(TunnelId),
    /// Two different frozen counts for one dead tunnel.
    #[error("it tells two different counts of the dead tunnel {0}")]
    GoneTwice(TunnelId),
    /// Data or numbers beyond the credit that was granted.
    #[error("connection {connection} was charged {charged}, its credit is {granted}")]
    BeyondCredit {
        /// The connection.
        connection: ConnectionId,
        /// The charge that its packets imply.
        charged: u64,
        /// What was granted.
        granted: u64,
    },
    /// All connections together exceed the session's credit.
    #[error("the session was charged {charged}, its credit is {granted}")]
    BeyondSessionCredit {
        /// The charge that all packets imply.
        charged: u64,
        /// What was granted.
        granted: u64,
    },
    /// A Blocked that names a total that was never granted.
    #[error("it waits at a credit of {total}, granted was {granted}")]
    BlockedBeyondCredit {
        /// The total that it names.
        total: u64,
        /// What was granted.
        granted: u64,
    },
    /// Different content under one packet number.
    #[error("connection {0} carries different content under one packet number")]
    DifferentContent(ConnectionId),
    /// Data behind the Finish, or two different Finishes.
    #[error("connection {0} goes on behind its own end")]
    BehindFinish(ConnectionId),
    /// More connections are open than this end said that it takes.
    #[error("it opened far more connections than the {0} that it may")]
    TooManyConnections(u64),
    /// A Reset with a total that is below what arrived or above the credit.
    #[error("connection {connection} was reset at a total of {total}, arrived {arrived}, granted {granted}")]
    WrongTotal {
        /// The connection.
        connection: ConnectionId,
        /// The total that it tells.
        total: u64,
        /// The charge that arrived.
        arrived: u64,
        /// What was granted.
        granted: u64,
    },
    /// A connection that the other end cannot have opened: an id of this end that was never used.
    #[error("connection {0} was never opened")]
    NeverOpened(ConnectionId),
    /// A Connect for an id of this end, or a Connected for one of the other's.
    #[error("connection {0} is opened, or answered, by the wrong end")]
    WrongSide(ConnectionId),
    /// More ids below the highest are unused than may be.
    #[error("it skips more than {0} ids")]
    TooManyGaps(usize),
    /// More tunnels are dead and unsettled than may be.
    #[error("more than {0} dead tunnels are unsettled")]
    TooManyDeadTunnels(usize),
}

/// Why a tunnel was not let into a session by a Welcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WelcomeError {
    /// Another start of the server answered, or it made the session anew because it had expired. While another tunnel
    /// of the session still answers, only this tunnel is to be closed; when none does, the session is lost:
    /// [`Session::lose`](crate::Session::lose).
    #[error(
        "the session that answered is another: the server was restarted, the session had expired, or a balancer went astray"
    )]
    OtherBoot,
    /// The tunnel was named dead by the server before its Welcome came.
    #[error("tunnel {0} is dead at the server")]
    Dead(TunnelId),
    /// The server speaks another version.
    #[error("the server answered in version {0} of the protocol")]
    Version(u64),
    /// What the Welcome says of dead tunnels breaks a rule; the session is closed.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// Why no further tunnel can be dialled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialTunnelError {
    /// The session has as many as it may.
    #[error("the session has {0} tunnels, the most that it may")]
    TooMany(usize),
    /// The session has ended.
    #[error("the session has ended")]
    Closed,
}

/// Why no connection was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The session has ended.
    #[error("the session has ended")]
    Closed,
    /// One of the ends takes no new connections any more.
    #[error("the session drains: live connections finish, new ones are not taken")]
    Draining,
    /// The other end takes no more at a time; try again when some have ended.
    #[error("{0} connections are open, the most that the other end takes")]
    TooMany(u64),
    /// Too many Connects are unacknowledged; try again when some are.
    #[error("{0} connections were opened that the other end has not acknowledged yet")]
    TooManyUnacknowledged(usize),
    /// The destination is longer than [`MAX_DESTINATION`](crate::packet::MAX_DESTINATION).
    #[error("a destination of {0} bytes is too long")]
    DestinationTooLong(usize),
}

/// Why bytes were not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The session has ended.
    #[error("the session has ended")]
    Closed,
    /// This direction was finished by this end.
    #[error("this direction of the connection is finished")]
    Finished,
}
