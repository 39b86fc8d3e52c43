//! How a program gets a connection to the destination: directly over the line, or through a program beside it.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result};

use super::Kind;
use super::destination::set_congestion;
use crate::net::Net;

/// Where to, and with what.
#[derive(Clone, Debug)]
pub(crate) struct Dial {
    pub(crate) to: SocketAddr,
    pub(crate) from: Option<IpAddr>,
    pub(crate) kind: Kind,
    pub(crate) congestion: Option<Arc<str>>,
}

impl Dial {
    /// To a program beside the client, or straight to a server; with TCP, and the system's congestion control.
    pub(crate) fn to(to: SocketAddr) -> Self {
        Self { to, from: None, kind: Kind::Tcp, congestion: None }
    }

    /// A connection from the client's namespace.
    pub(crate) fn open(&self, net: &Net) -> Result<TcpStream> {
        net.client.enter(|| {
            let socket = self.kind.socket()?;
            set_congestion(&socket, self.congestion.as_deref())?;
            if let Some(from) = self.from {
                socket.bind(&SocketAddr::new(from, 0).into())?;
            }
            socket.connect(&self.to.into()).with_context(|| format!("cannot connect to {}", self.to))?;
            let stream = TcpStream::from(socket);
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }
}
