//! Transfers that are not for as long as they are let: a page of many objects, one of so many bytes, the first byte
//! of a connection, and one that nobody reads.

use std::io::Read;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use gkd_load::content::Way;

use super::destination::{cut, receive};
use super::{Dial, Meter, Request};
use crate::net::Net;

/// What a browser fetches: objects, over connections that are opened for it and ask for one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page {
    pub(crate) objects: u64,
    pub(crate) bytes: u64,
    pub(crate) connections: usize,
}

impl Page {
    /// Fetches all of it; how long that took, from the first connection's opening to the last object's end.
    pub(crate) fn fetch(self, net: &Net, dial: &Dial) -> Result<Duration> {
        let (next, meter, start) = (AtomicU64::new(0), Meter::default(), Instant::now());
        let done: Result<()> = thread::scope(|scope| {
            let fetching: Vec<_> = (0..self.connections)
                .map(|_| scope.spawn(|| self.fetch_some(&dial.open(net)?, &next, &meter)))
                .collect();
            fetching.into_iter().try_for_each(|each| {
                each.join().map_err(|_| anyhow!("a thread that fetched objects panicked"))?
            })
        });
        done?;
        anyhow::ensure!(meter.bytes() == self.objects * self.bytes, "{} bytes of a page came", meter.bytes());
        anyhow::ensure!(meter.wrong() == 0, "{} bytes of a page are wrong", meter.wrong());
        Ok(start.elapsed())
    }

    fn fetch_some(self, stream: &TcpStream, next: &AtomicU64, meter: &Meter) -> Result<()> {
        loop {
            let object = next.fetch_add(1, Ordering::Relaxed);
            if object >= self.objects {
                cut(stream);
                return Ok(());
            }
            Request::Get { bytes: self.bytes, content: object }.write(stream)?;
            receive(stream, self.bytes, object, Way::Down, meter)?;
        }
    }
}

/// How long it takes from the opening of a connection to the first byte of an answer.
pub(crate) fn first_byte(net: &Net, dial: &Dial) -> Result<Duration> {
    let start = Instant::now();
    let mut stream = dial.open(net)?;
    Request::Get { bytes: 1, content: 0 }.write(&stream)?;
    stream.read_exact(&mut [0])?;
    let took = start.elapsed();
    cut(&stream);
    Ok(took)
}

/// Downloads so many bytes over one connection.
pub(crate) fn download(net: &Net, dial: &Dial, bytes: u64) -> Result<()> {
    let (stream, meter) = (dial.open(net)?, Meter::default());
    Request::Get { bytes, content: 0 }.write(&stream)?;
    receive(&stream, bytes, 0, Way::Down, &meter)?;
    anyhow::ensure!(meter.wrong() == 0, "{} bytes that arrived are wrong", meter.wrong());
    cut(&stream);
    Ok(())
}

/// A download without end that nobody reads.
pub(crate) fn stuck_download(net: &Net, dial: &Dial) -> Result<TcpStream> {
    let stream = dial.open(net)?;
    Request::Get { bytes: u64::MAX, content: 0 }.write(&stream)?;
    Ok(stream)
}
