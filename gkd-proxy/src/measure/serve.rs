//! The end that sends, swallows or echoes: [`Measuring`].

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gkd_core::fair_limit::{FairLimit, FairPlace};
use gkd_core::proto::id::PeerId;
use gkd_core::proto::packet::{FULL_PAYLOAD, ResetCode};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, timeout, timeout_at};

use super::{ACCEPTED, Refusal, Report, Request, Task};
use crate::connection::VirtualConnection;
use crate::content::Content;
use crate::relay::{End, Relayed};

/// Measurements that run at a time, of all peers. One command has two, its load and its echo.
const MOST: usize = 64;

/// How long a request may take to come. It is sent together with the Connect.
const REQUEST_TIME: Duration = Duration::from_secs(10);

/// How long the opener may take for what is on its way to it at the end.
const CLOSE: Duration = Duration::from_secs(10);

/// What is written, and read, at a time.
const PIECE: usize = 4 * FULL_PAYLOAD;

/// How often it is reported how much was swallowed.
const REPORT: Duration = Duration::from_millis(50);

/// Sends, swallows and echoes for whoever opens a connection for it.
pub(crate) struct Measuring {
    limit: Arc<FairLimit>,
    /// What is sent, again and again.
    piece: Bytes,
}

/// Why a measurement did not begin. The other end was told, unless it was it that said nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// As many run as may, or as this peer may have of them.
    #[error("too many run already")]
    Busy,
    /// The request did not come in time.
    #[error("it did not say in time what it wants")]
    Late,
    /// The request ended early.
    #[error("its request was cut short: {0}")]
    Cut(#[from] io::Error),
    /// The request is not met.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl Measuring {
    pub(crate) fn new() -> Self {
        Self { limit: FairLimit::new(MOST), piece: Content::new(0).next(PIECE) }
    }

    /// Room for one more of this peer, if there is.
    pub(crate) fn place(&self, peer: PeerId) -> Option<FairPlace> {
        self.limit.take(peer)
    }

    /// Reads the request, answers it, and does what it asks for. Ends within the time that it names, and what its
    /// coming and its end may take.
    pub(crate) async fn serve<C: VirtualConnection>(&self, connection: &C) -> Result<Relayed, MeasureError> {
        let mut request = [0; Request::LEN];
        let read = timeout(REQUEST_TIME, read_exact(connection, &mut request)).await;
        read.unwrap_or_else(|_| {
            connection.reset(ResetCode::APPLICATION);
            Err(MeasureError::Late)
        })?;
        let request = match Request::decode(&request) {
            Ok(request) => request,
            Err(refusal) => {
                answer(connection, refusal as u8).await?;
                finish(connection).await;
                return Err(refusal.into());
            }
        };
        let mut run = Run { connection, deadline: Instant::now() + request.time, up: 0, down: 0 };
        let end = match run.obey(&request, &self.piece).await {
            Ok(()) => {
                finish(connection).await;
                End::Finished
            }
            // The opener has seen enough.
            Err(error) => End::Connection(error),
        };
        Ok(Relayed { up: run.up, down: run.down, end })
    }
}

/// A request that is being met.
struct Run<'a, C> {
    connection: &'a C,
    deadline: Instant,
    /// Bytes to the connection, and from it.
    up: u64,
    down: u64,
}

impl<C: VirtualConnection> Run<'_, C> {
    async fn obey(&mut self, request: &Request, piece: &Bytes) -> io::Result<()> {
        answer(self.connection, ACCEPTED).await?;
        let deadline = self.deadline;
        let done = match request.task {
            Task::Send => timeout_at(deadline, self.send(request.bytes, piece)).await,
            Task::Echo => timeout_at(deadline, self.echo(request.bytes)).await,
            // It has something to say when the time is over.
            Task::Swallow => timeout_at(deadline + CLOSE, self.swallow(request.bytes)).await,
        };
        // That the time is over is an end as good as any.
        done.unwrap_or(Ok(()))
    }

    async fn send(&mut self, bytes: u64, piece: &Bytes) -> io::Result<()> {
        while self.up < bytes {
            let count = (bytes - self.up).min(piece.len() as u64);
            write(self.connection, piece.slice(..count as usize)).await?;
            self.up += count;
            consume_budget().await;
        }
        Ok(())
    }

    async fn echo(&mut self, bytes: u64) -> io::Result<()> {
        while let Some(chunks) = self.read(bytes).await? {
            for chunk in chunks {
                let count = chunk.len() as u64;
                write(self.connection, chunk).await?;
                self.up += count;
            }
        }
        Ok(())
    }

    async fn swallow(&mut self, bytes: u64) -> io::Result<()> {
        let (began, mut reported) = (Instant::now(), Instant::now());
        while let Ok(read) = timeout_at(self.deadline, self.read(bytes)).await {
            let over = read?.is_none();
            let now = Instant::now();
            // A peer whose bytes are always there would be read for ever.
            if over || now >= self.deadline {
                break;
            }
            if now - reported >= REPORT {
                reported = now;
                self.report(began).await?;
            }
        }
        self.report(began).await
    }

    /// The reports of the longest measurement fit into what a connection accepts at once: an opener that reads none
    /// holds nothing up.
    async fn report(&mut self, began: Instant) -> io::Result<()> {
        let report = Report { elapsed: began.elapsed(), bytes: self.down };
        write(self.connection, Bytes::copy_from_slice(&report.encode())).await?;
        self.up += Report::LEN as u64;
        Ok(())
    }

    /// What has arrived, of `bytes` in all; none at the end of them, or of what the opener sends.
    async fn read(&mut self, bytes: u64) -> io::Result<Option<Vec<Bytes>>> {
        let most = (bytes - self.down).min(PIECE as u64) as usize;
        if most == 0 {
            return Ok(None);
        }
        consume_budget().await;
        let chunks = read(self.connection, most).await?;
        self.down += chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        Ok((!chunks.is_empty()).then_some(chunks))
    }
}

/// The next bytes, at most so many; none at the end.
async fn read<C: VirtualConnection>(connection: &C, most: usize) -> io::Result<Vec<Bytes>> {
    let mut chunks = Vec::new();
    poll_fn(|cx| connection.poll_read_batch(cx, most, &mut chunks)).await?;
    Ok(chunks)
}

async fn read_exact<C: VirtualConnection>(connection: &C, mut out: &mut [u8]) -> Result<(), MeasureError> {
    while !out.is_empty() {
        let chunks = read(connection, out.len()).await?;
        if chunks.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        for chunk in chunks {
            let (front, rest) = out.split_at_mut(chunk.len());
            front.copy_from_slice(&chunk);
            out = rest;
        }
    }
    Ok(())
}

async fn write<C: VirtualConnection>(connection: &C, mut bytes: Bytes) -> io::Result<()> {
    while !bytes.is_empty() {
        poll_fn(|cx| connection.poll_write_bytes(cx, &mut bytes)).await?;
    }
    Ok(())
}

/// The first byte of all.
async fn answer<C: VirtualConnection>(connection: &C, answer: u8) -> io::Result<()> {
    let written = timeout(CLOSE, write(connection, Bytes::copy_from_slice(&[answer]))).await;
    written.unwrap_or(Err(io::ErrorKind::TimedOut.into()))
}

/// Ends the direction from here. Who does not take what is on its way is not waited for.
async fn finish<C: VirtualConnection>(connection: &C) {
    let shutdown = poll_fn(|cx| connection.poll_shutdown(cx));
    if !matches!(timeout(CLOSE, shutdown).await, Ok(Ok(()))) {
        connection.reset(ResetCode::APPLICATION);
    }
}
