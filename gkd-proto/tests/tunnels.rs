//! Named scenarios in virtual time of tunnels that die, go silent, are retired and come back.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Instant;

use gkd_proto::handshake::{DeadTunnel, Hello, RejectCode, VERSION};
use gkd_proto::id::{BootId, SessionId, Side, TunnelId};
use gkd_proto::{CloseCause, Event, Session, SessionConfig};
use gkd_sim::shorthand::{FOUR, MIB, millis, path, secs};
use gkd_sim::{CLIENT, FAST, Pair, SERVER};

#[test]
fn a_tunnel_dies_with_packets_outstanding() {
    let mut pair = Pair::new(&FOUR);
    let up = pair.open(CLIENT, 20 * MIB);
    pair.run_for(millis(60));
    pair.write(SERVER, up, 20 * MIB, true);
    pair.run_for(millis(100));
    pair.cut(TunnelId(1));
    pair.run_for(millis(100));
    pair.cut_at(SERVER, TunnelId(2));
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, up) && pair.finished(CLIENT, up)));
    assert!(pair.ends[CLIENT].session.stats().resent > 0);
    assert_eq!(
        pair.tunnels(),
        [TunnelId(0), TunnelId(3)],
        "the other end heard of the death it had not seen"
    );
    pair.finish();
}

#[test]
fn a_silent_tunnel_that_holds_the_packet_everyone_waits_for() {
    let mut pair = Pair::new(&[path(5_000_000, 25); 4]);
    let id = pair.open(CLIENT, 40 * MIB);
    pair.run_for(millis(500));
    pair.stall(TunnelId(2), true);
    let before = pair.read(SERVER, id);
    pair.run_for(millis(800));
    let stats = pair.ends[CLIENT].session.stats();
    assert!(stats.tunnels.iter().any(|tunnel| tunnel.tunnel == TunnelId(2) && tunnel.suspect));
    assert!(pair.read(SERVER, id) > before + 4 * MIB, "the others went on");
    // Long before the 20 s after which it is dropped.
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, id)));
    pair.run_for(secs(25));
    assert_eq!(pair.tunnels(), [TunnelId(0), TunnelId(1), TunnelId(3)], "in the end it is dropped");
    pair.finish();
}

#[test]
fn a_tunnel_that_was_only_slow_is_trusted_again() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 60 * MIB);
    pair.run_for(millis(200));
    pair.stall(TunnelId(0), true);
    pair.run_for(millis(500));
    pair.stall(TunnelId(0), false);
    let sent = |pair: &Pair| pair.ends[CLIENT].session.stats().tunnels[0].sent;
    pair.run_for(millis(100));
    let before = sent(&pair);
    assert!(pair.run_until(secs(10), |pair| pair.finished(SERVER, id)));
    assert!(sent(&pair) > before + MIB, "it carries again");
    assert_eq!(pair.tunnels().len(), 4);
    pair.finish();
}

#[test]
fn what_only_a_suspect_tunnel_could_take_goes_over_the_next_that_comes_up() {
    let mut pair = Pair::new(&[FAST; 2]);
    let [silent, other] = [TunnelId(0), TunnelId(1)];
    pair.kernel_says(other, millis(100));
    let id = pair.open_idle(CLIENT);
    pair.run_for(millis(100));
    pair.stall(silent, true);
    pair.write(CLIENT, id, 1000, false);
    assert!(pair.run_until(secs(2), |pair| pair.read(SERVER, id) == 1000));
    assert!(pair.ends[CLIENT].session.stats().tunnels[0].suspect);
    pair.cut(other);
    pair.write(CLIENT, id, 1000, true);
    pair.run_for(millis(500));
    pair.add_tunnel(FAST);
    // Long before the 20 s after which the silent one is dropped.
    assert!(pair.run_until(millis(100), |pair| pair.finished(SERVER, id)));
}

#[test]
fn all_tunnels_die_and_come_back() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 40 * MIB);
    pair.run_for(millis(300));
    (0..4).for_each(|tunnel| pair.cut(TunnelId(tunnel)));
    pair.run_for(secs(30));
    let standing = pair.read(SERVER, id);
    pair.run_for(secs(20));
    assert_eq!(pair.read(SERVER, id), standing, "nothing moves");
    let resent_before = pair.ends[CLIENT].session.stats().resent;
    for path in FOUR {
        pair.add_tunnel(path);
    }
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, id)));
    let (client, server) = (pair.ends[CLIENT].session.stats(), pair.ends[SERVER].session.stats());
    assert!(client.resent > resent_before);
    assert_eq!(server.duplicates, 0, "the counts told exactly what was missing");
    pair.finish();
}

#[test]
fn a_session_without_tunnels_expires_on_both_ends() {
    let mut pair = Pair::new(&FOUR);
    pair.open(CLIENT, 40 * MIB);
    pair.run_for(millis(300));
    (0..4).for_each(|tunnel| pair.cut(TunnelId(tunnel)));
    pair.run_for(secs(59));
    assert!(!pair.ends[CLIENT].session.is_closed() && !pair.ends[SERVER].session.is_closed());
    pair.run_for(secs(2));
    for end in [CLIENT, SERVER] {
        assert!(pair.saw(end, &Event::Closed { cause: CloseCause::Expired }));
    }
}

#[test]
fn an_acknowledgement_lost_with_the_tunnel_it_rode_on() {
    // Small writes, so that every acknowledgement waits for its delay; the tunnel dies under it.
    let mut pair = Pair::new(&[path(10_000_000, 50); 2]);
    let id = pair.open_idle(CLIENT);
    pair.run_for(secs(1));
    pair.write(CLIENT, id, 1000, true);
    pair.run_for(millis(90));
    assert_eq!(pair.read(SERVER, id), 1000);
    let stats = pair.ends[CLIENT].session.stats();
    let carrier = stats.tunnels.iter().find(|tunnel| tunnel.in_flight > 0);
    let carrier = carrier.expect("the acknowledgement is on its way").tunnel;
    pair.cut(carrier);
    assert!(pair.run_until(secs(1), |pair| pair.saw(CLIENT, &Event::Acknowledged { connection: id })));
    assert_eq!(pair.read(SERVER, id), 1000);
    pair.finish();
}

#[test]
fn an_acknowledgement_that_its_tunnel_does_not_take_goes_over_another() {
    // The first tunnel carries what the client writes; what the server has to say on it stands in its socket.
    let mut pair = Pair::new(&[FAST; 2]);
    let [first, second] = [TunnelId(0), TunnelId(1)];
    pair.kernel_says(second, millis(100));
    let id = pair.open_idle(CLIENT);
    pair.open(SERVER, 20 * MIB);
    pair.run_for(millis(200));
    pair.stall_ways(first, [false, true]);
    pair.run_for(millis(20));
    pair.write(CLIENT, id, 1000, true);
    // Before the first tunnel is suspect, which it is after 200 ms at the soonest.
    assert!(pair.run_until(millis(150), |pair| pair.saw(CLIENT, &Event::Acknowledged { connection: id })));
    assert!(pair.ends[CLIENT].session.stats().suspicions == 0);
}

#[test]
fn a_retired_tunnel_is_settled_and_dropped() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 20 * MIB);
    pair.run_for(millis(200));
    pair.retire(CLIENT, TunnelId(3));
    assert!(pair.run_until(secs(2), |pair| pair.tunnels().len() == 3));
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, id)));
    assert_eq!(pair.ends[CLIENT].session.stats().resent, 0, "nothing on it was lost");
    pair.finish();
}

#[test]
fn a_leave_that_overtakes_its_welcome_is_kept() {
    let mut pair = Pair::new(&[FAST]);
    let now = pair.now;
    let hello = pair.ends[CLIENT].session.hello(now).unwrap();
    let boot = pair.boot;
    let welcome = pair.ends[SERVER].session.handle_hello(now, &hello, boot, true).unwrap();
    pair.add_wire(hello.tunnel, FAST);
    pair.retire(SERVER, hello.tunnel);
    pair.run_for(millis(100));
    let now = pair.now;
    pair.ends[CLIENT].session.handle_welcome(now, hello.tunnel, &welcome).unwrap();
    pair.run_for(secs(1));
    assert_eq!(pair.tunnels(), [TunnelId(0)]);
    assert_eq!(pair.ends[SERVER].session.tunnels_up(), 1);
}

#[test]
fn a_retired_tunnel_that_is_named_dead_is_dropped_once() {
    // Both ends have left it, but nothing comes back over it: the count of its end settles what it carried.
    let mut pair = Pair::new(&FOUR);
    let retired = TunnelId(3);
    pair.open(CLIENT, 20 * MIB);
    pair.run_for(millis(200));
    pair.stall_ways(retired, [false, true]);
    pair.retire(CLIENT, retired);
    pair.run_for(millis(100));
    pair.cut_at(SERVER, retired);
    pair.run_for(millis(100));
    let drop = |event: &&Event| matches!(event, Event::DropTunnel { tunnel, .. } if *tunnel == retired);
    assert_eq!(pair.ends[CLIENT].events.iter().filter(drop).count(), 1);
}

/// Origin: gkd-rs (2019) had no keep-alive.
#[test]
fn idle_tunnels_are_pinged_and_silent_ones_dropped() {
    let mut pair = Pair::new(&FOUR);
    pair.run_for(secs(120));
    assert_eq!(pair.tunnels().len(), 4);
    let heard = pair.ends[CLIENT].session.stats().tunnels[0].received;
    assert!(heard > 0, "Pongs");
    pair.stall(TunnelId(1), true);
    pair.run_for(secs(36));
    assert_eq!(pair.tunnels(), [TunnelId(0), TunnelId(2), TunnelId(3)]);
}

#[test]
fn an_idle_tunnel_that_is_retired_is_dropped_once() {
    // The other end leaves and is done with it at once, so that its Leave and its Gone come together.
    let mut pair = Pair::new(&[FAST; 2]);
    let now = pair.now;
    pair.ends[SERVER].session.retire_tunnel(now, TunnelId(1));
    pair.run_for(secs(1));
    // Which end closes the carrier first, and so what the other sees of it, is a matter of time.
    let dropped = |event: &&Event| matches!(event, Event::DropTunnel { tunnel: TunnelId(1), .. });
    let times = [CLIENT, SERVER].map(|end| pair.ends[end].events.iter().filter(dropped).count());
    assert!(times == [1, 1] || times == [1, 0] || times == [0, 1], "{times:?}");
    assert_eq!(pair.tunnels(), [TunnelId(0)]);
}

/// A Hello that was on the way for long makes a session anew which the server had forgotten. A client that holds to
/// the earlier one, whose tunnel it counts as dead by now, learns that; who has the session now loses nothing.
#[test]
fn a_tunnel_of_an_earlier_life_of_the_session_is_of_no_such_session() {
    let (now, boot) = (Instant::now(), BootId([1; 16]));
    let mut session = Session::new(Arc::default(), Side::Server, SessionId([2; 16]), 7, now);
    let hello = |tunnel, dead| {
        let parameters = SessionConfig::default().parameters();
        let (session, tunnel) = (SessionId([2; 16]), TunnelId(tunnel));
        Hello { version: VERSION, session, tunnel, exists: true, parameters, dead }
    };
    session.handle_hello(now, &hello(0, Vec::new()), boot, false).unwrap();
    let earlier = vec![DeadTunnel { tunnel: TunnelId(1), count: 3 }];
    let reject = session.handle_hello(now, &hello(2, earlier), boot, true).unwrap_err();
    assert_eq!(reject.code, RejectCode::NoSuchSession);
    assert!(!session.is_closed() && session.tunnels_up() == 1, "nothing has changed");
    session.handle_hello(now, &hello(2, Vec::new()), boot, true).unwrap();
    // One of which nothing arrived may be of this life: its Hello never came.
    let unheard = vec![DeadTunnel { tunnel: TunnelId(1), count: 0 }];
    session.handle_hello(now, &hello(3, unheard), boot, true).unwrap();
}
