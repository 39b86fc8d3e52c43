//! Requests that ask for another protocol on their connection, WebSocket above all: [`Wish`], and the bytes of both sides
//! once the target has agreed.
//!
//! A client asks by `Upgrade` in HTTP/1.1 (RFC 9110, section 7.8), or by a CONNECT that names the protocol in HTTP/2 (RFC
//! 8441). A target is asked in the way of the HTTP that it speaks; one of HTTP/2 for a WebSocket alone, and where it says that
//! it takes that. HTTP itself is no such protocol: a client that could change to another HTTP with
//! the target would be past all that is judged here.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use gkd_core::carrier::ws::{accept_of, new_key};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::ServiceBody;
use super::upstream::{Failure, Line};
use crate::http_proxy::headers::remove_hop_by_hop;
use crate::ws::upgrade::{VERSION, names, the_only, words};

/// The one protocol that is known here.
const WEBSOCKET: &str = "websocket";

/// What is read at once of what passes.
const BUFFER: usize = 16 * 1024;

/// How long both ends may take to change once they have agreed.
const CHANGE: Duration = Duration::from_secs(10);

/// That a client wishes another protocol.
pub(super) struct Wish {
    form: Form,
    client: OnUpgrade,
}

enum Form {
    /// `Upgrade` with these protocols; with the client's key, where a WebSocket is one of them.
    Upgrade { protocols: HeaderValue, key: Option<String> },
    /// A CONNECT for a WebSocket, which HTTP/1.1 has a key for.
    Connect { key: String },
}

impl Wish {
    /// What a request wishes, if it does. An error is the status of a CONNECT that nothing comes of.
    pub(super) fn of(request: &mut Request<ServiceBody>) -> Result<Option<Self>, StatusCode> {
        if request.method() == Method::CONNECT {
            return match request.extensions_mut().remove::<Protocol>() {
                Some(protocol) if protocol.as_str().eq_ignore_ascii_case(WEBSOCKET) => {
                    let form = Form::Connect { key: new_key() };
                    Ok(Some(Self { form, client: hyper::upgrade::on(request) }))
                }
                // This is no proxy for tunnels.
                _ => Err(StatusCode::NOT_IMPLEMENTED),
            };
        }
        let headers = request.headers();
        // A server may pass over it. Behind a body it would: nobody sends one.
        let asks = request.version() == Version::HTTP_11
            && names(headers, header::CONNECTION, "upgrade")
            && hyper::body::Body::is_end_stream(request.body());
        let protocols: Vec<&str> = words(headers, header::UPGRADE).filter(|it| !is_http(it)).collect();
        if !asks || protocols.is_empty() {
            return Ok(None);
        }
        let websocket = protocols.iter().any(|it| it.eq_ignore_ascii_case(WEBSOCKET));
        let key = the_only(headers, header::SEC_WEBSOCKET_KEY).filter(|_| websocket);
        let key = key.and_then(|key| key.to_str().ok()).map(str::to_owned);
        let protocols = HeaderValue::from_str(&protocols.join(", ")).map_err(|_| StatusCode::BAD_REQUEST)?;
        Ok(Some(Self { form: Form::Upgrade { protocols, key }, client: hyper::upgrade::on(request) }))
    }

    /// Whether a WebSocket is wished, in the form of one.
    pub(super) fn is_websocket(&self) -> bool {
        matches!(self.form, Form::Connect { .. } | Form::Upgrade { key: Some(_), .. })
    }

    /// Whether this answer of a target grants it.
    pub(super) fn is_granted_by(&self, answer: &Response<Incoming>) -> bool {
        answer.status() == StatusCode::SWITCHING_PROTOCOLS
            || (answer.version() == Version::HTTP_2
                && answer.status() == StatusCode::OK
                && self.is_websocket())
    }

    /// Whether this answer would look to the client as if it were granted, which it is not.
    pub(super) fn is_belied_by(&self, answer: &Response<Incoming>) -> bool {
        matches!(self.form, Form::Connect { .. })
            && answer.status().is_success()
            && !self.is_granted_by(answer)
    }

    /// Puts it into a request to a target of HTTP/1.1. For one of HTTP/2 see [`connecting`].
    pub(super) fn ask(&self, method: &mut Method, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        match &self.form {
            Form::Upgrade { protocols, .. } => _ = headers.insert(header::UPGRADE, protocols.clone()),
            Form::Connect { key } => {
                *method = Method::GET;
                headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
                if let Ok(key) = HeaderValue::from_str(key) {
                    headers.insert(header::SEC_WEBSOCKET_KEY, key);
                }
            }
        }
    }

    /// Takes a target's agreement on: what the client is answered, and the change of both sides, which is to be run.
    pub(super) fn granted(self, mut answer: Response<Incoming>) -> Result<(Response<()>, Change), Failure> {
        let wrong = |words: &str| Err(Failure::new(StatusCode::BAD_GATEWAY, words));
        // There the status says all.
        let http2 = answer.version() == Version::HTTP_2;
        let chosen = words(answer.headers(), header::UPGRADE).collect::<Vec<_>>().join(", ");
        let target = hyper::upgrade::on(&mut answer);
        let (mut head, _) = answer.into_parts();
        head.extensions = Default::default();
        remove_hop_by_hop(&mut head.headers);
        match &self.form {
            Form::Upgrade { key: Some(key), .. } if http2 => {
                // It was told nothing of the key.
                let Ok(accept) = HeaderValue::from_str(&accept_of(key)) else {
                    return wrong("it agreed to a WebSocket without a key");
                };
                head.headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
                head.headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
                head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
                head.headers.remove(header::CONTENT_LENGTH);
                head.status = StatusCode::SWITCHING_PROTOCOLS;
            }
            Form::Connect { .. } if http2 => _ = head.headers.remove(header::CONTENT_LENGTH),
            Form::Upgrade { protocols, .. } => {
                let asked = protocols.to_str().unwrap_or_default();
                let is_asked = |it: &str| asked.split(',').any(|one| one.trim().eq_ignore_ascii_case(it));
                if chosen.is_empty() || !chosen.split(", ").all(is_asked) {
                    return wrong("it changed to another protocol than was asked for");
                }
                let Ok(chosen) = HeaderValue::from_str(&chosen) else {
                    return wrong("it changed to a protocol without a name");
                };
                head.headers.insert(header::UPGRADE, chosen);
                head.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            }
            Form::Connect { key } => {
                let accept = head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
                let proven = accept.is_some_and(|accept| accept == accept_of(key).as_str());
                if !chosen.eq_ignore_ascii_case(WEBSOCKET) || !proven {
                    return wrong("it did not agree to a WebSocket in the form of one");
                }
                head.headers.remove(header::CONTENT_LENGTH);
                head.status = StatusCode::OK;
            }
        }
        head.version = Version::HTTP_11;
        Ok((Response::from_parts(head, ()), Change { client: self.client, target }))
    }
}

/// Makes a request to a target of HTTP/2 one for a WebSocket (RFC 8441, section 5).
pub(super) fn connecting(head: &mut Parts) {
    head.method = Method::CONNECT;
    head.extensions.insert(Protocol::from_static(WEBSOCKET));
    head.headers.remove(header::SEC_WEBSOCKET_KEY);
    head.headers.remove(header::CONTENT_LENGTH);
}

/// HTTP in another form, or below TLS.
fn is_http(protocol: &str) -> bool {
    let begins = |with: &str| protocol.get(..with.len()).is_some_and(|it| it.eq_ignore_ascii_case(with));
    begins("h2") || begins("http") || begins("tls")
}

/// Both sides of an agreed change.
pub(super) struct Change {
    client: OnUpgrade,
    target: OnUpgrade,
}

impl Change {
    /// Carries bytes between both sides until both are done, one breaks, or all ends. `idle` is for how long nothing may
    /// come of one side when the other is done; before that there is no such bound, as WebSockets are silent for hours.
    /// The target's connection lives as long.
    pub(super) async fn run(self, line: Line, idle: Duration, end: CancellationToken) {
        let _line = line;
        let carried = async {
            let both = async { tokio::try_join!(self.client, self.target) };
            let changed = tokio::time::timeout(CHANGE, both).await.map_err(|_| io::ErrorKind::TimedOut)?;
            let (client, target) = changed.map_err(io::Error::other)?;
            carry(client, target, idle).await
        };
        let carried = tokio::select! {
            biased;
            () = end.cancelled() => return,
            carried = carried => carried,
        };
        if let Err(error) = carried {
            tracing::debug!("an upgraded connection broke off: {}", error.to_string().escape_debug());
        }
    }
}

async fn carry(client: Upgraded, target: Upgraded, idle: Duration) -> io::Result<()> {
    let (client_read, client_write) = split(TokioIo::new(client));
    let (target_read, target_write) = split(TokioIo::new(target));
    let moved = Arc::new(std::sync::Mutex::new(Instant::now()));
    let up = std::pin::pin!(pour(client_read, target_write, &moved));
    let down = std::pin::pin!(pour(target_read, client_write, &moved));
    let (first, mut rest) = match select(up, down).await {
        Either::Left((first, rest)) => (first, Either::Left(rest)),
        Either::Right((first, rest)) => (first, Either::Right(rest)),
    };
    first?;
    // Half-closed: the other direction goes on, but nobody may be left at its far end.
    loop {
        let due = *moved.lock().unwrap_or_else(std::sync::PoisonError::into_inner) + idle;
        if due <= Instant::now() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        tokio::select! {
            rest = &mut rest => return rest,
            () = sleep_until(due) => {}
        }
    }
}

/// Carries one direction to its end, which is passed on.
async fn pour<R, W>(
    mut from: ReadHalf<R>,
    mut to: WriteHalf<W>,
    moved: &std::sync::Mutex<Instant>,
) -> io::Result<()>
where
    R: AsyncRead,
    W: AsyncWrite,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        *moved.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        // What is below may collect, TLS does.
        to.flush().await?;
    }
}
