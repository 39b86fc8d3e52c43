//! A directory for a server's files, and the server as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use gkd_core::link::Link;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A bound on waiting, for a machine that is very busy. No test asserts how long something takes.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// The directory of a server that need not exist yet.
pub(crate) struct Files {
    _temp: TempDir,
    pub(crate) dir: PathBuf,
}

impl Files {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self { dir: temp.path().join("gkd"), _temp: temp }
    }

    /// With keys and a first user, on any port of the loopback; and the first link, whose port is not right.
    pub(crate) fn initialised() -> (Self, Link) {
        let files = Self::new();
        let link = files.ok(&["init", "--public", "127.0.0.1:1"]);
        files.edit(|text| text.replace(r#"["0.0.0.0:9990", "[::]:9990"]"#, r#"["127.0.0.1:0"]"#));
        (files, link.trim_end().parse().unwrap())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gkd-server"));
        command.args(arguments).stdin(Stdio::null()).env("GKD_DIR", &self.dir);
        for variable in ["RUST_LOG", "GKD_LISTEN", "GKD_PUBLIC", "GKD_ALLOW", "GKD_PLAIN", "GKD_LOG_FORMAT"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs a command that ends by itself.
    pub(crate) fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs a command that ends well; its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that fails with this status; its standard error.
    pub(crate) fn fails(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty(), "{arguments:?} wrote to standard output");
        stderr(&output)
    }

    pub(crate) fn config(&self) -> String {
        std::fs::read_to_string(self.dir.join("server.toml")).unwrap()
    }

    pub(crate) fn edit(&self, edit: impl FnOnce(String) -> String) {
        std::fs::write(self.dir.join("server.toml"), edit(self.config())).unwrap();
    }

    /// Starts the server and waits until it listens.
    pub(crate) fn run(&self, arguments: &[&str]) -> Running {
        let mut all = vec!["run"];
        all.extend(arguments);
        let mut running = Running::start(self.command(&all));
        let line = running.wait_for("listening on ");
        let (_, addresses) = line.split_once("listening on ").unwrap();
        let first = addresses.split([',', ' ', '"']).next().unwrap();
        running.port = first.rsplit(':').next().unwrap().parse().unwrap();
        running
    }

    /// Starts the server with `-q`, so that it does not say where it listens, and waits until it does.
    pub(crate) fn run_quietly(&self) -> Running {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut running = Running::start(self.command(&["run", "-q", "--listen", &free.to_string()]));
        running.port = free.port();
        let deadline = Instant::now() + LONG;
        while TcpStream::connect(free).is_err() {
            assert!(Instant::now() < deadline, "it does not listen");
            thread::sleep(Duration::from_millis(10));
        }
        running
    }
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server that runs; ended when it is dropped.
pub(crate) struct Running {
    child: Child,
    stdout: ChildStdout,
    lines: Receiver<String>,
    /// Lines that were read already.
    pub(crate) log: Vec<String>,
    /// The first port that it listens on.
    pub(crate) port: u16,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                sender.send(line).ok();
            }
        });
        Self { child, stdout, lines, log: Vec::new(), port: 0 }
    }

    /// The next line of the log that has these words.
    pub(crate) fn wait_for(&mut self, words: &str) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(words) {
                        return line;
                    }
                }
                Err(error) => panic!("{words:?} was not logged ({error}), but {:#?}", self.log),
            }
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it ends by itself: the exit status, and all that it wrote to standard output.
    pub(crate) fn ended(&mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + LONG;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end: {:#?}", self.log);
            thread::sleep(Duration::from_millis(10));
        }
        while let Ok(line) = self.lines.recv_timeout(LONG) {
            self.log.push(line);
        }
        let mut stdout = String::new();
        self.stdout.read_to_string(&mut stdout).unwrap();
        (self.child.wait().unwrap().code(), stdout)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
