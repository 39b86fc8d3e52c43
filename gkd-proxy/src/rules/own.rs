//! The machine's own addresses ([`OwnAddresses`]), read anew from time to time. Shared by all rules of a process that
//! were made of one.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the machine's own addresses are taken to stay what they are. Reading them takes the kernel some
/// tens of microseconds, too long for every dial.
const OWN_ADDRESSES_FOR: Duration = Duration::from_secs(5);

/// Those of its interfaces, and further ones.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnAddresses {
    further: Arc<HashSet<IpAddr>>,
    interfaces: Arc<Interfaces>,
}

/// When they were read, and what they were.
#[derive(Debug, Default)]
struct Interfaces(Mutex<Option<(Instant, Arc<HashSet<IpAddr>>)>>);

impl OwnAddresses {
    /// Addresses that count as well.
    pub(super) fn add(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        Arc::make_mut(&mut self.further).extend(addresses.into_iter().map(|ip| ip.to_canonical()));
    }

    /// Whether this is one of them.
    ///
    /// # Errors
    /// They cannot be read, and never could.
    pub(super) fn have(&self, ip: IpAddr) -> io::Result<bool> {
        Ok(self.further.contains(&ip) || self.interfaces.read()?.contains(&ip))
    }
}

impl Interfaces {
    /// When they cannot be read, the ones that were read last; an error before.
    fn read(&self) -> io::Result<Arc<HashSet<IpAddr>>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read, addresses)) = &*known
            && read.elapsed() < OWN_ADDRESSES_FOR
        {
            return Ok(Arc::clone(addresses));
        }
        match (if_addrs::get_if_addrs(), &*known) {
            (Ok(interfaces), _) => {
                let addresses: HashSet<_> = interfaces.iter().map(|interface| interface.ip()).collect();
                let addresses = Arc::new(addresses);
                *known = Some((Instant::now(), Arc::clone(&addresses)));
                Ok(addresses)
            }
            (Err(error), Some((_, addresses))) => {
                tracing::warn!("the machine's own addresses cannot be read anew: {error}");
                Ok(Arc::clone(addresses))
            }
            (Err(error), None) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_interfaces_are_own_ones() {
        // Which addresses this machine has is not known.
        let own = OwnAddresses::default();
        for ip in own.interfaces.read().unwrap().iter() {
            assert!(own.have(*ip).unwrap(), "{ip}");
        }
        assert!(!own.have("1.1.1.1".parse().unwrap()).unwrap());
    }
}
