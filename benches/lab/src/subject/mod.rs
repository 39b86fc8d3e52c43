//! What is measured: one TCP connection, several, gkd, MPTCP, and rivals; and apart from them a service. Each begins in a
//! network that is fresh, and says where the programs are to connect to.

mod gkd;
mod mptcp;
mod program;
mod rivals;
mod service;

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

pub(crate) use gkd::{Carrier, Gkd, SERVER_PORT as GKD_PORT};
pub(crate) use program::Program;
pub(crate) use rivals::{RIVALS, Rival};
pub(crate) use service::Service;

use crate::net::{self, Net};
use crate::traffic::{Destination, Dial, Kind};

/// Ports of the destination, for each kind of connection.
pub(crate) const DESTINATION_PORT: u16 = 9000;
const MPTCP_PORT: u16 = 9001;

/// One of those that are compared.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// So many TCP connections straight to the destination, which share the work.
    Raw {
        connections: usize,
    },
    /// One connection through gkd.
    Gkd(Gkd),
    /// One MPTCP connection. So many subflows beside the first; over two paths one is on each.
    Mptcp {
        subflows: usize,
    },
    Rival(Rival),
}

/// A subject that has begun. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Running {
    /// One for each connection of the load.
    pub(crate) dials: Vec<Dial>,
    /// Both ends of it, where it is not the kernel.
    pub(crate) programs: Vec<Program>,
    pub(crate) destination: Destination,
}

impl Subject {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Raw { connections: 1 } => "one TCP connection".to_owned(),
            Self::Raw { connections } => format!("{connections} TCP connections"),
            Self::Gkd(gkd) => gkd.name(),
            Self::Mptcp { subflows } => format!("MPTCP, {} subflows", subflows + 1),
            Self::Rival(rival) => rival.name().to_owned(),
        }
    }

    /// How it is called in `--subjects`.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Raw { .. } => "raw",
            Self::Gkd(_) => "gkd",
            Self::Mptcp { .. } => "mptcp",
            Self::Rival(rival) => rival.name(),
        }
    }

    /// Why there is no MPTCP here, if there is none.
    pub(crate) fn mptcp_missing() -> Option<&'static str> {
        mptcp::missing()
    }

    /// Begins it; `congestion` is for all that crosses the line. Programs are found in `bin` or on the PATH.
    pub(crate) fn start(&self, net: &Net, congestion: &str, bin: &Path) -> Result<Running> {
        for space in [&net.client, &net.server] {
            // For rivals, which cannot be told. Another lab that ends may take back just now what it has allowed; our own
            // sockets do not need it.
            space.set("ipv4/tcp_congestion_control", congestion).ok();
        }
        let raw = |to, kind| Dial { to, from: None, kind, congestion: Some(Arc::from(congestion)) };
        let begin = |kind, port| Destination::start(&net.server, port, kind, Some(congestion));
        let started = match self {
            Self::Raw { connections } => Ok(Running {
                dials: vec![raw(net::server(DESTINATION_PORT), Kind::Tcp); *connections],
                programs: Vec::new(),
                destination: begin(Kind::Tcp, DESTINATION_PORT)?,
            }),
            Self::Gkd(gkd) => gkd.start(net, congestion, bin),
            Self::Mptcp { subflows } => mptcp::prepare(net, *subflows).and_then(|()| {
                Ok(Running {
                    dials: vec![raw(net::server(MPTCP_PORT), Kind::Mptcp)],
                    programs: Vec::new(),
                    destination: begin(Kind::Mptcp, MPTCP_PORT)?,
                })
            }),
            Self::Rival(rival) => rival.start(net),
        };
        started.with_context(|| format!("{} does not begin", self.name()))
    }
}
