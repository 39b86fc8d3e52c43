//! The policy in force, and those that a later one may forbid ([`InForce`]).
//!
//! Nearly every relay waits here for all of its life, so whoever waits takes little: a place in one row, and the waker in it.
//! When another policy comes all of them are woken, and each looks whether it is forbidden. Between two policies a poll costs
//! one look at a number: no lock.

use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};

use gkd_core::proto::id::PeerId;

use super::{Policy, Terms};

/// A policy that can be replaced by another at any time.
#[derive(Debug)]
pub(crate) struct InForce {
    policy: RwLock<Arc<Policy>>,
    /// How many came before it.
    number: AtomicU32,
    row: Mutex<Row>,
}

/// Which of the policies was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen(u32);

/// Those that wait for another policy. As long as the most that ever waited since nobody did.
#[derive(Debug, Default)]
struct Row {
    places: Vec<Option<Waker>>,
    /// The places that are free.
    free: Vec<u32>,
}

impl InForce {
    pub(crate) fn new(policy: Policy) -> Self {
        Self { policy: RwLock::new(Arc::new(policy)), number: AtomicU32::new(0), row: Mutex::default() }
    }

    /// Replaces the policy, and has everybody look who waits.
    pub(crate) fn set(&self, policy: Policy) {
        let policy = Arc::new(policy);
        let before = {
            let mut place = self.policy.write().unwrap_or_else(PoisonError::into_inner);
            let before = std::mem::replace(&mut *place, policy);
            self.number.fetch_add(1, Ordering::Release);
            before
        };
        drop(before);
        // Behind the number: whoever takes a place from here on looks at it again, and is not among these.
        let wakers: Vec<_> = self.row().places.iter().flatten().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The terms of a peer.
    pub(crate) fn terms(&self, peer: PeerId) -> Arc<Terms> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).of(peer).clone()
    }

    /// The terms of a peer, and which policy they are of.
    pub(crate) fn look(&self, peer: PeerId) -> (Seen, Arc<Terms>) {
        let policy = self.policy.read().unwrap_or_else(PoisonError::into_inner);
        (self.seen(), policy.of(peer).clone())
    }

    fn seen(&self) -> Seen {
        Seen(self.number.load(Ordering::Acquire))
    }

    /// Waits until `forbids` finds something in a policy that came behind the one that was seen. Cancel safe.
    pub(crate) fn forbidden<T>(
        &self,
        seen: Seen,
        mut forbids: impl FnMut(&Self) -> Option<T>,
    ) -> impl Future<Output = T> {
        let mut waiting = Waiting { in_force: self, seen, place: 0, waker: None };
        poll_fn(move |cx| waiting.poll(cx, &mut forbids))
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that waits; its place is free again when it is dropped.
struct Waiting<'a> {
    in_force: &'a InForce,
    seen: Seen,
    /// Where it stands, once there is a waker.
    place: u32,
    /// What wakes it there.
    waker: Option<Waker>,
}

impl Waiting<'_> {
    fn poll<T>(&mut self, cx: &mut Context<'_>, forbids: &mut impl FnMut(&InForce) -> Option<T>) -> Poll<T> {
        if let Some(found) = self.look(forbids) {
            return Poll::Ready(found);
        }
        if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        self.stand(cx.waker());
        // A policy that came before it stood there woke somebody else, or nobody.
        self.look(forbids).map_or(Poll::Pending, Poll::Ready)
    }

    /// What is forbidden by a policy that was not seen.
    fn look<T>(&mut self, forbids: &mut impl FnMut(&InForce) -> Option<T>) -> Option<T> {
        let seen = self.in_force.seen();
        if seen == self.seen {
            return None;
        }
        self.seen = seen;
        forbids(self.in_force)
    }

    /// Takes a place, or another waker to its own.
    fn stand(&mut self, waker: &Waker) {
        let mut row = self.in_force.row();
        if self.waker.is_none() {
            self.place = row.take();
        }
        let before = row.places.get_mut(self.place as usize).and_then(|at| at.replace(waker.clone()));
        drop(row);
        // Wakers may run foreign code when they go, so not under the lock.
        drop(before);
        self.waker = Some(waker.clone());
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.waker.is_some() {
            let before = self.in_force.row().leave(self.place);
            drop(before);
        }
    }
}

impl Row {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            // There are no more than descriptors.
            (self.places.len() - 1) as u32
        })
    }

    /// Frees a place; the waker that stood there.
    fn leave(&mut self, place: u32) -> Option<Waker> {
        let before = self.places.get_mut(place as usize).and_then(Option::take);
        self.free.push(place);
        if self.free.len() == self.places.len() {
            *self = Self::default();
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;
    use crate::rules::{Denial, Rules, parse_range};

    const ANN: PeerId = PeerId([1; 32]);
    const BOB: PeerId = PeerId([2; 32]);

    /// Counts how often it is called.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Count {
        fn take(&self) -> usize {
            self.0.swap(0, Ordering::SeqCst)
        }
    }

    fn allow(range: &str) -> Policy {
        Rules::allow([parse_range(range).unwrap()]).into()
    }

    fn none() -> Policy {
        Rules::none().into()
    }

    fn terms(range: &str) -> Terms {
        Terms { rules: Arc::new(Rules::allow([parse_range(range).unwrap()])), ..Terms::default() }
    }

    /// What the rules say of 10.0.0.1 for a peer.
    fn judge(peer: PeerId) -> impl FnMut(&InForce) -> Option<Denial> {
        move |policy| policy.terms(peer).rules.check(None, "10.0.0.1:80".parse().unwrap()).err()
    }

    #[test]
    fn each_change_wakes_those_that_wait_and_ends_whom_it_forbids() {
        let policy = InForce::new(allow("10.0.0.0/8"));
        let (of_ann, of_bob) = (Arc::<Count>::default(), Arc::<Count>::default());
        let (for_ann, for_bob) = (Waker::from(of_ann.clone()), Waker::from(of_bob.clone()));
        let mut ann = pin!(policy.forbidden(policy.look(ANN).0, judge(ANN)));
        let mut bob = pin!(policy.forbidden(policy.look(BOB).0, judge(BOB)));
        let (mut to_ann, mut to_bob) = (Context::from_waker(&for_ann), Context::from_waker(&for_bob));
        assert!(ann.as_mut().poll(&mut to_ann).is_pending());
        assert!(bob.as_mut().poll(&mut to_bob).is_pending());
        for _ in 0..2 {
            policy.set(none().with(ANN, terms("10.0.0.1")).with(BOB, terms("10.0.0.2/31")));
            policy.set(allow("10.0.0.1"));
            assert!((of_ann.take(), of_bob.take()) == (2, 2), "both are to look");
            assert!(ann.as_mut().poll(&mut to_ann).is_pending(), "what was missed does not count");
            assert!(bob.as_mut().poll(&mut to_bob).is_pending());
        }
        policy.set(none().with(ANN, terms("10.0.0.1")));
        assert!(ann.as_mut().poll(&mut to_ann).is_pending());
        assert_eq!(bob.as_mut().poll(&mut to_bob), Poll::Ready(Denial::Rule(1)));
    }

    #[test]
    fn what_changes_before_somebody_waits_is_seen() {
        let policy = InForce::new(allow("10.0.0.0/8"));
        let (seen, _) = policy.look(ANN);
        policy.set(none());
        let mut waiting = pin!(policy.forbidden(seen, judge(ANN)));
        let found = waiting.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(found, Poll::Ready(Denial::Rule(1)));
        // One that was dialled by those rules waits for others.
        let mut waiting = pin!(policy.forbidden(policy.look(ANN).0, judge(ANN)));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }

    fn wait(waiting: &mut Pin<Box<impl Future<Output = Denial>>>, count: &Arc<Count>) {
        let waker = Waker::from(count.clone());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }

    #[test]
    fn the_last_waker_is_called_and_places_are_used_again() {
        let policy = InForce::new(allow("10.0.0.0/8"));
        let (first, second) = (Arc::<Count>::default(), Arc::<Count>::default());
        let one_more = || Box::pin(policy.forbidden(policy.look(ANN).0, judge(ANN)));
        let (mut one, mut other) = (one_more(), one_more());
        wait(&mut one, &first);
        wait(&mut one, &second);
        wait(&mut other, &second);
        policy.set(allow("10.0.0.0/8"));
        assert_eq!((first.take(), second.take()), (0, 2));
        drop(one);
        assert_eq!(Arc::strong_count(&second), 3, "a place that is left keeps no waker");
        let mut third = one_more();
        wait(&mut third, &first);
        assert_eq!(policy.row().places.len(), 2);
        drop((other, third));
        assert_eq!(policy.row().places.capacity(), 0, "a row in which nobody stands has no memory");
    }

    #[test]
    fn a_change_that_comes_just_before_one_stands_in_the_row_is_seen() {
        let policy = InForce::new(allow("10.0.0.0/8"));
        let (seen, _) = policy.look(ANN);
        policy.set(allow("10.0.0.1"));
        let (mut judge, mut looked) = (judge(ANN), 0);
        let waiting = policy.forbidden(seen, |policy| {
            let found = judge(policy);
            looked += 1;
            if looked == 1 {
                policy.set(none());
            }
            found
        });
        let found = pin!(waiting).poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!((found, looked), (Poll::Ready(Denial::Rule(1)), 2));
    }
}
