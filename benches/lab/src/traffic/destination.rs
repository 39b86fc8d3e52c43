//! The destination: it sends, takes or returns what it is asked to.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use gkd_load::content::{Content, PIECE, Way};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{Meter, Request};
use crate::namespace::Namespace;

/// Connections that wait to be accepted: more than any scenario opens at once.
const BACKLOG: i32 = 1024;

/// Which kind of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tcp,
    Mptcp,
}

impl Kind {
    pub(super) fn socket(self) -> Result<Socket> {
        let protocol = match self {
            Self::Tcp => Protocol::TCP,
            Self::Mptcp => Protocol::MPTCP,
        };
        Socket::new(Domain::IPV4, Type::STREAM, Some(protocol))
            .with_context(|| format!("the kernel gives no socket of the kind {self:?}"))
    }
}

/// Sets a congestion control by name.
pub(super) fn set_congestion(socket: &Socket, name: Option<&str>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    socket.set_tcp_congestion(name.as_bytes()).with_context(|| {
        format!("the congestion control {name} is not to be had: load the module tcp_{name}")
    })
}

/// Listens on all addresses of a namespace. Dropping it ends all its connections.
#[derive(Debug)]
pub(crate) struct Destination {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// What programs sent here.
    meter: Arc<Meter>,
    /// To be ended with the destination.
    open: Mutex<Vec<TcpStream>>,
}

impl Destination {
    pub(crate) fn start(space: &Namespace, port: u16, kind: Kind, congestion: Option<&str>) -> Result<Self> {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        let listener: TcpListener = space.enter(|| {
            let socket = kind.socket()?;
            // Those that are accepted inherit it.
            set_congestion(&socket, congestion)?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into()).with_context(|| format!("cannot listen on {address}"))?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })?;
        let shared = Arc::new(Shared::default());
        let (accepting, listening) = (shared.clone(), listener.try_clone()?);
        thread::spawn(move || {
            while let Ok((stream, _)) = listening.accept() {
                let Ok(kept) = stream.try_clone() else { return };
                accepting.open.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
                let meter = accepting.meter.clone();
                thread::spawn(move || serve(&stream, &meter));
            }
        });
        Ok(Self { listener, shared })
    }

    /// What arrived here.
    pub(crate) fn meter(&self) -> Arc<Meter> {
        self.shared.meter.clone()
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        SockRef::from(&self.listener).shutdown(Shutdown::Both).ok();
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            cut(&stream);
        }
    }
}

/// Ends a connection with a reset, so that its kernel memory does not outlive the run.
pub(super) fn cut(stream: &TcpStream) {
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).ok();
    stream.shutdown(Shutdown::Both).ok();
}

/// Until the program goes, or asks for something unheard of.
fn serve(stream: &TcpStream, meter: &Meter) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        match Request::read(stream)? {
            Request::Get { bytes, content } => send(stream, bytes, content, Way::Down)?,
            Request::Put { content } => return receive(stream, u64::MAX, content, Way::Up, meter),
            Request::Echo => return echo(stream),
        }
    }
}

/// Writes so many bytes of content.
pub(super) fn send(mut stream: &TcpStream, bytes: u64, content: u64, way: Way) -> io::Result<()> {
    let mut content = Content::new(content, way);
    while content.position() < bytes {
        let count = stream.write(content.ahead(bytes - content.position()))?;
        content.advance(count);
    }
    Ok(())
}

/// Reads and checks so many bytes of content, or what there is.
pub(super) fn receive(
    mut stream: &TcpStream,
    bytes: u64,
    content: u64,
    way: Way,
    meter: &Meter,
) -> io::Result<()> {
    let mut content = Content::new(content, way);
    let mut buffer = vec![0; PIECE];
    while content.position() < bytes {
        let most = (bytes - content.position()).min(PIECE as u64) as usize;
        let count = stream.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let wrong = content.check(&buffer[..count]);
        meter.arrived(count as u64, wrong);
    }
    Ok(())
}

fn echo(mut stream: &TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count])?;
    }
}
