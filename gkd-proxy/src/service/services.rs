//! Services by the names that requests ask for ([`Services`]): which there are, who answers for them, and how they are.
//!
//! A service is described by the configuration, or is there because a client announces it. Its targets are those of its
//! description, and those that clients [announce](Services::announce). Whatever changes, running requests go on, and what
//! stays keeps its connections and what is known of its health.

mod clients;
mod roster;
mod status;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

pub use self::clients::Clients;
use self::roster::{Announcement, Key, Roster, Table};
pub use self::status::{ServiceStatus, TargetStatus};
use super::config::{HttpConfig, Https, NotAnnounced, ServiceNames};
use super::error_page::{Side, page};
use super::exchange::{Exchanged, Fault, Terms, exchange, nothing};
use super::forwarded::{Origin, host_of};
use super::front::{Answer, Answered};
pub use super::target::Content;
use super::target::{Target, Way};
pub use super::upstream::Protocol;
use super::upstream::{Blame, Upstream};
use super::{Reach, ServiceBody, Visit};

/// How often kept connections are looked at.
const SWEEP: Duration = Duration::from_secs(5);

/// Makes of a folder what answers for it.
pub type Contents = Arc<dyn Fn(&Path) -> Arc<dyn Content> + Send + Sync>;

/// Services, and the way to those who answer for them.
pub struct Services {
    /// What requests look at.
    table: RwLock<Arc<Table>>,
    /// What the table is made of.
    roster: Mutex<Roster>,
    /// When connections end that became another protocol's.
    end: CancellationToken,
}

/// A target of a client, which is there until this is dropped.
#[must_use = "the target goes with it"]
pub struct Announced {
    services: Weak<Services>,
    key: Key,
}

/// Why a client's target is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnnounceError {
    /// The user may not.
    #[error(transparent)]
    NotAnnounced(#[from] NotAnnounced),
    /// Another user was first.
    #[error(
        "the service {0} is announced by another user: a [[service]] in server.toml whose `users` names both would share it"
    )]
    Taken(String),
    /// Its host is another service's.
    #[error(
        "the service {0} has a host that is another service's: announce it by another name, or change server.toml"
    )]
    Clash(String),
    /// It has too many targets.
    #[error("the service {0} has as many targets as one can have: end some of the clients that announce it")]
    Full(String),
}

impl Services {
    /// The services of a configuration. `contents` makes what answers for folders. Runs on the runtime that this is called
    /// on.
    pub fn new(config: &HttpConfig, contents: Contents) -> Arc<Self> {
        let mut roster = Roster::new(contents);
        roster.configure(config);
        let table = RwLock::new(Arc::new(roster.table()));
        let services = Arc::new(Self { table, roster: Mutex::new(roster), end: CancellationToken::new() });
        tokio::spawn(sweep(Arc::downgrade(&services)));
        services
    }

    /// Takes another configuration on. Targets that stay keep their connections and their health; those that go end when
    /// their requests have; what clients have announced stays as far as the new one lets it.
    pub fn reload(&self, config: &HttpConfig) {
        let mut roster = self.roster();
        roster.configure(config);
        self.show(&roster);
    }

    /// Adds a target of a client, which goes when what is returned is dropped. `granted` are the names that its user may
    /// announce, and `weight` its part of the requests.
    ///
    /// # Errors
    /// The user may not announce it, or somebody else does.
    pub fn announce(
        self: &Arc<Self>,
        service: &str,
        user: &str,
        granted: &ServiceNames,
        target: (Arc<dyn Reach>, Protocol),
        weight: u32,
    ) -> Result<Announced, AnnounceError> {
        let (reach, protocol) = target;
        let way = Way::Upstream(Arc::new(Upstream::new(reach, protocol, None)));
        let target = Arc::new(Target::new(way, Some(user)));
        let mut roster = self.roster();
        let key = roster.announce(Announcement::new(service, user, granted, target, weight))?;
        self.show(&roster);
        Ok(Announced { services: Arc::downgrade(self), key })
    }

    /// Whether a user, who was granted these names, may announce a service.
    ///
    /// # Errors
    /// The user may not.
    pub fn may_announce(
        &self,
        user: &str,
        granted: &ServiceNames,
        service: &str,
    ) -> Result<(), AnnounceError> {
        Ok(self.roster().config().may_announce(user, granted, service)?)
    }

    /// Where people find a service, as addresses of the web; empty where there is none of the name.
    pub fn place(&self, service: &str) -> String {
        self.roster().place(service)
    }

    /// How services and targets are.
    pub fn status(&self) -> Vec<ServiceStatus> {
        self.roster().status()
    }

    /// Ends connections that became another protocol's; requests are the front's to end.
    pub fn shutdown(&self) {
        self.end.cancel();
    }

    /// Answers a request, with a page of ours where no service does.
    pub async fn answer(&self, request: Request<ServiceBody>, visit: Visit) -> Answered {
        let table = self.table();
        let asked = request.headers().get(header::ACCEPT).cloned();
        let is_connect = request.method() == Method::CONNECT && request.version() < Version::HTTP_2;
        let Exchanges { service, exchanged } = self.exchanged(&table, request, &visit).await;
        let response = match exchanged.answer {
            Ok(response) => response,
            Err(fault) => {
                let mut response = told(&fault, &visit, asked);
                if is_connect {
                    // What stands behind it may be bytes for somebody else, and no request.
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                response
            }
        };
        Answered { response, service, target: exchanged.target.map(|target| Arc::clone(target.name())) }
    }

    async fn exchanged(&self, table: &Table, request: Request<ServiceBody>, visit: &Visit) -> Exchanges {
        let refused = |service, status| {
            let answer = Err(Fault::Request(status));
            Exchanges { service, exchanged: Exchanged { answer, target: None } }
        };
        let (head, body) = request.into_parts();
        let Ok(host) = host_of(&head) else { return refused(None, StatusCode::BAD_REQUEST) };
        let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default();
        let Some(service) = table.routes.find(host, head.uri.path()) else {
            return refused(None, StatusCode::NOT_FOUND);
        };
        let name = Some(Arc::clone(&service.name));
        let origin = Origin::of(&head.headers, visit, &table.trusted);
        match service.https {
            Https::Only if !origin.tls => return refused(name, StatusCode::NOT_FOUND),
            Https::Redirect if !origin.tls => {
                let port = table.https_port.filter(|_| !origin.trusted);
                let Some(answer) = redirect(host, port, &head.uri) else {
                    return refused(name, StatusCode::BAD_REQUEST);
                };
                let exchanged = Exchanged { answer: Ok(answer), target: None };
                return Exchanges { service: name, exchanged };
            }
            _ => {}
        }
        let terms = Terms {
            pool: &service.pool,
            host: &service.host,
            send_proxy: service.send_proxy,
            limits: &table.limits,
            end: &self.end,
        };
        let exchanged = exchange(&terms, Request::from_parts(head, body), &origin, visit).await;
        Exchanges { service: name, exchanged }
    }

    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has requests see what the roster says.
    fn show(&self, roster: &Roster) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(roster.table());
    }
}

impl Answer for Services {
    fn answer(self: Arc<Self>, request: Request<ServiceBody>, visit: Visit) -> BoxFuture<'static, Answered> {
        Box::pin(async move { Self::answer(&self, request, visit).await })
    }

    fn extended_connect(&self) -> bool {
        true
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let Some(services) = self.services.upgrade() else { return };
        let mut roster = services.roster();
        roster.withdraw(self.key);
        services.show(&roster);
    }
}

/// What came of a request, and whose it was.
struct Exchanges {
    service: Option<Arc<str>>,
    exchanged: Exchanged,
}

/// Closes connections that have been kept for too long, as long as the services are there.
async fn sweep(services: Weak<Services>) {
    loop {
        sleep(SWEEP).await;
        let Some(services) = services.upgrade() else { return };
        let pools = services.roster().pools();
        for pool in pools {
            pool.sweep();
        }
    }
}

/// The same place over TLS (RFC 9110, section 15.4.9: with the same method and body). None where the host is none.
fn redirect(host: &str, port: Option<u16>, uri: &Uri) -> Option<Response<ServiceBody>> {
    let has_port = host.rfind(':') > host.rfind(']');
    let name = if has_port { host.rsplit_once(':')?.0 } else { host };
    if name.is_empty() {
        return None;
    }
    let port = port.filter(|port| *port != 443).map(|port| format!(":{port}")).unwrap_or_default();
    let path = uri.path_and_query().map(|path| path.as_str()).filter(|path| path.starts_with('/'));
    let place = format!("https://{name}{port}{}", path.unwrap_or("/"));
    let mut response = Response::new(nothing());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_str(&place).ok()?);
    Some(response)
}

/// The page for a client that gets no answer of a service.
fn told(fault: &Fault, visit: &Visit, accept: Option<HeaderValue>) -> Response<ServiceBody> {
    let (status, side, words) = match fault {
        Fault::Request(status @ StatusCode::NOT_FOUND) => {
            (*status, Side::Request, "There is no service by this name.")
        }
        Fault::Request(status @ StatusCode::NOT_IMPLEMENTED) => {
            (*status, Side::Request, "No tunnel is opened for this request.")
        }
        Fault::Request(status) => (*status, Side::Request, "The request is not in the form of one."),
        Fault::Service(failure) if failure.status == StatusCode::INTERNAL_SERVER_ERROR => {
            (failure.status, Side::Server, "The request could not be passed on.")
        }
        Fault::Service(failure) if failure.blame == Blame::Here => {
            (failure.status, Side::Server, "It has no room for a further connection at the moment.")
        }
        Fault::Service(failure) => (
            failure.status,
            Side::Service,
            match failure.status {
                StatusCode::GATEWAY_TIMEOUT => "It did not answer in time.",
                StatusCode::NOT_IMPLEMENTED => "It takes no WebSockets.",
                StatusCode::SERVICE_UNAVAILABLE => "Nobody answers for it at the moment.",
                _ => "It was not reached, or did not give a proper answer.",
            },
        ),
    };
    let asked: HeaderMap = accept.map(|accept| (header::ACCEPT, accept)).into_iter().collect();
    page(status, side, words, &visit.id, &asked)
}
