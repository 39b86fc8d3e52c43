//! What each peer may do at the end that dials: [`Policy`]. Which one holds at a moment, and who has to hear of another, is in
//! `in_force`.

mod in_force;

use std::collections::HashMap;
use std::sync::Arc;

use gkd_core::proto::id::PeerId;

use crate::rate::Rate;
use crate::rules::Rules;

pub(crate) use in_force::{InForce, Seen};

/// What one peer may do.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// What it is called in the log, if anything.
    pub name: Option<Box<str>>,
    /// What it may reach.
    pub rules: Arc<Rules>,
    /// How many bytes a second it may move, where that is bounded or may come to be: connections keep the one that they
    /// began with.
    pub rate: Option<Arc<Rate>>,
}

/// The terms of all peers. Swapped as a whole, so that nobody ever sees half of it.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    others: Arc<Terms>,
    peers: HashMap<PeerId, Arc<Terms>>,
}

impl Policy {
    /// One for peers of which none stands out.
    pub fn new(others: Terms) -> Self {
        Self { others: Arc::new(others), peers: HashMap::new() }
    }

    /// The same, with terms for one peer.
    pub fn with(mut self, peer: PeerId, terms: Terms) -> Self {
        self.peers.insert(peer, Arc::new(terms));
        self
    }

    /// The terms of a peer.
    pub fn of(&self, peer: PeerId) -> &Arc<Terms> {
        self.peers.get(&peer).unwrap_or(&self.others)
    }
}

/// The same rules for all.
impl From<Arc<Rules>> for Policy {
    fn from(rules: Arc<Rules>) -> Self {
        Self::new(Terms { rules, ..Terms::default() })
    }
}

/// The same rules for all.
impl From<Rules> for Policy {
    fn from(rules: Rules) -> Self {
        Arc::new(rules).into()
    }
}
