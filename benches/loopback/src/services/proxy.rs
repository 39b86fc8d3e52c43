//! The proxies: nginx, and gkd with the targets at its server or announced by a client. All show the same certificate.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use data_encoding::BASE64;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::targets::{COMMON, HEAD, SMALL, Targets};
use crate::chain::{Programs, local};
use crate::load;
use crate::process::{self, PATIENCE, Process};

/// What stands between people and the targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The yardstick.
    Nginx,
    /// A server of gkd, with a client of so many tunnels behind it that announces the targets, or with the targets
    /// themselves; `beside` marks those of the other folder.
    Gkd { tunnels: Option<usize>, beside: bool },
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nginx => f.write_str("nginx"),
            Self::Gkd { tunnels, beside } => {
                f.write_str("gkd")?;
                if let Some(tunnels) = tunnels {
                    write!(f, ", client at N={tunnels}")?;
                }
                f.write_str(if *beside { " (beside)" } else { "" })
            }
        }
    }
}

/// A certificate and its key, in files.
pub(super) struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    _folder: TempDir,
}

impl Certificate {
    /// One of the kind that is usual now: ECDSA with P-256.
    pub(super) fn make() -> Result<Self> {
        let folder = TempDir::new()?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.self_signed(&key)?;
        let write = |file: &str, label: &str, der: &[u8]| {
            let path = folder.path().join(file);
            let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der));
            // A key that others can read is refused.
            let file = File::options().write(true).create_new(true).mode(0o600).open(&path);
            let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
            written.with_context(|| format!("cannot write {}", path.display()))?;
            Ok::<_, anyhow::Error>(path)
        };
        let (certificate, key) = (
            write("certificate.pem", "CERTIFICATE", certificate.der())?,
            write("key.pem", "PRIVATE KEY", key.serialized_der())?,
        );
        Ok(Self { certificate, key, _folder: folder })
    }
}

/// A proxy that is up.
pub(super) struct Proxy {
    pub(super) kind: Kind,
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    processes: Vec<Process>,
    _folder: TempDir,
}

impl Proxy {
    /// Starts it and waits until an answer comes through.
    pub(super) fn start(
        kind: &Kind,
        targets: &Targets,
        certificate: &Certificate,
        programs: &Programs,
    ) -> Result<Self> {
        let (http, https, folder) = (local()?, local()?, TempDir::new()?);
        let mut proxy = Self { kind: kind.clone(), http, https, processes: Vec::new(), _folder: folder };
        proxy.processes = match kind {
            Kind::Nginx => proxy.nginx(targets, certificate)?,
            Kind::Gkd { tunnels, beside } => {
                let bin = if *beside { programs.beside.as_ref() } else { Some(&programs.gkd) };
                proxy.gkd(bin.context("no other folder")?, *tunnels, targets, certificate)?
            }
        };
        proxy.wait_until_up().with_context(|| format!("{kind} does not come up"))?;
        Ok(proxy)
    }

    /// CPU time of all its processes.
    pub(super) fn cpu(&self) -> Result<Duration> {
        self.processes.iter().map(Process::cpu).sum()
    }

    fn folder(&self) -> &Path {
        self._folder.path()
    }

    /// As its manual has a reverse proxy that keeps connections to its targets, with a worker for each core, as gkd has a
    /// thread for each. It tells targets of the visitor, as gkd does, and puts nothing on disk.
    fn nginx(&self, targets: &Targets, certificate: &Certificate) -> Result<Vec<Process>> {
        let (Certificate { certificate, key, .. }, Self { http, https, .. }) = (certificate, self);
        let servers = targets.lines(|address| format!("server {address};"));
        let text = format!(
            "worker_processes auto;\n{HEAD}http {{\n{COMMON}proxy_max_temp_file_size 0;\n\
             upstream targets {{\n{servers}keepalive 64;\nkeepalive_requests 1000000000;\n}}\n\
             server {{\nlisten {http};\nlisten {https} ssl http2;\nssl_certificate \"{}\";\nssl_certificate_key \"{}\";\n\
             location / {{\nproxy_pass http://targets;\nproxy_http_version 1.1;\nproxy_set_header Connection \"\";\n\
             proxy_set_header Host $http_host;\nproxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
             proxy_set_header X-Forwarded-Proto $scheme;\nproxy_set_header X-Request-Id $request_id;\n}}\n}}\n}}\n",
            certificate.display(),
            key.display()
        );
        let config = self.folder().join("nginx.conf");
        std::fs::write(&config, text)?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(self.folder()).arg("-c").arg(&config);
        Ok(vec![Process::start_gently(command, self.folder())?])
    }

    /// Round robin, as nginx does.
    fn gkd(
        &self,
        bin: &Path,
        tunnels: Option<usize>,
        targets: &Targets,
        certificate: &Certificate,
    ) -> Result<Vec<Process>> {
        let (Certificate { certificate, key, .. }, Self { http, https, .. }) = (certificate, self);
        let (server, client) = (bin.join("gkd-server"), bin.join("gkd-client"));
        let (dir, listen) = (self.folder().join("server"), local()?.to_string());
        let init = Command::new(&server).args(["init", "--public", &listen, "--dir"]).arg(&dir).output();
        let init = init.with_context(|| format!("cannot start {}", server.display()))?;
        ensure!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let link = String::from_utf8(init.stdout)?;

        let service = match tunnels {
            // The name that `init` gives the first user.
            Some(_) => "users = [\"first\"]\n".to_owned(),
            None => format!("targets = [\n{}]\n", targets.lines(|address| format!("\"http://{address}\","))),
        };
        let text = format!(
            "\n[http]\nlisten = [\"http://{http}\", \"https://{https}\"]\n\
             certificates = [{{ certificate = {certificate:?}, key = {key:?} }}]\n\n\
             [[service]]\nname = \"web\"\nhosts = [\"*\"]\nbalance = \"round-robin\"\n{service}"
        );
        File::options().append(true).open(dir.join("server.toml"))?.write_all(text.as_bytes())?;
        let mut command = Command::new(&server);
        command.args(["run", "--listen", &listen, "--dir"]).arg(&dir);
        let mut server = Process::start(command, self.folder())?;
        server.wait_for_log("HTTP services on")?;
        let Some(tunnels) = tunnels else { return Ok(vec![server]) };

        let services =
            targets.lines(|address| format!("[[service]]\nname = \"web\"\nto = \"http://{address}\""));
        let config = self.folder().join("client.toml");
        std::fs::write(&config, format!("links = [\"{}\"]\n{services}", link.trim()))?;
        let mut command = Command::new(&client);
        command.args(["--tunnels", &tunnels.to_string(), "--config"]).arg(&config);
        let mut client = Process::start(command, self.folder())?;
        client.wait_for_log(&format!("{tunnels} tunnel{} up", if tunnels == 1 { "" } else { "s" }))?;
        Ok(vec![server, client])
    }

    fn wait_until_up(&self) -> Result<()> {
        process::wait_for_port(self.https)?;
        let start = Instant::now();
        while let Err(error) = self.ask() {
            if start.elapsed() > PATIENCE {
                let logs: Vec<_> = self.processes.iter().map(Process::log).collect();
                bail!("{error:#}\n{}", logs.join("\n"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Asks for the small body once.
    fn ask(&self) -> Result<()> {
        let mut stream = load::open(self.http)?;
        write!(stream, "GET {SMALL} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let first = answer.lines().next().unwrap_or_default();
        ensure!(first.starts_with("HTTP/1.1 200 "), "the answer is {first:?}");
        Ok(())
    }
}
