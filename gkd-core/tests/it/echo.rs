//! Bytes there and back.

use std::sync::Arc;

use bytes::Bytes;
use gkd_core::identity::SecretKey;
use gkd_core::link::Link;
use gkd_core::{Client, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{connection, content, pair, read_all, spawn_echo, until, within};

/// Writes and reads at once, as a program does that does not want to deadlock.
async fn echo(client: &Client, seed: u64, len: usize) {
    let connection = client.get_connection().await.unwrap();
    let sent = content(seed, len);
    let write = async {
        let mut writer = &connection;
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let (received, ()) = within("echo", async { tokio::join!(read_all(&connection), write) }).await;
    assert!(received.unwrap() == sent, "{len} bytes came back otherwise");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_four_plain_tunnels() {
    let (client, server) = pair(4).await;
    spawn_echo(Arc::new(server));
    until("four tunnels", || client.tunnels_up() == 4).await;
    for (seed, len) in [0, 1, 3, 1000, 70_000, 20_000_000].into_iter().enumerate() {
        echo(&client, seed as u64, len).await;
    }
    // How much each takes is a matter of time, and on a busy machine one may take nearly all of a transfer; that each takes
    // part in the long run is not.
    let all_carry = || client.stats().tunnels.iter().filter(|tunnel| tunnel.sent > 10_000).count() == 4;
    for seed in 6..60 {
        if all_carry() {
            break;
        }
        echo(&client, seed, 20_000_000).await;
    }
    assert!(all_carry(), "{:?}", client.stats());
    assert!(client.close().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_from_a_link() {
    let (server_key, user) = (SecretKey::generate(), SecretKey::generate());
    let server = Server::builder().listen("127.0.0.1:0").key(server_key.clone()).bind().await.unwrap();
    let address = server.local_addr().unwrap().to_string().parse().unwrap();
    let link: Link = Link::new(server_key.public(), user.clone(), vec![address]).to_string().parse().unwrap();
    let client = Client::builder().link(&link).tunnels(3).connect().await.unwrap();
    let here = client.get_connection().await.unwrap();
    let (there, _) = within("accept", server.accept()).await.unwrap();
    assert_eq!((here.peer(), there.peer()), (server_key.public(), user.public()));
    drop((here, there));
    spawn_echo(Arc::new(server));
    echo(&client, 1, 5_000_000).await;
    assert!(client.close().await);
}

#[tokio::test]
async fn on_a_current_thread_runtime() {
    let (client, server) = pair(2).await;
    spawn_echo(Arc::new(server));
    echo(&client, 1, 3_000_000).await;
    assert!(client.close().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_of_the_first_page() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Some((conn, _)) = server.accept().await {
            tokio::spawn(async move {
                let (r, w) = &mut (&conn, &conn);
                tokio::io::copy(r, w).await.unwrap();
            });
        }
    });
    let client = Client::connect(address, 4).await.unwrap();
    let mut conn = client.get_connection().await.unwrap();
    for i in 1..10_u8 {
        conn.write_all(&[i, i, i]).await.unwrap();
    }
    for i in 1..10_u8 {
        let mut bytes = vec![0; 3];
        within("three bytes", conn.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(bytes, [i, i, i]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_connections_at_once() {
    let (client, server) = pair(4).await;
    spawn_echo(Arc::new(server));
    let client = Arc::new(client);
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..500 {
        let client = client.clone();
        tasks.spawn(async move { echo(&client, seed, 20_000 + 37 * seed as usize).await });
    }
    within("500 echoes", async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    })
    .await;
    assert!(client.close().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ends_open_and_both_accept() {
    let (client, server) = pair(2).await;
    let session = {
        let (_here, there) = connection(&client, &server).await;
        there.session()
    };
    let there = session.open("towards the client").await.unwrap();
    let here = within("accept", client.accept()).await.unwrap();
    assert_eq!(here.destination(), "towards the client");
    here.confirm(Ok(()));
    within("the answer", there.connected()).await.unwrap();
    there.write_bytes(Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(within("read", here.read_bytes(100)).await.unwrap().unwrap(), "hello");
    assert_eq!(server.sessions().len(), 1);
    assert_eq!(server.sessions_of(&session.peer()).len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_without_being_copied_by_the_caller() {
    let (client, server) = pair(2).await;
    let (here, there) = connection(&client, &server).await;
    let sent = Bytes::from(content(3, 3_000_000));
    let writing = {
        let sent = sent.clone();
        async move {
            here.write_bytes(sent).await.unwrap();
            (&here).shutdown().await.unwrap();
        }
    };
    let reading = async {
        let mut received = Vec::new();
        while let Some(bytes) = there.read_bytes(usize::MAX).await.unwrap() {
            assert!(!bytes.is_empty());
            received.extend(bytes);
        }
        received
    };
    let (received, ()) = within("transfer", async { tokio::join!(reading, writing) }).await;
    assert!(received == sent);
}
