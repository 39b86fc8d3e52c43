//! Loss: of each packet on its own, or in bursts.

use gkd_sim::random::Random;

/// Chances are drawn to the billionth.
const WHOLE: u64 = 1_000_000_000;

/// What share of the packets is lost, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Loss {
    None,
    /// Each with the same chance.
    Random(f64),
    /// Gilbert's model: a good state that loses nothing and a bad one that loses everything. `share` is what is lost
    /// in the long run, `length` how many packets a burst takes on average.
    Bursts {
        share: f64,
        length: f64,
    },
}

impl Loss {
    pub(crate) fn percent(percent: f64) -> Self {
        if percent > 0.0 { Self::Random(percent / 100.0) } else { Self::None }
    }
}

/// Whether a burst is on.
#[derive(Debug, Default)]
pub(super) struct LossState {
    bad: bool,
}

impl LossState {
    /// Whether the next packet is lost.
    pub(super) fn strikes(&mut self, loss: Loss, random: &mut Random) -> bool {
        match loss {
            Loss::None => false,
            Loss::Random(share) => chance(share, random),
            Loss::Bursts { share, length } => {
                let ends = 1.0 / length.max(1.0);
                // In balance as many bursts begin as end: share * ends = (1 - share) * begins.
                let begins = ends * share / (1.0 - share).max(f64::EPSILON);
                self.bad = if self.bad { !chance(ends, random) } else { chance(begins, random) };
                self.bad
            }
        }
    }
}

fn chance(share: f64, random: &mut Random) -> bool {
    random.below(WHOLE) < (share * WHOLE as f64) as u64
}
