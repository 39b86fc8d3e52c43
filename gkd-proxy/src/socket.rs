//! What both kinds of sockets of this crate have in common, those of programs and those of destinations.

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::task::{Context, Poll};
use std::time::Duration;

use gkd_core::socket::spare_pacing;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWriteExt, Interest};
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::net::tcp::{ReadHalf as TcpReadHalf, WriteHalf as TcpWriteHalf};
#[cfg(unix)]
use tokio::net::unix::{ReadHalf as UnixReadHalf, WriteHalf as UnixWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// After how long a silent socket is asked whether its other end is still there. As long as usual middleboxes
/// remember an idle connection at least (RFC 5382 asks for two hours, many forget within five minutes).
const KEEPALIVE_AFTER: Duration = Duration::from_secs(240);

/// What is read and thrown away of a program that was refused, so that its kernel does not drop the refusal.
const MAX_DISCARD: usize = 256 * 1024;

/// How long that takes at the most.
const DISCARD_FOR: Duration = Duration::from_secs(2);

/// Sets the options that every relayed socket has. A socket that does not take one works all the same.
pub(crate) fn prepare(socket: &TcpStream) {
    set_options(SockRef::from(socket));
}

/// The same of a listening socket on `addr`, for those that it accepts: Linux gives them the options of their listener,
/// which spares three system calls for each.
pub(crate) fn prepare_listener(listener: &TcpListener, addr: SocketAddr) {
    let socket = SockRef::from(listener);
    if addr.ip().to_canonical().is_loopback() {
        spare_pacing(&socket);
    }
    set_options(socket);
}

/// Connects, with the options of a relayed socket.
pub(crate) async fn connect(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if addr.ip().to_canonical().is_loopback() {
        spare_pacing(&SockRef::from(&socket));
    }
    set_options(SockRef::from(&socket));
    socket.connect(addr).await
}

/// Whether what was accepted has the options already.
pub(crate) const INHERITS: bool = cfg!(target_os = "linux");

fn set_options(socket: SockRef<'_>) {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_AFTER);
    let options = socket.set_tcp_nodelay(true).and_then(|()| socket.set_tcp_keepalive(&keepalive));
    if let Err(error) = options {
        tracing::debug!("a socket option was not taken: {error}");
    }
}

/// A stream socket of a program or of a destination, as a relay needs it.
pub trait StreamSocket: Send + Sync + Sized + 'static {
    /// The half that is read.
    type ReadHalf<'a>: AsyncRead + AsRef<Self> + Unpin + Send
    where
        Self: 'a;
    /// The half that is written.
    type WriteHalf<'a>: AsRef<Self> + Send
    where
        Self: 'a;

    /// Its two halves.
    fn split(&mut self) -> (Self::ReadHalf<'_>, Self::WriteHalf<'_>);

    /// Ready when a read may give something.
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ready when a write may be taken.
    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Writes what is taken at once.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes what is taken at once.
    fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Waits for an error, a reset among them.
    fn error(&self) -> impl Future<Output = io::Error> + Send;

    /// Ends the direction towards the socket's other end.
    fn shutdown_write(&self) -> io::Result<()>;

    /// Makes the coming drop a reset, where there is such a thing.
    fn reset_on_drop(&self);
}

/// What both kinds of stream sockets have under the same names.
macro_rules! stream_socket {
    ($socket:ty, $read_half:ident, $write_half:ident, $reset:expr) => {
        impl StreamSocket for $socket {
            type ReadHalf<'a> = $read_half<'a>;
            type WriteHalf<'a> = $write_half<'a>;

            fn split(&mut self) -> (Self::ReadHalf<'_>, Self::WriteHalf<'_>) {
                <$socket>::split(self)
            }

            fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                <$socket>::poll_read_ready(self, cx)
            }

            fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                <$socket>::poll_write_ready(self, cx)
            }

            fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
                <$socket>::try_write(self, bytes)
            }

            fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
                <$socket>::try_write_vectored(self, slices)
            }

            async fn error(&self) -> io::Error {
                match self.ready(Interest::ERROR).await {
                    Ok(_) => {
                        let error = self.take_error().ok().flatten();
                        error.unwrap_or(io::ErrorKind::ConnectionReset.into())
                    }
                    Err(error) => error,
                }
            }

            fn shutdown_write(&self) -> io::Result<()> {
                SockRef::from(self).shutdown(Shutdown::Write)
            }

            fn reset_on_drop(&self) {
                $reset(self);
            }
        }
    };
}

stream_socket!(TcpStream, TcpReadHalf, TcpWriteHalf, reset_on_drop);
// One that is closed with unread bytes tells the other end so by itself.
#[cfg(unix)]
stream_socket!(UnixStream, UnixReadHalf, UnixWriteHalf, |_: &UnixStream| ());

/// Makes the coming drop of the socket a TCP reset.
pub(crate) fn reset_on_drop(socket: &TcpStream) {
    // The one error is that the socket is dead already.
    let _ = socket.set_zero_linger();
}

/// Closes a socket after a last answer. A socket that is dropped with unread bytes resets the connection, and
/// the answer may be lost with it: so the end is told first, and what still comes is read for a while.
pub(crate) async fn close_after_answer(mut socket: TcpStream) {
    let discard = async {
        socket.shutdown().await?;
        let mut buffer = [0; 1024];
        for _ in 0..MAX_DISCARD / buffer.len() {
            socket.readable().await?;
            match socket.try_read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        io::Result::Ok(())
    };
    // However it went, the socket is closed now.
    let _ = timeout(DISCARD_FOR, discard).await;
}
