//! The reading side: what the store is, what the tracker loads at start, and snapshots.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bitcoin::hashes::Hash;
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::{OutPoint, Transaction, Txid};
use rocksdb::ReadOptions;
use self_cell::self_cell;

use super::codec::keys::{
    PLACE, StoredKey, coinbases_from, outpoint_key, parse_derivation_key, parse_hash_key,
    parse_history_key, parse_unspent_key, unspent_key,
};
use super::codec::{Malformed, StoredValue};
use super::db::{Db, Entries, KeyValue, whole_family};
use super::families::{
    BLOCKS, COINBASES, FORGETTING, HISTORY, JOINING, LEAVING, LISTED, MEMPOOL, META, OUTPUTS,
    PENDING, RAW_TXS, TXS, UNSPENT, WATCHES, meta,
};
use super::{ChainInfo, RowCounts, Starts, StoreError};
use crate::tracker::{
    BlockId, BlockRow, Derivation, DescriptorId, DescriptorRow, DescriptorScan, OutputRow, ScanId,
    ScanRow, ScriptHash, SubjectId, TxRow, WalletRow, WatchRow, for_each_table,
};

/// Rows that are read in one step.
const AT_ONCE: usize = 1000;

/// The reading side. Clones are cheap. Reads block the thread, for a disk access at worst.
#[derive(Clone)]
pub struct StoreReader {
    db: Arc<Db>,
}

impl StoreReader {
    pub(super) fn new(db: Arc<Db>) -> Self {
        Self { db }
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    /// Which cursors are of this log. Stays as it is until the store is opened again.
    pub fn starts(&self) -> &Arc<Starts> {
        &self.db.starts
    }

    pub fn chain(&self) -> ChainInfo {
        self.db.chain
    }

    /// When the store was made, in milliseconds since the Unix epoch.
    pub fn created(&self) -> Result<u64, StoreError> {
        Ok(self.db.meta(meta::CREATED)?.unwrap_or_default())
    }

    /// What a person asked for last; `None` when nobody did.
    pub fn monitoring(&self) -> Result<Option<bool>, StoreError> {
        self.db.meta(meta::MONITORING)
    }

    /// The state at this instant. Keep it no longer than one answer takes: the store cannot forget
    /// old rows meanwhile.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot {
            db: &self.db,
            at: self.db.snapshot(),
        }
    }

    /// The same, for who reads it in several steps and goes elsewhere between them.
    pub fn held_snapshot(&self) -> HeldSnapshot {
        HeldSnapshot(SnapshotCell::new(self.db.clone(), |db| Snapshot {
            db,
            at: db.snapshot(),
        }))
    }

    /// All watched scripts.
    pub fn watches(
        &self,
    ) -> impl Iterator<Item = Result<(ScriptHash, WatchRow), StoreError>> + Send + '_ {
        self.db
            .scan(WATCHES, &[], None, whole_family())
            .map(|entry| parse_watch(&self.db, entry?))
    }

    /// All outputs of watched scripts whose spend is not confirmed.
    pub fn unspent_outpoints(
        &self,
    ) -> impl Iterator<Item = Result<OutPoint, StoreError>> + Send + '_ {
        self.keys(UNSPENT, parse_unspent_key)
    }

    /// Scripts that are not watched any more, whose rows are going.
    pub fn forgetting(&self) -> impl Iterator<Item = Result<ScriptHash, StoreError>> + Send + '_ {
        self.keys(FORGETTING, |key| parse_hash_key(key).map(ScriptHash))
    }

    /// All transactions with status mempool.
    pub fn unconfirmed_txs(
        &self,
    ) -> impl Iterator<Item = Result<(Txid, TxRow, Arc<Transaction>), StoreError>> + Send + '_ {
        self.keys(MEMPOOL, |key| {
            parse_hash_key(key).map(Txid::from_byte_array)
        })
        .map(|txid| {
            let txid = txid?;
            let row = self.db.get(TXS, txid.as_ref())?.ok_or_else(|| {
                let key = txid.as_ref();
                self.db.corrupt(MEMPOOL, key, "its row is missing")
            })?;
            let tx = self.db.get(RAW_TXS, txid.as_ref())?;
            Ok((txid, row, tx.ok_or_else(|| self.db.missing_tx(&txid))?))
        })
    }

    fn keys<'a, T>(
        &'a self,
        family: &'static str,
        parse: impl Fn(&[u8]) -> Result<T, Malformed> + Send + 'a,
    ) -> impl Iterator<Item = Result<T, StoreError>> + Send + 'a {
        self.db
            .scan(family, &[], None, whole_family())
            .map(move |entry| {
                let (key, _) = entry?;
                parse(&key).map_err(|Malformed(what)| self.db.corrupt(family, &key, what))
            })
    }
}

fn parse_watch(db: &Db, (key, value): KeyValue) -> Result<(ScriptHash, WatchRow), StoreError> {
    let script = parse_hash_key(&key).map_err(|Malformed(what)| db.corrupt(WATCHES, &key, what))?;
    Ok((ScriptHash(script), db.decode(WATCHES, &key, &value)?))
}

/// The state at one instant: all its answers agree with each other.
pub struct Snapshot<'a> {
    pub(super) db: &'a Db,
    at: rocksdb::Snapshot<'a>,
}

/// A [`Snapshot`] that keeps the store open by itself.
pub struct HeldSnapshot(SnapshotCell);

self_cell!(
    struct SnapshotCell {
        owner: Arc<Db>,
        #[covariant]
        dependent: Snapshot,
    }
);

impl HeldSnapshot {
    pub fn get(&self) -> &Snapshot<'_> {
        self.0.borrow_dependent()
    }
}

/// Part of a script's unspent outputs, ordered by outpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UtxoPage {
    pub utxos: Vec<(OutPoint, OutputRow)>,
    /// The next page is what follows this; `None` when this was the last one.
    pub next: Option<OutPoint>,
}

/// A place in a script's history, as text for clients: 80 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryCursor([u8; PLACE]);

impl fmt::Display for HistoryCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0.as_hex())
    }
}

/// Text that no [`HistoryPage`] has given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a place in a history: take `next` of an earlier page")]
pub struct BadHistoryCursor;

impl FromStr for HistoryCursor {
    type Err = BadHistoryCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        <[u8; PLACE]>::from_hex(text)
            .map(Self)
            .map_err(|_| BadHistoryCursor)
    }
}

/// Part of a script's history, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    pub transactions: Vec<(Txid, TxRow)>,
    /// Where the next page starts; `None` when this was the last one.
    pub next: Option<HistoryCursor>,
}

macro_rules! rows {
    ($($table:ident: $one:ident($key:ty) -> $row:ty,)*) => {
        impl Snapshot<'_> {
            $(pub fn $one(&self, key: &$key) -> Result<Option<$row>, StoreError> {
                let (family, key) = key.place(stringify!($table));
                self.get(family, &key)
            })*
        }
    };
}

for_each_table!(rows);

impl Snapshot<'_> {
    pub fn tip(&self) -> Result<Option<BlockId>, StoreError> {
        self.tip_row(&())
    }

    /// Number of the last event that this state includes; numbers that were skipped after it do not
    /// count.
    pub fn head(&self) -> Result<u64, StoreError> {
        Ok(self.db.starts.head(self.required(meta::NEXT_SEQ)?))
    }

    pub fn counts(&self) -> Result<RowCounts, StoreError> {
        self.required(meta::COUNTS)
    }

    /// Outputs of a script whose spend is not confirmed, those that follow `after` only, at least
    /// one even if `limit` is 0. `spent_in_mempool`: also those that an unconfirmed transaction
    /// spends. Those that a baseline has brought are among them when it is whole.
    pub fn utxos(
        &self,
        script: &ScriptHash,
        spent_in_mempool: bool,
        after: Option<&OutPoint>,
        limit: usize,
    ) -> Result<UtxoPage, StoreError> {
        let coverage = self.watch(script)?.map(|watch| watch.coverage);
        let coverage = coverage.unwrap_or_default();
        let from = after.map(|after| unspent_key(script, after));
        let from = from.as_ref().map(|key| &key[..]);
        let outpoints = self.keys(UNSPENT, &script.0, from, parse_unspent_key);
        self.utxo_page(outpoints, after, limit, |row| {
            (spent_in_mempool || row.spent.is_none()) && !coverage.is_staged(row.height)
        })
    }

    /// A page of those of the outputs that are to be shown, behind `after`; at least one even if
    /// `limit` is 0.
    pub(super) fn utxo_page(
        &self,
        outpoints: impl Iterator<Item = Result<OutPoint, StoreError>>,
        after: Option<&OutPoint>,
        limit: usize,
        is_shown: impl Fn(&OutputRow) -> bool,
    ) -> Result<UtxoPage, StoreError> {
        let limit = limit.max(1);
        let is_after = |outpoint: &Result<OutPoint, StoreError>| !matches!((outpoint, after), (Ok(outpoint), Some(after)) if outpoint == after);
        let mut outpoints = outpoints.filter(is_after);
        let mut utxos = Vec::new();
        loop {
            let some = outpoints
                .by_ref()
                .take(AT_ONCE.min(limit.saturating_add(1)));
            let some = some.collect::<Result<Vec<_>, _>>()?;
            if some.is_empty() {
                return Ok(UtxoPage { utxos, next: None });
            }
            for (outpoint, row) in self.outputs(some)? {
                if !is_shown(&row) {
                    continue;
                }
                if utxos.len() == limit {
                    let next = utxos.last().map(|(outpoint, _)| *outpoint);
                    return Ok(UtxoPage { utxos, next });
                }
                utxos.push((outpoint, row));
            }
        }
    }

    /// How many outputs of a script, of those that are shown, have no confirmed spend. Walks over
    /// all of them.
    pub fn count_unspent(&self, script: &ScriptHash) -> Result<u64, StoreError> {
        let watch = self.watch(script)?;
        if watch.is_some_and(|watch| watch.coverage.staged.is_some()) {
            let (mut count, mut after) = (0, None);
            loop {
                let page = self.utxos(script, true, after.as_ref(), AT_ONCE)?;
                count += page.utxos.len() as u64;
                let Some(next) = page.next else {
                    return Ok(count);
                };
                after = Some(next);
            }
        }
        self.keys(UNSPENT, &script.0, None, parse_unspent_key)
            .try_fold(0, |count, outpoint| outpoint.map(|_| count + 1))
    }

    /// The rows of outputs that `unspent` names, in its order.
    pub(super) fn outputs(
        &self,
        outpoints: Vec<OutPoint>,
    ) -> Result<Vec<(OutPoint, OutputRow)>, StoreError> {
        let keys: Vec<_> = outpoints.iter().map(outpoint_key).collect();
        let rows = self.db.get_many(OUTPUTS, &keys, &self.options())?;
        let rows = outpoints.into_iter().zip(rows).map(|(outpoint, row)| {
            let missing = || {
                let key = outpoint_key(&outpoint);
                self.db.corrupt(UNSPENT, &key, "the output is missing")
            };
            Ok((outpoint, row.ok_or_else(missing)?))
        });
        rows.collect()
    }

    /// Satoshi in the coinbase outputs of a script in blocks from `height` on, those that nothing
    /// spends.
    pub fn coinbase_value(&self, script: &ScriptHash, height: u32) -> Result<u64, StoreError> {
        let from = coinbases_from(script, height);
        let mut sum = 0_u64;
        for entry in self.scan_entries(COINBASES, &script.0, Some(&from)) {
            let (key, value) = entry?;
            sum = sum.saturating_add(self.decode(COINBASES, &key, &value)?);
        }
        Ok(sum)
    }

    /// The transactions of a script or a descriptor, newest first, those after `before` only. At
    /// least one even if `limit` is 0.
    pub fn history(
        &self,
        subject: &SubjectId,
        before: Option<&HistoryCursor>,
        limit: usize,
    ) -> Result<HistoryPage, StoreError> {
        let limit = limit.max(1);
        let subject = match subject {
            SubjectId::Script(script) => &script.0,
            SubjectId::Descriptor(descriptor) => &descriptor.0,
        };
        let from = before.map(|cursor| [&subject[..], &cursor.0[..]].concat());
        let places = self.keys(HISTORY, subject, from.as_deref(), parse_history_key);
        let places = places.filter(|place| !matches!((place, before), (Ok((place, _)), Some(before)) if *place == before.0));
        let mut places = places
            .take(limit.saturating_add(1))
            .collect::<Result<Vec<_>, _>>()?;
        let more = places.len() > limit;
        places.truncate(limit);
        let next = places
            .last()
            .filter(|_| more)
            .map(|(place, _)| HistoryCursor(*place));
        let transactions = places.into_iter().map(|(_, txid)| {
            let row = self.tx(&txid)?.ok_or_else(|| {
                self.db
                    .corrupt(HISTORY, txid.as_ref(), "the transaction is missing")
            })?;
            Ok((txid, row))
        });
        Ok(HistoryPage {
            transactions: transactions.collect::<Result<_, StoreError>>()?,
            next,
        })
    }

    /// The transaction of a row.
    pub fn transaction(&self, txid: &Txid) -> Result<Arc<Transaction>, StoreError> {
        self.raw_tx(txid)?.ok_or_else(|| self.db.missing_tx(txid))
    }

    /// Scripts that were added by themselves, with their rows, ordered by hash, those after `after`
    /// only.
    pub fn watches(
        &self,
        after: Option<&ScriptHash>,
        limit: usize,
    ) -> Result<Vec<(ScriptHash, WatchRow)>, StoreError> {
        let scripts = self.keys(LISTED, &[], after.map(|after| &after.0[..]), parse_hash_key);
        let is_after = |script: &Result<[u8; 32], StoreError>| !matches!((script, after), (Ok(script), Some(after)) if *script == after.0);
        let scripts = scripts.filter(is_after).take(limit);
        let rows = scripts.map(|script| {
            let script = ScriptHash(script?);
            let missing = || self.db.corrupt(LISTED, &script.0, "the script is missing");
            Ok((script, self.watch(&script)?.ok_or_else(missing)?))
        });
        rows.collect()
    }

    /// The scripts that wait for their baseline.
    pub fn pending_baselines(
        &self,
    ) -> impl Iterator<Item = Result<(ScriptHash, WatchRow), StoreError>> {
        self.keys(PENDING, &[], None, parse_hash_key).map(|script| {
            let script = ScriptHash(script?);
            let row = self
                .watch(&script)?
                .ok_or_else(|| self.db.corrupt(PENDING, &script.0, "the script is missing"))?;
            Ok((script, row))
        })
    }

    /// Scripts whose past does not count for a descriptor yet.
    pub fn joining(&self) -> impl Iterator<Item = Result<Derivation, StoreError>> {
        self.keys(JOINING, &[], None, parse_derivation_key)
    }

    /// Descriptors that are not watched any more, whose rows are going.
    pub fn leaving(&self) -> impl Iterator<Item = Result<DescriptorId, StoreError>> {
        let all = self.keys(LEAVING, &[], None, parse_hash_key);
        all.map(|id| id.map(DescriptorId))
    }

    /// The scripts that are new in an add which is not finished, ascending.
    pub fn adding(&self) -> Result<Vec<ScriptHash>, StoreError> {
        Ok(self.adding_row(&())?.unwrap_or_default())
    }

    fn options(&self) -> ReadOptions {
        let mut options = ReadOptions::default();
        options.set_snapshot(&self.at);
        options
    }

    pub(super) fn get<V: StoredValue>(
        &self,
        family: &'static str,
        key: &[u8],
    ) -> Result<Option<V>, StoreError> {
        let bytes = self
            .at
            .get_pinned_cf(self.db.family(family), key)
            .map_err(|error| self.db.failed_read(family, key, error))?;
        bytes
            .map(|bytes| self.db.decode(family, key, &bytes))
            .transpose()
    }

    pub(super) fn required<V: StoredValue>(&self, key: &str) -> Result<V, StoreError> {
        self.get(META, key.as_bytes())?
            .ok_or_else(|| self.db.corrupt(META, key.as_bytes(), "the row is missing"))
    }

    pub(super) fn decode<V: StoredValue>(
        &self,
        family: &'static str,
        key: &[u8],
        bytes: &[u8],
    ) -> Result<V, StoreError> {
        self.db.decode(family, key, bytes)
    }

    pub(super) fn scan_entries(
        &self,
        family: &'static str,
        prefix: &[u8],
        from: Option<&[u8]>,
    ) -> Entries<'_> {
        self.db.scan(family, prefix, from, self.options())
    }

    pub(super) fn missing_block(&self, height: u32) -> StoreError {
        let key = height.to_be_bytes();
        self.db.corrupt(BLOCKS, &key, "the block is missing")
    }

    pub(super) fn keys<T>(
        &self,
        family: &'static str,
        prefix: &[u8],
        from: Option<&[u8]>,
        parse: impl Fn(&[u8]) -> Result<T, Malformed>,
    ) -> impl Iterator<Item = Result<T, StoreError>> {
        self.scan_entries(family, prefix, from).map(move |entry| {
            let (key, _) = entry?;
            parse(&key).map_err(|Malformed(what)| self.db.corrupt(family, &key, what))
        })
    }
}
