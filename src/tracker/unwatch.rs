//! Scripts that are forgotten: their rows go, and what only they made matter. What other scripts
//! know stays as it is.

use bitcoin::{OutPoint, ScriptBuf, Txid};

use super::event::{Cause, EventKind, Subject};
use super::state::Removal;
use super::transition::TransitionBuilder;
use super::view::touches;
use super::{ApplyError, ChangeSet, Derivation, ScriptHash, Tracker, Transition, View};

impl Tracker {
    pub(super) fn unwatch(
        &mut self,
        view: &impl View,
        scripts: &[ScriptHash],
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let mut builder = TransitionBuilder::new(self, view, now);
        let mut told = Vec::new();
        let mut room = builder.tracker.portion;
        let before = builder.tracker.adding.clone();
        for script in scripts {
            let is_added = !builder.tracker.adding.remove(script);
            let Some(row) = builder.changes.watches(*script)?.edit() else {
                continue;
            };
            if !row.listed {
                // It is watched for descriptors alone, and goes with the last of them.
                continue;
            }
            // Of an add that was not finished nobody was told, but of payments.
            let is_told = is_added || (row.tx_count, row.utxo_count) != (0, 0);
            let leaving = &builder.tracker.leaving;
            let stays = |place: &&Derivation| !leaving.contains(&place.descriptor);
            let staying: Vec<_> = row.derivations.iter().filter(stays).copied().collect();
            if !staying.is_empty() {
                // It is watched for its descriptors still. Its subscribers are told all the same,
                // and for which: when it goes with those, they may not be.
                row.listed = false;
                let depths = std::mem::replace(&mut row.depths, vec![1]);
                let spk = row.spk.clone();
                builder.tracker.uncount_depths(&depths);
                told.extend(is_told.then(|| unwatched(*script, spk, staying)));
                continue;
            }
            for place in row.derivations.clone() {
                builder.leave_place(place)?;
            }
            let event = builder.forget_script(view, &mut Removal::of(*script), &mut room)?;
            told.extend(event.filter(|_| is_told));
        }
        builder.put_adding(before)?;
        builder.finish(Vec::new(), told, |_| {
            Cause::Removed(Txid::from_raw_hash(bitcoin::hashes::Hash::all_zeros()))
        })
    }

    pub(super) fn forget(&mut self, view: &impl View, now: u64) -> Result<Transition, ApplyError> {
        let mut builder = TransitionBuilder::new(self, view, now);
        let mut room = builder.tracker.portion;
        builder.empty_ended_scans(view, &mut room)?;
        let told = builder.leave(view, &mut room)?;
        while room > 0 {
            let begun = builder.tracker.removal.take();
            let next = builder.tracker.forgetting.first().copied();
            let Some(mut removal) = begun.or(next.map(Removal::of)) else {
                break;
            };
            if !builder.forget_rows(view, &mut removal, &mut room)? {
                builder.tracker.removal = Some(removal);
                break;
            }
            builder.changes.forgetting(removal.script)?.set(None);
            builder.tracker.forgetting.remove(&removal.script);
        }
        Ok(builder.tell(told))
    }

    /// Transactions that this moves to another place in the history that is going are not met
    /// behind where its removal has come to.
    pub(super) fn note_moved(&mut self, changes: &ChangeSet) {
        let Some(removal) = &mut self.removal else {
            return;
        };
        for (txid, diff) in &changes.txs {
            if let (Some(old), Some(new)) = (&diff.old, &diff.new)
                && old.order != new.order
                && touches(new, &removal.script)
            {
                removal.moved.insert(*txid);
            }
        }
    }
}

/// `derivations`: where it stands in descriptors, for which it stays watched.
fn unwatched(script: ScriptHash, spk: ScriptBuf, derivations: Vec<Derivation>) -> EventKind {
    let subject = Subject::Script {
        spk,
        script,
        derivations,
    };
    EventKind::Unwatched { subject }
}

impl<V: View> TransitionBuilder<'_, V> {
    /// A script is not watched any more. Its rows go, at most about `room` of them now. Answers
    /// what is to be told of it.
    pub fn forget_script(
        &mut self,
        view: &V,
        removal: &mut Removal,
        room: &mut usize,
    ) -> Result<Option<EventKind>, ApplyError> {
        let script = removal.script;
        let Some(row) = self.changes.watch(&script)?.cloned() else {
            return Ok(None);
        };
        let merging = &mut self.tracker.merging;
        merging.take_if(|merging| merging.script == script);
        self.changes.watches(script)?.set(None);
        let fingerprint = self.tracker.fingerprints.script(&row.spk);
        self.tracker.scripts.remove(fingerprint);
        self.tracker.uncount_depths(&row.depths);
        if !self.forget_rows(view, removal, room)? {
            self.changes.forgetting(script)?.set(Some(()));
            self.tracker.forgetting.insert(script);
        }
        Ok(Some(unwatched(script, row.spk, Vec::new())))
    }

    /// Removes the outputs of a script and its part in scans and transactions. At most about `room`
    /// rows, which is made less by them; answers whether none is left.
    fn forget_rows(
        &mut self,
        view: &V,
        removal: &mut Removal,
        room: &mut usize,
    ) -> Result<bool, ApplyError> {
        let script = removal.script;
        self.leave_scans(view, removal, room)?;
        while *room > 0
            && let Some(txid) = removal.moved.pop_first()
        {
            self.forget_part(&script, txid, room)?;
        }
        for outpoint in view.unspent(&script, removal.unspent, *room)? {
            self.forget_output(&script, outpoint)?;
            removal.unspent = Some(outpoint);
            *room = room.saturating_sub(1);
        }
        for place in view.history(&script, removal.history, *room)? {
            if *room == 0 {
                break;
            }
            self.forget_part(&script, place.1, room)?;
            removal.history = Some(place);
        }
        Ok(*room > 0)
    }

    /// Removes the part of a script in a transaction, which goes when it touches nobody else.
    fn forget_part(
        &mut self,
        script: &ScriptHash,
        txid: Txid,
        room: &mut usize,
    ) -> Result<(), ApplyError> {
        let Some(mut row) = self.changes.tx(&txid)?.cloned() else {
            *room = room.saturating_sub(1);
            return Ok(());
        };
        let tx = self.changes.transaction(&txid)?;
        let looks = tx.output.len() + tx.input.len();
        *room = room.saturating_sub(1 + looks);
        let created = (0..)
            .zip(&tx.output)
            .map(|(vout, _)| OutPoint { txid, vout });
        let spent = tx.input.iter().map(|input| input.previous_output);
        for outpoint in created.chain(spent) {
            self.forget_output(script, outpoint)?;
        }
        row.touches.retain(|touch| touch.script != *script);
        if !row.touches.is_empty() {
            return self.changes.rewrite_tx(txid, row);
        }
        self.tracker.mempool.untrack(&txid);
        self.changes.txs(txid)?.set(None);
        self.changes.raw_txs(txid)?.set(None);
        Ok(())
    }

    fn forget_output(&mut self, script: &ScriptHash, outpoint: OutPoint) -> Result<(), ApplyError> {
        match self
            .changes
            .output(&outpoint)?
            .is_some_and(|row| row.script == *script)
        {
            true => self.put_output(outpoint, None),
            false => Ok(()),
        }
    }
}
