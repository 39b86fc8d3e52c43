//! The end that asks for a listener ([`listen_remotely`]) or announces a service ([`announce_remotely`]): again and again, as
//! long as it is wanted.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::offers::Offered;
use super::{Answer, MOST_ANSWER, Offers, Refusal, RefusalCause, write_words};
use crate::connection::{Opener, VirtualConnection};
use crate::destination::{AnnounceRequest, Control, Destination, ListenRequest, Transport};
use crate::listener::{Listener, Service};
use crate::reach::ReachError;
use crate::service::form::ServiceForm;

/// The first wait after a listener was lost, and the longest between two tries.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A listener that stood for so long was a good one: when it is lost, the waits begin anew.
const STOOD: Duration = Duration::from_secs(1);

/// How a listener or a service at the other end stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It was asked for; no answer yet.
    Asked,
    /// It listens, from this address on.
    Listens(SocketAddr),
    /// It takes the service, which people find there; empty where that is not known.
    Serves(String),
    /// It does not. It is asked for again.
    Refused(Refusal),
}

/// A listener or a service at the other end; its drop takes it away. Programs that are served go on.
#[derive(Debug)]
pub struct Remote {
    standing: watch::Receiver<Standing>,
    task: JoinHandle<()>,
}

/// A listener that the other end cannot be asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "listener \"{form}\": {scheme} listens here only (-L): at the other end there are tcp, udp, ws, and services such as \
     http://shop:127.0.0.1:3000 (-R)"
)]
pub struct RemoteError {
    form: String,
    scheme: &'static str,
}

impl RemoteError {
    /// Whether a listener can be asked for.
    ///
    /// # Errors
    /// It cannot.
    pub fn check(listener: &Listener) -> Result<(), Self> {
        transport(listener).map(drop)
    }
}

fn transport(listener: &Listener) -> Result<(Transport, bool), RemoteError> {
    match &listener.service {
        Service::Tcp { proxy_header, .. } | Service::Unix { proxy_header, .. } => {
            Ok((Transport::Tcp, *proxy_header))
        }
        Service::Udp { .. } => Ok((Transport::Udp, false)),
        Service::FromWs { options, .. } => Ok((Transport::Tcp, options.proxy_header)),
        Service::ToWs { .. } => Ok((Transport::Tcp, false)),
        other => Err(RemoteError { form: listener.to_string(), scheme: other.scheme() }),
    }
}

/// Asks the other end to listen, and offers it what is to be dialled. Whenever the listener is lost, it is asked for
/// again; one that another session of the same user took over is left to that as long as it holds it. Within a tokio
/// runtime.
///
/// # Errors
/// It cannot be asked for.
pub fn listen_remotely<O: Opener>(
    listener: &Listener,
    opener: O,
    offers: &Offers,
) -> Result<Remote, RemoteError> {
    let (transport, proxy_header) = transport(listener)?;
    let offered = offers.add(listener.service.clone());
    let request = ListenRequest {
        listener: offered.id,
        transport,
        bind: listener.bind,
        ports: listener.ports,
        proxy_header,
        polite: false,
    };
    Ok(keep(opener, Asked::Listen(request), offered, form(listener)))
}

/// Announces a service to the other end, and offers it what is to be dialled, or to answer with a folder's files. It is
/// announced again whenever it is lost, as a listener is. Within a tokio runtime.
pub fn announce_remotely<O: Opener>(service: &ServiceForm, opener: O, offers: &Offers) -> Remote {
    let offered = offers.add_service(&service.to);
    let request = AnnounceRequest {
        listener: offered.id,
        service: service.name.clone(),
        protocol: service.to.protocol(),
        weight: service.weight.get(),
        instance: service.instance(),
        polite: false,
    };
    keep(opener, Asked::Announce(Box::new(request)), offered, service.to.to_string())
}

fn keep<O: Opener>(opener: O, asked: Asked, offered: Offered, form: String) -> Remote {
    let (told, standing) = watch::channel(Standing::Asked);
    let keeper = Keeper { opener, asked, _offered: offered, told, form };
    Remote { standing, task: tokio::spawn(keeper.keep()) }
}

/// What stands behind the listener, for the log.
fn form(listener: &Listener) -> String {
    match &listener.service {
        Service::Tcp { host, ports, .. } | Service::Udp { host, ports } => format!("{host}:{ports}"),
        Service::Unix { path, .. } => format!("unix:{}", path.as_str().escape_debug()),
        Service::FromWs { to, .. } => to.to_string(),
        Service::ToWs { url, .. } => url.to_string(),
        other => other.scheme().to_owned(),
    }
}

impl Remote {
    /// How it stands now.
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// Closes it, and does not ask for it again. Programs that are served go on.
    pub fn stop(&self) {
        self.task.abort();
    }

    /// Watches how it stands.
    pub fn watch(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the other end is asked for.
enum Asked {
    Listen(ListenRequest),
    Announce(Box<AnnounceRequest>),
}

impl Asked {
    fn destination(&self) -> Destination {
        Destination::Control(match self {
            Self::Listen(request) => Control::Listen(*request),
            Self::Announce(request) => Control::Announce(request.clone()),
        })
    }

    fn polite(&mut self) -> &mut bool {
        match self {
            Self::Listen(request) => &mut request.polite,
            Self::Announce(request) => &mut request.polite,
        }
    }

    /// What the other end is said not to have for it when it does not know it.
    fn unknown(&self) -> &'static str {
        match self {
            Self::Listen(_) => "listeners for clients",
            Self::Announce(_) => "services of clients",
        }
    }
}

struct Keeper<O> {
    opener: O,
    asked: Asked,
    _offered: Offered,
    told: watch::Sender<Standing>,
    form: String,
}

/// How a registration ended.
enum End {
    /// With its connection, when it had been answered.
    Lost,
    /// Before it was answered.
    NoAnswer,
    Refused(Refusal),
}

impl<O: Opener> Keeper<O> {
    async fn keep(mut self) {
        let mut wait = FIRST_WAIT;
        // Each round waits for some time, longer when the listener did not stand.
        loop {
            let before = self.told.send_replace(Standing::Asked);
            let asked = Instant::now();
            match self.ask().await {
                End::Lost => {
                    tracing::debug!("what was to lead to {} was lost: it is asked for again", self.form);
                    *self.asked.polite() = false;
                    if asked.elapsed() >= STOOD {
                        wait = FIRST_WAIT;
                    }
                }
                End::NoAnswer => {}
                End::Refused(refusal) => {
                    let standing = Standing::Refused(refusal.clone());
                    // Each reason once, not every time that it is asked for.
                    if before != standing {
                        self.complain(&refusal);
                    }
                    // Whoever took it would be displaced again, and come again, for ever.
                    *self.asked.polite() |= refusal.cause == RefusalCause::Taken;
                    self.told.send_replace(standing);
                    // A port may be free in a moment, such as one that this client gave back just now.
                    if !matches!(refusal.cause, RefusalCause::InUse | RefusalCause::Failed) {
                        wait = LONGEST_WAIT;
                    }
                }
            }
            sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    fn complain(&self, refusal: &Refusal) {
        let form = &self.form;
        match &self.asked {
            Asked::Listen(request) => {
                tracing::warn!("no listener on the server for {form} ({request}): {refusal}");
            }
            Asked::Announce(request) => {
                tracing::warn!("the service {} is not served with {form}: {refusal}", request.service);
            }
        }
    }

    /// Asks once, and waits for the end of what came of it.
    async fn ask(&self) -> End {
        let destination = self.asked.destination();
        let Ok(connection) = self.opener.open(destination.encode()).await else { return End::NoAnswer };
        let mut buffer = BytesMut::new();
        match (next_answer(&connection, &mut buffer).await, &self.asked) {
            (Ok(Some(Answer::Bound(address))), Asked::Listen(request)) if is_possible(request, address) => {
                tracing::info!("the server listens on {address} for {}", self.form);
                self.told.send_replace(Standing::Listens(address));
            }
            (Ok(Some(Answer::Taken(place))), Asked::Announce(request)) => {
                let place = safe(&place);
                let at = if place.is_empty() { "".into() } else { format!(" at {place}") };
                tracing::info!("the service {} is served{at} with {}", request.service, self.form);
                self.told.send_replace(Standing::Serves(place));
            }
            (Ok(Some(Answer::Refused(refusal))), _) => return End::Refused(refusal),
            (Ok(Some(answer)), _) => {
                let what = match answer {
                    Answer::Bound(address) => format!("listens on {address}"),
                    _ => "serves something".to_owned(),
                };
                let words = format!("the server says that it {what}, which was not asked for");
                return End::Refused(Refusal::new(RefusalCause::Failed, words));
            }
            (Ok(None) | Err(_), _) => return self.unanswered(&connection).await,
        }
        match next_answer(&connection, &mut buffer).await {
            Ok(Some(Answer::Refused(refusal))) => End::Refused(refusal),
            _ => End::Lost,
        }
    }

    /// Why there was no answer.
    async fn unanswered(&self, connection: &O::Connection) -> End {
        match futures::FutureExt::now_or_never(connection.connected()) {
            Some(Err(ReachError::Dial(error))) => {
                let words = format!("{error}: a server of an older version has no {}", self.asked.unknown());
                End::Refused(Refusal::new(RefusalCause::Failed, words))
            }
            _ => End::NoAnswer,
        }
    }
}

/// Whether the server may listen from this address on, as it says.
fn is_possible(request: &ListenRequest, address: SocketAddr) -> bool {
    let (wanted, ports) = (request.ports.first(), request.ports.len());
    let all = usize::from(address.port()) + ports - 1 <= usize::from(u16::MAX);
    address.port() > 0 && all && (wanted == 0 || wanted == address.port())
}

/// The other end's words, as they may reach a terminal.
fn safe(words: &str) -> String {
    let mut safe = String::new();
    // To write to a string does not fail.
    write_words(words, &mut safe).ok();
    safe
}

/// The next answer; none at the end.
async fn next_answer<C: VirtualConnection>(
    connection: &C,
    buffer: &mut BytesMut,
) -> io::Result<Option<Answer>> {
    loop {
        if let Some(answer) = Answer::decode(buffer).map_err(io::Error::other)? {
            return Ok(Some(answer));
        }
        let mut chunks = Vec::new();
        let most = MOST_ANSWER.saturating_sub(buffer.len()).max(1);
        if poll_fn(|cx| connection.poll_read_batch(cx, most, &mut chunks)).await? == 0 {
            return Ok(None);
        }
        chunks.iter().for_each(|chunk| buffer.extend_from_slice(chunk));
    }
}
