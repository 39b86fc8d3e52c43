//! Who may come in and what they may reach, as it stands at this moment ([`Access`]). Both are swapped whole when the
//! configuration is read anew, so that nobody ever sees half of them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use gkd_core::fair_limit::FairLimit;
use gkd_core::identity::{PublicKey, public_text};
use gkd_core::proto::handshake::{Reject, RejectCode};
use gkd_core::proto::packet::CloseCode;
use gkd_core::{Admission, Server, SessionHandle};
use gkd_proxy::{Dialer, Exit, Rules};
use ipnet::IpNet;

use crate::config::{Config, User};
use crate::users::UserName;

/// How often it is logged that strangers knock, at the most.
const STRANGERS_EVERY: Duration = Duration::from_secs(10);

/// Users and rules of a running server.
pub(crate) struct Access {
    users: RwLock<Arc<Users>>,
    exit: Arc<Exit>,
    reach: Mutex<Reach>,
    strangers: Mutex<Strangers>,
}

type Users = HashMap<PublicKey, UserName>;

/// What the rules are made of.
struct Reach {
    /// By flag or environment, for as long as the process runs.
    always: Vec<IpNet>,
    /// By the file.
    allow: Vec<IpNet>,
    /// Addresses at which the server is known outside, although no interface has them.
    own: Vec<IpAddr>,
}

/// Rejected keys since the last line of the log.
#[derive(Default)]
struct Strangers {
    logged: Option<Instant>,
    kept_back: u64,
}

impl Access {
    /// `always` is allowed whatever the file says later; what the configuration allows, until it says otherwise.
    /// So many `destinations` may be open at a time.
    pub(crate) fn new(config: &Config, always: Vec<IpNet>, own: Vec<IpAddr>, destinations: usize) -> Self {
        let reach = Reach { always, allow: config.allow.clone(), own };
        let dialer = Dialer::new(reach.rules()).with_timeout(config.timeouts.dial);
        let exit = Exit::new(dialer, config.timeouts.relay()).within(FairLimit::new(destinations));
        Self {
            users: RwLock::new(Arc::new(by_key(&config.users))),
            exit: Arc::new(exit.measured(config.bench)),
            reach: Mutex::new(reach),
            strangers: Mutex::default(),
        }
    }

    /// What connections are served with.
    pub(crate) fn exit(&self) -> Arc<Exit> {
        self.exit.clone()
    }

    /// How many users there are.
    pub(crate) fn user_count(&self) -> usize {
        self.users().len()
    }

    /// The name of a user.
    pub(crate) fn name(&self, key: &PublicKey) -> Option<UserName> {
        self.users().get(key).cloned()
    }

    /// All users.
    pub(crate) fn all_users(&self) -> Vec<(PublicKey, UserName)> {
        self.users().iter().map(|(key, name)| (*key, name.clone())).collect()
    }

    fn users(&self) -> Arc<Users> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Decides whether a peer comes in. Unknown and removed users get the same answer.
    pub(crate) fn admit(&self, peer: &PublicKey) -> Result<Admission, Reject> {
        if self.users().contains_key(peer) {
            return Ok(Admission::default());
        }
        self.note_stranger(peer);
        Err(Reject::new(RejectCode::UnknownUser))
    }

    fn note_stranger(&self, peer: &PublicKey) {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.logged.is_some_and(|logged| logged.elapsed() < STRANGERS_EVERY) {
            strangers.kept_back += 1;
            return;
        }
        let before =
            std::mem::replace(&mut *strangers, Strangers { logged: Some(Instant::now()), kept_back: 0 });
        drop(strangers);
        let key = public_text(peer);
        match before.kept_back {
            0 => tracing::info!(key, "rejected: the key is no user's"),
            more => tracing::info!(key, "rejected: the key is no user's ({more} such tunnels before it)"),
        }
    }

    /// Takes users and allowed destinations of a configuration that was read anew. Connections to what is not
    /// allowed any more are reset. Sessions of users who are gone, or have another key, end: how many.
    pub(crate) fn replace(&self, users: &[User], allow: Vec<IpNet>, server: &Server) -> usize {
        self.change_reach(|reach| reach.allow = allow);
        let users = Arc::new(by_key(users));
        let before = std::mem::replace(
            &mut *self.users.write().unwrap_or_else(PoisonError::into_inner),
            users.clone(),
        );
        let gone = before.keys().filter(|key| !users.contains_key(*key));
        let sessions: Vec<_> = gone.flat_map(|key| server.sessions_of(key)).collect();
        for session in &sessions {
            session.close(CloseCode::REVOKED, "");
        }
        sessions.len()
    }

    /// Adds addresses at which the server itself is known.
    pub(crate) fn add_own(&self, own: impl IntoIterator<Item = IpAddr>) {
        self.change_reach(|reach| reach.own.extend(own));
    }

    fn change_reach(&self, change: impl FnOnce(&mut Reach)) {
        let mut reach = self.reach.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut reach);
        self.exit.set_rules(reach.rules());
    }

    /// Logs a session that began, and waits for its end.
    pub(crate) async fn see_to(&self, session: SessionHandle, address: SocketAddr) {
        let Some(user) = self.name(&session.peer()) else {
            // The user was removed between its Hello and this moment.
            session.close(CloseCode::REVOKED, "");
            return;
        };
        tracing::info!(%user, %address, "a session began");
        match session.wait_ended().await {
            Some(end) => tracing::info!(%user, %address, "a session ended: {end}"),
            None => tracing::info!(%user, %address, "a session ended"),
        }
    }
}

impl Reach {
    fn rules(&self) -> Rules {
        Rules::allow(self.always.iter().chain(&self.allow).copied()).with_own(self.own.iter().copied())
    }
}

fn by_key(users: &[User]) -> Users {
    users.iter().map(|user| (user.key, user.name.clone())).collect()
}
