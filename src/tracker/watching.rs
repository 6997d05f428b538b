//! Scripts: watched from now on, and what they owned before.

use std::collections::{BTreeSet, HashSet};

use bitcoin::{OutPoint, Transaction, Txid};

use super::event::Cause;
use super::input::FoundOutput;
use super::step::Step;
use super::{
    ApplyError, Ask, Balance, BlockId, Coverage, OutputRow, Past, ScriptHash, Spend, Status,
    Tracker, Transition, View, WatchRequest, WatchRow,
};

impl Tracker {
    pub(super) fn watch(
        &mut self,
        view: &impl View,
        requests: Vec<WatchRequest>,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        if let Some(script) = self.still_forgetting(&requests) {
            return Err(ApplyError::StillForgetting(script));
        }
        let mut step = Step::new(self, view, now);
        let mut fresh = Vec::new();
        let mut wants_baseline = false;
        for request in requests {
            let script = ScriptHash::of(&request.spk);
            let known = step.draft.watch(&script)?.cloned();
            let is_new = known.is_none();
            let mut row = known.unwrap_or_else(|| step.new_watch(&request));
            let depths: BTreeSet<u8> = row.depths.iter().copied().chain(request.depths).collect();
            let added: Vec<u8> = depths
                .iter()
                .copied()
                .filter(|depth| is_new || !row.depths.contains(depth))
                .collect();
            step.tracker.count_depths(&added);
            row.depths = depths.into_iter().collect();
            if let Some(label) = request.label {
                row.label = label;
            }
            let wanted = match request.past {
                Past::Leave => false,
                Past::Find => !row.coverage.utxos_complete,
                Past::FindAgain => true,
            };
            if wanted && !row.coverage.pending {
                row.coverage.pending = true;
                wants_baseline = true;
            }
            if is_new {
                step.tracker.newest_coverage =
                    step.tracker.newest_coverage.max(row.coverage.from_height);
                let fingerprint = step.tracker.fingerprints.script(&row.spk);
                step.tracker.scripts.insert(fingerprint);
                fresh.push(fingerprint);
            }
            step.draft.put_watch(script, row)?;
        }
        step.asks.extend(wants_baseline.then_some(Ask::Baseline));
        let paying = step.tracker.mempool.paying(fresh);
        let Some(&first) = paying.first() else {
            return Ok(Transition {
                changes: step.draft.into_changes(),
                events: Vec::new(),
                asks: step.asks,
            });
        };
        step.revisit.extend(paying);
        step.settle_revisits()?;
        step.finish(Vec::new(), Vec::new(), |txid| {
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
        if self.tip != Some(block) {
            return Err(ApplyError::NotOurTip {
                tip: self.tip,
                block,
            });
        }
        let mut step = Step::new(self, view, now);
        let wanted: HashSet<ScriptHash> = scripts.iter().copied().collect();
        for found in outputs {
            let script = ScriptHash::of(&found.spk);
            if wanted.contains(&script)
                && step
                    .draft
                    .watch(&script)?
                    .is_some_and(|row| row.coverage.pending)
            {
                step.merge_found(script, found)?;
            }
        }
        for script in scripts {
            let Some(mut row) = step.draft.watch(script)?.cloned() else {
                continue;
            };
            if row.coverage.pending {
                if !row.coverage.utxos_complete {
                    // What it owned when it was added and spent before this scan is not known.
                    row.coverage.from_height = block.height.saturating_add(1);
                    step.tracker.newest_coverage =
                        step.tracker.newest_coverage.max(row.coverage.from_height);
                }
                row.coverage = Coverage {
                    utxos_complete: true,
                    pending: false,
                    ..row.coverage
                };
                step.draft.put_watch(*script, row)?;
            }
        }
        step.settle_revisits()?;
        step.finish(Vec::new(), Vec::new(), |_| Cause::Baseline(block.hash))
    }
}

impl<V: View> Step<'_, V> {
    /// After a disconnect down to `height`: outputs that were spent before their script was watched
    /// may be unspent again, so the baselines of scripts that were added above it are asked for
    /// once more.
    pub fn reopen_coverage(&mut self, view: &V, height: u32) -> Result<(), ApplyError> {
        if self.tracker.newest_coverage <= height.saturating_add(1) {
            return Ok(());
        }
        let mut wants_baseline = false;
        for script in view.watches_above(height.saturating_add(1))? {
            let Some(mut row) = self.draft.watch(&script)?.cloned() else {
                continue;
            };
            row.coverage.from_height = height.saturating_add(1);
            if row.coverage.utxos_complete {
                row.coverage = Coverage {
                    utxos_complete: false,
                    pending: true,
                    ..row.coverage
                };
                wants_baseline = true;
            }
            self.draft.put_watch(script, row)?;
        }
        self.tracker.newest_coverage = height.saturating_add(1);
        self.asks.extend(wants_baseline.then_some(Ask::Baseline));
        Ok(())
    }

    fn new_watch(&self, request: &WatchRequest) -> WatchRow {
        let from_height = self
            .tracker
            .tip
            .map_or(u32::MAX, |tip| tip.height.saturating_add(1));
        WatchRow {
            spk: request.spk.clone(),
            label: String::new(),
            added: self.draft.now(),
            depths: vec![1],
            coverage: Coverage {
                from_height,
                ..Coverage::default()
            },
            balance: Balance::default(),
            utxo_count: 0,
            tx_count: 0,
            updated: self.draft.now(),
        }
    }

    /// An output that the node has at our tip. One that we know already is left as it is: we know
    /// more about it.
    fn merge_found(&mut self, script: ScriptHash, found: &FoundOutput) -> Result<(), ApplyError> {
        match self.draft.output(&found.outpoint)?.map(|row| row.height) {
            Some(Some(_)) => return Ok(()),
            Some(None) => self.confirm_found(found)?,
            None => {}
        }
        let row = OutputRow {
            script,
            value: found.value.to_sat(),
            height: Some(found.height),
            coinbase: found.coinbase,
            spent: None,
        };
        self.put_output(found.outpoint, Some(row))?;
        self.revisit_spender(&found.outpoint);
        self.draft.add_found(found.height, found.outpoint)
    }

    /// We hold its transaction for unconfirmed: the node took the block back for a moment, before
    /// the script's past was known, and told of that before we looked at its chain. It is in our
    /// chain all the same; its place in the block is not known.
    fn confirm_found(&mut self, found: &FoundOutput) -> Result<(), ApplyError> {
        let (txid, height) = (found.outpoint.txid, found.height);
        let Some(tx) = self.draft.tx(&txid)?.map(|row| row.tx.clone()) else {
            return Ok(());
        };
        let Some(mut block) = self.draft.block(height)?.cloned() else {
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
            self.put_output(
                input.previous_output,
                Some(OutputRow {
                    spent: Some(Spend {
                        txid,
                        height: Some(height),
                    }),
                    ..row
                }),
            )?;
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
        block.touched.push(txid);
        self.draft.put_block(height, Some(block))
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
                    .draft
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
    use bitcoin::{Amount, ScriptBuf, TxIn, TxOut, transaction};

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
        let mut step = Step::new(&mut tracker, &view, 0);
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
            step.merge_found(ScriptHash::of(&spk()), &found).unwrap();
        }
        assert_eq!(step.revisit.into_iter().collect::<Vec<_>>(), [sweep]);
    }

    #[test]
    fn who_spends_many_new_outputs_is_matched_again_once() {
        let (mut tracker, mut view) = (Tracker::new([7; 16]), MemoryView::default());
        let request = WatchRequest {
            spk: spk(),
            label: None,
            depths: Vec::new(),
            past: Past::Leave,
        };
        let watched = tracker.watch(&view, vec![request], 0).unwrap();
        view.commit(&watched.changes);
        let deposits = transaction(std::iter::empty(), 3);
        let txid = deposits.compute_txid();
        let sweep = sweep_of(&mut tracker, txid);
        let mut step = Step::new(&mut tracker, &view, 0);
        let touches = step.activate(txid, &deposits, None).unwrap();
        assert_eq!(touches.len(), 1);
        assert_eq!(step.revisit.into_iter().collect::<Vec<_>>(), [sweep]);
    }
}
