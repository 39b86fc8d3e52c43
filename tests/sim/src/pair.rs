//! The stage: two sessions, their programs, the wires between them, and virtual time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gkd_proto::id::{BootId, ConnectionId, SessionId, Side, TunnelId};
use gkd_proto::packet::DialError;
use gkd_proto::{DropReason, Event, Session, SessionConfig};

use crate::oracle::Watch;
use crate::program::{BULK, Program};
use crate::random::Random;
use crate::story::{Allowed, Story};
use crate::trace::Trace;
use crate::wire::{Path, Phase, Wire};

/// Index of the end that dials tunnels.
pub const CLIENT: usize = 0;
/// Index of the end that lets them in.
pub const SERVER: usize = 1;

/// Rounds of work at one point in time, above which something goes round in circles.
const MOST_ROUNDS: usize = 10_000;

/// One end: its session and the programs that use it.
pub struct End {
    /// The session.
    pub session: Session,
    /// What uses it, by connection.
    pub programs: BTreeMap<ConnectionId, Program>,
    /// What it told, but for Readable and Writable.
    pub events: Vec<Event>,
    /// What is accepted gets a reader and the answer at once; else it waits in `accepted`.
    pub auto_accept: bool,
    /// The reader of what is accepted reads.
    pub auto_read: bool,
    /// What is accepted at once gets this answer.
    pub answer: Result<(), DialError>,
    /// Connections that came and were given to nobody yet.
    pub accepted: VecDeque<ConnectionId>,
    /// Since when it has no tunnel.
    pub no_tunnel_since: Option<Instant>,
    pub(crate) to_poll: Vec<TunnelId>,
    pub(crate) ready: Vec<ConnectionId>,
}

impl End {
    pub(crate) fn new(session: Session, now: Instant) -> Self {
        Self {
            no_tunnel_since: (session.side() == Side::Server).then_some(now),
            session,
            programs: BTreeMap::new(),
            events: Vec::new(),
            auto_accept: true,
            auto_read: true,
            answer: Ok(()),
            accepted: VecDeque::new(),
            to_poll: Vec::new(),
            ready: Vec::new(),
        }
    }

    /// The program of a connection has something to do.
    pub(crate) fn wake(&mut self, id: ConnectionId) {
        if let Some(program) = self.programs.get_mut(&id)
            && !std::mem::replace(&mut program.queued, true)
        {
            self.ready.push(id);
        }
    }
}

/// Two sessions in virtual time.
pub struct Pair {
    /// The time.
    pub now: Instant,
    /// When it began.
    pub start: Instant,
    /// The ends.
    pub ends: [End; 2],
    /// What the programs of both ends did, by connection.
    pub stories: BTreeMap<ConnectionId, Story>,
    /// Resets that need no program's reason.
    pub allowed: Allowed,
    /// The start of the server process.
    pub boot: BootId,
    /// What happened.
    pub trace: Trace,
    /// What the oracle remembers.
    pub watch: Watch,
    pub(crate) wires: BTreeMap<TunnelId, Wire>,
    pub(crate) config: [Arc<SessionConfig>; 2],
}

impl Pair {
    /// Two sessions with tunnels over these paths.
    pub fn new(paths: &[Path]) -> Self {
        Self::with_config(paths, SessionConfig::default())
    }

    /// The same with a configuration for both ends.
    pub fn with_config(paths: &[Path], config: SessionConfig) -> Self {
        let mut pair = Self::with_configs([config.clone(), config], 1);
        paths.iter().for_each(|path| _ = pair.add_tunnel(*path));
        pair
    }

    /// Two sessions without tunnels.
    pub fn with_configs(config: [SessionConfig; 2], seed: u64) -> Self {
        let now = Instant::now();
        let config = config.map(|config| Arc::new(config.clamped()));
        let session = |end: usize, side| {
            Session::new(config[end].clone(), side, SessionId([3; 16]), seed.wrapping_add(end as u64), now)
        };
        let ends =
            [End::new(session(CLIENT, Side::Client), now), End::new(session(SERVER, Side::Server), now)];
        Self {
            now,
            start: now,
            ends,
            stories: BTreeMap::new(),
            allowed: Allowed::default(),
            boot: BootId([5; 16]),
            trace: Trace::default(),
            watch: Watch::new(now),
            wires: BTreeMap::new(),
            config,
        }
    }

    /// Virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// Puts a line into the trace.
    pub fn tell(&mut self, numbers: &[u64], words: impl FnOnce() -> String) {
        let time = self.elapsed();
        self.trace.tell(time, numbers, words);
    }

    // ---- programs ----

    fn act(&mut self, end: usize) -> bool {
        let mut any = false;
        let mut ready = std::mem::take(&mut self.ends[end].ready);
        ready.sort_unstable();
        for id in ready {
            let this = &mut self.ends[end];
            let Some(program) = this.programs.get_mut(&id) else { continue };
            program.queued = false;
            let Some(story) = self.stories.get_mut(&id) else { continue };
            let Some(mut connection) = this.session.connection(self.now, id) else { continue };
            let (read, sent) = (story.read[end], story.sent[end]);
            let (ended, finished) = (story.ended[end], story.finished[end]);
            any |= program.act(end, &mut connection, story);
            let leaves = program.leaves(end, story);
            (CLIENT..=SERVER).for_each(|end| story.note_waiting(end, self.now));
            let (read, sent) = (story.read[end] - read, story.sent[end] - sent);
            let (ended, finished) = (story.ended[end] != ended, story.finished[end] != finished);
            if read > 0 || ended {
                self.watch.on_delivery(end, self.now);
            }
            if read > 0 || sent > 0 || ended || finished {
                self.tell(&[3, end as u64, id.0, read, sent], || {
                    let all = if ended { " and the end" } else { "" };
                    let done = if finished { " and finishes" } else { "" };
                    format!("{} reads {read}{all}, writes {sent}{done} on {id}", name(end))
                });
            }
            if leaves {
                any = true;
                self.dismiss(end, id);
            }
        }
        any
    }

    // ---- time ----

    /// `end` closes a tunnel's carrier, with what is unsent or behind it.
    pub(crate) fn hang_up(&mut self, end: usize, tunnel: TunnelId, gently: bool) {
        let Some(wire) = self.wires.get_mut(&tunnel) else { return };
        self.watch.on_weather(self.now);
        wire.phase[end] = Phase::Down;
        wire.directions[end].close(gently);
        wire.directions[1 - end].ignore();
        if wire.phase == [Phase::Down; 2] {
            self.wires.remove(&tunnel);
        }
    }

    /// Runs until `done`, at most for `limit` of virtual time; whether it was.
    pub fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + limit;
        self.settle();
        while !done(self) {
            if !self.advance(end) {
                return done(self);
            }
        }
        true
    }

    /// Runs for so much virtual time.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Goes to when something happens next, and does it; false when that is not before `end`, where it is then.
    pub fn advance(&mut self, end: Instant) -> bool {
        let next = self.next_time().filter(|next| *next <= end);
        self.now = self.now.max(next.unwrap_or(end));
        self.settle();
        next.is_some()
    }

    fn next_time(&self) -> Option<Instant> {
        let timers = self.ends.iter().filter_map(|end| end.session.poll_timeout());
        let wires = self.wires.values().flat_map(|wire| &wire.directions);
        timers.chain(wires.filter_map(|direction| direction.next_time())).min()
    }

    /// Does all that is due now.
    pub fn settle(&mut self) {
        let mut rounds = 0;
        while self.round() {
            rounds += 1;
            assert!(rounds < MOST_ROUNDS, "an endless loop at {:?}", self.elapsed());
        }
        self.look();
    }

    fn round(&mut self) -> bool {
        let mut any = self.act(CLIENT) | self.act(SERVER);
        for end in [CLIENT, SERVER] {
            any |= self.time(end);
            any |= self.events(end);
            any |= self.transmit(end);
            any |= self.deliver(end);
        }
        any
    }

    fn time(&mut self, end: usize) -> bool {
        let session = &mut self.ends[end].session;
        let due = session.poll_timeout().is_some_and(|due| due <= self.now);
        if due {
            session.handle_timeout(self.now);
            let next = session.poll_timeout();
            assert!(next.is_none_or(|next| next > self.now), "a timer of {} stays due", name(end));
        }
        due
    }

    fn events(&mut self, end: usize) -> bool {
        let mut any = false;
        while let Some(event) = self.ends[end].session.poll_event() {
            any = true;
            self.event(end, event);
        }
        any
    }

    fn event(&mut self, end: usize, event: Event) {
        self.watch.on_event(end, &event);
        match event {
            Event::Readable { connection } => {
                if let Some(program) = self.ends[end].programs.get_mut(&connection) {
                    program.on_readable(connection);
                }
                self.ends[end].wake(connection);
                return;
            }
            Event::Writable { connection } => {
                if let Some(program) = self.ends[end].programs.get_mut(&connection) {
                    program.on_writable(connection);
                }
                self.ends[end].wake(connection);
                return;
            }
            Event::Accepted { connection, ref destination } => {
                self.story(connection).on_accepted(connection, end, destination);
                self.accept(end, connection);
            }
            Event::Connected { connection, result } => {
                self.story(connection).on_connected(connection, end, result);
                if result.is_err() {
                    self.ends[end].programs.remove(&connection);
                }
            }
            Event::Acknowledged { connection } => {
                self.story(connection).on_acknowledged(connection, end);
                self.ends[end].wake(connection);
            }
            Event::Reset { connection, code } => {
                let allowed = self.allowed;
                self.story(connection).on_reset(connection, end, code, allowed);
                // What it held of the session's credit is free, and others go on.
                self.watch.on_weather(self.now);
                self.ends[end].programs.remove(&connection);
                assert!(self.ends[end].session.connection(self.now, connection).is_none());
            }
            Event::DropTunnel { tunnel, reason } => {
                let gently = matches!(reason, DropReason::SessionEnded | DropReason::Settled);
                if reason != DropReason::Named {
                    self.watch.on_tunnel_down(end, &self.ends[end].session, &self.wires);
                }
                self.ends[end].session.handle_tunnel_down(self.now, tunnel);
                self.hang_up(end, tunnel, gently);
            }
            Event::Closed { ref cause } => self.on_closed(end, cause),
            Event::Datagram { connection } => {
                let waits = &mut self.story(connection).waits_for_datagram[end];
                assert!(std::mem::take(waits), "connection {connection}: Datagram, and nobody waits");
                self.take_datagrams(end, connection);
            }
            _ => {}
        }
        self.tell(&[5, end as u64, kind_of(&event)], || format!("{} is told {event:?}", name(end)));
        self.ends[end].events.push(event);
    }

    fn story(&mut self, id: ConnectionId) -> &mut Story {
        self.stories.get_mut(&id).unwrap_or_else(|| panic!("connection {id} was never opened"))
    }

    fn accept(&mut self, end: usize, id: ConnectionId) {
        if !self.ends[end].auto_accept {
            self.ends[end].accepted.push_back(id);
            return;
        }
        let answer = self.ends[end].answer;
        let mut program = Program::new(BULK, Random::new(!id.0));
        program.stopped = !self.ends[end].auto_read;
        self.engage(end, id, program);
        self.answer(end, id, answer);
    }

    // ---- carriers ----

    /// Lets the tunnels of one end pull, and their sockets send.
    fn transmit(&mut self, end: usize) -> bool {
        let mut any = false;
        let this = &mut self.ends[end];
        this.to_poll.extend(this.session.tunnels_to_poll());
        for tunnel in std::mem::take(&mut this.to_poll) {
            let Some(wire) = self.wires.get_mut(&tunnel).filter(|wire| wire.phase[end] == Phase::Up) else {
                continue;
            };
            let direction = &mut wire.directions[end];
            let room = direction.room();
            if room == 0 {
                this.to_poll.push(tunnel);
                continue;
            }
            if this.session.poll_transmit(self.now, tunnel, room, &mut direction.socket) {
                any = true;
                this.to_poll.push(tunnel);
            }
            if let Some(sample) = direction.sample(self.now) {
                this.session.handle_path(self.now, tunnel, sample);
            }
        }
        for wire in self.wires.values_mut() {
            any |= wire.directions[end].flow(self.now);
        }
        any
    }

    /// Hands one end what has arrived.
    fn deliver(&mut self, end: usize) -> bool {
        let mut any = false;
        let now = self.now;
        let arrivals = self.wires.iter_mut().filter_map(|(tunnel, wire)| {
            let direction = &mut wire.directions[1 - end];
            let arrived = direction.arrive(now);
            let ended = direction.ended(now) && wire.phase[end] != Phase::Down;
            (arrived || ended).then_some((*tunnel, arrived, ended))
        });
        let arrivals: Vec<_> = arrivals.collect();
        for (tunnel, arrived, ended) in arrivals {
            any = true;
            if arrived {
                self.take(end, tunnel);
            }
            if ended {
                self.hear(end, tunnel);
            }
        }
        any
    }

    fn take(&mut self, end: usize, tunnel: TunnelId) {
        let Some(wire) = self.wires.get_mut(&tunnel) else { return };
        let received = &mut wire.directions[1 - end].received;
        match wire.phase[end] {
            Phase::Down => received.clear(),
            Phase::Greeting => {
                self.greet(end, tunnel);
                if self.wires.get(&tunnel).is_some_and(|wire| {
                    wire.phase[end] == Phase::Up && !wire.directions[1 - end].received.is_empty()
                }) {
                    self.take(end, tunnel);
                }
            }
            Phase::Up => match self.ends[end].session.handle_recv(self.now, tunnel, received) {
                // An event that has not been taken yet drops it.
                Ok(()) | Err(gkd_proto::error::TunnelError::NotUp(_)) => {}
                Err(error) => panic!("{} finds fault with the other end: {error}", name(end)),
            },
        }
    }
}

/// What an end is called.
pub fn name(end: usize) -> &'static str {
    if end == CLIENT { "client" } else { "server" }
}

/// What makes an event differ from another, for the trace.
fn kind_of(event: &Event) -> u64 {
    match event {
        Event::Accepted { connection, .. } => 1 << 32 | connection.0,
        Event::Connected { connection, .. } => 2 << 32 | connection.0,
        Event::Acknowledged { connection } => 3 << 32 | connection.0,
        Event::Reset { connection, code } => 4 << 32 | code.0 << 40 | connection.0,
        Event::DropTunnel { tunnel, .. } => 5 << 32 | tunnel.0,
        _ => 6 << 32,
    }
}
