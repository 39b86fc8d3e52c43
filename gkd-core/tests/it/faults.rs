//! Tunnels that are cut, servers that are restarted: what running connections notice of it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use gkd_core::proto::SessionConfig;
use gkd_core::{Client, ClientEvent, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast;

use crate::support::{Relay, connection, content, read_all, spawn_echo, until, within};

/// A pair with a relay between.
async fn relayed(tunnels: usize) -> (Client, Server, Relay) {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let relay = Relay::to(server.local_addr().unwrap()).await;
    let client = Client::connect(relay.address, tunnels).await.unwrap();
    until("all tunnels", || client.tunnels_up() == tunnels).await;
    (client, server, relay)
}

/// Moves content through an echo while `disturb` runs beside it, and compares.
async fn transfer_while(client: &Client, len: usize, disturb: impl AsyncFnOnce(&dyn Fn() -> usize)) {
    let connection = client.get_connection().await.unwrap();
    let sent = content(11, len);
    let received = std::sync::Mutex::new(Vec::with_capacity(len));
    let writing = async {
        (&connection).write_all(&sent).await.unwrap();
        (&connection).shutdown().await.unwrap();
    };
    let reading = async {
        while let Some(bytes) = connection.read_bytes(1 << 20).await.unwrap() {
            received.lock().unwrap().extend(bytes);
        }
    };
    let progress = || received.lock().unwrap().len();
    within("the transfer", async { tokio::join!(writing, reading, disturb(&progress)) }).await;
    assert!(*received.lock().unwrap() == sent, "the bytes are others");
}

async fn reached(progress: &dyn Fn() -> usize, len: usize) {
    until("progress", || progress() >= len).await;
}

/// Origin: a tunnel's death lost the packet in gkd-rs's hand, a gap for ever, and removed the whole peer on the
/// server; in Cloak one dead connection kills the session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_is_cut_in_a_transfer_costs_no_byte() {
    let (client, server, relay) = relayed(4).await;
    spawn_echo(Arc::new(server));
    transfer_while(&client, 60_000_000, async |progress| {
        for step in 1..=6 {
            reached(progress, step * 6_000_000).await;
            relay.cut_one(step);
        }
    })
    .await;
    until("the tunnels come back", || client.tunnels_up() == 4).await;
    assert!(client.close().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_that_falls_silent_in_a_transfer_holds_nobody_up() {
    let (client, server, relay) = relayed(4).await;
    spawn_echo(Arc::new(server));
    transfer_while(&client, 30_000_000, async |progress| {
        reached(progress, 5_000_000).await;
        relay.freeze_one(1);
        reached(progress, 15_000_000).await;
        relay.freeze_one(2);
    })
    .await;
    assert_eq!(relay.running(), 4, "the silent ones still stood when all had arrived");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_over_tls_are_cut_and_come_back() {
    let server = Server::builder().listen("127.0.0.1:0").bind().await.unwrap();
    let relay = Relay::to(server.local_addr().unwrap()).await;
    let builder = Client::builder().address(relay.address).server_key(server.key());
    let client = builder.connect().await.unwrap();
    spawn_echo(Arc::new(server));
    transfer_while(&client, 20_000_000, async |progress| {
        for step in 1..=3 {
            reached(progress, step * 4_000_000).await;
            relay.cut_one(step);
        }
        relay.cut_all();
    })
    .await;
    assert!(client.close().await);
}

/// Origin: gkd-rs (2019) did not dial again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tunnels_cut_and_back() {
    let (client, server, relay) = relayed(3).await;
    spawn_echo(Arc::new(server));
    transfer_while(&client, 30_000_000, async |progress| {
        reached(progress, 5_000_000).await;
        relay.shut(true);
        relay.cut_all();
        until("none is up", || client.tunnels_up() == 0).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        relay.shut(false);
        reached(progress, 15_000_000).await;
        relay.cut_all();
    })
    .await;
    assert!(client.close().await);
}

/// A client whose tunnels are all silent, while later ones are not. No tunnel is ever given up, so that only a
/// fresh dial helps.
async fn silenced() -> (Client, Server, Relay) {
    let config = SessionConfig { silent_for: Duration::from_secs(3600), ..SessionConfig::default() };
    let server =
        Server::builder().listen("127.0.0.1:0").plain(true).session(config.clone()).bind().await.unwrap();
    let relay = Relay::to(server.local_addr().unwrap()).await;
    let plain = gkd_core::carrier::CarrierKind::Plain;
    let builder = Client::builder().address(relay.address).carrier(plain).tunnels(3).session(config);
    let client = builder.connect().await.unwrap();
    until("all tunnels", || client.tunnels_up() == 3).await;
    (client, server, relay)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tunnels_silent_are_replaced_by_fresh_ones() {
    let (client, server, relay) = silenced().await;
    spawn_echo(Arc::new(server));
    transfer_while(&client, 40_000_000, async |progress| {
        reached(progress, 5_000_000).await;
        relay.freeze_all();
        reached(progress, 20_000_000).await;
        relay.freeze_all();
    })
    .await;
    until("three tunnels", || client.tunnels_up() == 3).await;
    assert!(client.close().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_whose_tunnels_fall_silent_goes_on_over_fresh_ones() {
    let (client, server, relay) = silenced().await;
    let (here, there) = connection(&client, &server).await;
    let sent = content(7, 5_000_000);
    // The client has nothing on the way that it would miss.
    let first = within("the first bytes", async {
        (&there).write_all(&sent[..1000]).await.unwrap();
        let mut first = vec![0; 1000];
        (&here).read_exact(&mut first).await.unwrap();
        first
    })
    .await;
    relay.freeze_all();
    let rest = sent[1000..].to_vec();
    let writing = tokio::spawn(async move {
        (&there).write_all(&rest).await.unwrap();
        (&there).shutdown().await.unwrap();
        there
    });
    let received = [first, read_all(&here).await.unwrap()].concat();
    assert!(received == sent, "the bytes are others");
    within("the writer", writing).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_another_behind_silent_tunnels_resets_connections() {
    let (client, server, relay) = silenced().await;
    let (here, _there) = connection(&client, &server).await;
    let second = Server::bind("127.0.0.1:0").await.unwrap();
    relay.lead_to(second.local_addr().unwrap());
    relay.freeze_all();
    (&here).write_all(b"is anybody there?").await.unwrap();
    let error = within("reset", async { (&here).read(&mut [0; 8]).await }).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    connection(&client, &second).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_while_no_tunnel_is_up_is_delivered_later() {
    let (client, server, relay) = relayed(2).await;
    relay.shut(true);
    relay.cut_all();
    until("none is up", || client.tunnels_up() == 0).await;
    let here = client.get_connection().await.unwrap();
    (&here).write_all(b"patience").await.unwrap();
    drop(here);
    relay.shut(false);
    let (there, _) = within("accept", server.accept()).await.unwrap();
    assert_eq!(read_all(&there).await.unwrap(), b"patience");
}

/// Origin: wmproxy exits when its first dial fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_start_before_its_server() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let builder = Client::builder().address(port).carrier(gkd_core::carrier::CarrierKind::Plain);
    assert!(within("refusal", builder.clone().connect()).await.is_err());
    let client = within("no refusal", builder.wait_for_network(true).connect()).await.unwrap();
    assert!(client.state().failure.is_some());
    // More than a client may have open before it knows its server.
    let opening: Vec<_> = (0..40)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get_connection().await.unwrap() })
        })
        .collect();
    let server = Server::builder().listen(port).plain(true).bind().await.unwrap();
    let mut accepted = Vec::new();
    for _ in &opening {
        accepted.push(within("accept", server.accept()).await.unwrap());
    }
    for opened in opening {
        within("open", opened).await.unwrap();
    }
}

/// The next event that is a lost session.
async fn session_lost(events: &mut broadcast::Receiver<ClientEvent>) {
    within("the session is lost", async {
        while !matches!(events.recv().await.unwrap(), ClientEvent::SessionLost { .. }) {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_resets_connections_and_the_client_goes_on() {
    let (client, server, relay) = relayed(3).await;
    let (here, there) = connection(&client, &server).await;
    let mut events = client.events();
    let waiting = tokio::spawn(async move { (&here).read(&mut [0; 8]).await });

    let second = Server::bind("127.0.0.1:0").await.unwrap();
    relay.lead_to(second.local_addr().unwrap());
    relay.cut_all();
    let error = within("reset", waiting).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    session_lost(&mut events).await;

    let (here, far) = connection(&client, &second).await;
    (&here).write_all(b"anew").await.unwrap();
    drop(here);
    assert_eq!(read_all(&far).await.unwrap(), b"anew");
    until("all tunnels lead to the new one", || client.tunnels_up() == 3).await;
    drop((there, server));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_stood_too_long_is_reset_on_both_ends() {
    let config = || SessionConfig { resume_for: Duration::from_millis(400), ..SessionConfig::default() };
    let server = Server::builder().listen("127.0.0.1:0").plain(true).session(config()).bind().await.unwrap();
    let relay = Relay::to(server.local_addr().unwrap()).await;
    let plain = gkd_core::carrier::CarrierKind::Plain;
    let builder = Client::builder().address(relay.address).carrier(plain).session(config());
    let client = builder.connect().await.unwrap();
    let (here, there) = connection(&client, &server).await;
    relay.shut(true);
    relay.cut_all();
    for end in [&here, &there] {
        let error = within("reset", async { { end }.read(&mut [0; 8]).await }).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    until("the server forgets it", || server.sessions().is_empty()).await;
    relay.shut(false);
    connection(&client, &server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_paths_is_enough() {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let (good, bad) =
        (Relay::to(server.local_addr().unwrap()).await, Relay::to(server.local_addr().unwrap()).await);
    let plain = gkd_core::carrier::CarrierKind::Plain;
    let builder = Client::builder().address(good.address).address(bad.address).carrier(plain).tunnels(2);
    let client = builder.connect().await.unwrap();
    until("both paths", || client.tunnels_up() == 4).await;
    until("all are shown", || client.tunnels().iter().all(|place| place.tunnel.is_some())).await;
    spawn_echo(Arc::new(server));
    transfer_while(&client, 20_000_000, async |progress| {
        reached(progress, 3_000_000).await;
        bad.shut(true);
        bad.cut_all();
        until("one path", || client.tunnels_up() == 2).await;
        for place in client.tunnels() {
            assert_eq!(place.remote.is_some(), place.path.address.to_string() == good.address.to_string());
        }
        reached(progress, 10_000_000).await;
        bad.shut(false);
        until("both paths again", || client.tunnels_up() == 4).await;
    })
    .await;
}
