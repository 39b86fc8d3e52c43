//! The targets of all proxies: three nginx that answer with a small body of their configuration or a large one of a file.

use std::fmt::Write;
use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context, Result};
use gkd_load::content::{Content, Way};
use tempfile::TempDir;

use crate::chain::local;
use crate::process::{self, Process};

/// Where the two bodies are.
pub(super) const SMALL: &str = "/small";
pub(super) const LARGE: &str = "/large";

/// Targets that run.
const COUNT: usize = 3;

/// Bytes of the small body.
const SMALL_BYTES: usize = 1024;

/// Targets that run.
pub(super) struct Targets {
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) small: Vec<u8>,
    pub(super) large: Vec<u8>,
    _processes: Vec<Process>,
    _folder: TempDir,
}

impl Targets {
    /// Starts them, with so many bytes of the large body.
    pub(super) fn start(large: u64) -> Result<Self> {
        let folder = TempDir::new()?;
        let small: String = "0123456789abcdef".chars().cycle().take(SMALL_BYTES).collect();
        let large = content(large);
        let file = folder.path().join(LARGE.trim_start_matches('/'));
        std::fs::write(&file, &large).with_context(|| format!("cannot write {}", file.display()))?;
        let (mut addresses, mut processes) = (Vec::new(), Vec::new());
        for _ in 0..COUNT {
            let address = local()?;
            let own = TempDir::new_in(folder.path())?.keep();
            let config = own.join("nginx.conf");
            // One process each, which is enough: no proxy keeps three of them busy.
            let text = format!(
                "master_process off;\n{HEAD}http {{\n{COMMON}sendfile on;\nserver {{\nlisten {address};\nroot \"{}\";\n\
                 location = {SMALL} {{ default_type text/plain; return 200 \"{small}\"; }}\n}}\n}}\n",
                folder.path().display()
            );
            std::fs::write(&config, text)?;
            let mut command = Command::new("nginx");
            command.arg("-p").arg(&own).arg("-c").arg(&config);
            processes.push(Process::start(command, &own)?);
            addresses.push(address);
        }
        for address in &addresses {
            process::wait_for_port(*address)?;
        }
        Ok(Self { addresses, small: small.into_bytes(), large, _processes: processes, _folder: folder })
    }

    /// A line for each, made of its address.
    pub(super) fn lines(&self, line: impl Fn(&SocketAddr) -> String) -> String {
        self.addresses.iter().fold(String::new(), |mut text, address| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{}", line(address));
            text
        })
    }
}

/// What every nginx here begins with. It is to stay where its log is, and to keep nothing elsewhere.
pub(super) const HEAD: &str =
    "daemon off;\npid nginx.pid;\nerror_log stderr warn;\nevents { worker_connections 1024; }\n";

/// Within `http`. Connections are not given up after a thousand requests.
pub(super) const COMMON: &str = "access_log off;\nkeepalive_requests 1000000000;\nclient_body_temp_path body;\nproxy_temp_path proxy;\n\
     fastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\nscgi_temp_path scgi;\n";

fn content(bytes: u64) -> Vec<u8> {
    let mut content = Content::new(0, Way::Down);
    let mut all = Vec::new();
    while content.position() < bytes {
        let piece = content.ahead(bytes - content.position());
        all.extend_from_slice(piece);
        content.advance(piece.len());
    }
    all
}
