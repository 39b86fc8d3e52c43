//! A web server as a site: each request over a connection of its own, bodies as they come, in both directions.
//!
//! Headers that speak of one hop are removed both ways. The web server is told the host that the visitor asked for, and
//! who the visitor is; what the visitor claims of that is not believed. Protocols that begin with an upgrade do not get
//! through.

use std::net::SocketAddr;
use std::time::Duration;

use gkd_core::proto::packet::DialError;
use gkd_core::seldom::Seldom;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::http::request;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::{SiteBody, page};
use crate::destination::Target;
use crate::dial::{DialFailure, Dialer};
use crate::http_proxy::headers::remove_hop_by_hop;
use crate::http_proxy::{MAX_HEAD, MAX_HEADERS};
use crate::passing::{Download, Patience, Upload, expecting};
use crate::rules::Rules;
use crate::service::forwarded::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO, host_of, remove_forgeable};

/// How long the web server may take to be reached, its name's resolution included.
const CONNECT: Duration = Duration::from_secs(10);

/// For how long nothing may move while something is waited for: the visitor's body, the head of the answer, its body.
const SILENCE: Duration = Duration::from_secs(60);

/// A web server.
pub(super) struct Backend {
    target: Target,
    dialer: Dialer,
    /// What visitors come with.
    scheme: HeaderValue,
    /// Visitors cause these lines.
    complaints: Seldom,
    /// [`SILENCE`], and less in tests.
    pub(super) silence: Duration,
}

/// Why there is no answer of the web server's.
enum Trouble {
    /// The visitor's request cannot be passed on.
    Request(StatusCode),
    /// The web server was not reached.
    Reach(DialFailure),
    /// It broke off, or does not speak HTTP.
    Broken(hyper::Error),
    /// It changed to another protocol, which nobody asked for.
    Switched,
    /// It says nothing.
    Silent,
}

impl Backend {
    pub(super) fn new(target: Target, tls: bool) -> Self {
        // Whoever configured it may have it lead anywhere.
        let anywhere = [IpNet::from(Ipv4Net::default()), Ipv6Net::default().into()];
        let dialer = Dialer::new(Rules::allow(anywhere)).with_timeout(CONNECT);
        let scheme = HeaderValue::from_static(if tls { "https" } else { "http" });
        Self { target, dialer, scheme, complaints: Seldom::default(), silence: SILENCE }
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    pub(super) async fn answer(&self, request: Request<Incoming>, visitor: SocketAddr) -> Response<SiteBody> {
        let trouble = match self.exchange(request, visitor).await {
            Ok(response) => return response,
            Err(trouble) => trouble,
        };
        let (status, cause) = match trouble {
            Trouble::Request(status) => return page(status),
            Trouble::Reach(failure) if failure.error == DialError::TimedOut => {
                (StatusCode::GATEWAY_TIMEOUT, failure.to_string())
            }
            Trouble::Reach(failure) => (StatusCode::BAD_GATEWAY, failure.to_string()),
            Trouble::Broken(error) => (StatusCode::BAD_GATEWAY, error.to_string()),
            Trouble::Switched => {
                (StatusCode::BAD_GATEWAY, "it changed to another protocol unasked".to_owned())
            }
            Trouble::Silent => {
                (StatusCode::GATEWAY_TIMEOUT, format!("nothing moved for {} s", self.silence.as_secs()))
            }
        };
        if let Some(more) = self.complaints.note(&cause) {
            tracing::warn!(
                "the site's web server {} gave no answer: {}{more}",
                self.target,
                cause.escape_debug()
            );
        }
        page(status)
    }

    async fn exchange(
        &self,
        request: Request<Incoming>,
        visitor: SocketAddr,
    ) -> Result<Response<SiteBody>, Trouble> {
        let (mut head, body) = request.into_parts();
        self.rewrite(&mut head, visitor).map_err(Trouble::Request)?;
        let tcp = self.dialer.dial(&self.target).await.map_err(Trouble::Reach)?;
        let handshake = http1::Builder::new()
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD)
            .handshake(TokioIo::new(tcp));
        let (mut sender, http) = handshake.await.map_err(Trouble::Broken)?;
        // A task of its own: a body still goes up while the visitor does not read what comes down.
        let connection = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = http.await {
                tracing::debug!("the site's web server broke off: {}", error.to_string().escape_debug());
            }
        }));
        let upload = Upload::new(body);
        let watch = upload.watch();
        let mut answer = std::pin::pin!(sender.send_request(expecting(head, upload)));
        let answer = loop {
            let due = watch.last() + self.silence;
            tokio::select! {
                biased;
                answer = &mut answer => break answer.map_err(Trouble::Broken)?,
                () = tokio::time::sleep_until(due) => {
                    if watch.last() + self.silence <= Instant::now() {
                        return Err(Trouble::Silent);
                    }
                }
            }
        };
        let (mut head, body) = answer.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Trouble::Switched);
        }
        remove_hop_by_hop(&mut head.headers);
        // The visitor's version is written.
        head.version = Version::HTTP_11;
        let download = Download::new(body, Some(Patience::new(self.silence)), connection);
        Ok(Response::from_parts(head, download.boxed()))
    }

    /// Makes a visitor's request one to the web server.
    fn rewrite(&self, head: &mut request::Parts, visitor: SocketAddr) -> Result<(), StatusCode> {
        if head.method == Method::CONNECT || wants_websocket(&head.headers) {
            return Err(StatusCode::NOT_IMPLEMENTED);
        }
        let host = host_of(head).map_err(|_| StatusCode::BAD_REQUEST)?;
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        head.uri = path.parse::<Uri>().map_err(|_| StatusCode::BAD_REQUEST)?;
        head.version = Version::HTTP_11;
        remove_hop_by_hop(&mut head.headers);
        remove_forgeable(&mut head.headers);
        // HTTP/1.0 knows requests without a host, later versions do not.
        let own = || HeaderValue::from_str(&self.target.to_string()).map_err(|_| StatusCode::BAD_GATEWAY);
        let sent = match &host {
            Some(host) => host.clone(),
            None => own()?,
        };
        let address = visitor.ip().to_canonical().to_string();
        let address = HeaderValue::from_str(&address).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
        let headers = &mut head.headers;
        headers.insert(FORWARDED_FOR, address);
        headers.insert(FORWARDED_PROTO, self.scheme.clone());
        if let Some(host) = host {
            headers.insert(FORWARDED_HOST, host);
        }
        headers.insert(header::HOST, sent);
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok(())
    }
}

/// A server may pass over that another protocol is asked for (RFC 9110, section 7.8), and does but for this one, with
/// which no answer in HTTP would be of use.
fn wants_websocket(headers: &HeaderMap) -> bool {
    let mut asked = headers.get_all(header::UPGRADE).iter().filter_map(|value| value.to_str().ok());
    asked.any(|value| value.split(',').any(|name| name.trim().eq_ignore_ascii_case("websocket")))
}
