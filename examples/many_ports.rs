//! One task that accepts on 75 ports, through `poll_accept`, while the callers of one port never rest. Each port
//! gets its turn, so that none is starved:
//!
//! ```text
//! cargo run --example many_ports
//! ```
//!
//! (For many ports of one server, `Server::builder().listen(…)` can be called once for each. Here every port
//! has a server of its own, with its own key and its own sessions.)

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use gkd::{Client, Connection, Result, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PORTS: usize = 75;
/// Connections that are opened to every port, one after the other.
const EACH: usize = 10;
/// The port that gets many more of them, from so many callers at once, for as long as the program runs.
const BUSY: usize = 0;
const CALLERS: usize = 64;

#[tokio::main]
async fn main() -> Result<()> {
    let mut servers = Vec::new();
    for _ in 0..PORTS {
        servers.push(Server::bind("127.0.0.1:0").await?);
    }
    let mut callers = Vec::new();
    for (port, server) in servers.iter().enumerate() {
        let client = Client::connect(server.local_addr()?, 1).await?;
        if port == BUSY {
            for _ in 0..CALLERS {
                tokio::spawn(call(client.clone(), usize::MAX));
            }
        } else {
            callers.push(tokio::spawn(call(client, EACH)));
        }
    }

    let mut counts = [0; PORTS];
    let mut turn = 0;
    while counts.iter().any(|count| *count < EACH) {
        let accepted = poll_fn(|cx| poll_accept_any(&servers, &mut turn, cx));
        let Ok((port, connection)) = tokio::time::timeout(Duration::from_secs(30), accepted).await else {
            println!("starved: {counts:?}");
            std::process::exit(1);
        };
        counts[port] += 1;
        tokio::spawn(answer(connection));
    }

    for caller in callers {
        caller.await.map_err(std::io::Error::other)??;
    }
    let least = counts.iter().min().copied().unwrap_or_default();
    println!("{PORTS} ports in one task, at least {least} connections accepted on each: {counts:?}");
    Ok(())
}

/// The next connection of any of the servers, and of which. The search begins behind the one that was served
/// last, so a busy one waits for all others; when there is none, every server knows whom to wake.
fn poll_accept_any(servers: &[Server], turn: &mut usize, cx: &mut Context<'_>) -> Poll<(usize, Connection)> {
    for step in 0..servers.len() {
        let port = (*turn + step) % servers.len();
        if let Poll::Ready(Some((connection, _))) = servers[port].poll_accept(cx) {
            *turn = port + 1;
            return Poll::Ready((port, connection));
        }
    }
    Poll::Pending
}

/// Opens connections, one after the other, and waits on each for an answer.
async fn call(client: Client, times: usize) -> Result<()> {
    for _ in 0..times {
        let mut connection = client.get_connection().await?;
        connection.write_all(b"ping").await?;
        connection.read_exact(&mut [0; 4]).await?;
    }
    Ok(())
}

async fn answer(mut connection: Connection) -> std::io::Result<()> {
    connection.read_exact(&mut [0; 4]).await?;
    connection.write_all(b"pong").await
}
