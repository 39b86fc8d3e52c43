//! Every interleaving of small worlds, over two real sessions of `gkd-proto`.
//!
//! A [`Spec`] is a small world: two sessions, one or two tunnels, one or two connections whose programs write a few
//! packets, and a few faults. All that can happen next is a [`Step`]: a tunnel pulls one packet, one arrives, one
//! end hears of a tunnel's death, the client dials, a Hello or Welcome arrives or does not, a program goes on, a
//! tunnel is retired, time passes to the next timer that has an effect. [`explore()`] takes every step from every
//! state, breadth first, each state once, until there is no other or a bound is met. So every order in which these
//! things can come is looked at, not a sample of them.
//!
//! Silence is not a step: a tunnel of which nothing is delivered while time passes is silent. Any tunnel may pull at
//! any time, named or not, so that packets spread over the tunnels as they do when one is full.
//!
//! # What is checked
//! In every state: what is read is what was written there; each event comes once and is true (`Acknowledged` only
//! when the other program has read everything, `Reset` only if one was wanted); no end takes the other for one that
//! breaks the protocol; nothing panics; the session's sums are those of its parts; whoever has something to send
//! has named a tunnel. From every state without a next step, and from a share of all others, [good
//! weather](weather) comes twice, once with everything on the way arriving and once with all of it lost: then
//! everything that was accepted has arrived or was reset with both ends knowing, and no connection, byte, charge or
//! dead tunnel is left in either session's accounts.
//!
//! # What is not looked at
//! Packets cut in the middle; carriers that are full while there is nothing to send; programs that write or read
//! half a piece; datagrams, Drain and Close; what differs only in what a tunnel's rate was measured to be. Two states
//! with the same [64-bit hash](hash) are taken for one, so what lies behind one of them may be missed; what is
//! reported is so.
//!
//! One allowance is made, where the protocol makes it: a program that drops a connection unread of which the other
//! direction is complete and acknowledged does so without a Reset.
//!
//! # When it finds something
//! It prints the shortest way there, in words and as a line to replay:
//!
//! ```text
//! cargo run --release -p gkd-explore -- --world one-way --replay "pc0 pc1 xc0 ds1"
//! ```

#![forbid(unsafe_code)]

mod end;
pub mod explore;
pub mod hash;
mod program;
pub mod replay;
pub mod spec;
pub mod step;
pub mod weather;
mod wire;
mod world;

pub use explore::{Bounds, Failure, Outcome, explore};
pub use replay::replay;
pub use spec::{Spec, WORLDS};
pub use step::Step;
