//! Performs a scenario: does each step when its time comes, dials again what fell, answers what came; then has good
//! weather until everything that was promised has arrived, and looks at what remains.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gkd_proto::id::{ConnectionId, TunnelId};
use gkd_proto::packet::{CloseCode, DialError};

use crate::pair::{CLIENT, Pair, SERVER, name};
use crate::program::Program;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::step::{Plan, Step};
use crate::story::{Allowed, Story};
use crate::wire::{FAST, Path, Phase};

/// How long a dial waits for its Welcome.
const DIAL_TIMEOUT: Duration = Duration::from_secs(4);
/// In good weather everything that was promised has arrived within this, in virtual time: the longest time-outs, and
/// slow paths.
const GOOD_WEATHER: Duration = Duration::from_secs(180);
/// What is left then settles within this and the sessions' own times.
const REST: Duration = Duration::from_secs(40);

/// What a run was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Equal for equal runs.
    pub hash: u64,
    /// Bytes that were accepted from programs and read by programs.
    pub sent: u64,
    /// See `sent`.
    pub read: u64,
    /// Connections.
    pub connections: u64,
    /// Virtual time.
    pub time: Duration,
    /// A session ended before good weather came.
    pub ended: bool,
}

/// What went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What, where in the code, and when in virtual time.
    pub what: String,
    /// When, in virtual time.
    pub at: Duration,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, what, at } = self;
        writeln!(f, "seed {seed} failed: {what}")?;
        writeln!(f, "alone: cargo run --release -p gkd-sim -- --seed {seed} --trace")?;
        Scenario::new(*seed).tell(f, *at)
    }
}

/// Runs the scenario of a seed. `shown` puts every line of the trace on standard output.
///
/// # Errors
/// What the oracle, or the session itself, found wrong.
pub fn run(seed: u64, shown: bool) -> Result<Report, Failure> {
    let scenario = Scenario::new(seed);
    let elapsed = Cell::new(Duration::ZERO);
    let result = quietly(|| {
        let mut stage = Stage::new(&scenario, shown);
        stage.perform(&scenario, &elapsed)
    });
    let at = elapsed.get();
    result.map_err(|what| Failure { seed, what: format!("{what}, after {at:?} of virtual time"), at })
}

/// Something that is to happen at a known time.
enum Act {
    Step(Step),
    Flow(TunnelId, [bool; 2]),
    Hear(usize, TunnelId),
    Dial(usize),
    GiveUp(TunnelId),
    Answer(usize, ConnectionId, Result<(), DialError>),
    GoOn(usize, ConnectionId),
}

/// A path over which the client wants a tunnel.
struct Slot {
    path: Path,
    again: Option<Duration>,
    tunnel: Option<TunnelId>,
}

struct Stage {
    pair: Pair,
    random: Random,
    agenda: BTreeMap<(Instant, u64), Act>,
    acts: u64,
    slots: Vec<Slot>,
    plans: BTreeMap<ConnectionId, Plan>,
    parted_until: Instant,
    /// Good weather has come: programs finish what they do.
    good: bool,
    /// The server that the client knew is no more; its ids are not used again.
    server_gone: bool,
}

impl Stage {
    fn new(scenario: &Scenario, shown: bool) -> Self {
        let mut pair = Pair::with_configs(scenario.config.clone(), scenario.seed);
        pair.trace.shown = shown;
        pair.ends.iter_mut().for_each(|end| end.auto_accept = false);
        let few = scenario.config.iter().any(|config| config.max_connections < 1000);
        let drains = scenario.steps.iter().any(|(_, step)| matches!(step, Step::Drain { .. }));
        let timed_out = scenario.config.iter().any(|config| config.half_closed_for < Duration::from_secs(60));
        pair.allowed = Allowed { timed_out, busy: few || drains };
        let mut stage = Self {
            parted_until: pair.now,
            pair,
            random: Random::new(!scenario.seed),
            agenda: BTreeMap::new(),
            acts: 0,
            slots: Vec::new(),
            plans: BTreeMap::new(),
            good: false,
            server_gone: false,
        };
        let mut at = Duration::ZERO;
        for (pause, step) in &scenario.steps {
            at += *pause;
            stage.later(at, Act::Step(step.clone()));
        }
        stage
    }

    fn perform(&mut self, scenario: &Scenario, elapsed: &Cell<Duration>) -> Report {
        let all: Duration = scenario.steps.iter().map(|(pause, _)| *pause).sum();
        self.run_until(all, elapsed, |_| false);
        let ended = self.any_closed();
        if ended {
            self.end_of_sessions(elapsed)
        } else {
            self.good_weather(elapsed)
        }
        let stories = self.pair.stories.values();
        Report {
            hash: self.pair.trace.hash(),
            sent: stories.clone().map(|story| story.sent[0] + story.sent[1]).sum(),
            read: stories.clone().map(|story| story.read[0] + story.read[1]).sum(),
            connections: stories.len() as u64,
            time: self.pair.elapsed(),
            ended,
        }
    }

    fn any_closed(&self) -> bool {
        let [client, server] = [CLIENT, SERVER].map(|end| self.pair.ends[end].session.is_closed());
        // A client that no server ever knew begins anew with another.
        self.server_gone || client || (server && self.pair.knows_server())
    }

    // ---- time ----

    fn later(&mut self, after: Duration, act: Act) {
        self.acts += 1;
        self.agenda.insert((self.pair.now + after, self.acts), act);
    }

    /// Performs until `done`, at most for `limit`; whether it was.
    fn run_until(&mut self, limit: Duration, elapsed: &Cell<Duration>, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.pair.now + limit;
        loop {
            self.attend();
            elapsed.set(self.pair.elapsed());
            if done(self) {
                return true;
            }
            let act = self.agenda.first_key_value().map(|((at, _), _)| *at).filter(|at| *at <= end);
            if self.pair.advance(act.unwrap_or(end)) {
                continue;
            }
            if act.is_none() {
                return done(self);
            }
            while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= self.pair.now) {
                let act = entry.remove();
                self.act(act);
            }
            self.pair.settle();
        }
    }

    /// Sees to what came by itself: connections to be served, tunnels to be dialled again.
    fn attend(&mut self) {
        for end in [CLIENT, SERVER] {
            while let Some(id) = self.pair.ends[end].accepted.pop_front() {
                self.serve(end, id);
            }
        }
        for index in 0..self.slots.len() {
            let Some(tunnel) = self.slots[index].tunnel else { continue };
            let down = self.pair.wires.get(&tunnel).is_none_or(|wire| wire.phase[CLIENT] == Phase::Down);
            if down {
                self.slots[index].tunnel = None;
                if let Some(again) = self.slots[index].again {
                    self.later(again, Act::Dial(index));
                }
            }
        }
        self.pair.settle();
    }

    fn serve(&mut self, end: usize, id: ConnectionId) {
        let Some(plan) = self.plans.get(&id).cloned() else { return };
        if self.pair.stories[&id].is_over_at(end) {
            return;
        }
        let mut program = program(&plan, end, id);
        program.reply = plan.reply;
        if self.good {
            finish_up(&mut program);
        }
        // Who refuses neither reads nor writes.
        if plan.answer.is_ok() {
            self.pair.engage(end, id, program);
        }
        if plan.answers_after.is_zero() {
            self.pair.answer(end, id, plan.answer);
        } else {
            self.later(plan.answers_after, Act::Answer(end, id, plan.answer));
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Step(step) => self.step(step),
            Act::Flow(tunnel, ways) => {
                if let Some(wire) = self.pair.wires.get(&tunnel) {
                    let still = [0, 1].map(|way| wire.directions[way].stalled && !ways[way]);
                    self.pair.stall_ways(tunnel, still);
                }
            }
            Act::Hear(end, tunnel) => self.pair.hear(end, tunnel),
            Act::Dial(slot) => self.dial(slot),
            Act::GiveUp(tunnel) => {
                if self.pair.wires.get(&tunnel).is_some_and(|wire| wire.phase[CLIENT] == Phase::Greeting) {
                    self.pair.hear(CLIENT, tunnel);
                }
            }
            Act::Answer(end, id, answer) => self.pair.answer(end, id, answer),
            Act::GoOn(end, id) => self.pair.pause(end, id, false),
        }
    }

    // ---- steps ----

    fn step(&mut self, step: Step) {
        self.pair.tell(&[10], || format!("---- {step}"));
        match step {
            Step::Dial { path, again } => {
                self.slots.push(Slot { path, again, tunnel: None });
                self.dial(self.slots.len() - 1);
            }
            Step::Cut { tunnel, keep, heard } => {
                if let Some(tunnel) = self.tunnel(tunnel) {
                    self.cut(tunnel, keep, heard);
                }
            }
            Step::Stall { tunnel, ways, lasts } => {
                if let Some(tunnel) = self.tunnel(tunnel) {
                    self.pair.stall_ways(tunnel, ways);
                    if let Some(lasts) = lasts {
                        self.later(lasts, Act::Flow(tunnel, ways));
                    }
                }
            }
            Step::Part { lasts, heard } => self.part(lasts, heard),
            Step::Retire { end, tunnel } => {
                if let Some(tunnel) = self.tunnel(tunnel) {
                    self.pair.retire(end, tunnel);
                }
            }
            Step::Probe { end } => self.pair.ends[end].session.probe(self.pair.now),
            Step::Open { end, plan } => self.open(end, *plan),
            Step::Stop { end, connection, lasts } => {
                if let Some(id) = self.connection(end, connection) {
                    self.pair.pause(end, id, true);
                    self.later(lasts, Act::GoOn(end, id));
                }
            }
            Step::Reset { end, connection, code } => {
                if let Some(id) = self.connection(end, connection) {
                    self.pair.reset(end, id, code);
                }
            }
            Step::Release { end, connection } => {
                if let Some(id) = self.connection(end, connection) {
                    self.pair.release(end, id);
                }
            }
            Step::Datagrams { end, connection, count, size } => {
                if let Some(id) = self.connection(end, connection) {
                    (0..count).for_each(|_| self.pair.send_datagram(end, id, size));
                    self.pair.take_datagrams(1 - end, id);
                }
            }
            Step::Drain { end, reason } => self.pair.drain(end, reason),
            Step::Close { end } => self.pair.close(end, CloseCode::DONE, "the play is over"),
            Step::Restart { heard } => self.restart(heard),
        }
    }

    fn tunnel(&self, nth: u64) -> Option<TunnelId> {
        let tunnels: Vec<_> = self.pair.wires.keys().copied().collect();
        tunnels.get((nth % tunnels.len().max(1) as u64) as usize).copied()
    }

    fn connection(&self, end: usize, nth: u64) -> Option<ConnectionId> {
        let programs = &self.pair.ends[end].programs;
        programs.keys().nth((nth % programs.len().max(1) as u64) as usize).copied()
    }

    fn cut(&mut self, tunnel: TunnelId, keep: u64, heard: [Option<Duration>; 2]) {
        self.pair.cut_wire(tunnel, keep);
        for (end, heard) in heard.into_iter().enumerate() {
            if let Some(after) = heard {
                self.later(after, Act::Hear(end, tunnel));
            }
        }
    }

    fn part(&mut self, lasts: Duration, heard: [Option<Duration>; 2]) {
        self.parted_until = self.parted_until.max(self.pair.now + lasts);
        let tunnels: Vec<_> = self.pair.wires.keys().copied().collect();
        for tunnel in tunnels {
            if heard == [None, None] {
                self.pair.stall(tunnel, true);
                self.later(lasts, Act::Flow(tunnel, [true; 2]));
            } else {
                let keep = self.random.pick(&[0, 50, 100]);
                self.cut(tunnel, keep, heard);
            }
        }
    }

    fn restart(&mut self, heard: Option<Duration>) {
        let tunnels: Vec<_> = self.pair.wires.keys().copied().collect();
        // One that no client ever knew can be begun anew.
        self.server_gone |= self.pair.knows_server();
        self.pair.restart();
        for tunnel in tunnels {
            if let Some(after) = heard {
                self.later(after, Act::Hear(CLIENT, tunnel));
            }
        }
    }

    fn dial(&mut self, slot: usize) {
        if self.pair.ends[CLIENT].session.is_closed() {
            return;
        }
        let Slot { path, again, .. } = self.slots[slot];
        match self.pair.dial(path) {
            Ok(tunnel) => {
                self.slots[slot].tunnel = Some(tunnel);
                self.later(DIAL_TIMEOUT, Act::GiveUp(tunnel));
                if self.pair.now < self.parted_until {
                    self.pair.cut_wire(tunnel, 0);
                }
            }
            Err(_) => self.later(again.unwrap_or(DIAL_TIMEOUT), Act::Dial(slot)),
        }
    }

    fn open(&mut self, end: usize, plan: Plan) {
        if end == SERVER && self.server_gone {
            return;
        }
        let destination: Vec<u8> =
            (0..plan.destination).map(|at| b'a' + (at as u64 + self.acts) as u8 % 26).collect();
        let now = self.pair.now;
        let Ok(id) = self.pair.ends[end].session.open(now, Bytes::from(destination.clone())) else { return };
        let Allowed { busy, timed_out } = self.pair.allowed;
        let story = Story { may_end_by_itself: busy || timed_out, ..Story::new(id, &destination) };
        self.pair.stories.insert(id, story);
        self.pair.tell(&[11, id.0], || format!("{} opens {id}", name(end)));
        self.pair.engage(end, id, program(&plan, end, id));
        self.plans.insert(id, plan);
    }

    // ---- the end ----

    /// Two good tunnels come up, everything flows, every program goes on: what was promised arrives, and then nothing
    /// is left.
    fn good_weather(&mut self, elapsed: &Cell<Duration>) {
        self.pair.tell(&[12], || "---- good weather".to_owned());
        self.good = true;
        self.parted_until = self.pair.now;
        self.slots.iter_mut().for_each(|slot| slot.again = None);
        self.agenda.retain(|_, act| !matches!(act, Act::Dial(_) | Act::GoOn(..)));
        let again = Some(Duration::from_secs(1));
        self.slots.extend([0, 1].map(|_| Slot { path: FAST, again, tunnel: None }));
        let slots = self.slots.len();
        (slots - 2..slots).for_each(|slot| self.dial(slot));
        for end in [CLIENT, SERVER] {
            let ids: Vec<_> = self.pair.ends[end].programs.keys().copied().collect();
            ids.into_iter().for_each(|id| self.pair.instruct(end, id, finish_up));
        }
        let arrived = self.run_until(GOOD_WEATHER, elapsed, |stage| {
            stage.any_closed()
                || stage.pair.ends.iter().all(|end| end.accepted.is_empty()) && stage.missing().is_none()
        });
        if self.any_closed() {
            return self.end_of_sessions(elapsed);
        }
        assert!(arrived, "in good weather this did not arrive: {:?}", self.missing());
        self.run_until(REST, elapsed, |stage| stage.not_told().is_none());
        assert_eq!(self.not_told(), None, "programs that were not told what became of a connection");
        self.pair.release_all();
        let times = self.longest(|config| config.silent_for + config.ping_every);
        self.run_until(REST + times, elapsed, |_| false);
        // What came only meanwhile.
        self.pair.release_all();
        self.run_until(REST, elapsed, |_| false);
        self.pair.look_into();
        self.pair.assert_balanced();
        self.pair.assert_nothing_repeated();
        self.pair.assert_drained();
        self.pair.close(CLIENT, CloseCode::DONE, "all is told");
        self.run_until(Duration::from_secs(5), elapsed, |_| false);
        assert!(self.pair.closed(SERVER).is_some(), "the server hears the end");
        let up = self.pair.ends.iter().map(|end| end.session.tunnels_up()).sum::<usize>();
        assert_eq!(up, 0, "tunnels that outlive their session");
    }

    /// A session has ended at one end, or was lost with its process: within its times so has the other.
    fn end_of_sessions(&mut self, elapsed: &Cell<Duration>) {
        let times = self.longest(|config| config.silent_for + config.ping_every + config.resume_for);
        let left = self.parted_until.saturating_duration_since(self.pair.now);
        self.run_until(left + times + REST, elapsed, |_| false);
        for end in [CLIENT, SERVER] {
            assert!(self.pair.ends[end].session.is_closed(), "{} lives on alone", name(end));
        }
        for end in [CLIENT, SERVER] {
            let ids: Vec<_> = self.pair.ends[end].programs.keys().copied().collect();
            ids.into_iter().for_each(|id| self.pair.instruct(end, id, finish_up));
            let unread = self.pair.ends[end].programs.keys().find(|id| !self.pair.finished(end, **id));
            assert!(unread.is_none(), "connection {unread:?} was kept at {} and has no end", name(end));
        }
        self.pair.release_all();
        for end in [CLIENT, SERVER] {
            assert_eq!(self.pair.ends[end].session.connections(), 0, "connections at {}", name(end));
        }
    }

    fn longest(&self, of: impl Fn(&gkd_proto::SessionConfig) -> Duration) -> Duration {
        self.pair.config.iter().map(|config| of(config)).max().unwrap()
    }

    /// A direction that was promised and did not arrive whole.
    fn missing(&self) -> Option<(&'static str, ConnectionId, &Story)> {
        let stories = self.pair.stories.iter();
        let mut directions = stories.flat_map(|(id, story)| [(CLIENT, *id, story), (SERVER, *id, story)]);
        let missing = directions.find(|(from, _, story)| story.is_promised(*from) && !story.ended[1 - *from]);
        missing.map(|(from, id, story)| (name(from), id, story))
    }

    /// A program that finished and does not know that it is held, or opened and does not know the answer.
    fn not_told(&self) -> Option<(&'static str, ConnectionId)> {
        let ends = [CLIENT, SERVER].into_iter();
        let mut programs = ends.flat_map(|end| self.pair.ends[end].programs.keys().map(move |id| (end, *id)));
        let waits = programs.find(|(end, id)| {
            let story = &self.pair.stories[id];
            let held = !story.finished[*end] || story.acknowledged[*end];
            let answered = story.opener != *end || story.answer.is_none() || story.connected;
            !held || !answered
        });
        waits.map(|(end, id)| (name(end), id))
    }
}

/// The program of one end of a connection, as planned.
fn program(plan: &Plan, end: usize, id: ConnectionId) -> Program {
    let mut program = Program::new(plan.style[end], Random::new(id.0 << 1 | end as u64));
    program.left = plan.bytes[end];
    program.finish = plan.finish[end];
    program.leaving = plan.leaving[end];
    program
}

fn finish_up(program: &mut Program) {
    program.stopped = false;
    program.finish = true;
}

thread_local! {
    /// This thread performs: a panic is the failure of its run, and told with it.
    static PERFORMS: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `what` and turns its panic into words, without printing it.
fn quietly<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if PERFORMS.get() {
                let place = info.location().map(|place| format!(" ({}:{})", place.file(), place.line()));
                PLACE.replace(place.unwrap_or_default());
            } else {
                before(info);
            }
        }));
    });
    PERFORMS.set(true);
    let result = catch_unwind(AssertUnwindSafe(what));
    PERFORMS.set(false);
    result.map_err(|panic| words(&*panic) + &PLACE.take())
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}
