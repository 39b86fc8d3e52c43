//! Whether the machine slept: its boot-time clock runs on meanwhile, its monotonic one stands still.

use std::time::{Duration, Instant};

/// What the boot-time clock runs ahead for this much was sleep, and no late task.
const SLEPT: Duration = Duration::from_secs(1);

/// Two clocks, compared whenever somebody asks.
pub(super) struct SleepWatch {
    seen: (Instant, Duration),
}

impl SleepWatch {
    /// Watches from now on.
    pub(super) fn new() -> Self {
        Self { seen: (Instant::now(), since_boot()) }
    }

    /// Whether the machine slept since the last call.
    pub(super) fn slept(&mut self) -> bool {
        self.at(Instant::now(), since_boot())
    }

    fn at(&mut self, now: Instant, boot: Duration) -> bool {
        let (monotonic, before) = std::mem::replace(&mut self.seen, (now, boot));
        boot.saturating_sub(before) > now.saturating_duration_since(monotonic) + SLEPT
    }
}

/// Time since the machine was started, sleep included.
#[cfg(target_os = "linux")]
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Elsewhere the wall clock has to do. One that was set looks like sleep; that costs a ping a tunnel.
#[cfg(not(target_os = "linux"))]
fn since_boot() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleep_is_what_the_boot_clock_alone_counts() {
        let (start, boot, second) = (Instant::now(), since_boot(), Duration::from_secs(1));
        let mut watch = SleepWatch { seen: (start, boot) };
        assert!(!watch.at(start + 2 * second, boot + 2 * second));
        assert!(!watch.at(start + 60 * second, boot + 60 * second), "a task that was late");
        assert!(watch.at(start + 62 * second, boot + 3662 * second), "an hour of sleep");
        assert!(!watch.at(start + 64 * second, boot + 3664 * second), "told once");
        assert!(!watch.at(start + 66 * second, boot), "a clock that was set back");
    }

    #[test]
    fn an_awake_machine_does_not_sleep() {
        let mut watch = SleepWatch::new();
        std::thread::sleep(Duration::from_millis(20));
        assert!(!watch.slept());
    }
}
