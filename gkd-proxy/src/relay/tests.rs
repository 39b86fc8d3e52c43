use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::memory::{self, Memory};

/// Both ends of a TCP connection.
async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

/// A program's socket, the far end of the connection that it is relayed to, and the relay.
async fn relayed(config: RelayConfig) -> (TcpStream, Memory, JoinHandle<Relayed>) {
    let (program, mut socket) = sockets().await;
    let (near, far) = memory::pair(Bytes::new());
    let relay =
        tokio::spawn(
            async move { relay(&mut socket, &near, &mut Bytes::from_static(b"first "), &config).await },
        );
    (program, far, relay)
}

/// Content that no shift of it resembles.
fn content(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

async fn assert_reset(program: &mut TcpStream) {
    let error = program.read_to_end(&mut Vec::new()).await.expect_err("a reset, no end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn bytes_and_ends_pass_both_ways() {
    let (mut program, far, relay) = relayed(RelayConfig::default()).await;
    program.write_all(b"up").await.unwrap();
    assert_eq!(far.read(8).await.unwrap(), b"first up");
    far.write(b"down").await.unwrap();
    let mut read = [0; 4];
    program.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"down");

    // The end of one direction leaves the other.
    program.shutdown().await.unwrap();
    assert_eq!(far.read_to_end().await.unwrap(), b"");
    far.write(b"late answer").await.unwrap();
    far.finish().await;
    let mut answer = Vec::new();
    program.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"late answer");

    let relayed = relay.await.unwrap();
    assert!(matches!(relayed.end, End::Finished), "{relayed:?}");
    assert_eq!((relayed.up, relayed.down), (8, 15));
}

#[tokio::test]
async fn the_far_end_may_end_first() {
    let (mut program, far, relay) = relayed(RelayConfig::default()).await;
    far.finish().await;
    assert_eq!(program.read_to_end(&mut Vec::new()).await.unwrap(), 0);
    program.write_all(b"still").await.unwrap();
    program.shutdown().await.unwrap();
    assert_eq!(far.read_to_end().await.unwrap(), b"first still");
    assert!(matches!(relay.await.unwrap().end, End::Finished));
}

/// Origin: wmproxy's `try_send` into ten slots drops stream data in silence.
#[tokio::test]
async fn megabytes_pass_whole_against_a_slow_reader() {
    let (mut program, far, relay) = relayed(RelayConfig::default()).await;
    let (far, sent) = (Arc::new(far), content(5_000_000));
    let (up, down) = (sent.clone(), sent.clone());
    let echo = {
        let far = Arc::clone(&far);
        tokio::spawn(async move {
            let mut got = far.read(6).await.unwrap();
            got.clear();
            while got.len() < up.len() {
                got.extend(far.read(10_007.min(up.len() - got.len())).await.unwrap());
                tokio::task::yield_now().await;
            }
            assert!(got == up, "what went up");
        })
    };
    let back = {
        let far = Arc::clone(&far);
        tokio::spawn(async move {
            // In pieces of all sizes, so that writes gather them.
            for piece in down.chunks(1_009) {
                far.write(piece).await.unwrap();
            }
            far.finish().await;
        })
    };
    let (mut reader, mut writer) = program.split();
    let mut got = Vec::new();
    let write = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    tokio::join!(write, async { reader.read_to_end(&mut got).await.unwrap() });
    assert!(got == sent, "what came down");
    echo.await.unwrap();
    back.await.unwrap();
    let relayed = relay.await.unwrap();
    assert_eq!((relayed.up, relayed.down), (5_000_006, 5_000_000));
}

#[tokio::test]
async fn a_reset_by_the_program_resets_the_connection() {
    let (program, far, relay) = relayed(RelayConfig::default()).await;
    program.set_zero_linger().unwrap();
    drop(program);
    assert_eq!(far.until_reset().await, ResetCode::STREAM);
    assert!(matches!(relay.await.unwrap().end, End::Socket(_)));
}

#[tokio::test]
async fn a_reset_by_the_program_is_seen_while_the_connection_takes_nothing() {
    let (mut program, far, relay) = relayed(RelayConfig::default()).await;
    // Nobody reads at the far end, until neither the connection nor the socket takes any more.
    while timeout(Duration::from_millis(200), program.write_all(&content(100_000))).await.is_ok() {}
    program.set_zero_linger().unwrap();
    drop(program);
    assert_eq!(far.until_reset().await, ResetCode::STREAM);
    assert!(matches!(relay.await.unwrap().end, End::Socket(_)));
}

#[tokio::test]
async fn a_reset_by_the_program_is_seen_after_its_end() {
    let (mut program, far, relay) = relayed(RelayConfig::default()).await;
    program.shutdown().await.unwrap();
    assert_eq!(far.read_to_end().await.unwrap(), b"first ");
    program.set_zero_linger().unwrap();
    drop(program);
    assert_eq!(far.until_reset().await, ResetCode::STREAM);
    assert!(matches!(relay.await.unwrap().end, End::Socket(_)));
}

#[tokio::test]
async fn what_came_before_a_reset_is_delivered() {
    let (mut program, mut socket) = sockets().await;
    program.write_all(b"last words").await.unwrap();
    program.set_zero_linger().unwrap();
    drop(program);
    // The reset is there before the relay reads anything.
    let mut peeked = [0; 16];
    while socket.peek(&mut peeked).await.is_ok_and(|count| count < 10) {}
    let (near, far) = memory::pair(Bytes::new());
    let relayed = relay(&mut socket, &near, &mut Bytes::new(), &RelayConfig::default()).await;
    assert_eq!(relayed.up, 10);
    assert!(matches!(relayed.end, End::Socket(_)), "{relayed:?}");
    assert_eq!(far.reset_code(), Some(ResetCode::STREAM));
}

#[tokio::test]
async fn a_program_that_closed_and_gets_data_resets_the_connection() {
    let (program, far, relay) = relayed(RelayConfig::default()).await;
    drop(program);
    assert_eq!(far.read_to_end().await.unwrap(), b"first ");
    // Its kernel answers the first data with a reset.
    while far.write(b"data").await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(far.until_reset().await, ResetCode::STREAM);
    assert!(matches!(relay.await.unwrap().end, End::Socket(_)));
}

#[tokio::test]
async fn a_reset_of_the_connection_resets_the_program() {
    let (mut program, far, relay) = relayed(RelayConfig::default()).await;
    far.reset(ResetCode::APPLICATION);
    assert_reset(&mut program).await;
    assert!(matches!(relay.await.unwrap().end, End::Connection(_)));
}

#[tokio::test]
async fn a_reset_of_the_connection_is_seen_while_the_program_reads_nothing() {
    let (mut program, far, relay) = relayed(RelayConfig::default()).await;
    while timeout(Duration::from_millis(200), far.write(&content(60_000))).await.is_ok() {}
    far.reset(ResetCode::APPLICATION);
    assert!(matches!(relay.await.unwrap().end, End::Connection(_)));
    assert_reset(&mut program).await;
}

#[tokio::test]
async fn a_relay_that_is_dropped_resets_both_sides() {
    let (mut program, far, relay) = relayed(RelayConfig::default()).await;
    assert_eq!(far.read(6).await.unwrap(), b"first ");
    relay.abort();
    assert_eq!(far.until_reset().await, ResetCode::APPLICATION);
    assert_reset(&mut program).await;
}

/// The clock jumps whenever nothing is left to do.
#[tokio::test(start_paused = true)]
async fn an_idle_half_closed_relay_ends() {
    const HOUR: Duration = Duration::from_secs(3600);
    let (mut program, far, relay) =
        relayed(RelayConfig { half_closed_for: HOUR, ..RelayConfig::default() }).await;
    assert_eq!(far.read(6).await.unwrap(), b"first ");
    // Idle with both directions open: nothing happens.
    sleep(HOUR * 24).await;
    program.shutdown().await.unwrap();
    assert_eq!(far.read_to_end().await.unwrap(), b"");
    // Half-closed, and not idle: nothing happens.
    for _ in 0..10 {
        far.write(b"x").await.unwrap();
        sleep(HOUR / 2).await;
    }
    assert_eq!(far.reset_code(), None);
    assert_eq!(far.until_reset().await, ResetCode::TIMED_OUT);
    let relayed = relay.await.unwrap();
    assert!(matches!(relayed.end, End::Idle));
    assert_eq!(relayed.down, 10);
    assert!(program.read_to_end(&mut Vec::new()).await.is_err(), "a reset, no end");
}

#[test]
fn a_read_grows_with_the_stream_and_shrinks_again() {
    let mut size = MIN_READ;
    for _ in 0..10 {
        size = next_size(size, size);
    }
    assert_eq!(size, MAX_READ);
    assert_eq!(next_size(size, size / 2), size);
    for _ in 0..10 {
        size = next_size(size, 1);
    }
    assert_eq!(size, MIN_READ);
}

#[test]
fn a_keystroke_keeps_no_large_buffer() {
    let mut buffer = BytesMut::with_capacity(MAX_READ);
    buffer.extend_from_slice(b"k");
    let bytes = without_waste(&mut buffer);
    assert_eq!(&bytes[..], b"k");
    assert!(BytesMut::from(bytes).capacity() < 64);
}

#[test]
fn the_front_of_a_batch_is_taken_off() {
    let whole = || ["ab", "", "cde", "f"].map(|part| Bytes::from_static(part.as_bytes()));
    for count in 0..=6 {
        let mut batch = whole();
        let whole = take_front(&mut batch, count);
        assert_eq!(batch[whole..].concat(), b"abcdef"[count..]);
    }
    assert_eq!(take_front(&mut whole(), 6), whole().len());
}
