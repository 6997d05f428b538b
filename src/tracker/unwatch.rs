//! Scripts that are forgotten: their rows go, and what only they made matter. What other scripts
//! know stays as it is.

use std::collections::HashSet;

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
        let (mut told, mut scanned, mut in_scans) = (Vec::new(), HashSet::new(), 0_u64);
        for script in scripts {
            let Some(row) = step.draft.watch(script)?.cloned() else {
                continue;
            };
            step.forget_outputs(view, script)?;
            if row.coverage.scans > 0 {
                scanned.insert(*script);
                in_scans = in_scans.saturating_add(u64::from(row.coverage.scans));
            }
            step.draft.remove_watch(script)?;
            let fingerprint = step.tracker.fingerprints.script(&row.spk);
            step.tracker.scripts.remove(fingerprint);
            step.tracker.uncount_depths(&row.depths);
            told.push(EventKind::Unwatched {
                spk: row.spk,
                script: *script,
            });
        }
        if !scanned.is_empty() {
            step.leave_scans(&scanned, in_scans)?;
        }
        step.finish(Vec::new(), told, |_| {
            Cause::Removed(Txid::from_raw_hash(bitcoin::hashes::Hash::all_zeros()))
        })
    }
}

impl<V: View> Step<'_, V> {
    /// Removes the outputs of a script and its part in transactions; those that touch nobody else
    /// any more go.
    fn forget_outputs(&mut self, view: &V, script: &ScriptHash) -> Result<(), ApplyError> {
        for outpoint in view.unspent(script)? {
            self.forget_output(script, outpoint)?;
        }
        for txid in view.history(script)? {
            let Some(mut row) = self.draft.tx(&txid)?.cloned() else {
                continue;
            };
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
        Ok(())
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

    /// If they are added again, a scan that began before must not speak for them.
    /// `places`: how many they have in scans, all together.
    fn leave_scans(
        &mut self,
        gone: &HashSet<ScriptHash>,
        mut places: u64,
    ) -> Result<(), ApplyError> {
        for scan in self.tracker.scans.clone() {
            if places == 0 {
                break;
            }
            let Some(mut left) = self.draft.look_at_scan_scripts(&scan)? else {
                continue;
            };
            let before = left.len();
            left.retain(|script| !gone.contains(script));
            if left.len() == before {
                continue;
            }
            places = places.saturating_sub((before - left.len()) as u64);
            // Without a script it has nothing to complete.
            let is_over = left.is_empty();
            if let Some(row) = self.draft.scan(&scan)?.cloned() {
                let scripts = u32::try_from(left.len()).unwrap_or(u32::MAX);
                let state = if is_over {
                    ScanState::Cancelled
                } else {
                    row.state
                };
                self.draft.put_scan(
                    scan,
                    ScanRow {
                        scripts,
                        state,
                        ..row
                    },
                )?;
            }
            if is_over {
                self.tracker.scans.remove(&scan);
            }
            self.draft
                .put_scan_scripts(scan, Some(left).filter(|_| !is_over))?;
        }
        self.asks.push(Ask::Scans);
        Ok(())
    }
}
