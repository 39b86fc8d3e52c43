//! A request as its targets get it ([`Template`]): without what spoke of one hop, with what tells who sent it, and in the
//! form of HTTP/1.1 or of HTTP/2, whichever a target speaks. It may be sent more than once.

use hyper::body::Body;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Method, Request, StatusCode, Uri, Version};

use super::config::HostRewrite;
use super::forwarded::{Origin, host_of};
use super::upgrade::{Wish, connecting};
use super::upstream::{Failure, Protocol, Upstream};
use super::{ServiceBody, Visit};
use crate::http_proxy::headers::remove_hop_by_hop;
use crate::ws::upgrade::names;

/// A request that targets are sent.
pub(super) struct Template {
    method: Method,
    path: PathAndQuery,
    /// Those that do not depend on the target.
    headers: HeaderMap,
    /// What the client asked for.
    host: Option<HeaderValue>,
    /// Its sender takes fields behind a body.
    trailers: bool,
    /// It asks for a WebSocket.
    websocket: bool,
    /// It has a body whose length nobody knows yet.
    chunked: bool,
}

impl Template {
    /// Makes a client's request one to a target. `body` is looked at, not read.
    pub(super) fn new(
        head: Parts,
        body: &ServiceBody,
        origin: &Origin,
        visit: &Visit,
        wish: Option<&Wish>,
    ) -> Result<Self, StatusCode> {
        let host = host_of(&head).map_err(|_| StatusCode::BAD_REQUEST)?;
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let mut headers = head.headers;
        let trailers = names(&headers, header::TE, "trailers");
        remove_hop_by_hop(&mut headers);
        headers.remove(header::HOST);
        join_cookies(&mut headers);
        origin.tell(&mut headers, visit, host.as_ref());
        let chunked = frame(&mut headers, &head.method, body);
        let mut method = head.method;
        if let Some(wish) = wish {
            wish.ask(&mut method, &mut headers);
        }
        let websocket = wish.is_some_and(Wish::is_websocket);
        Ok(Self { method, path, headers, host, trailers, websocket, chunked })
    }

    /// Whether it may be sent twice without more coming of it than of once (RFC 9110, section 9.2.2).
    pub(super) fn is_idempotent(&self) -> bool {
        self.method.is_idempotent()
    }

    /// The head for a target.
    pub(super) fn head(&self, upstream: &Upstream, rewrite: &HostRewrite) -> Result<Parts, Failure> {
        let wrong = |error: hyper::http::Error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error);
        let host = self.host(upstream, rewrite);
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = self.method.clone();
        head.headers = self.headers.clone();
        match upstream.protocol() {
            Protocol::Http1 => self.finish_http1(&mut head, host),
            Protocol::Http2 => self.finish_http2(&mut head, &host).map_err(wrong)?,
        }
        Ok(head)
    }

    /// The request for what answers it on this machine.
    pub(super) fn local(&self, body: ServiceBody) -> Request<ServiceBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.clone().into();
        *request.headers_mut() = self.headers.clone();
        remove_hop_by_hop(request.headers_mut());
        if let Some(host) = &self.host {
            request.headers_mut().insert(header::HOST, host.clone());
        }
        request
    }

    fn finish_http1(&self, head: &mut Parts, host: HeaderValue) {
        head.version = Version::HTTP_11;
        head.uri = Uri::from(self.path.clone());
        head.headers.insert(header::HOST, host);
        if self.trailers {
            head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
            // What speaks of one hop is named so, beside an upgrade, if there is one.
            head.headers.append(header::CONNECTION, HeaderValue::from_static("te"));
        }
        if self.chunked {
            // Without it hyper takes a GET to have no body.
            head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }

    fn finish_http2(&self, head: &mut Parts, host: &HeaderValue) -> Result<(), hyper::http::Error> {
        head.version = Version::HTTP_2;
        let mut uri = hyper::http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(Authority::try_from(host.as_bytes())?);
        uri.path_and_query = Some(self.path.clone());
        head.uri = Uri::from_parts(uri)?;
        // An upgrade, which there is none to over HTTP/2.
        remove_hop_by_hop(&mut head.headers);
        if self.websocket {
            connecting(head);
        }
        // hyper does not tell of the answer to it over HTTP/2, so it is ours: the body is read when it is wanted.
        head.headers.remove(header::EXPECT);
        if self.trailers {
            head.headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        Ok(())
    }

    /// What a target reads as Host. HTTP/1.0 knows requests without one, later versions do not.
    fn host(&self, upstream: &Upstream, rewrite: &HostRewrite) -> HeaderValue {
        let own = || upstream.authority().cloned();
        let asked = || self.host.clone();
        let host = match rewrite {
            HostRewrite::Keep => asked().or_else(own),
            HostRewrite::Target => own().or_else(asked),
            HostRewrite::Name(name) => HeaderValue::from_str(name).ok(),
        };
        host.unwrap_or_else(|| HeaderValue::from_static("localhost"))
    }
}

/// Says how long the body is, by what is known of it. Whether nobody knows yet.
fn frame(headers: &mut HeaderMap, method: &Method, body: &ServiceBody) -> bool {
    let length = match body.is_end_stream() {
        // Some web servers ask for a length where a body is usual.
        true if [Method::POST, Method::PUT, Method::PATCH].contains(method) => Some(0),
        true => None,
        false => match body.size_hint().exact() {
            Some(length) => Some(length),
            // It was told by the request, which is bound to it.
            None if headers.contains_key(header::CONTENT_LENGTH) => return false,
            None => return true,
        },
    };
    match length {
        Some(length) => _ = headers.insert(header::CONTENT_LENGTH, length.into()),
        None => _ = headers.remove(header::CONTENT_LENGTH),
    }
    false
}

/// HTTP/2 may cut cookies into several headers, HTTP/1.1 may not (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(header::COOKIE).iter();
    if all.next().is_none() || all.next().is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}
