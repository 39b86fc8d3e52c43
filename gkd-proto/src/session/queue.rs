//! What a tunnel may hold so that the queue in front of its line stays short.
//!
//! Several senders at one bottleneck fill its queue, whichever congestion control they have: CUBIC until it overflows,
//! BBR because each keeps twice of what it takes for its share on the way (Hock et al., ICNP 2017). Everything then
//! waits in that queue, and behind what it dropped. A session sees all of its tunnels do so, and need not send what
//! they could.
//!
//! So once a round trip what a tunnel may hold is scaled, as in FAST TCP (Jin, Wei and Low, INFOCOM 2004), by how far the
//! round trip exceeds its least and a quarter: that much of a queue stays, which keeps the line busy. It grows by an equal
//! amount for each, so that tunnels come to hold alike (Chiu and Jain, 1989). What counts is the shortest queue that was
//! seen for a while (as in CoDel, RFC 8289), not one that comes and goes. Where others fill the queue it stays long whatever
//! this end does, and who gave way would only leave the line to them. That shows when all tunnels together deliver less than
//! they did and the queue is long nevertheless; then the limit goes for a while (as in Copa's competitive mode, Arun and
//! Balakrishnan, NSDI 2018), for all of them, since who gave way alone would lose most.
//!
//! *All tunnels* are those whose least round trips are alike, which seem to run over one line. What is limited is what is on
//! its way: not what arrived and waits there for something that was dropped (`PathSample::held_up`).

use std::time::{Duration, Instant};

use super::PathSample;

/// The queue that is left: this part of the least round trip …
const SHARE: u32 = 4;
/// … and at least this: clocks, acknowledgements and radios are late by as much.
const LEAST_SLACK: Duration = Duration::from_millis(10);

/// The queue is looked at once a round trip, but not more often than this: a few samples are needed.
const LEAST_LOOK: Duration = Duration::from_millis(60);

/// The limit shrinks in proportion, to half at the most as a congestion window does, and grows by what the mean of the
/// tunnels carries in the time that the queue is too short: so those that hold less come to hold as much as others.
const SHRINK: f64 = 0.5;

/// It does not shrink below this part of what the mean of the tunnels holds when the queue is as it is to be, and grows to
/// that whatever the queue is: a sender of little waits for acknowledgements, which the kernel at the other end delays, and
/// that looks like a queue.
const FAIR: f64 = 1.0;

/// Tunnels whose least round trips differ by less than this factor (and 2.5 ms) are taken to run over the same line. What
/// others deliver says nothing of what a line of its own takes.
const ALIKE: f64 = 1.25;

/// Where all tunnels together deliver less than this part of the most that they did under the limit, and the queue is
/// nevertheless long, it is not theirs; where they deliver less than that part, it may be longer.
const FALLEN: f64 = 0.8;
const SHORT: f64 = 0.95;

/// What was found is forgotten when the path was not asked about for so long, for the tunnel was idle.
const FORGET: Duration = Duration::from_secs(1);

/// A tunnel that holds less makes no queue.
const LEAST_HELD: u64 = 16 * 1024;

/// Over how long the rate is averaged: several round trips of most paths, and the time that a loss holds all up.
const AVERAGE: Duration = Duration::from_secs(1);

/// How long the limit is gone when the queue is none of ours; each time twice as long, up to the last.
const FIRST_REST: Duration = Duration::from_secs(1);
const LAST_REST: Duration = Duration::from_secs(320);
const LONG: Duration = Duration::from_secs(10);

/// What a tunnel may hold for its queue's sake.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Queue {
    limit: Option<Limit>,
    /// Bytes per second that the tunnel delivers, and what it had by when.
    rate: f64,
    delivered: Option<(u64, Instant)>,
    /// Over how long it is averaged by now, up to [`AVERAGE`].
    averaged: Duration,
    /// What was seen since the last look.
    seen: Option<Seen>,
    /// What the limit changed shows in the round trip only then.
    settles: Option<Instant>,
    /// Until then nothing is learned, for tunnels pause, or did a round trip ago.
    pause: Option<Instant>,
    /// How many others there were, and until when what all deliver may be less because there are fewer.
    alike: usize,
    fewer: Option<Instant>,
    /// No limit before this; and how long the last such rest was.
    rest: Option<(Instant, Duration)>,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    bytes: u64,
    began: Instant,
    /// It was never too much yet.
    rises: bool,
    /// The most that was delivered under it, in bytes per second.
    best: f64,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    since: Instant,
    /// The shortest round trip.
    round_trip: Duration,
    /// The most bytes that the tunnel held.
    held: u64,
}

/// What a tunnel carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Bytes that were acknowledged since it came up.
    pub(super) delivered: u64,
    /// The most bytes that were on their way since this was told last. What is just now may be less by all that one
    /// acknowledgement covers.
    pub(super) held: u64,
    /// How long it takes until they are acknowledged.
    pub(super) acked_in: Option<Duration>,
    pub(super) others: Others,
}

/// What the session's other tunnels do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Others {
    /// Of those that seem to run over the same line: how many there are, what they deliver in bytes per second, and whether
    /// some of them are limited, or have found that the queue is none of theirs.
    pub(super) alike: usize,
    pub(super) rate: f64,
    pub(super) limited: bool,
    pub(super) rest: bool,
    /// Of all: some of them pause.
    pub(super) pause: bool,
}

impl Others {
    /// Adds one, as it is at this moment; `least` is the least round trip of the tunnel that asks.
    pub(super) fn add(&mut self, now: Instant, other: &Queue, path: &PathSample, least: Option<Duration>) {
        self.pause |= path.pauses.is_some();
        let (Some(least), Some(its)) = (least, path.least_round_trip) else { return };
        if its.max(least) <= its.min(least).mul_f64(ALIKE) + LEAST_SLACK / 4 {
            self.alike += 1;
            self.rate += other.rate(now);
            self.limited |= other.limit.is_some();
            self.rest |= other.rests(now);
        }
    }
}

impl Queue {
    /// In bytes; none while the queue is short, or not this tunnel's.
    pub(super) fn limit(&self) -> Option<u64> {
        self.limit.map(|limit| limit.bytes)
    }

    /// Bytes per second that the tunnel delivers; none when it was idle for long.
    fn rate(&self, now: Instant) -> f64 {
        let idle = self.delivered.is_none_or(|(_, at)| now.saturating_duration_since(at) > FORGET);
        if idle { 0.0 } else { self.rate }
    }

    /// The queue was none of its own.
    fn rests(&self, now: Instant) -> bool {
        self.rest.is_some_and(|(until, _)| now < until)
    }

    /// The kernel tells of the path while the tunnel carries so much.
    pub(super) fn sample(&mut self, now: Instant, path: &PathSample, load: Load) {
        if self.delivered.is_some_and(|(_, at)| now.saturating_duration_since(at) > FORGET) {
            (self.limit, self.seen, self.delivered, self.averaged) = (None, None, None, Duration::ZERO);
        }
        if load.others.pause || path.pauses.is_some() {
            self.pause = Some(now + 2 * path.round_trip.unwrap_or_default());
        }
        if self.pause.is_some_and(|until| now < until) {
            (self.seen, self.delivered) = (None, Some((load.delivered, now)));
            return;
        }
        if load.others.alike < self.alike {
            self.fewer = Some(now + 2 * AVERAGE);
        }
        self.alike = load.others.alike;
        let is_new = self.delivered.is_none();
        self.average(now, load.delivered);
        let (Some(round_trip), Some(least)) = (path.round_trip, path.least_round_trip) else { return };
        if self.settles.is_some_and(|until| now < until) {
            return;
        }
        self.settles = None;
        if is_new && load.others.limited {
            // What a sender does at its start would make the queue overflow that the others keep short.
            self.limit = Some(Limit { bytes: LEAST_HELD, began: now, rises: true, best: 0.0 });
        }
        let seen = self.seen.get_or_insert(Seen { since: now, round_trip, held: load.held });
        seen.round_trip = seen.round_trip.min(round_trip);
        seen.held = seen.held.max(load.held);
        if now.saturating_duration_since(seen.since) >= round_trip.max(LEAST_LOOK) {
            let seen = *seen;
            self.seen = None;
            let before = self.limit();
            self.look(now, seen, least, load);
            if self.limit() != before {
                self.settles = Some(now + round_trip);
            }
        }
    }

    fn average(&mut self, now: Instant, delivered: u64) {
        let (before, at) = *self.delivered.get_or_insert((delivered, now));
        let elapsed = now.saturating_duration_since(at);
        if !elapsed.is_zero() {
            // At first the mean of what there is: an average that began with nothing would take the line for slower than
            // it is, just while what the tunnel may hold is found.
            self.averaged = (self.averaged + elapsed).min(AVERAGE);
            let rate = delivered.saturating_sub(before) as f64 / elapsed.as_secs_f64();
            self.rate += (rate - self.rate) * elapsed.div_duration_f64(self.averaged).min(1.0);
            self.delivered = Some((delivered, now));
        }
    }

    fn look(&mut self, now: Instant, seen: Seen, least: Duration, load: Load) {
        let slack = (least / SHARE).max(LEAST_SLACK);
        let target = least + slack;
        let acked_in = load.acked_in.unwrap_or(seen.round_trip);
        let rate = self.rate + load.others.rate;
        let rests = load.others.rest || self.rests(now);
        let Some(limit) = &mut self.limit else {
            if seen.round_trip > target && seen.held >= LEAST_HELD && !rests {
                let bytes = shrunk(seen.held, target, seen.round_trip.max(acked_in));
                self.limit = Some(Limit { bytes, began: now, rises: false, best: rate });
            }
            return;
        };
        limit.best = limit.best.max(rate);
        // The most under the limit: if less were taken once it falls behind, it would stay behind.
        let share = limit.best / (load.others.alike + 1) as f64;
        // What a tunnel holds that has its share of the line and of the queue in front of it.
        let fair = (share * target.as_secs_f64() * FAIR) as u64;
        // What one has found holds for all, and who gave way alone would lose most. What a tunnel carried that is gone, others
        // carry soon.
        let fallen = rate < FALLEN * limit.best && self.fewer.is_none_or(|until| now >= until);
        if seen.round_trip > target && (load.others.rest || fallen) {
            return self.give_up(now);
        }
        // Others hold the queue as it is to be, or it is none, and what is sent in bursts waits for itself.
        let towards_fair = || {
            let more = share * slack.as_secs_f64() / 4.0;
            let doubles = limit.rises && seen.round_trip <= target;
            if doubles { 2 * limit.bytes } else { limit.bytes + more as u64 }.min(fair)
        };
        if seen.round_trip > target {
            if limit.bytes < fair {
                limit.bytes = towards_fair();
                return;
            }
            // What is held may wait for what was dropped, too, and is then much more than the queue tells.
            let waits = if acked_in > target + slack { acked_in } else { seen.round_trip };
            limit.bytes = shrunk(limit.bytes.min(seen.held), target, waits).max(fair);
            limit.rises = false;
            return;
        }
        let mut grown = limit.bytes.max(towards_fair());
        // Also beyond what is fair: where each has a line of its own, all may hold too little, and then what they deliver is
        // no measure.
        if seen.held >= limit.bytes / 10 * 9 {
            let empty = seen.round_trip < least + slack / 2;
            let wants = empty || rate < SHORT * limit.best;
            let more = (share * (target - seen.round_trip).as_secs_f64()) as u64;
            let step = match (wants, limit.rises && empty) {
                (true, true) => more.max(limit.bytes),
                (true, false) => more,
                // What is sent in bursts waits for itself, and then this is no queue that stands. If it is, it shows.
                (false, _) => more / 2,
            };
            grown = grown.max(limit.bytes + step);
        }
        limit.bytes = grown;
    }

    /// The queue is not this tunnel's. A limit that had held for long, and for longer than the last rest, was right until
    /// now.
    fn give_up(&mut self, now: Instant) {
        let held_for =
            self.limit.take().map_or(Duration::ZERO, |limit| now.saturating_duration_since(limit.began));
        let rest = match self.rest {
            Some((_, last)) if held_for < last.max(LONG) => (2 * last).min(LAST_REST),
            _ => FIRST_REST,
        };
        self.rest = Some((now + rest, rest));
    }
}

/// What is held, for a round trip of `target` instead of `now`.
fn shrunk(bytes: u64, target: Duration, now: Duration) -> u64 {
    let ratio = target.as_secs_f64() / now.as_secs_f64().max(f64::MIN_POSITIVE);
    (bytes as f64 * ratio.clamp(SHRINK, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the line carries, in bytes per second, and its least round trip.
    const CAPACITY: f64 = 12_500_000.0;
    const LEAST: Duration = Duration::from_millis(50);
    const TICK: Duration = Duration::from_millis(20);

    /// Some tunnels over one line, each of which may have twice its share on the way, as BBR would. A fluid: what they
    /// hold above what the line does stands in its queue.
    struct Line {
        now: Instant,
        tunnels: Vec<Queue>,
        /// Bytes that each delivered.
        delivered: Vec<f64>,
        smoothed: f64,
        /// How long the queue is, in seconds.
        queue: f64,
        /// What all tunnels get, in bytes per second.
        carried: f64,
    }

    impl Line {
        fn new(tunnels: usize) -> Self {
            let (tunnels, delivered) = (vec![Default::default(); tunnels], vec![0.0; tunnels]);
            let smoothed = LEAST.as_secs_f64();
            Self { now: Instant::now(), tunnels, delivered, smoothed, queue: 0.0, carried: 0.0 }
        }

        /// The queue holds at most `room` seconds; `others` of it is others', and `late` is what else delays packets.
        fn tick(&mut self, room: f64, others: f64, late: f64) {
            let least = LEAST.as_secs_f64();
            let share = CAPACITY / self.tunnels.len() as f64;
            let holds = |queue: &Queue| {
                queue.limit().map_or(f64::INFINITY, |limit| limit as f64).min(2.0 * share * least)
            };
            let held: Vec<f64> = self.tunnels.iter().map(holds).collect();
            let sum: f64 = held.iter().sum();
            self.queue = (sum / CAPACITY - least + others).clamp(others.min(room), room);
            let round_trip = least + self.queue + late;
            self.carried = (sum / round_trip).min(CAPACITY);
            self.smoothed += (round_trip - self.smoothed) / 2.0;
            self.now += TICK;
            let path = PathSample {
                round_trip: Some(Duration::from_secs_f64(self.smoothed)),
                least_round_trip: Some(LEAST),
                ..PathSample::default()
            };
            for (index, held) in held.into_iter().enumerate() {
                self.delivered[index] += self.carried * TICK.as_secs_f64() * held / sum;
                let mut others = Others::default();
                for other in self.tunnels[..index].iter().chain(&self.tunnels[index + 1..]) {
                    others.add(self.now, other, &path, Some(LEAST));
                }
                let (delivered, held) = (self.delivered[index] as u64, held as u64);
                let load = Load { delivered, held, acked_in: path.round_trip, others };
                self.tunnels[index].sample(self.now, &path, load);
            }
        }

        fn limited(&self) -> usize {
            self.tunnels.iter().filter(|queue| queue.limit().is_some()).count()
        }
    }

    #[test]
    fn tunnels_leave_a_short_queue_and_the_line_busy() {
        for (tunnels, room) in [(1, 0.2), (2, 0.025), (4, 0.025), (16, 0.025), (4, 0.4)] {
            let mut line = Line::new(tunnels);
            (0..100).for_each(|_| line.tick(room, 0.0, 0.0));
            for tick in 0..3000 {
                line.tick(room, 0.0, 0.0);
                assert!(
                    (0.002..0.016).contains(&line.queue),
                    "{tunnels} tunnels: {} s at {tick}",
                    line.queue
                );
                assert!(
                    line.carried >= 0.999 * CAPACITY,
                    "{tunnels} tunnels: {} B/s at {tick}",
                    line.carried
                );
            }
        }
    }

    #[test]
    fn beside_others_that_fill_the_queue_nobody_gives_way_for_long() {
        let mut line = Line::new(4);
        let (mut carried, mut limited) = (0.0, 0);
        for _ in 0..15_000 {
            line.tick(0.1, 0.05, 0.0);
            carried += line.carried;
            limited += line.limited();
        }
        // All of the time: 0.1 s of what the line carries, for a round trip of 0.15 s.
        assert!(carried >= 0.98 * 15_000.0 * CAPACITY * 0.1 / 0.15, "{carried}");
        assert!(limited < 4 * 15_000 / 20, "{limited}");
    }

    #[test]
    fn what_comes_and_goes_is_no_queue() {
        let mut line = Line::new(4);
        for tick in 0..10_000_u32 {
            // Nothing stands: a radio is late by up to 30 ms, a few times a second.
            let late = f64::from(tick.wrapping_mul(2_654_435_761) >> 16 & 3) * 0.01;
            line.tick(0.0, 0.0, late);
            assert!(line.carried >= 0.7 * CAPACITY, "{} B/s at {tick}", line.carried);
        }
    }

    #[test]
    fn a_tunnel_that_comes_up_beside_others_begins_with_little_and_comes_to_a_share() {
        let mut line = Line::new(3);
        (0..200).for_each(|_| line.tick(0.025, 0.0, 0.0));
        line.tunnels.push(Queue::default());
        line.delivered.push(0.0);
        line.tick(0.025, 0.0, 0.0);
        assert_eq!(line.tunnels[3].limit(), Some(LEAST_HELD));
        for tick in 0..1000 {
            line.tick(0.025, 0.0, 0.0);
            assert!(line.queue < 0.024, "the queue overflows: {} s at {tick}", line.queue);
        }
        let held: Vec<_> = line.tunnels.iter().filter_map(Queue::limit).collect();
        let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
        assert!(held.len() == 4 && *most < 3 * least, "{held:?}");
    }

    #[test]
    fn that_one_is_gone_is_no_sign_of_strangers_for_a_while() {
        let (mut queue, mut now, mut delivered) = (Queue::default(), Instant::now(), 0);
        let path = PathSample {
            round_trip: Some(2 * LEAST),
            least_round_trip: Some(LEAST),
            ..PathSample::default()
        };
        let share = CAPACITY / 4.0;
        let mut tell = |queue: &mut Queue, alike: usize, time: Duration| {
            let end = now + time;
            while now < end {
                now += TICK;
                delivered += (share * TICK.as_secs_f64()) as u64;
                let others = Others { alike, rate: share * alike as f64, ..Others::default() };
                let load = Load { delivered, held: 1_000_000, acked_in: path.round_trip, others };
                queue.sample(now, &path, load);
            }
            queue.limit().is_some()
        };
        assert!(tell(&mut queue, 3, 10 * AVERAGE));
        // A quarter less, and the queue is long as well: what was lost with it is resent.
        assert!(tell(&mut queue, 2, AVERAGE));
        assert!(!tell(&mut queue, 2, 2 * AVERAGE), "nobody takes its part, so strangers do");
    }

    /// Four tunnels, each of which has a line of its own and may have twice of what that takes on the way.
    struct OwnLines {
        now: Instant,
        tunnels: [Queue; 4],
        delivered: [f64; 4],
    }

    impl OwnLines {
        fn new() -> Self {
            Self { now: Instant::now(), tunnels: [Queue::default(); 4], delivered: [0.0; 4] }
        }

        /// Each line takes so many bytes per second; what is sent in bursts waits for itself for so long, in seconds. What
        /// all carried, in bytes per second.
        fn tick(&mut self, each: f64, burst: f64) -> f64 {
            let least = LEAST.as_secs_f64();
            let mut carried = 0.0;
            self.now += TICK;
            for index in 0..4 {
                let held = self.tunnels[index].limit().map_or(f64::INFINITY, |limit| limit as f64);
                let held = held.min(2.0 * each * least);
                let round_trip = (held / each).max(least + burst);
                let rate = (held / round_trip).min(each);
                carried += rate;
                self.delivered[index] += rate * TICK.as_secs_f64();
                let path = PathSample {
                    round_trip: Some(Duration::from_secs_f64(round_trip)),
                    least_round_trip: Some(LEAST),
                    ..PathSample::default()
                };
                let mut others = Others::default();
                for other in self.tunnels[..index].iter().chain(&self.tunnels[index + 1..]) {
                    others.add(self.now, other, &path, Some(LEAST));
                }
                let (delivered, held) = (self.delivered[index] as u64, held as u64);
                let load = Load { delivered, held, acked_in: path.round_trip, others };
                self.tunnels[index].sample(self.now, &path, load);
            }
            carried
        }
    }

    #[test]
    fn one_that_holds_little_on_a_line_of_its_own_comes_to_a_share() {
        let (each, mut lines) = (CAPACITY / 4.0, OwnLines::new());
        for tick in 0..2000 {
            if tick == 1000 {
                lines.tunnels[0].limit.as_mut().unwrap().bytes = LEAST_HELD;
            }
            lines.tick(each, 0.014);
        }
        let fair = each * (LEAST.as_secs_f64() + 0.014);
        for queue in lines.tunnels {
            let limit = queue.limit().unwrap() as f64;
            assert!(limit > 0.95 * fair, "{limit} of {fair}");
        }
    }

    /// What all delivered says nothing of lines that became faster; the short queue does.
    #[test]
    fn tunnels_that_hold_their_share_grow_with_their_lines() {
        let mut lines = OwnLines::new();
        (0..500).for_each(|_| _ = lines.tick(0.7 * CAPACITY / 4.0, 0.008));
        (0..149).for_each(|_| _ = lines.tick(CAPACITY / 4.0, 0.008));
        let carried = lines.tick(CAPACITY / 4.0, 0.008);
        assert!(carried > 0.98 * CAPACITY, "{carried} of {CAPACITY} bytes per second");
    }

    #[test]
    fn what_others_do_on_lines_that_are_not_alike_counts_for_nothing() {
        let now = Instant::now();
        let other = Queue {
            rate: 1e6,
            delivered: Some((1, now)),
            rest: Some((now + FORGET, FORGET)),
            ..Queue::default()
        };
        let path = PathSample { least_round_trip: Some(LEAST), ..PathSample::default() };
        let seen_by = |least: Duration| {
            let mut others = Others::default();
            others.add(now, &other, &path, Some(least));
            (others.alike, others.rest, others.rate)
        };
        assert_eq!(seen_by(LEAST * 6 / 5), (1, true, 1e6));
        assert_eq!(seen_by(LEAST * 2), (0, false, 0.0));
        assert_eq!(seen_by(LEAST / 2), (0, false, 0.0));
        let mut later = Others::default();
        later.add(now + 2 * FORGET, &other, &path, Some(LEAST));
        assert_eq!((later.alike, later.rest, later.rate), (1, false, 0.0));
    }

    #[test]
    fn what_a_tunnel_may_hold_is_found_anew_after_a_rest() {
        let mut line = Line::new(1);
        (0..100).for_each(|_| line.tick(0.2, 0.0, 0.0));
        assert!(line.tunnels[0].limit().is_some());
        let path =
            PathSample { round_trip: Some(LEAST), least_round_trip: Some(LEAST), ..PathSample::default() };
        let delivered = line.delivered[0] as u64;
        let load = Load { delivered, held: 1, acked_in: Some(LEAST), others: Others::default() };
        line.tunnels[0].sample(line.now + 2 * FORGET, &path, load);
        assert_eq!(line.tunnels[0].limit(), None);
    }
}
