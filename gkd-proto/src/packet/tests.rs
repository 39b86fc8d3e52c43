//! Every packet there and back, and everything that is not one.

use proptest::collection::vec;
use proptest::prelude::*;

use bytes::Buf;

use super::*;
use crate::id::{ConnectionId, PacketNumber, TunnelId};

const MAX: u64 = varint::MAX;

fn encoded(packet: &Packet) -> BytesMut {
    let mut bytes = BytesMut::new();
    packet.encode(&mut bytes);
    bytes
}

/// A packet of this type around `body`, whatever it holds.
fn framed(kind: u64, body: &[u8]) -> BytesMut {
    let mut bytes = BytesMut::new();
    header::put(&mut bytes, kind, body.len());
    bytes.put_slice(body);
    bytes
}

/// Type and declared length alone.
fn declared(kind: u64, len: u64) -> BytesMut {
    let mut bytes = BytesMut::new();
    varint::put(&mut bytes, kind);
    varint::put(&mut bytes, len);
    bytes
}

fn split(packet: &Packet) -> (u64, BytesMut) {
    let mut bytes = encoded(packet);
    let header = Header::peek(&bytes).unwrap().unwrap();
    assert_eq!(header.len + header.body, bytes.len(), "{packet:?} declares its length");
    bytes.advance(header.len);
    (header.kind, bytes)
}

/// The payload that is the rest of the body, for the packets that have one.
fn payload(packet: &Packet) -> Option<&Bytes> {
    match packet {
        Packet::Data(data) => Some(&data.payload),
        Packet::Datagram(datagram) => Some(&datagram.payload),
        _ => None,
    }
}

fn connect(id: u64, destination: &[u8]) -> Packet {
    Packet::Connect(Connect {
        connection: ConnectionId(id),
        destination: Bytes::copy_from_slice(destination),
    })
}

fn data(id: u64, number: u64, payload: &[u8]) -> Packet {
    let (connection, number) = (ConnectionId(id), PacketNumber(number));
    Packet::Data(Data { connection, number, payload: Bytes::copy_from_slice(payload) })
}

fn datagram(id: u64, address: &[u8], payload: &[u8]) -> Packet {
    let (address, payload) = (Bytes::copy_from_slice(address), Bytes::copy_from_slice(payload));
    Packet::Datagram(Datagram { connection: ConnectionId(id), address, payload })
}

/// Every type, with the values at which lengths change and bounds are met.
fn samples() -> Vec<Packet> {
    let mut samples = vec![
        connect(1, b""),
        connect(MAX, &[0xab; MAX_DESTINATION]),
        data(1, 0, b""),
        data(63, 64, b"x"),
        data(MAX, MAX, &[7; MAX_PAYLOAD]),
        datagram(2, b"", b""),
        datagram(0x4000, b"127.0.0.1:53", b"query"),
        datagram(MAX, &[0xff; MAX_DESTINATION], &[1; MAX_PAYLOAD]),
        Packet::Close(Close { code: CloseCode::DONE, reason: String::new() }),
        Packet::Close(Close { code: CloseCode(MAX), reason: "é".repeat(MAX_REASON / 2) }),
        Packet::Unknown(0x00),
        Packet::Unknown(0x2f),
        Packet::Unknown(1 << 40),
    ];
    samples.push(Packet::Connected(Connected { connection: ConnectionId(5), result: Ok(()) }));
    samples.extend(dial_errors().map(|error| {
        Packet::Connected(Connected { connection: ConnectionId(0x3fff_ffff), result: Err(error) })
    }));
    for value in [0, 63, 64, 0x3fff, 0x4000, 0x3fff_ffff, 0x4000_0000, MAX] {
        let (connection, tunnel) = (ConnectionId(value), TunnelId(value));
        samples.extend([
            Packet::Finish(Finish { connection, number: PacketNumber(value) }),
            Packet::Reset(Reset { connection, code: ResetCode(value), total: MAX - value }),
            Packet::Credit(Credit { account: Account::Session, total: value }),
            Packet::Credit(Credit {
                account: Account::Connection(ConnectionId(1 + value / 2)),
                total: value,
            }),
            Packet::Blocked(Blocked { account: Account::Session, total: value }),
            Packet::Blocked(Blocked { account: Account::Connection(ConnectionId(2)), total: value }),
            Packet::Gone(Gone { tunnel, count: value }),
            Packet::Leave(Leave { tunnel }),
            Packet::Drain(Drain { reason: value }),
            Packet::Ack(Ack { tunnel, count: MAX - value, delay: value }),
            Packet::Ping(Ping { token: value }),
            Packet::Pong(Pong { token: value, count: MAX - value }),
        ]);
    }
    samples
}

fn dial_errors() -> impl Iterator<Item = DialError> {
    use DialError::*;
    [Failed, Refused, Unreachable, NotResolved, TimedOut, Denied, NotOffered, Busy].into_iter()
}

/// Every length shorter than `len`; of a long one those near both ends.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    (0..len).filter(move |cut| *cut < 600 || len - *cut < 10)
}

/// Origin: ids of 16 bits in smux and of 24 bits in wmproxy come to an end; the samples hold numbers of 62.
#[test]
fn every_packet_survives_the_round_trip() {
    for packet in samples() {
        let mut bytes = encoded(&packet);
        bytes.put_slice(b"the next packet");
        assert_eq!(Packet::decode(&mut bytes), Ok(Some(packet)));
        assert_eq!(bytes, &b"the next packet"[..]);
    }
}

#[test]
fn every_type_is_among_the_samples() {
    let known: Vec<u64> = (0..0x40).filter(|kind| samples().iter().any(|s| s.kind() == *kind)).collect();
    let all = [
        kind::CONNECT,
        kind::CONNECTED,
        kind::DATA,
        kind::FINISH,
        kind::RESET,
        kind::CREDIT,
        kind::BLOCKED,
        kind::GONE,
        kind::LEAVE,
        kind::DRAIN,
        kind::DATAGRAM,
        kind::ACK,
        kind::PING,
        kind::PONG,
        kind::CLOSE,
    ];
    assert!(all.iter().all(|kind| known.contains(kind)));
}

#[test]
fn types_are_counted_as_the_protocol_says() {
    for packet in samples() {
        let counted = match packet {
            Packet::Datagram(_) | Packet::Ack(_) | Packet::Ping(_) | Packet::Pong(_) | Packet::Close(_) => {
                false
            }
            Packet::Unknown(kind) => kind & 0x20 != 0,
            _ => true,
        };
        assert_eq!(packet.is_counted(), counted, "{packet:?}");
    }
}

#[test]
fn every_cut_of_the_stream_waits_for_more_and_takes_nothing() {
    for packet in samples() {
        let whole = encoded(&packet);
        for cut in cuts(whole.len()) {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(Packet::decode(&mut part), Ok(None), "{:#x} cut at {cut}", packet.kind());
            assert_eq!(part, &whole[..cut]);
        }
    }
}

#[test]
fn every_cut_inside_the_declared_body_is_malformed_or_a_shorter_payload() {
    for packet in samples() {
        let (kind, body) = split(&packet);
        let trailing = payload(&packet).map_or(0, Bytes::len);
        for cut in cuts(body.len()) {
            let decoded = Packet::decode(&mut framed(kind, &body[..cut]));
            if trailing > 0 && cut >= body.len() - trailing {
                let shorter = decoded.unwrap().unwrap();
                let left = trailing - (body.len() - cut);
                assert_eq!(payload(&shorter).unwrap(), &payload(&packet).unwrap()[..left]);
            } else {
                assert_eq!(decoded, Err(DecodeError::Malformed { kind }), "{kind:#x} cut at {cut}");
            }
        }
    }
}

#[test]
fn bytes_behind_the_last_field_are_malformed() {
    for packet in samples() {
        let (kind, mut body) = split(&packet);
        body.put_u8(0);
        let decoded = Packet::decode(&mut framed(kind, &body));
        match payload(&packet) {
            // The rest of the body is the payload, so a byte more is a longer one, up to the bound.
            Some(payload) if payload.len() < MAX_PAYLOAD => assert!(decoded.is_ok()),
            _ if matches!(packet, Packet::Unknown(_)) => assert_eq!(decoded, Ok(Some(packet))),
            _ => assert_eq!(decoded, Err(DecodeError::Malformed { kind })),
        }
    }
}

/// Origin: gkd-rs (2019) did not check a length.
#[test]
fn a_length_above_the_bound_is_refused_from_the_header_alone_and_allocates_nothing() {
    for kind in [kind::DATA, kind::CONNECT, kind::ACK, kind::DATAGRAM, 0x00, 0x7f, MAX] {
        for len in [MAX_BODY as u64 + 1, 1 << 32, MAX] {
            let mut bytes = declared(kind, len);
            let (before, capacity) = (bytes.clone(), bytes.capacity());
            let error = DecodeError::Oversize { kind, declared: len, limit: MAX_BODY };
            assert_eq!(Packet::decode(&mut bytes), Err(error));
            assert_eq!((&bytes, bytes.capacity()), (&before, capacity));
        }
        assert_eq!(Packet::decode(&mut declared(kind, MAX_BODY as u64)), Ok(None));
    }
}

#[test]
fn fields_above_their_bounds_are_malformed() {
    // A connection, then a packet number or an empty address, then the payload.
    let long_payload = [&[1, 0][..], &vec![0; MAX_PAYLOAD + 1]].concat();
    let long_destination = [&[1, 0x42, 0x01][..], &[0; MAX_DESTINATION + 1]].concat();
    let long_reason = [&[0, 0x41, 0x01][..], &[b'x'; MAX_REASON + 1]].concat();
    let bodies = [
        (kind::DATA, long_payload.clone()),
        (kind::DATAGRAM, long_payload),
        (kind::DATAGRAM, long_destination.clone()),
        (kind::CONNECT, long_destination),
        (kind::CLOSE, long_reason),
    ];
    for (kind, body) in bodies {
        assert_eq!(Packet::decode(&mut framed(kind, &body)), Err(DecodeError::Malformed { kind }));
    }
}

#[test]
fn an_inner_length_beyond_the_body_is_malformed_whatever_it_claims() {
    for len in [1, 512, 513, 1 << 30, MAX] {
        let mut body = vec![1];
        varint::put(&mut body, len);
        for kind in [kind::CONNECT, kind::DATAGRAM, kind::CLOSE] {
            assert_eq!(Packet::decode(&mut framed(kind, &body)), Err(DecodeError::Malformed { kind }));
        }
    }
}

/// Origin: a wrong type byte made gkd-rs (2019) panic.
#[test]
fn two_bits_rule_what_becomes_of_an_unknown_type() {
    let known: Vec<u64> = samples().iter().map(Packet::kind).collect();
    let far = [0x40, 0x4f, 0x50, 0x60, 0x70, 0x3fff, 1 << 40, (1 << 40) | 0x20, (1 << 40) | 0x10, MAX];
    for kind in (0..0x40).filter(|kind| !known.contains(kind)).chain(far) {
        let decoded = Packet::decode(&mut framed(kind, b"whatever"));
        if kind & 0x10 != 0 {
            assert_eq!(decoded, Err(DecodeError::Refused { kind }));
        } else {
            let packet = decoded.unwrap().unwrap();
            assert_eq!((&packet, packet.is_counted()), (&Packet::Unknown(kind), kind & 0x20 != 0));
        }
    }
}

#[test]
fn handshake_messages_are_no_packets() {
    for kind in [kind::HELLO, kind::WELCOME, kind::REJECT] {
        assert_eq!(Packet::decode(&mut framed(kind, &[0; 40])), Err(DecodeError::Refused { kind }));
    }
}

#[test]
fn a_payload_is_a_slice_of_the_read_buffer_and_a_destination_is_not() {
    let mut bytes = encoded(&data(1, 2, b"payload"));
    let place = bytes[bytes.len() - 7..].as_ptr();
    let Ok(Some(Packet::Data(data))) = Packet::decode(&mut bytes) else { panic!("a Data packet") };
    assert_eq!((data.payload.as_ptr(), &data.payload[..]), (place, &b"payload"[..]));

    let mut bytes = encoded(&connect(1, b"destination"));
    let place = bytes[bytes.len() - 11..].as_ptr();
    let Ok(Some(Packet::Connect(connect))) = Packet::decode(&mut bytes) else { panic!("a Connect packet") };
    assert_ne!(connect.destination.as_ptr(), place);
}

#[test]
fn a_long_reason_is_cut_between_characters_and_a_broken_one_is_shown() {
    let reason = format!("x{}", "é".repeat(MAX_REASON));
    let mut bytes = encoded(&Packet::Close(Close { code: CloseCode::LIMIT, reason: reason.clone() }));
    let Ok(Some(Packet::Close(close))) = Packet::decode(&mut bytes) else { panic!("a Close packet") };
    assert_eq!(close.reason, reason[..MAX_REASON - 1]);

    let mut bytes = framed(kind::CLOSE, b"\x00\x03a\xffb");
    let Ok(Some(Packet::Close(close))) = Packet::decode(&mut bytes) else { panic!("a Close packet") };
    assert_eq!(close.reason, "a\u{fffd}b");
}

#[test]
fn codes_of_later_versions_are_understood_as_far_as_they_can_be() {
    for code in [9, 63, MAX] {
        let mut body = vec![5];
        varint::put(&mut body, code);
        let Ok(Some(Packet::Connected(connected))) = Packet::decode(&mut framed(kind::CONNECTED, &body))
        else {
            panic!("a Connected packet");
        };
        assert_eq!(connected.result, Err(DialError::Failed));
    }
}

#[test]
#[should_panic = "a payload has a bound"]
fn a_payload_above_the_bound_is_not_written() {
    encoded(&data(1, 0, &[0; MAX_PAYLOAD + 1]));
}

fn number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![0u64..70, 0x3ff0u64..0x4010, 0x3fff_fff0u64..0x4000_0010, MAX - 2..=MAX, 0..=MAX]
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 0..200), 1 => vec(any::<u8>(), 0..=most)]
}

fn account() -> impl Strategy<Value = Account> {
    prop_oneof![Just(Account::Session), number().prop_map(|id| Account::Connection(ConnectionId(id.max(1)))),]
}

/// Any packet, every field over its whole range.
fn packet() -> impl Strategy<Value = Packet> {
    let dialled = proptest::option::of(proptest::sample::select(dial_errors().collect::<Vec<_>>()));
    let reason = vec(any::<char>(), 0..=MAX_REASON / 4).prop_map(String::from_iter);
    let unknown = number().prop_map(|kind| Packet::Unknown((kind & !0x1f) | 0x40));
    let (connection, tunnel) = (number().prop_map(ConnectionId), number().prop_map(TunnelId));
    prop_oneof![
        (number(), bytes(MAX_DESTINATION)).prop_map(|(id, destination)| connect(id, &destination)),
        (connection.clone(), dialled).prop_map(|(connection, error)| {
            Packet::Connected(Connected { connection, result: error.map_or(Ok(()), Err) })
        }),
        (number(), number(), bytes(2000)).prop_map(|(id, number, payload)| data(id, number, &payload)),
        (connection.clone(), number()).prop_map(|(connection, number)| {
            Packet::Finish(Finish { connection, number: PacketNumber(number) })
        }),
        (connection, number(), number()).prop_map(|(connection, code, total)| {
            Packet::Reset(Reset { connection, code: ResetCode(code), total })
        }),
        (account(), number()).prop_map(|(account, total)| Packet::Credit(Credit { account, total })),
        (account(), number()).prop_map(|(account, total)| Packet::Blocked(Blocked { account, total })),
        (tunnel.clone(), number()).prop_map(|(tunnel, count)| Packet::Gone(Gone { tunnel, count })),
        tunnel.clone().prop_map(|tunnel| Packet::Leave(Leave { tunnel })),
        number().prop_map(|reason| Packet::Drain(Drain { reason })),
        (number(), bytes(MAX_DESTINATION), bytes(2000))
            .prop_map(|(id, address, payload)| datagram(id, &address, &payload)),
        (tunnel, number(), number()).prop_map(|(tunnel, count, delay)| Packet::Ack(Ack {
            tunnel,
            count,
            delay
        })),
        number().prop_map(|token| Packet::Ping(Ping { token })),
        (number(), number()).prop_map(|(token, count)| Packet::Pong(Pong { token, count })),
        (number(), reason).prop_map(|(code, reason)| Packet::Close(Close { code: CloseCode(code), reason })),
        unknown,
    ]
}

/// Takes packets until there are no more, and says how it ended.
fn take_all(buf: &mut BytesMut) -> (Vec<Packet>, Result<(), DecodeError>) {
    let mut packets = Vec::new();
    loop {
        match Packet::decode(buf) {
            Ok(Some(packet)) => packets.push(packet),
            Ok(None) => return (packets, Ok(())),
            Err(error) => return (packets, Err(error)),
        }
    }
}

proptest! {
    #[test]
    fn any_packets_survive_a_stream_that_arrives_in_any_pieces(
        packets in vec(packet(), 1..12),
        pieces in vec(1usize..400, 1..20),
    ) {
        let mut stream = BytesMut::new();
        packets.iter().for_each(|packet| packet.encode(&mut stream));
        let (mut buf, mut decoded) = (BytesMut::new(), Vec::new());
        for piece in pieces.iter().cycle() {
            buf.unsplit(stream.split_to((*piece).min(stream.len())));
            let (taken, end) = take_all(&mut buf);
            prop_assert_eq!(end, Ok(()));
            decoded.extend(taken);
            if stream.is_empty() {
                break;
            }
        }
        prop_assert!(buf.is_empty());
        prop_assert_eq!(decoded, packets);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..2000)) {
        let _ = take_all(&mut BytesMut::from(&bytes[..]));
    }

    /// Random bytes seldom get past the header; these do.
    #[test]
    fn no_body_makes_it_panic_and_what_decodes_can_be_sent_on(
        kind in 0u64..0x40,
        body in prop_oneof![vec(any::<u8>(), 0..24), vec(any::<u8>(), 0..700)],
    ) {
        if let Ok(Some(packet)) = Packet::decode(&mut framed(kind, &body)) {
            let again = Packet::decode(&mut encoded(&packet));
            // A reason that was not UTF-8 grows by its replacement characters, and may be cut again.
            if !matches!(packet, Packet::Close(_)) {
                prop_assert_eq!(again, Ok(Some(packet)));
            }
        }
    }

    #[test]
    fn one_damaged_byte_neither_panics_nor_reads_beyond_the_packet(
        packet in packet(),
        place in any::<proptest::sample::Index>(),
        value in any::<u8>(),
    ) {
        let mut bytes = encoded(&packet);
        let place = place.index(bytes.len());
        bytes[place] = value;
        let _ = take_all(&mut bytes);
    }
}
