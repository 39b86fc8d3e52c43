//! Connections that prove no key: that say nothing, or one byte now and then, or more than a handshake takes. They
//! cost a bounded memory, give way and end, and an honest client gets in, behind the same address too.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use gkd_core::carrier::CarrierKind;
use gkd_core::identity::SecretKey;
use gkd_core::{Client, Server};
use gkd_tests::Serving;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::peer::{At, exchange, honest};
use crate::support::{connection, until, within};

const MIB: u64 = 1024 * 1024;

/// Half-open connections that are tried, where this process may have so many descriptors.
const STRANGERS: usize = 10_000;

/// What the server takes by default, in all and of one address.
const MOST: usize = 1024;

/// How long an honest client may take to get in: the design says a second, of a machine that has nothing else to do.
const GETS_IN: Duration = Duration::from_secs(5);

/// Dials from this loopback address.
async fn dial_from(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(from, 0).into())?;
    TcpSocket::from_std_stream(socket.into()).connect(to).await
}

/// How many strangers there can be: every second descriptor, since a test beside this one needs some.
fn strangers() -> usize {
    let limit = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    let strangers = STRANGERS.min(usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(2000).max(300));
    if strangers < STRANGERS {
        println!("only {limit} descriptors are to be had: {strangers} strangers");
    }
    strangers
}

/// Strangers from 127.0.0.1, the honest client's own address, and from forty others in turn.
async fn knock(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut strangers = Vec::with_capacity(count);
    for index in 0..count {
        let last = u8::try_from(1 + index % 41).unwrap();
        let from = if index % 2 == 0 { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(127, 0, 0, last) };
        // The kernel's own queue may be full for a moment.
        let dialled = within("dial", dial_from(from.into(), to)).await;
        strangers.push(dialled.unwrap());
    }
    strangers
}

async fn log_in(at: At, key: &SecretKey, tunnels: usize) -> (Client, Duration) {
    let start = Instant::now();
    let builder = Client::builder().address(at.address).server_key(at.key).carrier(at.kind);
    let client = within("log in", builder.key(key.clone()).tunnels(tunnels).connect()).await.unwrap();
    (client, start.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_client_gets_in_among_ten_thousand_that_say_nothing() {
    let serving = Serving::with(&[]);
    let (at, key) = At::process(&serving, CarrierKind::Tls);
    let before = serving.server.memory();
    let count = strangers();
    let mut silent = knock(at.address, count).await;
    let (client, took) = log_in(at, &key, 4).await;
    println!("{count} connections that say nothing: an honest client is in after {took:?}");
    assert!(took < GETS_IN, "{took:?}");
    // Some say a byte now and then; and more knock while 64 tunnels come in at once.
    for stranger in &mut silent {
        stranger.write_all(b"\x16").await.ok();
    }
    let more = tokio::spawn(knock(at.address, 1000));
    let (many, took) = log_in(at, &key, 64).await;
    until("all 64 tunnels", || many.tunnels_up() == 64).await;
    println!("64 tunnels at once beside them: the first after {took:?}");
    drop(more.await.unwrap());
    // The oldest gave way: no more than the bound are left, and whoever is left ends in time.
    let mut left = 0;
    let mut byte = [0];
    for stranger in &mut silent {
        match tokio::time::timeout(Duration::from_millis(1), stranger.read(&mut byte)).await {
            Ok(read) => assert!(matches!(read, Ok(0) | Err(_)), "a stranger was answered: {byte:?}"),
            Err(_) => left += 1,
        }
    }
    assert!(left <= MOST, "{left} half-open connections are kept");
    if let (Some(before), Some(memory)) = (before, serving.server.memory()) {
        let held = memory.most.saturating_sub(before.now);
        println!("{left} of them are kept, {} MiB more resident", held / MIB);
        // 16 KiB for each that the bound admits, and the server's own.
        assert!(held <= MOST as u64 * 16 * 1024 + 48 * MIB, "{held} bytes");
    }
    let told = serving.server.log().matches("gave way").count();
    assert_eq!(told, 1, "{}", serving.server.log());
    client.close().await;
    many.close().await;
}

/// A server in this process with short bounds.
async fn small_server(handshake: Duration) -> Server {
    let builder = Server::builder().listen("127.0.0.1:0").plain(true).handshake_timeout(handshake);
    builder.max_half_open(64, 48).bind().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_a_byte_now_and_then_ends_at_the_deadline_all_the_same() {
    let server = small_server(Duration::from_secs(2)).await;
    let at = At::server(&server, CarrierKind::Plain);
    let mut dripping = Vec::new();
    // A frame of eight KiB, in which the TLS of the third drips.
    let frame = [0x82, 0xfe, 0x20, 0, 0, 0, 0, 0];
    let upgrade = [crate::websocket::ASKS.as_bytes(), &frame].concat();
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for (first, drips) in [
        (vec![], &b"gkd/1 plain\n0123456789012345678901234567890123456789"[..]),
        (vec![], tls),
        (upgrade, tls),
        (vec![], b"GET / HTTP/1.1\r\nHost: a\r\nX: "),
    ] {
        let mut stranger = at.dial().await;
        stranger.write_all(&first).await.unwrap();
        dripping.push(tokio::spawn(async move {
            let start = Instant::now();
            let mut sent = 0;
            for byte in drips.iter().chain(std::iter::repeat(&b'y')) {
                if stranger.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sent += 1;
                let mut answer = [0; 1024];
                let read = tokio::time::timeout(Duration::from_millis(50), stranger.read(&mut answer)).await;
                if matches!(read, Ok(Ok(0) | Err(_))) {
                    break;
                }
            }
            (start.elapsed(), sent)
        }));
    }
    for dripping in dripping {
        let (took, sent) = within("it is closed", dripping).await.unwrap();
        println!("closed after {sent} bytes, {took:?}");
        assert!(sent > 11, "it was closed for another reason after {sent} bytes");
    }
    let client = honest(at, &SecretKey::generate()).await;
    let (here, _there) = connection(&client, &server).await;
    drop(here);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_than_16_kib_are_read_before_a_key_is_proved() {
    // Longer than the test waits, so that it is not the deadline that ends them.
    let server = small_server(Duration::from_secs(600)).await;
    let at = At::server(&server, CarrierKind::Tls);
    // A ClientHello that says it has 64 KiB less a byte, in records of 4 KiB.
    let record = |first: bool| {
        let mut record = vec![0x16, 3, 1, 0x10, 0];
        record.extend(if first { [1, 0, 0xff, 0xff] } else { [0; 4] });
        record.resize(5 + 0x1000, 0);
        record
    };
    for records in [3, 5] {
        let mut stranger = at.dial().await;
        for index in 0..records {
            stranger.write_all(&record(index == 0)).await.ok();
        }
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(2), stranger.read_to_end(&mut answer)).await;
        // Below the bound the server waits for more; above it the connection ends without it.
        assert_eq!(ended.is_ok(), records * (5 + 0x1000) > 16 * 1024, "{records} records: {ended:?}");
        assert!(answer.len() < 16, "an alert at the most: {answer:?}");
    }
    let client = honest(at, &SecretKey::generate()).await;
    let (here, there) = connection(&client, &server).await;
    tokio::spawn(async move {
        let (r, w) = &mut (&there, &there);
        tokio::io::copy(r, w).await.unwrap();
        w.shutdown().await.unwrap();
    });
    exchange(&here, 100_000).await;
}
