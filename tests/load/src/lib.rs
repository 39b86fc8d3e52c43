//! What the load shares with whoever else moves bytes and starts programs: content whose every byte is checked by
//! its position, and ports.

pub mod content;
pub mod ports;
