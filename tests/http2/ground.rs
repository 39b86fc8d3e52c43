//! What the tests stand on ([`Ground`]): a `gkd-server` with a front without TLS and a target behind it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Instant;

use gkd_tests::{Program, Serving, free_port, wait_for_port};

use crate::peer::{PATIENCE, Peer};
use crate::target::Target;

/// A server with a front.
pub(crate) struct Ground {
    serving: Serving,
    pub(crate) port: u16,
    pub(crate) target: Target,
}

impl Ground {
    /// With lines of `[http]` and of its `[[service]]`.
    pub(crate) fn with(http: &str, service: &str) -> Self {
        Self::on(Target::start(), http, service)
    }

    /// As [`Ground::with`], with this target.
    pub(crate) fn on(target: Target, http: &str, service: &str) -> Self {
        let port = free_port();
        let config = format!(
            "\n[http]\nlisten = [\"http://127.0.0.1:{port}\"]\naccess_log = \"text\"\n{http}\n\
             [[service]]\nname = \"all\"\nhosts = [\"*\"]\ntargets = [\"http://127.0.0.1:{}\"]\n{service}\n",
            target.port
        );
        let serving = Serving::with_config(&config, &[]);
        wait_for_port(port);
        Self { serving, port, target }
    }

    /// A visitor of HTTP/2 who has begun well.
    pub(crate) fn peer(&self) -> Peer {
        Peer::with(self.port, &[])
    }

    pub(crate) fn server(&self) -> &Program {
        &self.serving.server
    }

    /// Another visitor is served as if nothing were.
    pub(crate) fn is_unharmed(&self, by: &str) {
        let answer = self.say(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello"), "behind {by}: {answer:?}");
    }

    /// Says something in lines; what comes back, to its end.
    pub(crate) fn say(&self, bytes: &[u8]) -> String {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        // What is refused may not be read to its end, and then its end may be a reset.
        let _ = socket.write_all(bytes);
        let mut answer = Vec::new();
        if let Err(error) = socket.read_to_end(&mut answer) {
            assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no end comes");
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Waits until something is so.
    pub(crate) fn until(&self, what: &str, mut is: impl FnMut() -> bool) {
        let began = Instant::now();
        while !is() {
            assert!(began.elapsed() < PATIENCE, "{what} does not come\n{}", self.server().output());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
