//! HTTP: a web server whose bodies are content, and visitors who ask for them over connections that stay open. Of HTTP/1.1
//! as much as that takes; an answer that is none of that kind is an error.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use gkd_load::content::{Content, PIECE, Way};
use socket2::SockRef;

use super::destination::{cut, send, set_congestion};
use super::{Dial, Kind, Latencies};
use crate::namespace::Namespace;
use crate::net::Net;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// The longest line of a head, and the most lines: ten times those that come.
const MAX_LINE: u64 = 8192;
const MAX_LINES: usize = 100;

/// For an answer to go on.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers `GET /BYTES/CONTENT` with so many bytes of that content. Dropping it ends all its connections.
#[derive(Debug)]
pub(crate) struct WebServer {
    listener: TcpListener,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl WebServer {
    pub(crate) fn start(space: &Namespace, port: u16, congestion: Option<&str>) -> Result<Self> {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
        let listener: TcpListener = space.enter(|| {
            let socket = Kind::Tcp.socket()?;
            set_congestion(&socket, congestion)?;
            socket.set_reuse_address(true)?;
            socket.bind(&address.into()).with_context(|| format!("cannot listen on {address}"))?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })?;
        let open = Arc::<Mutex<Vec<TcpStream>>>::default();
        let (accepting, listening) = (open.clone(), listener.try_clone()?);
        thread::spawn(move || {
            while let Ok((stream, _)) = listening.accept() {
                let Ok(kept) = stream.try_clone() else { return };
                accepting.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
                thread::spawn(move || serve(&stream));
            }
        });
        Ok(Self { listener, open })
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        SockRef::from(&self.listener).shutdown(Shutdown::Both).ok();
        for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            cut(&stream);
        }
    }
}

/// Until the other side goes, or asks for something unheard of.
fn serve(stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let head = read_head(&mut reader)?;
        let (bytes, content) = asked(&head).with_context(|| format!("nobody asks {:?}", head.first()))?;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
        // Head and a small body in one packet, as web servers do.
        if bytes <= PIECE as u64 {
            let content = Content::new(content, Way::Down);
            let whole = [answer.as_bytes(), content.ahead(bytes)].concat();
            ensure!(whole.len() as u64 == answer.len() as u64 + bytes, "content has shorter pieces");
            (&*stream).write_all(&whole)?;
        } else {
            (&*stream).write_all(answer.as_bytes())?;
            send(stream, bytes, content, Way::Down)?;
        }
    }
}

/// How many bytes of which content a head asks for.
fn asked(head: &[String]) -> Option<(u64, u64)> {
    let path = head.first()?.strip_prefix("GET /")?.strip_suffix(" HTTP/1.1")?;
    let (bytes, content) = path.split_once('/')?;
    Some((bytes.parse().ok()?, content.parse().ok()?))
}

/// A connection of a visitor.
pub(crate) struct Visitor {
    reader: BufReader<TcpStream>,
    meter: Arc<AtomicU64>,
}

impl Visitor {
    /// Opens it. All bytes of bodies that come are added to the meter.
    pub(crate) fn open(net: &Net, dial: &Dial, meter: &Arc<AtomicU64>) -> Result<Self> {
        let stream = dial.open(net)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { reader: BufReader::with_capacity(PIECE, stream), meter: meter.clone() })
    }

    /// What ends it from elsewhere: whatever it waits for fails then.
    pub(crate) fn ending(&self) -> Result<Ending> {
        Ok(Ending(self.reader.get_ref().try_clone()?))
    }

    /// Asks for content, and reads and compares it; how long that took, from the request to the last byte.
    pub(crate) fn get(&mut self, bytes: u64, content: u64) -> Result<Duration> {
        let start = Instant::now();
        let request = format!("GET /{bytes}/{content} HTTP/1.1\r\nHost: lab\r\n\r\n");
        self.reader.get_ref().write_all(request.as_bytes())?;
        let head = read_head(&mut self.reader)?;
        let length = answered(&head).with_context(|| format!("the answer is {head:?}"))?;
        ensure!(length == bytes, "an answer has {length} bytes instead of {bytes}");
        let mut content = Content::new(content, Way::Down);
        while content.position() < bytes {
            let got = self.reader.fill_buf()?;
            ensure!(!got.is_empty(), "a body ends at {} of {bytes} bytes", content.position());
            let count = got.len().min((bytes - content.position()) as usize);
            ensure!(content.check(&got[..count]) == 0, "bytes of a body are wrong");
            self.reader.consume(count);
            self.meter.fetch_add(count as u64, Ordering::Relaxed);
        }
        Ok(start.elapsed())
    }
}

impl Drop for Visitor {
    fn drop(&mut self) {
        cut(self.reader.get_ref());
    }
}

/// Ends the connection of a visitor when it is dropped.
pub(crate) struct Ending(TcpStream);

impl Drop for Ending {
    fn drop(&mut self) {
        cut(&self.0);
    }
}

/// How long the body is of an answer that is 200.
fn answered(head: &[String]) -> Option<u64> {
    let (first, fields) = head.split_first()?;
    first.strip_prefix("HTTP/1.1 200 ")?;
    let length = fields.iter().find_map(|field| {
        let (name, value) = field.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value.trim())
    });
    length?.parse().ok()
}

/// The lines of a head, without its end.
fn read_head(reader: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.by_ref().take(MAX_LINE).read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some("") => return Ok(head),
            Some(line) if head.len() < MAX_LINES => head.push(line.to_owned()),
            None if line.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => return Err(io::Error::other("a head is too long or ends within a line")),
        }
    }
}

/// Many visitors at a time, who ask for one body after the other until they are dropped or something fails.
pub(crate) struct Visitors {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    end: AtomicBool,
    times: Mutex<Vec<Duration>>,
    failure: Mutex<Option<anyhow::Error>>,
    meter: Arc<AtomicU64>,
}

impl Visitors {
    /// So many, each of which asks for bodies of so many bytes.
    pub(crate) fn start(net: &Net, dial: &Dial, count: usize, bytes: u64) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let mut visitors = Self { shared: shared.clone(), threads: Vec::new() };
        for index in 0..count as u64 {
            let mut visitor = Visitor::open(net, dial, &shared.meter)?;
            let shared = shared.clone();
            visitors.threads.push(thread::spawn(move || {
                let mut content = index;
                while !shared.end.load(Ordering::Relaxed) {
                    match visitor.get(bytes, content) {
                        Ok(took) => shared.times.lock().unwrap_or_else(PoisonError::into_inner).push(took),
                        Err(error) => return shared.failed(error),
                    }
                    // No two answers are alike.
                    content += count as u64;
                }
            }));
        }
        Ok(visitors)
    }

    /// How long the answers took that have come whole since this was asked last.
    pub(crate) fn take(&self) -> Result<Latencies> {
        if let Some(error) = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error.context("a visitor"));
        }
        let times = std::mem::take(&mut *self.shared.times.lock().unwrap_or_else(PoisonError::into_inner));
        ensure!(!times.is_empty(), "no visitor has got an answer");
        Ok(Latencies(times))
    }

    /// Lets them end what they have begun.
    pub(crate) fn end(mut self) -> Result<()> {
        self.shared.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a visitor panicked"))?;
        }
        self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
    }
}

impl Shared {
    fn failed(&self, error: anyhow::Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

impl Drop for Visitors {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        read_head(&mut text.as_bytes()).unwrap()
    }

    #[test]
    fn heads_are_read_strictly() {
        assert_eq!(asked(&lines("GET /10240/7 HTTP/1.1\r\nHost: lab\r\n\r\n")), Some((10_240, 7)));
        for wrong in ["GET /10240 HTTP/1.1\r\n\r\n", "PUT /1/2 HTTP/1.1\r\n\r\n", "\r\n"] {
            assert_eq!(asked(&lines(wrong)), None, "{wrong}");
        }
        assert_eq!(answered(&lines("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")), Some(5));
        for wrong in ["HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"] {
            assert_eq!(answered(&lines(wrong)), None, "{wrong}");
        }
        for wrong in
            ["", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1", &"a".repeat(10_000), &"a: b\r\n".repeat(101)]
        {
            assert!(read_head(&mut wrong.as_bytes()).is_err());
        }
    }
}
