//! The front of HTTP services ([`Front`]): ports, TLS, HTTP/1.1 and HTTP/2 of strangers, and the limits that keep one of
//! them from being in the way of the others. It knows no service: whatever it has judged goes to an [`Answer`].
//!
//! What an [`Answer`] may rely on, of every request:
//!
//! * the URI is a path with its query (`*` of OPTIONS; of CONNECT the path, if any), and begins with `/`;
//! * there is one `Host`, which is a host with or without a port, whatever the version; an absolute URI and an `:authority`
//!   were held against it;
//! * the body was framed beyond doubt, is within its limit, and fails when its sender falls silent. Then the front answers
//!   by itself, and drops the future of [`Answer::answer`];
//! * `hyper::upgrade::on` works where the request asks for an upgrade.

use std::sync::Arc;

use futures::future::BoxFuture;
use hyper::{Request, Response};

use super::{ServiceBody, Visit};

/// What answers the requests of a front.
pub trait Answer: Send + Sync + 'static {
    /// Answers one. Dropping the future gives it up.
    fn answer(self: Arc<Self>, request: Request<ServiceBody>, visit: Visit) -> BoxFuture<'static, Answered>;

    /// Whether a CONNECT of HTTP/2 that names a protocol (RFC 8441) is understood: without it a browser makes an HTTP/1.1
    /// connection for a WebSocket.
    fn extended_connect(&self) -> bool {
        false
    }
}

/// An answer, and what the access log says of it.
pub struct Answered {
    /// The answer. An error of its body breaks it off in a way that the client notices.
    pub response: Response<ServiceBody>,
    /// The name of the service, if there is one for the request.
    pub service: Option<Arc<str>>,
    /// The name of the target that answered, or was tried last.
    pub target: Option<Arc<str>>,
}

impl From<Response<ServiceBody>> for Answered {
    fn from(response: Response<ServiceBody>) -> Self {
        Self { response, service: None, target: None }
    }
}
