//! The server's log under floods and with a peer's words in it: each limit that is met is told once, not per packet
//! nor per connection, and what could move a terminal's cursor or forge a line is escaped.

use std::time::Duration;

use bytes::Bytes;
use gkd_core::carrier::CarrierKind;
use gkd_core::identity::{SecretKey, new_session_id};
use gkd_proto::handshake::RejectCode;
use gkd_proto::packet::{Close, CloseCode, DialError, Packet};
use gkd_tests::{Serving, free_port};

use crate::peer::{At, Peer, connect_to, destination, hello, reset};
use crate::support::until;

/// Lines that the server may log for what one test does to it, whatever the number of packets and connections.
const FEW: usize = 12;

fn logged_since(serving: &Serving, before: usize) -> String {
    serving.server.log().split_off(before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_asks_for_in_vain_is_logged_once_for_each_destination() {
    let serving = Serving::with(&["--plain"]);
    let (at, key) = At::process(&serving, CarrierKind::Plain);
    let mut peer = Peer::join(at, &key).await;
    serving.server.wait_for_log("a session began");
    let before = serving.server.log().len();
    let refused = destination(([127, 0, 0, 1], free_port()).into());
    let denied = destination("10.0.0.1:80".parse().unwrap());
    let nonsense = Bytes::from_static(b"\x09\x1b[2J");
    let wanted = [refused, denied, nonsense, Bytes::new()];
    for index in 0..2000 {
        peer.send([connect_to(index, wanted[index as usize % 4].clone())]).await.unwrap();
        peer.find(|packet| matches!(packet, Packet::Connected(_)).then_some(())).await;
        let ack = peer.ack();
        peer.send([reset(index, 0), ack]).await.unwrap();
    }
    let log = logged_since(&serving, before);
    assert!((3..=FEW).contains(&log.lines().count()), "{} lines:\n{log}", log.lines().count());
    assert!(!log.contains('\x1b'), "{log:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_and_limits_are_logged_once() {
    let serving = Serving::with(&["--plain"]);
    let (at, key) = At::process(&serving, CarrierKind::Plain);
    let before = serving.server.log().len();
    for _ in 0..300 {
        let answer = Peer::say(at, &SecretKey::generate(), &hello(new_session_id(), 0, false)).await;
        assert_eq!(answer.err().unwrap().code, RejectCode::UnknownUser);
    }
    let log = logged_since(&serving, before);
    assert!((1..=FEW).contains(&log.matches("the key is no user's").count()), "{log}");
    // One user has 32 sessions at the most, and one session 128 tunnels.
    let mut peers = vec![Peer::join(at, &key).await];
    for tunnel in 1..128 {
        peers.push(peers[0].again(at, &key, tunnel).await);
    }
    for _ in 1..32 {
        peers.push(Peer::join(at, &key).await);
    }
    until("all began", || logged_since(&serving, before).matches("a session began").count() == 32).await;
    let before = serving.server.log().len();
    for turn in 0..200 {
        let asked = match turn % 2 {
            0 => hello(new_session_id(), 0, false),
            _ => hello(peers[0].session, 128 + turn, true),
        };
        assert_eq!(Peer::say(at, &key, &asked).await.err().unwrap().code, RejectCode::Busy);
    }
    let log = logged_since(&serving, before);
    for limit in ["as many sessions as it may", "too many tunnels"] {
        assert_eq!(log.matches(limit).count(), 1, "{limit}:\n{log}");
    }
    assert!(log.lines().count() <= FEW, "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_above_what_is_kept_are_answered_and_logged_once() {
    let serving = Serving::with(&["--plain"]);
    let (at, key) = At::process(&serving, CarrierKind::Plain);
    let mut peer = Peer::join(at, &key).await;
    serving.server.wait_for_log("a session began");
    let before = serving.server.log().len();
    // All in one write, so that the server has no turn to accept them.
    let refused = destination(([127, 0, 0, 1], free_port()).into());
    peer.send((0..10_000).map(|index| connect_to(index, refused.clone()))).await.unwrap();
    let (mut busy, mut answers) = (0, 0);
    while answers < 10_000 {
        let result = peer.find(|packet| match packet {
            Packet::Connected(answer) => Some(answer.result),
            _ => None,
        });
        busy += u32::from(result.await == Err(DialError::Busy));
        answers += 1;
        if answers % 100 == 0 {
            let ack = peer.ack();
            peer.send([ack]).await.unwrap();
        }
    }
    let log = logged_since(&serving, before);
    println!("{busy} of 10,000 connections at once were above what is kept: {} lines", log.lines().count());
    assert!(log.lines().count() <= FEW, "{log}");
    assert_eq!(log.matches("wait to be accepted").count(), usize::from(busy > 0), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peers_words_are_logged_escaped() {
    let words = "\x1b[2J\x1b]0;owned\x07\r\n2026-01-01T00:00:00Z  INFO forged \u{202e}drawkcab \u{9b}31m\0";
    let serving = Serving::with(&["--plain", "-vv"]);
    let (at, key) = At::process(&serving, CarrierKind::Plain);
    let mut peer = Peer::join(at, &key).await;
    let name = "\x1b[31mx\r\nforged.example";
    let mut strange = vec![1, 3, name.len() as u8];
    strange.extend(name.as_bytes());
    strange.extend([0, 80]);
    peer.send([
        connect_to(0, strange.into()),
        connect_to(1, Bytes::from_static(b"\x01\x03\x02\x1b\r\0\x50")),
    ])
    .await
    .unwrap();
    for _ in 0..2 {
        peer.find(|packet| matches!(packet, Packet::Connected(_)).then_some(())).await;
    }
    peer.send([Packet::Close(Close { code: CloseCode(77), reason: words.to_owned() })]).await.unwrap();
    serving.server.wait_for_log("a session ended");
    tokio::time::sleep(Duration::from_millis(50)).await;
    let log = serving.server.log();
    let ended = log.lines().find(|line| line.contains("a session ended")).unwrap();
    assert!(ended.contains("forged") && ended.contains("code 77"), "told, on one line: {ended:?}");
    let harmless = |c: char| c == '\n' || (!c.is_control() && !('\u{202a}'..='\u{202e}').contains(&c));
    assert!(log.chars().all(harmless), "{log:?}");
    assert!(
        !log.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z") || line.starts_with("forged")),
        "{log:?}"
    );
}
