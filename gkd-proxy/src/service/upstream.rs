//! One target and the connections to it: [`Upstream`].
//!
//! Of HTTP/1.1 a connection serves one request at a time and is kept for the next ([`Line::give_back`]); of HTTP/2 one
//! connection serves many, and a second is opened when the first is full. What is kept is bounded in number and time. A
//! target whose connections begin with a PROXY header gets a connection for each request, for the header names its client.
//! Here nothing is chosen, repeated or rewritten.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use hyper::body::{Body, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::HeaderValue;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::hearing::Hearing;
use super::passage::Passage;
use super::{BoxIo, Lack, Reach, ServiceBody};
use crate::http_proxy::MAX_HEAD;
use crate::passing::{BoxError, Upload};

/// The most connections that are kept for a next request.
const MAX_IDLE: usize = 512;

/// How long one is kept. Many web servers wait as long (nginx: 75 s).
const IDLE: Duration = Duration::from_secs(60);

/// How long one may have been idle that a request goes over which cannot be sent again: less than the five seconds after
/// which the hastier web servers close (Apache, Node.js), which may be just now.
const IDLE_FOR_ONCE: Duration = Duration::from_secs(4);

/// How long a connection whose answer is complete may take until it can be used again: a turn of its task.
const READY: Duration = Duration::from_millis(100);

/// How long a request that has no other target waits for a client all of whose tunnels are gone.
const MAX_AWAY: Duration = Duration::from_secs(10);

/// How long a target of HTTP/2 may take to say its terms, which are the first that it says.
const TERMS: Duration = Duration::from_secs(1);

/// How long it takes until what it has said is seen.
const LOOK: Duration = Duration::from_millis(10);

/// The most requests at once on a connection of HTTP/2, where the target allows as many.
const MAX_STREAMS: usize = 100;

/// The most connections of HTTP/2. Further requests wait for one of their streams.
const MAX_SHARED: usize = 16;

/// What one stream may have on its way to us. A client that does not read leaves that much here.
const STREAM_WINDOW: u32 = 256 * 1024;

/// As much for all streams of a connection, so that those whose clients do not read stop no other.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;

/// What HTTP a target speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, spoken from the first byte (RFC 9113, section 3.3).
    Http2,
}

/// The body of a request on its way to a target.
pub(super) type Up = Upload<ServiceBody>;

/// A target.
pub(super) struct Upstream {
    name: Arc<str>,
    reach: Arc<dyn Reach>,
    passage: Option<watch::Receiver<Passage>>,
    protocol: Protocol,
    /// What a target is called in its own requests, where that is known.
    authority: Option<HeaderValue>,
    kept: Mutex<Kept>,
}

/// Connections for next requests.
#[derive(Default)]
struct Kept {
    /// The one that was used last is at the end.
    idle: VecDeque<(Http1, Instant)>,
    shared: Vec<Http2>,
    /// What all of the requests wait for that find no shared one with room.
    opening: Option<Opening>,
}

type Opening = Shared<BoxFuture<'static, Result<(), Failure>>>;

/// Why a target gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{cause}")]
pub(super) struct Failure {
    /// What the client gets.
    pub(super) status: StatusCode,
    /// For the log; may hold words of the target's.
    pub(super) cause: Arc<str>,
    /// What it says of the target.
    pub(super) blame: Blame,
}

/// What is to blame for a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// The target, as far as is known.
    Target,
    /// There was no way to it.
    Passage,
    /// Something was wanting at this end.
    Here,
}

/// A connection to a target, for one request.
pub(super) enum Line {
    /// HTTP/1.1.
    Http1 {
        /// The connection.
        connection: Http1,
        /// It had served another request before.
        reused: bool,
    },
    /// HTTP/2.
    Http2 {
        /// The connection; others have it too.
        connection: Http2,
    },
}

pub(super) struct Http1 {
    sender: http1::SendRequest<Up>,
    /// A task of its own: a body still goes up while the client does not read what comes down.
    _driver: AbortOnDropHandle<()>,
}

#[derive(Clone)]
pub(super) struct Http2 {
    sender: http2::SendRequest<Up>,
    _driver: Arc<AbortOnDropHandle<()>>,
    /// One for each request that it serves, and the one that is kept.
    clones: Arc<()>,
    /// What the target takes.
    terms: Arc<Terms>,
    opened: Instant,
    /// Takes no more streams: something is wrong with it.
    retired: Arc<AtomicBool>,
    used: Arc<Mutex<Instant>>,
}

/// What a target of HTTP/2 takes, as far as it has said so.
pub(super) struct Terms {
    /// How many streams at once.
    streams: AtomicUsize,
    /// Whether they may be another protocol's (RFC 8441).
    protocols: watch::Sender<bool>,
    /// Has them looked at anew.
    look: Notify,
}

impl Default for Terms {
    fn default() -> Self {
        let streams = AtomicUsize::new(MAX_STREAMS);
        Self { streams, protocols: watch::Sender::new(false), look: Notify::new() }
    }
}

/// A request that no answer came to.
pub(super) struct Unanswered {
    /// Nothing of it was sent.
    pub(super) unsent: bool,
    /// What hyper says.
    pub(super) error: hyper::Error,
}

/// How a connection is opened.
#[derive(Clone, Debug)]
pub(super) struct Opened {
    /// How long it may take.
    pub(super) within: Duration,
    /// What it begins with.
    pub(super) proxy_header: Option<Bytes>,
    /// Whether the request can be sent again where a connection turns out to be dead.
    pub(super) repeatable: bool,
}

impl Upstream {
    pub(super) fn new(reach: Arc<dyn Reach>, protocol: Protocol, authority: Option<HeaderValue>) -> Self {
        let (name, passage) = (reach.name().into(), reach.passage());
        Self { name, reach, passage, protocol, authority, kept: Mutex::default() }
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(super) fn passage(&self) -> Option<watch::Receiver<Passage>> {
        self.passage.clone()
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(super) fn authority(&self) -> Option<&HeaderValue> {
        self.authority.as_ref()
    }

    /// A connection for one request: a kept one, or a fresh one.
    pub(super) async fn line(self: &Arc<Self>, how: &Opened) -> Result<Line, Failure> {
        if how.proxy_header.is_some() {
            return self.fresh(how).await;
        }
        match self.protocol {
            Protocol::Http1 => match self.idle(how.repeatable).await {
                Some(connection) => Ok(Line::Http1 { connection, reused: true }),
                None => self.fresh(how).await,
            },
            Protocol::Http2 => self.shared(how).await,
        }
    }

    /// A connection that is not the one which turned out to be dead, nor one that was kept beside it.
    pub(super) async fn another(self: &Arc<Self>, how: &Opened) -> Result<Line, Failure> {
        match self.protocol {
            Protocol::Http1 => self.fresh(how).await,
            Protocol::Http2 => self.line(how).await,
        }
    }

    /// A fresh connection that nobody else uses.
    async fn fresh(&self, how: &Opened) -> Result<Line, Failure> {
        Ok(match self.protocol {
            Protocol::Http1 => Line::Http1 { connection: self.open_http1(how).await?, reused: false },
            Protocol::Http2 => self.open_http2(how).await?.line(),
        })
    }

    /// Opens a stream of bytes to it. Where there is no way to it, that is waited for a little.
    pub(super) async fn dial(&self, how: &Opened) -> Result<BoxIo, Failure> {
        let until = Instant::now() + MAX_AWAY;
        loop {
            let dialled = self.dial_once(how).await;
            if dialled.is_ok() || self.is_open() {
                return dialled;
            }
            // Ends: the time comes.
            if !self.is_back(until).await {
                return dialled.map_err(|failure| failure.of(Blame::Passage));
            }
        }
    }

    /// Whether there is a way to it, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.passage.as_ref().is_none_or(|passage| *passage.borrow() == Passage::Open)
    }

    /// Whether the way to it comes back by this time.
    async fn is_back(&self, until: Instant) -> bool {
        let Some(mut passage) = self.passage() else { return false };
        until > Instant::now()
            && matches!(
                timeout_at(until, passage.wait_for(|passage| *passage == Passage::Open)).await,
                Ok(Ok(_))
            )
    }

    async fn dial_once(&self, how: &Opened) -> Result<BoxIo, Failure> {
        let dialled = timeout(how.within, async {
            let mut io = self.reach.dial().await?;
            if let Some(header) = &how.proxy_header {
                io.write_all(header).await?;
            }
            Ok::<_, io::Error>(io)
        });
        match dialled.await {
            Ok(Ok(io)) => Ok(io),
            Ok(Err(error)) if error.get_ref().is_some_and(|it| it.is::<Lack>()) => {
                Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, error).of(Blame::Here))
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, error))
            }
            Ok(Err(error)) => Err(Failure::new(StatusCode::BAD_GATEWAY, error)),
            Err(_) => {
                let within = how.within.as_secs_f32();
                let words = format!("it was not reached within {within} s");
                Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, words))
            }
        }
    }

    async fn open_http1(&self, how: &Opened) -> Result<Http1, Failure> {
        let (sender, driver) = http1_over(self.dial(how).await?).await?;
        Ok(Http1 { sender, _driver: driver })
    }

    async fn open_http2(&self, how: &Opened) -> Result<Http2, Failure> {
        let terms = Arc::default();
        let (sender, driver) = http2_over(self.dial(how).await?, &terms).await?;
        Ok(Http2 {
            sender,
            _driver: Arc::new(driver),
            terms,
            opened: Instant::now(),
            clones: Arc::default(),
            retired: Arc::default(),
            used: Arc::new(Mutex::new(Instant::now())),
        })
    }

    /// The kept connection of HTTP/1.1 that was used last.
    async fn idle(&self, repeatable: bool) -> Option<Http1> {
        let patience = if repeatable { IDLE } else { IDLE_FOR_ONCE };
        // Ends: each turn takes one away.
        loop {
            let mut connection = {
                let mut kept = self.kept();
                if kept.idle.back()?.1.elapsed() > patience {
                    return None;
                }
                kept.idle.pop_back()?.0
            };
            let ready = connection.sender.is_ready()
                || matches!(timeout(READY, connection.sender.ready()).await, Ok(Ok(())));
            if ready && !connection.sender.is_closed() {
                return Some(connection);
            }
        }
    }

    /// A stream of a shared connection of HTTP/2.
    async fn shared(self: &Arc<Self>, how: &Opened) -> Result<Line, Failure> {
        // As often as there can be connections at the most, each of which others have filled before we came to it.
        for _ in 0..MAX_SHARED {
            let opening = {
                let mut kept = self.kept();
                kept.shared.retain(Http2::is_usable);
                if let Some(free) = kept.shared.iter().find(|it| it.has_room()) {
                    return Ok(free.line());
                }
                if kept.shared.len() >= MAX_SHARED {
                    break;
                }
                kept.opening.get_or_insert_with(|| self.begin_shared(how)).clone()
            };
            opening.await?;
        }
        let kept = self.kept();
        let least = kept.shared.iter().min_by_key(|it| it.streams());
        let gone = || Failure::new(StatusCode::BAD_GATEWAY, "its connections end as soon as they are made");
        least.map(Http2::line).ok_or_else(gone)
    }

    /// Opens a further shared connection, in a task of its own: whoever waits for it may go.
    fn begin_shared(self: &Arc<Self>, how: &Opened) -> Opening {
        let (upstream, how) = (Arc::clone(self), how.clone());
        let opening = tokio::spawn(async move {
            let opened = upstream.open_http2(&how).await;
            let mut kept = upstream.kept();
            kept.opening = None;
            kept.shared.push(opened?);
            Ok(())
        });
        let gone = |_| Err(Failure::new(StatusCode::BAD_GATEWAY, "the attempt to reach it was given up"));
        opening.map(move |opened| opened.unwrap_or_else(gone)).boxed().shared()
    }

    /// Closes what has been kept for too long.
    pub(super) fn sweep(&self) {
        let mut kept = self.kept();
        kept.idle.retain(|(connection, since)| since.elapsed() < IDLE && !connection.sender.is_closed());
        kept.shared.retain(|it| it.is_usable() && (it.streams() > 0 || it.used().elapsed() < IDLE));
    }

    /// Closes what is kept: its target is gone.
    pub(super) fn close(&self) {
        let mut kept = self.kept();
        kept.idle.clear();
        kept.shared.clear();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Whether it had served other requests before, and may have ended before this one came: what went wrong with it says
    /// nothing of the target.
    pub(super) fn was_stale(&self) -> bool {
        match self {
            Self::Http1 { reused, .. } => *reused,
            Self::Http2 { connection } => connection.sender.is_closed(),
        }
    }

    /// Whether the target takes WebSockets. One of HTTP/1.1 says so when it is asked.
    pub(super) async fn takes_websockets(&self) -> bool {
        let Self::Http2 { connection } = self else { return true };
        let mut protocols = connection.terms.protocols.subscribe();
        // Ends: the time for that is over.
        loop {
            connection.terms.look.notify_one();
            if let Ok(Ok(_)) = timeout(LOOK, protocols.wait_for(|protocols| *protocols)).await {
                return true;
            }
            if connection.opened.elapsed() >= TERMS {
                return false;
            }
        }
    }

    /// Sends a request. Dropping the future gives it up, and with HTTP/1.1 the connection.
    pub(super) async fn send(&mut self, request: Request<Up>) -> Result<Response<Incoming>, Unanswered> {
        let answer = match self {
            Self::Http1 { connection, .. } => connection.sender.try_send_request(request).await,
            Self::Http2 { connection, .. } => connection.sender.try_send_request(request).await,
        };
        answer.map_err(|mut error| Unanswered {
            unsent: error.take_message().is_some(),
            error: error.into_error(),
        })
    }

    /// Keeps it for a next request, where it may serve one. The answer and what went up are complete.
    pub(super) fn give_back(self, to: &Upstream) {
        let Self::Http1 { connection, .. } = self else { return };
        if connection.sender.is_closed() {
            return;
        }
        let mut kept = to.kept();
        if kept.idle.len() >= MAX_IDLE {
            kept.idle.pop_front();
        }
        kept.idle.push_back((connection, Instant::now()));
    }

    /// Keeps others off it: it does not do what it should.
    pub(super) fn retire(&self) {
        if let Self::Http2 { connection, .. } = self {
            connection.retired.store(true, Ordering::Relaxed);
        }
    }
}

impl Http2 {
    fn line(&self) -> Line {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Line::Http2 { connection: self.clone() }
    }

    fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && !self.retired.load(Ordering::Relaxed)
    }

    /// How many requests it serves.
    fn streams(&self) -> usize {
        // The one that is kept serves none itself.
        Arc::strong_count(&self.clones).saturating_sub(1)
    }

    fn has_room(&self) -> bool {
        self.streams() < self.terms.streams.load(Ordering::Relaxed)
    }
}

impl Failure {
    pub(super) fn new(status: StatusCode, cause: impl ToString) -> Self {
        Self { status, cause: cause.to_string().into(), blame: Blame::Target }
    }

    /// The same with something else to blame than the target.
    pub(super) fn of(self, blame: Blame) -> Self {
        Self { blame, ..self }
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, words(&error))
    }
}

/// What hyper says, with what is behind it.
pub(super) fn words(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// HTTP/1.1 over a stream, and the task that drives it.
pub(super) async fn http1_over<B>(
    io: BoxIo,
) -> Result<(http1::SendRequest<B>, AbortOnDropHandle<()>), hyper::Error>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let mut builder = http1::Builder::new();
    builder.max_header_size(MAX_HEAD);
    let (sender, http) = builder.handshake(TokioIo::new(Hearing::new(io))).await?;
    Ok((sender, drive(http.with_upgrades())))
}

/// HTTP/2 over a stream, and the task that drives it. `terms` are the target's from now on.
pub(super) async fn http2_over<B>(
    io: BoxIo,
    terms: &Arc<Terms>,
) -> Result<(http2::SendRequest<B>, AbortOnDropHandle<()>), hyper::Error>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let (sender, mut http) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .max_header_list_size(MAX_HEAD as u32)
        .handshake(TokioIo::new(io))
        .await?;
    let terms = Arc::clone(terms);
    let http = async move {
        loop {
            let looked_at = poll_fn(|cx| {
                let ended = Pin::new(&mut http).poll(cx);
                // A target that takes none at all would be asked one by one.
                terms.streams.store(http.current_max_send_streams().clamp(1, MAX_STREAMS), Ordering::Relaxed);
                let protocols = http.is_extended_connect_protocol_enabled();
                terms.protocols.send_if_modified(|known| std::mem::replace(known, protocols) != protocols);
                ended
            });
            tokio::select! {
                ended = looked_at => return ended,
                // What reads is another task, of hyper's, which does not tell this one.
                () = terms.look.notified() => {}
            }
        }
    };
    Ok((sender, drive(http)))
}

fn drive(http: impl Future<Output = Result<(), hyper::Error>> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = http.await {
            tracing::debug!("a target's HTTP failed: {}", words(&error).escape_debug());
        }
    }))
}
