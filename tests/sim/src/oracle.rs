//! The part of the oracle that looks at whole sessions, all along: events that come once and for a reason, memory within
//! its budget, deadlines kept, and progress while one tunnel works.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use gkd_proto::id::TunnelId;
use gkd_proto::packet::CloseCode;
use gkd_proto::{CloseCause, Event, Session};

use crate::pair::{CLIENT, Pair, SERVER, name};
use crate::story::Story;
use crate::wire::{Phase, Wire};

/// Sessions are looked into once in so many looks: that takes time in proportion to all that they hold.
const LOOK_INTO_EVERY: u64 = 64;
/// However much is queued, a connection that queues nothing accepts so much (`MIN_SEND_BUFFER` of the session).
const LEAST_SEND_BUFFER: u64 = 4 * 1024;
/// What may be given to an idle tunnel as well because its own is late: so many bytes, and a part of what was sent.
const REPEAT_FREE: u64 = 64 * 1024;
const REPEAT_PART: u64 = 50;
/// While a tunnel works, something is delivered within this and what the paths add to it.
const PROGRESS: Duration = Duration::from_secs(2);
/// How often a session looks at what blocks it (`SWEEP_EVERY`), and how often it may have to until one goes on.
const SWEEPS: Duration = Duration::from_secs(3 * 5);

/// What the oracle remembers.
#[derive(Debug)]
pub struct Watch {
    looks: u64,
    dropped: [BTreeSet<TunnelId>; 2],
    /// Events of the session that come once.
    drained: [bool; 2],
    draining: [bool; 2],
    closed: [Option<CloseCause>; 2],
    /// What the programs asked for.
    pub(crate) asked_to_drain: [bool; 2],
    pub(crate) asked_to_close: [Option<(CloseCode, String)>; 2],
    /// … of the server's session before it was replaced: the Close may still be on its way.
    asked_before: Option<(CloseCode, String)>,
    pub(crate) asked_to_lose: bool,
    /// The server process knows the session.
    pub(crate) server_knows: bool,
    /// The end may send again what had arrived: a tunnel of it died beside others, or its count was not known.
    may_repeat: [bool; 2],
    was_up: [bool; 2],
    /// When a tunnel last came, went, stalled or changed, or a program stopped, went on, left or was told of a reset.
    weather: Instant,
    /// When the end's readers last got something.
    delivered: [Instant; 2],
}

impl Watch {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            looks: 0,
            dropped: Default::default(),
            drained: [false; 2],
            draining: [false; 2],
            closed: [None, None],
            asked_to_drain: [false; 2],
            asked_to_close: [None, None],
            asked_before: None,
            asked_to_lose: false,
            server_knows: false,
            may_repeat: [false; 2],
            was_up: [false; 2],
            weather: now,
            delivered: [now; 2],
        }
    }

    // ---- what happens ----

    pub(crate) fn on_weather(&mut self, now: Instant) {
        self.weather = now;
    }

    pub(crate) fn on_delivery(&mut self, end: usize, now: Instant) {
        self.delivered[end] = now;
    }

    /// `end` has not told its session yet that a tunnel's carrier ended.
    pub(crate) fn on_tunnel_down(&mut self, end: usize, session: &Session, wires: &BTreeMap<TunnelId, Wire>) {
        self.may_repeat[end] |= session.tunnels_up() > 1;
        // A Hello that is on the way does not tell of it.
        if end == CLIENT && wires.values().any(|wire| wire.phase[CLIENT] == Phase::Greeting) {
            self.may_repeat = [true; 2];
        }
    }

    /// The server takes a Hello, which does not tell of tunnels that the client holds for living.
    pub(crate) fn on_hello(&mut self, wires: &BTreeMap<TunnelId, Wire>) {
        let half = |wire: &Wire| wire.phase[SERVER] == Phase::Down && wire.phase[CLIENT] != Phase::Down;
        self.may_repeat[SERVER] |= wires.values().any(half);
    }

    pub(crate) fn on_replaced_server(&mut self) {
        self.server_knows = false;
        self.dropped[SERVER].clear();
        self.drained[SERVER] = false;
        self.draining[SERVER] = false;
        self.closed[SERVER] = None;
        self.asked_to_drain[SERVER] = false;
        self.asked_before = self.asked_to_close[SERVER].take().or(self.asked_before.take());
        self.was_up[SERVER] = false;
    }

    pub(crate) fn on_event(&mut self, end: usize, event: &Event) {
        let once = |flag: &mut bool| assert!(!std::mem::replace(flag, true), "{event:?} comes twice");
        let last = matches!(event, Event::DropTunnel { .. });
        assert!(self.closed[end].is_none() || last, "{} is told {event:?} after Closed", name(end));
        match event {
            Event::DropTunnel { tunnel, .. } => {
                assert!(self.dropped[end].insert(*tunnel), "{event:?} comes twice at {}", name(end));
            }
            Event::Drained => {
                assert!(self.asked_to_drain[end], "Drained without drain");
                once(&mut self.drained[end]);
            }
            Event::Draining { .. } => {
                assert!(self.asked_to_drain[1 - end], "Draining without drain");
                once(&mut self.draining[end]);
            }
            Event::Closed { cause } => {
                let due = match cause {
                    CloseCause::Local => self.asked_to_close[end].is_some(),
                    CloseCause::Remote { code, reason } => {
                        let before = self.asked_before.as_ref().filter(|_| end == CLIENT);
                        let mut asked = self.asked_to_close[1 - end].iter().chain(before);
                        asked.any(|(asked, why)| asked == code && why == reason)
                    }
                    CloseCause::Lost => self.asked_to_lose && end == CLIENT,
                    // Looked at where the time is known.
                    CloseCause::Expired => true,
                    CloseCause::Violation(_) => false,
                    _ => false,
                };
                assert!(due, "{} is closed without a reason: {cause:?}", name(end));
                self.closed[end] = Some(cause.clone());
            }
            _ => {}
        }
    }
}

impl Pair {
    /// The session of `end` has ended: what arrived whole can still be read, all else is lost.
    pub(crate) fn on_closed(&mut self, end: usize, cause: &CloseCause) {
        if *cause == CloseCause::Expired {
            let since = self.ends[end].no_tunnel_since.expect("it expires without tunnels");
            let due = since + self.config[end].resume_for;
            assert!(self.now >= due, "{} expires {:?} too soon", name(end), due - self.now);
        }
        for (id, story) in &mut self.stories {
            if end != story.opener && !story.accepted {
                continue;
            }
            if story.is_over_at(end) {
                story.lost[end] = true;
                continue;
            }
            let kept = self.ends[end].session.connection(self.now, *id).is_some();
            let other = 1 - end;
            let held =
                story.acknowledged[other] && story.reset[other].is_none() && story.told[other].is_none();
            assert!(kept || !held || story.ended[end], "connection {id}: what {} held is lost", name(end));
            story.lost[end] = true;
            if kept {
                self.ends[end].wake(*id);
            } else {
                self.ends[end].programs.remove(id);
            }
        }
    }

    /// Looks at everything that must be true whenever nothing is left to do.
    pub(crate) fn look(&mut self) {
        self.watch.looks += 1;
        for end in [CLIENT, SERVER] {
            self.check_deadline(end);
            self.check_progress(end);
        }
        if self.watch.looks.is_multiple_of(LOOK_INTO_EVERY) {
            self.look_into();
        }
    }

    /// Looks at what the sessions hold.
    pub fn look_into(&self) {
        for end in [CLIENT, SERVER] {
            let (session, config) = (&self.ends[end].session, &self.config[end]);
            session.invariants();
            let stats = session.stats();
            let queue = config.send_queue + LEAST_SEND_BUFFER * stats.connections as u64;
            assert!(stats.queued <= queue, "{} queues {}, the bound is {queue}", name(end), stats.queued);
            let window = config.max_session_window;
            assert!(stats.unread <= window, "{} holds {} unread of {window}", name(end), stats.unread);
            if stats.tunnels_lost == 0 && stats.suspicions == 0 {
                let repeats = stats.resent == 0 || stats.repeated > 0;
                assert!(repeats, "{} sends again, and no tunnel failed or was late", name(end));
            }
            let may = REPEAT_FREE + stats.payload_sent / REPEAT_PART;
            assert!(stats.repeated <= may, "{} repeats {} bytes of {may}", name(end), stats.repeated);
        }
    }

    /// A session without tunnels ends at its deadline.
    fn check_deadline(&mut self, end: usize) {
        let this = &mut self.ends[end];
        let up = this.session.tunnels_up() > 0;
        if up {
            this.no_tunnel_since = None;
        } else if std::mem::replace(&mut self.watch.was_up[end], up) {
            this.no_tunnel_since = Some(self.now);
        }
        self.watch.was_up[end] = up;
        let due = this.no_tunnel_since.map(|since| since + self.config[end].resume_for);
        let over = due.is_some_and(|due| self.now >= due);
        assert!(!over || this.session.is_closed(), "{} lives on without tunnels", name(end));
    }

    /// While a tunnel works, something that is on the way to a reader at `end` gets there.
    fn check_progress(&mut self, end: usize) {
        let other = 1 - end;
        let since = self.watch.weather.max(self.watch.delivered[end]);
        if self.now - since < PROGRESS || self.ends.iter().any(|end| end.session.is_closed()) {
            return;
        }
        let Some(mut bound) = self.patience(other) else { return };
        let programs = &self.ends[end].programs;
        let unread = |(id, story): (_, &Story)| {
            programs.get(id).map_or(story.accepted && !story.is_over_at(end), |program| !program.reads())
        };
        if self.stories.iter().any(unread) {
            bound += self.config[end].blocked_for + SWEEPS;
        }
        let waits = self.stories.iter().find(|(id, story)| {
            let waited = story.waits_since[end].map(|waits| self.now - since.max(waits));
            let reads = programs.get(id).map_or(!story.accepted, |program| program.reads());
            waited.is_some_and(|waited| waited >= bound) && reads && story.is_promised(other)
        });
        if let Some((id, story)) = waits {
            panic!(
                "connection {id}: {} waits longer than {bound:?} while a tunnel works: {story:?}, {:?}",
                name(end),
                self.ends[other].session.stats()
            );
        }
    }

    /// How long the longest pause may be while a tunnel works, if one does: until a silent one is suspect, or dropped,
    /// and what it held has gone over the others.
    fn patience(&self, from: usize) -> Option<Duration> {
        let best =
            self.wires.values().filter(|wire| wire.works()).map(|wire| wire.directions[from].path.rate);
        let best = best.max()?;
        let slow = self.wires.values().map(|wire| {
            let path = wire.directions[from].path;
            6 * path.delay + path.takes(path.socket as u64 + 192 * 1024) + wire.longest_stall / 2
        });
        let suspect = (6 * slow.max()?).min(self.config[from].silent_for);
        let held = self.ends[from].session.stats().in_flight;
        let resend = Duration::from_nanos(2 * held * 1_000_000_000 / best);
        Some(PROGRESS + suspect + resend)
    }

    /// Everything was released and has had the time to settle: nothing is left.
    pub fn assert_balanced(&self) {
        for (this, other) in [(CLIENT, SERVER), (SERVER, CLIENT)] {
            let (here, there) = (&self.ends[this].session, &self.ends[other].session);
            here.assert_at_rest();
            if !here.is_closed() && !there.is_closed() {
                let (charged, counted) = (here.stats().charged, there.stats().charged_there);
                assert_eq!(charged, counted, "what {} charged, and the other end counted", name(this));
            }
        }
    }

    /// Where every death's count was known before anything was sent again, nothing came twice.
    pub fn assert_nothing_repeated(&self) {
        for end in [CLIENT, SERVER] {
            let (here, there) = (self.ends[end].session.stats(), self.ends[1 - end].session.stats());
            let may = self.watch.may_repeat[end] || here.suspicions > 0 || here.repeated > 0;
            assert!(may || there.duplicates == 0, "{} sent {} packets twice", name(end), there.duplicates);
        }
    }

    /// `end` told why its session ended, if it has.
    pub fn closed(&self, end: usize) -> Option<&CloseCause> {
        self.watch.closed[end].as_ref()
    }

    /// `end` asked for a drain, and was told when it was done.
    pub(crate) fn assert_drained(&self) {
        for end in [CLIENT, SERVER] {
            assert_eq!(self.watch.asked_to_drain[end], self.watch.drained[end], "{} is drained", name(end));
            let heard = self.watch.asked_to_drain[end] == self.watch.draining[1 - end];
            assert!(heard, "{} does not know that the other end drains", name(1 - end));
        }
    }
}
