//! Encoding and decoding of packets.
//!
//! A round is a batch of packets, as many as a large read or write holds, in one buffer that was allocated
//! before. `encode` copies payloads into that buffer (the session's own way of sending refers to larger
//! ones instead); `decode` slices them out of it, and the figure contains the drop of every packet. Data
//! is shown as bytes of payload per second, small packets as packets per second.

use std::hint::black_box;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::measurement::WallTime;
use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use gkd_proto::id::{ConnectionId, PacketNumber, TunnelId};
use gkd_proto::packet::{Account, Ack, Credit, Data, Packet};

/// Bytes of a batch: a large read.
const BATCH: usize = 256 * 1024;

/// How many small packets a batch has.
const SMALL: usize = 1000;

fn run(group: &mut BenchmarkGroup<WallTime>, parameter: impl ToString, packet: &Packet, count: usize) {
    let mut batch = BytesMut::new();
    (0..count).for_each(|_| packet.encode(&mut batch));
    let parameter = parameter.to_string();

    let mut out = BytesMut::with_capacity(batch.len());
    group.bench_function(BenchmarkId::new("encode", &parameter), |bencher| {
        bencher.iter(|| {
            out.clear();
            for _ in 0..count {
                black_box(packet).encode(&mut out);
            }
            black_box(&out);
        });
    });
    group.bench_function(BenchmarkId::new("decode", &parameter), |bencher| {
        bencher.iter_batched_ref(
            || batch.clone(),
            |buf| {
                while let Some(packet) = Packet::decode(buf).expect("it was encoded above") {
                    black_box(&packet);
                }
            },
            BatchSize::PerIteration,
        );
    });
}

fn data(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("data");
    for size in [100, 1450, 16 * 1024] {
        let payload = Bytes::from(vec![7; size]);
        let (connection, number) = (ConnectionId(301), PacketNumber(1 << 20));
        let packet = Packet::Data(Data { connection, number, payload });
        let count = BATCH / size;
        group.throughput(Throughput::Bytes((count * size) as u64));
        run(&mut group, format!("{size} B"), &packet, count);
    }
    group.finish();
}

fn small(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("small");
    group.throughput(Throughput::Elements(SMALL as u64));
    let ack = Ack { tunnel: TunnelId(5), count: 123_456, delay: 1800 };
    let credit = Credit { account: Account::Connection(ConnectionId(301)), total: 1 << 33 };
    run(&mut group, "ack", &Packet::Ack(ack), SMALL);
    run(&mut group, "credit", &Packet::Credit(credit), SMALL);
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
