//! How many requests a second an address may make ([`Rates`]): as many as its rate at once, and then as the rate says (the
//! generic cell rate algorithm). Time is an argument. The table is bounded: when it is full of addresses that all make
//! requests, further ones are not held back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most addresses that are remembered, some MiB.
const MAX_ADDRESSES: usize = 65_536;

/// How often a full table is looked through at the most.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// Over how much time a rate is counted.
const SECOND: Duration = Duration::from_secs(1);

/// The rates of addresses.
#[derive(Debug, Default)]
pub(super) struct Rates {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// When all requests so far will have had their time.
    until: HashMap<IpAddr, Instant>,
    swept: Option<Instant>,
}

impl Rates {
    /// Counts a request; if it is one too many, tells in what time there is room for one.
    pub(super) fn take(&self, address: IpAddr, per_second: u32, now: Instant) -> Result<(), Duration> {
        let interval = SECOND / per_second.max(1);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = table.until.get_mut(&address) {
            let next = (*until).max(now) + interval;
            if next > now + SECOND {
                return Err(next - (now + SECOND));
            }
            *until = next;
            return Ok(());
        }
        if table.until.len() >= MAX_ADDRESSES && table.swept.is_none_or(|swept| now >= swept + SWEEP_EVERY) {
            table.swept = Some(now);
            table.until.retain(|_, until| *until > now);
        }
        if table.until.len() < MAX_ADDRESSES {
            table.until.insert(address, now + interval);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(number: u32) -> IpAddr {
        Ipv4Addr::from(number).into()
    }

    #[test]
    fn a_burst_of_a_second_and_then_the_rate() {
        let (rates, now) = (Rates::default(), Instant::now());
        let taken = |address_, now| (0..100).filter(|_| rates.take(address_, 10, now).is_ok()).count();
        assert_eq!(taken(address(1), now), 10);
        assert_eq!(rates.take(address(1), 10, now), Err(Duration::from_millis(100)));
        assert_eq!(taken(address(2), now), 10);
        assert_eq!(taken(address(1), now + Duration::from_millis(350)), 3);
        assert_eq!(taken(address(1), now + Duration::from_secs(60)), 10);
        assert_eq!((0..5).filter(|_| rates.take(address(3), 1, now).is_ok()).count(), 1);
        assert!(rates.take(address(4), 0, now).is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_empties() {
        let (rates, now) = (Rates::default(), Instant::now());
        let most = MAX_ADDRESSES as u32;
        assert!((0..most + 1000).all(|number| rates.take(address(number), 1, now).is_ok()));
        assert_eq!(rates.table.lock().unwrap().until.len(), MAX_ADDRESSES);
        // Those that are known are held back all the same.
        assert!(rates.take(address(0), 1, now).is_err());
        let later = now + Duration::from_secs(2);
        assert!(rates.take(address(most + 1), 1, later).is_ok());
        assert_eq!(rates.table.lock().unwrap().until.len(), 1);
        assert!(rates.take(address(most + 1), 1, later).is_err());
    }
}
