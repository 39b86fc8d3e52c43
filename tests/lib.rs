//! What the end-to-end tests share: the two binaries, built once, as processes that end with their test; a
//! web server whose content can be checked; and curl.
//!
//! A test that needs a tool which is not installed says so in a line and passes; `.ci/run` installs them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

pub mod web;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a program may take until it listens, or until it has ended.
const PATIENCE: Duration = Duration::from_secs(30);

/// The folder that holds `gkd-client` and `gkd-server`, built by the first call.
pub fn binaries() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        // The test itself lies in target/PROFILE/deps.
        let folder = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
        let release = folder.ends_with("release").then_some("--release");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "gkd-client", "-p", "gkd-server"])
            .args(release)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
            .status();
        assert!(status.unwrap().success(), "the binaries build");
        folder
    })
}

/// A port of 127.0.0.1 on which nothing listens now; another one each time.
pub fn free_port() -> u16 {
    gkd_load::ports::free_port().unwrap()
}

/// Waits until something listens there.
pub fn wait_for_port(port: u16) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let start = Instant::now();
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        assert!(start.elapsed() < PATIENCE, "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program of ours that runs until it is dropped. Its log is shown when the test fails.
pub struct Program {
    child: Child,
    log: PathBuf,
    output: PathBuf,
}

impl Program {
    /// Starts a binary, its standard error going to a file of `folder`.
    pub fn start(name: &str, folder: &Path, args: &[&str]) -> Self {
        Self::spawn(Command::new(binaries().join(name)), name, folder, args)
    }

    /// As [`Program::start`], with no more than so many descriptors, which it cannot raise.
    pub fn start_with_descriptors(most: u32, name: &str, folder: &Path, args: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {most} && exec \"$@\""), "sh"]).arg(binaries().join(name));
        Self::spawn(shell, name, folder, args)
    }

    /// As [`Program::start`], with these variables.
    pub fn start_with_variables(
        variables: &[(&str, &str)],
        name: &str,
        folder: &Path,
        args: &[&str],
    ) -> Self {
        let mut command = Command::new(binaries().join(name));
        command.envs(variables.iter().copied());
        Self::spawn(command, name, folder, args)
    }

    fn spawn(mut command: Command, name: &str, folder: &Path, args: &[&str]) -> Self {
        let log = folder.join(format!("{name}-{}.log", free_port()));
        let output = log.with_extension("out");
        let child = command
            .args(args)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(File::create(&output).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn();
        Self { child: child.unwrap(), log, output }
    }

    /// Bytes of memory that it holds now and that it held at the most; `None`, which is said, where the system
    /// does not tell.
    pub fn memory(&self) -> Option<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok();
        let field = |name: &str| {
            let line = status.as_ref()?.lines().find(|line| line.starts_with(name))?;
            Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
        };
        let memory = field("VmRSS:").zip(field("VmHWM:")).map(|(now, most)| Memory { now, most });
        if memory.is_none() {
            println!("skipped: the system does not tell how much memory a process holds");
        }
        memory
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// What it has written to its standard output: a server its access log.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }

    /// Waits until its log says `text`.
    pub fn wait_for_log(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            assert!(start.elapsed() < PATIENCE, "the log never says {text:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends it a signal, by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for its end; the exit status.
    pub fn wait(&mut self) -> i32 {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or(-1);
            }
            assert!(start.elapsed() < PATIENCE, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The folder may have gone first; a second panic would hide the first one.
            let log = std::fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string());
            eprintln!("---- {} ----\n{log}", self.log.display());
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Resident memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// At this moment.
    pub now: u64,
    /// At the most since its start.
    pub most: u64,
}

/// Runs a binary to its end.
pub fn run(name: &str, args: &[&str]) -> Output {
    let command = Command::new(binaries().join(name)).args(args).stdin(Stdio::null()).output();
    command.unwrap()
}

/// A server that runs, with keys and one user of its own.
pub struct Serving {
    /// The server.
    pub server: Program,
    /// Where it listens.
    pub port: u16,
    /// The link that its `init` printed.
    pub link: String,
    /// Configuration and logs.
    pub folder: TempDir,
}

impl Serving {
    /// Takes TLS, and what else `args` say; destinations on loopback are allowed.
    pub fn with(args: &[&str]) -> Self {
        Self::start("", args, Program::start)
    }

    /// As [`Serving::with`], with these lines at the end of its `server.toml`.
    pub fn with_config(lines: &str, args: &[&str]) -> Self {
        Self::start(lines, args, Program::start)
    }

    /// As [`Serving::with`], with no more than so many descriptors.
    pub fn with_descriptors(most: u32, args: &[&str]) -> Self {
        Self::start("", args, |name, folder, args| Program::start_with_descriptors(most, name, folder, args))
    }

    fn start(lines: &str, args: &[&str], start: impl FnOnce(&str, &Path, &[&str]) -> Program) -> Self {
        let folder = TempDir::new().unwrap();
        let port = free_port();
        let dir = folder.path().join("server");
        let dir = dir.to_str().unwrap();
        let init = run("gkd-server", &["init", "--dir", dir, "--public", &format!("127.0.0.1:{port}")]);
        assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
        let link = String::from_utf8(init.stdout).unwrap().trim().to_owned();
        let mut config = File::options().append(true).open(Path::new(dir).join("server.toml")).unwrap();
        config.write_all(lines.as_bytes()).unwrap();
        let listen = format!("127.0.0.1:{port}");
        let mut all = vec!["run", "--dir", dir, "--listen", &listen, "--allow", "127.0.0.0/8"];
        all.extend(args);
        let server = start("gkd-server", folder.path(), &all);
        wait_for_port(port);
        Self { server, port, link, folder }
    }
}

/// A server and a client that is connected to it, with a proxy.
pub struct Setup {
    /// The client, ended before the server.
    pub client: Program,
    /// The server.
    pub server: Program,
    /// Where the client's `mixed` listener is.
    pub proxy: u16,
    /// Where the server listens.
    pub port: u16,
    /// The link that the server's `init` printed.
    pub link: String,
    /// Configuration and logs.
    pub folder: TempDir,
}

impl Setup {
    /// Four tunnels over TLS; destinations on loopback allowed.
    pub fn new() -> Self {
        Self::with(&[], &[])
    }

    /// As [`Setup::new`], with more arguments for both.
    pub fn with(server_args: &[&str], client_args: &[&str]) -> Self {
        let Serving { server, port, link, folder } = Serving::with(server_args);
        let proxy = free_port();
        let listener = format!("mixed://127.0.0.1:{proxy}");
        let mut args = vec![link.as_str(), "-L", &listener];
        args.extend(client_args);
        let client = Program::start("gkd-client", folder.path(), &args);
        wait_for_port(proxy);
        Self { client, server, proxy, port, link, folder }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a tool is there; says so if not.
pub fn has_tool(name: &str) -> bool {
    let there = Command::new(name).arg("--version").output().is_ok();
    if !there {
        println!("skipped: {name} is not installed");
    }
    there
}

/// Runs curl and hands `check` what it prints, as it comes. The exit status of curl.
pub fn curl(args: &[&str], check: impl FnOnce(&mut dyn Read)) -> i32 {
    let mut child = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "300"])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check(&mut child.stdout.take().unwrap());
    let status = child.wait().unwrap();
    let errors = BufReader::new(child.stderr.take().unwrap()).lines();
    errors.map_while(Result::ok).for_each(|line| eprintln!("{line}"));
    status.code().unwrap_or(-1)
}
