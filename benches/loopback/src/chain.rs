//! Chains: what stands between the load and the sink. Each is some processes of its own on loopback, up for as
//! long as the value lives, so that all chains can be measured in turns.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gkd_load::ports;
use tempfile::TempDir;

use crate::load;
use crate::process::{self, PATIENCE, Process};
use crate::request::Transfer;
use crate::rival::Rival;

/// Where the sink listens, or a chain that leads to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// To the sink's threads.
    pub(crate) threads: SocketAddr,
    /// To its tasks. A rival's chain leads to the threads only, and has the same here.
    pub(crate) tasks: SocketAddr,
}

/// What tunnels run over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    Plain,
    Tls,
    /// The same TLS within WebSocket, with no web server in between.
    Ws,
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Tls => "TLS",
            Self::Ws => "TLS in WebSocket",
        })
    }
}

/// What a chain is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing: straight to the sink.
    Direct,
    /// Two copying relays of our own.
    Relays { buffer: usize, threads: bool },
    /// A client and a server of gkd; `beside` marks those of the other folder.
    Gkd { carrier: Carrier, tunnels: usize, beside: bool },
    /// Another program.
    Rival(Rival),
}

impl Kind {
    /// The yardstick.
    pub(crate) const RELAYS: Self = Self::Relays { buffer: 256 * 1024, threads: false };

    pub(crate) fn gkd(carrier: Carrier, tunnels: usize) -> Self {
        Self::Gkd { carrier, tunnels, beside: false }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Relays { buffer, threads } => {
                let how = if *threads { ", threads" } else { "" };
                write!(f, "2 relays, {} KiB{how}", buffer / 1024)
            }
            Self::Gkd { carrier, tunnels, beside } => {
                write!(f, "gkd {carrier} N={tunnels}{}", if *beside { " (beside)" } else { "" })
            }
            Self::Rival(rival) => rival.fmt(f),
        }
    }
}

/// The programs that chains are made of.
pub(crate) struct Programs {
    /// This one, for relays and the sink.
    pub(crate) own: PathBuf,
    /// The folder of gkd's two binaries.
    pub(crate) gkd: PathBuf,
    /// Another folder of them, to be measured beside.
    pub(crate) beside: Option<PathBuf>,
}

/// A chain that is up.
pub(crate) struct Chain {
    pub(crate) kind: Kind,
    pub(crate) entry: Ends,
    /// In the order in which bytes come to them from the load.
    pub(crate) processes: Vec<Process>,
    _folder: TempDir,
}

impl Chain {
    /// Starts it and waits until a connection goes through. None where its programs are not on the PATH.
    pub(crate) fn start(kind: &Kind, sink: Ends, programs: &Programs) -> Result<Option<Self>> {
        let folder = TempDir::new()?;
        let started = match kind {
            Kind::Direct => Some((sink, Vec::new())),
            Kind::Relays { buffer, threads } => {
                Some(relays(*buffer, *threads, sink, programs, folder.path())?)
            }
            Kind::Gkd { carrier, tunnels, beside } => {
                let bin = if *beside { programs.beside.as_ref() } else { Some(&programs.gkd) };
                bin.map(|bin| gkd(bin, *carrier, *tunnels, sink, folder.path())).transpose()?
            }
            Kind::Rival(rival) => rival.start(sink.threads, folder.path())?,
        };
        let Some((entry, processes)) = started else { return Ok(None) };
        let chain = Self { kind: kind.clone(), entry, processes, _folder: folder };
        chain.wait_until_up().with_context(|| format!("{kind} does not come up"))?;
        Ok(Some(chain))
    }

    fn wait_until_up(&self) -> Result<()> {
        for entry in [self.entry.threads, self.entry.tasks] {
            let start = Instant::now();
            while let Err(error) =
                load::open(entry).and_then(|stream| load::transfer(&stream, Transfer::NOTHING))
            {
                if start.elapsed() > PATIENCE {
                    let logs: Vec<_> = self.processes.iter().map(Process::log).collect();
                    bail!("{error:#}\n{}", logs.join("\n"));
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// CPU time of every process on the way.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.processes.iter().map(Process::cpu).sum()
    }
}

/// A free port of loopback.
pub(crate) fn local() -> Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, ports::free_port()?).into())
}

fn relays(
    buffer: usize,
    threads: bool,
    sink: Ends,
    programs: &Programs,
    folder: &Path,
) -> Result<(Ends, Vec<Process>)> {
    let mut processes = Vec::new();
    let mut next = sink;
    for _ in 0..2 {
        let here = Ends { threads: local()?, tasks: local()? };
        let mut command = Command::new(&programs.own);
        command.args(["relay", "--buffer", &buffer.to_string()]);
        for (listen, to) in [(here.threads, next.threads), (here.tasks, next.tasks)] {
            command.args(["--listen", &listen.to_string(), "--to", &to.to_string()]);
        }
        if threads {
            command.arg("--threads");
        }
        processes.insert(0, Process::start(command, folder)?);
        process::wait_for_port(here.tasks)?;
        next = here;
    }
    Ok((next, processes))
}

fn gkd(
    bin: &Path,
    carrier: Carrier,
    tunnels: usize,
    sink: Ends,
    folder: &Path,
) -> Result<(Ends, Vec<Process>)> {
    let (server, client) = (bin.join("gkd-server"), bin.join("gkd-client"));
    let dir = folder.join("server");
    let listen = local()?.to_string();
    let init = Command::new(&server).args(["init", "--public", &listen, "--dir"]).arg(&dir).output();
    let init = init.with_context(|| format!("cannot start {}", server.display()))?;
    ensure!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    let mut link = String::from_utf8(init.stdout)?;
    if carrier == Carrier::Ws {
        link = link.replacen("gkd://", "gkd+ws://", 1);
    }

    let mut command = Command::new(&server);
    command.args(["run", "--allow", "127.0.0.0/8", "--listen", &listen, "--dir"]).arg(&dir);
    if carrier == Carrier::Plain {
        command.arg("--plain");
    }
    let mut server = Process::start(command, folder)?;
    server.wait_for_log("listening on")?;

    let here = Ends { threads: local()?, tasks: local()? };
    let mut command = Command::new(&client);
    command.args([link.trim(), "--tunnels", &tunnels.to_string()]);
    if carrier == Carrier::Plain {
        command.arg("--plain");
    }
    for (listen, to) in [(here.threads, sink.threads), (here.tasks, sink.tasks)] {
        command.args(["--local", &format!("tcp://{listen}:{to}")]);
    }
    let mut client = Process::start(command, folder)?;
    client.wait_for_log(&format!("{tunnels} tunnel{} up", if tunnels == 1 { "" } else { "s" }))?;
    Ok((here, vec![client, server]))
}
