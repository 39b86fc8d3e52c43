//! What a connection carries: [`Data`] and [`Finish`] in order, [`Datagram`] without.

use bytes::{BufMut, Bytes, BytesMut};

use super::header::{self, kind};
use super::{Body, MAX_DESTINATION, MAX_PAYLOAD, put_bytes, put_numbers};
use crate::id::{ConnectionId, PacketNumber};
use crate::varint;

/// The next piece of a connection's byte stream. Charged even when it is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The connection. Its Connect may not have arrived yet.
    pub connection: ConnectionId,
    /// Its place in the sequence of this direction.
    pub number: PacketNumber,
    /// The bytes, at most [`MAX_PAYLOAD`]: the rest of the body.
    pub payload: Bytes,
}

/// Appends all of a Data packet that stands before its payload.
pub(crate) fn encode_data_header(
    out: &mut BytesMut,
    connection: ConnectionId,
    number: PacketNumber,
    payload: usize,
) {
    assert!(payload <= MAX_PAYLOAD, "a payload has a bound");
    varint::put_row(out, |row| {
        row.push(kind::DATA);
        row.push((varint::len(connection.0) + varint::len(number.0) + payload) as u64);
        row.push(connection.0);
        row.push(number.0);
    });
}

impl Data {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        encode_data_header(out, self.connection, self.number, self.payload.len());
        out.put_slice(&self.payload);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        let connection = ConnectionId(body.number()?);
        let number = PacketNumber(body.number()?);
        (body.len() <= MAX_PAYLOAD).then(|| Self { connection, number, payload: body.rest() })
    }
}

/// The end of one direction of a connection (half-close). Free of charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finish {
    /// The connection.
    pub connection: ConnectionId,
    /// Its place in the sequence: one behind the last Data.
    pub number: PacketNumber,
}

impl Finish {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_numbers(out, kind::FINISH, [self.connection.0, self.number.0]);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        Some(Self { connection: ConnectionId(body.number()?), number: PacketNumber(body.number()?) })
    }
}

/// One unordered, unacknowledged message, such as a UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Datagram {
    /// The connection that it belongs to.
    pub connection: ConnectionId,
    /// Where it came from or goes to, in bytes that this layer does not read, at most [`MAX_DESTINATION`].
    pub address: Bytes,
    /// The message, at most [`MAX_PAYLOAD`] bytes: the rest of the body.
    pub payload: Bytes,
}

impl Datagram {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        assert!(self.address.len() <= MAX_DESTINATION && self.payload.len() <= MAX_PAYLOAD);
        let address = varint::len(self.address.len() as u64) + self.address.len();
        header::put(out, kind::DATAGRAM, varint::len(self.connection.0) + address + self.payload.len());
        varint::put(out, self.connection.0);
        put_bytes(out, &self.address);
        out.put_slice(&self.payload);
    }

    #[inline(always)]
    pub(crate) fn decode(body: &mut Body<'_>) -> Option<Self> {
        let connection = ConnectionId(body.number()?);
        let address = body.bytes(MAX_DESTINATION)?;
        (body.len() <= MAX_PAYLOAD).then(|| Self { connection, address, payload: body.rest() })
    }
}
