//! [`StreamToWs`].

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

use super::connect::{Connect, connect};
use super::copy::{Copied, Copying};
use super::side::{Own, reset_known};
use super::upgrade::is_token;
use super::{WsConfig, WsError, WsUrl};
use crate::destination::Target;
use crate::dial::Dialer;
use crate::rules::Rules;

/// A plain stream that is carried to a WebSocket server: a program that speaks plain TCP reaches it so.
///
/// What becomes of messages, ends and resets stands [here](crate::ws). A TCP stream and a connection of a session can be
/// reset; any other is dropped instead, unless [`reset_by`](Self::reset_by) says how.
///
/// ```
/// use gkd_proxy::ws::{StreamToWs, WsToStream};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // With streams in memory in between, one maps what the other maps back.
/// let (mut program, to_ws) = tokio::io::duplex(1024);
/// let (client, server) = tokio::io::duplex(1024);
/// let (from_ws, mut destination) = tokio::io::duplex(1024);
/// tokio::spawn(StreamToWs::over(to_ws, client, "ws://name.example/path").copy_bidirectional());
/// tokio::spawn(WsToStream::over(server, from_ws).copy_bidirectional());
///
/// program.write_all(b"hello").await?;
/// let mut read = [0; 5];
/// destination.read_exact(&mut read).await?;
/// assert_eq!(&read, b"hello");
/// # Ok(())
/// # }
/// ```
#[must_use = "it does nothing before copy_bidirectional"]
pub struct StreamToWs<S, F = TcpStream> {
    io: Own<S>,
    far: Option<Own<F>>,
    url: String,
    protocol: Option<String>,
    tls: Option<Arc<ClientConfig>>,
    config: WsConfig,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> StreamToWs<S> {
    /// Between `io` and the WebSocket server at `url` (`ws://` or `wss://`), which is dialled.
    pub fn new(io: S, url: impl fmt::Display) -> Self {
        Self::between(io, None, url)
    }
}

impl<S, F> StreamToWs<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    /// Between `io` and the WebSocket server that is at the other end of `far`, such as a connection of a tunnel. Of `url`
    /// only the request and TLS are made.
    pub fn over(io: S, far: F, url: impl fmt::Display) -> Self {
        Self::between(io, Some(far), url)
    }

    fn between(io: S, far: Option<F>, url: impl fmt::Display) -> Self {
        Self {
            io: Own::new(io, reset_known).waiting(true),
            far: far.map(|stream| Own::new(stream, reset_known)),
            url: url.to_string(),
            protocol: None,
            tls: None,
            config: WsConfig::default(),
        }
    }

    /// The same with another configuration.
    pub fn config(mut self, config: WsConfig) -> Self {
        self.config = config;
        self
    }

    /// The same that asks for a subprotocol, and ends where the server does not take it.
    pub fn subprotocol(mut self, protocol: impl Into<String>) -> Self {
        self.protocol = Some(protocol.into());
        self
    }

    /// The same with another TLS for `wss` than that with the certificates which this machine trusts.
    pub fn tls(mut self, tls: Arc<ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The same that resets the plain stream so, now or for its coming drop.
    pub fn reset_by(mut self, reset: fn(&S)) -> Self {
        self.io = self.io.reset_by(reset);
        self
    }

    /// Opens the WebSocket, and carries bytes until both directions have ended.
    ///
    /// Dropping the future resets both streams; while the WebSocket is not open, the plain one alone.
    ///
    /// # Errors
    /// No WebSocket was opened, or it did not end in order; then the plain stream was reset.
    pub async fn copy_bidirectional(self) -> Result<Copied, WsError> {
        let Self { io, far, url, protocol, tls, config } = self;
        let opened = async {
            let url: WsUrl = url.parse()?;
            if let Some(protocol) = protocol.as_deref().filter(|it| !is_token(it)) {
                return Err(WsError::Subprotocol(protocol.into()));
            }
            let asked = Connect { url: &url, protocol: protocol.as_deref(), tls };
            let ws = async {
                Ok(match far {
                    Some(far) => Opened::Over(connect(far, asked).await?),
                    None => {
                        let dialled = dial(url.target()).await?;
                        Opened::Dialled(connect(dialled, asked).await?)
                    }
                })
            };
            timeout(config.handshake_timeout, ws).await.unwrap_or(Err(WsError::TimedOut))
        };
        let (opened, io) = (opened.await?, io.waiting(false));
        let (messages, time) = (&config.messages, config.half_closed_for);
        match opened {
            Opened::Over(ws) => Copying::new(ws, io, Bytes::new(), messages, time).run().await,
            Opened::Dialled(ws) => Copying::new(ws, io, Bytes::new(), messages, time).run().await,
        }
    }
}

/// A WebSocket over what was given, or what was dialled.
enum Opened<O, D> {
    Over(O),
    Dialled(D),
}

/// Dials whatever whoever embeds this says.
pub(super) async fn dial(target: &Target) -> Result<Own<TcpStream>, WsError> {
    let anywhere: [IpNet; 2] = [Ipv4Net::default().into(), Ipv6Net::default().into()];
    let dialled = Dialer::new(Rules::allow(anywhere)).dial(target).await;
    let stream = dialled.map_err(|error| WsError::Dial(target.to_string().into(), error))?;
    Ok(Own::new(stream, reset_known))
}
