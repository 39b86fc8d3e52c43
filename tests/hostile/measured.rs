//! A user who makes bad use of what `gkd-client bench` asks a server for: requests that are none, or too much, or cut
//! short, more at a time than there may be, and reading nothing. Each is answered or ends, and nothing is left of it.

use std::time::Duration;

use bytes::Bytes;
use gkd_core::carrier::CarrierKind;
use gkd_core::{Client, ConnectError, Connection};
use gkd_proto::packet::{DialError, ResetCode};
use gkd_proxy::Destination;
use gkd_proxy::destination::Control;
use gkd_proxy::measure::{ACCEPTED, MAX_BYTES, MAX_TIME, Refusal, Request, Task};
use gkd_tests::Serving;
use tokio::io::AsyncReadExt;

use crate::peer::{At, honest};
use crate::support::{read_all, until, within};

/// More than a server runs at a time.
const MANY: usize = 200;

fn request(task: Task, bytes: u64, time: Duration) -> [u8; Request::LEN] {
    Request { task, bytes, time }.encode()
}

async fn open(client: &Client) -> Connection {
    within("open", client.open(Destination::Control(Control::Measure).encode())).await.unwrap()
}

/// Asks over a connection of its own; the answer's byte.
async fn ask(client: &Client, request: &[u8]) -> (Connection, u8) {
    let connection = open(client).await;
    connection.write_bytes(Bytes::copy_from_slice(request)).await.unwrap();
    let answer = within("an answer", (&mut &connection).read_u8()).await.unwrap();
    (connection, answer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_or_too_much_is_refused_and_ends() {
    let serving = Serving::with(&[]);
    let (at, key) = At::process(&serving, CarrierKind::Tls);
    let client = honest(at, &key).await;
    let too_long = request(Task::Send, 1, MAX_TIME + Duration::from_millis(1));
    for (bytes, refusal) in [
        (*b"GET / HTTP/1.", Refusal::Unknown),
        ([0xff; Request::LEN], Refusal::Unknown),
        (request(Task::Echo, MAX_BYTES + 1, MAX_TIME), Refusal::TooMuch),
        (request(Task::Swallow, u64::MAX, MAX_TIME), Refusal::TooMuch),
        (too_long, Refusal::TooMuch),
    ] {
        let (connection, answer) = ask(&client, &bytes).await;
        assert_eq!(answer, refusal as u8, "{bytes:?}");
        assert_eq!(within("the end", read_all(&connection)).await.unwrap(), b"");
    }
    // No byte more than was asked for, however it goes on.
    let (connection, answer) = ask(&client, &request(Task::Echo, 10, MAX_TIME)).await;
    assert_eq!(answer, ACCEPTED);
    connection.write_bytes(Bytes::from(vec![7; 1000])).await.unwrap();
    assert_eq!(within("the end", read_all(&connection)).await.unwrap(), [7; 10]);
    drop(connection);
    until("nothing is kept of them", || client.stats().connections == 0).await;
    let log = serving.server.log();
    assert!((1..=3).contains(&log.matches("a measurement was refused").count()), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_at_a_time_and_those_that_read_nothing_hold_little() {
    let serving = Serving::with(&[]);
    let (at, key) = At::process(&serving, CarrierKind::Tls);
    let client = honest(at, &key).await;
    let before = serving.server.memory();
    let (mut running, mut refused) = (Vec::new(), 0);
    for _ in 0..MANY {
        let connection = open(&client).await;
        let all = request(Task::Send, MAX_BYTES, MAX_TIME);
        // It may have been refused already.
        connection.write_bytes(Bytes::copy_from_slice(&all)).await.ok();
        match within("an answer", connection.connected()).await {
            Ok(()) => running.push(connection),
            Err(error) => {
                assert_eq!(error, ConnectError::Dial(DialError::Busy));
                refused += 1;
            }
        }
    }
    assert!(running.len() >= 10 && refused >= MANY / 2, "{} ran, {refused} did not", running.len());
    // Those that end make room, and whoever reads has what it asks for.
    let beside = honest(at, &key).await;
    drop(running.pop());
    let task = request(Task::Send, 1_000_000, MAX_TIME);
    let sent = within("room for another", async {
        loop {
            let connection = open(&beside).await;
            connection.write_bytes(Bytes::copy_from_slice(&task)).await.ok();
            if connection.connected().await.is_ok() {
                return read_all(&connection).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    // The answer's byte, and what was asked for.
    assert_eq!(sent.await.len(), 1 + 1_000_000);
    if let (Some(before), Some(after)) = (before, serving.server.memory()) {
        let more = after.most.saturating_sub(before.now) / 1024;
        println!("{} that nobody reads: {more} KiB more", running.len());
        // What one session may have queued, with room for the allocator: not what was asked for, 16 GiB each.
        assert!(more < 64 * 1024, "{more} KiB");
    }
    running.iter().for_each(|connection| connection.reset(ResetCode::APPLICATION));
    until("nothing is kept of them", || client.stats().connections == 0).await;
}
