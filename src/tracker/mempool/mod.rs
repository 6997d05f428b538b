//! The mempool: transactions that come, that leave, and the node's whole view of it.

mod index;

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{BlockHash, OutPoint, Transaction, Txid};

use super::event::Cause;
use super::fingerprints::{FingerprintSet, TxFingerprints};
use super::input::Seen;
use super::transition::TransitionBuilder;
pub(super) use index::Mempool;

use super::{ApplyError, FollowUp, RawTx, Replacement, Status, Tracker, Transition, View};

impl Tracker {
    pub(super) fn tx_seen(
        &mut self,
        view: &impl View,
        tx: RawTx,
        seen: Seen,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        if tx.is_coinbase() {
            return Ok(Transition::default());
        }
        if seen == Seen::Rawtx {
            return self.tx_unproven(view, tx, now);
        }
        let (txid, prints) = (tx.txid(), tx.fingerprints(&self.fingerprints));
        let conflicts = self.mempool.conflicts(&txid, prints.spends());
        if seen == Seen::Fetched
            && conflicts
                .iter()
                .any(|other| !self.mempool.is_leaving(other))
        {
            return Ok(Transition::default());
        }
        if conflicts.is_empty() && !self.may_concern(&prints) {
            // Nearly all of them.
            let signals = prints.signals;
            let children = self.mempool.insert(&tx, prints, false);
            if children.is_empty() || !(signals || self.mempool.inherits(&txid)) {
                return Ok(Transition::default());
            }
            let mut builder = TransitionBuilder::new(self, view, now);
            builder.judge_descendants(&children)?;
            return builder.finish(Vec::new(), Vec::new(), |_| Cause::Transaction(txid));
        }
        let mut builder = TransitionBuilder::new(self, view, now);
        let Some(object) = builder.concerning(&tx, &prints)? else {
            builder.displace(&conflicts, Status::Replaced { by: txid })?;
            builder.insert(&tx, prints, false)?;
            return builder.finish(Vec::new(), Vec::new(), |_| Cause::Transaction(txid));
        };
        if builder.is_confirmed(&txid, &object)? {
            return Ok(Transition::default());
        }
        builder.displace(&conflicts, Status::Replaced { by: txid })?;
        let touches = builder.activate(txid, &object, None)?;
        // What it spends may have gone with what it displaces, where a coinbase came again
        // (`super::repeats`). The next reading of the mempool puts that right.
        let is_tracked = !touches.is_empty() || builder.is_told(&txid)?;
        builder.insert(&tx, prints, is_tracked)?;
        if is_tracked {
            builder.record(txid, &Arc::new(object), Status::Mempool, touches)?;
        }
        builder.settle_revisits()?;
        builder.finish(Vec::new(), Vec::new(), |_| Cause::Transaction(txid))
    }

    /// A transaction that may as well be one of a block. It is believed when it matters to nobody;
    /// else the node is asked.
    fn tx_unproven(
        &mut self,
        view: &impl View,
        tx: RawTx,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let txid = tx.txid();
        if self.mempool.contains(&txid) && !self.mempool.is_leaving(&txid) {
            return Ok(Transition::default());
        }
        let prints = tx.fingerprints(&self.fingerprints);
        let doubtful = self.mempool.contains(&txid)
            || !self.mempool.conflicts(&txid, prints.spends()).is_empty();
        let mut builder = TransitionBuilder::new(self, view, now);
        let object = builder.concerning(&tx, &prints)?;
        if let Some(object) = &object
            && builder.is_confirmed(&txid, object)?
        {
            return Ok(Transition::default());
        }
        if object.is_some() || doubtful {
            return Ok(Transition {
                follow_ups: vec![FollowUp::Check(tx)],
                ..Transition::default()
            });
        }
        // Since it may be one of a block, nothing descends from it that we did not know of.
        self.mempool.insert(&tx, prints, false);
        Ok(Transition::default())
    }

    pub(super) fn tx_removed(&mut self, txids: &[Txid]) -> Transition {
        for txid in txids {
            self.mempool.mark_leaving(*txid);
        }
        Transition::default()
    }

    pub(super) fn evict_missing(
        &mut self,
        view: &impl View,
        spared: &[Txid],
        now: u64,
    ) -> Result<Transition, ApplyError> {
        self.mempool.begin_eviction(spared);
        self.evicted_at = now;
        self.evict_portion(view)
    }

    pub(super) fn evict_portion(&mut self, view: &impl View) -> Result<Transition, ApplyError> {
        let (first, now) = (self.mempool.next_evicted(), self.evicted_at);
        let mut room = self.portion;
        let mut builder = TransitionBuilder::new(self, view, now);
        while room > 0
            && let Some(txid) = builder.tracker.mempool.next_evicted()
        {
            let is_tracked = builder.tracker.mempool.is_tracked(&txid);
            builder.tracker.mempool.evict(&txid);
            room -= 1;
            if is_tracked {
                let tx = builder.changes.transaction(&txid)?;
                room = room.saturating_sub(tx.input.len() + tx.output.len());
                builder.retire(txid, Status::Evicted)?;
            }
        }
        // Then the index is what the node holds, as far as it was read: what came in another order
        // than it happened is put right.
        if builder.tracker.replacement == Replacement::Signalled && !builder.tracker.is_evicting() {
            builder.judge(builder.tracker.mempool.misjudged())?;
        }
        builder.finish(Vec::new(), Vec::new(), |txid| {
            let none = || Txid::from_raw_hash(bitcoin::hashes::Hash::all_zeros());
            Cause::Removed(txid.or(first).unwrap_or_else(none))
        })
    }

    pub(super) fn snapshot(&mut self, tip: BlockHash, txids: &BTreeSet<Txid>) -> Transition {
        if self.tip.is_none_or(|ours| ours.hash != tip) {
            return Transition::default();
        }
        let missing = self.mempool.read(txids);
        Transition {
            follow_ups: (!missing.is_empty())
                .then_some(FollowUp::Fetch(missing))
                .into_iter()
                .collect(),
            ..Transition::default()
        }
    }
}

impl Tracker {
    /// False: the transaction pays no watched script and spends no watched output.
    pub(super) fn may_concern(&self, prints: &TxFingerprints) -> bool {
        let any =
            |set: &FingerprintSet, prints: &[u64]| prints.iter().any(|print| set.contains(*print));
        any(&self.scripts, prints.pays()) || any(&self.outpoints, prints.spends())
    }
}

impl<V: View> TransitionBuilder<'_, V> {
    /// Whether the transaction is in a block of our chain, as far as our rows tell: its own row, or
    /// an output of it that a scan found. The node may say otherwise before we hear that it took
    /// the block back; what it holds then is read after our disconnect.
    fn is_confirmed(&mut self, txid: &Txid, tx: &Transaction) -> Result<bool, ApplyError> {
        if self
            .changes
            .tx(txid)?
            .is_some_and(|row| matches!(row.status, Status::Confirmed { .. }))
        {
            return Ok(true);
        }
        for (vout, output) in (0..).zip(&tx.output) {
            let outpoint = OutPoint { txid: *txid, vout };
            if self.watched_script(&output.script_pubkey)?.is_some()
                && self
                    .changes
                    .output(&outpoint)?
                    .is_some_and(|row| row.height.is_some())
            {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
