//! The network of one run: two namespaces, and one emulated line between them for each path.
//!
//! ```text
//! path0  10.99.1.1 - 10.99.1.2     client, server
//! path1  10.99.2.1 - 10.99.2.2     where there is a second
//! lo     10.99.0.1                 of the server: the destination behind gkd-server
//! ```
//! The client's packets take the path of their source address, whichever the server's is: who binds an address chooses
//! a path. Answers come back over the same.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Result;

use crate::cleanup;
use crate::line::{Counts, Loss, Queue, Rate, Way};
use crate::namespace::Namespace;
use crate::pump::{Figures, Pump};
use crate::sys::Tun;

/// What gkd-server is let to reach.
pub(crate) const ALLOWED: &str = "10.99.0.0/16";

/// Where the destination is for those who are at the server.
pub(crate) const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));

/// The most that a socket may buffer: several times what 1 Gbit/s has on its way in 100 ms (12.5 MB). The same for
/// all that is measured; many systems' own 4 MiB hold one TCP connection to 300 Mbit/s at that distance.
pub(crate) const BUFFER: u64 = 64 << 20;

/// Packets that a device may hold for the line. Some 100 ms at 1 Gbit/s: its thread may be late, but the line's own
/// queue is what is to drop.
const DEVICE_QUEUE: &str = "10000";

/// The routing table of the first path; any that nobody uses.
const FIRST_TABLE: usize = 100;

/// A path, both ways.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PathSpec {
    /// To the client.
    pub(crate) down: Way,
    /// To the server.
    pub(crate) up: Way,
}

impl PathSpec {
    /// The same both ways, without loss, of this round trip and a queue of so many milliseconds.
    pub(crate) fn new(rate: Rate, round_trip_ms: u64, queue_ms: u64) -> Self {
        let way = Way {
            rate,
            delay: Duration::from_millis(round_trip_ms) / 2,
            queue: Queue::Time(Duration::from_millis(queue_ms)),
            loss: Loss::None,
            cap: None,
        };
        Self { down: way.clone(), up: way }
    }

    /// Both ways lose.
    pub(crate) fn with_loss(mut self, loss: Loss) -> Self {
        (self.down.loss, self.up.loss) = (loss, loss);
        self
    }

    /// Both ways have these queues, also those of the caps.
    pub(crate) fn with_queue(mut self, queue: Queue) -> Self {
        for way in [&mut self.down, &mut self.up] {
            way.queue = queue;
            way.cap = way.cap.map(|(rate, _)| (rate, queue));
        }
        self
    }

    /// Both ways hold each flow to a rate.
    pub(crate) fn with_cap(mut self, rate: Rate, queue: Queue) -> Self {
        (self.down.cap, self.up.cap) = (Some((rate, queue)), Some((rate, queue)));
        self
    }

    pub(crate) fn round_trip(&self) -> Duration {
        self.down.delay + self.up.delay
    }
}

/// A path that is there.
#[derive(Debug)]
struct Path {
    down: Pump,
    up: Pump,
}

/// Two namespaces and what is between them. Dropping it removes all of it.
#[derive(Debug)]
pub(crate) struct Net {
    // Before the namespaces: the lines end first.
    paths: Vec<Path>,
    pub(crate) client: Namespace,
    pub(crate) server: Namespace,
}

/// What the lines say of themselves, the worst of all directions.
#[derive(Clone, Debug)]
pub(crate) struct LineFigures {
    /// By how much 99 of 100 packets were late at the most.
    pub(crate) late: Duration,
    /// Processors that the lines kept busy.
    pub(crate) cpu: f64,
    /// Packets that did not fit into a device, which the line never saw.
    pub(crate) device_drops: u64,
}

impl Net {
    pub(crate) fn build(specs: &[PathSpec], seed: u64) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let client = Namespace::create(&cleanup::namespace_name(&format!("{count}-c")))?;
        let server = Namespace::create(&cleanup::namespace_name(&format!("{count}-s")))?;
        for space in [&client, &server] {
            // What one connection learnt of the way must not help the next.
            space.set("ipv4/tcp_no_metrics_save", "1")?;
            space.set("ipv4/tcp_rmem", &format!("4096 131072 {BUFFER}"))?;
            space.set("ipv4/tcp_wmem", &format!("4096 16384 {BUFFER}"))?;
            // An answer may leave by another device than its question came in.
            space.set("ipv4/conf/all/rp_filter", "0")?;
            space.set("ipv4/conf/default/rp_filter", "0")?;
        }
        server.ip(&["addr", "add", &format!("{INSIDE}/32"), "dev", "lo"])?;
        let mut net = Self { paths: Vec::new(), client, server };
        for (index, spec) in specs.iter().enumerate() {
            // No two directions of a run draw the same, nor do those of two runs.
            let path = net.add_path(index, spec, seed.wrapping_mul(1000).wrapping_add(index as u64 * 2))?;
            net.paths.push(path);
        }
        Ok(net)
    }

    fn add_path(&self, index: usize, spec: &PathSpec, seed: u64) -> Result<Path> {
        let device = device(index);
        let mut tuns = Vec::new();
        for (space, address) in [(&self.client, client_address(index)), (&self.server, server_address(index))]
        {
            tuns.push(Arc::new(space.enter(|| Tun::create(&device))?));
            space.ip(&["addr", "add", &format!("{address}/24"), "dev", &device])?;
            space.ip(&["link", "set", "dev", &device, "mtu", "1500", "txqueuelen", DEVICE_QUEUE, "up"])?;
        }
        // The client's packets take the path of their source address, the server's that of their destination.
        let (address, table) = (client_address(index).to_string(), (FIRST_TABLE + index).to_string());
        self.client.ip(&["route", "add", "default", "dev", &device, "table", &table])?;
        self.client.ip(&["rule", "add", "from", &address, "lookup", &table])?;
        let (near, far) = (tuns.remove(0), tuns.remove(0));
        Ok(Path {
            up: Pump::start(near.clone(), far.clone(), spec.up.clone(), seed)?,
            down: Pump::start(far, near, spec.down.clone(), seed + 1)?,
        })
    }

    pub(crate) fn path_count(&self) -> usize {
        self.paths.len()
    }

    /// From now on nothing gets through a path, or it does again.
    pub(crate) fn set_dark(&self, path: usize, dark: bool) {
        self.paths[path].down.set_dark(dark);
        self.paths[path].up.set_dark(dark);
    }

    /// What the ways to the client, or those to the server, have carried together.
    pub(crate) fn counts(&self, upload: bool) -> Counts {
        let mut all = Counts::default();
        for path in &self.paths {
            all.add(&if upload { path.up.counts() } else { path.down.counts() });
        }
        all
    }

    /// Begins the lines' figures anew.
    pub(crate) fn reset_figures(&self) {
        for pump in self.pumps() {
            pump.reset();
        }
    }

    pub(crate) fn figures(&self) -> Result<LineFigures> {
        let figures: Vec<Figures> = self.pumps().map(Pump::figures).collect();
        let mut device_drops = 0;
        for index in 0..self.paths.len() {
            for space in [&self.client, &self.server] {
                device_drops += space.device_drops(&device(index))?;
            }
        }
        Ok(LineFigures {
            late: figures.iter().map(|each| each.late).max().unwrap_or_default(),
            cpu: figures.iter().map(|each| each.cpu.as_secs_f64() / each.over.as_secs_f64().max(1e-3)).sum(),
            device_drops,
        })
    }

    fn pumps(&self) -> impl Iterator<Item = &Pump> {
        self.paths.iter().flat_map(|path| [&path.down, &path.up])
    }
}

pub(crate) fn device(path: usize) -> String {
    format!("path{path}")
}

pub(crate) fn client_address(path: usize) -> IpAddr {
    Ipv4Addr::new(10, 99, path as u8 + 1, 1).into()
}

pub(crate) fn server_address(path: usize) -> IpAddr {
    Ipv4Addr::new(10, 99, path as u8 + 1, 2).into()
}

/// The server's side of the first path, which is reached over every path.
pub(crate) fn server(port: u16) -> SocketAddr {
    SocketAddr::new(server_address(0), port)
}
