//! Buffers that a thread lends to whichever tunnel it works at. Sealed records pass through one on their way to the
//! socket and from it, and so do masked frames; so it stays warm, and an idle tunnel has none.

use std::cell::Cell;

use super::record::RECORD_MAX;

/// Holds what a tunnel reads or writes at a time, 256 KiB, with all that is around the content of its records
/// (22 bytes for 16 KiB), and one record more.
pub(in crate::carrier) const LEN: usize = 257 * 1024 + RECORD_MAX;

/// So many are kept by a thread: one to read through, one in place of that of a tunnel whose socket was full.
const KEPT: usize = 2;

thread_local! {
    static SPARE: Cell<Vec<Vec<u8>>> = const { Cell::new(Vec::new()) };
}

/// A buffer of [`LEN`] bytes; what is in it means nothing.
pub(in crate::carrier) fn take() -> Vec<u8> {
    // A thread that is ending has none any more.
    let mut spare = SPARE.try_with(Cell::take).unwrap_or_default();
    let buffer = spare.pop();
    SPARE.try_with(|cell| cell.set(spare)).ok();
    buffer.unwrap_or_else(|| vec![0; LEN])
}

/// Gives it back.
pub(in crate::carrier) fn give(buffer: Vec<u8>) {
    if buffer.len() != LEN {
        return;
    }
    let mut spare = SPARE.try_with(Cell::take).unwrap_or_default();
    if spare.len() < KEPT {
        spare.push(buffer);
    }
    SPARE.try_with(|cell| cell.set(spare)).ok();
}
