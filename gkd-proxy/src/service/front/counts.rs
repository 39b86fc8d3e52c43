//! What a front counts for the status.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Counters of a front.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) accepted: Counter,
    pub(super) requests: Counter,
    pub(super) full: Counter,
    pub(super) full_of_address: Counter,
    pub(super) handshakes: Counter,
    pub(super) heads: Counter,
    pub(super) bodies: Counter,
    pub(super) rate: Counter,
    pub(super) silent: Counter,
    pub(super) abandoned: Counter,
}

/// One of them.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a front has done since it was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct FrontStatus {
    /// Connections that there are.
    pub connections: usize,
    /// Connections that there were, with those that were refused.
    pub accepted: u64,
    /// Requests, with those that were refused.
    pub requests: u64,
    /// What was refused.
    pub refused: Refused,
    /// Lines of the access log that were dropped, because whatever reads it is too slow.
    pub log_dropped: u64,
}

/// What a front has refused, by the limit that did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Refused {
    /// Connections above all that there may be.
    pub connections: u64,
    /// Connections above those of one address.
    pub connections_per_address: u64,
    /// Connections whose PROXY header or TLS failed, or that did not come to HTTP in time.
    pub handshakes: u64,
    /// Requests whose head breaks a rule, is too large or took too long, or that have no host.
    pub heads: u64,
    /// Requests whose body breaks a rule, is too large or fell silent.
    pub bodies: u64,
    /// Requests above the rate of their address.
    pub rate: u64,
    /// Answers that their client stopped to read.
    pub silent: u64,
    /// Connections that gave up too many requests.
    pub abandoned: u64,
}

impl Counts {
    pub(super) fn status(&self, connections: usize, log_dropped: u64) -> FrontStatus {
        FrontStatus {
            connections,
            accepted: self.accepted.get(),
            requests: self.requests.get(),
            refused: Refused {
                connections: self.full.get(),
                connections_per_address: self.full_of_address.get(),
                handshakes: self.handshakes.get(),
                heads: self.heads.get(),
                bodies: self.bodies.get(),
                rate: self.rate.get(),
                silent: self.silent.get(),
                abandoned: self.abandoned.get(),
            },
            log_dropped,
        }
    }
}
