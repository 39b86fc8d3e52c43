//! One end: a session, its driver, and the programs above it.
//!
//! The driver does at once what a real one does: it takes every event, notes every tunnel that is named, closes a
//! carrier when it is told to, and polls a tunnel again of which it knows that nothing is there. The programs that
//! are not lazy read at once.

use std::hash::{Hash, Hasher};
use std::time::Instant;

use bytes::Bytes;
use gkd_proto::id::{ConnectionId, Side, TunnelId};
use gkd_proto::packet::{DialError, ResetCode};
use gkd_proto::{CloseCause, ConnectionMut, Event, Read, Session, Transmit};

use crate::hash::Fold;
use crate::program::{Fate, Program};
use crate::spec::Op;
use crate::world::{At, Fault, bytes_of};

/// The code with which programs reset.
const CODE: ResetCode = ResetCode::APPLICATION;

/// One end of a small world.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) session: Session,
    /// By the connection's place in the world's list.
    pub(crate) programs: Vec<Program>,
    /// The tunnels that were named, or of which the last poll found something: a bit each.
    pub(crate) ready: u16,
    /// The tunnels that the session wanted closed: a bit each.
    dropped: u16,
}

impl End {
    pub(crate) fn new(session: Session, connections: usize) -> Self {
        let programs = vec![Program::default(); connections];
        Self { session, programs, ready: 0, dropped: 0 }
    }

    fn connection(&mut self, now: Instant, index: usize) -> Result<ConnectionMut<'_>, Fault> {
        let id = self.programs[index].id.ok_or("a program without a connection")?;
        self.session.connection(now, id).ok_or_else(|| format!("connection {id} is not known"))
    }

    // ---- the programs ----

    /// A program takes a step.
    pub(crate) fn take(&mut self, at: &mut At<'_>, index: usize, op: Op) -> Result<(), Fault> {
        if op == Op::Open {
            let opened = self.session.open(at.now, Bytes::from_static(b"to"));
            self.programs[index].id = Some(opened.map_err(|error| error.to_string())?);
            self.programs[index].fate = Fate::Held;
            return self.read_unless_lazy(at, index);
        }
        let written = self.programs[index].written;
        let mut connection = self.connection(at.now, index)?;
        match op {
            Op::Open => {}
            Op::Accept => connection.connected(Ok(())),
            Op::Refuse => connection.connected(Err(DialError::Refused)),
            Op::Write => {
                let end = written + at.ground.spec.piece;
                let mut piece = at.ground.contents[index][at.end].slice(written..end);
                connection.write(&mut piece).map_err(|error| error.to_string())?;
                if !piece.is_empty() {
                    return Err("a write was not accepted whole".into());
                }
                self.programs[index].written = end;
            }
            Op::Finish => connection.finish(),
            Op::Reset => connection.reset(CODE),
            Op::Release => connection.release(),
        }
        let program = &mut self.programs[index];
        match op {
            Op::Finish => program.finished = true,
            Op::Reset | Op::Refuse => program.fate = Fate::Ended,
            Op::Release => (program.fate, program.finished) = (Fate::Released, true),
            Op::Open | Op::Accept | Op::Write => {}
        }
        Ok(())
    }

    fn read_unless_lazy(&mut self, at: &mut At<'_>, index: usize) -> Result<(), Fault> {
        if at.ground.spec.connections[index].scripts[at.end].lazy { Ok(()) } else { self.read(at, index) }
    }

    /// A program reads all that there is.
    pub(crate) fn read(&mut self, at: &mut At<'_>, index: usize) -> Result<(), Fault> {
        while self.programs[index].is_held() && !self.programs[index].at_end {
            let read = self.connection(at.now, index)?.read(usize::MAX);
            let program = &mut self.programs[index];
            match read {
                Read::Data(data) => {
                    let writer = &at.other.programs[index];
                    program.take(&data, writer, &at.ground.contents[index][1 - at.end])?;
                }
                Read::Pending => {
                    program.waits = true;
                    return Ok(());
                }
                Read::Finished => {
                    program.at_end = true;
                    if !program.has_all_of(&at.other.programs[index]) {
                        return Err(format!("connection {index} ends after {} bytes", program.read));
                    }
                }
            }
        }
        Ok(())
    }

    // ---- the driver ----

    /// Does what is done at once. Whether anything showed: an event, or a tunnel that was named.
    pub(crate) fn settle(&mut self, at: &mut At<'_>) -> Result<bool, Fault> {
        let mut shown = false;
        loop {
            let mut any = false;
            while let Some(event) = self.session.poll_event() {
                any = true;
                self.on_event(at, event)?;
            }
            for tunnel in self.session.tunnels_to_poll() {
                any = true;
                self.ready |= 1 << tunnel.0;
            }
            if !any {
                break;
            }
            shown = true;
        }
        self.poll_the_empty(at)?;
        Ok(shown)
    }

    /// Polls what is ready and has nothing, as a driver does whose carrier has room. That it does so at once, and not
    /// at any later time, leaves out the worlds in which a carrier is full while there is nothing to send.
    fn poll_the_empty(&mut self, at: &mut At<'_>) -> Result<(), Fault> {
        for tunnel in (0..16).filter(|tunnel| self.ready & 1 << tunnel != 0).collect::<Vec<usize>>() {
            if !at.is_open(tunnel) {
                self.ready &= !(1 << tunnel);
            } else if !self.may_transmit(at.now, tunnel) && !self.poll(at.now, tunnel, 1).is_empty() {
                return Err(format!("tunnel {tunnel} sends what it said it had not"));
            }
        }
        Ok(())
    }

    pub(crate) fn may_transmit(&self, now: Instant, tunnel: usize) -> bool {
        self.session.may_transmit(now, TunnelId(tunnel as u64))
    }

    /// Pulls from the session for a tunnel; empty if there is nothing.
    pub(crate) fn poll(&mut self, now: Instant, tunnel: usize, room: usize) -> Bytes {
        let mut out = Transmit::new();
        if self.session.poll_transmit(now, TunnelId(tunnel as u64), room, &mut out) {
            self.ready |= 1 << tunnel;
        } else {
            self.ready &= !(1 << tunnel);
        }
        bytes_of(&mut out)
    }

    /// What decides what this end will do, as a hash.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = Fold::default();
        self.session.fingerprint(&mut hasher);
        (&self.programs, self.ready, self.dropped).hash(&mut hasher);
        hasher.finish()
    }

    // ---- events ----

    fn on_event(&mut self, at: &mut At<'_>, event: Event) -> Result<(), Fault> {
        match event {
            Event::Accepted { connection, .. } => self.on_accepted(at, connection),
            Event::Connected { connection, result } => {
                let program = self.held(connection, "Connected")?;
                if std::mem::replace(&mut program.connected, true) {
                    return Err(format!("connection {connection} was answered twice"));
                }
                if result.is_err() {
                    program.fate = Fate::Refused;
                }
                Ok(())
            }
            Event::Readable { connection } => {
                let program = self.held(connection, "Readable")?;
                if !std::mem::take(&mut program.waits) {
                    return Err(format!("Readable of {connection} without a read that waits"));
                }
                let index = self.index(connection)?;
                self.read_unless_lazy(at, index)
            }
            Event::Acknowledged { connection } => self.on_acknowledged(at, connection),
            Event::Reset { connection, code } => {
                self.held(connection, "Reset")?.fate = Fate::Reset(code);
                let other = at.other.programs[self.index(connection)?].fate;
                let wanted = match other {
                    Fate::Ended => code == CODE || code == ResetCode::DIAL,
                    Fate::Released => code == ResetCode::NO_READER,
                    _ => false,
                };
                if wanted { Ok(()) } else { Err(format!("a Reset ({code}) that nobody sent ({other:?})")) }
            }
            Event::DropTunnel { tunnel, .. } => self.on_drop(at, tunnel),
            // Whether another dial follows is a step of its own.
            Event::Stalled if self.session.side() == Side::Client && self.session.is_stalled(at.now) => {
                Ok(())
            }
            Event::Closed { cause: CloseCause::Expired | CloseCause::Lost } => {
                let held = self.programs.iter_mut().filter(|program| program.is_held());
                held.for_each(|program| program.fate = Fate::Closed);
                Ok(())
            }
            other => Err(format!("an event that nothing called for: {other:?}")),
        }
    }

    fn index(&self, id: ConnectionId) -> Result<usize, Fault> {
        let found = self.programs.iter().position(|program| program.id == Some(id));
        found.ok_or_else(|| format!("an event of connection {id}, which no program has"))
    }

    fn held(&mut self, id: ConnectionId, event: &str) -> Result<&mut Program, Fault> {
        let index = self.index(id)?;
        let program = &mut self.programs[index];
        let fate = program.fate;
        if program.is_held() {
            Ok(program)
        } else {
            Err(format!("{event} of {id}, which is over ({fate:?})"))
        }
    }

    fn on_accepted(&mut self, at: &mut At<'_>, id: ConnectionId) -> Result<(), Fault> {
        let opener = at.other.programs.iter().position(|program| program.id == Some(id));
        let index = opener.ok_or_else(|| format!("connection {id} was accepted and never opened"))?;
        let program = &mut self.programs[index];
        if program.fate != Fate::Unborn {
            return Err(format!("connection {id} was accepted twice"));
        }
        (program.id, program.fate) = (Some(id), Fate::Held);
        let script = at.ground.spec.connections[index].scripts[at.end];
        for op in script.at_once {
            self.take(at, index, *op)?;
        }
        self.read_unless_lazy(at, index)
    }

    /// The other end is said to hold everything: a program there that reads at once has read it.
    fn on_acknowledged(&mut self, at: &mut At<'_>, id: ConnectionId) -> Result<(), Fault> {
        let program = self.held(id, "Acknowledged")?;
        if std::mem::replace(&mut program.acknowledged, true) || !program.finished {
            return Err(format!("connection {id} was acknowledged twice, or before its end"));
        }
        let index = self.index(id)?;
        let (program, reader) = (&self.programs[index], &at.other.programs[index]);
        let lazy = at.ground.spec.connections[index].scripts[1 - at.end].lazy;
        if reader.is_held() && !lazy && !reader.has_all_of(program) {
            return Err(format!("connection {id} was acknowledged at {} bytes read", reader.read));
        }
        Ok(())
    }

    fn on_drop(&mut self, at: &mut At<'_>, tunnel: TunnelId) -> Result<(), Fault> {
        let (bit, end) = (1 << tunnel.0, at.end);
        if self.dropped & bit != 0 {
            return Err(format!("tunnel {tunnel} was to be dropped twice"));
        }
        self.dropped |= bit;
        at.wire(tunnel.0 as usize).close(end);
        self.session.handle_tunnel_down(at.now, tunnel);
        Ok(())
    }
}
