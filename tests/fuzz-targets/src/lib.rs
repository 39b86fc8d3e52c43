//! What the fuzz targets do with their bytes: one function each, which panics where a promise is broken.
//!
//! `fuzz/` drives them with libFuzzer, and `tests/replay.rs` with every file of `fuzz/corpus/`, as part of the
//! ordinary tests. The bytes belong to a stranger: the other end of a tunnel, a program at a proxy, a pasted
//! link. Each target says in its first comment what must hold whatever they are.

#![forbid(unsafe_code)]

mod carrier;
mod codec;
mod handshake;
mod http;
mod input;
mod link;
mod programs;
mod records;
mod session;
mod socks;
mod websocket;
mod words;

pub use carrier::carrier;
pub use codec::codec;
pub use handshake::handshake;
pub use http::http;
pub use link::link;
pub use records::records;
pub use session::session;
pub use socks::socks;
pub use websocket::websocket;
pub use words::words;

/// A target: its name, which is that of its corpus and of its program in `fuzz/`, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 10] = [
    ("carrier", carrier),
    ("codec", codec),
    ("handshake", handshake),
    ("http", http),
    ("link", link),
    ("records", records),
    ("session", session),
    ("socks", socks),
    ("websocket", websocket),
    ("words", words),
];
