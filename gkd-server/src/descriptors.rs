//! The files and sockets that the process may have open ([`Descriptors`]): raised at start, and shared out, so that
//! what users dial leaves room for the tunnels of everybody.

/// Fewer than this are soon used up: one for each tunnel and each destination.
const FEW: u64 = 4096;

/// What is counted on where the system does not tell: the usual soft limit.
const UNKNOWN: u64 = 1024;

/// Tunnels that have not proved a key yet, at least: those that one client brings at a time.
const LEAST_HALF_OPEN: usize = 64;

/// Tunnels, at least: those of one client with four paths, four on each.
const LEAST_TUNNELS: usize = 16;

/// Visitors of the site, at least: one browser opens six connections.
const LEAST_VISITORS: usize = 8;

/// Visitors of the site, at the most: each costs memory, too.
const MOST_VISITORS: usize = 256;

/// How many the process may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptors(u64);

impl Descriptors {
    /// Raises the limit as far as this process may.
    pub(crate) fn raise() -> Self {
        match rlimit::increase_nofile_limit(u64::MAX) {
            Ok(limit) if limit < FEW => {
                tracing::warn!(
                    "only {limit} files and sockets may be open at a time: raise the hard limit of open files"
                );
                Self(limit)
            }
            Ok(limit) => {
                tracing::debug!(limit, "the limit of open files is raised");
                Self(limit)
            }
            Err(error) => {
                tracing::warn!(%error, "the limit of open files stays as it is");
                Self(rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(UNKNOWN, |(soft, _)| soft))
            }
        }
    }

    /// How many tunnels may be up: an eighth, of which no user takes all.
    pub(crate) fn tunnels(self) -> usize {
        usize::try_from(self.0 / 8).unwrap_or(usize::MAX).max(LEAST_TUNNELS)
    }

    /// How many destinations may be open: three quarters, or half beside a front of HTTP services, the rest being for tunnels,
    /// listeners and files.
    pub(crate) fn destinations(self, front: bool) -> usize {
        usize::try_from(self.0 / 4 * if front { 2 } else { 3 }).unwrap_or(usize::MAX)
    }

    /// How many visitors the front of HTTP services may have of those that the configuration allows. Each has a socket, and
    /// one of a target's or a file beside it: a quarter together at the most, so that strangers keep no tunnel out.
    pub(crate) fn front(self, wanted: usize) -> usize {
        let most = usize::try_from(self.0 / 8).unwrap_or(usize::MAX);
        wanted.min(most.max(LEAST_VISITORS))
    }

    /// How many tunnels may be half-open of those that the configuration allows: a sixteenth at the most.
    pub(crate) fn half_open(self, wanted: usize) -> usize {
        let most = usize::try_from(self.0 / 16).unwrap_or(usize::MAX);
        wanted.min(most.max(LEAST_HALF_OPEN))
    }

    /// How many visitors the site may have. Each has a socket, and a file or a socket of the web server's beside it: a
    /// sixteenth together at the most.
    pub(crate) fn visitors(self) -> usize {
        let most = usize::try_from(self.0 / 32).unwrap_or(usize::MAX);
        most.clamp(LEAST_VISITORS, MOST_VISITORS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_leave_room_for_tunnels() {
        let shares = [
            (40, 30, 64, 16, 8),
            (256, 192, 64, 32, 8),
            (1024, 768, 64, 128, 32),
            (4096, 3072, 256, 512, 128),
            (1 << 20, 786_432, 1024, 131_072, 256),
        ];
        for (limit, destinations, half_open, tunnels, visitors) in shares {
            let descriptors = Descriptors(limit);
            assert_eq!(descriptors.visitors(), visitors);
            assert_eq!(
                (descriptors.destinations(false), descriptors.half_open(1024)),
                (destinations, half_open)
            );
            assert_eq!(descriptors.tunnels(), tunnels);
            // All at their most together, where there are enough for the least of each.
            let all = destinations + half_open + tunnels + 2 * visitors;
            assert!(limit < 1024 || all as u64 <= limit, "{all} of {limit}");
            let beside = descriptors.destinations(true) + 2 * descriptors.front(usize::MAX);
            assert!(limit < 1024 || beside <= destinations, "{beside} of {limit}");
            assert_eq!(descriptors.front(5), 5);
        }
    }
}
