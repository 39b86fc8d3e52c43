//! Puts what arrives in any order back into the order of its packet numbers.
//!
//! [`ReorderBuffer`] is usable alone: it is generic over what it orders and knows numbers only. It counts
//! no bytes, grants no credit and compares no content; whoever drives it does.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use crate::id::PacketNumber;

/// The largest `limit` of a [`ReorderBuffer`], in packets. At the least charge of a packet it stands for
/// 2 GiB of credit, far above any window.
pub const MAX_LIMIT: usize = 1 << 24;

/// The smallest ring that is allocated, in slots: below it the allocator's own overhead rules.
const MIN_CAPACITY: usize = 8;

/// An empty buffer keeps at most so many slots. One that reorders by tens of packets, as a few tunnels of
/// like speed do, then allocates once and never again.
const KEPT_CAPACITY: usize = 64;

/// A number that is less than this ahead of the next one is near, however few items are held: the slots up to it, 8 KiB
/// for `Bytes`, cost about as much as the three packets with which a connection is opened, made to have them, and reset.
const NEAR: usize = 256;

/// … and so is one that is less ahead than so many times the items held, which have paid for the slots. Of some tunnels
/// that carry a like share, all but one in four may stand still without a packet's being far.
const NEAR_PER_ITEM: usize = 4;

/// A ring of more than [`NEAR`] slots is made smaller when no more than one in so many is in use. What is moved then was
/// paid for by the deliveries that led there.
const SPARSE: usize = 8;

/// What became of an item that was given to [`ReorderBuffer::insert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an item that was not taken comes back in here"]
pub enum Inserted<T> {
    /// It was taken, and none before it is missing: it is readable now, and what was held right behind it.
    InOrder,
    /// It was taken, and waits for one before it.
    OutOfOrder,
    /// Its number was delivered before, or is held: [`ReorderBuffer::get`] then shows the first one.
    Duplicate(T),
    /// Its number is [`limit`](ReorderBuffer::limit) or more ahead of the next one. Nothing was allocated.
    TooFar(T),
}

/// Holds items that arrive in any order, and gives them back in the order of their numbers, each number
/// once.
///
/// A ring indexed by packet number: no item is searched for, compared or moved to make room for another.
/// Inserting and popping take constant time, amortised over growth; filling a hole also looks once at each
/// item that it makes readable. What is far ahead of all that, so that its slots would be holes nearly all, waits
/// beside the ring in an ordered map until it comes near: one number costs the logarithm of how many wait there. What
/// is next while nothing is readable, nearly everything on a good path, has a place of its own in front of the ring.
///
/// # Memory
/// A slot takes `size_of::<Option<T>>()` bytes (32 for `Bytes`). There are as many slots as the next power
/// of two above the part of the [`span`](Self::span) that is near: at most twice that, eight at least, none before
/// the first item that comes out of order or while another is readable. So it grows to 256 slots, or to eight for
/// each item held if that is more, whatever numbers come. When the buffer becomes empty, a ring of more than 64 slots
/// is released at once: it took half as many deliveries as it has slots to get there, so this costs each of them next
/// to nothing, and a smaller ring is kept for the next time. Likewise one of more than 256 slots is made smaller when
/// what is left spans an eighth of them.
/// [`shrink`](Self::shrink) releases that too.
///
/// # Numbers
/// Any `u64` can be given without a panic. `u64::MAX` itself can be no item's number (it is
/// [`Inserted::TooFar`] always); on the wire, numbers end at 2^62.
///
/// ```
/// use gkd_proto::id::PacketNumber;
/// use gkd_proto::reorder::{Inserted, ReorderBuffer};
///
/// let mut buffer = ReorderBuffer::new(1000);
/// assert_eq!(buffer.insert(PacketNumber(1), "world"), Inserted::OutOfOrder);
/// assert_eq!(buffer.pop(), None);
/// assert_eq!(buffer.insert(PacketNumber(0), "hello"), Inserted::InOrder);
/// assert_eq!((buffer.pop(), buffer.pop(), buffer.pop()), (Some("hello"), Some("world"), None));
/// assert_eq!(buffer.insert(PacketNumber(1), "again"), Inserted::Duplicate("again"));
/// ```
#[derive(Clone, Debug, Hash)]
pub struct ReorderBuffer<T> {
    /// The item `next`, if nothing was readable when it came. Its slot, if there is one, is empty.
    front: Option<T>,
    /// Number `n` is at `n` modulo the length, which is zero or a power of two.
    slots: Vec<Option<T>>,
    /// The number that is delivered next.
    next: u64,
    /// The first number from `next` on that is not held: `next..missing` is readable.
    missing: u64,
    /// How many items are held behind `missing`, near and far.
    behind: usize,
    /// One above the highest number in the ring, while any is there behind `missing`. Not above `missing` otherwise.
    end: u64,
    /// What is far ahead, by number: behind all that is in the ring, and never what is missing.
    far: BTreeMap<u64, T>,
    /// How far from `next` a number is refused.
    limit: usize,
}

impl<T> ReorderBuffer<T> {
    /// An empty buffer whose first item has number 0, and which refuses numbers that are `limit` or more
    /// ahead of the next one. `limit` is taken as 1 to [`MAX_LIMIT`]. Allocates nothing.
    pub const fn new(limit: usize) -> Self {
        Self::starting_at(PacketNumber(0), limit)
    }

    /// As [`new`](Self::new), the first item having number `first`.
    pub const fn starting_at(first: PacketNumber, limit: usize) -> Self {
        let limit = match limit {
            0 => 1,
            1..=MAX_LIMIT => limit,
            _ => MAX_LIMIT,
        };
        let first = first.0;
        let (next, missing, end) = (first, first, first);
        Self { front: None, slots: Vec::new(), next, missing, behind: 0, end, far: BTreeMap::new(), limit }
    }

    /// Takes `item` as number `number`, or gives it back if that number was taken before or is too far.
    // Inlined always: handed over in memory, an item costs more than all that is done here.
    #[inline(always)]
    pub fn insert(&mut self, number: PacketNumber, item: T) -> Inserted<T> {
        // What is in order while nothing is readable comes first: that is nearly everything.
        if number.0 == self.next && self.next == self.missing && number.0 < u64::MAX {
            self.front = Some(item);
            self.missing += 1;
            if self.behind > 0 {
                self.find_hole();
            }
            return Inserted::InOrder;
        }
        self.insert_elsewhere(number.0, item)
    }

    /// [`insert`](Self::insert), but for the case that stands there.
    #[inline(always)]
    fn insert_elsewhere(&mut self, number: u64, item: T) -> Inserted<T> {
        if number >= self.next.saturating_add(self.limit as u64) {
            return Inserted::TooFar(item);
        }
        if number < self.missing {
            return Inserted::Duplicate(item);
        }
        if number - self.next >= self.slots.len() as u64 || !self.far.is_empty() {
            return self.insert_beside_far(number, item);
        }
        self.insert_near(number, item)
    }

    /// [`insert`](Self::insert) of a number that has a slot and is not below what is missing.
    #[inline(always)]
    fn insert_near(&mut self, number: u64, item: T) -> Inserted<T> {
        let index = self.index(number);
        let slot = &mut self.slots[index];
        if slot.is_some() {
            return Inserted::Duplicate(item);
        }
        *slot = Some(item);
        if number == self.missing {
            self.missing += 1;
            if self.behind > 0 {
                self.find_hole();
            }
            return Inserted::InOrder;
        }
        self.behind += 1;
        self.end = self.end.max(number + 1);
        Inserted::OutOfOrder
    }

    /// [`insert`](Self::insert) of a number that has no slot, or while something is far ahead.
    #[cold]
    #[inline(never)]
    fn insert_beside_far(&mut self, number: u64, item: T) -> Inserted<T> {
        let before_far = self.far.first_key_value().is_none_or(|(first, _)| number < *first);
        // Below the limit, which is a usize.
        let offset = (number - self.next) as usize;
        if before_far && (offset < self.slots.len() || number < self.near_end()) {
            self.make_slot(offset);
            let inserted = self.insert_near(number, item);
            // There is one more to pay for slots.
            self.come_near();
            return inserted;
        }
        match self.far.entry(number) {
            Entry::Occupied(_) => return Inserted::Duplicate(item),
            Entry::Vacant(entry) => _ = entry.insert(item),
        }
        self.behind += 1;
        self.come_near();
        Inserted::OutOfOrder
    }

    /// Counts `number` as delivered if it is the next one and not held, so that the caller can hand its
    /// item on without putting it in here: what is in order then never touches the ring. What was held
    /// right behind it becomes readable. False, with no effect, for every other number: insert that one.
    #[inline]
    pub fn deliver(&mut self, number: PacketNumber) -> bool {
        let is_next = number.0 == self.missing && self.next == self.missing;
        if is_next && let Some(after) = number.0.checked_add(1) {
            (self.next, self.missing) = (after, after);
            if self.behind > 0 {
                self.find_hole();
                self.release();
            }
            return true;
        }
        false
    }

    /// Takes the next item, if it is here.
    #[inline(always)]
    pub fn pop(&mut self) -> Option<T> {
        if self.next == self.missing {
            return None;
        }
        if let Some(item) = self.front.take() {
            self.next += 1;
            // Nothing else that is held, no large ring.
            if self.behind > 0 {
                self.release();
            }
            return Some(item);
        }
        let index = self.index(self.next);
        let item = self.slots[index].take();
        self.next += 1;
        self.release();
        item
    }

    /// Releases a ring that is no longer needed, or not that large.
    #[inline(always)]
    fn release(&mut self) {
        if self.slots.len() > KEPT_CAPACITY {
            self.release_large();
        }
    }

    #[inline]
    fn release_large(&mut self) {
        if self.is_empty() {
            self.slots = Vec::new();
        } else if self.slots.len() > NEAR
            && (self.ring_end() - self.next) as usize <= self.slots.len() / SPARSE
        {
            self.shrink();
        }
    }

    /// The next item, if it is here.
    #[inline]
    pub fn peek(&self) -> Option<&T> {
        self.get(self.next())
    }

    /// The item with this number, if it is held.
    #[inline]
    pub fn get(&self, number: PacketNumber) -> Option<&T> {
        if number.0 == self.next && self.front.is_some() {
            self.front.as_ref()
        } else if self.in_ring(number.0) {
            self.slots[self.index(number.0)].as_ref()
        } else if self.far.is_empty() {
            None
        } else {
            self.far.get(&number.0)
        }
    }

    /// The item that is held as `number`, to be changed in place.
    pub fn get_mut(&mut self, number: PacketNumber) -> Option<&mut T> {
        if number.0 == self.next && self.front.is_some() {
            self.front.as_mut()
        } else if self.in_ring(number.0) {
            let index = self.index(number.0);
            self.slots[index].as_mut()
        } else {
            self.far.get_mut(&number.0)
        }
    }

    /// The number that is delivered next.
    #[inline]
    pub fn next(&self) -> PacketNumber {
        PacketNumber(self.next)
    }

    /// Whether [`pop`](Self::pop) has an item.
    #[inline]
    pub fn readable(&self) -> bool {
        self.next != self.missing
    }

    /// How many items are held.
    #[inline]
    pub fn len(&self) -> usize {
        (self.missing - self.next) as usize + self.behind
    }

    /// Whether no item is held.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.next == self.missing && self.behind == 0
    }

    /// How many items are held that wait for a missing one.
    #[inline]
    pub fn held_out_of_order(&self) -> usize {
        self.behind
    }

    /// How many numbers there are from the next one to the highest that is held, both included: items and
    /// holes.
    #[inline]
    pub fn span(&self) -> usize {
        let end = self.far.last_key_value().map_or(self.ring_end(), |(last, _)| last + 1);
        (end - self.next) as usize
    }

    /// How far ahead of the next number one is refused.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many slots are allocated, of the ring; what is far ahead has none.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }

    /// The items held, with their numbers, in order.
    pub fn iter(&self) -> impl Iterator<Item = (PacketNumber, &T)> {
        let front = self.front.iter().map(|item| (self.next, item));
        let near =
            self.ring_numbers().filter_map(|number| Some((number, self.slots[self.index(number)].as_ref()?)));
        let far = self.far.iter().map(|(number, item)| (*number, item));
        front.chain(near).chain(far).map(|(number, item)| (PacketNumber(number), item))
    }

    /// The items held, in no order, to be changed in place.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.front.iter_mut().chain(self.slots.iter_mut().flatten()).chain(self.far.values_mut())
    }

    /// Takes out every item, readable or not, in order, and releases the ring. The numbers count as never
    /// arrived. What the iterator is not asked for is dropped with it.
    pub fn drain(&mut self) -> impl Iterator<Item = (PacketNumber, T)> + use<T> {
        let near = self.ring_numbers();
        let front = self.front.take().map(|item| (self.next, item));
        let mut slots = std::mem::take(&mut self.slots);
        let far = std::mem::take(&mut self.far);
        (self.missing, self.behind, self.end) = (self.next, 0, self.next);
        let near = near.filter_map(move |number| {
            let index = ring_index(number, slots.len());
            Some((number, slots[index].take()?))
        });
        front.into_iter().chain(near).chain(far).map(|(number, item)| (PacketNumber(number), item))
    }

    /// Drops every item and releases the ring. The numbers count as never arrived.
    pub fn clear(&mut self) {
        drop(self.drain());
    }

    /// Releases what the items held do not need: everything when there are none. For a connection that
    /// stands idle; a busy one would only allocate again.
    pub fn shrink(&mut self) {
        self.come_near();
        let numbers = self.ring_numbers();
        if numbers.is_empty() {
            self.slots = Vec::new();
            return;
        }
        let capacity = ring_capacity((numbers.end - self.next) as usize);
        if capacity < self.slots.len() {
            let mut slots = empty_slots(capacity);
            for number in numbers {
                let index = self.index(number);
                slots[ring_index(number, capacity)] = self.slots[index].take();
            }
            self.slots = slots;
        }
    }

    /// Panics unless this buffer is consistent. Looks at every slot: for tests.
    #[doc(hidden)]
    pub fn invariants(&self) {
        let slots = self.slots.len();
        assert!(slots == 0 || (slots.is_power_of_two() && slots >= MIN_CAPACITY), "{slots} slots");
        let numbers = self.ring_numbers();
        let near = if numbers.is_empty() { 0 } else { numbers.end - self.next };
        assert!(near <= slots as u64, "a ring of {slots} slots for a span of {near}");
        assert!(self.far.keys().all(|number| *number > self.missing && *number >= self.end), "far is behind");
        assert!(self.span() <= self.limit, "the span is above the limit");
        assert!(self.next <= self.missing, "the next number is at most the first missing one");
        assert!((self.next..self.missing).all(|number| self.get(PacketNumber(number)).is_some()));
        assert!(self.get(PacketNumber(self.missing)).is_none(), "what is missing is not held");
        if self.behind == self.far.len() {
            assert!(self.end <= self.missing, "nothing is held behind the hole");
        } else {
            assert!(self.end > self.missing && self.get(PacketNumber(self.end - 1)).is_some());
        }
        let in_ring = self.slots.iter().filter(|slot| slot.is_some()).count();
        let filled = usize::from(self.front.is_some()) + in_ring + self.far.len();
        assert_eq!((filled, self.iter().count()), (self.len(), self.len()), "items are where they belong");
        assert!(!self.is_empty() || slots <= KEPT_CAPACITY, "an empty buffer holds {slots} slots");
        assert!(slots <= NEAR.max(2 * SPARSE * near as usize), "{slots} slots for a span of {near}");
    }

    #[inline]
    fn index(&self, number: u64) -> usize {
        ring_index(number, self.slots.len())
    }

    /// The numbers between which everything is that is in the ring.
    fn ring_numbers(&self) -> Range<u64> {
        self.next + u64::from(self.front.is_some())..self.ring_end()
    }

    /// One above the highest number in the ring.
    #[inline]
    fn ring_end(&self) -> u64 {
        self.end.max(self.missing)
    }

    /// If this number is held, it is in the ring.
    #[inline]
    fn in_ring(&self, number: u64) -> bool {
        number >= self.next && number < self.ring_end()
    }

    /// What was missing came: goes on to the next hole.
    #[inline(never)]
    fn find_hole(&mut self) {
        self.pass_held();
        if !self.far.is_empty() {
            self.come_near();
        }
    }

    #[inline(always)]
    fn pass_held(&mut self) {
        let mut missing = self.missing;
        while missing < self.end && self.slots[self.index(missing)].is_some() {
            missing += 1;
        }
        self.behind -= (missing - self.missing) as usize;
        self.missing = missing;
    }

    /// Numbers below this may have slots made for them. What is missing is always below: all before it are held.
    fn near_end(&self) -> u64 {
        self.next.saturating_add(NEAR.max(NEAR_PER_ITEM * self.len()) as u64)
    }

    /// Takes into the ring what was far ahead and is near by now.
    #[cold]
    #[inline(never)]
    fn come_near(&mut self) {
        let near_end = self.near_end();
        while let Some(first) = self.far.first_entry()
            && *first.key() < near_end
        {
            let (number, item) = first.remove_entry();
            self.make_slot((number - self.next) as usize);
            let index = self.index(number);
            self.slots[index] = Some(item);
            self.end = number + 1;
            self.pass_held();
        }
    }

    /// Makes sure that the number `offset` ahead of `next` has a slot.
    fn make_slot(&mut self, offset: usize) {
        if offset < self.slots.len() {
            return;
        }
        let capacity = ring_capacity(offset + 1);
        if self.slots.is_empty() {
            self.slots = empty_slots(capacity);
            return;
        }
        self.slots.reserve_exact(capacity - self.slots.len());
        while self.slots.len() < capacity {
            self.double();
        }
    }

    /// Doubles a ring that is not empty. Half of the numbers keep their index; the others, which lie side by
    /// side, move up by the old length.
    fn double(&mut self) {
        let old = self.slots.len();
        self.slots.resize_with(2 * old, || None);
        let start = ring_index(self.next, old);
        let first = ring_index(self.next, 2 * old);
        let moving = if first == start { 0..start } else { start..old };
        let (low, high) = self.slots.split_at_mut(old);
        low[moving.clone()].swap_with_slice(&mut high[moving]);
    }
}

/// Where a ring of `slots` slots, a power of two or zero, keeps `number`.
#[inline]
fn ring_index(number: u64, slots: usize) -> usize {
    // The low bits are all that counts, so a cut to 32 bits does no harm.
    number as usize & slots.wrapping_sub(1)
}

fn ring_capacity(span: usize) -> usize {
    span.next_power_of_two().max(MIN_CAPACITY)
}

fn empty_slots<T>(capacity: usize) -> Vec<Option<T>> {
    let mut slots = Vec::new();
    slots.reserve_exact(capacity);
    slots.resize_with(capacity, || None);
    slots
}

#[cfg(test)]
mod tests;
