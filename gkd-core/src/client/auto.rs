//! Looks now and then at how a session does, and has [`Growth`] decide how many tunnels per path there are to be.
//!
//! Whether more waits than moves is known of this end: packets wait for a tunnel. The other end does not tell it, but
//! only a backlog is striped, and what is less goes on the one tunnel that delivers it soonest: so where bytes come over
//! half of the tunnels or more, all the time, more wait there. A source that sends just fast enough in large pieces looks
//! like that too; it is found out when more tunnels bring nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gkd_proto::SessionStats;
use gkd_proto::id::TunnelId;

use super::growth::{Growth, Sample};
use super::{DEFAULT_TUNNELS, Inner, MAX_TUNNELS};

/// How often is looked while bytes move, and while none do.
const LOOK: Duration = Duration::from_millis(250);
const LOOK_IDLE: Duration = Duration::from_secs(1);

/// What comes over a tunnel of the slowest line for which more are tried, in bytes per second. Acknowledgements and
/// credit for what goes the other way are less.
const CARRIES: f64 = 16.0 * 1024.0;

/// Adjusts a client's tunnels until it stops.
pub(super) async fn adjust(inner: Arc<Inner>, paths: usize) {
    let mut growth = Growth::new(paths, DEFAULT_TUNNELS, MAX_TUNNELS);
    let mut seen = Seen::new(Instant::now());
    let mut wait = LOOK;
    loop {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = inner.stop.cancelled() => return,
        }
        let stats = inner.lock_current().clone().with(|state, _| state.session.stats());
        let (now, before) = (Instant::now(), growth.wanted());
        let refused = inner.refused.swap(false, Ordering::Relaxed);
        let (sample, moves) = seen.sample(now, Figures::from(&stats), refused);
        let wanted = growth.observe(now, sample);
        if wanted != before {
            tracing::debug!(wanted, before, "another number of tunnels per path");
            inner.want(wanted);
        }
        wait = if moves { LOOK } else { LOOK_IDLE };
    }
}

/// What is looked at of a session.
#[derive(Default)]
struct Figures {
    /// Bytes acknowledged there or received here since the beginning.
    moved: u64,
    /// Something waits here for a tunnel.
    backlog: bool,
    /// Bytes that came over each tunnel.
    received: HashMap<TunnelId, u64>,
}

impl From<&SessionStats> for Figures {
    fn from(stats: &SessionStats) -> Self {
        let acknowledged = stats.payload_sent.saturating_sub(stats.in_flight);
        Self {
            moved: acknowledged + stats.payload_received,
            backlog: stats.backlog,
            received: stats.tunnels.iter().map(|tunnel| (tunnel.tunnel, tunnel.received)).collect(),
        }
    }
}

/// What was seen at the last look.
struct Seen {
    at: Instant,
    figures: Figures,
}

impl Seen {
    fn new(now: Instant) -> Self {
        Self { at: now, figures: Figures::default() }
    }

    /// What these figures tell; and whether bytes moved.
    fn sample(&mut self, now: Instant, figures: Figures, refused: bool) -> (Sample, bool) {
        let least = CARRIES * now.saturating_duration_since(self.at).as_secs_f64();
        let carries = |(id, received): &(&TunnelId, &u64)| {
            let before = self.figures.received.get(id).copied().unwrap_or(0);
            received.saturating_sub(before) as f64 > least
        };
        let up = figures.received.len();
        let carrying = figures.received.iter().filter(carries).count();
        let busy = figures.backlog || carrying > 0 && 2 * carrying >= up;
        let (moved, moves) = (figures.moved, figures.moved != self.figures.moved);
        *self = Self { at: now, figures };
        (Sample { moved, busy, up, refused }, moves)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a look shows a second after one at which nothing had been moved.
    fn look(received: &[u64], backlog: bool) -> (Sample, bool) {
        let now = Instant::now();
        let figures = Figures {
            moved: received.iter().sum(),
            backlog,
            received: (0..).map(TunnelId).zip(received.iter().copied()).collect(),
        };
        Seen::new(now).sample(now + Duration::from_secs(1), figures, false)
    }

    #[test]
    fn what_comes_over_half_of_the_tunnels_shows_a_backlog_there() {
        const MUCH: u64 = 100_000;
        for (received, busy) in [
            (&[MUCH, MUCH, MUCH, MUCH][..], true),
            (&[MUCH, 0, MUCH, 0], true),
            (&[MUCH, 0, 0, 0], false),
            (&[MUCH], true),
            // Acknowledgements of an upload, pings.
            (&[5_000; 4], false),
            (&[0; 4], false),
            (&[], false),
        ] {
            assert_eq!(look(received, false).0.busy, busy, "{received:?}");
            assert!(look(received, true).0.busy);
        }
    }

    #[test]
    fn only_what_came_since_the_last_look_counts() {
        let now = Instant::now();
        let mut seen = Seen::new(now);
        let figures = |received| Figures {
            moved: received,
            backlog: false,
            received: [(TunnelId(0), received)].into(),
        };
        let (sample, moves) = seen.sample(now + LOOK, figures(1_000_000), false);
        assert!(sample.busy && moves && sample.up == 1);
        let (sample, moves) = seen.sample(now + 2 * LOOK, figures(1_000_000), true);
        assert!(!sample.busy && !moves && sample.refused);
        assert_eq!(sample.moved, 1_000_000);
    }
}
