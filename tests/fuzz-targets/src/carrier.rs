//! What reaches a server's port, or a client that dialled, before any key is proved. The first bytes tell what it
//! is and do not change their mind; what is foreign is handed on whole; a handshake ends, and lets nobody in
//! whose bytes were not those of an honest client to this very server.

use std::sync::OnceLock;
use std::time::Duration;

use gkd_core::carrier::{Acceptor, Carrier, CarrierError, FirstBytes, Incoming, Wire, plain, recognise};
use gkd_core::identity::SecretKey;
use gkd_proto::id::{SessionId, TunnelId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;

use crate::input::Input;

/// Holds whatever is sent: nobody waits for room.
const PIPE: usize = 64 * 1024;

/// In virtual time, which jumps when nothing moves: longer than any deadline of a handshake.
const HANGS: Duration = Duration::from_secs(60);

/// Reads `data` as what a stranger sends, what a client's server answers, or what is done to an honest
/// handshake between the two.
pub fn carrier(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without IO");
    let mut input = Input::new(data);
    runtime.block_on(async {
        let met = async {
            match input.below(3) {
                0 => stranger(data.get(1..).unwrap_or_default()).await,
                1 => impostor(data.get(1..).unwrap_or_default()).await,
                _ => tampered(&mut input).await,
            }
        };
        tokio::time::timeout(HANGS, met).await.expect("a handshake without an end");
    });
}

fn server_key() -> SecretKey {
    SecretKey::from_seed([1; 32])
}

async fn accept(io: DuplexStream) -> Result<Incoming, CarrierError> {
    static ACCEPTOR: OnceLock<Acceptor> = OnceLock::new();
    let acceptor = ACCEPTOR.get_or_init(|| Acceptor::new(&server_key()).expect("a key").with_plain(true));
    acceptor.accept(Wire::brought(io), Instant::now() + Duration::from_secs(10)).await
}

async fn dial(io: DuplexStream) -> Result<Carrier, CarrierError> {
    let key = SecretKey::from_seed([2; 32]);
    let server = Some(server_key().public());
    plain::connect(Wire::brought(io), &key, server, SessionId([3; 16]), TunnelId(4)).await
}

async fn stranger(sent: &[u8]) {
    let told: Vec<_> = (0..=sent.len().min(64)).map(|len| recognise(&sent[..len])).collect();
    for (len, pair) in told.windows(2).enumerate() {
        assert!(pair[0] == pair[1] || pair[0] == FirstBytes::NeedMore, "it changes its mind at {len}");
    }
    assert!(told.get(FirstBytes::ENOUGH).is_none_or(|told| *told != FirstBytes::NeedMore));
    let (mut stranger, io) = duplex(PIPE);
    stranger.write_all(&sent[..sent.len().min(PIPE)]).await.expect("room for all");
    stranger.shutdown().await.expect("an open pipe");
    match accept(io).await {
        Ok(Incoming::Gkd(carrier)) => panic!("{carrier:?} proved a key with bytes that knew no challenge"),
        Ok(Incoming::Http(mut wire) | Incoming::Foreign(mut wire)) => {
            let mut all = Vec::new();
            wire.read_to_end(&mut all).await.expect("a pipe");
            assert_eq!(all, sent, "what is handed on is not all");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

async fn impostor(sent: &[u8]) {
    let (mut impostor, io) = duplex(PIPE);
    impostor.write_all(&sent[..sent.len().min(PIPE)]).await.expect("room for all");
    impostor.shutdown().await.expect("an open pipe");
    if let Ok(carrier) = dial(io).await {
        assert_eq!(carrier.peer(), server_key().public(), "it went on with another server");
    }
}

/// An honest client and server, with somebody between them who changes bytes of the two handshakes.
async fn tampered(input: &mut Input<'_>) {
    let (client, mut near) = duplex(PIPE);
    let (mut far, server) = duplex(PIPE);
    let mut changed = false;
    let between = async {
        for (up, len) in [(true, 12), (false, 64), (true, 120)] {
            let (from, to) = if up { (&mut near, &mut far) } else { (&mut far, &mut near) };
            let mut bytes = vec![0; len];
            if from.read_exact(&mut bytes).await.is_err() {
                break;
            }
            let (place, with) = (input.below(len), input.byte());
            bytes[place] ^= with;
            changed |= with != 0;
            if to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        drop((near, far));
    };
    // Whoever gives up closes its end.
    let client = async { drop(dial(client).await) };
    let server = async { matches!(accept(server).await, Ok(Incoming::Gkd(_))) };
    let ((), proved, ()) = tokio::join!(client, server, between);
    assert_eq!(proved, !changed, "bytes were changed: {changed}; the client got in: {proved}");
}
