//! Which of a dense, rising sequence of ids were seen, where they may arrive out of order.

use std::collections::BTreeSet;

/// The highest id seen and the lower ones that were not: constant memory in order, bounded memory else.
#[derive(Clone, Debug, Hash)]
pub(super) struct SeenIds {
    /// One above the highest seen.
    next: u64,
    missing: BTreeSet<u64>,
    most_missing: usize,
}

/// More lower ids are missing than may be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooManyMissing;

impl SeenIds {
    pub(super) fn new(most_missing: usize) -> Self {
        Self { next: 0, missing: BTreeSet::new(), most_missing }
    }

    pub(super) fn contains(&self, index: u64) -> bool {
        index < self.next && !self.missing.contains(&index)
    }

    /// Marks `index` as seen; whether it is new.
    pub(super) fn insert(&mut self, index: u64) -> Result<bool, TooManyMissing> {
        if index < self.next {
            return Ok(self.missing.remove(&index));
        }
        let skipped = index - self.next;
        if skipped > (self.most_missing - self.missing.len()) as u64 {
            return Err(TooManyMissing);
        }
        self.missing.extend(self.next..index);
        self.next = index + 1;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_new_once_in_any_order() {
        let mut seen = SeenIds::new(10);
        let order = [3u64, 0, 1, 3, 2, 7, 0, 4];
        let new = [true, true, true, false, true, true, false, true];
        for (index, expected) in order.into_iter().zip(new) {
            assert_eq!(seen.contains(index), !expected);
            assert_eq!(seen.insert(index), Ok(expected), "{index}");
        }
    }

    #[test]
    fn gaps_are_bounded_also_by_one_huge_leap() {
        let mut seen = SeenIds::new(10);
        assert_eq!(seen.insert(10), Ok(true));
        assert_eq!(seen.insert(12), Err(TooManyMissing));
        assert_eq!(seen.insert(u64::MAX >> 2), Err(TooManyMissing));
        assert_eq!(seen.insert(11), Ok(true));
    }
}
