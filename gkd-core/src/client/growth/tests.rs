//! [`Growth`] in virtual time on modelled lines.

use super::*;

/// How often a sample is taken.
const TICK: Duration = Duration::from_millis(250);

const LEAST: usize = 4;
const MOST: usize = 64;

/// What one tunnel gets where that is capped, in bytes per second.
const CAP: f64 = 1e6;

/// A line, what wants to go over it, and who decides on the tunnels.
struct World {
    growth: Growth,
    paths: usize,
    now: Instant,
    moved: f64,
    /// Tunnels that are up; they follow what is wanted one tick later.
    up: usize,
    /// The server takes no more.
    limit: usize,
    /// How often the number that is wanted changed.
    changes: usize,
    random: u64,
}

impl World {
    fn new(paths: usize) -> Self {
        let growth = Growth::new(paths, LEAST, MOST);
        let up = paths * LEAST;
        Self { growth, paths, now: Instant::now(), moved: 0.0, up, limit: usize::MAX, changes: 0, random: 7 }
    }

    /// From -1 to 1, evenly (Marsaglia's xorshift).
    fn noise(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// Goes on for so long; `line` says what so many tunnels move in a second, and whether more waits.
    fn run(&mut self, time: Duration, mut line: impl FnMut(&mut Self, usize) -> (f64, bool)) -> usize {
        let end = self.now + time;
        while self.now < end {
            self.now += TICK;
            let (rate, busy) = line(self, self.up);
            self.moved += rate * TICK.as_secs_f64();
            let before = self.growth.wanted();
            let want = before * self.paths;
            let refused = want > self.limit && self.up == self.limit;
            let sample = Sample { moved: self.moved as u64, busy, up: self.up, refused };
            let wanted = self.growth.observe(self.now, sample);
            assert!((LEAST..=MOST).contains(&wanted), "{wanted}");
            self.changes += usize::from(wanted != before);
            self.up = (wanted * self.paths).min(self.limit);
        }
        self.growth.wanted()
    }
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// Every tunnel gets the cap, and all of them what the line has.
fn capped(line: f64) -> impl Fn(&mut World, usize) -> (f64, bool) {
    move |_, up| ((up as f64 * CAP).min(line), true)
}

/// So many strangers share the line.
fn shared(strangers: usize) -> impl Fn(&mut World, usize) -> (f64, bool) {
    move |_, up| (100.0 * CAP * up as f64 / (up + strangers) as f64, true)
}

#[test]
fn capped_tunnels_grow_to_the_most() {
    let mut world = World::new(1);
    assert_eq!(world.run(minutes(2), capped(f64::INFINITY)), MOST);
    // Nothing is gained above, and nothing is given up.
    world.run(minutes(600), capped(f64::INFINITY));
    assert_eq!(world.growth.kept, MOST);
}

#[test]
fn they_grow_until_goodput_does_not() {
    for line in [5.5, 8.0, 13.0, 20.0, 40.0, 60.0] {
        let mut world = World::new(1);
        world.run(minutes(3), capped(line * CAP));
        // Enough for three quarters of the line, and no more than a step above what fills it.
        let kept = world.growth.kept as f64;
        assert!(kept >= 0.7 * line && kept <= line * (1.0 + STEP), "{kept} for {line}");
        let filled = world.growth.kept;
        world.run(minutes(600), capped(line * CAP));
        assert_eq!(world.growth.kept, filled, "for {line}");
    }
}

#[test]
fn each_of_several_paths_has_as_many() {
    let mut world = World::new(3);
    world.run(minutes(3), capped(60.0 * CAP));
    assert!((14..=30).contains(&world.growth.kept), "{}", world.growth.kept);
}

#[test]
fn a_full_line_is_left_at_the_least_and_seldom_tried() {
    for strangers in [0, 1, 4] {
        let mut world = World::new(1);
        world.run(minutes(60), shared(strangers));
        assert_eq!(world.growth.kept, LEAST, "{strangers}");
        // Up and back: the waits double up to half an hour.
        let in_an_hour = std::mem::take(&mut world.changes);
        assert!((2..=16).contains(&in_an_hour), "{in_an_hour}");
        world.run(minutes(600), shared(strangers));
        assert_eq!(world.growth.kept, LEAST, "{strangers}");
        assert!(world.changes <= 42, "{} in ten hours", world.changes);
    }
}

#[test]
fn those_that_another_line_does_not_need_are_taken_away() {
    let mut world = World::new(1);
    world.run(minutes(2), capped(f64::INFINITY));
    assert_eq!(world.growth.kept, MOST);
    // The laptop is at home now.
    world.run(minutes(180), shared(0));
    assert_eq!(world.growth.kept, LEAST);
    // And back: that takes a wait.
    world.run(minutes(60), capped(f64::INFINITY));
    assert_eq!(world.growth.kept, MOST);
}

#[test]
fn what_is_idle_or_has_nothing_waiting_is_not_tried() {
    let mut world = World::new(1);
    for (rate, busy) in [(0.0, false), (3.0 * CAP, false), (1e9, false)] {
        world.run(minutes(60), |_, _| (rate, busy));
    }
    // Busy now and then is not busy.
    let mut tick = 0;
    world.run(minutes(60), |_, _| {
        tick += 1;
        (3.0 * CAP, tick % 2 == 0)
    });
    world.run(minutes(1), |_, _| (0.0, false));
    // Busy for less than a window.
    world.run(minutes(60), |_, _| {
        tick += 1;
        (3.0 * CAP, tick % 40 < 8)
    });
    assert_eq!((world.growth.wanted(), world.changes), (LEAST, 0));
}

#[test]
fn a_load_that_ends_while_more_are_tried_leaves_it_as_it_was() {
    let mut world = World::new(1);
    world.run(Duration::from_secs(5), capped(f64::INFINITY));
    assert!(world.growth.trying.is_some());
    world.run(minutes(1), |_, _| (0.0, false));
    assert_eq!(world.growth.wanted(), LEAST);
    // And the next one need not wait for it.
    assert_eq!(world.run(minutes(2), capped(f64::INFINITY)), MOST);
}

#[test]
fn after_a_rest_it_begins_anew() {
    let mut world = World::new(1);
    world.run(minutes(2), capped(f64::INFINITY));
    world.run(minutes(4), |_, _| (0.0, false));
    assert_eq!(world.growth.kept, MOST);
    world.run(minutes(2), |_, _| (0.0, false));
    assert_eq!(world.growth.wanted(), LEAST);
    assert_eq!(world.run(minutes(2), capped(f64::INFINITY)), MOST);
}

#[test]
fn noise_of_a_tenth_drives_nothing() {
    for seed in 1..25 {
        // Of each sample, and of every few seconds, so that windows differ.
        for slow in [1, 20] {
            let mut world = World::new(1);
            world.random = seed;
            let (mut tick, mut factor) = (0, 1.0);
            let mut noisy = |world: &mut World, rate: f64| {
                if tick % slow == 0 {
                    factor = 1.0 + 0.1 * world.noise();
                }
                tick += 1;
                (rate * factor, true)
            };
            world.run(minutes(60), |world, _| noisy(world, 10.0 * CAP));
            assert_eq!(world.growth.kept, LEAST, "seed {seed}, {slow}");
            assert!(world.changes <= 20, "seed {seed}, {slow}: {}", world.changes);
            world.run(minutes(120), |world, up| noisy(world, up as f64 * CAP));
            assert_eq!(world.growth.kept, MOST, "seed {seed}, {slow}");
        }
    }
}

#[test]
fn a_lossy_line_gets_enough_to_be_used() {
    let mut good = 0;
    for seed in 0..60 {
        let mut world = World::new(1);
        world.random = 1 + seed;
        // Each goes up and down by itself, slowly, between a third and thrice; so all together vary by less the more
        // there are. The line has room for twenty.
        let mut rates = vec![1.0_f64; MOST];
        let mut line = |world: &mut World, up: usize| {
            for rate in &mut rates {
                *rate = (*rate * (1.0 + 0.2 * world.noise())).clamp(1.0 / 3.0, 3.0);
            }
            let sum: f64 = rates[..up].iter().sum();
            ((sum * CAP).min(20.0 * CAP), true)
        };
        world.run(minutes(30), &mut line);
        good += usize::from((9..=48).contains(&world.growth.kept));
    }
    // Where the rates of few happened to fall while more were tried, it takes longer.
    assert!(good >= 54, "{good} of 60");
}

#[test]
fn a_server_that_takes_no_more_is_not_asked_again_soon() {
    let mut world = World::new(1);
    world.limit = 10;
    world.run(minutes(2), capped(f64::INFINITY));
    // 4, 6, 9; 14 were refused.
    assert_eq!((world.growth.wanted(), world.up), (9, 9));
    world.changes = 0;
    world.run(minutes(25), capped(f64::INFINITY));
    assert_eq!(world.changes, 0);
    // A limit that was lowered: as few as it takes.
    world.limit = 6;
    world.up = 6;
    world.run(minutes(1), capped(f64::INFINITY));
    assert_eq!(world.growth.wanted(), 6);
}

#[test]
fn tunnels_that_do_not_come_up_are_not_waited_for_long() {
    let mut world = World::new(1);
    let (mut now, mut moved, mut most) = (world.now, 0, 0);
    for _ in 0..4 * 60 {
        now += TICK;
        moved += 1_000_000;
        let sample = Sample { moved, busy: true, up: LEAST, refused: false };
        most = most.max(world.growth.observe(now, sample));
    }
    assert_eq!((most, world.growth.wanted()), (6, LEAST));
}

#[test]
fn another_session_counts_from_the_beginning() {
    let mut world = World::new(1);
    world.run(Duration::from_secs(2), capped(f64::INFINITY));
    world.moved = 0.0;
    world.run(Duration::from_secs(2), capped(f64::INFINITY));
    assert_eq!(world.growth.wanted(), LEAST);
    world.run(Duration::from_secs(2), capped(f64::INFINITY));
    assert_eq!(world.growth.wanted(), 6);
}
