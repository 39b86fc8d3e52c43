//! What each peer may do at the end that dials, as it stands at this moment: [`Policy`], and for one peer its [`Judge`].

use std::collections::HashMap;
use std::future::pending;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use gkd_core::proto::id::PeerId;
use tokio::sync::watch;

use crate::rate::Rate;
use crate::rules::{Denial, Rules};

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

/// Judges what one peer wants to reach, by the rules in force at each moment. Cheap: it looks its peer up again only when
/// the policy was changed.
#[derive(Clone, Debug)]
pub struct Judge {
    policy: watch::Receiver<Arc<Policy>>,
    peer: PeerId,
    /// Those of the policy that was seen last.
    terms: Arc<Terms>,
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

impl Judge {
    pub(crate) fn new(mut policy: watch::Receiver<Arc<Policy>>, peer: PeerId) -> Self {
        let terms = policy.borrow_and_update().of(peer).clone();
        Self { policy, peer, terms }
    }

    /// The terms in force.
    pub fn terms(&mut self) -> &Arc<Terms> {
        // An error says that nobody is left who could change them.
        if self.policy.has_changed().unwrap_or(false) {
            self.terms = self.policy.borrow_and_update().of(self.peer).clone();
        }
        &self.terms
    }

    /// Whether this address may be reached now, to which a program's `name` led; none where it gave the address itself.
    pub fn check(&mut self, name: Option<&str>, addr: SocketAddr) -> Result<(), Denial> {
        self.terms().rules.check(name, addr)
    }

    /// Whether the Unix socket of this path may be reached now.
    pub fn check_path(&mut self, path: &Path) -> Result<(), Denial> {
        self.terms().rules.check_path(path)
    }

    /// Waits until other terms are in force than those that were seen last; for ever when nobody is left who could change
    /// them. Cancel safe.
    pub async fn changed(&mut self) {
        if self.policy.changed().await.is_err() {
            pending().await
        }
        self.terms = self.policy.borrow_and_update().of(self.peer).clone();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::rules::parse_range;

    const ANN: PeerId = PeerId([1; 32]);
    const BOB: PeerId = PeerId([2; 32]);

    fn terms(range: &str) -> Terms {
        Terms { rules: Arc::new(Rules::allow([parse_range(range).unwrap()])), ..Terms::default() }
    }

    #[tokio::test]
    async fn each_peer_is_judged_by_its_own_rules_and_sees_every_change() {
        let policy = Policy::new(Terms { rules: Arc::new(Rules::none()), ..Terms::default() });
        let sender = watch::Sender::new(Arc::new(policy.clone().with(ANN, terms("10.0.0.0/8"))));
        let judge = |peer| Judge::new(sender.subscribe(), peer);
        let (mut ann, mut bob) = (judge(ANN), judge(BOB));
        let addr = "10.0.0.1:80".parse().unwrap();
        assert_eq!(ann.check(None, addr), Ok(()));
        assert_eq!(bob.check(None, addr), Err(Denial::Rule(1)));
        assert!(ann.changed().now_or_never().is_none());

        sender.send_replace(Arc::new(policy.clone().with(BOB, terms("10.0.0.1"))));
        assert_eq!(ann.changed().now_or_never(), Some(()));
        assert_eq!(ann.check(None, addr), Err(Denial::Rule(1)));
        assert_eq!(bob.check(None, addr), Ok(()), "a check takes the change up by itself");
        assert!(bob.changed().now_or_never().is_none(), "which was seen then");

        drop(sender);
        assert!(bob.changed().now_or_never().is_none());
        assert_eq!(bob.check(None, addr), Ok(()), "the last word stays");
    }
}
