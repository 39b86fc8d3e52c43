//! HTTP proxy towards programs, on hyper: CONNECT, and requests with an absolute URI (RFC 9112, section
//! 3.2), one connection of the session for each.
//!
//! A program's connection is kept for its next request; the one to a web server is not. Headers that speak
//! of one hop only are removed both ways. Nothing is added that tells a web server of the proxy, so there is
//! no `Via`; protocols that begin with an upgrade of HTTP go through CONNECT. Messages are not passed through
//! as they come but read and written anew, so that both ends see the same bounds of the same messages.

mod forward;
pub(crate) mod headers;

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::{Either, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use self::forward::Fetched;
use crate::connection::Opener;
use crate::credentials::Credentials;
use crate::destination::{Destination, Host, Target};
use crate::outlet::Outlet;
use crate::passing::Download;
use crate::reach::ReachError;
use crate::slots::Slot;
use crate::socket;

/// The most headers of a request or response.
pub(crate) const MAX_HEADERS: usize = 128;

/// The most bytes of a request's or response's head. Cookies come near to half of it.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// How long a program may take for a further request on its connection, idle time included.
const NEXT_REQUEST: Duration = Duration::from_secs(60);

/// What a web browser shows that was pointed at the proxy as if it were a site.
const NOT_A_SITE: &str = "This is a proxy, not a web site: set it as HTTP or SOCKS5 proxy in the program's \
    network settings, or try `curl -x http://HOST:PORT https://example.com` with its host and port.";

/// What an answer carries: words of ours, or a web server's body.
type AnswerBody<O> = Either<Full<Bytes>, Download<Fetched<<O as Opener>::Connection>>>;

/// Serves one program, from its first byte to its last.
pub(crate) async fn serve<O: Opener>(
    socket: TcpStream,
    credentials: Option<Credentials>,
    strict: bool,
    slot: Slot,
    outlet: Arc<Outlet<O>>,
) {
    let program = Arc::new(Program {
        outlet,
        credentials,
        strict,
        spoke: CancellationToken::new(),
        opened: Mutex::new(None),
    });
    let service = {
        let program = Arc::clone(&program);
        service_fn(move |request| {
            let program = Arc::clone(&program);
            Box::pin(async move { Ok::<_, Infallible>(program.answer(request).await) })
        })
    };
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(NEXT_REQUEST)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .half_close(true)
        .serve_connection(TokioIo::new(socket), service);
    let ended = {
        let mut served = poll_fn(|cx| http.poll_without_shutdown(cx));
        tokio::select! {
            biased;
            ended = &mut served => ended,
            () = program.spoke.cancelled() => {
                drop(slot);
                served.await
            }
            overdue = slot.overdue() => {
                tracing::debug!("a program was closed before its first HTTP request: {overdue}");
                return;
            }
        }
    };
    let mut parts = http.into_parts();
    let mut socket = parts.io.into_inner();
    // hyper has answered, where there is an answer.
    if let Err(error) = ended {
        tracing::debug!("a program's HTTP failed: {}", error.to_string().escape_debug());
        // A web server broke off: some bodies end with their connection, and this one has not come to its end.
        if error.is_user() {
            socket::reset_on_drop(&socket);
        }
        return;
    }
    let opened = program.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
    match opened {
        // What came behind the request, without waiting for the answer, goes ahead.
        Some((connection, target)) => {
            program.outlet.relay(&mut socket, &connection, &mut parts.read_buf, &target).await;
        }
        None => socket::close_after_answer(socket).await,
    }
}

/// What is known while one program is served.
struct Program<O: Opener> {
    outlet: Arc<Outlet<O>>,
    credentials: Option<Credentials>,
    strict: bool,
    /// Cancelled by its first request.
    spoke: CancellationToken,
    /// What CONNECT opened; the relay begins when its answer is written.
    opened: Mutex<Option<(O::Connection, Destination)>>,
}

/// Why a request is not passed on.
#[derive(Debug)]
enum Refusal {
    /// It breaks a rule: a status, and words with the mend.
    Request(StatusCode, &'static str),
    /// What it asks for was not reached.
    Reach(Destination, ReachError),
    /// The web server broke off, or does not speak HTTP.
    Server(Destination, hyper::Error),
}

impl<O: Opener> Program<O> {
    async fn answer(&self, request: Request<Incoming>) -> Response<AnswerBody<O>> {
        self.spoke.cancel();
        let answered = match request.method() {
            &Method::CONNECT => {
                let refused = |refusal: Refusal| refusal.answer_to_connect().map(Either::Left);
                return self.connect(request).await.unwrap_or_else(refused);
            }
            _ => self.forward(request).await,
        };
        answered.unwrap_or_else(|refusal| refusal.answer().map(Either::Left))
    }

    /// Opens the connection that CONNECT asks for. The relay begins when hyper has written the answer.
    async fn connect(&self, request: Request<Incoming>) -> Result<Response<AnswerBody<O>>, Refusal> {
        self.authorise(&request)?;
        let authority = request.uri().authority();
        let port = authority.and_then(|authority| authority.port_u16());
        let (Some(authority), Some(port)) = (authority, port) else {
            return Err(Refusal::bad("CONNECT takes HOST:PORT; an IPv6 address goes in brackets."));
        };
        if !request.body().is_end_stream() {
            return Err(Refusal::bad("CONNECT takes no body: send it behind the answer."));
        }
        let target = parse_target(authority.host(), port)?;
        let reached = async {
            let connection = self.outlet.open(&target).await?;
            if self.strict {
                self.outlet.reached(&target, &connection).await?;
            }
            Ok(connection)
        };
        match reached.await {
            Ok(connection) => {
                let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
                *opened = Some((connection, target));
                Ok(Response::new(Either::Left(Full::default())))
            }
            Err(error) => Err(Refusal::Reach(target, error)),
        }
    }

    /// Passes on a request with an absolute URI.
    async fn forward(&self, request: Request<Incoming>) -> Result<Response<AnswerBody<O>>, Refusal> {
        let uri = request.uri();
        let Some(authority) = uri.authority() else {
            return Err(Refusal::bad(NOT_A_SITE));
        };
        self.authorise(&request)?;
        if uri.scheme_str() != Some("http") {
            return Err(Refusal::bad("Only http:// URIs are fetched: use CONNECT for the others."));
        }
        // What stands behind the host is a port, or a colon, or nothing.
        let port = match (authority.port_u16(), authority.as_str().rsplit_once(authority.host())) {
            (Some(port), _) => port,
            (None, Some((_, "" | ":"))) => 80,
            (None, _) => return Err(Refusal::bad("The URI's port is none.")),
        };
        let target = parse_target(authority.host(), port)?;
        let response = forward::exchange(request, target, &self.outlet).await?;
        Ok(response.map(Either::Right))
    }

    fn authorise(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let given = request.headers().get(header::PROXY_AUTHORIZATION);
        match &self.credentials {
            Some(credentials) if !given.is_some_and(|given| proves(given, credentials)) => {
                Err(Refusal::Request(
                    StatusCode::PROXY_AUTHENTICATION_REQUIRED,
                    "The proxy wants user and password.",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a header of the scheme Basic (RFC 7617) holds the right user and password.
fn proves(given: &HeaderValue, credentials: &Credentials) -> bool {
    let words = given.to_str().unwrap_or_default();
    let Some((scheme, encoded)) = words.split_once(' ') else { return false };
    let decoded = BASE64.decode(encoded.trim().as_bytes()).unwrap_or_default();
    match std::str::from_utf8(&decoded).ok().and_then(|pair| pair.split_once(':')) {
        Some((user, password)) => scheme.eq_ignore_ascii_case("basic") && credentials.is(user, password),
        None => false,
    }
}

fn parse_target(host: &str, port: u16) -> Result<Destination, Refusal> {
    let target = Host::parse(host).and_then(|host| Target::new(host, port));
    target.map(Destination::Tcp).map_err(|_| Refusal::bad("The host or port is none that could be reached."))
}

impl Refusal {
    fn bad(words: &'static str) -> Self {
        Self::Request(StatusCode::BAD_REQUEST, words)
    }

    /// What stands behind a CONNECT that was refused may be bytes for the far end, sent without waiting: they are not
    /// to be read as a request. Who lacks a password
    /// may ask again, for every request needs one.
    fn answer_to_connect(self) -> Response<Full<Bytes>> {
        let mut response = self.answer();
        if response.status() != StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn answer(self) -> Response<Full<Bytes>> {
        let (status, words) = match self {
            Self::Request(status, words) => (status, words.to_owned()),
            Self::Reach(target, error) => {
                (error.http_status(), format!("{target} was not reached: {error}."))
            }
            Self::Server(target, error) => {
                (StatusCode::BAD_GATEWAY, format!("{target} did not answer in HTTP: {error}."))
            }
        };
        let mut response = Response::new(Full::from(format!("{words}\n")));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            let scheme = HeaderValue::from_static("Basic realm=\"gkd\", charset=\"UTF-8\"");
            headers.insert(header::PROXY_AUTHENTICATE, scheme);
        }
        response
    }
}

#[cfg(test)]
mod tests;
