//! The traits of [`connection`](crate::connection) for what `gkd-core` has: its `Connection`; and its `Client`, and at
//! the server a session, as those that open.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use gkd_core::proto::id::PeerId;
use gkd_core::proto::packet::{DialError, ResetCode};
use gkd_core::{Client, ConnectError, Connection, SessionHandle};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::{Opener, VirtualConnection};
use crate::reach::ReachError;

impl VirtualConnection for Connection {
    type Session = SessionHandle;

    fn session(&self) -> SessionHandle {
        Connection::session(self)
    }

    fn send_datagram(&self, address: Bytes, payload: Bytes) -> io::Result<bool> {
        Connection::send_datagram(self, address, payload)
    }

    fn poll_recv_datagram(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Bytes, Bytes)>> {
        Connection::poll_recv_datagram(self, cx).map_ok(|datagram| (datagram.address, datagram.payload))
    }

    fn peer(&self) -> PeerId {
        Connection::peer(self)
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut &*self), cx, buf)
    }

    fn poll_read_batch(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<io::Result<usize>> {
        Connection::poll_read_batch(self, cx, most, chunks)
    }

    fn poll_write_bytes(&self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        Connection::poll_write_bytes(self, cx, bytes)
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut &*self), cx, bytes)
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut &*self), cx)
    }

    async fn connected(&self) -> Result<(), ReachError> {
        Connection::connected(self).await.map_err(|error| match error {
            ConnectError::Dial(error) => ReachError::Dial(error),
            ConnectError::Reset(code) => ReachError::Reset(code),
            other => ReachError::Open(io::Error::other(other)),
        })
    }

    fn confirm(&self, result: Result<(), DialError>) {
        Connection::confirm(self, result);
    }

    fn reset(&self, code: ResetCode) {
        Connection::reset(self, code);
    }

    async fn lost(&self) {
        self.wait_reset().await;
    }

    fn destination(&self) -> &Bytes {
        Connection::destination(self)
    }
}

impl Opener for Client {
    type Connection = Connection;

    async fn open(&self, destination: Bytes) -> io::Result<Connection> {
        // The client would queue what is opened while no tunnel is up; a program is to be told.
        let mut states = self.watch();
        // An error says that the client is gone, and so does the call below.
        let _ = states.wait_for(|state| state.tunnels_up > 0 || state.closed).await.map(drop);
        Ok(Client::open(self, destination).await?)
    }
}

impl Opener for SessionHandle {
    type Connection = Connection;

    async fn open(&self, destination: Bytes) -> io::Result<Connection> {
        // As above.
        self.open_when_up(destination).await.map_err(io::Error::other)
    }

    async fn down(&self) {
        self.wait_down().await;
    }

    async fn up(&self) -> bool {
        self.wait_up().await
    }
}
