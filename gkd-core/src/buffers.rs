//! Read buffers that are used again while they are warm.
//!
//! What is read from a socket is handed on by reference, so its buffer is free only when the last packet in it was
//! acknowledged, or was written to its destination. Until then it is kept here, and whoever reads next takes the one
//! that was given back last of those that are free. An allocator hands the pages of such large buffers back to the
//! system again and again, and every one that it gets anew costs a fault and is cold.
//!
//! One list for the process, bounded in bytes. What is not needed goes after a moment, and all of it when no tunnel moves
//! bytes any more.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;

/// The size of the largest buffers, in bytes. What is kept are these, their halves and their quarters.
pub const LARGEST: usize = 256 * 1024;
const LEAST: usize = LARGEST / 4;

/// The most that is kept, in bytes, what packets still hold included. A connection over loopback has some 10 MB on its
/// way, at each end, and where there is no room for them each read allocates.
const MOST: usize = 32 * 1024 * 1024;

/// A free buffer that nobody took for so long goes, and for twice as long at the most it stays.
const UNUSED: Duration = Duration::from_millis(100);

/// An empty buffer with room for at least so many bytes.
pub fn take(room: usize) -> BytesMut {
    let size = if (LEAST..=LARGEST).contains(&room) { room.next_power_of_two() } else { room };
    let kept = is_kept(size).then(|| with_kept(|kept| kept.take(size))).flatten();
    kept.unwrap_or_else(|| BytesMut::with_capacity(size))
}

/// Gives back what is left of a buffer whose capacity was `size` when it was taken; packets may hold the rest of it.
/// What it contains is lost.
pub fn give_back(mut buffer: BytesMut, size: usize) {
    if is_kept(size) {
        buffer.clear();
        // Dropped behind the lock, for the allocator may take its time.
        let _surplus = with_kept(|kept| kept.put(Spare { buffer, size, unused: false }));
    }
}

fn is_kept(size: usize) -> bool {
    size.is_power_of_two() && (LEAST..=LARGEST).contains(&size)
}

struct Spare {
    buffer: BytesMut,
    /// Its capacity when nobody holds a part of it.
    size: usize,
    /// It was free when that was last looked at.
    unused: bool,
}

impl Spare {
    fn is_free(&mut self) -> bool {
        self.buffer.try_reclaim(self.size)
    }
}

struct Kept {
    /// In the order in which they were given back.
    spares: Vec<Spare>,
    bytes: usize,
    /// Tunnels that move bytes.
    busy: usize,
    /// When it was last looked for unused ones.
    looked: Option<Instant>,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept::new());

fn with_kept<R>(call: impl FnOnce(&mut Kept) -> R) -> R {
    // A panic leaves nothing half done that matters: buffers are what they are.
    call(&mut KEPT.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Kept {
    const fn new() -> Self {
        Self { spares: Vec::new(), bytes: 0, busy: 0, looked: None }
    }

    fn take(&mut self, size: usize) -> Option<BytesMut> {
        let free = self.spares.iter_mut().rposition(|spare| spare.size == size && spare.is_free())?;
        self.bytes -= size;
        Some(self.spares.remove(free).buffer)
    }

    /// Gives it back where it is too much. Not an older one: those become free before it does.
    fn put(&mut self, spare: Spare) -> Option<Spare> {
        if self.busy == 0 || self.bytes + spare.size > MOST {
            return Some(spare);
        }
        self.bytes += spare.size;
        self.spares.push(spare);
        None
    }

    /// Takes out what was free at the last look too.
    fn unused(&mut self, now: Instant) -> Vec<Spare> {
        if self.looked.is_some_and(|looked| now.saturating_duration_since(looked) < UNUSED) {
            return Vec::new();
        }
        self.looked = Some(now);
        let unused = self.spares.extract_if(.., |spare| {
            let free = spare.is_free();
            std::mem::replace(&mut spare.unused, free) && free
        });
        let unused: Vec<_> = unused.collect();
        self.bytes -= unused.iter().map(|spare| spare.size).sum::<usize>();
        unused
    }
}

/// A tunnel that moves bytes: while there is one, buffers are kept.
#[derive(Debug)]
pub(crate) struct Busy(());

impl Busy {
    pub(crate) fn new() -> Self {
        with_kept(|kept| kept.busy += 1);
        Self(())
    }

    /// Lets go what nobody took for some time. To be called now and then.
    pub(crate) fn release_unused(&self) {
        let now = Instant::now();
        let _unused = with_kept(|kept| kept.unused(now));
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _all = with_kept(|kept| {
            kept.busy -= 1;
            if kept.busy > 0 {
                return Vec::new();
            }
            kept.bytes = 0;
            std::mem::take(&mut kept.spares)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        Kept { busy: 1, ..Kept::new() }
    }

    /// A buffer of this size and what holds a part of it.
    fn held(kept: &mut Kept, size: usize) -> BytesMut {
        let mut buffer = BytesMut::with_capacity(size);
        buffer.extend_from_slice(&[1; 100]);
        let packet = buffer.split();
        let _surplus = kept.put(Spare { buffer, size, unused: false });
        packet
    }

    #[test]
    fn the_last_that_is_free_is_taken_whole() {
        let mut kept = kept();
        let first = held(&mut kept, LARGEST);
        let second = held(&mut kept, LARGEST);
        let third = held(&mut kept, LARGEST);
        assert!(kept.take(LARGEST).is_none(), "packets hold them");
        let memory = [&first, &second].map(|packet| packet.as_ptr());
        drop((first, second));
        assert!(kept.take(LEAST).is_none(), "none of this size");
        for memory in [memory[1], memory[0]] {
            let taken = kept.take(LARGEST).expect("one is free");
            assert_eq!((taken.len(), taken.capacity(), taken.as_ptr()), (0, LARGEST, memory));
        }
        assert!(kept.take(LARGEST).is_none());
        assert_eq!((third.len(), kept.bytes), (100, LARGEST));
    }

    #[test]
    fn no_more_is_kept_than_the_bound_and_nothing_while_no_tunnel_moves_bytes() {
        let mut kept = kept();
        let packets: Vec<_> = (0..2 * MOST / LEAST).map(|_| held(&mut kept, LEAST)).collect();
        assert_eq!((kept.bytes, kept.spares.len()), (MOST, MOST / LEAST));
        drop(packets);
        assert!(kept.take(LEAST).is_some());
        kept.busy = 0;
        let buffer = BytesMut::with_capacity(LEAST);
        assert!(kept.put(Spare { buffer, size: LEAST, unused: false }).is_some(), "it is kept");
    }

    #[test]
    fn what_nobody_takes_goes_and_what_is_in_use_stays() {
        let mut kept = kept();
        let start = Instant::now();
        drop(held(&mut kept, LARGEST));
        let packet = held(&mut kept, LARGEST);
        assert_eq!(kept.unused(start).len(), 0, "it was free for a moment only");
        assert_eq!(kept.unused(start + UNUSED / 2).len(), 0);
        assert_eq!(kept.unused(start + UNUSED).len(), 1);
        assert_eq!((packet.len(), kept.bytes, kept.spares.len()), (100, LARGEST, 1));
    }

    #[test]
    fn sizes_are_those_that_are_kept_or_just_what_is_asked_for() {
        for (room, size) in
            [(4096, 4096), (LEAST, LEAST), (LEAST + 1, 2 * LEAST), (LARGEST - 1, LARGEST), (300_000, 300_000)]
        {
            assert_eq!(take(room).capacity(), size, "{room}");
        }
    }
}
