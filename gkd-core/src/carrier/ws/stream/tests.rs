use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// Both ends over a pipe that holds so much.
fn pair(capacity: usize) -> (Stream, Stream) {
    let (near, far) = duplex(capacity);
    let stream = |io, side| Stream::new(Wire::brought(io), side);
    (stream(near, Side::Client), stream(far, Side::Server))
}

/// One end, and what is at the other.
fn alone(side: Side) -> (Stream, DuplexStream) {
    let (near, far) = duplex(1 << 20);
    (Stream::new(Wire::brought(near), side), far)
}

fn both() -> [Side; 2] {
    [Side::Client, Side::Server]
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|index| (index ^ (index >> 8)) as u8).collect()
}

/// A frame of the other end.
fn frame(to: Side, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mask = (to == Side::Server).then_some([1, 2, 3, 4]);
    let mut frame = Head::new(opcode, payload.len(), mask).bytes().to_vec();
    let at = frame.len();
    frame.extend_from_slice(payload);
    copy_masked(payload, &mut frame[at..], &mut mask.unwrap_or_default());
    frame
}

/// All frames that this end sent: opcode and payload.
async fn frames(far: &mut DuplexStream, count: usize) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    for _ in 0..count {
        let first = far.read_u8().await.unwrap();
        let second = far.read_u8().await.unwrap();
        let len = match second & 0x7f {
            126 => far.read_u16().await.unwrap().into(),
            127 => far.read_u64().await.unwrap(),
            short => short.into(),
        };
        let mut mask = [0; 4];
        if second & 0x80 != 0 {
            far.read_exact(&mut mask).await.unwrap();
        }
        let mut payload = vec![0; usize::try_from(len).unwrap()];
        far.read_exact(&mut payload).await.unwrap();
        let bare = payload.clone();
        copy_masked(&bare, &mut payload, &mut mask);
        assert_eq!(first & 0xf0, 0x80, "one whole frame is one message");
        frames.push((first & 0x0f, payload));
    }
    frames
}

#[tokio::test]
async fn a_write_is_one_message_of_all_its_slices() {
    for side in both() {
        let (mut near, mut far) = alone(side);
        let payload = bytes(100_000);
        let slices: Vec<_> = payload.chunks(2000).map(IoSlice::new).collect();
        let all = near.write_vectored(&slices).await.unwrap();
        near.flush().await.unwrap();
        assert_eq!(all, payload.len());
        assert!(frames(&mut far, 1).await == [(2, payload)], "{side:?}");
        assert_eq!(near.held(), 0, "an idle end holds no buffer");
    }
}

#[tokio::test]
async fn masks_differ_from_frame_to_frame() {
    let (mut near, mut far) = alone(Side::Client);
    let mut masks = std::collections::HashSet::new();
    for _ in 0..20 {
        near.write_all(b"x").await.unwrap();
        let mut frame = [0; 7];
        far.read_exact(&mut frame).await.unwrap();
        masks.insert(frame[2..6].to_vec());
    }
    assert_eq!(masks.len(), 20);
}

#[tokio::test]
async fn more_slices_than_one_system_call_takes_fill_one_message() {
    let (mut near, mut far) = alone(Side::Server);
    let payload = bytes(500);
    let mut rest = &payload[..];
    while !rest.is_empty() {
        let slices: Vec<_> = rest.chunks(1).map(IoSlice::new).collect();
        rest = &rest[near.write_vectored(&slices).await.unwrap()..];
    }
    assert_eq!(frames(&mut far, 1).await, [(2, payload)]);
}

#[tokio::test]
async fn pings_are_answered_by_who_reads_the_newest_only() {
    for side in both() {
        let (mut near, mut far) = alone(side);
        let pings = [b"a", b"b", b"c"].map(|payload| frame(side, Opcode::Ping, payload)).concat();
        far.write_all(&[pings, frame(side, Opcode::Binary, b"data")].concat()).await.unwrap();
        let mut data = [0; 4096];
        let len = near.read(&mut data).await.unwrap();
        assert_eq!((&data[..len], frames(&mut far, 1).await), (&b"data"[..], vec![(10, b"c".to_vec())]));
        // An end that only waits to read answers too.
        let waits = tokio::spawn(async move { near.read(&mut [0; 4]).await });
        far.write_all(&frame(side, Opcode::Ping, b"")).await.unwrap();
        assert_eq!(frames(&mut far, 1).await, [(10, Vec::new())]);
        waits.abort();
    }
}

#[tokio::test]
async fn a_close_is_answered_with_its_code_and_then_nothing_is_sent() {
    for side in both() {
        for code in [&[][..], &1000_u16.to_be_bytes(), &4999_u16.to_be_bytes()] {
            let (mut near, mut far) = alone(side);
            far.write_all(&[frame(side, Opcode::Binary, b"last"), frame(side, Opcode::Close, code)].concat())
                .await
                .unwrap();
            let mut all = Vec::new();
            near.read_to_end(&mut all).await.unwrap();
            assert_eq!(all, b"last");
            assert_eq!(frames(&mut far, 1).await, [(8, code.to_vec())]);
            let error = near.write_all(b"more").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            near.shutdown().await.unwrap();
            drop(near);
            assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0, "one Close is said, not two");
        }
    }
}

#[tokio::test]
async fn a_shutdown_says_close_behind_what_was_written() {
    for side in both() {
        let (mut near, mut far) = alone(side);
        near.write_all(b"last").await.unwrap();
        near.shutdown().await.unwrap();
        let close = 1000_u16.to_be_bytes().to_vec();
        assert_eq!(frames(&mut far, 2).await, [(2, b"last".to_vec()), (8, close)]);
        // The other end's answer is the end.
        far.write_all(&frame(side, Opcode::Close, &1000_u16.to_be_bytes())).await.unwrap();
        assert_eq!(near.read(&mut [0; 4]).await.unwrap(), 0);
        drop(near);
        assert_eq!(far.read(&mut [0; 10]).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_broken_rule_is_told_with_its_code_behind_what_came_before() {
    for side in both() {
        let masked = if side == Side::Server { 0x80 } else { 0 };
        let text = [0x81, masked, 0, 0, 0, 0];
        let (mut near, mut far) = alone(side);
        far.write_all(&[frame(side, Opcode::Binary, b"good"), text.to_vec()].concat()).await.unwrap();
        let mut all = Vec::new();
        let error = near.read_to_end(&mut all).await.unwrap_err();
        assert_eq!(all, b"good");
        let violation = error.get_ref().and_then(|cause| cause.downcast_ref());
        assert_eq!((error.kind(), violation), (io::ErrorKind::InvalidData, Some(&Violation::Text)));
        assert_eq!(frames(&mut far, 1).await, [(8, 1003_u16.to_be_bytes().to_vec())]);
        assert!(near.write_all(b"more").await.is_err());
    }
}

/// Each on a connection of its own, as a client might send it.
#[tokio::test]
async fn every_bad_frame_is_answered_with_its_close_code() {
    let masked = |head: &[u8], payload: &[u8]| [head, &[0; 4], payload].concat();
    for (wire, code) in [
        (vec![0x82, 0x03, 1, 2, 3], 1002),
        (masked(&[0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 1], &[]), 1009),
        (masked(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], &[]), 1002),
        (masked(&[0x82, 0xfe, 0, 3], b"abc"), 1002),
        (masked(&[0xc2, 0x80], &[]), 1002),
        (masked(&[0x83, 0x80], &[]), 1002),
        (masked(&[0x8b, 0x80], &[]), 1002),
        (masked(&[0x80, 0x80], &[]), 1002),
        (masked(&[0x09, 0x80], &[]), 1002),
        (masked(&[0x89, 0xfe, 0, 126], &[0; 126]), 1002),
        (masked(&[0x81, 0x80], &[]), 1003),
        (masked(&[0x88, 0x81], b"x"), 1002),
        (masked(&[0x88, 0x82], &1005_u16.to_be_bytes()), 1002),
        (masked(&[0x88, 0x82], &999_u16.to_be_bytes()), 1002),
        (masked(&[0x88, 0x83], &[0x03, 0xe8, 0xff]), 1007),
    ] {
        let (mut near, mut far) = alone(Side::Server);
        far.write_all(&wire).await.unwrap();
        let error = near.read(&mut [0; 10]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{wire:x?}");
        let told = frames(&mut far, 1).await;
        assert_eq!(told, [(8, u16::to_be_bytes(code).to_vec())], "{wire:x?}: {error}");
        assert!(near.write(b"more").await.is_err() && near.read(&mut [0; 10]).await.is_err(), "{wire:x?}");
    }
}

#[tokio::test]
async fn the_end_within_a_message_is_an_error_and_between_two_an_end() {
    for side in both() {
        let message = frame(side, Opcode::Binary, b"abc");
        for cut in 0..=message.len() {
            let (mut near, mut far) = alone(side);
            far.write_all(&message[..cut]).await.unwrap();
            drop(far);
            let result = near.read_to_end(&mut Vec::new()).await;
            let between = cut == 0 || cut == message.len();
            assert_eq!(result.is_ok(), between, "{side:?} cut at {cut}: {result:?}");
        }
    }
}

/// Takes so many bytes at a time, and none every second time.
struct Slow {
    io: DuplexStream,
    step: usize,
    rests: bool,
}

impl AsyncRead for Slow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let most = self.step.min(to.remaining());
        let mut part = ReadBuf::new(to.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        let len = part.filled().len();
        to.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Slow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.rests = !self.rests;
        if self.rests {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let step = self.step.min(bytes.len());
        Pin::new(&mut self.io).poll_write(cx, &bytes[..step])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A caller that gives up what it waited to write, and comes with something else, breaks no frame.
#[tokio::test]
async fn what_was_given_up_half_way_leaves_no_trace() {
    for side in both() {
        for step in 1..12 {
            let (io, far) = duplex(1 << 20);
            let slow = Slow { io, step, rests: false };
            let mut near = Stream::new(Wire::brought(slow), side);
            let other = if side == Side::Client { Side::Server } else { Side::Client };
            let mut far = Stream::new(Wire::brought(far), other);
            let mut expected = Vec::new();
            for turn in 0..40_u8 {
                let message = vec![turn; usize::from(turn % 7) + 1];
                let polled = futures::poll!(std::future::poll_fn(|cx| {
                    Pin::new(&mut near).poll_write(cx, &message)
                }));
                if let Poll::Ready(count) = polled {
                    expected.extend_from_slice(&message[..count.unwrap()]);
                }
            }
            // What a header still promises is filled.
            let last = vec![0xff; 4096];
            near.write_all(&last).await.unwrap();
            expected.extend_from_slice(&last);
            near.flush().await.unwrap();
            let mut got = vec![0; expected.len()];
            far.read_exact(&mut got).await.unwrap();
            assert!(got == expected, "{side:?}, {step} bytes at a time");
        }
    }
}

/// Pings flood in while nobody takes the answers: nothing piles up.
#[tokio::test]
async fn a_flood_of_pings_that_reads_no_answer_costs_one_answer() {
    for side in both() {
        let (near, mut far) = duplex(512);
        let mut near = Stream::new(Wire::brought(near), side);
        let reads = tokio::spawn(async move {
            let result = tokio::time::timeout(Duration::from_secs(60), near.read(&mut [0; 10])).await;
            (result.unwrap().unwrap(), near)
        });
        let flood = frame(side, Opcode::Ping, &[7; 125]).repeat(1000);
        far.write_all(&flood).await.unwrap();
        far.write_all(&frame(side, Opcode::Binary, b"end")).await.unwrap();
        let (len, near) = reads.await.unwrap();
        assert_eq!(len, 3);
        assert!(near.held() <= 256, "{}", near.held());
    }
}

#[tokio::test]
async fn who_does_not_read_costs_a_lent_buffer_at_the_most() {
    let (near, far) = duplex(64);
    let mut near = Stream::new(Wire::brought(near), Side::Client);
    let payload = bytes(1 << 20);
    let mut taken = 0;
    while let Poll::Ready(count) =
        futures::poll!(std::future::poll_fn(|cx| Pin::new(&mut near).poll_write(cx, &payload[taken..])))
    {
        taken += count.unwrap();
    }
    assert!(taken <= spare::LEN && near.held() <= spare::LEN, "{taken} taken, {} held", near.held());
    drop(far);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is written in whatever pieces comes out, in both directions at once.
    #[test]
    fn what_goes_in_comes_out(
        writes in prop::collection::vec(prop::collection::vec(0..9000_usize, 1..5), 1..20),
        step in prop::sample::select(vec![1, 2, 3, 13, 100, 5000, 300_000]),
        capacity in prop::sample::select(vec![1, 17, 4096, 1 << 20]),
        read in prop::sample::select(vec![1, 10, 4096, 300_000]),
    ) {
        // One byte at a time takes long over much.
        let most = if step.min(capacity).min(read) < 100 { 100 } else { usize::MAX };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (near, far) = duplex(capacity);
            let slow = |io| Wire::brought(Slow { io, step, rests: false });
            let near = Stream::new(slow(near), Side::Client);
            let far = Stream::new(slow(far), Side::Server);
            let end = async |stream: Stream| {
                let (mut from, mut to) = tokio::io::split(stream);
                let write = async {
                    let mut sent = Vec::new();
                    for slices in &writes {
                        let data: Vec<_> = slices.iter().map(|len| bytes((*len).min(most))).collect();
                        let whole = data.concat();
                        let mut at = to.write_vectored(&data.iter().map(|d| IoSlice::new(d)).collect::<Vec<_>>()).await.unwrap();
                        while at < whole.len() {
                            at += to.write(&whole[at..]).await.unwrap();
                        }
                        sent.extend(whole);
                    }
                    to.flush().await.unwrap();
                    sent
                };
                let all: usize = writes.iter().flatten().map(|len| (*len).min(most)).sum();
                let read = async {
                    let mut got = Vec::new();
                    let mut buffer = vec![0; read];
                    while got.len() < all {
                        let len = from.read(&mut buffer).await.unwrap();
                        assert!(len > 0);
                        got.extend_from_slice(&buffer[..len]);
                    }
                    got
                };
                futures::join!(write, read)
            };
            let ((sent, got), (back, back_got)) = futures::join!(end(near), end(far));
            assert!(sent == back_got && back == got);
        });
    }
}

#[tokio::test]
async fn both_ends_close_in_good_order() {
    let (mut near, mut far) = pair(4096);
    let client = async {
        near.write_all(b"question").await.unwrap();
        let mut answer = [0; 6];
        near.read_exact(&mut answer).await.unwrap();
        near.shutdown().await.unwrap();
        assert_eq!(near.read(&mut answer).await.unwrap(), 0);
    };
    let server = async {
        let mut question = [0; 8];
        far.read_exact(&mut question).await.unwrap();
        far.write_all(b"answer").await.unwrap();
        assert_eq!(far.read(&mut question).await.unwrap(), 0);
        far.shutdown().await.unwrap();
    };
    tokio::join!(client, server);
}

/// A reader that finds something to answer must not take away the waker of a shutdown that waits.
#[tokio::test]
async fn a_shutdown_that_waits_is_woken_beside_a_reader() {
    let (near, mut far) = duplex(64);
    let mut stream = Stream::new(Wire::brought(near), Side::Client);
    stream.write_all(&bytes(1000)).await.unwrap();
    let (waits, woken) = noting_waker();
    let mut cx = Context::from_waker(&waits);
    assert!(Pin::new(&mut stream).poll_shutdown(&mut cx).is_pending());
    far.write_all(&frame(Side::Client, Opcode::Ping, b"x")).await.unwrap();
    let mut noop = Context::from_waker(std::task::Waker::noop());
    let mut to = [0; 10];
    assert!(Pin::new(&mut stream).poll_read(&mut noop, &mut ReadBuf::new(&mut to)).is_pending());
    far.read_exact(&mut [0; 32]).await.unwrap();
    assert!(woken.load(Ordering::Relaxed), "the shutdown waits for ever");
}

/// A waker that notes that it was used.
fn noting_waker() -> (std::task::Waker, Arc<AtomicBool>) {
    struct Noting(Arc<AtomicBool>);

    impl std::task::Wake for Noting {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    let woken = Arc::new(AtomicBool::new(false));
    (Arc::new(Noting(woken.clone())).into(), woken)
}
