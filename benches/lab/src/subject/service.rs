//! A service whose target is behind the line: gkd-server is where the visitors are, and the client that announces the
//! target is where that is. Beside it a target that visitors reach themselves.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::{Gkd, Program};
use crate::cleanup;
use crate::net::{self, Net};
use crate::traffic::{Dial, Kind, WebServer};

/// Where the target listens, and where the front does.
const TARGET_PORT: u16 = 9000;
const FRONT_PORT: u16 = 8080;

/// What is compared.
#[derive(Clone, Debug)]
pub(crate) enum Service {
    /// Visitors connect to the target over the line.
    Direct,
    Gkd(Gkd),
}

/// A service that is served. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Served {
    /// Where visitors come.
    pub(crate) dial: Dial,
    _programs: Vec<Program>,
    _target: WebServer,
}

impl Service {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Direct => "direct TCP".to_owned(),
            Self::Gkd(gkd) => gkd.name(),
        }
    }

    /// Begins it; `congestion` is for all that crosses the line.
    pub(crate) fn start(&self, net: &Net, congestion: &str, bin: &Path) -> Result<Served> {
        let started = match self {
            Self::Direct => direct(net, congestion),
            Self::Gkd(gkd) => behind_gkd(gkd, net, congestion, bin),
        };
        started.with_context(|| format!("{} does not begin", self.name()))
    }
}

fn direct(net: &Net, congestion: &str) -> Result<Served> {
    let congestion = Some(congestion);
    let to = net::server(TARGET_PORT);
    Ok(Served {
        dial: Dial { to, from: None, kind: Kind::Tcp, congestion: congestion.map(Arc::from) },
        _programs: Vec::new(),
        _target: WebServer::start(&net.server, TARGET_PORT, congestion)?,
    })
}

fn behind_gkd(gkd: &Gkd, net: &Net, congestion: &str, bin: &Path) -> Result<Served> {
    let target = WebServer::start(&net.server, TARGET_PORT, None)?;
    let folder = tempfile::Builder::new().prefix("gkd-lab-").tempdir().context("no room for files")?;
    cleanup::remember_folder(folder.path());
    let front = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), FRONT_PORT);
    // The name that `init` gives the first user.
    let served = format!(
        "\n[http]\nlisten = [\"http://{front}\"]\n\n[[service]]\nname = \"lab\"\nhosts = [\"*\"]\nusers = [\"first\"]\n"
    );
    let server =
        gkd.start_server(&net.client, net::client_address(0), &served, congestion, bin, folder.path())?;
    let announced = format!("[[service]]\nname = \"lab\"\nto = \"http://127.0.0.1:{TARGET_PORT}\"\n");
    let client = gkd.start_client_with(&net.server, &announced, &[], congestion, bin, folder.path())?;
    let mut server = server.keep(folder);
    server.wait_for("the service is announced", |_| client.log().contains(" is served at "))?;
    Ok(Served { dial: Dial::to(front), _programs: vec![client, server], _target: target })
}
