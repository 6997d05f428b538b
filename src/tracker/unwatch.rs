//! Scripts that are forgotten: their rows go, and what only they made matter. What other scripts
//! know stays as it is.

use bitcoin::{OutPoint, Txid};

use super::event::{Cause, EventKind};
use super::step::Step;
use super::{ApplyError, Ask, ScanRow, ScanState, ScriptHash, Tracker, Transition, View};

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
        for script in scripts {
            let Some(row) = step.draft.watch(script)?.cloned() else {
                continue;
            };
            has_left_scans |= step.leave_scans(view, script)?;
            step.draft.remove_watch(script)?;
            let fingerprint = step.tracker.fingerprints.script(&row.spk);
            step.tracker.scripts.remove(fingerprint);
            step.tracker.uncount_depths(&row.depths);
            if !step.forget_rows(view, script, &mut room)? {
                step.draft.put_forgetting(*script, true);
                step.tracker.forgetting.insert(*script);
            }
            told.push(EventKind::Unwatched {
                spk: row.spk,
                script: *script,
            });
        }
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
        while let Some(script) = step.tracker.forgetting.first().copied() {
            if !step.forget_rows(view, &script, &mut room)? {
                break;
            }
            step.draft.put_forgetting(script, false);
            step.tracker.forgetting.remove(&script);
        }
        Ok(Transition {
            changes: step.draft.into_changes(),
            ..Transition::default()
        })
    }
}

impl<V: View> Step<'_, V> {
    /// Removes the outputs of a script and its part in transactions; those that touch nobody else
    /// any more go. At most about `room` rows, which is made less by them; answers whether none is
    /// left.
    fn forget_rows(
        &mut self,
        view: &V,
        script: &ScriptHash,
        room: &mut usize,
    ) -> Result<bool, ApplyError> {
        for outpoint in view.unspent(script, *room)? {
            self.forget_output(script, outpoint)?;
            *room = room.saturating_sub(1);
        }
        for txid in view.history(script, *room)? {
            if *room == 0 {
                break;
            }
            let Some(mut row) = self.draft.tx(&txid)?.cloned() else {
                continue;
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
                self.draft.put_tx(txid, row)?;
                continue;
            }
            self.tracker.mempool.untrack(&txid);
            self.draft.remove_tx(&txid)?;
        }
        Ok(*room > 0)
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

    /// If it is added again, a scan that began before must not speak for it. Answers whether it was
    /// in one.
    fn leave_scans(&mut self, view: &V, script: &ScriptHash) -> Result<bool, ApplyError> {
        let scans = view.scans_of(script)?;
        for scan in &scans {
            self.draft.put_scan_script(*scan, *script, false);
            let Some(row) = self.draft.scan(scan)?.cloned() else {
                continue;
            };
            let scripts = row.scripts.saturating_sub(1);
            let state = match scripts {
                // Without a script it has nothing to complete.
                0 => ScanState::Cancelled,
                _ => row.state,
            };
            if state != ScanState::Open {
                self.tracker.scans.remove(scan);
            }
            let row = ScanRow {
                scripts,
                state,
                ..row
            };
            self.draft.put_scan(*scan, row)?;
        }
        Ok(!scans.is_empty())
    }
}
