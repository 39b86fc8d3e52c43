//! The TLS handshake, driven in buffers of our own, so that what comes behind it is still there, unopened, when the
//! keys are taken out of the library: what the library has read, it has opened, and would keep.

use std::io;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{CommonState, Error};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::record;

/// How much is read at a time: the larger share of a handshake comes in one read.
const READ: usize = 4096;

/// One end of a handshake.
pub(crate) trait Side: std::ops::Deref<Target: std::ops::Deref<Target = CommonState>> {
    /// The library's own, which differs between the two.
    type Data;

    /// Takes the library one step further.
    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Side for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Side for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

/// Drives the handshake to its end. Returns the bytes that were read behind it.
///
/// What the library says against the other end is the source of an error of kind
/// [`InvalidData`](io::ErrorKind::InvalidData); the other end has been told then, if it takes an alert at once.
///
/// # Errors
/// Whatever the other end does wrong, and whatever may befall a connection.
pub(crate) async fn run<S: Side, IO>(connection: &mut S, io: &mut IO) -> io::Result<Vec<u8>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let (mut incoming, mut outgoing) = (Incoming::default(), Outgoing::default());
    loop {
        let (discard, step) = step(connection.process(incoming.given()), &mut outgoing.bytes);
        incoming.discard(discard);
        match step {
            Ok(Step::Again) => {}
            // A server may write before it has heard all.
            Ok(Step::Wait) if connection.is_handshaking() => incoming.more(io, &mut outgoing).await?,
            Ok(Step::Wait) => {
                outgoing.write(io).await;
                return outgoing.failed.map_or(incoming.rest().map_err(invalid), Err);
            }
            Ok(Step::Closed) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => {
                // An alert, which stands in front of everything else. Where there is none, the library would look on
                // for records from a place that may be behind what is left of them, and panic.
                if connection.wants_write() {
                    let _ = self::step(connection.process(incoming.given()), &mut outgoing.bytes);
                }
                // To who takes it at once.
                futures::FutureExt::now_or_never(outgoing.write(io));
                return Err(invalid(error));
            }
        }
    }
}

/// As an error of a stream.
pub(super) fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What is to be done next.
enum Step {
    Again,
    Wait,
    Closed,
}

/// Carries out what the library asks for, or says what is to be done; and how many bytes it is done with.
fn step<Data>(status: UnbufferedStatus<'_, '_, Data>, out: &mut Vec<u8>) -> (usize, Result<Step, Error>) {
    let state = match status.state {
        Ok(state) => state,
        Err(error) => return (status.discard, Err(error)),
    };
    let step = match state {
        ConnectionState::EncodeTlsData(mut chunk) => {
            let at = out.len();
            let mut encoded = chunk.encode(&mut []);
            if let Err(EncodeError::InsufficientSize(size)) = encoded {
                out.resize(at + size.required_size, 0);
                encoded = chunk.encode(&mut out[at..]);
            }
            encoded.map(|_| Step::Again).map_err(|error| Error::General(error.to_string()))
        }
        ConnectionState::TransmitTlsData(sent) => {
            // It goes out before anything more is read.
            sent.done();
            Ok(Step::Again)
        }
        ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => Ok(Step::Wait),
        ConnectionState::PeerClosed | ConnectionState::Closed => Ok(Step::Closed),
        // It is given one record at a time, and none behind the last one of the handshake.
        _ => Err(Error::HandshakeNotComplete),
    };
    (status.discard, step)
}

/// What is to be written.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    /// Why that failed. What the other end said before it closed tells more, so it is read first.
    failed: Option<io::Error>,
}

impl Outgoing {
    async fn write<IO: AsyncWrite + Unpin>(&mut self, io: &mut IO) {
        if self.bytes.is_empty() || self.failed.is_some() {
            return;
        }
        let written = async {
            io.write_all(&self.bytes).await?;
            io.flush().await
        };
        self.failed = written.await.err();
        self.bytes.clear();
    }
}

/// What came and is not done with. The library is given one record more each time, so that it never sees one that
/// is not part of the handshake.
#[derive(Default)]
struct Incoming {
    bytes: Vec<u8>,
    /// The library was given so many of them, and keeps them: a message that is in several records.
    given: usize,
    /// Where the record begins that is given next, or whose rest is.
    start: usize,
}

impl Incoming {
    fn given(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.given]
    }

    fn discard(&mut self, count: usize) {
        self.bytes.drain(..count);
        self.given -= count;
        self.start = self.start.saturating_sub(count);
    }

    /// Gives one record more, or what there is of it. What is to be written goes before a read.
    async fn more<IO>(&mut self, io: &mut IO, outgoing: &mut Outgoing) -> io::Result<()>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        while self.given == self.bytes.len() {
            outgoing.write(io).await;
            self.bytes.reserve(READ);
            let read = (&mut *io).take(READ as u64).read_buf(&mut self.bytes).await;
            match (read, outgoing.failed.take()) {
                (Ok(0) | Err(_), Some(failed)) => return Err(failed),
                (Ok(0), None) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (Err(error), None) => return Err(error),
                (Ok(_), failed) => outgoing.failed = failed,
            }
        }
        let end = self.end();
        self.given = end.min(self.bytes.len());
        if self.given == end {
            // Told now: the library joins what it keeps of several records where their headers stood.
            self.start = end;
        }
        Ok(())
    }

    /// Where that record ends, or its header while that is not there.
    fn end(&self) -> usize {
        let record = &self.bytes[self.start..];
        self.start + record.first_chunk().map_or(record::HEADER, |header| record::length(*header))
    }

    fn rest(mut self) -> Result<Vec<u8>, Error> {
        if self.given > 0 {
            // RFC 8446 §5.1: no message goes across a change of keys, as the end of the handshake is one.
            return Err(Error::General(
                "a message begins within the handshake and ends behind it".to_owned(),
            ));
        }
        self.bytes.shrink_to_fit();
        Ok(self.bytes)
    }
}
