//! Ending: of a client, of a server, of handles that are dropped.

use std::io;
use std::time::Duration;

use gkd_core::{Client, Error, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{connection, content, pair, read_all, until, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_of_a_client_drains() {
    let (client, server) = pair(3).await;
    let (here, there) = connection(&client, &server).await;
    let sent = content(4, 250_000);
    (&here).write_all(&sent).await.unwrap();
    drop(here);
    let serving = tokio::spawn(async move {
        let received = read_all(&there).await.unwrap();
        drop(there);
        received
    });
    assert!(within("close", client.close()).await, "everything came to its end");
    assert!(within("serving", serving).await.unwrap() == sent);
    assert!(matches!(client.get_connection().await, Err(Error::Closed | Error::Open(_))));
    assert!(within("accept", client.accept()).await.is_none());
    until("the session is gone", || server.sessions().is_empty()).await;
    // A second time has nothing to do.
    within("close", client.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_of_a_client_does_not_wait_for_ever() {
    let (client, server) = pair(2).await;
    let (here, there) = connection(&client, &server).await;
    assert!(!within("close", client.close_within(Duration::from_millis(200))).await);
    for end in [&here, &there] {
        let error = within("reset", async { { end }.read(&mut [0; 8]).await }).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_outlive_a_dropped_client() {
    let (client, server) = pair(2).await;
    let (here, there) = connection(&client, &server).await;
    drop(client);
    tokio::time::sleep(Duration::from_millis(100)).await;
    (&here).write_all(b"still here").await.unwrap();
    assert_eq!(within("read", there.read_bytes(100)).await.unwrap().unwrap(), "still here");
    drop((here, there));
    until("the session ends", || server.sessions().is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_shuts_down_when_its_connections_have_ended() {
    let (client, server) = pair(2).await;
    let (here, there) = connection(&client, &server).await;
    let address = server.local_addr().unwrap();
    let handle = server.shutdown_handle();
    let down = tokio::spawn(async move { handle.shutdown(Duration::from_secs(20)).await });
    until("the client hears of it", || client.session().draining().is_some()).await;
    // The live connection runs on, new ones and new sessions do not begin.
    (&here).write_all(b"last words").await.unwrap();
    drop(here);
    assert_eq!(read_all(&there).await.unwrap(), b"last words");
    assert!(client.get_connection().await.is_err());
    assert!(within("a new client", Client::connect(address, 1)).await.is_err());
    drop(there);
    assert!(within("shutdown", down).await.unwrap());
    assert!(within("accept", server.accept()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_nothing_live_is_down_at_once() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    assert!(within("shutdown", server.shutdown_handle().shutdown(Duration::from_secs(3600))).await);
    assert!(within("accept", server.accept()).await.is_none());
    // Its port is free again.
    let address = server.local_addr().unwrap();
    until("the port", || std::net::TcpListener::bind(address).is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_server_frees_its_port() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    drop(server);
    until("the port", || std::net::TcpListener::bind(address).is_ok()).await;
}

#[test]
fn a_runtime_that_is_dropped_with_everything_alive_does_no_harm() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let kept = runtime.block_on(async {
        let (client, server) = pair(2).await;
        let (here, there) = connection(&client, &server).await;
        (client, server, here, there)
    });
    drop(runtime);
    drop(kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_just_ends_still_says_what_it_wrote() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    for (tunnels, current_thread) in [(1, false), (1, true), (4, false), (4, true)] {
        let program = std::thread::spawn(move || {
            let mut builder = match current_thread {
                true => tokio::runtime::Builder::new_current_thread(),
                false => tokio::runtime::Builder::new_multi_thread(),
            };
            builder.enable_all().build().unwrap().block_on(async {
                let client = Client::connect(address, tunnels).await.unwrap();
                let ended = client.get_connection().await.unwrap();
                let held = client.get_connection().await.unwrap();
                // Both: over several tunnels the session's end may overtake the one whose opening nobody has waited for.
                ended.connected().await.unwrap();
                held.connected().await.unwrap();
                (&ended).write_all(b"last words").await.unwrap();
                // Neither dropped nor finished, as if the process had ended here.
                std::mem::forget(held);
            });
        });
        let (first, _) = within("accept", server.accept()).await.unwrap();
        let (second, _) = within("accept", server.accept()).await.unwrap();
        let (ended, held) = if first.id() < second.id() { (first, second) } else { (second, first) };
        match read_all(&ended).await {
            Ok(read) => assert_eq!(read, b"last words"),
            // Over several tunnels the session's end may overtake what was written on another; it is never silent.
            Err(error) => assert!(tunnels > 1 && error.kind() == io::ErrorKind::ConnectionReset, "{error}"),
        }
        program.join().unwrap();
        // That the session has ended, although a tunnel that was still being dialled may come to a new one of its name.
        let error = within("reset", held.wait_reset()).await;
        assert_eq!(error, gkd_core::proto::packet::ResetCode::SESSION);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_arrived_whole_is_read_to_its_end_after_the_other_end_has_closed() {
    for _ in 0..20 {
        let (client, server) = pair(3).await;
        let (here, there) = connection(&client, &server).await;
        let (sent, session) = (content(6, 700_000), client.session());
        // Nobody reads here yet, and the server goes down in good order.
        let serving = tokio::spawn({
            let sent = sent.clone();
            async move {
                (&there).write_all(&sent).await.unwrap();
                within("shutdown of the stream", (&there).shutdown()).await.unwrap();
                assert_eq!(read_all(&there).await.unwrap(), b"thanks");
                drop(there);
                within("shutdown", server.shutdown_handle().shutdown(Duration::from_secs(20))).await
            }
        });
        (&here).write_all(b"thanks").await.unwrap();
        within("shutdown of the stream", (&here).shutdown()).await.unwrap();
        assert!(within("serving", serving).await.unwrap());
        within("the end", session.wait_ended()).await;
        assert!(read_all(&here).await.unwrap() == sent);
    }
}
