//! Other tunnels, where they are on the PATH, as their own manuals start them. They take the congestion control of their
//! namespace, for none of them has an option for it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{DESTINATION_PORT, Program, Running};
use crate::cleanup;
use crate::net::{self, INSIDE, Net};
use crate::traffic::{Destination, Dial, Kind, first_byte};

/// Where their server listens, and where their client does.
const SERVER_PORT: u16 = 9980;
const FORWARD_PORT: u16 = 1082;

/// No secret: both ends are in namespaces that nobody else reaches.
const PASSWORD: &str = "between two namespaces";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rival {
    Wstunnel,
    Shadowsocks,
    Rathole,
    Aggligator,
}

/// All that are known.
pub(crate) const RIVALS: [Rival; 4] =
    [Rival::Wstunnel, Rival::Shadowsocks, Rival::Rathole, Rival::Aggligator];

/// A program, in the client's or the server's namespace.
struct Part {
    program: &'static str,
    at_client: bool,
    arguments: Vec<String>,
}

impl Rival {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wstunnel => "wstunnel",
            Self::Shadowsocks => "shadowsocks",
            Self::Rathole => "rathole",
            Self::Aggligator => "aggligator",
        }
    }

    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Wstunnel => &["wstunnel"],
            Self::Shadowsocks => &["ssserver", "sslocal"],
            Self::Rathole => &["rathole"],
            Self::Aggligator => &["agg-tunnel"],
        }
    }

    /// What of it is not on the PATH.
    pub(crate) fn missing(self) -> Option<&'static str> {
        self.programs().iter().find(|program| find(program).is_none()).copied()
    }

    pub(super) fn start(self, net: &Net) -> Result<Running> {
        let destination = Destination::start(&net.server, DESTINATION_PORT, Kind::Tcp, None)?;
        let folder = tempfile::Builder::new().prefix("gkd-lab-").tempdir().context("no room for files")?;
        cleanup::remember_folder(folder.path());
        let mut programs = Vec::new();
        for part in self.parts(folder.path())? {
            let space = if part.at_client { &net.client } else { &net.server };
            let path = find(part.program).with_context(|| format!("{} is not on the PATH", part.program))?;
            programs.push(Program::start(space, folder.path(), &path, &part.arguments)?);
        }
        let dial = Dial::to(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), FORWARD_PORT));
        // Ready when something comes through.
        if let Some(last) = programs.last_mut() {
            last.wait_until("something comes through", |_| first_byte(net, &dial).is_ok())?;
        }
        if let Some(last) = programs.pop() {
            programs.push(last.keep(folder));
        }
        Ok(Running { dials: vec![dial], programs, destination })
    }

    fn parts(self, folder: &Path) -> Result<Vec<Part>> {
        let server = net::server(SERVER_PORT);
        let forward = format!("127.0.0.1:{FORWARD_PORT}");
        let to = SocketAddr::new(INSIDE, DESTINATION_PORT);
        let part = |program, at_client, words: &[&str]| Part {
            program,
            at_client,
            arguments: words.iter().map(|word| (*word).to_owned()).collect(),
        };
        Ok(match self {
            Self::Wstunnel => vec![
                part("wstunnel", false, &["server", &format!("ws://{server}")]),
                part(
                    "wstunnel",
                    true,
                    &["client", "-L", &format!("tcp://{forward}:{to}"), &format!("ws://{server}")],
                ),
            ],
            Self::Shadowsocks => {
                let common =
                    ["-m", "aes-256-gcm", "-k", PASSWORD, "-s", &server.to_string()].map(str::to_owned);
                let common: Vec<&str> = common.iter().map(String::as_str).collect();
                let local =
                    ["-b", &forward, "--protocol", "tunnel", "-f", &to.to_string()].map(str::to_owned);
                let local: Vec<&str> = local.iter().map(String::as_str).collect();
                vec![
                    part("ssserver", false, &common),
                    part("sslocal", true, &[&common[..], &local[..]].concat()),
                ]
            }
            Self::Aggligator => {
                let (port, serves) = (SERVER_PORT.to_string(), format!("{to}:{DESTINATION_PORT}"));
                let ports = format!("{DESTINATION_PORT}:{FORWARD_PORT}");
                // Otherwise it listens at ::1 only.
                let everywhere = "--global";
                let to = server.to_string();
                vec![
                    part("agg-tunnel", false, &["server", "--no-monitor", "--port", &serves, "--tcp", &port]),
                    part(
                        "agg-tunnel",
                        true,
                        &["client", "--no-monitor", everywhere, "--port", &ports, "--tcp", &to],
                    ),
                ]
            }
            // It works the other way round: its server is where the programs are.
            Self::Rathole => {
                let at = SocketAddr::new(net::client_address(0), SERVER_PORT);
                let (visited, visiting) = (folder.join("visited.toml"), folder.join("visiting.toml"));
                let service = format!("default_token = {PASSWORD:?}");
                std::fs::write(
                    &visiting,
                    format!(
                        "[server]\nbind_addr = \"{at}\"\n{service}\n[server.services.lab]\nbind_addr = \"{forward}\"\n"
                    ),
                )?;
                std::fs::write(
                    &visited,
                    format!(
                        "[client]\nremote_addr = \"{at}\"\n{service}\n[client.services.lab]\nlocal_addr = \"{to}\"\n"
                    ),
                )?;
                vec![
                    part("rathole", true, &["--server", &visiting.to_string_lossy()]),
                    part("rathole", false, &["--client", &visited.to_string_lossy()]),
                ]
            }
        })
    }
}

/// A program on the PATH.
fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}
