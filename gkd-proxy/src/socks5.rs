//! SOCKS5 (RFC 1928) towards programs: CONNECT and UDP ASSOCIATE, without proof or with user and password (RFC 1929).
//!
//! BIND is answered "command not supported". The handshake is that of `fast-socks5`,
//! which reads no byte beyond it: what a program sends behind its request, without waiting for the answer,
//! is still in its socket when the relay begins.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use fast_socks5::server::{
    AuthMethodSuccessState, NoAuthentication, PasswordAuthentication, Socks5ServerProtocol, SocksServerError,
};
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{ReplyError, Socks5Command};
use futures::FutureExt;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::connection::{Opener, VirtualConnection};
use crate::credentials::Credentials;
use crate::destination::{Destination, DestinationError, Host, Target};
use crate::outlet::Outlet;
use crate::reach::ReachError;
use crate::slots::Slot;
use crate::socket;
use crate::udp::associate;

/// Replies of SOCKS5 (RFC 1928, section 6).
const SUCCEEDED: u8 = 0;
const GENERAL_FAILURE: u8 = 1;

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
        Ok(Request::Connect(target)) => Destination::Tcp(target),
        Ok(Request::Associate { port }) => return Box::pin(associate(socket, port, outlet)).await,
        Err(error) => {
            tracing::debug!("a SOCKS handshake failed: {}", error.to_string().escape_debug());
            return socket::close_after_answer(socket).await;
        }
    };
    match reach(&target, strict, outlet).await {
        Ok(connection) => {
            if send_reply(&mut socket, SUCCEEDED, NOWHERE).await.is_ok() {
                outlet.relay(&mut socket, &connection, &mut Bytes::new(), &target).await;
            }
        }
        Err(error) => {
            // It may be gone; either way it is closed.
            let _ = send_reply(&mut socket, error.socks_reply(), NOWHERE).await;
            socket::close_after_answer(socket).await;
        }
    }
}

/// Serves a program that sends datagrams, until it closes this connection or sends and gets none for too long.
async fn associate<O: Opener>(mut socket: TcpStream, port: Option<u16>, outlet: &Outlet<O>) {
    let opened = async {
        let connection = outlet.open(&Destination::UdpAny).await.map_err(|error| error.socks_reply())?;
        let datagrams = associate::open(&socket).and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, datagrams) = datagrams.map_err(|error| {
            outlet.complain(&format!("no socket for a program's datagrams: {error}"));
            GENERAL_FAILURE
        })?;
        Ok((connection, datagrams, address))
    };
    match opened.await {
        Ok((connection, datagrams, address)) => {
            if send_reply(&mut socket, SUCCEEDED, address).await.is_ok()
                && let Err(error) =
                    associate::serve(&mut socket, &datagrams, &connection, port, outlet.idle()).await
            {
                tracing::debug!("a program's datagrams ended: {error}");
            }
            if let Some(Err(error)) = connection.connected().now_or_never() {
                outlet.failed(&Destination::UdpAny, &error);
            }
        }
        Err(reply) => {
            let _ = send_reply(&mut socket, reply, NOWHERE).await;
            socket::close_after_answer(socket).await;
        }
    }
}

async fn reach<O: Opener>(
    target: &Destination,
    strict: bool,
    outlet: &Outlet<O>,
) -> Result<O::Connection, ReachError> {
    let connection = outlet.open(target).await?;
    if strict {
        outlet.reached(target, &connection).await?;
    }
    Ok(connection)
}

/// What a program asks for.
enum Request {
    /// A connection.
    Connect(Target),
    /// To send datagrams; the port from which, where it says.
    Associate {
        /// Never 0.
        port: Option<u16>,
    },
}

/// Everything up to the request. Each of its parts is bounded by a length of one byte.
async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    credentials: Option<&Credentials>,
) -> Result<Request, HandshakeError> {
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
    match command {
        Socks5Command::TCPConnect => {}
        Socks5Command::UDPAssociate => {
            // Many programs say an address that is not what their datagrams come from; the one of this connection
            // counts. A port that they say does.
            let port = match target {
                TargetAddr::Ip(address) => address.port(),
                TargetAddr::Domain(_, port) => port,
            };
            return Ok(Request::Associate { port: Some(port).filter(|port| *port > 0) });
        }
        Socks5Command::TCPBind => {
            protocol.reply_error(&ReplyError::CommandNotSupported).await?;
            return Err(HandshakeError::Command(command));
        }
    }
    match parse_target(target) {
        Ok(target) => Ok(Request::Connect(target)),
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

/// The address in a reply where it says nothing: the one that the far end dials from is not known, and nobody asks for
/// it.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

async fn send_reply(socket: &mut TcpStream, reply: u8, address: SocketAddr) -> std::io::Result<()> {
    let mut bytes = vec![5, reply, 0];
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes.push(1);
            bytes.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            bytes.push(4);
            bytes.extend(ip.octets());
        }
    }
    bytes.extend(address.port().to_be_bytes());
    socket.write_all(&bytes).await
}

#[cfg(test)]
mod tests;
