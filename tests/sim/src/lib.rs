//! Two real sessions in virtual time, joined by emulated tunnels, and an oracle that looks on.
//!
//! [`Pair`] is the stage: two [`Session`](gkd_proto::Session)s, the programs that use them, the wires between them, and
//! a clock that moves only when nothing is left to do. The named scenarios of `gkd-proto` play on it by hand.
//! [`Scenario`] writes a play from one seed: tunnels that are unlike, stall, break and come back, programs that write,
//! read, stop and leave. [`run`] performs it and tells the [`Failure`], if any. The oracle stands where things
//! happen: content and events in [`program`] and [`story`], memory, progress and deadlines in [`oracle`].
//!
//! Everything follows from the seed. Nothing here knows a real clock, a socket or a thread, but for the start of time,
//! which nothing depends on.
#![allow(clippy::unwrap_used, reason = "what is unexpected here is a failure of the run, and told as one")]
#![forbid(unsafe_code)]

pub mod acts;
pub mod content;
pub mod dial;
pub mod hunt;
pub mod oracle;
pub mod pair;
pub mod performance;
pub mod program;
pub mod random;
pub mod scenario;
pub mod shorthand;
pub mod step;
pub mod story;
pub mod trace;
pub mod wire;

pub use pair::{CLIENT, Pair, SERVER};
pub use performance::{Failure, Report, run};
pub use scenario::Scenario;
pub use wire::{FAST, Path};
