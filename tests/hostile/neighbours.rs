//! One user who fills every queue that it can, and another who logs in and moves bytes meanwhile.

use std::time::{Duration, Instant};

use gkd_core::Client;
use gkd_core::carrier::CarrierKind;
use gkd_core::identity::SecretKey;
use gkd_core::link::Link;
use gkd_proto::SessionConfig;
use gkd_proto::credit::OVERHEAD;
use gkd_proto::handshake::RejectCode;
use gkd_proto::packet::{Packet, Ping};
use gkd_tests::{Serving, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::peer::{At, Peer, all_credit, connect_to, data, destination, hello, honest};
use crate::support::{content, within};

/// One more who may come in.
pub(crate) fn add_user(serving: &Serving, name: &str) -> SecretKey {
    let dir = serving.folder.path().join("server");
    let added = run("gkd-server", &["user", "add", name, "--dir", dir.to_str().unwrap()]);
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    serving.server.signal("HUP");
    serving.server.wait_for_log("read anew");
    String::from_utf8(added.stdout).unwrap().trim().parse::<Link>().unwrap().user
}

/// A program that takes connections and never reads.
pub(crate) async fn stuck() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((socket, _)) = listener.accept().await {
            kept.push(socket);
        }
    });
    address
}

/// A program that sends back what it gets.
pub(crate) async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut r, mut w) = socket.split();
                tokio::io::copy(&mut r, &mut w).await.ok();
                w.shutdown().await.ok();
            });
        }
    });
    address
}

/// Sessions of the greedy user that are filled, connections in each, and tunnels of the first.
const SESSIONS: usize = 8;
const CONNECTIONS: u64 = 200;
const TUNNELS: u64 = 128;

/// Fills the windows of one session with bytes that nobody reads, asks for bytes that it does not read, and leaves
/// its answers where they are.
async fn fill(at: At, key: &SecretKey, stuck: std::net::SocketAddr, echo: std::net::SocketAddr) -> Peer {
    let mut peer = Peer::join(at, key).await;
    let (stuck, echo) = (destination(stuck), destination(echo));
    let open =
        (0..CONNECTIONS).map(|index| connect_to(index, if index % 2 == 0 { &stuck } else { &echo }.clone()));
    peer.send(open.chain((0..CONNECTIONS).flat_map(all_credit)).collect::<Vec<_>>()).await.unwrap();
    // All of the session's first window; the connections' own are larger together.
    let payload = SessionConfig::default().session_window / CONNECTIONS - OVERHEAD;
    peer.send((0..CONNECTIONS).map(|index| data(index, 0, vec![7; payload as usize]))).await.unwrap();
    peer
}

pub(crate) async fn echoed_bytes(client: &Client, to: std::net::SocketAddr, len: usize) -> usize {
    let connection = client.open(destination(to)).await.unwrap();
    let sent = content(5, len);
    let writing = async {
        (&connection).write_all(&sent).await.unwrap();
        (&connection).shutdown().await.unwrap();
    };
    let reading = async {
        let mut received = Vec::with_capacity(len);
        (&connection).read_to_end(&mut received).await.unwrap();
        received
    };
    let ((), received) = within("the other's transfer", async { tokio::join!(writing, reading) }).await;
    assert!(received == sent);
    received.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_user_that_saturates_all_it_has_costs_another_nothing() {
    const LEN: usize = 16_000_000;
    let serving = Serving::with(&[]);
    let quiet = add_user(&serving, "quiet");
    let (at, greedy) = At::process(&serving, CarrierKind::Tls);
    let (stuck, echo) = (stuck().await, echo().await);

    let client = honest(at, &quiet).await;
    let start = Instant::now();
    assert_eq!(echoed_bytes(&client, echo, LEN).await, LEN);
    let alone = start.elapsed();

    let mut kept = Vec::new();
    for _ in 0..SESSIONS {
        kept.push(fill(at, &greedy, stuck, echo).await);
    }
    for tunnel in 1..TUNNELS {
        kept.push(kept[0].again(at, &greedy, tunnel).await);
    }
    let one_more = Peer::say(at, &greedy, &hello(kept[0].session, TUNNELS, true)).await;
    assert_eq!(one_more.err().unwrap().code, RejectCode::Busy);
    // And knocks without saying a word, and floods.
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(at.address).await.unwrap());
    }
    let mut flooding = kept.pop().unwrap();
    let flood = tokio::spawn(async move {
        while flooding.send(vec![Packet::Ping(Ping { token: 1 }); 500]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });

    let start = Instant::now();
    let other = honest(at, &quiet).await;
    let log_in = start.elapsed();
    let start = Instant::now();
    assert_eq!(echoed_bytes(&other, echo, LEN).await, LEN);
    assert_eq!(echoed_bytes(&client, echo, LEN).await, LEN);
    println!(
        "{LEN} bytes there and back took {alone:?} alone, {:?} beside the greedy one; log-in {log_in:?}",
        start.elapsed() / 2
    );
    assert!(log_in < Duration::from_secs(5), "{log_in:?}");
    assert!(!flood.is_finished(), "the flood was on");
    flood.abort();
    client.close().await;
    other.close().await;
    drop((kept, silent));
}
