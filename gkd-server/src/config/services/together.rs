//! What of a front, its services and the users goes together with what ([`Together`]): names and hosts that stand twice,
//! hosts that hide others, who may announce what, what a setting needs elsewhere.

use std::collections::{BTreeMap, HashMap, HashSet};

use gkd_proxy::program;
use gkd_proxy::service::config::{HostPattern, HttpConfig, Https, NamePattern, ServiceConfig};
use toml::Spanned;

use super::{Judge, WrittenHttp, WrittenService};
use crate::config::users::WrittenUser;

/// A service as it is written and as it was judged.
type Service<'a> = (&'a WrittenService, ServiceConfig);

/// The judge of these things. Settings that are wrong by themselves are left out of it.
pub(super) struct Together<'j, 'text, 'a> {
    judge: &'j mut Judge<'text>,
    config: &'a HttpConfig,
    written: Option<&'a Spanned<WrittenHttp>>,
    users: &'a [WrittenUser],
}

/// What a user was granted.
struct Grant<'a> {
    user: &'a str,
    pattern: NamePattern,
    written: &'a Spanned<String>,
}

/// Whose a host is with which paths.
#[derive(Default)]
struct Hosts<'a>(HashMap<HostPattern, BTreeMap<&'a str, Owner<'a>>>);

#[derive(Clone, Copy)]
struct Owner<'a> {
    service: &'a str,
    line: usize,
}

impl<'j, 'text, 'a> Together<'j, 'text, 'a> {
    pub(super) fn new(
        judge: &'j mut Judge<'text>,
        config: &'a HttpConfig,
        written: Option<&'a Spanned<WrittenHttp>>,
        users: &'a [WrittenUser],
    ) -> Self {
        Self { judge, config, written, users }
    }

    pub(super) fn judge(mut self, services: &[Service<'_>]) {
        self.front(services);
        self.tls(services);
        self.names(services);
        let hosts = self.hosts(services);
        self.hidden(services, &hosts);
        self.users(services);
        let grants = self.grants();
        self.unreachable(services, &grants);
        self.claims(services, &grants, &hosts);
    }

    fn line(&self, written: &Spanned<String>) -> usize {
        program::place(self.judge.text, written.span().start).0
    }

    /// Services need something that listens.
    fn front(&mut self, services: &[Service<'_>]) {
        match (self.written, services) {
            (Some(front), _) if front.get_ref().listen.is_empty() => {
                let words = "the front listens nowhere: write listen = [\"http://0.0.0.0:80\"] in [http]";
                self.judge.complain(front.span(), words);
            }
            (None, [(first, _), ..]) => {
                let words = "no request reaches a service without a front: add [http] with listen = [\"http://0.0.0.0:80\"]";
                self.judge.complain(first.name.span(), words);
            }
            _ => {}
        }
    }

    /// TLS needs certificates, and what needs TLS a place where it is spoken.
    fn tls(&mut self, services: &[Service<'_>]) {
        let Some(front) = self.written.map(Spanned::get_ref) else { return };
        let is_tls = |words: &&Spanned<String>| words.get_ref().to_ascii_lowercase().starts_with("https:");
        match (front.listen.iter().find(is_tls), front.certificates.first()) {
            (Some(listen), None) => {
                let words = "https needs a certificate: write certificates = [{ certificate = \"/PATH/fullchain.pem\", \
                             key = \"/PATH/key.pem\" }] in [http]";
                self.judge.complain(listen.span(), words);
            }
            (None, Some(certificate)) => {
                let words = "nothing shows this certificate, for nothing listens on https://: add \"https://0.0.0.0:443\" to \
                             listen, or leave certificates out";
                self.judge.complain(certificate.span(), words);
            }
            _ => {}
        }
        if front.listen.iter().any(|words| is_tls(&words)) {
            return;
        }
        for (written, service) in services {
            let Some(https) = written.https.as_ref().filter(|_| service.https != Https::Both) else {
                continue;
            };
            let words = format!(
                "https = \"{}\" needs a front that listens on https://: add \"https://0.0.0.0:443\" to listen in [http], or write \
                 \"both\"",
                https.get_ref()
            );
            self.judge.complain(https.span(), words);
        }
    }

    fn names(&mut self, services: &[Service<'_>]) {
        let mut lines = HashMap::new();
        for (written, service) in services {
            let line = self.line(&written.name);
            if let Some(before) = lines.get(&service.name) {
                let words = format!(
                    "the service {} stands twice, first in line {before}: rename one, or make one of both",
                    service.name
                );
                self.judge.complain(written.name.span(), words);
            } else {
                lines.insert(&service.name, line);
            }
        }
    }

    /// Whose hosts and paths they are; one that is two services' is complained about.
    fn hosts<'s>(&mut self, services: &'s [Service<'_>]) -> Hosts<'s> {
        let mut hosts = Hosts::default();
        for (written, service) in services {
            for (host, words) in patterns(written) {
                let line = self.line(words);
                for path in &service.paths {
                    let of_host = hosts.0.entry(host.clone()).or_default();
                    let Some(before) = of_host.get(path.as_str()) else {
                        of_host.insert(path, Owner { service: &service.name, line });
                        continue;
                    };
                    let words_said = match before.service == service.name {
                        true => format!(
                            "{host} with the path {path} stands twice here, first in line {}: remove one",
                            before.line
                        ),
                        false => format!(
                            "{host} with the path {path} is that of the service {} in line {}: give one of them another host or path",
                            before.service, before.line
                        ),
                    };
                    self.judge.complain(words.span(), words_said);
                    // The other paths would be told of in the same words.
                    break;
                }
            }
        }
        hosts
    }

    /// A name wins over all that it is below, for every path. Where it has not all paths, and a wider one of another service has
    /// those that it lacks, they would find nobody, which is hardly meant.
    fn hidden(&mut self, services: &[Service<'_>], hosts: &Hosts<'_>) {
        let mut seen = HashSet::new();
        for (written, _) in services {
            for (host, words) in patterns(written) {
                if !seen.insert(host.clone()) {
                    continue;
                }
                let Some((wider, owner)) = hosts.hidden_by(&host) else { continue };
                let paths: Vec<_> = hosts.0[&host].keys().copied().collect();
                let words_said = format!(
                    "{host} hides that name from {wider} of the service {} in line {}, so that outside of {} nobody would answer \
                     for it: write \"{host}\" in the hosts of {} as well, or the path \"/\" here",
                    owner.service,
                    owner.line,
                    paths.join(", "),
                    owner.service
                );
                self.judge.complain(words.span(), words_said);
            }
        }
    }

    /// Those who share a service are users.
    fn users(&mut self, services: &[Service<'_>]) {
        let known: HashSet<_> = self.users.iter().map(|user| user.name.get_ref().as_str()).collect();
        for (written, _) in services {
            let mut seen = HashSet::new();
            for user in written.users.iter() {
                let name = user.get_ref();
                if !known.contains(name.as_str()) {
                    let words = format!(
                        "there is no user \"{}\": gkd-server user add makes one, or remove it here",
                        name.escape_debug()
                    );
                    self.judge.complain(user.span(), words);
                } else if !seen.insert(name) {
                    self.judge
                        .complain(user.span(), format!("the user {name} stands twice here: remove one"));
                }
            }
        }
    }

    fn grants(&self) -> Vec<Grant<'a>> {
        let of_user = |user: &'a WrittenUser| {
            let all = user.services.iter();
            all.filter_map(move |written| {
                // What is none was complained about with the user.
                let pattern = written.get_ref().parse().ok()?;
                Some(Grant { user: user.name.get_ref(), pattern, written })
            })
        };
        self.users.iter().flat_map(of_user).collect()
    }

    /// A service needs somebody who answers.
    fn unreachable(&mut self, services: &[Service<'_>], grants: &[Grant<'_>]) {
        for (written, service) in services {
            let is_granted = grants.iter().any(|grant| grant.pattern.name() == Some(&service.name));
            if written.targets.is_empty() && written.users.is_empty() && !is_granted {
                let words = format!(
                    "the service {0} has no target, and no user may announce one: write targets = [\"http://127.0.0.1:8080\"], \
                     users = [\"NAME\"], or services = [\"{0}\"] with a user",
                    service.name
                );
                self.judge.complain(written.name.span(), words);
            }
        }
    }

    /// What users were granted can be announced, and by one alone unless the service says otherwise.
    fn claims(&mut self, services: &[Service<'_>], grants: &[Grant<'_>], hosts: &Hosts<'_>) {
        let mut first: HashMap<&str, &Grant<'_>> = HashMap::new();
        for grant in grants {
            let Some(name) = grant.pattern.name() else {
                self.starred(grant);
                continue;
            };
            let service = services.iter().find(|(_, service)| service.name == name);
            if let Some((written, service)) = service.filter(|(_, service)| !service.users.is_empty()) {
                if !service.users.iter().any(|user| user == grant.user) {
                    let words = format!(
                        "the service {name} in line {} names those who may announce it, and {} is not among them: add \"{}\" \
                         to its users, or remove {name} here",
                        self.line(&written.name),
                        grant.user,
                        grant.user
                    );
                    self.judge.complain(grant.written.span(), words);
                }
                continue;
            }
            match first.get(name) {
                Some(before) if before.user != grant.user => {
                    let words = format!(
                        "the service {name} is claimed by the user {} in line {} already: write users = [\"{}\", \"{}\"] in its \
                         [[service]] for them to share it, or remove one",
                        before.user,
                        self.line(before.written),
                        before.user,
                        grant.user
                    );
                    self.judge.complain(grant.written.span(), words);
                    continue;
                }
                Some(_) => continue,
                None => first.insert(name, grant),
            };
            if service.is_none() {
                self.at_domain(name, grant, hosts);
            }
        }
    }

    /// What covers several names reaches only what is at the domain.
    fn starred(&mut self, grant: &Grant<'_>) {
        if self.has_no_domain() {
            let words = format!(
                "{} is for services at the domain, and there is none: write domain = \"apps.example.org\" in [http], or the \
                 name of a [[service]] here",
                grant.pattern
            );
            self.judge.complain(grant.written.span(), words);
        }
    }

    /// A service that nothing describes is at the domain, where its host is nobody else's.
    fn at_domain(&mut self, name: &str, grant: &Grant<'_>, hosts: &Hosts<'_>) {
        if self.has_no_domain() {
            let words = format!(
                "the service {name} has no host: add a [[service]] of this name with hosts, or domain = \"apps.example.org\" to \
                 [http]"
            );
            self.judge.complain(grant.written.span(), words);
            return;
        }
        let Some(host) = self.config.announced_host(name) else { return };
        if let Some(owner) = hosts.0.get(&host).and_then(|paths| paths.get("/")) {
            let words = format!(
                "the service {name} would be {host}, and that is the service {} in line {}: rename one",
                owner.service, owner.line
            );
            self.judge.complain(grant.written.span(), words);
        }
    }

    /// Nothing is written, that is: a domain that is wrong is complained about already.
    fn has_no_domain(&self) -> bool {
        self.written.is_none_or(|front| front.get_ref().domain.is_none())
    }
}

/// The hosts of a service that are right, each with its words.
fn patterns(written: &WrittenService) -> impl Iterator<Item = (HostPattern, &Spanned<String>)> {
    let hosts = written.hosts.iter().take(super::MAX_HOSTS);
    hosts.filter_map(|words| Some((words.get_ref().parse().ok()?, words)))
}

impl Hosts<'_> {
    /// The narrowest pattern that this host is below, where it has a path that the host has not.
    fn hidden_by(&self, host: &HostPattern) -> Option<(HostPattern, Owner<'_>)> {
        let own = self.0.get(host)?;
        let name = host.to_string();
        let name = name.strip_prefix("*.").unwrap_or(&name);
        let above = name.match_indices('.').map(|(at, _)| format!("*.{}", &name[at + 1..]));
        let (wider, paths) =
            above.filter_map(|words| words.parse().ok()).find_map(|wider: HostPattern| {
                let paths = self.0.get(&wider)?;
                Some((wider, paths))
            })?;
        let covers = |path: &str| own.keys().any(|own| is_below(path, own));
        let (_, owner) = paths.iter().find(|(path, _)| !covers(path))?;
        Some((wider, *owner))
    }
}

/// Whether a path is another or below it.
fn is_below(path: &str, other: &str) -> bool {
    let rest = path.strip_prefix(other.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
