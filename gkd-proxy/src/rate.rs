//! How many bytes a second a user may move ([`Rate`]), over all of its connections, and the connection that keeps to it
//! ([`Limited`]).
//!
//! What waits for its turn is not read, so whoever sends is slowed down by credit and by TCP; nothing is dropped but
//! datagrams, which do not wait, and have up to half of a rate that connections use up. In each direction those that wait take turns of some KiB, in the order in which they came, so that one of many connections has
//! its part. It knows nothing of users: they are told apart by who hands out a rate.
//!
//! | room | what is in it |
//! |---|---|
//! | `speed` | bytes a second, as people write them |
//! | `bucket` | one direction: what is left, and whose turn it is |
//! | `limited` | the connection |

mod bucket;
mod limited;
mod speed;

use std::sync::Arc;

use bucket::Bucket;

pub use limited::{Limited, LimitedOpener};
pub use speed::{Speed, SpeedError};

/// What a user's connections may move together. Shared by all of them; what is set applies to those that run.
#[derive(Debug, Default)]
pub struct Rate {
    up: Arc<Bucket>,
    down: Arc<Bucket>,
}

/// How fast; without a bound where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speeds {
    /// From the user: what its connections give.
    pub up: Option<Speed>,
    /// To the user: what they take.
    pub down: Option<Speed>,
}

/// A direction, as the user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the user.
    Up,
    /// To the user.
    Down,
}

impl Rate {
    /// A rate of these speeds.
    pub fn new(speeds: Speeds) -> Arc<Self> {
        let rate = Self::default();
        rate.set(speeds);
        Arc::new(rate)
    }

    /// Other speeds from now on. What was moved too much stays to be made up for.
    pub fn set(&self, speeds: Speeds) {
        self.up.set(speeds.up);
        self.down.set(speeds.down);
    }

    /// Whether a datagram of so many bytes may go now, which is counted then. It does not wait for its turn: what cannot go
    /// is to be dropped, as a full line does.
    pub fn takes(&self, way: Way, bytes: usize) -> bool {
        self.of(way).takes(bytes)
    }

    fn of(&self, way: Way) -> &Arc<Bucket> {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }
}

#[cfg(test)]
mod tests;
