//! What history scans find: what scripts did in blocks before they were watched. It is history, not
//! news: no transaction is announced, one [`ScanComplete`](super::EventKind::ScanComplete) for each
//! script says from which block on its history is whole: of one that is left out
//! ([`Coverage::left_out`](super::Coverage)), from where it was watched.
//!
//! # Laws
//!
//! 1. Blocks come in ascending order, and only what is spent is new: the outputs that are not were
//!    found by the baseline, or are known because they came later. So a scan needs no second look
//!    at anything, and moves no balance, unless it puts right what we held for unconfirmed.
//! 2. An output of a confirmed transaction that we know, of a script whose baseline is merged, has
//!    no row when it was spent in a block that no scan has come to. The spend brings the row.
//! 3. Everything goes back with its block, like what was seen live: an open scan that was further
//!    is set back to the fork point with it.
//! 4. A script's coverage reaches down only when a scan has come up to it. A reorg that raises the
//!    coverage meanwhile (its baseline is asked for again) makes the scan longer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bitcoin::{OutPoint, Txid};

use super::event::Cause;
use super::input::{FoundOutput, ScannedBlock, ScannedTx};
use super::transition::{Touches, TransitionBuilder};
use super::{
    ApplyError, BlockId, BlockRow, OutputRow, ScanId, ScanRow, ScriptHash, Spend, Status, Touch,
    Tracker, Transition, TxRow, View,
};

impl Tracker {
    #[allow(clippy::too_many_arguments, reason = "the fields of one input")]
    pub(super) fn scan_blocks(
        &mut self,
        view: &impl View,
        scans: &[ScanId],
        scripts: Vec<Arc<HashSet<ScriptHash>>>,
        first: u32,
        blocks: &[ScannedBlock],
        upto: BlockId,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let heights: Vec<u32> = blocks.iter().map(|block| block.block.height).collect();
        if upto.height < first
            || !heights.is_sorted_by(|a, b| a < b)
            || heights
                .iter()
                .any(|height| !(first..=upto.height).contains(height))
        {
            return Err(ApplyError::BadStretch { first, upto });
        }
        for block in blocks.iter().map(|block| block.block).chain([upto]) {
            self.must_be_ours(view, block)?;
        }
        let mut builder = TransitionBuilder::new(self, view, now);
        let mut rows = Vec::with_capacity(scans.len());
        for (place, scan) in scans.iter().enumerate() {
            match builder.open_row(scan)? {
                Some(row) if row.next == first => rows.push((place, *scan, row)),
                Some(_) => {
                    return Err(ApplyError::ScanMoved {
                        scan: *scan,
                        height: first,
                    });
                }
                None => {}
            }
        }
        if rows.is_empty() {
            return Err(ApplyError::NoSuchScan(
                scans.first().copied().unwrap_or(ScanId(0)),
            ));
        }
        let mut scope = Scope::new(scripts);
        for block in blocks {
            builder.scanned_block(&mut scope, block)?;
        }
        for (place, scan, row) in rows {
            let (next, found) = (
                upto.height.saturating_add(1),
                row.found.saturating_add(scope.found_for(place)),
            );
            builder.changes.scans(scan)?.set(Some(ScanRow {
                next,
                found,
                updated: now,
                ..row
            }));
        }
        builder.finish_scan_blocks(|_| Cause::Baseline(upto.hash))
    }
}

/// The scripts of several scans that go the same way.
struct Scope {
    scans: Vec<Arc<HashSet<ScriptHash>>>,
    /// All of them in one, when the scans are many and small: one look instead of one for each
    /// scan.
    all: Option<HashSet<ScriptHash>>,
    /// New places in the history of each script.
    found: HashMap<ScriptHash, u64>,
}

impl Scope {
    fn new(scans: Vec<Arc<HashSet<ScriptHash>>>) -> Self {
        let total: usize = scans.iter().map(|scripts| scripts.len()).sum();
        let all = (total <= 100 * scans.len()).then(|| {
            scans
                .iter()
                .flat_map(|scripts| scripts.iter().copied())
                .collect()
        });
        Self {
            scans,
            all,
            found: HashMap::new(),
        }
    }

    fn contains(&self, script: &ScriptHash) -> bool {
        match &self.all {
            Some(all) => all.contains(script),
            None => self.scans.iter().any(|scripts| scripts.contains(script)),
        }
    }

    /// New places in the histories of the scripts of one scan.
    fn found_for(&self, place: usize) -> u64 {
        let Some(scripts) = self.scans.get(place) else {
            return 0;
        };
        match scripts.len() < self.found.len() {
            true => scripts
                .iter()
                .filter_map(|script| self.found.get(script))
                .sum(),
            false => self
                .found
                .iter()
                .filter(|(script, _)| scripts.contains(*script))
                .map(|(_, count)| count)
                .sum(),
        }
    }
}

impl<V: View> TransitionBuilder<'_, V> {
    fn scanned_block(
        &mut self,
        scope: &mut Scope,
        scanned: &ScannedBlock,
    ) -> Result<(), ApplyError> {
        let mut touched = Vec::new();
        for tx in &scanned.transactions {
            let txid = tx.tx.compute_txid();
            let touches = self.scanned_tx(scope, txid, scanned.block.height, tx)?;
            if !touches.is_empty() {
                self.record_scanned(scope, txid, scanned, tx, touches)?;
                touched.push((tx.position, txid));
            }
        }
        match touched.is_empty() {
            true => Ok(()),
            false => self.add_touched(scanned, touched),
        }
    }

    /// What one transaction of a past block does to the scripts of `scope`, with its spends
    /// written. Nothing is written if it does nothing to them.
    fn scanned_tx(
        &mut self,
        scope: &Scope,
        txid: Txid,
        height: u32,
        scanned: &ScannedTx,
    ) -> Result<Vec<Touch>, ApplyError> {
        let mut touches = Touches::default();
        for output in &scanned.tx.output {
            if let Some(script) = self
                .watched_script(&output.script_pubkey)?
                .filter(|script| scope.contains(script))
            {
                touches.add(script, output.value.to_sat(), 0)?;
            }
        }
        let known = scanned.spent.iter().map(|found| (found.outpoint, found));
        let known: HashMap<OutPoint, &FoundOutput> = known.collect();
        let mut spends = Vec::new();
        for input in scanned
            .tx
            .input
            .iter()
            .filter(|_| !scanned.tx.is_coinbase())
        {
            let outpoint = input.previous_output;
            let spender = (txid, height);
            let Some((row, created)) = self.past_output(scope, &outpoint, &known, spender)? else {
                continue;
            };
            match scope.contains(&row.script) {
                true => touches.add(row.script, 0, row.value)?,
                // Others are left alone, but for what we held for unconfirmed.
                false if row.spent.is_none_or(|spend| spend.txid != txid) => continue,
                false => {}
            }
            let spent = Some(Spend {
                txid,
                height: Some(height),
            });
            let row = match created {
                Some(created) => row.spent_in(created, txid, height),
                None => OutputRow { spent, ..row },
            };
            spends.push((outpoint, row));
        }
        if touches.is_empty() {
            return Ok(Vec::new());
        }
        self.drop_unconfirmed_outputs(txid, &scanned.tx)?;
        for (outpoint, row) in spends {
            self.put_output(outpoint, Some(row))?;
        }
        Ok(touches.into_list())
    }

    /// The output that a transaction in a past block at `height` spends, and the block that created
    /// it, if that need not be the one of its row: by its row, or as `known` or the transaction
    /// that created it says.
    fn past_output(
        &mut self,
        scope: &Scope,
        outpoint: &OutPoint,
        known: &HashMap<OutPoint, &FoundOutput>,
        (txid, height): (Txid, u32),
    ) -> Result<Option<(OutputRow, Option<u32>)>, ApplyError> {
        let mut row = self.changes.output(outpoint)?.cloned();
        if let Some(row) = row.take_if(|row| {
            let is_it = |spend: Spend| spend.txid == txid || spend.height.is_none();
            let is_newest = row.height.is_some_and(|created| created <= height);
            !scope.contains(&row.script) || is_newest && row.spent.is_none_or(is_it)
        }) {
            return Ok(Some((row, None)));
        }
        if row.take_if(|row| row.height.is_none()).is_some() {
            // We held the transaction that created it for unconfirmed. It is in a block below the
            // first one of the scan.
            self.tracker.mempool.remove(&outpoint.txid);
            self.retire(outpoint.txid, Status::Evicted)?;
        }
        let told = known.get(outpoint).map(|found| FoundOutput::clone(found));
        let is_told = told.is_some();
        let found = match told {
            Some(told) => Some(told),
            None => self.created_by(outpoint, height)?,
        };
        let Some(found) = found else {
            return Ok(row.and_then(|row| {
                let created = row.created_before(height)?;
                Some((row, Some(created)))
            }));
        };
        let Some(script) = self
            .watched_script(&found.spk)?
            .filter(|script| scope.contains(script))
        else {
            return Ok(None);
        };
        if is_told {
            self.changes.add_found(found.height, *outpoint)?;
        }
        let row = row.unwrap_or_else(|| OutputRow {
            script,
            value: found.value.to_sat(),
            height: Some(found.height),
            coinbase: found.coinbase,
            spent: None,
            earlier: Vec::new(),
        });
        Ok(Some((row, Some(found.height))))
    }

    /// An output of a transaction that we know, as the last block up to `height` created it.
    fn created_by(
        &mut self,
        outpoint: &OutPoint,
        height: u32,
    ) -> Result<Option<FoundOutput>, ApplyError> {
        let Some(row) = self.changes.tx(&outpoint.txid)?.cloned() else {
            return Ok(None);
        };
        let tx = self.changes.transaction(&outpoint.txid)?;
        let output = usize::try_from(outpoint.vout)
            .ok()
            .and_then(|vout| tx.output.get(vout));
        let Some((output, height)) = output.zip(row.confirmed_before(height)) else {
            return Ok(None);
        };
        Ok(Some(FoundOutput {
            outpoint: *outpoint,
            spk: output.script_pubkey.clone(),
            value: output.value,
            height,
            coinbase: tx.is_coinbase(),
        }))
    }

    /// Writes where the transaction stood.
    fn record_scanned(
        &mut self,
        scope: &mut Scope,
        txid: Txid,
        scanned: &ScannedBlock,
        tx: &ScannedTx,
        touches: Vec<Touch>,
    ) -> Result<(), ApplyError> {
        let status = Status::Confirmed {
            block: scanned.block,
            position: tx.position,
        };
        let known = self.changes.tx(&txid)?.cloned();
        let before: HashSet<ScriptHash> = known
            .iter()
            .flat_map(|row| row.touches.iter().map(|touch| touch.script))
            .collect();
        for touch in &touches {
            if !before.contains(&touch.script) {
                *scope.found.entry(touch.script).or_default() += 1;
            }
        }
        let mut row = match known {
            Some(row) => row,
            None => TxRow {
                first_seen: self.changes.now().min(u64::from(scanned.time) * 1000),
                ..self.new_row(txid, &Arc::new(tx.tx.clone()), status)?
            },
        };
        // One that is in two blocks stands where it came last; one whose place a baseline could not
        // know gets it.
        let status = match row.status {
            Status::Confirmed { block, .. } if block.height > scanned.block.height => {
                row.add_earlier(scanned.block.height);
                row.status
            }
            _ => status,
        };
        self.tracker.mempool.remove(&txid);
        self.move_to(txid, row, status, touches)?;
        // A baseline has found some of its outputs before this was known.
        let mut found = HashSet::new();
        for (vout, output) in (0..).zip(&tx.tx.output) {
            let Some(script) = self.watched_script(&output.script_pubkey)? else {
                continue;
            };
            let row = self.changes.output(&OutPoint { txid, vout })?;
            if row.is_some_and(|row| row.height == Some(scanned.block.height)) {
                found.insert(script);
            }
        }
        self.complete_nets(txid, &found)
    }

    /// Adds transactions to a block's list of what it has to take back, in block order.
    fn add_touched(
        &mut self,
        scanned: &ScannedBlock,
        new: Vec<(u32, Txid)>,
    ) -> Result<(), ApplyError> {
        let empty = BlockRow {
            hash: scanned.block.hash,
            time: scanned.time,
            touched: Vec::new(),
            found: Vec::new(),
        };
        let block = self
            .changes
            .block(&scanned.block.height)?
            .cloned()
            .unwrap_or(empty);
        let mut touched = Vec::with_capacity(block.touched.len() + new.len());
        for txid in &block.touched {
            // Without a row it belongs to nobody any more.
            if let Some(TxRow {
                status: Status::Confirmed { position, .. },
                ..
            }) = self.changes.tx(txid)?
            {
                touched.push((*position, *txid));
            }
        }
        touched.extend(new);
        touched.sort_unstable();
        touched.dedup();
        let touched = touched.into_iter().map(|(_, txid)| txid).collect();
        self.changes
            .blocks(scanned.block.height)?
            .set(Some(BlockRow { touched, ..block }));
        Ok(())
    }
}
