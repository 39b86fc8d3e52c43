//! Datagrams: between the sockets of programs and connections at the end that listens (`flows`, `associate`), and
//! between connections and destinations at the other (`exit`).
//!
//! What one program's address sends and gets is a flow: one connection of the session, whose datagrams carry it. Its
//! stream carries nothing; that it ends, ends the flow at both ends. A flow that is idle ends as well, for nothing else
//! tells that a program is gone; where either end is ending, as soon as it is quiet. No order is imposed and nothing is
//! sent again: where a queue is full, its oldest datagram goes.

pub(crate) mod associate;
pub(crate) mod exit;
pub(crate) mod flows;

use std::cell::RefCell;
use std::future::{pending, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::connection::VirtualConnection;

/// How long a flow may be idle. Two minutes is the least that a translator of addresses may forget one after (RFC 4787,
/// section 4.3): what works behind one works here.
pub const IDLE: Duration = Duration::from_secs(120);

/// How long a flow may be idle where its end is ending: long enough for the answer to a question that was just asked.
/// What is in use goes on, as connections do.
const QUIET: Duration = Duration::from_secs(1);

/// What fits into one datagram over IPv4: 65,535 bytes without the headers of IP and UDP.
pub(crate) const MAX_PAYLOAD: usize = 65_507;

/// What a socket is asked to hold for a program or a task that is busy, in bytes; the system may grant less.
const SOCKET_BUFFER: usize = 1024 * 1024;

/// A socket on an address; one of IPv6 takes IPv6 only. Within a tokio runtime.
pub(crate) fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // One that takes neither works all the same.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// A socket from which the address can be reached.
pub(crate) fn bind_towards(address: SocketAddr) -> io::Result<UdpSocket> {
    bind(SocketAddr::new(unspecified(address.ip()), 0))
}

/// The address of the same family that stands for all of a machine's own.
fn unspecified(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

thread_local! {
    /// Where a datagram is received, before it is copied to memory of its size: a socket that waits holds none.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 65_536].into());
}

/// The next datagram of a connected socket. Cancel safe.
pub(crate) async fn recv(socket: &UdpSocket) -> io::Result<Bytes> {
    received(socket, |buffer| Ok((socket.try_recv(buffer)?, ()))).await.map(|(payload, ())| payload)
}

/// The next datagram, and whose. Cancel safe.
pub(crate) async fn recv_from(socket: &UdpSocket) -> io::Result<(Bytes, SocketAddr)> {
    received(socket, |buffer| socket.try_recv_from(buffer)).await
}

async fn received<T>(
    socket: &UdpSocket,
    receive: impl Fn(&mut [u8]) -> io::Result<(usize, T)>,
) -> io::Result<(Bytes, T)> {
    loop {
        socket.readable().await?;
        let received: io::Result<_> = SCRATCH.with_borrow_mut(|buffer| {
            let (count, from) = receive(buffer)?;
            Ok((Bytes::copy_from_slice(&buffer[..count]), from))
        });
        match received {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// Whether an error of a socket speaks of one datagram, or of what a destination answered to one (RFC 1122, section
/// 4.1.3.3), and the next may do better.
pub(crate) fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let passing = matches!(
        error.kind(),
        Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::PermissionDenied
            | Kind::Interrupted
    );
    // Too long for the way, or for the kernel just now.
    passing || matches!(error.raw_os_error(), Some(libc::EMSGSIZE | libc::ENOBUFS | libc::EPROTO))
}

/// Waits for a datagram of a connection: its address, and what it carries. Cancel safe.
pub(crate) async fn next_of<C: VirtualConnection>(connection: &C) -> io::Result<(Bytes, Bytes)> {
    poll_fn(|cx| connection.poll_recv_datagram(cx)).await
}

/// Waits until the other end has ended the flow, or broken it. Cancel safe.
pub(crate) async fn ended<C: VirtualConnection>(connection: &C) {
    poll_fn(|cx| {
        // Its stream carries nothing: a byte on it is as good as an error.
        let _ = ready!(connection.poll_read_batch(cx, 1, &mut Vec::new()));
        Poll::Ready(())
    })
    .await;
}

/// When something last moved in a flow.
#[derive(Debug)]
pub(crate) struct Idle {
    began: Instant,
    /// In milliseconds since then.
    last: AtomicU64,
    most: Duration,
    /// Whether this end is ending, where somebody tells.
    ending: Option<CancellationToken>,
}

impl Idle {
    pub(crate) fn new(most: Duration) -> Self {
        Self { began: Instant::now(), last: AtomicU64::new(0), most, ending: None }
    }

    /// The same of a flow that is to end as soon as it is quiet when this is cancelled.
    pub(crate) fn or_quiet(self, ending: CancellationToken) -> Self {
        Self { ending: Some(ending), ..self }
    }

    /// Something moved.
    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// When something last moved.
    pub(crate) fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
    }

    /// Waits until nothing has moved for so long.
    pub(crate) async fn expired(&self) {
        loop {
            let ending = self.ending.as_ref().filter(|ending| !ending.is_cancelled());
            let most =
                if self.ending.is_some() && ending.is_none() { self.most.min(QUIET) } else { self.most };
            let due = self.last() + most;
            if due <= Instant::now() {
                return;
            }
            tokio::select! {
                () = sleep_until(due) => {}
                () = cancelled(ending) => {}
            }
        }
    }
}

/// Waits for ever where there is nothing to be cancelled.
async fn cancelled(token: Option<&CancellationToken>) {
    match token {
        Some(token) => token.cancelled().await,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
