//! What a direction has carried.

use super::flow::Segment;

/// Packets and bytes since the line began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Packets that came to the line, and their bytes with all headers.
    pub(crate) entered: u64,
    pub(crate) bytes: u64,
    /// Packets that arrived, met a full queue, were lost by chance, and met a dark line.
    pub(crate) left: u64,
    pub(crate) dropped: u64,
    pub(crate) lost: u64,
    pub(crate) dark: u64,
    /// Bytes of TCP payload that came to the line, and those of them that the kernel had not sent before.
    pub(crate) payload: u64,
    pub(crate) first_time: u64,
}

impl Counts {
    /// Adds those of another direction.
    pub(crate) fn add(&mut self, other: &Self) {
        self.entered += other.entered;
        self.bytes += other.bytes;
        self.left += other.left;
        self.dropped += other.dropped;
        self.lost += other.lost;
        self.dark += other.dark;
        self.payload += other.payload;
        self.first_time += other.first_time;
    }
}

/// The payload of one flow.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// The sequence number after the last byte that was seen.
    next: Option<u32>,
    pub(super) payload: u64,
    pub(super) first_time: u64,
}

impl Stream {
    pub(super) fn take(&mut self, segment: Segment) {
        self.payload += u64::from(segment.payload);
        let end = segment.sequence.wrapping_add(segment.payload);
        // The kernel sends in order what it sends for the first time.
        let next = self.next.unwrap_or(segment.sequence);
        let ahead = end.wrapping_sub(next).cast_signed();
        if ahead > 0 {
            self.first_time += u64::from(ahead.cast_unsigned().min(segment.payload));
            self.next = Some(end);
        } else if self.next.is_none() {
            self.next = Some(next);
        }
    }
}
