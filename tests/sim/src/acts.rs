//! What programs and tests do on the stage: connections, tunnels, and what befalls these.

use std::time::Duration;

use bytes::Bytes;
use gkd_proto::id::{ConnectionId, TunnelId};
use gkd_proto::packet::{CloseCode, DialError, ResetCode};
use gkd_proto::{Event, PathSample};

use crate::pair::{CLIENT, Pair, SERVER, name};
use crate::program::{BULK, Program};
use crate::random::Random;
use crate::story::Story;
use crate::wire::{Path, Phase, Wire};

impl Pair {
    // ---- programs ----

    /// Opens a connection at `end` that writes `bytes` and finishes, and reads whatever comes.
    pub fn open(&mut self, end: usize, bytes: u64) -> ConnectionId {
        let id = self.begin(end);
        self.write(end, id, bytes, true);
        id
    }

    /// Opens a connection at `end` on which nothing is written yet.
    pub fn open_idle(&mut self, end: usize) -> ConnectionId {
        let id = self.begin(end);
        self.settle();
        id
    }

    fn begin(&mut self, end: usize) -> ConnectionId {
        let id = self.ends[end].session.open(self.now, Bytes::from_static(b"test")).unwrap();
        self.adopt(end, id, b"test");
        id
    }

    /// Gives a connection that was opened at `end` a program.
    pub fn adopt(&mut self, end: usize, id: ConnectionId, destination: &[u8]) {
        self.stories.insert(id, Story::new(id, destination));
        self.engage(end, id, Program::new(BULK, Random::new(id.0)));
    }

    /// Has `program` use a connection at `end`.
    pub fn engage(&mut self, end: usize, id: ConnectionId, program: Program) {
        self.ends[end].programs.insert(id, program);
        self.note_stopped(end, id);
        self.ends[end].wake(id);
    }

    /// A reader that stands still may cost its connection.
    fn note_stopped(&mut self, end: usize, id: ConnectionId) {
        let stopped = self.ends[end].programs.get(&id).is_some_and(|program| program.stopped);
        if let Some(story) = self.stories.get_mut(&id) {
            story.stopped[end] |= stopped;
        }
    }

    /// Changes the program of a connection at `end`, which then does what it can.
    pub fn instruct(&mut self, end: usize, id: ConnectionId, how: impl FnOnce(&mut Program)) {
        if let Some(program) = self.ends[end].programs.get_mut(&id) {
            how(program);
            self.note_stopped(end, id);
            self.ends[end].wake(id);
            self.watch.on_weather(self.now);
        }
        self.settle();
    }

    /// Has `end` write `bytes` more on a connection, then finish or not.
    pub fn write(&mut self, end: usize, id: ConnectionId, bytes: u64, finish: bool) {
        self.instruct(end, id, |program| {
            program.left += bytes;
            program.finish = finish;
        });
    }

    /// Has the reader of a connection at `end` stop or go on.
    pub fn pause(&mut self, end: usize, id: ConnectionId, paused: bool) {
        self.instruct(end, id, |program| program.stopped = paused);
    }

    /// How many bytes `end` has read.
    pub fn read(&self, end: usize, id: ConnectionId) -> u64 {
        self.stories.get(&id).map_or(0, |story| story.read[end])
    }

    /// `end` has read everything up to the Finish.
    pub fn finished(&self, end: usize, id: ConnectionId) -> bool {
        self.stories.get(&id).is_some_and(|story| story.ended[end])
    }

    /// The program at `end` answers a connection that came.
    pub fn answer(&mut self, end: usize, id: ConnectionId, answer: Result<(), DialError>) {
        let (Some(story), Some(connection)) =
            (self.stories.get_mut(&id), self.ends[end].session.connection(self.now, id))
        else {
            return;
        };
        connection.connected(answer);
        story.answer = Some(answer);
        self.watch.on_weather(self.now);
        if answer.is_err() {
            self.ends[end].programs.remove(&id);
        }
    }

    /// The program at `end` drops a connection.
    pub fn release(&mut self, end: usize, id: ConnectionId) {
        self.dismiss(end, id);
        self.settle();
    }

    /// The program at `end` resets a connection.
    pub fn reset(&mut self, end: usize, id: ConnectionId, code: ResetCode) {
        self.leave(end, id);
        if let Some(connection) = self.ends[end].session.connection(self.now, id) {
            connection.reset(code);
            self.stories.get_mut(&id).unwrap().reset[end] = Some(code);
            self.tell(&[1, end as u64, id.0, code.0], || format!("{} resets {id} ({code})", name(end)));
        }
        self.settle();
    }

    pub(crate) fn dismiss(&mut self, end: usize, id: ConnectionId) {
        self.leave(end, id);
        if let Some(connection) = self.ends[end].session.connection(self.now, id) {
            connection.release();
            let story = self.stories.get_mut(&id).unwrap();
            story.finished[end] = true;
            story.released[end] = true;
            story.note_waiting(1 - end, self.now);
            self.tell(&[2, end as u64, id.0], || format!("{} drops {id}", name(end)));
        }
    }

    /// The program at `end` is done with a connection. If it did not read, what it held of the session's credit is
    /// free only now, and others go on.
    fn leave(&mut self, end: usize, id: ConnectionId) {
        let reads = self.ends[end].programs.remove(&id).is_some_and(|program| program.reads());
        if !reads {
            self.watch.on_weather(self.now);
        }
    }

    /// The programs of both ends drop what they have, and what came and nobody has taken.
    pub fn release_all(&mut self) {
        let ids: Vec<_> = self.stories.keys().copied().collect();
        for id in ids {
            self.dismiss(CLIENT, id);
            self.dismiss(SERVER, id);
        }
        self.settle();
    }

    /// Ends what is left at both ends and checks that the accounts are whole.
    pub fn finish(mut self) {
        self.release_all();
        self.run_for(Duration::from_secs(2));
        self.assert_balanced();
    }

    /// Whether `end` told this event.
    pub fn saw(&self, end: usize, event: &Event) -> bool {
        self.ends[end].events.contains(event)
    }

    /// The program at `end` sends a datagram of so many bytes and its number.
    pub fn send_datagram(&mut self, end: usize, id: ConnectionId, size: usize) {
        let (Some(story), Some(mut connection)) =
            (self.stories.get_mut(&id), self.ends[end].session.connection(self.now, id))
        else {
            return;
        };
        let payload = story.send_datagram(id, end, size);
        connection.send_datagram(Bytes::new(), payload.into());
    }

    /// The program at `end` takes the datagrams that came, and waits for more.
    pub fn take_datagrams(&mut self, end: usize, id: ConnectionId) {
        let (Some(story), Some(mut connection)) =
            (self.stories.get_mut(&id), self.ends[end].session.connection(self.now, id))
        else {
            return;
        };
        while let Some(datagram) = connection.recv_datagram() {
            story.take_datagram(id, end, &datagram.payload);
        }
        story.waits_for_datagram[end] = true;
    }

    // ---- the session ----

    /// `end` drains.
    pub fn drain(&mut self, end: usize, reason: u64) {
        self.watch.asked_to_drain[end] |= !self.ends[end].session.is_closed();
        self.ends[end].session.drain(self.now, reason);
        self.settle();
    }

    /// `end` closes the session.
    pub fn close(&mut self, end: usize, code: CloseCode, reason: &str) {
        self.watch.asked_to_close[end] = Some((code, reason.to_owned()));
        self.ends[end].session.close(self.now, code, reason);
        self.settle();
    }

    /// `end` retires a tunnel.
    pub fn retire(&mut self, end: usize, tunnel: TunnelId) {
        if let Some(wire) = self.wires.get_mut(&tunnel) {
            wire.retired |= wire.phase[end] == Phase::Up;
            self.ends[end].session.retire_tunnel(self.now, tunnel);
            self.watch.on_weather(self.now);
        }
        self.settle();
    }

    // ---- tunnels ----

    /// Brings up a tunnel, the handshake taking no time.
    pub fn add_tunnel(&mut self, path: Path) -> TunnelId {
        let now = self.now;
        let hello = self.ends[CLIENT].session.hello(now).unwrap();
        let welcome = self.ends[SERVER].session.handle_hello(now, &hello, self.boot, hello.exists).unwrap();
        self.add_wire(hello.tunnel, path);
        self.ends[CLIENT].session.handle_welcome(now, hello.tunnel, &welcome).unwrap();
        self.settle();
        hello.tunnel
    }

    /// Puts up the carrier of a tunnel whose handshake the caller does.
    pub fn add_wire(&mut self, tunnel: TunnelId, path: Path) {
        self.wires.insert(tunnel, Wire::new(self.now, path, Phase::Up));
        self.watch.on_weather(self.now);
    }

    /// The tunnels that are up at the client.
    pub fn tunnels(&self) -> Vec<TunnelId> {
        self.ends[CLIENT].session.stats().tunnels.iter().map(|tunnel| tunnel.tunnel).collect()
    }

    /// Tells both ends the kernel's round trip of a tunnel.
    pub fn kernel_says(&mut self, tunnel: TunnelId, round_trip: Duration) {
        for end in &mut self.ends {
            let sample = PathSample { round_trip: Some(round_trip), ..PathSample::default() };
            end.session.handle_path(self.now, tunnel, sample);
        }
    }

    /// This tunnel's path is another from now on.
    pub fn change(&mut self, tunnel: TunnelId, path: Path) {
        if let Some(wire) = self.wires.get_mut(&tunnel) {
            wire.directions.iter_mut().for_each(|direction| direction.path = path);
            self.watch.on_weather(self.now);
        }
    }

    /// Nothing moves on this tunnel in either direction, or goes on; the ends hear nothing of it.
    pub fn stall(&mut self, tunnel: TunnelId, stalled: bool) {
        self.stall_ways(tunnel, [stalled; 2]);
    }

    /// The same for what the client sends, and what the server does.
    pub fn stall_ways(&mut self, tunnel: TunnelId, stalled: [bool; 2]) {
        if let Some(wire) = self.wires.get_mut(&tunnel) {
            wire.stall(self.now, stalled);
            self.watch.on_weather(self.now);
        }
        self.settle();
    }

    /// The tunnel is cut: what is on the way is lost, both ends hear of it.
    pub fn cut(&mut self, tunnel: TunnelId) {
        self.cut_wire(tunnel, 0);
        self.hear(CLIENT, tunnel);
        self.hear(SERVER, tunnel);
        self.settle();
    }

    /// The tunnel is cut, and only `end` hears of it.
    pub fn cut_at(&mut self, end: usize, tunnel: TunnelId) {
        self.cut_wire(tunnel, 0);
        self.hear(end, tunnel);
        self.settle();
    }

    /// The tunnel is cut, and `keep` percent of what is on the way still arrive. Nobody hears of it.
    pub fn cut_wire(&mut self, tunnel: TunnelId, keep: u64) {
        if let Some(wire) = self.wires.get_mut(&tunnel) {
            wire.directions.iter_mut().for_each(|direction| direction.cut(keep));
            self.watch.on_weather(self.now);
        }
    }

    /// `end` hears that a tunnel's carrier ended.
    pub fn hear(&mut self, end: usize, tunnel: TunnelId) {
        if self.wires.get(&tunnel).is_none_or(|wire| wire.phase[end] == Phase::Down) {
            return;
        }
        self.watch.on_tunnel_down(end, &self.ends[end].session, &self.wires);
        self.tell(&[4, end as u64, tunnel.0], || format!("{} hears the end of tunnel {tunnel}", name(end)));
        self.ends[end].session.handle_tunnel_down(self.now, tunnel);
        self.hang_up(end, tunnel, false);
    }
}
