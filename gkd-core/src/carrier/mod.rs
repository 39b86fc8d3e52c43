//! Carriers: what a tunnel runs over once the carrier's own handshake is done. Anything ordered and reliable
//! serves: TLS 1.3 over TCP, the same over WebSocket, bare TCP, a stream that the caller brings.
//!
//! A carrier says who the other end is and moves bytes. It knows no packet, and who may come in is decided
//! behind it, at every `Hello`.

mod accept;
mod error;
pub mod memory;
pub mod plain;
mod recognise;
pub mod tls;
mod wire;
pub mod ws;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use gkd_proto::PathSample;
use gkd_proto::handshake::Hello;
use gkd_proto::id::{PeerId, SessionId, TunnelId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::identity::SecretKey;

pub use accept::{Acceptor, Incoming};
pub use error::CarrierError;
pub use recognise::{FirstBytes, recognise};
pub use wire::Wire;

/// The most bytes that one end reads before the other has proved its key. A client's share of the TLS
/// handshake is some 2 KB, and its `Hello` (8 KiB at the most) may come in the same read.
const MAX_HANDSHAKE_BYTES: usize = 16 * 1024;

/// The kinds of carrier, each with its scheme in links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CarrierKind {
    /// TLS 1.3 with raw public keys on both sides: `gkd://`.
    Tls,
    /// No encryption; the client proves its key: `gkd+plain://`.
    Plain,
    /// WebSocket over TCP, with the same TLS inside: `gkd+ws://`.
    Ws,
    /// WebSocket over HTTPS, with the same TLS inside: `gkd+wss://`.
    Wss,
    /// A stream that the caller brought and vouches for. Has no link.
    Brought,
}

impl CarrierKind {
    /// As it is written in front of `://`.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Tls => "gkd",
            Self::Plain => "gkd+plain",
            Self::Ws => "gkd+ws",
            Self::Wss => "gkd+wss",
            Self::Brought => "brought",
        }
    }
}

impl fmt::Display for CarrierKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme())
    }
}

/// A byte stream to an end whose identity is known, ready for the `Hello`.
///
/// Reads and writes are those of the layer below. Over TLS a write that is ready may leave bytes in the
/// layer's own buffer (256 KiB at the most): they travel with the next write or with a flush, so flush before
/// waiting. Both are cancellation safe as poll functions are: `Pending` changed nothing but the waker.
pub struct Carrier {
    layer: Layer,
    kind: CarrierKind,
    peer: PeerId,
    claim: Option<Claim>,
}

enum Layer {
    Bare(Wire),
    Tls(Box<tls::Stream>),
}

/// What a client signed along with its key on the unencrypted carrier, to be met by its `Hello`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The session that the tunnel is for.
    pub session: SessionId,
    /// The tunnel's id.
    pub tunnel: TunnelId,
}

impl Carrier {
    /// A carrier over a stream that the caller brings. Nothing is proved: the caller vouches for `peer`, the
    /// other end's key.
    pub fn brought(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, peer: PeerId) -> Self {
        Self::bare(Wire::brought(io), CarrierKind::Brought, peer, None)
    }

    fn bare(wire: Wire, kind: CarrierKind, peer: PeerId, claim: Option<Claim>) -> Self {
        Self { layer: Layer::Bare(wire), kind, peer, claim }
    }

    fn tls(mut stream: tls::Stream, peer: PeerId) -> Self {
        // When its round trip was measured is known the better, the more often it is looked at.
        stream.wire_mut().sample();
        Self { layer: Layer::Tls(Box::new(stream)), kind: CarrierKind::Tls, peer, claim: None }
    }

    /// The same, known to run over that.
    fn over(mut self, kind: CarrierKind) -> Self {
        self.kind = kind;
        self
    }

    /// The other end's key. Proved, but for a server's on [`CarrierKind::Plain`], which only says it, and for
    /// both on [`CarrierKind::Brought`].
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Which kind this is.
    pub fn kind(&self) -> CarrierKind {
        self.kind
    }

    /// Checks the client's `Hello` against what the carrier's handshake proved. A server must do so before it
    /// acts on a `Hello`: on the unencrypted carrier the signature is good for one session and tunnel only.
    ///
    /// # Errors
    /// [`CarrierError::OtherHello`]; answer as a `Hello` that makes no sense.
    pub fn check_hello(&self, hello: &Hello) -> Result<(), CarrierError> {
        match self.claim {
            Some(claim) if claim != (Claim { session: hello.session, tunnel: hello.tunnel }) => {
                Err(CarrierError::OtherHello)
            }
            _ => Ok(()),
        }
    }

    /// The TCP connection below, where there is one: for its options and addresses, not for its bytes.
    pub fn socket(&self) -> Option<&TcpStream> {
        self.wire().socket()
    }

    /// The other end's address, where it has one.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.wire().peer_addr()
    }

    /// The kernel's view of the TCP connection below; empty where there is none. One system call, or two.
    pub fn sample(&mut self) -> PathSample {
        match &mut self.layer {
            Layer::Bare(wire) => wire.sample(),
            Layer::Tls(stream) => stream.wire_mut().sample(),
        }
    }

    fn wire(&self) -> &Wire {
        match &self.layer {
            Layer::Bare(wire) => wire,
            Layer::Tls(stream) => stream.wire(),
        }
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carrier({}, {:?}, {:?})", self.kind, self.peer, self.wire())
    }
}

/// What a client needs to know to make a carrier of a connection that it dialled.
#[derive(Clone, Copy, Debug)]
pub struct Dial<'a> {
    /// Which kind; the link says so.
    pub kind: CarrierKind,
    /// The client's own key.
    pub key: &'a SecretKey,
    /// The server's key that the link names. `None` takes any server, on [`CarrierKind::Plain`] only.
    pub server: Option<PeerId>,
    /// The session that the tunnel is for.
    pub session: SessionId,
    /// The tunnel's id, as the `Hello` will say it.
    pub tunnel: TunnelId,
    /// Who is asked for a WebSocket, for [`CarrierKind::Ws`] and [`CarrierKind::Wss`].
    pub web: Option<&'a ws::Target>,
}

/// Client: runs the carrier's handshake over `io`, done by `deadline` or failed.
///
/// Not cancellation safe: dropped half-way, the connection is gone.
///
/// # Errors
/// [`CarrierError`], which knows the server's address where `io` is a TCP connection; see
/// [`CarrierError::at`] for a better name.
pub async fn connect(
    io: impl Into<Wire>,
    dial: &Dial<'_>,
    deadline: Instant,
) -> Result<Carrier, CarrierError> {
    let wire = io.into();
    let Dial { kind, key, server, session, tunnel, web } = *dial;
    let handshake = async {
        match (kind, server, web) {
            (CarrierKind::Plain, ..) => plain::connect(wire, key, server, session, tunnel).await,
            (CarrierKind::Brought, ..) => Err(CarrierError::NotSupported(kind)),
            (_, None, _) => Err(CarrierError::NoServerKey),
            (CarrierKind::Tls, Some(server), _) => tls::connect(wire, key, server, session).await,
            (CarrierKind::Ws | CarrierKind::Wss, Some(server), Some(target)) => {
                let wire = ws::connect(wire, kind, target).await?;
                Ok(tls::connect(wire, key, server, session).await?.over(kind))
            }
            (CarrierKind::Ws | CarrierKind::Wss, _, None) => Err(CarrierError::NoTarget),
        }
    };
    tokio::time::timeout_at(deadline, handshake).await.unwrap_or(Err(CarrierError::Deadline))
}

macro_rules! with_layer {
    ($self:ident, $io:ident => $call:expr) => {
        match &mut $self.get_mut().layer {
            Layer::Bare(wire) => {
                let $io = Pin::new(wire);
                $call
            }
            Layer::Tls(stream) => {
                let $io = Pin::new(stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Carrier {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        with_layer!(self, io => io.poll_read(cx, buf))
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        with_layer!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with_layer!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.layer {
            Layer::Bare(wire) => wire.is_write_vectored(),
            Layer::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_layer!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_layer!(self, io => io.poll_shutdown(cx))
    }
}
