//! The sending direction of a connection: bytes that the program wrote, cut into numbered packets when a
//! tunnel pulls them, and kept track of until the other end holds each.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::once::Once;
use crate::credit::SendCredit;
use crate::id::PacketNumber;

/// Small writes are gathered into pieces of this size, in bytes.
const PIECE: usize = 16 * 1024;

/// What is shorter than this is gathered as well, in bytes: its record and allocation, some 64 bytes that nobody counts,
/// would be much beside it.
const LEAST_PIECE: usize = 1024;

/// A packet keeps the memory that it was cut from until it is acknowledged, and the send budget counts its own bytes alone.
/// So one that is less than this part of that memory is a copy. A relay's piece of 256 KiB is cut to 64 KiB where a
/// tunnel is fast, to half of that where the window is yet small: those stay slices, and what a slow tunnel takes in
/// lesser bites is copied, where that costs nothing beside the line.
pub(super) const PINNED: usize = 8;

/// Queues that held more entries than this give their memory back when they run empty.
const KEEP_ENTRIES: usize = 32;

/// One direction of a connection, at its sender.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct SendHalf {
    /// Accepted and not yet numbered: whole pieces, then the piece that small writes still fill.
    pieces: VecDeque<Piece>,
    open_piece: BytesMut,
    queued: u64,
    next: PacketNumber,
    /// Numbered packets that the other end does not hold yet.
    outstanding: Outstanding,
    /// Those of them whose tunnel died or is suspect, by number.
    resend: BTreeMap<PacketNumber, Bytes>,
    resend_bytes: u64,
    pub(super) credit: SendCredit,
    /// The program will write no more.
    pub(super) finishing: bool,
    /// The Finish, which is due when nothing is queued any more.
    pub(super) finish: Once,
    /// A write was not accepted whole: the program waits for room.
    pub(super) writer_waits: bool,
}

/// Bytes that were accepted together.
#[derive(Clone, Debug, Hash)]
struct Piece {
    bytes: Bytes,
    /// The memory that any slice of it keeps.
    memory: usize,
}

impl Piece {
    /// Takes at most `most` bytes from the front, or up to `largest` where packets of that leave no rest, and those of `most`
    /// would. Otherwise the last is what is left: alike they would all be too small for their reader to keep, which copies what
    /// is small beside a read buffer.
    fn cut(&mut self, most: usize, largest: usize) -> Bytes {
        let len = self.bytes.len();
        let packets = len.div_ceil(largest.max(1));
        let even = if packets < len.div_ceil(most.max(1)) { len.div_ceil(packets) } else { most };
        let cut = self.bytes.split_to(even.min(len));
        if cut.len() < self.memory / PINNED { Bytes::copy_from_slice(&cut) } else { cut }
    }
}

impl SendHalf {
    /// Bytes accepted and not yet numbered.
    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// Accepts bytes, without copying them unless they are few.
    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() < LEAST_PIECE {
            return self.push_slice(&data);
        }
        self.close_piece();
        self.queued += data.len() as u64;
        self.pieces.push_back(Piece { memory: data.len(), bytes: data });
    }

    /// Accepts a copy of bytes.
    pub(super) fn push_slice(&mut self, mut data: &[u8]) {
        self.queued += data.len() as u64;
        while !data.is_empty() {
            let room = if self.open_piece.is_empty() { data.len().max(PIECE) } else { PIECE };
            let taken = data.len().min(room.saturating_sub(self.open_piece.len()));
            self.open_piece.extend_from_slice(&data[..taken]);
            data = &data[taken..];
            if self.open_piece.len() >= PIECE {
                self.close_piece();
            }
        }
    }

    fn close_piece(&mut self) {
        if !self.open_piece.is_empty() {
            let piece = self.take_open_piece();
            self.pieces.push_back(piece);
        }
    }

    fn take_open_piece(&mut self) -> Piece {
        let piece = std::mem::take(&mut self.open_piece);
        Piece { memory: piece.capacity(), bytes: piece.freeze() }
    }

    /// Cuts, numbers and hands out the next packet: at most `most` bytes, or up to `largest` where that leaves no small rest.
    /// It has less than half of `most` only where nothing is queued behind it, or what was written next fills that half by
    /// itself. There must be something queued.
    pub(super) fn cut(&mut self, most: usize, largest: usize) -> (PacketNumber, Bytes) {
        let payload = self.take(most, largest);
        self.queued -= payload.len() as u64;
        let number = self.next;
        self.next = number.next();
        self.outstanding.push();
        if self.pieces.is_empty() && self.pieces.capacity() > KEEP_ENTRIES {
            self.pieces.shrink_to(0);
        }
        (number, payload)
    }

    fn take(&mut self, most: usize, largest: usize) -> Bytes {
        if self.pieces.is_empty() {
            if self.open_piece.len() <= most {
                // All there is: most connections never have a row of pieces.
                return self.take_open_piece().cut(most, most);
            }
            self.close_piece();
        }
        let little = most / 2;
        let next = self.pieces.get(1).map_or(self.open_piece.len(), |piece| piece.bytes.len());
        match self.pieces.front_mut() {
            Some(piece) if piece.bytes.len() < little && (1..little).contains(&next) => self.gather(most),
            Some(piece) => {
                let cut = piece.cut(most, largest);
                if piece.bytes.is_empty() {
                    self.pieces.pop_front();
                }
                cut
            }
            None => Bytes::new(),
        }
    }

    /// Copies small pieces together, so that many small writes do not become many small packets. A large one stays whole.
    fn gather(&mut self, most: usize) -> Bytes {
        self.close_piece();
        let is_little = |piece: &Piece| piece.bytes.len() < most / 2;
        let mut size = 0;
        for piece in self.pieces.iter().take_while(|piece| is_little(piece)) {
            size += piece.bytes.len();
            if size >= most {
                break;
            }
        }
        // No more than that: a packet keeps its memory until it is acknowledged.
        let size = size.min(most);
        let mut gathered = BytesMut::with_capacity(size);
        while gathered.len() < size
            && let Some(piece) = self.pieces.front_mut()
        {
            let taken = piece.bytes.len().min(size - gathered.len());
            gathered.extend_from_slice(&piece.bytes.split_to(taken));
            if piece.bytes.is_empty() {
                self.pieces.pop_front();
            }
        }
        gathered.freeze()
    }

    /// The number that the Finish takes: one behind the last packet.
    pub(super) fn finish_number(&self) -> PacketNumber {
        self.next
    }

    /// The other end holds this packet; by which tunnel does not matter.
    pub(super) fn acked(&mut self, number: PacketNumber) {
        if self.outstanding.remove(number) && !self.resend.is_empty() {
            self.unqueue(number);
        }
    }

    /// The tunnel that carried this packet is dead or suspect. Whether it is to be sent again.
    pub(super) fn requeue(&mut self, number: PacketNumber, payload: &Bytes) -> bool {
        let lost = self.outstanding.contains(number);
        if lost && self.resend.insert(number, payload.clone()).is_none() {
            self.resend_bytes += payload.len() as u64;
        }
        lost
    }

    /// The tunnel is no longer suspect; whether the packet had not gone elsewhere yet, and now need not.
    pub(super) fn unqueue(&mut self, number: PacketNumber) -> bool {
        let payload = self.resend.remove(&number);
        self.resend_bytes -= payload.as_ref().map_or(0, |payload| payload.len() as u64);
        payload.is_some()
    }

    /// Takes the lowest packet that is to be sent again.
    pub(super) fn pop_resend(&mut self) -> Option<(PacketNumber, Bytes)> {
        let (number, payload) = self.resend.pop_first()?;
        self.resend_bytes -= payload.len() as u64;
        Some((number, payload))
    }

    /// Bytes that are to be sent again.
    pub(super) fn resend_bytes(&self) -> u64 {
        self.resend_bytes
    }

    /// The packets that are on the way, and do not wait to be sent again. For tests.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = PacketNumber> {
        let entries = self.outstanding.entries.iter().zip(self.outstanding.base..);
        let outstanding =
            entries.filter(|(outstanding, _)| **outstanding).map(|(_, number)| PacketNumber(number));
        outstanding.filter(|number| !self.resend.contains_key(number))
    }

    /// Some packet is to be sent again.
    pub(super) fn has_resend(&self) -> bool {
        !self.resend.is_empty()
    }

    /// The other end holds every packet that was numbered.
    pub(super) fn nothing_outstanding(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// Forgets everything that is queued, after a reset. How many bytes were not numbered.
    pub(super) fn clear(&mut self) -> u64 {
        let queued = std::mem::take(&mut self.queued);
        self.pieces = VecDeque::new();
        self.open_piece = BytesMut::new();
        self.resend.clear();
        self.resend_bytes = 0;
        self.outstanding = Outstanding::default();
        queued
    }
}

/// Which numbered packets the other end does not hold yet: a window over the packet numbers that slides as
/// they are acknowledged.
#[derive(Clone, Debug, Default, Hash)]
struct Outstanding {
    /// The number of the first entry.
    base: u64,
    /// Whether each is outstanding; the first always is.
    entries: VecDeque<bool>,
}

impl Outstanding {
    fn push(&mut self) {
        self.entries.push_back(true);
    }

    fn contains(&self, number: PacketNumber) -> bool {
        self.index(number).is_some_and(|index| self.entries[index])
    }

    /// Whether it was outstanding.
    fn remove(&mut self, number: PacketNumber) -> bool {
        let Some(index) = self.index(number) else { return false };
        let was = std::mem::replace(&mut self.entries[index], false);
        while self.entries.front() == Some(&false) {
            self.entries.pop_front();
            self.base += 1;
        }
        if self.entries.is_empty() && self.entries.capacity() > KEEP_ENTRIES {
            self.entries.shrink_to(0);
        }
        was
    }

    fn index(&self, number: PacketNumber) -> Option<usize> {
        let index = usize::try_from(number.0.checked_sub(self.base)?).ok()?;
        (index < self.entries.len()).then_some(index)
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::packet::{FULL_PAYLOAD, MAX_PAYLOAD};

    fn drain(half: &mut SendHalf, most: usize) -> Vec<Bytes> {
        let mut packets = Vec::new();
        while half.queued() > 0 {
            let (number, payload) = half.cut(most, most);
            assert_eq!(number.0, packets.len() as u64);
            packets.push(payload);
        }
        packets
    }

    #[test]
    fn what_is_cut_is_what_was_written_however_it_was_written() {
        let bytes: Vec<u8> = (0..200_000u32).map(|byte| (byte / 7) as u8).collect();
        for (piece, most) in [(1, 1400), (100, 64), (5000, 16_384), (70_000, 65_536), (200_000, 1400)] {
            let mut half = SendHalf::default();
            for (turn, piece) in bytes.chunks(piece).enumerate() {
                if turn % 3 == 0 { half.push(Bytes::copy_from_slice(piece)) } else { half.push_slice(piece) }
            }
            assert_eq!(half.queued(), bytes.len() as u64);
            let packets = drain(&mut half, most);
            assert!(packets.iter().all(|packet| packet.len() <= most));
            assert_eq!(packets.concat(), bytes, "pieces of {piece}, packets of {most}");
        }
    }

    #[test]
    fn small_writes_do_not_become_small_packets() {
        let mut half = SendHalf::default();
        (0..10_000).for_each(|_| half.push(Bytes::from_static(b"0123456789")));
        let packets = drain(&mut half, 1400);
        assert!(packets.len() <= 2 * 100_000 / 1400, "{} packets", packets.len());
    }

    #[test]
    fn writes_of_the_largest_payload_are_cut_without_a_copy() {
        for len in [MAX_PAYLOAD, 4 * MAX_PAYLOAD] {
            let mut half = SendHalf::default();
            let pieces: Vec<_> = (0..8).map(|_| Bytes::from(vec![7; len])).collect();
            pieces.iter().for_each(|piece| half.push(piece.clone()));
            while half.queued() > 0 {
                let (_, packet) = half.cut(FULL_PAYLOAD, MAX_PAYLOAD);
                let is_slice = pieces.iter().any(|piece| piece.as_ptr_range().contains(&packet.as_ptr()));
                assert!(is_slice, "{} of {len} bytes were copied", packet.len());
                assert_eq!(packet.len(), MAX_PAYLOAD, "of {len} bytes");
            }
        }
        // What a tunnel takes that has room for less.
        let mut half = SendHalf::default();
        half.push(Bytes::from(vec![7; 2 * MAX_PAYLOAD]));
        assert_eq!(half.cut(30_000, 30_000).1.len(), 30_000);
        assert_eq!(half.cut(FULL_PAYLOAD, FULL_PAYLOAD).1.len(), FULL_PAYLOAD);
    }

    #[test]
    fn small_writes_in_front_of_a_large_one_keep_no_more_than_a_multiple_of_themselves() {
        let mut half = SendHalf::default();
        (0..2).for_each(|_| half.push(Bytes::from(vec![8; LEAST_PIECE])));
        half.push(Bytes::from(vec![7; MAX_PAYLOAD]));
        let (_, packet) = half.cut(FULL_PAYLOAD, MAX_PAYLOAD);
        assert_eq!(packet.len(), 2 * LEAST_PIECE);
        let memory = packet.try_into_mut().expect("nobody else has a slice of what it keeps").capacity();
        assert!(memory <= PINNED * 2 * LEAST_PIECE, "{} bytes keep {memory}", 2 * LEAST_PIECE);
    }

    #[test]
    fn what_is_left_of_a_large_write_does_not_have_the_next_copied() {
        let mut half = SendHalf::default();
        let pieces: Vec<_> = (0..8).map(|_| Bytes::from(vec![7; 4 * MAX_PAYLOAD])).collect();
        pieces.iter().for_each(|piece| half.push(piece.clone()));
        let copied =
            |packet: &Bytes| !pieces.iter().any(|piece| piece.as_ptr_range().contains(&packet.as_ptr()));
        // Little room once: then all are cut elsewhere than they would be otherwise.
        let mut most = 3000;
        let mut bytes = 0;
        while half.queued() > 0 {
            let (_, packet) = half.cut(most, most);
            bytes += if copied(&packet) { packet.len() } else { 0 };
            most = FULL_PAYLOAD;
        }
        assert!(bytes < MAX_PAYLOAD / 4, "{bytes} bytes were copied");
    }

    #[test]
    fn a_small_write_does_not_have_a_large_one_copied_behind_it() {
        let mut half = SendHalf::default();
        let large = Bytes::from(vec![7; MAX_PAYLOAD]);
        for small in [LEAST_PIECE, 3 * LEAST_PIECE] {
            half.push(Bytes::from(vec![8; small]));
            half.push(large.clone());
        }
        for packet in drain(&mut half, MAX_PAYLOAD) {
            assert!(packet.len() < MAX_PAYLOAD || packet.as_ptr() == large.as_ptr());
        }
    }

    #[test]
    fn small_pieces_that_wait_are_kept_together() {
        let mut half = SendHalf::default();
        (0..100_000_u32).for_each(|byte| half.push(Bytes::copy_from_slice(&[byte as u8])));
        // A piece costs its record and its allocation, which nobody counts.
        assert!(half.pieces.len() <= 100_000 / PIECE + 1, "{} pieces", half.pieces.len());
        half.push(Bytes::from(vec![1; 2 * PIECE]));
        half.push(Bytes::from_static(b"!"));
        let packets = drain(&mut half, 1400).concat();
        assert!(packets.iter().zip(0_u32..).take(100_000).all(|(byte, number)| *byte == number as u8));
        assert_eq!((packets.len(), packets.last()), (100_000 + 2 * PIECE + 1, Some(&b'!')));
    }

    /// Bytes whose memory counts in `live` as long as any slice of it is kept.
    fn counted(live: &Arc<AtomicUsize>, len: usize) -> Bytes {
        struct Owner(Vec<u8>, Arc<AtomicUsize>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        impl Drop for Owner {
            fn drop(&mut self) {
                self.1.fetch_sub(self.0.len(), Ordering::Relaxed);
            }
        }
        live.fetch_add(len, Ordering::Relaxed);
        Bytes::from_owner(Owner(vec![7; len], live.clone()))
    }

    #[test]
    fn packets_that_are_not_acknowledged_keep_no_more_than_a_multiple_of_themselves() {
        const WRITE: usize = 256 * 1024;
        for most in [1024, 1400, 16 * 1024, 65_536] {
            let live = Arc::new(AtomicUsize::new(0));
            let mut half = SendHalf::default();
            (0..16).for_each(|_| half.push(counted(&live, WRITE)));
            // One tunnel of many is silent: it has one packet in a hundred, or of each write the one that is cut last.
            let mut kept = Vec::new();
            let mut cut = 0;
            for (number, packet) in drain(&mut half, most).into_iter().enumerate() {
                cut += packet.len();
                if number % 100 == 0 || cut % WRITE < most {
                    kept.push(packet);
                }
            }
            let bytes: usize = kept.iter().map(Bytes::len).sum();
            let live = live.load(Ordering::Relaxed);
            assert!(live <= PINNED * bytes, "{bytes} bytes in packets of {most} keep {live}");
        }
    }

    #[test]
    fn what_was_written_in_crumbs_keeps_no_more_than_a_multiple_of_itself() {
        for (write, most) in [(10, 65_536), (500, 65_536), (500, 64), (12_000, 1400), (3, 1)] {
            let mut half = SendHalf::default();
            half.push_slice(&[1; 60_000]);
            drain(&mut half, most);
            half.push_slice(&vec![1; write]);
            let (_, packet) = half.cut(most, most);
            drop(half);
            let len = packet.len();
            let memory = packet.try_into_mut().expect("nobody else has a slice of what it keeps").capacity();
            // An allocator's least is 8.
            assert!(memory <= PINNED * len.max(8), "{len} bytes keep {memory}");
        }
    }

    #[test]
    fn large_cuts_of_a_large_write_are_not_copied() {
        for most in [32 * 1024, 50_000, 65_506, 65_536] {
            let mut half = SendHalf::default();
            let write = Bytes::from(vec![1; 256 * 1024]);
            let memory = write.as_ptr_range();
            half.push(write.clone());
            while half.queued() >= most as u64 {
                let (_, packet) = half.cut(most, most);
                assert!(memory.contains(&packet.as_ptr()), "a packet of {} bytes was copied", packet.len());
            }
        }
    }

    #[test]
    fn a_packet_is_resent_until_any_copy_is_acknowledged() {
        let mut half = SendHalf::default();
        half.push(Bytes::from_static(b"abcdef"));
        let (zero, first) = half.cut(3, 3);
        let (one, second) = half.cut(3, 3);
        assert!(half.requeue(zero, &first) && half.requeue(one, &second));
        half.acked(zero);
        assert_eq!(half.pop_resend(), Some((one, second.clone())));
        assert!(half.requeue(one, &second), "its second tunnel died as well");
        half.acked(one);
        assert!(half.resend.is_empty() && half.nothing_outstanding());
        assert!(!half.requeue(one, &second), "it is acknowledged");
    }
}
