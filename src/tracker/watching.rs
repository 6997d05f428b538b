//! Scripts: watched from now on, and what they owned before.

use std::collections::{BTreeSet, HashSet};

use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};

use super::event::Cause;
use super::input::{FoundOutput, Portion};
use super::state::{MergeStage, Merging, WatchPart};
use super::transition::TransitionBuilder;
use super::{
    ApplyError, Balance, Baseline, BlockId, Coverage, FollowUp, OutputRow, ScriptHash, Spend,
    Staged, Status, Tracker, Transition, View, WatchRequest, WatchRow,
};

impl Tracker {
    pub(super) fn watch(
        &mut self,
        view: &impl View,
        requests: Vec<WatchRequest>,
        part: WatchPart,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        if let Some(script) = self.still_forgetting(&requests) {
            return Err(ApplyError::StillForgetting(script));
        }
        let mut builder = TransitionBuilder::new(self, view, now);
        builder.check_depths(&requests)?;
        let mut fresh = Vec::new();
        let before = builder.tracker.adding.clone();
        // Those of the parts before may wait for one.
        let mut wants_baseline = part == WatchPart::Last;
        for request in requests {
            let script = ScriptHash::of(&request.spk);
            let known = builder.changes.watch(&script)?.cloned();
            let is_new = known.is_none();
            let is_listed = known.as_ref().is_some_and(|row| row.listed);
            match part {
                WatchPart::Some if !is_listed => drop(builder.tracker.adding.insert(script)),
                WatchPart::Some => {}
                WatchPart::Whole | WatchPart::Last => drop(builder.tracker.adding.remove(&script)),
            }
            let mut row = known.unwrap_or_else(|| builder.new_watch(request.spk.clone()));
            row.listed = true;
            let depths: BTreeSet<u8> = row.depths.iter().copied().chain(request.depths).collect();
            let added: Vec<u8> = depths
                .iter()
                .copied()
                .filter(|depth| is_new || !row.depths.contains(depth))
                .collect();
            builder.tracker.count_depths(&added);
            row.depths = depths.into_iter().collect();
            if let Some(label) = request.label {
                row.label = label;
            }
            let wanted = match request.baseline {
                Baseline::Skip => false,
                Baseline::IfMissing => !row.coverage.utxos_complete,
                Baseline::Refresh => true,
            };
            if wanted && !row.coverage.pending {
                row.coverage.pending = true;
                // Its first: one that is complete, or was, is shown as it is put right.
                if !row.coverage.utxos_complete {
                    row.coverage.staged = Some(Staged::default());
                }
                wants_baseline = true;
            }
            if is_new {
                builder.tracker.newest_coverage = builder
                    .tracker
                    .newest_coverage
                    .max(row.coverage.from_height);
                let fingerprint = builder.tracker.fingerprints.script(&row.spk);
                builder.tracker.scripts.insert(fingerprint);
                fresh.push(fingerprint);
            }
            builder.changes.watches(script)?.set(Some(row));
        }
        if part == WatchPart::Last {
            builder.tracker.adding.clear();
        }
        builder.put_adding(before)?;
        // One scan is for all of them.
        let wants_baseline = wants_baseline && part != WatchPart::Some;
        builder
            .follow_ups
            .extend(wants_baseline.then_some(FollowUp::Baseline));
        let paying = builder.tracker.mempool.paying(fresh);
        let Some(&first) = paying.first() else {
            let mut told = Vec::new();
            builder.label_news(&mut told)?;
            return Ok(builder.tell(told));
        };
        builder.revisit.extend(paying);
        builder.settle_revisits()?;
        builder.finish(Vec::new(), Vec::new(), |txid| {
            Cause::Transaction(txid.unwrap_or(first))
        })
    }

    pub(super) fn baseline(
        &mut self,
        view: &impl View,
        block: BlockId,
        scripts: &[ScriptHash],
        outputs: &[FoundOutput],
        now: u64,
    ) -> Result<Transition, ApplyError> {
        self.must_be_tip(block)?;
        let mut builder = TransitionBuilder::new(self, view, now);
        builder.merge_all_found(scripts, outputs)?;
        for script in scripts {
            builder.end_baseline(block, *script)?;
        }
        builder.revisit_spenders(outputs)?;
        builder.settle_revisits()?;
        builder.finish(Vec::new(), Vec::new(), |_| Cause::Baseline(block.hash))
    }
}

impl Tracker {
    pub(super) fn baseline_part(
        &mut self,
        view: &impl View,
        block: BlockId,
        script: ScriptHash,
        portion: Portion,
        outputs: &[FoundOutput],
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let is_first = portion == Portion::First;
        let waits = view.watch(&script)?.is_some_and(|row| row.coverage.pending);
        let merging = self.merging.as_ref();
        let has_begun = is_first || merging.is_some_and(|it| it.script == script);
        if !waits || !has_begun {
            return Err(ApplyError::NotMerging(script));
        }
        self.must_be_tip(block)?;
        let mut builder = TransitionBuilder::new(self, view, now);
        if is_first {
            builder.stage(script)?;
            builder.come_in_portions(&script)?;
        }
        match portion {
            Portion::First | Portion::Next => {
                let stage = MergeStage::Outputs;
                builder.tracker.merging = Some(Merging { script, stage });
                builder.merge_all_found(&[script], outputs)?;
            }
            Portion::Last => builder.merge_last(view, block, script, outputs)?,
        }
        builder.revisit_spenders(outputs)?;
        builder.settle_revisits()?;
        builder.finish(Vec::new(), Vec::new(), |_| Cause::Baseline(block.hash))
    }

    fn must_be_tip(&self, block: BlockId) -> Result<(), ApplyError> {
        let tip = self.tip;
        match tip == Some(block) {
            true => Ok(()),
            false => Err(ApplyError::NotOurTip { tip, block }),
        }
    }
}

impl<V: View> TransitionBuilder<'_, V> {
    /// Merges those of the outputs that are of these scripts, which wait for them.
    fn merge_all_found(
        &mut self,
        scripts: &[ScriptHash],
        outputs: &[FoundOutput],
    ) -> Result<(), ApplyError> {
        let wanted: HashSet<&ScriptHash> = scripts.iter().collect();
        for found in outputs {
            let script = ScriptHash::of(&found.spk);
            let waits = |row: &WatchRow| row.coverage.pending;
            if wanted.contains(&script) && self.changes.watch(&script)?.is_some_and(waits) {
                self.merge_found(script, found)?;
            }
        }
        Ok(())
    }

    /// The last outputs of a script have come. They are shown when all that spend them are matched,
    /// which takes an input for each portion of them. What we hold for unconfirmed is shown
    /// already and moves then, too.
    fn merge_last(
        &mut self,
        view: &V,
        block: BlockId,
        script: ScriptHash,
        outputs: &[FoundOutput],
    ) -> Result<(), ApplyError> {
        if self.match_spenders(view, script)? {
            self.merge_all_found(&[script], outputs)?;
            self.end_baseline(block, script)?;
            self.tracker.merging = None;
            return Ok(());
        }
        for found in outputs {
            let known = self.changes.output(&found.outpoint)?;
            if known.is_none_or(|row| row.height.is_some()) {
                self.merge_all_found(&[script], std::slice::from_ref(found))?;
            }
        }
        Ok(())
    }

    /// Looks for mempool transactions that spend what has come of a script, for a portion of it.
    /// Answers whether that was the last one.
    fn match_spenders(&mut self, view: &V, script: ScriptHash) -> Result<bool, ApplyError> {
        let merging = self.tracker.merging.as_ref();
        let mut after = match merging.map(|merging| merging.stage) {
            Some(MergeStage::Spenders(after)) => after,
            _ => None,
        };
        let mut room = self.tracker.portion;
        let watch = self.changes.watch(&script)?;
        let is_staged = watch.is_some_and(|watch| watch.coverage.staged.is_some());
        let page = match is_staged {
            true => view.unspent(&script, after, room)?,
            false => Vec::new(),
        };
        let mut is_last = page.len() < room;
        for outpoint in page {
            if room == 0 {
                is_last = false;
                break;
            }
            let inputs = self.match_spender(&outpoint)?;
            (after, room) = (Some(outpoint), room.saturating_sub(1 + inputs));
        }
        let stage = MergeStage::Spenders(after);
        self.tracker.merging = Some(Merging { script, stage });
        Ok(is_last)
    }

    /// The number of inputs that have to be looked at for this output.
    fn match_spender(&mut self, outpoint: &OutPoint) -> Result<usize, ApplyError> {
        let mempool = &self.tracker.mempool;
        // One that is asked for is matched when it comes.
        let spender = mempool
            .spender(outpoint)
            .filter(|it| !mempool.is_wanted(it));
        let Some(spender) = spender else { return Ok(0) };
        let inputs = mempool.inputs(&spender);
        let row = self.changes.output(outpoint)?;
        let is_new = row.is_some_and(|row| row.spent.is_none()) && self.revisit.insert(spender);
        Ok(if is_new { inputs } else { 0 })
    }

    /// Looks again at whatever in the mempool spends outputs that are new, and not set aside.
    fn revisit_spenders(&mut self, outputs: &[FoundOutput]) -> Result<(), ApplyError> {
        for FoundOutput { outpoint, .. } in outputs {
            let row = self.changes.output(outpoint)?.cloned();
            if let Some(row) = row.filter(|row| row.spent.is_none())
                && !self.is_set_aside(&row)?
            {
                self.revisit_spender(outpoint);
            }
        }
        Ok(())
    }

    /// What has come of a script's past, which is whole with it, is shown.
    fn end_baseline(&mut self, block: BlockId, script: ScriptHash) -> Result<(), ApplyError> {
        self.changes.show_staged(script)?;
        let row = self.changes.watch(&script)?.cloned();
        let Some(mut row) = row.filter(|row| row.coverage.pending) else {
            return Ok(());
        };
        let before = row.coverage.clone();
        if !before.utxos_complete {
            // What it owned when it was added and spent before this scan is not known.
            row.coverage.from_height = block.height.saturating_add(1);
            let newest = &mut self.tracker.newest_coverage;
            *newest = (*newest).max(row.coverage.from_height);
        }
        row.coverage = Coverage::whole(row.coverage.from_height);
        self.changes.watches(script)?.set(Some(row));
        match before.utxos_complete {
            true => Ok(()),
            false => self.past_known(&script, &before),
        }
    }

    /// A script that waited in a folder of format 4 is not shown in portions either, unless
    /// something from before its coverage is shown already, as after a reorg.
    fn stage(&mut self, script: ScriptHash) -> Result<(), ApplyError> {
        let limit = self.tracker.portion;
        let known = self.changes.view().unspent(&script, None, limit)?;
        let Some(mut row) = self.changes.watch(&script)?.cloned() else {
            return Ok(());
        };
        let coverage = &mut row.coverage;
        if coverage.utxos_complete || coverage.staged.is_some() || known.len() == limit {
            return Ok(());
        }
        coverage.staged = Some(Staged::default());
        for outpoint in known {
            let output = self.changes.output(&outpoint)?;
            if output.is_some_and(|output| coverage.is_staged(output.height)) {
                return Ok(());
            }
        }
        self.changes.watches(script)?.set(Some(row));
        Ok(())
    }

    /// Writes which scripts are new in an add that is not finished, if they were others before.
    pub fn put_adding(&mut self, before: BTreeSet<ScriptHash>) -> Result<(), ApplyError> {
        if before != self.tracker.adding {
            let now: Vec<ScriptHash> = self.tracker.adding.iter().copied().collect();
            self.changes
                .adding(())?
                .set(Some(now).filter(|now| !now.is_empty()));
        }
        Ok(())
    }

    /// After a disconnect down to `height`: outputs that were spent before their script was watched
    /// may be unspent again, so the baselines of scripts that were added above it are asked for
    /// once more.
    pub fn reopen_coverage(&mut self, view: &V, height: u32) -> Result<(), ApplyError> {
        if self.tracker.newest_coverage <= height.saturating_add(1) {
            return Ok(());
        }
        let mut wants_baseline = false;
        for script in view.watches_above(height.saturating_add(1))? {
            let Some(mut row) = self.changes.watch(&script)?.cloned() else {
                continue;
            };
            row.coverage.from_height = height.saturating_add(1);
            let was_known = row.coverage.utxos_complete;
            if row.coverage.utxos_complete {
                row.coverage = Coverage {
                    utxos_complete: false,
                    pending: true,
                    ..row.coverage
                };
                wants_baseline = true;
            }
            self.changes.watches(script)?.set(Some(row));
            self.past_reopened(&script, was_known)?;
        }
        self.tracker.newest_coverage = height.saturating_add(1);
        self.follow_ups
            .extend(wants_baseline.then_some(FollowUp::Baseline));
        Ok(())
    }

    pub fn new_watch(&self, spk: ScriptBuf) -> WatchRow {
        let from_height = self
            .tracker
            .tip
            .map_or(u32::MAX, |tip| tip.height.saturating_add(1));
        WatchRow {
            spk,
            listed: false,
            derivations: Vec::new(),
            label: String::new(),
            added: self.changes.now(),
            depths: vec![1],
            coverage: Coverage {
                from_height,
                ..Coverage::default()
            },
            balance: Balance::default(),
            utxo_count: 0,
            outputs: 0,
            tx_count: 0,
            updated: self.changes.now(),
        }
    }

    /// An output that the node has at our tip. One that we know already is left as it is: we know
    /// more about it.
    fn merge_found(&mut self, script: ScriptHash, found: &FoundOutput) -> Result<(), ApplyError> {
        let mut known = self.changes.output(&found.outpoint)?.cloned();
        match known.as_ref().map(|row| row.height) {
            Some(Some(height)) if height >= found.height => return Ok(()),
            // It is the one of an earlier block.
            Some(Some(_)) => {}
            Some(None) => {
                self.confirm_found(found)?;
                known = None;
            }
            None => {}
        }
        let new = || OutputRow {
            script,
            value: found.value.to_sat(),
            height: None,
            coinbase: found.coinbase,
            spent: None,
            earlier: Vec::new(),
        };
        let row = known.unwrap_or_else(new).created_in(found.height);
        self.put_output(found.outpoint, Some(row))?;
        self.complete_nets(found.outpoint.txid, &HashSet::from([script]))?;
        self.changes.add_found(found.height, found.outpoint)
    }

    /// We hold its transaction for unconfirmed: the node took the block back for a moment, before
    /// the script's past was known, and told of that before we looked at its chain. It is in our
    /// chain all the same; its place in the block is not known.
    fn confirm_found(&mut self, found: &FoundOutput) -> Result<(), ApplyError> {
        let (txid, height) = (found.outpoint.txid, found.height);
        if self.changes.tx(&txid)?.is_none() {
            return Ok(());
        }
        let tx = self.changes.transaction(&txid)?;
        let Some(mut block) = self.changes.block(&height)?.cloned() else {
            return Ok(());
        };
        self.drop_unconfirmed_outputs(txid, &tx)?;
        for input in &tx.input {
            let Some(row) = self
                .watched_output(&input.previous_output)?
                .filter(|row| row.spent.is_some_and(|spend| spend.txid == txid))
            else {
                continue;
            };
            // One that was created later is another of the same coinbase: nobody has spent it.
            let is_older = row.height.is_none_or(|created| created <= height);
            let spent = is_older.then_some(Spend {
                txid,
                height: Some(height),
            });
            self.put_output(input.previous_output, Some(OutputRow { spent, ..row }))?;
        }
        self.tracker.mempool.remove(&txid);
        let status = Status::Confirmed {
            block: BlockId {
                height,
                hash: block.hash,
            },
            position: u32::MAX,
        };
        self.record(txid, &tx, status, Vec::new())?;
        // It may stand there for a script that is not watched any more.
        block.touched.retain(|known| *known != txid);
        block.touched.push(txid);
        self.changes.blocks(height)?.set(Some(block));
        Ok(())
    }

    /// Of a transaction that we held for unconfirmed and that is in an old block. Those of its
    /// outputs that are unspent are found with the unspent outputs of their scripts; the others
    /// were spent in a block since, and have no row until a history scan meets that.
    pub fn drop_unconfirmed_outputs(
        &mut self,
        txid: Txid,
        tx: &Transaction,
    ) -> Result<(), ApplyError> {
        for (vout, output) in (0..).zip(&tx.output) {
            let outpoint = OutPoint { txid, vout };
            if self.watched_script(&output.script_pubkey)?.is_some()
                && self
                    .changes
                    .output(&outpoint)?
                    .is_some_and(|row| row.height.is_none())
            {
                self.put_output(outpoint, None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, TxIn, TxOut, transaction};

    use super::super::RawTx;
    use super::super::view::MemoryView;
    use super::*;

    fn spk() -> ScriptBuf {
        ScriptBuf::from_bytes([&[0, 20][..], &[1; 20]].concat())
    }

    fn transaction(inputs: impl Iterator<Item = OutPoint>, outputs: usize) -> Transaction {
        let input = |previous_output| TxIn {
            previous_output,
            ..TxIn::default()
        };
        let output = TxOut {
            value: Amount::from_sat(100),
            script_pubkey: spk(),
        };
        Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: inputs.map(input).collect(),
            output: vec![output; outputs],
        }
    }

    /// The mempool holds a transaction that spends three outputs of `txid`.
    fn sweep_of(tracker: &mut Tracker, txid: Txid) -> Txid {
        let sweep = transaction((0..3).map(|vout| OutPoint { txid, vout }), 0);
        let sweep = RawTx::from(&sweep);
        let prints = sweep.fingerprints(&tracker.fingerprints);
        tracker.mempool.insert(&sweep, prints, true);
        sweep.txid()
    }

    #[test]
    fn who_spends_many_found_outputs_is_matched_again_once() {
        let (mut tracker, view) = (Tracker::new([7; 16]), MemoryView::default());
        let deposits = Txid::from_byte_array([1; 32]);
        let sweep = sweep_of(&mut tracker, deposits);
        let mut builder = TransitionBuilder::new(&mut tracker, &view, 0);
        for vout in 0..3 {
            let found = FoundOutput {
                outpoint: OutPoint {
                    txid: deposits,
                    vout,
                },
                spk: spk(),
                value: Amount::from_sat(100),
                height: 5,
                coinbase: false,
            };
            builder.merge_found(ScriptHash::of(&spk()), &found).unwrap();
            builder.revisit_spenders(&[found]).unwrap();
        }
        assert_eq!(builder.revisit.into_iter().collect::<Vec<_>>(), [sweep]);
    }

    #[test]
    fn who_spends_many_new_outputs_is_matched_again_once() {
        let (mut tracker, mut view) = (Tracker::new([7; 16]), MemoryView::default());
        let request = WatchRequest {
            spk: spk(),
            label: None,
            depths: Vec::new(),
            baseline: Baseline::Skip,
        };
        let watched = tracker
            .watch(&view, vec![request], WatchPart::Whole, 0)
            .unwrap();
        view.commit(&watched.changes);
        let deposits = transaction(std::iter::empty(), 3);
        let txid = deposits.compute_txid();
        let sweep = sweep_of(&mut tracker, txid);
        let mut builder = TransitionBuilder::new(&mut tracker, &view, 0);
        let touches = builder.activate(txid, &deposits, None).unwrap();
        assert_eq!(touches.len(), 1);
        assert_eq!(builder.revisit.into_iter().collect::<Vec<_>>(), [sweep]);
    }
}
