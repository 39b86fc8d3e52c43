//! Who may come in and what they may reach, as it stands at this moment ([`Access`]). Both are swapped whole when the
//! configuration is read anew, so that nobody ever sees half of them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use gkd_core::fair_limit::FairLimit;
use gkd_core::identity::{PublicKey, public_text};
use gkd_core::proto::SessionConfig;
use gkd_core::proto::handshake::{Reject, RejectCode};
use gkd_core::proto::packet::CloseCode;
use gkd_core::{Admission, Server, SessionHandle};
use gkd_proxy::destination::{ListenRequest, Transport};
use gkd_proxy::policy::{Policy, Terms};
use gkd_proxy::rate::Rate;
use gkd_proxy::reverse::{Grants, Registry};
use gkd_proxy::service::announce::{AnnouncedService, Announcements, Announcer, ServiceGrants};
use gkd_proxy::service::config::ServiceNames;
use gkd_proxy::service::name::ServiceName;
use gkd_proxy::{Dialer, Exit, Rules};
use ipnet::IpNet;

use crate::changes::changes;
use crate::config::{Config, User};
use crate::users::UserName;

/// How often it is logged that strangers knock, at the most.
const STRANGERS_EVERY: Duration = Duration::from_secs(10);

/// Users and rules of a running server.
pub(crate) struct Access {
    users: Arc<RwLock<Arc<Users>>>,
    /// Limits and windows of sessions, where a user has no others.
    session: SessionConfig,
    exit: Arc<Exit>,
    registry: Arc<Registry>,
    announcer: Arc<Announcer>,
    reach: Mutex<Reach>,
    strangers: Mutex<Strangers>,
}

type Users = HashMap<PublicKey, Known>;

/// A user, and what its sessions and connections get.
struct Known {
    user: User,
    admission: Admission,
    /// Of all its connections, also of those that run when another is set.
    rate: Arc<Rate>,
}

/// What came of taking a configuration that was read anew.
pub(crate) struct Replaced {
    /// What differs, in words.
    pub(crate) changes: String,
    /// Sessions of removed users that were ended.
    pub(crate) ended: usize,
}

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
    /// So many `destinations` may be open at a time. What clients announce goes to `announcements`.
    pub(crate) fn new(
        config: &Config,
        always: Vec<IpNet>,
        own: Vec<IpAddr>,
        destinations: usize,
        announcements: Arc<dyn Announcements>,
    ) -> Self {
        let reach = Reach { always, allow: config.allow.clone(), own };
        let session = config.session();
        let users = known(&config.users, &Users::new(), &session);
        // By the policy each user has its own rules, and nobody else any.
        let dialer = Dialer::new(Rules::none()).with_timeout(config.timeouts.dial);
        // Whatever holds a descriptor for a user takes a place of it.
        let limit = FairLimit::new(destinations);
        let exit = Exit::new(dialer, config.timeouts.relay()).within(limit.clone());
        exit.set_policy(reach.policy(&users));
        let users = Arc::new(RwLock::new(Arc::new(users)));
        let registry = Registry::new(UserGrants(users.clone()), config.timeouts.listen(), limit);
        let announcer = Announcer::new(UserGrants(users.clone()), announcements);
        let exit = exit.measured(config.bench).listening(registry.clone()).announcing(announcer.clone());
        Self {
            users,
            session,
            exit: Arc::new(exit),
            registry,
            announcer,
            reach: Mutex::new(reach),
            strangers: Mutex::default(),
        }
    }

    /// Ends what would go on for ever: closes the ports that users listen on, and has flows of datagrams end as soon as they
    /// are quiet.
    pub(crate) fn begin_to_end(&self) {
        self.registry.stop();
        self.exit.end_quiet_flows();
    }

    /// Withdraws the services that users announced, for nobody is to be answered any more.
    pub(crate) fn withdraw(&self) {
        self.announcer.stop();
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
        self.users().get(key).map(|known| known.user.name.clone())
    }

    /// The ports that users listen on here: whose, and where.
    pub(crate) fn listeners(&self) -> Vec<(Option<UserName>, Transport, SocketAddr)> {
        let users = self.users();
        let name = |key: &PublicKey| users.get(key).map(|known| known.user.name.clone());
        let all = self.registry.list();
        all.into_iter().map(|(peer, transport, address)| (name(&peer), transport, address)).collect()
    }

    /// The services that users announce: whose, and what each is.
    pub(crate) fn services(&self) -> Vec<(Option<UserName>, AnnouncedService)> {
        let users = self.users();
        let name = |key: &PublicKey| users.get(key).map(|known| known.user.name.clone());
        self.announcer.list().into_iter().map(|service| (name(&service.peer), service)).collect()
    }

    /// All users.
    pub(crate) fn all_users(&self) -> Vec<(PublicKey, UserName)> {
        self.users().iter().map(|(key, known)| (*key, known.user.name.clone())).collect()
    }

    fn users(&self) -> Arc<Users> {
        self.users.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Decides whether a peer comes in. Unknown and removed users get the same answer.
    pub(crate) fn admit(&self, peer: &PublicKey) -> Result<Admission, Reject> {
        if let Some(known) = self.users().get(peer) {
            return Ok(known.admission.clone());
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
    /// allowed any more are reset; rates apply to those that run, other limits to what begins. Sessions of users who
    /// are gone, or have another key, end.
    pub(crate) fn replace(&self, config: &Config, services_differ: bool, server: &Server) -> Replaced {
        let mut reach = self.reach.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.users();
        let after = Arc::new(known(&config.users, &before, &self.session));
        let settings = [("allow", reach.allow != config.allow), ("services", services_differ)];
        let settings = settings.iter().filter(|(_, differs)| *differs).map(|(setting, _)| *setting);
        let changes = changes(&listed(&before), &config.users, &settings.collect::<Vec<_>>());
        reach.allow = config.allow.clone();
        *self.users.write().unwrap_or_else(PoisonError::into_inner) = after.clone();
        let gone = before.keys().filter(|key| !after.contains_key(*key));
        let sessions: Vec<_> = gone.flat_map(|key| server.sessions_of(key)).collect();
        for session in &sessions {
            session.close(CloseCode::REVOKED, "");
        }
        // Behind the end of those sessions: their connections end with them, and not for a rule.
        self.exit.set_policy(reach.policy(&after));
        self.registry.check_again();
        self.announcer.check_again();
        Replaced { changes, ended: sessions.len() }
    }

    /// Adds addresses at which the server itself is known.
    pub(crate) fn add_own(&self, own: impl IntoIterator<Item = IpAddr>) {
        let mut reach = self.reach.lock().unwrap_or_else(PoisonError::into_inner);
        reach.own.extend(own);
        self.exit.set_policy(reach.policy(&self.users()));
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
    /// Each user by its own rules; who is none reaches nothing.
    fn policy(&self, users: &Users) -> Policy {
        let of_all =
            Rules::allow(self.always.iter().chain(&self.allow).copied()).with_own(self.own.iter().copied());
        let nobody = Terms { rules: Rules::none().into(), ..Terms::default() };
        users.iter().fold(Policy::new(nobody), |policy, (key, known)| {
            let terms = Terms {
                name: Some(known.user.name.as_str().into()),
                rules: of_all.of_user(known.user.rules.clone()).with_paths(known.user.paths.clone()).into(),
                rate: Some(known.rate.clone()),
            };
            policy.with(*key, terms)
        })
    }
}

/// What reverse listeners of users may bind, and which services they may announce.
struct UserGrants(Arc<RwLock<Arc<Users>>>);

impl UserGrants {
    fn users(&self) -> Arc<Users> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Grants for UserGrants {
    fn grant(&self, peer: &PublicKey, request: &ListenRequest) -> Result<IpAddr, String> {
        let users = self.users();
        let Some(known) = users.get(peer) else { return Err("the user was removed".into()) };
        let (user, binds) = (&known.user.name, &known.user.binds);
        let chosen = match request.bind {
            None => binds.choose(request.ports.iter()),
            Some(ip) => {
                let all = request.ports.iter().all(|port| binds.permits(SocketAddr::new(ip, port)));
                all.then_some(ip)
            }
        };
        chosen.ok_or_else(|| {
            format!(
                "{user} may listen on {binds} at the server, not on {request}: ask for one of these, or have its `reverse` \
                 in server.toml changed"
            )
        })
    }

    fn name(&self, peer: &PublicKey) -> String {
        self.users().get(peer).map_or_else(|| public_text(peer), |known| known.user.name.to_string())
    }

    fn rate(&self, peer: &PublicKey) -> Option<Arc<Rate>> {
        self.users().get(peer).map(|known| known.rate.clone())
    }
}

impl ServiceGrants for UserGrants {
    fn grant(&self, peer: &PublicKey, service: &ServiceName) -> Result<Arc<ServiceNames>, String> {
        let users = self.users();
        let Some(known) = users.get(peer) else { return Err("the user was removed".into()) };
        let (user, services) = (&known.user.name, &known.user.services);
        if services.permit(service.as_str()) {
            return Ok(services.clone());
        }
        let one = if services.is_empty() { "" } else { "announce one of these, or " };
        Err(format!(
            "{user} may announce {services}, not {service}: {one}have its `services` in server.toml changed"
        ))
    }

    fn name(&self, peer: &PublicKey) -> String {
        Grants::name(self, peer)
    }

    fn rate(&self, peer: &PublicKey) -> Option<Arc<Rate>> {
        Grants::rate(self, peer)
    }
}

/// The users of a configuration; those who were there before keep their rate, with other speeds.
fn known(users: &[User], before: &Users, session: &SessionConfig) -> Users {
    let know = |user: &User| {
        let rate = match before.get(&user.key) {
            Some(before) => before.rate.clone(),
            None => Arc::default(),
        };
        rate.set(user.limits.speeds);
        Known { user: user.clone(), admission: admission(user, session), rate }
    };
    users.iter().map(|user| (user.key, know(user))).collect()
}

/// What a user gets whose limits are not those of all users.
fn admission(user: &User, session: &SessionConfig) -> Admission {
    let mut admission = Admission::default();
    admission.max_sessions = user.limits.sessions;
    if user.limits.tunnels.is_some() || user.limits.connections.is_some() {
        let of_user = SessionConfig {
            max_tunnels: user.limits.tunnels.unwrap_or(session.max_tunnels),
            max_connections: user.limits.connections.unwrap_or(session.max_connections),
            ..session.clone()
        };
        admission.session = Some(Arc::new(of_user.clamped()));
    }
    admission
}

/// In the order of their names.
fn listed(users: &Users) -> Vec<User> {
    let mut users: Vec<_> = users.values().map(|known| known.user.clone()).collect();
    users.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
    users
}

#[cfg(test)]
mod tests {
    use gkd_core::identity::SecretKey;

    use super::*;

    #[test]
    fn services_are_granted_as_the_file_says_and_who_is_gone_has_none() {
        let keys: [_; 3] = [1, 2, 3].map(|seed| SecretKey::from_seed([seed; 32]).public());
        let user = |name: &str, key: &PublicKey, line: &str| {
            format!("[[user]]\nname = \"{name}\"\nkey = \"{}\"\n{line}\n", public_text(key))
        };
        let text = user("ann", &keys[0], "services = [\"shop\", \"ann-*\"]")
            + &user("bob", &keys[1], "")
            + "[http]\nlisten = [\"http://127.0.0.1:8080\"]\ndomain = \"apps.example.org\"\n";
        let config = Config::parse(&text).unwrap();
        let users = known(&config.users, &Users::new(), &SessionConfig::default());
        let grants = UserGrants(Arc::new(RwLock::new(Arc::new(users))));
        let grant = |key: &PublicKey, service: &str| {
            ServiceGrants::grant(&grants, key, &service.parse().unwrap()).map_err(|words| words.to_string())
        };
        assert!(grant(&keys[0], "shop").is_ok() && grant(&keys[0], "ann-2").is_ok());
        let words = "ann may announce shop, ann-*, not mall: announce one of these, or have its `services` in server.toml changed";
        assert_eq!(grant(&keys[0], "mall"), Err(words.to_owned()));
        let words = "bob may announce nothing, not shop: have its `services` in server.toml changed";
        assert_eq!(grant(&keys[1], "shop"), Err(words.to_owned()));
        assert_eq!(grant(&keys[2], "shop"), Err("the user was removed".to_owned()));
    }
}
