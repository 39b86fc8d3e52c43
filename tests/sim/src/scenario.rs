//! A play for two sessions, written from one seed: how they are configured, and what happens when.

use std::fmt;
use std::time::Duration;

use gkd_proto::SessionConfig;
use gkd_proto::packet::{DialError, ResetCode};

use crate::program::{Leaving, Style};
use crate::random::Random;
use crate::shorthand::{KIB, MIB};
use crate::step::{Plan, Step, Time};
use crate::wire::{Kernel, Path};

/// The most tunnels that are dialled.
const MOST_TUNNELS: u64 = 16;
/// What the programs of one scenario write together, at the most, in bytes: it bounds what a seed costs.
const MOST_BYTES: u64 = 3 * MIB;
/// Codes of Resets that programs send begin here: no session sends them by itself.
const FIRST_CODE: u64 = 100;

/// Everything that follows from a seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// How each end is configured.
    pub config: [SessionConfig; 2],
    /// What happens, and how long after what is before it.
    pub steps: Vec<(Duration, Step)>,
}

/// What a scenario is about: how likely each step is.
struct Flavour {
    /// Faults of tunnels, in percent of the steps.
    faults: u64,
    /// The largest amount that a program writes.
    size: u64,
    paths: [u64; 2],
    /// Readers stop for long, so that what they leave unread is all that a session may hold.
    hoards: bool,
    /// Partitions outlast what sessions do.
    long: bool,
    left: u64,
}

impl Scenario {
    /// That of a seed.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let hoards = random.chance(10);
        let config = if hoards {
            [hoarded(&mut random), hoarded(&mut random)]
        } else if random.chance(40) {
            [SessionConfig::default(), SessionConfig::default()]
        } else {
            [small(&mut random), small(&mut random)]
        };
        let rates = random.pick(&[[50_000, 400_000], [200_000, 20_000_000], [1_000_000, 4_000_000]]);
        let mut flavour = Flavour {
            faults: if hoards { 0 } else { random.pick(&[0, 15, 30, 30, 60]) },
            size: if hoards { MIB } else { random.pick(&[2 * KIB, 30 * KIB, 150 * KIB, 400 * KIB, MIB]) },
            hoards,
            paths: rates,
            long: random.chance(10),
            left: MOST_BYTES,
        };
        let mut steps = Vec::new();
        let tunnels = match random.below(10) {
            0 | 1 => 1,
            2..=7 => random.between(2, 5),
            _ => random.between(6, MOST_TUNNELS),
        };
        for _ in 0..tunnels {
            let step = flavour.dial(&mut random);
            steps.push((random.millis(1, 20), step));
        }
        let crowd = random.chance(4);
        for _ in 0..if crowd { random.between(300, 700) } else { random.between(8, 60) } {
            let step = if crowd && random.chance(80) {
                flavour.open(&mut random, 20 * KIB)
            } else {
                flavour.step(&mut random, &config)
            };
            let pause = if crowd { random.millis(1, 20) } else { pause(&mut random) };
            steps.push((pause, step));
        }
        if random.chance(6) {
            steps.push((pause(&mut random), last(&mut random)));
            for _ in 0..random.below(6) {
                let step = flavour.step(&mut random, &config);
                steps.push((pause(&mut random), step));
            }
        }
        Self { seed, config, steps }
    }
}

/// The time to the next step: mostly within what happens, sometimes long enough for every time-out.
fn pause(random: &mut Random) -> Duration {
    match random.below(20) {
        0..8 => random.millis(1, 20),
        8..16 => random.millis(20, 500),
        16..19 => random.millis(500, 5000),
        _ => random.millis(5000, 40_000),
    }
}

/// A configuration of small windows and short times, each within its bounds.
fn small(random: &mut Random) -> SessionConfig {
    let connection_window = random.scale(256 * KIB, 2 * MIB);
    let session_window = random.scale(connection_window, 4 * MIB.max(connection_window));
    let send_buffer = random.scale(4 * KIB, 256 * KIB);
    SessionConfig {
        connection_window,
        max_connection_window: connection_window * random.pick(&[1, 2, 8]),
        session_window,
        max_session_window: session_window * random.pick(&[1, 2, 8]),
        max_connections: random.pick(&[2, 10, 100, 1000, 16_384]),
        max_tunnels: 2 * MOST_TUNNELS as usize + random.below(64) as usize,
        send_buffer,
        send_queue: random.scale(send_buffer, MIB.max(send_buffer)),
        send_budget: random.scale(MIB, 8 * MIB),
        send_budget_packets: random.scale(1024, 16_384) as usize,
        resume_for: random.millis(5000, 60_000),
        silent_for: random.millis(6000, 20_000),
        ping_every: random.millis(3000, 15_000),
        blocked_for: random.millis(3000, 30_000),
        half_closed_for: if random.chance(10) {
            random.millis(5000, 30_000)
        } else {
            Duration::from_secs(3600)
        },
    }
}

/// The smallest windows, which do not grow.
fn hoarded(random: &mut Random) -> SessionConfig {
    SessionConfig {
        connection_window: 256 * KIB,
        max_connection_window: 256 * KIB,
        session_window: 256 * KIB,
        max_session_window: random.pick(&[1, 2]) * 256 * KIB,
        max_connections: 1000,
        blocked_for: random.millis(3000, 10_000),
        half_closed_for: Duration::from_secs(3600),
        ..small(random)
    }
}

/// What ends a session, or lets it end.
fn last(random: &mut Random) -> Step {
    let end = random.below(2) as usize;
    match random.below(4) {
        0 | 1 => Step::Drain { end, reason: random.below(9) },
        2 => Step::Close { end },
        _ => Step::Restart { heard: maybe(random, 60).map(|()| random.millis(1, 500)) },
    }
}

fn maybe(random: &mut Random, percent: u64) -> Option<()> {
    random.chance(percent).then_some(())
}

fn heard(random: &mut Random) -> [Option<Duration>; 2] {
    [0, 1].map(|_| maybe(random, 75).map(|()| random.millis(1, 800)))
}

impl Flavour {
    fn step(&mut self, random: &mut Random, config: &[SessionConfig; 2]) -> Step {
        if random.chance(self.faults) {
            return self.fault(random, config);
        }
        let (end, connection) = (random.below(2) as usize, random.draw() >> 48);
        if self.hoards && random.chance(40) {
            return Step::Stop { end, connection, lasts: random.millis(60_000, 120_000) };
        }
        match random.below(20) {
            0..10 => self.open(random, self.size),
            10..12 => Step::Stop { end, connection, lasts: random.millis(5, 4000) },
            12 => Step::Stop { end, connection, lasts: random.millis(4000, 60_000) },
            13..15 => Step::Reset { end, connection, code: ResetCode(FIRST_CODE + random.below(900)) },
            15..17 => Step::Release { end, connection },
            17 | 18 => {
                let (count, size) = (random.scale(1, 200), random.scale(1, 3000) as usize);
                Step::Datagrams { end, connection, count, size }
            }
            _ => Step::Probe { end },
        }
    }

    fn fault(&mut self, random: &mut Random, config: &[SessionConfig; 2]) -> Step {
        let tunnel = random.draw() >> 48;
        match random.below(20) {
            0..7 => {
                let keep = random.pick(&[0, 0, 50, 100]);
                Step::Cut { tunnel, keep, heard: heard(random) }
            }
            7..13 => {
                let ways = random.pick(&[[true, true], [true, true], [true, false], [false, true]]);
                let lasts = maybe(random, 70).map(|()| random.millis(20, 8000));
                Step::Stall { tunnel, ways, lasts }
            }
            13..16 => self.dial(random),
            16..18 => Step::Retire { end: random.below(2) as usize, tunnel },
            _ => {
                let shorter = config[0].resume_for.min(config[1].resume_for);
                let lasts = if self.long {
                    config[0].resume_for.max(config[1].resume_for) + random.millis(100, 10_000)
                } else {
                    random.millis(20, 1 + shorter.as_millis() as u64 / 2)
                };
                let heard = if random.chance(30) { [None, None] } else { heard(random) };
                Step::Part { lasts, heard }
            }
        }
    }

    fn dial(&self, random: &mut Random) -> Step {
        let [least, most] = self.paths;
        let path = Path {
            rate: random.scale(least, most),
            delay: random.millis(1, 150),
            socket: random.scale(4 * KIB, 256 * KIB) as usize,
            queue: if random.chance(30) { random.millis(1, 300) } else { Duration::ZERO },
            kernel: random.pick(&[Kernel::Absent, Kernel::Right, Kernel::Near]),
        };
        Step::Dial { path, again: maybe(random, 80).map(|()| random.millis(1, 2000)) }
    }

    fn open(&mut self, random: &mut Random, size: u64) -> Step {
        let least = if self.hoards && random.chance(30) { size / 4 } else { 1 };
        let mut bytes = [0, 1].map(|_| if random.chance(20) { 0 } else { random.scale(least, size) });
        if random.chance(50) {
            bytes[random.below(2) as usize] = 0;
        }
        let reply = if random.chance(20) { random.scale(1, size) } else { 0 };
        let total = bytes[0] + bytes[1] + reply;
        let plan = Plan {
            destination: random.pick(&[0, 10, 512]),
            bytes: if total <= self.left { bytes } else { [1, 1] },
            finish: [0, 1].map(|_| random.chance(85)),
            reply: if total <= self.left { reply } else { 0 },
            style: [0, 1].map(|end| style(random, bytes[end] + bytes[1 - end] + reply)),
            leaving: [0, 1].map(|_| {
                random.pick(&[Leaving::AtOnce, Leaving::AtOnce, Leaving::WhenAcknowledged, Leaving::Stays])
            }),
            answers_after: if random.chance(50) { Duration::ZERO } else { random.millis(1, 3000) },
            answer: if random.chance(90) { Ok(()) } else { Err(DialError::Refused) },
        };
        self.left = self.left.saturating_sub(total);
        Step::Open { end: random.below(2) as usize, plan: Box::new(plan) }
    }
}

/// How a program writes and reads that much: in small bits only what is small.
fn style(random: &mut Random, total: u64) -> Style {
    let least = (total / 500).max(1);
    let mut most = || random.scale(least, 100_000.max(least)) as usize;
    let (write, read) = (most(), most());
    Style { write, by_bytes: random.chance(50), read, vary: random.chance(70) }
}

impl Scenario {
    /// The scenario in words, but for the steps that come after `until`.
    pub(crate) fn tell(&self, f: &mut fmt::Formatter<'_>, until: Duration) -> fmt::Result {
        writeln!(f, "scenario of seed {}", self.seed)?;
        let [client, server] = &self.config;
        if client == server {
            writeln!(f, "  both ends: {client:?}")?;
        } else {
            writeln!(f, "  client: {client:?}\n  server: {server:?}")?;
        }
        let mut at = Duration::ZERO;
        for (index, (pause, step)) in self.steps.iter().enumerate() {
            at += *pause;
            if at > until {
                return write!(f, "  and {} steps that were not reached", self.steps.len() - index);
            }
            writeln!(f, "  {:>12}  {step}", Time(at).to_string())?;
        }
        write!(f, "  then good weather, and the end")
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tell(f, Duration::MAX)
    }
}
