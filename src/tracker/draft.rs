//! The rows of one transition while it is being made: reads go through to the view, writes stay
//! here, balances follow the outputs.
//!
//! Balances are never computed by the steps themselves: each write of an output adds the difference
//! between what the row contributed before and what it contributes now to its script's watch row.
//! So a balance is always the sum over its outputs, but for those of a baseline that is not whole
//! yet, which are summed up beside it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bitcoin::{OutPoint, Txid};

use super::{
    ApplyError, Balance, BlockId, BlockRow, Change, ChangeSet, OutputRow, ScanId, ScanRow,
    ScriptHash, Staged, TxRow, View, WatchRow,
};

/// A row as it was in the view and as it is now.
#[derive(Debug)]
struct Cell<T> {
    old: Option<T>,
    new: Option<T>,
}

impl<T: Clone> Cell<T> {
    fn read(row: Option<T>) -> Self {
        Self {
            old: row.clone(),
            new: row,
        }
    }
}

type Cells<K, T> = BTreeMap<K, Cell<T>>;

/// What one output adds to its script: satoshi confirmed and unconfirmed, and whether it counts as
/// unspent.
fn contribution(row: &OutputRow) -> (i128, i128, i64) {
    let value = i128::from(row.value);
    match (row.height, row.spent.map(|spend| spend.height)) {
        (Some(_), None) => (value, 0, 1),
        (Some(_), Some(None)) => (value, -value, 0),
        (None, None) => (0, value, 1),
        (None, Some(_)) | (Some(_), Some(Some(_))) => (0, 0, 0),
    }
}

/// `None` beyond what can be.
fn add(balance: Balance, confirmed: i128, unconfirmed: i128) -> Option<Balance> {
    let add = |sum: i64, more: i128| i64::try_from(i128::from(sum) + more).ok();
    Some(Balance {
        confirmed: add(balance.confirmed, confirmed)?,
        unconfirmed: add(balance.unconfirmed, unconfirmed)?,
    })
}

/// Whether a spend of this output can still happen or be undone without a block being disconnected:
/// it belongs in the filter.
fn is_open(row: Option<&OutputRow>) -> bool {
    row.is_some_and(|row| row.spent.is_none_or(|spend| spend.height.is_none()))
}

#[derive(Debug)]
pub struct Draft<'a, V> {
    view: &'a V,
    now: u64,
    watches: Cells<ScriptHash, WatchRow>,
    outputs: Cells<OutPoint, OutputRow>,
    txs: Cells<Txid, TxRow>,
    blocks: Cells<u32, BlockRow>,
    scans: Cells<ScanId, ScanRow>,
    /// Scripts that came into a scan (`true`) or left it.
    scan_scripts: BTreeMap<(ScanId, ScriptHash), bool>,
    /// Scripts whose rows begin to go (`true`), or are gone.
    forgetting: BTreeMap<ScriptHash, bool>,
    adding: Option<Change>,
    tip: Option<Cell<BlockId>>,
    /// Transactions in the order in which they were first written: the order of their events.
    pub order: Vec<Txid>,
    ordered: HashSet<Txid>,
    /// Blocks whose list of found outputs has grown.
    found: BTreeSet<u32>,
    /// Outpoints that entered (`true`) or left the filter, in order.
    pub filtered: Vec<(OutPoint, bool)>,
}

impl<'a, V: View> Draft<'a, V> {
    pub fn new(view: &'a V, now: u64) -> Self {
        Self {
            view,
            now,
            watches: BTreeMap::new(),
            outputs: BTreeMap::new(),
            txs: BTreeMap::new(),
            blocks: BTreeMap::new(),
            scans: BTreeMap::new(),
            scan_scripts: BTreeMap::new(),
            forgetting: BTreeMap::new(),
            adding: None,
            tip: None,
            order: Vec::new(),
            ordered: HashSet::new(),
            found: BTreeSet::new(),
            filtered: Vec::new(),
        }
    }

    pub fn view(&self) -> &'a V {
        self.view
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    pub fn watch(&mut self, script: &ScriptHash) -> Result<Option<&WatchRow>, ApplyError> {
        Ok(self.watch_cell(script)?.new.as_ref())
    }

    fn watch_cell(&mut self, script: &ScriptHash) -> Result<&mut Cell<WatchRow>, ApplyError> {
        if !self.watches.contains_key(script) {
            self.watches
                .insert(*script, Cell::read(self.view.watch(script)?));
        }
        Ok(self
            .watches
            .get_mut(script)
            .expect("the cell was inserted above"))
    }

    pub fn put_watch(&mut self, script: ScriptHash, row: WatchRow) -> Result<(), ApplyError> {
        self.watch_cell(&script)?.new = Some(row);
        Ok(())
    }

    pub fn remove_watch(&mut self, script: &ScriptHash) -> Result<(), ApplyError> {
        self.watch_cell(script)?.new = None;
        Ok(())
    }

    /// Whether this transition has read or written the output already: then the filter does not
    /// matter.
    pub fn knows_output(&self, outpoint: &OutPoint) -> bool {
        self.outputs.contains_key(outpoint)
    }

    pub fn output(&mut self, outpoint: &OutPoint) -> Result<Option<&OutputRow>, ApplyError> {
        if !self.outputs.contains_key(outpoint) {
            self.outputs
                .insert(*outpoint, Cell::read(self.view.output(outpoint)?));
        }
        Ok(self
            .outputs
            .get(outpoint)
            .and_then(|cell| cell.new.as_ref()))
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
        match (is_open(old.as_ref()), is_open(row.as_ref())) {
            (false, true) => self.filtered.push((outpoint, true)),
            (true, false) => self.filtered.push((outpoint, false)),
            _ => {}
        }
        self.outputs.get_mut(&outpoint).expect("read above").new = row;
        Ok(())
    }

    fn add_contribution(&mut self, output: &OutputRow, sign: i64) -> Result<(), ApplyError> {
        let (now, script) = (self.now, output.script);
        let Some(watch) = self.watch_cell(&script)?.new.as_mut() else {
            return Ok(());
        };
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
        Ok(())
    }

    /// A baseline is whole: what it brought is in the balance from now on.
    pub fn show_staged(&mut self, script: ScriptHash) -> Result<(), ApplyError> {
        let now = self.now;
        let Some(watch) = self.watch_cell(&script)?.new.as_mut() else {
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

    pub fn tx(&mut self, txid: &Txid) -> Result<Option<&TxRow>, ApplyError> {
        if !self.txs.contains_key(txid) {
            self.txs.insert(*txid, Cell::read(self.view.tx(txid)?));
        }
        Ok(self.txs.get(txid).and_then(|cell| cell.new.as_ref()))
    }

    /// Writes a transaction, counting it in the history of the scripts that it newly touches.
    pub fn put_tx(&mut self, txid: Txid, row: TxRow) -> Result<(), ApplyError> {
        let known: HashSet<ScriptHash> = self.tx(&txid)?.map_or_else(HashSet::new, |old| {
            old.touches.iter().map(|touch| touch.script).collect()
        });
        for touch in row
            .touches
            .iter()
            .filter(|touch| !known.contains(&touch.script))
        {
            let now = self.now;
            if let Some(watch) = self.watch_cell(&touch.script)?.new.as_mut() {
                watch.tx_count += 1;
                watch.updated = now;
            }
        }
        if self.ordered.insert(txid) {
            self.order.push(txid);
        }
        self.txs.get_mut(&txid).expect("read above").new = Some(row);
        Ok(())
    }

    pub fn remove_tx(&mut self, txid: &Txid) -> Result<(), ApplyError> {
        self.tx(txid)?;
        self.txs.get_mut(txid).expect("read above").new = None;
        Ok(())
    }

    pub fn scan(&mut self, scan: &ScanId) -> Result<Option<&ScanRow>, ApplyError> {
        if !self.scans.contains_key(scan) {
            self.scans.insert(*scan, Cell::read(self.view.scan(scan)?));
        }
        Ok(self.scans.get(scan).and_then(|cell| cell.new.as_ref()))
    }

    pub fn put_scan(&mut self, scan: ScanId, row: ScanRow) -> Result<(), ApplyError> {
        self.scan(&scan)?;
        self.scans.get_mut(&scan).expect("read above").new = Some(row);
        Ok(())
    }

    /// Puts a script into a scan that it is not in, or takes it out of one that it is in: at most
    /// one of both in one transition.
    pub fn put_scan_script(&mut self, scan: ScanId, script: ScriptHash, is_in: bool) {
        self.scan_scripts.insert((scan, script), is_in);
    }

    /// The scripts that are new in an add which is not finished, before and now.
    pub fn put_adding(&mut self, old: Vec<ScriptHash>, new: Vec<ScriptHash>) {
        self.adding = (old != new).then_some(Change::Adding { old, new });
    }

    /// Notes that the rows of a script begin to go, or are gone: at most one of both in one
    /// transition.
    pub fn put_forgetting(&mut self, script: ScriptHash, begins: bool) {
        self.forgetting.insert(script, begins);
    }

    pub fn block(&mut self, height: u32) -> Result<Option<&BlockRow>, ApplyError> {
        if !self.blocks.contains_key(&height) {
            self.blocks
                .insert(height, Cell::read(self.view.block(height)?));
        }
        Ok(self.blocks.get(&height).and_then(|cell| cell.new.as_ref()))
    }

    pub fn put_block(&mut self, height: u32, row: Option<BlockRow>) -> Result<(), ApplyError> {
        self.block(height)?;
        self.blocks.get_mut(&height).expect("read above").new = row;
        Ok(())
    }

    /// Notes that a block, if it is known, holds an output whose transaction may not be known.
    pub fn add_found(&mut self, height: u32, outpoint: OutPoint) -> Result<(), ApplyError> {
        self.block(height)?;
        if let Some(block) = self
            .blocks
            .get_mut(&height)
            .and_then(|cell| cell.new.as_mut())
        {
            block.found.push(outpoint);
            self.found.insert(height);
        }
        Ok(())
    }

    pub fn set_tip(&mut self, old: Option<BlockId>, new: BlockId) {
        match &mut self.tip {
            Some(cell) => cell.new = Some(new),
            None => {
                self.tip = Some(Cell {
                    old,
                    new: Some(new),
                })
            }
        }
    }

    /// A transaction as the view has it and as it is now.
    pub fn tx_change(&self, txid: &Txid) -> Option<(Option<&TxRow>, &TxRow)> {
        let cell = self.txs.get(txid)?;
        Some((cell.old.as_ref(), cell.new.as_ref()?))
    }

    /// The watch rows as they are now, with the balance before.
    pub fn watch_changes(&self) -> impl Iterator<Item = (&ScriptHash, Balance, &WatchRow)> {
        self.watches.iter().filter_map(|(script, cell)| {
            let old = cell
                .old
                .as_ref()
                .map_or_else(Balance::default, |row| row.balance);
            Some((script, old, cell.new.as_ref()?))
        })
    }

    /// What is found again, after its script was forgotten, is in its block's list already.
    fn name_found_once(&mut self) {
        for height in std::mem::take(&mut self.found) {
            if let Some(block) = self
                .blocks
                .get_mut(&height)
                .and_then(|cell| cell.new.as_mut())
            {
                let mut named = HashSet::with_capacity(block.found.len());
                block.found.retain(|outpoint| named.insert(*outpoint));
            }
        }
    }

    /// The rows that really changed.
    pub fn into_changes(mut self) -> ChangeSet {
        self.name_found_once();
        let mut changes = Vec::new();
        let watches =
            changed(self.watches).map(|(script, old, new)| Change::Watch { script, old, new });
        changes.extend(watches);
        changes.extend(
            changed(self.outputs).map(|(outpoint, old, new)| Change::Output { outpoint, old, new }),
        );
        changes.extend(changed(self.txs).map(|(txid, old, new)| Change::Tx { txid, old, new }));
        changes.extend(
            changed(self.blocks).map(|(height, old, new)| Change::Block { height, old, new }),
        );
        changes.extend(changed(self.scans).map(|(scan, old, new)| Change::Scan { scan, old, new }));
        changes.extend(self.scan_scripts.into_iter().map(|((scan, script), new)| {
            Change::ScanScript {
                scan,
                script,
                old: !new,
                new,
            }
        }));
        changes.extend(self.adding);
        changes.extend(
            self.forgetting
                .into_iter()
                .map(|(script, new)| Change::Forgetting {
                    script,
                    old: !new,
                    new,
                }),
        );
        changes.extend(
            self.tip
                .filter(|cell| cell.old != cell.new)
                .map(|cell| Change::Tip {
                    old: cell.old,
                    new: cell.new,
                }),
        );
        ChangeSet(changes)
    }
}

fn changed<K, T: PartialEq>(cells: Cells<K, T>) -> impl Iterator<Item = (K, Option<T>, Option<T>)> {
    cells
        .into_iter()
        .filter(|(_, cell)| cell.old != cell.new)
        .map(|(key, cell)| (key, cell.old, cell.new))
}
