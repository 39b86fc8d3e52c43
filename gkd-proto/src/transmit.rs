//! What one tunnel is to write next: headers in one buffer, payloads by reference.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Payloads up to this many bytes are copied beside the headers: a reference would cost a slice of the
/// vectored write and more than the copy.
const INLINE: usize = 256;

/// What is allocated for headers at a time: those of some hundred packets, in one piece. It is used again when
/// all of them are written.
const HEADERS: usize = 2 * 1024;

/// A header, and a small payload behind it, fit into what is left, or other memory is taken.
const LEAST_LEFT: usize = 64;

/// A batch of encoded packets for one tunnel, filled by
/// [`Session::poll_transmit`](crate::Session::poll_transmit) and drained by the tunnel's writer as a
/// [`Buf`], best with a vectored write. What was put in must be written, in order and whole.
///
/// It may be kept and filled again when it is empty; then it allocates nothing in the steady state.
#[derive(Debug, Default)]
pub struct Transmit {
    /// Headers and small payloads that follow the last part.
    open: BytesMut,
    parts: VecDeque<Bytes>,
    /// Bytes in `parts`.
    closed: usize,
}

impl Transmit {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where headers and whole small packets are appended.
    pub(crate) fn headers(&mut self) -> &mut BytesMut {
        if self.open.capacity() - self.open.len() < LEAST_LEFT {
            self.open.reserve(HEADERS);
        }
        &mut self.open
    }

    /// Appends a payload behind what [`headers`](Self::headers) holds by now.
    pub(crate) fn put_payload(&mut self, payload: Bytes) {
        if payload.len() <= INLINE {
            self.open.extend_from_slice(&payload);
            return;
        }
        self.close();
        self.closed += payload.len();
        self.parts.push_back(payload);
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.closed += self.open.len();
            self.parts.push_back(self.open.split().freeze());
        }
    }
}

impl Buf for Transmit {
    fn remaining(&self) -> usize {
        self.closed + self.open.len()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&self.open, |part| part)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let chunks = self.parts.iter().map(|part| &part[..]).chain(Some(&self.open[..]));
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(chunks.filter(|chunk| !chunk.is_empty())) {
            *slice = IoSlice::new(chunk);
            count += 1;
        }
        count
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining(), "only what is there can be written");
        while let Some(part) = self.parts.front_mut() {
            let taken = count.min(part.len());
            part.advance(taken);
            (count, self.closed) = (count - taken, self.closed - taken);
            if !part.is_empty() {
                return;
            }
            self.parts.pop_front();
        }
        self.open.advance(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_in_the_order_of_writing_whatever_the_steps() {
        let large = Bytes::from((0..1000u16).map(|byte| byte as u8).collect::<Vec<_>>());
        for step in [1, 3, 255, 2000] {
            let mut transmit = Transmit::new();
            let mut expected = Vec::new();
            for round in 0..3u8 {
                transmit.headers().extend_from_slice(&[round, 0xff]);
                transmit.put_payload(Bytes::from_static(b"small"));
                transmit.put_payload(large.clone());
                expected.extend([round, 0xff]);
                expected.extend(b"small");
                expected.extend(&large);
            }
            transmit.headers().extend_from_slice(b"end");
            expected.extend(b"end");
            let mut read = Vec::<u8>::new();
            while transmit.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 64];
                let count = transmit.chunks_vectored(&mut slices);
                let whole: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                assert_eq!(whole.len(), transmit.remaining());
                let taken = step.min(transmit.remaining());
                read.extend(&whole[..taken]);
                transmit.advance(taken);
            }
            assert_eq!(read, expected);
        }
    }
}
