//! Ports for programs that are told theirs.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first, and how many: below those that a system gives to connections by itself (from 32768 on Linux, from
/// 49152 elsewhere), so that no connection takes one before the program that it is meant for.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_768;

/// A port of 127.0.0.1 on which nothing listens now. No other call in this process gives it before all have had their turn,
/// and another process begins somewhere else.
///
/// # Errors
///
/// [`ErrorKind::AddrInUse`] when something listens on each.
pub fn free_port() -> io::Result<u16> {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // By the golden ratio (Knuth, The Art of Computer Programming 3, 6.4): ids that are near are far apart.
    let begin = (std::process::id().wrapping_mul(0x9e37_79b9) >> 16) % u32::from(COUNT);
    for _ in 0..COUNT {
        let taken = u32::from(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + ((begin + taken) % u32::from(COUNT)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::Error::new(ErrorKind::AddrInUse, format!("no port from {FIRST} on is free")))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_and_none_that_is_taken() {
        let mut held = Vec::new();
        let (mut given, mut taken) = (HashSet::new(), HashSet::new());
        for _ in 0..500 {
            let port = free_port().unwrap();
            assert!((FIRST..FIRST + COUNT).contains(&port));
            assert!(given.insert(port), "{port} came twice");
            assert!(!taken.contains(&port), "{port} is taken");
            // The next one is to be passed over.
            if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port + 1)) {
                held.push(listener);
                taken.insert(port + 1);
            }
        }
    }
}
