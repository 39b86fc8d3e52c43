//! Clients and servers against each other over loopback: what a program that uses the crate sees.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accept;
mod chaos;
mod connection;
mod echo;
mod faults;
mod identity;
mod shutdown;
mod stats;
mod streams;
mod support;
mod via;
mod websocket;

#[cfg(feature = "futures-io")]
mod futures_traits;
