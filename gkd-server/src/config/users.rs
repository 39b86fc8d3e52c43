//! What `server.toml` says of users ([`User`]): their keys, rules and limits.

use std::collections::HashMap;
use std::sync::Arc;

use gkd_core::identity::{PublicKey, parse_public, public_text};
use gkd_proxy::program;
use gkd_proxy::rate::{Speed, Speeds};
use gkd_proxy::rules::{Bind, Binds, PathRule, Paths, Ports, Rule, Subject, Verdict};
use gkd_proxy::service::name::{ServicePattern, ServicePatterns};
use serde::Deserialize;
use toml::Spanned;

use super::{CONNECTIONS, Judge, SESSIONS_OF_USER, TUNNELS};
use crate::users::UserName;

/// The most rules of one user. All of them may be asked for each connection.
const MAX_RULES: usize = 1000;

/// The most entries of `reverse`.
const MAX_BINDS: usize = 1000;

/// The most entries of `unix`.
const MAX_PATHS: usize = 1000;

/// The most entries of `services`.
const MAX_SERVICES: usize = 1000;

/// One who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: UserName,
    pub(crate) key: PublicKey,
    /// In order; none where the default is all that holds.
    pub(crate) rules: Arc<[Rule]>,
    /// What its reverse listeners may bind.
    pub(crate) binds: Arc<Binds>,
    /// Which Unix sockets it may reach.
    pub(crate) paths: Arc<Paths>,
    /// Which services its clients may announce.
    pub(crate) services: Arc<ServicePatterns>,
    pub(crate) limits: UserLimits,
}

/// Bounds on what one user may have; those of all users where none is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UserLimits {
    pub(crate) sessions: Option<usize>,
    /// Of each session.
    pub(crate) tunnels: Option<usize>,
    /// Of each session.
    pub(crate) connections: Option<u64>,
    /// Of all its connections together.
    pub(crate) speeds: Speeds,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenUser {
    name: Spanned<String>,
    key: Spanned<String>,
    rules: Option<Spanned<Vec<Spanned<WrittenRule>>>>,
    reverse: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    unix: Vec<Spanned<String>>,
    #[serde(default)]
    services: Vec<Spanned<String>>,
    #[serde(default)]
    limits: WrittenUserLimits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    allow: Option<Spanned<String>>,
    deny: Option<Spanned<String>>,
    ports: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenUserLimits {
    sessions: Option<Spanned<i64>>,
    tunnels: Option<Spanned<i64>>,
    connections: Option<Spanned<i64>>,
    up: Option<Spanned<String>>,
    down: Option<Spanned<String>>,
}

impl Judge<'_> {
    pub(super) fn users(&mut self, written: &[WrittenUser]) -> Vec<User> {
        let (mut names, mut keys) = (HashMap::new(), HashMap::new());
        let mut users = Vec::new();
        for one in written {
            let name = self.value::<UserName>(&one.name);
            let key = self.judged(&one.key, parse_public);
            let (line, _) = program::place(self.text, one.name.span().start);
            if let Some(before) = name.as_ref().and_then(|name| names.insert(name.clone(), line)) {
                let words = format!(
                    "the user {} stands twice, first in line {before}: rename or remove one",
                    one.name.get_ref()
                );
                self.complain(one.name.span(), words);
            }
            if let Some(before) = key.and_then(|key| keys.insert(key, line)) {
                let words = format!(
                    "the key {} is that of the user in line {before}: give each user its own, gkd-server user renew makes one",
                    key.map(|key| public_text(&key)).unwrap_or_default()
                );
                self.complain(one.key.span(), words);
            }
            let rules = one.rules.as_ref().map(|rules| self.rules(rules)).unwrap_or_default().into();
            let binds = one.reverse.as_ref().map(|binds| self.binds(binds)).unwrap_or_default().into();
            let paths = self.paths(&one.unix).into();
            let services = self.announced(&one.services).into();
            let limits = self.user_limits(&one.limits);
            if let (Some(name), Some(key)) = (name, key) {
                users.push(User { name, key, rules, binds, paths, services, limits });
            }
        }
        users
    }

    fn rules(&mut self, written: &Spanned<Vec<Spanned<WrittenRule>>>) -> Vec<Rule> {
        let all = written.get_ref();
        if all.is_empty() {
            let words = "there is no rule: leave rules out for what all users may reach, or write { deny = \"*\" } for nothing";
            self.complain(written.span(), words);
        }
        if let Some(one) = all.get(MAX_RULES) {
            let words = format!("{} rules are more than the {MAX_RULES} that a user may have", all.len());
            self.complain(one.span(), words);
            return Vec::new();
        }
        // With its number and its line, for those behind it.
        let mut rules: Vec<(usize, usize, Rule)> = Vec::new();
        for (index, one) in all.iter().enumerate() {
            let Some(rule) = self.rule(one) else { continue };
            if let Some((number, line, before)) = rules.iter().find(|(.., before)| before.covers(&rule)) {
                let words = format!(
                    "rule {} {rule} can never match, for rule {number} {before} in line {line} matches all of it: put it \
                     in front, or remove one",
                    index + 1
                );
                self.complain(one.span(), words);
            }
            let (line, _) = program::place(self.text, one.span().start);
            rules.push((index + 1, line, rule));
        }
        rules.into_iter().map(|(.., rule)| rule).collect()
    }

    fn rule(&mut self, written: &Spanned<WrittenRule>) -> Option<Rule> {
        let WrittenRule { allow, deny, ports } = written.get_ref();
        let ports = ports.as_ref().map_or(Some(Ports::default()), |ports| self.value(ports));
        let (verdict, subject) = match (allow, deny) {
            (Some(subject), None) => (Verdict::Allow, subject),
            (None, Some(subject)) => (Verdict::Deny, subject),
            (both, _) => {
                let words = match both {
                    Some(_) => {
                        "the rule has both allow and deny: write two rules, the first that matches decides"
                    }
                    None => "the rule has neither allow nor deny: write { allow = \"10.0.0.0/8\" }, say",
                };
                self.complain(written.span(), words);
                return None;
            }
        };
        let subject = self.value::<Subject>(subject)?;
        Some(Rule { verdict, subject, ports: ports? })
    }

    fn binds(&mut self, written: &[Spanned<String>]) -> Binds {
        if let Some(one) = written.get(MAX_BINDS) {
            let words = format!("{} entries are more than the {MAX_BINDS} that reverse takes", written.len());
            self.complain(one.span(), words);
        }
        Binds::new(written.iter().take(MAX_BINDS).filter_map(|one| self.value::<Bind>(one)))
    }

    fn paths(&mut self, written: &[Spanned<String>]) -> Paths {
        if let Some(one) = written.get(MAX_PATHS) {
            let words = format!("{} entries are more than the {MAX_PATHS} that unix takes", written.len());
            self.complain(one.span(), words);
        }
        Paths::new(written.iter().take(MAX_PATHS).filter_map(|one| self.value::<PathRule>(one)))
    }

    fn announced(&mut self, written: &[Spanned<String>]) -> ServicePatterns {
        if let Some(one) = written.get(MAX_SERVICES) {
            let words =
                format!("{} entries are more than the {MAX_SERVICES} that services takes", written.len());
            self.complain(one.span(), words);
        }
        ServicePatterns::new(
            written.iter().take(MAX_SERVICES).filter_map(|one| self.value::<ServicePattern>(one)),
        )
    }

    fn user_limits(&mut self, written: &WrittenUserLimits) -> UserLimits {
        let mut speed = |written: &Option<Spanned<String>>| self.value::<Speed>(written.as_ref()?);
        let speeds = Speeds { up: speed(&written.up), down: speed(&written.down) };
        UserLimits {
            sessions: self.size(written.sessions.as_ref(), SESSIONS_OF_USER),
            tunnels: self.size(written.tunnels.as_ref(), TUNNELS),
            connections: self.size(written.connections.as_ref(), CONNECTIONS).map(|most| most as u64),
            speeds,
        }
    }
}
