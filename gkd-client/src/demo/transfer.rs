//! One checked transfer: the client asks for a seed and a number of bytes, the server sends them and their
//! SHA-256, the client makes its own of what arrives.
//!
//! The request is 16 bytes, two big-endian numbers; the answer is the content and 32 bytes of digest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gkd_core::{Client, Connection, Server};
use gkd_proxy::content::Content;
use gkd_proxy::program::Failure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::digest::{DIGEST_LEN, Hasher, hex};
use super::line::Line;
use crate::progress::{Progress, Size};

/// How much content the server makes at a time; a multiple of eight.
const PIECE: usize = 64 * 1024;

/// How much the client reads at a time.
const READ: usize = 256 * 1024;

/// No byte for so long means that the transfer hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a transfer was like.
#[derive(Debug)]
pub(super) struct Outcome {
    /// How much content.
    pub(super) size: Size,
    /// From the request to the last byte.
    pub(super) elapsed: Duration,
    /// Data packets that arrived, and those of them that came behind a missing one.
    pub(super) packets: u64,
    pub(super) out_of_order: u64,
    /// The content's SHA-256, alike at both ends.
    pub(super) digest: String,
}

impl Outcome {
    /// Bytes per second.
    pub(super) fn rate(&self) -> f64 {
        self.size.0 as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

/// Serves transfers until the server ends.
pub(super) async fn serve(server: Arc<Server>) {
    while let Some((connection, _)) = server.accept().await {
        tokio::spawn(async move {
            if let Err(error) = answer(&connection).await {
                tracing::warn!(%error, "a transfer broke off");
            }
        });
    }
}

async fn answer(mut connection: &Connection) -> std::io::Result<()> {
    let (seed, mut left) = (connection.read_u64().await?, connection.read_u64().await?);
    let (mut content, mut hasher) = (Content::new(seed), Hasher::new());
    while left > 0 {
        let piece = content.next(left.min(PIECE as u64) as usize);
        left -= piece.len() as u64;
        hasher.add(&piece);
        connection.write_bytes(piece).await?;
    }
    connection.write_all(&hasher.finish()).await?;
    connection.shutdown().await
}

/// Fetches `size` bytes; half-way one tunnel is cut where `cut` names the line.
pub(super) async fn download(
    client: &Client,
    size: Size,
    seed: u64,
    mut progress: Progress,
    mut cut: Option<&Line>,
) -> Result<Outcome, Failure> {
    let before = client.stats();
    let start = Instant::now();
    let mut connection = client.get_connection().await.map_err(Failure::bug)?;
    let request = async {
        connection.write_u64(seed).await?;
        connection.write_u64(size.0).await
    };
    request.await.map_err(broken)?;
    let (mut hasher, mut done) = (Hasher::new(), 0);
    while done < size.0 {
        let most = (size.0 - done).min(READ as u64) as usize;
        let Some(bytes) = patiently(connection.read_bytes(most)).await? else {
            return Err(Failure::bug(format_args!("the content ended after {done} of {} bytes", size.0)));
        };
        hasher.add(&bytes);
        done += bytes.len() as u64;
        progress.at(done);
        if let Some(line) = cut.take_if(|_| done >= size.0 / 2) {
            line.cut();
            progress.note(&format!("a tunnel was cut when {} had arrived", Size(done)));
        }
    }
    let elapsed = start.elapsed();
    let mut theirs = [0; DIGEST_LEN];
    patiently(connection.read_exact(&mut theirs)).await?;
    let ours = hasher.finish();
    if ours != theirs {
        let message =
            format_args!("the bytes are wrong: SHA-256 {} was sent, {} arrived", hex(&theirs), hex(&ours));
        return Err(Failure::bug(message));
    }
    let after = client.stats();
    Ok(Outcome {
        size,
        elapsed,
        packets: after.data_received - before.data_received,
        out_of_order: after.out_of_order - before.out_of_order,
        digest: hex(&ours),
    })
}

async fn patiently<T>(future: impl Future<Output = std::io::Result<T>>) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(result) => result.map_err(broken),
        Err(_) => Err(Failure::bug(format_args!("nothing arrived for {} s", PATIENCE.as_secs()))),
    }
}

fn broken(error: std::io::Error) -> Failure {
    Failure::bug(format_args!("the transfer broke off: {error}"))
}
