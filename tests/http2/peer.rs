//! A visitor of HTTP/2 whose frames are written by hand ([`Peer`]), and what it sees of the server ([`Seen`]).

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::frames::{
    ACK, DATA, END_STREAM, Frame, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, SETTINGS, USUAL_FRAME, frame,
    settings, status,
};

/// So long it waits for what has to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// What a server did about what it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It ended the connection with this code.
    GoAway(u32),
    /// It ended this stream with this code.
    Reset(u32, u32),
    /// It ended the connection and said nothing.
    Closed,
    /// It answered this stream with this status.
    Answer(u32, u16),
    /// It did nothing, and goes on.
    Nothing,
}

/// A connection.
pub(crate) struct Peer {
    socket: TcpStream,
    /// Streams that were answered, with their status; and bytes of their bodies.
    answers: HashMap<u32, u16>,
    pub(crate) bodies: HashMap<u32, Vec<u8>>,
    ended: Vec<u32>,
    resets: Vec<(u32, u32)>,
    /// Code, and the last stream that was looked at.
    pub(crate) goaway: Option<(u32, u32)>,
    /// Payloads of answered PINGs, and how many SETTINGS were.
    pub(crate) pongs: Vec<[u8; 8]>,
    pub(crate) acks: usize,
    /// What the server has set.
    pub(crate) settings: Vec<(u16, u32)>,
    closed: bool,
}

impl Peer {
    /// One that has said nothing yet.
    pub(crate) fn bare(port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let socket = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            answers: HashMap::new(),
            bodies: HashMap::new(),
            ended: Vec::new(),
            resets: Vec::new(),
            goaway: None,
            pongs: Vec::new(),
            acks: 0,
            settings: Vec::new(),
            closed: false,
        }
    }

    /// One that has begun well, with these settings; the server's are known and confirmed, and its own are.
    pub(crate) fn with(port: u16, own: &[(u16, u32)]) -> Self {
        let mut peer = Self::bare(port);
        peer.send([PREFACE, &settings(own)].concat());
        let first = peer.read().expect("the server says nothing");
        assert!(first.kind == SETTINGS && !first.has(ACK) && first.stream == 0, "it begins with {first:?}");
        peer.send(frame(SETTINGS, ACK, 0, &[]));
        peer.until(|peer| peer.acks == 1);
        peer
    }

    /// Sends bytes. That the server has gone may be what it was to do.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.try_send(bytes.as_ref()).is_ok()
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// The next frame, which is noted; none when the connection has ended.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        let frame = self.read_frame().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => panic!("nothing comes, and no end"),
            _ => self.closed = true,
        });
        let frame = frame.ok()?;
        match frame.kind {
            HEADERS => {
                // Trailers have none.
                if let Some(status) = status(&frame.payload) {
                    self.answers.entry(frame.stream).or_insert(status);
                }
            }
            DATA => self.bodies.entry(frame.stream).or_default().extend(&frame.payload),
            RST_STREAM => self.resets.push((frame.stream, frame.number(0))),
            GOAWAY => self.goaway = Some((frame.number(4), frame.number(0))),
            PING if frame.has(ACK) => self.pongs.push(frame.payload[..].try_into().unwrap()),
            SETTINGS if frame.has(ACK) => self.acks += 1,
            SETTINGS => {
                self.settings = frame
                    .payload
                    .chunks(6)
                    .map(|one| {
                        let value = u32::from_be_bytes(one[2..].try_into().unwrap());
                        (u16::from_be_bytes([one[0], one[1]]), value)
                    })
                    .collect();
            }
            _ => {}
        }
        if matches!(frame.kind, HEADERS | DATA) && frame.has(END_STREAM) {
            self.ended.push(frame.stream);
        }
        Some(frame)
    }

    fn read_frame(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head)?;
        let len = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        assert!(len <= USUAL_FRAME, "the server sends a frame of {len} bytes");
        let mut payload = vec![0; len];
        self.socket.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Ok(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// Reads until something is so, or the connection has ended.
    pub(crate) fn until(&mut self, mut is: impl FnMut(&Self) -> bool) {
        while !is(self) && self.read().is_some() {}
    }

    /// Waits for the whole answer to a stream; its status.
    pub(crate) fn answer(&mut self, stream: u32) -> u16 {
        self.until(|peer| peer.ended.contains(&stream));
        *self.answers.get(&stream).unwrap_or_else(|| panic!("stream {stream} has no answer"))
    }

    /// Waits until the server has read all that was sent and done at once what it does about it.
    pub(crate) fn settle(&mut self) {
        // The second is read when what the first came with was done.
        for number in 1..=2_u8 {
            let payload = [b'!', number, 0, 0, 0, 0, 0, self.pongs.len() as u8];
            self.send(frame(PING, 0, 0, &payload));
            self.until(|peer| peer.pongs.contains(&payload));
        }
    }

    /// What the server did about what was sent since `before`; of several things the one with most weight. An answer is
    /// waited for only where one is.
    pub(crate) fn see(&mut self, awaited: Option<u32>) -> Seen {
        self.settle();
        if let Some(stream) = awaited {
            self.until(|peer| {
                peer.ended.contains(&stream) || peer.resets.iter().any(|(reset, _)| *reset == stream)
            });
        }
        if let Some((code, _)) = self.goaway {
            // One that it says is its last word.
            self.until(|_| false);
            return Seen::GoAway(code);
        }
        if let Some((stream, code)) = self.resets.last() {
            return Seen::Reset(*stream, *code);
        }
        match awaited.and_then(|stream| self.answers.get(&stream).map(|status| (stream, *status))) {
            Some((stream, status)) => Seen::Answer(stream, status),
            None if self.closed => Seen::Closed,
            None => Seen::Nothing,
        }
    }

    /// Forgets what was reset.
    pub(crate) fn forget(&mut self) {
        self.resets.clear();
    }

    /// Its socket, to be used without frames.
    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        &mut self.socket
    }
}
