//! Scripts that are forgotten: their rows go, and what only they made matter. What other scripts
//! know stays as it is.

use bitcoin::{OutPoint, Txid};

use super::event::{Cause, EventKind};
use super::state::Removal;
use super::step::Step;
use super::view::touches;
use super::{ApplyError, Ask, Change, ChangeSet, ScriptHash, Tracker, Transition, View};

impl Tracker {
    pub(super) fn unwatch(
        &mut self,
        view: &impl View,
        scripts: &[ScriptHash],
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let mut step = Step::new(self, view, now);
        let (mut told, mut has_left_scans) = (Vec::new(), false);
        let mut room = step.tracker.portion;
        let before = step.tracker.adding.clone();
        for script in scripts {
            let is_added = !step.tracker.adding.remove(script);
            step.tracker.merging.take_if(|merging| merging == script);
            let Some(row) = step.draft.watch(script)?.cloned() else {
                continue;
            };
            has_left_scans |= step.leave_scans(view, script)?;
            step.draft.remove_watch(script)?;
            let fingerprint = step.tracker.fingerprints.script(&row.spk);
            step.tracker.scripts.remove(fingerprint);
            step.tracker.uncount_depths(&row.depths);
            if !step.forget_rows(view, &mut Removal::of(*script), &mut room)? {
                step.draft.put_forgetting(*script, true);
                step.tracker.forgetting.insert(*script);
            }
            // Of an add that was not finished nobody was told, but of payments.
            if is_added || (row.tx_count, row.utxo_count) != (0, 0) {
                told.push(EventKind::Unwatched {
                    spk: row.spk,
                    script: *script,
                });
            }
        }
        step.put_adding(before);
        if has_left_scans {
            step.asks.push(Ask::Scans);
        }
        step.finish(Vec::new(), told, |_| {
            Cause::Removed(Txid::from_raw_hash(bitcoin::hashes::Hash::all_zeros()))
        })
    }

    pub(super) fn forget(&mut self, view: &impl View) -> Result<Transition, ApplyError> {
        let mut step = Step::new(self, view, 0);
        let mut room = step.tracker.portion;
        step.empty_ended_scans(view, &mut room)?;
        while room > 0 {
            let begun = step.tracker.removal.take();
            let next = step.tracker.forgetting.first().copied();
            let Some(mut removal) = begun.or(next.map(Removal::of)) else {
                break;
            };
            if !step.forget_rows(view, &mut removal, &mut room)? {
                step.tracker.removal = Some(removal);
                break;
            }
            step.draft.put_forgetting(removal.script, false);
            step.tracker.forgetting.remove(&removal.script);
        }
        Ok(Transition {
            changes: step.draft.into_changes(),
            ..Transition::default()
        })
    }

    /// Transactions that this moves to another place in the history that is going are not met
    /// behind where its removal has come to.
    pub(super) fn note_moved(&mut self, changes: &ChangeSet) {
        let Some(removal) = &mut self.removal else {
            return;
        };
        for change in &changes.0 {
            if let Change::Tx { txid, old, new } = change
                && let (Some(old), Some(new)) = (old, new)
                && old.order != new.order
                && touches(new, &removal.script)
            {
                removal.moved.insert(*txid);
            }
        }
    }
}

impl<V: View> Step<'_, V> {
    /// Removes the outputs of a script and its part in transactions. At most about `room` rows,
    /// which is made less by them; answers whether none is left.
    fn forget_rows(
        &mut self,
        view: &V,
        removal: &mut Removal,
        room: &mut usize,
    ) -> Result<bool, ApplyError> {
        let script = removal.script;
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
        let Some(mut row) = self.draft.tx(&txid)?.cloned() else {
            return Ok(());
        };
        let looks = row.tx.output.len() + row.tx.input.len();
        *room = room.saturating_sub(1 + looks);
        let created = (0..)
            .zip(&row.tx.output)
            .map(|(vout, _)| OutPoint { txid, vout });
        let spent = row.tx.input.iter().map(|input| input.previous_output);
        for outpoint in created.chain(spent) {
            self.forget_output(script, outpoint)?;
        }
        row.touches.retain(|touch| touch.script != *script);
        if !row.touches.is_empty() {
            return self.draft.put_tx(txid, row);
        }
        self.tracker.mempool.untrack(&txid);
        self.draft.remove_tx(&txid)
    }

    fn forget_output(&mut self, script: &ScriptHash, outpoint: OutPoint) -> Result<(), ApplyError> {
        match self
            .draft
            .output(&outpoint)?
            .is_some_and(|row| row.script == *script)
        {
            true => self.put_output(outpoint, None),
            false => Ok(()),
        }
    }
}
