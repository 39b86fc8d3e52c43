//! The reorder buffer beside other structures that could do its work, in one run.
//!
//! Every contender is handed the same packets, in the same order of arrival, each payload as an owned
//! `Bytes` that shares one allocation with the others, and must deliver what is in order after every
//! packet, then drop it. Buffers live on from round to round, as those of a long transfer do. Figures are
//! per packet (`thrpt` is packets per second) and contain the drop of a payload: the contender `none` is
//! nothing but that, with no buffer at all.
//!
//! - `gkd`: `insert`, then `pop` until nothing is readable.
//! - `s2n-quic`: `buffer::Reassembler` works on bytes at offsets of a stream and copies them into blocks of
//!   its own: `write_at`, then `pop` until nothing is readable. The copy is its way of working, and every
//!   entry of its API that stores data makes it.
//! - `btreemap`: `insert`, then the first entry is taken while it is the next one.
//! - `binaryheap`: entries of number and payload, the least on top: `push`, then the top is popped while it
//!   is the next one. It does not see duplicates before they come to the top.
//!
//! The group `at once` is the same, but that a packet which is the next one is delivered past the buffer:
//! `deliver` of `gkd`, `skip` of `s2n-quic`, a comparison written around the two others. With everything
//! in order only that comparison would be left to measure, so that pattern is not among them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, binary_heap};
use std::hint::black_box;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gkd_proto::id::PacketNumber;
use gkd_proto::reorder::{Inserted, ReorderBuffer};
use s2n_quic_core::buffer::Reassembler;

/// One contender.
trait Contender: Default {
    const NAME: &'static str;

    /// Takes the packet with this number and hands what is now in order to `deliver`. All payloads have
    /// one length.
    fn arrive(&mut self, number: u64, payload: Bytes, deliver: impl FnMut(&[u8]));
}

#[derive(Default)]
struct NoBuffer;

impl Contender for NoBuffer {
    const NAME: &'static str = "none";

    #[inline]
    fn arrive(&mut self, _: u64, payload: Bytes, mut deliver: impl FnMut(&[u8])) {
        deliver(&payload);
    }
}

/// `AT_ONCE`: what is the next one goes past the buffer.
struct Gkd<const AT_ONCE: bool>(ReorderBuffer<Bytes>);

impl<const AT_ONCE: bool> Default for Gkd<AT_ONCE> {
    fn default() -> Self {
        Self(ReorderBuffer::new(1 << 16))
    }
}

impl<const AT_ONCE: bool> Contender for Gkd<AT_ONCE> {
    const NAME: &'static str = "gkd";

    #[inline]
    fn arrive(&mut self, number: u64, payload: Bytes, mut deliver: impl FnMut(&[u8])) {
        if AT_ONCE && self.0.deliver(PacketNumber(number)) {
            deliver(&payload);
        } else {
            match self.0.insert(PacketNumber(number), payload) {
                Inserted::InOrder | Inserted::OutOfOrder => {}
                Inserted::Duplicate(_) | Inserted::TooFar(_) => panic!("no pattern holds such numbers"),
            }
        }
        while let Some(payload) = self.0.pop() {
            deliver(&payload);
        }
    }
}

#[derive(Default)]
struct S2nQuic<const AT_ONCE: bool>(Reassembler);

impl<const AT_ONCE: bool> Contender for S2nQuic<AT_ONCE> {
    const NAME: &'static str = "s2n-quic";

    #[inline]
    fn arrive(&mut self, number: u64, payload: Bytes, mut deliver: impl FnMut(&[u8])) {
        let offset = number * payload.len() as u64;
        if AT_ONCE && offset == self.0.consumed_len() {
            deliver(&payload);
            self.0.skip((payload.len() as u32).into()).expect("the stream is not that long");
        } else {
            let offset = offset.try_into().expect("the stream is not that long");
            self.0.write_at(offset, &payload).expect("the stream has no end");
        }
        while let Some(chunk) = self.0.pop() {
            deliver(&chunk);
        }
    }
}

#[derive(Default)]
struct BTree<const AT_ONCE: bool> {
    next: u64,
    held: BTreeMap<u64, Bytes>,
}

impl<const AT_ONCE: bool> Contender for BTree<AT_ONCE> {
    const NAME: &'static str = "btreemap";

    #[inline]
    fn arrive(&mut self, number: u64, payload: Bytes, mut deliver: impl FnMut(&[u8])) {
        if AT_ONCE && number == self.next {
            deliver(&payload);
            self.next += 1;
        } else {
            self.held.insert(number, payload);
        }
        while let Some(first) = self.held.first_entry() {
            if *first.key() != self.next {
                break;
            }
            deliver(&first.remove());
            self.next += 1;
        }
    }
}

#[derive(Default)]
struct Heap<const AT_ONCE: bool> {
    next: u64,
    held: BinaryHeap<Entry>,
}

struct Entry(u64, Bytes);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        other.0.cmp(&self.0)
    }
}

impl<const AT_ONCE: bool> Contender for Heap<AT_ONCE> {
    const NAME: &'static str = "binaryheap";

    #[inline]
    fn arrive(&mut self, number: u64, payload: Bytes, mut deliver: impl FnMut(&[u8])) {
        if AT_ONCE && number == self.next {
            deliver(&payload);
            self.next += 1;
        } else {
            self.held.push(Entry(number, payload));
        }
        while let Some(first) = self.held.peek_mut() {
            if first.0 != self.next {
                break;
            }
            deliver(&binary_heap::PeekMut::pop(first).1);
            self.next += 1;
        }
    }
}

/// Orders of arrival: permutations of `0..len`, repeated round by round.
fn patterns() -> [(&'static str, Vec<u64>); 4] {
    [
        ("in order", (0..2000).collect()),
        ("2% late", late(2000)),
        ("reversed by 4", (0..2000).map(|place| place ^ 3).collect()),
        ("gap of 1500", (1..=1500).chain([0]).collect()),
    ]
}

/// Of every hundred packets two come 20 to 60 places too late.
fn late(len: u64) -> Vec<u64> {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut arrivals: Vec<(u64, u64)> =
        (0..len).map(|number| (number + if random(50) == 0 { 20 + random(41) } else { 0 }, number)).collect();
    arrivals.sort();
    arrivals.into_iter().map(|(_, number)| number).collect()
}

/// Panics unless `C` delivers every byte of two rounds in order.
fn check<C: Contender>(order: &[u64]) {
    const SIZE: usize = 100;
    let len = order.len() as u64;
    let payload = |number: u64| {
        let mut payload = BytesMut::zeroed(SIZE - 8);
        payload.put_u64(number);
        payload.freeze()
    };
    let (mut contender, mut delivered) = (C::default(), Vec::new());
    for number in order.iter().copied().chain(order.iter().map(|number| len + number)) {
        contender.arrive(number, payload(number), |bytes| delivered.extend_from_slice(bytes));
    }
    let expected: Vec<u8> = (0..2 * len).flat_map(payload).collect();
    assert!(delivered == expected, "{} delivers something else", C::NAME);
}

struct Case<'a> {
    group: &'a str,
    pattern: &'a str,
    order: &'a [u64],
    size: usize,
}

fn run<C: Contender>(criterion: &mut Criterion, case: &Case) {
    let len = case.order.len() as u64;
    let payload = Bytes::from(vec![7; case.size]);
    let (mut contender, mut first) = (C::default(), 0);
    let mut group = criterion.benchmark_group(format!("{}/{}/{} B", case.group, case.pattern, case.size));
    group.throughput(Throughput::Elements(len));
    group.bench_function(BenchmarkId::from_parameter(C::NAME), |bencher| {
        bencher.iter_batched_ref(
            || vec![payload.clone(); case.order.len()],
            |payloads| {
                for (number, payload) in case.order.iter().zip(payloads.drain(..)) {
                    contender.arrive(first + number, payload, |bytes| {
                        black_box(bytes);
                    });
                }
                first += len;
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn reorder(criterion: &mut Criterion) {
    for (pattern, order) in &patterns() {
        check::<Gkd<false>>(order);
        check::<S2nQuic<false>>(order);
        check::<BTree<false>>(order);
        check::<Heap<false>>(order);
        for size in [100, 1450, 16 * 1024] {
            let case = Case { group: "reorder", pattern, order, size };
            run::<NoBuffer>(criterion, &case);
            run::<Gkd<false>>(criterion, &case);
            run::<S2nQuic<false>>(criterion, &case);
            run::<BTree<false>>(criterion, &case);
            run::<Heap<false>>(criterion, &case);
        }
    }
}

fn at_once(criterion: &mut Criterion) {
    for (pattern, order) in &patterns()[1..] {
        check::<Gkd<true>>(order);
        check::<S2nQuic<true>>(order);
        check::<BTree<true>>(order);
        check::<Heap<true>>(order);
        let case = Case { group: "reorder at once", pattern, order, size: 1450 };
        run::<Gkd<true>>(criterion, &case);
        run::<S2nQuic<true>>(criterion, &case);
        run::<BTree<true>>(criterion, &case);
        run::<Heap<true>>(criterion, &case);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    targets = reorder, at_once
}
criterion_main!(benches);
