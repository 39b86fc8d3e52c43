//! Figures of a server as a whole ([`ServerStats`]): how much is used of what it has for all peers, and how often a limit
//! was met. Those of one session are [`SessionHandle::stats`](crate::SessionHandle::stats).

use std::sync::atomic::{AtomicU64, Ordering};

use gkd_proto::handshake::RejectCode;

use super::Inner;

/// Figures of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Sessions of all peers.
    pub sessions: Usage,
    /// Tunnels of all sessions.
    pub tunnels: Usage,
    /// Connections that have not proved a key yet.
    pub half_open: Usage,
    /// Connections of the site's visitors.
    pub visitors: Usage,
    /// What all sessions hold and promise, in bytes.
    pub memory: Usage,
    /// Half-open connections that had to give way to others, since the start.
    pub evicted: u64,
    /// Visitors that had to give way to others, since the start.
    pub visitors_evicted: u64,
    /// Tunnels that were rejected because their key is no user's, since the start.
    pub rejected_unknown: u64,
    /// Tunnels that were rejected because a limit was met, since the start.
    pub rejected_busy: u64,
    /// Tunnels that were rejected for another reason, since the start: another version, or a session that had ended.
    pub rejected_other: u64,
}

/// How much is used of what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// So much is.
    pub used: u64,
    /// So much may be.
    pub most: u64,
}

impl Usage {
    /// So many of so many.
    pub fn of(used: usize, most: usize) -> Self {
        let wide = |number| u64::try_from(number).unwrap_or(u64::MAX);
        Self { used: wide(used), most: wide(most) }
    }
}

/// Tunnels that were not let in, counted where they are told so.
#[derive(Debug, Default)]
pub(super) struct Rejected {
    unknown: AtomicU64,
    busy: AtomicU64,
    other: AtomicU64,
}

impl Rejected {
    /// One more.
    pub(super) fn note(&self, code: RejectCode) {
        let counter = match code {
            RejectCode::UnknownUser => &self.unknown,
            RejectCode::Busy => &self.busy,
            _ => &self.other,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Inner {
    pub(super) fn stats(&self) -> ServerStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ServerStats {
            sessions: Usage::of(self.registry.count(), self.max_sessions),
            tunnels: Usage::of(self.tunnels.taken(), self.tunnels.most()),
            half_open: Usage::of(self.half_open.count(), self.half_open.most()),
            visitors: Usage::of(self.visitors.count(), self.visitors.most()),
            memory: Usage { used: self.memory.reserved(), most: self.memory.limit() },
            evicted: self.half_open.evicted(),
            visitors_evicted: self.visitors.evicted(),
            rejected_unknown: count(&self.rejected.unknown),
            rejected_busy: count(&self.rejected.busy),
            rejected_other: count(&self.rejected.other),
        }
    }
}
