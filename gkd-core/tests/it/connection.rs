//! What a connection promises: ends, drops, resets, deadlines, answers, datagrams.

use std::io;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gkd_core::proto::packet::{DialError, ResetCode};
use gkd_core::{ConnectError, ConnectionReset};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{connection, content, pair, read_all, until, within};

fn reset_code(error: &io::Error) -> Option<ResetCode> {
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    error.get_ref().and_then(|inner| inner.downcast_ref::<ConnectionReset>()).map(|reset| reset.0)
}

/// Origin: gkd-rs (2019) had no half-close, and wstunnel loses it: an upload that ends by a shutdown never gets its
/// answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_end_finishes_and_the_other_goes_on() {
    let (client, server) = pair(3).await;
    for swap in [false, true] {
        let (here, there) = connection(&client, &server).await;
        let (first, second) = if swap { (there, here) } else { (here, there) };
        let (question, answer) = (content(1, 300_000), content(2, 900_000));
        (&first).write_all(&question).await.unwrap();
        within("shutdown", (&first).shutdown()).await.unwrap();
        assert!(read_all(&second).await.unwrap() == question);
        let error = (&first).write_all(b"more").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        // The other direction runs on.
        let answering = async {
            (&second).write_all(&answer).await.unwrap();
            (&second).shutdown().await.unwrap();
        };
        let (got, ()) = within("answer", async { tokio::join!(read_all(&first), answering) }).await;
        assert!(got.unwrap() == answer);
        assert_eq!((&second).read(&mut [0; 8]).await.unwrap(), 0, "the end stays the end");
    }
}

/// Origin: the `poll_shutdown` of wmproxy's virtual stream does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_is_ready_when_the_other_end_holds_all() {
    let (client, server) = pair(2).await;
    let (here, there) = connection(&client, &server).await;
    (&here).write_all(&content(1, 200_000)).await.unwrap();
    within("shutdown", (&here).shutdown()).await.unwrap();
    within("again", (&here).shutdown()).await.unwrap();
    drop(client);
    // Nothing more can come from the client, and all of it is here.
    assert!(read_all(&there).await.unwrap() == content(1, 200_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_connection_still_sends_what_was_accepted() {
    let (client, server) = pair(3).await;
    let (here, there) = connection(&client, &server).await;
    let sent = content(9, 150_000);
    (&here).write_all(&sent).await.unwrap();
    drop(here);
    assert!(read_all(&there).await.unwrap() == sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_for_a_dropped_reader_is_answered_with_a_reset() {
    let (client, server) = pair(2).await;
    let (here, there) = connection(&client, &server).await;
    drop(there);
    let error = within("reset", async {
        loop {
            if let Err(error) = (&here).write_all(&[0; 10_000]).await {
                return error;
            }
        }
    })
    .await;
    assert_eq!(reset_code(&error), Some(ResetCode::NO_READER));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drop_while_panicking_resets() {
    let (client, server) = pair(2).await;
    let (here, there) = connection(&client, &server).await;
    let task = tokio::spawn(async move {
        (&here).write_all(b"half of a sentence").await.unwrap();
        panic!("this panic belongs to the test");
    });
    assert!(task.await.is_err());
    let mut bytes = Vec::new();
    let error = within("reset", (&there).read_to_end(&mut bytes)).await.unwrap_err();
    assert_eq!(reset_code(&error), Some(ResetCode::APPLICATION));
    // The session lives on.
    connection(&client, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_passes_with_its_code_and_wakes_everybody() {
    let (client, server) = pair(2).await;
    let (here, there) = connection(&client, &server).await;
    let waiting = tokio::spawn(async move {
        let error = (&here).read(&mut [0; 8]).await.unwrap_err();
        (here, error)
    });
    there.reset(ResetCode(77));
    assert_eq!(within("the own reset", there.wait_reset()).await, ResetCode(77));
    let (here, error) = within("reset", waiting).await.unwrap();
    assert_eq!(reset_code(&error), Some(ResetCode(77)));
    assert_eq!(within("the reset", here.wait_reset()).await, ResetCode(77));
    assert_eq!(reset_code(&(&here).write_all(b"x").await.unwrap_err()), Some(ResetCode(77)));
    assert_eq!(reset_code(&(&there).read(&mut [0; 8]).await.unwrap_err()), Some(ResetCode(77)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_a_deadline_cut_short_tells_how_much_was_accepted() {
    let (client, server) = pair(2).await;
    let (here, there) = connection(&client, &server).await;
    // More than windows and buffers hold: nobody reads.
    let sent = content(5, 40_000_000);
    let deadline = Instant::now() + Duration::from_millis(600);
    let error = within("the deadline", here.write_all_by(&sent, deadline)).await.unwrap_err();
    assert_eq!(error.source.kind(), io::ErrorKind::TimedOut, "{error}");
    let accepted = error.accepted;
    assert!(accepted > 0 && accepted < sent.len(), "{accepted}");
    // What was accepted is delivered, and the rest can be written behind it.
    let rest = async {
        (&here).write_all(&sent[accepted..]).await.unwrap();
        (&here).shutdown().await.unwrap();
    };
    let (received, ()) = within("the rest", async { tokio::join!(read_all(&there), rest) }).await;
    assert!(received.unwrap() == sent);
    let far = Instant::now() + Duration::from_secs(3600);
    let error = here.write_all_by(b"more", far).await.unwrap_err();
    assert_eq!((error.accepted, error.source.kind()), (0, io::ErrorKind::BrokenPipe));
}

/// Origin: one slow connection blocked the loop of its peer in gkd-rs (2019), and a full channel dropped the packet
/// and the connection; wmproxy's `try_send` into ten slots drops stream data in silence; Cloak writes blocking and
/// without credit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_reader_that_stops_stops_nobody_else() {
    let (client, server) = pair(2).await;
    let (stuck, unread) = connection(&client, &server).await;
    let deadline = Instant::now() + Duration::from_millis(300);
    assert!(stuck.write_all_by(&content(1, 20_000_000), deadline).await.is_err());
    let (here, there) = connection(&client, &server).await;
    let sent = content(2, 10_000_000);
    let writing = async {
        (&here).write_all(&sent).await.unwrap();
        (&here).shutdown().await.unwrap();
    };
    let (received, ()) = within("beside it", async { tokio::join!(read_all(&there), writing) }).await;
    assert!(received.unwrap() == sent);
    drop(unread);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_connection_never_deadlocks() {
    let (client, server) = pair(2).await;
    let (here, there) = connection(&client, &server).await;
    let sent = content(8, 8_000_000);
    let (mut r, mut w) = tokio::io::split(here);
    let (mut far_r, mut far_w) = tokio::io::split(there);
    let echo = tokio::spawn(async move {
        tokio::io::copy(&mut far_r, &mut far_w).await.unwrap();
        far_w.shutdown().await.unwrap();
    });
    let writing = {
        let sent = sent.clone();
        tokio::spawn(async move {
            w.write_all(&sent).await.unwrap();
            w.shutdown().await.unwrap();
        })
    };
    let mut received = Vec::new();
    within("echo of a split", r.read_to_end(&mut received)).await.unwrap();
    assert!(received == sent);
    within("tasks", async { tokio::try_join!(echo, writing) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_opener_hears_whether_the_destination_was_reached() {
    let (client, server) = pair(2).await;
    let accept = async || within("accept", server.accept()).await.unwrap().0;

    let here = client.open("good").await.unwrap();
    let there = accept().await;
    assert_eq!(there.destination(), "good");
    there.confirm(Ok(()));
    there.confirm(Err(DialError::Failed));
    within("answer", here.connected()).await.unwrap();

    let here = client.open("refused").await.unwrap();
    (&here).write_all(b"early").await.unwrap();
    let there = accept().await;
    there.confirm(Err(DialError::Refused));
    let error = within("answer", here.connected()).await.unwrap_err();
    assert_eq!(error, ConnectError::Dial(DialError::Refused));
    let error = within("reset", (&here).read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!((&there).read(&mut [0; 8]).await.is_err());

    let here = client.open("dropped unanswered").await.unwrap();
    drop(accept().await);
    let error = within("answer", here.connected()).await.unwrap_err();
    assert_eq!(error, ConnectError::Dial(DialError::Failed));

    let here = client.open("answered by a write").await.unwrap();
    let there = accept().await;
    (&there).write_all(b"hello").await.unwrap();
    drop(there);
    within("answer", here.connected()).await.unwrap();
    assert_eq!(read_all(&here).await.unwrap(), b"hello");

    let here = client.get_connection().await.unwrap();
    let there = accept().await;
    within("answer", here.connected()).await.unwrap();
    within("answer of one that was accepted", there.connected()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn datagrams_pass_beside_the_stream() {
    let (client, server) = pair(2).await;
    let (here, there) = connection(&client, &server).await;
    let receiving = tokio::spawn(async move { (there.recv_datagram().await, there) });
    assert!(here.send_datagram(Bytes::from_static(b"to"), Bytes::from_static(b"payload")).unwrap());
    let (datagram, there) = within("datagram", receiving).await.unwrap();
    let datagram = datagram.unwrap();
    assert_eq!((&datagram.address[..], &datagram.payload[..]), (&b"to"[..], &b"payload"[..]));
    let long = here.send_datagram(Bytes::new(), Bytes::from(vec![0; 70_000])).unwrap_err();
    assert_eq!(long.kind(), io::ErrorKind::InvalidInput);
    there.reset(ResetCode::APPLICATION);
    assert!(within("reset", here.recv_datagram()).await.is_err());
}

/// Origin: gkd-rs (2019) never removed an entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_kept_of_connections_that_ended() {
    let (client, server) = pair(2).await;
    for _ in 0..300 {
        let (here, there) = connection(&client, &server).await;
        (&here).write_all(b"x").await.unwrap();
        (&here).shutdown().await.unwrap();
        assert_eq!(read_all(&there).await.unwrap(), b"x");
    }
    until("all are forgotten", || client.stats().connections == 0).await;
    let session = server.sessions().remove(0);
    until("all are forgotten there", || session.stats().connections == 0).await;
}
