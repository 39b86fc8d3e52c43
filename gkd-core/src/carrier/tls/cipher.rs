//! The AEAD of the records, by the library that is faster at it on this machine.
//!
//! aws-lc does the handshake, and the records where nothing is gained by another. On processors with VAES and without
//! AVX-512 its AES-GCM uses neither, and ring's is twice as fast (docs/PERFORMANCE.md).

use aws_lc_rs::aead as by_aws_lc;
use ring::aead as by_ring;
use rustls::crypto::cipher::Iv;
use rustls::{ConnectionTrafficSecrets, Error};

use super::record::{Gather, HEADER, TAG};

/// One key of one direction.
pub(super) enum Cipher {
    AwsLc(Box<by_aws_lc::LessSafeKey>),
    Ring(Box<by_ring::LessSafeKey>),
}

/// A nonce as both libraries take it: RFC 8446 §5.3.
pub(super) type Nonce = [u8; 12];

/// The library refused: what was to be opened is not what was sealed.
#[derive(Debug)]
pub(super) struct Refused;

impl Cipher {
    /// The key of these secrets, and what its nonces are made of.
    ///
    /// # Errors
    /// A cipher that was never offered.
    pub(super) fn new(secrets: ConnectionTrafficSecrets) -> Result<(Self, Iv), Error> {
        Self::by(secrets, is_ring_faster())
    }

    /// The same, AES by ring or by aws-lc.
    fn by(secrets: ConnectionTrafficSecrets, ring: bool) -> Result<(Self, Iv), Error> {
        use ConnectionTrafficSecrets::{Aes128Gcm, Aes256Gcm, Chacha20Poly1305};
        let (of_aws_lc, of_ring, key, iv) = match secrets {
            Aes128Gcm { key, iv } => (&by_aws_lc::AES_128_GCM, Some(&by_ring::AES_128_GCM), key, iv),
            Aes256Gcm { key, iv } => (&by_aws_lc::AES_256_GCM, Some(&by_ring::AES_256_GCM), key, iv),
            Chacha20Poly1305 { key, iv } => (&by_aws_lc::CHACHA20_POLY1305, None, key, iv),
            _ => {
                return Err(Error::General("the TLS library chose a cipher that was not offered".to_owned()));
            }
        };
        let cipher = match of_ring.filter(|_| ring) {
            Some(algorithm) => {
                let key = by_ring::UnboundKey::new(algorithm, key.as_ref());
                Self::Ring(Box::new(by_ring::LessSafeKey::new(key.map_err(|_| Error::EncryptError)?)))
            }
            None => {
                let key = by_aws_lc::UnboundKey::new(of_aws_lc, key.as_ref());
                Self::AwsLc(Box::new(by_aws_lc::LessSafeKey::new(key.map_err(|_| Error::EncryptError)?)))
            }
        };
        Ok((cipher, iv))
    }

    /// Seals the next bytes of `content` and `kind` behind them into `sealed`, which is larger by [`TAG`] than both.
    pub(super) fn seal(
        &self,
        nonce: Nonce,
        header: [u8; HEADER],
        content: &mut Gather<'_>,
        kind: u8,
        sealed: &mut [u8],
    ) -> Result<(), Refused> {
        let len = sealed.len().checked_sub(1 + TAG).ok_or(Refused)?;
        match self {
            Self::AwsLc(key) => {
                let nonce = by_aws_lc::Nonce::assume_unique_for_key(nonce);
                let (aad, (sealed, end)) = (by_aws_lc::Aad::from(header), sealed.split_at_mut(len));
                match content.lone(len) {
                    Some(lone) => key.seal_out_of_place_scatter(nonce, aad, lone, sealed, &[kind], end),
                    None => {
                        content.copy_to(sealed);
                        key.seal_in_place_scatter(nonce, aad, sealed, &[kind], end)
                    }
                }
                .map_err(|_| Refused)
            }
            Self::Ring(key) => {
                let nonce = by_ring::Nonce::assume_unique_for_key(nonce);
                let (plain, tag) = sealed.split_at_mut(len + 1);
                content.copy_to(&mut plain[..len]);
                plain[len] = kind;
                let made = key.seal_in_place_separate_tag(nonce, by_ring::Aad::from(header), plain);
                tag.copy_from_slice(made.map_err(|_| Refused)?.as_ref());
                Ok(())
            }
        }
    }

    /// Opens in place; what was sealed.
    pub(super) fn open<'a>(
        &self,
        nonce: Nonce,
        header: [u8; HEADER],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], Refused> {
        match self {
            Self::AwsLc(key) => {
                let nonce = by_aws_lc::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, by_aws_lc::Aad::from(header), sealed).map_err(|_| Refused)
            }
            Self::Ring(key) => {
                let nonce = by_ring::Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, by_ring::Aad::from(header), sealed).map_err(|_| Refused)
            }
        }
    }
}

/// aws-lc uses the wide registers of AVX-512 where there are any, ring those of AVX2.
fn is_ring_faster() -> bool {
    #[cfg(target_arch = "x86_64")]
    return is_x86_feature_detected!("vaes")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("avx2")
        && !is_x86_feature_detected!("avx512f");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use rustls::crypto::cipher::AeadKey;

    use super::*;

    const HEAD: [u8; HEADER] = [23, 3, 3, 0, 99];

    /// Shorter keys are made by the TLS library only.
    fn secrets(is_aes: bool) -> ConnectionTrafficSecrets {
        let (key, iv) = (AeadKey::from([7; 32]), Iv::from([9; 12]));
        if is_aes {
            ConnectionTrafficSecrets::Aes256Gcm { key, iv }
        } else {
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv }
        }
    }

    #[test]
    fn what_one_library_seals_the_other_opens() {
        let content: Vec<u8> = (0..5000).map(|i| i as u8).collect();
        for is_aes in [true, false] {
            for len in [0, 1, 255, 5000] {
                for (by, other) in [(false, true), (true, false)] {
                    let (by, _) = Cipher::by(secrets(is_aes), by).unwrap();
                    let (other, _) = Cipher::by(secrets(is_aes), other).unwrap();
                    let halves = content[..len].split_at(len / 3);
                    let slices = [IoSlice::new(halves.0), IoSlice::new(halves.1)];
                    let mut sealed = vec![0; len + 1 + TAG];
                    by.seal([1; 12], HEAD, &mut Gather::new(&slices), 23, &mut sealed).unwrap();
                    let mut whole = vec![0; len + 1 + TAG];
                    by.seal([1; 12], HEAD, &mut Gather::one(&content[..len]), 23, &mut whole).unwrap();
                    assert!(sealed == whole, "one slice or two");
                    let opened = other.open([1; 12], HEAD, &mut whole).unwrap();
                    assert!(opened[..len] == content[..len] && opened[len..] == [23]);
                    sealed[len] ^= 1;
                    assert!(other.open([1; 12], HEAD, &mut sealed).is_err(), "it was changed");
                }
            }
        }
    }
}
