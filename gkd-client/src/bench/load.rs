//! One measurement over a client: how long small messages take to the server and back, and how much a load beside them
//! moves meanwhile.
//!
//! A message goes out every 20 ms whether or not the one before has come back, as keystrokes do: one that is held up
//! does not keep those behind it from being held up too.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use gkd_core::proto::packet::{DialError, ResetCode};
use gkd_core::{Client, ConnectError, Connection};
use gkd_proxy::Destination;
use gkd_proxy::content::Content;
use gkd_proxy::destination::Control;
use gkd_proxy::measure::{MAX_BYTES, Refusal, Report, Request, Task};
use gkd_proxy::program::Failure;
use tokio::io::AsyncReadExt;
use tokio::task::coop::consume_budget;
use tokio::time::{MissedTickBehavior, timeout, timeout_at};

use super::window::Window;

/// How long the server may take to answer, and how long the last messages may be on their way.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much longer than the measurement the server is asked to take part.
const SLACK: Duration = Duration::from_secs(15);

/// How often a message goes out.
const EVERY: Duration = Duration::from_millis(20);

/// Bytes of a message: its number, four times; as large as a keystroke is in ssh.
const MESSAGE: usize = 32;

/// What is read or written of a load at a time.
const PIECE: usize = 256 * 1024;

/// What goes on beside the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    None,
    Download,
    Upload,
}

impl Load {
    /// What is done, for people.
    pub(super) fn in_words(self) -> &'static str {
        match self {
            Self::None => "round trips",
            Self::Download => "download",
            Self::Upload => "upload",
        }
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Measured {
    /// Bytes that the load moved, and in what time, the beginning of it left out.
    pub(super) bytes: u64,
    pub(super) time: Duration,
    /// Of each message.
    pub(super) round_trips: Vec<Duration>,
}

/// Measures for so long. `moved` tells how many bytes the load has moved so far.
pub(super) async fn measure(
    client: &Client,
    load: Load,
    time: Duration,
    moved: &AtomicU64,
) -> Result<Measured, Failure> {
    let echo = ask(client, Task::Echo, time).await?;
    let (window, round_trips) = match load {
        Load::None => (Window::new(time), echoes(&echo, time).await?),
        Load::Download => {
            let source = ask(client, Task::Send, time).await?;
            tokio::try_join!(download(&source, time, moved), echoes(&echo, time))?
        }
        Load::Upload => {
            let sink = ask(client, Task::Swallow, time).await?;
            tokio::try_join!(upload(&sink, time, moved), echoes(&echo, time))?
        }
    };
    let (bytes, time) = window.moved();
    Ok(Measured { bytes, time, round_trips })
}

/// A connection over which the server does this.
async fn ask(client: &Client, task: Task, time: Duration) -> Result<Connection, Failure> {
    let asked = async {
        let destination = Destination::Control(Control::Measure).encode();
        let connection = client.open(destination).await.map_err(Failure::unavailable)?;
        let request = Request { task, bytes: MAX_BYTES, time: time + SLACK };
        let written = connection.write_bytes(Bytes::copy_from_slice(&request.encode())).await;
        // A refusal that was faster says more than that nothing could be written behind it.
        connection.connected().await.map_err(refused)?;
        written.map_err(broken)?;
        match Refusal::from_answer((&mut &connection).read_u8().await.map_err(broken)?) {
            None => Ok(connection),
            Some(refusal) => {
                let message =
                    format_args!("the server refuses the measurement: {refusal}: update gkd at both ends");
                Err(Failure::refused(message))
            }
        }
    };
    let late =
        |_| Failure::unavailable(format_args!("the server did not answer within {} s", PATIENCE.as_secs()));
    timeout(PATIENCE, asked).await.map_err(late)?
}

fn refused(error: ConnectError) -> Failure {
    match error {
        ConnectError::Dial(DialError::Denied) => Failure::refused(
            "measuring is switched off at the server: whoever runs it can leave out `bench = false` in its server.toml",
        ),
        ConnectError::Dial(DialError::NotOffered) => {
            Failure::refused("the server does not know bench: update gkd there")
        }
        ConnectError::Dial(DialError::Busy) => {
            Failure::unavailable("the server takes no further measurement now: try again later")
        }
        other => Failure::unavailable(format_args!("the server does not take part: {other}")),
    }
}

fn broken(error: std::io::Error) -> Failure {
    Failure::unavailable(format_args!("the measurement broke off: {error}"))
}

/// Sends messages for so long, and waits for those that are on their way.
async fn echoes(connection: &Connection, time: Duration) -> Result<Vec<Duration>, Failure> {
    let until = Instant::now() + time;
    let mut next = tokio::time::interval(EVERY);
    next.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut sent, mut round_trips, mut came) = (VecDeque::new(), Vec::new(), BytesMut::new());
    let mut number = 0_u64;
    loop {
        tokio::select! {
            _ = next.tick() => {
                let now = Instant::now();
                if now < until {
                    let message = [number.to_be_bytes(); MESSAGE / 8].concat();
                    connection.write_bytes(message.into()).await.map_err(broken)?;
                    sent.push_back(now);
                    number += 1;
                } else if sent.is_empty() {
                    return Ok(round_trips);
                } else if now > until + PATIENCE {
                    let message = format_args!("{} messages did not come back within {} s", sent.len(), PATIENCE.as_secs());
                    return Err(Failure::unavailable(message));
                }
            }
            read = connection.read_bytes(PIECE) => {
                let bytes = read.map_err(broken)?.ok_or_else(|| broken(std::io::ErrorKind::UnexpectedEof.into()))?;
                came.extend_from_slice(&bytes);
                while came.len() >= MESSAGE {
                    let expected = round_trips.len() as u64;
                    let whole = came.split_to(MESSAGE);
                    if whole.chunks(8).any(|part| part != expected.to_be_bytes()) {
                        return Err(Failure::bug("another message came back than was sent"));
                    }
                    round_trips.extend(sent.pop_front().map(|sent: Instant| sent.elapsed()));
                }
            }
        }
    }
}

/// Reads what the server sends, for so long.
async fn download(connection: &Connection, time: Duration, moved: &AtomicU64) -> Result<Window, Failure> {
    let began = Instant::now();
    let (mut window, mut bytes) = (Window::new(time), 0);
    let reading = async {
        while let Some(more) = connection.read_bytes(PIECE).await? {
            bytes += more.len() as u64;
            window.note(began.elapsed(), bytes);
            moved.store(bytes, Ordering::Relaxed);
            consume_budget().await;
        }
        Ok(())
    };
    let ended = timeout_at((began + time).into(), reading).await;
    if ended.is_err() {
        // Nothing that came last is no reason to leave the wait for it out.
        window.note(time, bytes);
    }
    ended.unwrap_or(Ok(())).map_err(broken)?;
    connection.reset(ResetCode::APPLICATION);
    Ok(window)
}

/// Writes what the server swallows, for so long. What counts is what the server says has arrived, by its clock.
async fn upload(connection: &Connection, time: Duration, moved: &AtomicU64) -> Result<Window, Failure> {
    let piece = Content::new(0).next(PIECE);
    let mut window = Window::new(time);
    let writing = async {
        // More than the server takes would be answered with a reset.
        for _ in 0..MAX_BYTES / PIECE as u64 {
            connection.write_bytes(piece.clone()).await?;
            consume_budget().await;
        }
        Ok(())
    };
    let reading = async {
        let (mut connection, mut report) = (connection, [0; Report::LEN]);
        while moved.load(Ordering::Relaxed) < MAX_BYTES {
            connection.read_exact(&mut report).await?;
            let Report { elapsed, bytes } = Report::decode(&report);
            window.note(elapsed, bytes);
            moved.store(bytes, Ordering::Relaxed);
        }
        Ok(())
    };
    let both = async { tokio::try_join!(writing, reading).map(|_| ()) };
    timeout(time, both).await.unwrap_or(Ok(())).map_err(broken)?;
    connection.reset(ResetCode::APPLICATION);
    Ok(window)
}

#[cfg(test)]
mod tests {
    use gkd_proxy::program::Status;

    use super::*;

    #[test]
    fn a_server_that_does_not_take_part_is_told_from_one_that_cannot_now() {
        for (error, status, part) in [
            (DialError::NotOffered, Status::Refused, "does not know bench: update gkd there"),
            (DialError::Denied, Status::Refused, "switched off at the server"),
            (DialError::Busy, Status::Unavailable, "try again later"),
            (DialError::Failed, Status::Unavailable, "does not take part"),
        ] {
            let failure = refused(ConnectError::Dial(error));
            assert_eq!(failure.status, status, "{failure}");
            assert!(failure.message.contains(part), "{failure}");
        }
    }
}
