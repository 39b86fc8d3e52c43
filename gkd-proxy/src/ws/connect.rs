//! The client's end of the opening handshake (RFC 6455, section 4.1), on hyper, with TLS ahead for `wss`: [`connect`].

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use gkd_core::carrier::ws::{USER_AGENT, accept_of, new_key};
use gkd_core::proto::id::Side as Role;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use tokio_util::either::Either;

use super::WsError;
use super::frames::WebSocket;
use super::side::Side;
use super::upgrade::{MAX_HEAD, MAX_HEADERS, VERSION, names, the_only};
use super::url::WsUrl;
use crate::destination::Host;

/// A stream to a WebSocket server, with TLS or without.
pub(super) type Far<S> = Either<S, Box<TlsStream<S>>>;

/// How a WebSocket server is asked.
#[derive(Clone, Debug)]
pub(super) struct Connect<'a> {
    pub(super) url: &'a WsUrl,
    /// The subprotocol that the server has to take.
    pub(super) protocol: Option<&'a str>,
    /// None for the certificates that this machine trusts.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// Asks the server at the other end of a stream for a WebSocket. The caller sets the bound in time.
pub(super) async fn connect<S: Side>(far: S, connect: Connect<'_>) -> Result<WebSocket<Far<S>>, WsError> {
    let far = match connect.url.is_secure() {
        false => Either::Left(far),
        true => Either::Right(Box::new(secure(far, connect.url, connect.tls).await?)),
    };
    let key = new_key();
    let request = request(connect.url, connect.protocol, &key)?;
    let (response, io, ahead) = exchange(far, request).await?;
    judge(&response, connect.protocol, &key)?;
    Ok(WebSocket::new(io, Role::Client, &ahead))
}

/// TLS, with a certificate for the URL's host.
async fn secure<S: Side>(
    far: S,
    url: &WsUrl,
    config: Option<Arc<ClientConfig>>,
) -> Result<TlsStream<S>, WsError> {
    let config = match config {
        Some(config) => config,
        None => trusted().await?,
    };
    let name = match url.target().host() {
        Host::Ip(ip) => ServerName::IpAddress(IpAddr::to_owned(ip).into()),
        Host::Name(name) => ServerName::try_from(name.as_str().to_owned())
            .map_err(|error| WsError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?,
    };
    TlsConnector::from(config).connect(name, far).await.map_err(|error| in_words(error, url))
}

/// A failure of TLS with its mend.
fn in_words(error: io::Error, url: &WsUrl) -> WsError {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::InvalidCertificate(cause)) => {
            WsError::Certificate { host: url.target().host().to_string(), cause: cause.to_string() }
        }
        _ => {
            let words = format!(
                "{error}: check host and port of the address, and write ws:// where it speaks no TLS"
            );
            WsError::Tls(io::Error::new(error.kind(), words))
        }
    }
}

/// TLS with the certificates that this machine trusts. They are read once.
async fn trusted() -> Result<Arc<ClientConfig>, WsError> {
    static TRUSTED: OnceCell<Arc<ClientConfig>> = OnceCell::const_new();

    let read = async || {
        // Some hundred files, so not on a thread that others wait for.
        let read = tokio::task::spawn_blocking(read_trusted).await;
        read.unwrap_or_else(|error| Err(WsError::Tls(io::Error::other(error))))
    };
    TRUSTED.get_or_try_init(read).await.cloned()
}

fn read_trusted() -> Result<Arc<ClientConfig>, WsError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        let words = format!("this machine has no certificates that it trusts{why}: install ca-certificates");
        return Err(WsError::Tls(io::Error::new(io::ErrorKind::NotFound, words)));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| WsError::Tls(io::Error::other(error)))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn request(url: &WsUrl, protocol: Option<&str>, key: &str) -> Result<Request<Empty<Bytes>>, WsError> {
    let mut request = Request::get(url.path())
        .header(header::HOST, url.host_header())
        .header(header::UPGRADE, "websocket")
        .header(header::CONNECTION, "Upgrade")
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::SEC_WEBSOCKET_KEY, key)
        .header(header::SEC_WEBSOCKET_VERSION, VERSION);
    if let Some(protocol) = protocol {
        request = request.header(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    request.body(Empty::new()).map_err(|error| WsError::Answer(format!("it cannot be asked: {error}")))
}

/// Sends a request, and reads the head of its answer: that, the stream, and what came behind the head.
async fn exchange<S: Side>(
    far: S,
    request: Request<Empty<Bytes>>,
) -> Result<(Response<()>, S, Bytes), WsError> {
    let (mut sender, mut http) = http1::Builder::new()
        .title_case_headers(true)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .handshake(TokioIo::new(far))
        .await
        .map_err(WsError::NotHttp)?;
    let response = {
        let mut answer = std::pin::pin!(sender.send_request(request));
        let mut http = std::pin::pin!(poll_fn(|cx| http.poll_without_shutdown(cx)));
        tokio::select! {
            answer = &mut answer => {
                let answer = answer.map_err(WsError::NotHttp)?;
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    http.await.map_err(WsError::NotHttp)?;
                }
                answer
            }
            ended = &mut http => {
                // It is over when the answer is there, or why there is none.
                let answer = answer.await.map_err(WsError::NotHttp)?;
                ended.map_err(WsError::NotHttp)?;
                answer
            }
        }
    };
    let parts = http.into_parts();
    Ok((response.map(drop), parts.io.into_inner(), parts.read_buf))
}

/// Whether an answer is the one that a WebSocket begins with.
fn judge(response: &Response<()>, protocol: Option<&str>, key: &str) -> Result<(), WsError> {
    let headers = response.headers();
    let status = response.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let place = headers.get(header::LOCATION).and_then(|place| place.to_str().ok());
        return Err(WsError::Answer(match place {
            Some(place) if status.is_redirection() => {
                format!("status {status}: take the address {} instead", place.escape_debug())
            }
            _ => format!("status {status}: check host, port and path of the address"),
        }));
    }
    let wrong = |words: &str| Err(WsError::Answer(words.to_owned()));
    if !names(headers, header::UPGRADE, "websocket") || !names(headers, header::CONNECTION, "upgrade") {
        return wrong("it changes to something else than WebSocket");
    }
    let accepted = the_only(headers, header::SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
    if accepted != Some(accept_of(key).as_bytes()) {
        return wrong("its key is not the one to this request: something in between answers from memory");
    }
    if headers.contains_key(header::SEC_WEBSOCKET_EXTENSIONS) {
        return wrong("it takes an extension that was not asked for");
    }
    let taken = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter().count();
    let asked = the_only(headers, header::SEC_WEBSOCKET_PROTOCOL).and_then(|it| it.to_str().ok());
    match (protocol, taken) {
        (None, 0) => Ok(()),
        (Some(protocol), 1) if asked == Some(protocol) => Ok(()),
        (None, _) => wrong("it takes a subprotocol that was not asked for"),
        (Some(protocol), _) => {
            Err(WsError::Answer(format!("it does not take the subprotocol {protocol}: ask for another")))
        }
    }
}
