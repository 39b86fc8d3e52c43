//! Encoding and decoding of packets, beside other codecs that could do that work, in one run.
//!
//! A round is a batch of packets, as many as a large read or write holds, in one buffer that was allocated before.
//! `encode` copies payloads into that buffer (the session's own way of sending refers to larger ones instead). `decode`
//! hands out what a receiver may keep: payloads that it owns, while the buffer may go on to the next read; the figure contains
//! the drop of every packet. Data is shown as bytes of payload per second, small packets as packets per second.
//!
//! - `gkd`: `Packet::encode`, and `Packet::decode`, which slices payloads out of the buffer.
//! - `s2n-quic`: the frames of QUIC as s2n-quic writes and reads them: STREAM with a length, ACK of one range,
//!   MAX_STREAM_DATA. Its decoder lends payloads, so each is copied behind it, as its receiver does.
//! - `length`: `LengthDelimitedCodec` of tokio-util, a length of four bytes and no number, which slices payloads out of the
//!   buffer as well. It has no small packets.

use std::hint::black_box;
use std::iter::Once;
use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use gkd_proto::id::{ConnectionId, PacketNumber, TunnelId};
use gkd_proto::packet::{Account, Ack, Credit, Data, Packet};
use s2n_codec::{DecoderBufferMut, Encoder, EncoderBuffer, EncoderValue};
use s2n_quic_core::frame::{self, FrameMut};
use s2n_quic_core::varint::VarInt;
use tokio_util::codec::{Decoder, Encoder as _, LengthDelimitedCodec};

/// Bytes of a batch: a large read.
const BATCH: usize = 256 * 1024;

/// How many small packets a batch has.
const SMALL: usize = 1000;

const CONNECTION: u64 = 301;
const NUMBER: u64 = 1 << 20;
const COUNT: u64 = 123_456;
const DELAY: u64 = 1800;
const TOTAL: u64 = 1 << 33;

/// One way to write packets and to read them.
trait Codec {
    const NAME: &'static str;

    /// Writes so many packets to the front of a buffer that has room for them; how many bytes they have.
    fn encode(&mut self, out: &mut BytesMut, count: usize) -> usize;

    /// Takes all packets of a batch; how many there were.
    fn decode(&mut self, batch: &mut BytesMut) -> usize;
}

struct Gkd(Packet);

impl Codec for Gkd {
    const NAME: &'static str = "gkd";

    #[inline]
    fn encode(&mut self, out: &mut BytesMut, count: usize) -> usize {
        out.clear();
        (0..count).for_each(|_| black_box(&self.0).encode(out));
        out.len()
    }

    #[inline]
    fn decode(&mut self, batch: &mut BytesMut) -> usize {
        let mut count = 0;
        while let Ok(Some(packet)) = &Packet::decode(batch) {
            black_box(packet);
            count += 1;
        }
        count
    }
}

struct Quic<F>(F);

impl<F: EncoderValue> Codec for Quic<F> {
    const NAME: &'static str = "s2n-quic";

    #[inline]
    fn encode(&mut self, out: &mut BytesMut, count: usize) -> usize {
        // It writes into a slice, which is made once.
        out.resize(out.capacity(), 0);
        let mut out = EncoderBuffer::new(out);
        (0..count).for_each(|_| out.encode(black_box(&self.0)));
        out.len()
    }

    #[inline]
    fn decode(&mut self, batch: &mut BytesMut) -> usize {
        let mut buffer = DecoderBufferMut::new(batch);
        let mut count = 0;
        while !buffer.is_empty() {
            let (frame, rest) = buffer.decode::<FrameMut<'_>>().expect("it was encoded above");
            if let FrameMut::Stream(stream) = &frame {
                black_box(Bytes::copy_from_slice(stream.data.as_less_safe_slice()));
            }
            black_box(&frame);
            buffer = rest;
            count += 1;
        }
        count
    }
}

struct Length(Bytes, LengthDelimitedCodec);

impl Codec for Length {
    const NAME: &'static str = "length";

    #[inline]
    fn encode(&mut self, out: &mut BytesMut, count: usize) -> usize {
        out.clear();
        for _ in 0..count {
            self.1.encode(black_box(&self.0).clone(), out).expect("it is within the codec's bound");
        }
        out.len()
    }

    #[inline]
    fn decode(&mut self, batch: &mut BytesMut) -> usize {
        let mut count = 0;
        while let Some(payload) = self.1.decode(batch).expect("it was encoded above") {
            black_box(payload.freeze());
            count += 1;
        }
        count
    }
}

/// The one range of an ACK: all up to this.
struct UpTo(VarInt);

impl frame::ack::AckRanges for UpTo {
    type Iter = Once<RangeInclusive<VarInt>>;

    fn ack_ranges(&self) -> Self::Iter {
        std::iter::once(VarInt::ZERO..=self.0)
    }
}

fn run<C: Codec>(group: &mut BenchmarkGroup<'_, WallTime>, parameter: &str, mut codec: C, count: usize) {
    let mut out = BytesMut::with_capacity(2 * BATCH);
    let len = codec.encode(&mut out, count);
    let batch = BytesMut::from(&out[..len]);
    assert_eq!(codec.decode(&mut batch.clone()), count);

    group.bench_function(BenchmarkId::new(format!("encode/{}", C::NAME), parameter), |bencher| {
        bencher.iter(|| {
            codec.encode(&mut out, count);
            black_box(&out);
        });
    });
    group.bench_function(BenchmarkId::new(format!("decode/{}", C::NAME), parameter), |bencher| {
        bencher.iter_batched_ref(|| batch.clone(), |buf| codec.decode(buf), BatchSize::PerIteration);
    });
}

fn varint(value: u64) -> VarInt {
    VarInt::new(value).expect("it is below 2^62")
}

fn data(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("data");
    for size in [100, 1450, 16 * 1024] {
        let payload = Bytes::from(vec![7; size]);
        let parameter = format!("{size} B");
        let count = BATCH / size;
        group.throughput(Throughput::Bytes((count * size) as u64));
        let (connection, number) = (ConnectionId(CONNECTION), PacketNumber(NUMBER));
        let packet = Packet::Data(Data { connection, number, payload: payload.clone() });
        run(&mut group, &parameter, Gkd(packet), count);
        let stream = frame::Stream {
            stream_id: varint(CONNECTION),
            offset: varint(NUMBER),
            is_last_frame: false,
            is_fin: false,
            data: &payload[..],
        };
        run(&mut group, &parameter, Quic(stream), count);
        run(&mut group, &parameter, Length(payload, LengthDelimitedCodec::new()), count);
    }
    group.finish();
}

fn small(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("small");
    group.throughput(Throughput::Elements(SMALL as u64));
    let ack = Ack { tunnel: TunnelId(5), count: COUNT, delay: DELAY };
    run(&mut group, "ack", Gkd(Packet::Ack(ack)), SMALL);
    let ack = frame::Ack { ack_delay: varint(DELAY), ack_ranges: UpTo(varint(COUNT)), ecn_counts: None };
    run(&mut group, "ack", Quic(ack), SMALL);
    let credit = Credit { account: Account::Connection(ConnectionId(CONNECTION)), total: TOTAL };
    run(&mut group, "credit", Gkd(Packet::Credit(credit)), SMALL);
    let credit = frame::MaxStreamData { stream_id: varint(CONNECTION), maximum_stream_data: varint(TOTAL) };
    run(&mut group, "credit", Quic(credit), SMALL);
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1));
    targets = data, small
}
criterion_main!(benches);
