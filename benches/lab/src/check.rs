//! The lab checks itself first: a line that carries less than its rate, or takes longer than its delay, measures the
//! lab instead of what runs in it.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::line::{Loss, Queue};
use crate::measure::{Sample, Window, goodput};
use crate::net::{Net, PathSpec};
use crate::subject::Subject;
use crate::traffic::{Direction, Echo, UdpEcho};

/// What parallel connections have to carry of what the packets leave.
const LEAST: f64 = 0.95;

/// What a packet of 1,500 bytes leaves to the content: 20 bytes of IP, 20 of TCP and 12 of time stamps are not.
pub(crate) const CONTENT: f64 = 1448.0 / 1500.0;

/// Connections of the check: as many as the largest common N.
const CONNECTIONS: usize = 8;

/// Fills a line within some round trips, and its queue by no more than a few.
const CONGESTION: &str = "bbr";

/// The queue of the check: it never fills. What is lost in a queue is made good later, and whoever reads in order gets
/// it with all that was behind: he would see more than the rate.
const QUEUE: Queue = Queue::Time(Duration::from_secs(2));

/// Thirty round trips of 100 ms to get up to speed, and enough to average over.
const WINDOW: Window = Window { skip: Duration::from_secs(3), time: Duration::from_secs(2) };

/// Echoes of the check, each 10 ms, on the line without other load.
const ECHOES: u32 = 50;
const EVERY: Duration = Duration::from_millis(10);

/// By how much the median of them may be late: two timers and two wake-ups on a busy machine.
const LATE: Duration = Duration::from_millis(3);

/// What the check found.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// Mbit/s of content that parallel connections carried.
    pub(crate) carried: Sample,
    /// What the packets leave of the rate, in Mbit/s.
    pub(crate) rate: f64,
    pub(crate) echo: Duration,
}

/// Measures a path as it is but for its loss and its queue.
pub(crate) fn measure(spec: &PathSpec, direction: Direction) -> Result<Checked> {
    let clean = spec.clone().with_loss(Loss::None).with_queue(QUEUE);
    let net = Net::build(std::slice::from_ref(&clean), 0)?;
    let echo = {
        let echo = UdpEcho::start(&net, EVERY)?;
        std::thread::sleep(EVERY * ECHOES + clean.round_trip() + LATE);
        echo.take().percentile(50)
    };
    let subject = Subject::Raw { connections: CONNECTIONS };
    let running = subject.start(&net, CONGESTION, std::path::Path::new(""))?;
    let carried = goodput(&net, &running, direction, WINDOW)?;
    let way = if direction == Direction::Download { &clean.down } else { &clean.up };
    let of_flows = way.cap.map_or(f64::INFINITY, |(rate, _)| rate.as_mbit() * CONNECTIONS as f64);
    Ok(Checked { carried, rate: way.rate.as_mbit().min(of_flows) * CONTENT, echo })
}

impl Checked {
    /// Whether the line is what it is said to be.
    pub(crate) fn judge(&self, spec: &PathSpec) -> Result<()> {
        let (carried, rate, round_trip) = (self.carried.value, self.rate, spec.round_trip());
        ensure!(
            carried >= LEAST * rate,
            "the lab is broken: {CONNECTIONS} TCP connections carry {carried:.1} Mbit/s over a line that leaves \
             {rate:.1}; give it more processors, or end what else runs here"
        );
        ensure!(
            self.echo >= round_trip && self.echo <= round_trip + LATE,
            "the lab is broken: a UDP echo takes {:.1?} over a line of {round_trip:.1?}; give it more processors, or \
             end what else runs here",
            self.echo
        );
        Ok(())
    }
}
