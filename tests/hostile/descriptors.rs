//! Descriptors run out: accepting goes on afterwards, and says so once, not ten times a second.

use std::time::Duration;

use gkd_core::carrier::CarrierKind;
use gkd_tests::Serving;
use tokio::net::TcpStream;

use crate::peer::{At, honest};
use crate::support::until;

/// What the server may have open. It needs some 20 for itself.
const DESCRIPTORS: u32 = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_descriptors_serves_again_when_there_are_some() {
    let serving = Serving::with_descriptors(DESCRIPTORS, &[]);
    let (at, key) = At::process(&serving, CarrierKind::Tls);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", serving.server.id())).map(|all| all.count());
    if open().is_err() {
        println!("skipped: the system does not tell what a process has open");
        return;
    }
    let mut silent = Vec::new();
    for _ in 0..3 * DESCRIPTORS {
        silent.push(TcpStream::connect(at.address).await.unwrap());
    }
    serving.server.wait_for_log("cannot accept");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let complaints = serving.server.log().matches("cannot accept").count();
    assert_eq!(complaints, 1, "{}", serving.server.log());
    drop(silent);
    until("descriptors are free", || open().unwrap() < DESCRIPTORS as usize / 2).await;
    honest(at, &key).await.close().await;
}
