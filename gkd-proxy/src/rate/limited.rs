//! A connection that keeps to a rate: [`Limited`].

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use gkd_core::proto::id::PeerId;
use gkd_core::proto::packet::{DialError, ResetCode};
use tokio::io::ReadBuf;

use super::bucket::{Bucket, Ticket};
use super::{Rate, Way};
use crate::connection::{Opener, VirtualConnection};
use crate::reach::ReachError;

/// A connection, and the rate that it shares with others of its user. What it reads comes from the user, what it writes
/// goes to it. Without a rate, or while that has no bound, it is the connection and nothing else.
#[derive(Debug)]
pub struct Limited<C> {
    connection: C,
    rate: Option<Arc<Rate>>,
    up: Ticket,
    down: Ticket,
}

impl<C> Limited<C> {
    /// The connection within a rate.
    pub fn new(connection: C, rate: Option<Arc<Rate>>) -> Self {
        Self { connection, rate, up: Ticket::default(), down: Ticket::default() }
    }

    fn bound(&self, way: Way) -> Option<(&Arc<Bucket>, &Ticket)> {
        let bucket = self.rate.as_ref()?.of(way);
        let ticket = match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        };
        bucket.bounds().then_some((bucket, ticket))
    }

    /// Polls `act` when it has its turn, with the most bytes that it may move.
    fn poll_within(
        &self,
        way: Way,
        cx: &mut Context<'_>,
        act: impl FnOnce(&mut Context<'_>, usize) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Some((bucket, ticket)) = self.bound(way) else { return act(cx, usize::MAX) };
        let most = ready!(bucket.poll_turn(cx, ticket));
        let moved = act(cx, most);
        bucket.moved(match &moved {
            Poll::Ready(Ok(moved)) => *moved,
            _ => 0,
        });
        moved
    }
}

impl<C> Drop for Limited<C> {
    fn drop(&mut self) {
        if let Some(rate) = &self.rate {
            rate.up.leave(&self.up);
            rate.down.leave(&self.down);
        }
    }
}

/// An opener whose connections are within a rate.
#[derive(Clone)]
pub struct LimitedOpener<O> {
    opener: O,
    rate: Option<Arc<Rate>>,
}

impl<O> LimitedOpener<O> {
    /// The opener within a rate.
    pub fn new(opener: O, rate: Option<Arc<Rate>>) -> Self {
        Self { opener, rate }
    }
}

impl<O: Opener> Opener for LimitedOpener<O> {
    type Connection = Limited<O::Connection>;

    async fn open(&self, destination: Bytes) -> io::Result<Self::Connection> {
        Ok(Limited::new(self.opener.open(destination).await?, self.rate.clone()))
    }

    async fn down(&self) {
        self.opener.down().await;
    }

    async fn up(&self) -> bool {
        self.opener.up().await
    }
}

impl<C: VirtualConnection> VirtualConnection for Limited<C> {
    type Session = C::Session;

    fn session(&self) -> C::Session {
        self.connection.session()
    }

    /// One above the rate is dropped: nothing else would keep datagrams within it.
    fn send_datagram(&self, address: Bytes, payload: Bytes) -> io::Result<bool> {
        match self.bound(Way::Down) {
            Some((bucket, _)) if !bucket.takes(payload.len()) => Ok(false),
            _ => self.connection.send_datagram(address, payload),
        }
    }

    /// Likewise.
    fn poll_recv_datagram(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Bytes, Bytes)>> {
        // Ends: those that wait are few.
        loop {
            let (address, payload) = ready!(self.connection.poll_recv_datagram(cx))?;
            if self.bound(Way::Up).is_none_or(|(bucket, _)| bucket.takes(payload.len())) {
                return Poll::Ready(Ok((address, payload)));
            }
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.bound(Way::Up).is_none() {
            return self.connection.poll_read(cx, buf);
        }
        let read = self.poll_within(Way::Up, cx, |cx, most| {
            let room = buf.remaining().min(most);
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
            ready!(self.connection.poll_read(cx, &mut part))?;
            let count = part.filled().len();
            buf.advance(count);
            Poll::Ready(Ok(count))
        });
        read.map_ok(drop)
    }

    fn poll_read_batch(
        &self,
        cx: &mut Context<'_>,
        most: usize,
        chunks: &mut Vec<Bytes>,
    ) -> Poll<io::Result<usize>> {
        self.poll_within(Way::Up, cx, |cx, turn| self.connection.poll_read_batch(cx, most.min(turn), chunks))
    }

    fn poll_write_bytes(&self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_within(Way::Down, cx, |cx, most| {
            if bytes.len() <= most {
                return self.connection.poll_write_bytes(cx, bytes);
            }
            let mut part = bytes.slice(..most);
            let count = ready!(self.connection.poll_write_bytes(cx, &mut part))?;
            bytes.advance(count);
            Poll::Ready(Ok(count))
        })
    }

    fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.poll_within(Way::Down, cx, |cx, most| {
            self.connection.poll_write(cx, &bytes[..bytes.len().min(most)])
        })
    }

    fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.connection.poll_shutdown(cx)
    }

    fn connected(&self) -> impl Future<Output = Result<(), ReachError>> + Send {
        self.connection.connected()
    }

    fn confirm(&self, result: Result<(), DialError>) {
        self.connection.confirm(result);
    }

    fn reset(&self, code: ResetCode) {
        self.connection.reset(code);
    }

    fn lost(&self) -> impl Future<Output = ()> + Send {
        self.connection.lost()
    }

    fn peer(&self) -> PeerId {
        self.connection.peer()
    }

    fn destination(&self) -> &Bytes {
        self.connection.destination()
    }
}
