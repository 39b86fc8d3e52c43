//! The handshake of a tunnel over its own wire, which takes time and may be cut at any byte; and the server process,
//! which may be another one than last time.

use std::mem;

use bytes::{Bytes, BytesMut};
use gkd_proto::Session;
use gkd_proto::error::{DialTunnelError, WelcomeError};
use gkd_proto::handshake::{Answer, Hello, RejectCode, decode_answer};
use gkd_proto::id::{BootId, SessionId, Side, TunnelId};

use crate::pair::{CLIENT, End, Pair, SERVER};
use crate::wire::{Path, Phase, Wire};

impl Pair {
    /// The client dials a tunnel: its Hello is on the way.
    ///
    /// # Errors
    /// What the session says against it.
    pub fn dial(&mut self, path: Path) -> Result<TunnelId, DialTunnelError> {
        let hello = self.ends[CLIENT].session.hello(self.now)?;
        let mut bytes = BytesMut::new();
        hello.encode(&mut bytes);
        let mut wire = Wire::new(self.now, path, Phase::Greeting);
        wire.directions[CLIENT].send(self.now, bytes.freeze());
        self.wires.insert(hello.tunnel, wire);
        self.tell(&[6, hello.tunnel.0], || format!("client dials tunnel {}", hello.tunnel));
        Ok(hello.tunnel)
    }

    /// What an end does with the first bytes of a tunnel.
    pub(crate) fn greet(&mut self, end: usize, tunnel: TunnelId) {
        let Some(wire) = self.wires.get_mut(&tunnel) else { return };
        let received = &mut wire.directions[1 - end].received;
        if end == SERVER {
            if let Some(hello) = Hello::decode(received).expect("a Hello") {
                self.on_hello(hello);
            }
        } else if let Some(answer) = decode_answer(received).expect("a Welcome or a Reject") {
            self.on_answer(tunnel, answer);
        }
    }

    fn on_hello(&mut self, hello: Hello) {
        let tunnel = hello.tunnel;
        // The server keeps a session as long as it lives, and makes one where the client does not insist on it.
        let ended = self.ends[SERVER].session.is_closed();
        if ended && !hello.exists {
            self.replace_server();
        }
        let known = mem::replace(&mut self.watch.server_knows, true);
        self.watch.on_hello(&self.wires);
        let answer = if hello.exists && !known {
            self.watch.server_knows = false;
            Err(gkd_proto::handshake::Reject::new(RejectCode::NoSuchSession))
        } else {
            self.ends[SERVER].session.handle_hello(self.now, &hello, self.boot, known)
        };
        let mut bytes = BytesMut::new();
        match &answer {
            Ok(welcome) => welcome.encode(&mut bytes),
            Err(reject) => reject.encode(&mut bytes),
        }
        let welcome = answer.is_ok();
        self.tell(&[7, tunnel.0, u64::from(welcome)], || {
            format!("server answers tunnel {tunnel}: {answer:?}")
        });
        let Some(wire) = self.wires.get_mut(&tunnel) else { return };
        wire.directions[SERVER].send(self.now, Bytes::from(bytes));
        wire.phase[SERVER] = Phase::Up;
        self.watch.on_weather(self.now);
        if !welcome {
            self.hang_up(SERVER, tunnel, true);
        }
    }

    fn on_answer(&mut self, tunnel: TunnelId, answer: Answer) {
        let session = &mut self.ends[CLIENT].session;
        let unknown = match answer {
            Ok(welcome) => match session.handle_welcome(self.now, tunnel, &welcome) {
                Ok(()) => {
                    self.tell(&[8, tunnel.0], || format!("client has tunnel {tunnel}"));
                    if let Some(wire) = self.wires.get_mut(&tunnel) {
                        wire.phase[CLIENT] = Phase::Up;
                    }
                    self.watch.on_weather(self.now);
                    return;
                }
                Err(WelcomeError::OtherBoot) => true,
                Err(WelcomeError::Dead(_)) => false,
                Err(error) => panic!("client finds fault with the Welcome: {error}"),
            },
            Err(reject) => match reject.code {
                RejectCode::NoSuchSession => true,
                RejectCode::Busy => false,
                _ => panic!("the server refuses an honest client: {reject}"),
            },
        };
        self.hear(CLIENT, tunnel);
        let session = &mut self.ends[CLIENT].session;
        if !unknown || session.is_closed() {
            return;
        }
        if session.tunnels_up() == 0 {
            self.watch.asked_to_lose = true;
            session.lose(self.now);
        } else {
            // An old tunnel may only seem to be up: its answer, or its silence, will tell.
            session.probe(self.now);
        }
    }

    /// The client was let in by a server process: it insists on a session that this one knows.
    pub fn knows_server(&self) -> bool {
        self.ends[CLIENT].no_tunnel_since.is_some() || self.ends[CLIENT].session.tunnels_up() > 0
    }

    /// The server process ends and another starts, which knows nothing. The wires are cut; who hears of it is the
    /// caller's to say.
    pub fn restart(&mut self) {
        let tunnels: Vec<_> = self.wires.keys().copied().collect();
        for tunnel in tunnels {
            self.cut_wire(tunnel, 0);
            self.hang_up(SERVER, tunnel, false);
        }
        self.replace_server();
        self.tell(&[9], || "the server starts anew".to_owned());
    }

    fn replace_server(&mut self) {
        for story in self.stories.values_mut() {
            // What the client opened and this server never had may still come to the next.
            story.lost[SERVER] |= story.opener == SERVER || story.accepted;
        }
        self.boot = BootId([self.boot.0[0].wrapping_add(1); 16]);
        let config = self.config[SERVER].clone();
        let seed = u64::from(self.boot.0[0]);
        let session = Session::new(config, Side::Server, SessionId([3; 16]), seed, self.now);
        let auto_accept = self.ends[SERVER].auto_accept;
        self.ends[SERVER] = End { auto_accept, ..End::new(session, self.now) };
        self.watch.on_replaced_server();
    }
}
