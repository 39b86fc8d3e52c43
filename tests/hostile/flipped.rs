//! A bit that is flipped on a tunnel: over TLS wherever it is, on the bare carrier where it makes a packet another, the
//! tunnel ends, its packets go out on the others, and the connection is whole. (What is flipped inside a payload
//! nothing on the bare carrier notices: it is for paths that are trusted.)

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::BytesMut;
use gkd_core::Client;
use gkd_core::carrier::CarrierKind;
use gkd_core::identity::SecretKey;
use gkd_proto::SessionConfig;
use gkd_proto::packet::{Header, kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::peer::{At, KINDS, echo_server, exchange};
use crate::support::{until, within};

/// How many tunnels are harmed, one after the other.
const FLIPS: usize = 3;

/// More than enough for each tunnel to carry what it must until its bit is flipped.
const EXCHANGES: usize = 8;

/// What has passed on a connection when its bit is flipped: the handshake is long over.
const PASSED: usize = 200_000;

/// Where in what a client sends the packets begin, on the bare carrier: preface and proof.
const BARE_HANDSHAKE: usize = 12 + 120;

/// Flips one bit in each connection that has carried enough, until all flips are used up.
struct Flipper {
    kind: CarrierKind,
    left: AtomicUsize,
}

impl Flipper {
    async fn start(kind: CarrierKind, to: SocketAddr) -> (SocketAddr, Arc<Self>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let flipper = Arc::new(Self { kind, left: AtomicUsize::new(FLIPS) });
        let relaying = flipper.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(relaying.clone().relay(near, to));
            }
        });
        (address, flipper)
    }

    async fn relay(self: Arc<Self>, near: TcpStream, to: SocketAddr) {
        let Ok(far) = TcpStream::connect(to).await else { return };
        near.set_nodelay(true).unwrap();
        far.set_nodelay(true).unwrap();
        let ((mut near_r, mut near_w), (mut far_r, mut far_w)) = (near.into_split(), far.into_split());
        let back = async {
            tokio::io::copy(&mut far_r, &mut near_w).await.ok();
        };
        let there = async {
            let (mut passed, mut buf, mut flipped) = (0, BytesMut::new(), false);
            let mut frames = Frames { skip: BARE_HANDSHAKE, head: Vec::new() };
            while let Ok(1..) = near_r.read_buf(&mut buf).await {
                let target = match self.kind {
                    CarrierKind::Plain => frames.find_data(&buf).filter(|_| passed > PASSED),
                    _ => (passed > PASSED).then(|| buf.len() / 2),
                };
                if let Some(at) = target.filter(|_| !flipped)
                    && self
                        .left
                        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                        .is_ok()
                {
                    flipped = true;
                    buf[at] ^= 4;
                }
                if far_w.write_all(&buf).await.is_err() {
                    return;
                }
                passed += buf.len();
                buf.clear();
            }
        };
        // Whichever side ends ends the other.
        tokio::select! {
            () = back => {}
            () = there => {}
        }
    }
}

/// Follows the packets of a bare tunnel from read to read.
struct Frames {
    /// So many bytes are no header.
    skip: usize,
    /// What has come of a header.
    head: Vec<u8>,
}

impl Frames {
    /// Goes through the next bytes; where among them the type of a Data packet stands.
    fn find_data(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut found, mut at, mut begins) = (None, 0, None);
        while at < bytes.len() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() - at);
                (self.skip, at) = (self.skip - skipped, at + skipped);
                continue;
            }
            if self.head.is_empty() {
                begins = Some(at);
            }
            self.head.push(bytes[at]);
            at += 1;
            if let Some(header) = Header::peek(&self.head).unwrap() {
                // The Data that is found last has its type among these bytes, if any has.
                found = if header.kind == kind::DATA { begins.or(found) } else { found };
                self.skip = header.body;
                self.head.clear();
            }
        }
        found
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_ends_its_tunnel_and_costs_no_byte() {
    for kind in KINDS {
        let server = echo_server(SessionConfig::default()).await;
        let at = At::server(&server, kind);
        let (address, flipper) = Flipper::start(kind, at.address).await;
        let builder = Client::builder().address(address).server_key(at.key).carrier(kind);
        let client = within("log in", builder.key(SecretKey::generate()).tunnels(3).connect()).await.unwrap();
        let session = server.sessions().pop().unwrap();
        for _ in 0..EXCHANGES {
            exchange(&client.get_connection().await.unwrap(), 1_000_000).await;
        }
        assert_eq!(flipper.left.load(Ordering::Relaxed), 0, "every bit was flipped in time");
        until("the harmed tunnels ended", || session.stats().tunnels_lost as usize >= FLIPS).await;
        let (here, there) = (client.stats(), session.stats());
        println!(
            "{kind}: {FLIPS} bits flipped, {} tunnels lost, {} packets sent again",
            there.tunnels_lost, here.resent
        );
        assert_eq!(there.tunnels_lost as usize, FLIPS, "one for each bit");
        assert!(here.resent > 0 && session.ended().is_none());
        assert!(client.close().await);
    }
}
