//! TLS behind its handshake, as a stream of bytes.
//!
//! The TLS library has done the handshake and makes the next keys; the records pass through buffers of our own. Its
//! buffered interface copies what arrives out of a record and again to where it is wanted, and reads a record for each
//! system call; its unbuffered one does not open in place yet, allocates for each record, and takes no slices.
//!
//! Reads and writes are as large as the caller's. Nothing waits for more to come: what is written is a record at once,
//! or as many as it fills. An idle stream holds no buffer.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustls::Error;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::handshake::invalid;
use super::keys::Keys;
use super::reader::Reader;
use super::record::{Opener, Sealer};
use super::writer::Writer;
use crate::carrier::Wire;

/// A stream to an end whose key is proved.
///
/// The other end's rules are those of RFC 8446 behind a handshake without tickets: whatever else comes, or comes
/// changed or cut off, is an error, behind what came before it.
pub(in crate::carrier) struct Stream {
    wire: Wire,
    keys: Keys,
    reader: Reader,
    writer: Writer,
}

impl Stream {
    /// The client's end, with the bytes that were read behind the handshake.
    pub(super) fn of_client(
        wire: Wire,
        connection: UnbufferedClientConnection,
        behind: Vec<u8>,
    ) -> Result<Self, Error> {
        Self::new(wire, Keys::of_client(connection)?, behind)
    }

    /// The server's end.
    pub(super) fn of_server(
        wire: Wire,
        connection: UnbufferedServerConnection,
        behind: Vec<u8>,
    ) -> Result<Self, Error> {
        Self::new(wire, Keys::of_server(connection)?, behind)
    }

    fn new(
        wire: Wire,
        (mut keys, opener, sealer): (Keys, Opener, Sealer),
        behind: Vec<u8>,
    ) -> Result<Self, Error> {
        let mut reader = Reader::new(opener);
        reader.take(behind, &mut keys)?;
        Ok(Self { wire, keys, reader, writer: Writer::new(sealer) })
    }

    /// What the records travel over.
    pub(in crate::carrier) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// The same, to look at.
    pub(in crate::carrier) fn wire_mut(&mut self) -> &mut Wire {
        &mut self.wire
    }
}

#[cfg(test)]
impl Stream {
    /// A record for the other end, to be written past this stream.
    pub(in crate::carrier) fn sealed(&mut self, kind: rustls::ContentType, content: &[u8]) -> Vec<u8> {
        self.writer.sealed(kind, content)
    }

    /// This end's next key, as behind a `KeyUpdate`.
    pub(in crate::carrier) fn next_key(&mut self) {
        self.writer = Writer::new(self.keys.next_sealer().unwrap());
    }

    /// The present key is good for so many records in all.
    pub(in crate::carrier) fn limit_key(&mut self, records: u64) {
        self.writer.limit_key(records);
    }

    /// So much memory its buffers have.
    pub(in crate::carrier) fn held(&self) -> usize {
        self.reader.held() + self.writer.held()
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { wire, keys, reader, writer } = self.get_mut();
        let polled = reader.poll_read(wire, keys, cx, to);
        if let Some(error) = reader.broken() {
            writer.give_up(wire, cx, error);
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { wire, keys, reader, writer } = self.get_mut();
        if let Some(error) = reader.broken() {
            return Poll::Ready(Err(invalid(error.clone())));
        }
        writer.poll_write(wire, keys, &mut reader.update_asked, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { wire, writer, .. } = self.get_mut();
        writer.poll_flush(wire, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { wire, writer, .. } = self.get_mut();
        writer.poll_shutdown(wire, cx)
    }
}
