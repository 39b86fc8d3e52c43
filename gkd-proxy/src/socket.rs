//! What both kinds of sockets of this crate have in common, those of programs and those of destinations.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use gkd_core::socket::spare_pacing;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
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

/// Ends the direction towards the socket's other end.
pub(crate) fn shutdown_write(socket: &TcpStream) -> io::Result<()> {
    SockRef::from(socket).shutdown(Shutdown::Write)
}

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
