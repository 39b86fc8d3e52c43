//! Time: what is due when, and what happens then.

use std::time::{Duration, Instant};

use super::event::DropReason;
use super::tunnel::ACK_DELAY;
use super::{Event, Session};
use crate::id::{ConnectionId, TunnelId};
use crate::packet::ResetCode;

/// How often every connection is looked at, for the time-outs that are counted in minutes.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// A connection on which nothing moved for this long goes back to its initial window and holds no ring.
const IDLE_WINDOW: Duration = Duration::from_secs(10);

impl Session {
    /// When [`handle_timeout`](Self::handle_timeout) is due; `None` when nothing waits for time. Takes time in
    /// proportion to the number of tunnels.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_closed() {
            return None;
        }
        let expiry = self.no_tunnel_since.map(|since| since + self.config.resume_for);
        let tunnels = self.tunnels.values().filter_map(|tunnel| self.tunnel_timeout(tunnel));
        tunnels.chain(expiry).chain(self.next_sweep).min()
    }

    fn tunnel_timeout(&self, tunnel: &super::Tunnel) -> Option<Instant> {
        if tunnel.dropping.is_some() {
            return None;
        }
        let answer = tunnel.owes().then(|| self.silent_at(tunnel));
        let ping = (tunnel.ping.is_none()).then(|| tunnel.last_heard + self.config.ping_every);
        // An acknowledgement that its own tunnel does not take is given to any other.
        let overdue = tunnel.has_untold().then(|| tunnel.overdue_at()).flatten();
        [tunnel.ack_deadline(), overdue, tunnel.suspicion_at(), answer, ping].into_iter().flatten().min()
    }

    /// When a tunnel that owes an answer has been silent, or has stood still, for too long.
    fn silent_at(&self, tunnel: &super::Tunnel) -> Instant {
        let pinged = tunnel.ping.map(|ping| ping.at);
        let waiting_since = tunnel.oldest_at().into_iter().chain(pinged).min();
        let silent = tunnel.last_heard.max(waiting_since.unwrap_or(tunnel.last_heard));
        let still = tunnel.oldest_at().map(|oldest| oldest.max(tunnel.last_progress()));
        still.map_or(silent, |still| still.min(silent)) + self.config.silent_for
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
        tunnels.into_iter().for_each(|tunnel| self.tunnel_time(now, tunnel));
        if self.next_sweep.is_some_and(|due| now >= due) {
            self.sweep(now);
        }
    }

    fn tunnel_time(&mut self, now: Instant, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get(&id).filter(|tunnel| tunnel.dropping.is_none()) else { return };
        if tunnel.owes() && now >= self.silent_at(tunnel) {
            return self.drop_tunnel(id, DropReason::Silent);
        }
        let ack = tunnel.ack_deadline().is_some_and(|due| now >= due);
        let overdue = tunnel.overdue_at().is_some_and(|due| now >= due);
        let ping = tunnel.ping.is_none() && now >= tunnel.last_heard + self.config.ping_every;
        let look = tunnel.suspicion_at().is_some_and(|due| now >= due);
        if ack && let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.ack_due = true;
            self.wake(id);
        }
        if overdue && let Some(tunnel) = self.tunnels.get_mut(&id) {
            tunnel.overdue_told = Some(now);
            self.wake_others(id);
        }
        if ping {
            self.ping(now, id);
        }
        if look {
            self.suspect_if_silent(now, id);
        }
    }

    fn wake_others(&mut self, tunnel: TunnelId) {
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

    /// A session that is blocked for too long on bytes that nobody reads loses the connection that was not
    /// read for longest.
    fn unblock(&mut self, now: Instant) {
        let Some(since) = self.account.blocked_since else { return };
        if now.saturating_duration_since(since) < self.config.blocked_for {
            return;
        }
        let unread = self.connections.values().filter(|connection| connection.receive.has_unread());
        let longest = unread.min_by_key(|connection| (connection.read_at, connection.id));
        if let Some(id) = longest.map(|connection| connection.id) {
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
    /// When what is untold is given to any tunnel, because nothing goes out on this one; once for each delay.
    fn overdue_at(&self) -> Option<Instant> {
        let first = self.ack_deadline_passed()?;
        Some(self.overdue_told.map_or(first, |told| first.max(told + ACK_DELAY)))
    }
}
