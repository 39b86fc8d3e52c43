//! What a panic inside the session does, and that a waker is never lost.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{Client, Server, SessionEnd};

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("nothing happened within 30 s")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_under_the_lock_ends_the_session_and_nothing_else() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.local_addr().unwrap(), 2).await.unwrap();
    let here = client.get_connection().await.unwrap();
    let (there, _) = within(server.accept()).await.unwrap();
    let broken = client.session();
    let reading = tokio::spawn(async move { (&here).read(&mut [0; 8]).await });
    tokio::task::yield_now().await;

    let panicked = catch_unwind(AssertUnwindSafe(|| {
        broken.manager().with(|_, _| panic!("this panic belongs to the test"));
    }));
    assert!(panicked.is_err());
    // Nobody calls into the session: its driver finds out by itself.
    let error = within(reading).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(broken.ended(), Some(SessionEnd::Fault));

    // The client goes on with a new session.
    let here = within(client.get_connection()).await.unwrap();
    (&here).write_all(b"hello").await.unwrap();
    let (anew, _) = within(server.accept()).await.unwrap();
    assert_eq!(within(anew.read_bytes(8)).await.unwrap().unwrap(), "hello");
    drop(there);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ping_pong_over_many_connections_loses_no_waker() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.local_addr().unwrap(), 3).await.unwrap();
    let serving = tokio::spawn(async move {
        while let Some((connection, _)) = server.accept().await {
            tokio::spawn(async move {
                while let Ok(Some(bytes)) = connection.read_bytes(7).await {
                    if connection.write_bytes(bytes).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..16_u8 {
        let client = client.clone();
        tasks.spawn(async move {
            let connection = client.get_connection().await.unwrap();
            for round in 0..300 {
                let message = [task, round as u8, (round >> 8) as u8];
                (&connection).write_all(&message).await.unwrap();
                let mut answer = [0; 3];
                (&connection).read_exact(&mut answer).await.unwrap();
                assert_eq!(answer, message);
            }
        });
    }
    within(async {
        while let Some(done) = tasks.join_next().await {
            done.unwrap()
        }
    })
    .await;
    serving.abort();
}
