//! Limits and windows of a session. Each field says its trade-off, its bound and its default.

use std::time::Duration;

use crate::handshake::{MIN_WINDOW, Parameters};
use crate::packet::MAX_PAYLOAD;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// How a [`Session`](crate::Session) behaves. Shared by many sessions.
///
/// [`SessionConfig::default`] suits a proxy; [`SessionConfig::clamped`] brings every field within its bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Credit that every connection begins with, in charge. A larger one fills a long line sooner; a
    /// smaller one holds less for a reader that stops. At least 256 KiB; default 1 MiB.
    pub connection_window: u64,
    /// The most that a connection's window grows to, in charge. It bounds what one connection can hold at
    /// this end: at least rate times round trip of the fastest line that is to be filled. Default 64 MiB.
    pub max_connection_window: u64,
    /// Credit that the session begins with, in charge. Default 4 MiB.
    pub session_window: u64,
    /// The most that the session's window grows to, in charge: what all of its connections together can
    /// hold at this end. Default twice `max_connection_window`.
    pub max_session_window: u64,
    /// How many live connections the other end may have opened at a time. Default 16,384.
    pub max_connections: u64,
    /// How many tunnels the session may have at a time. Default 64 with room for as many that are being
    /// replaced.
    pub max_tunnels: usize,
    /// What a connection accepts from its writer beyond what its packets hold, in bytes, as long as the
    /// session is within its `send_queue`. Default 256 KiB.
    pub send_buffer: u64,
    /// What all connections together may have accepted and not yet numbered, in bytes. The nearer they come
    /// to it, the less does each accept. Default 64 MiB.
    pub send_queue: u64,
    /// The most bytes that may be unacknowledged at a time. A peer that reads and grants but does not
    /// acknowledge makes writers wait at this bound. Default 128 MiB. A packet may keep eight times its size, of what the
    /// program wrote at once: as much as that only if the rest of it is acknowledged.
    pub send_budget: u64,
    /// The most packets that may be unacknowledged at a time. Default 262,144.
    pub send_budget_packets: usize,
    /// How long the session lives on when it has no tunnel. Default 60 s.
    pub resume_for: Duration,
    /// How long a tunnel may be silent while it owes an answer, or its count stand still while it answers,
    /// before it is dropped. Default 20 s.
    pub silent_for: Duration,
    /// How often a tunnel on which nothing arrives is pinged. Default 15 s.
    pub ping_every: Duration,
    /// How long connections that nobody reads may block their whole session, before the one of them that holds
    /// most is reset. Default 30 s.
    pub blocked_for: Duration,
    /// How long a connection stays open of which one direction has ended and the other is idle. Default 1 h.
    pub half_closed_for: Duration,
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            connection_window: MIB,
            max_connection_window: 64 * MIB,
            session_window: 4 * MIB,
            max_session_window: 128 * MIB,
            max_connections: 16_384,
            max_tunnels: 128,
            send_buffer: 256 * KIB,
            send_queue: 64 * MIB,
            send_budget: 128 * MIB,
            send_budget_packets: 262_144,
            resume_for: Duration::from_secs(60),
            silent_for: Duration::from_secs(20),
            ping_every: Duration::from_secs(15),
            blocked_for: Duration::from_secs(30),
            half_closed_for: Duration::from_secs(3600),
        }
    }
}

impl SessionConfig {
    /// The same with every field within its bound.
    pub fn clamped(mut self) -> Self {
        self.connection_window = self.connection_window.clamp(MIN_WINDOW, 1024 * MIB);
        self.max_connection_window = self.max_connection_window.clamp(self.connection_window, 1024 * MIB);
        self.session_window = self.session_window.clamp(self.connection_window, 4096 * MIB);
        self.max_session_window = self.max_session_window.clamp(self.session_window, 4096 * MIB);
        self.max_connections = self.max_connections.clamp(1, 1 << 20);
        self.max_tunnels = self.max_tunnels.clamp(1, 1024);
        self.send_buffer = self.send_buffer.clamp(4 * KIB, 64 * MIB);
        self.send_queue = self.send_queue.clamp(self.send_buffer, 4096 * MIB);
        self.send_budget = self.send_budget.clamp(MIB, 4096 * MIB);
        self.send_budget_packets = self.send_budget_packets.clamp(1024, 1 << 24);
        self
    }

    /// What a session needs of a [`MemoryBudget`](crate::MemoryBudget) to begin, in bytes: its first window.
    pub fn least_memory(&self) -> u64 {
        self.clone().clamped().session_window
    }

    /// What a Hello or Welcome tells of this.
    pub fn parameters(&self) -> Parameters {
        Parameters {
            connection_window: self.connection_window,
            session_window: self.session_window,
            max_payload: MAX_PAYLOAD as u64,
            max_connections: self.max_connections,
        }
    }
}
