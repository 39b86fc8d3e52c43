//! A session: all that one client shares with a server, over any number of tunnels.

mod event;

pub use event::{CloseCause, DropReason, Event};

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use crate::config::SessionConfig;
use crate::error::{DialTunnelError, OpenError, StreamError, TunnelError, WelcomeError};
use crate::handshake::{Hello, Reject, Welcome};
use crate::id::{BootId, ConnectionId, SessionId, Side, TunnelId};
use crate::packet::{CloseCode, Datagram, DialError, ResetCode};
use crate::transmit::Transmit;

/// The kernel's view of a tunnel's socket, as far as there is one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathSample {
    /// Smoothed round trip of the first hop.
    pub round_trip: Option<Duration>,
    /// Delivery rate, bytes per second.
    pub rate: Option<u64>,
    /// Bytes in the socket that were not sent yet.
    pub unsent: Option<u64>,
    /// Bytes sent and not acknowledged by the first hop.
    pub unacknowledged: Option<u64>,
    /// The sender recovers from loss.
    pub recovering: bool,
}

/// What a read found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// The next bytes, at least one.
    Data(Bytes),
    /// Nothing yet; [`Event::Readable`] will tell.
    Pending,
    /// The other end finished its direction; there is nothing behind.
    Finished,
}

/// One end of a session.
pub struct Session;

#[allow(unused_variables, clippy::todo)]
impl Session {
    /// A session that has no tunnel yet. `seed` feeds all that looks random.
    pub fn new(config: Arc<SessionConfig>, side: Side, id: SessionId, seed: u64, now: Instant) -> Self {
        todo!()
    }
    /// The session's id.
    pub fn id(&self) -> SessionId {
        todo!()
    }

    // ---- what happened ----

    /// Client: allocates a tunnel id and says what to send first on the carrier that is dialled for it. On any
    /// failure before `handle_welcome`, call `handle_tunnel_down`.
    pub fn hello(&mut self, now: Instant) -> Result<Hello, DialTunnelError> {
        todo!()
    }
    /// Client: the server answered; the tunnel is up.
    pub fn handle_welcome(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        welcome: &Welcome,
    ) -> Result<(), WelcomeError> {
        todo!()
    }
    /// Server: a client's tunnel; it is up when this returns a Welcome, which must be written before anything
    /// from `poll_transmit`.
    pub fn handle_hello(&mut self, now: Instant, hello: &Hello, boot: BootId) -> Result<Welcome, Reject> {
        todo!()
    }
    /// Bytes arrived on a tunnel; takes every whole packet from the front of `buf`, leaves the rest.
    pub fn handle_recv(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        buf: &mut BytesMut,
    ) -> Result<(), TunnelError> {
        todo!()
    }
    /// The kernel's view of a tunnel, every 10 to 20 ms while it is busy.
    pub fn handle_path(&mut self, now: Instant, tunnel: TunnelId, sample: PathSample) {}
    /// A tunnel's carrier ended, for whatever reason, or its dial failed.
    pub fn handle_tunnel_down(&mut self, now: Instant, tunnel: TunnelId) {}
    /// The time of `poll_timeout` has come (calling it early does no harm).
    pub fn handle_timeout(&mut self, now: Instant) {}
    /// Client: the server does not know this session any more (another boot, or no such session, while no tunnel is up).
    pub fn lose(&mut self, now: Instant) {}

    // ---- what the application wants ----

    /// Opens a connection; data may be written at once.
    pub fn open(&mut self, now: Instant, destination: Bytes) -> Result<ConnectionId, OpenError> {
        todo!()
    }
    /// A connection that is not forgotten.
    pub fn connection(&mut self, now: Instant, id: ConnectionId) -> Option<ConnectionMut<'_>> {
        todo!()
    }
    /// No more packets on this tunnel; `DropTunnel` follows when it is settled.
    pub fn retire_tunnel(&mut self, now: Instant, tunnel: TunnelId) {}
    /// Takes no new connections; `Drained` follows when the live ones have ended.
    pub fn drain(&mut self, now: Instant, reason: u64) {}
    /// Ends the session: tells the other end on every tunnel; each is dropped when it has.
    pub fn close(&mut self, now: Instant, code: CloseCode, reason: &str) {}
    /// Pings every tunnel at once: the machine slept, or an address changed.
    pub fn probe(&mut self, now: Instant) {}

    // ---- what to do now ----

    /// Takes the set of tunnels for which `poll_transmit` has become worth a call.
    pub fn tunnels_to_poll(&mut self) -> Vec<TunnelId> {
        todo!()
    }
    /// Appends packets for this tunnel to `out`, some `room` bytes (one packet more at the most). False when
    /// there is nothing to send: it will be named by `tunnels_to_poll`.
    pub fn poll_transmit(&mut self, now: Instant, tunnel: TunnelId, room: usize, out: &mut Transmit) -> bool {
        todo!()
    }
    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }
    /// When `handle_timeout` is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// Figures.
    pub fn stats(&self) -> SessionStats {
        todo!()
    }
    /// How many tunnels are up.
    pub fn tunnels_up(&self) -> usize {
        todo!()
    }
    /// The session has ended.
    pub fn is_closed(&self) -> bool {
        todo!()
    }
}

/// A connection of a session, to be read and written.
pub struct ConnectionMut<'a>(std::marker::PhantomData<&'a ()>);

#[allow(unused_variables, clippy::todo)]
impl ConnectionMut<'_> {
    /// Accepts bytes from the front of `data`, without copying; how many. `Writable` follows when not all were taken.
    pub fn write(&mut self, data: &mut Bytes) -> Result<usize, StreamError> {
        todo!()
    }
    /// Accepts (copies) bytes from the front of `data`; how many. `Writable` follows when not all were taken.
    pub fn write_slice(&mut self, data: &[u8]) -> Result<usize, StreamError> {
        todo!()
    }
    /// The next at most `most` bytes.
    pub fn read(&mut self, most: usize) -> Result<Read, StreamError> {
        todo!()
    }
    /// No more will be written. `Acknowledged` follows.
    pub fn finish(&mut self) {}
    /// Everything written and the Finish are acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        todo!()
    }
    /// Ends both directions at once. The id is no longer known to the caller; no event follows.
    pub fn reset(&mut self, code: ResetCode) {}
    /// The program dropped the connection: accepted bytes are still sent, then Finish; data that arrives is answered
    /// with a Reset once the Finish is acknowledged. No event follows.
    pub fn release(&mut self) {}
    /// Answers the other end's Connect. After an error the connection is reset.
    pub fn connected(&mut self, result: Result<(), DialError>) {}
    /// The answer to this end's Connect, when it has come.
    pub fn dial_result(&self) -> Option<Result<(), DialError>> {
        todo!()
    }
    /// Queues a datagram; when the queue is full its oldest is dropped, and false says so.
    pub fn send_datagram(&mut self, address: Bytes, payload: Bytes) -> bool {
        todo!()
    }
    /// Takes the oldest datagram that arrived.
    pub fn recv_datagram(&mut self) -> Option<Datagram> {
        todo!()
    }
}

/// Figures of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// One entry per tunnel that is up.
    pub tunnels: Vec<TunnelStats>,
    /// Live connections.
    pub connections: usize,
    /// Data packets received behind a missing one.
    pub out_of_order: u64,
    /// Packets that arrived again and were dropped.
    pub duplicates: u64,
    /// Data packets received, each once.
    pub data_received: u64,
    /// Packets sent again.
    pub resent: u64,
    /// The deepest that any reorder buffer was, in packets.
    pub reorder_depth: u64,
    /// Payload bytes sent, each once.
    pub payload_sent: u64,
    /// Payload bytes received, each once.
    pub payload_received: u64,
}

/// Figures of one tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelStats {
    /// Which.
    pub tunnel: TunnelId,
    /// Smoothed round trip.
    pub round_trip: Option<Duration>,
    /// Delivery rate, bytes per second.
    pub rate: Option<u64>,
    /// Bytes written and not acknowledged by the other end.
    pub in_flight: u64,
    /// Bytes written in all.
    pub sent: u64,
    /// Bytes received in all.
    pub received: u64,
    /// It is suspected to be silent.
    pub suspect: bool,
}
