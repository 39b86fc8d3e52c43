//! A web server for tests: `GET /N/SEED` gives N bytes that follow from the seed, `PUT` of the same path
//! checks that they arrive. One thread a connection, one request a connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

/// The content is made in pieces of this size.
const PIECE: usize = 64 * 1024;

/// Starts a server on a free port of 127.0.0.1, which it returns. It lives as long as the process.
pub fn serve() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away in the middle is its own affair.
            std::thread::spawn(move || answer(stream).ok());
        }
    });
    port
}

fn answer(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let put = line.starts_with("PUT ");
    let mut path = line.split_whitespace().nth(1).unwrap_or("/").trim_start_matches('/').split('/');
    let mut number = || path.next().and_then(|part| part.parse::<u64>().ok()).unwrap_or(0);
    let (len, seed) = (number(), number());
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        if line.to_ascii_lowercase().starts_with("expect: 100-continue") {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    if put {
        let whole = check(&mut reader.take(len), len, seed);
        let status = if whole { "200 OK" } else { "400 Bad Request" };
        return write!(writer, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n")?;
    for piece in pieces(len, seed) {
        writer.write_all(&piece)?;
    }
    Ok(())
}

/// The content of so many bytes, in pieces.
pub fn pieces(len: u64, seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut left = len;
    std::iter::from_fn(move || {
        let size = left.min(PIECE as u64) as usize;
        left -= size as u64;
        let mut piece = Vec::with_capacity(PIECE + 8);
        while piece.len() < size {
            // xorshift64 (Marsaglia, 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            piece.extend(state.to_le_bytes());
        }
        piece.truncate(size);
        (size > 0).then_some(piece)
    })
}

/// Whether `from` gives just this content.
pub fn check(from: &mut dyn Read, len: u64, seed: u64) -> bool {
    let mut buffer = vec![0; PIECE];
    for piece in pieces(len, seed) {
        if from.read_exact(&mut buffer[..piece.len()]).is_err() || buffer[..piece.len()] != piece {
            return false;
        }
    }
    matches!(from.read(&mut buffer), Ok(0))
}
