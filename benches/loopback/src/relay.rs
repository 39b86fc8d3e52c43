//! The yardstick: a copying relay, as plain as can be. Two of them in a chain are two processes that each copy
//! every byte from the kernel and back, as both ends of a tunnel must.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::thread;

use anyhow::{Context, Result};
use clap::Args;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};

/// What a relay is told.
#[derive(Args, Debug)]
pub(crate) struct Relay {
    /// Listen here; may be given several times, as --to may
    #[arg(long, value_name = "ADDR", required = true)]
    listen: Vec<SocketAddr>,
    /// And connect there, the first to the first and so on
    #[arg(long, value_name = "ADDR", required = true)]
    to: Vec<SocketAddr>,
    /// Bytes of each direction's buffer
    #[arg(long, value_name = "BYTES", default_value_t = 262_144)]
    buffer: usize,
    /// Two threads for each connection and blocking sockets, instead of tasks
    #[arg(long)]
    threads: bool,
}

/// Relays until the process is ended.
pub(crate) fn run(options: &Relay) -> Result<()> {
    let buffer = options.buffer;
    let pairs: Vec<_> = options.listen.iter().copied().zip(options.to.iter().copied()).collect();
    if options.threads {
        let relays: Vec<_> = pairs
            .into_iter()
            .map(|(listen, to)| {
                let listener = std::net::TcpListener::bind(listen)
                    .with_context(|| format!("cannot listen on {listen}"))?;
                Ok(thread::spawn(move || with_threads(&listener, to, buffer)))
            })
            .collect::<Result<_>>()?;
        relays.into_iter().for_each(|relay| _ = relay.join());
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut relays = Vec::new();
        for (listen, to) in pairs {
            let listener =
                TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
            relays.push(tokio::spawn(with_tasks(listener, to, buffer)));
        }
        for relay in relays {
            relay.await?;
        }
        Ok(())
    })
}

async fn with_tasks(listener: TcpListener, to: SocketAddr, buffer: usize) {
    loop {
        let Ok((mut near, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let mut far = TcpStream::connect(to).await?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            copy_bidirectional_with_sizes(&mut near, &mut far, buffer, buffer).await
        });
    }
}

fn with_threads(listener: &std::net::TcpListener, to: SocketAddr, buffer: usize) {
    loop {
        let Ok((near, _)) = listener.accept() else { continue };
        thread::spawn(move || -> io::Result<()> {
            let far = std::net::TcpStream::connect(to)?;
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            thread::scope(|scope| {
                scope.spawn(|| copy(&near, &far, buffer));
                copy(&far, &near, buffer)
            })
        });
    }
}

fn copy(mut from: &std::net::TcpStream, mut to: &std::net::TcpStream, buffer: usize) -> io::Result<()> {
    let mut buffer = vec![0; buffer];
    loop {
        match from.read(&mut buffer)? {
            0 => return to.shutdown(Shutdown::Write),
            count => to.write_all(&buffer[..count])?,
        }
    }
}
