//! One interleaving again, told in words.

use std::fmt::Write;

use crate::explore::caught;
use crate::spec::Spec;
use crate::step::{NAMES, Step};
use crate::weather::{Before, good_weather};
use crate::world::{Fault, World};

/// Takes `steps` from the beginning of a world, and has good weather come at their end, after either of what may come
/// before it. What happened, in words, and the promise that was broken, if one was.
pub fn replay(spec: Spec, steps: &[Step]) -> (String, Result<(), Fault>) {
    let mut story = String::new();
    let result = tell(spec, steps, &mut story);
    (story, result)
}

fn tell(spec: Spec, steps: &[Step], story: &mut String) -> Result<(), Fault> {
    let mut world = caught(|| World::new(spec))?;
    for (number, step) in steps.iter().enumerate() {
        let words = world.words(*step);
        let _ = writeln!(story, "{:>3}  {step:<5} {words}", number + 1);
        world = caught(|| world.apply(*step))?.ok_or_else(|| format!("step {step} is not possible here"))?;
    }
    for before in [Before::Calm, Before::Loss] {
        let _ = writeln!(story, "     then good weather, after {before:?}");
        caught(|| good_weather(&world, before))?;
    }
    Ok(())
}

impl World {
    /// What a step is here, in words.
    fn words(&self, step: Step) -> String {
        match step {
            Step::Pull { end, tunnel } => {
                let (name, after) = (NAMES[end], self.apply(step));
                let sent = after.ok().flatten().and_then(|after| {
                    after.wires.get(tunnel)?.to[1 - end].back().map(|message| message.words())
                });
                format!("the {name} sends on tunnel {tunnel}: {}", sent.unwrap_or("into the void".into()))
            }
            Step::Deliver { end, tunnel } => {
                let front = self.wires.get(tunnel).and_then(|wire| wire.to[end].front());
                let words = front.map_or("nothing".into(), |message| message.words());
                format!("the {} gets from tunnel {tunnel}: {words}", NAMES[end])
            }
            Step::Down { end, tunnel } => format!("the {} hears that tunnel {tunnel} is dead", NAMES[end]),
            Step::Retire { end, tunnel } => format!("the {} retires tunnel {tunnel}", NAMES[end]),
            Step::Program { end, connection } => {
                let op = self.next_op(end, connection);
                format!("the {}'s program of connection {connection}: {op:?}", NAMES[end])
            }
            Step::Read { end, connection } => {
                format!("the {}'s program reads connection {connection}", NAMES[end])
            }
            Step::Dial => format!("the client dials tunnel {}", self.wires.len()),
            Step::Wait => {
                let before = self.now;
                let after = self.apply(step).ok().flatten().map_or(before, |after| after.now);
                format!("{:?} pass", after - before)
            }
        }
    }
}
