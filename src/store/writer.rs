//! The one writer: transitions become one batch.

use std::cmp::Reverse;
use std::sync::Arc;

use bitcoin::{OutPoint, Txid};
use rocksdb::{ReadOptions, WriteBatch};

use super::codec::keys::{
    coinbase_entry, history_key, outpoint_key, parse_history_key, parse_scan_script_key,
    parse_script_scan_key, parse_since_key, parse_unspent_key, scan_script_key, script_scan_key,
    since_key, unspent_key,
};
use super::codec::{Malformed, StoredValue};
use super::db::{Db, whole_family};
use super::families::{
    BLOCKS, COINBASES, FORGETTING, HISTORY, MEMPOOL, META, OPEN_SCANS, OUTPUTS, PENDING,
    SCAN_SCRIPTS, SCANS, SCRIPT_SCANS, SINCE, TXS, UNSPENT, WATCHES, meta,
};
use super::log::{Numbers, put_events};
use super::{RowCounts, StoreError};
use crate::tracker::{
    BlockId, BlockRow, Change, OutputRow, Place, ScanId, ScanRow, ScanState, ScriptHash, Status,
    Transition, TxRow, View, ViewError, WatchRow,
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
        let mut batch = WriteBatch::default();
        let mut counts = SignedCounts::of(self.counts);
        for change in transitions
            .iter()
            .flat_map(|transition| &transition.changes.0)
        {
            self.put_change(&mut batch, change);
            counts.add(change);
        }
        let counts = counts.checked().ok_or_else(|| {
            self.db.corrupt(
                META,
                meta::COUNTS.as_bytes(),
                "the changes count below zero",
            )
        })?;
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
        ended
            .iter()
            .skip(kept)
            .for_each(|(_, key)| batch.delete_cf(self.db.family(SCANS), key));
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

    /// The row and the lookup rows that follow from it.
    fn put_change(&self, batch: &mut WriteBatch, change: &Change) {
        match change {
            Change::Watch { script, old, new } => {
                self.put_row(batch, WATCHES, &script.0, new.as_ref());
                let pending = |row: &Option<WatchRow>| {
                    row.as_ref()
                        .filter(|row| row.coverage.pending)
                        .map(|_| script.0)
                };
                self.move_key(batch, PENDING, pending(old), pending(new));
                let since = |row: &Option<WatchRow>| {
                    row.as_ref()
                        .map(|row| since_key(row.coverage.from_height, script))
                };
                self.move_key(batch, SINCE, since(old), since(new));
            }
            Change::Output { outpoint, old, new } => {
                self.put_row(batch, OUTPUTS, &outpoint_key(outpoint), new.as_ref());
                let unspent = |row: &Option<OutputRow>| {
                    let row = row
                        .as_ref()
                        .filter(|row| row.spent.is_none_or(|spend| spend.height.is_none()))?;
                    Some(unspent_key(&row.script, outpoint))
                };
                self.move_key(batch, UNSPENT, unspent(old), unspent(new));
                let coinbase = |row: &Option<OutputRow>| coinbase_entry(outpoint, row.as_ref()?);
                self.move_entry(batch, COINBASES, coinbase(old), coinbase(new));
            }
            Change::Tx { txid, old, new } => self.put_tx(batch, txid, old.as_ref(), new.as_ref()),
            Change::Block { height, new, .. } => {
                self.put_row(batch, BLOCKS, &height.to_be_bytes(), new.as_ref())
            }
            Change::Tip { new, .. } => {
                self.put_row(batch, META, meta::TIP.as_bytes(), new.as_ref())
            }
            Change::Scan { scan, old, new } => {
                let key = scan.0.to_be_bytes();
                self.put_row(batch, SCANS, &key, new.as_ref());
                let open = |row: &Option<ScanRow>| {
                    row.as_ref()
                        .filter(|row| row.state == ScanState::Open)
                        .map(|_| key)
                };
                self.move_key(batch, OPEN_SCANS, open(old), open(new));
            }
            Change::ScanScript {
                scan,
                script,
                old,
                new,
            } => {
                let of = |is_in: &bool, key: [u8; 40]| is_in.then_some(key);
                let key = scan_script_key(*scan, script);
                self.move_key(batch, SCAN_SCRIPTS, of(old, key), of(new, key));
                let key = script_scan_key(*scan, script);
                self.move_key(batch, SCRIPT_SCANS, of(old, key), of(new, key));
            }
            Change::Adding { new, .. } => {
                let list = Some(new).filter(|new| !new.is_empty());
                self.put_row(batch, META, meta::ADDING.as_bytes(), list)
            }
            Change::Forgetting { script, old, new } => {
                let of = |is_so: &bool| is_so.then_some(script.0);
                self.move_key(batch, FORGETTING, of(old), of(new));
            }
        }
    }

    fn put_tx(
        &self,
        batch: &mut WriteBatch,
        txid: &Txid,
        old: Option<&TxRow>,
        new: Option<&TxRow>,
    ) {
        self.put_row(batch, TXS, txid.as_ref(), new);
        let unconfirmed = |row: Option<&TxRow>| {
            row.filter(|row| row.status == Status::Mempool)
                .map(|_| *txid)
        };
        self.move_key(batch, MEMPOOL, unconfirmed(old), unconfirmed(new));
        let places = |row: Option<&TxRow>| -> Vec<_> {
            row.map(|row| {
                row.touches
                    .iter()
                    .map(|touch| history_key(&touch.script, row.order, txid))
                    .collect()
            })
            .unwrap_or_default()
        };
        let (old, new) = (places(old), places(new));
        if old != new {
            // Later operations of a batch win, so what is in both stays.
            let family = self.db.family(HISTORY);
            old.iter().for_each(|key| batch.delete_cf(family, key));
            new.iter().for_each(|key| batch.put_cf(family, key, []));
        }
    }

    fn put_row<V: StoredValue>(
        &self,
        batch: &mut WriteBatch,
        family: &'static str,
        key: &[u8],
        row: Option<&V>,
    ) {
        let family = self.db.family(family);
        match row {
            Some(row) => batch.put_cf(family, key, row.to_bytes()),
            None => batch.delete_cf(family, key),
        }
    }

    /// An entry without a value that exists under `old` before and under `new` after.
    fn move_key<K: AsRef<[u8]> + PartialEq>(
        &self,
        batch: &mut WriteBatch,
        family: &'static str,
        old: Option<K>,
        new: Option<K>,
    ) {
        let entry = |key: Option<K>| key.map(|key| (key, Vec::new()));
        self.move_entry(batch, family, entry(old), entry(new));
    }

    /// An entry that is `old` before and `new` after.
    fn move_entry<K: AsRef<[u8]> + PartialEq>(
        &self,
        batch: &mut WriteBatch,
        family: &'static str,
        old: Option<(K, Vec<u8>)>,
        new: Option<(K, Vec<u8>)>,
    ) {
        if old == new {
            return;
        }
        let family = self.db.family(family);
        if let Some((key, _)) = old {
            batch.delete_cf(family, key);
        }
        if let Some((key, value)) = new {
            batch.put_cf(family, key, value);
        }
    }
}

/// [`RowCounts`] while changes are added: in between they may pass below zero.
struct SignedCounts {
    addresses: i128,
    utxos: i128,
    transactions: i128,
}

impl SignedCounts {
    fn of(counts: RowCounts) -> Self {
        Self {
            addresses: counts.addresses.into(),
            utxos: counts.utxos.into(),
            transactions: counts.transactions.into(),
        }
    }

    fn add(&mut self, change: &Change) {
        let step = |old: bool, new: bool| i128::from(new) - i128::from(old);
        match change {
            Change::Watch { old, new, .. } => self.addresses += step(old.is_some(), new.is_some()),
            Change::Output { old, new, .. } => {
                let unspent =
                    |row: &Option<OutputRow>| row.as_ref().is_some_and(|row| row.spent.is_none());
                self.utxos += step(unspent(old), unspent(new));
            }
            Change::Tx { old, new, .. } => self.transactions += step(old.is_some(), new.is_some()),
            Change::Block { .. }
            | Change::Tip { .. }
            | Change::Scan { .. }
            | Change::ScanScript { .. }
            | Change::Forgetting { .. }
            | Change::Adding { .. } => {}
        }
    }

    fn checked(&self) -> Option<RowCounts> {
        Some(RowCounts {
            addresses: self.addresses.try_into().ok()?,
            utxos: self.utxos.try_into().ok()?,
            transactions: self.transactions.try_into().ok()?,
        })
    }
}

/// The committed rows.
impl View for Writer {
    fn watch(&self, script: &ScriptHash) -> Result<Option<WatchRow>, ViewError> {
        Ok(self.db.get(WATCHES, &script.0)?)
    }

    fn output(&self, outpoint: &OutPoint) -> Result<Option<OutputRow>, ViewError> {
        Ok(self.db.get(OUTPUTS, &outpoint_key(outpoint))?)
    }

    fn tx(&self, txid: &Txid) -> Result<Option<TxRow>, ViewError> {
        Ok(self.db.get(TXS, txid.as_ref())?)
    }

    fn block(&self, height: u32) -> Result<Option<BlockRow>, ViewError> {
        Ok(self.db.get(BLOCKS, &height.to_be_bytes())?)
    }

    fn tip(&self) -> Result<Option<BlockId>, ViewError> {
        Ok(self.db.meta(meta::TIP)?)
    }

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
        let after = after.map(|(Reverse(order), txid)| history_key(script, order, &txid).to_vec());
        self.keys(HISTORY, &script.0, after, limit, |key| {
            let (place, txid) = parse_history_key(key)?;
            let order = place.first_chunk().expect("a place begins with 8 bytes");
            Ok((Reverse(!u64::from_be_bytes(*order)), txid))
        })
    }

    fn scan(&self, scan: &ScanId) -> Result<Option<ScanRow>, ViewError> {
        Ok(self.db.get(SCANS, &scan.0.to_be_bytes())?)
    }

    fn scan_scripts(&self, scan: &ScanId, limit: usize) -> Result<Vec<ScriptHash>, ViewError> {
        let prefix = scan.0.to_be_bytes();
        self.keys(SCAN_SCRIPTS, &prefix, None, limit, parse_scan_script_key)
    }

    fn is_scan_script(&self, scan: &ScanId, script: &ScriptHash) -> Result<bool, ViewError> {
        let key = scan_script_key(*scan, script);
        let found = self.keys(SCAN_SCRIPTS, &key, None, 1, parse_scan_script_key)?;
        Ok(!found.is_empty())
    }

    fn scans_of(&self, script: &ScriptHash) -> Result<Vec<ScanId>, ViewError> {
        self.keys(
            SCRIPT_SCANS,
            &script.0,
            None,
            usize::MAX,
            parse_script_scan_key,
        )
    }
}

impl Writer {
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
    use crate::tracker::ChangeSet;

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
        let put = |n, row| Change::Scan {
            scan: ScanId(n),
            old: None,
            new: Some(row),
        };
        let rows = vec![
            put(1, row(5, ScanState::Complete)),
            put(2, row(4, ScanState::Cancelled)),
            put(3, row(1, ScanState::Open)),
            put(4, row(6, ScanState::Complete)),
        ];
        let all = Transition {
            changes: ChangeSet(rows),
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
