//! A memory budget above many sessions: what all of them together promise and hold.
//!
//! Each session has a [`Reservation`]. It begins with what the session cannot do without, and grows with its
//! window and with what it has to send. Only three quarters of the budget are for growth, so that the grown leave
//! room for those that come; and what one session may have grown to is no more than what is left for the others
//! (the dynamic threshold of Choudhury and Hahne, 1998), so that one that takes all that it can leaves as much
//! to the next.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory that sessions share, in bytes of charge and of payload that waits to be sent. Shared by reference;
/// knows no session.
#[derive(Debug)]
pub struct MemoryBudget {
    limit: u64,
    reserved: AtomicU64,
}

/// There is not as much left as a session needs to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory is left for another session: {reserved} of {limit} bytes are reserved, it needs {wanted}")]
pub struct NoMemory {
    /// What was asked for, in bytes.
    pub wanted: u64,
    /// What is reserved, in bytes.
    pub reserved: u64,
    /// The whole budget, in bytes.
    pub limit: u64,
}

impl MemoryBudget {
    /// A budget of so many bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, reserved: AtomicU64::new(0) })
    }

    /// The whole budget, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What is reserved, in bytes; never above the limit.
    pub fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Reserves what a session begins with.
    ///
    /// # Errors
    /// [`NoMemory`]: sessions that end give back what they have.
    pub fn reserve(self: &Arc<Self>, wanted: u64) -> Result<Reservation, NoMemory> {
        let within = |reserved: u64| reserved.checked_add(wanted).filter(|after| *after <= self.limit);
        match self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within) {
            Ok(_) => Ok(Reservation { budget: Some(self.clone()), reserved: wanted }),
            Err(reserved) => Err(NoMemory { wanted, reserved, limit: self.limit }),
        }
    }

    /// What all sessions together may reserve while they grow.
    fn for_growth(&self) -> u64 {
        self.limit / 4 * 3
    }
}

/// What one session has of a [`MemoryBudget`]; given back when it is dropped. Without a budget it grows without a
/// bound of its own, as the only session of a process does.
#[derive(Default)]
pub struct Reservation {
    budget: Option<Arc<MemoryBudget>>,
    reserved: u64,
}

impl Reservation {
    /// Bytes that are reserved.
    pub fn reserved(&self) -> u64 {
        self.reserved
    }

    /// Takes `more` bytes if the budget is for it; whether it was.
    #[must_use]
    pub(crate) fn grow(&mut self, more: u64) -> bool {
        let Some(grown) = self.reserved.checked_add(more) else { return false };
        if let Some(budget) = &self.budget {
            let within = |reserved: u64| {
                let after = reserved.checked_add(more)?;
                let left = budget.for_growth().checked_sub(after)?;
                (grown <= left).then_some(after)
            };
            if budget.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within).is_err() {
                return false;
            }
        }
        self.reserved = grown;
        true
    }

    /// Gives `less` bytes back, which it must have.
    pub(crate) fn shrink(&mut self, less: u64) {
        self.reserved -= less;
        if let Some(budget) = &self.budget {
            budget.reserved.fetch_sub(less, Ordering::Relaxed);
        }
    }
}

/// A copy, of a session that is copied, holds as much again.
impl Clone for Reservation {
    fn clone(&self) -> Self {
        if let Some(budget) = &self.budget {
            budget.reserved.fetch_add(self.reserved, Ordering::Relaxed);
        }
        Self { budget: self.budget.clone(), reserved: self.reserved }
    }
}

/// What it holds; whose budget it is of makes no difference to what the session does next.
impl Hash for Reservation {
    fn hash<H: Hasher>(&self, to: &mut H) {
        self.reserved.hash(to);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.reserved);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({})", self.reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_given_back() {
        let budget = MemoryBudget::new(1000);
        let mut one = budget.reserve(100).unwrap();
        assert!(one.grow(50));
        let two = budget.reserve(200).unwrap();
        assert_eq!((budget.reserved(), one.reserved()), (350, 150));
        one.shrink(50);
        drop(two);
        assert_eq!(budget.reserved(), 100);
        drop(one);
        assert_eq!(budget.reserved(), 0);
    }

    #[test]
    fn the_limit_holds_for_those_that_come() {
        let budget = MemoryBudget::new(1000);
        let _all: Vec<_> = (0..10).map(|_| budget.reserve(100).unwrap()).collect();
        let refused = budget.reserve(1).unwrap_err();
        assert_eq!(refused, NoMemory { wanted: 1, reserved: 1000, limit: 1000 });
        assert_eq!(budget.reserve(u64::MAX).unwrap_err().wanted, u64::MAX);
    }

    #[test]
    fn the_grown_leave_room_for_those_that_come_and_for_each_other() {
        let budget = MemoryBudget::new(4000);
        let grow = |one: &mut Reservation| while one.grow(10) {};
        let mut first = budget.reserve(10).unwrap();
        grow(&mut first);
        // As much as is left of the three quarters.
        assert_eq!(first.reserved(), 1500);
        let mut second = budget.reserve(10).unwrap();
        grow(&mut second);
        assert_eq!(second.reserved(), 750);
        assert!(!first.grow(10) && !first.grow(u64::MAX));
        let newcomers: Vec<_> = (0..100).map(|_| budget.reserve(10)).collect();
        assert!(newcomers.iter().all(Result::is_ok));
        drop((second, newcomers));
        grow(&mut first);
        assert_eq!(first.reserved(), 1500);
    }

    #[test]
    fn without_a_budget_there_is_no_bound() {
        let mut alone = Reservation::default();
        assert!(alone.grow(u64::MAX) && !alone.grow(1));
    }
}
