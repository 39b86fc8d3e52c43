//! Asks a target from time to time whether it is well ([`Probe`]): a GET over a connection of its own, so that one which
//! takes no more connections is found out. A status of 2xx or 3xx is well. What follows from it is the balancer's.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::header::{self, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Request, StatusCode, Uri};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::config::HealthCheck;
use super::upstream::{Blame, Failure, Opened, Protocol, Upstream, http1_over, http2_over};
use crate::proxy_header;

/// The host that is asked for where the target's own name is not known.
const NAMELESS: HeaderValue = HeaderValue::from_static("localhost");

/// Asks one target.
pub(super) struct Probe {
    health: HealthCheck,
    upstream: Arc<Upstream>,
    /// Whether its connections begin with a PROXY header.
    send_proxy: bool,
}

impl Probe {
    pub(super) fn new(health: HealthCheck, upstream: Arc<Upstream>, send_proxy: bool) -> Self {
        Self { health, upstream, send_proxy }
    }

    /// Asks until `tell`, which is told whether the target is well, says that nobody wants to know; or until it is dropped.
    pub(super) fn start(self, tell: impl Fn(bool) -> bool + Send + 'static) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(async move {
            // Not all of the targets at the same time.
            sleep(self.health.interval.mul_f32(chance() / 4.0)).await;
            let mut was_well = true;
            loop {
                let found = self.ask().await;
                if found.as_ref().is_err_and(|failure| self.says_nothing(failure)) {
                    sleep(self.pause()).await;
                    continue;
                }
                if let Err(failure) = &found
                    && was_well
                {
                    tracing::info!(
                        "the target {} does not pass its health check: {}",
                        self.upstream.name(),
                        failure.cause.escape_debug()
                    );
                }
                was_well = found.is_ok();
                if !tell(was_well) {
                    return;
                }
                sleep(self.pause()).await;
            }
        }))
    }

    /// Whether a failure says nothing of the target: there was no way to it, or something was wanting here.
    fn says_nothing(&self, failure: &Failure) -> bool {
        failure.blame != Blame::Target || !self.upstream.is_open()
    }

    fn pause(&self) -> Duration {
        self.health.interval.mul_f32(0.9 + chance() / 5.0)
    }

    /// Asks once, within the time that a check may take.
    pub(super) async fn ask(&self) -> Result<(), Failure> {
        let within = self.health.timeout;
        let silent = || format!("no answer within {} s", within.as_secs_f32());
        let asked = timeout(within, self.status(within)).await;
        let status = asked.unwrap_or_else(|_| Err(Failure::new(StatusCode::GATEWAY_TIMEOUT, silent())))?;
        match status.is_success() || status.is_redirection() {
            true => Ok(()),
            false => Err(Failure::new(StatusCode::BAD_GATEWAY, format!("it answered {}", status.as_u16()))),
        }
    }

    async fn status(&self, within: Duration) -> Result<StatusCode, Failure> {
        let proxy_header = self.send_proxy.then(proxy_header::of_ourselves);
        let io = self.upstream.dial(&Opened { within, proxy_header, repeatable: true }).await?;
        let host = self.upstream.authority().cloned().unwrap_or(NAMELESS);
        let request = self.request(&host)?;
        // The connection ends with its task, whatever it still has to say.
        let answer = match self.upstream.protocol() {
            Protocol::Http1 => {
                let (mut sender, _driver) = http1_over(io).await?;
                sender.send_request(request).await?
            }
            Protocol::Http2 => {
                let (mut sender, _driver) = http2_over(io, &Arc::default()).await?;
                sender.send_request(request).await?
            }
        };
        Ok(answer.status())
    }

    fn request(&self, host: &HeaderValue) -> Result<Request<Empty<Bytes>>, Failure> {
        let wrong = |error: hyper::http::Error| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, error);
        let path = self.health.path.parse::<PathAndQuery>().map_err(|error| wrong(error.into()))?;
        let mut request = match self.upstream.protocol() {
            Protocol::Http1 => {
                let mut request = Request::new(Empty::new());
                *request.uri_mut() = path.into();
                request.headers_mut().insert(header::HOST, host.clone());
                request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                request
            }
            Protocol::Http2 => {
                let uri = Uri::builder().scheme("http").authority(host.as_bytes()).path_and_query(path);
                let mut request = Request::new(Empty::new());
                *request.uri_mut() = uri.build().map_err(wrong)?;
                request
            }
        };
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        Ok(request)
    }
}

/// Some number from 0 to 1.
fn chance() -> f32 {
    (random() >> 40) as f32 / (1u64 << 24) as f32
}

/// Some number, each time another one; good for a choice, not for a key.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(())
}
