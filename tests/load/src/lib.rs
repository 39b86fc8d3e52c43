//! Content whose every byte is checked by its position, for the load and for whoever else moves some.

pub mod content;
