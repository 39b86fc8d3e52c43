//! The methods themselves, each over targets whose `share` says whether they are in question and how much they weigh.

use std::cmp::Ordering;
use std::net::IpAddr;

use super::{Entry, chance, mix};

/// Smooth weighted round robin, as nginx has it (commit 52327e0, "Upstream: smooth weighted round-robin balancing"): each
/// gains its weight, the one that is owed most is taken and pays for all. Of weights 5, 1 and 1 that gives `aabacaa`
/// and not `aaaaabc`. What all are owed adds up to 0 at any time, so nobody waits longer than until its turn.
pub(super) fn in_turn(targets: &mut [Entry]) -> Option<usize> {
    turn(targets, |_| true)
}

/// The same among some of those in question.
fn turn(targets: &mut [Entry], is_open: impl Fn(&Entry) -> bool) -> Option<usize> {
    let (mut total, mut best) = (0, None);
    for index in 0..targets.len() {
        let entry = &mut targets[index];
        if entry.share == 0 || !is_open(entry) {
            continue;
        }
        let share = signed(entry.share);
        entry.owed += share;
        total += share;
        if best.is_none_or(|best: usize| targets[index].owed > targets[best].owed) {
            best = Some(index);
        }
    }
    targets[best?].owed -= total;
    best
}

/// What a target that goes was owed falls to whoever is owed least, or owes most if it owed: so all of it stays 0.
pub(super) fn inherit(targets: &mut [Entry], owed: i64) {
    let heir = match owed.cmp(&0) {
        Ordering::Greater => targets.iter_mut().min_by_key(|entry| entry.owed),
        _ => targets.iter_mut().max_by_key(|entry| entry.owed),
    };
    if let Some(heir) = heir {
        heir.owed += owed;
    }
}

/// The fewest outstanding for the weight; those that are equal take turns, as in nginx's `least_conn`.
pub(super) fn least_outstanding(targets: &mut [Entry]) -> Option<usize> {
    let open = targets.iter().filter(|entry| entry.share > 0);
    let (outstanding, share) = open.map(load).min_by(by_load)?;
    turn(targets, |entry| by_load(&load(entry), &(outstanding, share)).is_eq())
}

/// Two are drawn by weight, a second one that is not the first; the first is taken unless the second has less to do.
pub(super) fn better_of_two(targets: &[Entry], draws: [u64; 2]) -> Option<usize> {
    let first = drawn(targets, None, draws[0])?;
    let Some(second) = drawn(targets, Some(first), draws[1]) else { return Some(first) };
    let second_is_better = by_load(&load(&targets[second]), &load(&targets[first])).is_lt();
    Some(if second_is_better { second } else { first })
}

/// One of those in question, by weight.
fn drawn(targets: &[Entry], but: Option<usize>, random: u64) -> Option<usize> {
    let open = || {
        let all = targets.iter().map(|entry| entry.share).enumerate();
        all.filter(move |(index, share)| *share > 0 && Some(*index) != but)
    };
    let total: u64 = open().map(|(_, share)| share).sum();
    // A place on the line of all shares: the upper half of the product, as Lemire has it ("Fast Random Integer Generation in an
    // Interval", 2019); of a total below 2^31 its bias is nothing.
    let mut place = ((u128::from(random) * u128::from(total)) >> 64) as u64;
    for (index, share) in open() {
        match place.checked_sub(share) {
            Some(rest) => place = rest,
            None => return Some(index),
        }
    }
    None
}

/// Weighted rendezvous hashing (Thaler and Ravishankar, 1998; weights by the logarithmic method of Schindelhauer and
/// Schomaker, 2005): each target draws a number for the client, and the highest, by weight, has it. A target that goes or
/// weighs less loses clients and moves no others'.
pub(super) fn by_address(targets: &[Entry], client: IpAddr, hash: u64) -> Option<usize> {
    let client = mix(hash ^ network(client));
    // How long it takes each to come, at a rate of its weight: the first one is taken.
    let time = |entry: &Entry| -(1.0 - chance(mix(client ^ entry.key))).ln() / entry.share as f64;
    let open = targets.iter().enumerate().filter(|(_, entry)| entry.share > 0);
    open.map(|(index, entry)| (index, time(entry)))
        .min_by(|(_, one), (_, other)| one.total_cmp(other))
        .map(|(index, _)| index)
}

/// What of an address is a client's own and not its choice of the moment: all of IPv4, 64 bits of IPv6.
fn network(client: IpAddr) -> u64 {
    match client.to_canonical() {
        IpAddr::V4(ip) => mix(u64::from(u32::from(ip))),
        IpAddr::V6(ip) => (u128::from(ip) >> 64) as u64,
    }
}

/// Of those that are all out: the one that there is a way to, that no probe speaks against, that has failed least often in a row, and has the
/// fewest outstanding for its weight. Failures in between change the order, so each has its try.
pub(super) fn least_bad(targets: &[Entry], is_open: impl Fn(&Entry) -> bool) -> Option<usize> {
    let rank = |entry: &Entry| (entry.away, entry.health.is_down(), entry.health.failures());
    let load = |entry: &Entry| (entry.outstanding, u64::from(entry.weight));
    let open = targets.iter().enumerate().filter(|(_, entry)| is_open(entry));
    open.min_by(|(_, one), (_, other)| {
        rank(one).cmp(&rank(other)).then_with(|| by_load(&load(one), &load(other)))
    })
    .map(|(index, _)| index)
}

/// Outstanding requests, and what they are to be divided by.
fn load(entry: &Entry) -> (u32, u64) {
    (entry.outstanding, entry.share)
}

/// Compares the quotients.
fn by_load(one: &(u32, u64), other: &(u32, u64)) -> Ordering {
    (u128::from(one.0) * u128::from(other.1)).cmp(&(u128::from(other.0) * u128::from(one.1)))
}

/// Shares are below 2^20 and what is owed below 2^30, so sums stay far from the end.
fn signed(share: u64) -> i64 {
    i64::try_from(share).unwrap_or(i64::MAX)
}
