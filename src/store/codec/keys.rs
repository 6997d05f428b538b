//! Keys. Of fixed width; numbers big-endian, so that the order of bytes is the order of numbers.

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};

use super::{Malformed, StoredValue};
use crate::store::families::META;
use crate::tracker::{Derivation, DescriptorId, Keychain, OutputRow, ScanId, ScriptHash};

/// Bytes of a history key after the script hash: a place in one script's history.
pub const PLACE: usize = 8 + 32;

/// The key of a table.
pub trait StoredKey {
    fn bytes(&self) -> Vec<u8>;

    /// Where the row of a table is: family and key.
    fn place(&self, table: &'static str) -> (&'static str, Vec<u8>) {
        (table, self.bytes())
    }
}

/// What is there once is a row of `meta`, under the name of its table.
impl StoredKey for () {
    fn bytes(&self) -> Vec<u8> {
        Vec::new()
    }

    fn place(&self, table: &'static str) -> (&'static str, Vec<u8>) {
        (META, table.as_bytes().to_vec())
    }
}

macro_rules! stored_key {
    ($($type:ty: $key:ident => $bytes:expr),+) => {$(
        impl StoredKey for $type {
            fn bytes(&self) -> Vec<u8> {
                let $key = self;
                $bytes.to_vec()
            }
        }
    )+};
}

stored_key!(
    ScriptHash: script => script.0,
    Txid: txid => txid.to_byte_array(),
    OutPoint: outpoint => outpoint_key(outpoint),
    u32: number => number.to_be_bytes(),
    ScanId: scan => scan.0.to_be_bytes(),
    (ScanId, ScriptHash): both => scan_script_key(both.0, &both.1),
    DescriptorId: descriptor => descriptor.0,
    Derivation: place => derivation_key(place),
    (DescriptorId, OutPoint): both => owned_output_key(&both.0, &both.1)
);

/// `outputs`.
pub fn outpoint_key(outpoint: &OutPoint) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(outpoint.txid.as_byte_array());
    key[32..].copy_from_slice(&outpoint.vout.to_be_bytes());
    key
}

/// `unspent`.
pub fn unspent_key(script: &ScriptHash, outpoint: &OutPoint) -> [u8; 68] {
    let mut key = [0; 68];
    key[..32].copy_from_slice(&script.0);
    key[32..].copy_from_slice(&outpoint_key(outpoint));
    key
}

/// `owned_outputs`: as in `unspent`.
pub fn owned_output_key(descriptor: &DescriptorId, outpoint: &OutPoint) -> [u8; 68] {
    unspent_key(&ScriptHash(descriptor.0), outpoint)
}

/// `derivations`, `joining`.
pub fn derivation_key(place: &Derivation) -> [u8; 37] {
    let mut key = [0; 37];
    key[..32].copy_from_slice(&place.descriptor.0);
    key[32] = place.keychain as u8;
    key[33..].copy_from_slice(&place.index.to_be_bytes());
    key
}

/// A key of `derivations` or `joining`.
pub fn parse_derivation_key(key: &[u8]) -> Result<Derivation, Malformed> {
    let (descriptor, rest) = key.split_first_chunk().ok_or_else(|| wrong_length(key))?;
    let (keychain, index) = rest.split_first().ok_or_else(|| wrong_length(key))?;
    let keychain = match keychain {
        0 => Keychain::External,
        1 => Keychain::Internal,
        other => return Err(Malformed(format!("keychain {other} is unknown"))),
    };
    let index = index.try_into().map_err(|_| wrong_length(key))?;
    Ok(Derivation {
        descriptor: DescriptorId(*descriptor),
        keychain,
        index: u32::from_be_bytes(index),
    })
}

/// Where the unspent coinbase outputs of a script from `height` on begin in `coinbases`.
pub fn coinbases_from(script: &ScriptHash, height: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&script.0);
    key[32..].copy_from_slice(&height.to_be_bytes());
    key
}

/// The entry of an output in `coinbases`, if it has one.
pub fn coinbase_entry(outpoint: &OutPoint, row: &OutputRow) -> Option<([u8; 72], Vec<u8>)> {
    let height = row.height.filter(|_| row.coinbase && row.spent.is_none())?;
    let mut key = [0; 72];
    key[..36].copy_from_slice(&coinbases_from(&row.script, height));
    key[36..].copy_from_slice(&outpoint_key(outpoint));
    Some((key, row.value.to_bytes()))
}

/// `history`: of a script's hash, or of a descriptor's id.
pub fn history_key(subject: &[u8; 32], order: u64, txid: &Txid) -> [u8; 32 + PLACE] {
    let mut key = [0; 32 + PLACE];
    key[..32].copy_from_slice(subject);
    key[32..40].copy_from_slice(&(!order).to_be_bytes());
    key[40..].copy_from_slice(txid.as_byte_array());
    key
}

/// `since`.
pub fn since_key(from_height: u32, script: &ScriptHash) -> [u8; 36] {
    let mut key = [0; 36];
    key[..4].copy_from_slice(&from_height.to_be_bytes());
    key[4..].copy_from_slice(&script.0);
    key
}

/// `scan_scripts`.
pub fn scan_script_key(scan: ScanId, script: &ScriptHash) -> [u8; 40] {
    let mut key = [0; 40];
    key[..8].copy_from_slice(&scan.0.to_be_bytes());
    key[8..].copy_from_slice(&script.0);
    key
}

/// `script_scans`.
pub fn script_scan_key(scan: ScanId, script: &ScriptHash) -> [u8; 40] {
    let mut key = [0; 40];
    key[..32].copy_from_slice(&script.0);
    key[32..].copy_from_slice(&scan.0.to_be_bytes());
    key
}

/// The scan at the beginning of a key of `scan_scripts`.
pub fn parse_scan_of_key(key: &[u8]) -> Result<ScanId, Malformed> {
    let scan = key.first_chunk().ok_or_else(|| wrong_length(key))?;
    Ok(ScanId(u64::from_be_bytes(*scan)))
}

/// The script hash at the end of a key of `scan_scripts`.
pub fn parse_scan_script_key(key: &[u8]) -> Result<ScriptHash, Malformed> {
    key.get(8..)
        .and_then(|script| script.try_into().ok())
        .map(ScriptHash)
        .ok_or_else(|| wrong_length(key))
}

/// The scan at the end of a key of `script_scans`.
pub fn parse_script_scan_key(key: &[u8]) -> Result<ScanId, Malformed> {
    let scan = key.get(32..).ok_or_else(|| wrong_length(key))?;
    parse_number_key(scan).map(ScanId)
}

/// The script hash at the end of a key of `since`.
pub fn parse_since_key(key: &[u8]) -> Result<ScriptHash, Malformed> {
    key.get(4..)
        .and_then(|script| script.try_into().ok())
        .map(ScriptHash)
        .ok_or_else(|| wrong_length(key))
}

/// The outpoint at the end of a key of `unspent`.
pub fn parse_unspent_key(key: &[u8]) -> Result<OutPoint, Malformed> {
    key.get(32..)
        .and_then(|outpoint| parse_outpoint_key(outpoint).ok())
        .ok_or_else(|| wrong_length(key))
}

/// A key of `outputs`.
pub fn parse_outpoint_key(key: &[u8]) -> Result<OutPoint, Malformed> {
    let outpoint: &[u8; 36] = key.try_into().map_err(|_| wrong_length(key))?;
    let txid = outpoint
        .first_chunk::<32>()
        .expect("36 bytes start with 32");
    let vout = outpoint.last_chunk::<4>().expect("36 bytes end with 4");
    Ok(OutPoint {
        txid: Txid::from_byte_array(*txid),
        vout: u32::from_be_bytes(*vout),
    })
}

/// Place and transaction of a key of `history`.
pub fn parse_history_key(key: &[u8]) -> Result<([u8; PLACE], Txid), Malformed> {
    let place: [u8; PLACE] = key
        .get(32..)
        .and_then(|place| place.try_into().ok())
        .ok_or_else(|| wrong_length(key))?;
    let txid = place
        .last_chunk::<32>()
        .expect("a place ends with 32 bytes");
    Ok((place, Txid::from_byte_array(*txid)))
}

/// A key that is one 32-byte hash.
pub fn parse_hash_key(key: &[u8]) -> Result<[u8; 32], Malformed> {
    key.try_into().map_err(|_| wrong_length(key))
}

/// A key that is one event number.
pub fn parse_number_key(key: &[u8]) -> Result<u64, Malformed> {
    key.try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| wrong_length(key))
}

fn wrong_length(key: &[u8]) -> Malformed {
    Malformed(format!("the key has {} bytes", key.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::arbitrary;

    proptest! {
        #[test]
        fn keys_come_back_as_they_were(script in arbitrary::script(), place in arbitrary::derivation(), outpoint in arbitrary::outpoint(), order: u64) {
            prop_assert_eq!(parse_since_key(&since_key(outpoint.vout, &script)), Ok(script));
            prop_assert_eq!(parse_unspent_key(&unspent_key(&script, &outpoint)), Ok(outpoint));
            prop_assert_eq!(parse_outpoint_key(&outpoint_key(&outpoint)), Ok(outpoint));
            prop_assert_eq!(parse_derivation_key(&derivation_key(&place)), Ok(place));
            let scan = ScanId(order);
            prop_assert_eq!(parse_scan_script_key(&scan_script_key(scan, &script)), Ok(script));
            prop_assert_eq!(parse_scan_of_key(&scan_script_key(scan, &script)), Ok(scan));
            prop_assert_eq!(parse_script_scan_key(&script_scan_key(scan, &script)), Ok(scan));
            let key = history_key(&script.0, order, &outpoint.txid);
            let (place, txid) = parse_history_key(&key).expect("it is a history key");
            prop_assert_eq!((&key[32..], outpoint.txid), (&place[..], txid));
        }

        #[test]
        fn newer_history_sorts_first(script in arbitrary::script(), a in arbitrary::txid(), b in arbitrary::txid(), older: u64, newer: u64) {
            prop_assume!(older < newer);
            prop_assert!(history_key(&script.0, newer, &a) < history_key(&script.0, older, &b));
        }
    }

    #[test]
    fn keys_of_a_wrong_length_are_malformed() {
        assert!(parse_unspent_key(&[0; 67]).is_err());
        assert!(parse_unspent_key(&[0; 3]).is_err());
        assert!(parse_outpoint_key(&[0; 35]).is_err());
        assert!(parse_history_key(&[0; 71]).is_err());
        assert!(parse_since_key(&[0; 35]).is_err());
        assert!(parse_scan_script_key(&[0; 8]).is_err());
        assert!(parse_scan_script_key(&[0; 41]).is_err());
        assert!(parse_scan_of_key(&[0; 7]).is_err());
        assert!(parse_script_scan_key(&[0; 31]).is_err());
        assert!(parse_script_scan_key(&[0; 41]).is_err());
        assert!(parse_since_key(&[0; 2]).is_err());
        assert!(parse_hash_key(&[0; 31]).is_err());
        assert!(parse_number_key(&[0; 9]).is_err());
        assert!(parse_derivation_key(&[0; 36]).is_err());
        assert!(parse_derivation_key(&[0; 38]).is_err());
        assert!(parse_derivation_key(&[2; 37]).is_err());
    }
}
