use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use gkd_core::proto::packet::ResetCode;
use tokio::io::ReadBuf;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::connection::VirtualConnection;
use crate::memory::{self, Memory};

static SENT: [u8; 1_125_000] = [7; 1_125_000];

fn speed(words: &str) -> Option<Speed> {
    Some(words.parse().unwrap())
}

fn down(words: &str) -> Arc<Rate> {
    Rate::new(Speeds { up: None, down: speed(words) })
}

/// A connection within a rate, and the user's end of it.
fn limited(rate: &Arc<Rate>) -> (Limited<Memory>, Memory) {
    let (near, far) = memory::pair(Bytes::new());
    (Limited::new(far, Some(rate.clone())), near)
}

async fn write(connection: &Limited<Memory>, mut bytes: Bytes) {
    while !bytes.is_empty() {
        poll_fn(|cx| connection.poll_write_bytes(cx, &mut bytes)).await.unwrap();
    }
}

/// Writes so many bytes, which the user's end takes; how long that took. It fails, and does not hang, where one that waits
/// is not called: the hour is a virtual one.
async fn download(connection: &Limited<Memory>, near: &Memory, len: usize) -> Duration {
    let began = Instant::now();
    let moved = async { tokio::join!(write(connection, vec![7; len].into()), near.read(len)).1 };
    let read = timeout(Duration::from_secs(3600), moved).await.expect("it goes on");
    assert_eq!(read.unwrap().len(), len);
    began.elapsed()
}

/// Within what a turn, and the clock's milliseconds, may add.
#[track_caller]
fn about(elapsed: Duration, seconds: f64) {
    let slack = 0.1;
    assert!((elapsed.as_secs_f64() - seconds).abs() <= slack, "{elapsed:?} is not about {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn one_connection_moves_as_much_as_it_may_and_a_burst_at_first() {
    let rate = down("1M");
    let (connection, near) = limited(&rate);
    // A burst of 125,000 bytes is free.
    about(download(&connection, &near, 1_125_000).await, 1.0);
    about(download(&connection, &near, 2_000_000).await, 2.0);
    // A pause counts for no more than a burst.
    sleep(Duration::from_secs(60)).await;
    about(download(&connection, &near, 1_125_000).await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn many_connections_have_the_rate_together_and_each_its_part() {
    let rate = down("1M");
    let connections: Vec<_> = (0..20).map(|_| limited(&rate)).collect();
    let began = Instant::now();
    let mut each =
        join_all(connections.iter().map(|(connection, near)| download(connection, near, 200_000))).await;
    // 4 MB without the burst.
    about(began.elapsed(), 3.875);
    // But for the first two, which had the burst, all of them end within one round of the turns that they take.
    each.sort();
    assert!(each[2] >= Duration::from_millis(3875 - 625), "{each:?}");
}

#[tokio::test(start_paused = true)]
async fn a_short_connection_waits_for_one_turn_of_each_other_at_most() {
    let rate = down("1M");
    let connections: Vec<_> = (0..10).map(|_| limited(&rate)).collect();
    let bulk = join_all(connections.iter().map(|(connection, near)| download(connection, near, 1_000_000)));
    let short = async {
        sleep(Duration::from_secs(2)).await;
        let (connection, near) = limited(&rate);
        download(&connection, &near, 100).await
    };
    let (_, waited) = tokio::join!(bulk, short);
    // Ten turns of 31,250 bytes.
    assert!(waited <= Duration::from_millis(400), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn directions_and_users_have_their_own_rates() {
    let rate = Rate::new(Speeds { up: speed("1M"), down: None });
    let (connection, near) = limited(&rate);
    assert_eq!(download(&connection, &near, 10_000_000).await, Duration::ZERO);
    let began = Instant::now();
    let upload = async {
        let mut chunks = Vec::new();
        let mut read = 0;
        while read < 1_125_000 {
            read += poll_fn(|cx| connection.poll_read_batch(cx, usize::MAX, &mut chunks)).await.unwrap();
            chunks.clear();
        }
    };
    let (_, written) = tokio::join!(upload, near.write(&SENT));
    written.unwrap();
    about(began.elapsed(), 1.0);
    let (other, near) = limited(&Rate::new(Speeds::default()));
    assert_eq!(download(&other, &near, 10_000_000).await, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn every_way_to_read_and_write_is_counted() {
    let rate = Rate::new(Speeds { up: speed("8K"), down: speed("8K") });
    let (connection, near) = limited(&rate);
    let began = Instant::now();
    near.write(&[1; 60_000]).await.unwrap();
    let mut room = [0; 60_000];
    let mut buf = ReadBuf::new(&mut room);
    while buf.remaining() > 0 {
        poll_fn(|cx| connection.poll_read(cx, &mut buf)).await.unwrap();
    }
    assert!(buf.filled().iter().all(|byte| *byte == 1));
    assert!(!rate.takes(Way::Up, 1) || began.elapsed() < Duration::from_secs(8), "the burst is used up soon");
    near.write(&[2; 60_000]).await.unwrap();
    buf.clear();
    while buf.remaining() > 0 {
        poll_fn(|cx| connection.poll_read(cx, &mut buf)).await.unwrap();
    }
    // 120,000 bytes less the burst of 64 KiB, less one turn that is not paid for yet.
    assert!(
        began.elapsed() >= Duration::from_secs((120_000 - 65_536 - 16_384) / 8_000),
        "{:?}",
        began.elapsed()
    );
    let began = Instant::now();
    let written = async {
        let mut left = &[3; 120_000][..];
        while !left.is_empty() {
            let count = poll_fn(|cx| connection.poll_write(cx, left)).await.unwrap();
            assert!((1..=16_384).contains(&count));
            left = &left[count..];
        }
    };
    tokio::join!(written, async { near.read(120_000).await.unwrap() });
    assert!(
        began.elapsed() >= Duration::from_secs((120_000 - 65_536 - 16_384) / 8_000),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn another_rate_applies_to_what_runs() {
    let rate = down("8K");
    let (connection, near) = limited(&rate);
    let began = Instant::now();
    // In tasks of their own, so that nobody is polled for anything but a call.
    let set_in = |seconds, speeds| {
        let rate = rate.clone();
        tokio::spawn(async move {
            sleep(Duration::from_secs(seconds)).await;
            rate.set(speeds);
        })
    };
    set_in(10, Speeds { up: None, down: speed("1M") });
    // In ten seconds 64 KiB and 80,000 bytes, the others in one.
    download(&connection, &near, 145_536 + 1_000_000).await;
    about(began.elapsed(), 11.0);

    // Without a bound those that wait go on at once.
    rate.set(Speeds { up: None, down: speed("8K") });
    let began = Instant::now();
    set_in(20, Speeds::default());
    download(&connection, &near, 10_000_000).await;
    assert_eq!(began.elapsed(), Duration::from_secs(20));

    // And one that had none gets it.
    rate.set(Speeds { up: None, down: speed("1M") });
    about(download(&connection, &near, 1_125_000).await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn those_that_are_idle_or_gone_take_nothing_from_the_others() {
    let rate = Rate::new(Speeds { up: speed("1M"), down: speed("1M") });
    let (busy, near) = limited(&rate);
    let idle: Vec<_> = (0..1000).map(|_| limited(&rate)).collect();
    let spend = || while rate.takes(Way::Up, 1_000) {};
    let poll_all = || {
        for (connection, _) in &idle {
            let mut chunks = Vec::new();
            let polled = poll_fn(|cx| connection.poll_read_batch(cx, 1000, &mut chunks)).now_or_never();
            assert!(polled.is_none(), "nothing is there");
        }
    };
    let upload = async || {
        let began = Instant::now();
        let mut chunks = Vec::new();
        let mut read = 0;
        let reading = async {
            while read < 1_000_000 {
                read += poll_fn(|cx| busy.poll_read_batch(cx, usize::MAX, &mut chunks)).await.unwrap();
                chunks.clear();
            }
        };
        let (_, written) = tokio::join!(reading, near.write(&SENT[..1_000_000]));
        written.unwrap();
        began.elapsed()
    };
    // They are called, and nobody polls them any more: each is passed over after 5 ms.
    spend();
    poll_all();
    let waited = upload().await;
    assert!(waited <= Duration::from_secs_f64(1000.0 * 0.005 + 1.1), "{waited:?}");
    // Those that are gone are not called at all.
    spend();
    poll_all();
    drop(idle);
    about(upload().await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_that_are_polled_let_the_next_go_on_at_once() {
    let rate = Rate::new(Speeds { up: speed("1M"), down: None });
    while rate.takes(Way::Up, 1_000) {}
    let idle: Vec<_> = (0..1000).map(|_| limited(&rate)).collect();
    let waiting: Vec<_> = idle
        .into_iter()
        .map(|(connection, near)| {
            let reading = tokio::spawn(async move {
                let mut chunks = Vec::new();
                poll_fn(|cx| connection.poll_read_batch(cx, 1000, &mut chunks)).await
            });
            (reading, near)
        })
        .collect();
    tokio::task::yield_now().await;
    let (connection, near) = limited(&rate);
    near.write(&[1]).await.unwrap();
    let began = Instant::now();
    let mut chunks = Vec::new();
    let read = poll_fn(|cx| connection.poll_read_batch(cx, 1000, &mut chunks)).await.unwrap();
    assert_eq!(read, 1);
    assert!(began.elapsed() <= Duration::from_millis(100), "{:?}", began.elapsed());
    // A reset reaches those that wait for bytes, not for a turn.
    for (reading, near) in waiting {
        near.reset(ResetCode::APPLICATION);
        reading.await.unwrap().unwrap_err();
    }
}

#[tokio::test(start_paused = true)]
async fn datagrams_beyond_the_rate_are_not_taken() {
    let rate = down("1M");
    let mut taken = 0;
    for _ in 0..1_000 {
        taken += if rate.takes(Way::Down, 1_000) { 1_000 } else { 0 };
        sleep(Duration::from_millis(1)).await;
        taken += if rate.takes(Way::Down, 1_000) { 1_000 } else { 0 };
    }
    assert!((1_100_000..=1_130_000).contains(&taken), "{taken}");
    assert!((0..10_000).all(|_| rate.takes(Way::Up, 1_000)), "the other direction has no bound");
}

/// Polls what moves bytes beside datagrams of 1,000 bytes, so many in each millisecond; how many of these were taken.
async fn beside_datagrams(rate: &Rate, each_millisecond: usize, moving: impl Future<Output = ()>) -> usize {
    let mut taken = 0;
    let flood = async {
        loop {
            taken += (0..each_millisecond).filter(|_| rate.takes(Way::Down, 1_000)).count();
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = moving => {}
        () = flood => {}
        () = sleep(Duration::from_secs(60)) => panic!("connections stand still"),
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_datagrams_leaves_connections_their_half() {
    let rate = down("1M");
    while rate.takes(Way::Down, 1_000) {}
    let (one, other) = (limited(&rate), limited(&rate));
    let began = Instant::now();
    let moving = async {
        tokio::join!(download(&one.0, &one.1, 500_000), download(&other.0, &other.1, 500_000));
    };
    let datagrams = beside_datagrams(&rate, 100, moving).await * 1_000;
    let seconds = began.elapsed().as_secs_f64();
    assert!(seconds <= 2.2, "{seconds} s for what half of the rate takes 2 s for");
    // The rate holds all the same, within a turn of each.
    let all = (1_000_000 + datagrams) as f64;
    assert!(all <= 1_000_000.0 * seconds + 100_000.0, "{all} bytes in {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn a_few_datagrams_pass_beside_connections_that_take_all() {
    let rate = down("1M");
    let (connection, near) = limited(&rate);
    download(&connection, &near, 200_000).await;
    let moving = async { _ = download(&connection, &near, 2_000_000).await };
    let mut asked = 0;
    let mut passed = 0;
    let questions = async {
        loop {
            sleep(Duration::from_millis(37)).await;
            asked += 1;
            passed += usize::from(rate.takes(Way::Down, 500));
        }
    };
    tokio::select! {
        () = moving => {}
        () = questions => {}
    }
    assert!(asked > 20 && passed == asked, "{passed} of {asked}");
}
