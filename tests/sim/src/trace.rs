//! What happened: a hash of everything, by which two runs are compared, and on demand every line in words.

use std::time::Duration;

use crate::random::mix;

/// What happened so far.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    hash: u64,
    lines: u64,
    /// Every line goes to standard output.
    pub shown: bool,
}

impl Trace {
    /// At `time`, something happened: `words` say it, `numbers` are what makes it differ from anything else.
    pub fn tell(&mut self, time: Duration, numbers: &[u64], words: impl FnOnce() -> String) {
        self.lines += 1;
        self.hash = mix(self.hash ^ time.as_nanos() as u64);
        for number in numbers {
            self.hash = mix(self.hash.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ number);
        }
        if self.shown {
            println!("{:>12.6} {}", time.as_secs_f64(), words());
        }
    }

    /// Equal for equal runs.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How much happened.
    pub fn lines(&self) -> u64 {
        self.lines
    }
}
