//! Which services there are, and which targets each has ([`Roster`]); and what requests see of it ([`Table`]).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use futures::future::BoxFuture;
use gkd_core::proto::packet::DialError;
use hyper::header::HeaderValue;
use ipnet::IpNet;

use super::status::{ServiceStatus, TargetStatus};
use super::{AnnounceError, Contents};
use crate::destination;
use crate::dial::{DialFailure, Dialer};
use crate::rules::Rules;
use crate::service::balance::TargetId;
use crate::service::config::{
    FrontLimits, HostRewrite, HttpConfig, Https, ServiceConfig, ServiceNames, TargetForm,
};
use crate::service::pool::Pool;
use crate::service::route::Routes;
use crate::service::target::{Target, Way};
use crate::service::upstream::{Protocol, Upstream};
use crate::service::{BoxIo, Lack, Reach};

/// What requests look at.
pub(super) struct Table {
    pub(super) routes: Routes<Arc<Service>>,
    pub(super) trusted: Vec<IpNet>,
    pub(super) limits: FrontLimits,
    /// The port where TLS is spoken, where it is one that can be named.
    pub(super) https_port: Option<u16>,
}

/// A service, as requests see it.
pub(super) struct Service {
    pub(super) name: Arc<str>,
    pub(super) https: Https,
    pub(super) host: HostRewrite,
    pub(super) send_proxy: bool,
    pub(super) pool: Arc<Pool>,
}

/// Names an announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u64);

/// All services and their targets.
pub(super) struct Roster {
    config: HttpConfig,
    contents: Contents,
    dialer: Dialer,
    entries: BTreeMap<String, Entry>,
    announcements: BTreeMap<Key, Announcement>,
    next: u64,
}

struct Entry {
    config: ServiceConfig,
    /// The user whose it is, where the configuration does not describe it.
    owner: Option<Arc<str>>,
    pool: Arc<Pool>,
    /// The targets that the configuration describes.
    described: Vec<(TargetForm, TargetId)>,
}

/// A target of a client.
pub(super) struct Announcement {
    service: String,
    user: Arc<str>,
    granted: ServiceNames,
    target: Arc<Target>,
    weight: u32,
    /// While it is a target of the service: a configuration may be in the way.
    id: Option<TargetId>,
}

impl Announcement {
    pub(super) fn new(
        service: &str,
        user: &str,
        granted: &ServiceNames,
        target: Arc<Target>,
        weight: u32,
    ) -> Self {
        let (service, user, granted) = (service.to_owned(), user.into(), granted.clone());
        Self { service, user, granted, target, weight, id: None }
    }
}

impl Roster {
    /// No services.
    pub(super) fn new(contents: Contents) -> Self {
        // Whoever configures a target may have it lead anywhere.
        let anywhere = [IpNet::from(ipnet::Ipv4Net::default()), ipnet::Ipv6Net::default().into()];
        Self {
            config: HttpConfig::default(),
            contents,
            dialer: Dialer::new(Rules::allow(anywhere)),
            entries: BTreeMap::new(),
            announcements: BTreeMap::new(),
            next: 0,
        }
    }

    /// Makes the services those of a configuration, with what is announced as far as it permits that.
    pub(super) fn configure(&mut self, config: &HttpConfig) {
        self.config = config.clone();
        let mut before = std::mem::take(&mut self.entries);
        for service in &config.services {
            let entry = match before.remove(&service.name) {
                Some(entry) => entry,
                None => Entry::new(service, None),
            };
            let entry = entry.described_by(service, &self.contents, &self.dialer);
            self.entries.insert(service.name.clone(), entry);
        }
        // Those that nothing describes any more are there as long as they are announced.
        for (name, mut entry) in before {
            for (_, id) in entry.described.drain(..) {
                entry.pool.remove(id);
            }
            let mut announced =
                self.announcements.values().filter(|it| it.service == name && it.id.is_some());
            let owner = entry.owner.clone().or_else(|| announced.next().map(|it| Arc::clone(&it.user)));
            if let (Some(owner), Some(config)) = (owner, self.undescribed(&name)) {
                entry.pool.configure(&config);
                entry.config = config;
                entry.owner = Some(owner);
                self.entries.insert(name, entry);
            } else {
                self.forget(&name, &entry.pool);
            }
        }
        self.judge_anew();
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> &HttpConfig {
        &self.config
    }

    /// The addresses of a service: of each host, with TLS where that is spoken.
    pub(super) fn place(&self, service: &str) -> String {
        let Some(entry) = self.entries.get(service) else { return String::new() };
        let tls = self.config.has_tls();
        let listen = self.config.listen.iter().find(|listen| listen.tls == tls);
        let (scheme, usual) = if tls { ("https", 443) } else { ("http", 80) };
        let port = listen.map(|listen| listen.address.port()).filter(|port| *port != usual && *port != 0);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = entry.config.paths.first().filter(|path| *path != "/");
        let path = path.map(String::as_str).unwrap_or_default();
        let hosts: Vec<_> =
            entry.config.hosts.iter().map(|host| format!("{scheme}://{host}{port}{path}")).collect();
        hosts.join(", ")
    }

    /// Adds a target of a client.
    pub(super) fn announce(&mut self, announcement: Announcement) -> Result<Key, AnnounceError> {
        let key = Key(self.next);
        self.next += 1;
        let id = self.take_in(&announcement)?;
        self.announcements.insert(key, Announcement { id: Some(id), ..announcement });
        Ok(key)
    }

    /// Takes a target of a client away, and the service where it was there for it alone.
    pub(super) fn withdraw(&mut self, key: Key) {
        let Some(announcement) = self.announcements.remove(&key) else { return };
        let Some(id) = announcement.id else { return };
        let name = announcement.service;
        if let Some(entry) = self.entries.get(&name) {
            entry.pool.remove(id);
        }
        self.drop_unannounced(&name);
    }

    /// What requests see.
    pub(super) fn table(&self) -> Table {
        let mut routes = Routes::new();
        // Those that are described go ahead of those that are not.
        let (first, second): (Vec<_>, Vec<_>) =
            self.entries.values().partition(|entry| entry.owner.is_none());
        for entry in first.into_iter().chain(second) {
            let service = Arc::new(Service {
                name: entry.config.name.as_str().into(),
                https: entry.config.https,
                host: entry.config.host.clone(),
                send_proxy: entry.config.send_proxy,
                pool: Arc::clone(&entry.pool),
            });
            for host in &entry.config.hosts {
                for path in &entry.config.paths {
                    if let Err(clash) = routes.insert(host, path, Arc::clone(&service)) {
                        tracing::warn!("the service {} is not reached: {clash}", entry.config.name);
                    }
                }
            }
        }
        let https = self.config.listen.iter().find(|listen| listen.tls && listen.address.port() != 0);
        Table {
            routes,
            trusted: self.config.trusted.clone(),
            limits: self.config.limits,
            https_port: https.map(|listen| listen.address.port()),
        }
    }

    pub(super) fn pools(&self) -> Vec<Arc<Pool>> {
        self.entries.values().map(|entry| Arc::clone(&entry.pool)).collect()
    }

    pub(super) fn status(&self) -> Vec<ServiceStatus> {
        let of = |entry: &Entry| ServiceStatus {
            service: entry.config.name.clone(),
            hosts: entry.config.hosts.iter().map(ToString::to_string).collect(),
            paths: entry.config.paths.clone(),
            targets: entry.pool.targets().iter().map(TargetStatus::of).collect(),
        };
        self.entries.values().map(of).collect()
    }

    /// Makes an announced target one of its service.
    fn take_in(&mut self, announcement: &Announcement) -> Result<TargetId, AnnounceError> {
        let Announcement { service, user, granted, target, weight, .. } = announcement;
        self.config.may_announce(user, granted, service)?;
        let entry = match self.entries.get(service) {
            Some(Entry { owner: Some(owner), .. }) if owner != user => {
                return Err(AnnounceError::Taken(service.clone()));
            }
            Some(entry) => entry,
            None => {
                let clash = || AnnounceError::Clash(service.clone());
                let config = self.undescribed(service).ok_or_else(clash)?;
                self.entries.entry(service.clone()).or_insert(Entry::new(&config, Some(Arc::clone(user))))
            }
        };
        let id = entry.pool.add(Arc::clone(target), *weight);
        id.ok_or_else(|| AnnounceError::Full(service.clone()))
    }

    /// What describes a service that the configuration does not: it has a host of the domain, where that is no other's.
    fn undescribed(&self, name: &str) -> Option<ServiceConfig> {
        let host = self.config.announced_host(name)?;
        let mut others = self.config.services.iter().filter(|it| it.paths.iter().any(|path| path == "/"));
        if others.any(|it| it.hosts.contains(&host)) {
            return None;
        }
        let mut config = ServiceConfig::new(name);
        config.hosts = vec![host];
        Some(config)
    }

    /// Takes in what a configuration was in the way of, and takes away what it forbids.
    fn judge_anew(&mut self) {
        let mut announcements = std::mem::take(&mut self.announcements);
        for announcement in announcements.values_mut() {
            let Announcement { service, user, granted, id, .. } = &*announcement;
            let may = self.config.may_announce(user, granted, service);
            let others = |entry: &Entry| entry.owner.as_ref().is_some_and(|owner| owner != user);
            let taken = self.entries.get(service).is_some_and(others);
            match id {
                Some(id) if may.is_err() || taken => {
                    if let Some(entry) = self.entries.get(service) {
                        entry.pool.remove(*id);
                    }
                    tracing::warn!(
                        "{user} no longer answers for the service {service}: the configuration is in the way"
                    );
                    announcement.id = None;
                }
                Some(_) => {}
                None => announcement.id = self.take_in(announcement).ok(),
            }
        }
        self.announcements = announcements;
        let names: Vec<String> = self.entries.keys().cloned().collect();
        for name in names {
            self.drop_unannounced(&name);
        }
    }

    /// Drops a service that was there for its announcements alone, when there are none.
    fn drop_unannounced(&mut self, name: &str) {
        let there = self.announcements.values().any(|it| it.service == name && it.id.is_some());
        if !there && self.entries.get(name).is_some_and(|entry| entry.owner.is_some()) {
            self.entries.remove(name);
        }
    }

    /// Takes away what is announced of a service that is no more.
    fn forget(&mut self, name: &str, pool: &Pool) {
        for announcement in self.announcements.values_mut().filter(|it| it.service == name) {
            if let Some(id) = announcement.id.take() {
                pool.remove(id);
            }
        }
    }
}

impl Entry {
    fn new(config: &ServiceConfig, owner: Option<Arc<str>>) -> Self {
        Self { config: config.clone(), owner, pool: Pool::new(config), described: Vec::new() }
    }

    /// Makes it what a configuration describes. Targets that stay are left as they are.
    fn described_by(mut self, config: &ServiceConfig, contents: &Contents, dialer: &Dialer) -> Self {
        self.pool.configure(config);
        let mut before = std::mem::take(&mut self.described);
        for target in &config.targets {
            let id = match before.iter().position(|(form, _)| *form == target.to) {
                Some(place) => {
                    let (_, id) = before.swap_remove(place);
                    self.pool.reweigh(id, target.weight);
                    Some(id)
                }
                None => self.pool.add(Arc::new(described(&target.to, contents, dialer)), target.weight),
            };
            match id {
                Some(id) => self.described.push((target.to.clone(), id)),
                None => tracing::warn!("the service {} has too many targets: leave some out", config.name),
            }
        }
        for (_, id) in before {
            self.pool.remove(id);
        }
        self.config = config.clone();
        self.owner = None;
        self
    }
}

/// A target that the configuration describes.
fn described(form: &TargetForm, contents: &Contents, dialer: &Dialer) -> Target {
    let web = |protocol, scheme, target: &destination::Target| {
        let name = format!("{scheme}://{target}");
        let authority = HeaderValue::from_str(&target.to_string()).ok();
        let reach = Arc::new(Direct { name, target: target.clone(), dialer: dialer.clone() });
        Way::Upstream(Arc::new(Upstream::new(reach, protocol, authority)))
    };
    let way = match form {
        TargetForm::Http(target) => web(Protocol::Http1, "http", target),
        TargetForm::H2c(target) => web(Protocol::Http2, "h2c", target),
        TargetForm::Folder(path) => Way::Content(contents(path)),
    };
    Target::new(way, None)
}

/// The way to a target that is reached from here.
struct Direct {
    name: String,
    target: destination::Target,
    dialer: Dialer,
}

impl Reach for Direct {
    fn dial(&self) -> BoxFuture<'static, io::Result<BoxIo>> {
        let (dialer, target) = (self.dialer.clone(), self.target.clone());
        Box::pin(async move {
            let dialled = dialer.dial(&target).await;
            dialled.map(|socket| Box::new(socket) as BoxIo).map_err(into_io)
        })
    }

    fn name(&self) -> &str {
        &self.name
    }
}

fn into_io(failure: DialFailure) -> io::Error {
    match failure.error {
        DialError::TimedOut => io::Error::new(io::ErrorKind::TimedOut, failure.to_string()),
        // It is this end that dials.
        DialError::Busy => io::Error::other(Lack(format!("{failure}: raise the limit of open files"))),
        _ => io::Error::other(failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::DialCause;

    /// Raw numbers, as the system tells them.
    #[test]
    fn what_this_end_lacks_is_told_from_what_a_target_refuses() {
        let lacks = |code| {
            let cause =
                DialCause::Attempt("127.0.0.1:1".parse().unwrap(), io::Error::from_raw_os_error(code));
            into_io(cause.into()).get_ref().is_some_and(|error| error.is::<Lack>())
        };
        assert!([libc::EMFILE, libc::ENFILE, libc::ENOBUFS].into_iter().all(lacks));
        assert!(![libc::ECONNREFUSED, libc::EHOSTUNREACH, libc::EACCES].into_iter().any(lacks));
        let unresolved = DialCause::Name(io::Error::from_raw_os_error(libc::EMFILE));
        assert!(into_io(unresolved.into()).to_string().contains("raise the limit of open files"));
    }
}
