//! TLS behind its handshake, with an end that breaks its rules or somebody in between: what came before is read, then
//! an error, each time; never a panic, a loop or more memory.

use rustls::ContentType;

use super::records::{ends, stream};
use super::*;

const HANDSHAKE: ContentType = ContentType::Handshake;
const DATA: ContentType = ContentType::ApplicationData;
const ALERT: ContentType = ContentType::Alert;
const KEY_UPDATE: &[u8] = &[24, 0, 0, 1, 0];

/// A client that is there only to seal; the pipe to the server; the server.
async fn sealer_and_server() -> (Carrier, DuplexStream, Carrier) {
    let ((near, mut a), (mut b, far)) = (duplex(1 << 16), duplex(1 << 20));
    let relay = async { tokio::io::copy_bidirectional(&mut a, &mut b).await };
    let ends = handshake(CarrierKind::Tls, Wire::brought(near), Wire::brought(far));
    let (near, far) = tokio::select! {
        ends = ends => ends,
        ended = relay => panic!("{ended:?}"),
    };
    (near.unwrap(), b, gkd(far))
}

/// Reads to the end; what was read, and what the end was.
async fn read_out(carrier: &mut Carrier) -> (Vec<u8>, io::Result<()>) {
    let (mut all, mut part) = (Vec::new(), vec![0; 10_000]);
    loop {
        match carrier.read(&mut part).await {
            Ok(0) => return (all, Ok(())),
            Ok(count) => all.extend_from_slice(&part[..count]),
            Err(error) => return (all, Err(error)),
        }
    }
}

/// What a server makes of these records behind "ok", of a client that keeps the connection open.
async fn makes_of(records: &[(ContentType, &[u8])]) -> (Vec<u8>, io::Result<()>) {
    let (mut sealer, mut pipe, mut server) = sealer_and_server().await;
    let mut sent = stream(&mut sealer).sealed(DATA, b"ok");
    for &(kind, content) in records {
        sent.extend(stream(&mut sealer).sealed(kind, content));
        if kind == HANDSHAKE && content.starts_with(&KEY_UPDATE[..4]) {
            stream(&mut sealer).next_key();
        }
    }
    pipe.write_all(&sent).await.unwrap();
    let (read, end) = read_out(&mut server).await;
    if end.is_err() {
        assert!(server.read(&mut [0]).await.is_err(), "it goes on behind an error");
        assert!(server.write_all(b"?").await.is_err(), "it writes on behind an error");
        assert!(stream(&mut server).held() < 64 * 1024);
    }
    (read, end)
}

async fn is_refused(records: &[(ContentType, &[u8])], why: &str) {
    let (read, end) = makes_of(records).await;
    let error = end.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert!(error.to_string().contains(why), "{error}");
    assert_eq!(read, b"ok", "{why}");
}

#[tokio::test]
async fn a_message_that_has_no_place_behind_the_handshake_is_an_error() {
    let ticket: &[u8] = &[4, 0, 0, 5, 1, 2, 3, 4, 5];
    is_refused(&[(HANDSHAKE, ticket)], "got Handshake").await;
    is_refused(&[(HANDSHAKE, b"")], "got Handshake").await;
    // Half a message; one with another behind it; one that is neither asked nor answered.
    is_refused(&[(HANDSHAKE, &KEY_UPDATE[..3])], "got Handshake").await;
    is_refused(&[(HANDSHAKE, &KEY_UPDATE.repeat(2))], "InvalidKeyUpdate").await;
    is_refused(&[(HANDSHAKE, &[24, 0, 0, 1, 2])], "InvalidKeyUpdate").await;
    is_refused(&[(ContentType::Heartbeat, b"x")], "got Heartbeat").await;
    is_refused(&[(ContentType::ChangeCipherSpec, &[1])], "").await;
    // Nothing but padding.
    is_refused(&[(ContentType::from(0), b"\0\0\0")], "").await;
}

#[tokio::test]
async fn an_alert_is_an_error_but_for_the_end() {
    is_refused(&[(ALERT, &[2, 20])], "BadRecordMac").await;
    is_refused(&[(ALERT, &[1, 80])], "InternalError").await;
    is_refused(&[(ALERT, &[2])], "an alert of another length").await;
    is_refused(&[(ALERT, &[1, 0, 1, 0])], "an alert of another length").await;
    let closed: &[(ContentType, &[u8])] = &[(ALERT, &[1, 0]), (DATA, b"behind the end"), (ALERT, &[2, 20])];
    let (read, end) = makes_of(closed).await;
    end.unwrap();
    assert_eq!(read, b"ok");
}

#[tokio::test]
async fn records_without_an_end_that_carry_nothing_are_an_error() {
    let empty: (ContentType, &[u8]) = (DATA, b"");
    let update: (ContentType, &[u8]) = (HANDSHAKE, KEY_UPDATE);
    is_refused(&[empty; 40], "TooManyEmptyFragments").await;
    is_refused(&[update; 40], "TooManyEmptyFragments").await;
    // A few of either are none.
    let few = [[empty; 16].as_slice(), &[update; 16], &[(DATA, b"!")]].concat();
    let all = [few.as_slice(), &few, &few, &[(ALERT, &[1, 0])]].concat();
    let (read, end) = makes_of(&all).await;
    end.unwrap();
    assert_eq!(read, b"ok!!!");
}

#[tokio::test]
async fn padding_is_taken_off() {
    let (read, end) = makes_of(&[(ContentType::from(0), b" padded\x17\0\0\0"), (ALERT, &[1, 0])]).await;
    end.unwrap();
    assert_eq!(read, b"ok padded");
}

#[tokio::test]
async fn more_than_a_record_may_carry_is_an_error() {
    // As far as padding may go, but all of it content.
    is_refused(&[(DATA, &[7; 16 * 1024 + 1])], "excess record size").await;
    is_refused(&[(DATA, &[7; 17 * 1024])], "excess record size").await;
}

#[tokio::test]
async fn a_header_of_no_record_is_an_error_before_its_record_is_there() {
    for header in [
        [23, 3, 3, 0x41, 0x01],
        [23, 3, 3, 0xff, 0xff],
        [22, 3, 3, 0, 30],
        [20, 3, 3, 0, 1],
        [21, 3, 3, 0, 2],
        [23, 3, 1, 0, 30],
        [23, 2, 3, 0, 30],
        [0, 0, 0, 0, 0],
        *b"HTTP/",
    ] {
        let (_sealer, mut pipe, mut server) = sealer_and_server().await;
        pipe.write_all(&header).await.unwrap();
        let (read, end) = read_out(&mut server).await;
        assert!(read.is_empty() && end.unwrap_err().kind() == io::ErrorKind::InvalidData, "{header:?}");
    }
    // Too short for what every record has.
    for len in [0, 1, 16] {
        let (_sealer, mut pipe, mut server) = sealer_and_server().await;
        pipe.write_all(&[&[23, 3, 3, 0, len], &[0; 16][..usize::from(len)]].concat()).await.unwrap();
        let (read, end) = read_out(&mut server).await;
        assert!(read.is_empty() && end.unwrap_err().kind() == io::ErrorKind::InvalidData, "{len}");
    }
}

/// Three records, whose ends are told, from one that seals.
fn three_records(sealer: &mut Carrier) -> (Vec<u8>, Vec<(usize, usize)>) {
    let (mut sent, mut ends, mut content) = (Vec::new(), vec![(0, 0)], 0);
    for part in [&b"one"[..], b"2", &[3; 70]] {
        sent.extend(stream(sealer).sealed(DATA, part));
        content += part.len();
        ends.push((sent.len(), content));
    }
    (sent, ends)
}

/// How much content is in the records that are whole in the first `len` bytes.
fn whole(ends: &[(usize, usize)], len: usize) -> usize {
    ends.iter().rev().find(|end| end.0 <= len).map_or(0, |end| end.1)
}

#[tokio::test]
async fn a_flipped_bit_is_an_error_behind_the_records_before_it() {
    let mut place = 0;
    loop {
        let (mut sealer, mut pipe, mut server) = sealer_and_server().await;
        let (mut sent, ends) = three_records(&mut sealer);
        let Some(byte) = sent.get_mut(place) else { break };
        *byte ^= 1 << (place % 8);
        pipe.write_all(&sent).await.unwrap();
        pipe.shutdown().await.unwrap();
        let (read, end) = read_out(&mut server).await;
        assert_eq!(read.len(), whole(&ends, place), "at {place}");
        let kind = end.unwrap_err().kind();
        // A length may have become one that never comes.
        let waits = kind == io::ErrorKind::UnexpectedEof && ends.iter().any(|end| place == end.0 + 3);
        assert!(kind == io::ErrorKind::InvalidData || waits || ends.iter().any(|end| place == end.0 + 4));
        // The other end is told why.
        if kind == io::ErrorKind::InvalidData {
            let mut told = [0; 24];
            assert_eq!(pipe.read_exact(&mut told).await.unwrap(), 24, "at {place}");
        }
        place += 1;
    }
    assert!(place > 130, "{place}");
}

#[tokio::test]
async fn a_cut_at_every_byte_is_an_error_behind_the_records_before_it() {
    let mut place = 0;
    loop {
        let (mut sealer, mut pipe, mut server) = sealer_and_server().await;
        let (sent, ends) = three_records(&mut sealer);
        let Some(before) = sent.get(..place) else { break };
        pipe.write_all(before).await.unwrap();
        pipe.shutdown().await.unwrap();
        let (read, end) = read_out(&mut server).await;
        assert_eq!(read.len(), whole(&ends, place), "at {place}");
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "at {place}");
        place += 1;
    }
    assert!(place > 130, "{place}");
}

#[tokio::test]
async fn records_out_of_turn_twice_or_missing_are_errors() {
    for order in [&[1, 0][..], &[0, 0], &[0, 2], &[0, 1, 1]] {
        let (mut sealer, mut pipe, mut server) = sealer_and_server().await;
        let (sent, ends) = three_records(&mut sealer);
        for &record in order {
            pipe.write_all(&sent[ends[record].0..ends[record + 1].0]).await.unwrap();
        }
        assert_eq!(read_out(&mut server).await.1.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}

/// A byte at a time, with a waker that has to be called for each.
#[tokio::test]
async fn records_that_drip_are_read_when_they_are_whole() {
    let (mut sealer, mut pipe, mut server) = sealer_and_server().await;
    let (sent, ends) = three_records(&mut sealer);
    let drip = async {
        for byte in &sent {
            pipe.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let mut received = vec![0; ends[3].1];
    let (read, ()) = tokio::join!(server.read_exact(&mut received), drip);
    read.unwrap();
    assert_eq!(received, [&b"one2"[..], &[3; 70]].concat());
}

#[tokio::test]
async fn an_end_that_is_told_of_its_error_ends_with_it() {
    let (mut near, mut far) = ends(4096).await;
    // The record in between is lost.
    stream(&mut near).sealed(DATA, b"lost");
    near.write_all(b"next").await.unwrap();
    assert_eq!(far.read(&mut [0; 9]).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    let told = near.read(&mut [0; 9]).await.unwrap_err();
    assert!(told.to_string().contains("BadRecordMac"), "{told}");
    assert!(near.write_all(b"more").await.is_err());
}
