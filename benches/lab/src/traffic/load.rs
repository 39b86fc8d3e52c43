//! Bulk: connections that carry content one way for as long as they are let.

use std::net::TcpStream;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use anyhow::Result;
use gkd_load::content::Way;

use super::destination::{cut, receive, send};
use super::{Destination, Dial, Meter, Request};
use crate::net::Net;

/// Which way the bulk goes, seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Download,
    Upload,
}

/// Dropping it ends its connections.
#[derive(Debug)]
pub(crate) struct Load {
    meter: Arc<Meter>,
    streams: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Opens connections, one per dial, and begins. An upload is metered where it arrives: at `destination`, which is
    /// to serve nothing else.
    pub(crate) fn start(
        net: &Net,
        dials: &[Dial],
        direction: Direction,
        destination: &Destination,
    ) -> Result<Self> {
        let meter = match direction {
            Direction::Download => Arc::default(),
            Direction::Upload => destination.meter(),
        };
        let mut load = Self { meter, streams: Vec::new(), threads: Vec::new() };
        for dial in dials {
            load.streams.push(dial.open(net)?);
        }
        for (index, stream) in load.streams.iter().enumerate() {
            let (stream, meter, content) = (stream.try_clone()?, load.meter.clone(), index as u64);
            load.threads.push(thread::spawn(move || {
                // It ends when the stream is cut, which is an error to it.
                let ended = match direction {
                    Direction::Download => Request::Get { bytes: u64::MAX, content }
                        .write(&stream)
                        .and_then(|()| receive(&stream, u64::MAX, content, Way::Down, &meter)),
                    Direction::Upload => Request::Put { content }
                        .write(&stream)
                        .and_then(|()| send(&stream, u64::MAX, content, Way::Up)),
                };
                drop(ended);
            }));
        }
        Ok(load)
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Connections that have not ended.
    pub(crate) fn running(&self) -> usize {
        self.threads.iter().filter(|thread| !thread.is_finished()).count()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for stream in &self.streams {
            cut(stream);
        }
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}
