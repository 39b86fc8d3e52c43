//! How numbers of bytes are shown to people: [`Amount`], [`Speed`].

use std::fmt;

/// A number of bytes, as people write it.
#[derive(Clone, Copy, Debug)]
pub struct Amount(pub u64);

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..10_000 => write!(f, "{bytes} bytes"),
            bytes @ 10_000..1_000_000 => write!(f, "{:.1} kB", bytes as f64 / 1e3),
            bytes => write!(f, "{:.1} MB", bytes as f64 / 1e6),
        }
    }
}

/// Bytes per second, as people write it.
#[derive(Clone, Copy, Debug)]
pub struct Speed(pub f64);

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} Mbit/s", self.0 * 8.0 / 1e6)
    }
}
