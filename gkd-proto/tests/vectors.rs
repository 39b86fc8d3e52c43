//! Reads the vectors of `testdata/`, whose first lines say what stands in them, and compares both ways.
//!
//! Only what is public is used, as someone would who writes the other end.

use std::collections::HashMap;
use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use gkd_proto::handshake::{DeadTunnel, Hello, Parameters, Reject, RejectCode, Welcome, decode_answer};
use gkd_proto::id::{BootId, ConnectionId, PacketNumber, SessionId, TunnelId};
use gkd_proto::packet::{
    Account, Ack, Blocked, Close, CloseCode, Connect, Connected, Credit, Data, Datagram, DecodeError,
    DialError, Drain, Finish, Gone, Leave, Packet, Ping, Pong, Reset, ResetCode, kind,
};

/// A description in parts: the name, and the fields by their names.
struct Description<'a> {
    name: &'a str,
    fields: HashMap<&'a str, &'a str>,
}

impl<'a> Description<'a> {
    fn parse(text: &'a str) -> Self {
        let (rest, reason) = match text.split_once(" reason=\"") {
            Some((rest, reason)) => (rest, Some(reason.strip_suffix('"').expect("a closing quote"))),
            None => (text, None),
        };
        let mut words = rest.split(' ');
        let name = words.next().expect("a name");
        let fields = words.map(|word| word.split_once('=').expect("field=value"));
        Self { name, fields: fields.chain(reason.map(|reason| ("reason", reason))).collect() }
    }

    fn text(&self, field: &str) -> &'a str {
        self.fields.get(field).unwrap_or_else(|| panic!("{} has no {field}", self.name))
    }

    fn number(&self, field: &str) -> u64 {
        self.text(field).parse().expect("a number")
    }

    fn bytes(&self, field: &str) -> Bytes {
        unhex(self.text(field)).into()
    }

    fn id(&self, field: &str) -> [u8; 16] {
        unhex(self.text(field)).try_into().expect("16 bytes")
    }

    fn connection(&self) -> ConnectionId {
        ConnectionId(self.number("connection"))
    }

    fn account(&self) -> Account {
        match self.number("connection") {
            0 => Account::Session,
            id => Account::Connection(ConnectionId(id)),
        }
    }

    fn tunnel(&self) -> TunnelId {
        TunnelId(self.number("tunnel"))
    }

    fn parameters(&self) -> Parameters {
        Parameters {
            connection_window: self.number("connection_window"),
            session_window: self.number("session_window"),
            max_payload: self.number("max_payload"),
            max_connections: self.number("max_connections"),
        }
    }

    fn dead(&self) -> Vec<DeadTunnel> {
        let pairs = self.text("dead").split(',').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (tunnel, count) = pair.split_once(':').expect("tunnel:count");
                let number = |text: &str| text.parse().expect("a number");
                DeadTunnel { tunnel: TunnelId(number(tunnel)), count: number(count) }
            })
            .collect()
    }

    fn packet(&self) -> Packet {
        let number = || PacketNumber(self.number("number"));
        let reason = || self.text("reason").to_owned();
        let (count, total) = (|| self.number("count"), || self.number("total"));
        match self.name {
            "Connect" => Packet::Connect(Connect {
                connection: self.connection(),
                destination: self.bytes("destination"),
            }),
            "Connected" => Packet::Connected(Connected {
                connection: self.connection(),
                result: dial_result(self.number("result")),
            }),
            "Data" => Packet::Data(Data {
                connection: self.connection(),
                number: number(),
                payload: self.bytes("payload"),
            }),
            "Finish" => Packet::Finish(Finish { connection: self.connection(), number: number() }),
            "Reset" => Packet::Reset(Reset {
                connection: self.connection(),
                code: ResetCode(self.number("code")),
                total: total(),
            }),
            "Credit" => Packet::Credit(Credit { account: self.account(), total: total() }),
            "Blocked" => Packet::Blocked(Blocked { account: self.account(), total: total() }),
            "Gone" => Packet::Gone(Gone { tunnel: self.tunnel(), count: count() }),
            "Leave" => Packet::Leave(Leave { tunnel: self.tunnel() }),
            "Drain" => Packet::Drain(Drain { reason: self.number("reason") }),
            "Datagram" => Packet::Datagram(Datagram {
                connection: self.connection(),
                address: self.bytes("address"),
                payload: self.bytes("payload"),
            }),
            "Ack" => Packet::Ack(Ack { tunnel: self.tunnel(), count: count(), delay: self.number("delay") }),
            "Ping" => Packet::Ping(Ping { token: self.number("token") }),
            "Pong" => Packet::Pong(Pong { token: self.number("token"), count: count() }),
            "Close" => Packet::Close(Close { code: CloseCode(self.number("code")), reason: reason() }),
            "Unknown" => Packet::Unknown(self.number("kind")),
            name => panic!("no packet is named {name}"),
        }
    }

    fn message(&self) -> Message {
        match self.name {
            "Hello" => Message::Hello(Hello {
                version: self.number("version"),
                session: SessionId(self.id("session")),
                tunnel: self.tunnel(),
                exists: self.number("exists") == 1,
                parameters: self.parameters(),
                dead: self.dead(),
            }),
            "Welcome" => Message::Answer(Ok(Welcome {
                version: self.number("version"),
                boot: BootId(self.id("boot")),
                known: self.number("known") == 1,
                parameters: self.parameters(),
                dead: self.dead(),
            })),
            "Reject" => Message::Answer(Err(Reject {
                code: reject_code(self.number("code")),
                reason: self.text("reason").to_owned(),
            })),
            name => panic!("no message is named {name}"),
        }
    }
}

fn dial_result(code: u64) -> Result<(), DialError> {
    Err(match code {
        0 => return Ok(()),
        1 => DialError::Failed,
        2 => DialError::Refused,
        3 => DialError::Unreachable,
        4 => DialError::NotResolved,
        5 => DialError::TimedOut,
        6 => DialError::Denied,
        7 => DialError::NotOffered,
        8 => DialError::Busy,
        _ => panic!("result {code} has no name"),
    })
}

fn reject_code(code: u64) -> RejectCode {
    match code {
        1 => RejectCode::UnknownUser,
        2 => RejectCode::NoSuchSession,
        3 => RejectCode::Busy,
        4 => RejectCode::Version,
        5 => RejectCode::GoingDown,
        6 => RejectCode::Protocol,
        _ => RejectCode::Other(code),
    }
}

#[derive(Debug, PartialEq)]
enum Message {
    Hello(Hello),
    Answer(Result<Welcome, Reject>),
}

fn decode_message(buf: &mut BytesMut) -> Result<Option<Message>, DecodeError> {
    if buf.first().is_some_and(|first| [kind::WELCOME, kind::REJECT].contains(&u64::from(*first))) {
        return Ok(decode_answer(buf)?.map(Message::Answer));
    }
    Ok(Hello::decode(buf)?.map(Message::Hello))
}

fn encode_message(message: &Message) -> BytesMut {
    let mut out = BytesMut::new();
    match message {
        Message::Hello(hello) => hello.encode(&mut out),
        Message::Answer(Ok(welcome)) => welcome.encode(&mut out),
        Message::Answer(Err(reject)) => reject.encode(&mut out),
    }
    out
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2) && text.is_ascii(), "{text:?} is not hex");
    let pairs = (0..text.len()).step_by(2);
    pairs.map(|place| u8::from_str_radix(&text[place..place + 2], 16).expect("hex")).collect()
}

fn name_of(error: DecodeError) -> &'static str {
    match error {
        DecodeError::Malformed { .. } => "malformed",
        DecodeError::Oversize { .. } => "oversize",
        DecodeError::Refused { .. } => "refused",
    }
}

/// Goes through a file of vectors; how many there were.
fn check<T: Debug + PartialEq>(
    file: &str,
    decode: impl Fn(&mut BytesMut) -> Result<Option<T>, DecodeError>,
    encode: impl Fn(&T) -> BytesMut,
    describe: impl Fn(&Description) -> T,
) -> usize {
    let vectors = file.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut count = 0;
    for line in vectors {
        let mut parts = line.splitn(3, ' ');
        let mut part = || parts.next().unwrap_or_else(|| panic!("{line:?} is not a vector"));
        let (bytes, relation, what) = (unhex(part()), part(), part());
        let mut buf = BytesMut::from(&bytes[..]);
        let decoded = decode(&mut buf);
        if relation == "!" {
            assert_eq!(decoded.map_err(name_of), Err(what), "{line}");
        } else {
            let described = describe(&Description::parse(what));
            assert_eq!(decoded, Ok(Some(described)), "{line}");
            assert!(buf.is_empty(), "{line} leaves bytes over");
            let written = encode(&describe(&Description::parse(what)));
            assert_eq!(written == bytes, relation == "=", "{line} is written {written:02x?}");
        }
        count += 1;
    }
    count
}

#[test]
fn packets() {
    let encode = |packet: &Packet| {
        let mut out = BytesMut::new();
        packet.encode(&mut out);
        out
    };
    let file = include_str!("../testdata/packets.txt");
    assert!(check(file, Packet::decode, encode, |it| it.packet()) > 80);
}

#[test]
fn handshake() {
    let file = include_str!("../testdata/handshake.txt");
    assert!(check(file, decode_message, encode_message, |it| it.message()) > 30);
}
