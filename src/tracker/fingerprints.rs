//! Fingerprints: 8 bytes of a keyed hash for each watched script and each unspent outpoint, so that
//! a million of them fit in memory. A hit is a hint that the row confirms or denies; a miss is
//! certain.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use bitcoin::{OutPoint, Script, Txid};
use siphasher::sip::SipHasher13;

/// A keyed 64-bit hash. The key is random per process, so nobody can prepare collisions.
#[derive(Debug, Clone, Copy)]
pub struct Fingerprints {
    hasher: SipHasher13,
}

impl Fingerprints {
    pub fn new(key: &[u8; 16]) -> Self {
        Self {
            hasher: SipHasher13::new_with_key(key),
        }
    }

    /// Of a script's bytes, or of the 36 of an outpoint.
    pub fn of(&self, bytes: &[u8]) -> u64 {
        self.hasher.hash(bytes)
    }

    pub fn script(&self, spk: &Script) -> u64 {
        self.of(spk.as_bytes())
    }

    pub fn outpoint(&self, outpoint: &OutPoint) -> u64 {
        let mut bytes = [0; 36];
        let (txid, vout) = bytes.split_at_mut(32);
        txid.copy_from_slice(outpoint.txid.as_ref());
        vout.copy_from_slice(&outpoint.vout.to_le_bytes());
        self.of(&bytes)
    }
}

/// All that is kept of a transaction that concerns nobody: the fingerprints of the outpoints that
/// it spends and of the scripts that it pays.
#[derive(Debug)]
pub struct TxFingerprints {
    /// Spends first; one allocation, because there is one of these for each transaction in the
    /// node's mempool.
    all: Box<[u64]>,
    spends: u32,
    /// The transaction says itself that it may be replaced.
    pub signals: bool,
}

impl TxFingerprints {
    pub fn new(all: Vec<u64>, spends: u32, signals: bool) -> Self {
        Self {
            all: all.into_boxed_slice(),
            spends,
            signals,
        }
    }

    pub fn spends(&self) -> &[u64] {
        &self.all[..self.spends as usize]
    }

    pub fn pays(&self) -> &[u64] {
        &self.all[self.spends as usize..]
    }
}

/// Fingerprints are hashes already; hashing them again would only cost time.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed with Identity");
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

pub(super) type BuildIdentity = BuildHasherDefault<Identity>;

/// By transaction. A txid is a hash already, so eight of its bytes are enough, multiplied with a
/// key: who grinds txids does not know which fall together.
pub type TxidMap<T> = HashMap<Txid, T, BuildTxidHasher>;

#[derive(Debug, Clone, Copy)]
pub struct BuildTxidHasher([u64; 2]);

impl Default for BuildTxidHasher {
    fn default() -> Self {
        let random = RandomState::new();
        Self([random.hash_one(0), random.hash_one(1)])
    }
}

impl BuildHasher for BuildTxidHasher {
    type Hasher = TxidHasher;

    fn build_hasher(&self) -> TxidHasher {
        let Self(key) = *self;
        TxidHasher { key, bytes: 0 }
    }
}

pub struct TxidHasher {
    key: [u64; 2],
    bytes: u64,
}

impl Hasher for TxidHasher {
    fn finish(&self) -> u64 {
        let [add, times] = self.key;
        let wide = u128::from(self.bytes ^ add) * u128::from(times);
        (wide >> 64) as u64 ^ wide as u64
    }

    fn write(&mut self, bytes: &[u8]) {
        let first = bytes.first_chunk().copied().unwrap_or_default();
        self.bytes = u64::from_le_bytes(first);
    }

    /// The length, which is always the same.
    fn write_usize(&mut self, _: usize) {}
}

/// A multiset of fingerprints: two rows with the same one do not lose each other when one goes.
#[derive(Debug, Default)]
pub struct FingerprintSet {
    once: HashSet<u64, BuildIdentity>,
    /// How often beyond once; empty but for collisions.
    more: HashMap<u64, u32, BuildIdentity>,
}

impl FingerprintSet {
    pub fn contains(&self, fingerprint: u64) -> bool {
        self.once.contains(&fingerprint)
    }

    pub fn insert(&mut self, fingerprint: u64) {
        if !self.once.insert(fingerprint) {
            *self.more.entry(fingerprint).or_default() += 1;
        }
    }

    pub fn remove(&mut self, fingerprint: u64) {
        match self.more.get_mut(&fingerprint) {
            Some(1) => drop(self.more.remove(&fingerprint)),
            Some(count) => *count -= 1,
            None => drop(self.once.remove(&fingerprint)),
        }
    }

    pub fn len(&self) -> usize {
        self.once.len()
    }

    pub fn is_empty(&self) -> bool {
        self.once.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colliding_fingerprints_survive_each_others_removal() {
        let mut filter = FingerprintSet::default();
        filter.insert(7);
        filter.insert(7);
        filter.insert(7);
        filter.remove(7);
        filter.remove(7);
        assert!(filter.contains(7));
        filter.remove(7);
        assert!(!filter.contains(7));
        filter.remove(7);
        assert!(filter.is_empty());
    }

    #[test]
    fn the_key_and_every_byte_of_an_outpoint_count() {
        let outpoint = OutPoint {
            vout: 1,
            ..OutPoint::null()
        };
        let (one, two) = (Fingerprints::new(&[1; 16]), Fingerprints::new(&[2; 16]));
        assert_ne!(one.outpoint(&outpoint), two.outpoint(&outpoint));
        assert_ne!(
            one.outpoint(&outpoint),
            one.outpoint(&OutPoint {
                vout: 256,
                ..outpoint
            })
        );
    }
}
