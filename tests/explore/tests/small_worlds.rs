//! The small worlds, as deep as an ordinary test run allows; `gkd-explore` goes deeper.

use gkd_explore::spec::Carrier;
use gkd_explore::{Bounds, Spec, Step, WORLDS, explore, replay};

fn bounds(depth: usize) -> Bounds {
    Bounds { depth, states: usize::MAX, time: None, weather: 8 }
}

/// Every interleaving of a world to its test's depth.
fn explored(name: &str) {
    let spec = WORLDS.iter().find(|spec| spec.name == name).expect("a world of this name");
    let outcome = explore(*spec, bounds(spec.test_depth));
    if let Some(failure) = outcome.failure {
        let steps = words(&failure.steps);
        let story = replay(*spec, &failure.steps).0;
        panic!("{}\n{story}again: gkd-explore --world {name} --replay \"{steps}\"", failure.fault);
    }
    assert_eq!((outcome.depth, outcome.exhausted), (spec.test_depth, false), "the depth that is promised");
    // As many as there are with the shallowest world; fewer would mean that states are taken for each other.
    assert!(outcome.states > 1000 && outcome.weathers > 100, "{outcome:?}");
}

fn words(steps: &[Step]) -> String {
    steps.iter().map(Step::to_string).collect::<Vec<_>>().join(" ")
}

macro_rules! worlds {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            explored($name);
        })*

        #[test]
        fn every_world_has_its_test() {
            let named: Vec<_> = WORLDS.iter().map(|spec| spec.name).collect();
            assert_eq!(named, [$($name),*]);
        }
    };
}

worlds! {
    one_way: "one-way",
    singles: "singles",
    both_ways: "both-ways",
    reset: "reset",
    release: "release",
    overtaken: "overtaken",
    refused: "refused",
    redial: "redial",
    all_dead: "all-dead",
    silence: "silence",
    acknowledgement: "acknowledgement",
    retire: "retire",
    credit: "credit",
    everything: "everything",
}

#[test]
fn a_carrier_that_loses_is_found_out_by_few_steps_that_can_be_replayed() {
    let spec = Spec { carrier: Carrier::Losing, ..WORLDS[0] };
    let every_state = Bounds { weather: 1, ..bounds(9) };
    let failure = explore(spec, every_state).failure.expect("a packet is lost on a tunnel that lives");
    assert_eq!(failure.steps.len(), 2, "one batch behind another: {}", words(&failure.steps));
    let (story, result) = replay(spec, &failure.steps);
    assert_eq!(result, Err(failure.fault), "{story}");
    assert_eq!(replay(WORLDS[0], &failure.steps).1, Ok(()), "the carrier was to blame");
}
