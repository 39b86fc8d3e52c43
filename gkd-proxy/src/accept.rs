//! Accepting from a listening socket for ever: no error of one connection, and no lack of descriptors, ends
//! it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use gkd_core::seldom::Seldom;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::socket;

/// The first wait after an error that the next attempt would meet as well.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);

/// The longest: an honest program waits no longer once there are descriptors again.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// A listening socket that goes on accepting.
pub(crate) struct Acceptor {
    listener: TcpListener,
    addr: SocketAddr,
    complaints: Seldom,
}

impl Acceptor {
    pub(crate) fn new(listener: TcpListener, addr: SocketAddr) -> Self {
        socket::prepare_listener(&listener, addr);
        Self { listener, addr, complaints: Seldom::default() }
    }

    /// The next connection. Cancellation-safe.
    pub(crate) async fn accept(&self) -> (TcpStream, SocketAddr) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            match self.listener.accept().await {
                Ok((socket, peer)) => {
                    if !socket::INHERITS {
                        socket::prepare(&socket);
                    }
                    return (socket, peer);
                }
                // It went away between the kernel's accept and ours (accept(2)): there may be others.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if let Some(more) = self.complaints.note("accept") {
                        let mend = if is_exhaustion(&error) { ": raise the limit of open files" } else { "" };
                        tracing::warn!("{} cannot accept: {error}{mend}{more}", self.addr);
                    }
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(MAX_BACKOFF);
                }
            }
        }
    }
}

/// Whether an error says that the process or the system has no more descriptors or memory for sockets.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn what_is_accepted_has_the_options_of_relayed_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let acceptor = Acceptor::new(listener, addr);
        let (program, (accepted, peer)) = tokio::join!(TcpStream::connect(addr), acceptor.accept());
        assert_eq!(program.unwrap().local_addr().unwrap(), peer);
        assert!(accepted.nodelay().unwrap());
        assert!(SockRef::from(&accepted).keepalive().unwrap());
    }
}
