use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::health::COMING_BACK;
use super::*;

const METHODS: [Method; 4] =
    [Method::RoundRobin, Method::LeastConnections, Method::TwoChoices, Method::Address];

/// A client by its number.
fn client(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

/// A balancer with targets of these weights, in virtual time.
struct World {
    balancer: Balancer,
    targets: Vec<TargetId>,
    now: Instant,
    clients: u32,
}

impl World {
    fn new(method: Method, weights: &[u32]) -> Self {
        Self::seeded(method, weights, 7)
    }

    fn seeded(method: Method, weights: &[u32], seed: u64) -> Self {
        let mut balancer = Balancer::new(method, 3, seed);
        let targets = weights.iter().map(|weight| balancer.add(*weight).unwrap()).collect();
        Self { balancer, targets, now: Instant::now(), clients: 0 }
    }

    /// A request of a client that has not been here.
    fn pick(&mut self) -> Picked {
        self.clients += 1;
        self.balancer.pick(client(self.clients), &[], self.now).unwrap()
    }

    fn index(&self, picked: &Picked) -> usize {
        self.targets.iter().position(|target| *target == picked.target()).unwrap()
    }

    /// How many of so many requests each target gets, where each is answered at once.
    fn counts(&mut self, requests: usize) -> Vec<usize> {
        let mut counts = vec![0; self.targets.len()];
        for _ in 0..requests {
            let picked = self.pick();
            counts[self.index(&picked)] += 1;
            self.balancer.ended(picked, Outcome::Answered, self.now);
        }
        counts
    }

    fn state(&self, index: usize) -> TargetState {
        self.balancer.state(self.targets[index], self.now).unwrap()
    }

    /// Sends to one target, by saying that all others were tried.
    fn pick_only(&mut self, index: usize) -> Picked {
        let mut others = self.targets.clone();
        others.remove(index);
        let picked = self.balancer.pick(client(0), &others, self.now).unwrap();
        assert_eq!(self.index(&picked), index);
        picked
    }

    fn end_one(&mut self, index: usize, outcome: Outcome) {
        let picked = self.pick_only(index);
        self.balancer.ended(picked, outcome, self.now);
    }

    /// Has one target fail until it is out.
    fn take_out(&mut self, index: usize) {
        for _ in 0..3 {
            self.end_one(index, Outcome::Failed);
        }
        assert!(!self.state(index).healthy);
    }

    /// Time passes until a target is back, in steps of 100 ms; how long that took.
    fn wait_for(&mut self, index: usize) -> Duration {
        let began = self.now;
        while !self.state(index).healthy {
            self.pass(100);
            assert!(self.now - began <= Duration::from_secs(61), "it never comes back");
        }
        self.now - began
    }

    fn pass(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }
}

/// Whether the counts are what the weights say, within so many percent of all.
fn assert_shares(counts: &[usize], weights: &[u32], percent: f64) {
    let (all, total): (usize, u32) = (counts.iter().sum(), weights.iter().sum());
    for (count, weight) in counts.iter().zip(weights) {
        let (got, due) = (*count as f64 / all as f64, f64::from(*weight) / f64::from(total));
        assert!((got - due).abs() <= percent / 100.0, "{counts:?} for {weights:?}");
    }
}

#[test]
fn round_robin_mixes_as_nginx_does() {
    let mut world = World::new(Method::RoundRobin, &[5, 1, 1]);
    let order: String = (0..14)
        .map(|_| {
            let picked = world.pick();
            let letter = ["a", "b", "c"][world.index(&picked)];
            world.balancer.ended(picked, Outcome::Answered, world.now);
            letter
        })
        .collect();
    assert_eq!(order, "aabacaaaabacaa");
}

#[test]
fn shares_are_those_of_the_weights() {
    for method in METHODS {
        for weights in [&[1][..], &[1, 1, 1], &[3, 2, 1], &[100, 1], &[7, 7, 7, 1000]] {
            let counts = World::new(method, weights).counts(20_000);
            assert_shares(&counts, weights, if method == Method::RoundRobin { 0.1 } else { 2.0 });
        }
    }
}

#[test]
fn outstanding_requests_divide_by_weight() {
    for (method, percent) in [(Method::LeastConnections, 1.0), (Method::TwoChoices, 6.0)] {
        let weights = [4, 2, 1, 1];
        let mut world = World::new(method, &weights);
        let picked: Vec<_> = (0..4000).map(|_| world.pick()).collect();
        let outstanding: Vec<_> = (0..4).map(|index| world.state(index).outstanding as usize).collect();
        assert_shares(&outstanding, &weights, percent);
        for one in picked {
            world.balancer.ended(one, Outcome::Abandoned, world.now);
        }
        assert!((0..4).all(|index| world.state(index).outstanding == 0));
    }
}

#[test]
fn a_slow_target_gets_less_unless_it_is_its_turn() {
    for (method, is_less) in
        [(Method::RoundRobin, false), (Method::LeastConnections, true), (Method::TwoChoices, true)]
    {
        let mut world = World::new(method, &[1, 1, 1]);
        // The first one answers after a hundred requests, the others at once.
        let (mut slow, mut counts) = (std::collections::VecDeque::new(), [0; 3]);
        for _ in 0..3000 {
            let picked = world.pick();
            let index = world.index(&picked);
            counts[index] += 1;
            match index {
                0 => slow.push_back(picked),
                _ => world.balancer.ended(picked, Outcome::Answered, world.now),
            }
            if slow.len() > 33 {
                world.balancer.ended(slow.pop_front().unwrap(), Outcome::Answered, world.now);
            }
        }
        assert_eq!(counts[0] < 300, is_less, "{method}: {counts:?}");
    }
}

#[test]
fn a_client_stays_with_its_target_and_a_network_of_ipv6_too() {
    let mut world = World::new(Method::Address, &[1, 2, 3]);
    let mut target = |ip: &str| {
        let picked = world.balancer.pick(ip.parse().unwrap(), &[], world.now).unwrap();
        let target = picked.target();
        world.balancer.ended(picked, Outcome::Answered, world.now);
        target
    };
    for number in 0..50 {
        let first = target(&format!("2001:db8:0:{number}::1"));
        assert_eq!(first, target(&format!("2001:db8:0:{number}:ffff:1:2:3")));
        let first = target(&format!("192.0.2.{number}"));
        assert_eq!(first, target(&format!("192.0.2.{number}")));
        assert_eq!(first, target(&format!("::ffff:192.0.2.{number}")));
    }
    let networks: std::collections::HashSet<_> =
        (0..50).map(|number| target(&format!("2001:db8:0:{number}::1"))).collect();
    assert_eq!(networks.len(), 3, "networks are told apart");
}

#[test]
fn a_target_that_goes_moves_its_own_clients_alone() {
    let place = |world: &mut World, number| {
        let picked = world.balancer.pick(client(number), &[], world.now).unwrap();
        let target = picked.target();
        world.balancer.ended(picked, Outcome::Abandoned, world.now);
        target
    };
    for is_removed in [true, false] {
        let mut world = World::new(Method::Address, &[1, 3, 2, 2]);
        let before: Vec<_> = (0..1000).map(|number| place(&mut world, number)).collect();
        let gone = world.targets[1];
        if is_removed {
            world.balancer.remove(gone);
        } else {
            world.take_out(1);
        }
        let after: Vec<_> = (0..1000).map(|number| place(&mut world, number)).collect();
        let moved: Vec<_> = (0..1000).filter(|at| before[*at] != after[*at]).collect();
        assert!(moved.iter().all(|at| before[*at] == gone), "others' clients moved");
        assert_eq!(moved.len(), before.iter().filter(|target| **target == gone).count());
        // They are spread over all that are left.
        let heirs: std::collections::HashSet<_> = moved.iter().map(|at| after[*at]).collect();
        assert_eq!(heirs.len(), 3);
    }
}

#[test]
fn the_same_seed_and_keys_lead_clients_to_the_same_targets() {
    let places = |seed, keys: &[u64]| -> Vec<u64> {
        let mut balancer = Balancer::new(Method::Address, 3, seed);
        let names: HashMap<_, _> = keys.iter().map(|key| (balancer.add_as(*key, 1).unwrap(), *key)).collect();
        let now = Instant::now();
        (0..300).map(|number| names[&balancer.pick(client(number), &[], now).unwrap().target()]).collect()
    };
    let before = places(1, &[10, 20, 30]);
    assert_eq!(before, places(1, &[30, 10, 20]), "whatever the order");
    assert_ne!(before, places(2, &[10, 20, 30]), "but for the seed");
    let more = places(1, &[10, 20, 30, 40]);
    assert!(before.iter().zip(&more).all(|(before, after)| before == after || *after == 40));
}

#[test]
fn the_same_seed_and_calls_give_the_same_choices() {
    for method in METHODS {
        let choices = |seed| -> Vec<usize> {
            let mut world = World::seeded(method, &[1, 1, 2], seed);
            (0..200)
                .map(|_| {
                    let picked = world.pick();
                    world.index(&picked)
                })
                .collect()
        };
        assert_eq!(choices(3), choices(3), "{method}");
        let is_by_chance = matches!(method, Method::TwoChoices | Method::Address);
        assert_eq!(choices(3) != choices(4), is_by_chance, "{method}");
    }
}

#[test]
fn failures_in_a_row_take_a_target_out_for_longer_each_time() {
    let mut world = World::new(Method::RoundRobin, &[1, 1]);
    for _ in 0..5 {
        world.end_one(0, Outcome::Failed);
        world.end_one(0, Outcome::Failed);
        world.end_one(0, Outcome::Abandoned);
        assert!(world.state(0).healthy, "two are not three, and who goes away says nothing");
        world.end_one(0, Outcome::Answered);
        assert_eq!(world.state(0).failures, 0);
    }
    world.take_out(0);
    let mut longest = Duration::from_millis(1500);
    for _ in 0..9 {
        let waited = world.wait_for(0);
        let within = longest.mul_f64(2.0 / 3.0)..=longest + Duration::from_millis(100);
        assert!(within.contains(&waited), "{waited:?} is not within {within:?}");
        longest = (longest * 2).min(Duration::from_secs(60));
        // The run goes on: one failure is enough.
        world.end_one(0, Outcome::Failed);
        assert!(!world.state(0).healthy);
    }
    // Once it came back whole and answered, it begins anew.
    world.wait_for(0);
    world.end_one(0, Outcome::Answered);
    world.pass(10_000);
    world.end_one(0, Outcome::Answered);
    world.take_out(0);
    assert!(world.wait_for(0) <= Duration::from_millis(1600));
}

#[test]
fn a_target_comes_back_by_and_by() {
    for method in METHODS {
        let mut world = World::new(method, &[1, 1]);
        world.take_out(0);
        assert_eq!(world.counts(1000)[0], 0, "{method}");
        world.wait_for(0);
        let mut before = 0.0;
        for (millis, part) in [(0, 0.1), (3000, 0.3), (3000, 0.6), (4000, 1.0)] {
            world.pass(millis);
            let share = world.state(0).share;
            assert!((share - part).abs() < 0.03 && share >= before, "{method}: {share} is not {part}");
            before = share;
            let counts = world.counts(10_000);
            let due = share / (1.0 + share) * 10_000.0;
            assert!((counts[0] as f64 - due).abs() < 300.0, "{method}: {counts:?} are not {due}");
        }
    }
}

#[test]
fn requests_from_before_say_nothing_of_the_time_after() {
    let mut world = World::new(Method::RoundRobin, &[1, 1]);
    let old: Vec<_> = (0..10).map(|_| world.pick_only(0)).collect();
    world.take_out(0);
    let mut old = old.into_iter();
    let mut end = |world: &mut World, outcome| {
        let one = old.next().unwrap();
        world.balancer.ended(one, outcome, world.now);
    };
    for outcome in [Outcome::Answered, Outcome::Failed, Outcome::Failed, Outcome::Failed] {
        end(&mut world, outcome);
    }
    assert!(!world.state(0).healthy, "an old answer does not bring it back");
    assert!(world.wait_for(0) <= Duration::from_millis(1600), "old failures do not prolong it");
    world.end_one(0, Outcome::Answered);
    for _ in 0..4 {
        end(&mut world, Outcome::Failed);
    }
    assert_eq!((world.state(0).healthy, world.state(0).failures), (true, 0), "nor take it out again");
    end(&mut world, Outcome::Answered);
    assert_eq!(world.state(0).outstanding, 1, "they are counted all the same");
}

#[test]
fn with_none_well_each_is_tried_and_an_answer_brings_it_back() {
    for method in METHODS {
        let mut world = World::new(method, &[1, 1, 1]);
        (0..3).for_each(|index| world.take_out(index));
        let mut tried = [0; 3];
        for _ in 0..30 {
            let picked = world.pick();
            tried[world.index(&picked)] += 1;
            world.balancer.ended(picked, Outcome::Failed, world.now);
        }
        assert_eq!(tried, [10; 3], "{method}");
        let picked = world.pick();
        let index = world.index(&picked);
        world.balancer.ended(picked, Outcome::Answered, world.now);
        assert!(world.state(index).healthy, "{method}");
        assert_eq!(world.counts(10)[index], 10, "{method}: now there is one that is well");
    }
}

#[test]
fn a_target_that_probes_speak_against_is_the_last_that_is_tried() {
    let mut world = World::new(Method::TwoChoices, &[1, 1]);
    for _ in 0..3 {
        world.balancer.probed(world.targets[0], false, world.now);
    }
    for _ in 0..20 {
        world.end_one(1, Outcome::Failed);
    }
    assert_eq!(world.counts(1), [0, 1], "it failed, and the other is known to be down");
}

#[test]
fn probes_take_a_target_out_and_bring_it_back_by_their_thresholds() {
    let mut world = World::new(Method::RoundRobin, &[1, 1]);
    world.balancer.reconfigure(Method::RoundRobin, 3, 2);
    let target = world.targets[0];
    let probe = |world: &mut World, results: &[bool]| {
        for ok in results {
            world.balancer.probed(target, *ok, world.now);
        }
        world.state(0).healthy
    };
    assert!(probe(&mut world, &[false, false, true, false, false, true]));
    assert!(!probe(&mut world, &[false, false, false]));
    world.pass(100_000);
    assert!(!probe(&mut world, &[true, false, true, false]), "time alone does not bring it back");
    assert_eq!(world.counts(10)[0], 0);
    assert!(probe(&mut world, &[true, true]));
    assert!(world.state(0).share < 0.2, "by and by");
    world.pass(10_000);
    assert_eq!(world.state(0).share, 1.0);
}

#[test]
fn good_probes_do_not_shorten_what_requests_brought() {
    let mut world = World::new(Method::RoundRobin, &[1, 1]);
    world.take_out(0);
    for _ in 0..10 {
        world.balancer.probed(world.targets[0], true, world.now);
    }
    assert!(!world.state(0).healthy);
    for ok in [false, false, false, true, true] {
        world.balancer.probed(world.targets[0], ok, world.now);
    }
    assert!(!world.state(0).healthy);
    assert!(world.wait_for(0) >= Duration::from_secs(1));
}

#[test]
fn what_was_tried_is_picked_again_only_where_there_is_no_other() {
    for method in METHODS {
        let mut world = World::new(method, &[5, 1, 1]);
        world.take_out(2);
        for number in 0..50 {
            let mut tried = Vec::new();
            for expected in [vec![0, 1], vec![0, 1], vec![2]] {
                let picked = world.balancer.pick(client(number), &tried, world.now).unwrap();
                assert!(!tried.contains(&picked.target()), "{method}");
                assert!(expected.contains(&world.index(&picked)), "{method}: first those that are well");
                tried.push(picked.target());
                world.balancer.ended(picked, Outcome::Abandoned, world.now);
            }
            let picked = world.balancer.pick(client(number), &tried, world.now).unwrap();
            assert_ne!(world.index(&picked), 2, "{method}: of those tried one that is well");
            world.balancer.ended(picked, Outcome::Abandoned, world.now);
        }
    }
}

#[test]
fn a_removed_target_drains() {
    let mut world = World::new(Method::RoundRobin, &[1, 1]);
    let (one, two) = (world.pick_only(0), world.pick_only(0));
    let gone = world.targets[0];
    world.balancer.remove(gone);
    world.balancer.remove(gone);
    assert!((0..10).all(|_| world.pick().target() != gone));
    assert_eq!((world.state(0).outstanding, world.state(0).healthy), (2, false));
    world.balancer.ended(one, Outcome::Failed, world.now);
    world.balancer.probed(gone, false, world.now);
    assert_eq!((world.state(0).outstanding, world.balancer.draining()), (1, 1));
    world.balancer.ended(two, Outcome::Answered, world.now);
    assert_eq!(world.balancer.state(gone, world.now), None);
    assert_eq!(world.balancer.draining(), 0);
    world.balancer.remove(world.targets[1]);
    assert!(world.balancer.pick(client(0), &[], world.now).is_none());
    assert_eq!(world.balancer.targets().count(), 0);
}

#[test]
fn there_are_bounds() {
    let mut balancer = Balancer::new(Method::TwoChoices, 0, 1);
    let now = Instant::now();
    for _ in 0..MAX_TARGETS {
        balancer.add(u32::MAX).unwrap();
    }
    assert_eq!(balancer.add(1), None);
    for method in METHODS {
        balancer.reconfigure(method, 0, 0);
        let all: Vec<_> = (0..5000).map(|number| balancer.pick(client(number), &[], now).unwrap()).collect();
        all.into_iter().for_each(|picked| balancer.ended(picked, Outcome::Failed, now));
    }
    // A threshold of none is one.
    assert!(balancer.targets().any(|target| !balancer.state(target, now).unwrap().healthy));
    let first = balancer.targets().next().unwrap();
    balancer.remove(first);
    let next = balancer.add(0).unwrap();
    assert_ne!(first, next, "names are not used again");
}

/// What happens to a balancer.
#[derive(Clone, Debug)]
enum Step {
    Add(u32),
    Remove(usize),
    Pick { client: u32, tried: Vec<usize> },
    End { which: usize, outcome: Outcome },
    Probe { target: usize, ok: bool },
    Reweigh { target: usize, weight: u32 },
    Pass(u64),
    Reconfigure(Method),
}

fn steps() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![
        2 => Just(Outcome::Answered),
        3 => Just(Outcome::Failed),
        1 => Just(Outcome::Abandoned)
    ];
    let method = proptest::sample::select(METHODS.to_vec());
    prop_oneof![
        1 => (0_u32..20).prop_map(Step::Add),
        1 => any::<usize>().prop_map(Step::Remove),
        8 => (0_u32..50, prop::collection::vec(any::<usize>(), 0..4))
            .prop_map(|(client, tried)| Step::Pick { client, tried }),
        8 => (any::<usize>(), outcome).prop_map(|(which, outcome)| Step::End { which, outcome }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(target, ok)| Step::Probe { target, ok }),
        1 => (any::<usize>(), 0_u32..2000).prop_map(|(target, weight)| Step::Reweigh { target, weight }),
        3 => (0_u64..5000).prop_map(Step::Pass),
        1 => method.prop_map(Step::Reconfigure),
    ]
}

/// What must be, by a plain account of what is outstanding.
#[derive(Default)]
struct Account {
    under_way: Vec<Picked>,
    present: Vec<TargetId>,
    outstanding: HashMap<TargetId, u32>,
}

impl Account {
    /// One of those present.
    fn at(&self, index: usize) -> Option<TargetId> {
        (!self.present.is_empty()).then(|| self.present[index % self.present.len()])
    }

    /// Looks whether a choice was allowed, and counts it.
    fn picked(&mut self, picked: Option<Picked>, well: &[TargetId], tried: &[TargetId]) {
        let Some(picked) = picked else {
            assert!(self.present.is_empty(), "nothing was picked of {:?}", self.present);
            return;
        };
        let target = picked.target();
        assert!(self.present.contains(&target), "a removed target was picked");
        let is_new = |target: &&TargetId| !tried.contains(target);
        let any = !self.present.iter().any(|target| is_new(&target));
        assert!(any || is_new(&&target), "a target was tried again beside others");
        let better = well.iter().any(|well| any || is_new(&well));
        assert!(!better || well.contains(&target), "a target that is out was picked beside one that is well");
        *self.outstanding.entry(target).or_default() += 1;
        self.under_way.push(picked);
    }

    fn agrees_with(&self, balancer: &Balancer, now: Instant) {
        for (target, outstanding) in &self.outstanding {
            let known = balancer.state(*target, now).map_or(0, |state| state.outstanding);
            assert_eq!(known, *outstanding, "of {target:?}");
        }
        assert_eq!(balancer.targets().collect::<Vec<_>>(), self.present);
        for state in balancer.targets().map(|target| balancer.state(target, now).unwrap()) {
            let is_part = if state.healthy { 0.09..=1.0 } else { 0.0..=0.0 };
            assert!(is_part.contains(&state.share), "{state:?}");
        }
        let owed: i64 = balancer.targets.iter().map(|entry| entry.owed).sum();
        assert_eq!(owed, 0, "what targets are owed does not add up");
    }
}

/// It did nothing wrong, so it comes back whole; and while all are away, or out, one is asked all the same.
#[test]
fn a_target_that_there_is_no_way_to_is_left_out_as_long_and_not_longer() {
    for method in METHODS {
        let mut world = World::new(method, &[1, 1]);
        world.balancer.set_away(world.targets[0], true);
        assert!(!world.state(0).healthy);
        assert_eq!(world.counts(100), [0, 100]);
        world.take_out(1);
        assert_eq!(world.counts(1), [0, 1], "what fails is met, what is away is not");
        world.balancer.set_away(world.targets[0], false);
        assert_eq!((world.state(0).healthy, world.state(0).share), (true, 1.0));
        world.balancer.set_away(world.targets[1], true);
        world.balancer.set_away(world.targets[0], true);
        assert_eq!(world.counts(10).iter().sum::<usize>(), 10);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn whatever_happens_the_rules_hold(seed: u64, steps in prop::collection::vec(steps(), 1..300)) {
        let mut balancer = Balancer::new(Method::default(), 3, seed);
        let mut account = Account::default();
        let mut now = Instant::now();
        for step in steps {
            match step {
                Step::Add(weight) => account.present.extend(balancer.add(weight)),
                Step::Remove(index) => if let Some(target) = account.at(index) {
                    balancer.remove(target);
                    account.present.retain(|present| *present != target);
                },
                Step::Pick { client: number, tried } => {
                    let tried: Vec<_> = tried.into_iter().filter_map(|index| account.at(index)).collect();
                    let well: Vec<_> =
                        balancer.targets().filter(|target| balancer.state(*target, now).unwrap().healthy).collect();
                    let picked = balancer.pick(client(number), &tried, now);
                    account.picked(picked, &well, &tried);
                }
                Step::End { which, outcome } => if !account.under_way.is_empty() {
                    let which = which % account.under_way.len();
                    let picked = account.under_way.swap_remove(which);
                    *account.outstanding.get_mut(&picked.target()).unwrap() -= 1;
                    balancer.ended(picked, outcome, now);
                },
                Step::Probe { target, ok } => if let Some(target) = account.at(target) {
                    balancer.probed(target, ok, now);
                },
                Step::Reweigh { target, weight } => if let Some(target) = account.at(target) {
                    balancer.reweigh(target, weight);
                },
                Step::Pass(millis) => now += Duration::from_millis(millis),
                Step::Reconfigure(method) => balancer.reconfigure(method, 3, 2),
            }
            account.agrees_with(&balancer, now);
        }
        // And in the end nothing is left.
        for picked in account.under_way {
            balancer.ended(picked, Outcome::Answered, now);
        }
        prop_assert_eq!(balancer.draining(), 0);
        let left = balancer.targets().map(|target| balancer.state(target, now).unwrap().outstanding);
        prop_assert_eq!(left.sum::<u32>(), 0);
    }

    #[test]
    fn shares_match_weights_and_nobody_starves(
        seed: u64, weights in prop::collection::vec(1_u32..50, 1..12), method in proptest::sample::select(METHODS.to_vec())
    ) {
        let counts = World::seeded(method, &weights, seed).counts(10_000);
        // Four times the deviation of a drawn share is 2 percent at most.
        assert_shares(&counts, &weights, if method == Method::RoundRobin { 0.2 } else { 2.5 });
        if matches!(method, Method::RoundRobin | Method::LeastConnections) {
            prop_assert!(counts.iter().all(|count| *count > 0), "{counts:?} for {weights:?}");
        }
    }

    #[test]
    fn in_turn_nobody_waits_longer_than_its_weight_says(seed: u64, weights in prop::collection::vec(1_u32..50, 2..10)) {
        let total: u32 = weights.iter().sum();
        let mut world = World::seeded(Method::RoundRobin, &weights, seed);
        let mut waited = vec![0; weights.len()];
        for _ in 0..3 * total {
            let picked = world.pick();
            let index = world.index(&picked);
            world.balancer.ended(picked, Outcome::Answered, world.now);
            waited.iter_mut().for_each(|waited| *waited += 1);
            waited[index] = 0;
            for (waited, weight) in waited.iter().zip(&weights) {
                prop_assert!(*waited <= 2 * total.div_ceil(*weight) + weights.len() as u32);
            }
        }
    }

    #[test]
    fn a_target_that_is_out_waits_for_its_time(seed: u64, method in proptest::sample::select(METHODS.to_vec()), gaps in prop::collection::vec(1_u64..400, 50..200)) {
        let mut world = World::seeded(method, &[1, 1, 1], seed);
        world.take_out(0);
        let out = world.now;
        for gap in gaps {
            let picked = world.pick();
            if world.index(&picked) == 0 {
                prop_assert!(world.now - out >= Duration::from_secs(1));
            }
            world.balancer.ended(picked, Outcome::Answered, world.now);
            world.pass(gap);
        }
        world.now = out + Duration::from_millis(1500) + COMING_BACK;
        prop_assert_eq!(world.state(0).share, 1.0);
    }
}
