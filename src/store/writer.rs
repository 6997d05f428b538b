//! The one writer: transitions become one batch.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid};
use rocksdb::{ReadOptions, WriteBatch};

use super::codec::keys::{
    StoredKey, coinbase_entry, derivation_key, history_key, owned_output_key, parse_derivation_key,
    parse_history_key, parse_scan_script_key, parse_script_scan_key, parse_since_key,
    parse_unspent_key, script_scan_key, since_key, unspent_key,
};
use super::codec::{Malformed, StoredValue};
use super::db::{Db, whole_family};
use super::families::{
    COINBASES, DERIVATIONS, DESCRIPTOR_SCANS, HISTORY, LISTED, MEMPOOL, META, OPEN_SCANS,
    OWNED_OUTPUTS, PENDING, SCAN_SCRIPTS, SCANS, SCRIPT_SCANS, SINCE, UNSPENT, meta,
};
use super::log::{Numbers, put_events};
use super::{OwnerEdits, RowCounts, StoreError};
use crate::tracker::{
    BlockId, BlockRow, ChangeSet, Derivation, DescriptorId, DescriptorRow, DescriptorScan, Diff,
    Keychain, OutputRow, Place, Rows, ScanId, ScanRow, ScanState, ScriptHash, Status, Transition,
    TxRow, View, ViewError, WalletRow, WatchRow, for_each_table,
};

/// The writing side. There is one, owned by the indexer thread.
pub struct Writer {
    db: Arc<Db>,
    numbers: Numbers,
    counts: RowCounts,
}

impl Writer {
    pub(super) fn new(db: Arc<Db>, numbers: Numbers, counts: RowCounts) -> Self {
        Self {
            db,
            numbers,
            counts,
        }
    }

    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    /// Number of the last event that was written.
    pub fn head(&self) -> u64 {
        self.head_after(0)
    }

    /// What [`Writer::head`] will be when `count` more events are written.
    pub fn head_after(&self, count: u64) -> u64 {
        self.db.starts.head(self.numbers.next.saturating_add(count))
    }

    /// Writes the changes and events of `transitions`, in this order, all or nothing. Events get
    /// the next numbers, without a gap among them. Answers the new head. `sync`: the machine may
    /// lose power afterwards.
    pub fn commit(&mut self, transitions: &[Transition], sync: bool) -> Result<u64, StoreError> {
        self.commit_owned(transitions, &OwnerEdits::default(), sync)
    }

    /// The same with whose the addresses are that come and go.
    pub fn commit_owned(
        &mut self,
        transitions: &[Transition],
        owners: &OwnerEdits,
        sync: bool,
    ) -> Result<u64, StoreError> {
        let mut batch = WriteBatch::default();
        let mut counts = SignedCounts::of(self.counts);
        for transition in transitions {
            self.put_changes(&mut batch, &mut counts, &transition.changes);
        }
        let counts = counts.checked().ok_or_else(|| {
            self.db.corrupt(
                META,
                meta::COUNTS.as_bytes(),
                "the changes count below zero",
            )
        })?;
        owners.put(&self.db, &mut batch)?;
        let events = transitions.iter().flat_map(|transition| &transition.events);
        let count = put_events(&self.db, &mut batch, self.numbers.next, events);
        if batch.is_empty() {
            return Ok(self.head());
        }
        let (numbers, reserve) = self.numbers.advance(count, sync);
        if count > 0 {
            self.db.put_meta(&mut batch, meta::NEXT_SEQ, &numbers.next);
        }
        if reserve {
            self.db
                .put_meta(&mut batch, meta::RESERVED, &numbers.reserved);
        }
        if counts != self.counts {
            self.db.put_meta(&mut batch, meta::COUNTS, &counts);
        }
        self.db.write(batch, sync || reserve)?;
        (self.numbers, self.counts) = (numbers, counts);
        Ok(self.head())
    }

    /// Remembers that a person started or stopped monitoring. Synced.
    pub fn remember_monitoring(&mut self, on: bool) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        self.db.put_meta(&mut batch, meta::MONITORING, &on);
        self.db.write(batch, true)
    }

    /// Forgets all but the `kept` ended history scans that were written last.
    pub(super) fn forget_ended_scans(&self, kept: usize) -> Result<(), StoreError> {
        let mut ended = Vec::new();
        for entry in self.db.scan(SCANS, &[], None, whole_family()) {
            let (key, value) = entry?;
            let row: ScanRow = self.db.decode(SCANS, &key, &value)?;
            if row.state != ScanState::Open {
                ended.push((row.updated, key));
            }
        }
        ended.sort_unstable_by(|a, b| b.cmp(a));
        let mut batch = WriteBatch::default();
        ended.iter().skip(kept).for_each(|(_, key)| {
            batch.delete_cf(self.db.family(SCANS), key);
            batch.delete_cf(self.db.family(DESCRIPTOR_SCANS), key);
        });
        if batch.is_empty() {
            Ok(())
        } else {
            self.db.write(batch, false)
        }
    }

    /// Marks a clean stop: everything written is on the disk. A writer that is dropped instead
    /// leaves the mark off.
    pub fn close(self) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        self.db.put_meta(&mut batch, meta::CLEAN, &true);
        self.db.write(batch, true)
    }
}

macro_rules! tables {
    ($($table:ident: $one:ident($key:ty) -> $row:ty,)*) => {
        /// The committed rows.
        impl Rows for Writer {
            $(fn $one(&self, key: &$key) -> Result<Option<$row>, ViewError> {
                Ok(self.db.row(stringify!($table), key)?)
            })*
        }

        impl Writer {
            fn put_changes(
                &self,
                batch: &mut WriteBatch,
                counts: &mut SignedCounts,
                changes: &ChangeSet,
            ) {
                $(for (key, diff) in &changes.$table {
                    self.put(batch, counts, stringify!($table), key, diff);
                })*
            }
        }
    };
}

for_each_table!(tables);

impl Writer {
    /// A row, and the lookup rows that follow from it.
    fn put<K: StoredKey, R: LookedUp<K>>(
        &self,
        batch: &mut WriteBatch,
        counts: &mut SignedCounts,
        table: &'static str,
        key: &K,
        Diff { old, new }: &Diff<R>,
    ) {
        let (family, bytes) = key.place(table);
        match new {
            Some(row) => batch.put_cf(self.db.family(family), bytes, row.to_bytes()),
            None => batch.delete_cf(self.db.family(family), bytes),
        }
        let lookups = |row: &Option<R>| -> BTreeSet<Lookup> {
            row.iter().flat_map(|row| row.lookups(key)).collect()
        };
        let (before, after) = (lookups(old), lookups(new));
        for (family, key, _) in before.difference(&after) {
            batch.delete_cf(self.db.family(family), key);
        }
        for (family, key, value) in after.difference(&before) {
            batch.put_cf(self.db.family(family), key, value);
        }
        old.iter().for_each(|row| row.count(counts, -1));
        new.iter().for_each(|row| row.count(counts, 1));
    }
}

/// A lookup row: family, key and value.
type Lookup = (&'static str, Vec<u8>, Vec<u8>);

/// A row under its key: what leads to it, and what it counts as.
trait LookedUp<K>: StoredValue {
    fn lookups(&self, _key: &K) -> Vec<Lookup> {
        Vec::new()
    }

    fn count(&self, _counts: &mut SignedCounts, _sign: i128) {}
}

fn name(family: &'static str, key: impl AsRef<[u8]>) -> Lookup {
    (family, key.as_ref().to_vec(), Vec::new())
}

impl LookedUp<ScriptHash> for WatchRow {
    fn lookups(&self, script: &ScriptHash) -> Vec<Lookup> {
        let since = name(SINCE, since_key(self.coverage.from_height, script));
        let pending = self.coverage.pending.then(|| name(PENDING, script.0));
        let listed = self.listed.then(|| name(LISTED, script.0));
        [since].into_iter().chain(pending).chain(listed).collect()
    }

    fn count(&self, counts: &mut SignedCounts, sign: i128) {
        match self.listed {
            true => counts.addresses += sign,
            false => counts.derived += sign,
        }
    }
}

impl LookedUp<OutPoint> for OutputRow {
    fn lookups(&self, outpoint: &OutPoint) -> Vec<Lookup> {
        let is_unspent = self.spent.is_none_or(|spend| spend.height.is_none());
        let unspent = is_unspent.then(|| name(UNSPENT, unspent_key(&self.script, outpoint)));
        let coinbase = coinbase_entry(outpoint, self);
        let coinbase = coinbase.map(|(key, value)| (COINBASES, key.to_vec(), value));
        unspent.into_iter().chain(coinbase).collect()
    }

    fn count(&self, counts: &mut SignedCounts, sign: i128) {
        if self.spent.is_none() {
            counts.utxos += sign;
        }
    }
}

impl LookedUp<Txid> for TxRow {
    fn lookups(&self, txid: &Txid) -> Vec<Lookup> {
        let is_unconfirmed = self.status == Status::Mempool;
        let unconfirmed = is_unconfirmed.then(|| name(MEMPOOL, txid));
        let scripts = self.touches.iter().map(|touch| touch.script.0);
        let history = scripts.chain(self.nets.iter().map(|net| net.descriptor.0));
        let history = history.map(|subject| history_key(&subject, self.order, txid));
        let history = history.map(|key| name(HISTORY, key));
        unconfirmed.into_iter().chain(history).collect()
    }

    fn count(&self, counts: &mut SignedCounts, sign: i128) {
        counts.transactions += sign;
    }
}

impl LookedUp<Txid> for Arc<Transaction> {}
impl LookedUp<u32> for BlockRow {}

impl LookedUp<ScanId> for ScanRow {
    fn lookups(&self, scan: &ScanId) -> Vec<Lookup> {
        match self.state {
            ScanState::Open => vec![name(OPEN_SCANS, scan.bytes())],
            ScanState::Complete | ScanState::Cancelled => Vec::new(),
        }
    }
}

/// That a script is in a scan.
impl LookedUp<(ScanId, ScriptHash)> for () {
    fn lookups(&self, (scan, script): &(ScanId, ScriptHash)) -> Vec<Lookup> {
        vec![name(SCRIPT_SCANS, script_scan_key(*scan, script))]
    }
}

impl LookedUp<ScriptHash> for () {}
impl LookedUp<ScanId> for DescriptorScan {}
impl LookedUp<DescriptorId> for DescriptorRow {}
impl LookedUp<DescriptorId> for WalletRow {}
impl LookedUp<DescriptorId> for () {}
impl LookedUp<Derivation> for ScriptHash {}
impl LookedUp<Derivation> for () {}
impl LookedUp<(DescriptorId, OutPoint)> for () {}
impl LookedUp<()> for Vec<ScriptHash> {}
impl LookedUp<()> for BlockId {}

/// [`RowCounts`] while changes are added: in between they may pass below zero.
struct SignedCounts {
    addresses: i128,
    derived: i128,
    utxos: i128,
    transactions: i128,
}

impl SignedCounts {
    fn of(counts: RowCounts) -> Self {
        Self {
            addresses: counts.addresses.into(),
            derived: counts.derived.into(),
            utxos: counts.utxos.into(),
            transactions: counts.transactions.into(),
        }
    }

    fn checked(&self) -> Option<RowCounts> {
        Some(RowCounts {
            addresses: self.addresses.try_into().ok()?,
            derived: self.derived.try_into().ok()?,
            utxos: self.utxos.try_into().ok()?,
            transactions: self.transactions.try_into().ok()?,
        })
    }
}

impl View for Writer {
    fn watches_above(&self, height: u32) -> Result<Vec<ScriptHash>, ViewError> {
        let Some(from) = height.checked_add(1) else {
            return Ok(Vec::new());
        };
        let scripts = self
            .db
            .scan(
                SINCE,
                &[],
                Some(&from.to_be_bytes()),
                ReadOptions::default(),
            )
            .map(|entry| {
                let (key, _) = entry?;
                parse_since_key(&key)
                    .map_err(|Malformed(what)| self.db.corrupt(SINCE, &key, what).into())
            });
        scripts.collect()
    }

    fn unspent(
        &self,
        script: &ScriptHash,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<Vec<OutPoint>, ViewError> {
        let after = after.map(|after| unspent_key(script, &after).to_vec());
        self.keys(UNSPENT, &script.0, after, limit, parse_unspent_key)
    }

    fn history(
        &self,
        script: &ScriptHash,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Place>, ViewError> {
        self.places(&script.0, after, limit)
    }

    fn scan_scripts(&self, scan: &ScanId, limit: usize) -> Result<Vec<ScriptHash>, ViewError> {
        let prefix = scan.0.to_be_bytes();
        self.keys(SCAN_SCRIPTS, &prefix, None, limit, parse_scan_script_key)
    }

    fn scans_of(
        &self,
        script: &ScriptHash,
        after: Option<ScanId>,
        limit: usize,
    ) -> Result<Vec<ScanId>, ViewError> {
        let after = after.map(|after| script_scan_key(after, script).to_vec());
        let parse = parse_script_scan_key;
        self.keys(SCRIPT_SCANS, &script.0, after, limit, parse)
    }

    fn descriptor_history(
        &self,
        descriptor: &DescriptorId,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Place>, ViewError> {
        self.places(&descriptor.0, after, limit)
    }

    fn owned_by(
        &self,
        descriptor: &DescriptorId,
        after: Option<OutPoint>,
        limit: usize,
    ) -> Result<Vec<OutPoint>, ViewError> {
        let after = after.map(|after| owned_output_key(descriptor, &after).to_vec());
        self.keys(
            OWNED_OUTPUTS,
            &descriptor.0,
            after,
            limit,
            parse_unspent_key,
        )
    }

    fn derivations_of(
        &self,
        descriptor: &DescriptorId,
        after: Option<(Keychain, u32)>,
        limit: usize,
    ) -> Result<Vec<Derivation>, ViewError> {
        let after = after.map(|(keychain, index)| {
            let place = Derivation {
                descriptor: *descriptor,
                keychain,
                index,
            };
            derivation_key(&place).to_vec()
        });
        let parse = parse_derivation_key;
        self.keys(DERIVATIONS, &descriptor.0, after, limit, parse)
    }

    fn missing_tx(&self, txid: &Txid) -> ViewError {
        self.db.missing_tx(txid).into()
    }
}

impl Writer {
    /// Of the history of a script, or of a descriptor.
    fn places(
        &self,
        subject: &[u8; 32],
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Place>, ViewError> {
        let after = after.map(|(Reverse(order), txid)| history_key(subject, order, &txid).to_vec());
        self.keys(HISTORY, subject, after, limit, |key| {
            let (place, txid) = parse_history_key(key)?;
            let order = place.first_chunk().expect("a place begins with 8 bytes");
            Ok((Reverse(!u64::from_be_bytes(*order)), txid))
        })
    }

    /// What the keys of a lookup family that start with `prefix` say, at most `limit` of those
    /// behind `after`. Keys before it are not walked over, also not those that were deleted.
    fn keys<T>(
        &self,
        family: &'static str,
        prefix: &[u8],
        after: Option<Vec<u8>>,
        limit: usize,
        parse: impl Fn(&[u8]) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, ViewError> {
        // The first key that is greater.
        let from = after.map(|mut key| {
            key.push(0);
            key
        });
        let options = ReadOptions::default();
        let entries = self.db.scan(family, prefix, from.as_deref(), options);
        let parsed = entries.take(limit).map(|entry| {
            let (key, _) = entry?;
            parse(&key).map_err(|Malformed(what)| self.db.corrupt(family, &key, what).into())
        });
        parsed.collect()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::super::{ChainInfo, open_at_boot};
    use super::*;

    #[test]
    fn only_the_oldest_ended_scans_are_forgotten() {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let chain = ChainInfo {
            network: bitcoin::Network::Regtest,
            genesis: bitcoin::BlockHash::all_zeros(),
        };
        let (mut writer, reader) =
            open_at_boot(folder.path(), Some(chain), 1, "boot").expect("the store opens");
        let row = |updated, state| ScanRow {
            created: 1,
            updated,
            state,
            from: 0,
            to: None,
            horizon: None,
            next: 0,
            scripts: 0,
            found: 0,
        };
        let put = |n, row| {
            let new = Some(row);
            (ScanId(n), Diff { old: None, new })
        };
        let scans = [
            put(1, row(5, ScanState::Complete)),
            put(2, row(4, ScanState::Cancelled)),
            put(3, row(1, ScanState::Open)),
            put(4, row(6, ScanState::Complete)),
        ];
        let changes = ChangeSet {
            scans: scans.into(),
            ..ChangeSet::default()
        };
        let all = Transition {
            changes,
            ..Transition::default()
        };
        writer.commit(&[all], true).expect("it is written");
        writer.forget_ended_scans(2).expect("it is written");
        let left: Vec<u64> = reader
            .snapshot()
            .scans(None)
            .map(|scan| scan.expect("it is readable").0.0)
            .collect();
        assert_eq!(left, [1, 3, 4]);
    }
}
