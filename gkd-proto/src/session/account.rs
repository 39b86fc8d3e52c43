//! The session's receiving account: what all connections together may have unread, and how the session's
//! window is shared among theirs.
//!
//! Initial windows are not shared out: a thousand idle connections cost nothing. What a connection is granted
//! beyond its initial window, or holds unread if that is more, is its *share*; nobody is granted more than
//! half of what the others' shares leave of the session's window, so that any number of grown readers that
//! stop leave room for the next one.

use std::time::{Duration, Instant};

use super::receive::ReceiveHalf;
use crate::budget::Reservation;
use crate::config::SessionConfig;
use crate::credit::ReceiveWindow;
use crate::error::Violation;

/// The receiving account of a session.
#[derive(Clone, Debug, Hash)]
pub(super) struct SessionAccount {
    window: ReceiveWindow,
    /// The charge that all packets imply, those of forgotten connections too.
    implied: u64,
    /// The sum of the connections' shares.
    shares: u64,
    most: u64,
    most_connection: u64,
    /// What the process has for this session: its window, and what it has to send.
    pub(super) memory: Reservation,
    /// Credit of the session is to be told.
    pub(super) credit_due: bool,
    /// Since when the other end waits for credit of the session that this end cannot give.
    pub(super) blocked_since: Option<Instant>,
}

impl SessionAccount {
    pub(super) fn new(config: &SessionConfig) -> Self {
        Self {
            window: ReceiveWindow::new(config.session_window),
            implied: 0,
            shares: 0,
            most: config.max_session_window,
            most_connection: config.max_connection_window,
            memory: Reservation::default(),
            credit_due: false,
            blocked_since: None,
        }
    }

    /// The total that the other end may charge.
    pub(super) fn granted(&self) -> u64 {
        self.window.granted()
    }

    /// Charge that arrived, was told by Resets, or must have been taken by packets that are on the way.
    pub(super) fn implied(&self) -> u64 {
        self.implied
    }

    /// Charge that arrived, or must have been taken, and was not consumed.
    pub(super) fn unread(&self) -> u64 {
        self.implied - self.window.consumed()
    }

    /// More than half of what may be unread is.
    pub(super) fn is_behind(&self) -> bool {
        self.unread() > self.window.window() / 2
    }

    /// The implied charge of one connection rose by `amount`, its ring holding what arrived.
    pub(super) fn charge_to(&mut self, receive: &mut ReceiveHalf, amount: u64) -> Result<(), Violation> {
        self.charge(amount)?;
        self.update_share(receive);
        Ok(())
    }

    /// The charge of a connection of which nothing is held rose by `amount`.
    pub(super) fn charge(&mut self, amount: u64) -> Result<(), Violation> {
        let charged = self.implied.saturating_add(amount);
        let granted = self.window.granted();
        if charged > granted {
            return Err(Violation::BeyondSessionCredit { charged, granted });
        }
        self.implied = charged;
        Ok(())
    }

    /// `amount` was consumed by nobody in particular: a reset or a discarding connection.
    pub(super) fn consume(&mut self, now: Instant, round_trip: Duration, amount: u64) {
        if let Some(wanted) = self.window.consume(now, round_trip, amount) {
            self.grow(now, wanted);
        }
        self.grant();
    }

    /// `amount` was read from one connection.
    pub(super) fn consume_from(
        &mut self,
        now: Instant,
        round_trip: Duration,
        receive: &mut ReceiveHalf,
        amount: u64,
    ) {
        let wanted = receive.window.consume(now, round_trip, amount);
        self.update_share(receive);
        if let Some(wanted) = wanted {
            self.grow_connection(now, receive, wanted);
        } else if receive.sender_waits && !receive.has_unread() {
            self.connection_blocked(now, round_trip, receive);
        }
        // A finished direction needs no more credit.
        if !receive.is_finished() {
            self.grant_connection(receive);
        }
        self.consume(now, round_trip, amount);
    }

    /// The sender of a connection says that it waits at its granted total. The window doubles, once a round
    /// trip, unless the reader is what it waits for.
    pub(super) fn connection_blocked(
        &mut self,
        now: Instant,
        round_trip: Duration,
        receive: &mut ReceiveHalf,
    ) {
        // What came just before may not be read yet: it is looked at again when it is.
        receive.sender_waits = receive.has_unread();
        if !receive.has_unread() && !receive.is_finished() && receive.window.may_grow(now, round_trip) {
            self.grow_connection(now, receive, 2 * receive.window.window());
            self.grant_connection(receive);
        }
    }

    /// The sender says that it waits at the session's granted total.
    pub(super) fn session_blocked(&mut self, now: Instant, round_trip: Duration) {
        if self.window.may_grow(now, round_trip) {
            self.grow(now, 2 * self.window.window());
        }
        self.grant();
        if !self.credit_due {
            self.blocked_since.get_or_insert(now);
        }
    }

    /// The session has ended: nothing more comes, so memory is needed for what is unread alone.
    pub(super) fn release_memory(&mut self) {
        let needed = self.unread().min(self.memory.reserved());
        self.memory.shrink(self.memory.reserved() - needed);
    }

    /// A connection is forgotten, or will receive nothing more: its share is free again.
    pub(super) fn release(&mut self, receive: &mut ReceiveHalf) {
        self.shares -= std::mem::take(&mut receive.share);
        receive.credit_due = false;
    }

    /// Panics unless the sums are those of the connections. For tests.
    pub(super) fn invariants(&self, shares: u64, unread: u64) {
        assert_eq!(self.shares, shares, "shares of the session's window");
        assert_eq!(self.unread(), unread, "charge that was not consumed");
        assert!(self.implied <= self.granted(), "no more was taken than granted");
        let promised = self.granted() - self.window.consumed();
        assert!(promised <= self.most, "{promised} is granted beyond the bound of {}", self.most);
    }

    /// Panics unless everything was consumed and all but a quarter of the window is granted. For tests.
    pub(super) fn assert_at_rest(&self) {
        assert_eq!((self.unread(), self.shares), (0, 0), "nothing is unread");
        let promised = self.granted() - self.window.consumed();
        let window = self.window.window();
        assert!(promised > window - window.div_ceil(4), "{promised} is granted of a window of {window}");
    }

    fn grow_connection(&mut self, now: Instant, receive: &mut ReceiveHalf, wanted: u64) {
        let window = wanted.min(self.most_connection);
        receive.window.grow_to(now, window);
        // The session grows with what its connections need, so that half of what is free is enough.
        while self.free_for(receive) / 2 < window && self.grow(now, 2 * self.window.window()) {}
    }

    /// Whether it grew: neither its own bound nor the process's memory was in the way.
    fn grow(&mut self, now: Instant, window: u64) -> bool {
        let more = window.min(self.most).saturating_sub(self.window.window());
        let grows = more > 0 && self.memory.grow(more);
        if grows {
            self.window.grow_to(now, self.window.window() + more);
            self.grant();
        }
        grows
    }

    fn grant(&mut self) {
        if self.window.grant(u64::MAX).is_some() {
            self.credit_due = true;
            self.blocked_since = None;
        }
    }

    fn grant_connection(&mut self, receive: &mut ReceiveHalf) {
        let free = self.free_for(receive);
        if receive.window.grant(free / 2).is_some() {
            receive.credit_due = true;
            receive.sender_waits = false;
            self.update_share(receive);
        }
    }

    /// What the others leave of the session's window.
    fn free_for(&self, receive: &ReceiveHalf) -> u64 {
        self.window.window().saturating_sub(self.shares - receive.share)
    }

    fn update_share(&mut self, receive: &mut ReceiveHalf) {
        let share = receive.window.excess().max(receive.unread_charge());
        self.shares = self.shares - receive.share + share;
        receive.share = share;
    }
}
