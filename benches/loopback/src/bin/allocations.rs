//! Counts allocations while bytes flow, over everything that has a part in it: a client and a server of gkd in this
//! process, over real sockets. A line for each thing that was measured, `NAME=COUNT`, for each 16 KiB of payload.
//!
//! A warm-up goes before, so that what is made once is not counted.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use gkd_core::{Client, Connection, Server};
use gkd_proxy::rules::parse_range;
use gkd_proxy::{Dialer, Exit, ListenConfig, RelayConfig, Rules, listen};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What is counted by: the largest payload of a packet on a slow tunnel.
const UNIT: usize = 16 * 1024;

const TUNNELS: usize = 4;

/// Bytes before and while it counts.
const WARM_UP: usize = 256 * 1024 * 1024;
const COUNTED: usize = 1024 * 1024 * 1024;
const QUICK: usize = 64 * 1024 * 1024;

/// What the library's program and the proxy's hand over at a time.
const PIECE: usize = 256 * 1024;

fn main() -> Result<()> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let sizes = if quick { [QUICK, QUICK] } else { [WARM_UP, COUNTED] };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let server = Arc::new(runtime.block_on(Server::bind("127.0.0.1:0"))?);
    let client = runtime.block_on(Client::connect(server.local_addr()?, TUNNELS))?;
    println!("library={:.4}", library(&runtime, &client, &server, sizes)?);
    println!("proxy={:.4}", proxy(&runtime, &client, &server, sizes)?);
    Ok(())
}

/// How often something is allocated while `moves` carries so many bytes.
fn counted(bytes: usize, moves: impl FnOnce() -> Result<()>) -> Result<f64> {
    let region = Region::new(ALLOCATOR);
    moves()?;
    let change = region.change();
    Ok((change.allocations + change.reallocations) as f64 / (bytes / UNIT) as f64)
}

/// One connection of the library: `Bytes` go in at one end and come out at the other.
fn library(
    runtime: &Runtime,
    client: &Client,
    server: &Arc<Server>,
    [warm_up, bytes]: [usize; 2],
) -> Result<f64> {
    let payload = Bytes::from(vec![7; PIECE]);
    let (here, there) = runtime.block_on(async {
        let here = client.get_connection().await?;
        let (there, _) = server.accept().await.context("the server was shut down")?;
        Ok::<_, anyhow::Error>((Arc::new(here), Arc::new(there)))
    })?;
    let moves = |bytes: usize| runtime.block_on(carry(here.clone(), there.clone(), payload.clone(), bytes));
    moves(warm_up)?;
    counted(bytes, || moves(bytes))
}

async fn carry(here: Arc<Connection>, there: Arc<Connection>, payload: Bytes, bytes: usize) -> Result<()> {
    let writer = tokio::spawn(async move {
        for _ in 0..bytes / PIECE {
            here.write_bytes(payload.clone()).await?;
        }
        Ok::<_, std::io::Error>(())
    });
    let mut left = bytes / PIECE * PIECE;
    while left > 0 {
        left -= there.read_bytes(PIECE).await?.context("the connection ended")?.len();
    }
    Ok(writer.await??)
}

/// A program's socket, a listener, a connection, an exit, a destination's socket, as in the two binaries.
fn proxy(
    runtime: &Runtime,
    client: &Client,
    server: &Arc<Server>,
    [warm_up, bytes]: [usize; 2],
) -> Result<f64> {
    let destination = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let rules = Rules::allow([parse_range("127.0.0.0/8").map_err(|error| anyhow!("{error}"))?]);
    let exit = Arc::new(Exit::new(Dialer::new(rules), RelayConfig::default()));
    let serving = server.clone();
    runtime.spawn(async move {
        while let Some((connection, _)) = serving.accept().await {
            let exit = exit.clone();
            tokio::spawn(async move { exit.serve(connection).await.map(drop) });
        }
    });
    let listener = format!("tcp://127.0.0.1:0:{}", destination.local_addr()?).parse()?;
    let listening = runtime.block_on(listen(&listener, client.clone(), &ListenConfig::default()))?;
    let entry: SocketAddr = *listening.local_addrs().first().context("it does not listen")?;

    let mut near = std::net::TcpStream::connect(entry)?;
    let (mut far, _) = destination.accept()?;
    let (piece, mut buffer) = (vec![7; PIECE], vec![0; PIECE]);
    let mut moves = |bytes: usize| {
        thread::scope(|scope| {
            let writer = scope.spawn(|| (0..bytes / PIECE).try_for_each(|_| near.write_all(&piece)));
            let mut left = bytes / PIECE * PIECE;
            while left > 0 {
                let count = far.read(&mut buffer)?;
                ensure!(count > 0, "the connection ended");
                left -= count;
            }
            Ok(writer.join().map_err(|_| anyhow!("the writer failed"))??)
        })
    };
    moves(warm_up)?;
    counted(bytes, || moves(bytes))
}
