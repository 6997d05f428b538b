//! Blocks: the first ones, one on top, and back to an earlier one.

use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint, Transaction, Txid};

use super::event::{Cause, EventKind};
use super::fingerprints::TxFingerprints;
use super::raw::{BlockTx, object};
use super::transition::TransitionBuilder;
use super::{
    ApplyError, BlockId, BlockRow, OutputRow, RawBlock, RawTx, Spend, Status, Tracker, Transition,
    TxRow, View,
};

impl Tracker {
    pub(super) fn start(
        &mut self,
        view: &impl View,
        first_height: u32,
        blocks: &[(BlockHash, u32)],
        now: u64,
    ) -> Result<Transition, ApplyError> {
        if let Some(tip) = self.tip {
            return Err(ApplyError::AlreadyStarted { tip });
        }
        let mut builder = TransitionBuilder::new(self, view, now);
        let mut tip = None;
        for (height, (hash, time)) in (first_height..).zip(blocks) {
            builder.changes.blocks(height)?.set(Some(BlockRow {
                hash: *hash,
                time: *time,
                touched: Vec::new(),
                found: Vec::new(),
            }));
            tip = Some(BlockId {
                height,
                hash: *hash,
            });
        }
        if let Some(tip) = tip {
            builder.changes.tip(())?.set(Some(tip));
            builder.tracker.tip = Some(tip);
            // Scripts that were added before any block was known are covered from the next one on.
            builder.reopen_coverage(view, tip.height)?;
        }
        // Nothing is watched before the start, so there is nothing to tell.
        Ok(Transition {
            changes: builder.changes.into_changes(),
            ..Transition::default()
        })
    }

    pub(super) fn connect(
        &mut self,
        view: &impl View,
        block: &RawBlock,
        height: u32,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let (hash, header) = (block.hash(), block.header());
        let previous = header.prev_blockhash;
        let Some(_) = self
            .tip
            .filter(|tip| tip.hash == previous && tip.height.checked_add(1) == Some(height))
        else {
            return Err(ApplyError::DoesNotConnect {
                tip: self.tip,
                previous,
            });
        };
        let Some(txs) = block.transactions(&self.fingerprints) else {
            return Err(ApplyError::BadBlock(hash));
        };
        let transactions = u32::try_from(txs.len()).unwrap_or(u32::MAX);
        let id = BlockId { height, hash };
        let mut builder = TransitionBuilder::new(self, view, now);
        let (mut touched, mut children) = (Vec::new(), Vec::new());
        for (position, BlockTx { tx, txid, prints }) in (0..).zip(txs) {
            let mempool = &builder.tracker.mempool;
            let conflicts = mempool.conflicts(&txid, prints.spends());
            builder.displace(&conflicts, Status::Conflicted { by: txid })?;
            // Without touches it mattered to a script that is being forgotten.
            let is_tracked = builder.tracker.mempool.is_tracked(&txid);
            if is_tracked || builder.tracker.may_concern(&prints) {
                let tx = object(tx.as_ref()).ok_or(ApplyError::Unreadable(txid))?;
                let touches = builder.activate(txid, &tx, Some(height))?;
                if is_tracked || !touches.is_empty() || builder.is_told(&txid)? {
                    let status = Status::Confirmed {
                        block: id,
                        position,
                    };
                    builder.record(txid, &Arc::new(tx), status, touches)?;
                    touched.push(txid);
                }
            }
            // What it inherited goes with it: all its ancestors are confirmed, too.
            let mempool = &mut builder.tracker.mempool;
            if prints.signals || mempool.contains(&txid) {
                children.extend(mempool.children(txid, &prints));
            }
            mempool.remove(&txid);
        }
        builder.judge_descendants(&children)?;
        builder.settle_revisits()?;
        builder.changes.blocks(height)?.set(Some(BlockRow {
            hash,
            time: header.time,
            touched,
            found: Vec::new(),
        }));
        builder.changes.tip(())?.set(Some(id));
        builder.tracker.tip = Some(id);

        let mut tail = builder.reached_depths(id)?;
        tail.push(EventKind::Block {
            block: id,
            time: header.time,
            transactions,
        });
        builder.finish(Vec::new(), tail, |_| Cause::Block(hash))
    }

    pub(super) fn disconnect(
        &mut self,
        view: &impl View,
        to: BlockId,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let refused = ApplyError::NotInChain { tip: self.tip, to };
        let Some(old_tip) = self.tip.filter(|tip| to.height <= tip.height) else {
            return Err(refused);
        };
        if view
            .block(&to.height)?
            .is_none_or(|row| row.hash != to.hash)
        {
            return Err(refused);
        }
        if old_tip == to {
            return Ok(Transition::default());
        }
        // Below the first blocks we know single ones, which history scans met: there is no way back
        // over what lies between them.
        for height in to.height + 1..=old_tip.height {
            if view.block(&height)?.is_none() {
                return Err(refused);
            }
        }
        self.merging = None;
        let mut builder = TransitionBuilder::new(self, view, now);
        for height in (to.height + 1..=old_tip.height).rev() {
            builder.take_back(height)?;
        }
        builder.settle_revisits()?;
        builder.reopen_coverage(view, to.height)?;
        builder.take_back_scans(to.height)?;
        builder.changes.tip(())?.set(Some(to));
        builder.tracker.tip = Some(to);
        let reorg = EventKind::Reorg {
            old_tip,
            fork_point: to,
            depth: old_tip.height - to.height,
        };
        builder.finish(vec![reorg], Vec::new(), |_| Cause::Reorg(to.hash))
    }
}

impl<V: View> TransitionBuilder<'_, V> {
    /// Undoes our top block from its row: its transactions are unconfirmed again, its coinbase
    /// never was.
    fn take_back(&mut self, height: u32) -> Result<(), ApplyError> {
        let Some(block) = self.changes.block(&height)?.cloned() else {
            return Ok(());
        };
        for txid in block.touched.iter().rev() {
            if self.changes.tx(txid)?.is_none() {
                continue;
            }
            let object = self.changes.transaction(txid)?;
            if object.is_coinbase() {
                self.take_back_coinbase(*txid, &object, height)?;
                continue;
            }
            let tx = RawTx::from(&*object);
            let prints = tx.fingerprints(&self.tracker.fingerprints);
            let rivals = self.rivals(txid, &prints)?;
            self.insert(&tx, prints, true)?;
            let touches = self.activate(*txid, &object, None)?;
            self.reopen_inputs(*txid, &object)?;
            self.record(*txid, &object, Status::Mempool, touches)?;
            if let Some(&by) = rivals.first() {
                self.displace(&[*txid], Status::Replaced { by })?;
                self.revisit.extend(rivals);
            }
        }
        for outpoint in block.found.iter().rev() {
            // If its transaction is known by now, for another script, it went back with that.
            let Some(output) = self
                .changes
                .output(outpoint)?
                .filter(|row| row.height == Some(height))
                .cloned()
            else {
                continue;
            };
            let coinbase = output.coinbase;
            self.put_output(*outpoint, output.without_newest())?;
            if coinbase {
                self.displace_spenders([*outpoint])?;
            }
        }
        self.changes.blocks(height)?.set(None);
        Ok(())
    }

    /// A coinbase never was in the mempool, nor can what spends it stay there.
    fn take_back_coinbase(
        &mut self,
        txid: Txid,
        tx: &Transaction,
        height: u32,
    ) -> Result<(), ApplyError> {
        let mut outpoints = Vec::new();
        for (vout, output) in (0..).zip(&tx.output) {
            let outpoint = OutPoint { txid, vout };
            outpoints.push(outpoint);
            if self.watched_script(&output.script_pubkey)?.is_some()
                && let Some(known) = self.changes.output(&outpoint)?.cloned()
                && known.height == Some(height)
            {
                self.put_output(outpoint, known.without_newest())?;
            }
        }
        if let Some(mut row) = self.changes.tx(&txid)?.cloned()
            && matches!(row.status, Status::Confirmed { block, .. } if block.height == height)
        {
            let earlier = match row.earlier.pop() {
                Some(height) => self.changes.block(&height)?.map(|row| (height, row.hash)),
                None => None,
            };
            match earlier {
                Some((height, hash)) => {
                    let block = BlockId { height, hash };
                    let status = Status::Confirmed { block, position: 0 };
                    self.move_to(txid, row, status, Vec::new())?;
                }
                None => self.bury(txid, row, Status::Evicted)?,
            }
        }
        self.displace_spenders(outpoints)
    }

    /// Who has taken the place of this transaction of a stale block. News from the node may be
    /// ahead of our chain: then our mempool holds conflicting transactions already, and what they
    /// spend could not be matched. Those that are leaving, or that mattered to nobody and so may be
    /// unproven, make way; a snapshot asks for the latter if they are there.
    fn rivals(&mut self, txid: &Txid, prints: &TxFingerprints) -> Result<Vec<Txid>, ApplyError> {
        let mut rivals = Vec::new();
        for rival in self.tracker.mempool.conflicts(txid, prints.spends()) {
            match (
                self.tracker.mempool.is_tracked(&rival),
                self.tracker.mempool.is_leaving(&rival),
            ) {
                (true, false) => rivals.push(rival),
                (true, true) => self.displace(&[rival], Status::Replaced { by: *txid })?,
                (false, _) => self.tracker.mempool.remove(&rival),
            }
        }
        Ok(rivals)
    }

    /// A confirmed spend is not in the filter, so `activate` does not see it: it becomes
    /// unconfirmed here.
    fn reopen_inputs(&mut self, txid: Txid, tx: &Transaction) -> Result<(), ApplyError> {
        for input in &tx.input {
            let Some(row) = self.changes.output(&input.previous_output)?.cloned() else {
                continue;
            };
            if let Some(spend) = row.spent
                && spend.txid == txid
                && spend.height.is_some()
            {
                let spent = Some(Spend { txid, height: None });
                self.put_output(input.previous_output, Some(OutputRow { spent, ..row }))?;
            }
        }
        Ok(())
    }

    /// What spends a coinbase that is no more can never confirm.
    fn displace_spenders(
        &mut self,
        coinbase: impl IntoIterator<Item = OutPoint>,
    ) -> Result<(), ApplyError> {
        let spenders: Vec<Txid> = coinbase
            .into_iter()
            .filter_map(|outpoint| self.tracker.mempool.spender(&outpoint))
            .collect();
        self.displace(&spenders, Status::Evicted)
    }

    /// Depths that transactions of earlier blocks reach with `tip`, for the scripts that asked for
    /// them.
    fn reached_depths(&mut self, tip: BlockId) -> Result<Vec<EventKind>, ApplyError> {
        let depths: Vec<u8> = self.tracker.depths.keys().copied().collect();
        let mut reached = Vec::new();
        for depth in depths {
            let Some(height) = (tip.height + 1).checked_sub(u32::from(depth)) else {
                continue;
            };
            let touched = self
                .changes
                .block(&height)?
                .map_or_else(Vec::new, |row| row.touched.clone());
            for txid in touched {
                // One that the block brought for scripts which are not watched any more may stand
                // elsewhere for others.
                if let Some(TxRow {
                    status: Status::Confirmed { block, .. },
                    ..
                }) = self.changes.tx(&txid)?
                    && block.height == height
                {
                    reached.extend(self.depth_updates(txid, depth)?);
                }
            }
        }
        Ok(reached)
    }
}
