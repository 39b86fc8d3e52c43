//! What the tests of the binary share: a server in this process, and the binary with its log at hand.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gkd_core::identity::{PublicKey, SecretKey};
use gkd_core::link::Link;
use gkd_core::proto::handshake::{Reject, RejectCode};
use gkd_core::proto::packet::CloseCode;
use gkd_core::{Admission, Server};
use gkd_proxy::rules::parse_range;
use gkd_proxy::{Dialer, Exit, RelayConfig, Rules};

/// Longer than anything that is waited for here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub(crate) fn link(server: &PublicKey, user: &SecretKey, address: &str) -> String {
    Link::new(*server, user.clone(), vec![address.parse().unwrap()]).to_string()
}

/// A port that was free a moment ago; another one each time.
pub(crate) fn free_port() -> u16 {
    gkd_load::ports::free_port().unwrap()
}

/// The binary, without anything of this machine's environment but what its runtime needs.
pub(crate) fn client(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gkd-client"));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    command.env("XDG_CONFIG_HOME", PathBuf::from("/nonexistent"));
    command.stdin(Stdio::null());
    command
}

/// The binary at work. Killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child =
            client(arguments, environment).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line of the log that has this in it.
    #[track_caller]
    pub(crate) fn expect(&mut self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
        panic!("no line with {part:?} in:\n{}", self.seen.join("\n"));
    }

    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end; the exit status.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end; it said:\n{}", self.seen.join("\n"));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A server with one user, whose exit reaches loopback.
pub(crate) struct TestServer {
    key: PublicKey,
    user: SecretKey,
    address: SocketAddr,
    server: Arc<Server>,
    revoked: Arc<AtomicBool>,
    /// Its tasks end with it.
    _runtime: tokio::runtime::Runtime,
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::start_on(0, SecretKey::generate(), SecretKey::generate())
    }

    pub(crate) fn start_on(port: u16, key: SecretKey, user: SecretKey) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let known = user.public();
        let revoked = Arc::new(AtomicBool::new(false));
        let is_revoked = revoked.clone();
        let server = runtime.block_on(async {
            let authorise =
                move |peer: &PublicKey| match *peer == known && !is_revoked.load(Ordering::Relaxed) {
                    true => Ok(Admission::default()),
                    false => Err(Reject::new(RejectCode::UnknownUser)),
                };
            let builder = Server::builder().key(key).listen(("127.0.0.1", port)).authorise(authorise);
            Arc::new(builder.bind().await.unwrap())
        });
        let (key, address) = (server.key(), server.local_addr().unwrap());
        let accepting = server.clone();
        runtime.spawn(async move {
            let rules = Rules::allow([parse_range("127.0.0.0/8").unwrap()]);
            let exit = Arc::new(Exit::new(Dialer::new(rules), RelayConfig::default()));
            while let Some((connection, _)) = accepting.accept().await {
                let exit = exit.clone();
                tokio::spawn(async move { exit.serve(connection).await });
            }
        });
        Self { key, user, address, server, revoked, _runtime: runtime }
    }

    /// Removes the user, as a server does that reads its configuration anew.
    pub(crate) fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
        for session in self.server.sessions_of(&self.user.public()) {
            session.close(CloseCode::REVOKED, "");
        }
    }

    pub(crate) fn key(&self) -> PublicKey {
        self.key
    }

    pub(crate) fn user(&self) -> SecretKey {
        self.user.clone()
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn link(&self) -> String {
        link(&self.key, &self.user, &self.address())
    }
}
