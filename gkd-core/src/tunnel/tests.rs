//! How long a tunnel may keep other tasks waiting.

use std::sync::atomic::{AtomicUsize, Ordering};

use gkd_proto::SessionConfig;
use gkd_proto::budget::Reservation;
use gkd_proto::handshake::{Hello, Parameters, VERSION};
use gkd_proto::id::{ConnectionId, PacketNumber, PeerId, SessionId, Side, TunnelId};
use gkd_proto::packet::{Data, Packet};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};

use super::*;
use crate::streams::{accept_streams, connect_streams};

/// A stream that tells how it is read.
struct Watched {
    stream: DuplexStream,
    /// How long each read takes.
    time: Duration,
    reads: Arc<AtomicUsize>,
}

impl Watched {
    fn new(stream: DuplexStream, time: Duration) -> Self {
        Self { stream, time, reads: Arc::default() }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(self.time);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Lets every task that is ready have its turn.
async fn turn() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// On one thread, where a task that works on keeps all others waiting.
#[tokio::test]
async fn a_tunnel_whose_reads_take_long_lets_others_have_their_turn_after_each() {
    const SENT: usize = 200_000;
    let (near, far) = duplex(2 * SENT);
    let far = Watched::new(far, 2 * TURN_TIME);
    let reads = far.reads.clone();
    let config = SessionConfig::default;
    let (near, far) = tokio::join!(connect_streams([near], config()), accept_streams([far], config()));
    let (near, far) = (near.unwrap(), far.unwrap());
    let watching = tokio::spawn(async move {
        let (mut before, mut most) = (reads.load(Ordering::Relaxed), 0);
        while before < 10 {
            turn().await;
            let now = reads.load(Ordering::Relaxed);
            most = most.max(now - before);
            before = now;
        }
        most
    });
    let here = near.open("").await.unwrap();
    here.write_bytes(vec![1; SENT].into()).await.unwrap();
    let mut there = far.accept().await.unwrap();
    there.read_exact(&mut vec![0; SENT]).await.unwrap();
    let most = tokio::time::timeout(Duration::from_secs(30), watching).await.unwrap().unwrap();
    assert!(most <= 1, "{most} reads in one turn");
}

fn hello() -> Hello {
    Hello {
        version: VERSION,
        session: SessionId([1; 16]),
        tunnel: TunnelId(0),
        exists: false,
        parameters: Parameters::default(),
        dead: Vec::new(),
    }
}

#[test]
fn what_the_session_takes_long_over_is_read_in_small_parts() {
    let mut want = *READ.end();
    assert_eq!(size_for_time(want, GIVE_TIME), want, "that is not long");
    for _ in 0..10 {
        want = size_for_time(want, GIVE_TIME + Duration::from_micros(1));
    }
    assert_eq!(want, *READ.start());
}

/// The parts of a tunnel that is up, and the stream at its other end.
fn parts() -> (TunnelGuard, Carrier, DuplexStream) {
    let (config, accepted, runtime) = (Arc::default(), Arc::default(), tokio::runtime::Handle::current());
    let (id, nobody) = (SessionId([1; 16]), PeerId([0; 32]));
    let memory = Reservation::default();
    let manager = TunnelManager::spawn(config, Side::Server, id, nobody, memory, accepted, runtime);
    let (_, handle) = manager.add_accepted(&hello(), false, None).unwrap();
    let (near, far) = duplex(1024 * 1024);
    (manager.guard(handle), Carrier::brought(far, nobody), near)
}

/// A tunnel that is up, not polled yet, and the stream at its other end.
fn tunnel() -> (Tunnel, DuplexStream) {
    let (guard, carrier, near) = parts();
    (Tunnel::new(guard, carrier, BytesMut::new()), near)
}

#[tokio::test]
async fn a_tunnel_that_is_dropped_before_its_first_turn_says_that_the_session_ends() {
    let (guard, carrier, mut near) = parts();
    drop(run(guard, carrier, BytesMut::new()));
    let (mut said, mut packets) = (BytesMut::new(), Vec::new());
    while near.read_buf(&mut said).await.unwrap() > 0 {}
    while let Some(packet) = Packet::decode(&mut said).unwrap() {
        packets.push(packet);
    }
    assert!(packets.iter().any(|packet| matches!(packet, Packet::Close(_))), "{packets:?}");
}

#[tokio::test]
async fn a_read_behind_a_part_of_a_packet_ends_with_a_packet_like_it() {
    let (mut tunnel, _near) = tunnel();
    assert_eq!(tunnel.whole_packets(1000), 1000, "nothing is known");
    let data = Data { connection: ConnectionId(2), number: PacketNumber(0), payload: vec![1; 10_000].into() };
    let mut packet = BytesMut::new();
    Packet::Data(data).encode(&mut packet);
    let size = packet.len();
    // The first byte is the type alone.
    tunnel.buf = BytesMut::from(&packet[..1]);
    assert_eq!(tunnel.whole_packets(1000), 1000, "its length is not known");
    for part in [5, 6_000, size - 1] {
        tunnel.buf = BytesMut::from(&packet[..part]);
        let missing = size - part;
        assert_eq!(tunnel.whole_packets(missing + 3 * size), missing + 3 * size);
        assert_eq!(tunnel.whole_packets(missing + 3 * size - 1), missing + 2 * size);
        assert_eq!(tunnel.whole_packets(missing), missing);
        assert_eq!(tunnel.whole_packets(missing - 1), missing - 1, "more is not there to be read into");
    }
}

#[tokio::test]
async fn a_packet_that_never_comes_whole_holds_no_large_buffer() {
    let (mut tunnel, mut near) = tunnel();
    // Enough of what is passed over to be read in large parts, and the first byte of one packet more.
    let mut sent = BytesMut::new();
    (0..200_000).for_each(|_| Packet::Unknown(0x0f).encode(&mut sent));
    sent.extend_from_slice(&[0x0f]);
    let whole = sent.len() as u64;
    near.write_all(&sent).await.unwrap();
    let idle = poll_fn(|cx| {
        let working = tunnel.poll(cx).is_pending();
        assert!(working, "the tunnel stands");
        let rests = tunnel.received == whole && tunnel.tick.is_none();
        if rests { Poll::Ready(()) } else { Poll::Pending }
    });
    tokio::time::timeout(Duration::from_secs(30), idle).await.unwrap();
    assert_eq!(&tunnel.buf[..], [0x0f]);
    assert!(tunnel.buf.capacity() <= *READ.start(), "{} bytes are held", tunnel.buf.capacity());
}
