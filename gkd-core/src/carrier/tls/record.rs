//! The record protection of TLS 1.3 (RFC 8446 §5) in the caller's buffers, each direction for itself.
//!
//! What a record is and what stands in it is the TLS library's to say; its sealing allocates for each record and copies
//! twice through the unbuffered interface, so sealing and opening are done here, with the same [`Cipher`]s; so is the count
//! of records for each key.

use rustls::crypto::cipher::{InboundOpaqueMessage, InboundPlainMessage, Iv, Nonce};
use rustls::{
    ConnectionTrafficSecrets, ContentType, Error, InvalidMessage, ProtocolVersion, Tls13CipherSuite,
};

use super::cipher::Cipher;

/// A record's type, version and length.
pub(super) const HEADER: usize = 5;

/// The most that a record carries: §5.1.
pub(super) const CONTENT_MAX: usize = 16 * 1024;

/// What every AEAD of TLS 1.3 adds: RFC 5116 §5.1, RFC 8439 §2.8.
pub(super) const TAG: usize = 16;

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
    cipher: Cipher,
    iv: Iv,
    sequence: u64,
}

impl Opener {
    pub(super) fn new(secrets: ConnectionTrafficSecrets, sequence: u64) -> Result<Self, Error> {
        let (cipher, iv) = Cipher::new(secrets)?;
        Ok(Self { cipher, iv, sequence })
    }

    /// Opens a whole record in place.
    pub(super) fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<InboundPlainMessage<'a>, Error> {
        let (&mut header, sealed) = record.split_first_chunk_mut().ok_or(Error::DecryptError)?;
        let nonce = Nonce::new(&self.iv, self.sequence).0;
        let opened = self.cipher.open(nonce, header, sealed).map_err(|_| Error::DecryptError)?;
        self.sequence = self.sequence.checked_add(1).ok_or(Error::DecryptError)?;
        // The type stands behind the content, and padding behind that: §5.2.
        InboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, opened)
            .into_tls13_unpadded_message()
    }
}

/// Seals what this end sends under one key.
pub(super) struct Sealer {
    cipher: Cipher,
    iv: Iv,
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
        let (cipher, iv) = Cipher::new(secrets)?;
        Ok(Self { cipher, iv, sequence, limit: suite.common.confidentiality_limit })
    }

    /// Whether only one more record may be sealed, which has to tell the other end of the next key.
    pub(super) fn is_spent(&self) -> bool {
        self.sequence.saturating_add(1) >= self.limit
    }

    /// Seals the next `len` bytes of `content`, [`CONTENT_MAX`] at the most, into one record at the front of `out`;
    /// its length.
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
        let nonce = Nonce::new(&self.iv, self.sequence).0;
        // Never used again, not even after a failure.
        self.sequence += 1;
        self.cipher.seal(nonce, header, content, u8::from(kind), sealed).map_err(|_| Error::EncryptError)?;
        Ok(len + OVERHEAD)
    }
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
    pub(super) fn lone(&mut self, len: usize) -> Option<&'a [u8]> {
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
    pub(super) fn copy_to(&mut self, to: &mut [u8]) {
        let mut at = 0;
        while at < to.len() {
            let len = self.front.len().min(to.len() - at);
            let Some(lone) = self.lone(len.max(1)) else { return };
            to[at..at + lone.len()].copy_from_slice(lone);
            at += lone.len();
        }
    }
}
