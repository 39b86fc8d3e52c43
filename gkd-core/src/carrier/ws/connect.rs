//! The client's handshake (RFC 6455 §4.1): asks a web server for a WebSocket, and takes nothing else for one.

use std::error::Error;
use std::io;
use std::pin::pin;

use bytes::Bytes;
use futures::future::{Either, select};
use gkd_proto::id::Side;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{
    CONNECTION, HOST, LOCATION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    MAX_HEAD, NAME, Pin, Stream, USER_AGENT, VERSION, accept_of, asks_for_upgrade, new_key, only, outer,
};
use crate::carrier::error::server_at;
use crate::carrier::{CarrierError, CarrierKind, Wire};
use crate::link::{Address, Host, WebHost};

/// As much of what a server says is shown.
const SHOWN: usize = 200;

/// What a link says of the web server in front, beside its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The path with its leading `/`; empty is `/`.
    pub path: String,
    /// Who is asked for, where that is another than the one that is dialled: a name behind a content delivery
    /// network's.
    pub host: Option<WebHost>,
    /// The key of the web server's certificate.
    pub pin: Option<Pin>,
}

/// Who is asked for a WebSocket, and for which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host that `Host` names, and that the certificate has to be for.
    pub host: Host,
    /// The port that `Host` names.
    pub port: u16,
    /// The path, with its leading `/`.
    pub path: String,
    /// What the certificate is judged by instead of the system's roots.
    pub pin: Option<Pin>,
}

impl Target {
    /// What to ask of the server at this address, of which this port is dialled.
    pub fn new(address: &Address, port: u16, options: &Options) -> Self {
        let (host, port) = match &options.host {
            Some(web) => (web.host.clone(), web.port.unwrap_or(port)),
            None => (address.host.clone(), port),
        };
        let path = if options.path.is_empty() { "/".to_owned() } else { options.path.clone() };
        Self { host, port, path, pin: options.pin }
    }

    /// As `Host` has it: the usual port of the scheme goes without saying.
    fn authority(&self, kind: CarrierKind) -> String {
        match (kind, self.port) {
            (CarrierKind::Wss, 443) | (CarrierKind::Ws, 80) => self.host.to_string(),
            (_, port) => format!("{}:{port}", self.host),
        }
    }
}

/// Client: the web server's TLS if `kind` has one, and the WebSocket over it. No deadline of its own; not cancellation
/// safe.
///
/// # Errors
/// What the web server is or does, and whatever may befall a connection.
pub(in crate::carrier) async fn connect(
    wire: Wire,
    kind: CarrierKind,
    target: &Target,
) -> Result<Wire, CarrierError> {
    let server = server_at(wire.peer_addr());
    let wire = match kind {
        CarrierKind::Wss => outer::connect(wire, target, &server).await?,
        _ => wire,
    };
    upgrade(wire, kind, target, server).await
}

/// The WebSocket handshake alone.
pub(super) async fn upgrade(
    wire: Wire,
    kind: CarrierKind,
    target: &Target,
    server: String,
) -> Result<Wire, CarrierError> {
    let key = new_key();
    let request = Request::builder()
        .method(Method::GET)
        .uri(&target.path)
        .header(HOST, target.authority(kind))
        .header(UPGRADE, NAME)
        .header(CONNECTION, "Upgrade")
        .header(hyper::header::USER_AGENT, USER_AGENT)
        .header(SEC_WEBSOCKET_KEY, &key)
        .header(SEC_WEBSOCKET_VERSION, VERSION)
        .body(Empty::<Bytes>::new())
        .map_err(|error| CarrierError::NotHttp { server: server.clone(), cause: error.to_string() })?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD).title_case_headers(true);
    let failed = |error: hyper::Error| in_words(&error, &server);
    let (mut sender, connection) = builder.handshake(TokioIo::new(wire)).await.map_err(failed)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(failed)?;
        check(&response, &key, &target.path, &server)?;
        hyper::upgrade::on(response).await.map_err(failed)
    };
    // Whichever ends first: the connection does when it was handed over, and when it failed, which the exchange tells
    // as well.
    let upgraded = match select(pin!(exchange), pin!(connection.with_upgrades())).await {
        Either::Left((upgraded, _)) => upgraded?,
        Either::Right((_, exchange)) => exchange.await?,
    };
    taken_over::<Wire>(upgraded, Side::Client)
}

/// The connection as a WebSocket, with what was read behind the handshake.
pub(super) fn taken_over<I>(upgraded: Upgraded, side: Side) -> Result<Wire, CarrierError>
where
    I: AsyncRead + AsyncWrite + Into<Wire> + Unpin + 'static,
{
    let parts = upgraded
        .downcast::<TokioIo<I>>()
        .map_err(|_| CarrierError::Io(io::Error::other("the HTTP library gives another connection back")))?;
    let mut wire: Wire = parts.io.into_inner().into();
    wire.put_back(parts.read_buf);
    Ok(Wire::websocket(Stream::new(wire, side)))
}

/// §4.1: what has to be in the answer, and what must not.
fn check(response: &Response<Incoming>, key: &str, path: &str, server: &str) -> Result<(), CarrierError> {
    let (headers, server) = (response.headers(), server.to_owned());
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let path = path.to_owned();
        let to = headers.get(LOCATION).filter(|_| response.status().is_redirection());
        return Err(match to {
            Some(to) => CarrierError::Redirected { server, path, to: shown(to.as_bytes()) },
            None => CarrierError::NoUpgrade { server, path, status: response.status() },
        });
    }
    let wrong = |cause: &str| Err(CarrierError::BadUpgrade { server, cause: cause.to_owned() });
    if !only(headers, &UPGRADE).is_some_and(|to| to.eq_ignore_ascii_case(NAME)) || !asks_for_upgrade(headers)
    {
        return wrong("it does not say that it goes on with WebSocket");
    }
    if only(headers, &SEC_WEBSOCKET_ACCEPT) != Some(&accept_of(key)) {
        return wrong("its Sec-WebSocket-Accept is not the answer to the key that it was sent");
    }
    if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) || headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        return wrong("it names an extension or a protocol that it was not asked for");
    }
    Ok(())
}

fn in_words(error: &hyper::Error, server: &str) -> CarrierError {
    let below = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    // One that speaks TLS may leave out to say that it ends.
    let is_cut = below.is_some_and(|below| below.kind() == io::ErrorKind::UnexpectedEof);
    if is_cut || error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        let cause = "it closed the connection without an answer".to_owned();
        return CarrierError::NotHttp { server: server.to_owned(), cause };
    }
    if error.is_parse() {
        return CarrierError::NotHttp { server: server.to_owned(), cause: error.to_string() };
    }
    match below {
        Some(below) => io::Error::new(below.kind(), below.to_string()).into(),
        None => CarrierError::NotHttp { server: server.to_owned(), cause: error.to_string() },
    }
}

/// A server's words, short and without escape sequences.
fn shown(words: &[u8]) -> String {
    let words = String::from_utf8_lossy(&words[..words.len().min(SHOWN)]);
    words.escape_debug().to_string()
}
