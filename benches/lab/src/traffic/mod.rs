//! What moves over the line, and the sockets of both ends: the destination, and programs that want something of it.

mod destination;
mod dial;
mod echo;
mod load;
mod meter;
mod page;
mod web;

pub(crate) use destination::{Destination, Kind};
pub(crate) use dial::Dial;
pub(crate) use echo::{Echo, Latencies, TcpEcho, UdpEcho};
pub(crate) use load::{Direction, Load};
pub(crate) use meter::Meter;
pub(crate) use page::{Page, download, first_byte, stuck_download};
pub(crate) use web::{Ending, Visitor, Visitors, WebServer};

use std::io::{self, Read, Write};

/// What a program asks of the destination, at the head of its connection and, after [`Request::Get`], again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    /// So many bytes of content.
    Get { bytes: u64, content: u64 },
    /// To take content until the connection ends.
    Put { content: u64 },
    /// To send back whatever comes.
    Echo,
}

impl Request {
    const LEN: usize = 17;

    fn write(self, mut to: impl Write) -> io::Result<()> {
        let (kind, bytes, content) = match self {
            Self::Get { bytes, content } => (b'G', bytes, content),
            Self::Put { content } => (b'P', 0, content),
            Self::Echo => (b'E', 0, 0),
        };
        let mut request = [kind; Self::LEN];
        request[1..9].copy_from_slice(&bytes.to_be_bytes());
        request[9..].copy_from_slice(&content.to_be_bytes());
        to.write_all(&request)
    }

    fn read(mut from: impl Read) -> io::Result<Self> {
        let mut request = [0; Self::LEN];
        from.read_exact(&mut request)?;
        let number =
            |at: usize| request[at..at + 8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        match request[0] {
            b'G' => Ok(Self::Get { bytes: number(1), content: number(9) }),
            b'P' => Ok(Self::Put { content: number(9) }),
            b'E' => Ok(Self::Echo),
            other => Err(io::Error::other(format!("nobody asks {other}: a byte was lost or is wrong"))),
        }
    }
}
