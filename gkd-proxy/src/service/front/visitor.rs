//! One connection's requests ([`Visitor`]): each is judged, named, counted, and given to whoever answers, or answered here with
//! what is wrong.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::Instant;

use super::Answer;
use super::Answered;
use super::Shared;
use super::activity::Activity;
use super::download::Download;
use super::guarded::Watch;
use super::places::whole_network;
use super::request::{self, Fault};
use super::settings::Settings;
use super::unanswered::Unanswered;
use super::upload::{BodyFlaw, Upload};
use super::verdicts::Verdict;
use super::wire::Broken;
use crate::service::access_log::Entry;
use crate::service::error_page::{Side, page};
use crate::service::{ServiceBody, Visit};

/// Who is at the other end of a connection.
pub(super) struct Visitor {
    pub(super) front: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
    pub(super) client: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) tls: bool,
    /// Whether the peer's word is taken.
    pub(super) trusted: bool,
    pub(super) activity: Arc<Activity>,
    /// Of HTTP/1.1.
    pub(super) lines: Option<Lines>,
}

/// What is particular to HTTP/1.1.
pub(super) struct Lines {
    pub(super) watch: Arc<Watch>,
    pub(super) broken: Broken,
}

/// The answer to one request, as hyper takes it.
pub(super) type Answering = BoxFuture<'static, Result<Response<Download>, Infallible>>;

/// Why a request goes to nobody.
struct Refusal {
    status: StatusCode,
    side: Side,
    words: &'static str,
    /// In what time another may come.
    retry: Option<Duration>,
    /// Whether the connection is to end: it is not certain any more what comes next, or not wanted.
    close: bool,
}

impl Refusal {
    fn closing(status: StatusCode, words: &'static str) -> Self {
        Self { status, side: Side::Request, words, retry: None, close: true }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::closing(fault.status, fault.words)
    }
}

impl From<BodyFlaw> for Refusal {
    fn from(flaw: BodyFlaw) -> Self {
        match flaw {
            BodyFlaw::TooLarge => Self::closing(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
            BodyFlaw::TimedOut => Self::closing(StatusCode::REQUEST_TIMEOUT, "The body did not come."),
            BodyFlaw::Malformed => {
                Self::closing(StatusCode::BAD_REQUEST, "The body breaks the rules of its coding.")
            }
        }
    }
}

impl Visitor {
    /// Answers one request. It counts from the call on.
    pub(super) fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answering {
        let number = self.activity.begin();
        self.front.counts.requests.add();
        let (parts, body) = request.into_parts();
        let id = self.front.ids.name(&parts.headers, self.trusted);
        let unanswered = Unanswered::new(Arc::clone(&self), &parts, &id);
        Box::pin(async move { Ok(self.answer_within(number, parts, body, id, unanswered).await) })
    }

    async fn answer_within(
        &self,
        number: u64,
        mut parts: Parts,
        body: Incoming,
        id: Arc<str>,
        mut unanswered: Unanswered,
    ) -> Response<Download> {
        let head = parts.method == Method::HEAD;
        let accept = accept_of(&parts.headers);
        let connects = parts.method == Method::CONNECT;
        let answered = match self.judge(number, &mut parts, &body, &mut unanswered) {
            Ok(()) => self.pass_on(parts, body, &id).await,
            Err(refusal) => Err(refusal),
        };
        let Answered { mut response, service, target } =
            answered.unwrap_or_else(|refusal| self.refuse(&refusal, &id, &accept).into());
        if let Some(lines) = &self.lines {
            let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
            if upgraded {
                // Never given back: the connection is another's, and not idle.
                self.activity.hold();
            }
            lines.watch.decide(number, upgraded);
        }
        let status = response.status();
        unanswered.log(|entry| {
            entry.status = status.as_u16();
            (entry.service, entry.target) = (service, target);
        });
        if head {
            tell_length(&mut response);
        }
        let bodiless = head || (connects && status.is_success());
        let broken = self.lines.as_ref().map(|lines| lines.broken.clone()).unwrap_or_default();
        response.map(|body| Download::new(body, bodiless, broken, unanswered))
    }

    /// Whether a request may be passed on. Brings it into form.
    fn judge(
        &self,
        number: u64,
        parts: &mut Parts,
        body: &Incoming,
        unanswered: &mut Unanswered,
    ) -> Result<(), Refusal> {
        let counts = &self.front.counts;
        if let Some(refused) = self.lines.as_ref().and_then(|lines| lines.watch.refused(number)) {
            counts.heads.add();
            unanswered.log(|entry| {
                entry.request.clone_from(&refused.line);
                entry.host = None;
            });
            return Err(Refusal::closing(refused.flaw.status(), refused.flaw.words()));
        }
        let protocols = self.front.answer.extended_connect();
        request::judge(parts, self.tls, protocols).inspect_err(|_| counts.heads.add())?;
        if let Some(per_second) = self.settings.limits.requests_per_second
            && self.is_itself()
        {
            let address = whole_network(self.client.ip());
            let taken = self.front.rates.take(address, per_second, Instant::now().into_std());
            taken.map_err(|retry| {
                counts.rate.add();
                let words = "Too many requests came from this address.";
                let status = StatusCode::TOO_MANY_REQUESTS;
                Refusal { status, side: Side::Request, words, retry: Some(retry), close: false }
            })?;
        }
        if self.settings.limits.max_body.is_some_and(|most| body.size_hint().lower() > most) {
            counts.bodies.add();
            return Err(BodyFlaw::TooLarge.into());
        }
        Ok(())
    }

    async fn pass_on(&self, parts: Parts, body: Incoming, id: &Arc<str>) -> Result<Answered, Refusal> {
        let visit = Visit {
            client: self.client,
            peer: self.peer,
            local: self.local,
            tls: self.tls,
            id: Arc::clone(id),
        };
        let answer = |request| unharmed(Arc::clone(&self.front.answer), request, visit);
        if body.is_end_stream() {
            let body = Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync();
            return answer(Request::from_parts(parts, body)).await;
        }
        let limits = &self.settings.limits;
        let watch = self.lines.as_ref().map(|lines| Arc::clone(&lines.watch));
        let (body, trouble) = Upload::new(body, limits.max_body, limits.silence, watch);
        let request = Request::from_parts(parts, body.boxed_unsync());
        let answered = tokio::select! {
            biased;
            _ = trouble.told() => None,
            answered = answer(request) => Some(answered),
        };
        // Whoever answers may have been told first, and then it says something else.
        match (trouble.flaw(), answered) {
            (None, Some(answered)) => answered,
            (flaw, _) => {
                self.front.counts.bodies.add();
                Err(flaw.unwrap_or(BodyFlaw::Malformed).into())
            }
        }
    }

    fn refuse(&self, refusal: &Refusal, id: &str, accept: &HeaderMap) -> Response<ServiceBody> {
        let mut response = page(refusal.status, refusal.side, refusal.words, id, accept);
        let headers = response.headers_mut();
        if let Some(retry) = refusal.retry {
            let seconds = retry.as_secs() + u64::from(retry.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if refusal.close && self.lines.is_some() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Whether the client is known, and is not many behind one who is trusted.
    fn is_itself(&self) -> bool {
        !self.trusted || self.client != self.peer
    }

    /// Whether requests are logged.
    pub(super) fn is_logged(&self) -> bool {
        self.settings.is_logged()
    }

    /// Logs a request that is over.
    pub(super) fn log(&self, entry: &Entry) {
        self.front.log(self.settings.access_log, entry);
    }

    /// hyper has told the client of HTTP/2 something by itself, and no request of it comes here.
    pub(super) fn note(&self, verdict: Verdict) {
        match verdict {
            Verdict::HeadTooLarge => {
                self.note_head(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16(), true)
            }
            Verdict::Ended { reason, head } => {
                if head {
                    self.note_head(0, false);
                }
                if let Some(more) = self.front.seldom.note(reason) {
                    let client = self.client.ip();
                    tracing::warn!("a visitor's HTTP/2 was ended with {reason}: {client}{more}");
                }
            }
        }
    }

    /// A head that hyper did not read to its end, so that there is nothing more to tell of it.
    fn note_head(&self, status: u16, whole: bool) {
        self.front.counts.requests.add();
        self.front.counts.heads.add();
        self.log(&Entry {
            client: self.client.ip(),
            host: None,
            request: "- - HTTP/2.0".to_owned(),
            status,
            bytes: 0,
            took: Duration::ZERO,
            service: None,
            target: None,
            id: self.front.ids.name(&HeaderMap::new(), false),
            whole,
        });
    }

    /// A request is over; whether its answer was whole.
    pub(super) fn ended(&self, whole: bool) {
        self.activity.ended();
        // A client of HTTP/1.1 gives up its connection with a request.
        if !whole && self.lines.is_none() && self.activity.abandoned() {
            self.front.counts.abandoned.add();
            self.activity.end();
        }
    }
}

/// Has a request answered. A panic on the way is a fault of this program's, which costs this request and nothing else: not its
/// connection, nor what others ask on it.
async fn unharmed(
    answer: Arc<dyn Answer>,
    request: Request<ServiceBody>,
    visit: Visit,
) -> Result<Answered, Refusal> {
    let id = Arc::clone(&visit.id);
    // What the panic left behind goes with the future.
    let answered = AssertUnwindSafe(async move { answer.answer(request, visit).await }).catch_unwind().await;
    answered.map_err(|panic| {
        let words = panic.downcast_ref::<&str>().copied();
        let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic");
        tracing::error!(
            "the request {id} met a fault inside this program; please report it: {}",
            words.escape_debug()
        );
        let (status, words) = (StatusCode::INTERNAL_SERVER_ERROR, "It met a fault of its own.");
        Refusal { status, side: Side::Server, words, retry: None, close: false }
    })
}

/// What an error page is to know of a request's headers.
fn accept_of(headers: &HeaderMap) -> HeaderMap {
    headers.get_all(header::ACCEPT).iter().map(|value| (header::ACCEPT, value.clone())).collect()
}

/// Of an answer to HEAD, which goes without its body, tells how long that is, unless the answer says so.
fn tell_length(response: &mut Response<ServiceBody>) {
    let len = response.body().size_hint().exact().filter(|len| *len > 0);
    if let Some(len) = len
        && !response.headers().contains_key(header::TRANSFER_ENCODING)
    {
        response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(len.into());
    }
}
