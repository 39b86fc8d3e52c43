//! A peer that breaks or bends the rules, in raw bytes against real servers: `gkd_core::Server` in this process, or
//! `gkd-server` as a process of its own where memory, descriptors and the log are looked at. What a session alone
//! must withstand is told in `gkd-proto/tests/hostile.rs`; here stands what bites where sockets and tasks are.
//!
//! Bounds are in bytes, entries and counts. Where the design promises a time, it is printed, and asserted with room
//! for a busy machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod accounts;
mod cancelled;
mod cut;
mod descriptors;
#[cfg(unix)]
mod failover;
mod flipped;
mod floods;
mod half_open;
mod identity;
mod logs;
mod measured;
mod neighbours;
mod offered;
mod origins;
mod peer;
mod silence;
mod websocket;

#[allow(dead_code, reason = "shared with the tests of gkd-core; not all of it is of use here")]
#[path = "../../gkd-core/tests/it/support.rs"]
mod support;
