//! What the kernel is told about a tunnel's socket, and what it tells. Options are set where the system has
//! them; one that fails is a line in the debug log, but for a congestion control that was asked for by name.

mod bind;
mod congestion;
#[cfg(target_os = "linux")]
mod pauses;
#[cfg(target_os = "linux")]
#[allow(unsafe_code)] // The one place: no safe crate reads TCP_INFO.
mod tcp_info;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use gkd_proto::PathSample;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

pub use bind::{Bind, BindError};
pub use congestion::{Congestion, CongestionError, spare_pacing};

/// Connections that the kernel keeps for a listener that is busy: 64 tunnels of many clients at once.
pub const BACKLOG: u32 = 1024;

/// How the sockets of tunnels are set, on both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Congestion control.
    pub congestion: Congestion,
    /// `TCP_NOTSENT_LOWAT`, in bytes: the socket is writable while less than this is unsent, so that data is
    /// bound to a tunnel late. More costs latency, less costs wake-ups. 128 KiB by default, some 3 ms at
    /// 300 Mbit/s; slower tunnels are held back by what the session knows of them.
    pub unsent_low_water: u32,
    /// `TCP_USER_TIMEOUT`: how long sent bytes may stay unacknowledged until the kernel gives the connection
    /// up. 20 s by default, when the session has long stopped using it.
    pub user_timeout: Duration,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            congestion: Congestion::Auto,
            unsent_low_water: 128 * 1024,
            user_timeout: Duration::from_secs(20),
        }
    }
}

impl SocketOptions {
    /// Sets a connection that was accepted.
    ///
    /// # Errors
    /// A congestion control that was asked for by name and is not to be had.
    pub fn apply(&self, tcp: &TcpStream) -> Result<(), CongestionError> {
        self.set(SockRef::from(tcp), is_on_this_host(tcp))
    }

    /// Sets a listening socket, before the first connection: what those that it accepts cannot be given any more when
    /// they are [applied](Self::apply).
    pub fn apply_to_listener(&self, listener: &TcpListener) {
        if self.congestion == Congestion::Auto {
            spare_pacing(&SockRef::from(listener));
        }
    }

    fn set(&self, socket: SockRef<'_>, on_this_host: bool) -> Result<(), CongestionError> {
        // A packet is written whole; waiting for more to fill a segment would only delay it.
        soft("TCP_NODELAY", socket.set_tcp_nodelay(true));
        // The session pings; the kernel's keep-alive would be a second opinion, hours late.
        soft("SO_KEEPALIVE", socket.set_keepalive(false));
        #[cfg(target_os = "linux")]
        {
            soft("TCP_NOTSENT_LOWAT", socket.set_tcp_notsent_lowat(self.unsent_low_water));
            soft("TCP_USER_TIMEOUT", socket.set_tcp_user_timeout(Some(self.user_timeout)));
        }
        self.congestion.set(&socket, on_this_host)
    }
}

/// Changes [`SocketOptions::unsent_low_water`] of a connection, for a tunnel whose rate became known. Does nothing
/// where the system has no such option.
pub fn set_unsent_low_water(tcp: &TcpStream, bytes: u32) {
    #[cfg(target_os = "linux")]
    soft("TCP_NOTSENT_LOWAT", SockRef::from(tcp).set_tcp_notsent_lowat(bytes));
    #[cfg(not(target_os = "linux"))]
    let _ = (tcp, bytes);
}

/// Whether both ends of a connection are on this host.
fn is_on_this_host(tcp: &TcpStream) -> bool {
    match (tcp.local_addr(), tcp.peer_addr()) {
        (Ok(local), Ok(peer)) => peer.ip().to_canonical().is_loopback() || local.ip() == peer.ip(),
        _ => false,
    }
}

fn soft(option: &str, result: io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(option, %error, "a socket option was not set");
    }
}

/// Dials `to`, from `bind` if there is one. The options are set before the first packet is sent. No deadline
/// but the kernel's; dropping the future ends the attempt.
///
/// # Errors
/// What the kernel says, what is wrong with `bind`, or a congestion control that is not to be had.
pub async fn dial(to: SocketAddr, bind: Option<&Bind>, options: &SocketOptions) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    options.set(SockRef::from(&socket), to.ip().to_canonical().is_loopback()).map_err(io::Error::other)?;
    if let Some(bind) = bind {
        bind.apply(&socket, to)?;
    }
    TcpSocket::from_std_stream(socket.into()).connect(to).await
}

/// Listens on `address`; one of IPv6 takes IPv6 only, so that both wildcards bind on one port. Port 0 takes
/// any that is free. To be called within a tokio runtime.
///
/// # Errors
/// What the kernel says, with the address and the mend; its `kind()` is kept.
pub fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    try_listen(address, backlog).map_err(|error| {
        let mend = match error.kind() {
            io::ErrorKind::AddrInUse => ": something listens there already; end it or take another port",
            io::ErrorKind::PermissionDenied => ": ports below 1024 need a privilege; take a higher one",
            io::ErrorKind::AddrNotAvailable => ": this machine does not have that address",
            _ => "",
        };
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{mend}"))
    })
}

fn try_listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restarted server listens again while old connections linger. Elsewhere the option means something else.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// Looks at one connection again and again, from its beginning.
#[derive(Debug)]
pub(crate) struct Watch {
    #[cfg(target_os = "linux")]
    pauses: Option<pauses::Pauses>,
}

impl Watch {
    /// That of a connection that was just established.
    pub(crate) fn new(tcp: &TcpStream) -> Self {
        #[cfg(target_os = "linux")]
        {
            let socket = SockRef::from(tcp);
            let least = congestion::is_bbr(&socket)
                .then(|| tcp_info::bbr_round_trip(std::os::fd::AsFd::as_fd(tcp)))
                .flatten();
            Self { pauses: least.map(|least| pauses::Pauses::new(std::time::Instant::now(), least)) }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = tcp;
            Self {}
        }
    }

    /// The kernel's view of the connection: one system call, or two. Empty where the system does not tell.
    pub(crate) fn sample(&mut self, tcp: &TcpStream) -> PathSample {
        #[cfg(target_os = "linux")]
        {
            let socket = std::os::fd::AsFd::as_fd(tcp);
            let (mut sample, few) = tcp_info::sample(socket);
            if let (Some(pauses), Some(round_trip)) = (&mut self.pauses, sample.round_trip)
                && let Some(least) = tcp_info::bbr_round_trip(socket)
            {
                let dry = sample.unacknowledged == Some(0);
                let told = pauses::Told { least, round_trip, dry, measures: few };
                sample.pauses = pauses.look(std::time::Instant::now(), told);
            }
            sample
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = tcp;
            PathSample::default()
        }
    }
}
