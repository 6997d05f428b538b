//! Keys and row values as bytes, as the tables in [`super`] give them. Nothing else builds or takes
//! apart a key.

use bitcoin::consensus::encode::{self, Decodable, Encodable, VarInt};
use bitcoin::hashes::Hash;
use bitcoin::{Network, OutPoint, Txid};

use super::{ChainInfo, Counts};
use crate::tracker::{
    Balance, BlockId, BlockRow, Coverage, OutputRow, ScanRow, ScanState, ScriptHash, Spend, Status,
    Touch, TxRow, WatchRow,
};

/// Version of every value so far.
const VERSION: u8 = 1;

/// Bytes that are not what this release writes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub String);

impl From<encode::Error> for Malformed {
    fn from(error: encode::Error) -> Self {
        Self(error.to_string())
    }
}

/// A value under construction.
pub(super) struct Out(Vec<u8>);

impl Out {
    pub(super) fn put(&mut self, field: &impl Encodable) -> &mut Self {
        field
            .consensus_encode(&mut self.0)
            .expect("a vector takes every byte");
        self
    }

    pub(super) fn tag(&mut self, tag: u8) -> &mut Self {
        self.put(&tag)
    }

    pub(super) fn option<T>(
        &mut self,
        field: Option<&T>,
        put: impl FnOnce(&mut Self, &T),
    ) -> &mut Self {
        self.tag(u8::from(field.is_some()));
        if let Some(field) = field {
            put(self, field);
        }
        self
    }

    pub(super) fn list<T>(&mut self, items: &[T], mut put: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.put(&VarInt(items.len() as u64));
        for item in items {
            put(self, item);
        }
        self
    }

    /// A row that is a field of another one, without a version of its own.
    pub(super) fn part<T: Value>(&mut self, part: &T) -> &mut Self {
        part.encode(self);
        self
    }
}

/// A value being read.
pub(super) struct In<'a>(&'a [u8]);

impl In<'_> {
    pub(super) fn get<T: Decodable>(&mut self) -> Result<T, Malformed> {
        Ok(T::consensus_decode_from_finite_reader(&mut self.0)?)
    }

    pub(super) fn tag(&mut self) -> Result<u8, Malformed> {
        self.get()
    }

    pub(super) fn option<T>(
        &mut self,
        get: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        match self.tag()? {
            0 => Ok(None),
            1 => get(self).map(Some),
            tag => Err(Malformed(format!(
                "{tag} is neither absent (0) nor present (1)"
            ))),
        }
    }

    /// Takes no memory for more items than there are bytes left.
    pub(super) fn list<T>(
        &mut self,
        mut get: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let VarInt(count) = self.get()?;
        if count > self.0.len() as u64 {
            return Err(Malformed(format!(
                "a list of {count} items in {} bytes",
                self.0.len()
            )));
        }
        (0..count).map(|_| get(self)).collect()
    }

    pub(super) fn part<T: Value>(&mut self) -> Result<T, Malformed> {
        T::decode(self)
    }
}

/// Something that is stored as a value, or as part of one.
pub(super) trait Value: Sized {
    fn encode(&self, out: &mut Out);
    fn decode(input: &mut In<'_>) -> Result<Self, Malformed>;

    fn to_bytes(&self) -> Vec<u8> {
        let mut out = Out(vec![VERSION]);
        self.encode(&mut out);
        out.0
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        let (version, body) = bytes
            .split_first()
            .ok_or_else(|| Malformed("the value is empty".to_owned()))?;
        if *version != VERSION {
            return Err(Malformed(format!(
                "the value has version {version}, this satwatch reads version {VERSION}"
            )));
        }
        let mut input = In(body);
        let value = Self::decode(&mut input)?;
        match input.0.len() {
            0 => Ok(value),
            left => Err(Malformed(format!("{left} bytes follow the value"))),
        }
    }
}

/// Types that are their own consensus encoding.
macro_rules! plain_value {
    ($($type:ty),*) => {$(
        impl Value for $type {
            fn encode(&self, out: &mut Out) {
                out.put(self);
            }

            fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
                input.get()
            }
        }
    )*};
}

plain_value!(u32, u64, bool, String);

impl Value for ScriptHash {
    fn encode(&self, out: &mut Out) {
        out.put(&self.0);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self(input.get()?))
    }
}

impl Value for BlockId {
    fn encode(&self, out: &mut Out) {
        out.put(&self.height).put(&self.hash);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            height: input.get()?,
            hash: input.get()?,
        })
    }
}

impl Value for ChainInfo {
    fn encode(&self, out: &mut Out) {
        out.put(&self.network.to_core_arg().to_owned())
            .put(&self.genesis);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let name: String = input.get()?;
        let network = Network::from_core_arg(&name)
            .map_err(|_| Malformed(format!("chain {name} is unknown")))?;
        Ok(Self {
            network,
            genesis: input.get()?,
        })
    }
}

impl Value for Counts {
    fn encode(&self, out: &mut Out) {
        out.put(&self.addresses)
            .put(&self.utxos)
            .put(&self.transactions);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            addresses: input.get()?,
            utxos: input.get()?,
            transactions: input.get()?,
        })
    }
}

impl Value for Balance {
    fn encode(&self, out: &mut Out) {
        out.put(&self.confirmed).put(&self.unconfirmed);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            confirmed: input.get()?,
            unconfirmed: input.get()?,
        })
    }
}

const UTXOS_COMPLETE: u8 = 1;
const PENDING: u8 = 2;
/// How many scans follows; only then, as the first release had no scans.
const SCANS: u8 = 4;

impl Value for Coverage {
    fn encode(&self, out: &mut Out) {
        let complete = if self.utxos_complete {
            UTXOS_COMPLETE
        } else {
            0
        };
        let pending = if self.pending { PENDING } else { 0 };
        let scans = if self.scans > 0 { SCANS } else { 0 };
        out.put(&self.from_height).tag(complete | pending | scans);
        if self.scans > 0 {
            out.put(&self.scans);
        }
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let from_height = input.get()?;
        let flags = input.tag()?;
        if flags & !(UTXOS_COMPLETE | PENDING | SCANS) != 0 {
            return Err(Malformed(format!("coverage flags {flags:#x} are unknown")));
        }
        let scans = match flags & SCANS {
            0 => 0,
            _ => match input.get::<u32>()? {
                0 => return Err(Malformed("no scans are counted as some".to_owned())),
                scans => scans,
            },
        };
        Ok(Self {
            from_height,
            utxos_complete: flags & UTXOS_COMPLETE != 0,
            pending: flags & PENDING != 0,
            scans,
        })
    }
}

impl Value for WatchRow {
    fn encode(&self, out: &mut Out) {
        out.put(&self.spk)
            .put(&self.label)
            .put(&self.added)
            .put(&self.depths);
        out.part(&self.coverage)
            .part(&self.balance)
            .put(&self.utxo_count)
            .put(&self.tx_count)
            .put(&self.updated);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            spk: input.get()?,
            label: input.get()?,
            added: input.get()?,
            depths: input.get()?,
            coverage: input.part()?,
            balance: input.part()?,
            utxo_count: input.get()?,
            tx_count: input.get()?,
            updated: input.get()?,
        })
    }
}

impl Value for OutputRow {
    fn encode(&self, out: &mut Out) {
        out.part(&self.script)
            .put(&self.value)
            .option(self.height.as_ref(), |out, height| _ = out.put(height))
            .put(&self.coinbase);
        out.option(self.spent.as_ref(), |out, spend| {
            out.put(&spend.txid)
                .option(spend.height.as_ref(), |out, height| _ = out.put(height));
        });
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            script: input.part()?,
            value: input.get()?,
            height: input.option(In::get)?,
            coinbase: input.get()?,
            spent: input.option(|input| {
                Ok(Spend {
                    txid: input.get()?,
                    height: input.option(In::get)?,
                })
            })?,
        })
    }
}

impl Value for Status {
    fn encode(&self, out: &mut Out) {
        match self {
            Self::Mempool => out.tag(0),
            Self::Confirmed { block, position } => out.tag(1).part(block).put(position),
            Self::Replaced { by } => out.tag(2).put(by),
            Self::Conflicted { by } => out.tag(3).put(by),
            Self::Evicted => out.tag(4),
        };
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let tag = input.tag()?;
        status(tag, input)
    }
}

/// The status behind its byte.
fn status(tag: u8, input: &mut In<'_>) -> Result<Status, Malformed> {
    Ok(match tag {
        0 => Status::Mempool,
        1 => Status::Confirmed {
            block: input.part()?,
            position: input.get()?,
        },
        2 => Status::Replaced { by: input.get()? },
        3 => Status::Conflicted { by: input.get()? },
        4 => Status::Evicted,
        tag => return Err(Malformed(format!("status {tag} is unknown"))),
    })
}

/// In place of the status mempool in a transaction's row: it inherits as well.
const INHERITS: u8 = 5;

impl Value for TxRow {
    fn encode(&self, out: &mut Out) {
        match self.inherits {
            true => out.tag(INHERITS),
            false => out.part(&self.status),
        };
        out.put(&self.first_seen).put(&self.order);
        out.list(&self.touches, |out, touch| {
            _ = out
                .part(&touch.script)
                .put(&touch.received)
                .put(&touch.sent)
        });
        out.put(&self.tx);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let (status, inherits) = match input.tag()? {
            INHERITS => (Status::Mempool, true),
            tag => (status(tag, input)?, false),
        };
        Ok(Self {
            status,
            inherits,
            first_seen: input.get()?,
            order: input.get()?,
            touches: input.list(|input| {
                Ok(Touch {
                    script: input.part()?,
                    received: input.get()?,
                    sent: input.get()?,
                })
            })?,
            tx: input.get()?,
        })
    }
}

impl Value for BlockRow {
    fn encode(&self, out: &mut Out) {
        out.put(&self.hash)
            .put(&self.time)
            .list(&self.touched, |out, txid| _ = out.put(txid));
        out.list(&self.found, |out, outpoint| _ = out.put(outpoint));
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            hash: input.get()?,
            time: input.get()?,
            touched: input.list(In::get)?,
            found: input.list(In::get)?,
        })
    }
}

impl Value for ScanRow {
    fn encode(&self, out: &mut Out) {
        let state = match self.state {
            ScanState::Open => 0,
            ScanState::Complete => 1,
            ScanState::Cancelled => 2,
        };
        out.put(&self.created)
            .put(&self.updated)
            .tag(state)
            .put(&self.from)
            .option(self.to.as_ref(), |out, to| _ = out.put(to));
        out.option(self.horizon.as_ref(), |out, horizon| _ = out.put(horizon))
            .put(&self.next)
            .put(&self.scripts)
            .put(&self.found);
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        let (created, updated) = (input.get()?, input.get()?);
        let state = match input.tag()? {
            0 => ScanState::Open,
            1 => ScanState::Complete,
            2 => ScanState::Cancelled,
            tag => return Err(Malformed(format!("state {tag} of a scan is unknown"))),
        };
        Ok(Self {
            created,
            updated,
            state,
            from: input.get()?,
            to: input.option(In::get)?,
            horizon: input.option(In::get)?,
            next: input.get()?,
            scripts: input.get()?,
            found: input.get()?,
        })
    }
}

/// `scan_scripts`.
impl Value for Vec<ScriptHash> {
    fn encode(&self, out: &mut Out) {
        out.list(self, |out, script| _ = out.part(script));
    }

    fn decode(input: &mut In<'_>) -> Result<Self, Malformed> {
        input.list(In::part)
    }
}

/// Bytes of a history key after the script hash: a place in one script's history.
pub(super) const PLACE: usize = 8 + 32;

/// `outputs`.
pub(super) fn outpoint_key(outpoint: &OutPoint) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(outpoint.txid.as_byte_array());
    key[32..].copy_from_slice(&outpoint.vout.to_be_bytes());
    key
}

/// `unspent`.
pub(super) fn unspent_key(script: &ScriptHash, outpoint: &OutPoint) -> [u8; 68] {
    let mut key = [0; 68];
    key[..32].copy_from_slice(&script.0);
    key[32..].copy_from_slice(&outpoint_key(outpoint));
    key
}

/// Where the unspent coinbase outputs of a script from `height` on begin in `coinbases`.
pub(super) fn coinbases_from(script: &ScriptHash, height: u32) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(&script.0);
    key[32..].copy_from_slice(&height.to_be_bytes());
    key
}

/// The entry of an output in `coinbases`, if it has one.
pub(super) fn coinbase_entry(outpoint: &OutPoint, row: &OutputRow) -> Option<([u8; 72], Vec<u8>)> {
    let height = row.height.filter(|_| row.coinbase && row.spent.is_none())?;
    let mut key = [0; 72];
    key[..36].copy_from_slice(&coinbases_from(&row.script, height));
    key[36..].copy_from_slice(&outpoint_key(outpoint));
    Some((key, row.value.to_bytes()))
}

/// `history`.
pub(super) fn history_key(script: &ScriptHash, order: u64, txid: &Txid) -> [u8; 32 + PLACE] {
    let mut key = [0; 32 + PLACE];
    key[..32].copy_from_slice(&script.0);
    key[32..40].copy_from_slice(&(!order).to_be_bytes());
    key[40..].copy_from_slice(txid.as_byte_array());
    key
}

/// `since`.
pub(super) fn since_key(from_height: u32, script: &ScriptHash) -> [u8; 36] {
    let mut key = [0; 36];
    key[..4].copy_from_slice(&from_height.to_be_bytes());
    key[4..].copy_from_slice(&script.0);
    key
}

/// The script hash at the end of a key of `since`.
pub(super) fn parse_since_key(key: &[u8]) -> Result<ScriptHash, Malformed> {
    key.get(4..)
        .and_then(|script| script.try_into().ok())
        .map(ScriptHash)
        .ok_or_else(|| wrong_length(key))
}

/// The outpoint at the end of a key of `unspent`.
pub(super) fn parse_unspent_key(key: &[u8]) -> Result<OutPoint, Malformed> {
    key.get(32..)
        .and_then(|outpoint| parse_outpoint_key(outpoint).ok())
        .ok_or_else(|| wrong_length(key))
}

/// A key of `outputs`.
pub(super) fn parse_outpoint_key(key: &[u8]) -> Result<OutPoint, Malformed> {
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
pub(super) fn parse_history_key(key: &[u8]) -> Result<([u8; PLACE], Txid), Malformed> {
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
pub(super) fn parse_hash_key(key: &[u8]) -> Result<[u8; 32], Malformed> {
    key.try_into().map_err(|_| wrong_length(key))
}

/// A key that is one event number.
pub(super) fn parse_number_key(key: &[u8]) -> Result<u64, Malformed> {
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

    use super::super::arbitrary;
    use super::*;

    proptest! {
        #[test]
        fn every_row_comes_back_as_it_was(
            watch in arbitrary::watch_row(), output in arbitrary::output_row(), tx in arbitrary::tx_row(), block in arbitrary::block_row(),
            scan in arbitrary::scan_row(), scripts in proptest::collection::vec(arbitrary::script(), 0..4),
        ) {
            prop_assert_eq!(WatchRow::from_bytes(&watch.to_bytes()), Ok(watch));
            prop_assert_eq!(OutputRow::from_bytes(&output.to_bytes()), Ok(output));
            prop_assert_eq!(TxRow::from_bytes(&tx.to_bytes()), Ok(tx));
            prop_assert_eq!(BlockRow::from_bytes(&block.to_bytes()), Ok(block));
            prop_assert_eq!(ScanRow::from_bytes(&scan.to_bytes()), Ok(scan));
            prop_assert_eq!(Vec::<ScriptHash>::from_bytes(&scripts.to_bytes()), Ok(scripts));
        }

        #[test]
        fn a_row_that_is_cut_or_longer_is_malformed(
            output in arbitrary::output_row(), watch in arbitrary::watch_row(), scan in arbitrary::scan_row(), cut in 0_usize..200,
        ) {
            fn check<V: Value + std::fmt::Debug>(row: &V, cut: usize) {
                let bytes = row.to_bytes();
                assert!(V::from_bytes(&bytes[..cut % bytes.len()]).is_err());
                assert!(V::from_bytes(&[bytes, vec![0]].concat()).is_err());
            }
            check(&output, cut);
            check(&watch, cut);
            check(&scan, cut);
            check(&vec![output.script], cut);
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let bytes = [vec![VERSION], bytes].concat();
            drop((WatchRow::from_bytes(&bytes), OutputRow::from_bytes(&bytes), TxRow::from_bytes(&bytes), BlockRow::from_bytes(&bytes)));
            drop((ScanRow::from_bytes(&bytes), Vec::<ScriptHash>::from_bytes(&bytes), crate::tracker::Event::from_bytes(&bytes)));
        }

        #[test]
        fn keys_come_back_as_they_were(script in arbitrary::script(), outpoint in arbitrary::outpoint(), order: u64) {
            prop_assert_eq!(parse_since_key(&since_key(outpoint.vout, &script)), Ok(script));
            prop_assert_eq!(parse_unspent_key(&unspent_key(&script, &outpoint)), Ok(outpoint));
            prop_assert_eq!(parse_outpoint_key(&outpoint_key(&outpoint)), Ok(outpoint));
            let key = history_key(&script, order, &outpoint.txid);
            let (place, txid) = parse_history_key(&key).expect("it is a history key");
            prop_assert_eq!((&key[32..], outpoint.txid), (&place[..], txid));
        }

        #[test]
        fn newer_history_sorts_first(script in arbitrary::script(), a in arbitrary::txid(), b in arbitrary::txid(), older: u64, newer: u64) {
            prop_assume!(older < newer);
            prop_assert!(history_key(&script, newer, &a) < history_key(&script, older, &b));
        }
    }

    #[test]
    fn another_version_is_refused_by_its_number() {
        let mut bytes = 7_u32.to_bytes();
        bytes[0] = 2;
        assert_eq!(
            u32::from_bytes(&bytes),
            Err(Malformed(
                "the value has version 2, this satwatch reads version 1".to_owned()
            ))
        );
    }

    #[test]
    fn a_coverage_says_that_it_has_scans_only_if_it_has_some() {
        let bytes = |flags: u8, scans: &[u8]| [&[VERSION, 7, 0, 0, 0, flags], scans].concat();
        let coverage = |scans| Coverage {
            from_height: 7,
            utxos_complete: true,
            pending: true,
            scans,
        };
        assert_eq!(Coverage::from_bytes(&bytes(3, &[])), Ok(coverage(0)));
        assert_eq!(
            Coverage::from_bytes(&bytes(7, &[2, 0, 0, 0])),
            Ok(coverage(2))
        );
        assert!(Coverage::from_bytes(&bytes(7, &[0, 0, 0, 0])).is_err());
        assert!(Coverage::from_bytes(&bytes(7, &[])).is_err());
        assert!(Coverage::from_bytes(&bytes(8, &[])).is_err());
    }

    #[test]
    fn a_list_longer_than_its_bytes_takes_no_memory() {
        let mut out = Out(Vec::new());
        out.put(&VarInt(u64::MAX));
        assert!(In(&out.0).list(In::get::<Txid>).is_err());
    }

    #[test]
    fn keys_of_a_wrong_length_are_malformed() {
        assert!(parse_unspent_key(&[0; 67]).is_err());
        assert!(parse_unspent_key(&[0; 3]).is_err());
        assert!(parse_outpoint_key(&[0; 35]).is_err());
        assert!(parse_history_key(&[0; 71]).is_err());
        assert!(parse_since_key(&[0; 35]).is_err());
        assert!(parse_since_key(&[0; 2]).is_err());
        assert!(parse_hash_key(&[0; 31]).is_err());
        assert!(parse_number_key(&[0; 9]).is_err());
    }
}
