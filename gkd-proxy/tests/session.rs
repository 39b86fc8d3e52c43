//! Programs, a listener, a real session of four tunnels over loopback, an exit, and real destinations.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on is a test that fails")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use gkd_core::carrier::CarrierKind;
use gkd_core::proto::packet::CloseCode;
use gkd_core::{Client, Server};
use gkd_proxy::relay::relay;
use gkd_proxy::rules::parse_range;
use gkd_proxy::{Dialer, Exit, ListenConfig, Listening, RelayConfig, Rules, VirtualConnection, listen};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long anything here may take at the most.
const PATIENCE: Duration = Duration::from_secs(60);

/// A proxy in front of a session whose server reaches loopback.
struct Proxy {
    listening: Listening,
    _client: Client,
}

async fn proxy(form: &str) -> Proxy {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let addr = server.local_addr().unwrap();
    tokio::spawn(async move {
        let rules = Rules::allow([parse_range("127.0.0.0/8").unwrap()]);
        let exit = Arc::new(Exit::new(Dialer::new(rules), RelayConfig::default()));
        while let Some((connection, _)) = server.accept().await {
            let exit = Arc::clone(&exit);
            tokio::spawn(async move { exit.serve(connection).await });
        }
    });
    let client = Client::connect(addr, 4).await.unwrap();
    let listening = listen(&form.parse().unwrap(), client.clone(), &ListenConfig::default()).await.unwrap();
    Proxy { listening, _client: client }
}

impl Proxy {
    async fn program(&self) -> TcpStream {
        TcpStream::connect(self.listening.local_addrs()[0]).await.unwrap()
    }

    /// A program whose CONNECT over SOCKS was answered with success.
    async fn connected(&self, to: SocketAddr) -> TcpStream {
        let mut program = self.program().await;
        assert_eq!(connect(&mut program, to).await, 0);
        program
    }
}

/// Asks for a connection over SOCKS; the reply.
async fn connect(program: &mut TcpStream, to: SocketAddr) -> u8 {
    let SocketAddr::V4(to) = to else { panic!("loopback is IPv4 here") };
    let port = to.port().to_be_bytes();
    program.write_all(&[&[5, 1, 0, 5, 1, 0, 1], &to.ip().octets()[..], &port].concat()).await.unwrap();
    let mut answer = [0; 12];
    program.read_exact(&mut answer).await.unwrap();
    answer[3]
}

async fn destination() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Content that no shift of it resembles; each seed has its own.
fn content(len: usize, seed: u32) -> Vec<u8> {
    (0..len as u32).map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_an_upload_and_both_at_once() {
    let proxy = proxy("mixed://0").await;
    let (listener, addr) = destination().await;
    let (up, down) = (content(20_000_000, 1), content(20_000_000, 2));
    let destination = tokio::spawn({
        let (up, down) = (up.clone(), down.clone());
        async move {
            let (mut reader, mut writer) = listener.accept().await.unwrap().0.into_split();
            let mut got = Vec::new();
            let write = async {
                writer.write_all(&down).await.unwrap();
                writer.shutdown().await.unwrap();
            };
            tokio::join!(write, async { reader.read_to_end(&mut got).await.unwrap() });
            assert!(got == up, "the upload");
        }
    });
    let (mut reader, mut writer) = proxy.connected(addr).await.into_split();
    let mut got = Vec::new();
    let write = async {
        writer.write_all(&up).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let both = async { tokio::join!(write, async { reader.read_to_end(&mut got).await.unwrap() }) };
    timeout(PATIENCE, both).await.unwrap();
    assert!(got == down, "the download");
    timeout(PATIENCE, destination).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_ends_by_shutdown_gets_its_answer() {
    let proxy = proxy("mixed://0").await;
    let (listener, addr) = destination().await;
    tokio::spawn(async move {
        let mut socket = listener.accept().await.unwrap().0;
        let mut got = Vec::new();
        socket.read_to_end(&mut got).await.unwrap();
        socket.write_all(format!("{} bytes", got.len()).as_bytes()).await.unwrap();
    });
    let mut program = proxy.connected(addr).await;
    program.write_all(&content(300_000, 0)).await.unwrap();
    program.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, program.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, "300000 bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_downloads_at_once() {
    let proxy = Arc::new(proxy("mixed://0").await);
    let (listener, addr) = destination().await;
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (seed, len) = (socket.read_u32().await?, socket.read_u32().await?);
                socket.write_all(&content(len as usize, seed)).await
            });
        }
    });
    let downloads: Vec<_> = (0..64)
        .map(|seed: u32| {
            let proxy = Arc::clone(&proxy);
            tokio::spawn(async move {
                let len = 1 << (seed % 20);
                let mut program = proxy.connected(addr).await;
                program.write_u32(seed).await.unwrap();
                program.write_u32(len).await.unwrap();
                let mut got = Vec::new();
                program.read_to_end(&mut got).await.unwrap();
                assert!(got == content(len as usize, seed), "download {seed}");
            })
        })
        .collect();
    for download in downloads {
        timeout(PATIENCE, download).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_loses_nothing_when_the_other_side_is_done() {
    let proxy = proxy("mixed://0").await;
    let (listener, addr) = destination().await;
    let sent = content(8_000_000, 3);
    let destination = tokio::spawn({
        let sent = sent.clone();
        async move {
            let mut socket = listener.accept().await.unwrap().0;
            socket.write_all(&sent).await.unwrap();
            socket.shutdown().await.unwrap();
            // Done, and gone, long before the program has read it all.
            assert_eq!(socket.read(&mut [0]).await.unwrap(), 0);
        }
    });
    let mut program = proxy.connected(addr).await;
    program.shutdown().await.unwrap();
    let mut got = Vec::new();
    loop {
        let mut buffer = vec![0; 200_000];
        match timeout(PATIENCE, program.read(&mut buffer)).await.unwrap().unwrap() {
            0 => break,
            count => got.extend_from_slice(&buffer[..count]),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(got == sent);
    timeout(PATIENCE, destination).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_arrived_whole_is_carried_whole_although_the_session_has_ended() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.local_addr().unwrap(), 2).await.unwrap();
    let here = client.get_connection().await.unwrap();
    let (there, _) = server.accept().await.unwrap();
    let sent = content(300_000, 5);
    there.write_bytes(sent.clone().into()).await.unwrap();
    timeout(PATIENCE, (&there).shutdown()).await.unwrap().unwrap();
    there.session().close(CloseCode::GOING_DOWN, "");
    timeout(PATIENCE, here.session().wait_ended()).await.unwrap();

    // As the relay asks while its socket takes nothing.
    assert_eq!(here.lost().now_or_never(), None, "it can still be read");
    let (listener, addr) = destination().await;
    let mut program = TcpStream::connect(addr).await.unwrap();
    let mut socket = listener.accept().await.unwrap().0;
    let relaying =
        tokio::spawn(
            async move { relay(&mut socket, &here, &mut Bytes::new(), &RelayConfig::default()).await },
        );
    let mut got = Vec::new();
    timeout(PATIENCE, program.read_to_end(&mut got)).await.unwrap().unwrap();
    assert!(got == sent, "{} bytes of {}", got.len(), sent.len());
    drop(program);
    timeout(PATIENCE, relaying).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn strict_tells_what_a_dial_brought() {
    let proxy = proxy("socks5://0?strict=1").await;
    let closed = destination().await.1;
    assert_eq!(connect(&mut proxy.program().await, closed).await, 5);
    assert_eq!(connect(&mut proxy.program().await, "10.0.0.1:80".parse().unwrap()).await, 2);
    let (_listener, addr) = destination().await;
    assert_eq!(connect(&mut proxy.program().await, addr).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_strict_a_failed_dial_is_a_reset() {
    let proxy = proxy("mixed://0").await;
    let mut program = proxy.connected(destination().await.1).await;
    let error = timeout(PATIENCE, program.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_dial_is_a_reset_although_bytes_were_sent_ahead() {
    let proxy = proxy("mixed://0").await;
    let closed = destination().await.1;
    for _ in 0..50 {
        let mut program = proxy.connected(closed).await;
        // The reset shows at the write when it is there before it, else at the read.
        let error = match program.write_all(b"GET / HTTP/1.1\r\n\r\n").await {
            Err(error) => error,
            Ok(()) => timeout(PATIENCE, program.read_u8()).await.unwrap().unwrap_err(),
        };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resets_pass_both_ways() {
    let proxy = proxy("mixed://0").await;
    let (listener, addr) = destination().await;
    for by_the_program in [true, false] {
        let mut here = proxy.connected(addr).await;
        here.write_all(b"x").await.unwrap();
        let mut there = listener.accept().await.unwrap().0;
        assert_eq!(there.read_u8().await.unwrap(), b'x');
        if !by_the_program {
            std::mem::swap(&mut here, &mut there);
        }
        here.set_zero_linger().unwrap();
        drop(here);
        let error = timeout(PATIENCE, there.read_u8()).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_requests_reach_a_web_server() {
    let proxy = proxy("mixed://0").await;
    let (listener, addr) = destination().await;
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    });
    let mut program = proxy.program().await;
    let closed = destination().await.1;
    for (target, status) in
        [(addr, "200"), (closed, "502"), ("10.0.0.1:80".parse().unwrap(), "403"), (addr, "200")]
    {
        program.write_all(format!("GET http://{target}/ HTTP/1.1\r\n\r\n").as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(PATIENCE, program.read_u8()).await.unwrap().unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert_eq!(head.split(' ').nth(1), Some(status), "{head}");
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let len = len.or(head.lines().find_map(|line| line.strip_prefix("Content-Length: "))).unwrap();
        program.read_exact(&mut vec![0; len.parse().unwrap()]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_tunnel_programs_wait_and_are_told() {
    let server_addr = destination().await.1;
    let plain = CarrierKind::Plain;
    let client =
        Client::builder().address(server_addr).carrier(plain).wait_for_network(true).start().unwrap();
    let short = ListenConfig { dial_timeout: Duration::from_millis(300), ..ListenConfig::default() };
    let hasty = listen(&"mixed://0".parse().unwrap(), client.clone(), &short).await.unwrap();
    let (_listener, addr) = destination().await;
    let mut program = TcpStream::connect(hasty.local_addrs()[0]).await.unwrap();
    assert_eq!(timeout(PATIENCE, connect(&mut program, addr)).await.unwrap(), 1);

    // One that still waits when the server comes is served.
    let patient = ListenConfig { dial_timeout: PATIENCE, ..ListenConfig::default() };
    let patient = listen(&"mixed://0".parse().unwrap(), client.clone(), &patient).await.unwrap();
    let mut program = TcpStream::connect(patient.local_addrs()[0]).await.unwrap();
    let reply = tokio::spawn(async move { connect(&mut program, addr).await });
    let server = Server::bind(server_addr).await.unwrap();
    assert_eq!(timeout(PATIENCE, reply).await.unwrap().unwrap(), 0);
    drop(server);
}
