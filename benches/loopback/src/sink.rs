//! The destination of everything, in a process of its own. It answers [requests](crate::request) on two ports: one
//! with blocking threads, which a single connection is fastest with, and one with tasks, for ten thousand.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;

use anyhow::{Context, Result};
use clap::Args;
use gkd_load::content::{PIECE, Way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::request::{ECHO, HEADER, Half, TRANSFER, Transfer};

/// How many connections are served by threads at a time: twice those that one measurement has open, because some
/// are still closing when the next come.
const THREADS: usize = 160;

/// Bytes of an echo that are read at a time.
const ECHO_PIECE: usize = 4096;

/// What a sink is told.
#[derive(Args, Debug)]
pub(crate) struct Sink {
    /// Serve here with threads
    #[arg(long, value_name = "ADDR")]
    threads: SocketAddr,
    /// Serve here with tasks
    #[arg(long, value_name = "ADDR")]
    tasks: SocketAddr,
}

/// Serves until the process is ended.
pub(crate) fn run(options: &Sink) -> Result<()> {
    let listener = std::net::TcpListener::bind(options.threads)
        .with_context(|| format!("cannot listen on {}", options.threads))?;
    for _ in 0..THREADS {
        let listener = listener.try_clone()?;
        thread::spawn(move || {
            loop {
                if let Ok((stream, _)) = listener.accept() {
                    // A connection that ends early is its load's to notice.
                    serve(&stream).ok();
                }
            }
        });
    }
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(options.tasks).await?;
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve_in_task(stream));
            }
        }
    })
}

fn serve(mut stream: &std::net::TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    while stream.read(&mut kind)? > 0 {
        if kind[0] == ECHO {
            return echo(stream);
        }
        expect_transfer(kind[0])?;
        let mut header = [0; HEADER];
        stream.read_exact(&mut header)?;
        let Transfer { up, down, check } = Transfer::decode(&header);
        let (mut coming, mut going) = (Half::new(Way::Up, up, check), Half::new(Way::Down, down, false));
        if up > 0 && down > 0 {
            thread::scope(|scope| {
                let writer = scope.spawn(|| write(stream, &mut going));
                read(stream, &mut coming)?;
                writer.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
            })?;
        } else {
            read(stream, &mut coming)?;
            write(stream, &mut going)?;
        }
        stream.write_all(&coming.wrong.to_be_bytes())?;
    }
    Ok(())
}

fn echo(mut stream: &std::net::TcpStream) -> io::Result<()> {
    stream.write_all(&[ECHO])?;
    let mut buffer = [0; ECHO_PIECE];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => stream.write_all(&buffer[..count])?,
        }
    }
}

fn expect_transfer(kind: u8) -> io::Result<()> {
    if kind == TRANSFER { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Writes one direction to its end.
pub(crate) fn write(mut stream: &std::net::TcpStream, half: &mut Half) -> io::Result<()> {
    while half.left() > 0 {
        let count = stream.write(half.ahead())?;
        half.wrote(count);
    }
    Ok(())
}

/// Reads one direction to its end.
pub(crate) fn read(mut stream: &std::net::TcpStream, half: &mut Half) -> io::Result<()> {
    if half.left() == 0 {
        return Ok(());
    }
    let mut buffer = vec![0; PIECE];
    while half.left() > 0 {
        match stream.read(&mut buffer[..half.left()])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => half.came(&buffer[..count]),
        }
    }
    Ok(())
}

// ---- with tasks ----

thread_local! {
    /// What any task of the thread reads into, so that ten thousand hold no buffer.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE]);
}

async fn serve_in_task(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    while stream.read(&mut kind).await? > 0 {
        expect_transfer(kind[0])?;
        let mut header = [0; HEADER];
        stream.read_exact(&mut header).await?;
        let Transfer { up, down, check } = Transfer::decode(&header);
        let (mut coming, mut going) = (Half::new(Way::Up, up, check), Half::new(Way::Down, down, false));
        tokio::try_join!(read_in_task(&stream, &mut coming), write_in_task(&stream, &mut going))?;
        stream.write_all(&coming.wrong.to_be_bytes()).await?;
    }
    Ok(())
}

/// As [`write()`].
pub(crate) async fn write_in_task(stream: &TcpStream, half: &mut Half) -> io::Result<()> {
    while half.left() > 0 {
        match stream.try_write(half.ahead()) {
            Ok(count) => half.wrote(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// As [`read`].
pub(crate) async fn read_in_task(stream: &TcpStream, half: &mut Half) -> io::Result<()> {
    while half.left() > 0 {
        stream.readable().await?;
        let result = BUFFER.with_borrow_mut(|buffer| {
            let count = stream.try_read(&mut buffer[..half.left()])?;
            half.came(&buffer[..count]);
            Ok::<_, io::Error>(count)
        });
        match result {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => tokio::task::coop::consume_budget().await,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
