//! The unencrypted carrier, for embedding, measuring and tests: users are told apart as on TLS, what follows
//! is bare. A binary uses it only when both ends ask for it by name.
//!
//! Three messages of fixed length, then packets, the client's `Hello` first:
//!
//! ```text
//! client  ->  "gkd/1 plain\n"                                                  12 bytes, the preface
//! server  ->  challenge (32, random)  server's public key (32)                 64 bytes
//! client  ->  client's public key (32)  session id (16)  tunnel id (8)  signature (64)    120 bytes
//! ```
//!
//! The tunnel id is a big-endian number. The signature is the client's, Ed25519 (RFC 8032, the plain variant),
//! over these 164 bytes:
//!
//! ```text
//! "gkd/1 plain: the client's proof of its key\n\0" (44)
//! challenge (32)  server's public key (32)  client's public key (32)  session id (16)  tunnel id (8)
//! ```
//!
//! The context sets it apart from everything else that the key signs (TLS 1.3 begins with 64 spaces), the
//! challenge from every other connection, the server's key from every other server. The `Hello` that follows
//! must name the session and tunnel that were signed: [`Carrier::check_hello`]. The server only says its key;
//! who needs it proved uses TLS. A client that knows the server's key goes no further with another.
//!
//! A server that does not take this carrier answers the preface with 15 other bytes, and closes:
//!
//! ```text
//! server  ->  "gkd/1 no plain\n"                                               15 bytes, the refusal
//! ```
//!
//! A challenge that begins so by chance does not come about: one in 2^120 would.

use gkd_proto::id::{PeerId, SessionId, TunnelId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::error::server_at;
use super::{Carrier, CarrierError, CarrierKind, Claim, MAX_HANDSHAKE_BYTES, Wire};
use crate::identity::{self, KEY_LEN, SIGNATURE_LEN, SecretKey};

/// What a client says first. Begins neither like TLS (0x16) nor like HTTP.
pub const PREFACE: &[u8; 12] = b"gkd/1 plain\n";

/// What a server says that does not take this carrier. Shorter than a challenge, which it stands in place of.
const REFUSAL: &[u8; 15] = b"gkd/1 no plain\n";

/// What the signed bytes begin with.
const CONTEXT: &[u8; 44] = b"gkd/1 plain: the client's proof of its key\n\0";

const CHALLENGE_LEN: usize = 32;
const CLAIM_LEN: usize = KEY_LEN + 16 + 8;

type Challenge = [u8; CHALLENGE_LEN];

/// Client: the handshake over `io` as the client with `key`; `session` and `tunnel` are those of the `Hello`
/// that is to follow. `server` is the key that the server must say, `None` takes any.
///
/// No deadline of its own; not cancellation safe: dropped half-way, the connection is gone.
///
/// # Errors
/// [`CarrierError::WrongKey`] when the server says another key, [`CarrierError::PlainRefused`] when it does not
/// take this carrier, [`CarrierError::PlainClosed`] when it closes the connection without a word, and whatever
/// may befall one.
pub async fn connect(
    io: impl Into<Wire>,
    key: &SecretKey,
    server: Option<PeerId>,
    session: SessionId,
    tunnel: TunnelId,
) -> Result<Carrier, CarrierError> {
    let mut wire = io.into();
    wire.write_all(PREFACE).await?;
    wire.flush().await?;
    let closed = |error: std::io::Error| match error.into() {
        CarrierError::Closed => CarrierError::PlainClosed,
        other => other,
    };
    let mut answer = [0; CHALLENGE_LEN + KEY_LEN];
    let (start, rest) = answer.split_at_mut(REFUSAL.len());
    wire.read_exact(start).await.map_err(closed)?;
    if *start == REFUSAL[..] {
        return Err(CarrierError::PlainRefused { server: server_at(wire.peer_addr()) });
    }
    wire.read_exact(rest).await.map_err(closed)?;
    let (challenge, said): (Challenge, _) = halves(answer);
    let got = PeerId(said);
    if let Some(expected) = server.filter(|expected| *expected != got) {
        let server = server_at(wire.peer_addr());
        return Err(CarrierError::WrongKey { server, expected, got });
    }
    let proof = Proof { client: key.public(), claim: Claim { session, tunnel } };
    let signature = key.sign(&proof.signed(&challenge, got));
    let mut message = proof.bytes().to_vec();
    message.extend(signature);
    wire.write_all(&message).await?;
    wire.flush().await?;
    Ok(Carrier::bare(wire, CarrierKind::Plain, got, Some(proof.claim)))
}

/// Server: refuses a client whose preface was read, and says so: a connection that only closes looks like a
/// network that fails, which is dialled again for ever.
pub(super) async fn refuse(mut wire: Wire) -> CarrierError {
    // The client may be gone; it is refused either way.
    if wire.write_all(REFUSAL).await.is_ok() {
        wire.shutdown().await.ok();
    }
    CarrierError::PlainNotTaken
}

/// Server: takes clients on the unencrypted carrier. Cheap to clone.
#[derive(Clone, Copy, Debug)]
pub struct Acceptor {
    key: PeerId,
}

impl Acceptor {
    /// Takes clients as the server with this key, which is only said, never proved.
    pub fn new(key: &SecretKey) -> Self {
        Self { key: key.public() }
    }

    /// Runs the handshake over `io`, from the preface on; the carrier's [`peer`](Carrier::peer) is the key that
    /// the client proved. The `Hello` that follows must pass [`Carrier::check_hello`].
    ///
    /// No deadline of its own; not cancellation safe: dropped half-way, the connection is gone.
    ///
    /// # Errors
    /// [`CarrierError::BadSignature`] for a key that the client does not have, [`CarrierError::NotGkdClient`]
    /// for another preface, and whatever may befall a connection.
    pub async fn accept(&self, io: impl Into<Wire>) -> Result<Carrier, CarrierError> {
        self.accept_with(io.into(), identity::random()).await
    }

    async fn accept_with(&self, mut wire: Wire, challenge: Challenge) -> Result<Carrier, CarrierError> {
        wire.allow(Some(MAX_HANDSHAKE_BYTES));
        let mut preface = [0; PREFACE.len()];
        wire.read_exact(&mut preface).await?;
        if preface != *PREFACE {
            return Err(CarrierError::NotGkdClient);
        }
        let answer = [challenge, self.key.0].concat();
        wire.write_all(&answer).await?;
        wire.flush().await?;
        let mut message = [0; CLAIM_LEN + SIGNATURE_LEN];
        wire.read_exact(&mut message).await?;
        wire.allow(None);
        let (proof, signature) = halves(message);
        let proof = Proof::from_bytes(proof);
        if !identity::verify(&proof.client, &proof.signed(&challenge, self.key), &signature) {
            return Err(CarrierError::BadSignature);
        }
        Ok(Carrier::bare(wire, CarrierKind::Plain, proof.client, Some(proof.claim)))
    }
}

/// Who the client is and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proof {
    client: PeerId,
    claim: Claim,
}

impl Proof {
    fn bytes(&self) -> [u8; CLAIM_LEN] {
        let mut bytes = [0; CLAIM_LEN];
        let (client, rest) = bytes.split_at_mut(KEY_LEN);
        let (session, tunnel) = rest.split_at_mut(16);
        client.copy_from_slice(&self.client.0);
        session.copy_from_slice(&self.claim.session.0);
        tunnel.copy_from_slice(&self.claim.tunnel.0.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: [u8; CLAIM_LEN]) -> Self {
        let (client, rest): (_, [u8; CLAIM_LEN - KEY_LEN]) = halves(bytes);
        let (session, tunnel) = halves(rest);
        let claim = Claim { session: SessionId(session), tunnel: TunnelId(u64::from_be_bytes(tunnel)) };
        Self { client: PeerId(client), claim }
    }

    fn signed(&self, challenge: &Challenge, server: PeerId) -> Vec<u8> {
        [&CONTEXT[..], challenge, &server.0, &self.bytes()].concat()
    }
}

/// Cuts an array in two, whose lengths add up to its own.
fn halves<const WHOLE: usize, const A: usize, const B: usize>(whole: [u8; WHOLE]) -> ([u8; A], [u8; B]) {
    const { assert!(WHOLE == A + B) };
    let (mut a, mut b) = ([0; A], [0; B]);
    a.copy_from_slice(&whole[..A]);
    b.copy_from_slice(&whole[A..]);
    (a, b)
}

#[cfg(test)]
mod tests;
