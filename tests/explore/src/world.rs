//! The state of a small world: two sessions, the tunnels between them, the programs above; and what a step makes of
//! it.
//!
//! A world is copied before every step. What a step does not touch is shared with the copy.

use std::hash::{Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use gkd_proto::error::WelcomeError;
use gkd_proto::handshake::{Hello, Reject, RejectCode, decode_answer};
use gkd_proto::id::{BootId, SessionId, Side, TunnelId};
use gkd_proto::packet::{Connected, Packet};
use gkd_proto::{Session, SessionConfig, Transmit};

use crate::end::End;
use crate::hash::Fold;
use crate::spec::{Carrier, Limits, Op, Spec};
use crate::step::{CLIENT, NAMES, SERVER, Step};
use crate::wire::{Content, Life, Message, Wire};

/// What a step must not do: the promise that it broke, in words.
pub(crate) type Fault = String;

/// The server process does not change.
const BOOT: BootId = BootId([5; 16]);

/// How far a step that lets time pass may leap: beyond every timer of a session.
const LONGEST_WAIT: Duration = Duration::from_secs(90);
/// So many timers may have no effect before the driver is late: some beyond the 1.05 s after which a tunnel of unknown
/// round trip is suspect, if it is looked at every 50 ms.
const LOOKS: usize = 30;
/// How late it is then.
const LATE: Duration = Duration::from_millis(500);

/// What does not change in a world.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    /// What the world is made of.
    pub spec: Spec,
    /// When it began.
    pub start: Instant,
    /// What each program writes: by connection and end.
    pub contents: Vec<[Bytes; 2]>,
}

impl Ground {
    fn new(spec: Spec) -> Self {
        let content = |connection: usize, end: usize| {
            let script = spec.connections[connection].scripts[end];
            let pieces = script.at_once.iter().chain(script.later).filter(|op| **op == Op::Write).count();
            (0..pieces * spec.piece).map(|offset| pattern(connection, end, offset)).collect::<Bytes>()
        };
        let contents = 0..spec.connections.len();
        let contents = contents.map(|index| [content(index, CLIENT), content(index, SERVER)]).collect();
        Self { spec, start: Instant::now(), contents }
    }
}

/// The byte at `offset` of what an end writes: no two places look alike for long.
fn pattern(connection: usize, end: usize, offset: usize) -> u8 {
    ((offset / 251).wrapping_mul(31) ^ offset ^ (connection * 97) ^ (end * 13)) as u8
}

/// A small world at one moment.
#[derive(Clone, Debug)]
pub struct World {
    pub(crate) ground: Arc<Ground>,
    pub(crate) now: Instant,
    pub(crate) ends: [Rc<End>; 2],
    /// The fingerprints of both ends, as of the last step.
    prints: [u64; 2],
    pub(crate) wires: Vec<Rc<Wire>>,
    pub(crate) left: Limits,
}

impl World {
    /// The world at its beginning: its tunnels are up, the openers have done what they do at once, and what its prologue
    /// says has happened.
    pub fn new(spec: Spec) -> Result<Self, Fault> {
        let ground = Arc::new(Ground::new(spec));
        let now = ground.start;
        let config = Arc::new(SessionConfig {
            connection_window: 256 * 1024,
            max_connection_window: 512 * 1024,
            session_window: 256 * 1024,
            max_session_window: 1024 * 1024,
            // So that every write is accepted whole.
            send_buffer: 1024 * 1024,
            ..SessionConfig::default()
        });
        let end = |side, seed| {
            let session = Session::new(config.clone(), side, SessionId([3; 16]), seed, now);
            Rc::new(End::new(session, spec.connections.len()))
        };
        let ends = [end(Side::Client, 1), end(Side::Server, 2)];
        let mut world = Self { ground, now, ends, prints: [0; 2], wires: Vec::new(), left: spec.limits };
        for _ in 0..spec.tunnels {
            world.dial()?;
            let tunnel = world.wires.len() - 1;
            world.deliver(SERVER, tunnel)?;
            world.deliver(CLIENT, tunnel)?;
        }
        for (index, connection) in spec.connections.iter().enumerate() {
            let opener = connection.opener;
            let opens = connection.scripts[opener].at_once;
            world.at(opener, |end, at| opens.iter().try_for_each(|op| end.take(at, index, *op)))?;
        }
        for step in spec.prologue.split_whitespace() {
            let impossible = || format!("step {step} of the prologue is not possible");
            world = world.apply(step.parse()?)?.ok_or_else(impossible)?;
        }
        Ok(world)
    }

    /// What decides everything that can still happen, as a hash.
    ///
    /// Two worlds with the same hash are taken for the same, and only one is gone on with. They have the same
    /// sessions, but for what [`Session::fingerprint`] leaves out; the same bytes on the way, programs, limits and
    /// time. What is left out decides which tunnel is named first and how large a packet is cut: here any tunnel
    /// may pull at any time, and a piece is a packet, so both are explored or do not matter.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Fold::default();
        hasher.write_u64((self.now - self.ground.start).as_nanos() as u64);
        self.prints.hash(&mut hasher);
        (&self.wires, self.left).hash(&mut hasher);
        hasher.finish()
    }

    /// The steps that may be possible now; [`apply`](Self::apply) tells.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let spec = &self.ground.spec;
        for (tunnel, wire) in self.wires.iter().enumerate() {
            for end in [CLIENT, SERVER] {
                if !wire.to[end].is_empty() {
                    steps.push(Step::Deliver { end, tunnel });
                }
                if wire.life[end] == Life::Up {
                    steps.push(Step::Pull { end, tunnel });
                    steps.extend((self.left.retires > 0).then_some(Step::Retire { end, tunnel }));
                }
                // That the second end hears of a death costs nothing more.
                let may_die = self.left.deaths > 0 || wire.life[1 - end] == Life::Down;
                steps.extend((wire.is_open(end) && may_die).then_some(Step::Down { end, tunnel }));
            }
        }
        for connection in 0..spec.connections.len() {
            for end in [CLIENT, SERVER] {
                steps.extend(self.next_op(end, connection).map(|_| Step::Program { end, connection }));
                let program = &self.ends[end].programs[connection];
                let reads = spec.connections[connection].scripts[end].lazy && program.is_held();
                let reads = reads && !program.waits && !program.at_end;
                steps.extend(reads.then_some(Step::Read { end, connection }));
            }
        }
        steps.extend((self.left.dials > 0 && !self.ends[CLIENT].session.is_closed()).then_some(Step::Dial));
        steps.extend((self.left.waits > 0).then_some(Step::Wait));
        steps
    }

    /// What a program would do next, if it can.
    pub(crate) fn next_op(&self, end: usize, connection: usize) -> Option<Op> {
        let program = &self.ends[end].programs[connection];
        let op = *self.ground.spec.connections[connection].scripts[end].later.get(program.taken)?;
        let can = if op == Op::Open { !self.ends[end].session.is_closed() } else { program.is_held() };
        can.then_some(op)
    }

    /// The world after a step; `None` if the step is not possible, or changes nothing.
    pub fn apply(&self, step: Step) -> Result<Option<Self>, Fault> {
        let mut world = self.clone();
        let done = match step {
            Step::Pull { end, tunnel } => world.pull(end, tunnel, self.ground.spec.room)?,
            Step::Deliver { end, tunnel } => world.deliver(end, tunnel)?,
            Step::Down { end, tunnel } => world.die(end, tunnel)?,
            Step::Retire { end, tunnel } => world.retire(end, tunnel)?,
            Step::Program { end, connection } => world.go_on(end, connection)?,
            Step::Read { end, connection } => {
                world.at(end, |end, at| end.read(at, connection))?;
                true
            }
            Step::Dial if self.left.dials > 0 => {
                world.left.dials -= 1;
                world.dial()?
            }
            Step::Wait if self.left.waits > 0 => {
                world.left.waits -= 1;
                world.wait()?
            }
            Step::Dial | Step::Wait => false,
        };
        if done {
            world.look_at_what_changed(self)?;
        }
        Ok(done.then_some(world))
    }

    // ---- the steps ----

    /// Has something happen at one end, and then its driver and programs do what they do at once.
    pub(crate) fn at(
        &mut self,
        end: usize,
        act: impl FnOnce(&mut End, &mut At<'_>) -> Result<(), Fault>,
    ) -> Result<bool, Fault> {
        let [client, server] = &mut self.ends;
        let (here, there) = if end == CLIENT { (client, &*server) } else { (server, &*client) };
        let mut at = At { end, now: self.now, ground: &self.ground, other: there, wires: &mut self.wires };
        let here = Rc::make_mut(here);
        act(here, &mut at)
            .and_then(|()| here.settle(&mut at))
            .map_err(|fault| format!("{}: {fault}", NAMES[end]))
    }

    /// A tunnel pulls some `room` bytes. False if there was nothing.
    pub(crate) fn pull(&mut self, end: usize, tunnel: usize, room: usize) -> Result<bool, Fault> {
        if self.wires[tunnel].life[end] != Life::Up || !self.ends[end].may_transmit(self.now, tunnel) {
            return Ok(false);
        }
        let mut batch = Bytes::new();
        let (named, patient) = (self.ends[end].ready != 0, self.ends[end].session.is_patient());
        self.at(end, |end, at| {
            batch = end.poll(at.now, tunnel, room);
            Ok(())
        })?;
        if batch.is_empty() {
            return Ok(false);
        }
        if !named && holds_urgent(&batch, patient) {
            return Err(format!(
                "{}: tunnel {tunnel} has something to send, and no tunnel was named",
                NAMES[end]
            ));
        }
        let wire = Rc::make_mut(&mut self.wires[tunnel]);
        let lost = self.ground.spec.carrier == Carrier::Losing && !wire.to[1 - end].is_empty();
        if wire.life[1 - end] != Life::Down && !lost {
            wire.to[1 - end].push_back(Message::new(Content::Packets, batch));
        }
        Ok(true)
    }

    /// What is in front of a tunnel's line arrives.
    pub(crate) fn deliver(&mut self, end: usize, tunnel: usize) -> Result<bool, Fault> {
        let Some(message) = Rc::make_mut(&mut self.wires[tunnel]).to[end].pop_front() else {
            return Ok(false);
        };
        let mut bytes = BytesMut::from(&message.bytes[..]);
        let id = TunnelId(tunnel as u64);
        match message.content {
            Content::Hello => self.welcome(tunnel, &mut bytes)?,
            Content::Answer => self.answer(tunnel, &mut bytes)?,
            Content::Packets => {
                _ = self.at(end, |end, at| {
                    end.session.handle_recv(at.now, id, &mut bytes).map_err(|error| error.to_string())?;
                    if bytes.is_empty() { Ok(()) } else { Err("bytes of a whole batch were left".into()) }
                })?
            }
        }
        Ok(true)
    }

    /// The server answers a Hello.
    fn welcome(&mut self, tunnel: usize, bytes: &mut BytesMut) -> Result<(), Fault> {
        let hello = Hello::decode(bytes).ok().flatten().ok_or("a Hello that does not parse")?;
        let mut answer = BytesMut::new();
        let mut life = Life::Up;
        self.at(SERVER, |end, at| {
            match end.session.handle_hello(at.now, &hello, BOOT, hello.exists) {
                Ok(welcome) => welcome.encode(&mut answer),
                Err(reject) => {
                    life = Life::Down;
                    reject.encode(&mut answer);
                }
            }
            at.wire(tunnel).life[SERVER] = life;
            Ok(())
        })?;
        let wire = Rc::make_mut(&mut self.wires[tunnel]);
        if life == Life::Down {
            wire.to[SERVER].clear();
        }
        if wire.is_open(CLIENT) {
            wire.to[CLIENT].push_back(Message::new(Content::Answer, answer.freeze()));
        }
        Ok(())
    }

    /// The client hears the server's answer.
    fn answer(&mut self, tunnel: usize, bytes: &mut BytesMut) -> Result<(), Fault> {
        let answer = decode_answer(bytes).ok().flatten().ok_or("an answer that does not parse")?;
        let id = TunnelId(tunnel as u64);
        let gone = self.ends[SERVER].session.is_closed();
        self.at(CLIENT, |end, at| match answer {
            Ok(welcome) => match end.session.handle_welcome(at.now, id, &welcome) {
                Ok(()) => {
                    at.wire(tunnel).life[CLIENT] = Life::Up;
                    Ok(())
                }
                // It was named dead in a Gone that overtook the Welcome.
                Err(WelcomeError::Dead(_)) => {
                    at.wire(tunnel).close(CLIENT);
                    end.session.handle_tunnel_down(at.now, id);
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            },
            Err(Reject { code: RejectCode::NoSuchSession, .. }) if gone => {
                at.wire(tunnel).close(CLIENT);
                end.session.handle_tunnel_down(at.now, id);
                if end.session.tunnels_up() == 0 {
                    end.session.lose(at.now);
                }
                Ok(())
            }
            Err(reject) => Err(format!("the server rejects tunnel {tunnel}: {reject}")),
        })?;
        Ok(())
    }

    fn die(&mut self, end: usize, tunnel: usize) -> Result<bool, Fault> {
        let wire = &self.wires[tunnel];
        let first = wire.life[1 - end] != Life::Down;
        if !wire.is_open(end) || (first && self.left.deaths == 0) {
            return Ok(false);
        }
        self.left.deaths -= u8::from(first);
        self.hear_death(end, tunnel)?;
        Ok(true)
    }

    /// An end hears that a tunnel is dead.
    pub(crate) fn hear_death(&mut self, end: usize, tunnel: usize) -> Result<(), Fault> {
        self.at(end, |end, at| {
            let number = at.end;
            at.wire(tunnel).close(number);
            end.session.handle_tunnel_down(at.now, TunnelId(tunnel as u64));
            Ok(())
        })?;
        Ok(())
    }

    fn retire(&mut self, end: usize, tunnel: usize) -> Result<bool, Fault> {
        if self.left.retires == 0 || self.wires[tunnel].life[end] != Life::Up {
            return Ok(false);
        }
        self.left.retires -= 1;
        self.at(end, |end, at| {
            end.session.retire_tunnel(at.now, TunnelId(tunnel as u64));
            Ok(())
        })?;
        Ok(true)
    }

    /// A program does what it wants to do next.
    pub(crate) fn go_on(&mut self, end: usize, connection: usize) -> Result<bool, Fault> {
        let Some(op) = self.next_op(end, connection) else { return Ok(false) };
        self.at(end, |end, at| {
            end.programs[connection].taken += 1;
            end.take(at, connection, op)
        })?;
        Ok(true)
    }

    /// The client dials one more tunnel.
    pub(crate) fn dial(&mut self) -> Result<bool, Fault> {
        let mut bytes = BytesMut::new();
        self.at(CLIENT, |end, at| {
            let hello = end.session.hello(at.now).map_err(|error| error.to_string())?;
            hello.encode(&mut bytes);
            Ok(())
        })?;
        self.wires.push(Rc::new(Wire::dialled(Message::new(Content::Hello, bytes.freeze()))));
        Ok(true)
    }

    /// Time passes until a timer shows an effect (an event, or a tunnel that is named), at most for `LONGEST_WAIT`.
    ///
    /// A tunnel that holds packets and is not suspect yet is looked at every 50 ms for 20 s. After `LOOKS` timers
    /// without an effect the driver is as late as a busy machine is, by `LATE`.
    fn wait(&mut self) -> Result<bool, Fault> {
        let end = self.now + LONGEST_WAIT;
        for looks in 0.. {
            let due = self.next_timers();
            let Some(next) = due.into_iter().flatten().min() else { return Ok(false) };
            let next = if looks < LOOKS { next } else { next.max(self.now + LATE) };
            if next > end {
                return Ok(false);
            }
            if self.pass(due, next)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// When each end's session wants to be called.
    pub(crate) fn next_timers(&self) -> [Option<Instant>; 2] {
        [CLIENT, SERVER].map(|end| self.ends[end].session.poll_timeout())
    }

    /// It is `now`; whether the timers that are `due` by then show an effect.
    pub(crate) fn pass(&mut self, due: [Option<Instant>; 2], now: Instant) -> Result<bool, Fault> {
        self.now = self.now.max(now);
        let mut shown = false;
        for end in [CLIENT, SERVER] {
            if due[end].is_some_and(|due| due <= self.now) {
                shown |= self.at(end, |end, at| {
                    end.session.handle_timeout(at.now);
                    Ok(())
                })?;
            }
        }
        Ok(shown)
    }

    /// What must hold in every state, beyond what the ends check as they go.
    fn look_at_what_changed(&mut self, before: &Self) -> Result<(), Fault> {
        for end in [CLIENT, SERVER] {
            if !Rc::ptr_eq(&self.ends[end], &before.ends[end]) {
                self.ends[end].session.invariants();
                self.prints[end] = self.ends[end].fingerprint();
            }
        }
        self.assert_sane()
    }

    /// Nobody knows of more than was sent.
    pub(crate) fn assert_sane(&self) -> Result<(), Fault> {
        if self.ends.iter().any(|end| end.session.is_closed()) {
            return Ok(());
        }
        let stats = [self.ends[CLIENT].session.stats(), self.ends[SERVER].session.stats()];
        for end in [CLIENT, SERVER] {
            let (charged, there) = (stats[end].charged, stats[1 - end].charged_there);
            if there > charged {
                return Err(format!("{}: charged {charged}, and {there} arrived", NAMES[end]));
            }
        }
        Ok(())
    }

    /// Whether the session has ended at one end or both.
    pub(crate) fn is_closed(&self) -> bool {
        self.ends.iter().any(|end| end.session.is_closed())
    }
}

/// Where something happens: the end, the time, and what an end sees of the rest.
pub(crate) struct At<'a> {
    pub(crate) end: usize,
    pub(crate) now: Instant,
    pub(crate) ground: &'a Ground,
    pub(crate) other: &'a End,
    wires: &'a mut Vec<Rc<Wire>>,
}

impl At<'_> {
    pub(crate) fn wire(&mut self, tunnel: usize) -> &mut Wire {
        Rc::make_mut(&mut self.wires[tunnel])
    }

    pub(crate) fn is_open(&self, tunnel: usize) -> bool {
        self.wires.get(tunnel).is_some_and(|wire| wire.is_open(self.end))
    }
}

/// Whether a batch holds a packet that must not wait. An acknowledgement also goes out before it is due, if a tunnel
/// is polled; and a good answer may wait while the session is `patient`.
fn holds_urgent(batch: &Bytes, patient: bool) -> bool {
    let mut bytes = BytesMut::from(&batch[..]);
    let mut packets = std::iter::from_fn(|| Packet::decode(&mut bytes).ok().flatten());
    packets.any(|packet| {
        let waits = patient && matches!(packet, Packet::Connected(Connected { result: Ok(()), .. }));
        packet.is_counted() && !waits
    })
}

/// The bytes of a batch.
pub(crate) fn bytes_of(out: &mut Transmit) -> Bytes {
    out.copy_to_bytes(out.remaining())
}
