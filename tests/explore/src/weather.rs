//! Good weather: from any state, with one tunnel that works, everything that was accepted arrives, or both ends know
//! that it will not, and when the programs have dropped what they hold, nothing remains.
//!
//! Deterministic, and with a driver that polls only what was named: a wake-up that was lost shows here.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::program::{Fate, promise_kept};
use crate::spec::{Carrier, Op};
use crate::step::{CLIENT, NAMES, SERVER};
use crate::wire::Life;
use crate::world::{Fault, World};

/// What comes before the good weather.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// What is on the way arrives, unless its tunnel is dead at the other end.
    Calm,
    /// Every tunnel dies at both ends, and what is on the way is lost.
    Loss,
}

/// What a tunnel pulls at a time, in bytes.
const ROOM: usize = 64 * 1024;
/// Longer than an acknowledgement, a suspicion and the Pings take.
const SHORT: Duration = Duration::from_secs(5);
/// Longer than a silent tunnel is kept.
const LONG: Duration = Duration::from_secs(40);
/// Longer than a session lives without a tunnel.
const EXPIRY: Duration = Duration::from_secs(100);
/// No small world moves more often than this without time passing.
const MOST_TURNS: usize = 10_000;

/// Has good weather come over a copy of `world`; the promise that is broken, if one is.
pub fn good_weather(world: &World, before: Before) -> Result<(), Fault> {
    let mut world = world.clone();
    if world.ground.spec.carrier != Carrier::Ordered {
        Arc::make_mut(&mut world.ground).spec.carrier = Carrier::Ordered;
    }
    world.after(before)?;
    if world.is_closed() {
        return world.both_end();
    }
    world.dial()?;
    world.flow()?;
    world.pass_for(SHORT)?;
    while world.programs_go_on()? {
        world.flow()?;
    }
    world.pass_for(SHORT)?;
    world.assert_promise()?;
    world.release_all()?;
    world.flow()?;
    world.pass_for(LONG)?;
    world.assert_nothing_left()
}

impl World {
    fn after(&mut self, before: Before) -> Result<(), Fault> {
        for tunnel in 0..self.wires.len() {
            Rc::make_mut(&mut self.wires[tunnel]).lose_late_hello();
            for end in [CLIENT, SERVER] {
                let wire = &self.wires[tunnel];
                let dead = before == Before::Loss || wire.life[1 - end] == Life::Down;
                if dead && wire.is_open(end) {
                    self.hear_death(end, tunnel)?;
                }
            }
            Rc::make_mut(&mut self.wires[tunnel]).lose_late_hello();
        }
        Ok(())
    }

    /// Carries and reads until nothing moves.
    fn flow(&mut self) -> Result<(), Fault> {
        for _ in 0..MOST_TURNS {
            let mut moved = false;
            for tunnel in 0..self.wires.len() {
                for end in [CLIENT, SERVER] {
                    moved |= self.deliver(end, tunnel)?;
                    let named = self.ends[end].ready & 1 << tunnel != 0;
                    moved |= named && self.pull(end, tunnel, ROOM)?;
                    // The driver hears that the other end has closed the carrier.
                    let wire = &self.wires[tunnel];
                    let over = wire.life[1 - end] == Life::Down && wire.to[end].is_empty();
                    if over && wire.is_open(end) {
                        self.hear_death(end, tunnel)?;
                        moved = true;
                    }
                }
            }
            moved |= self.readers_read()?;
            if !moved {
                return Ok(());
            }
        }
        Err("packets go to and fro for ever".into())
    }

    fn readers_read(&mut self) -> Result<bool, Fault> {
        let mut any = false;
        for end in [CLIENT, SERVER] {
            for connection in 0..self.ground.spec.connections.len() {
                let program = &self.ends[end].programs[connection];
                if program.is_held() && !program.waits && !program.at_end {
                    self.at(end, |end, at| end.read(at, connection))?;
                    any = true;
                }
            }
        }
        Ok(any)
    }

    /// Every program that can takes one step.
    fn programs_go_on(&mut self) -> Result<bool, Fault> {
        let mut any = false;
        for connection in 0..self.ground.spec.connections.len() {
            any |= self.go_on(CLIENT, connection)? | self.go_on(SERVER, connection)?;
        }
        Ok(any)
    }

    fn pass_for(&mut self, time: Duration) -> Result<(), Fault> {
        let end = self.now + time;
        for turns in 0.. {
            let due = self.next_timers();
            let Some(next) = due.into_iter().flatten().min().filter(|next| *next <= end) else { break };
            self.pass(due, next)?;
            self.flow()?;
            if turns > MOST_TURNS {
                return Err("a timer that stays due".into());
            }
        }
        self.now = end;
        Ok(())
    }

    fn assert_promise(&self) -> Result<(), Fault> {
        for index in 0..self.ground.spec.connections.len() {
            for writer in [CLIENT, SERVER] {
                let [from, to] = [writer, 1 - writer].map(|end| &self.ends[end].programs[index]);
                let name = NAMES[writer];
                promise_kept(from, to)
                    .map_err(|fault| format!("connection {index} from the {name}: {fault}"))?;
            }
        }
        Ok(())
    }

    fn release_all(&mut self) -> Result<(), Fault> {
        for end in [CLIENT, SERVER] {
            for connection in 0..self.ground.spec.connections.len() {
                if self.ends[end].programs[connection].is_held() {
                    self.at(end, |end, at| end.take(at, connection, Op::Release))?;
                }
            }
        }
        Ok(())
    }

    /// No connection, no byte, no charge and no tombstone of a tunnel is left.
    fn assert_nothing_left(&self) -> Result<(), Fault> {
        self.assert_sane()?;
        self.ends.iter().for_each(|end| end.session.invariants());
        let stats = [self.ends[CLIENT].session.stats(), self.ends[SERVER].session.stats()];
        for end in [CLIENT, SERVER] {
            let (here, there) = (&stats[end], &stats[1 - end]);
            let left = [
                ("connections", here.connections as u64),
                ("bytes queued", here.queued),
                ("bytes not acknowledged", here.in_flight),
                ("charge unread", here.unread),
                ("charge that the other end never heard of", here.charged - there.charged_there),
                ("tunnels unsettled", self.ends[end].session.unsettled_tunnels() as u64),
                ("tunnels suspect", here.tunnels.iter().filter(|tunnel| tunnel.suspect).count() as u64),
            ];
            if let Some((what, count)) = left.iter().find(|(_, count)| *count > 0) {
                return Err(format!("{}: {count} {what} when all is over", NAMES[end]));
            }
        }
        Ok(())
    }

    /// One end's session has ended: the other's does too, and no program waits for ever.
    fn both_end(&mut self) -> Result<(), Fault> {
        self.flow()?;
        if !self.ends[CLIENT].session.is_closed() {
            self.dial()?;
        }
        self.flow()?;
        self.pass_for(EXPIRY)?;
        for end in [CLIENT, SERVER] {
            if !self.ends[end].session.is_closed() {
                return Err(format!("{}: the session goes on without the other end's", NAMES[end]));
            }
            if self.ends[end].programs.iter().any(|program| program.fate == Fate::Held) {
                return Err(format!("{}: a program was not told that the session has ended", NAMES[end]));
            }
        }
        Ok(())
    }
}
