//! One direction has ended and the other goes on: through two mappings in a row, and with frames by hand. And that nothing but
//! what one read gave waits in either direction, however long a message is.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::copying::{Noted, ROOM};
use super::*;
use crate::ws::{Copied, StreamToWs, WsConfig, WsError, WsToStream};

type Ended = JoinHandle<Result<Copied, WsError>>;

/// A mapping to a plain stream with the WebSocket's client by hand.
struct ByHand {
    io: DuplexStream,
    plain: DuplexStream,
    reset: Arc<AtomicBool>,
    ended: Ended,
}

async fn by_hand() -> ByHand {
    let (mut io, theirs) = duplex(ROOM);
    let (plain, behind) = duplex(ROOM);
    let reset = Arc::new(AtomicBool::new(false));
    let noted = Noted { io: behind, reset: reset.clone() };
    let mapping =
        WsToStream::over(theirs, noted).reset_by(|noted| noted.reset.store(true, Ordering::Relaxed));
    let ended = tokio::spawn(mapping.copy_bidirectional());
    upgrade(&mut io).await;
    ByHand { io, plain, reset, ended }
}

async fn read(io: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<u8> {
    let mut read = vec![0; count];
    timeout(LONG, io.read_exact(&mut read)).await.unwrap().unwrap();
    read
}

async fn read_to_end(io: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut read = Vec::new();
    timeout(LONG, io.read_to_end(&mut read)).await.unwrap().unwrap();
    read
}

/// Two mappings in a row: the streams at both ends, and theirs.
fn in_a_row() -> ([DuplexStream; 2], [Ended; 2]) {
    let (program, to_ws) = duplex(ROOM);
    let (client, server) = duplex(ROOM);
    let (from_ws, destination) = duplex(ROOM);
    let there = tokio::spawn(StreamToWs::over(to_ws, client, "ws://a.example/").copy_bidirectional());
    let back = tokio::spawn(WsToStream::over(server, from_ws).copy_bidirectional());
    ([program, destination], [there, back])
}

#[tokio::test]
async fn the_end_of_one_direction_passes_through_two_and_the_answer_comes_back() {
    let answer: Vec<u8> = (0..3_000_000u32).map(|number| (number.wrapping_mul(77_777) >> 9) as u8).collect();
    for destination_first in [false, true] {
        let (mut ends, mapped) = in_a_row();
        if destination_first {
            ends.reverse();
        }
        let [mut first, second] = ends;
        first.write_all(b"hello").await.unwrap();
        first.shutdown().await.unwrap();
        let (mut reader, mut writer) = tokio::io::split(second);
        // The answer begins when the question has ended, and no sooner.
        assert_eq!(read_to_end(&mut reader).await, b"hello");
        let sent = answer.clone();
        let write = tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        assert!(read_to_end(&mut first).await == answer);
        write.await.unwrap();
        for ended in mapped {
            let copied = timeout(LONG, ended).await.unwrap().unwrap().unwrap();
            assert_eq!(copied.to_ws + copied.to_plain, answer.len() as u64 + 5);
        }
    }
}

#[tokio::test]
async fn both_may_end_at_once() {
    let ([mut program, mut destination], mapped) = in_a_row();
    for end in [&mut program, &mut destination] {
        end.write_all(b"and out").await.unwrap();
        end.shutdown().await.unwrap();
    }
    assert_eq!(read_to_end(&mut program).await, b"and out");
    assert_eq!(read_to_end(&mut destination).await, b"and out");
    for ended in mapped {
        let copied = timeout(LONG, ended).await.unwrap().unwrap().unwrap();
        assert_eq!(copied, Copied { to_ws: 7, to_plain: 7 });
    }
}

#[tokio::test]
async fn a_close_is_answered_behind_all_that_the_plain_side_says() {
    for close in [&b""[..], b"\x03\xe8", b"\x03\xe9bye"] {
        let ByHand { mut io, mut plain, reset, ended } = by_hand().await;
        io.write_all(&[frame(0x81, b"hello"), frame(0x88, close), frame(0x81, b"ignored")].concat())
            .await
            .unwrap();
        assert_eq!(read_to_end(&mut plain).await, b"hello");
        for _ in 0..3 {
            plain.write_all(b"late").await.unwrap();
            assert_eq!(read(&mut io, 6).await, b"\x82\x04late");
        }
        plain.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut io).await, [&[0x88, close.len() as u8], close].concat());
        drop(io);
        let copied = timeout(LONG, ended).await.unwrap().unwrap().unwrap();
        assert_eq!(copied, Copied { to_ws: 12, to_plain: 5 });
        assert!(!reset.load(Ordering::Relaxed));
    }
}

#[tokio::test]
async fn a_plain_side_that_fails_behind_a_close_is_told_with_1011() {
    let messages = crate::ws::Messages { text: true, ..Default::default() };
    let (mut io, theirs) = duplex(ROOM);
    let (mut plain, behind) = duplex(ROOM);
    let config = WsConfig { messages, ..WsConfig::default() };
    let ended = tokio::spawn(WsToStream::over(theirs, behind).config(config).copy_bidirectional());
    upgrade(&mut io).await;
    io.write_all(&frame(0x88, b"\x03\xe8")).await.unwrap();
    assert_eq!(read_to_end(&mut plain).await, b"");
    plain.write_all(b"\xff").await.unwrap();
    // Not with the Close that came: something went wrong behind it.
    assert_eq!(read(&mut io, 4).await[2..], 1007u16.to_be_bytes());
    drop(io);
    assert!(matches!(timeout(LONG, ended).await.unwrap().unwrap(), Err(WsError::NotText)));
}

#[tokio::test(start_paused = true)]
async fn one_that_closed_and_is_gone_takes_nothing_from_what_it_sent() {
    let ByHand { mut io, mut plain, reset, ended } = by_hand().await;
    io.write_all(&[frame(0x82, b"last"), frame(0x88, b"\x03\xe8")].concat()).await.unwrap();
    // Both are taken before it goes.
    assert_eq!(read(&mut plain, 1).await, b"l");
    drop(io);
    plain.write_all(b"to nobody").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!reset.load(Ordering::Relaxed), "what was not read yet would be lost");
    assert_eq!(read_to_end(&mut plain).await, b"ast");
    // A program that goes on all the same is stopped.
    assert!(timeout(LONG, ended).await.unwrap().unwrap().is_ok());
    assert!(reset.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn an_idle_plain_side_behind_a_close_has_its_time_and_pings_go_on() {
    let ByHand { mut io, mut plain, reset, mut ended } = by_hand().await;
    io.write_all(&frame(0x88, b"\x03\xe8")).await.unwrap();
    assert_eq!(read_to_end(&mut plain).await, b"");
    for _ in 0..3 {
        // One in at most 30 s.
        let mut ping = [0; 2];
        timeout(Duration::from_secs(31), io.read_exact(&mut ping)).await.unwrap().unwrap();
        assert_eq!(&ping, b"\x89\0");
    }
    // Its stream ends a moment before the task that held it does.
    let mut discarded = Vec::new();
    let discard = io.read_to_end(&mut discarded);
    let (ended, _) = tokio::join!(timeout(Duration::from_secs(3 * 3600), &mut ended), discard);
    let ended = ended.unwrap().unwrap();
    assert!(matches!(ended, Err(WsError::Idle)), "{ended:?}");
    assert!(reset.load(Ordering::Relaxed));
}

#[tokio::test(start_paused = true)]
async fn one_that_closed_and_is_gone_is_found_by_a_ping() {
    let ByHand { mut io, mut plain, ended, .. } = by_hand().await;
    io.write_all(&frame(0x88, b"\x03\xe8")).await.unwrap();
    assert_eq!(read_to_end(&mut plain).await, b"");
    drop(io);
    assert!(timeout(Duration::from_secs(60), ended).await.unwrap().unwrap().is_ok());
}

#[tokio::test]
async fn a_ping_behind_the_own_close_is_answered() {
    let ByHand { mut io, mut plain, .. } = by_hand().await;
    plain.shutdown().await.unwrap();
    assert_eq!(read(&mut io, 4).await, b"\x88\x02\x03\xe8");
    io.write_all(&frame(0x89, b"there?")).await.unwrap();
    assert_eq!(read(&mut io, 8).await, b"\x8a\x06there?");
}

#[tokio::test]
async fn a_message_goes_on_as_it_comes_and_no_more_of_it_waits_than_one_read() {
    // Streams in memory on both sides, and what one read gives.
    let bound = 2 * ROOM + 64 * 1024;
    for first in [0x82, 0x81, 0x01] {
        let ByHand { mut io, mut plain, .. } = by_hand().await;
        // As long as a frame can be.
        io.write_all(&[head(first, i64::MAX as usize, 0x80), vec![0; 4]].concat()).await.unwrap();
        let mut fed = 0;
        let piece = const { &[b'7'; 1024] };
        while let Ok(result) = timeout(Duration::from_millis(200), io.write_all(piece)).await {
            result.unwrap();
            fed += piece.len();
            assert!(fed <= bound, "{fed} bytes wait for a plain stream that nobody reads");
        }
        // And it has come without its end.
        assert_eq!(read(&mut plain, fed).await, vec![b'7'; fed]);
    }
}

#[tokio::test]
async fn what_breaks_the_protocol_is_told_even_while_the_plain_side_takes_nothing() {
    let ByHand { mut io, plain, reset, ended } = by_hand().await;
    // More than the plain stream has room for, and in the read that brings the rest a frame that is none.
    let all = [frame(0x82, &[7; ROOM]), frame(0x82, b"stuck"), frame(0x83, b"")].concat();
    timeout(LONG, io.write_all(&all)).await.unwrap().unwrap();
    assert_eq!(read(&mut io, 4).await[2..], 1002u16.to_be_bytes());
    drop(io);
    let ended = timeout(LONG, ended).await.unwrap().unwrap();
    assert!(matches!(ended, Err(WsError::Protocol(_))) && reset.load(Ordering::Relaxed), "{ended:?}");
    drop(plain);
}

#[tokio::test]
async fn a_text_of_64_mebibytes_comes_through_whole_in_fragments_and_in_one_frame() {
    // No fragment but the last ends where a character does.
    for most in [4_000_000, usize::MAX] {
        text_comes_through((64 << 20) / EURO.len() + 1, most).await;
    }
}

const EURO: &[u8] = "€".as_bytes();

/// So many characters as one message, in frames of so many bytes at the most.
async fn text_comes_through(count: usize, most: usize) {
    let ByHand { mut io, mut plain, ended, .. } = by_hand().await;
    let whole = EURO.repeat(count);
    // Its mask changes nothing, which spares the test time.
    let bare = |first, len| [head(first, len, 0x80), vec![0; 4]].concat();
    let write = tokio::spawn(async move {
        let mut rest = &whole[..];
        let mut first = 0x01;
        while rest.len() > most {
            let (fragment, behind) = rest.split_at(most);
            io.write_all(&bare(first, most)).await.unwrap();
            io.write_all(fragment).await.unwrap();
            (rest, first) = (behind, 0x00);
        }
        io.write_all(&bare(0x80 | first, rest.len())).await.unwrap();
        io.write_all(rest).await.unwrap();
        io.write_all(&frame(0x88, b"")).await.unwrap();
        io
    });
    let (mut came, mut piece, expected) = (0, vec![0; ROOM], EURO.repeat(ROOM));
    loop {
        let len = timeout(LONG, plain.read(&mut piece)).await.unwrap().unwrap();
        if len == 0 {
            break;
        }
        assert!(expected[came % EURO.len()..].starts_with(&piece[..len]), "at {came}");
        came += len;
    }
    assert_eq!(came, count * EURO.len());
    plain.shutdown().await.unwrap();
    drop(write.await.unwrap());
    assert_eq!(timeout(LONG, ended).await.unwrap().unwrap().unwrap().to_plain, came as u64);
}
