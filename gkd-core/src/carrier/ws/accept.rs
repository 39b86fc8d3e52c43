//! The server's side of HTTP (RFC 6455 §4.2): which requests become tunnels, and that all others go to a site.
//!
//! One connection may bring both, as a proxy in front keeps connections and sends over one whatever comes next. Who is
//! waited for how long, and how many there may be, the server sees to.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use futures::future::{BoxFuture, FutureExt, ready};
use gkd_proto::id::Side;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{
    CONNECTION, CONTENT_TYPE, HOST, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::http::uri::Authority;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Notify;

use super::connect::taken_over;
use super::watched::Watched;
use super::{KEY_LEN, MAX_HEAD, NAME, VERSION, accept_of, asks_for_upgrade, has_token, only};
use crate::carrier::{CarrierError, Wire};

/// How long a visitor's connection is kept that asks for nothing, and how long a further request's head may take. A
/// proxy in front keeps those that it does not use for 60 s as a rule, and should be the one to close them.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// How long nothing may move on a visitor's connection, whoever is waited for: longer than what is above, and than a site
/// may take for an answer. A visitor who does not read what it asked for would be waited for as long as it likes.
const STILL: Duration = Duration::from_secs(90);

/// Answers requests that are no tunnels: a site, for whoever looks at the port with a browser. The address is the
/// visitor's, or that of the proxy in front. A visitor on whose connection nothing moves for 90 s is not waited for, so
/// an answer has to begin and go on sooner.
pub type SiteService = Arc<dyn Fn(Request<Incoming>, SocketAddr) -> BoxFuture<'static, Page> + Send + Sync>;

/// What a site answers.
type Page = Response<BoxBody<Bytes, io::Error>>;

/// Which requests become tunnels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// Whether any does.
    pub enabled: bool,
    /// The paths, each with its leading `/`; none means any.
    pub paths: Vec<String>,
    /// The hosts that the request names, without a port; none means any.
    pub hosts: Vec<String>,
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self { enabled: true, paths: Vec::new(), hosts: Vec::new() }
    }
}

impl WebSocketConfig {
    /// Whether a tunnel may be asked for there.
    fn permits<B>(&self, request: &Request<B>) -> bool {
        let path = self.paths.is_empty() || self.paths.iter().any(|path| path == request.uri().path());
        let named = |host: &str| self.hosts.iter().any(|named| is_same_host(named, host));
        self.enabled && path && (self.hosts.is_empty() || host_of(request).is_some_and(|host| named(&host)))
    }
}

fn is_same_host(a: &str, b: &str) -> bool {
    let without_dot = |host: &str| host.strip_suffix('.').unwrap_or(host).to_owned();
    without_dot(a).eq_ignore_ascii_case(&without_dot(b))
}

/// Whom a request is for: RFC 9112 §3.3.
fn host_of<B>(request: &Request<B>) -> Option<String> {
    match request.uri().host() {
        Some(host) => Some(host.to_owned()),
        None => Some(only(request.headers(), &HOST)?.parse::<Authority>().ok()?.host().to_owned()),
    }
}

/// What a server does with HTTP.
#[derive(Clone)]
pub(crate) struct Visit {
    pub(crate) config: WebSocketConfig,
    pub(crate) site: SiteService,
}

impl fmt::Debug for Visit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Visit").field(&self.config).finish()
    }
}

/// What becomes of a request.
enum Verdict {
    /// A tunnel, with what its key is answered with.
    Tunnel(String),
    Site,
    Refused(StatusCode, &'static str),
}

/// Serves a connection that speaks HTTP, until it ends or becomes a WebSocket. Tells with `visited` when it asks for
/// something else than a tunnel; until then heads may come slowly, which is the caller's to bound.
///
/// # Errors
/// What the client does wrong, and whatever may befall a connection.
pub(crate) async fn serve(
    wire: Wire,
    address: SocketAddr,
    visit: &Arc<Visit>,
    visited: &Arc<Notify>,
) -> Result<Option<Wire>, CarrierError> {
    let asked: Arc<Mutex<Option<OnUpgrade>>> = Arc::default();
    let service = {
        let (asked, visit, visited) = (asked.clone(), visit.clone(), visited.clone());
        service_fn(move |request| answer(request, address, &visit, &visited, &asked).map(Ok::<_, Infallible>))
    };
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(KEEP_ALIVE).max_buf_size(MAX_HEAD);
    let watched = Watched::new(wire);
    let movement = watched.movement();
    let connection = builder.serve_connection(TokioIo::new(watched), service).with_upgrades();
    tokio::select! {
        biased;
        served = connection => served.map_err(|error| CarrierError::Io(io::Error::other(error)))?,
        () = movement.ceased(STILL) => return Err(CarrierError::Io(io::ErrorKind::TimedOut.into())),
    }
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner).take();
    match asked {
        Some(upgrade) => {
            let upgraded = upgrade.await.map_err(|error| CarrierError::Io(io::Error::other(error)))?;
            taken_over::<Watched>(upgraded, Side::Server).map(Some)
        }
        None => Ok(None),
    }
}

fn answer(
    mut request: Request<Incoming>,
    address: SocketAddr,
    visit: &Visit,
    visited: &Notify,
    asked: &Mutex<Option<OnUpgrade>>,
) -> BoxFuture<'static, Page> {
    let page = match judge(&visit.config, &request) {
        Verdict::Site => {
            visited.notify_one();
            return (visit.site)(request, address);
        }
        Verdict::Tunnel(accept) => {
            let upgrade = hyper::upgrade::on(&mut request);
            *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
            switching(&accept)
        }
        Verdict::Refused(status, words) => refusal(status, words),
    };
    ready(page).boxed()
}

/// Tells tunnels from all else, strictly: what two readers would read differently becomes no tunnel.
fn judge<B: Body>(config: &WebSocketConfig, request: &Request<B>) -> Verdict {
    let headers = request.headers();
    // RFC 9112 §3.2, whoever it is for.
    if request.version() == Version::HTTP_11 && only(headers, &HOST).is_none() {
        return Verdict::Refused(StatusCode::BAD_REQUEST, "there has to be one Host");
    }
    let of_websocket = [SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION];
    let is_meant =
        has_token(headers, &UPGRADE, NAME) || of_websocket.iter().any(|name| headers.contains_key(name));
    // In HTTP/1.0 there is no upgrade (RFC 9110 §7.8).
    if !is_meant || request.version() != Version::HTTP_11 || !config.permits(request) {
        return Verdict::Site;
    }
    if request.method() != Method::GET || !request.body().is_end_stream() {
        return Verdict::Refused(
            StatusCode::BAD_REQUEST,
            "a WebSocket is asked for with GET and without a body",
        );
    }
    let upgrades = only(headers, &UPGRADE).is_some() && has_token(headers, &UPGRADE, NAME);
    if !upgrades || !asks_for_upgrade(headers) {
        return Verdict::Refused(
            StatusCode::UPGRADE_REQUIRED,
            "Upgrade: websocket is missing, or not in Connection",
        );
    }
    if only(headers, &SEC_WEBSOCKET_VERSION) != Some(VERSION) {
        return Verdict::Refused(StatusCode::UPGRADE_REQUIRED, "only version 13 of WebSocket is spoken");
    }
    let key = only(headers, &SEC_WEBSOCKET_KEY);
    let is_key = |key: &&str| BASE64.decode(key.as_bytes()).is_ok_and(|bytes| bytes.len() == KEY_LEN);
    match key.filter(is_key) {
        Some(key) => Verdict::Tunnel(accept_of(key)),
        None => {
            Verdict::Refused(StatusCode::BAD_REQUEST, "there has to be one Sec-WebSocket-Key of 16 bytes")
        }
    }
}

fn switching(accept: &str) -> Page {
    let mut page = page(StatusCode::SWITCHING_PROTOCOLS, "");
    let headers = page.headers_mut();
    headers.clear();
    headers.insert(UPGRADE, HeaderValue::from_static(NAME));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    // Base64, so it is a value.
    headers.extend(HeaderValue::from_str(accept).ok().map(|accept| (SEC_WEBSOCKET_ACCEPT, accept)));
    page
}

fn refusal(status: StatusCode, words: &'static str) -> Page {
    let mut page = page(status, words);
    if status == StatusCode::UPGRADE_REQUIRED {
        let headers = page.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static(NAME));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
    }
    page
}

fn page(status: StatusCode, words: &'static str) -> Page {
    let mut page = Response::new(Full::from(words).map_err(|never| match never {}).boxed());
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    page
}

/// The site of a server that has none: nothing is found there.
pub fn not_found() -> SiteService {
    Arc::new(|_, _| ready(page(StatusCode::NOT_FOUND, "404 Not Found\n")).boxed())
}
