//! A tunnel's carrier: two lines of encoded batches, and whether each end takes it for alive.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use gkd_proto::handshake::{Hello, decode_answer};
use gkd_proto::packet::Packet;

use crate::hash::Fold;
use crate::step::{CLIENT, SERVER};

/// What a tunnel is at one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    /// The server has not seen its Hello.
    Unseen,
    /// The client's Hello is out.
    Dialing,
    /// It is up.
    Up,
    /// It is dead.
    Down,
}

/// What travels at a time.
#[derive(Debug)]
pub(crate) enum Content {
    /// The client's first message.
    Hello,
    /// The server's answer.
    Answer,
    /// Packets.
    Packets,
}

/// Something on the way, as bytes.
#[derive(Debug)]
pub(crate) struct Message {
    /// What it is.
    pub content: Content,
    /// Its bytes.
    pub bytes: Bytes,
    hash: u64,
}

impl Message {
    /// A message of so many bytes.
    pub(crate) fn new(content: Content, bytes: Bytes) -> Rc<Self> {
        let mut hasher = Fold::default();
        hasher.write(&bytes);
        Rc::new(Self { content, bytes, hash: hasher.finish() })
    }

    /// What it says, for people.
    pub(crate) fn words(&self) -> String {
        let mut bytes = BytesMut::from(&self.bytes[..]);
        match self.content {
            Content::Hello => format!("{:?}", Hello::decode(&mut bytes).ok().flatten()),
            Content::Answer => format!("{:?}", decode_answer(&mut bytes).ok().flatten()),
            Content::Packets => {
                let packets = std::iter::from_fn(|| Packet::decode(&mut bytes).ok().flatten());
                packets.map(|packet| packet_words(&packet)).collect::<Vec<_>>().join(", ")
            }
        }
    }
}

fn packet_words(packet: &Packet) -> String {
    match packet {
        Packet::Data(data) => {
            let (connection, number) = (data.connection, data.number);
            format!("Data of {connection}: number {number}, {} bytes", data.payload.len())
        }
        other => format!("{other:?}"),
    }
}

impl Hash for Message {
    fn hash<H: Hasher>(&self, to: &mut H) {
        to.write_u64(self.hash);
    }
}

/// A tunnel's carrier.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Wire {
    /// What is on the way, by the end that it goes to.
    pub to: [VecDeque<Rc<Message>>; 2],
    /// What the tunnel is at each end.
    pub life: [Life; 2],
}

impl Wire {
    /// A carrier that the client has just dialled.
    pub(crate) fn dialled(hello: Rc<Message>) -> Self {
        Self { to: [VecDeque::new(), VecDeque::from([hello])], life: [Life::Dialing, Life::Unseen] }
    }

    /// Whether an end has this carrier open.
    pub(crate) fn is_open(&self, end: usize) -> bool {
        matches!(self.life[end], Life::Dialing | Life::Up)
    }

    /// An end's carrier is closed: what was on the way to it is lost. What it sent before may still arrive.
    pub(crate) fn close(&mut self, end: usize) {
        self.life[end] = Life::Down;
        self.to[end].clear();
    }

    /// Nothing that is on the way to the server of a dial that the client gave up arrives any more.
    pub(crate) fn lose_late_hello(&mut self) {
        if self.life == [Life::Down, Life::Unseen] {
            debug_assert!(self.to[CLIENT].is_empty());
            self.close(SERVER);
        }
    }
}
