//! Drives gkd-proto from plain threads and blocking sockets: one connection striped over four TCP connections
//! carries 32 MiB, and every byte is checked. Both ends in one process: `cargo run -p gkd-proto --example blocking`
//!
//! A model for who embeds the crate: a session behind a lock, two threads for each tunnel (one reads, one writes),
//! one for the time, and a condition variable that is told whenever the session has something new. No identity is
//! proved and nothing is encrypted here; that is the carrier's part, and this one is bare TCP.

use std::collections::{BTreeSet, VecDeque};
use std::io::{IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use gkd_proto::handshake::{Hello, decode_answer};
use gkd_proto::id::{BootId, ConnectionId, SessionId, Side, TunnelId};
use gkd_proto::packet::{CloseCode, DecodeError};
use gkd_proto::{ConnectionMut, Event, Read, Session, SessionConfig, Transmit};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const TUNNELS: usize = 4;
const SIZE: usize = 32 * 1024 * 1024;
/// What a tunnel asks for, or reads, at a time, in bytes.
const BATCH: usize = 64 * 1024;

/// One end: its session, and what that said and nobody has taken up yet.
struct State {
    session: Session,
    to_poll: BTreeSet<TunnelId>,
    to_drop: BTreeSet<TunnelId>,
    accepted: VecDeque<ConnectionId>,
}

struct End {
    state: Mutex<State>,
    changed: Condvar,
}

impl End {
    fn new(side: Side, id: SessionId, seed: u64) -> Arc<Self> {
        let session = Session::new(Arc::new(SessionConfig::default()), side, id, seed, Instant::now());
        let (to_poll, to_drop, accepted) = (BTreeSet::new(), BTreeSet::new(), VecDeque::new());
        let state = Mutex::new(State { session, to_poll, to_drop, accepted });
        let end = Arc::new(Self { state, changed: Condvar::new() });
        let timed = end.clone();
        thread::spawn(move || timed.keep_time());
        end
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After every call into the session: takes what it tells. (Readable, Writable and the like need no more here
    /// than that all who wait look again.)
    fn drain(&self, state: &mut State) {
        let named = state.session.tunnels_to_poll();
        let mut news = !named.is_empty();
        state.to_poll.extend(named);
        while let Some(event) = state.session.poll_event() {
            news = true;
            match event {
                Event::Accepted { connection, .. } => state.accepted.push_back(connection),
                Event::DropTunnel { tunnel, .. } => _ = state.to_drop.insert(tunnel),
                _ => {}
            }
        }
        if news {
            self.changed.notify_all();
        }
    }

    fn with<T>(&self, call: impl FnOnce(&mut Session, Instant) -> T) -> T {
        let mut state = self.lock();
        let result = call(&mut state.session, Instant::now());
        self.drain(&mut state);
        result
    }

    /// Uses a connection; waits until something comes of it.
    fn connection<T>(&self, id: ConnectionId, mut call: impl FnMut(ConnectionMut) -> Option<T>) -> Result<T> {
        self.wait_for(|state, now| match state.session.connection(now, id) {
            Some(connection) => call(connection).map(Ok),
            None => Some(Err("the connection was reset".into())),
        })
    }

    /// Calls until something comes of it, and waits for news in between.
    fn wait_for<T>(&self, mut call: impl FnMut(&mut State, Instant) -> Option<T>) -> T {
        let mut state = self.lock();
        loop {
            let found = call(&mut state, Instant::now());
            self.drain(&mut state);
            match found {
                Some(found) => return found,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn keep_time(&self) {
        let mut state = self.lock();
        while !state.session.is_closed() {
            state.session.handle_timeout(Instant::now());
            self.drain(&mut state);
            let wait = state.session.poll_timeout().map(|due| due.saturating_duration_since(Instant::now()));
            let wait = wait.unwrap_or(Duration::from_secs(1));
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Runs a tunnel that is up until it ends; `buf` holds what came behind the handshake.
    fn run_tunnel(self: &Arc<Self>, id: TunnelId, socket: TcpStream, mut buf: BytesMut) -> Result<()> {
        let (reader, writer, mut reading) = (self.clone(), self.clone(), socket.try_clone()?);
        thread::spawn(move || {
            // A real program would log why the loop ends.
            while reader.with(|session, now| session.handle_recv(now, id, &mut buf)).is_ok()
                && read_more(&mut reading, &mut buf).is_ok()
            {}
            // What this tunnel carried goes out on the others.
            reader.with(|session, now| session.handle_tunnel_down(now, id));
            reader.lock().to_drop.insert(id);
            reader.changed.notify_all();
        });
        thread::spawn(move || writer.write_tunnel(id, socket));
        Ok(())
    }

    fn write_tunnel(&self, id: TunnelId, mut socket: TcpStream) -> std::io::Result<()> {
        let (mut out, mut idle) = (Transmit::new(), true);
        loop {
            // Polled until it has nothing more; then it waits to be named.
            let more = self.wait_for(|state, now| {
                idle &= !state.to_poll.remove(&id);
                idle = idle || !state.session.poll_transmit(now, id, BATCH, &mut out);
                if idle { state.to_drop.contains(&id).then_some(false) } else { Some(true) }
            });
            if !more {
                return socket.shutdown(Shutdown::Write);
            }
            while out.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 64];
                let count = out.chunks_vectored(&mut slices);
                let written = socket.write_vectored(&slices[..count])?;
                out.advance(written);
            }
        }
    }
}

/// Dials the tunnels, opens one connection, and reads and checks all that the server writes.
fn client(address: std::net::SocketAddr) -> Result<()> {
    // Ids and seeds are to come from the system's randomness, but for this example.
    let end = End::new(Side::Client, SessionId([1; 16]), 1);
    for _ in 0..TUNNELS {
        let (mut socket, mut out, mut buf) = (TcpStream::connect(address)?, BytesMut::new(), BytesMut::new());
        let hello = end.with(|session, now| session.hello(now))?;
        hello.encode(&mut out);
        socket.write_all(&out)?;
        let welcome = read_message(&mut socket, &mut buf, decode_answer)??;
        end.with(|session, now| session.handle_welcome(now, hello.tunnel, &welcome))?;
        end.run_tunnel(hello.tunnel, socket, buf)?;
    }
    let id = end.with(|session, now| session.open(now, Bytes::from_static(b"the pattern, please")))?;
    let mut read = 0;
    loop {
        let next = end.connection(id, |mut connection| match connection.read(BATCH) {
            Read::Data(data) => Some(Some(data)),
            Read::Finished => Some(None),
            Read::Pending => None,
        });
        let Some(data) = next? else { break };
        if let Some((_, wrong)) = data.iter().zip(read..).find(|(byte, offset)| **byte != pattern(*offset)) {
            return Err(format!("the byte at {wrong} is wrong").into());
        }
        read += data.len();
    }
    let stats = end.with(|session, _| session.stats());
    for tunnel in &stats.tunnels {
        println!("tunnel {} carried {:>8} bytes", tunnel.tunnel, tunnel.received);
    }
    println!("{} of {} packets came before an earlier one", stats.out_of_order, stats.data_received);
    end.with(|session, now| session.close(now, CloseCode::DONE, ""));
    // Ready when it was told on every tunnel, and the server has closed.
    end.wait_for(|state, _| (state.session.tunnels_up() == 0).then_some(()));
    match read {
        SIZE => println!("{read} bytes, and all of them right"),
        _ => return Err(format!("{read} bytes came of {SIZE}").into()),
    }
    Ok(())
}

/// Takes the tunnels of one session, and writes the pattern on the first connection that is opened in it.
fn server(listener: &TcpListener) -> Result<()> {
    let mut begun: Option<Arc<End>> = None;
    for _ in 0..TUNNELS {
        let ((mut socket, _), mut out, mut buf) = (listener.accept()?, BytesMut::new(), BytesMut::new());
        let hello = read_message(&mut socket, &mut buf, Hello::decode)?;
        // A real server has many sessions, and looks for the one that the Hello names under the client's key.
        let known = begun.is_some();
        let end = begun.get_or_insert_with(|| End::new(Side::Server, hello.session, 2));
        let welcome = end.with(|session, now| session.handle_hello(now, &hello, BootId([2; 16]), known))?;
        welcome.encode(&mut out);
        socket.write_all(&out)?;
        end.run_tunnel(hello.tunnel, socket, buf)?;
    }
    let end = begun.ok_or("no tunnel came")?;
    let id = end.wait_for(|state, _| state.accepted.pop_front());
    end.with(|session, now| session.connection(now, id).map(|connection| connection.connected(Ok(()))));
    let mut content = Bytes::from_iter((0..SIZE).map(pattern));
    while !content.is_empty() {
        let accepted = end.connection(id, |mut connection| match connection.write(&mut content) {
            Ok(0) => None,
            accepted => Some(accepted),
        });
        accepted??;
    }
    end.with(|session, now| session.connection(now, id).map(|mut connection| connection.finish()));
    // The client closes the session when it has read all.
    end.wait_for(|state, _| (state.session.is_closed() && state.session.tunnels_up() == 0).then_some(()));
    Ok(())
}

fn pattern(offset: usize) -> u8 {
    ((offset / 251) ^ offset) as u8
}

/// Appends what the socket has; its end is an error.
fn read_more(socket: &mut TcpStream, buf: &mut BytesMut) -> std::io::Result<()> {
    let len = buf.len();
    buf.resize(len + BATCH, 0);
    let read = socket.read(&mut buf[len..]);
    buf.truncate(len + *read.as_ref().unwrap_or(&0));
    if read? == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}

fn read_message<T>(
    socket: &mut TcpStream,
    buf: &mut BytesMut,
    decode: impl Fn(&mut BytesMut) -> std::result::Result<Option<T>, DecodeError>,
) -> Result<T> {
    loop {
        match decode(buf)? {
            Some(message) => return Ok(message),
            None => read_more(socket, buf)?,
        }
    }
}

fn main() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serving = thread::spawn(move || server(&listener));
    client(address)?;
    serving.join().unwrap_or_else(|_| Err("the server's thread panicked".into()))
}
