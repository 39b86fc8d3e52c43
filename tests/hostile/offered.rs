//! A server that asks a client to dial what the client never offered: it is told so, nothing is dialled, and the log
//! says it once.

use std::time::Duration;

use bytes::Bytes;
use gkd_core::ConnectError;
use gkd_core::Server;
use gkd_core::carrier::CarrierKind;
use gkd_core::identity::SecretKey;
use gkd_core::link::Link;
use gkd_proto::packet::{DialError, ResetCode};
use gkd_tests::{Program, free_port};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::peer::{KINDS, destination};
use crate::support::{until, within};

/// More than the client keeps of connections that nobody accepts, so that none would be refused for want of a place.
const ASKED: usize = 1500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_a_client_to_dial_is_refused_and_nothing_is_dialled() {
    for kind in KINDS {
        let (server, user) = (Server::builder().listen("127.0.0.1:0").plain(true), SecretKey::generate());
        let server = server.bind().await.unwrap();
        let address = server.local_addr().unwrap().to_string().parse().unwrap();
        let link = Link { carrier: kind, ..Link::new(server.key(), user, vec![address]) }.to_string();
        let folder = TempDir::new().unwrap();
        let listener = format!("mixed://127.0.0.1:{}", free_port());
        let plain = (kind == CarrierKind::Plain).then_some("--plain");
        let args: Vec<&str> = [link.as_str(), "-n", "2", "-L", &listener].into_iter().chain(plain).collect();
        let client = tokio::task::spawn_blocking({
            let (folder, args) =
                (folder.path().to_owned(), args.into_iter().map(str::to_owned).collect::<Vec<_>>());
            move || {
                Program::start("gkd-client", &folder, &args.iter().map(String::as_str).collect::<Vec<_>>())
            }
        });
        let client = client.await.unwrap();
        until("the client logs in", || !server.sessions().is_empty()).await;
        let session = server.sessions().pop().unwrap();

        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let wanted = destination(target.local_addr().unwrap());
        let strange = Bytes::from_static(b"\x01\x03\x0a\x1b[31m\r\nroot\0\x50");
        for index in 0..ASKED {
            let to = [wanted.clone(), strange.clone(), Bytes::new()][index % 3].clone();
            let asked = within("open", session.open(to)).await.unwrap();
            if asked.destination().is_empty() {
                assert_eq!(within("a reset", asked.wait_reset()).await, ResetCode::DIAL);
                continue;
            }
            let answer = within("an answer", asked.connected()).await;
            assert_eq!(answer, Err(ConnectError::Dial(DialError::NotOffered)), "{index}");
        }
        let dialled = tokio::time::timeout(Duration::from_millis(200), target.accept()).await;
        assert!(dialled.is_err(), "the client dialled: {dialled:?}");
        until("nothing is kept of them", || session.stats().connections == 0).await;
        let log = client.log();
        assert_eq!(log.matches("did not offer").count(), 1, "{log}");
        assert!(log.lines().all(|line| line.chars().all(|c| !c.is_control())), "{log:?}");
    }
}
