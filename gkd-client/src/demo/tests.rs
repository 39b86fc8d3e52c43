//! A client that finds the number of its tunnels itself, over the emulated line, which caps each of them.

use gkd_core::ClientEvent;
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, timeout};

use super::*;

/// Slow, so that the line is the bottleneck on any machine.
const CONFIG: LineConfig = LineConfig { rate: 250_000, delay: Duration::from_millis(5) };

/// Longer than it takes until more tunnels were tried twice.
const PATIENCE: Duration = Duration::from_secs(240);

/// Downloads again and again, each checked, until this was told.
async fn download_until(
    client: &Client,
    events: &mut Receiver<ClientEvent>,
    done: impl Fn(&ClientEvent) -> bool,
) {
    let began = Instant::now();
    let watching = async {
        loop {
            let event = events.recv().await.unwrap();
            assert!(
                !matches!(event, ClientEvent::DialFailed { .. } | ClientEvent::TunnelDown { .. }),
                "{event:?}"
            );
            if done(&event) {
                return;
            }
        }
    };
    let mut watching = std::pin::pin!(watching);
    for seed in 0.. {
        let size = Size(3_000_000);
        let mut downloading =
            std::pin::pin!(transfer::download(client, size, seed, Progress::of_bytes("test", size), None));
        tokio::select! {
            () = &mut watching => {
                // What is on its way is checked as well.
                downloading.await.unwrap();
                return;
            }
            outcome = &mut downloading => assert_eq!(outcome.unwrap().size.0, size.0),
        }
        assert!(began.elapsed() < PATIENCE, "it was never told");
    }
}

async fn auto_client(scene: &Scene) -> (Client, Receiver<ClientEvent>) {
    let client = scene.builder().unwrap().auto_tunnels().start().unwrap();
    let events = client.events();
    assert_eq!(all_up(&client, UP_WITHIN).await, 4);
    (client, events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_that_are_capped_become_more_and_no_byte_is_lost() {
    let scene = Scene::new(CONFIG, SessionConfig::default()).await.unwrap();
    let (client, mut events) = auto_client(&scene).await;
    // Nine are tried when six were found to be worth it.
    download_until(&client, &mut events, |event| matches!(event, ClientEvent::Wanted { tunnels: 9 })).await;
    assert!(client.tunnels().len() >= 6 && client.tunnels_up() >= 6, "{:?}", client.state());
    close(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_more_tunnels_is_no_failure() {
    let session = SessionConfig { max_tunnels: 5, ..SessionConfig::default() };
    let scene = Scene::new(CONFIG, session).await.unwrap();
    let (client, mut events) = auto_client(&scene).await;
    // Of two more one came up, which is taken away again.
    download_until(&client, &mut events, |event| matches!(event, ClientEvent::TunnelRetired { .. })).await;
    let mut states = client.watch();
    timeout(UP_WITHIN, states.wait_for(|state| state.tunnels_up == 4)).await.unwrap().unwrap();
    let state = client.state();
    assert!(state.tunnels == 4 && state.failure.is_none(), "{state:?}");
    assert_eq!(client.tunnels().iter().filter(|place| place.tunnel.is_some()).count(), 4);
    close(client).await;
}
