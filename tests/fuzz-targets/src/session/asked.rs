//! The steps of a run, one byte each with its choices behind it: packets of the other end, calls of the program,
//! tunnels, time.

use std::time::Duration;

use ::bytes::{Bytes, BytesMut};
use gkd_proto::id::{ConnectionId, PacketNumber, TunnelId};
use gkd_proto::packet::{
    Account, Ack, Blocked, Close, CloseCode, Connect, Connected, Credit, Datagram, DialError, Drain, Finish,
    Gone, Leave, Packet, Ping, Pong, Reset, ResetCode,
};
use gkd_proto::{PathSample, Read};

use super::world::World;
use crate::input::Input;

/// The most of raw bytes in one step.
const MOST_RAW: usize = 64;

/// Time steps: within a round trip, around the timers of acknowledgement, suspicion, sweeps, pings, silence, and of
/// the session's end.
const STEPS_OF_TIME: [Duration; 8] = [
    Duration::from_micros(100),
    Duration::from_millis(1),
    Duration::from_millis(25),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(61),
];

impl World {
    pub(super) fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() {
            choice @ 0..0x90 => self.other_end(choice, input),
            choice @ 0x90..0xc8 => self.program(choice, input),
            0xc8..0xd8 => self.dial(input),
            0xd8..0xe0 => self.answer(input),
            0xe0..0xe4 => {
                let tunnel = self.tunnel(input);
                self.down(tunnel);
            }
            0xe4..0xf0 => {
                let time = input.pick(&STEPS_OF_TIME);
                self.wait(time);
            }
            0xf0..0xf8 => self.pull_all(),
            _ => {
                let tunnel = self.tunnel(input);
                let room = 64 << input.below(11);
                self.pull(tunnel, room);
            }
        }
    }

    // ---- the other end ----

    fn other_end(&mut self, choice: u8, input: &mut Input<'_>) {
        let tunnel = self.tunnel(input);
        let mut bytes = BytesMut::new();
        if choice < 0x04 {
            let len = input.below(MOST_RAW + 1);
            bytes.extend_from_slice(input.take(len));
        } else {
            // Some in a row on one tunnel, as they come when a sender is ahead.
            for _ in 0..1 + choice % 4 {
                self.packet(tunnel, input).encode(&mut bytes);
            }
        }
        self.arrive(tunnel, &bytes);
    }

    fn id(&self, input: &mut Input<'_>) -> ConnectionId {
        match input.byte() {
            choice @ ..0xf0 => ConnectionId(u64::from(choice % 24)),
            0xf0..0xf8 => ConnectionId(u64::from(input.byte()) << 6 | 1),
            _ => ConnectionId(input.number()),
        }
    }

    fn account(&self, input: &mut Input<'_>) -> Account {
        if input.byte() < 0x50 { Account::Session } else { Account::Connection(self.id(input)) }
    }

    fn packet(&mut self, tunnel: TunnelId, input: &mut Input<'_>) -> Packet {
        match input.below(32) {
            0..4 => Packet::Connect(Connect { connection: self.id(input), destination: bytes(input) }),
            4..12 => {
                let connection = self.id(input);
                let next = self.sent.direction(connection).next();
                let data = self.sent.data(connection, input.near(next));
                match data {
                    Packet::Data(mut data) if input.byte() == 0xff => {
                        data.payload = bytes(input);
                        Packet::Data(data)
                    }
                    data => data,
                }
            }
            12 | 13 => {
                let connection = self.id(input);
                let next = self.sent.direction(connection).next();
                Packet::Finish(Finish { connection, number: PacketNumber(input.near(next)) })
            }
            14 | 15 => {
                let connection = self.id(input);
                let total = self.sent.direction(connection).charge();
                Packet::Reset(Reset {
                    connection,
                    code: ResetCode(input.byte().into()),
                    total: input.near(total),
                })
            }
            16 | 17 => {
                let result = if input.byte() < 0xa0 { Ok(()) } else { Err(DialError::Refused) };
                Packet::Connected(Connected { connection: self.id(input), result })
            }
            18 | 19 => {
                let account = self.account(input);
                let charged = match account {
                    Account::Session => 1 << 18,
                    Account::Connection(id) => self.said.charged(id),
                };
                Packet::Credit(Credit { account, total: input.near(charged + (1 << 16)) })
            }
            20 => {
                let account = self.account(input);
                Packet::Blocked(Blocked { account, total: input.near(self.said.granted(account)) })
            }
            21..25 => {
                let tunnel = if input.byte() < 0xc0 { tunnel } else { self.tunnel(input) };
                Packet::Ack(Ack {
                    tunnel,
                    count: input.near(self.said.counted(tunnel)),
                    delay: input.byte().into(),
                })
            }
            25 => {
                let tunnel = self.tunnel(input);
                Packet::Gone(Gone { tunnel, count: input.near(self.said.counted(tunnel)) })
            }
            26 => Packet::Leave(Leave { tunnel: self.tunnel(input) }),
            27 => Packet::Ping(Ping { token: input.number() }),
            28 => {
                let (token, count) = (self.said.pinged(tunnel), self.said.counted(tunnel));
                Packet::Pong(Pong { token: input.near(token), count: input.near(count) })
            }
            29 => {
                let (connection, address) = (self.id(input), bytes(input));
                let payload = Bytes::from(vec![0; usize::from(input.byte()) * 256]);
                Packet::Datagram(Datagram { connection, address, payload })
            }
            30 => match input.byte() {
                0..0x40 => Packet::Drain(Drain { reason: 1 }),
                0x40..0x44 => Packet::Close(Close { code: CloseCode::DONE, reason: "why".to_owned() }),
                _ => Packet::Unknown(0x2f),
            },
            _ => Packet::Unknown(u64::from(input.byte()) << 6 | 0x0f),
        }
    }

    // ---- the program ----

    /// One of the connections that it has, or had.
    fn held(&self, input: &mut Input<'_>) -> ConnectionId {
        let held: Vec<_> = self.connections.iter().copied().collect();
        let choice = input.byte();
        if held.is_empty() || choice >= 0xf0 {
            return self.id(input);
        }
        held[usize::from(choice) % held.len()]
    }

    fn program(&mut self, choice: u8, input: &mut Input<'_>) {
        match choice {
            0x90..0x98 => {
                if let Ok(id) = self.session.open(self.now, bytes(input)) {
                    assert!(self.connections.insert(id), "{id} is opened twice");
                }
            }
            0x98..0xc4 => self.use_connection(choice, input),
            0xc4 => match input.byte() {
                0..0x10 => self.session.drain(self.now, 1),
                0x10..0x14 => self.session.lose(self.now),
                0x14..0x18 => self.session.close(self.now, CloseCode::DONE, "closed"),
                _ => self.session.probe(self.now),
            },
            0xc5 => {
                let tunnel = self.tunnel(input);
                self.session.retire_tunnel(self.now, tunnel);
            }
            _ => {
                let tunnel = self.tunnel(input);
                let sample = PathSample {
                    round_trip: Some(Duration::from_micros(input.number() >> input.below(62))),
                    rate: Some(input.number() >> input.below(62)),
                    ..PathSample::default()
                };
                self.session.handle_path(self.now, tunnel, sample);
            }
        }
    }

    fn use_connection(&mut self, choice: u8, input: &mut Input<'_>) {
        let id = self.held(input);
        let Some(mut connection) = self.session.connection(self.now, id) else {
            // Only the end of the session takes a connection from its program without a word.
            assert!(!self.connections.contains(&id) || self.session.is_closed(), "{id} has vanished");
            return;
        };
        assert!(self.connections.contains(&id), "{id} is there again");
        match choice {
            0x98..0xa4 => {
                let mut data = Bytes::from(vec![0; 1 << input.below(18)]);
                let len = data.len();
                if let Ok(accepted) = connection.write(&mut data) {
                    assert_eq!(accepted + data.len(), len);
                }
            }
            0xa4..0xb0 => {
                let most = 1 << input.below(20);
                match connection.read(most) {
                    Read::Data(data) => {
                        assert!((1..=most).contains(&data.len()));
                        self.sent.check(id, &data);
                    }
                    Read::Finished => self.sent.check_end(id),
                    Read::Pending => {}
                }
            }
            0xb0..0xb4 => connection.finish(),
            0xb4..0xb8 => {
                let result = if input.byte() < 0xc0 { Ok(()) } else { Err(DialError::Denied) };
                connection.connected(result);
                // Refused, it is the session's to end.
                if self.session.connection(self.now, id).is_none() {
                    self.connections.remove(&id);
                }
            }
            0xb8..0xba => {
                connection.reset(ResetCode::APPLICATION);
                self.connections.remove(&id);
            }
            0xba..0xbe => {
                connection.release();
                self.connections.remove(&id);
            }
            0xbe..0xc1 => {
                let payload = Bytes::from(vec![0; usize::from(input.byte()) * 256]);
                connection.send_datagram(bytes(input), payload);
            }
            _ => _ = connection.recv_datagram(),
        }
    }
}

/// A few bytes, of those that follow.
fn bytes(input: &mut Input<'_>) -> Bytes {
    let len = input.below(9);
    Bytes::copy_from_slice(input.take(len))
}
