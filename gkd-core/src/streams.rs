//! A session over streams that the caller brings: `n` tunnels over `n` of them, one being a plain
//! multiplexer. Nothing is proved, redialled or encrypted; who needs that brings streams that do.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::try_join_all;
use gkd_proto::SessionConfig;
use gkd_proto::budget::Reservation;
use gkd_proto::handshake::{Hello, Reject, RejectCode};
use gkd_proto::id::{PeerId, SessionId, Side};
use gkd_proto::packet::CloseCode;
use tokio::io::{AsyncRead, AsyncWrite, BufWriter};

use crate::carrier::Carrier;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::handshake::{HandshakeError, read_hello, say_hello, say_welcome};
use crate::identity::new_session_id;
use crate::manager::{AcceptQueue, TunnelGuard, TunnelManager};
use crate::session::SessionHandle;
use crate::{runtime, tunnel};

/// How long the other end may take to say Hello, or to answer one.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What is gathered before it is written, on a stream that takes no vectored writes.
const GATHER: usize = 64 * 1024;

/// Nobody in particular: on streams that the caller brought no key is proved.
const NOBODY: PeerId = PeerId([0; 32]);

/// One end of a session over streams that the caller brought. Both ends open and both accept.
///
/// The session ends when the last of its streams has ended. Dropping this lets live connections end in the
/// background, then closes; [`close`](Self::close) waits for it.
pub struct Multiplexer {
    session: SessionHandle,
    accepted: Arc<AcceptQueue>,
}

/// The end that opens the session, over streams to one other end, which calls [`accept_streams`].
///
/// # Errors
/// A stream failed or ended, the other end does not answer within 10 s or refuses; none was given.
pub async fn connect_streams<S>(
    streams: impl IntoIterator<Item = S>,
    config: SessionConfig,
) -> Result<Multiplexer>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let carriers = carriers(streams)?;
    let accepted = Arc::new(AcceptQueue::default());
    let manager = manager(config, Side::Client, new_session_id(), &accepted)?;
    let multiplexer = Multiplexer::new(&manager, accepted);
    let up = carriers.into_iter().map(|carrier| connect(manager.clone(), carrier));
    multiplexer.run(limit(&manager.runtime, try_join_all(up)).await?)
}

/// The end that takes the session, over streams to one other end, which calls [`connect_streams`].
///
/// # Errors
/// A stream failed or ended, the other end says no Hello within 10 s, or Hellos of different sessions; none
/// was given.
pub async fn accept_streams<S>(
    streams: impl IntoIterator<Item = S>,
    config: SessionConfig,
) -> Result<Multiplexer>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let runtime = runtime::handle()?;
    let mut carriers = carriers(streams)?;
    let hellos = limit(&runtime, try_join_all(carriers.iter_mut().map(hear))).await?;
    let first = hellos.first().map(|(hello, _)| hello.session).ok_or(Error::Closed)?;
    let accepted = Arc::new(AcceptQueue::default());
    let manager = manager(config, Side::Server, first, &accepted)?;
    let multiplexer = Multiplexer::new(&manager, accepted);
    let up = carriers.into_iter().zip(hellos).enumerate().map(|(index, (carrier, (hello, front)))| {
        let manager = manager.clone();
        async move { welcome(manager, carrier, hello, front, index > 0).await }
    });
    multiplexer.run(limit(&runtime, try_join_all(up)).await?)
}

/// A tunnel that is up and does not run yet.
type Up = (TunnelGuard, Carrier, BytesMut);

fn carriers<S>(streams: impl IntoIterator<Item = S>) -> Result<Vec<Carrier>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let carriers: Vec<_> = streams
        .into_iter()
        .map(|stream| match stream.is_write_vectored() {
            true => Carrier::brought(stream, NOBODY),
            // Otherwise every header would be a write of its own.
            false => Carrier::brought(BufWriter::with_capacity(GATHER, stream), NOBODY),
        })
        .collect();
    if carriers.is_empty() {
        return Err(Error::Config("a session takes at least one stream: none was given".into()));
    }
    Ok(carriers)
}

fn manager(
    config: SessionConfig,
    side: Side,
    id: SessionId,
    accepted: &Arc<AcceptQueue>,
) -> Result<Arc<TunnelManager>> {
    let (config, runtime) = (Arc::new(config.clamped()), runtime::handle()?);
    let memory = Reservation::default();
    Ok(TunnelManager::spawn(config, side, id, NOBODY, memory, accepted.clone(), runtime))
}

async fn limit<T>(
    runtime: &tokio::runtime::Handle,
    handshakes: impl Future<Output = Result<T>>,
) -> Result<T> {
    let deadline = std::time::Instant::now() + HANDSHAKE;
    tokio::select! {
        result = handshakes => result,
        () = runtime::sleep_until(runtime, deadline) => Err(std::io::Error::new(
            std::io::ErrorKind::TimedOut,
            "the other end of the streams does not answer: is the same number of streams taken there?",
        ).into()),
    }
}

async fn connect(manager: Arc<TunnelManager>, mut carrier: Carrier) -> Result<Up> {
    let (hello, handle) = manager.add_dialled()?;
    let guard = manager.guard(handle);
    let (answer, front) = say_hello(&mut carrier, &hello).await.map_err(broken)?;
    let welcome = answer?;
    manager.welcomed(hello.tunnel, &welcome, None).map_err(|error| Error::Config(error.to_string()))?;
    Ok((guard, carrier, front))
}

async fn hear(carrier: &mut Carrier) -> Result<(Hello, BytesMut)> {
    read_hello(carrier).await.map_err(broken)
}

async fn welcome(
    manager: Arc<TunnelManager>,
    mut carrier: Carrier,
    hello: Hello,
    front: BytesMut,
    known: bool,
) -> Result<Up> {
    if hello.session != manager.id {
        return Err(Reject::new(RejectCode::NoSuchSession).into());
    }
    let (welcome, handle) = manager.add_accepted(&hello, known, None)?;
    let guard = manager.guard(handle);
    say_welcome(&mut carrier, &welcome).await?;
    Ok((guard, carrier, front))
}

fn broken(error: HandshakeError) -> Error {
    match error {
        HandshakeError::Io(error) => error.into(),
        other => Error::Config(other.to_string()),
    }
}

impl Multiplexer {
    fn new(manager: &Arc<TunnelManager>, accepted: Arc<AcceptQueue>) -> Self {
        Self { session: SessionHandle::new(manager.clone()), accepted }
    }

    /// Starts the tunnels, and what ends the session when the last of them has ended.
    fn run(self, tunnels: Vec<Up>) -> Result<Self> {
        let Some(manager) = tunnels.first().map(|(guard, ..)| guard.manager.clone()) else {
            return Err(Error::Closed);
        };
        let runtime = manager.runtime.clone();
        let mut running = tokio::task::JoinSet::new();
        for (guard, carrier, front) in tunnels {
            running.spawn_on(tunnel::run(guard, carrier, front), &runtime);
        }
        let accepted = self.accepted.clone();
        runtime.spawn(async move {
            while let Some(ended) = running.join_next().await {
                tracing::debug!(?ended, "a stream of the session ended");
            }
            manager.lose();
            accepted.close();
        });
        Ok(self)
    }

    /// The session, for its figures and its `open`.
    pub fn session(&self) -> &SessionHandle {
        &self.session
    }

    /// Opens a connection; see [`SessionHandle::open`].
    ///
    /// # Errors
    /// As there.
    pub async fn open(&self, destination: impl Into<Bytes>) -> Result<Connection> {
        Ok(self.session.open(destination).await?)
    }

    /// The next connection that the other end opened; `None` when the session has ended. Cancel safe.
    pub async fn accept(&self) -> Option<Connection> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// See [`accept`](Self::accept).
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<Connection>> {
        self.accepted.poll_accept(cx)
    }

    /// Lets live connections end, then ends the session; ready when the other end was told.
    pub async fn close(self) {
        self.session.wind_down(None, CloseCode::DONE, "").await;
    }
}

impl Drop for Multiplexer {
    fn drop(&mut self) {
        self.accepted.close();
        self.session.wind_down_in_background();
    }
}

impl fmt::Debug for Multiplexer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Multiplexer").field(&self.session).finish()
    }
}
