//! Drives gkd-proto from plain threads and blocking sockets: one connection striped over four TCP connections
//! carries 32 MiB, and every byte is checked. Both ends in one process: `cargo run -p gkd-proto --example blocking`
//!
//! A session behind a lock, two threads for each tunnel, and a condition variable that all who wait sleep on. Left
//! out: keys and encryption, which are the carrier's part; redialling, and hanging up on a tunnel that an event
//! names; waking only the tunnels that `tunnels_to_poll` names; more than one session, more than one connection.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use std::{io, thread};

use bytes::{Buf, Bytes, BytesMut};
use gkd_proto::handshake::{Hello, decode_answer};
use gkd_proto::id::{BootId, ConnectionId, SessionId, Side, TunnelId};
use gkd_proto::packet::CloseCode;
use gkd_proto::{Read, Session, SessionConfig, Transmit};

type Taken<T> = Result<Option<T>>;
type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const TUNNELS: usize = 4;
const SIZE: usize = 32 * 1024 * 1024;
/// After so many bytes the content begins anew: a prime, so that packets differ.
const PERIOD: usize = 251;
/// What a tunnel asks for, or reads, at a time, in bytes.
const BATCH: usize = 64 * 1024;

/// One end: its session, and the news of it.
struct End(Mutex<Session>, Condvar);

impl End {
    fn new(side: Side) -> Arc<Self> {
        // Ids and seeds are to come from the system's randomness, but for this example.
        let (id, seed, config) = (SessionId([1; 16]), 2, SessionConfig::default());
        Arc::new(Self(Session::new(config.into(), side, id, seed, Instant::now()).into(), Condvar::new()))
    }

    /// The run loop: tells the time, calls, hears what the session says, and sleeps, until the call gives something.
    fn until<T>(&self, mut call: impl FnMut(&mut Session, Instant) -> Option<T>) -> T {
        let mut session = self.0.lock().expect("no thread panics");
        loop {
            let now = Instant::now();
            session.handle_timeout(now);
            let found = call(&mut session, now);
            let mut news = session.tunnels_to_poll().next().is_some();
            // Readable, Writable and the like need no more here than that whoever waits looks again.
            news |= std::iter::from_fn(|| session.poll_event()).count() > 0;
            if news {
                self.1.notify_all();
            }
            let due = session.poll_timeout().unwrap_or(now + Duration::from_secs(1));
            session = match found {
                Some(found) => return found,
                None if news => session,
                None => self.1.wait_timeout(session, due - now).expect("no thread panics").0,
            };
        }
    }

    fn with<T>(&self, mut call: impl FnMut(&mut Session, Instant) -> T) -> T {
        self.until(|session, now| Some(call(session, now)))
    }

    /// Runs a tunnel that is up until it ends; `buf` holds what came behind the handshake.
    fn run(self: &Arc<Self>, id: TunnelId, mut socket: TcpStream, mut buf: BytesMut) -> io::Result<()> {
        let (end, mut reading) = (self.clone(), socket.try_clone()?);
        thread::spawn(move || {
            let take = |buf: &mut _| Ok(end.with(|it, now| it.handle_recv(now, id, buf)).map(|()| None)?);
            // Never ends well; a real program would log how. What the tunnel carried goes out on the others.
            let _ended: Result<()> = read(&mut reading, &mut buf, take);
            end.with(|session, now| session.handle_tunnel_down(now, id));
        });
        let (end, mut out) = (self.clone(), Transmit::new());
        thread::spawn(move || {
            while end.until(|session, now| match session.poll_transmit(now, id, BATCH, &mut out) {
                true => Some(true),
                false => session.is_closed().then_some(false),
            }) {
                io::copy(&mut (&mut out).reader(), &mut socket)?;
            }
            socket.shutdown(Shutdown::Write)
        });
        Ok(())
    }
}

/// Dials the tunnels, opens the connection, and reads and checks all that the server writes.
fn client(address: SocketAddr) -> Result<()> {
    let end = End::new(Side::Client);
    for _ in 0..TUNNELS {
        let (mut socket, mut out, mut buf) = (TcpStream::connect(address)?, BytesMut::new(), BytesMut::new());
        let hello = end.with(Session::hello)?;
        hello.encode(&mut out);
        socket.write_all(&out)?;
        let welcome = read(&mut socket, &mut buf, |buf| Ok(decode_answer(buf)?))??;
        end.with(|session, now| session.handle_welcome(now, hello.tunnel, &welcome))?;
        end.run(hello.tunnel, socket, buf)?;
    }
    let id = end.with(|session, now| session.open(now, Bytes::from_static(b"the pattern, please")))?;
    let mut count = 0;
    let next = |session: &mut Session, now| match session.connection(now, id).expect("it lives").read(BATCH) {
        Read::Data(data) => Some(data),
        Read::Finished => Some(Bytes::new()),
        Read::Pending => None,
    };
    for data in std::iter::repeat_with(|| end.until(next)).take_while(|data| !data.is_empty()) {
        let right = data.iter().zip(count..).all(|(byte, at)| usize::from(*byte) == at % PERIOD);
        assert!(right, "a byte behind {count} is wrong");
        count += data.len();
    }
    assert_eq!(count, SIZE, "it is cut");
    let stats = end.with(|session, _| session.stats());
    let carried: Vec<_> = stats.tunnels.iter().map(|tunnel| tunnel.received).collect();
    println!("{count} bytes, and all of them right; the tunnels carried {carried:?}");
    println!("{} of {} packets came before an earlier one", stats.out_of_order, stats.data_received);
    end.with(|session, now| session.close(now, CloseCode::DONE, ""));
    end.until(|session, _| (session.tunnels_up() == 0).then_some(Ok(())))
}

/// Takes the tunnels of one session, and writes the pattern on its first connection.
fn server(listener: &TcpListener) -> Result<()> {
    let end = End::new(Side::Server);
    for index in 0..TUNNELS {
        let ((mut socket, _), mut out, mut buf) = (listener.accept()?, BytesMut::new(), BytesMut::new());
        let hello = read(&mut socket, &mut buf, |buf| Ok(Hello::decode(buf)?))?;
        end.with(|session, now| session.handle_hello(now, &hello, BootId([3; 16]), index > 0))?
            .encode(&mut out);
        socket.write_all(&out)?;
        end.run(hello.tunnel, socket, buf)?;
    }
    let mut content = Bytes::from_iter((0..SIZE).map(|at| (at % PERIOD) as u8));
    end.until(|session, now| {
        // The client's first; ids are dense. (Others are told by `Event::Accepted`.)
        let mut connection = session.connection(now, ConnectionId(1))?;
        while connection.write(&mut content).expect("it lives") > 0 {}
        content.is_empty().then(|| connection.finish())
    });
    // The client closes the session when it has read all.
    end.until(|session, _| (session.is_closed() && session.tunnels_up() == 0).then_some(Ok(())))
}

/// Reads until something comes of it; the socket's end is an error.
fn read<T>(io: &mut TcpStream, buf: &mut BytesMut, take: impl Fn(&mut BytesMut) -> Taken<T>) -> Result<T> {
    let mut bytes = [0; BATCH];
    loop {
        if let Some(message) = take(buf)? {
            return Ok(message);
        }
        match io.read(&mut bytes)? {
            0 => return Err("the other end hung up".into()),
            read => buf.extend_from_slice(&bytes[..read]),
        }
    }
}

fn main() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let serving = thread::spawn(move || server(&listener));
    client(address)?;
    serving.join().expect("the server does not panic")
}
