//! Many programs at once over tunnels that are cut, frozen and shut all the time: every byte is the right one,
//! or the connection was reset by the program itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use gkd_core::proto::packet::ResetCode;
use gkd_core::{Client, Connection, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Relay, content, spawn_echo, until, within};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// One exchange with an echo: whole, or broken off by this end.
async fn exchange(connection: &Connection, random: &mut Random) {
    let len = 1 << random.below(22);
    let sent = content(random.0, len as usize);
    let stop = (random.below(8) == 0).then(|| random.below(len) as usize);
    let writing = async {
        (&mut { connection }).write_all(&sent).await.unwrap();
        (&mut { connection }).shutdown().await.unwrap();
    };
    let reading = async {
        let mut received = Vec::new();
        let mut reader = connection;
        match stop {
            None => _ = reader.read_to_end(&mut received).await.unwrap(),
            Some(stop) => {
                received.resize(stop, 0);
                reader.read_exact(&mut received).await.unwrap();
            }
        }
        received
    };
    match stop {
        None => {
            let (received, ()) = tokio::join!(reading, writing);
            assert!(received == sent, "{len} bytes came back otherwise");
        }
        Some(stop) => {
            let mut writing = std::pin::pin!(writing);
            let mut reading = std::pin::pin!(reading);
            let received = tokio::select! {
                received = &mut reading => received,
                () = &mut writing => reading.await,
            };
            assert!(received == sent[..stop], "{stop} of {len} bytes came back otherwise");
            connection.reset(ResetCode::APPLICATION);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_mixed_up_or_stuck() {
    let seed = std::env::var("GKD_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let run_for =
        std::env::var("GKD_CHAOS_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(3);
    let server = Arc::new(Server::bind("127.0.0.1:0").await.unwrap());
    let relay = Relay::to(server.local_addr().unwrap()).await;
    let client = Client::connect(relay.address, 4).await.unwrap();
    spawn_echo(server.clone());

    let end = Instant::now() + Duration::from_secs(run_for);
    let exchanges = Arc::new(AtomicU64::new(0));
    let mut programs = tokio::task::JoinSet::new();
    for program in 0..12 {
        let (client, exchanges) = (client.clone(), exchanges.clone());
        programs.spawn(async move {
            let mut random = Random(seed * 1000 + program);
            while Instant::now() < end {
                let connection = client.get_connection().await.unwrap();
                within("an exchange", exchange(&connection, &mut random)).await;
                exchanges.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut random = Random(seed);
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(random.below(200))).await;
        let index = random.below(64) as usize;
        match random.below(12) {
            0 => relay.cut_all(),
            1 => {
                relay.shut(true);
                relay.cut_all();
                tokio::time::sleep(Duration::from_millis(random.below(300))).await;
                relay.shut(false);
            }
            2 => relay.freeze_one(index),
            _ => relay.cut_one(index),
        }
    }
    // What is frozen would be dropped in time; the test has none.
    relay.cut_all();
    while let Some(done) = within("the programs end", programs.join_next()).await {
        done.unwrap();
    }
    assert!(exchanges.load(Ordering::Relaxed) > 20, "{exchanges:?}");
    // Nothing is kept of any of them, on either side.
    until("all are forgotten", || client.stats().connections == 0).await;
    let sessions = server.sessions();
    assert_eq!(sessions.len(), 1, "no session was lost");
    until("all are forgotten there", || sessions[0].stats().connections == 0).await;
    assert!(within("close", client.close()).await, "seed {seed}");
}
