//! The ring beside a model that is too simple to be wrong.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Inserts the number itself as the item.
fn put(buffer: &mut ReorderBuffer<u64>, number: u64) -> Inserted<u64> {
    let inserted = buffer.insert(PacketNumber(number), number);
    buffer.invariants();
    inserted
}

/// Without a look at every slot.
fn put_unchecked(buffer: &mut ReorderBuffer<u64>, number: u64) -> Inserted<u64> {
    buffer.insert(PacketNumber(number), number)
}

fn popped(buffer: &mut ReorderBuffer<u64>) -> Vec<u64> {
    let items = std::iter::from_fn(|| buffer.pop()).collect();
    buffer.invariants();
    items
}

#[test]
fn nothing_is_allocated_before_the_first_insert_nor_by_what_is_in_order_and_handed_on() {
    let mut buffer = ReorderBuffer::<u64>::new(100);
    assert_eq!(buffer.capacity(), 0);
    assert!((0..1000).all(|number| buffer.deliver(PacketNumber(number))));
    buffer.invariants();
    assert_eq!((buffer.next(), buffer.capacity()), (PacketNumber(1000), 0));
}

#[test]
fn items_behind_a_hole_wait_for_it() {
    let mut buffer = ReorderBuffer::new(100);
    for number in [1, 2, 4] {
        assert_eq!(put(&mut buffer, number), Inserted::OutOfOrder);
    }
    assert_eq!((buffer.readable(), buffer.peek()), (false, None));
    assert_eq!(buffer.pop(), None);
    assert_eq!((buffer.len(), buffer.held_out_of_order(), buffer.span()), (3, 3, 5));
    assert_eq!(put(&mut buffer, 0), Inserted::InOrder);
    assert_eq!((buffer.len(), buffer.held_out_of_order(), buffer.span()), (4, 1, 5));
    assert_eq!((buffer.readable(), buffer.peek()), (true, Some(&0)));
    assert_eq!(popped(&mut buffer), [0, 1, 2]);
    assert_eq!((buffer.len(), buffer.held_out_of_order(), buffer.span()), (1, 1, 2));
}

#[test]
fn what_stands_behind_unread_items_without_a_hole_is_in_order() {
    let mut buffer = ReorderBuffer::new(100);
    assert!((0..20).all(|number| put(&mut buffer, number) == Inserted::InOrder));
    assert_eq!((buffer.len(), buffer.held_out_of_order()), (20, 0));
    assert_eq!(popped(&mut buffer), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_number_is_taken_once_and_the_first_item_stays() {
    let mut buffer = ReorderBuffer::new(100);
    let _ = (buffer.insert(PacketNumber(0), "a"), buffer.insert(PacketNumber(2), "c"));
    for (number, held) in [(0, Some("a")), (2, Some("c"))] {
        assert_eq!(buffer.insert(PacketNumber(number), "other"), Inserted::Duplicate("other"));
        assert_eq!(buffer.get(PacketNumber(number)).copied(), held);
    }
    assert_eq!(buffer.pop(), Some("a"));
    assert_eq!(buffer.insert(PacketNumber(0), "late"), Inserted::Duplicate("late"));
    assert_eq!(buffer.get(PacketNumber(0)), None);
    buffer.invariants();
}

#[test]
fn a_number_beyond_the_limit_is_refused_without_an_allocation() {
    let mut buffer = ReorderBuffer::starting_at(PacketNumber(7), 100);
    for number in [107, 108, 1 << 62, u64::MAX - 1, u64::MAX] {
        assert_eq!(put(&mut buffer, number), Inserted::TooFar(number));
    }
    assert_eq!(buffer.capacity(), 0);
    assert_eq!(put(&mut buffer, 106), Inserted::OutOfOrder);
    assert_eq!(buffer.capacity(), 128);
}

/// A peer that opens connections, sends one such packet on each and resets them would otherwise have thousands of slots
/// made and cleared for a few bytes.
#[test]
fn one_item_far_ahead_makes_no_slots() {
    let mut buffer = ReorderBuffer::new(MAX_LIMIT);
    for number in [8191, MAX_LIMIT as u64 - 1] {
        assert_eq!(put(&mut buffer, number), Inserted::OutOfOrder);
        assert_eq!(put(&mut buffer, number), Inserted::Duplicate(number));
        assert_eq!(buffer.get(PacketNumber(number)), Some(&number));
    }
    assert_eq!((buffer.capacity(), buffer.len(), buffer.span()), (0, 2, MAX_LIMIT));
    assert!((0..8191).all(|number| put_unchecked(&mut buffer, number) == Inserted::InOrder));
    assert_eq!(popped(&mut buffer), (0..8192).collect::<Vec<_>>());
    assert_eq!((buffer.len(), buffer.held_out_of_order()), (1, 1));
}

#[test]
fn the_ring_is_in_proportion_to_what_is_held() {
    let mut buffer = ReorderBuffer::new(MAX_LIMIT);
    let mut number = 0x9e37_79b9_u64;
    for held in 1..3000 {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1) >> 1;
        let _ = put_unchecked(&mut buffer, number >> 20 & 0xf_ffff);
        assert!(buffer.len() <= held && buffer.capacity() <= NEAR.max(8 * held));
    }
    buffer.invariants();
    assert!(buffer.len() > 2000);
}

#[test]
fn a_senseless_limit_is_mended() {
    assert_eq!(ReorderBuffer::<u64>::new(0).limit(), 1);
    assert_eq!(ReorderBuffer::<u64>::new(usize::MAX).limit(), MAX_LIMIT);
}

/// Origin: gkd-rs (2019) had 32-bit numbers without a plan for their end, aggligator wraps without a total order.
#[test]
fn the_last_numbers_of_all_neither_wrap_nor_panic() {
    let first = u64::MAX - 3;
    let mut buffer = ReorderBuffer::starting_at(PacketNumber(first), usize::MAX);
    assert_eq!(put(&mut buffer, u64::MAX), Inserted::TooFar(u64::MAX));
    assert_eq!(put(&mut buffer, u64::MAX - 1), Inserted::OutOfOrder);
    assert_eq!(put(&mut buffer, first), Inserted::InOrder);
    assert_eq!(put(&mut buffer, first + 1), Inserted::InOrder);
    assert_eq!(popped(&mut buffer), [first, first + 1, first + 2]);
    assert_eq!(buffer.next(), PacketNumber(u64::MAX));
    assert!(!buffer.deliver(PacketNumber(u64::MAX)));
    assert_eq!(put(&mut buffer, u64::MAX), Inserted::TooFar(u64::MAX));
    assert_eq!(put(&mut buffer, 0), Inserted::Duplicate(0));
    assert_eq!((buffer.len(), buffer.span(), buffer.get(PacketNumber(u64::MAX))), (0, 0, None));
}

#[test]
fn delivering_past_the_buffer_makes_readable_what_waits_behind() {
    let mut buffer = ReorderBuffer::new(100);
    let _ = (put(&mut buffer, 1), put(&mut buffer, 2), put(&mut buffer, 4));
    assert!(!buffer.deliver(PacketNumber(3)), "not the next one");
    assert!(buffer.deliver(PacketNumber(0)));
    buffer.invariants();
    assert!(!buffer.deliver(PacketNumber(1)), "it is held");
    assert!(!buffer.deliver(PacketNumber(0)), "it was delivered");
    assert_eq!(popped(&mut buffer), [1, 2]);
}

#[test]
fn a_large_ring_goes_when_it_is_empty_and_a_small_one_when_asked() {
    let mut buffer = ReorderBuffer::new(10_000);
    assert!((1..1500).all(|number| put(&mut buffer, number) == Inserted::OutOfOrder));
    assert_eq!(buffer.capacity(), 2048);
    assert_eq!(put(&mut buffer, 0), Inserted::InOrder);
    assert_eq!(popped(&mut buffer), (0..1500).collect::<Vec<_>>());
    assert_eq!(buffer.capacity(), 0);

    let _ = (put(&mut buffer, 1550), put(&mut buffer, 1500));
    assert_eq!(popped(&mut buffer), [1500]);
    for number in 1501..1550 {
        assert_eq!(put(&mut buffer, number), Inserted::InOrder);
    }
    assert_eq!(popped(&mut buffer).len(), 50);
    assert_eq!(buffer.capacity(), 64);
    buffer.shrink();
    buffer.invariants();
    assert_eq!(buffer.capacity(), 0);
}

#[test]
fn steady_use_of_a_small_ring_allocates_once() {
    let mut buffer = ReorderBuffer::new(100);
    for group in 0..100 {
        for number in (group * 40..group * 40 + 40).rev() {
            let _ = put(&mut buffer, number);
        }
        assert_eq!((popped(&mut buffer).len(), buffer.capacity()), (40, 64));
    }
}

#[test]
fn draining_gives_all_items_in_order_and_forgets_their_numbers() {
    let mut buffer = ReorderBuffer::new(1000);
    let _ = [0, 1, 5, 900, 30, 3].map(|number| put(&mut buffer, number));
    let _ = buffer.pop();
    let drained: Vec<_> = buffer.drain().map(|(number, item)| (number.0, item)).collect();
    assert_eq!(drained, [(1, 1), (3, 3), (5, 5), (30, 30), (900, 900)]);
    buffer.invariants();
    assert_eq!((buffer.next(), buffer.len(), buffer.capacity()), (PacketNumber(1), 0, 0));
    assert_eq!(put(&mut buffer, 1), Inserted::InOrder);
    drop(buffer.drain());
    buffer.invariants();
    assert!(buffer.is_empty());
}

#[test]
fn a_slot_of_bytes_is_no_larger_than_bytes() {
    assert_eq!(size_of::<Option<Bytes>>(), size_of::<Bytes>());
}

/// What a [`ReorderBuffer`] promises, in the fewest words.
struct Model {
    held: BTreeMap<u64, u32>,
    next: u64,
    limit: u64,
}

impl Model {
    fn missing(&self) -> u64 {
        (self.next..u64::MAX).find(|number| !self.held.contains_key(number)).unwrap_or(u64::MAX)
    }

    fn insert(&mut self, number: u64, item: u32) -> Inserted<u32> {
        if number == u64::MAX || number.checked_sub(self.next).is_some_and(|ahead| ahead >= self.limit) {
            return Inserted::TooFar(item);
        }
        if number < self.next || self.held.contains_key(&number) {
            return Inserted::Duplicate(item);
        }
        let in_order = number == self.missing();
        self.held.insert(number, item);
        if in_order { Inserted::InOrder } else { Inserted::OutOfOrder }
    }

    fn deliver(&mut self, number: u64) -> bool {
        let taken = number == self.next && number != u64::MAX && !self.held.contains_key(&number);
        self.next += u64::from(taken);
        taken
    }

    fn pop(&mut self) -> Option<u32> {
        let item = self.held.remove(&self.next)?;
        self.next += 1;
        Some(item)
    }
}

#[derive(Clone, Debug)]
enum Operation {
    /// Inserts the number so far from the next one.
    Insert(i64),
    InsertAt(u64),
    /// Inserts that number and those behind it, the last first.
    InsertReversed(i64, u8),
    /// Inserts so many numbers from the first one on that is missing.
    Fill(u16),
    /// Changes every item in place.
    Change,
    Deliver(i64),
    Pop(u16),
    Clear,
    Drain(u8),
    Shrink,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => (-3i64..12).prop_map(Operation::Insert),
        4 => (-40i64..400).prop_map(Operation::Insert),
        4 => (0i64..4000).prop_map(Operation::Insert),
        1 => any::<u64>().prop_map(Operation::InsertAt),
        3 => (0i64..8, 1u8..80).prop_map(|(from, len)| Operation::InsertReversed(from, len)),
        1 => (0i64..2000, 1u8..80).prop_map(|(from, len)| Operation::InsertReversed(from, len)),
        1 => (1u16..400).prop_map(Operation::Fill),
        1 => Just(Operation::Change),
        4 => (-1i64..3).prop_map(Operation::Deliver),
        6 => (1u16..100).prop_map(Operation::Pop),
        2 => (1u16..2000).prop_map(Operation::Pop),
        1 => Just(Operation::Clear),
        1 => any::<u8>().prop_map(Operation::Drain),
        2 => Just(Operation::Shrink),
    ]
}

fn apply(operation: &Operation, buffer: &mut ReorderBuffer<u32>, model: &mut Model, item: u32) {
    let number = |offset: i64| model.next.saturating_add_signed(offset);
    match *operation {
        Operation::Insert(offset) => {
            let number = number(offset);
            assert_eq!(buffer.insert(PacketNumber(number), item), model.insert(number, item));
        }
        Operation::InsertAt(number) => {
            assert_eq!(buffer.insert(PacketNumber(number), item), model.insert(number, item));
        }
        Operation::InsertReversed(offset, len) => {
            let from = number(offset);
            for number in (from..from.saturating_add(u64::from(len))).rev() {
                assert_eq!(buffer.insert(PacketNumber(number), item), model.insert(number, item));
            }
        }
        Operation::Fill(len) => {
            let from = model.missing();
            for number in from..from.saturating_add(u64::from(len)) {
                assert_eq!(buffer.insert(PacketNumber(number), item), model.insert(number, item));
            }
        }
        Operation::Change => {
            buffer.values_mut().for_each(|held| *held = !*held);
            model.held.values_mut().for_each(|held| *held = !*held);
            if let Some(held) = model.held.last_key_value().map(|(number, _)| *number) {
                assert_eq!(buffer.get_mut(PacketNumber(held)), model.held.get_mut(&held));
            }
        }
        Operation::Deliver(offset) => {
            let number = number(offset);
            assert_eq!(buffer.deliver(PacketNumber(number)), model.deliver(number));
        }
        Operation::Pop(times) => (0..times).for_each(|_| assert_eq!(buffer.pop(), model.pop())),
        Operation::Clear => {
            buffer.clear();
            model.held.clear();
        }
        Operation::Drain(most) => {
            let all = std::mem::take(&mut model.held).into_iter();
            let drained = buffer.drain().take(usize::from(most));
            assert!(drained.map(|(number, item)| (number.0, item)).eq(all.take(usize::from(most))));
        }
        Operation::Shrink => {
            buffer.shrink();
            let needed = |span: usize| if span == 0 { 0 } else { span.next_power_of_two().max(MIN_CAPACITY) };
            // What is next takes no slot if nothing was readable when it came. What is far ahead may have come near when
            // it was inserted, and may not.
            let near = (model.missing() - model.next) as usize;
            let least = if near == 1 { 0 } else { needed(near) };
            assert!((least..=needed(buffer.span())).contains(&buffer.capacity()));
            assert!(buffer.span() == 1 || buffer.span() > NEAR || buffer.capacity() == needed(buffer.span()));
        }
    }
}

fn compare(buffer: &ReorderBuffer<u32>, model: &Model) {
    buffer.invariants();
    let (next, missing) = (model.next, model.missing());
    let end = model.held.last_key_value().map_or(next, |(number, _)| number + 1);
    assert_eq!(buffer.next().0, next);
    assert_eq!(buffer.len(), model.held.len());
    assert_eq!(buffer.is_empty(), model.held.is_empty());
    assert_eq!(buffer.readable(), missing > next);
    assert_eq!(buffer.held_out_of_order(), model.held.range(missing..).count());
    assert_eq!(buffer.span() as u64, end - next);
    assert_eq!(buffer.peek(), model.held.get(&next));
    assert!(buffer.iter().map(|(number, item)| (number.0, item)).eq(model.held.iter().map(|(n, i)| (*n, i))));
    let numbers =
        (next.saturating_sub(5)..next.saturating_add(20)).chain(model.held.keys().map(|number| number + 1));
    for number in numbers.chain(model.held.keys().copied()) {
        assert_eq!(buffer.get(PacketNumber(number)), model.held.get(&number));
    }
    for number in [0, 1 << 62, u64::MAX - 1, u64::MAX] {
        assert_eq!(buffer.get(PacketNumber(number)), model.held.get(&number));
    }
}

proptest! {
    #[test]
    fn does_what_the_model_does(
        first in prop_oneof![Just(0), any::<u64>(), (u64::MAX - 300)..=u64::MAX],
        limit in prop_oneof![1usize..20, Just(300), Just(1500), Just(MAX_LIMIT)],
        operations in vec(operation(), 0..80),
    ) {
        let mut buffer = ReorderBuffer::starting_at(PacketNumber(first), limit);
        let mut model = Model { held: BTreeMap::new(), next: first, limit: limit as u64 };
        for (item, operation) in operations.iter().enumerate() {
            apply(operation, &mut buffer, &mut model, item as u32);
            compare(&buffer, &model);
        }
    }

    #[test]
    fn every_permutation_comes_out_in_order(order in Just((0u64..200).collect::<Vec<_>>()).prop_shuffle()) {
        let mut buffer = ReorderBuffer::new(200);
        let mut delivered = Vec::new();
        for number in order {
            let _ = put(&mut buffer, number);
            delivered.extend(popped(&mut buffer));
        }
        prop_assert_eq!(delivered, (0..200).collect::<Vec<_>>());
    }
}

#[test]
fn what_is_handed_on_one_by_one_allocates_nothing() {
    let mut buffer = ReorderBuffer::new(100);
    for number in 0..1000 {
        assert_eq!(put(&mut buffer, number), Inserted::InOrder);
        assert_eq!((buffer.peek(), buffer.len(), buffer.span()), (Some(&number), 1, 1));
        assert_eq!(popped(&mut buffer), [number]);
    }
    assert_eq!(buffer.capacity(), 0);
}

/// Neither leaves by the ring.
#[test]
fn a_ring_becomes_smaller_by_what_is_delivered_and_by_what_comes_next() {
    for past in [false, true] {
        let mut buffer = ReorderBuffer::new(MAX_LIMIT);
        assert!((0..3000).all(|number| put_unchecked(&mut buffer, number) == Inserted::InOrder));
        assert_eq!(put(&mut buffer, 3519), Inserted::OutOfOrder);
        assert_eq!(popped(&mut buffer).len(), 3000);
        assert_eq!(buffer.capacity(), 4096);
        for number in 3000..3519 {
            if past {
                assert!(buffer.deliver(PacketNumber(number)));
            } else {
                assert_eq!(put(&mut buffer, number), Inserted::InOrder);
                assert_eq!(buffer.pop(), Some(number));
            }
            buffer.invariants();
        }
        assert_eq!(popped(&mut buffer), [3519]);
    }
}

/// Otherwise each of many connections keeps a ring for what one item behind a hole is all that is left of.
#[test]
fn a_ring_that_was_large_is_small_for_what_is_left() {
    let mut buffer = ReorderBuffer::new(MAX_LIMIT);
    (0..8192).for_each(|number| _ = buffer.insert(PacketNumber(number), number));
    assert_eq!(buffer.insert(PacketNumber(8193), 8193), Inserted::OutOfOrder);
    assert_eq!((0..8192).filter(|number| buffer.pop() == Some(*number)).count(), 8192);
    assert!(buffer.capacity() <= NEAR, "{} slots", buffer.capacity());
    assert_eq!(buffer.insert(PacketNumber(8192), 8192), Inserted::InOrder);
    assert_eq!((buffer.pop(), buffer.pop(), buffer.pop()), (Some(8192), Some(8193), None));
    buffer.invariants();
}
