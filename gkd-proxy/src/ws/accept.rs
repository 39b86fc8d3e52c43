//! The server's end of the opening handshake (RFC 6455, section 4.2), on hyper: [`accept`].

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use data_encoding::BASE64;
use gkd_core::carrier::ws::accept_of;
use gkd_core::proto::id::Side as Role;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use super::WsError;
use super::frames::WebSocket;
use super::side::{Side, finish};
use super::upgrade::{MAX_HEAD, MAX_HEADERS, VERSION, is_token, names, the_only, words};
use crate::reach::ReachError;

/// How long the key of a request is when it is decoded, in bytes.
const KEY_LENGTH: usize = 16;

/// Which upgrades are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accept {
    /// The one path that may be asked for, without its query; none for any.
    pub path: Option<Box<str>>,
    /// The web sites whose pages may come, such as `https://example.com`; none for all. A program that is no browser
    /// says what it likes, or nothing.
    pub origins: Vec<Box<str>>,
}

/// Why an upgrade was not made: the status that the client got, and words for its people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {words}", .status.as_u16())]
pub struct Refusal {
    status: StatusCode,
    words: String,
}

impl Refusal {
    fn new(status: StatusCode, words: &str) -> Self {
        Self { status, words: words.to_owned() }
    }

    /// The status of HTTP.
    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    /// What is behind is not reached.
    pub(crate) fn not_reached(to: &str, error: &ReachError) -> Self {
        Self { status: error.http_status(), words: format!("{to} was not reached: {error}.") }
    }

    fn answer(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::from(format!("{}\n", self.words)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        if self.status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close, upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
        }
        response
    }
}

/// Reads a request, lets `reach` open what is behind it, and answers. What was opened, and the stream with whatever the
/// client sent behind its request.
///
/// The request has to be there before `overdue`; how long `reach` takes is its own affair. A stream whose request was
/// refused is finished.
pub(super) async fn accept<S, T, R>(
    io: S,
    accept: &Accept,
    overdue: impl Future<Output = WsError>,
    reach: impl FnOnce() -> R + Send,
) -> Result<(WebSocket<S>, T), WsError>
where
    S: Side,
    T: Send,
    R: Future<Output = Result<T, Refusal>> + Send,
{
    let spoke = CancellationToken::new();
    let (reach, outcome) = (Mutex::new(Some(reach)), Mutex::new(None));
    let service = service_fn(|request: Request<Incoming>| {
        spoke.cancel();
        let reach = reach.lock().unwrap_or_else(PoisonError::into_inner).take();
        let outcome = &outcome;
        Box::pin(async move {
            let answered = async {
                let answer = judge(&request, accept)?;
                // There is one request: a refusal closes, and behind an upgrade is no HTTP.
                let reach =
                    reach.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "One request only."))?;
                Ok((answer, reach().await?))
            };
            let (response, came) = match answered.await {
                Ok((answer, opened)) => (answer, Ok(opened)),
                Err(refusal) => (Refusal::answer(&refusal), Err(refusal)),
            };
            *outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(came);
            Ok::<_, Infallible>(response)
        })
    });
    let mut http = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .half_close(true)
        .serve_connection(TokioIo::new(io), service);
    let ended = {
        let mut served = std::pin::pin!(poll_fn(|cx| http.poll_without_shutdown(cx)));
        tokio::select! {
            biased;
            ended = &mut served => ended,
            () = spoke.cancelled() => served.await,
            overdue = overdue => return Err(overdue),
        }
    };
    let http1::Parts { io, read_buf, .. } = http.into_parts();
    let mut io = io.into_inner();
    match outcome.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(Ok(opened)) => {
            ended.map_err(WsError::Http)?;
            Ok((WebSocket::new(io, Role::Server, &read_buf), opened))
        }
        Some(Err(refusal)) => {
            finish(&mut io).await;
            Err(WsError::Refused(refusal))
        }
        // hyper has answered, where there is an answer.
        None => {
            finish(&mut io).await;
            Err(ended.err().map_or(WsError::NoRequest, WsError::Http))
        }
    }
}

/// The answer to a request; or why it is none that is upgraded.
fn judge(request: &Request<Incoming>, accept: &Accept) -> Result<Response<Full<Bytes>>, Refusal> {
    let headers = request.headers();
    let bad = |words| Err(Refusal::new(StatusCode::BAD_REQUEST, words));
    if request.version() != Version::HTTP_11 {
        return bad("A WebSocket begins with a request of HTTP/1.1.");
    }
    if the_only(headers, header::HOST).is_none() {
        return bad("The request needs one header Host.");
    }
    if let Some(path) = &accept.path
        && request.uri().path() != &**path
    {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "There is no WebSocket at this path."));
    }
    if !names(headers, header::UPGRADE, "websocket") {
        let words =
            "This port speaks WebSocket: open it as ws://HOST:PORT/ from a program or a page's script.";
        return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, words));
    }
    if request.method() != Method::GET || !request.body().is_end_stream() {
        return bad("A WebSocket begins with a GET without a body.");
    }
    if !names(headers, header::CONNECTION, "upgrade") {
        return bad("The header Connection must name Upgrade: a proxy in between may have taken it away.");
    }
    match the_only(headers, header::SEC_WEBSOCKET_VERSION) {
        Some(version) if version == VERSION => {}
        Some(_) => return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, "Version 13 is spoken here.")),
        None => return bad("The request needs one header Sec-WebSocket-Version, with 13."),
    }
    let key = the_only(headers, header::SEC_WEBSOCKET_KEY).and_then(|key| key.to_str().ok());
    let right = |key: &&str| BASE64.decode(key.as_bytes()).is_ok_and(|key| key.len() == KEY_LENGTH);
    let Some(key) = key.filter(right) else {
        return bad("The request needs one header Sec-WebSocket-Key, with 16 bytes in base64.");
    };
    if !origin_may(headers, &accept.origins) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "Pages of this site may not come here."));
    }
    upgraded(headers, key)
}

/// Whether the page that asks, where it is one, is of a site that may come.
fn origin_may(headers: &HeaderMap, origins: &[Box<str>]) -> bool {
    if origins.is_empty() || !headers.contains_key(header::ORIGIN) {
        return true;
    }
    let origin = the_only(headers, header::ORIGIN).map(HeaderValue::as_bytes);
    origin.is_some_and(|origin| origins.iter().any(|it| it.as_bytes().eq_ignore_ascii_case(origin)))
}

fn upgraded(headers: &HeaderMap, key: &str) -> Result<Response<Full<Bytes>>, Refusal> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let mut insert = |name: HeaderName, value: &str| {
        let value = HeaderValue::from_str(value);
        value.map(|value| drop(response.headers_mut().insert(name, value)))
    };
    let inserted = insert(header::UPGRADE, "websocket")
        .and_then(|()| insert(header::CONNECTION, "Upgrade"))
        .and_then(|()| insert(header::SEC_WEBSOCKET_ACCEPT, &accept_of(key)))
        // Which one is behind, only the program knows that asks; a browser wants one of those that it named.
        .and_then(|()| match words(headers, header::SEC_WEBSOCKET_PROTOCOL).find(|word| is_token(word)) {
            Some(first) => insert(header::SEC_WEBSOCKET_PROTOCOL, first),
            None => Ok(()),
        });
    match inserted {
        Ok(()) => Ok(response),
        // Base64 and tokens always can be values.
        Err(_) => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, "The request has a header that cannot be answered."))
        }
    }
}
