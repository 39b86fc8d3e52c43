//! How payload gets from a tunnel's task to a connection's task: over bounded tokio channels through a task
//! that owns the session, or through the session under a short lock with a wake-up behind it.
//!
//! Stands for the choice that `gkd-core` made; `docs/PERFORMANCE.md` has the figures. A batch is what one
//! read of a tunnel brings: four payloads by reference. The session's own work is left out on both sides.
#![allow(missing_docs, reason = "criterion's macros write undocumented functions")]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc};

/// As many batches may wait; the same bound for both.
const BOUND: usize = 64;

type Batch = [Bytes; 4];

fn batch() -> Batch {
    let payload = Bytes::from(vec![0; 16 * 1024]);
    [payload.clone(), payload.clone(), payload.clone(), payload]
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
}

/// Tunnel, then session, then connection, a channel between each.
async fn over_channels(count: u64) -> Duration {
    let (to_session, mut in_session) = mpsc::channel::<Batch>(BOUND);
    let (to_connection, mut in_connection) = mpsc::channel::<Batch>(BOUND);
    let start = Instant::now();
    let tunnel = tokio::spawn(async move {
        let batch = batch();
        for _ in 0..count {
            to_session.send(batch.clone()).await.ok();
        }
    });
    let session = tokio::spawn(async move {
        while let Some(batch) = in_session.recv().await {
            to_connection.send(batch).await.ok();
        }
    });
    let connection = tokio::spawn(async move {
        while let Some(batch) = in_connection.recv().await {
            black_box(&batch);
        }
    });
    let (tunnel, session, connection) = tokio::join!(tunnel, session, connection);
    assert!(tunnel.is_ok() && session.is_ok() && connection.is_ok());
    start.elapsed()
}

/// What both tasks lock; each wakes the other behind the lock.
#[derive(Default)]
struct Shared {
    queue: Mutex<VecDeque<Batch>>,
    readable: Notify,
    writable: Notify,
}

impl Shared {
    fn push(&self, batch: &Batch) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let room = queue.len() < BOUND;
        if room {
            queue.push_back(batch.clone());
        }
        let wake = queue.len() == 1;
        drop(queue);
        if wake {
            self.readable.notify_one();
        }
        room
    }

    fn pop(&self) -> Option<Batch> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let was_full = queue.len() == BOUND;
        let batch = queue.pop_front();
        drop(queue);
        if was_full {
            self.writable.notify_one();
        }
        batch
    }
}

async fn under_a_lock(count: u64) -> Duration {
    let shared = Arc::new(Shared::default());
    let start = Instant::now();
    let tunnel = tokio::spawn({
        let shared = shared.clone();
        async move {
            let batch = batch();
            for _ in 0..count {
                while !shared.push(&batch) {
                    shared.writable.notified().await;
                }
                tokio::task::coop::consume_budget().await;
            }
        }
    });
    let connection = tokio::spawn(async move {
        for _ in 0..count {
            let batch = loop {
                match shared.pop() {
                    Some(batch) => break batch,
                    None => shared.readable.notified().await,
                }
            };
            black_box(&batch);
            tokio::task::coop::consume_budget().await;
        }
    });
    let (tunnel, connection) = tokio::join!(tunnel, connection);
    assert!(tunnel.is_ok() && connection.is_ok());
    start.elapsed()
}

/// One batch at a time there and back: what a keystroke feels.
async fn echo_over_channels(count: u64) -> Duration {
    let (to_session, mut in_session) = mpsc::channel::<Batch>(BOUND);
    let (to_connection, mut in_connection) = mpsc::channel::<Batch>(BOUND);
    let (back, mut answer) = mpsc::channel::<Batch>(BOUND);
    tokio::spawn(async move {
        while let Some(batch) = in_session.recv().await {
            to_connection.send(batch).await.ok();
        }
    });
    tokio::spawn(async move {
        while let Some(batch) = in_connection.recv().await {
            back.send(batch).await.ok();
        }
    });
    let (batch, start) = (batch(), Instant::now());
    for _ in 0..count {
        to_session.send(batch.clone()).await.ok();
        black_box(answer.recv().await);
    }
    start.elapsed()
}

async fn echo_under_a_lock(count: u64) -> Duration {
    let (there, back) = (Arc::new(Shared::default()), Arc::new(Shared::default()));
    async fn next(shared: &Shared) -> Batch {
        loop {
            match shared.pop() {
                Some(batch) => return batch,
                None => shared.readable.notified().await,
            }
        }
    }
    let echo = tokio::spawn({
        let (there, back) = (there.clone(), back.clone());
        async move {
            for _ in 0..count {
                back.push(&next(&there).await);
            }
        }
    });
    let (batch, start) = (batch(), Instant::now());
    for _ in 0..count {
        there.push(&batch);
        black_box(next(&back).await);
    }
    let elapsed = start.elapsed();
    echo.await.expect("it echoes as many");
    elapsed
}

fn handoff(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("hand-off, a batch");
    group.throughput(Throughput::Elements(1));
    group.bench_function("channels", |bencher| {
        bencher.iter_custom(|count| runtime.block_on(over_channels(count)));
    });
    group.bench_function("lock", |bencher| {
        bencher.iter_custom(|count| runtime.block_on(under_a_lock(count)));
    });
    group.finish();
    let mut group = criterion.benchmark_group("hand-off, there and back");
    group.bench_function("channels", |bencher| {
        bencher.iter_custom(|count| {
            runtime.block_on(async { tokio::spawn(echo_over_channels(count)).await }).expect("it runs")
        });
    });
    group.bench_function("lock", |bencher| {
        bencher.iter_custom(|count| {
            runtime.block_on(async { tokio::spawn(echo_under_a_lock(count)).await }).expect("it runs")
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = handoff
}
criterion_main!(benches);
