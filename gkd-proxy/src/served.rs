//! A proxy that serves one program over memory, for the tests of what it speaks.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;

use crate::connection::Opener;
use crate::memory::{self, Memory, MemoryOpener};
use crate::outlet::Outlet;
use crate::relay::RelayConfig;
use crate::slots::{Slot, Slots};

/// What the handshake and the dial may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A program that talks to a served socket, the far ends of its connections, and the service.
pub(crate) struct Served {
    pub(crate) program: TcpStream,
    pub(crate) far: UnboundedReceiver<Memory>,
    pub(crate) service: JoinHandle<()>,
}

/// A program that is served so.
pub(crate) async fn served<F>(
    serve: impl FnOnce(TcpStream, Slot, Arc<Outlet<MemoryOpener>>) -> F + Send + 'static,
) -> Served
where
    F: Future<Output = ()> + Send + 'static,
{
    let (opener, far) = memory::opener();
    let (program, service) = served_by(opener, serve).await;
    Served { program, far, service }
}

/// The same over what `opener` opens.
pub(crate) async fn served_by<O: Opener, F>(
    opener: O,
    serve: impl FnOnce(TcpStream, Slot, Arc<Outlet<O>>) -> F + Send + 'static,
) -> (TcpStream, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let program = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let socket = listener.accept().await.unwrap().0;
    let outlet = Arc::new(Outlet::new(opener, TIMEOUT, RelayConfig::default()));
    (program, tokio::spawn(serve(socket, Slots::new(1, TIMEOUT).enter(), outlet)))
}

impl Served {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.program.write_all(bytes.as_ref()).await.unwrap();
    }

    /// The far end of the next connection.
    pub(crate) async fn far(&mut self) -> Memory {
        self.far.recv().await.unwrap()
    }

    pub(crate) async fn expect_nothing_opened(mut self) {
        drop(self.program);
        self.service.await.unwrap();
        assert!(self.far.recv().await.is_none(), "a connection was opened");
    }
}
