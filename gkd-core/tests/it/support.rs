//! What the tests share: a pair that is up, content that shows where it comes from, and a TCP relay that cuts.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gkd_core::{Client, Connection, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Longer than anything that is waited for here takes: a test that comes to it hangs.
pub(crate) const HANG: Duration = Duration::from_secs(30);

/// Fails the test instead of hanging.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(HANG, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing happened within {HANG:?}"),
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    within(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A server that takes everybody, and a client of it.
pub(crate) async fn pair(tunnels: usize) -> (Client, Server) {
    let server = Server::bind("127.0.0.1:0").await.unwrap();
    let client = Client::connect(server.local_addr().unwrap(), tunnels).await.unwrap();
    (client, server)
}

/// One connection, its client's end and its server's.
pub(crate) async fn connection(client: &Client, server: &Server) -> (Connection, Connection) {
    let here = client.get_connection().await.unwrap();
    let (there, _) = within("accept", server.accept()).await.unwrap();
    (here, there)
}

/// Bytes of which every stretch tells where it belongs.
pub(crate) fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Answers every connection with its own bytes.
pub(crate) fn spawn_echo(server: Arc<Server>) {
    tokio::spawn(async move {
        while let Some((connection, _)) = server.accept().await {
            tokio::spawn(async move {
                let (r, w) = &mut (&connection, &connection);
                if tokio::io::copy(r, w).await.is_ok() {
                    w.shutdown().await.ok();
                }
            });
        }
    });
}

/// Reads to the end of the stream.
pub(crate) async fn read_all(connection: &Connection) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = connection;
    within("read to the end", reader.read_to_end(&mut bytes)).await?;
    Ok(bytes)
}

/// A TCP relay that can cut and freeze what runs through it, and lead to another server.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    listening: AbortHandle,
}

struct Shared {
    target: Mutex<SocketAddr>,
    running: Mutex<Vec<Running>>,
    open: watch::Sender<bool>,
}

struct Running {
    task: AbortHandle,
    flowing: Arc<watch::Sender<bool>>,
}

impl Relay {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            running: Mutex::default(),
            open: watch::Sender::new(true),
        });
        let accepting = shared.clone();
        let listening = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if !*accepting.open.borrow() {
                    continue;
                }
                let target = *accepting.target.lock().unwrap();
                let flowing = Arc::new(watch::Sender::new(true));
                let task = tokio::spawn(relay(near, target, flowing.clone())).abort_handle();
                let mut running = accepting.running.lock().unwrap();
                running.retain(|running| !running.task.is_finished());
                running.push(Running { task, flowing });
            }
        })
        .abort_handle();
        Self { address, shared, listening }
    }

    /// From now on leads there.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = target;
    }

    /// From now on closes what comes in at once, or does not.
    pub(crate) fn shut(&self, shut: bool) {
        self.shared.open.send_replace(!shut);
    }

    /// How many connections run through it.
    pub(crate) fn running(&self) -> usize {
        self.shared.running.lock().unwrap().iter().filter(|running| !running.task.is_finished()).count()
    }

    /// Does something to the `index`-th of the connections that run; nothing if none does.
    fn with_one(&self, index: usize, act: impl FnOnce(&Running)) {
        let running = self.shared.running.lock().unwrap();
        let running: Vec<_> = running.iter().filter(|running| !running.task.is_finished()).collect();
        if !running.is_empty() {
            act(running[index % running.len()]);
        }
    }

    /// Cuts one connection that runs.
    pub(crate) fn cut_one(&self, index: usize) {
        self.with_one(index, |running| running.task.abort());
    }

    /// Nothing passes any more on one connection that runs; it stays open.
    pub(crate) fn freeze_one(&self, index: usize) {
        self.with_one(index, |running| _ = running.flowing.send_replace(false));
    }

    /// The same for all of them; those that come later flow.
    pub(crate) fn freeze_all(&self) {
        let running = self.shared.running.lock().unwrap();
        running.iter().for_each(|running| _ = running.flowing.send_replace(false));
    }

    /// Cuts all of them.
    pub(crate) fn cut_all(&self) {
        self.shared.running.lock().unwrap().drain(..).for_each(|running| running.task.abort());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut_all();
    }
}

async fn relay(near: TcpStream, target: SocketAddr, flowing: Arc<watch::Sender<bool>>) {
    let Ok(far) = TcpStream::connect(target).await else { return };
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let ((near_r, near_w), (far_r, far_w)) = (near.into_split(), far.into_split());
    let there = pump(near_r, far_w, flowing.subscribe());
    let back = pump(far_r, near_w, flowing.subscribe());
    tokio::join!(there, back);
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flowing: watch::Receiver<bool>) {
    let mut buf = vec![0; 16 * 1024];
    loop {
        let Ok(count) = from.read(&mut buf).await else { return };
        flowing.wait_for(|flowing| *flowing).await.ok();
        if count == 0 || to.write_all(&buf[..count]).await.is_err() {
            return;
        }
    }
}
