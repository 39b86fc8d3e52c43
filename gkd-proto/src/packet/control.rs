//! What keeps a session going: credit, acknowledgement, liveness, and the ends of things.

use std::fmt;

use bytes::BytesMut;

use super::header::{self, kind};
use super::{Body, MAX_REASON, cut_reason, put_numbers, put_reason, reason};
use crate::id::{ConnectionId, TunnelId};
use crate::varint;

/// Whose credit a [`Credit`] or [`Blocked`] speaks of. On the wire the session is connection 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// That of the whole session.
    Session,
    /// That of one connection.
    Connection(ConnectionId),
}

impl Account {
    fn id(self) -> u64 {
        match self {
            Self::Session => 0,
            Self::Connection(connection) => connection.0,
        }
    }

    fn from_id(id: u64) -> Self {
        if id == 0 { Self::Session } else { Self::Connection(ConnectionId(id)) }
    }
}

/// Grants credit: how much charge the other end may have sent in all. Absolute, so that order does not
/// matter and a duplicate is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credit {
    /// Whose credit.
    pub account: Account,
    /// The total charge that may be sent, since the beginning.
    pub total: u64,
}

impl Credit {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_numbers(out, kind::CREDIT, [self.account.id(), self.total]);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        Some(Self { account: Account::from_id(body.number()?), total: body.number()? })
    }
}

/// Tells that a sender with a backlog will soon wait, or waits, for credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Whose credit is short.
    pub account: Account,
    /// The total at which the sender waits: the last one granted to it.
    pub total: u64,
}

impl Blocked {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_numbers(out, kind::BLOCKED, [self.account.id(), self.total]);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        Some(Self { account: Account::from_id(body.number()?), total: body.number()? })
    }
}

/// Ends a connection at once, in both directions. Answered by a Reset with the other direction's total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// The connection.
    pub connection: ConnectionId,
    /// Why.
    pub code: ResetCode,
    /// What the sender of this packet charged to the connection in its own direction, in all.
    pub total: u64,
}

impl Reset {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_numbers(out, kind::RESET, [self.connection.0, self.code.0, self.total]);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        Some(Self {
            connection: ConnectionId(body.number()?),
            code: ResetCode(body.number()?),
            total: body.number()?,
        })
    }
}

/// Why a connection was reset. Open to later codes, so a number with names for the known ones.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ResetCode(pub u64);

impl ResetCode {
    /// The program at one end dropped the connection or reset it.
    pub const APPLICATION: Self = Self(0);
    /// The stream behind it (the program's or the destination's) was reset.
    pub const STREAM: Self = Self(1);
    /// The destination could not be reached; a Connected with the error came before.
    pub const DIAL: Self = Self(2);
    /// It could not be kept: too many connections, or the end is going down.
    pub const BUSY: Self = Self(3);
    /// Nobody reads any more, and data arrived.
    pub const NO_READER: Self = Self(4);
    /// It stood idle, or blocked its session, for too long.
    pub const TIMED_OUT: Self = Self(5);
    /// The session ended.
    pub const SESSION: Self = Self(6);
    /// The rules do not allow it (any more).
    pub const DENIED: Self = Self(7);
}

impl fmt::Display for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::APPLICATION => "reset by the program",
            Self::STREAM => "the stream behind it was reset",
            Self::DIAL => "the destination was not reached",
            Self::BUSY => "the other end takes no more connections",
            Self::NO_READER => "nobody reads at the other end",
            Self::TIMED_OUT => "it stood still for too long",
            Self::SESSION => "the session ended",
            Self::DENIED => "not allowed by the rules",
            Self(code) => return write!(f, "reset code {code}"),
        })
    }
}

impl fmt::Debug for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResetCode({}: {self})", self.0)
    }
}

/// A tunnel is dead at the sender of this packet, which took so many counted packets from it and will
/// take no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The dead tunnel.
    pub tunnel: TunnelId,
    /// Its frozen count.
    pub count: u64,
}

impl Gone {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_numbers(out, kind::GONE, [self.tunnel.0, self.count]);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        Some(Self { tunnel: TunnelId(body.number()?), count: body.number()? })
    }
}

/// No more counted packets will be sent on this tunnel; it may be closed once it is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leave {
    /// The tunnel.
    pub tunnel: TunnelId,
}

impl Leave {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_numbers(out, kind::LEAVE, [self.tunnel.0]);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        Some(Self { tunnel: TunnelId(body.number()?) })
    }
}

/// The sender takes no new connections; live ones finish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Why: a number that is shown to people.
    pub reason: u64,
}

impl Drain {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_numbers(out, kind::DRAIN, [self.reason]);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        Some(Self { reason: body.number()? })
    }
}

/// How many counted packets of a tunnel were received, cumulatively. May travel on any tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The tunnel that is acknowledged.
    pub tunnel: TunnelId,
    /// Counted packets received on it since it came up.
    pub count: u64,
    /// How long the last of them had waited when this was written, in microseconds, so that the sender can
    /// take the wait out of its round trip.
    pub delay: u64,
}

impl Ack {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_numbers(out, kind::ACK, [self.tunnel.0, self.count, self.delay]);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        Some(Self { tunnel: TunnelId(body.number()?), count: body.number()?, delay: body.number()? })
    }
}

/// Asks for a [`Pong`] on the same tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Comes back in the Pong. Of several Pings that wait for an answer only the last is answered.
    pub token: u64,
}

impl Ping {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_numbers(out, kind::PING, [self.token]);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        Some(Self { token: body.number()? })
    }
}

/// Answers a [`Ping`] on its tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pong {
    /// That of the Ping.
    pub token: u64,
    /// Counted packets received on this tunnel, as in [`Ack`].
    pub count: u64,
}

impl Pong {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_numbers(out, kind::PONG, [self.token, self.count]);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        Some(Self { token: body.number()?, count: body.number()? })
    }
}

/// The session ends. Sent on every tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Close {
    /// Why.
    pub code: CloseCode,
    /// Why, in words; at most [`MAX_REASON`](super::MAX_REASON) bytes travel.
    pub reason: String,
}

impl Close {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let reason = cut_reason(&self.reason);
        let len = varint::len(self.code.0) + varint::len(reason.len() as u64) + reason.len();
        header::put(out, kind::CLOSE, len);
        varint::put(out, self.code.0);
        put_reason(out, reason);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        Some(Self { code: CloseCode(body.number()?), reason: reason(&body.bytes(MAX_REASON)?) })
    }
}

/// Why a session ended. Open to later codes, so a number with names for the known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u64);

impl CloseCode {
    /// The program at one end is done.
    pub const DONE: Self = Self(0);
    /// The other end broke a rule of the protocol.
    pub const PROTOCOL: Self = Self(1);
    /// The user was removed, or got a new key.
    pub const REVOKED: Self = Self(2);
    /// The end is going down.
    pub const GOING_DOWN: Self = Self(3);
    /// A limit was met.
    pub const LIMIT: Self = Self(4);
    /// A fault of the end itself.
    pub const INTERNAL: Self = Self(5);
}
