//! Other programs, which are measured where they are on the PATH.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::chain::{Ends, local};
use crate::process::{Process, wait_for_port};

/// A program that carries one TCP port to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    /// WebSocket without TLS.
    Wstunnel,
    /// The Rust port, with AES-256-GCM.
    Shadowsocks,
    /// Without TLS.
    Rathole,
}

impl Rival {
    pub(crate) const ALL: [Self; 3] = [Self::Wstunnel, Self::Shadowsocks, Self::Rathole];

    /// What has to be on the PATH.
    pub(crate) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Wstunnel => &["wstunnel"],
            Self::Shadowsocks => &["sslocal", "ssserver"],
            Self::Rathole => &["rathole"],
        }
    }

    pub(crate) fn is_there(self) -> bool {
        self.programs().iter().all(|name| is_on_path(name))
    }

    /// Its two ends, the near one first, with a port that leads to the sink. None where it is not on the PATH.
    pub(crate) fn start(self, sink: SocketAddr, folder: &Path) -> Result<Option<(Ends, Vec<Process>)>> {
        if !self.is_there() {
            return Ok(None);
        }
        let (entry, between) = (local()?, local()?);
        let (near, far) = match self {
            Self::Wstunnel => wstunnel(entry, between, sink),
            Self::Shadowsocks => shadowsocks(entry, between, sink),
            Self::Rathole => rathole(entry, between, sink, folder)?,
        };
        let far = Process::start(far, folder)?;
        wait_for_port(between)?;
        let near = Process::start(near, folder)?;
        Ok(Some((Ends { threads: entry, tasks: entry }, vec![near, far])))
    }
}

impl fmt::Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wstunnel => "wstunnel (ws)",
            Self::Shadowsocks => "shadowsocks-rust (AES-256-GCM)",
            Self::Rathole => "rathole (plain)",
        })
    }
}

/// Whether a program is.
pub(crate) fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn wstunnel(entry: SocketAddr, between: SocketAddr, sink: SocketAddr) -> (Command, Command) {
    let (url, forward) = (format!("ws://{between}"), format!("tcp://{entry}:{sink}"));
    (command("wstunnel", &["client", "-L", &forward, &url]), command("wstunnel", &["server", &url]))
}

fn shadowsocks(entry: SocketAddr, between: SocketAddr, sink: SocketAddr) -> (Command, Command) {
    let [entry, between, sink] = [entry, between, sink].map(|address| address.to_string());
    let common = ["-s", &between, "-k", "loopback", "-m", "aes-256-gcm", "--tcp-no-delay"];
    let mut near = command("sslocal", &["--protocol", "tunnel", "-b", &entry, "-f", &sink]);
    near.args(common);
    (near, command("ssserver", &common))
}

/// Its server is the near end: whoever connects there is led through the client to where that forwards.
fn rathole(
    entry: SocketAddr,
    between: SocketAddr,
    sink: SocketAddr,
    folder: &Path,
) -> Result<(Command, Command)> {
    let server = format!(
        "[server]\nbind_addr = \"{between}\"\ndefault_token = \"loopback\"\n[server.services.load]\nbind_addr = \
         \"{entry}\"\nnodelay = true\n"
    );
    let client = format!(
        "[client]\nremote_addr = \"{between}\"\ndefault_token = \"loopback\"\n[client.services.load]\nlocal_addr = \
         \"{sink}\"\nnodelay = true\n"
    );
    let mut commands = [("server", server), ("client", client)].into_iter().map(|(role, text)| {
        let file = folder.join(format!("{role}.toml"));
        std::fs::write(&file, text)?;
        let mut command = Command::new("rathole");
        command.arg(format!("--{role}")).arg(file);
        Ok::<_, anyhow::Error>(command)
    });
    let (Some(server), Some(client)) = (commands.next(), commands.next()) else { unreachable!("two roles") };
    // The one that listens in between is started first, so it is given as the far one here.
    Ok((client?, server?))
}
