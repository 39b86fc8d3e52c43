//! The search: breadth first from the beginning, every state once.
//!
//! A state is kept as five bytes: the one it came from and the step. What it was is made anew from the nearest state
//! that is at hand; since states of one level that follow on each other have most of their way in common, that is
//! a step or two.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::hash::AsIs;
use crate::spec::Spec;
use crate::step::Step;
use crate::weather::{Before, good_weather};
use crate::world::{Fault, World};

/// How far to look.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Steps from the beginning.
    pub depth: usize,
    /// States.
    pub states: usize,
    /// Time; none is as much as it takes.
    pub time: Option<Duration>,
    /// Good weather comes over one state in so many (chosen by its hash), and over every state without a step.
    pub weather: u64,
}

/// What was looked at.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Different states, the first one among them.
    pub states: usize,
    /// Steps that were taken from them.
    pub transitions: u64,
    /// Every interleaving of so many steps was looked at.
    pub depth: usize,
    /// There is no other state.
    pub exhausted: bool,
    /// States from which no step leads on.
    pub ends: usize,
    /// How often good weather came.
    pub weathers: u64,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, if anything did, by the fewest steps.
    pub failure: Option<Failure>,
}

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The steps that lead there.
    pub steps: Vec<Step>,
    /// What comes over the state behind them, if it is not the last step itself that fails.
    pub before: Option<Before>,
    /// Which promise.
    pub fault: Fault,
}

/// Looks at every interleaving of a world, within `bounds`.
pub fn explore(spec: Spec, bounds: Bounds) -> Outcome {
    let mut search = Search::new(bounds);
    let failure = search.run(spec).err();
    Outcome { failure, took: search.start.elapsed(), ..search.outcome }
}

/// A panic of the session is a broken promise too.
pub(crate) fn caught<T>(act: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word");
        Err(format!("a panic: {text}"))
    })
}

/// A state, by its place in the order of discovery.
type Node = u32;

struct Search {
    bounds: Bounds,
    start: Instant,
    seen: HashSet<u64, BuildHasherDefault<AsIs>>,
    parents: Vec<Node>,
    steps: Vec<u8>,
    /// The way from the beginning to the state that was last made anew.
    way: Vec<(Node, World)>,
    outcome: Outcome,
}

impl Search {
    fn new(bounds: Bounds) -> Self {
        let outcome = Outcome {
            states: 0,
            transitions: 0,
            depth: 0,
            exhausted: false,
            ends: 0,
            weathers: 0,
            took: Duration::ZERO,
            failure: None,
        };
        let seen = HashSet::default();
        let (parents, steps, way) = (Vec::new(), Vec::new(), Vec::new());
        Self { bounds, start: Instant::now(), seen, parents, steps, way, outcome }
    }

    fn run(&mut self, spec: Spec) -> Result<(), Failure> {
        let first = caught(|| World::new(spec)).map_err(|fault| self.failure(None, None, fault))?;
        self.discover(0, Step::Wait, &first)?;
        self.way.push((0, first));
        let mut level = 0..1;
        while !level.is_empty() && self.outcome.depth < self.bounds.depth {
            for node in level.clone() {
                if self.is_enough(node) {
                    return Ok(());
                }
                self.expand(node as Node)?;
            }
            level = level.end..self.parents.len();
            self.outcome.depth += 1;
        }
        self.outcome.exhausted = level.is_empty();
        Ok(())
    }

    /// Whether a bound is met; looks at the clock now and then.
    fn is_enough(&self, node: usize) -> bool {
        let late = |time| node.is_multiple_of(64) && self.start.elapsed() >= time;
        self.parents.len() >= self.bounds.states || self.bounds.time.is_some_and(late)
    }

    /// Takes every step from a state.
    fn expand(&mut self, node: Node) -> Result<(), Failure> {
        let world = self.make(node);
        let mut leads_on = false;
        for step in world.steps() {
            let after = caught(|| world.apply(step));
            let after = after.map_err(|fault| self.failure(Some((node, Some(step))), None, fault))?;
            let Some(after) = after else { continue };
            leads_on = true;
            self.outcome.transitions += 1;
            self.discover(node, step, &after)?;
        }
        if !leads_on {
            self.outcome.ends += 1;
            if !self.is_chosen(world.fingerprint()) {
                self.weather(node, &world)?;
            }
        }
        Ok(())
    }

    /// Notes a state, if it is new, and has good weather come over it, if it is chosen.
    fn discover(&mut self, parent: Node, step: Step, world: &World) -> Result<(), Failure> {
        let fingerprint = world.fingerprint();
        if !self.seen.insert(fingerprint) {
            return Ok(());
        }
        let node = self.parents.len() as Node;
        self.parents.push(parent);
        self.steps.push(step.code());
        self.outcome.states += 1;
        if self.is_chosen(fingerprint) { self.weather(node, world) } else { Ok(()) }
    }

    fn is_chosen(&self, fingerprint: u64) -> bool {
        fingerprint.is_multiple_of(self.bounds.weather)
    }

    fn weather(&mut self, node: Node, world: &World) -> Result<(), Failure> {
        for before in [Before::Calm, Before::Loss] {
            self.outcome.weathers += 1;
            caught(|| good_weather(world, before))
                .map_err(|fault| self.failure(Some((node, None)), Some(before), fault))?;
        }
        Ok(())
    }

    /// The world of a state, by the way from the nearest that is at hand.
    fn make(&mut self, node: Node) -> World {
        let mut missing = Vec::new();
        let mut at = node;
        // Of what is at hand, what is not an ancestor goes. Ancestors have lower numbers.
        loop {
            while self.way.last().is_some_and(|(known, _)| *known > at) {
                self.way.pop();
            }
            if self.way.last().is_some_and(|(known, _)| *known == at) {
                break;
            }
            missing.push(at);
            at = self.parents[at as usize];
        }
        for node in missing.into_iter().rev() {
            let step = Step::from_code(self.steps[node as usize]);
            if let Some((_, parent)) = self.way.last()
                && let Ok(Some(world)) = parent.apply(step)
            {
                self.way.push((node, world));
            }
        }
        match self.way.last() {
            Some((known, world)) if *known == node => world.clone(),
            _ => panic!("the same steps lead to the same state"),
        }
    }

    fn failure(&self, at: Option<(Node, Option<Step>)>, before: Option<Before>, fault: Fault) -> Failure {
        let (node, last) = at.unwrap_or((0, None));
        let mut steps: Vec<_> = last.into_iter().collect();
        let mut node = node as usize;
        while node > 0 {
            steps.push(Step::from_code(self.steps[node]));
            node = self.parents[node] as usize;
        }
        steps.reverse();
        Failure { steps, before, fault }
    }
}
