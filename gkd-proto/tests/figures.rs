//! What the figures say of a transfer that is under way.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use gkd_proto::id::TunnelId;
use gkd_proto::{PathSample, SessionStats};
use gkd_sim::shorthand::{FOUR, KIB, MIB, millis, path, secs};
use gkd_sim::{CLIENT, Pair, SERVER};

fn stats(pair: &Pair, end: usize) -> SessionStats {
    pair.ends[end].session.stats()
}

#[test]
fn what_waits_behind_a_missing_packet_is_counted_until_that_is_there() {
    let mut pair = Pair::new(&[path(5_000_000, 25); 2]);
    let id = pair.open(CLIENT, 4 * MIB);
    pair.run_for(millis(300));
    assert!(stats(&pair, CLIENT).tunnels.iter().all(|tunnel| tunnel.in_flight > 0));
    pair.stall(TunnelId(0), true);
    pair.run_for(millis(100));
    let held = pair.ends[SERVER].session.held_out_of_order();
    assert!(held > 0, "tunnel 1 goes on, tunnel 0 has what is next");
    assert!(held as u64 <= stats(&pair, SERVER).reorder_depth);
    assert_eq!(pair.ends[CLIENT].session.held_out_of_order(), 0, "nothing comes back");
    pair.stall(TunnelId(0), false);
    assert!(pair.run_until(secs(30), |pair| pair.finished(SERVER, id)));
    assert_eq!(pair.ends[SERVER].session.held_out_of_order(), 0);
    pair.finish();
}

#[test]
fn what_is_sent_again_is_counted_where_it_is_carried() {
    let mut pair = Pair::new(&FOUR);
    let id = pair.open(CLIENT, 20 * MIB);
    pair.run_for(millis(150));
    pair.cut(TunnelId(1));
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, id)));
    let stats = stats(&pair, CLIENT);
    assert!(stats.resent > 0);
    assert_eq!(stats.tunnels.iter().map(|tunnel| tunnel.resent).sum::<u64>(), stats.resent);
    pair.finish();
}

#[test]
fn what_the_kernel_said_last_is_shown() {
    let mut pair = Pair::new(&[path(5_000_000, 25); 1]);
    let id = pair.open(CLIENT, 64 * KIB);
    assert!(pair.run_until(secs(5), |pair| pair.finished(SERVER, id)));
    let (now, tunnel) = (pair.now, TunnelId(0));
    let sample = PathSample { unsent: Some(1234), unacknowledged: Some(77), ..PathSample::default() };
    pair.ends[CLIENT].session.handle_path(now, tunnel, sample);
    let shown = &stats(&pair, CLIENT).tunnels[0];
    assert_eq!((shown.unsent, shown.unacknowledged), (Some(1234), Some(77)));
    pair.finish();
}
