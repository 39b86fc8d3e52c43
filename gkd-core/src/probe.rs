//! Asks who is there: whether the other end speaks gkd, without an identity and without entering. Tells the
//! server's key, which is no secret; nothing of its users or sessions.
//!
//! The question is a TLS handshake with a key that is made up for it. A server that takes the unencrypted
//! carrier takes TLS on the same port, so the answer holds for both.

use std::io;
use std::sync::Arc;

use gkd_proto::id::PeerId;
use rustls::client::UnbufferedClientConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::Instant;

use crate::carrier::tls::{self, AnyServer};
use crate::identity::{self, SecretKey};

/// Who is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A gkd server, which proved that it has this key.
    Gkd {
        /// Its key.
        server_key: PeerId,
    },
    /// Something that answers, or hangs up, and does not speak gkd (of this version).
    Other {
        /// By what it was told.
        cause: String,
    },
}

/// Why there is no telling.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// No connection came about.
    #[error("it cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// The connection failed before it told.
    #[error("the connection failed before it was told whether the other end speaks gkd: {0}")]
    Io(#[source] io::Error),
    /// The other end said nothing, or too little.
    #[error("no answer in time to tell whether the other end speaks gkd")]
    Deadline,
    /// The question could not be put together.
    #[error("the TLS library refuses: {0}")]
    Tls(#[source] rustls::Error),
}

/// Dials `address` and asks who is there, all within `deadline`. Cancellation safe: a question that is
/// dropped leaves nothing behind.
///
/// # Errors
/// Whatever keeps the question from being answered; an answer that is not gkd's is none.
pub async fn probe(address: impl ToSocketAddrs, deadline: Instant) -> Result<Probe, ProbeError> {
    let dial = tokio::time::timeout_at(deadline, TcpStream::connect(address));
    let tcp = match dial.await.map_err(|_| ProbeError::Deadline)? {
        Ok(tcp) => tcp,
        // Accepted and reset before this end looked.
        Err(error) if hung_up(&error) => return Ok(Probe::Other { cause: HUNG_UP.to_owned() }),
        Err(error) => return Err(ProbeError::Unreachable(error)),
    };
    probe_stream(tcp, deadline).await
}

/// Asks who is at the other end of a stream, which is used up by it, within `deadline`.
///
/// # Errors
/// As of [`probe`].
pub async fn probe_stream<S>(io: S, deadline: Instant) -> Result<Probe, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    tokio::time::timeout_at(deadline, ask(io)).await.unwrap_or(Err(ProbeError::Deadline))
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut io: S) -> Result<Probe, ProbeError> {
    let other = |cause: &dyn std::fmt::Display| Ok(Probe::Other { cause: cause.to_string() });
    let config = tls::client_config(&SecretKey::generate(), Arc::new(AnyServer)).map_err(ProbeError::Tls)?;
    let name = tls::server_name(identity::new_session_id()).map_err(ProbeError::Tls)?;
    let mut connection = UnbufferedClientConnection::new(Arc::new(config), name).map_err(ProbeError::Tls)?;
    if let Err(error) = tls::handshake(&mut connection, &mut io).await {
        return match tls::tls_cause(&error) {
            Some(cause) => other(cause),
            None if hung_up(&error) => other(&HUNG_UP),
            None => Err(ProbeError::Io(error)),
        };
    }
    if connection.alpn_protocol() != Some(tls::ALPN) {
        return other(&"it speaks TLS, but does not answer to the protocol's name");
    }
    match connection.peer_certificates().unwrap_or_default().first().map(|key| tls::key_of(key)) {
        Some(Ok(server_key)) => Ok(Probe::Gkd { server_key }),
        Some(Err(error)) => other(&error),
        None => other(&"it showed no key"),
    }
}

const HUNG_UP: &str = "it hung up";

/// A foreign server that closes shows as an end or as a reset, depending on how much of the question it read.
fn hung_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}

#[cfg(test)]
mod tests;
