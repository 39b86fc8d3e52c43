//! Accepting: on many ports, beside strangers, at limits.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::Duration;

use gkd_core::proto::packet::DialError;
use gkd_core::{Client, ConnectError, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{connection, pair, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_task_accepts_on_75_servers_and_none_is_starved() {
    let mut servers = Vec::new();
    for _ in 0..75 {
        servers.push(Server::bind("127.0.0.1:0").await.unwrap());
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.local_addr().unwrap()).collect();
    // The first never rests.
    let busy = Client::connect(addresses[0], 1).await.unwrap();
    let flood = tokio::spawn(async move {
        loop {
            let connection = busy.get_connection().await.unwrap();
            if connection.connected().await.is_err() {
                return;
            }
        }
    });
    let clients: Vec<_> = addresses
        .into_iter()
        .map(|address| {
            tokio::spawn(async move {
                let client = Client::connect(address, 1).await.unwrap();
                for _ in 0..3 {
                    client.get_connection().await.unwrap().connected().await.unwrap();
                }
                client.close().await
            })
        })
        .collect();
    let mut served: HashMap<usize, usize> = HashMap::new();
    let accepting = poll_fn(|cx| {
        for (index, server) in servers.iter().enumerate() {
            while let Poll::Ready(accepted) = server.poll_accept(cx) {
                assert!(accepted.is_some());
                *served.entry(index).or_default() += 1;
                if index == 0 {
                    break;
                }
            }
        }
        let all = served.len() == 75 && served.values().all(|count| *count >= 3);
        if all { Poll::Ready(()) } else { Poll::Pending }
    });
    // One task, and no waker of any server is lost: a missed one would hang here.
    within("every server has its turns", async {
        let mut accepting = std::pin::pin!(accepting);
        loop {
            tokio::select! {
                () = &mut accepting => return,
                // The busy server's queue is left with a rest at each turn.
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
    })
    .await;
    flood.abort();
    for client in clients {
        within("clients end", client).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_listens_on_75_ports() {
    let addresses = vec![SocketAddr::from(([127, 0, 0, 1], 0)); 75];
    let server = Server::builder().listen(&addresses[..]).plain(true).bind().await.unwrap();
    assert_eq!(server.local_addrs().len(), 75);
    let clients: Vec<_> = server
        .local_addrs()
        .iter()
        .map(|address| {
            let address = *address;
            tokio::spawn(async move {
                let client = Client::connect(address, 1).await.unwrap();
                let connection = client.get_connection().await.unwrap();
                (&connection).write_all(address.to_string().as_bytes()).await.unwrap();
                (&connection).shutdown().await.unwrap();
                client
            })
        })
        .collect();
    let mut heard = Vec::new();
    for _ in 0..75 {
        let (connection, _) = within("accept", server.accept()).await.unwrap();
        let mut address = String::new();
        within("read", (&connection).read_to_string(&mut address)).await.unwrap();
        heard.push(address);
    }
    let mut expected: Vec<_> = server.local_addrs().iter().map(ToString::to_string).collect();
    heard.sort();
    expected.sort();
    assert_eq!(heard, expected);
    for client in clients {
        within("client", client).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_closed_and_an_honest_client_gets_in() {
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .plain(true)
        .max_half_open(64, 48)
        .handshake_timeout(Duration::from_secs(2))
        .bind()
        .await
        .unwrap();
    let address = server.local_addr().unwrap();
    // Says nothing, more often than there is room.
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let client = within("connect", Client::connect(address, 4)).await.unwrap();
    connection(&client, &server).await;
    let mut other = TcpStream::connect(address).await.unwrap();
    other.write_all(b"SSH-2.0-OpenSSH_9.9\r\n").await.unwrap();
    assert!(matches!(within("closed", other.read(&mut [0; 8])).await, Ok(0) | Err(_)));
    for mut stranger in silent {
        assert!(matches!(within("closed", stranger.read(&mut [0; 8])).await, Ok(0) | Err(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_nobody_accepts_are_refused_above_a_bound() {
    let (client, server) = pair(2).await;
    let mut opened = Vec::new();
    for _ in 0..1100 {
        opened.push(client.open("x").await.unwrap());
    }
    let last = opened.last().unwrap();
    let error = within("refusal", last.connected()).await.unwrap_err();
    assert_eq!(error, ConnectError::Dial(DialError::Busy));
    // Those within the bound are served.
    let (there, _) = within("accept", server.accept()).await.unwrap();
    there.confirm(Ok(()));
    let here = opened.iter().find(|connection| connection.id() == there.id()).unwrap();
    within("answer", here.connected()).await.unwrap();
}
