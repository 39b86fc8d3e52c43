//! A request and the answer to it: [`exchange`].
//!
//! A target is chosen and sent the request, whose body goes up as it comes while the answer comes down. Whatever fails
//! before there is an answer is tried again where that can do no harm:
//!
//! | what failed | the request | what follows |
//! |---|---|---|
//! | no connection came about, be it for want of something here | any | another target, until [`MAX_REACHED`] were tried |
//! | the target takes no WebSocket over HTTP/2, and one is asked for | any | another target, likewise |
//! | a kept connection turned out to be dead | nothing of it was sent, or it is idempotent; nothing was read of its body | the same target over a fresh connection |
//! | the target broke off, or spoke no HTTP | the same | another target, once |
//! | the way to the target is gone (`desertion`), and another can be reached | nothing of it was sent | another target |
//! | | it is idempotent, nothing was read of its body, and it was not sent again before | another target |
//! | | any other | it waits: a client that comes back within its session's time has lost nothing |
//! | the target fell silent | any | the client is told: it has waited long enough |
//! | the answer had begun | any | the client's connection or stream breaks off |
//!
//! A short answer to a request that may be repeated has begun when it is all there ([`SHORT`]), so that a target which is
//! killed between head and body costs nobody a request. Where no other target can be reached, requests stay at one that there
//! is no way to, and new ones wait for it a little.
//!
//! Of what a target says ahead of its answer only 100 gets to the client: hyper's server writes no other status of 1xx, so
//! that 103 is lost. A target of HTTP/2 is not asked whether it wants a body, for hyper does not tell what it says to that.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap};
use hyper::{Request, Response, StatusCode, Version};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::balance::{Outcome, TargetId};
use super::config::{FrontLimits, HostRewrite};
use super::desertion::{Desertion, deserted};
use super::forwarded::Origin;
use super::pool::{Pool, Turn};
use super::target::{Target, Way};
use super::template::Template;
use super::upgrade::Wish;
use super::upstream::{Blame, Failure, Line, Opened, Up, Upstream};
use super::{ServiceBody, Visit};
use crate::http_proxy::headers::remove_hop_by_hop;
use crate::passing::{Download, Exchange, Patience, Upload, Watch, expecting};
use crate::proxy_header;

/// The most targets that one request tries to reach.
const MAX_REACHED: usize = 5;

/// The most bytes of an answer that is waited for as a whole, where the request may be repeated and the length is known.
const SHORT: u64 = 16 * 1024;

/// Why a client gets no target's answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The request is none that targets are sent, or broke off.
    Request(StatusCode),
    /// No target answered it.
    Service(Failure),
}

/// What an exchange needs to know of its service.
pub(super) struct Terms<'a> {
    pub(super) pool: &'a Arc<Pool>,
    pub(super) host: &'a HostRewrite,
    pub(super) send_proxy: bool,
    pub(super) limits: &'a FrontLimits,
    /// When connections end that became another protocol's.
    pub(super) end: &'a CancellationToken,
}

/// What came of an exchange.
pub(super) struct Exchanged {
    pub(super) answer: Result<Response<ServiceBody>, Fault>,
    /// The target that answered, or was tried last.
    pub(super) target: Option<Arc<Target>>,
}

/// A request that one target did not answer.
struct Missed {
    failure: Failure,
    step: Step,
    /// The body, where the request may be sent to another target.
    again: Option<ServiceBody>,
}

/// How far a request came that was not answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There was no connection for it.
    Reach,
    /// Part of it, or all, was sent.
    Sent,
    /// Its sender broke it off.
    Abandoned,
}

/// Has a request answered by one of a service's targets.
pub(super) async fn exchange(
    terms: &Terms<'_>,
    mut request: Request<ServiceBody>,
    origin: &Origin,
    visit: &Visit,
) -> Exchanged {
    let refused = |status| Exchanged { answer: Err(Fault::Request(status)), target: None };
    let wish = match Wish::of(&mut request) {
        Ok(wish) => wish,
        Err(status) => return refused(status),
    };
    let (head, mut body) = request.into_parts();
    let template = match Template::new(head, &body, origin, visit, wish.as_ref()) {
        Ok(template) => template,
        Err(status) => return refused(status),
    };
    let bodiless = body.is_end_stream();
    let mut job = Job { terms, visit, template, wish, bodiless, tried: Vec::new(), repeated: false };
    let (mut last, mut failure) = (None, None);
    // Ends: each turn tries another target, and not more than so many.
    while job.tried.len() < MAX_REACHED
        && let Some(turn) = terms.pool.choose(origin.address, &job.tried)
    {
        job.tried.push(turn.id());
        let target = Arc::clone(turn.target());
        target.count_request();
        let missed = match job.answered_by(turn, body).await {
            Ok(answer) => return Exchanged { answer: Ok(answer), target: Some(target) },
            Err(missed) => missed,
        };
        if missed.step == Step::Abandoned {
            return Exchanged { answer: Err(Fault::Request(StatusCode::BAD_REQUEST)), target: Some(target) };
        }
        terms.pool.complain(&target, &missed.failure);
        failure = Some(missed.failure);
        last = Some(target);
        let once_more = missed.step == Step::Reach || !std::mem::replace(&mut job.repeated, true);
        match missed.again {
            Some(again) if once_more => body = again,
            _ => break,
        }
    }
    let nobody = || Failure::new(StatusCode::SERVICE_UNAVAILABLE, "it has no target");
    Exchanged { answer: Err(Fault::Service(failure.unwrap_or_else(nobody))), target: last }
}

/// A request that is to be answered.
struct Job<'a> {
    terms: &'a Terms<'a>,
    visit: &'a Visit,
    template: Template,
    /// Taken by the target that grants it.
    wish: Option<Wish>,
    /// It has no body.
    bodiless: bool,
    /// The targets that it was given to.
    tried: Vec<TargetId>,
    /// It was sent again.
    repeated: bool,
}

impl Job<'_> {
    /// Has one target answer.
    async fn answered_by(
        &mut self,
        mut turn: Turn,
        body: ServiceBody,
    ) -> Result<Response<ServiceBody>, Missed> {
        let target = Arc::clone(turn.target());
        match target.way() {
            Way::Upstream(upstream) => self.answered_over(upstream, turn, body).await,
            Way::Content(content) => {
                let answer = Arc::clone(content).answer(self.template.local(body), self.visit).await;
                turn.end(Outcome::Answered);
                Ok(answer)
            }
        }
    }

    /// Has a web server answer.
    async fn answered_over(
        &mut self,
        upstream: &Arc<Upstream>,
        mut turn: Turn,
        mut body: ServiceBody,
    ) -> Result<Response<ServiceBody>, Missed> {
        let (how, desertion) = (self.opened(), turn.desertion(&self.tried));
        let mut line = match &desertion {
            // Over a kept connection it would be sent all the same.
            Some(desertion) if desertion.has_happened().await => Err(deserted()),
            desertion => tokio::select! {
                biased;
                line = upstream.line(&how) => line,
                () = happens(desertion.as_ref()) => Err(deserted()),
            },
        };
        let mut fresh = false;
        loop {
            let mut to = match line {
                Ok(line) => line,
                Err(failure) => {
                    match failure.blame {
                        Blame::Target => turn.end(Outcome::Failed),
                        Blame::Passage | Blame::Here => turn.excuse(),
                    }
                    return Err(Missed { failure, step: Step::Reach, again: Some(body) });
                }
            };
            if self.wish.as_ref().is_some_and(Wish::is_websocket) && !to.takes_websockets().await {
                turn.end(Outcome::Abandoned);
                let words = "it takes no WebSocket over HTTP/2 (RFC 8441): reach it as http://, if it speaks HTTP/1.1 too";
                let failure = Failure::new(StatusCode::NOT_IMPLEMENTED, words);
                return Err(Missed { failure, step: Step::Reach, again: Some(body) });
            }
            let head = match self.template.head(upstream, self.terms.host) {
                Ok(head) => head,
                Err(failure) => return Err(Missed { failure, step: Step::Sent, again: None }),
            };
            let upload = Upload::new(body);
            let watch = upload.watch();
            let leaves = happens(desertion.as_ref().filter(|_| self.may_leave()));
            let request = expecting(head, upload);
            let lost = match head_of_answer(&mut to, request, &watch, self.silence(), leaves).await {
                Ok(answer) => return self.passed_on(turn, to, watch, answer).await,
                Err(lost) => lost,
            };
            if let Repeat::Elsewhere(body) = lost.repeat {
                turn.excuse();
                return Err(Missed { failure: lost.failure, step: Step::Sent, again: Some(body) });
            }
            if watch.is_broken() {
                let failure = Failure::new(StatusCode::BAD_REQUEST, "its sender broke off");
                return Err(Missed { failure, step: Step::Abandoned, again: None });
            }
            let again = match lost.repeat {
                Repeat::Never | Repeat::Elsewhere(_) => None,
                Repeat::Unsent => watch.take_back(),
                Repeat::IfIdempotent => watch.take_back().filter(|_| self.template.is_idempotent()),
            };
            match again {
                // Ends: it is fresh then.
                Some(again) if to.was_stale() && !fresh => {
                    (body, fresh) = (again, true);
                    line = upstream.another(&how).await;
                }
                again => {
                    turn.end(Outcome::Failed);
                    return Err(Missed { failure: lost.failure, step: Step::Sent, again });
                }
            }
        }
    }

    /// Passes a target's answer on.
    async fn passed_on(
        &mut self,
        mut turn: Turn,
        line: Line,
        upload: Watch<ServiceBody>,
        answer: Response<Incoming>,
    ) -> Result<Response<ServiceBody>, Missed> {
        let granted = answer.status() == StatusCode::SWITCHING_PROTOCOLS
            || self.wish.as_ref().is_some_and(|wish| wish.is_granted_by(&answer));
        let judged = match &self.wish {
            _ if granted => Ok(()),
            Some(wish) if wish.is_belied_by(&answer) => Err("it answered without changing to a WebSocket"),
            _ => judge(answer.headers()),
        };
        if let Err(words) = judged {
            turn.end(Outcome::Failed);
            let failure = Failure::new(StatusCode::BAD_GATEWAY, words);
            let again = upload.take_back().filter(|_| self.template.is_idempotent());
            return Err(Missed { failure, step: Step::Sent, again });
        }
        if granted {
            return self.changed(turn, line, answer);
        }
        let (mut head, body) = answer.into_parts();
        remove_hop_by_hop(&mut head.headers);
        // The client's version is written.
        head.version = Version::HTTP_11;
        let unable = [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];
        let well = !unable.contains(&head.status);
        let short = body.size_hint().exact().is_some_and(|length| (1..=SHORT).contains(&length));
        let desertion = turn.desertion(&self.tried).filter(|_| self.may_leave());
        let target = Arc::clone(turn.target());
        let serving = Serving { turn, line: Some(line), upload, well };
        let down = Download::new(body, Some(Patience::new(self.silence())), serving);
        let body = match short && self.bodiless && self.template.is_idempotent() {
            true => tokio::select! {
                biased;
                whole = whole(down) => whole?,
                () = happens(desertion.as_ref()) => {
                    target.count_failure();
                    return Err(Missed { failure: deserted(), step: Step::Sent, again: Some(nothing()) });
                }
            },
            false => down.boxed_unsync(),
        };
        Ok(Response::from_parts(head, body))
    }

    /// Takes on that the target speaks another protocol from here on.
    fn changed(
        &mut self,
        mut turn: Turn,
        line: Line,
        answer: Response<Incoming>,
    ) -> Result<Response<ServiceBody>, Missed> {
        let unasked = || Failure::new(StatusCode::BAD_GATEWAY, "it changed to another protocol unasked");
        match self.wish.take().ok_or_else(unasked).and_then(|wish| wish.granted(answer)) {
            Ok((answer, change)) => {
                let (idle, end) = (self.silence(), self.terms.end.clone());
                tokio::spawn(async move {
                    change.run(line, idle, end).await;
                    turn.end(Outcome::Answered);
                });
                Ok(answer.map(|()| nothing()))
            }
            Err(failure) => {
                turn.end(Outcome::Failed);
                Err(Missed { failure, step: Step::Sent, again: None })
            }
        }
    }

    /// Whether it may go to another target although it was sent, as far as its head says.
    fn may_leave(&self) -> bool {
        self.template.is_idempotent() && !self.repeated
    }

    fn opened(&self) -> Opened {
        let proxy_header =
            self.terms.send_proxy.then(|| proxy_header::encode(self.visit.client, self.visit.local));
        let repeatable = self.bodiless && self.template.is_idempotent();
        Opened { within: self.terms.limits.connect, proxy_header, repeatable }
    }

    fn silence(&self) -> Duration {
        self.terms.limits.silence
    }
}

/// A request that was sent, and that no answer came to.
struct Lost {
    failure: Failure,
    repeat: Repeat,
}

/// Whether a request may be sent again.
enum Repeat {
    /// Nothing of it was sent.
    Unsent,
    /// It may have come to something.
    IfIdempotent,
    /// Its client has waited long enough.
    Never,
    /// It is to be sent to another target, with this body, of which nothing was read.
    Elsewhere(ServiceBody),
}

/// Ready when a request is to go to another target; never where nothing tells it to.
async fn happens(desertion: Option<&Desertion>) {
    match desertion {
        Some(desertion) => desertion.happens().await,
        None => std::future::pending().await,
    }
}

/// Sends a request, and waits for the head of the answer while the body goes up. When it `leaves` and nothing was read of the
/// body, that is taken back.
async fn head_of_answer(
    line: &mut Line,
    request: Request<Up>,
    watch: &Watch<ServiceBody>,
    silence: Duration,
    leaves: impl Future<Output = ()>,
) -> Result<Response<Incoming>, Lost> {
    {
        let mut answer = std::pin::pin!(line.send(request));
        let (mut leaves, mut stays) = (std::pin::pin!(leaves), false);
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return answer.map_err(|unanswered| Lost {
                    failure: unanswered.error.into(),
                    repeat: if unanswered.unsent { Repeat::Unsent } else { Repeat::IfIdempotent },
                }),
                () = &mut leaves, if !stays => match watch.take_untouched() {
                    Some(body) => return Err(Lost { failure: deserted(), repeat: Repeat::Elsewhere(body) }),
                    None => stays = true,
                },
                () = sleep_until(watch.moved() + silence) => {
                    if watch.moved() + silence <= Instant::now() {
                        break;
                    }
                }
            }
        }
    }
    line.retire();
    let words = format!("nothing moved for {} s", silence.as_secs_f32());
    Err(Lost { failure: Failure::new(StatusCode::GATEWAY_TIMEOUT, words), repeat: Repeat::Never })
}

/// Whether an answer says beyond doubt how long it is: what reads it with other eyes than ours would take a part of it for
/// the next one. hyper has refused two different `Content-Length` by then.
fn judge(headers: &HeaderMap) -> Result<(), &'static str> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(()) };
    if headers.contains_key(header::CONTENT_LENGTH) {
        return Err("its answer has two lengths: Transfer-Encoding and Content-Length");
    }
    match codings.next().is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        true => Ok(()),
        false => Err("its answer has a Transfer-Encoding that is not chunked alone"),
    }
}

/// The whole of a short answer.
async fn whole(mut down: Download<Serving>) -> Result<ServiceBody, Missed> {
    let (mut body, mut trailers) = (BytesMut::new(), None);
    while let Some(frame) = down.frame().await {
        match frame.map_err(broken_off)?.into_data() {
            // Mostly it comes in one piece.
            Ok(data) if body.is_empty() && down.is_end_stream() => {
                return Ok(Full::new(data).map_err(never).boxed_unsync());
            }
            Ok(data) => body.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    let body = Full::new(body.freeze()).map_err(never);
    Ok(match trailers {
        Some(trailers) => body.with_trailers(ready(Some(Ok(trailers)))).boxed_unsync(),
        None => body.boxed_unsync(),
    })
}

/// What a target broke off that may be sent to another.
fn broken_off(error: io::Error) -> Missed {
    let status = match error.kind() {
        io::ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    let again = (status == StatusCode::BAD_GATEWAY).then(nothing);
    let failure = Failure::new(status, format!("it broke off its answer: {error}"));
    Missed { failure, step: Step::Sent, again }
}

/// No body.
pub(super) fn nothing() -> ServiceBody {
    Empty::<Bytes>::new().map_err(never).boxed_unsync()
}

fn never(never: Infallible) -> io::Error {
    match never {}
}

/// What brings an answer's body. With its drop the request is over, for the target too.
struct Serving {
    turn: Turn,
    line: Option<Line>,
    upload: Watch<ServiceBody>,
    /// The target says that it can answer.
    well: bool,
}

impl Exchange for Serving {
    fn complete(&mut self) {
        self.turn.end(if self.well { Outcome::Answered } else { Outcome::Failed });
        // A target that has answered early, and is still sent a body, is not asked to throw it away.
        if self.upload.is_whole()
            && let (Some(line), Some(upstream)) = (self.line.take(), self.turn.target().upstream())
        {
            line.give_back(upstream);
        }
    }

    fn broken(&mut self) {
        self.turn.end(if self.upload.is_broken() { Outcome::Abandoned } else { Outcome::Failed });
    }

    fn moved(&self) -> Option<Instant> {
        Some(self.upload.moved())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.upload.give_up();
    }
}
