//! SOCKS5 (RFC 1928) towards programs: CONNECT, without proof or with user and password (RFC 1929).
//!
//! BIND and UDP ASSOCIATE are answered "command not supported". The handshake is that of `fast-socks5`,
//! which reads no byte beyond it: what a program sends behind its request, without waiting for the answer,
//! is still in its socket when the relay begins.

use bytes::Bytes;
use fast_socks5::server::{
    AuthMethodSuccessState, NoAuthentication, PasswordAuthentication, Socks5ServerProtocol, SocksServerError,
};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{ReplyError, Socks5Command};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::connection::Opener;
use crate::credentials::Credentials;
use crate::destination::{DestinationError, Host, Target};
use crate::outlet::Outlet;
use crate::reach::ReachError;
use crate::slots::Slot;
use crate::socket;

/// The reply for success (RFC 1928, section 6).
const SUCCEEDED: u8 = 0;

/// Why a handshake brought no target. The program was answered where the protocol has an answer.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("{0}")]
    Protocol(#[from] SocksServerError),
    #[error("wrong user or password")]
    WrongPassword,
    #[error("{0:?} is not supported")]
    Command(Socks5Command),
    #[error("{0}")]
    Target(#[from] DestinationError),
}

/// Serves one program, from its first byte to its last.
pub(crate) async fn serve<O: Opener>(
    mut socket: TcpStream,
    credentials: Option<&Credentials>,
    strict: bool,
    slot: Slot,
    outlet: &Outlet<O>,
) {
    let request = tokio::select! {
        request = handshake(&mut socket, credentials) => request,
        overdue = slot.overdue() => {
            tracing::debug!("a program was closed within its SOCKS handshake: {overdue}");
            return;
        }
    };
    drop(slot);
    let target = match request {
        Ok(target) => target,
        Err(error) => {
            tracing::debug!("a SOCKS handshake failed: {}", error.to_string().escape_debug());
            return socket::close_after_answer(socket).await;
        }
    };
    match reach(&target, strict, outlet).await {
        Ok(connection) => {
            if send_reply(&mut socket, SUCCEEDED).await.is_ok() {
                outlet.relay(&mut socket, &connection, Bytes::new(), &target).await;
            }
        }
        Err(error) => {
            // It may be gone; either way it is closed.
            let _ = send_reply(&mut socket, error.socks_reply()).await;
            socket::close_after_answer(socket).await;
        }
    }
}

async fn reach<O: Opener>(
    target: &Target,
    strict: bool,
    outlet: &Outlet<O>,
) -> Result<O::Connection, ReachError> {
    let connection = outlet.open(target).await?;
    if strict {
        outlet.reached(target, &connection).await?;
    }
    Ok(connection)
}

/// Everything up to the request. Each of its parts is bounded by a length of one byte.
async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    credentials: Option<&Credentials>,
) -> Result<Target, HandshakeError> {
    let protocol = Socks5ServerProtocol::start(socket);
    let protocol = match credentials {
        None => protocol.negotiate_auth(&[NoAuthentication]).await?.finish_auth(),
        Some(credentials) => {
            let proof = protocol.negotiate_auth(&[PasswordAuthentication]).await?;
            let (user, password, proof) = proof.read_username_password().await?;
            if !credentials.is(&user, &password) {
                proof.reject().await?;
                return Err(HandshakeError::WrongPassword);
            }
            proof.accept().await?.finish_auth()
        }
    };
    let (protocol, command, target) = protocol.read_command().await?;
    if command != Socks5Command::TCPConnect {
        protocol.reply_error(&ReplyError::CommandNotSupported).await?;
        return Err(HandshakeError::Command(command));
    }
    match parse_target(target) {
        Ok(target) => Ok(target),
        Err(error) => {
            protocol.reply_error(&ReplyError::GeneralFailure).await?;
            Err(error.into())
        }
    }
}

fn parse_target(target: TargetAddr) -> Result<Target, DestinationError> {
    match target {
        TargetAddr::Ip(addr) => Target::new(Host::Ip(addr.ip()), addr.port()),
        // Some programs put an address where a name belongs.
        TargetAddr::Domain(name, port) => Target::new(Host::parse(&name)?, port),
    }
}

/// A reply without an address: the one that the far end dials from is not known, and nobody asks for it.
async fn send_reply(socket: &mut TcpStream, reply: u8) -> std::io::Result<()> {
    socket.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await
}

#[cfg(test)]
mod tests;
