//! Repeating: what waits on a tunnel that is late goes out once more, on one that has nothing to do.
//!
//! A sender that lost the last segment on its way hears nothing of it. Where that was alone, its kernel waits for two round
//! trips and 200 ms before it asks (RFC 8985 §7.2), and a keystroke waits as long. Another tunnel that stands idle brings
//! it in a fraction of that, and the copy that comes second is dropped.
//!
//! Only what is late by the measure of its own tunnel is sent again, once, and only where another stands idle: a bulk
//! transfer that keeps all of them busy repeats nothing, for there the copy would take the place of something new.

use std::time::{Duration, Instant};

use super::tunnel::{ACK_DELAY, LOOK_EVERY};
use super::{Session, Tunnel};
use crate::id::TunnelId;

/// What may be repeated beyond a part of what was sent, in bytes.
const FREE: u64 = 64 * 1024;

/// That part: 2%.
const PART: u64 = 50;

/// What is repeated of one tunnel at a time, in bytes.
const MOST: u64 = 32 * 1024;

/// So many packets at the front of a tunnel are looked at for one that is late and went nowhere else: that is asked
/// for again and again, and a peer that acknowledges nothing must not make it long.
const FEW: usize = 16;

impl Session {
    /// When the packets of a tunnel are late, if another could have them.
    pub(super) fn repeat_at(&self, tunnel: &Tunnel) -> Option<Instant> {
        if self.tunnels.len() > 1 { tunnel.late_at() } else { None }
    }

    /// Packets of a tunnel are late: the best of the idle ones gets them too.
    pub(super) fn repeat_late(&mut self, now: Instant, tunnel: TunnelId) {
        let Some(state) = self.tunnels.get_mut(&tunnel) else { return };
        state.next_repeat = now + LOOK_EVERY;
        let Some(usual) = state.estimate.loaded_round_trip() else { return };
        let idle = self.tunnels.values().filter(|other| {
            let free = other.in_flight.is_empty() && !other.is_held_back(now);
            other.id != tunnel && other.is_in_use() && !other.suspect && free
        });
        let soonest = idle.filter_map(|other| Some((other.arrives_in(1)?, other.id))).min();
        let Some((_, soonest)) = soonest.filter(|(arrives_in, _)| *arrives_in < usual) else {
            // Others may have left something to this one while it was not late.
            if self.schedule.has_data() || !self.schedule.control.is_empty() {
                self.wake_others(tunnel);
            }
            return;
        };

        let allowed = FREE + self.counters.payload_sent / PART;
        let mut left = allowed.saturating_sub(self.counters.repeated).min(MOST);
        let Some(state) = self.tunnels.get_mut(&tunnel) else { return };
        let late_for = state.late_after().unwrap_or(usual);
        let mut in_flight = std::mem::take(&mut state.in_flight);
        let before = left;
        for written in in_flight.iter_mut().filter(|written| !written.elsewhere) {
            let size = u64::from(written.size);
            if now < written.at + late_for || size > left {
                break;
            }
            left -= size;
            self.counters.repeated += size;
            self.give_elsewhere(written);
        }
        if let Some(state) = self.tunnels.get_mut(&tunnel) {
            state.in_flight = in_flight;
        }
        if left < before {
            self.wake(soonest);
        }
    }

    /// What this tunnel holds was given to the others, and one of them is not late itself: what is sent again is for that,
    /// and so is what settles it. It is woken.
    pub(super) fn leaves_repeats(&mut self, now: Instant, tunnel: TunnelId) -> bool {
        if !self.tunnels.get(&tunnel).is_some_and(Tunnel::was_repeated) {
            return false;
        }
        let able = |other: &Tunnel| {
            other.id != tunnel && other.is_in_use() && !other.suspect && !other.is_held_back(now)
        };
        let leaves = self.tunnels.values().any(able);
        if leaves {
            self.wake_one();
        }
        leaves
    }
}

impl Tunnel {
    /// How long after it was written a packet is late: half as long again as usual, and as long as its acknowledgement
    /// may wait. `None` while nothing is known of the way.
    pub(super) fn late_after(&self) -> Option<Duration> {
        Some(self.estimate.loaded_round_trip()? * 3 / 2 + ACK_DELAY)
    }

    /// Its oldest packet was given to the others as well.
    pub(super) fn was_repeated(&self) -> bool {
        self.in_flight.front().is_some_and(|oldest| oldest.elsewhere)
    }

    /// Others had better have what is small.
    pub(super) fn waits_for_others(&self) -> bool {
        self.estimate.kernel.recovering || self.was_repeated()
    }

    /// When the oldest packet is late that was not given to the others yet.
    fn late_at(&self) -> Option<Instant> {
        if self.suspect {
            return None;
        }
        let oldest = self.in_flight.iter().take(FEW).find(|written| !written.elsewhere)?;
        Some((oldest.at + self.late_after()?).max(self.next_repeat))
    }
}
