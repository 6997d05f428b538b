//! History scans as such: opened, set back, ended. What they find is in [`super::scan_blocks`].
//!
//! A scan has thousands of scripts: they come into it in portions before its row, and leave it in
//! portions. A complete one ends with the last of them; a cancelled one has ended at once, and is
//! emptied between other inputs, also after a restart, as is one that was never opened.

use super::event::{EventKind, SubjectId};
use super::input::ScanEnd;
use super::state::Removal;
use super::transition::TransitionBuilder;
use super::{
    ApplyError, BlockId, Coverage, FollowUp, ScanId, ScanRow, ScanState, ScriptHash, Tracker,
    Transition, View, WatchRow,
};

impl Tracker {
    pub(super) fn scan_scripts(
        &mut self,
        view: &impl View,
        scan: ScanId,
        scripts: Vec<ScriptHash>,
    ) -> Result<Transition, ApplyError> {
        if view.scan(&scan)?.is_some() {
            return Err(ApplyError::ScanExists(scan));
        }
        let mut builder = TransitionBuilder::new(self, view, 0);
        builder.enter_scan(scan, scripts)?;
        Ok(Transition {
            changes: builder.changes.into_changes(),
            ..Transition::default()
        })
    }

    pub(super) fn open_scan(
        &mut self,
        view: &impl View,
        scan: ScanId,
        scripts: Vec<ScriptHash>,
        from: u32,
        to: Option<u32>,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        if view.scan(&scan)?.is_some() {
            return Err(ApplyError::ScanExists(scan));
        }
        let mut builder = TransitionBuilder::new(self, view, now);
        let before = view.scan_scripts(&scan, usize::MAX)?.len();
        let scripts = before + builder.enter_scan(scan, scripts)?;
        let row = ScanRow {
            created: now,
            updated: now,
            state: ScanState::Open,
            from,
            to,
            horizon: None,
            next: from,
            scripts: u32::try_from(scripts).unwrap_or(u32::MAX),
            found: 0,
        };
        builder.changes.scans(scan)?.set(Some(row));
        builder.tracker.scans.insert(scan);
        Ok(Transition {
            changes: builder.changes.into_changes(),
            events: Vec::new(),
            follow_ups: vec![FollowUp::Scans],
        })
    }

    pub(super) fn skip_pruned(
        &mut self,
        view: &impl View,
        scans: &[ScanId],
        horizon: u32,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let mut builder = TransitionBuilder::new(self, view, now);
        for scan in scans {
            let Some(row) = builder.open_row(scan)?.filter(|row| row.next < horizon) else {
                continue;
            };
            builder.changes.scans(*scan)?.set(Some(ScanRow {
                horizon: Some(horizon),
                next: horizon,
                updated: now,
                ..row
            }));
        }
        Ok(Transition {
            changes: builder.changes.into_changes(),
            ..Transition::default()
        })
    }

    pub(super) fn close_scan(
        &mut self,
        view: &impl View,
        scan: ScanId,
        end: ScanEnd,
        now: u64,
    ) -> Result<Transition, ApplyError> {
        let mut builder = TransitionBuilder::new(self, view, now);
        let row = builder
            .open_row(&scan)?
            .ok_or(ApplyError::NoSuchScan(scan))?;
        // Each is some rows.
        let portion = builder.tracker.portion / 2;
        let mut scripts = view.scan_scripts(&scan, portion.saturating_add(1))?;
        let is_last = scripts.len() <= portion;
        scripts.truncate(portion);
        let mut ends = Vec::new();
        if let ScanEnd::Complete(upto) = end {
            builder.tracker.must_be_ours(view, upto)?;
            if builder.turn_back(scan, &row, upto)? {
                return Ok(Transition {
                    changes: builder.changes.into_changes(),
                    events: Vec::new(),
                    follow_ups: builder.follow_ups,
                });
            }
            if !builder.has_come_far_enough(&row, &scripts)? {
                return Err(ApplyError::ScanMoved {
                    scan,
                    height: upto.height,
                });
            }
            for script in &scripts {
                ends.extend(builder.complete(scan, &row, script, upto)?);
            }
            ends.extend(builder.complete_descriptor((scan, &row), &scripts, is_last, upto)?);
        }
        for script in &scripts {
            builder.changes.leave_scan(scan, *script);
        }
        let (state, to) = match end {
            ScanEnd::Complete(_) if !is_last => (ScanState::Open, row.to),
            ScanEnd::Complete(_) => (ScanState::Complete, row.to),
            ScanEnd::Cancelled(to) => (ScanState::Cancelled, row.to.or(to)),
        };
        if state != ScanState::Open {
            builder.tracker.scans.remove(&scan);
            builder.follow_ups.push(FollowUp::Scans);
        }
        if state == ScanState::Cancelled && !is_last {
            builder.tracker.ended_scans.insert(scan);
        }
        let row = ScanRow {
            state,
            to,
            updated: now,
            ..row
        };
        builder.changes.scans(scan)?.set(Some(row));
        builder.finish(Vec::new(), ends, |_| {
            unreachable!("the end of a scan moves no output")
        })
    }

    /// A block that is not in our chain is refused. Below the blocks that we know the node's chain
    /// is ours.
    pub(super) fn must_be_ours(&self, view: &impl View, block: BlockId) -> Result<(), ApplyError> {
        let refused = ApplyError::NotInChain {
            tip: self.tip,
            to: block,
        };
        if self.tip.is_none_or(|tip| tip.height < block.height) {
            return Err(refused);
        }
        match view.block(&block.height)? {
            Some(row) if row.hash != block.hash => Err(refused),
            _ => Ok(()),
        }
    }
}

impl<V: View> TransitionBuilder<'_, V> {
    pub fn open_row(&mut self, scan: &ScanId) -> Result<Option<ScanRow>, ApplyError> {
        Ok(self
            .changes
            .scan(scan)?
            .filter(|row| row.state == ScanState::Open)
            .cloned())
    }

    /// Sets scans that were above `height` back to it: what they found there has gone.
    pub fn take_back_scans(&mut self, height: u32) -> Result<(), ApplyError> {
        for scan in self.tracker.scans.clone() {
            let Some(row) = self.open_row(&scan)? else {
                continue;
            };
            self.take_back_way(scan, height.saturating_add(1))?;
            let next = row.next.min(height.saturating_add(1)).max(row.first());
            if next != row.next {
                self.changes.scans(scan)?.set(Some(ScanRow { next, ..row }));
            }
        }
        Ok(())
    }

    /// Whether a scan has met the coverage of all its scripts, or did what it was told.
    fn has_come_far_enough(
        &mut self,
        row: &ScanRow,
        scripts: &[ScriptHash],
    ) -> Result<bool, ApplyError> {
        if row.to.is_some_and(|to| row.next > to) {
            return Ok(true);
        }
        for script in scripts {
            let Some(coverage) = self.changes.watch(script)?.map(|watch| &watch.coverage) else {
                continue;
            };
            if coverage.is_awaited() || coverage.from_height > row.next {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts scripts into a scan, those that are watched and not in it; how many.
    pub fn enter_scan(
        &mut self,
        scan: ScanId,
        mut scripts: Vec<ScriptHash>,
    ) -> Result<usize, ApplyError> {
        self.tracker.ended_scans.remove(&scan);
        scripts.sort_unstable();
        scripts.dedup();
        let mut entered = 0;
        for script in scripts {
            if self.changes.watch(&script)?.is_some()
                && self.changes.scan_script(&(scan, script))?.is_none()
            {
                self.changes.scan_scripts((scan, script))?.set(Some(()));
                entered += 1;
            }
        }
        Ok(entered)
    }

    /// A script's history is whole from the first block of a scan on. `None`: it is not told.
    fn complete(
        &mut self,
        scan: ScanId,
        row: &ScanRow,
        script: &ScriptHash,
        upto: BlockId,
    ) -> Result<Option<EventKind>, ApplyError> {
        let subject = self.subject(&SubjectId::Script(*script))?;
        let watch = self.changes.watch(script)?.cloned();
        let Some((subject, watch)) = subject.zip(watch) else {
            return Ok(None);
        };
        let from = row.first();
        let is_told = watch.listed || self.changes.descriptor_scan(&scan)?.is_none();
        // Without the outputs that it owned, what spends them is not known either.
        let known_from = match watch.coverage.left_out {
            true => from.max(watch.coverage.from_height),
            false => from,
        };
        let end = EventKind::ScanComplete {
            subject,
            scan,
            from: known_from,
            to: upto.height,
            transactions: watch.tx_count,
        };
        let known = watch.coverage.from_height;
        if watch.coverage.utxos_complete && (from..=row.next).contains(&known) {
            let coverage = Coverage {
                from_height: from,
                ..watch.coverage
            };
            self.changes
                .watches(*script)?
                .set(Some(WatchRow { coverage, ..watch }));
        }
        Ok(is_told.then_some(end))
    }

    /// If it is added again, a scan that began before must not speak for it. Those that have ended
    /// are emptied by themselves. At most about `room` rows, which is made less by them.
    pub fn leave_scans(
        &mut self,
        view: &V,
        removal: &mut Removal,
        room: &mut usize,
    ) -> Result<(), ApplyError> {
        let script = removal.script;
        for scan in view.scans_of(&script, removal.scan, room.div_ceil(2))? {
            removal.scan = Some(scan);
            *room = room.saturating_sub(2);
            if self.tracker.ended_scans.contains(&scan) {
                continue;
            }
            self.changes.leave_scan(scan, script);
            let Some(row) = self.open_row(&scan)? else {
                continue;
            };
            if !self.follow_ups.contains(&FollowUp::Scans) {
                self.follow_ups.push(FollowUp::Scans);
            }
            let scripts = row.scripts.saturating_sub(1);
            let state = match scripts {
                // Without a script it has nothing to complete.
                0 => ScanState::Cancelled,
                _ => row.state,
            };
            if state != ScanState::Open {
                self.tracker.scans.remove(&scan);
            }
            let row = ScanRow {
                scripts,
                state,
                ..row
            };
            self.changes.scans(scan)?.set(Some(row));
        }
        Ok(())
    }

    /// Takes scripts out of scans that have ended, or were never opened. At most `room` of them,
    /// which is made less by them.
    pub fn empty_ended_scans(&mut self, view: &V, room: &mut usize) -> Result<(), ApplyError> {
        while *room > 0
            && let Some(scan) = self.tracker.ended_scans.first().copied()
        {
            let scripts = view.scan_scripts(&scan, room.saturating_add(1))?;
            for script in scripts.iter().take(*room) {
                self.changes.leave_scan(scan, *script);
            }
            if scripts.len() <= *room {
                self.tracker.ended_scans.remove(&scan);
            }
            *room = room.saturating_sub(scripts.len());
        }
        Ok(())
    }
}
