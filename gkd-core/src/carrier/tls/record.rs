//! The record protection of TLS 1.3 (RFC 8446 §5) in the caller's buffers, each direction for itself.
//!
//! Opening is the TLS library's own, in place. Its sealing allocates for each record and copies twice through the
//! unbuffered interface, so sealing is done here, with the same AEAD; so is the count of records for each key.

use aws_lc_rs::aead;
use rustls::crypto::cipher::{InboundOpaqueMessage, InboundPlainMessage, MessageDecrypter, Nonce};
use rustls::{
    ConnectionTrafficSecrets, ContentType, Error, InvalidMessage, ProtocolVersion, Tls13CipherSuite,
};

/// A record's type, version and length.
pub(super) const HEADER: usize = 5;

/// The most that a record carries: §5.1.
pub(super) const CONTENT_MAX: usize = 16 * 1024;

/// What every AEAD of TLS 1.3 adds: RFC 5116 §5.1, RFC 8439 §2.8.
const TAG: usize = 16;

/// What is around the content of a record that this end seals: header, type, tag.
pub(super) const OVERHEAD: usize = HEADER + 1 + TAG;

/// The most behind a header, by which padding is bounded: §5.2.
const SEALED_MAX: usize = CONTENT_MAX + 256;

/// The largest record that the other end may send.
pub(super) const RECORD_MAX: usize = HEADER + SEALED_MAX;

/// The type of every record behind the handshake, and the version, which is that of TLS 1.2: §5.2.
const OPAQUE: [u8; 3] = [23, 3, 3];

/// How long the record with this header is, with the header.
pub(super) fn length(header: [u8; HEADER]) -> usize {
    HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]))
}

/// How long the record is that `bytes` begin with; `None` while that is not there to be read.
///
/// # Errors
/// What can never be a record behind the handshake, by its header.
pub(super) fn sealed_length(bytes: &[u8]) -> Result<Option<usize>, Error> {
    let Some(&header) = bytes.first_chunk() else { return Ok(None) };
    let length = length(header);
    if header[0] != OPAQUE[0] {
        return Err(InvalidMessage::InvalidContentType.into());
    }
    if header[..3] != OPAQUE {
        return Err(InvalidMessage::UnknownProtocolVersion.into());
    }
    if length > RECORD_MAX {
        return Err(Error::PeerSentOversizedRecord);
    }
    Ok(Some(length))
}

/// Opens what the other end sealed under one key.
pub(super) struct Opener {
    decrypter: Box<dyn MessageDecrypter>,
    sequence: u64,
}

impl Opener {
    pub(super) fn new(
        suite: &Tls13CipherSuite,
        secrets: ConnectionTrafficSecrets,
        sequence: u64,
    ) -> Result<Self, Error> {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (Aes128Gcm { key, iv } | Aes256Gcm { key, iv } | Chacha20Poly1305 { key, iv }) = secrets else {
            return Err(unknown_cipher());
        };
        Ok(Self { decrypter: suite.aead_alg.decrypter(key, iv), sequence })
    }

    /// Opens a whole record in place.
    pub(super) fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<InboundPlainMessage<'a>, Error> {
        let sealed = record.get_mut(HEADER..).unwrap_or_default();
        let message =
            InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, sealed);
        let plain = self.decrypter.decrypt(message, self.sequence)?;
        self.sequence = self.sequence.checked_add(1).ok_or(Error::DecryptError)?;
        Ok(plain)
    }
}

/// Seals what this end sends under one key.
pub(super) struct Sealer {
    key: aead::LessSafeKey,
    iv: rustls::crypto::cipher::Iv,
    sequence: u64,
    /// So many records this key is good for: RFC 8446 §5.5.
    pub(super) limit: u64,
}

impl Sealer {
    pub(super) fn new(
        suite: &Tls13CipherSuite,
        secrets: ConnectionTrafficSecrets,
        sequence: u64,
    ) -> Result<Self, Error> {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (cipher, key, iv) = match secrets {
            Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => return Err(unknown_cipher()),
        };
        let key = aead::UnboundKey::new(cipher, key.as_ref()).map_err(|_| Error::EncryptError)?;
        let limit = suite.common.confidentiality_limit;
        Ok(Self { key: aead::LessSafeKey::new(key), iv, sequence, limit })
    }

    /// Whether only one more record may be sealed, which has to tell the other end of the next key.
    pub(super) fn is_spent(&self) -> bool {
        self.sequence.saturating_add(1) >= self.limit
    }

    /// Seals the next `len` bytes of `content`, [`CONTENT_MAX`] at the most, into one record at the front of `out`;
    /// its length. They are copied only where they lie in several slices.
    pub(super) fn seal(
        &mut self,
        kind: ContentType,
        content: &mut Gather<'_>,
        len: usize,
        out: &mut [u8],
    ) -> Result<usize, Error> {
        if self.sequence >= self.limit {
            return Err(Error::EncryptError);
        }
        let [high, low] = u16::try_from(len + 1 + TAG).map_err(|_| Error::EncryptError)?.to_be_bytes();
        let header = [OPAQUE[0], OPAQUE[1], OPAQUE[2], high, low];
        let (record, _) = out.split_at_mut_checked(len + OVERHEAD).ok_or(Error::EncryptError)?;
        let (start, sealed) = record.split_at_mut(HEADER);
        start.copy_from_slice(&header);
        let (sealed, end) = sealed.split_at_mut(len);
        let nonce = aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, self.sequence).0);
        // Never used again, not even after a failure.
        self.sequence += 1;
        let (aad, kind) = (aead::Aad::from(header), [u8::from(kind)]);
        match content.lone(len) {
            Some(lone) => self.key.seal_out_of_place_scatter(nonce, aad, lone, sealed, &kind, end),
            None => {
                content.copy_to(sealed);
                self.key.seal_in_place_scatter(nonce, aad, sealed, &kind, end)
            }
        }
        .map_err(|_| Error::EncryptError)?;
        Ok(len + OVERHEAD)
    }
}

fn unknown_cipher() -> Error {
    Error::General("the TLS library chose a cipher that was not offered".to_owned())
}

/// Bytes in several slices, taken from the front.
pub(super) struct Gather<'a> {
    slices: &'a [std::io::IoSlice<'a>],
    /// The rest of the slice in front of `slices`.
    front: &'a [u8],
    /// Of all.
    remaining: usize,
}

impl<'a> Gather<'a> {
    pub(super) fn new(slices: &'a [std::io::IoSlice<'a>]) -> Self {
        Self { slices, front: &[], remaining: slices.iter().map(|slice| slice.len()).sum() }
    }

    pub(super) fn one(front: &'a [u8]) -> Self {
        Self { slices: &[], front, remaining: front.len() }
    }

    pub(super) fn remaining(&self) -> usize {
        self.remaining
    }

    /// The next `len` bytes, if they lie in one slice.
    fn lone(&mut self, len: usize) -> Option<&'a [u8]> {
        while self.front.is_empty()
            && let [next, rest @ ..] = self.slices
        {
            (self.front, self.slices) = (next, rest);
        }
        let (lone, front) = self.front.split_at_checked(len)?;
        self.front = front;
        self.remaining -= len;
        Some(lone)
    }

    /// Fills `to` with the next bytes, of which there are enough.
    fn copy_to(&mut self, to: &mut [u8]) {
        let mut at = 0;
        while at < to.len() {
            let len = self.front.len().min(to.len() - at);
            let Some(lone) = self.lone(len.max(1)) else { return };
            to[at..at + lone.len()].copy_from_slice(lone);
            at += lone.len();
        }
    }
}
