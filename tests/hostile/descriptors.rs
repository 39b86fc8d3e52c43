//! Descriptors run out: accepting goes on afterwards, and says so once, not ten times a second. One user
//! cannot use up those of the others.

use std::time::Duration;

use gkd_core::carrier::CarrierKind;
use gkd_core::identity::SecretKey;
use gkd_proto::handshake::RejectCode;
use gkd_proto::id::SessionId;
use gkd_proto::packet::{DialError, Packet};
use gkd_tests::Serving;
use tokio::net::TcpStream;

use crate::neighbours::{add_user, echo, echoed_bytes, stuck};
use crate::peer::{At, Peer, connect_to, destination, hello, honest};
use crate::support::{until, within};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_who_opens_all_that_it_can_leaves_descriptors_to_the_others() {
    const OPENED: u64 = 400;
    let serving = Serving::with_descriptors(256, &[]);
    let quiet = add_user(&serving, "quiet");
    let (at, greedy) = At::process(&serving, CarrierKind::Tls);
    let (stuck, echo) = (stuck().await, echo().await);
    let mut peer = Peer::join(at, &greedy).await;
    peer.send((0..OPENED).map(|index| connect_to(index, destination(stuck)))).await.unwrap();
    let (mut reached, mut busy) = (0, 0);
    for _ in 0..OPENED {
        let result = peer.find(|packet| match packet {
            Packet::Connected(answer) => Some(answer.result),
            _ => None,
        });
        match result.await {
            Ok(()) => reached += 1,
            Err(DialError::Busy) => busy += 1,
            Err(other) => panic!("{other:?} after {reached} were reached"),
        }
        let ack = peer.ack();
        peer.send([ack]).await.unwrap();
    }
    println!("of 256 descriptors one user got {reached}, {busy} connections were refused");
    // Three quarters are for destinations, and of these a fifth for others.
    assert!((64..=160).contains(&reached), "{reached}");
    let client = honest(at, &quiet).await;
    assert_eq!(echoed_bytes(&client, echo, 1_000_000).await, 1_000_000);
    let told = serving.server.log().matches("too many destinations are open").count();
    assert_eq!(told, 1, "{}", serving.server.log());
    client.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_who_brings_all_the_tunnels_that_it_can_keeps_nobody_out() {
    const DESCRIPTORS: u32 = 256;
    let serving = Serving::with_descriptors(DESCRIPTORS, &[]);
    let quiet = add_user(&serving, "quiet");
    let (at, greedy) = At::process(&serving, CarrierKind::Tls);
    let mut all = vec![Peer::join(at, &greedy).await];
    let refused = loop {
        let (first, tunnel) = (&all[0], all.len() as u64);
        match Peer::say(at, &greedy, &hello(first.session, tunnel, true)).await {
            Ok(peer) => all.push(peer),
            Err(reject) => break reject,
        }
    };
    println!("of {DESCRIPTORS} descriptors one user got {} for tunnels: {refused}", all.len());
    assert_eq!(refused.code, RejectCode::Busy);
    assert!((16..DESCRIPTORS as usize / 8).contains(&all.len()), "{}", all.len());
    honest(at, &quiet).await.close().await;
    // Those that go make room.
    all.pop();
    let (session, tunnel) = (all[0].session, all.len() as u64 + 2);
    until_in(at, &greedy, session, tunnel).await;
}

/// A tunnel comes up as soon as there is room for it.
async fn until_in(at: At, key: &SecretKey, session: SessionId, mut tunnel: u64) {
    within("a place is free", async {
        while Peer::say(at, key, &hello(session, tunnel, true)).await.is_err() {
            tunnel += 1;
        }
    })
    .await;
}
