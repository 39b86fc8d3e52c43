//! gkd itself: the two programs, as a user starts them, with a fixed forward to the destination.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::{DESTINATION_PORT, Program, Running};
use crate::cleanup;
use crate::namespace::Namespace;
use crate::net::{self, ALLOWED, INSIDE, Net};
use crate::traffic::{Destination, Dial, Kind};

/// The server's port, and that of the forward at the client.
pub(crate) const SERVER_PORT: u16 = 9990;
const FORWARD_PORT: u16 = 1081;

/// Which carrier the tunnels use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Carrier {
    Tls,
    Plain,
}

/// How gkd is started.
#[derive(Clone, Debug)]
pub(crate) struct Gkd {
    /// Per path; with `auto` those that it begins with.
    pub(crate) tunnels: usize,
    /// As many as bring something.
    pub(crate) auto: bool,
    pub(crate) carrier: Carrier,
    /// The first paths of the network are used, this many.
    pub(crate) paths: usize,
}

impl Gkd {
    pub(crate) fn name(&self) -> String {
        let carrier = match self.carrier {
            Carrier::Tls => "TLS",
            Carrier::Plain => "plain",
        };
        match self.paths {
            1 => format!("gkd, N = {}, {carrier}", self.count()),
            paths => format!("gkd, {paths} paths, N = {} each, {carrier}", self.count()),
        }
    }

    /// As `-n` takes it.
    fn count(&self) -> String {
        if self.auto { "auto".to_owned() } else { self.tunnels.to_string() }
    }

    pub(super) fn start(&self, net: &Net, congestion: &str, bin: &Path) -> Result<Running> {
        let destination = Destination::start(&net.server, DESTINATION_PORT, Kind::Tcp, None)?;
        let folder = tempfile::Builder::new().prefix("gkd-lab-").tempdir().context("no room for files")?;
        cleanup::remember_folder(folder.path());
        let server =
            self.start_server(&net.server, net::server_address(0), "", congestion, bin, folder.path())?;
        let client = self.start_client(net, congestion, bin, folder.path())?;
        let forward = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), FORWARD_PORT);
        Ok(Running {
            dials: vec![Dial::to(forward)],
            programs: vec![client, server.keep(folder)],
            destination,
        })
    }

    /// A server with this address, whose `server.toml` goes on with these lines.
    pub(super) fn start_server(
        &self,
        space: &Namespace,
        address: IpAddr,
        lines: &str,
        congestion: &str,
        bin: &Path,
        folder: &Path,
    ) -> Result<Program> {
        let program = bin.join("gkd-server");
        let files = folder.join("server").to_string_lossy().into_owned();
        let public = SocketAddr::new(address, SERVER_PORT).to_string();
        let executable = program.to_string_lossy();
        let link = space.run(&executable, &["init", "--dir", &files, "--public", &public])?;
        let config = folder.join("server").join("server.toml");
        File::options().append(true).open(config)?.write_all(lines.as_bytes())?;
        std::fs::write(folder.join("link"), self.link(&link))?;
        let listen = format!("0.0.0.0:{SERVER_PORT}");
        let mut words = vec!["run", "--dir", &files, "--listen", &listen, "--allow", ALLOWED];
        words.extend(["--congestion", congestion]);
        if self.carrier == Carrier::Plain {
            words.push("--plain");
        }
        let mut server = Program::start(space, folder, &program, &owned(&words))?;
        server.wait_for("it listens", |log| log.contains("listening"))?;
        Ok(server)
    }

    fn link(&self, link: &str) -> String {
        match self.carrier {
            Carrier::Tls => link.to_owned(),
            Carrier::Plain => link.replacen("gkd://", "gkd+plain://", 1),
        }
    }

    fn start_client(&self, net: &Net, congestion: &str, bin: &Path, folder: &Path) -> Result<Program> {
        let forward = format!("tcp://{FORWARD_PORT}:{INSIDE}:{DESTINATION_PORT}");
        let binds: Vec<String> = (0..self.paths).map(|path| net::client_address(path).to_string()).collect();
        let mut words = vec!["-L", &*forward];
        for bind in &binds {
            words.extend(["--bind", bind]);
        }
        self.start_client_with(&net.client, "", &words, congestion, bin, folder)
    }

    /// A client with this `client.toml` and these words beside those that all have.
    pub(super) fn start_client_with(
        &self,
        space: &Namespace,
        lines: &str,
        words: &[&str],
        congestion: &str,
        bin: &Path,
        folder: &Path,
    ) -> Result<Program> {
        let config = folder.join("client.toml");
        std::fs::write(&config, lines)?;
        let tunnels = self.count();
        let (config, link) = (config.to_string_lossy(), folder.join("link"));
        let link = link.to_string_lossy();
        let common = ["-n", &tunnels, "--congestion", congestion, "--config", &config, "--link-file", &link];
        let mut words = [&common[..], words].concat();
        if self.carrier == Carrier::Plain {
            words.push("--plain");
        }
        let mut client = Program::start(space, folder, &bin.join("gkd-client"), &owned(&words))?;
        let total = self.tunnels * self.paths;
        // "8 tunnels up to …"; those that are missing would stand between.
        let up = format!(" {total} tunnel{} up", if total == 1 { "" } else { "s" });
        client.wait_for("its tunnels are up", |log| log.contains(&up))?;
        Ok(client)
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
