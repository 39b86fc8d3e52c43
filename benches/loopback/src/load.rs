//! The load: what connects to a chain's entry and asks the sink for something. Its CPU time is never counted into
//! a chain's.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use gkd_load::content::Way;

use crate::request::{ECHO, Half, Transfer, VERDICT};
use crate::sink;

/// Nothing that is asked for takes longer than this.
const LIMIT: Duration = Duration::from_secs(120);

/// A connection to the entry of a chain.
pub(crate) fn open(entry: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect(entry).with_context(|| format!("cannot connect to {entry}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

/// Carries out a transfer; how long it took, from the request to the last byte and the sink's verdict.
///
/// # Errors
/// The connection ended too early, or bytes were wrong.
pub(crate) fn transfer(mut stream: &TcpStream, transfer: Transfer) -> Result<Duration> {
    let Transfer { up, down, check } = transfer;
    let (mut going, mut coming) = (Half::new(Way::Up, up, false), Half::new(Way::Down, down, check));
    let start = Instant::now();
    stream.write_all(&transfer.encode())?;
    if up > 0 && down > 0 {
        thread::scope(|scope| {
            let writer = scope.spawn(|| sink::write(stream, &mut going));
            sink::read(stream, &mut coming)?;
            writer.join().map_err(|_| anyhow!("the writer failed"))??;
            Ok::<_, anyhow::Error>(())
        })?;
    } else {
        sink::write(stream, &mut going)?;
        sink::read(stream, &mut coming)?;
    }
    let mut verdict = [0; VERDICT];
    stream.read_exact(&mut verdict)?;
    let took = start.elapsed();
    let wrong = coming.wrong + u64::from_be_bytes(verdict);
    ensure!(wrong == 0, "{wrong} bytes were wrong");
    Ok(took)
}

/// Opens a connection, has one byte echoed, and closes it.
pub(crate) fn open_once(entry: SocketAddr) -> Result<()> {
    let mut stream = open(entry)?;
    stream.write_all(&[ECHO])?;
    stream.read_exact(&mut [0])?;
    Ok(())
}

/// So many of those one after another, or many at a time; how long all of them took.
pub(crate) fn open_many(entry: SocketAddr, count: usize, at_a_time: usize) -> Result<Duration> {
    let start = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..at_a_time)
            .map(|_| scope.spawn(move || (0..count / at_a_time).try_for_each(|_| open_once(entry))))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread failed"))?)
    })?;
    Ok(start.elapsed())
}

/// Has a message echoed so many times; how long each took.
pub(crate) fn echoes(entry: SocketAddr, len: usize, count: usize, pause: Duration) -> Result<Vec<Duration>> {
    let mut stream = open(entry)?;
    stream.write_all(&[ECHO])?;
    stream.read_exact(&mut [0])?;
    let (message, mut answer) = (vec![7; len], vec![0; len]);
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        if !pause.is_zero() {
            thread::sleep(pause);
        }
        let start = Instant::now();
        stream.write_all(&message)?;
        stream.read_exact(&mut answer)?;
        took.push(start.elapsed());
        ensure!(answer == message, "another message came back");
    }
    Ok(took)
}
