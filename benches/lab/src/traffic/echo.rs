//! Small messages that come back: sent on a schedule, whether or not those before have come back, so that a stall is
//! seen by all that it holds up. Its threads go before the programs that are measured: a clock that waits for its turn
//! measures that.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::destination::cut;
use super::{Dial, Request};
use crate::net::{self, Net};
use crate::sys;

/// A keystroke's worth.
const MESSAGE: usize = 64;

/// The port of the UDP echo.
const UDP_PORT: u16 = 9007;

/// How often a thread that waits for a datagram looks whether it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// Times there and back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latencies(pub(crate) Vec<Duration>);

impl Latencies {
    /// The time that so many of a hundred did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
        sorted.get(index).copied().unwrap_or_default()
    }
}

/// Messages that come back, until it is told to stop.
pub(crate) trait Echo {
    /// Those that came back since it began or was asked last.
    fn take(&self) -> Latencies;
}

#[derive(Debug)]
struct Clock {
    start: Instant,
    end: AtomicBool,
    times: Mutex<Vec<Duration>>,
}

impl Clock {
    fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), end: AtomicBool::new(false), times: Mutex::default() })
    }

    /// A message with the time of its sending.
    fn message(&self) -> [u8; MESSAGE] {
        let mut message = [0; MESSAGE];
        message[..8].copy_from_slice(&(self.start.elapsed().as_nanos() as u64).to_be_bytes());
        message
    }

    fn came_back(&self, message: &[u8]) {
        let sent = message.iter().take(8).fold(0_u64, |time, byte| time << 8 | u64::from(*byte));
        let time = self.start.elapsed().saturating_sub(Duration::from_nanos(sent));
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
    }

    /// Sends in time, until the end or an error.
    fn send(&self, every: Duration, mut send: impl FnMut(&[u8]) -> io::Result<()>) {
        sys::run_in_time();
        let mut due = Instant::now();
        while !self.end.load(Ordering::Relaxed) && send(&self.message()).is_ok() {
            due += every;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }

    fn take(&self) -> Latencies {
        Latencies(std::mem::take(&mut *self.times.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Over a connection.
#[derive(Debug)]
pub(crate) struct TcpEcho {
    clock: Arc<Clock>,
    stream: TcpStream,
    threads: Vec<JoinHandle<()>>,
}

impl TcpEcho {
    pub(crate) fn start(net: &Net, dial: &Dial, every: Duration) -> Result<Self> {
        let (stream, clock) = (dial.open(net)?, Clock::new());
        Request::Echo.write(&stream)?;
        let (mut sending, mut receiving) = (stream.try_clone()?, stream.try_clone()?);
        let (sender, receiver) = (clock.clone(), clock.clone());
        let threads = vec![
            thread::spawn(move || sender.send(every, |message| sending.write_all(message))),
            thread::spawn(move || {
                sys::run_in_time();
                let mut message = [0; MESSAGE];
                while receiving.read_exact(&mut message).is_ok() {
                    receiver.came_back(&message);
                }
            }),
        ];
        Ok(Self { clock, stream, threads })
    }
}

impl Echo for TcpEcho {
    fn take(&self) -> Latencies {
        self.clock.take()
    }
}

impl Drop for TcpEcho {
    fn drop(&mut self) {
        self.clock.end.store(true, Ordering::Relaxed);
        cut(&self.stream);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

/// Over bare datagrams, which tell what the line itself takes.
#[derive(Debug)]
pub(crate) struct UdpEcho {
    clock: Arc<Clock>,
    threads: Vec<JoinHandle<()>>,
}

impl UdpEcho {
    pub(crate) fn start(net: &Net, every: Duration) -> Result<Self> {
        let bind = |port: u16| {
            move || {
                let socket =
                    UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).context("cannot bind a UDP socket")?;
                socket.set_read_timeout(Some(LOOK))?;
                Ok(socket)
            }
        };
        let (near, far) = (net.client.enter(bind(0))?, net.server.enter(bind(UDP_PORT))?);
        let (sending, clock) = (near.try_clone()?, Clock::new());
        let (sender, receiver, returner) = (clock.clone(), clock.clone(), clock.clone());
        let to: SocketAddr = net::server(UDP_PORT);
        let threads = vec![
            thread::spawn(move || sender.send(every, |message| sending.send_to(message, to).map(drop))),
            thread::spawn(move || {
                sys::run_in_time();
                let mut message = [0; MESSAGE];
                while !receiver.end.load(Ordering::Relaxed) {
                    if near.recv_from(&mut message).is_ok() {
                        receiver.came_back(&message);
                    }
                }
            }),
            thread::spawn(move || {
                sys::run_in_time();
                let mut message = [0; MESSAGE];
                while !returner.end.load(Ordering::Relaxed) {
                    if let Ok((count, from)) = far.recv_from(&mut message) {
                        far.send_to(&message[..count], from).ok();
                    }
                }
            }),
        ];
        Ok(Self { clock, threads })
    }
}

impl Echo for UdpEcho {
    fn take(&self) -> Latencies {
        self.clock.take()
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.clock.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let latencies = Latencies((1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!(latencies.percentile(50), Duration::from_millis(100));
        assert_eq!(latencies.percentile(99), Duration::from_millis(198));
        assert_eq!(latencies.percentile(100), Duration::from_millis(200));
        assert_eq!(Latencies::default().percentile(99), Duration::ZERO);
    }
}
