//! What a server and its sessions tell of themselves.

use gkd_core::proto::handshake::{Reject, RejectCode};
use gkd_core::proto::id::PeerId;
use gkd_core::{Admission, Client, Server, Usage};

use crate::support::{until, within};

#[tokio::test]
async fn a_server_tells_what_is_used_and_which_limits_were_met() {
    let known = gkd_core::identity::SecretKey::generate();
    let user = known.public();
    let authorise = move |peer: &PeerId| match *peer == user {
        true => Ok(Admission::default()),
        false => Err(Reject::new(RejectCode::UnknownUser)),
    };
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .plain(true)
        .authorise(authorise)
        .max_sessions(1, 1)
        .max_tunnels(40)
        .memory(1 << 30);
    let server = server.bind().await.unwrap();
    let address = server.local_addr().unwrap();
    let client = || Client::builder().address(address).server_key(server.key()).tunnels(2);

    let first = within("up", client().key(known.clone()).connect()).await.unwrap();
    until("both are up", || first.tunnels_up() == 2).await;
    let stats = server.stats();
    assert_eq!(stats.sessions, Usage { used: 1, most: 1 });
    assert_eq!(stats.tunnels, Usage { used: 2, most: 40 });
    assert!(stats.memory.used > 0 && stats.memory.most == 1 << 30);
    assert_eq!((stats.rejected_unknown, stats.rejected_busy), (0, 0));

    let session = &server.sessions()[0];
    let mut tunnels = session.tunnel_addrs();
    tunnels.sort_unstable();
    let ids: Vec<_> = session.stats().tunnels.iter().map(|tunnel| tunnel.tunnel).collect();
    assert_eq!(tunnels.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    assert!(tunnels.iter().all(|(_, from)| from.ip() == address.ip() && from.port() != address.port()));
    assert!(first.session().tunnel_addrs().iter().all(|(_, to)| *to == address));

    // A second session of the user, and a stranger.
    assert!(within("busy", client().key(known).tunnels(1).connect()).await.is_err());
    assert!(within("unknown", client().tunnels(1).connect()).await.is_err());
    let stats = server.stats();
    assert!(stats.rejected_busy >= 1 && stats.rejected_unknown >= 1, "{stats:?}");
    first.close().await;
    until("it has ended", || server.stats().sessions.used == 0 && server.stats().tunnels.used == 0).await;
}
