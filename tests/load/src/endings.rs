//! The ways in which a connection ends: each direction on its own, or by a reset. A connection each; what the
//! other end saw is a line of `ending=NAME result=ok ms=N`, or of what went wrong.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::socks;
use crate::{Ends, Result};
use gkd_load::content::{Content, PIECE, Way};

/// What a direction carries before it ends, and what the other carries afterwards.
const BEFORE: u64 = 1024 * 1024;
const AFTER: u64 = 4 * 1024 * 1024;

/// A writer that got no further for so long stands still.
const STILL: Duration = Duration::from_millis(500);

/// What two ends do, the one that acts first and its peer; how long the peer took to see it.
type Ending = fn(TcpStream, TcpStream) -> Result<Duration>;

const ENDINGS: [(&str, bool, Ending); 6] = [
    ("half-close-by-program", true, half_close),
    ("half-close-by-destination", false, half_close),
    ("reset-by-program", true, reset),
    ("reset-by-destination", false, reset),
    ("reset-by-program-that-is-written-to", true, reset_of_a_reader),
    ("reset-by-destination-that-is-written-to", false, reset_of_a_reader),
];

/// Tries every ending. True when all were as they should be.
pub(crate) fn run(ends: &Ends) -> Result<bool> {
    let listener =
        TcpListener::bind(ends.to).map_err(|error| format!("cannot listen on {}: {error}", ends.to))?;
    let mut good = true;
    for (name, program_first, ending) in ENDINGS {
        let (program, destination) = pair(ends, &listener)?;
        let result = if program_first { ending(program, destination) } else { ending(destination, program) };
        good &= result.is_ok();
        match result {
            Ok(took) => println!("ending={name} result=ok ms={}", took.as_millis()),
            Err(error) => println!("ending={name} result={:?}", error.to_string()),
        }
    }
    Ok(good)
}

/// A connection, both ends of it. Neither waits for longer than the limit.
fn pair(ends: &Ends, listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let mut program = socks::connect(ends.proxy, ends.to)
        .map_err(|error| format!("the program cannot connect: {error}"))?;
    let (mut destination, _) = listener.accept()?;
    for stream in [&program, &destination] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(ends.limit)))?;
        stream.set_write_timeout(Some(Duration::from_secs(ends.limit)))?;
    }
    // A byte each way, so that all the way there is known.
    program.write_all(&[1])?;
    destination.read_exact(&mut [0])?;
    destination.write_all(&[1])?;
    program.read_exact(&mut [0])?;
    Ok((program, destination))
}

/// One direction ends; the other carries on afterwards, and ends too.
fn half_close(first: TcpStream, peer: TcpStream) -> Result<Duration> {
    let (first, peer) = (&first, &peer);
    thread::scope(|scope| {
        let writer = scope.spawn(|| write_and_end(first, Way::Up, BEFORE));
        read_to_end(peer, Way::Up, BEFORE).map_err(|error| format!("the direction that ended: {error}"))?;
        let ended = writer.join().map_err(|_| io::Error::other("a fault of gkd-load"))??;
        let took = ended.elapsed();
        // Nothing was written so far: the direction is open although its peer has ended.
        let writer = scope.spawn(|| write_and_end(peer, Way::Down, AFTER));
        read_to_end(first, Way::Down, AFTER)
            .map_err(|error| format!("the direction that went on: {error}"))?;
        writer.join().map_err(|_| io::Error::other("a fault of gkd-load"))??;
        Ok(took)
    })
}

fn write_and_end(mut stream: &TcpStream, way: Way, bytes: u64) -> io::Result<Instant> {
    let mut content = Content::new(0, way);
    while content.position() < bytes {
        let count = stream.write(content.ahead(bytes - content.position()))?;
        content.advance(count);
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(Instant::now())
}

fn read_to_end(mut stream: &TcpStream, way: Way, bytes: u64) -> Result<()> {
    let mut content = Content::new(0, way);
    let mut buffer = vec![0; PIECE];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            let position = content.position();
            let whole = position == bytes;
            return if whole { Ok(()) } else { Err(format!("{position} of {bytes} bytes arrived").into()) };
        }
        if content.check(&buffer[..count]) > 0 {
            return Err("wrong bytes arrived".into());
        }
    }
}

/// One end resets; its peer, which reads, sees a reset.
fn reset(first: TcpStream, mut peer: TcpStream) -> Result<Duration> {
    let began = reset_now(first)?;
    expect_reset(peer.read(&mut [0]).map(drop), began)
}

/// The peer writes until nothing goes any more, for the first end does not read; then that resets.
fn reset_of_a_reader(first: TcpStream, peer: TcpStream) -> Result<Duration> {
    let mut peer = &peer;
    let written = AtomicU64::new(0);
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            loop {
                match peer.write(&[7; PIECE]) {
                    Ok(count) => _ = written.fetch_add(count as u64, Ordering::Relaxed),
                    Err(error) => return Err(error),
                }
            }
        });
        let (mut before, mut since) = (0, Instant::now());
        while since.elapsed() < STILL {
            thread::sleep(STILL / 10);
            let now = written.load(Ordering::Relaxed);
            if now != before {
                (before, since) = (now, Instant::now());
            }
        }
        let began = reset_now(first)?;
        expect_reset(writing.join().unwrap_or(Ok(())), began)
    })
}

/// Closing with a linger of zero is a reset.
fn reset_now(stream: TcpStream) -> io::Result<Instant> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    Ok(Instant::now())
}

fn expect_reset(result: io::Result<()>, began: Instant) -> Result<Duration> {
    use io::ErrorKind::{BrokenPipe, ConnectionReset};
    match result {
        Err(error) if matches!(error.kind(), ConnectionReset | BrokenPipe) => Ok(began.elapsed()),
        Err(error) => Err(format!("its peer did not see a reset: {error}").into()),
        Ok(()) => Err("its peer saw the end of the stream instead of a reset".into()),
    }
}
