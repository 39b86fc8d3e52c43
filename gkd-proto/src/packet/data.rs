//! What a connection carries: [`Data`] and [`Finish`] in order, [`Datagram`] without.

use bytes::{BufMut, Bytes};

use super::header::{self, kind};
use super::{MAX_DESTINATION, MAX_PAYLOAD, put_bytes, take_bytes};
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
    out: &mut impl BufMut,
    connection: ConnectionId,
    number: PacketNumber,
    payload: usize,
) {
    assert!(payload <= MAX_PAYLOAD, "a payload has a bound");
    header::put(out, kind::DATA, varint::len(connection.0) + varint::len(number.0) + payload);
    varint::put(out, connection.0);
    varint::put(out, number.0);
}

impl Data {
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        encode_data_header(out, self.connection, self.number, self.payload.len());
        out.put_slice(&self.payload);
    }

    pub(crate) fn decode(body: &mut Bytes) -> Option<Self> {
        let connection = ConnectionId(varint::take(body)?);
        let number = PacketNumber(varint::take(body)?);
        (body.len() <= MAX_PAYLOAD).then(|| Self { connection, number, payload: std::mem::take(body) })
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
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        header::put(out, kind::FINISH, varint::len(self.connection.0) + varint::len(self.number.0));
        varint::put(out, self.connection.0);
        varint::put(out, self.number.0);
    }

    pub(crate) fn decode(body: &mut Bytes) -> Option<Self> {
        Some(Self {
            connection: ConnectionId(varint::take(body)?),
            number: PacketNumber(varint::take(body)?),
        })
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
    pub(crate) fn encode(&self, out: &mut impl BufMut) {
        assert!(self.address.len() <= MAX_DESTINATION && self.payload.len() <= MAX_PAYLOAD);
        let address = varint::len(self.address.len() as u64) + self.address.len();
        header::put(out, kind::DATAGRAM, varint::len(self.connection.0) + address + self.payload.len());
        varint::put(out, self.connection.0);
        put_bytes(out, &self.address);
        out.put_slice(&self.payload);
    }

    pub(crate) fn decode(body: &mut Bytes) -> Option<Self> {
        let connection = ConnectionId(varint::take(body)?);
        let address = take_bytes(body, MAX_DESTINATION)?;
        (body.len() <= MAX_PAYLOAD).then(|| Self { connection, address, payload: std::mem::take(body) })
    }
}
