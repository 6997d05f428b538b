//! The rows of one transition while it is being made: reads go through to the view, writes stay
//! here, balances follow the outputs.
//!
//! Balances are never computed by the steps themselves: each write of an output adds the difference
//! between what the row contributed before and what it contributes now to its script's watch row.
//! So a balance is always the sum over its outputs, but for those of a baseline that is not whole
//! yet, which are summed up beside it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use bitcoin::{OutPoint, Transaction, Txid};

use super::tables::{Diff, Diffs, for_each_table};
use super::{
    ApplyError, Balance, BlockId, BlockRow, ChangeSet, Derivation, DescriptorId, DescriptorRow,
    DescriptorScan, OutputRow, ScanId, ScanRow, ScriptHash, Staged, SubjectId, TxRow, View,
    ViewError, WalletRow, WatchRow,
};

/// A row as it is in the view and, when it was written, as it is now.
#[derive(Debug)]
pub struct Cell<R> {
    old: Option<R>,
    new: Option<Option<R>>,
}

impl<R: Clone> Cell<R> {
    pub fn get(&self) -> Option<&R> {
        self.new.as_ref().unwrap_or(&self.old).as_ref()
    }

    /// `None` deletes it.
    pub fn set(&mut self, row: Option<R>) {
        self.new = Some(row);
    }

    pub fn edit(&mut self) -> Option<&mut R> {
        let old = &self.old;
        self.new.get_or_insert_with(|| old.clone()).as_mut()
    }
}

fn cell<K: Ord + Copy, R>(
    cells: &mut BTreeMap<K, Cell<R>>,
    key: K,
    read: impl FnOnce() -> Result<Option<R>, ViewError>,
) -> Result<&mut Cell<R>, ApplyError> {
    Ok(match cells.entry(key) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(free) => free.insert(Cell {
            old: read()?,
            new: None,
        }),
    })
}

/// What was written.
fn diffs<K: Eq + Hash, R>(cells: BTreeMap<K, Cell<R>>) -> Diffs<K, R> {
    let written = cells.into_iter().filter_map(|(key, Cell { old, new })| {
        let new = new?;
        Some((key, Diff { old, new }))
    });
    written.collect()
}

macro_rules! cells {
    ($($table:ident: $one:ident($key:ty) -> $row:ty,)*) => {
        #[derive(Debug, Default)]
        struct Cells {
            $($table: BTreeMap<$key, Cell<$row>>,)*
        }

        /// Each row as it is now, under the name of one row; and, under the name of its table, to
        /// be written.
        #[allow(dead_code, reason = "of some tables no row is read")]
        impl<V: View> ChangeBuilder<'_, V> {
            $(pub fn $one(&mut self, key: &$key) -> Result<Option<&$row>, ApplyError> {
                Ok(self.$table(*key)?.get())
            }

            pub fn $table(&mut self, key: $key) -> Result<&mut Cell<$row>, ApplyError> {
                cell(&mut self.cells.$table, key, || self.view.$one(&key))
            })*
        }

        impl Cells {
            fn into_changes(self) -> ChangeSet {
                let changes = ChangeSet { $($table: diffs(self.$table),)* };
                changes.only_real()
            }
        }
    };
}

for_each_table!(cells);

fn label_changes<K: Copy, R: Clone>(
    cells: &BTreeMap<K, Cell<R>>,
    subject: fn(K) -> SubjectId,
    label: fn(&R) -> &String,
) -> impl Iterator<Item = (SubjectId, String, String)> {
    cells.iter().filter_map(move |(key, cell)| {
        let (old, new) = (label(cell.old.as_ref()?), label(cell.get()?));
        (old != new).then(|| (subject(*key), old.clone(), new.clone()))
    })
}

/// What one output adds to its script: satoshi confirmed and unconfirmed, and whether it counts as
/// unspent.
pub(super) fn contribution(row: &OutputRow) -> (i128, i128, i64) {
    let value = i128::from(row.value);
    match (row.height, row.spent.map(|spend| spend.height)) {
        (Some(_), None) => (value, 0, 1),
        (Some(_), Some(None)) => (value, -value, 0),
        (None, None) => (0, value, 1),
        (None, Some(_)) | (Some(_), Some(Some(_))) => (0, 0, 0),
    }
}

/// `None` beyond what can be.
pub(super) fn add(balance: Balance, confirmed: i128, unconfirmed: i128) -> Option<Balance> {
    let add = |sum: i64, more: i128| i64::try_from(i128::from(sum) + more).ok();
    Some(Balance {
        confirmed: add(balance.confirmed, confirmed)?,
        unconfirmed: add(balance.unconfirmed, unconfirmed)?,
    })
}

/// Whether a spend of this output can still happen or be undone without a block being disconnected:
/// it belongs in the filter.
pub(super) fn is_open(row: Option<&OutputRow>) -> bool {
    row.is_some_and(|row| row.spent.is_none_or(|spend| spend.height.is_none()))
}

#[derive(Debug)]
pub struct ChangeBuilder<'a, V> {
    view: &'a V,
    now: u64,
    cells: Cells,
    /// Transactions in the order in which they were first written: the order of their events.
    pub order: Vec<Txid>,
    ordered: HashSet<Txid>,
    /// Blocks whose list of found outputs has grown.
    found: BTreeSet<u32>,
    /// Outpoints that entered (`true`) or left the filter, in order.
    pub filtered: Vec<(OutPoint, bool)>,
    /// Scripts of descriptors that have an output now, or none any more.
    pub used: BTreeSet<ScriptHash>,
}

impl<'a, V: View> ChangeBuilder<'a, V> {
    pub fn new(view: &'a V, now: u64) -> Self {
        Self {
            view,
            now,
            cells: Cells::default(),
            order: Vec::new(),
            ordered: HashSet::new(),
            found: BTreeSet::new(),
            filtered: Vec::new(),
            used: BTreeSet::new(),
        }
    }

    pub fn view(&self) -> &'a V {
        self.view
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    /// Whether this transition has read or written the output already: then the filter does not
    /// matter.
    pub fn knows_output(&self, outpoint: &OutPoint) -> bool {
        self.cells.outputs.contains_key(outpoint)
    }

    /// Writes (or with `None` deletes) an output and moves its script's balance by the difference.
    pub fn put_output(
        &mut self,
        outpoint: OutPoint,
        row: Option<OutputRow>,
    ) -> Result<(), ApplyError> {
        let old = self.output(&outpoint)?.cloned();
        if old == row {
            return Ok(());
        }
        for (side, sign) in [(old.as_ref(), -1), (row.as_ref(), 1)] {
            let Some(side) = side else { continue };
            self.add_contribution(side, sign)?;
        }
        self.net_output(outpoint, old.as_ref(), row.as_ref())?;
        match (is_open(old.as_ref()), is_open(row.as_ref())) {
            (false, true) => self.filtered.push((outpoint, true)),
            (true, false) => self.filtered.push((outpoint, false)),
            _ => {}
        }
        self.outputs(outpoint)?.set(row);
        Ok(())
    }

    fn add_contribution(&mut self, output: &OutputRow, sign: i64) -> Result<(), ApplyError> {
        let (now, script) = (self.now, output.script);
        let Some(watch) = self.watches(script)?.edit() else {
            return Ok(());
        };
        let outputs = watch.outputs.saturating_add_signed(sign);
        let is_use = (outputs == 0) != (watch.outputs == 0) && !watch.derivations.is_empty();
        watch.outputs = outputs;
        let (confirmed, unconfirmed, count) = contribution(output);
        let is_staged = watch.coverage.is_staged(output.height);
        let staged = watch.coverage.staged.as_mut().filter(|_| is_staged);
        let overflow = || ApplyError::Amount(script);
        let balance = match staged {
            Some(staged) => {
                staged.utxo_count += sign * count;
                &mut staged.balance
            }
            None => {
                let count = watch.utxo_count.checked_add_signed(sign * count);
                (watch.utxo_count, watch.updated) = (count.ok_or_else(overflow)?, now);
                &mut watch.balance
            }
        };
        let sign = i128::from(sign);
        *balance = add(*balance, sign * confirmed, sign * unconfirmed).ok_or_else(overflow)?;
        if is_use {
            self.used.insert(script);
        }
        Ok(())
    }

    /// A baseline is whole: what it brought is in the balance from now on.
    pub fn show_staged(&mut self, script: ScriptHash) -> Result<(), ApplyError> {
        let now = self.now;
        let Some(watch) = self.watches(script)?.edit() else {
            return Ok(());
        };
        let Some(staged) = watch.coverage.staged.take() else {
            return Ok(());
        };
        if staged == Staged::default() {
            return Ok(());
        }
        let overflow = || ApplyError::Amount(script);
        let Balance {
            confirmed,
            unconfirmed,
        } = staged.balance;
        let balance = add(watch.balance, confirmed.into(), unconfirmed.into());
        watch.balance = balance.ok_or_else(overflow)?;
        let count = watch.utxo_count.checked_add_signed(staged.utxo_count);
        (watch.utxo_count, watch.updated) = (count.ok_or_else(overflow)?, now);
        Ok(())
    }

    /// Writes a transaction, counting it in the history of the scripts that it newly touches.
    /// What it does to descriptors follows from what it does to scripts.
    pub fn put_tx(&mut self, txid: Txid, mut row: TxRow) -> Result<(), ApplyError> {
        let old = self.tx(&txid)?;
        let touches = old.iter().flat_map(|old| &old.touches);
        let known: HashSet<ScriptHash> = touches.map(|touch| touch.script).collect();
        let nets = old.iter().flat_map(|old| &old.nets);
        let netted: Vec<DescriptorId> = nets.map(|net| net.descriptor).collect();
        row.nets = self.net_tx(&netted, &row)?;
        for touch in row
            .touches
            .iter()
            .filter(|touch| !known.contains(&touch.script))
        {
            let now = self.now;
            if let Some(watch) = self.watches(touch.script)?.edit() {
                watch.tx_count += 1;
                watch.updated = now;
            }
        }
        if self.ordered.insert(txid) {
            self.order.push(txid);
        }
        self.txs(txid)?.set(Some(row));
        Ok(())
    }

    /// Writes a transaction that somebody has no part in any more. What it does to others stays as
    /// it is: nobody is told.
    pub fn rewrite_tx(&mut self, txid: Txid, row: TxRow) -> Result<(), ApplyError> {
        self.txs(txid)?.set(Some(row));
        Ok(())
    }

    /// A script leaves a scan in which the view has listed it: that it is there need not be read.
    pub fn leave_scan(&mut self, scan: ScanId, script: ScriptHash) {
        let cells = &mut self.cells.scan_scripts;
        let listed = Cell {
            old: Some(()),
            new: None,
        };
        cells.entry((scan, script)).or_insert(listed).set(None);
    }

    /// The transaction of a row that is there.
    pub fn transaction(&mut self, txid: &Txid) -> Result<Arc<Transaction>, ApplyError> {
        let tx = self.raw_tx(txid)?.cloned();
        Ok(tx.ok_or_else(|| self.view.missing_tx(txid))?)
    }

    /// Notes that a block, if it is known, holds an output whose transaction may not be known.
    pub fn add_found(&mut self, height: u32, outpoint: OutPoint) -> Result<(), ApplyError> {
        if let Some(block) = self.blocks(height)?.edit() {
            block.found.push(outpoint);
            self.found.insert(height);
        }
        Ok(())
    }

    /// A transaction as the view has it and as it is now.
    pub fn tx_change(&self, txid: &Txid) -> Option<(Option<&TxRow>, &TxRow)> {
        let cell = self.cells.txs.get(txid)?;
        Some((cell.old.as_ref(), cell.get()?))
    }

    /// The watch rows as they are now, with the balance before.
    pub fn watch_changes(&self) -> impl Iterator<Item = (&ScriptHash, Balance, &WatchRow)> {
        self.cells.watches.iter().filter_map(|(script, cell)| {
            let old = cell.old.as_ref().map(|row| row.balance);
            Some((script, old.unwrap_or_default(), cell.get()?))
        })
    }

    /// The same of descriptors: the balance that was told before, and the row as it is now.
    pub fn descriptor_changes(
        &self,
    ) -> impl Iterator<Item = (&DescriptorId, Balance, &DescriptorRow)> {
        self.cells.descriptors.iter().filter_map(|(id, cell)| {
            let old = cell.old.as_ref().map(DescriptorRow::told);
            Some((id, old.unwrap_or_default(), cell.get()?))
        })
    }

    /// What was watched before and has another label now, with the labels before and now.
    pub fn label_changes(&self) -> Vec<(SubjectId, String, String)> {
        let scripts = label_changes(&self.cells.watches, SubjectId::Script, |row| &row.label);
        let wallets = label_changes(&self.cells.wallets, SubjectId::Descriptor, |row| &row.label);
        scripts.chain(wallets).collect()
    }

    /// What is found again, after its script was forgotten, is in its block's list already.
    fn name_found_once(&mut self) {
        for height in std::mem::take(&mut self.found) {
            let cell = self.cells.blocks.get_mut(&height);
            if let Some(block) = cell.and_then(Cell::edit) {
                let mut named = HashSet::with_capacity(block.found.len());
                block.found.retain(|outpoint| named.insert(*outpoint));
            }
        }
    }

    /// The rows that really changed.
    pub fn into_changes(mut self) -> ChangeSet {
        self.name_found_once();
        self.cells.into_changes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Keychain;
    use super::*;

    /// Whoever reads a row of it fails.
    struct Unread;

    macro_rules! unread {
        ($($table:ident: $one:ident($key:ty) -> $row:ty,)*) => {
            impl crate::tracker::Rows for Unread {
                $(fn $one(&self, _: &$key) -> Result<Option<$row>, ViewError> {
                    Err(ViewError(stringify!($one).to_owned()))
                })*
            }
        };
    }

    for_each_table!(unread);

    impl View for Unread {
        fn watches_above(&self, _: u32) -> Result<Vec<ScriptHash>, ViewError> {
            Ok(Vec::new())
        }

        fn unspent(
            &self,
            _: &ScriptHash,
            _: Option<OutPoint>,
            _: usize,
        ) -> Result<Vec<OutPoint>, ViewError> {
            Ok(Vec::new())
        }

        fn history(
            &self,
            _: &ScriptHash,
            _: Option<crate::tracker::Place>,
            _: usize,
        ) -> Result<Vec<crate::tracker::Place>, ViewError> {
            Ok(Vec::new())
        }

        fn scan_scripts(&self, _: &ScanId, limit: usize) -> Result<Vec<ScriptHash>, ViewError> {
            let scripts = (0..3).map(|number| ScriptHash([number; 32]));
            Ok(scripts.take(limit).collect())
        }

        fn scans_of(
            &self,
            _: &ScriptHash,
            _: Option<ScanId>,
            _: usize,
        ) -> Result<Vec<ScanId>, ViewError> {
            Ok(Vec::new())
        }

        fn descriptor_history(
            &self,
            _: &DescriptorId,
            _: Option<crate::tracker::Place>,
            _: usize,
        ) -> Result<Vec<crate::tracker::Place>, ViewError> {
            Ok(Vec::new())
        }

        fn owned_by(
            &self,
            _: &DescriptorId,
            _: Option<OutPoint>,
            _: usize,
        ) -> Result<Vec<OutPoint>, ViewError> {
            Ok(Vec::new())
        }

        fn derivations_of(
            &self,
            _: &DescriptorId,
            _: Option<(Keychain, u32)>,
            _: usize,
        ) -> Result<Vec<Derivation>, ViewError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn an_ended_scan_is_emptied_without_a_look_at_what_it_lists() {
        let mut tracker = crate::tracker::Tracker::new([7; 16]);
        tracker.load_ended_scan(ScanId(1));
        let emptied = tracker.apply(&Unread, crate::tracker::Input::Forget { now: 0 });
        let emptied = emptied.expect("no row is read").changes.scan_scripts;
        assert_eq!(emptied.len(), 3);
        let left = Diff {
            old: Some(()),
            new: None,
        };
        assert!(emptied.values().all(|diff| *diff == left));
    }
}
