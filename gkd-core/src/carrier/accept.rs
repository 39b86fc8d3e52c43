//! The server's side of a port: recognises what comes in and runs the right carrier's handshake.

use bytes::Bytes;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::{
    Carrier, CarrierError, CarrierKind, FirstBytes, MAX_HANDSHAKE_BYTES, Wire, plain, recognise, tls,
};
use crate::identity::SecretKey;

/// Takes TLS and, if it is asked to, the unencrypted carrier on one port, and tells HTTP from them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acceptor {
    tls: tls::Acceptor,
    plain: Option<plain::Acceptor>,
    key: SecretKey,
}

/// What came in.
#[derive(Debug)]
pub enum Incoming {
    /// A client that proved a key; who may come in is still to be decided, at its `Hello`.
    Gkd(Carrier),
    /// HTTP, with all its bytes still to be read: perhaps a WebSocket, with a tunnel in it.
    Http(Wire),
    /// Something that does not speak gkd, with all its bytes still to be read: drop it to close it, or hand it
    /// on whole.
    Foreign(Wire),
}

impl Acceptor {
    /// Takes TLS only, as the server with this key.
    ///
    /// # Errors
    /// [`CarrierError::Tls`], if the TLS library refuses the key; it does not.
    pub fn new(key: &SecretKey) -> Result<Self, CarrierError> {
        Ok(Self { tls: tls::Acceptor::new(key)?, plain: None, key: key.clone() })
    }

    /// Whether the unencrypted carrier is taken as well.
    #[must_use]
    pub fn with_plain(mut self, taken: bool) -> Self {
        self.plain = taken.then(|| plain::Acceptor::new(&self.key));
        self
    }

    /// Recognises what comes in over `io` and runs its handshake, done by `deadline` or failed. Reads 16 KiB
    /// at the most before the client proved a key, so a stranger costs that and its socket.
    ///
    /// Not cancellation safe: dropped half-way, the connection is gone.
    ///
    /// # Errors
    /// Whatever the client does wrong, or that it does nothing. Its connection is closed then.
    pub async fn accept(&self, io: impl Into<Wire>, deadline: Instant) -> Result<Incoming, CarrierError> {
        let mut wire = io.into();
        let handshake = async {
            wire.allow(Some(MAX_HANDSHAKE_BYTES));
            let carrier = match first_bytes(&mut wire).await? {
                FirstBytes::Tls => self.tls.accept_wire(wire).await?,
                FirstBytes::Plain => match &self.plain {
                    Some(plain) => plain.accept(wire).await?,
                    None => return Err(plain::refuse(wire).await),
                },
                FirstBytes::Http => {
                    wire.allow(None);
                    return Ok(Incoming::Http(wire));
                }
                FirstBytes::Foreign | FirstBytes::NeedMore => {
                    wire.allow(None);
                    return Ok(Incoming::Foreign(wire));
                }
            };
            Ok(Incoming::Gkd(carrier))
        };
        tokio::time::timeout_at(deadline, handshake).await.unwrap_or(Err(CarrierError::Deadline))
    }

    /// Runs the handshake of TLS within a WebSocket, without a deadline of its own.
    pub(crate) async fn accept_websocket(&self, mut wire: Wire) -> Result<Carrier, CarrierError> {
        wire.allow(Some(MAX_HANDSHAKE_BYTES));
        Ok(self.tls.accept_wire(wire).await?.over(CarrierKind::Ws))
    }
}

/// Reads ahead until the first bytes tell, and puts them back.
async fn first_bytes(wire: &mut Wire) -> Result<FirstBytes, CarrierError> {
    let mut first = [0; FirstBytes::ENOUGH];
    let mut len = 0;
    while recognise(&first[..len]) == FirstBytes::NeedMore {
        match wire.read(&mut first[len..]).await? {
            0 => return Err(CarrierError::Closed),
            more => len += more,
        }
    }
    wire.put_back(Bytes::copy_from_slice(&first[..len]));
    Ok(recognise(&first[..len]))
}
