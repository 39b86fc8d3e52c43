//! [`WsToStream`].

use std::fmt;
use std::sync::OnceLock;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::accept::{Accept, Refusal, accept};
use super::copy::{Copied, Copying};
use super::side::{Own, reset_known};
use super::stream_to_ws::dial;
use super::{WsConfig, WsError};
use crate::destination::Target;
use crate::reach::ReachError;

/// A WebSocket client that is carried to a plain stream: a page in a browser reaches a plain TCP server so.
///
/// What becomes of messages, ends and resets stands [here](crate::ws). A TCP stream and a connection of a session can be
/// reset; any other is dropped instead, unless [`reset_by`](Self::reset_by) says how.
///
/// A page of any web site can open a WebSocket to any address that its browser reaches, 127.0.0.1 included: where what is
/// behind is not for everybody, [`accepting`](Self::accepting) says whose pages may come.
///
/// ```no_run
/// use gkd_proxy::ws::WsToStream;
/// use tokio::net::TcpListener;
///
/// # async fn example() -> std::io::Result<()> {
/// let listener = TcpListener::bind("127.0.0.1:8081").await?;
/// loop {
///     let (io, _) = listener.accept().await?;
///     tokio::spawn(WsToStream::new(io, "127.0.0.1:8082").copy_bidirectional());
/// }
/// # }
/// ```
#[must_use = "it does nothing before copy_bidirectional"]
pub struct WsToStream<S, F = TcpStream> {
    io: Own<S>,
    to: To<F>,
    accept: Accept,
    config: WsConfig,
}

/// Where it leads.
enum To<F> {
    Dial(String),
    Over(Own<F>),
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> WsToStream<S> {
    /// Between the WebSocket client that speaks on `io` and the plain server at `addr` (HOST:PORT), which is dialled when the
    /// client asks for a WebSocket.
    pub fn new(io: S, addr: impl fmt::Display) -> Self {
        Self::between(io, To::Dial(addr.to_string()))
    }
}

impl<S, F> WsToStream<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Between the WebSocket client that speaks on `io` and the plain stream `far`, such as a connection of a tunnel.
    pub fn over(io: S, far: F) -> Self {
        Self::between(io, To::Over(Own::new(far, reset_known).waiting(true)))
    }

    fn between(io: S, to: To<F>) -> Self {
        let io = Own::new(io, reset_known);
        Self { io, to, accept: Accept::default(), config: WsConfig::default() }
    }

    /// The same with another configuration.
    pub fn config(mut self, config: WsConfig) -> Self {
        self.config = config;
        self
    }

    /// The same that takes these upgrades alone.
    pub fn accepting(mut self, accept: Accept) -> Self {
        self.accept = accept;
        self
    }

    /// The same that resets the plain stream so, now or for its coming drop.
    pub fn reset_by(mut self, reset: fn(&F)) -> Self {
        self.to = match self.to {
            To::Over(far) => To::Over(far.reset_by(reset)),
            dial => dial,
        };
        self
    }

    /// Answers the opening handshake, and carries bytes until both directions have ended.
    ///
    /// A plain server that is not reached is told to the client in the answer, with status 502 or 504. Dropping the future
    /// resets both streams; ahead of the answer, the plain one alone.
    ///
    /// # Errors
    /// No WebSocket was opened, or it did not end in order; then the plain stream was reset.
    pub async fn copy_bidirectional(self) -> Result<Copied, WsError> {
        let Self { io, to, accept: taken, config } = self;
        let overdue = async {
            sleep(config.handshake_timeout).await;
            WsError::TimedOut
        };
        let (messages, time) = (&config.messages, config.half_closed_for);
        match to {
            To::Over(plain) => {
                let (ws, ()) = accept(io, &taken, overdue, || async { Ok(()) }).await?;
                Copying::new(ws, plain.waiting(false), Bytes::new(), messages, time).run().await
            }
            To::Dial(address) => {
                let target: Target = address.parse()?;
                let failed = OnceLock::new();
                let reach = || async {
                    dial(&target).await.map_err(|error| {
                        let refusal = match &error {
                            WsError::Dial(to, failure) => {
                                Refusal::not_reached(to, &ReachError::Dial(failure.error))
                            }
                            other => Refusal::not_reached(&other.to_string(), &ReachError::NoAnswer),
                        };
                        // It is asked once.
                        let _ = failed.set(error);
                        refusal
                    })
                };
                let accepted = accept(io, &taken, overdue, reach).await;
                let (ws, plain) = accepted.map_err(|error| failed.into_inner().unwrap_or(error))?;
                Copying::new(ws, plain, Bytes::new(), messages, time).run().await
            }
        }
    }
}
