//! One request with an absolute URI, over a connection of its own: [`exchange`].

use std::sync::Arc;

use gkd_core::proto::packet::ResetCode;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::http::request;
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::task::JoinHandle;

use super::headers::remove_hop_by_hop;
use super::{MAX_HEAD, MAX_HEADERS, Refusal};
use crate::connection::{Opener, Stream, VirtualConnection};
use crate::destination::Destination;
use crate::outlet::Outlet;
use crate::passing::{Download, Exchange, Upload, expecting};

/// Sends the request to its target, and returns the head of the answer with a body that is still to come.
///
/// The request travels with the opening of the connection, and its body while the answer is awaited. A target
/// that is not reached is told as such, whatever the listener's `strict` says.
pub(super) async fn exchange<O: Opener>(
    request: Request<Incoming>,
    target: Destination,
    outlet: &Outlet<O>,
) -> Result<Response<Download<Fetched<O::Connection>>>, Refusal> {
    let (mut head, body) = request.into_parts();
    rewrite(&mut head)?;
    let connection = match outlet.open(&target).await {
        Ok(connection) => Arc::new(connection),
        Err(error) => return Err(Refusal::Reach(target, error)),
    };
    let http = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .handshake(TokioIo::new(Stream(Arc::clone(&connection))))
        .await;
    let (mut sender, http) = match http {
        Ok(http) => http,
        Err(error) => return Err(Refusal::Server(target, error)),
    };
    // A task of its own: a body still goes up while the program does not read what comes down.
    let driver = tokio::spawn(async move {
        if let Err(error) = http.await {
            tracing::debug!("a web server's HTTP failed: {}", error.to_string().escape_debug());
        }
    });
    let exchange = Fetched { connection, driver, complete: false };
    let answer = {
        let mut answer = std::pin::pin!(sender.send_request(expecting(head, Upload::new(body))));
        tokio::select! {
            biased;
            answer = &mut answer => match answer {
                Ok(answer) => Ok(answer),
                // Why it broke off: because the target was not reached, perhaps.
                Err(error) => match outlet.reached(&target, &exchange.connection).await {
                    Ok(()) => Err(Refusal::Server(target, error)),
                    Err(error) => Err(Refusal::Reach(target, error)),
                },
            },
            reached = outlet.reached(&target, &exchange.connection) => match reached {
                Ok(()) => answer.await.map_err(|error| Refusal::Server(target, error)),
                Err(error) => Err(Refusal::Reach(target, error)),
            },
        }
    };
    let (mut head, body) = answer?.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for it: `Upgrade` was removed.
        return Err(Refusal::Request(StatusCode::BAD_GATEWAY, "The server changed to another protocol."));
    }
    remove_hop_by_hop(&mut head.headers);
    // hyper writes the version that the program speaks.
    head.version = Version::HTTP_11;
    Ok(Response::from_parts(head, Download::new(body, None, exchange)))
}

/// Makes a request to a proxy one to the web server (RFC 9112, section 3.2.1 and 3.2.2).
fn rewrite(head: &mut request::Parts) -> Result<(), Refusal> {
    let Some(authority) = head.uri.authority() else {
        return Err(Refusal::bad(super::NOT_A_SITE));
    };
    // Without user and password, which some URIs hold.
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let host = HeaderValue::from_str(host).map_err(|_| Refusal::bad("The URI's host is none."))?;
    let path = head.uri.path_and_query().map(|path| path.as_str()).filter(|path| path.starts_with('/'));
    let uri = match path {
        Some(path) => path.parse(),
        None if head.method == Method::OPTIONS => "*".parse(),
        None => format!("/{}", head.uri.query().map(|query| format!("?{query}")).unwrap_or_default()).parse(),
    };
    head.uri = uri.map_err(|_: hyper::http::uri::InvalidUri| Refusal::bad("The URI's path is none."))?;
    head.version = Version::HTTP_11;
    remove_hop_by_hop(&mut head.headers);
    head.headers.insert(header::HOST, host);
    head.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    Ok(())
}

/// A running exchange with a web server; ends with its drop. One that is not complete is reset, so that
/// neither side takes a part for the whole.
pub(super) struct Fetched<C: VirtualConnection> {
    connection: Arc<C>,
    driver: JoinHandle<()>,
    complete: bool,
}

impl<C: VirtualConnection> Exchange for Fetched<C> {
    fn complete(&mut self) {
        self.complete = true;
    }
}

impl<C: VirtualConnection> Drop for Fetched<C> {
    fn drop(&mut self) {
        self.driver.abort();
        if !self.complete {
            self.connection.reset(ResetCode::STREAM);
        }
    }
}
