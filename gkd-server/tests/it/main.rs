//! The real binary, with real files, sockets and signals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod commands;
mod running;
mod support;
