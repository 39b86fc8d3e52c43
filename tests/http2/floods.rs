//! Visitors that send what costs them little and a server much: more of it than any client needs, for as long as they are let.
//! Each is ended, or costs no more than what it sends; the server's memory and log stay small; and another visitor is served all the
//! while.

use std::thread;
use std::time::{Duration, Instant};

use crate::frames::{
    ACK, CANCEL, CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, INITIAL_WINDOW_SIZE,
    PING, PREFACE, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, data, frame, get, literal, number, post,
    priority, request, settings,
};
use crate::ground::Ground;
use crate::peer::{PATIENCE, Peer};

/// How much memory a flood may cost the server.
const ROOM: u64 = 48 << 20;

/// How much a download may that nobody reads: what is underway from the target to the visitor.
const ROOM_OF_DOWNLOAD: u64 = 256 << 10;

/// The most that a flood sends.
const MOST: usize = 64 << 20;

/// Floods while others are served, and holds the server's memory against what it had.
fn flood(ground: &Ground, name: &str, flood: impl FnOnce() + Send) {
    flood_with(ground, name, ROOM, flood);
}

fn flood_with(ground: &Ground, name: &str, room: u64, flood: impl FnOnce() + Send) {
    ground.is_unharmed("nothing");
    let before = ground.server().memory();
    thread::scope(|scope| {
        let flooding = scope.spawn(flood);
        while !flooding.is_finished() {
            ground.is_unharmed(name);
        }
        flooding.join().unwrap();
    });
    ground.is_unharmed(name);
    if let Some((before, after)) = before.zip(ground.server().memory()) {
        let grown = after.most - before.now;
        println!("{name}: {} KiB more at the most", grown >> 10);
        assert!(grown < room, "{name} costs {grown} bytes");
    }
}

/// Sends the same again and again and reads nothing; whether that was ended.
fn ends(peer: &mut Peer, piece: &[u8]) -> bool {
    let mut sent = 0;
    while sent < MOST {
        if peer.try_send(piece).is_err() {
            return true;
        }
        sent += piece.len();
    }
    false
}

#[test]
fn requests_that_are_reset_at_once_end_the_connection() {
    let ground = Ground::with("", "");
    flood(&ground, "a rapid reset", || {
        let mut peer = ground.peer();
        let (mut ended, mut asked) = (false, 0);
        while !ended && asked < 100_000 {
            let piece: Vec<u8> = (asked..asked + 20)
                .flat_map(|at| [get(at * 2 + 1, "/never"), number(RST_STREAM, at * 2 + 1, CANCEL)].concat())
                .collect();
            ended = peer.try_send(&piece).is_err();
            asked += 20;
        }
        assert!(ended, "{asked} requests were reset, and more may be");
    });
    // Nothing is left of them at the target either.
    ground.until("the end of what was reset", || ground.target.held() == 0);
    let reached = ground.target.heads().iter().filter(|head| head.contains("/never")).count();
    assert!(reached < 2000, "{reached} of them reached the target");
}

#[test]
fn a_head_without_end_ends_the_connection() {
    let ground = Ground::with("", "");
    let one = literal(0, b"x", &[b'y'; 1000]);
    let kept = literal(0x40, b"x", &[b'y'; 1000]);
    for piece in [
        frame(CONTINUATION, 0, 1, &one),
        frame(CONTINUATION, 0, 1, &[]).repeat(100),
        frame(CONTINUATION, 0, 1, b"\x00").repeat(100),
        // A byte for a thousand.
        [frame(CONTINUATION, 0, 1, &kept), frame(CONTINUATION, 0, 1, &[0xbe; 10_000])].concat(),
    ] {
        flood(&ground, "a head without an end", || {
            let mut peer = ground.peer();
            peer.send(frame(HEADERS, END_STREAM, 1, &request("GET", "/flooded", &[])));
            assert!(ends(&mut peer, &piece));
        });
    }
    assert!(!ground.target.heads().iter().any(|head| head.contains("/flooded")));
}

#[test]
fn what_has_to_be_answered_is_not_answered_for_ever_to_one_who_reads_nothing() {
    let ground = Ground::with("timeouts = { silence = \"1s\" }", "");
    for piece in [frame(PING, 0, 0, &[1; 8]), settings(&[]), settings(&[(INITIAL_WINDOW_SIZE, 1)])] {
        flood(&ground, "a flood of what is to be answered", || {
            let mut peer = ground.peer();
            assert!(ends(&mut peer, &piece.repeat(1000)));
        });
    }
    // One who reads costs no more than the answers; it is served, and is not in the way.
    flood(&ground, "PINGs and SETTINGS that are answered", || {
        let mut peer = ground.peer();
        for round in 0..100 {
            peer.send([frame(PING, 0, 0, &[1; 8]).repeat(100), settings(&[]).repeat(100)].concat());
            peer.until(|peer| peer.pongs.len() == 100 * (round + 1) && peer.acks == 1 + 100 * (round + 1));
        }
        peer.send(get(1, "/"));
        assert_eq!(peer.answer(1), 200);
    });
}

#[test]
fn frames_without_an_effect_cost_no_memory_and_write_no_log() {
    let ground = Ground::with("", "");
    let before = ground.server().log().len();
    for piece in [
        frame(PING, ACK, 0, &[1; 8]),
        frame(PRIORITY, 0, 1, &priority(3, true, 1)),
        number(WINDOW_UPDATE, 1, 1),
        frame(0xee, 0, 0, &[0; 100]),
    ] {
        flood(&ground, "frames without an effect", || {
            let mut peer = ground.peer();
            peer.send(get(1, "/never"));
            for _ in 0..20 {
                peer.send(piece.repeat(1000));
            }
            peer.settle();
        });
    }
    let log = ground.server().log();
    assert!(log.len() - before < 4096, "{} bytes of log: {}", log.len() - before, &log[before..before + 500]);
}

#[test]
fn pieces_of_a_body_without_an_effect_end_the_connection() {
    let ground = Ground::with("", "");
    for piece in [data(1, false, b""), data(1, false, b"x")] {
        flood(&ground, "DATA of nothing", || {
            let mut peer = ground.peer();
            peer.send(frame(HEADERS, END_HEADERS, 1, &request("POST", "/never", &[])));
            assert!(ends(&mut peer, &piece.repeat(1000)));
        });
    }
    // So does what is refused for ever: streams above their number, and malformed ones.
    for request in [|at| get(at, "/never"), |at| post(at, &[("content-length", "x")])] {
        flood(&ground, "refused requests", || {
            let mut peer = ground.peer();
            let ended = (0..100_000).any(|at| peer.try_send(&request(at * 2 + 1)).is_err());
            assert!(ended);
            assert!(reason(&mut peer).is_none_or(|code| code == ENHANCE_YOUR_CALM));
        });
    }
}

/// The code that the connection ended with, if that can still be read.
fn reason(peer: &mut Peer) -> Option<u32> {
    peer.until(|peer| peer.goaway.is_some());
    peer.goaway.map(|(code, _)| code)
}

#[test]
fn downloads_that_are_never_read_are_given_up() {
    const DOWNLOADS: usize = 150;
    let ground = Ground::with("timeouts = { silence = \"2s\" }", "");
    let mut peers = Vec::new();
    let room = ROOM + DOWNLOADS as u64 * ROOM_OF_DOWNLOAD;
    flood_with(&ground, "downloads that nobody reads", room, || {
        for _ in 0..2 {
            // Without a window: only heads come.
            let mut peer = Peer::with(ground.port, &[(INITIAL_WINDOW_SIZE, 0)]);
            for at in 0..50 {
                peer.send(get(at * 2 + 1, "/endless"));
            }
            peers.push(peer);
            // With one, and a socket that is not read.
            let mut peer = Peer::bare(ground.port);
            peer.send([PREFACE, &settings(&[(INITIAL_WINDOW_SIZE, 0x7fff_ffff)])].concat());
            peer.send([frame(SETTINGS, ACK, 0, &[]), number(WINDOW_UPDATE, 0, 0x7fff_0000)].concat());
            for at in 0..25 {
                peer.send(get(at * 2 + 1, "/endless"));
            }
            peers.push(peer);
        }
        // Of a connection that nobody reads not all may come so far before it is given up.
        let begun = || ground.target.heads().iter().filter(|head| head.contains("/endless")).count();
        ground.until("the begin of the downloads", || begun() > 100);
        // They do not go on for ever, although their visitors are still there.
        let began = Instant::now();
        while ground.target.held() > 0 {
            assert!(began.elapsed() < 6 * PATIENCE, "{} of {} go on", ground.target.held(), begun());
            thread::sleep(Duration::from_millis(50));
        }
        println!("given up after {:?}, with {} MiB taken", began.elapsed(), ground.target.written() >> 20);
    });
    drop(peers);
}
