//! Bytes read as choices: [`Input`]. Whatever they are, they mean something; when they have run out, so has
//! the run.

use gkd_proto::varint;

/// What is left of the bytes.
pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte; 0 behind the last.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `bound`, which is at most 256.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    /// One of `of`, which is not empty.
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// So many bytes, or what is left.
    pub(crate) fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Any number that a varint holds.
    pub(crate) fn number(&mut self) -> u64 {
        let bytes = self.take(8);
        bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)) & varint::MAX
    }

    /// A number that is often the true one, or beside it, and sometimes any.
    pub(crate) fn near(&mut self, truth: u64) -> u64 {
        let number = match self.byte() {
            0..=0x7f => truth,
            0x80..=0x9f => truth.saturating_add(1),
            0xa0..=0xbf => truth.saturating_sub(1),
            0xc0..=0xdf => u64::from(self.byte()),
            0xe0..=0xef => truth.saturating_add(u64::from(self.byte()) << 8),
            _ => self.number(),
        };
        number.min(varint::MAX)
    }
}
