//! The front of HTTP services of the real `gkd-server`, met with frames and lines that are written by hand: what RFC 9113 and
//! RFC 7541 demand of a server, case by case (`cases`), and what a visitor does who wants harm (`floods`, `heads`, `origins`).
//!
//! Here stands what is seen from outside, through a port and with a target behind it. What the front does within is tested
//! next to its code.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod cases;
mod floods;
mod frames;
mod ground;
mod heads;
mod origins;
mod peer;
mod target;
