//! One real session against another end that says anything: packets chosen field by field or raw bytes, on
//! tunnels that come up and die, between calls of the program and steps of time. After each: memory is within its
//! bounds, what is to be done now comes to an end, each event comes once, what the session says is sound and within
//! what it was granted, what the program reads is what was sent under one number after the other, and an error of
//! the session's scope has ended it. At last it can be closed, and nothing is left of it.

mod asked;
mod bytes;
mod said;
mod world;

use self::world::World;
use crate::input::Input;

/// The most steps of one run: enough for every bound of the small configuration.
const STEPS: usize = 512;

/// The first three bytes choose the end that is under test and the sizes of the packets that it gets, the rest are
/// steps.
pub fn session(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(&mut input);
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
        world.settle();
    }
    world.end();
}
