//! The targets of one service ([`Pool`]) and whose turn it is ([`Turn`]).
//!
//! The choice is [`Balancer`]'s; here is what belongs to each target: its connections, and the task that asks whether it is
//! well.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gkd_core::seldom::Seldom;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::balance::{Balancer, Outcome, Picked, TargetId, TargetState};
use super::config::{HealthCheck, ServiceConfig};
use super::desertion::Desertion;
use super::passage::Passage;
use super::probe::{Probe, random};
use super::target::Target;
use super::upstream::Failure;

/// Good checks in a row that bring a target back, where there are no checks.
const RISE: u32 = 2;

/// The targets of a service.
pub(super) struct Pool {
    service: Arc<str>,
    members: Mutex<Members>,
    /// Targets and clients cause these lines.
    complaints: Seldom,
    /// Counts whatever may give a request another target: one that is new, or back.
    changes: watch::Sender<u64>,
}

struct Members {
    balancer: Balancer,
    checks: Checks,
    /// Those that there are. Requests to others may still be running.
    targets: HashMap<TargetId, Member>,
}

struct Member {
    target: Arc<Target>,
    weight: u32,
    _probe: Option<AbortOnDropHandle<()>>,
    /// Tells whether there is a way to it.
    _passage: Option<AbortOnDropHandle<()>>,
}

/// How targets are asked whether they are well.
#[derive(Clone, Debug, PartialEq)]
struct Checks {
    health: Option<HealthCheck>,
    /// Whether connections to them begin with a PROXY header.
    send_proxy: bool,
}

/// One target's turn to serve a request. Dropped without an end, it was given up.
pub(super) struct Turn {
    pool: Arc<Pool>,
    id: TargetId,
    picked: Option<Picked>,
    target: Arc<Target>,
}

/// One target as it is at the moment.
pub(super) struct Seen {
    pub(super) target: Arc<Target>,
    pub(super) weight: u32,
    pub(super) state: TargetState,
}

impl Pool {
    /// A pool without targets.
    pub(super) fn new(config: &ServiceConfig) -> Arc<Self> {
        let mut balancer = Balancer::new(config.balance, config.fall(), random());
        reconfigure(&mut balancer, config);
        let members = Members { balancer, checks: Checks::of(config), targets: HashMap::new() };
        let service = config.name.as_str().into();
        let (complaints, changes) = (Seldom::default(), watch::Sender::default());
        Arc::new(Self { service, members: Mutex::new(members), complaints, changes })
    }

    /// Chooses and checks otherwise from now on. What is known of the targets stays.
    pub(super) fn configure(self: &Arc<Self>, config: &ServiceConfig) {
        let mut members = self.members();
        reconfigure(&mut members.balancer, config);
        let checks = Checks::of(config);
        if members.checks != checks {
            for (id, member) in &mut members.targets {
                member._probe = self.probe(*id, &member.target, &checks);
            }
            members.checks = checks;
        }
    }

    /// Adds a target. None where there are too many.
    pub(super) fn add(self: &Arc<Self>, target: Arc<Target>, weight: u32) -> Option<TargetId> {
        let mut members = self.members();
        // By its name, so that clients' addresses find it again after a restart.
        let mut key = DefaultHasher::new();
        (target.name(), target.user()).hash(&mut key);
        let id = members.balancer.add_as(key.finish(), weight)?;
        let (probe, passage) = (self.probe(id, &target, &members.checks), self.follow(id, &target));
        members.balancer.set_away(id, target.is_gone());
        members.targets.insert(id, Member { target, weight, _probe: probe, _passage: passage });
        drop(members);
        self.changed();
        Some(id)
    }

    /// Gives a target another weight.
    pub(super) fn reweigh(&self, id: TargetId, weight: u32) {
        let mut members = self.members();
        members.balancer.reweigh(id, weight);
        if let Some(member) = members.targets.get_mut(&id) {
            member.weight = weight;
        }
    }

    /// Takes a target away. Requests that it serves go on; connections that wait for further ones end.
    pub(super) fn remove(&self, id: TargetId) {
        let member = {
            let mut members = self.members();
            members.balancer.remove(id);
            members.targets.remove(&id)
        };
        if let Some(member) = member {
            member.target.close();
        }
    }

    /// Its targets, in the order in which they were added.
    pub(super) fn targets(&self) -> Vec<Seen> {
        let members = self.members();
        let now = Instant::now();
        let seen = |id: TargetId| {
            let member = members.targets.get(&id)?;
            let state = members.balancer.state(id, now)?;
            Some(Seen { target: Arc::clone(&member.target), weight: member.weight, state })
        };
        members.balancer.targets().filter_map(seen).collect()
    }

    /// Whose turn it is for a client: a target that is none of those that were tried.
    pub(super) fn choose(self: &Arc<Self>, client: IpAddr, tried: &[TargetId]) -> Option<Turn> {
        let mut members = self.members();
        let now = Instant::now();
        let picked = members.balancer.pick(client, tried, now)?;
        let id = picked.target();
        // All were tried, where this one was.
        match members.targets.get(&id) {
            Some(member) if !tried.contains(&id) => {
                let target = Arc::clone(&member.target);
                Some(Turn { pool: Arc::clone(self), id, picked: Some(picked), target })
            }
            _ => {
                members.balancer.ended(picked, Outcome::Abandoned, now);
                None
            }
        }
    }

    /// Whether a target takes requests that is none of those that were tried.
    pub(super) fn has_another(&self, tried: &[TargetId]) -> bool {
        let members = self.members();
        let now = Instant::now();
        let is_well = |id| members.balancer.state(id, now).is_some_and(|state| state.healthy);
        let mut others = members.targets.iter().filter(|(id, _)| !tried.contains(id));
        others.any(|(id, member)| member.target.is_open() && is_well(*id))
    }

    /// Changes with whatever may give a request another target.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Logs why a target gave no answer, once a minute for each.
    pub(super) fn complain(&self, target: &Target, failure: &Failure) {
        if let Some(more) = self.complaints.note(target.name()) {
            let cause = failure.cause.escape_debug();
            tracing::warn!("{}: the target {} gave no answer: {cause}{more}", self.service, target.name());
        }
    }

    /// Closes connections that have been kept for too long.
    pub(super) fn sweep(&self) {
        let targets: Vec<_> = self.members().targets.values().map(|it| Arc::clone(&it.target)).collect();
        for target in targets {
            target.sweep();
        }
    }

    fn probe(
        self: &Arc<Self>,
        id: TargetId,
        target: &Target,
        checks: &Checks,
    ) -> Option<AbortOnDropHandle<()>> {
        let (health, upstream) = (checks.health.clone()?, Arc::clone(target.upstream()?));
        let pool = Arc::downgrade(self);
        let probe = Probe::new(health, upstream, checks.send_proxy);
        Some(probe.start(move |well| pool.upgrade().is_some_and(|pool| pool.probed(id, well))))
    }

    /// Leaves a target out while there is no way to it, where that is told.
    fn follow(self: &Arc<Self>, id: TargetId, target: &Target) -> Option<AbortOnDropHandle<()>> {
        let (mut passage, pool) = (target.passage()?, Arc::downgrade(self));
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            while passage.changed().await.is_ok() {
                let now = *passage.borrow_and_update();
                let Some(pool) = pool.upgrade() else { return };
                // Of a session that has ended its targets go.
                pool.is_told(id, now, passage.has_changed().is_ok());
            }
        })))
    }

    fn is_told(&self, id: TargetId, passage: Passage, may_return: bool) {
        let mut members = self.members();
        members.balancer.set_away(id, passage == Passage::Gone);
        let name = members.targets.get(&id).map(|member| Arc::clone(member.target.name()));
        drop(members);
        match passage {
            Passage::Open => self.changed(),
            Passage::Gone if may_return => {
                let Some(name) = name else { return };
                if let Some(more) = self.complaints.note(&format!("{name} is gone")) {
                    tracing::warn!(
                        "{}: no tunnel to the client of the target {name} is up: it is left out until one is{more}",
                        self.service
                    );
                }
            }
            Passage::Doubtful | Passage::Gone => {}
        }
    }

    /// Tells what a check found. Whether the target is still there.
    fn probed(&self, id: TargetId, well: bool) -> bool {
        let mut members = self.members();
        self.watched(&mut members, id, |balancer, now| balancer.probed(id, well, now));
        members.targets.contains_key(&id)
    }

    fn ended(&self, id: TargetId, picked: Picked, outcome: Outcome) {
        let mut members = self.members();
        self.watched(&mut members, id, |balancer, now| balancer.ended(picked, outcome, now));
    }

    /// Says when a target goes out or comes back by what it did: of one that does so again and again, once a minute.
    fn watched(&self, members: &mut Members, id: TargetId, happens: impl FnOnce(&mut Balancer, Instant)) {
        let now = Instant::now();
        let is_well = |balancer: &Balancer| balancer.state(id, now).is_some_and(|state| state.healthy);
        let was_well = is_well(&members.balancer);
        happens(&mut members.balancer, now);
        let Some(member) = members.targets.get(&id) else { return };
        match (was_well, is_well(&members.balancer)) {
            (true, false) => {
                let name = member.target.name();
                if let Some(more) = self.complaints.note(&format!("{name} is out")) {
                    tracing::warn!("{}: the target {name} fails and is left out{more}", self.service);
                }
            }
            (false, true) => {
                let name = member.target.name();
                if let Some(more) = self.complaints.note(&format!("{name} is back")) {
                    tracing::info!("{}: the target {name} is back{more}", self.service);
                }
                self.changed();
            }
            _ => {}
        }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checks {
    fn of(config: &ServiceConfig) -> Self {
        Self { health: config.health.clone(), send_proxy: config.send_proxy }
    }
}

fn reconfigure(balancer: &mut Balancer, config: &ServiceConfig) {
    let rise = config.health.as_ref().map_or(RISE, |health| health.rise);
    balancer.reconfigure(config.balance, config.fall(), rise);
}

impl Turn {
    pub(super) fn id(&self) -> TargetId {
        self.id
    }

    pub(super) fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// What tells the request to go to another target than those that were tried; nothing does where the way is not known.
    pub(super) fn desertion(&self, tried: &[TargetId]) -> Option<Desertion> {
        Some(Desertion::new(&self.pool, self.target.passage()?, tried))
    }

    /// It came to nothing for which the target is not to blame.
    pub(super) fn excuse(&mut self) {
        self.target.count_failure();
        self.end(Outcome::Abandoned);
    }

    /// It did what it should, or did not. Only the first call counts.
    pub(super) fn end(&mut self, outcome: Outcome) {
        if let Some(picked) = self.picked.take() {
            if outcome == Outcome::Failed {
                self.target.count_failure();
            }
            self.pool.ended(self.id, picked, outcome);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end(Outcome::Abandoned);
    }
}
