//! What scenarios say often.

use std::time::Duration;

use crate::wire::{FAST, Path};

/// 1,024 bytes.
pub const KIB: u64 = 1024;
/// 1,024 of those.
pub const MIB: u64 = 1024 * KIB;
/// Four tunnels that are fast.
pub const FOUR: [Path; 4] = [FAST; 4];

/// Seconds.
pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Milliseconds.
pub const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A path of so many bytes per second and milliseconds one way.
pub const fn path(rate: u64, delay: u64) -> Path {
    Path::new(rate, millis(delay))
}
