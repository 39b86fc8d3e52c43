//! How services and targets are, for people and programs.

use serde::{Deserialize, Serialize};

use crate::service::pool::Seen;

/// A service.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ServiceStatus {
    /// Its name.
    pub service: String,
    /// The hosts that it is asked for by.
    pub hosts: Vec<String>,
    /// The paths below them.
    pub paths: Vec<String>,
    /// Who answers for it.
    pub targets: Vec<TargetStatus>,
}

/// A target of a service.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
#[non_exhaustive]
pub struct TargetStatus {
    /// What it is.
    pub target: String,
    /// The user whose client announced it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Whether it gets requests.
    pub healthy: bool,
    /// Its part of the requests, beside those of the others.
    pub weight: u32,
    /// How much of its weight it has: 1 unless it has just come back.
    pub share: f64,
    /// Requests that are running.
    pub outstanding: u32,
    /// Requests so far.
    pub requests: u64,
    /// How many of them failed.
    pub failures: u64,
    /// How many failed in a row up to now.
    pub failures_in_a_row: u32,
}

impl TargetStatus {
    pub(super) fn of(seen: &Seen) -> Self {
        let (requests, failures) = seen.target.counts();
        Self {
            target: seen.target.name().to_string(),
            user: seen.target.user().map(ToString::to_string),
            healthy: seen.state.healthy,
            weight: seen.weight,
            share: seen.state.share,
            outstanding: seen.state.outstanding,
            requests,
            failures,
            failures_in_a_row: seen.state.failures,
        }
    }
}
