//! What listens, here and at the server, and which services are announced there: a set of listeners with names
//! ([`Listeners`]) that becomes another while it runs ([`diff`]), touching nothing that stays as it is. What a listener does
//! with its programs is `gkd-proxy`'s.

use std::fmt;
use std::net::SocketAddr;

use gkd_core::Client;
use gkd_proxy::listener::Service;
use gkd_proxy::program::Failure;
use gkd_proxy::reverse::{Offers, Remote, Standing, announce_remotely, listen_remotely};
use gkd_proxy::service::form::{Behind, ServiceForm};
use gkd_proxy::{ListenConfig, Listener, Listening, listen};
use serde::{Deserialize, Serialize};

/// Something that may have a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named<T> {
    pub(crate) name: Option<String>,
    pub(crate) it: T,
}

impl<T> Named<T> {
    /// `name: `, where there is one.
    fn prefix(&self) -> String {
        self.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default()
    }
}

impl<T: fmt::Display> fmt::Display for Named<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix(), self.it)
    }
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A listener here: `-L`.
    Here(Listener),
    /// A listener at the server, which opens a connection for each program: `-R`.
    Server(Listener),
    /// A service, for the requests that the server gets: `-R` too.
    Service(ServiceForm),
}

impl Wanted {
    /// The listener, unless it is a service.
    pub(crate) fn listener(&self) -> Option<&Listener> {
        match self {
            Self::Here(listener) | Self::Server(listener) => Some(listener),
            Self::Service(_) => None,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(listener) => listener.fmt(f),
            Self::Server(listener) => write!(f, "{listener} at the server"),
            Self::Service(service) => write!(f, "service {service}"),
        }
    }
}

/// How one list becomes another, by places in the two.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Diff {
    /// What stays: where it is, and where it is wanted. Its name may be another.
    pub(crate) keep: Vec<(usize, usize)>,
    /// What is not wanted any more.
    pub(crate) close: Vec<usize>,
    /// What is wanted and is not there.
    pub(crate) open: Vec<usize>,
}

/// Compares what is there with what is wanted. Of several that are alike, those of one name belong together.
pub(crate) fn diff<T: PartialEq>(there: &[Named<T>], wanted: &[Named<T>]) -> Diff {
    let mut left: Vec<usize> = (0..there.len()).collect();
    let mut found = vec![None; wanted.len()];
    // First those that are alike in everything, so that a name's program is not given to another.
    for exact in [true, false] {
        for (new, place) in wanted.iter().zip(&mut found) {
            let same = |old: &usize| {
                let old = &there[*old];
                old.it == new.it && (!exact || old.name == new.name)
            };
            if place.is_none()
                && let Some(at) = left.iter().position(same)
            {
                *place = Some(left.remove(at));
            }
        }
    }
    let places = || found.iter().enumerate();
    Diff {
        keep: places().filter_map(|(new, old)| Some(((*old)?, new))).collect(),
        close: left,
        open: places().filter(|(_, old)| old.is_none()).map(|(new, _)| new).collect(),
    }
}

/// The listeners of a running client.
pub(crate) struct Listeners {
    client: Client,
    /// What stands behind listeners at the server.
    offers: Offers,
    config: ListenConfig,
    all: Vec<One>,
    /// Closed, and serving those that they had.
    ending: Vec<One>,
}

/// One that was asked for: open, or why it is not.
struct One {
    named: Named<Wanted>,
    open: Result<Open, String>,
}

/// A listener that is there, or that the server is asked for.
enum Open {
    Here(Listening),
    Server(Remote),
}

/// What came of a change, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) opened: Vec<String>,
    pub(crate) closed: Vec<String>,
    pub(crate) replaced: Vec<String>,
    pub(crate) renamed: Vec<String>,
    pub(crate) failed: Vec<String>,
}

/// One listener, as `status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct ListenerStatus {
    pub(crate) name: Option<String>,
    /// Where it is: `here` or `server`.
    pub(crate) end: String,
    /// Its form, without a password; that of a service where it is one.
    pub(crate) listener: String,
    /// `listening`, `asked` (the server has not answered), `ending` (closed, and serving those that it had) or `failed`.
    pub(crate) state: String,
    /// The addresses that it got, one for each port; of a service where people find it, as the server says.
    pub(crate) addresses: Vec<String>,
    /// Programs that it serves now.
    pub(crate) serving: u64,
    /// Why it does not listen.
    pub(crate) error: Option<String>,
}

impl Listeners {
    /// Opens all of them.
    ///
    /// # Errors
    /// One cannot be had; then none stays open.
    pub(crate) async fn open(
        wanted: &[Named<Wanted>],
        client: &Client,
        offers: Offers,
        config: ListenConfig,
    ) -> Result<Self, Failure> {
        let mut listeners =
            Self { client: client.clone(), offers, config, all: Vec::new(), ending: Vec::new() };
        for named in wanted {
            let one = listeners.open_one(named.clone()).await;
            match &one.open {
                Ok(_) => tracing::info!("{}", one.in_words()),
                Err(words) => return Err(Failure::config(words)),
            }
            listeners.all.push(one);
        }
        Ok(listeners)
    }

    async fn open_one(&self, named: Named<Wanted>) -> One {
        let client = self.client.clone();
        let open = match &named.it {
            Wanted::Here(listener) => {
                let open = listen(listener, client, &self.config).await;
                open.map(Open::Here).map_err(|error| error.to_string())
            }
            Wanted::Server(listener) => {
                let open = listen_remotely(listener, client, &self.offers);
                open.map(Open::Server).map_err(|error| error.to_string())
            }
            Wanted::Service(service) => match service.to.check() {
                Ok(()) => Ok(Open::Server(announce_remotely(service, client, &self.offers))),
                Err(error) => Err(format!("service {}: {error}", service.name)),
            },
        };
        let open = open.map_err(|error| format!("{}{error}", named.prefix()));
        One { named, open }
    }

    /// Makes them what is wanted. Those that stay keep sockets and programs; those that go take no more programs, and
    /// those that they have go on until they end. One that cannot be had is told, and tried again at the next change.
    pub(crate) async fn change_to(&mut self, wanted: &[Named<Wanted>]) -> Changed {
        self.ending.retain(|one| one.serving() > 0);
        let there: Vec<_> = self.all.iter().map(|one| one.named.clone()).collect();
        let Diff { keep, close, open } = diff(&there, wanted);
        let mut changed = Changed::default();
        let mut old: Vec<_> = self.all.drain(..).map(Some).collect();
        let mut new: Vec<Option<One>> = wanted.iter().map(|_| None).collect();
        // Those that go first, for others may want their ports.
        let mut closed = Vec::new();
        for one in close.into_iter().filter_map(|place| old[place].take()) {
            match &one.open {
                Ok(Open::Here(listening)) => {
                    listening.stop();
                    listening.closed().await;
                }
                Ok(Open::Server(remote)) => remote.stop(),
                Err(_) => {}
            }
            closed.push(one);
        }
        for (from, to) in keep {
            let Some(mut one) = old[from].take() else { continue };
            if one.named.name != wanted[to].name {
                changed.renamed.push(format!("{} (before: {})", wanted[to], one.named));
                one.named.name.clone_from(&wanted[to].name);
            }
            if one.open.is_err() {
                one = self.open_one(one.named).await;
                changed.note_new(&one, None);
            }
            new[to] = Some(one);
        }
        for place in open {
            let one = self.open_one(wanted[place].clone()).await;
            // The same name, or the same ports: it is another in its place.
            let before = closed.iter().position(|old| old.named.is_replaced_by(&one.named));
            let before = before.map(|at| closed.remove(at));
            changed.note_new(&one, before.as_ref());
            self.ending.extend(before);
            new[place] = Some(one);
        }
        changed.closed.extend(closed.iter().filter(|one| one.open.is_ok()).map(|one| one.named.to_string()));
        self.ending.extend(closed);
        self.ending.retain(|one| one.serving() > 0);
        self.all = new.into_iter().flatten().collect();
        changed
    }

    /// How many programs are served.
    pub(crate) fn serving(&self) -> usize {
        self.each().map(One::serving).sum()
    }

    /// All of them, as `status` shows them.
    pub(crate) fn status(&self) -> Vec<ListenerStatus> {
        let all = self.all.iter().map(|one| one.status(one.state()));
        let ending = self.ending.iter().filter(|one| one.serving() > 0).map(|one| one.status("ending"));
        all.chain(ending).collect()
    }

    /// Takes no more programs; those that are served go on.
    pub(crate) fn stop(&self) {
        self.listening().for_each(Listening::stop);
        for one in self.each() {
            if let Ok(Open::Server(remote)) = &one.open {
                remote.stop();
            }
        }
    }

    /// Takes no more programs, and resets those that are served.
    pub(crate) fn abort(&self) {
        self.stop();
        self.listening().for_each(Listening::abort);
    }

    /// Waits until they were stopped and no program is served any more.
    pub(crate) async fn ended(&self) {
        for open in self.listening() {
            open.ended().await;
        }
    }

    fn each(&self) -> impl Iterator<Item = &One> {
        self.all.iter().chain(&self.ending)
    }

    fn listening(&self) -> impl Iterator<Item = &Listening> {
        self.each().filter_map(|one| match &one.open {
            Ok(Open::Here(listening)) => Some(listening),
            _ => None,
        })
    }
}

impl Named<Wanted> {
    fn is_replaced_by(&self, other: &Self) -> bool {
        let same_place = match (&self.it, &other.it) {
            (Wanted::Here(one), Wanted::Here(other)) | (Wanted::Server(one), Wanted::Server(other)) => {
                // Any free port is another each time.
                let fixed = one.ports.iter().all(|port| port != 0);
                fixed && (one.bind_or_loopback(), one.ports) == (other.bind_or_loopback(), other.ports)
            }
            (Wanted::Service(one), Wanted::Service(other)) => one.name == other.name,
            _ => false,
        };
        same_place || (self.name.is_some() && self.name == other.name)
    }
}

impl One {
    /// Programs that it serves. Those at the server are counted there.
    fn serving(&self) -> usize {
        match &self.open {
            Ok(Open::Here(listening)) => listening.serving(),
            Ok(Open::Server(_)) | Err(_) => 0,
        }
    }

    fn state(&self) -> &'static str {
        match &self.open {
            Ok(Open::Here(_)) => "listening",
            Ok(Open::Server(remote)) => match remote.standing() {
                Standing::Listens(_) | Standing::Serves(_) => "listening",
                Standing::Refused(_) => "failed",
                _ => "asked",
            },
            Err(_) => "failed",
        }
    }

    /// The addresses that it got.
    fn addresses(&self) -> Vec<SocketAddr> {
        match &self.open {
            Ok(Open::Here(listening)) => listening.local_addrs().to_vec(),
            Ok(Open::Server(remote)) => match (remote.standing(), self.named.it.listener()) {
                (Standing::Listens(first), Some(listener)) => {
                    let ports = (first.port()..).take(listener.ports.len());
                    ports.map(|port| SocketAddr::new(first.ip(), port)).collect()
                }
                _ => Vec::new(),
            },
            Err(_) => Vec::new(),
        }
    }

    /// Where people find it: the addresses that it got, or what the server says of a service.
    fn places(&self) -> Vec<String> {
        if let Ok(Open::Server(remote)) = &self.open
            && let Standing::Serves(place) = remote.standing()
        {
            return if place.is_empty() { Vec::new() } else { vec![place] };
        }
        self.addresses().iter().map(ToString::to_string).collect()
    }

    /// What it is, with the addresses that it got.
    fn in_words(&self) -> String {
        let prefix = self.named.prefix();
        if let Err(words) = &self.open {
            return words.clone();
        }
        let listener = match &self.named.it {
            Wanted::Here(listener) => listener,
            Wanted::Server(listener) => return format!("{prefix}asks the server for {listener}"),
            Wanted::Service(ServiceForm { name, to, .. }) => {
                let what = match to {
                    Behind::Folder(_) => "the files of ",
                    _ => "",
                };
                return format!("{prefix}announces the service {name} with {what}{to}");
            }
        };
        let place = match &self.addresses()[..] {
            [] => String::new(),
            [only] => only.to_string(),
            [first, .., last] => format!("{first}-{}", last.port()),
        };
        match &listener.service {
            Service::Mixed { .. } => format!("{prefix}SOCKS5 and HTTP proxy on {place}"),
            Service::Socks5 { .. } => format!("{prefix}SOCKS5 proxy on {place}"),
            Service::Http { .. } => format!("{prefix}HTTP proxy on {place}"),
            Service::Tcp { host, ports, .. } => format!("{prefix}forward on {place} to {host}:{ports}"),
            Service::Udp { host, ports } => format!("{prefix}UDP forward on {place} to {host}:{ports}"),
            Service::FromWs { to, .. } => format!("{prefix}forward from WebSocket on {place} to {to}"),
            Service::ToWs { url, .. } => format!("{prefix}forward on {place} to {url}"),
            Service::Unix { path, .. } => {
                format!("{prefix}forward on {place} to unix:{}", path.as_str().escape_debug())
            }
            other => format!("{prefix}{} on {place}", other.scheme()),
        }
    }

    fn status(&self, state: &str) -> ListenerStatus {
        let error = match &self.open {
            Err(words) => Some(words.clone()),
            Ok(Open::Server(remote)) => match remote.standing() {
                Standing::Refused(refusal) => Some(refusal.to_string()),
                _ => None,
            },
            Ok(Open::Here(_)) => None,
        };
        ListenerStatus {
            name: self.named.name.clone(),
            end: match self.named.it {
                Wanted::Here(_) => "here",
                Wanted::Server(_) | Wanted::Service(_) => "server",
            }
            .to_owned(),
            listener: match &self.named.it {
                Wanted::Here(listener) | Wanted::Server(listener) => listener.to_string(),
                Wanted::Service(service) => service.to_string(),
            },
            state: state.to_owned(),
            addresses: self.places(),
            serving: self.serving() as u64,
            error,
        }
    }
}

impl Changed {
    /// One was opened, or was to be, in the place of another perhaps.
    fn note_new(&mut self, one: &One, before: Option<&One>) {
        match (&one.open, before) {
            (Err(words), before) => {
                self.failed.push(words.clone());
                self.closed.extend(before.filter(|one| one.open.is_ok()).map(|one| one.named.to_string()));
            }
            (Ok(_), None) => self.opened.push(one.in_words()),
            (Ok(_), Some(before)) => {
                self.replaced.push(format!("{} (before: {})", one.in_words(), before.named))
            }
        }
    }

    /// What was done, in one line; none where nothing was.
    pub(crate) fn line(&self) -> Option<String> {
        let parts = [
            ("opened", &self.opened),
            ("closed", &self.closed),
            ("replaced", &self.replaced),
            ("renamed", &self.renamed),
            ("not opened", &self.failed),
        ];
        let said: Vec<_> = parts
            .iter()
            .filter(|(_, all)| !all.is_empty())
            .map(|(what, all)| format!("{what} {}", all.join(", ")))
            .collect();
        (!said.is_empty()).then(|| said.join("; "))
    }
}

#[cfg(test)]
mod tests;
