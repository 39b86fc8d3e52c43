//! A target of a service ([`Target`]): a small HTTP/1.1 server that keeps what it was asked, byte by byte.
//!
//! `/never` is not answered, `/endless` has an answer without an end, `/large` one of a megabyte; everything else reads its body
//! and is answered with `hello`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// The length of `/large`.
pub(crate) const LARGE: usize = 1 << 20;

/// What is known of it.
#[derive(Default)]
struct State {
    heads: Mutex<Vec<String>>,
    /// What came ahead of the first request of each connection.
    headers: Mutex<Vec<Vec<u8>>>,
    held: AtomicUsize,
    written: AtomicU64,
}

/// A running target. It lives as long as the process.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) port: u16,
    state: Arc<State>,
}

impl Target {
    pub(crate) fn start() -> Self {
        Self::start_behind(0)
    }

    /// One whose connections begin with so many bytes of something else.
    pub(crate) fn start_behind(header: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let target = Self { port: listener.local_addr().unwrap().port(), state: Arc::default() };
        let state = Arc::clone(&target.state);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let state = Arc::clone(&state);
                // A front that goes away in the middle is what some tests are about.
                thread::spawn(move || serve(socket, header, &state).ok());
            }
        });
        target
    }

    /// The heads of what it was asked, in lower case.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.state.heads.lock().unwrap().clone()
    }

    /// What its connections began with.
    pub(crate) fn headers(&self) -> Vec<Vec<u8>> {
        self.state.headers.lock().unwrap().clone()
    }

    /// How many requests without an end there are.
    pub(crate) fn held(&self) -> usize {
        self.state.held.load(Ordering::SeqCst)
    }

    /// How much of endless answers was taken.
    pub(crate) fn written(&self) -> u64 {
        self.state.written.load(Ordering::SeqCst)
    }
}

fn serve(socket: TcpStream, header: usize, state: &State) -> io::Result<()> {
    let (mut reader, mut writer) = (BufReader::new(socket.try_clone()?), socket);
    if header > 0 {
        let mut before = vec![0; header];
        reader.read_exact(&mut before)?;
        state.headers.lock().unwrap().push(before);
    }
    while let Some(head) = read_head(&mut reader)? {
        state.heads.lock().unwrap().push(head.clone());
        let path = head.split(' ').nth(1).unwrap_or_default();
        if matches!(path, "/never" | "/endless") {
            state.held.fetch_add(1, Ordering::SeqCst);
            let _ = match path {
                "/never" => io::copy(&mut reader, &mut io::sink()).map(|_| ()),
                _ => write_for_ever(&mut writer, state),
            };
            state.held.fetch_sub(1, Ordering::SeqCst);
            return Ok(());
        }
        read_body(&mut reader, &head)?;
        let body = if path == "/large" { vec![b'x'; LARGE] } else { b"hello".to_vec() };
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        if !head.starts_with("head ") {
            answer.extend(body);
        }
        // At once: a second piece would wait until the first is confirmed.
        writer.write_all(&answer)?;
    }
    Ok(())
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(String::from_utf8_lossy(&head).to_lowercase()))
}

fn read_body(reader: &mut impl BufRead, head: &str) -> io::Result<()> {
    let of = |name: &str| head.lines().find_map(|line| line.strip_prefix(name));
    if let Some(length) = of("content-length: ") {
        let length = length.parse().map_err(io::Error::other)?;
        io::copy(&mut reader.take(length), &mut io::sink())?;
    } else if of("transfer-encoding: ").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
            if size == 0 {
                break;
            }
            io::copy(&mut reader.take(size + 2), &mut io::sink())?;
        }
        let mut line = String::new();
        // Trailers.
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
    }
    Ok(())
}

/// Ends with an error.
fn write_for_ever(writer: &mut impl Write, state: &State) -> io::Result<()> {
    writer.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
    loop {
        writer.write_all(&[b'x'; 16_384])?;
        state.written.fetch_add(16_384, Ordering::SeqCst);
    }
}
