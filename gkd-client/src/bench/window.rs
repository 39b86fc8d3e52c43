//! How much a load moved, its beginning left out: [`Window`].

use std::time::Duration;

/// The share of a measurement that goes by until the load is up to speed.
const WARM_UP: u32 = 3;

/// Takes how many bytes had been moved at which time, and tells how many were in which time, behind the warm-up.
#[derive(Debug)]
pub(super) struct Window {
    begins: Duration,
    first: Option<(Duration, u64)>,
    last: (Duration, u64),
}

impl Window {
    /// Of a measurement of this length.
    pub(super) fn new(time: Duration) -> Self {
        Self { begins: time / WARM_UP, first: None, last: (Duration::ZERO, 0) }
    }

    /// After so long, so many bytes had been moved in all. Both only grow.
    pub(super) fn note(&mut self, elapsed: Duration, bytes: u64) {
        if elapsed >= self.begins {
            self.first.get_or_insert((elapsed, bytes));
        }
        self.last = (elapsed, bytes);
    }

    /// Bytes, and the time that they took. A line so slow that there is nothing to leave out is taken as a whole.
    pub(super) fn moved(&self) -> (u64, Duration) {
        let (last, bytes) = self.last;
        match self.first {
            Some((first, before)) if bytes > before => (bytes - before, last - first),
            _ => (bytes, last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(notes: &[(u64, u64)]) -> (u64, u128) {
        let mut window = Window::new(Duration::from_secs(3));
        notes.iter().for_each(|(millis, bytes)| window.note(Duration::from_millis(*millis), *bytes));
        let (bytes, time) = window.moved();
        (bytes, time.as_millis())
    }

    #[test]
    fn the_warm_up_does_not_count() {
        assert_eq!(moved(&[(100, 5), (900, 1000), (1000, 2000), (2000, 3000), (3000, 9000)]), (7000, 2000));
        // The wait at the end does.
        assert_eq!(moved(&[(1500, 100), (2000, 200), (3000, 200)]), (100, 1500));
    }

    #[test]
    fn what_came_before_or_at_once_is_taken_as_a_whole() {
        assert_eq!(moved(&[]), (0, 0));
        assert_eq!(moved(&[(500, 80)]), (80, 500));
        assert_eq!(moved(&[(1500, 80), (3000, 80)]), (80, 3000));
    }
}
