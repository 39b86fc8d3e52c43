//! One connection, from its first byte to its last: a PROXY header, TLS, and then HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::activity::Activity;
use super::download::Download;
use super::framing::HeadLimits;
use super::guarded::{Guarded, Times};
use super::overheard::Overheard;
use super::places::Full;
use super::proxied;
use super::settings::Settings;
use super::stalls::Streams;
use super::visitor::{Answering, Lines, Visitor};
use super::wire::{Broken, Wire};
use crate::service::MAX_HEADERS;

/// What a connection of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many requests a connection of HTTP/2 may have at once, as web servers have it.
const MAX_STREAMS: u32 = 128;

/// How much of a request's body may come ahead of whoever reads it, of one stream and of all: HTTP/2 has credit for that.
const STREAM_WINDOW: u32 = 512 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// How much of an answer may wait in a stream of HTTP/2.
const MAX_SEND_BUFFER: usize = 128 * 1024;

/// How many streams a client may reset before we have looked at them, and how many we reset for its faults, before the
/// connection ends (CVE-2023-44487, CVE-2025-8671).
const MAX_PENDING_RESETS: usize = 20;
const MAX_FAULTY_STREAMS: usize = 256;

/// How often a client of HTTP/2 is asked whether it is still there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a connection that is to end may stand idle: the client is told, and answers or closes it.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The smallest buffer of hyper; it grows with what comes, up to this or a head.
const MAX_BUFFER: usize = 64 * 1024;

/// A connection that was accepted.
pub(super) struct Accepted {
    pub(super) front: Arc<Shared>,
    pub(super) settings: Arc<Settings>,
    pub(super) activity: Arc<Activity>,
    pub(super) wire: Wire,
    pub(super) peer: SocketAddr,
    pub(super) local: SocketAddr,
    pub(super) tls: Option<TlsAcceptor>,
    /// Asks it to end as soon as its requests are answered.
    pub(super) stop: CancellationToken,
}

/// One that is ready for HTTP.
struct Ready<S> {
    stream: S,
    http2: bool,
    visitor: Visitor,
    broken: Broken,
    stop: CancellationToken,
}

/// One that is ready, with TLS or without.
enum Opened {
    Plain(Box<Ready<Wire>>),
    Tls(Box<Ready<TlsStream<Wire>>>),
}

impl Accepted {
    /// Serves it.
    pub(super) async fn serve(self) {
        let front = Arc::clone(&self.front);
        let (slot, stop, activity) =
            (self.settings.slots.enter(), self.stop.clone(), Arc::clone(&self.activity));
        let opened = tokio::select! {
            opened = self.open() => opened.inspect_err(|error| {
                tracing::debug!("a visitor's connection failed: {}", error.to_string().escape_debug());
            }).ok(),
            overdue = slot.overdue() => {
                tracing::debug!("a visitor's connection was closed: {overdue}");
                None
            }
            // Nothing was asked for yet.
            () = stop.cancelled() => return,
            () = activity.asked_to_give_way() => return,
        };
        drop(slot);
        match opened {
            Some(Opened::Plain(ready)) => ready.serve().await,
            Some(Opened::Tls(ready)) => ready.serve().await,
            None => front.counts.handshakes.add(),
        }
    }

    /// Everything that comes ahead of HTTP.
    async fn open(mut self) -> io::Result<Opened> {
        let (mut client, mut local) = (self.peer, self.local);
        let trusted = self.settings.trusts(self.peer.ip());
        if self.settings.expects_proxy_header(self.peer.ip())
            && let Some(proxied) = proxied::read(&mut self.wire).await?
        {
            (client, local) = (canonical(proxied.client), canonical(proxied.local));
            if let Err(Full::Address | Full::All) = self.wire.place().claim(client.ip()) {
                self.front.counts.full_of_address.add();
                return Err(io::Error::other("the address has as many connections as it may have"));
            }
        }
        let broken = self.wire.broken();
        let visitor = Visitor {
            front: self.front,
            settings: self.settings,
            client,
            peer: self.peer,
            local,
            tls: self.tls.is_some(),
            trusted,
            activity: self.activity,
            lines: None,
        };
        let stop = self.stop;
        match self.tls {
            Some(tls) => {
                let stream = tls.accept(self.wire).await?;
                let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                Ok(Opened::Tls(Box::new(Ready { stream, http2, visitor, broken, stop })))
            }
            None => {
                let mut stream = self.wire;
                let http2 = begins_with_preface(&mut stream).await?;
                Ok(Opened::Plain(Box::new(Ready { stream, http2, visitor, broken, stop })))
            }
        }
    }
}

/// Whether a connection without TLS begins as one of HTTP/2 (with prior knowledge: RFC 9113, section 3.3). What was read for
/// that is read again.
async fn begins_with_preface(wire: &mut Wire) -> io::Result<bool> {
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        let left = (PREFACE.len() - first.len()) as u64;
        if (&mut *wire).take(left).read_buf(&mut first).await? == 0 {
            break;
        }
    }
    let http2 = first == PREFACE;
    wire.read_again(first);
    Ok(http2)
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Ready<S> {
    async fn serve(self) {
        match self.http2 {
            true => self.serve_http2().await,
            false => self.serve_http1().await,
        }
    }

    async fn serve_http1(self) {
        let Self { stream, mut visitor, broken, stop, .. } = self;
        let limits = visitor.settings.limits;
        let activity = Arc::clone(&visitor.activity);
        let front = Arc::clone(&visitor.front);
        let head = HeadLimits { bytes: limits.max_head, lines: MAX_HEADERS };
        let times = Times { head: limits.head, keep_alive: limits.keep_alive };
        let (guarded, watch) = Guarded::new(stream, head, times, Arc::clone(&activity));
        visitor.lines = Some(Lines { watch, broken });
        // What was let through has passed these already.
        let http = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_header_size(limits.max_head.max(1024))
            .max_buf_size(MAX_BUFFER.max(limits.max_head + 1024))
            .serve_connection(TokioIo::new(guarded), service_of(Arc::new(visitor)))
            .with_upgrades();
        let ended = drive(http, |http| http.graceful_shutdown(), &activity, &stop, None).await;
        if ended.is_some_and(|error| error.is_parse()) {
            front.counts.heads.add();
        }
    }

    async fn serve_http2(self) {
        let Self { stream, visitor, stop, .. } = self;
        let limits = visitor.settings.limits;
        let activity = Arc::clone(&visitor.activity);
        let streams = Streams::new(limits.silence, Arc::clone(&visitor.front.counts), Arc::clone(&activity));
        let mut builder = http2::Builder::new(streams);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_FAULTY_STREAMS)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        if visitor.front.answer.extended_connect() {
            builder.enable_connect_protocol();
        }
        let visitor = Arc::new(visitor);
        let stream = Overheard::new(stream, Arc::clone(&visitor));
        let http = builder.serve_connection(TokioIo::new(stream), service_of(visitor));
        let idle = (limits.head, limits.keep_alive);
        drive(http, |http| http.graceful_shutdown(), &activity, &stop, Some(idle)).await;
    }
}

/// What hyper calls for each request.
fn service_of(
    visitor: Arc<Visitor>,
) -> impl Service<Request<Incoming>, Response = Response<Download>, Error = Infallible, Future = Answering> {
    service_fn(move |request| Arc::clone(&visitor).answer(request))
}

/// Runs a connection to its end: at once if it is to, else once its requests are answered when it is asked to, and when it was
/// idle for so long. Gives the error that it ended with.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    connection: C,
    graceful: fn(Pin<&mut C>),
    activity: &Activity,
    stop: &CancellationToken,
    idle: Option<(Duration, Duration)>,
) -> Option<hyper::Error> {
    tokio::pin!(connection);
    let asked = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = activity.asked_to_give_way() => {}
            () = async {
                match idle {
                    Some((first, next)) => activity.idle_for(first, next).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
    };
    tokio::pin!(asked);
    let mut closing = false;
    loop {
        tokio::select! {
            biased;
            () = activity.to_end() => return None,
            ended = &mut connection => {
                return ended.err().inspect(|error| {
                    tracing::debug!("a visitor's HTTP failed: {}", error.to_string().escape_debug());
                });
            }
            () = &mut asked, if !closing => {
                closing = true;
                graceful(connection.as_mut());
            }
            // From the end of the last request on, and from now on.
            () = async {
                sleep(LAST_WORDS).await;
                activity.idle_for(LAST_WORDS, LAST_WORDS).await;
            }, if closing => return None,
        }
    }
}

/// An IPv4 address as itself, also where a socket is for both families.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
