//! Time: what is due when, and what happens then.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::decline::Decline;
use super::event::DropReason;
use super::tunnel::{ACK_DELAY, MIN_ACK_DELAY};
use super::{Event, Session};
use crate::id::{ConnectionId, Side, TunnelId};
use crate::packet::ResetCode;

/// How often every connection is looked at, for the time-outs that are counted in minutes.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// A connection on which nothing moved for this long goes back to its initial window and holds no ring.
const IDLE_WINDOW: Duration = Duration::from_secs(10);

/// A tunnel is quiet when nothing came on it for so long, or for its patience if that is longer. TCP's first
/// time-out is as long (RFC 6298 §2.1), so that one loss does not make it so.
const QUIET: Duration = Duration::from_secs(1);

/// How long control may wait for something that it can go with: as an acknowledgement does at the least.
pub(super) const PATIENT_FOR: Duration = MIN_ACK_DELAY;

/// How often a fresh dial is asked for while all are quiet.
const STALLED_EVERY: Duration = Duration::from_secs(2);

impl Session {
    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` when nothing waits for time. Takes time in
    /// proportion to the number of tunnels.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_closed() {
            return None;
        }
        let expiry = self.no_tunnel_since.map(|since| since + self.config.resume_for);
        let quiet = self.first_quiet_at();
        let tunnels = self.tunnels.values().filter_map(|tunnel| self.tunnel_timeout(tunnel, quiet));
        let others = [expiry, self.next_sweep, self.stalled_at(), self.patience_ends_at()];
        tunnels.chain(others.into_iter().flatten()).min()
    }

    /// When control goes alone that waited for what is sent next, if any still waits.
    pub(super) fn patience_ends_at(&self) -> Option<Instant> {
        self.patient_until.filter(|_| !self.schedule.control.is_empty())
    }

    /// All control of connections that waits is to go with what is sent next, and has the time.
    pub(super) fn is_patient_at(&self, now: Instant) -> bool {
        self.patient && self.patience_ends_at().is_some_and(|due| now < due)
    }

    fn tunnel_timeout(&self, tunnel: &super::Tunnel, quiet: Option<Instant>) -> Option<Instant> {
        if tunnel.dropping.is_some() {
            return None;
        }
        let answer = self.silent_at(tunnel);
        let ping = self.ping_at(tunnel, quiet);
        // An acknowledgement that its own tunnel does not take is given to any other.
        let overdue = tunnel.has_untold().then(|| tunnel.overdue_at()).flatten();
        let lapse = match tunnel.declined {
            Decline::Until { at, .. } => Some(at),
            Decline::No | Decline::Lapsed => None,
        };
        let repeat = self.repeat_at(tunnel);
        [tunnel.ack_deadline(), overdue, tunnel.suspicion_at(), repeat, answer, ping, lapse]
            .into_iter()
            .flatten()
            .min()
    }

    /// When a tunnel that owes an answer has been silent, or has stood still, for too long.
    fn silent_at(&self, tunnel: &super::Tunnel) -> Option<Instant> {
        let silent = tunnel.silent_since()?;
        let still = tunnel.oldest_at().map(|oldest| oldest.max(tunnel.last_progress()));
        Some(still.map_or(silent, |still| still.min(silent)) + self.config.silent_for)
    }

    /// When a tunnel is to be pinged: after a long silence. The client, which alone can dial, asks sooner after
    /// something came, for it cannot know whether more was to come; and while another tunnel is quiet, for all
    /// may be.
    fn ping_at(&self, tunnel: &super::Tunnel, quiet: Option<Instant>) -> Option<Instant> {
        if tunnel.ping.is_some() {
            return None;
        }
        let usual = tunnel.last_heard + self.config.ping_every;
        let usual = tunnel.ask_at().map_or(usual, |ask| ask.min(usual));
        if self.side == Side::Server {
            return Some(usual);
        }
        let soon = tunnel.last_heard + QUIET;
        let after_arrival = tunnel.came_since_ping().then_some(soon);
        let beside_quiet = quiet.map(|quiet| quiet.max(soon));
        [after_arrival, beside_quiet].into_iter().flatten().fold(usual, Instant::min).into()
    }

    /// When the first of the tunnels that owe an answer is quiet.
    fn first_quiet_at(&self) -> Option<Instant> {
        self.tunnels.values().filter_map(|tunnel| tunnel.quiet_at()).min()
    }

    /// When the last of the tunnels is quiet, if all owe an answer.
    fn all_quiet_at(&self) -> Option<Instant> {
        let mut last = None;
        for tunnel in self.tunnels.values().filter(|tunnel| tunnel.dropping.is_none()) {
            last = last.max(Some(tunnel.quiet_at()?));
        }
        last
    }

    /// When the client is to be told that all tunnels are quiet.
    fn stalled_at(&self) -> Option<Instant> {
        let quiet_at = self.all_quiet_at().filter(|_| self.side == Side::Client)?;
        Some(self.stalled_told.map_or(quiet_at, |told| quiet_at.max(told + STALLED_EVERY)))
    }

    /// Whether every tunnel has been quiet for some time although it owes an answer. Not when none is up.
    pub fn is_stalled(&self, now: Instant) -> bool {
        self.all_quiet_at().is_some_and(|quiet_at| now >= quiet_at)
    }

    /// Whether a tunnel has been quiet for some time although it owes an answer.
    pub fn is_quiet(&self, now: Instant, tunnel: TunnelId) -> bool {
        let quiet_at = self.tunnels.get(&tunnel).and_then(|tunnel| tunnel.quiet_at());
        quiet_at.is_some_and(|quiet_at| now >= quiet_at)
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) told has come. Calling it early does no harm.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.is_closed() {
            return;
        }
        if self.no_tunnel_since.is_some_and(|since| now >= since + self.config.resume_for) {
            return self.expire();
        }
        let tunnels: Vec<_> = self.tunnels.keys().copied().collect();
        tunnels.iter().for_each(|tunnel| self.tunnel_time(now, *tunnel));
        if self.stalled_at().is_some_and(|due| now >= due) {
            self.stalled_told = Some(now);
            self.events.push_back(Event::Stalled);
        }
        if self.patience_ends_at().is_some_and(|due| now >= due) {
            (self.patient_until, self.patient) = (None, false);
            self.wake_one();
        }
        if self.next_sweep.is_some_and(|due| now >= due) {
            self.sweep(now);
        }
        // Behind all else, for what happened to one may ask for a Ping of another.
        let quiet = self.first_quiet_at();
        tunnels.into_iter().for_each(|tunnel| self.ping_if_due(now, tunnel, quiet));
    }

    fn tunnel_time(&mut self, now: Instant, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get(&id).filter(|tunnel| tunnel.dropping.is_none()) else { return };
        if self.silent_at(tunnel).is_some_and(|due| now >= due) {
            return self.drop_tunnel(id, DropReason::Silent);
        }
        let ack = tunnel.ack_deadline().is_some_and(|due| now >= due);
        let overdue = tunnel.overdue_at().is_some_and(|due| now >= due);
        let look = tunnel.suspicion_at().is_some_and(|due| now >= due);
        let late = self.repeat_at(tunnel).is_some_and(|due| now >= due);
        if ack && let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.ack_due = true;
            self.wake(id);
        }
        if overdue && let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.overdue_told = Some(now);
            self.wake_others(id);
        }
        if look {
            self.suspect_if_silent(now, id);
        }
        if late {
            self.repeat_late(now, id);
        }
        self.lapse(now, id);
    }

    fn ping_if_due(&mut self, now: Instant, id: TunnelId, quiet: Option<Instant>) {
        let Some(tunnel) = self.tunnels.get(&id).filter(|tunnel| tunnel.dropping.is_none()) else { return };
        if self.ping_at(tunnel, quiet).is_some_and(|due| now >= due) {
            self.ping(now, id);
        }
    }

    pub(super) fn wake_others(&mut self, tunnel: TunnelId) {
        let others: Vec<_> = self.tunnels.keys().copied().filter(|other| *other != tunnel).collect();
        others.into_iter().for_each(|other| self.wake(other));
    }

    /// Sets the clock for the next look at all connections, if there are any.
    pub(super) fn schedule_sweep(&mut self, now: Instant) {
        self.next_sweep.get_or_insert(now + SWEEP_EVERY);
    }

    fn sweep(&mut self, now: Instant) {
        self.next_sweep = (!self.connections.is_empty()).then(|| now + SWEEP_EVERY);
        let mut timed_out = Vec::new();
        for (id, connection) in &mut self.connections {
            let idle = now.saturating_duration_since(connection.active_at);
            if idle >= IDLE_WINDOW {
                connection.receive.shrink();
            }
            if connection.is_half_closed() && idle >= self.config.half_closed_for {
                timed_out.push(*id);
            }
        }
        timed_out.sort_unstable();
        timed_out.into_iter().for_each(|id| self.end_connection(now, id, ResetCode::TIMED_OUT));
        self.unblock(now);
    }

    /// A session that is blocked for too long on bytes that nobody reads loses the connection that holds most of
    /// those that were not read for as long, so that its end frees as much as one can. Where each was read
    /// since, it is the one that was not read for longest.
    fn unblock(&mut self, now: Instant) {
        let Some(since) = self.account.blocked_since else { return };
        if now.saturating_duration_since(since) < self.config.blocked_for {
            return;
        }
        let unread = self.connections.values().filter(|connection| connection.receive.has_unread());
        let worst = unread.max_by_key(|connection| {
            let paused = now.saturating_duration_since(connection.read_at);
            let held = if paused >= self.config.blocked_for { connection.receive.unread_charge() } else { 0 };
            (held, paused, Reverse(connection.id))
        });
        if let Some(id) = worst.map(|connection| connection.id) {
            self.end_connection(now, id, ResetCode::TIMED_OUT);
        }
    }

    /// Ends a connection from within; the program hears of it.
    fn end_connection(&mut self, now: Instant, id: ConnectionId, code: ResetCode) {
        let told = self.connections.get(&id).is_some_and(|connection| connection.is_usable());
        self.reset_connection(now, id, code);
        if told {
            self.events.push_back(Event::Reset { connection: id, code });
        }
    }
}

impl super::Tunnel {
    /// Since when it owes an answer, to a packet or a Ping, and nothing was heard on it.
    fn silent_since(&self) -> Option<Instant> {
        let pinged = self.ping.map(|ping| ping.at);
        let waiting_since = self.oldest_at().into_iter().chain(pinged).min()?;
        Some(self.last_heard.max(waiting_since))
    }

    fn quiet_at(&self) -> Option<Instant> {
        self.silent_since().map(|since| since + self.patience().max(QUIET))
    }

    /// When what is untold is given to any tunnel, because nothing goes out on this one; once for each delay.
    fn overdue_at(&self) -> Option<Instant> {
        let first = self.ack_deadline_passed()?;
        Some(self.overdue_told.map_or(first, |told| first.max(told + ACK_DELAY)))
    }
}
