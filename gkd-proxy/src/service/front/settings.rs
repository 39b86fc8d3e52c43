//! What a front is told that may change while it runs ([`Settings`]).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::service::config::{AccessLog, FrontLimits, HttpConfig};
use crate::slots::Slots;

/// How many connections may be in what comes ahead of HTTP; at the bound the oldest gives way.
const MAX_HANDSHAKES: usize = 1024;

/// What a connection is held to, from its begin to its end.
pub(super) struct Settings {
    pub(super) limits: FrontLimits,
    trusted: Vec<IpNet>,
    proxy_header: bool,
    pub(super) access_log: AccessLog,
    /// For what comes ahead of HTTP.
    pub(super) slots: Arc<Slots>,
}

impl Settings {
    pub(super) fn new(config: &HttpConfig) -> Self {
        Self {
            limits: config.limits,
            trusted: config.trusted.clone(),
            proxy_header: config.proxy_header,
            access_log: config.access_log,
            slots: Slots::new(MAX_HANDSHAKES, config.limits.head),
        }
    }

    /// Whether this peer's word about its clients is taken.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted.iter().any(|net| net.contains(&peer))
    }

    /// Whether the connections of this peer begin with a PROXY header.
    pub(super) fn expects_proxy_header(&self, peer: IpAddr) -> bool {
        self.proxy_header && self.trusts(peer)
    }

    pub(super) fn is_logged(&self) -> bool {
        self.access_log != AccessLog::Off
    }
}
